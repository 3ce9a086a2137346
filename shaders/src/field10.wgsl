// GF(2^255 - 19), layout `u64x10`: 10 limbs of 26 and 25 bits in turn, 64-bit products. Twin: field10.rs.
//
// Limb i has weight 2^ceil(25.5 i). Two odd limbs meet half a bit below their column, hence the factor 2; columns
// from 10 on fold onto column k - 10 times 19, because 2^255 = 19 (mod p).
//
//   name    made by                              even limbs at most    odd limbs at most
//   tight   fe_mul, fe_sq, fe_tidy, loads        2^26 + 2^11           2^25 + 2^18
//   sum     fe_add of two tight values           2 tight               2 tight
//   wide    fe_sub(tight - tight), tight + sum   3 * 2^26 + 2^13       3 * 2^25 + 2^20
//   loose   fe_sub(sum or wide - tight)          5 * 2^26 + 2^13       5 * 2^25 + 2^20
//
// fe_mul(a, b): a up to loose, b up to wide, so that 19 b fits 32 bits; a column is below 15 * 2^52 * 125 < 2^63.
// fe_sq(a): up to sum. fe_sub(a, b): b tight. fe_tidy: limbs below 2^31. fe_trim: the identity.

const FE_LIMBS = 10u;
const FE_MASK26 = 0x3ffffffu;
const FE_MASK25 = 0x1ffffffu;
alias Fe = array<u32, 10>;

const FE_D = Fe(56195235u, 13857412u, 51736253u, 6949390u, 114729u, 24766616u, 60832955u, 30306712u, 48412415u, 21499315u);
const FE_2D = Fe(45281625u, 27714825u, 36363642u, 13898781u, 229458u, 15978800u, 54557047u, 27058993u, 29715967u, 9444199u);
const FE_SQRT_M1 = Fe(34513072u, 25610706u, 9377949u, 3500415u, 12389472u, 33281959u, 41962654u, 31548777u, 326685u, 11406482u);

/// a + b, no carries.
fn fe_add(a: Fe, b: Fe) -> Fe {
    var r: Fe;
    unroll for (var i = 0u; i < 10u; i++) {
        r[i] = a[i] + b[i];
    }
    return r;
}

/// a - b + 4 p, limb by limb: no limb goes below zero.
fn fe_sub(a: Fe, b: Fe) -> Fe {
    var r: Fe;
    r[0u] = a[0u] + 0x7ffffdau - b[0u];
    r[1u] = a[1u] + 0x3fffffeu - b[1u];
    unroll for (var i = 1u; i < 5u; i++) {
        r[2u * i] = a[2u * i] + 0x7fffffeu - b[2u * i];
        r[2u * i + 1u] = a[2u * i + 1u] + 0x3fffffeu - b[2u * i + 1u];
    }
    return r;
}

/// One parallel carry pass: limbs below 2^31 in, tight out.
fn fe_tidy(a: Fe) -> Fe {
    var r: Fe;
    r[0u] = (a[0u] & FE_MASK26) + 19u * (a[9u] >> 25u);
    r[1u] = (a[1u] & FE_MASK25) + (a[0u] >> 26u);
    unroll for (var i = 1u; i < 5u; i++) {
        r[2u * i] = (a[2u * i] & FE_MASK26) + (a[2u * i - 1u] >> 25u);
        r[2u * i + 1u] = (a[2u * i + 1u] & FE_MASK25) + (a[2u * i] >> 26u);
    }
    return r;
}

/// Makes an operand fit for fe_mul: this layout has room for every sum and difference that edwards.wgsl forms.
fn fe_trim(a: Fe) -> Fe {
    return a;
}

/// Nothing to show here: see field20.wgsl.
fn fe_bound(a: Fe) -> Fe {
    return a;
}

/// a * b.
fn fe_mul(a: Fe, b: Fe) -> Fe {
    var a_twice: Fe;
    var b_19: Fe;
    unroll for (var i = 0u; i < 10u; i++) {
        a_twice[i] = a[i] + a[i];
        b_19[i] = 19u * b[i];
    }
    var r: Fe;
    var carry = 0lu;
    unroll for (var k = 0u; k < 10u; k++) {
        var t = 0lu;
        unroll for (var i = 0u; i < 10u; i++) {
            static if (i <= k) {
                static if (i % 2u * ((k + 10u - i) % 2u) == 1u) {
                    t += u64(a_twice[i]) * u64(b[k - i]);
                } else {
                    t += u64(a[i]) * u64(b[k - i]);
                }
            } else {
                static if (i % 2u * ((k + 10u - i) % 2u) == 1u) {
                    t += u64(a_twice[i]) * u64(b_19[k + 10u - i]);
                } else {
                    t += u64(a[i]) * u64(b_19[k + 10u - i]);
                }
            }
        }
        t += carry;
        static if (k % 2u == 0u) {
            r[k] = u32(t) & FE_MASK26;
            carry = t >> 26u;
        } else {
            r[k] = u32(t) & FE_MASK25;
            carry = t >> 25u;
        }
    }
    let t = u64(r[0u]) + carry * 19lu;
    r[0u] = u32(t) & FE_MASK26;
    r[1u] += u32(t >> 26u);
    return r;
}

