//! The lanes as plain arrays: the serial twin of the instruction sets, for tests and as the definition of what each
//! method of the traits means. Nothing here is fast (methods are not even inlined: the kernels would grow to hundreds
//! of thousands of instructions and compile for minutes), and no production path uses it.

use super::lanes::{Ifma, Lanes, Lanes32};
use super::{field26, field52};

/// `N` lanes of 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array<const N: usize>([u64; N]);

/// `N` lanes of 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array32<const N: usize>([u32; N]);

const LOW_52: u64 = (1 << 52) - 1;

impl<const N: usize> Array<N> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let mut out = self;
        for (lane, value) in out.0.iter_mut().zip(other.0) {
            *lane = f(*lane, value);
        }
        out
    }
}

impl<const N: usize> Lanes for Array<N> {
    const COUNT: usize = N;
    type Mask = [bool; N];

    #[inline(never)]
    fn splat(value: u64) -> Self {
        Self([value; N])
    }
    #[inline(never)]
    fn from_lanes(lanes: &[u64]) -> Self {
        let mut out = [0; N];
        out.copy_from_slice(&lanes[..N]);
        Self(out)
    }
    #[inline(never)]
    fn to_lanes(self, lanes: &mut [u64]) {
        lanes[..N].copy_from_slice(&self.0);
    }
    #[inline(never)]
    fn add(self, other: Self) -> Self {
        self.zip(other, u64::wrapping_add)
    }
    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, u64::wrapping_sub)
    }
    #[inline(never)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }
    #[inline(never)]
    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }
    #[inline(never)]
    fn xor(self, other: Self) -> Self {
        self.zip(other, |a, b| a ^ b)
    }
    #[inline(never)]
    fn shl<const BITS: i32>(self) -> Self {
        Self(self.0.map(|lane| lane << BITS))
    }
    #[inline(never)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(self.0.map(|lane| lane >> BITS))
    }
    #[inline(never)]
    fn mul32(self, other: Self) -> Self {
        self.zip(other, |a, b| u64::from(a as u32) * u64::from(b as u32))
    }
    #[inline(never)]
    fn eq(self, other: Self) -> Self::Mask {
        let mut out = [false; N];
        for (lane, mask) in out.iter_mut().enumerate() {
            *mask = self.0[lane] == other.0[lane];
        }
        out
    }
    #[inline(never)]
    fn mask_from_bits(bits: u32) -> Self::Mask {
        let mut out = [false; N];
        for (lane, mask) in out.iter_mut().enumerate() {
            *mask = bits >> lane & 1 == 1;
        }
        out
    }
    #[inline(never)]
    fn mask_bits(mask: Self::Mask) -> u32 {
        mask.iter().enumerate().fold(0, |bits, (lane, mask)| bits | u32::from(*mask) << lane)
    }
    #[inline(never)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        let mut out = b;
        for (lane, mask) in mask.iter().enumerate() {
            if *mask {
                out.0[lane] = a.0[lane];
            }
        }
        out
    }
    #[inline(never)]
    fn load_rows<const W: usize>(rows: &[&[u64; W]]) -> [Self; W] {
        let mut out = [Self([0; N]); W];
        for (word, column) in out.iter_mut().enumerate() {
            for (lane, value) in column.0.iter_mut().enumerate() {
                *value = rows[lane][word];
            }
        }
        out
    }
    #[inline(never)]
    fn to_rows<const W: usize>(columns: &[Self; W], rows: &mut [[u64; W]]) {
        for (word, column) in columns.iter().enumerate() {
            for (lane, value) in column.0.iter().enumerate() {
                rows[lane][word] = *value;
            }
        }
    }
    #[inline(never)]
    fn product_26(x: &[Self; 10], y: &[Self; 10]) -> [Self; 10] {
        field26::product(x, y)
    }
    #[inline(never)]
    fn square_26(x: &[Self; 10]) -> [Self; 10] {
        field26::squared(x)
    }
}

impl<const N: usize> Ifma for Array<N> {
    #[inline(never)]
    fn product_52(a: &[Self; 5], b: &[Self; 5]) -> [Self; 5] {
        field52::product(a, b)
    }
    #[inline(never)]
    fn square_52(a: &[Self; 5]) -> [Self; 5] {
        field52::squared(a)
    }
    #[inline(never)]
    fn madd_lo(self, a: Self, b: Self) -> Self {
        let product = a.zip(b, |a, b| (a & LOW_52).wrapping_mul(b & LOW_52) & LOW_52);
        self.add(product)
    }
    #[inline(never)]
    fn madd_hi(self, a: Self, b: Self) -> Self {
        let product = a.zip(b, |a, b| ((u128::from(a & LOW_52) * u128::from(b & LOW_52)) >> 52) as u64);
        self.add(product)
    }
}

impl<const N: usize> Array32<N> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        let mut out = self;
        for (lane, value) in out.0.iter_mut().zip(other.0) {
            *lane = f(*lane, value);
        }
        out
    }
}

impl<const N: usize> Lanes32 for Array32<N> {
    const COUNT: usize = N;

    #[inline(never)]
    fn splat(value: u32) -> Self {
        Self([value; N])
    }
    #[inline(never)]
    fn from_lanes(lanes: &[u32]) -> Self {
        let mut out = [0; N];
        out.copy_from_slice(&lanes[..N]);
        Self(out)
    }
    #[inline(never)]
    fn to_lanes(self, lanes: &mut [u32]) {
        lanes[..N].copy_from_slice(&self.0);
    }
    #[inline(never)]
    fn add(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_add)
    }
    #[inline(never)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }
    #[inline(never)]
    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }
    #[inline(never)]
    fn xor(self, other: Self) -> Self {
        self.zip(other, |a, b| a ^ b)
    }
    #[inline(never)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(self.0.map(|lane| lane >> BITS))
    }
    #[inline(never)]
    fn rotr<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        Self(self.0.map(|lane| lane.rotate_right(RIGHT as u32)))
    }
    #[inline(never)]
    fn select(mask: Self, a: Self, b: Self) -> Self {
        mask.choose(a, b)
    }
    #[inline(never)]
    fn load_blocks(blocks: &[&[u8; 64]]) -> [Self; 16] {
        let mut out = [Self([0; N]); 16];
        for (word, column) in out.iter_mut().enumerate() {
            for (lane, value) in column.0.iter_mut().enumerate() {
                *value = u32::from_le_bytes(blocks[lane].as_chunks::<4>().0[word]);
            }
        }
        out
    }
}
