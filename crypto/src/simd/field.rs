//! Field elements modulo p = 2^255 - 19, one per lane: the interface that points and decoding are written over.
//!
//! **Bounds are types.** A representation has limbs with some slack; how much of it a value may use is part of its
//! type. A *unit* is the size of a reduced value:
//!
//! | type | what it is | where it may stand |
//! |---|---|---|
//! | `Self` | result of a multiplication, one unit | everywhere |
//! | `Loose` | the same, of which a representation may not have carried its limbs yet | in sums |
//! | `Signed` | a product, perhaps to be negated | in [`Field::twice_sub_add`] |
//! | `Two` | a + b | either operand of a multiplication, square |
//! | `Three` | a - b, 2a + b, 2a + b - c | either operand |
//! | `Four` | 2a - b, a + b - c | left operand only |
//!
//! Most products in formulas for points go into sums only, whose limbs have to be carried anyway: carrying them once instead of
//! twice is what `Loose` is for. There is no way to add to a sum, so no bound can grow beyond what `field26.rs` and
//! `field52.rs` prove for these. In radix 2^52 the last three are the same; the discipline is the stricter one's.
//!
//! Source of the exponent chains: the exponents' binary form (250 ones); any chain of 11 multiplications and 254
//! squarings of this kind will do.

use super::lanes::Lanes;

/// p = 2^255 - 19 as 64-bit words, low to high.
#[cfg(test)]
pub(crate) const P: [u64; 4] = [0xffff_ffff_ffff_ffed, u64::MAX, u64::MAX, 0x7fff_ffff_ffff_ffff];
/// The curve constant d = -121665/121666.
pub(crate) const D: [u64; 4] =
    [0x75eb_4dca_1359_78a3, 0x0070_0a4d_4141_d8ab, 0x8cc7_4079_7779_e898, 0x5203_6cee_2b6f_fe73];
/// 2d.
pub(crate) const D2: [u64; 4] =
    [0xebd6_9b94_26b2_f159, 0x00e0_149a_8283_b156, 0x198e_80f2_eef3_d130, 0x2406_d9dc_56df_fce7];
/// 1/d.
pub(crate) const D_INVERSE: [u64; 4] =
    [0x25e0_f276_cdc9_f843, 0x0b5d_d698_4279_542e, 0x2b16_2114_cdb9_cf66, 0x4090_7ed2_14d5_ce43];
/// A square root of -1 (the one of even parity).
pub(crate) const SQRT_MINUS_1: [u64; 4] =
    [0xc4ee_1b27_4a0e_a0b0, 0x2f43_1806_ad2f_e478, 0x2b4d_0099_3dfb_d7a7, 0x2b83_2480_4fc1_df0b];

/// A vector of field elements modulo p. See the module's table for the four types.
pub(crate) trait Field: Copy {
    /// The vector its limbs are made of.
    type V: Lanes;
    type Loose: Copy + From<Self>;
    type Signed: Copy;
    type Two: Copy + From<Self> + Into<Self::Three> + Into<Self::Four>;
    type Three: Copy + From<Self> + From<Self::Two> + Into<Self::Four>;
    type Four: Copy + From<Self> + From<Self::Two> + From<Self::Three>;

    /// The same element in every lane, from 64-bit words below 2^255.
    fn constant(words: [u64; 4]) -> Self;
    /// From four words per lane; bit 255 is ignored, values from p to 2^255 - 1 are taken modulo p.
    fn from_words(words: [Self::V; 4]) -> Self;
    /// The canonical value (below p) of each lane as words.
    fn to_words(self) -> [Self::V; 4];

    fn mul_loose<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Self::Loose;
    fn square_loose<A: Into<Self::Two>>(a: A) -> Self::Loose;
    /// `a * b`, negated where `negative` is set.
    fn mul_signed<A: Into<Self::Four>>(
        negative: Option<<Self::V as Lanes>::Mask>,
        a: A,
        b: Self,
    ) -> Self::Signed;
    /// Carried as far as an operand needs.
    fn operand(a: Self::Loose) -> Self::Two;
    /// Carried and normalised.
    fn settle(a: Self::Loose) -> Self;

    #[inline(always)]
    fn mul<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Self {
        Self::settle(Self::mul_loose(a, b))
    }
    /// A product that is only ever an operand again: a representation may leave its limbs unnormalised.
    #[inline(always)]
    fn mul_operand<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Self::Two {
        Self::operand(Self::mul_loose(a, b))
    }
    #[inline(always)]
    fn square<A: Into<Self::Two>>(a: A) -> Self {
        Self::settle(Self::square_loose(a))
    }
    /// Squares independent values `count` times each, in turn, so that they fill each other's latencies.
    fn square_group<const N: usize>(values: &mut [Self; N], count: usize);

