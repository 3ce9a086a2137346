// GF(2^255 - 19), layout `u32x20`: 20 limbs of 13 bits, 32-bit integers only. Twin: field20.rs.
//
// Value of a: sum of a[i] * 2^(13 i), modulo p = 2^255 - 19. Since 2^260 = 608 (mod p), limb 20 folds onto limb 0
// times 608. A column of a product is a sum of at most 20 terms and must stay below 2^32:
//
//   name    made by                                    each limb at most
//   tight   fe_mul, fe_sq, fe_tidy, fe_trim, loads      8,200
//   sum     fe_add of two tight values                 16,400
//   wide    fe_sub(tight - tight), tight + sum         26,000
//   loose   fe_sub(sum or wide - tight)                42,400
//
// fe_mul(a, b): one operand tight, the other up to wide: 20 * 8,200 * 26,000 + 2^25 < 2^32.
// fe_sq(a): tight. fe_sub(a, b): b tight. fe_tidy, fe_trim: limbs below 2^16.
// The masks after a subtraction and in fe_bound change no value: they show compilers that operands fit 24 bits, where
// AMD multiplies at full rate instead of a quarter of it. (A mask of 16 bits would be turned into an extraction that
// Mesa's range analysis does not see through.)

const FE_LIMBS = 20u;
const FE_MASK = 8191u;
const FE_FOLD = 608u;
alias Fe = array<u32, 20>;

const FE_D = Fe(6307u, 6859u, 4740u, 5787u, 5982u, 3157u, 1287u, 2472u, 4106u, 3u, 6694u, 3827u, 1943u, 928u, 3635u, 8142u, 2927u, 1905u, 219u, 164u);
const FE_2D = Fe(4441u, 5527u, 1289u, 3383u, 3773u, 6315u, 2574u, 4944u, 20u, 7u, 5196u, 7655u, 3886u, 1856u, 7270u, 8092u, 5855u, 3810u, 438u, 72u);
const FE_SQRT_M1 = Fe(176u, 4213u, 2514u, 7222u, 3150u, 4668u, 5311u, 213u, 792u, 6522u, 5609u, 7159u, 2451u, 1664u, 3245u, 7137u, 4033u, 1026u, 201u, 87u);

/// a + b, no carries.
fn fe_add(a: Fe, b: Fe) -> Fe {
    var r: Fe;
    unroll for (var i = 0u; i < 20u; i++) {
        r[i] = a[i] + b[i];
    }
    return r;
}

/// a - b + 64 p, limb by limb: no limb goes below zero, because 64 p is taken with limbs of 15,168 and 16,382.
fn fe_sub(a: Fe, b: Fe) -> Fe {
    var r: Fe;
    r[0u] = (a[0u] + 15168u - b[0u]) & 0x1ffffu;
    unroll for (var i = 1u; i < 20u; i++) {
        r[i] = (a[i] + 16382u - b[i]) & 0x1ffffu;
    }
    return r;
}

/// One parallel carry pass: limbs below 2^16 in, tight out.
fn fe_tidy(a: Fe) -> Fe {
    var r: Fe;
    r[0u] = (a[0u] & FE_MASK) + FE_FOLD * (a[19u] >> 13u);
    unroll for (var i = 1u; i < 20u; i++) {
        r[i] = (a[i] & FE_MASK) + (a[i - 1u] >> 13u);
    }
    r[1u] = (r[1u] + (r[0u] >> 13u)) & 0x1ffffu;
    r[0u] &= FE_MASK;
    return r;
}

/// Makes an operand fit for fe_mul. This layout has no room to spare, so it is fe_tidy.
fn fe_trim(a: Fe) -> Fe {
    return fe_tidy(a);
}

/// The same limbs, shown to be below 2^17: for operands that come round a loop, where compilers lose sight of it.
fn fe_bound(a: Fe) -> Fe {
    var r: Fe;
    unroll for (var i = 0u; i < 20u; i++) {
        r[i] = a[i] & 0x1ffffu;
    }
    return r;
}

/// a * b. Columns k and k + 20 are summed together: two independent chains, and the upper one is folded at once.
fn fe_mul(a: Fe, b: Fe) -> Fe {
    var r: Fe;
    var carry_lo = 0u;
    var carry_hi = 0u;
    unroll for (var k = 0u; k < 20u; k++) {
        var lo = carry_lo;
        var hi = carry_hi;
        unroll for (var i = 0u; i < k + 1u; i++) {
            lo += a[i] * b[k - i];
        }
        unroll for (var i = k + 1u; i < 20u; i++) {
            hi += a[i] * b[k + 20u - i];
        }
        static if (k < 19u) {
            lo += FE_FOLD * (hi & FE_MASK);
            carry_hi = hi >> 13u;
        } else {
            lo += FE_FOLD * hi;
        }
        r[k] = lo & FE_MASK;
        carry_lo = lo >> 13u;
    }
    r[0u] += FE_FOLD * carry_lo;
    r[1u] += r[0u] >> 13u;
    r[0u] &= FE_MASK;
    r[2u] += r[1u] >> 13u;
    r[1u] &= FE_MASK;
    return r;
}

