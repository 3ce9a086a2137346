// Kernel: [8] Q = [8] R, the whole ZIP-215 equation, for the rows that finish.wgsl left open. Twin: exact.rs.
//
// Among honest signatures there are none, so this kernel is idle unless someone sends bad or odd ones.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    if (flags[row] != 0u) {
        return;
    }
    // The first round multiplies R by 8, the second Q.
    var r8: Point;
    var p = point_identity();
    p.x = points_load(row, 3u);
    p.y = fe_from_words(r_words(row));
    for (var i = 0u; i < 6u; i++) {
        if (i == 3u) {
            r8 = p;
            p.x = points_load(row, 0u);
            p.y = points_load(row, 1u);
            p.z = points_load(row, 2u);
        }
        p = point_double(p, false);
    }
    let same_x = fe_is_zero(fe_sub(fe_mul(fe_bound(p.x), fe_bound(r8.z)), fe_mul(fe_bound(r8.x), fe_bound(p.z))));
    let same_y = fe_is_zero(fe_sub(fe_mul(fe_bound(p.y), fe_bound(r8.z)), fe_mul(fe_bound(r8.y), fe_bound(p.z))));
    flags[row] = select(FLAG_INVALID, FLAG_VALID, same_x && same_y);
}
