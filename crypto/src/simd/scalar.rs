//! Integers modulo the group order l = 2^252 + c, c = 27742317777372353535851937790883648493 (125 bits), on 64-bit
//! words of the general registers.
//!
//! Not in lanes, by measurement: with 64 x 64 -> 128 multiplications the reduction of a hash is 20 of them, k * z and
//! s * z eight each: 16 ns and twice 7 on a Zen 4 core. Lanes of 32-bit products need four times as many each.
//!
//! All of it but [`smaller`], which serves verification only, takes the same time for all values (masks instead of branches), so that signing may use it.

use std::hint::black_box;

/// Words of an unreduced sum of products, 448 bits: room for 2^64 products of 128 and 253 bits.
pub(crate) type Wide = [u64; 7];

/// l, low word first.
pub(crate) const L: [u64; 4] = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];
/// l - 2^252.
const C: [u64; 2] = [L[0], L[1]];

#[inline(always)]
pub(crate) fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let chunks = bytes.as_chunks::<8>().0;
    [0, 1, 2, 3].map(|word| u64::from_le_bytes(chunks[word]))
}

#[inline(always)]
pub(crate) fn bytes(words: &[u64; 4]) -> [u8; 32] {
    let mut out = [0; 32];
    for (chunk, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    out
}

/// `a + b * c + carry` as low and high word; it cannot overflow two words.
#[inline(always)]
fn mac(a: u64, b: u64, c: u64, carry: u64) -> (u64, u64) {
    let sum = u128::from(a) + u128::from(b) * u128::from(c) + u128::from(carry);
    (sum as u64, (sum >> 64) as u64)
}

/// `sum += a * b`, modulo the width of `sum`.
#[inline(always)]
fn multiply_add<const S: usize, const A: usize, const B: usize>(
    sum: &mut [u64; S],
    a: &[u64; A],
    b: &[u64; B],
) {
    for (i, &word) in a.iter().enumerate() {
        let mut carry = 0;
        for (j, &other) in b.iter().enumerate() {
            (sum[i + j], carry) = mac(sum[i + j], word, other, carry);
        }
        for slot in sum.iter_mut().skip(i + B) {
            let (value, over) = slot.overflowing_add(carry);
            *slot = value;
            carry = u64::from(over);
        }
    }
}

/// `a + b`; the carry out is dropped (two's complement).
#[inline(always)]
pub(crate) fn add_words<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    let mut out = [0; N];
    let mut carry = false;
    for word in 0..N {
        let (sum, first) = a[word].overflowing_add(b[word]);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        out[word] = sum;
        carry = first | second;
    }
    out
}

/// `a - b` and whether it borrowed.
#[inline(always)]
fn sub4(a: [u64; 4], b: [u64; 4]) -> ([u64; 4], bool) {
    let mut out = [0; 4];
    let mut borrow = false;
    for word in 0..4 {
        let (difference, first) = a[word].overflowing_sub(b[word]);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        out[word] = difference;
        borrow = first | second;
    }
    (out, borrow)
}

/// Bits 252 and up of `x`.
#[inline(always)]
fn high<const X: usize, const H: usize>(x: &[u64; X]) -> [u64; H] {
    let mut out = [0; H];
    for (word, slot) in out.iter_mut().enumerate() {
        let upper = if word + 4 < X { x[word + 4] << 4 } else { 0 };
        *slot = x[word + 3] >> 60 | upper;
    }
    out
}

/// The low 252 bits of `x`.
#[inline(always)]
fn low<const X: usize>(x: &[u64; X]) -> [u64; 4] {
    [x[0], x[1], x[2], x[3] & (u64::MAX >> 4)]
}

/// `x` modulo l, for any 512-bit `x`.
///
/// 2^252 = -c, so x = x0 - c x1; with y = c x1 < 2^385, y = y0 - c y1; with z = c y1 < 2^258, z = z0 - c z1. Hence
/// x = x0 - y0 + z0 - c z1, between -2^252 - 2^131 and 2^253; adding 2l makes it positive. Once more then: of
/// q 2^252 + w with q at most 4 there stays w - q c, below l; where that is negative, adding l once is enough.
#[inline(always)]
pub(crate) fn reduce(x: &[u64; 8]) -> [u64; 4] {
    let x1: [u64; 5] = high(x);
    let mut y = [0; 7];
    multiply_add(&mut y, &x1, &C);
    let y1: [u64; 3] = high(&y);
    let mut z = [0; 5];
    multiply_add(&mut z, &y1, &C);
    let z1: [u64; 1] = high(&z);
    let mut w = [0; 4];
    multiply_add(&mut w, &z1, &C);
    const L2: [u64; 4] = [0xb024_c634_b9eb_a7da, 0x29bd_f3bd_45ef_39ac, 0, 0x2000_0000_0000_0000];
    let mut sum = add_words(low(x), L2);
    sum = sub4(sum, low(&y)).0;
    sum = add_words(sum, low(&z));
    sum = sub4(sum, w).0;
    let mut multiple = [0; 4];
    multiply_add(&mut multiple, &[sum[3] >> 60], &C);
    let (least, borrow) = sub4(low(&sum), multiple);
    // Hidden from the compiler, which otherwise sees two cases and jumps (`examples/constant_time.rs` found that).
    let add = black_box(0_u64.wrapping_sub(u64::from(borrow)));
    add_words(least, L.map(|word| word & add))
}

