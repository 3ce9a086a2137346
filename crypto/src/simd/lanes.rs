//! What an instruction set must offer: a vector of 64-bit lanes, and for radix-2^52 arithmetic the 52-bit
//! multiply-add of AVX-512 IFMA.
//!
//! Every algorithm of this folder is written once, over these traits. `avx2.rs`, `avx512.rs` and `portable.rs` hold
//! their implementations and nothing else. The portable one has the same semantics lane by lane on arrays, so that
//! all arithmetic, bounds included, is tested on machines without the instructions.
//!
//! Invariant of every method: lanes do not influence each other. All additions, subtractions and shifts wrap or drop
//! bits as the instructions do; whether that can happen is the business of the bounds in `field26.rs` and
//! `field52.rs`.

use super::{field26, field52};

/// A vector of unsigned 64-bit lanes.
pub(crate) trait Lanes: Copy {
    /// Number of lanes.
    const COUNT: usize;
    /// One truth value per lane.
    type Mask: Copy;

    fn splat(value: u64) -> Self;
    /// Reads the first `COUNT` elements of `lanes`.
    fn from_lanes(lanes: &[u64]) -> Self;
    /// Writes the first `COUNT` elements of `lanes`.
    fn to_lanes(self, lanes: &mut [u64]);

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn shl<const BITS: i32>(self) -> Self;
    fn shr<const BITS: i32>(self) -> Self;
    /// Product of the low 32 bits of each lane: all 64 bits of it.
    fn mul32(self, other: Self) -> Self;

    /// Rotation to the right.
    #[inline(always)]
    fn rotr<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        self.shr::<RIGHT>().or(self.shl::<LEFT>())
    }
    /// Bit by bit `self ? a : b`.
    #[inline(always)]
    fn choose(self, a: Self, b: Self) -> Self {
        self.and(a.xor(b)).xor(b)
    }
    /// Bit by bit the majority of three.
    #[inline(always)]
    fn majority(self, a: Self, b: Self) -> Self {
        self.and(a.or(b)).or(a.and(b))
    }
    #[inline(always)]
    fn xor3(self, a: Self, b: Self) -> Self {
        self.xor(a).xor(b)
    }

    fn eq(self, other: Self) -> Self::Mask;
    /// Lane i is true if bit i is set.
    fn mask_from_bits(bits: u32) -> Self::Mask;
    fn mask_bits(mask: Self::Mask) -> u32;
    /// Lane by lane `mask ? a : b`.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;

    /// Reads `COUNT` rows of `N` words, a multiple of four, and transposes them: lane i of element j is word j of row i.
    fn load_rows<const N: usize>(rows: &[&[u64; N]]) -> [Self; N];
    /// The inverse of [`Lanes::load_rows`], for an `N` that is a multiple of `COUNT`.
    fn to_rows<const N: usize>(columns: &[Self; N], rows: &mut [[u64; N]]);

    /// Asks for a row to be brought into the first-level cache. Changes nothing but time.
    #[inline(always)]
    fn prefetch<const N: usize>(_row: &[u64; N]) {}

    /// A product in radix 2^25.5. An instruction set may make this and the square functions of their own: with few
    /// registers the operands lie in memory anyway, and kernels stay within the instruction cache.
    #[inline(always)]
    fn product_26(x: &[Self; 10], y: &[Self; 10]) -> [Self; 10] {
        field26::product(x, y)
    }
    #[inline(always)]
    fn square_26(x: &[Self; 10]) -> [Self; 10] {
        field26::squared(x)
    }
}

/// Lanes with the 52-bit multiply-add.
pub(crate) trait Ifma: Lanes {
    /// `self + (a * b mod 2^52)` over the low 52 bits of `a` and `b`; their upper 12 bits are ignored.
    fn madd_lo(self, a: Self, b: Self) -> Self;
    /// `self + floor(a * b / 2^52)` over the low 52 bits of `a` and `b`.
    fn madd_hi(self, a: Self, b: Self) -> Self;

    /// A product in radix 2^52, as [`Lanes::product_26`].
    #[inline(always)]
    fn product_52(a: &[Self; 5], b: &[Self; 5]) -> [Self; 5] {
        field52::product(a, b)
    }
    #[inline(always)]
    fn square_52(a: &[Self; 5]) -> [Self; 5] {
        field52::squared(a)
    }
}

/// Two vectors side by side: twice the lanes. For chains in which each step waits for the one before, such as doublings:
/// one vector's multiplications then fill the other's latencies.
#[derive(Clone, Copy)]
pub(crate) struct Twice<V>(V, V);

impl<V: Lanes> Twice<V> {
    #[inline(always)]
    fn part<const N: usize>(both: &[Self; N]) -> ([V; N], [V; N]) {
        let mut parts = ([both[0].0; N], [both[0].1; N]);
        for i in 0..N {
            (parts.0[i], parts.1[i]) = (both[i].0, both[i].1);
        }
        parts
    }

    #[inline(always)]
    fn join<const N: usize>(first: [V; N], second: [V; N]) -> [Self; N] {
        let mut both = [Self(first[0], second[0]); N];
        for i in 0..N {
            both[i] = Self(first[i], second[i]);
        }
        both
    }
}

