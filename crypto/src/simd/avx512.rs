//! The lanes of AVX-512 with IFMA: eight of 64 bits, sixteen of 32 bits. Nothing but the traits' methods.
//!
//! Safety of the whole file: values of these types are made and used only by kernels that `backend.rs` hands out
//! after it has detected AVX-512 F, DQ, BW, VL and IFMA on the running CPU, so every intrinsic below is available
//! where it is reached. The methods are `inline(always)` so that they become part of a kernel compiled for those.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::lanes::{Ifma, Lanes, Lanes32};

/// Eight lanes of 64 bits.
#[derive(Clone, Copy)]
pub(crate) struct V8(__m512i);

/// Sixteen lanes of 32 bits.
#[derive(Clone, Copy)]
pub(crate) struct V16x32(__m512i);

/// One intrinsic on values.
macro_rules! op {
    ($call:expr) => {{
        // SAFETY: the features were detected before any kernel could reach this (see the head of the file); operands
        // are values, or pointers into slices whose lengths were checked just before.
        unsafe { $call }
    }};
}

/// 8 x 8 transposition of 64-bit words: 24 shuffles.
#[inline(always)]
fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
    op!({
        let a0 = _mm512_unpacklo_epi64(r[0], r[1]);
        let a1 = _mm512_unpackhi_epi64(r[0], r[1]);
        let a2 = _mm512_unpacklo_epi64(r[2], r[3]);
        let a3 = _mm512_unpackhi_epi64(r[2], r[3]);
        let a4 = _mm512_unpacklo_epi64(r[4], r[5]);
        let a5 = _mm512_unpackhi_epi64(r[4], r[5]);
        let a6 = _mm512_unpacklo_epi64(r[6], r[7]);
        let a7 = _mm512_unpackhi_epi64(r[6], r[7]);
        // Each of the above holds, per 128-bit block b, words 2b or 2b + 1 of two rows.
        let even_02 = _mm512_shuffle_i64x2::<0x88>(a0, a2);
        let odd_02 = _mm512_shuffle_i64x2::<0xdd>(a0, a2);
        let even_13 = _mm512_shuffle_i64x2::<0x88>(a1, a3);
        let odd_13 = _mm512_shuffle_i64x2::<0xdd>(a1, a3);
        let even_46 = _mm512_shuffle_i64x2::<0x88>(a4, a6);
        let odd_46 = _mm512_shuffle_i64x2::<0xdd>(a4, a6);
        let even_57 = _mm512_shuffle_i64x2::<0x88>(a5, a7);
        let odd_57 = _mm512_shuffle_i64x2::<0xdd>(a5, a7);
        [
            _mm512_shuffle_i64x2::<0x88>(even_02, even_46),
            _mm512_shuffle_i64x2::<0x88>(even_13, even_57),
            _mm512_shuffle_i64x2::<0x88>(odd_02, odd_46),
            _mm512_shuffle_i64x2::<0x88>(odd_13, odd_57),
            _mm512_shuffle_i64x2::<0xdd>(even_02, even_46),
            _mm512_shuffle_i64x2::<0xdd>(even_13, even_57),
            _mm512_shuffle_i64x2::<0xdd>(odd_02, odd_46),
            _mm512_shuffle_i64x2::<0xdd>(odd_13, odd_57),
        ]
    })
}

/// Four words of each of two rows, from `word` on.
#[inline(always)]
fn two_rows<const N: usize>(low: &[u64; N], high: &[u64; N], word: usize) -> __m512i {
    let (low, high) = (&low[word..word + 4], &high[word..word + 4]);
    op!({
        let first = _mm256_loadu_si256(low.as_ptr().cast());
        let second = _mm256_loadu_si256(high.as_ptr().cast());
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
    })
}

impl Lanes for V8 {
    const COUNT: usize = 8;
    type Mask = __mmask8;