/// a * a, with each cross product taken once, doubled.
fn fe_sq(a: Fe) -> Fe {
    var a_twice: Fe;
    var a_19: Fe;
    unroll for (var i = 0u; i < 10u; i++) {
        a_twice[i] = a[i] + a[i];
        a_19[i] = 19u * a[i];
    }
    var r: Fe;
    var carry = 0lu;
    unroll for (var k = 0u; k < 10u; k++) {
        // Products below column 10: pairs i < j with i + j = k, then those with i + j = k + 10.
        var t = 0lu;
        unroll for (var i = 0u; i < (k + 1u) / 2u; i++) {
            static if (i % 2u * ((k - i) % 2u) == 1u) {
                t += u64(a_twice[i]) * u64(a_twice[k - i]);
            } else {
                t += u64(a_twice[i]) * u64(a[k - i]);
            }
        }
        unroll for (var i = k + 1u; i < (k + 11u) / 2u; i++) {
            static if (i % 2u * ((k + 10u - i) % 2u) == 1u) {
                t += (u64(a_twice[i]) * u64(a_19[k + 10u - i])) << 1u;
            } else {
                t += u64(a_twice[i]) * u64(a_19[k + 10u - i]);
            }
        }
        static if (k % 2u == 0u) {
            static if (k / 2u % 2u == 1u) {
                t += u64(a_twice[k / 2u]) * u64(a[k / 2u]);
            } else {
                t += u64(a[k / 2u]) * u64(a[k / 2u]);
            }
            static if ((k / 2u + 5u) % 2u == 1u) {
                t += u64(a_twice[k / 2u + 5u]) * u64(a_19[k / 2u + 5u]);
            } else {
                t += u64(a[k / 2u + 5u]) * u64(a_19[k / 2u + 5u]);
            }
        }
        t += carry;
        static if (k % 2u == 0u) {
            r[k] = u32(t) & FE_MASK26;
            carry = t >> 26u;
        } else {
            r[k] = u32(t) & FE_MASK25;
            carry = t >> 25u;
        }
    }
    let t = u64(r[0u]) + carry * 19lu;
    r[0u] = u32(t) & FE_MASK26;
    r[1u] += u32(t >> 26u);
    return r;
}

/// Carries from limb 0 to limb 9; limb 9 keeps what lies beyond bit 255.
fn fe_chain(a: Fe, add_to_limb_0: u32) -> Fe {
    var r: Fe;
    var carry = add_to_limb_0;
    unroll for (var i = 0u; i < 5u; i++) {
        carry += a[2u * i];
        r[2u * i] = carry & FE_MASK26;
        carry >>= 26u;
        carry += a[2u * i + 1u];
        static if (i < 4u) {
            r[2u * i + 1u] = carry & FE_MASK25;
            carry >>= 25u;
        } else {
            r[2u * i + 1u] = carry;
        }
    }
    return r;
}

/// The one representative below p, limbs below 2^26 and 2^25. Limbs below 2^31 in.
fn fe_canonical(a: Fe) -> Fe {
    var r = fe_chain(a, 0u);
    var quotient = r[9u] >> 25u;
    r[9u] &= FE_MASK25;
    r = fe_chain(r, 19u * quotient);
    quotient = r[9u] >> 25u;
    r[9u] &= FE_MASK25;
    // Now below 2^255 + 19 * 2; value + 19 reaches bit 255 exactly when value >= p.
    r = fe_chain(r, 19u * quotient);
    quotient = fe_chain(r, 19u)[9u] >> 25u;
    r = fe_chain(r, 19u * quotient);
    r[9u] &= FE_MASK25;
    return r;
}

/// Whether the value is 0 modulo p. Bounds as fe_canonical.
fn fe_is_zero(a: Fe) -> bool {
    let c = fe_canonical(a);
    var any = 0u;
    unroll for (var i = 0u; i < 10u; i++) {
        any |= c[i];
    }
    return any == 0u;
}

/// Bits 0 to 254 of 32 little-endian bytes; bit 255 is ignored, and values from p to 2^255 - 1 are taken as they are.
fn fe_from_words(w: array<u32, 8>) -> Fe {
    var r: Fe;
    unroll for (var i = 0u; i < 10u; i++) {
        // Limb i starts at bit (51 i + 1) / 2.
        r[i] = w[(51u * i + 1u) / 2u / 32u] >> ((51u * i + 1u) / 2u % 32u);
        static if ((51u * i + 1u) / 2u % 32u > 6u) {
            static if ((51u * i + 1u) / 2u / 32u < 7u) {
                r[i] |= w[(51u * i + 1u) / 2u / 32u + 1u] << (32u - (51u * i + 1u) / 2u % 32u);
            }
        }
        static if (i % 2u == 0u) {
            r[i] &= FE_MASK26;
        } else {
            r[i] &= FE_MASK25;
        }
    }
    return r;
}

/// 32 little-endian bytes of a canonical value.
fn fe_to_words(a: Fe) -> array<u32, 8> {
    var w: array<u32, 8>;
    unroll for (var i = 0u; i < 10u; i++) {
        w[(51u * i + 1u) / 2u / 32u] |= a[i] << ((51u * i + 1u) / 2u % 32u);
        static if ((51u * i + 1u) / 2u % 32u > 6u) {
            static if ((51u * i + 1u) / 2u / 32u < 7u) {
                w[(51u * i + 1u) / 2u / 32u + 1u] |= a[i] >> (32u - (51u * i + 1u) / 2u % 32u);
            }
        }
    }
    return w;
}

/// Ten words for memory, one limb in each.
fn fe_pack(a: Fe) -> array<u32, 10> {
    return a;
}

/// The reverse of fe_pack.
fn fe_unpack(w: array<u32, 10>) -> Fe {
    return w;
}