/// Whether `x` is below l.
#[inline(always)]
pub(crate) fn is_canonical(x: &[u64; 4]) -> bool {
    sub4(*x, L).1
}

/// `sum += z * x`.
#[inline(always)]
pub(crate) fn add_product(sum: &mut Wide, z: u128, x: &[u64; 4]) {
    multiply_add(sum, &[z as u64, (z >> 64) as u64], x);
}

#[inline(always)]
pub(crate) fn reduce_wide(x: &Wide) -> [u64; 4] {
    reduce(&[x[0], x[1], x[2], x[3], x[4], x[5], x[6], 0])
}

/// `-x` for an `x` below l.
#[inline(always)]
pub(crate) fn negate(x: &[u64; 4]) -> [u64; 4] {
    let less = sub4(L, *x).0;
    // l - 0 is l, which is 0.
    let zero = u64::from((x[0] | x[1] | x[2] | x[3]) == 0);
    less.map(|word| word & zero.wrapping_sub(1))
}

/// The smaller of `x` and l - x, at most 2^251 + 2^124, and whether it is the latter. `x` is below l.
#[inline(always)]
pub(crate) fn smaller(x: &[u64; 4]) -> ([u64; 4], bool) {
    let other = negate(x);
    let flip = other.iter().rev().lt(x.iter().rev());
    (if flip { other } else { *x }, flip)
}

/// `a * b + c` modulo l, for any 256-bit numbers.
#[inline(always)]
pub(crate) fn multiply_add_mod(a: &[u64; 4], b: &[u64; 4], c: &[u64; 4]) -> [u64; 4] {
    let mut sum = [c[0], c[1], c[2], c[3], 0, 0, 0, 0];
    multiply_add(&mut sum, a, b);
    reduce(&sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::scalar::Scalar;
    use proptest::prelude::*;

    /// Values at which carries and conditional subtractions change: 0, 1, around multiples of l, around 2^252 and
    /// its multiples, and all ones.
    fn edges() -> Vec<[u64; 8]> {
        let mut out = vec![[0; 8], [u64::MAX; 8]];
        for place in 0..8 {
            for value in [1, u64::MAX, 1 << 60, (1 << 60) - 1, 0x8000_0000_0000_0000] {
                let mut x = [0; 8];
                x[place] = value;
                out.push(x);
                let mut y = [u64::MAX; 8];
                y[place] = value;
                out.push(y);
            }
        }
        for multiple in [1_u64, 2, 3, 15, 16, u64::MAX] {
            for offset in [-1_i64, 0, 1] {
                let mut x = [0; 8];
                multiply_add(&mut x, &[multiple], &L);
                let value = (u128::from(x[1]) << 64 | u128::from(x[0])).wrapping_add_signed(offset.into());
                x[0] = value as u64;
                x[1] = (value >> 64) as u64;
                out.push(x);
            }
        }
        out
    }

    fn dalek(x: &[u64; 8]) -> [u8; 32] {
        let mut wide = [0; 64];
        for (chunk, word) in wide.as_chunks_mut::<8>().0.iter_mut().zip(x) {
            *chunk = word.to_le_bytes();
        }
        Scalar::from_bytes_mod_order_wide(&wide).to_bytes()
    }

    #[test]
    fn reduction_matches_serial_at_edges() {
        for x in edges() {
            assert_eq!(bytes(&reduce(&x)), dalek(&x), "{x:x?}");
        }
    }

    proptest! {
        #[test]
        fn reduction_matches_serial(x in any::<[u64; 8]>()) {
            prop_assert_eq!(bytes(&reduce(&x)), dalek(&x));
        }

        #[test]
        fn products_match_serial(z in any::<u128>(), y in any::<u128>(), a in any::<[u64; 8]>(), b in any::<[u64; 8]>()) {
            let (a, b) = (reduce(&a), reduce(&b));
            let (x, w) = (Scalar::from_bytes_mod_order(bytes(&a)), Scalar::from_bytes_mod_order(bytes(&b)));
            let mut sum = [0; 7];
            add_product(&mut sum, z, &a);
            add_product(&mut sum, y, &b);
            prop_assert_eq!(bytes(&reduce_wide(&sum)), (Scalar::from(z) * x + Scalar::from(y) * w).to_bytes());
            prop_assert_eq!(bytes(&multiply_add_mod(&a, &b, &a)), (x * w + x).to_bytes());
            prop_assert_eq!(bytes(&negate(&a)), (-x).to_bytes());
        }
    }

    #[test]
    fn zero_negates_to_zero_and_only_numbers_below_l_are_canonical() {
        assert_eq!(negate(&[0; 4]), [0; 4]);
        let one_less = [L[0] - 1, L[1], L[2], L[3]];
        assert!(is_canonical(&[0; 4]) && is_canonical(&one_less));
        assert!(
            !is_canonical(&L) && !is_canonical(&[u64::MAX; 4]) && !is_canonical(&[L[0] + 1, L[1], 0, L[3]])
        );
    }
}