    #[inline(always)]
    fn splat(value: u64) -> Self {
        Self(op!(_mm512_set1_epi64(value as i64)))
    }
    #[inline(always)]
    fn from_lanes(lanes: &[u64]) -> Self {
        let lanes = &lanes[..8];
        Self(op!(_mm512_loadu_si512(lanes.as_ptr().cast())))
    }
    #[inline(always)]
    fn to_lanes(self, lanes: &mut [u64]) {
        let lanes = &mut lanes[..8];
        op!(_mm512_storeu_si512(lanes.as_mut_ptr().cast(), self.0));
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm512_add_epi64(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(op!(_mm512_sub_epi64(self.0, other.0)))
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(op!(_mm512_and_si512(self.0, other.0)))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(op!(_mm512_or_si512(self.0, other.0)))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(op!(_mm512_xor_si512(self.0, other.0)))
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self) -> Self {
        // A constant count: the compiler turns it into the immediate form.
        Self(op!(_mm512_sll_epi64(self.0, _mm_cvtsi32_si128(BITS))))
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(op!(_mm512_srl_epi64(self.0, _mm_cvtsi32_si128(BITS))))
    }
    #[inline(always)]
    fn mul32(self, other: Self) -> Self {
        Self(op!(_mm512_mul_epu32(self.0, other.0)))
    }
    #[inline(always)]
    fn rotr<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        Self(op!(_mm512_ror_epi64::<RIGHT>(self.0)))
    }
    #[inline(always)]
    fn choose(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_ternarylogic_epi64::<0xca>(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn majority(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_ternarylogic_epi64::<0xe8>(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn xor3(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_ternarylogic_epi64::<0x96>(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self::Mask {
        op!(_mm512_cmpeq_epi64_mask(self.0, other.0))
    }
    #[inline(always)]
    fn mask_from_bits(bits: u32) -> Self::Mask {
        bits as __mmask8
    }
    #[inline(always)]
    fn mask_bits(mask: Self::Mask) -> u32 {
        u32::from(mask)
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Self(op!(_mm512_mask_blend_epi64(mask, b.0, a.0)))
    }
    #[inline(always)]
    fn load_rows<const N: usize>(rows: &[&[u64; N]]) -> [Self; N] {
        const { assert!(N.is_multiple_of(4)) };
        let rows = &rows[..8];
        let mut out = [Self::splat(0); N];
        let mut word = 0;
        while word < N {
            // Two rows to a vector as they are loaded: a third of the shuffles less than with whole rows.
            let [r02, r13, r46, r57] = [
                two_rows(rows[0], rows[2], word),
                two_rows(rows[1], rows[3], word),
                two_rows(rows[4], rows[6], word),
                two_rows(rows[5], rows[7], word),
            ];
            op!({
                // Each block of 128 bits: a word of two rows next to each other.
                let low_even = _mm512_unpacklo_epi64(r02, r13);
                let low_odd = _mm512_unpackhi_epi64(r02, r13);
                let high_even = _mm512_unpacklo_epi64(r46, r57);
                let high_odd = _mm512_unpackhi_epi64(r46, r57);
                out[word] = Self(_mm512_shuffle_i64x2::<0x88>(low_even, high_even));
                out[word + 1] = Self(_mm512_shuffle_i64x2::<0x88>(low_odd, high_odd));
                out[word + 2] = Self(_mm512_shuffle_i64x2::<0xdd>(low_even, high_even));
                out[word + 3] = Self(_mm512_shuffle_i64x2::<0xdd>(low_odd, high_odd));
            });
            word += 4;
        }
        out
    }
    #[inline(always)]
    fn to_rows<const N: usize>(columns: &[Self; N], rows: &mut [[u64; N]]) {
        const { assert!(N.is_multiple_of(8)) };
        let rows = &mut rows[..8];
        let mut word = 0;
        while word < N {
            let mut block = [columns[word].0; 8];
            for column in 0..8 {
                block[column] = columns[word + column].0;
            }
            let lanes = transpose(block);
            for lane in 0..8 {
                // `word + 8 <= N`, so the store stays inside the row.
                op!(_mm512_storeu_si512(rows[lane].as_mut_ptr().add(word).cast(), lanes[lane]));
            }
            word += 8;
        }
    }
    #[inline(always)]
    fn prefetch<const N: usize>(row: &[u64; N]) {
        for line in row.as_chunks::<8>().0 {
            op!(_mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()));
        }
    }
}

impl Ifma for V8 {
    #[inline(always)]
    fn madd_lo(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_madd52lo_epu64(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn madd_hi(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_madd52hi_epu64(self.0, a.0, b.0)))
    }
}

impl Lanes32 for V16x32 {
    const COUNT: usize = 16;

    #[inline(always)]
    fn splat(value: u32) -> Self {
        Self(op!(_mm512_set1_epi32(value as i32)))
    }
    #[inline(always)]
    fn from_lanes(lanes: &[u32]) -> Self {
        let lanes = &lanes[..16];
        Self(op!(_mm512_loadu_si512(lanes.as_ptr().cast())))
    }
    #[inline(always)]
    fn to_lanes(self, lanes: &mut [u32]) {
        let lanes = &mut lanes[..16];
        op!(_mm512_storeu_si512(lanes.as_mut_ptr().cast(), self.0));
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm512_add_epi32(self.0, other.0)))
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(op!(_mm512_and_si512(self.0, other.0)))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(op!(_mm512_or_si512(self.0, other.0)))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(op!(_mm512_xor_si512(self.0, other.0)))
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        Self(op!(_mm512_srl_epi32(self.0, _mm_cvtsi32_si128(BITS))))
    }
    #[inline(always)]
    fn rotr<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        Self(op!(_mm512_ror_epi32::<RIGHT>(self.0)))
    }
    #[inline(always)]
    fn select(mask: Self, a: Self, b: Self) -> Self {
        mask.choose(a, b)
    }
    #[inline(always)]
    fn choose(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_ternarylogic_epi32::<0xca>(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn majority(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_ternarylogic_epi32::<0xe8>(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn xor3(self, a: Self, b: Self) -> Self {
        Self(op!(_mm512_ternarylogic_epi32::<0x96>(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn load_blocks(blocks: &[&[u8; 64]]) -> [Self; 16] {
        let blocks = &blocks[..16];
        // Two 8 x 8 transpositions of word pairs, then the pairs of the lower and the upper eight lanes are parted.
        let mut halves = [[Self::splat(0).0; 8]; 2];
        for lane in 0..16 {
            halves[lane / 8][lane % 8] = op!(_mm512_loadu_si512(blocks[lane].as_ptr().cast()));
        }
        let (low, high) = (transpose(halves[0]), transpose(halves[1]));
        let mut out = [Self::splat(0); 16];
        op!({
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            for pair in 0..8 {
                out[2 * pair] = Self(_mm512_permutex2var_epi32(low[pair], even, high[pair]));
                out[2 * pair + 1] = Self(_mm512_permutex2var_epi32(low[pair], odd, high[pair]));
            }
        });
        out
    }
}
