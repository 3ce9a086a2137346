// Kernel: Q = s B - k A, by Straus' interleaving. Twin: ladder.rs.
//
// k in 64 signed digits of 4 bits, looked up among the row's eight multiples of -A; s in 16 signed digits of 16 bits,
// looked up among 32,768 multiples of B that all rows share. 252 doublings, at most 64 + 16 additions, in one loop
// that holds one doubling and one addition. The lookups may depend on k and s: nothing here is secret.

fn tables_load(at: u32) -> Fe {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 5u; i++) {
        let pair = tables[at + i];
        w[2u * i] = pair.x;
        w[2u * i + 1u] = pair.y;
    }
    return fe_unpack(w);
}

fn base_load(at: u32) -> Fe {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 5u; i++) {
        let pair = base[at + i];
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
    var zero: Fe;
    var acc = point_identity();
    for (var step = 0u; step < 64u; step++) {
        let window = 63u - step;
        if (step > 0u) {
            for (var i = 0u; i < 4u; i++) {
                acc = point_double(acc, i == 3u);
            }
        }
        // Source 0: the row's own table. Source 1, every fourth window: the shared one.
        let both = (window & 3u) == 0u;
        for (var from_base = 0u; from_base < select(1u, 2u, both); from_base++) {
            var digit: i32;
            if (from_base == 0u) {
                let word = scalars[(window >> 3u) * params.rows + row];
                digit = i32((word >> (4u * (window & 7u))) & 15u) - 8;
            } else {
                let word = scalars[(8u + (window >> 3u)) * params.rows + row];
                digit = i32((word >> (4u * (window & 4u))) & 0xffffu) - 32768;
            }
            if (digit != 0) {
                let negative = digit < 0;
                let entry = u32(abs(digit)) - 1u;
                // The negative of a point swaps y + x with y - x.
                let plus = select(0u, 5u, negative);
                var q: Summand;
                if (from_base == 0u) {
                    let at = (row * 8u + entry) * 20u;
                    q.y_plus_x = tables_load(at + plus);
                    q.y_minus_x = tables_load(at + 5u - plus);
                    q.z2 = tables_load(at + 10u);
                    q.t2d = tables_load(at + 15u);
                } else {
                    let at = entry * 15u;
                    q.y_plus_x = base_load(at + plus);
                    q.y_minus_x = base_load(at + 5u - plus);
                    q.t2d = base_load(at + 10u);
                }
                if (negative) {
                    q.t2d = fe_sub(zero, q.t2d);
                }
                acc = point_add(acc, q, from_base == 1u, both && from_base == 0u);
            }
        }
    }
    points_store(row, 0u, acc.x);
    points_store(row, 1u, acc.y);
    points_store(row, 2u, acc.z);
}
