// Kernel: whether an equation holds. Twin: close.rs.
//
// An invocation per equation: the windows' sums by Horner's rule, the multiples of B in the same loop, then times 8. The result must be
// the neutral element; Z = 0, which no point has, is what memory that nobody wrote would give. `flags` gets a word per equation behind
// the rows': the one that the host chose for this batch if the equation holds, so that an old answer is not taken for a new one.

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
    let number = id.x;
    if (number >= params.option) {
        return;
    }
    var zero: Fe;
    var any = 0u;
    var acc = point_identity();
    for (var step = 0u; step < WINDOWS + 1u; step++) {
        // 8 doublings between the windows, and the 3 of the cofactor in the end.
        let count = select(select(8u, 3u, step == WINDOWS), 0u, step == 0u);
        for (var i = 0u; i < count; i++) {
            acc = point_double(acc, i == count - 1u);
        }
        let window = WINDOWS - 1u - step;
        // Source 0: the window's sum. Source 1, every other window: a multiple of B.
        let sources = select(1u + ((window + 1u) & 1u), 0u, step == WINDOWS);
        for (var source = 0u; source < sources; source++) {
            var q: Summand;
            var digit = 1;
            if (source == 0u) {
                let group = select(8u + (window >> 1u), window, window < 16u);
                let place = lane_place(number, group, select(32u * (window & 1u), 0u, window < 16u));
                any |= word_load(2u * (place + 20u));
                q = summand_of(lanes_load(place));
            } else {
                let word = keys[params.lanes + params.rows + 3u * number + 1u + (window >> 4u)][(window >> 2u) & 3u];
                digit = i32((word >> (8u * (window & 2u))) & 0xffffu) - 32768;
                if (digit != 0) {
                    let plus = select(0u, 5u, digit < 0);
                    let at = (u32(abs(digit)) - 1u) * 15u;
                    q.y_plus_x = base_load(at + plus);
                    q.y_minus_x = base_load(at + 5u - plus);
                    q.t2d = base_load(at + 10u);
                    if (digit < 0) {
                        q.t2d = fe_sub(zero, q.t2d);
                    }
                }
            }
            if (digit != 0) {
                acc = point_add(acc, q, source == 1u, true);
            }
        }
    }
    let neutral = fe_is_zero(acc.x) && fe_is_zero(fe_sub(acc.y, acc.z)) && !fe_is_zero(acc.z);
    flags[params.rows + number] = select(0u, equation_rows(number).z, neutral && any == 0u);
}
