//! The lanes of AVX2: four of 64 bits, eight of 32 bits. Nothing but the traits' methods, one intrinsic or two each.
//!
//! Safety of the whole file: values of these types are made and used only by kernels that `backend.rs` hands out
//! after it has detected AVX2 on the running CPU, so every intrinsic below is available where it is reached. The
//! methods are `inline(always)` so that they become part of a kernel compiled for AVX2.
#![allow(unsafe_code)]

use core::arch::x86_64::*;
use core::hint::black_box;
use core::mem::MaybeUninit;

use super::field26;
use super::lanes::{Lanes, Lanes32};

/// Four lanes of 64 bits.
#[derive(Clone, Copy)]
pub(crate) struct V4(__m256i);

/// Eight lanes of 32 bits.
#[derive(Clone, Copy)]
pub(crate) struct V8x32(__m256i);

/// One intrinsic on values.
macro_rules! op {
    ($call:expr) => {{
        // SAFETY: AVX2 was detected before any kernel could reach this (see the head of the file); operands are
        // values, or pointers into slices whose lengths were checked just before.
        unsafe { $call }
    }};
}

/// 4 x 4 transposition of 64-bit words.
#[inline(always)]
fn transpose(rows: [__m256i; 4]) -> [__m256i; 4] {
    op!({
        let a = _mm256_unpacklo_epi64(rows[0], rows[1]);
        let b = _mm256_unpackhi_epi64(rows[0], rows[1]);
        let c = _mm256_unpacklo_epi64(rows[2], rows[3]);
        let d = _mm256_unpackhi_epi64(rows[2], rows[3]);
        [
            _mm256_permute2x128_si256::<0x20>(a, c),
            _mm256_permute2x128_si256::<0x20>(b, d),
            _mm256_permute2x128_si256::<0x31>(a, c),
            _mm256_permute2x128_si256::<0x31>(b, d),
        ]
    })
}

impl Lanes for V4 {
    const COUNT: usize = 4;
    type Mask = __m256i;

    #[inline(always)]
    fn splat(value: u64) -> Self {
        Self(op!(_mm256_set1_epi64x(value as i64)))
    }
    #[inline(always)]
    fn from_lanes(lanes: &[u64]) -> Self {
        let lanes = &lanes[..4];
        Self(op!(_mm256_loadu_si256(lanes.as_ptr().cast())))
    }
    #[inline(always)]
    fn to_lanes(self, lanes: &mut [u64]) {
        let lanes = &mut lanes[..4];
        op!(_mm256_storeu_si256(lanes.as_mut_ptr().cast(), self.0));
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm256_add_epi64(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(op!(_mm256_sub_epi64(self.0, other.0)))
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(op!(_mm256_and_si256(self.0, other.0)))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(op!(_mm256_or_si256(self.0, other.0)))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(op!(_mm256_xor_si256(self.0, other.0)))
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self) -> Self {
        Self(op!(_mm256_slli_epi64::<BITS>(self.0)))
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(op!(_mm256_srli_epi64::<BITS>(self.0)))
    }
    #[inline(always)]
    fn mul32(self, other: Self) -> Self {
        Self(op!(_mm256_mul_epu32(self.0, other.0)))
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        op!(_mm256_cmpeq_epi64(self.0, other.0))
    }
    #[inline(always)]
    fn mask_from_bits(bits: u32) -> Self::Mask {
        op!({
            let weights = _mm256_setr_epi64x(1, 2, 4, 8);
            _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(i64::from(bits)), weights), weights)
        })
    }
    #[inline(always)]
    fn mask_bits(mask: Self::Mask) -> u32 {
        op!(_mm256_movemask_pd(_mm256_castsi256_pd(mask))) as u32
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Self(op!(_mm256_blendv_epi8(b.0, a.0, mask)))
    }
    #[inline(always)]
    fn load_rows<const N: usize>(rows: &[&[u64; N]]) -> [Self; N] {
        const { assert!(N.is_multiple_of(4)) };
        let rows = &rows[..4];
        let mut out = [Self::splat(0); N];
        let mut word = 0;
        while word < N {
            // `word + 4 <= N`, so each load stays inside its row.
            let mut block = [Self::splat(0).0; 4];
            for row in 0..4 {
                block[row] = op!(_mm256_loadu_si256(rows[row].as_ptr().add(word).cast()));
            }
            let columns = transpose(block);
            out[word] = Self(columns[0]);
            out[word + 1] = Self(columns[1]);
            out[word + 2] = Self(columns[2]);
            out[word + 3] = Self(columns[3]);
            word += 4;
        }
        out
    }
    #[inline(always)]
    fn to_rows<const N: usize>(columns: &[Self; N], rows: &mut [[u64; N]]) {
        const { assert!(N.is_multiple_of(4)) };
        let rows = &mut rows[..4];
        let mut word = 0;
        while word < N {
            let lanes =
                transpose([columns[word].0, columns[word + 1].0, columns[word + 2].0, columns[word + 3].0]);
            for lane in 0..4 {
                // `word + 4 <= N`, so the store stays inside the row.
                op!(_mm256_storeu_si256(rows[lane].as_mut_ptr().add(word).cast(), lanes[lane]));
            }
            word += 4;
        }
    }
    #[inline(always)]
    fn prefetch<const N: usize>(row: &[u64; N]) {
        for line in row.as_chunks::<8>().0 {
            op!(_mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()));
        }
    }
    #[inline(always)]
    fn product_26(x: &[Self; 10], y: &[Self; 10]) -> [Self; 10] {
        op!(black_box(product as unsafe fn(&[Self; 10], &[Self; 10]) -> [Self; 10])(x, y))
    }
    #[inline(always)]
    fn square_26(x: &[Self; 10]) -> [Self; 10] {
        op!(square(x))
    }
}

