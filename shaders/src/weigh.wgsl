// Kernel: z k mod l of a row, and the digits of z k and z. Twin: weigh.rs.
//
// The 16 random bytes u of a row stand for the digits u - 128 of z, so that every z is one of 2^128 consecutive integers, about half of
// them negative. (z is multiplied by a point whose order may be 8 l, and must not be reduced; z k is, which changes its multiple of A by a
// point of small order at most, and the equation's 8 takes that away.)

/// 0x80 in each of 16 bytes, in limbs of 13 bits.
const Z_BIAS = array<i32, 10>(128, 1028, 32, 257, 2056, 64, 514, 4112, 128, 1028);

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    // k, from the ladder's digits.
    var k: array<u32, 8>;
    var borrow = 0u;
    unroll for (var i = 0u; i < 8u; i++) {
        let word = scalars[i * params.rows + row];
        let t = word - 0x88888888u;
        k[i] = t - borrow;
        borrow = select(0u, 1u, word < 0x88888888u || t < borrow);
    }
    let four = keys[params.lanes + row];
    let u = array<u32, 4>(four.x, four.y, four.z, four.w);
    var z: array<i32, 10>;
    unroll for (var i = 0u; i < 10u; i++) {
        var limb = u[13u * i / 32u] >> (13u * i % 32u);
        static if (13u * i % 32u > 19u) {
            static if (13u * i / 32u < 3u) {
                limb |= u[13u * i / 32u + 1u] << (32u - 13u * i % 32u);
            }
        }
        z[i] = i32(limb & 8191u) - Z_BIAS[i];
    }
    var b: array<i32, 20>;
    unroll for (var i = 0u; i < 20u; i++) {
        var limb = k[13u * i / 32u] >> (13u * i % 32u);
        static if (13u * i % 32u > 19u) {
            static if (13u * i / 32u < 7u) {
                limb |= k[13u * i / 32u + 1u] << (32u - 13u * i % 32u);
            }
        }
        b[i] = i32(limb & 8191u);
    }
    // z k + 2^130 l, which is not negative and below 2^383. Columns are within 10 * 2^26.
    var a: array<i32, 40>;
    var carry = 0;
    unroll for (var c = 0u; c < 30u; c++) {
        var t = carry;
        unroll for (var j = 0u; j < 10u; j++) {
            static if (j <= c) {
                static if (c < j + 20u) {
                    t += z[j] * b[c - j];
                }
            }
        }
        static if (c > 9u) {
            static if (c < 20u) {
                t += L_LOW[c - 10u];
            }
        }
        static if (c == 29u) {
            t += 32;
        }
        a[c] = t & 8191;
        carry = t >> 13u;
    }
    let zk = scalar_digits(scalar_fold(a), 0x80808080u);
    unroll for (var i = 0u; i < 8u; i++) {
        word_store(i * params.rows + row, zk[i]);
    }
    unroll for (var i = 0u; i < 4u; i++) {
        word_store((8u + i) * params.rows + row, u[i]);
    }
}