    fn add<A: Into<Self::Loose>, B: Into<Self::Loose>>(a: A, b: B) -> Self::Two;
    fn sub<A: Into<Self::Loose>, B: Into<Self::Loose>>(a: A, b: B) -> Self::Three;
    /// (2a - b, 2a + b).
    fn twice_sub_add<A: Into<Self::Loose>>(a: A, b: Self::Signed) -> (Self::Four, Self::Three);
    /// a + b - c.
    fn add_sub(a: Self::Loose, b: Self::Loose, c: Self::Loose) -> Self::Four;
    /// 2a + b - c.
    fn twice_add_sub(a: Self::Loose, b: Self::Loose, c: Self::Loose) -> Self::Three;
    fn add_reduced(a: Self, b: Self) -> Self;
    fn sub_reduced(a: Self, b: Self) -> Self;
    /// `mask ? -a : a`.
    fn negate_if(mask: <Self::V as Lanes>::Mask, a: Self) -> Self::Three;
    fn select(mask: <Self::V as Lanes>::Mask, a: Self, b: Self) -> Self;

    /// Five words that hold the limbs, for rows in memory.
    fn pack(self) -> [Self::V; 5];
    fn unpack(words: [Self::V; 5]) -> Self;
    fn pack_loose(loose: Self::Loose) -> [Self::V; 5];
    fn unpack_loose(words: [Self::V; 5]) -> Self::Loose;
    fn pack_operand(three: Self::Three) -> [Self::V; 5];
    fn unpack_operand(words: [Self::V; 5]) -> Self::Three;

    #[inline(always)]
    fn zero() -> Self {
        Self::constant([0; 4])
    }
    #[inline(always)]
    fn one() -> Self {
        Self::constant([1, 0, 0, 0])
    }

    /// Lanes whose value is 0 modulo p.
    #[inline(always)]
    fn is_zero(self) -> <Self::V as Lanes>::Mask {
        let words = self.to_words();
        let any = words[0].or(words[1]).or(words[2].or(words[3]));
        any.eq(Self::V::splat(0))
    }
}

/// A step of the chain: `powers[to] = powers[from]^(2^squares) * powers[by]`; `by` is not `to`.
struct Step {
    from: usize,
    squares: usize,
    by: usize,
    to: usize,
}

const fn step(from: usize, squares: usize, by: usize, to: usize) -> Step {
    Step { from, squares, by, to }
}

const X: usize = 0;
const X_2: usize = 1;
const X_9: usize = 2;
const X_11: usize = 3;
/// Runs of ones: x^(2^n - 1) for n = 5 or 50, 10, 20 or 100, 40 or 200. A run of n + m ones is a run of n, shifted by
/// m, times a run of m.
const ONES_5: usize = 4;
const ONES_10: usize = 5;
const ONES_20: usize = 6;
const ONES_40: usize = 7;

/// From x and x^2 to x^(2^250 - 1), which replaces the run of 40. A loop over a table, since the same code in a row
/// would be twenty-four multiplications long and leave the instruction cache.
const CHAIN: [Step; 10] = [
    step(X_2, 2, X, X_9),
    step(X_9, 0, X_2, X_11),
    step(X_11, 1, X_9, ONES_5),
    step(ONES_5, 5, ONES_5, ONES_10),
    step(ONES_10, 10, ONES_10, ONES_20),
    step(ONES_20, 20, ONES_20, ONES_40),
    // 50, 100, 200 and 250 ones.
    step(ONES_40, 10, ONES_10, ONES_5),
    step(ONES_5, 50, ONES_5, ONES_20),
    step(ONES_20, 100, ONES_20, ONES_40),
    step(ONES_40, 50, ONES_5, ONES_40),
];

/// The chain and a last step.
#[inline(always)]
fn power<F: Field, const N: usize>(x: [F; N], last: &Step) -> [F; N] {
    let mut powers = [x; 8];
    F::square_group(&mut powers[X_2], 1);
    for step in CHAIN.iter().chain([last]) {
        // In place: the values of a group are a kilobyte and more.
        if step.to != step.from {
            powers[step.to] = powers[step.from];
        }
        F::square_group(&mut powers[step.to], step.squares);
        for i in 0..N {
            powers[step.to][i] = F::mul(powers[step.to][i], powers[step.by][i]);
        }
    }
    powers[ONES_40]
}

/// x^((p - 5) / 8) = x^(2^252 - 3): the power behind square roots.
#[inline(always)]
pub(crate) fn pow_p58<F: Field, const N: usize>(x: [F; N]) -> [F; N] {
    power(x, &step(ONES_40, 2, X, ONES_40))
}

/// x^(p - 2) = 1/x; 0 for 0.
#[inline(always)]
pub(crate) fn invert<F: Field, const N: usize>(x: [F; N]) -> [F; N] {
    power(x, &step(ONES_40, 5, X_11, ONES_40))
}
