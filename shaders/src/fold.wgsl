// Kernel: the sum of a window's lanes, and whether a row of the equation is invalid already. Twin: fold.rs.
//
// An invocation per window. The sum goes to the first lane's place, and what was found among every 32nd row's flags to the word behind.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let number = id.x / WINDOWS;
    let window = id.x % WINDOWS;
    if (number >= params.option) {
        return;
    }
    let group = select(8u + (window >> 1u), window, window < 16u);
    let first = select(32u * (window & 1u), 0u, window < 16u);
    let width = select(32u, 64u, window < 16u);
    let place = lane_place(number, group, first);
    var p = lanes_load(place);
    for (var lane = 1u; lane < width; lane++) {
        p = point_add(p, summand_of(lanes_load(place + lane * LANE_PAIRS)), false, true);
    }
    lanes_store(place, p);
    let equation = equation_rows(number);
    var any = 0u;
    for (var row = window; row < equation.y; row += WINDOWS) {
        any |= flags[equation.x + row];
    }
    word_store(2u * (place + 20u), any);
}
