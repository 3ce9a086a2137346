// Kernel: A and R of a row as affine summands, for the sums of the batch equation. Twin: prepare.rs.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    if (flags[row] != 0u) {
        return;
    }
    let place = place_of(row);
    var w = key_words(row);
    if (is_resident(row, place) && is_foreign(place, w)) {
        flags[row] = FLAG_INVALID;
        return;
    }
    var x = place_load(place);
    for (var point = 0u; point < 2u; point++) {
        if (point == 1u) {
            x = points_load(row, 3u);
            w = r_words(row);
        }
        let y = fe_from_words(w);
        let at = summand_place(row, point);
        lanes_store_fe(at, fe_tidy(fe_add(y, x)));
        lanes_store_fe(at + 5u, fe_tidy(fe_sub(y, x)));
        lanes_store_fe(at + 10u, fe_mul(fe_mul(x, y), FE_2D));
    }
}
