//! A multiple of k with two short halves: c0 = c1 k modulo l with 0 <= c0 < 2^127 and 0 < |c1| < 2^126.
//!
//! It halves the doublings of a signature that is checked by itself: `s B - k A - R` times c1 is
//! `(c1 s) B - c0 A - c1 R` but for a multiple of l, which the cofactor sends to the neutral element where A is not
//! of prime order. c1 is not 0 modulo the prime l, so 8 times the one is neutral if and only if 8 times the other is.
//! (Antipa, Brown, Gallant, Lambert, Struik, Vanstone, "Accelerated verification of ECDSA signatures", SAC 2005.)
//!
//! Method: Euclid's algorithm on (l, k), stopped at the first remainder below 2^127, with Lehmer's shortcut: quotients
//! come from the leading 62 bits of both numbers, and some thirty bits' worth of them are applied to the long numbers
//! at once. The remainders r_i = t_i k (mod l) alternate in the sign of t_i, and r_(i-1) |t_i| + r_i |t_(i-1)| = l
//! holds after every step whatever its quotient, hence |t_i| <= l / r_(i-1).
//! (The remainder before the last may lie a little below 2^127, since a round compares leading bits only: at least 3/4 of
//! it, so |c1| stays below 2^126.) So a quotient that the leading bits get
//! wrong by one costs nothing but a slightly longer half; remainders stay positive because a step is taken only while
//! the leading bits it leaves (2^32 and more) are far larger than their error (at most a cofactor, 2^30).
//!
//! Verification only: time depends on k, which is public.

use super::scalar::L;

/// Bits of c0 at most.
const STOP_BITS: u32 = 127;
/// Leading bits that a round works on.
const LEADING_BITS: u32 = 62;
/// A round ends before its leading bits fall below this.
const LEADING_MIN: u64 = 1 << 32;

/// The two halves of k; see the head of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Halves {
    pub(crate) c0: u128,
    /// |c1|.
    pub(crate) c1: u128,
    /// Whether c1 is negative.
    pub(crate) negative: bool,
}

/// Leading bits of a round in floating point, which is exact below 2^53.
const LEADING_BITS_F: u32 = 52;
const LEADING_MIN_F: f64 = (1_u64 << 27) as f64;
/// Two to the number of bits above the point.
const WHOLE: f64 = (1_u64 << 52) as f64;

/// [`halve`] for `N` numbers side by side: the same rounds, with their quotients in floating point, which the compiler
/// puts into the lanes of the kernel this is inlined into. All values are whole and below 2^52, so nothing is rounded but
/// the quotient x / y, whose distance from the next whole number is at least 1/y, more than the rounding.
///
/// A number whose round makes no step is left to [`halve`].
#[inline(always)]
pub(crate) fn halve_all<const N: usize>(k: &[[u64; 4]; N]) -> [Halves; N] {
    let mut r0 = [L; N];
    let mut r1 = *k;
    let mut t0 = [0_u128; N];
    let mut t1 = [1_u128; N];
    let mut negative = [false; N];
    let mut stuck = [false; N];
    loop {
        let (mut x, mut y, mut enough) = ([1.0_f64; N], [0.0_f64; N], [1.0_f64; N]);
        let mut active = [false; N];
        let mut any = false;
        for lane in 0..N {
            if stuck[lane] || bits(&r1[lane]) <= STOP_BITS {
                continue;
            }
            active[lane] = true;
            any = true;
            let shift = bits(&r0[lane]) - LEADING_BITS_F;
            x[lane] = window(&r0[lane], shift) as i64 as f64;
            y[lane] = window(&r1[lane], shift) as i64 as f64;
            if shift < STOP_BITS {
                enough[lane] = (1_u64 << (STOP_BITS - shift)) as f64;
            }
        }
        if !any {
            break;
        }
        let (mut a, mut b, mut c, mut d) = ([1.0_f64; N], [0.0_f64; N], [0.0_f64; N], [1.0_f64; N]);
        let mut odd = [0.0_f64; N];
        loop {
            let mut steps = 0_u64;
            for lane in 0..N {
                let quotient = (x[lane] / y[lane]).floor();
                let rest = x[lane] - quotient * y[lane];
                let step = (y[lane] >= enough[lane]) & (rest >= LEADING_MIN_F);
                let (e, f) = (a[lane] + quotient * c[lane], b[lane] + quotient * d[lane]);
                x[lane] = if step { y[lane] } else { x[lane] };
                y[lane] = if step { rest } else { y[lane] };
                a[lane] = if step { c[lane] } else { a[lane] };
                b[lane] = if step { d[lane] } else { b[lane] };
                c[lane] = if step { e } else { c[lane] };
                d[lane] = if step { f } else { d[lane] };
                odd[lane] = if step { 1.0 - odd[lane] } else { odd[lane] };
                steps |= u64::from(step);
            }
            if steps == 0 {
                break;
            }
        }
        for lane in 0..N {
            if !active[lane] {
                continue;
            }
            if b[lane] == 0.0 {
                stuck[lane] = true;
                continue;
            }
            let (a, b) = (whole(a[lane]), whole(b[lane]));
            let (c, d) = (whole(c[lane]), whole(d[lane]));
            let odd = odd[lane] != 0.0;
            let first = combine(&r0[lane], a, &r1[lane], b);
            let second = combine(&r1[lane], d, &r0[lane], c);
            (r0[lane], r1[lane]) = if odd { (negate(first), negate(second)) } else { (first, second) };
            let (s0, s1) = (t0[lane], t1[lane]);
            t0[lane] = u128::from(a) * s0 + u128::from(b) * s1;
            t1[lane] = u128::from(c) * s0 + u128::from(d) * s1;
            negative[lane] ^= odd;
        }
    }
    let mut out = [Halves::default(); N];
    for lane in 0..N {
        out[lane] = if stuck[lane] {
            halve(&k[lane])
        } else {
            let c0 = u128::from(r1[lane][1]) << 64 | u128::from(r1[lane][0]);
            Halves { c0, c1: t1[lane], negative: negative[lane] }
        };
    }
    out
}