impl<V: Lanes> Lanes for Twice<V> {
    const COUNT: usize = 2 * V::COUNT;
    type Mask = (V::Mask, V::Mask);

    #[inline(always)]
    fn splat(value: u64) -> Self {
        Self(V::splat(value), V::splat(value))
    }
    #[inline(always)]
    fn from_lanes(lanes: &[u64]) -> Self {
        Self(V::from_lanes(lanes), V::from_lanes(&lanes[V::COUNT..]))
    }
    #[inline(always)]
    fn to_lanes(self, lanes: &mut [u64]) {
        self.0.to_lanes(lanes);
        self.1.to_lanes(&mut lanes[V::COUNT..]);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0), self.1.add(other.1))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0.sub(other.0), self.1.sub(other.1))
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(self.0.and(other.0), self.1.and(other.1))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0), self.1.or(other.1))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(self.0.xor(other.0), self.1.xor(other.1))
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self) -> Self {
        Self(self.0.shl::<BITS>(), self.1.shl::<BITS>())
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(self.0.shr::<BITS>(), self.1.shr::<BITS>())
    }
    #[inline(always)]
    fn mul32(self, other: Self) -> Self {
        Self(self.0.mul32(other.0), self.1.mul32(other.1))
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        (self.0.eq(other.0), self.1.eq(other.1))
    }
    #[inline(always)]
    fn mask_from_bits(bits: u32) -> Self::Mask {
        (V::mask_from_bits(bits & ((1 << V::COUNT) - 1)), V::mask_from_bits(bits >> V::COUNT))
    }
    #[inline(always)]
    fn mask_bits(mask: Self::Mask) -> u32 {
        V::mask_bits(mask.0) | V::mask_bits(mask.1) << V::COUNT
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Self(V::select(mask.0, a.0, b.0), V::select(mask.1, a.1, b.1))
    }
    #[inline(always)]
    fn load_rows<const N: usize>(rows: &[&[u64; N]]) -> [Self; N] {
        Self::join(V::load_rows(rows), V::load_rows(&rows[V::COUNT..]))
    }
    #[inline(always)]
    fn to_rows<const N: usize>(columns: &[Self; N], rows: &mut [[u64; N]]) {
        let (first, second) = Self::part(columns);
        V::to_rows(&first, rows);
        V::to_rows(&second, &mut rows[V::COUNT..]);
    }
    #[inline(always)]
    fn prefetch<const N: usize>(row: &[u64; N]) {
        V::prefetch(row);
    }
}

// A multiplication of one vector after the other's: interleaved, they would need twice the registers.
impl<V: Ifma> Ifma for Twice<V> {
    #[inline(always)]
    fn madd_lo(self, a: Self, b: Self) -> Self {
        Self(self.0.madd_lo(a.0, b.0), self.1.madd_lo(a.1, b.1))
    }
    #[inline(always)]
    fn madd_hi(self, a: Self, b: Self) -> Self {
        Self(self.0.madd_hi(a.0, b.0), self.1.madd_hi(a.1, b.1))
    }
    #[inline(always)]
    fn product_52(a: &[Self; 5], b: &[Self; 5]) -> [Self; 5] {
        let ((a0, a1), (b0, b1)) = (Self::part(a), Self::part(b));
        Self::join(V::product_52(&a0, &b0), V::product_52(&a1, &b1))
    }
    #[inline(always)]
    fn square_52(a: &[Self; 5]) -> [Self; 5] {
        let (first, second) = Self::part(a);
        Self::join(V::square_52(&first), V::square_52(&second))
    }
}

/// A vector of unsigned 32-bit lanes, for BLAKE3 and SHA-256.
pub(crate) trait Lanes32: Copy {
    /// Number of lanes.
    const COUNT: usize;

    fn splat(value: u32) -> Self;
    /// Reads the first `COUNT` elements of `lanes`.
    fn from_lanes(lanes: &[u32]) -> Self;
    /// Writes the first `COUNT` elements of `lanes`.
    fn to_lanes(self, lanes: &mut [u32]);
    fn add(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn shr<const BITS: i32>(self) -> Self;
    fn rotr<const RIGHT: i32, const LEFT: i32>(self) -> Self;
    /// Lane by lane: bit 31 of `mask` ? `a` : `b`. Masks are all ones or all zeros.
    fn select(mask: Self, a: Self, b: Self) -> Self;

    /// Reads 16 words from each of `COUNT` blocks and transposes them: lane i of element j is word j of block i.
    fn load_blocks(blocks: &[&[u8; 64]]) -> [Self; 16];

    #[inline(always)]
    fn choose(self, a: Self, b: Self) -> Self {
        self.and(a.xor(b)).xor(b)
    }
    #[inline(always)]
    fn majority(self, a: Self, b: Self) -> Self {
        self.and(a.or(b)).or(a.and(b))
    }
    #[inline(always)]
    fn xor3(self, a: Self, b: Self) -> Self {
        self.xor(a).xor(b)
    }
}