/// a * a, with each cross product taken once, doubled.
fn fe_sq(a: Fe) -> Fe {
    var twice: Fe;
    unroll for (var i = 0u; i < 20u; i++) {
        twice[i] = a[i] + a[i];
    }
    var r: Fe;
    var carry_lo = 0u;
    var carry_hi = 0u;
    unroll for (var k = 0u; k < 20u; k++) {
        var lo = carry_lo;
        var hi = carry_hi;
        unroll for (var i = 0u; i < (k + 1u) / 2u; i++) {
            lo += twice[i] * a[k - i];
        }
        unroll for (var i = k + 1u; i < (k + 21u) / 2u; i++) {
            hi += twice[i] * a[k + 20u - i];
        }
        static if (k % 2u == 0u) {
            lo += a[k / 2u] * a[k / 2u];
            hi += a[k / 2u + 10u] * a[k / 2u + 10u];
        }
        static if (k < 19u) {
            lo += FE_FOLD * (hi & FE_MASK);
            carry_hi = hi >> 13u;
        } else {
            lo += FE_FOLD * hi;
        }
        r[k] = lo & FE_MASK;
        carry_lo = lo >> 13u;
    }
    r[0u] += FE_FOLD * carry_lo;
    r[1u] += r[0u] >> 13u;
    r[0u] &= FE_MASK;
    r[2u] += r[1u] >> 13u;
    r[1u] &= FE_MASK;
    return r;
}

/// Carries from limb 0 to limb 19; limb 19 keeps what lies beyond bit 255.
fn fe_chain(a: Fe, add_to_limb_0: u32) -> Fe {
    var r: Fe;
    var carry = add_to_limb_0;
    unroll for (var i = 0u; i < 19u; i++) {
        carry += a[i];
        r[i] = carry & FE_MASK;
        carry >>= 13u;
    }
    r[19u] = a[19u] + carry;
    return r;
}

/// The one representative below p, limbs below 2^13. Limbs below 2^16 in.
fn fe_canonical(a: Fe) -> Fe {
    var r = fe_chain(a, 0u);
    var quotient = r[19u] >> 8u;
    r[19u] &= 255u;
    r = fe_chain(r, 19u * quotient);
    quotient = r[19u] >> 8u;
    r[19u] &= 255u;
    // Now below 2^255 + 19 * 2; value + 19 reaches bit 255 exactly when value >= p.
    r = fe_chain(r, 19u * quotient);
    quotient = fe_chain(r, 19u)[19u] >> 8u;
    r = fe_chain(r, 19u * quotient);
    r[19u] &= 255u;
    return r;
}

/// Whether the value is 0 modulo p. Bounds as fe_canonical.
fn fe_is_zero(a: Fe) -> bool {
    let c = fe_canonical(a);
    var any = 0u;
    unroll for (var i = 0u; i < 20u; i++) {
        any |= c[i];
    }
    return any == 0u;
}

/// Bits 0 to 254 of 32 little-endian bytes; bit 255 is ignored, and values from p to 2^255 - 1 are taken as they are.
fn fe_from_words(w: array<u32, 8>) -> Fe {
    var r: Fe;
    unroll for (var i = 0u; i < 20u; i++) {
        r[i] = w[13u * i / 32u] >> (13u * i % 32u);
        static if (13u * i % 32u > 19u) {
            static if (13u * i / 32u < 7u) {
                r[i] |= w[13u * i / 32u + 1u] << (32u - 13u * i % 32u);
            }
        }
        r[i] &= FE_MASK;
    }
    r[19u] &= 255u;
    return r;
}

/// 32 little-endian bytes of a canonical value.
fn fe_to_words(a: Fe) -> array<u32, 8> {
    var w: array<u32, 8>;
    unroll for (var i = 0u; i < 20u; i++) {
        w[13u * i / 32u] |= a[i] << (13u * i % 32u);
        static if (13u * i % 32u > 19u) {
            static if (13u * i / 32u < 7u) {
                w[13u * i / 32u + 1u] |= a[i] >> (32u - 13u * i % 32u);
            }
        }
    }
    return w;
}

/// Ten words for memory, two tight limbs in each.
fn fe_pack(a: Fe) -> array<u32, 10> {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 10u; i++) {
        w[i] = a[2u * i] | (a[2u * i + 1u] << 14u);
    }
    return w;
}

/// The reverse of fe_pack.
fn fe_unpack(w: array<u32, 10>) -> Fe {
    var r: Fe;
    unroll for (var i = 0u; i < 10u; i++) {
        r[2u * i] = w[i] & 0x3fffu;
        r[2u * i + 1u] = w[i] >> 14u;
    }
    return r;
}