impl Lanes32 for V8x32 {
    const COUNT: usize = 8;

    #[inline(always)]
    fn splat(value: u32) -> Self {
        Self(op!(_mm256_set1_epi32(value as i32)))
    }
    #[inline(always)]
    fn from_lanes(lanes: &[u32]) -> Self {
        let lanes = &lanes[..8];
        Self(op!(_mm256_loadu_si256(lanes.as_ptr().cast())))
    }
    #[inline(always)]
    fn to_lanes(self, lanes: &mut [u32]) {
        let lanes = &mut lanes[..8];
        op!(_mm256_storeu_si256(lanes.as_mut_ptr().cast(), self.0));
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm256_add_epi32(self.0, other.0)))
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(op!(_mm256_and_si256(self.0, other.0)))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(op!(_mm256_or_si256(self.0, other.0)))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(op!(_mm256_xor_si256(self.0, other.0)))
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(op!(_mm256_srli_epi32::<BITS>(self.0)))
    }
    #[inline(always)]
    fn rotr<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        const { assert!(RIGHT + LEFT == 32) };
        op!({
            // Whole bytes move with one shuffle instead of two shifts and an or.
            if RIGHT == 16 {
                let order = _mm256_setr_epi8(
                    2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8,
                    9, 14, 15, 12, 13,
                );
                Self(_mm256_shuffle_epi8(self.0, order))
            } else if RIGHT == 8 {
                let order = _mm256_setr_epi8(
                    1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11,
                    8, 13, 14, 15, 12,
                );
                Self(_mm256_shuffle_epi8(self.0, order))
            } else {
                Self(_mm256_or_si256(_mm256_srli_epi32::<RIGHT>(self.0), _mm256_slli_epi32::<LEFT>(self.0)))
            }
        })
    }
    #[inline(always)]
    fn select(mask: Self, a: Self, b: Self) -> Self {
        Self(op!(_mm256_blendv_epi8(b.0, a.0, mask.0)))
    }
    #[inline(always)]
    fn load_blocks(blocks: &[&[u8; 64]]) -> [Self; 16] {
        let blocks = &blocks[..8];
        let mut out = [Self::splat(0); 16];
        for half in 0..2 {
            // Half a block is 32 bytes, so each load stays inside its block.
            let mut rows = [Self::splat(0).0; 8];
            for lane in 0..8 {
                rows[lane] = op!(_mm256_loadu_si256(blocks[lane].as_ptr().add(32 * half).cast()));
            }
            let columns = transpose_32(rows);
            for word in 0..8 {
                out[8 * half + word] = Self(columns[word]);
            }
        }
        out
    }
}

