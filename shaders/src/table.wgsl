// Kernel: the multiples 1 .. 8 of -A as summands, for the ladder. Twin: table.rs.
//
// x of A is at the row's place. A resident entry says whose x it is; one of another key makes the row invalid here, and
// the host's second look at every refusal finds out who was wrong.

fn tables_store(at: u32, a: Fe) {
    let w = fe_pack(a);
    unroll for (var i = 0u; i < 5u; i++) {
        tables[at + i] = vec2<u32>(w[2u * i], w[2u * i + 1u]);
    }
}

fn tables_load(at: u32) -> Fe {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 5u; i++) {
        let pair = tables[at + i];
        w[2u * i] = pair.x;
        w[2u * i + 1u] = pair.y;
    }
    return fe_unpack(w);
}

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
    let key = key_words(row);
    if (is_resident(row, place) && is_foreign(place, key)) {
        flags[row] = FLAG_INVALID;
        return;
    }
    var zero: Fe;
    var p = point_identity();
    p.x = fe_tidy(fe_sub(zero, place_load(place)));
    p.y = fe_from_words(key);
    p.t = fe_mul(p.x, p.y);
    for (var i = 0u; i < 8u; i++) {
        var q: Summand;
        q.y_plus_x = fe_tidy(fe_add(p.y, p.x));
        q.y_minus_x = fe_tidy(fe_sub(p.y, p.x));
        q.z2 = fe_tidy(fe_add(p.z, p.z));
        q.t2d = fe_mul(fe_bound(p.t), FE_2D);
        let at = (row * 8u + i) * 20u;
        tables_store(at, q.y_plus_x);
        tables_store(at + 5u, q.y_minus_x);
        tables_store(at + 10u, q.z2);
        tables_store(at + 15u, q.t2d);
        if (i < 7u) {
            // The first entry comes back from memory: in registers it would push others out.
            q.y_plus_x = tables_load(row * 160u);
            q.y_minus_x = tables_load(row * 160u + 5u);
            q.z2 = tables_load(row * 160u + 10u);
            q.t2d = tables_load(row * 160u + 15u);
            p = point_add(p, q, false, true);
        }
    }
}