/// Halves `k`, which is below l.
pub(crate) fn halve(k: &[u64; 4]) -> Halves {
    let (mut r0, mut r1) = (L, *k);
    let (mut t0, mut t1) = (0_u128, 1_u128);
    let mut negative = false;
    while bits(&r1) > STOP_BITS {
        let shift = bits(&r0) - LEADING_BITS;
        let (mut x, mut y) = (window(&r0, shift), window(&r1, shift));
        // Below this the remainder is short enough.
        let enough = if shift < STOP_BITS { 1_u64 << (STOP_BITS - shift) } else { 1 };
        // r0 and r1 after the round are a r0 - b r1 and d r1 - c r0, or the negatives of both if `odd`.
        let (mut a, mut b, mut c, mut d) = (1_u64, 0_u64, 0_u64, 1_u64);
        let mut odd = false;
        while y >= enough {
            let quotient = x / y;
            let rest = x - quotient * y;
            if rest < LEADING_MIN {
                break;
            }
            (x, y) = (y, rest);
            (a, b, c, d) = (c, d, a + quotient * c, b + quotient * d);
            odd = !odd;
        }
        if b == 0 {
            // No step: the remainder's leading bits vanish. Rare, unless k is near a fraction of l with small terms.
            (r0, r1, t0, t1) = divide(r0, r1, t0, t1);
            negative = !negative;
            continue;
        }
        let first = combine(&r0, a, &r1, b);
        let second = combine(&r1, d, &r0, c);
        (r0, r1) = if odd { (negate(first), negate(second)) } else { (first, second) };
        (t0, t1) = (u128::from(a) * t0 + u128::from(b) * t1, u128::from(c) * t0 + u128::from(d) * t1);
        negative ^= odd;
    }
    Halves { c0: u128::from(r1[1]) << 64 | u128::from(r1[0]), c1: t1, negative }
}

/// A whole `value` below 2^52 as an integer: the fraction bits of 2^52 and it.
#[inline(always)]
fn whole(value: f64) -> u64 {
    (value + WHOLE).to_bits() & ((1 << 52) - 1)
}

/// Bits of `x` up to its highest set one.
#[inline(always)]
fn bits(x: &[u64; 4]) -> u32 {
    for word in (0..4).rev() {
        if x[word] != 0 {
            return 64 * word as u32 + 64 - x[word].leading_zeros();
        }
    }
    0
}

/// Bits `shift` to `shift + 63` of `x`.
#[inline(always)]
fn window(x: &[u64; 4], shift: u32) -> u64 {
    let (word, bit) = ((shift / 64) as usize, shift % 64);
    let upper = if word < 3 { x[word + 1] } else { 0 };
    ((u128::from(upper) << 64 | u128::from(x[word])) >> bit) as u64
}

/// `x * a - y * b` modulo 2^256.
#[inline(always)]
fn combine(x: &[u64; 4], a: u64, y: &[u64; 4], b: u64) -> [u64; 4] {
    let mut out = [0; 4];
    let (mut plus, mut minus, mut borrow) = (0_u128, 0_u128, false);
    for word in 0..4 {
        plus = u128::from(x[word]) * u128::from(a) + (plus >> 64);
        minus = u128::from(y[word]) * u128::from(b) + (minus >> 64);
        let (difference, first) = (plus as u64).overflowing_sub(minus as u64);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        out[word] = difference;
        borrow = first | second;
    }
    out
}

#[inline(always)]
fn negate(x: [u64; 4]) -> [u64; 4] {
    combine(&[0; 4], 0, &x, 1)
}

