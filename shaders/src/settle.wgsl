// Kernel: the rows of equations that hold are valid. Twin: settle.rs.
//
// 16 groups an equation, one lane a row. Rows of other equations stay open, and the ladder verifies each of them.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group_id.x / EQUATION_GROUPS;
    let equation = equation_rows(number);
    let row = (group_id.x % EQUATION_GROUPS) * 64u + lane;
    if (row >= equation.y || flags[params.rows + number] != equation.z) {
        return;
    }
    if (flags[equation.x + row] == 0u) {
        flags[equation.x + row] = FLAG_VALID;
    }
}
