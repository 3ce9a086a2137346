// Integers modulo l = 2^252 + c, the order of the base point, and their signed digits. Twin: scalar.rs.
//
// c = 27742317777372353535851937790883648493, 125 bits. Limbs of 13 bits; the topmost one carries the sign.

/// c in 13-bit limbs.
const L_LOW = array<i32, 10>(5101, 1966, 1687, 1222, 1409, 3691, 3038, 7124, 7929, 166);
/// 256 c in 13-bit limbs: 2^260 = -256 c (mod l).
const L_FOLD = array<i32, 11>(3328, 3743, 5949, 1588, 294, 2860, 7795, 5214, 6622, 1783, 5);
/// l in words.
const L_WORDS = array<u32, 8>(0x5cf5d3edu, 0x5812631au, 0xa2f79cd6u, 0x14def9deu, 0u, 0u, 0u, 0x10000000u);

/// A 512-bit integer modulo l, below l.
fn scalar_reduce(x: array<u32, 16>) -> array<u32, 8> {
    var a: array<i32, 40>;
    unroll for (var i = 0u; i < 40u; i++) {
        var limb = x[13u * i / 32u] >> (13u * i % 32u);
        static if (13u * i % 32u > 19u) {
            static if (13u * i / 32u < 15u) {
                limb |= x[13u * i / 32u + 1u] << (32u - 13u * i % 32u);
            }
        }
        a[i] = i32(limb & 8191u);
    }
    return scalar_fold(a);
}

/// The same for 40 limbs of 13 bits, the topmost of 5.
fn scalar_fold(a: array<i32, 40>) -> array<u32, 8> {
    // Limbs 20 .. 39 fold onto 0 .. 29: above -2^393 now, limb 30 is the carry and has the sign.
    var b: array<i32, 31>;
    var carry = 0;
    unroll for (var k = 0u; k < 30u; k++) {
        var t = carry;
        static if (k < 20u) {
            t += a[k];
        }
        unroll for (var j = 0u; j < 20u; j++) {
            static if (j <= k) {
                static if (k < j + 11u) {
                    t -= a[20u + j] * L_FOLD[k - j];
                }
            }
        }
        b[k] = t & 8191;
        carry = t >> 13u;
    }
    b[30u] = carry;
    // Limbs 20 .. 30 fold onto 0 .. 20: between -2^261 and 2^267; limb 20 is not cut and has the sign.
    var d: array<i32, 21>;
    carry = 0;
    unroll for (var k = 0u; k < 21u; k++) {
        var t = carry;
        static if (k < 20u) {
            t += b[k];
        }
        unroll for (var j = 0u; j < 11u; j++) {
            static if (j <= k) {
                static if (k < j + 11u) {
                    t -= b[20u + j] * L_FOLD[k - j];
                }
            }
        }
        static if (k < 20u) {
            d[k] = t & 8191;
            carry = t >> 13u;
        } else {
            d[k] = t;
        }
    }
    // What lies beyond bit 252 folds times c: between -2^141 and 2^252 + 2^141.
    let high = (d[20u] << 8u) + (d[19u] >> 5u);
    d[19u] &= 31;
    carry = 0;
    unroll for (var k = 0u; k < 19u; k++) {
        var t = d[k] + carry;
        static if (k < 10u) {
            t -= high * L_LOW[k];
        }
        d[k] = t & 8191;
        carry = t >> 13u;
    }
    d[19u] += carry;
    // Plus l if negative, then minus l if that is not negative.
    let add_l = select(0, 1, d[19u] < 0);
    carry = 0;
    unroll for (var k = 0u; k < 19u; k++) {
        var t = d[k] + carry;
        static if (k < 10u) {
            t += add_l * L_LOW[k];
        }
        d[k] = t & 8191;
        carry = t >> 13u;
    }
    d[19u] += carry + 32 * add_l;
    var less: array<i32, 20>;
    carry = 0;
    unroll for (var k = 0u; k < 19u; k++) {
        var t = d[k] + carry;
        static if (k < 10u) {
            t -= L_LOW[k];
        }
        less[k] = t & 8191;
        carry = t >> 13u;
    }
    less[19u] = d[19u] + carry - 32;
    let take = less[19u] >= 0;
    var r: array<u32, 8>;
    unroll for (var i = 0u; i < 20u; i++) {
        let limb = u32(select(d[i], less[i], take));
        r[13u * i / 32u] |= limb << (13u * i % 32u);
        static if (13u * i % 32u > 19u) {
            static if (13u * i / 32u < 7u) {
                r[13u * i / 32u + 1u] |= limb >> (32u - 13u * i % 32u);
            }
        }
    }
    return r;
}

/// Whether the words are below l: ZIP-215 wants it of s.
fn scalar_is_canonical(s: array<u32, 8>) -> bool {
    var less = false;
    var equal = true;
    unroll for (var i = 0u; i < 8u; i++) {
        less = less || (equal && s[7u - i] < L_WORDS[7u - i]);
        equal = equal && s[7u - i] == L_WORDS[7u - i];
    }
    return less;
}

/// a + `bias` in every word: with a bias of half a digit, a field f of the sum stands for the digit f - half.
///
/// For 4-bit digits the bias is 0x88888888 (digits -8 .. 7), for 16-bit digits 0x80008000 (-32,768 .. 32,767).
/// Below 2^253 in, so that nothing is carried out.
fn scalar_digits(a: array<u32, 8>, bias: u32) -> array<u32, 8> {
    var r: array<u32, 8>;
    var carry = 0u;
    unroll for (var i = 0u; i < 8u; i++) {
        let t = a[i] + bias;
        let sum = t + carry;
        carry = select(0u, 1u, t < bias || sum < t);
        r[i] = sum;
    }
    return r;
}

/// What both hash kernels leave for the ladder: digits of k and s, word by word with rows side by side, and the flag.
fn scalars_store(row: u32, digest: array<u32, 16>) {
    let k = scalar_digits(scalar_reduce(digest), 0x88888888u);
    let s = words_of(signatures[4u * row + 2u], signatures[4u * row + 3u]);
    let s_digits = scalar_digits(s, 0x80008000u);
    unroll for (var i = 0u; i < 8u; i++) {
        scalars[i * params.rows + row] = k[i];
        scalars[(8u + i) * params.rows + row] = s_digits[i];
    }
    flags[row] = select(FLAG_INVALID, 0u, scalar_is_canonical(s));
}