// Called through a pointer that the compiler cannot see through. Inlined into a kernel (which `inline(never)` does not
// prevent across code generation units), it knows that operands are below 2^32, drops the masks that say so, and then
// no longer recognises most products as `vpmuludq` but multiplies 64 by 64 bits: 174 of them for 109.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn product(x: &[V4; 10], y: &[V4; 10]) -> [V4; 10] {
    align_frame();
    field26::product(x, y)
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn square(x: &[V4; 10]) -> [V4; 10] {
    align_frame();
    field26::squared(x)
}

/// Makes the compiler align the frame of the function that this is inlined into. It does not do so for vectors that it has
/// to put aside there, half of which then lie across two cache lines, and one across two pages where the frame
/// does: with its 900 bytes at more than a fifth of all offsets of the stack, and a third slower then.
#[inline(always)]
fn align_frame() {
    black_box(&Aligned(MaybeUninit::uninit()));
}

#[repr(align(32))]
struct Aligned(#[allow(dead_code, reason = "only its place matters")] MaybeUninit<[u8; 32]>);

/// 8 x 8 transposition of 32-bit words.
#[inline(always)]
fn transpose_32(rows: [__m256i; 8]) -> [__m256i; 8] {
    op!({
        let ab_lo = _mm256_unpacklo_epi32(rows[0], rows[1]);
        let ab_hi = _mm256_unpackhi_epi32(rows[0], rows[1]);
        let cd_lo = _mm256_unpacklo_epi32(rows[2], rows[3]);
        let cd_hi = _mm256_unpackhi_epi32(rows[2], rows[3]);
        let ef_lo = _mm256_unpacklo_epi32(rows[4], rows[5]);
        let ef_hi = _mm256_unpackhi_epi32(rows[4], rows[5]);
        let gh_lo = _mm256_unpacklo_epi32(rows[6], rows[7]);
        let gh_hi = _mm256_unpackhi_epi32(rows[6], rows[7]);
        let abcd_0 = _mm256_unpacklo_epi64(ab_lo, cd_lo);
        let abcd_1 = _mm256_unpackhi_epi64(ab_lo, cd_lo);
        let abcd_2 = _mm256_unpacklo_epi64(ab_hi, cd_hi);
        let abcd_3 = _mm256_unpackhi_epi64(ab_hi, cd_hi);
        let efgh_0 = _mm256_unpacklo_epi64(ef_lo, gh_lo);
        let efgh_1 = _mm256_unpackhi_epi64(ef_lo, gh_lo);
        let efgh_2 = _mm256_unpacklo_epi64(ef_hi, gh_hi);
        let efgh_3 = _mm256_unpackhi_epi64(ef_hi, gh_hi);
        [
            _mm256_permute2x128_si256::<0x20>(abcd_0, efgh_0),
            _mm256_permute2x128_si256::<0x20>(abcd_1, efgh_1),
            _mm256_permute2x128_si256::<0x20>(abcd_2, efgh_2),
            _mm256_permute2x128_si256::<0x20>(abcd_3, efgh_3),
            _mm256_permute2x128_si256::<0x31>(abcd_0, efgh_0),
            _mm256_permute2x128_si256::<0x31>(abcd_1, efgh_1),
            _mm256_permute2x128_si256::<0x31>(abcd_2, efgh_2),
            _mm256_permute2x128_si256::<0x31>(abcd_3, efgh_3),
        ]
    })
}