/// One step of Euclid's algorithm by shifts and subtractions: for quotients of any length.
#[cold]
fn divide(r0: [u64; 4], r1: [u64; 4], t0: u128, t1: u128) -> ([u64; 4], [u64; 4], u128, u128) {
    let (mut rest, mut t) = (r0, t0);
    while bits(&rest) >= bits(&r1) {
        let mut shift = bits(&rest) - bits(&r1);
        let mut part = shifted(&r1, shift);
        if less(&rest, &part) {
            if shift == 0 {
                break;
            }
            shift -= 1;
            part = shifted(&r1, shift);
        }
        rest = combine(&rest, 1, &part, 1);
        t += t1 << shift;
    }
    (r1, rest, t1, t)
}

fn less(x: &[u64; 4], y: &[u64; 4]) -> bool {
    x.iter().rev().lt(y.iter().rev())
}

/// `x << shift`; nothing may be shifted out.
fn shifted(x: &[u64; 4], shift: u32) -> [u64; 4] {
    let (words, bit) = ((shift / 64) as usize, shift % 64);
    let mut out = [0; 4];
    for word in words..4 {
        let lower = if word > words { x[word - words - 1] } else { 0 };
        out[word] = ((u128::from(x[word - words]) << 64 | u128::from(lower)) << bit >> 64) as u64;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::scalar::{bytes, reduce, words};
    use super::*;
    use curve25519_dalek::scalar::Scalar;
    use proptest::prelude::*;

    fn holds(k: &[u64; 4]) {
        let scalar = Scalar::from_bytes_mod_order(bytes(k));
        let halves = halve(k);
        assert!(halves.c0 < 1 << 127, "{k:x?}: {halves:x?}");
        assert!(halves.c1 != 0 && halves.c1 < 1 << 126, "{k:x?}: {halves:x?}");
        let c1 = Scalar::from(halves.c1);
        let c1 = if halves.negative { -c1 } else { c1 };
        assert_eq!(Scalar::from(halves.c0), c1 * scalar, "{k:x?}: {halves:x?}");
        // Side by side with others, at every place.
        let mut group = [[0x1234_5678, 0x9abc_def0, 77, 1 << 50]; 8];
        let place = (k[0] % 8) as usize;
        group[place] = *k;
        for (k, halves) in group.iter().zip(halve_all(&group)) {
            let scalar = Scalar::from_bytes_mod_order(bytes(k));
            assert!(halves.c0 < 1 << 127 && halves.c1 != 0 && halves.c1 < 1 << 126, "{k:x?}: {halves:x?}");
            let c1 = Scalar::from(halves.c1);
            let c1 = if halves.negative { -c1 } else { c1 };
            assert_eq!(Scalar::from(halves.c0), c1 * scalar, "{k:x?}: {halves:x?}");
        }
    }

    #[test]
    fn halves_multiply_back_at_edges() {
        let l = |less: u64| [L[0] - less, L[1], L[2], L[3]];
        for k in [[0; 4], [1, 0, 0, 0], [2, 0, 0, 0], l(1), l(2), l(3)] {
            holds(&k);
        }
        for bit in 0..252 {
            let mut k = [0; 4];
            k[bit / 64] = 1 << (bit % 64);
            holds(&k);
            let mut low = [u64::MAX; 4];
            low[bit / 64] = (1 << (bit % 64)) - 1;
            low[bit / 64 + 1..].fill(0);
            holds(&low);
            k[0] |= 1;
            holds(&k);
        }
        // Near l / n, and near fractions of it: one quotient is then very long.
        for n in 1..200_u64 {
            for offset in [0_u64, 1, 2] {
                let inverse = Scalar::from(n).invert() * Scalar::from(offset + 1);
                holds(&words(&inverse.to_bytes()));
                holds(&words(&(-inverse).to_bytes()));
            }
        }
        // A quotient of every length in the first step: l / 2^n, rounded down.
        for shift in 1..130 {
            let mut k = L;
            for _ in 0..shift {
                for word in 0..4 {
                    k[word] = k[word] >> 1 | if word < 3 { k[word + 1] << 63 } else { 0 };
                }
            }
            holds(&k);
        }
    }

    #[test]
    fn a_quotient_longer_than_a_round_is_divided_out() {
        // l / 2^40: the first quotient has 40 bits, more than the 30 of a round, which ends without a step.
        let mut k = [0; 4];
        for word in 0..4 {
            k[word] = L[word] >> 40 | if word < 3 { L[word + 1] << 24 } else { 0 };
        }
        let (r0, r1, t0, t1) = divide(L, k, 0, 1);
        assert_eq!(r0, k);
        assert!(less(&r1, &k) && t0 == 1);
        assert_eq!(t1 >> 40, 1);
        holds(&k);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn halves_multiply_back(x in any::<[u64; 8]>()) {
            holds(&reduce(&x));
        }

        #[test]
        fn halves_of_products_with_small_numbers_multiply_back(a in any::<u64>(), b in any::<u128>(), bits in 0..128_u32) {
            let b = b >> bits;
            let quotient = Scalar::from(a) * Scalar::from(b.max(1)).invert();
            holds(&words(&quotient.to_bytes()));
        }
    }
}
