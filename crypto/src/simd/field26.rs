//! Field elements in radix 2^25.5: ten limbs of 26 and 25 bits in turn, one 64-bit lane each. For instruction sets
//! whose widest multiplication is 32 x 32 -> 64 bits (AVX2's `vpmuludq`).
//!
//! Limb i has weight 2^ceil(25.5 i). A product of limbs i and j has the weight of limb i + j, doubled if both are odd;
//! from limb 10 on it wraps with a factor 19, since 2^255 = 19 modulo p.
//!
//! # Bounds
//!
//! One unit is at most 2^26 + 2^18 in an even limb and 2^25 + 2^18 in an odd one. With u units on the left and v on
//! the right of a multiplication:
//!
//! * the right limbs are multiplied by 19 in 32 bits: 19 * v * (2^26 + 2^18) < 2^32 needs v <= 3;
//! * a column holds at most u * v * 2^52 * (1 + 19 * (4 + 5/2)) (1.01 for the slack), which for u = 4, v = 3 is
//!   2^62.6 < 2^64;
//! * odd left limbs are doubled: 2 * 4 * 2^25.01 < 2^32.
//!
//! A square has u = v <= 2, and doubles or multiplies by 38 at most: 38 * 2 * 2^25.01 < 2^32.
//!
//! After a product `carry` brings every limb back into one unit: two chains of carries at once, 0 to 4 and 4 to 9,
//! then 9 to 0 (times 19) and 0 to 1. The carry out of limb 9 is below 2^38, so limb 0 grows to at most 2^43 and
//! passes at most 2^17 on to limb 1; limb 4 passes at most 2^13 on to limb 5.
//!
//! A difference a - b is computed as a + 2p - b with 2p spread so that each of its limbs (2^27 - 38, 2^26 - 2, 2^27 - 2,
//! ..) exceeds one unit: nothing goes below zero, and the sum has three units.
//!
//! # Cost
//!
//! A multiplication is 109 `vpmuludq` and about 140 additions, shifts and masks; a square 60 and 100. Zen 3 and Zen 4
//! start two of the former and four in all per cycle, so about 62 and 40 cycles for four lanes bound what follows.

use std::hint::black_box;

use super::field::Field;
use super::lanes::Lanes;

const LOW_26: u64 = (1 << 26) - 1;
const LOW_25: u64 = (1 << 25) - 1;
/// 2p, limb by limb.
const TWO_P: [u64; 10] = [
    (1 << 27) - 38,
    (1 << 26) - 2,
    (1 << 27) - 2,
    (1 << 26) - 2,
    (1 << 27) - 2,
    (1 << 26) - 2,
    (1 << 27) - 2,
    (1 << 26) - 2,
    (1 << 27) - 2,
    (1 << 26) - 2,
];

/// A value of at most `UNITS` units per limb.
#[derive(Clone, Copy)]
pub(crate) struct F26<V, const UNITS: usize>([V; 10]);

macro_rules! widen {
    ($($from:literal => $to:literal),*) => {$(
        impl<V> From<F26<V, $from>> for F26<V, $to> {
            #[inline(always)]
            fn from(value: F26<V, $from>) -> Self {
                Self(value.0)
            }
        }
    )*};
}
widen!(1 => 2, 1 => 3, 1 => 4, 2 => 3, 2 => 4, 3 => 4);

/// A sum of products of 32-bit halves.
macro_rules! dot {
    ($a:ident[$i:literal] * $b:ident[$j:literal] $(, $c:ident[$k:literal] * $d:ident[$l:literal])*) => {
        $a[$i].mul32($b[$j])$(.add($c[$k].mul32($d[$l])))*
    };
}

#[inline(always)]
fn times_19<V: Lanes>(value: V) -> V {
    value.shl::<4>().add(value.shl::<1>()).add(value)
}

/// Moves what is above the limb's width from limb `$i` to limb `$j`.
macro_rules! step {
    ($z:ident, 26, $i:literal => $j:literal) => {
        $z[$j] = $z[$j].add($z[$i].shr::<26>());
        $z[$i] = $z[$i].and(V::splat(LOW_26));
    };
    ($z:ident, 25, $i:literal => $j:literal) => {
        $z[$j] = $z[$j].add($z[$i].shr::<25>());
        $z[$i] = $z[$i].and(V::splat(LOW_25));
    };
}

/// Columns of up to 2^62.6 to one unit.
#[inline(always)]
#[rustfmt::skip]
fn carry<V: Lanes>(mut z: [V; 10]) -> [V; 10] {
    step!(z, 26, 0 => 1); step!(z, 26, 4 => 5);
    step!(z, 25, 1 => 2); step!(z, 25, 5 => 6);
    step!(z, 26, 2 => 3); step!(z, 26, 6 => 7);
    step!(z, 25, 3 => 4); step!(z, 25, 7 => 8);
    step!(z, 26, 4 => 5); step!(z, 26, 8 => 9);
    z[0] = z[0].add(times_19(z[9].shr::<25>()));
    z[9] = z[9].and(V::splat(LOW_25));
    step!(z, 26, 0 => 1);
    z
}

/// Limbs of a few units to one: each limb passes at most 2^3 on, all at once.
#[inline(always)]
fn carry_small<V: Lanes>(z: [V; 10]) -> [V; 10] {
    let low_26 = V::splat(LOW_26);
    let low_25 = V::splat(LOW_25);
    [
        z[0].and(low_26).add(times_19(z[9].shr::<25>())),
        z[1].and(low_25).add(z[0].shr::<26>()),
        z[2].and(low_26).add(z[1].shr::<25>()),
        z[3].and(low_25).add(z[2].shr::<26>()),
        z[4].and(low_26).add(z[3].shr::<25>()),
        z[5].and(low_25).add(z[4].shr::<26>()),
        z[6].and(low_26).add(z[5].shr::<25>()),
        z[7].and(low_25).add(z[6].shr::<26>()),
        z[8].and(low_26).add(z[7].shr::<25>()),
        z[9].and(low_25).add(z[8].shr::<26>()),
    ]
}

#[inline(always)]
#[rustfmt::skip]
pub(crate) fn product<V: Lanes>(x: &[V; 10], y: &[V; 10]) -> [V; 10] {
    let nineteen = V::splat(black_box(19));
    let mut n = *y;
    for limb in 1..10 {
        n[limb] = y[limb].mul32(nineteen);
    }
    let mut d = *x;
    for limb in [1, 3, 5, 7, 9] {
        d[limb] = x[limb].add(x[limb]);
    }
    carry([
            dot!(x[0] * y[0], d[1] * n[9], x[2] * n[8], d[3] * n[7], x[4] * n[6], d[5] * n[5], x[6] * n[4], d[7] * n[3], x[8] * n[2], d[9] * n[1]),
            dot!(x[0] * y[1], x[1] * y[0], x[2] * n[9], x[3] * n[8], x[4] * n[7], x[5] * n[6], x[6] * n[5], x[7] * n[4], x[8] * n[3], x[9] * n[2]),
            dot!(x[0] * y[2], d[1] * y[1], x[2] * y[0], d[3] * n[9], x[4] * n[8], d[5] * n[7], x[6] * n[6], d[7] * n[5], x[8] * n[4], d[9] * n[3]),
            dot!(x[0] * y[3], x[1] * y[2], x[2] * y[1], x[3] * y[0], x[4] * n[9], x[5] * n[8], x[6] * n[7], x[7] * n[6], x[8] * n[5], x[9] * n[4]),
            dot!(x[0] * y[4], d[1] * y[3], x[2] * y[2], d[3] * y[1], x[4] * y[0], d[5] * n[9], x[6] * n[8], d[7] * n[7], x[8] * n[6], d[9] * n[5]),
            dot!(x[0] * y[5], x[1] * y[4], x[2] * y[3], x[3] * y[2], x[4] * y[1], x[5] * y[0], x[6] * n[9], x[7] * n[8], x[8] * n[7], x[9] * n[6]),
            dot!(x[0] * y[6], d[1] * y[5], x[2] * y[4], d[3] * y[3], x[4] * y[2], d[5] * y[1], x[6] * y[0], d[7] * n[9], x[8] * n[8], d[9] * n[7]),
            dot!(x[0] * y[7], x[1] * y[6], x[2] * y[5], x[3] * y[4], x[4] * y[3], x[5] * y[2], x[6] * y[1], x[7] * y[0], x[8] * n[9], x[9] * n[8]),
            dot!(x[0] * y[8], d[1] * y[7], x[2] * y[6], d[3] * y[5], x[4] * y[4], d[5] * y[3], x[6] * y[2], d[7] * y[1], x[8] * y[0], d[9] * n[9]),
            dot!(x[0] * y[9], x[1] * y[8], x[2] * y[7], x[3] * y[6], x[4] * y[5], x[5] * y[4], x[6] * y[3], x[7] * y[2], x[8] * y[1], x[9] * y[0]),
    ])
}

#[inline(always)]
#[rustfmt::skip]
pub(crate) fn squared<V: Lanes>(x: &[V; 10]) -> [V; 10] {
    // Hidden from the compiler, which would make two shifts and two additions of one multiplication.
    let nineteen = V::splat(black_box(19));
    let mut n = *x;
    for limb in 5..10 {
        n[limb] = x[limb].mul32(nineteen);
    }
    let mut d = *x;
    for limb in 0..10 {
        d[limb] = x[limb].add(x[limb]);
    }
    // 38 x, for pairs of odd limbs that wrap.
    let mut m = n;
    for limb in [7, 9] {
        m[limb] = n[limb].add(n[limb]);
    }
    carry([
            dot!(x[0] * x[0], d[1] * m[9], d[2] * n[8], d[3] * m[7], d[4] * n[6], d[5] * n[5]),
            dot!(d[0] * x[1], d[2] * n[9], d[3] * n[8], d[4] * n[7], d[5] * n[6]),
            dot!(d[0] * x[2], d[1] * x[1], d[3] * m[9], d[4] * n[8], d[5] * m[7], x[6] * n[6]),
            dot!(d[0] * x[3], d[1] * x[2], d[4] * n[9], d[5] * n[8], d[6] * n[7]),
            dot!(d[0] * x[4], d[1] * d[3], x[2] * x[2], d[5] * m[9], d[6] * n[8], d[7] * n[7]),
            dot!(d[0] * x[5], d[1] * x[4], d[2] * x[3], d[6] * n[9], d[7] * n[8]),
            dot!(d[0] * x[6], d[1] * d[5], d[2] * x[4], d[3] * x[3], d[7] * m[9], x[8] * n[8]),
            dot!(d[0] * x[7], d[1] * x[6], d[2] * x[5], d[3] * x[4], d[8] * n[9]),
            dot!(d[0] * x[8], d[1] * d[7], d[2] * x[6], d[3] * d[5], x[4] * x[4], d[9] * n[9]),
            dot!(d[0] * x[9], d[1] * x[8], d[2] * x[7], d[3] * x[6], d[4] * x[5]),
    ])
}

/// a + b, limb by limb.
#[inline(always)]
fn plus<V: Lanes>(a: [V; 10], b: [V; 10]) -> [V; 10] {
    let mut out = a;
    for limb in 0..10 {
        out[limb] = a[limb].add(b[limb]);
    }
    out
}

/// a + 2p - b for a `b` of one unit.
#[inline(always)]
fn minus<V: Lanes>(a: [V; 10], b: [V; 10]) -> [V; 10] {
    let mut out = a;
    for limb in 0..10 {
        out[limb] = a[limb].add(V::splat(TWO_P[limb])).sub(b[limb]);
    }
    out
}

/// The limbs of the canonical value. `z` has one unit.
#[inline(always)]
#[rustfmt::skip]
fn freeze<V: Lanes>(mut z: [V; 10]) -> [V; 10] {
    macro_rules! ripple {
        () => {
            step!(z, 26, 0 => 1); step!(z, 25, 1 => 2); step!(z, 26, 2 => 3); step!(z, 25, 3 => 4);
            step!(z, 26, 4 => 5); step!(z, 25, 5 => 6); step!(z, 26, 6 => 7); step!(z, 25, 7 => 8);
            step!(z, 26, 8 => 9);
        };
    }
    ripple!();
    z[0] = z[0].add(times_19(z[9].shr::<25>()));
    z[9] = z[9].and(V::splat(LOW_25));
    ripple!();
    // The value is below 2^255 + 2^26 < 2p; subtract p if it is p or more, that is if value + 19 reaches 2^255.
    let mut q = z[0].add(V::splat(19)).shr::<26>();
    q = z[1].add(q).shr::<25>();
    q = z[2].add(q).shr::<26>();
    q = z[3].add(q).shr::<25>();
    q = z[4].add(q).shr::<26>();
    q = z[5].add(q).shr::<25>();
    q = z[6].add(q).shr::<26>();
    q = z[7].add(q).shr::<25>();
    q = z[8].add(q).shr::<26>();
    q = z[9].add(q).shr::<25>();
    z[0] = z[0].add(times_19(q));
    ripple!();
    z[9] = z[9].and(V::splat(LOW_25));
    z
}

impl<V: Lanes> Field for F26<V, 1> {
    type V = V;
    type Loose = Self;
    type Signed = Self;
    type Two = F26<V, 2>;
    type Three = F26<V, 3>;
    type Four = F26<V, 4>;

    #[inline(always)]
    fn constant(words: [u64; 4]) -> Self {
        Self::from_words([V::splat(words[0]), V::splat(words[1]), V::splat(words[2]), V::splat(words[3])])
    }
    #[inline(always)]
    fn from_words(w: [V; 4]) -> Self {
        let low_26 = V::splat(LOW_26);
        let low_25 = V::splat(LOW_25);
        Self([
            w[0].and(low_26),
            w[0].shr::<26>().and(low_25),
            w[0].shr::<51>().or(w[1].shl::<13>()).and(low_26),
            w[1].shr::<13>().and(low_25),
            w[1].shr::<38>(),
            w[2].and(low_25),
            w[2].shr::<25>().and(low_26),
            w[2].shr::<51>().or(w[3].shl::<13>()).and(low_25),
            w[3].shr::<12>().and(low_26),
            w[3].shr::<38>().and(low_25),
        ])
    }
    #[inline(always)]
    fn to_words(self) -> [V; 4] {
        let z = freeze(self.0);
        [
            z[0].or(z[1].shl::<26>()).or(z[2].shl::<51>()),
            z[2].shr::<13>().or(z[3].shl::<13>()).or(z[4].shl::<38>()),
            z[5].or(z[6].shl::<25>()).or(z[7].shl::<51>()),
            z[7].shr::<13>().or(z[8].shl::<12>()).or(z[9].shl::<38>()),
        ]
    }

    #[inline(always)]
    fn mul_loose<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Self {
        Self(V::product_26(&a.into().0, &b.into().0))
    }
    #[inline(always)]
    fn square_loose<A: Into<Self::Two>>(a: A) -> Self {
        Self(V::square_26(&a.into().0))
    }
    #[inline(always)]
    fn mul_signed<A: Into<Self::Four>>(negative: Option<V::Mask>, a: A, b: Self) -> Self {
        match negative {
            Some(negative) => Self::mul(a, Self::negate_if(negative, b)),
            None => Self::mul(a, b),
        }
    }
    #[inline(always)]
    fn operand(a: Self) -> Self::Two {
        a.into()
    }
    #[inline(always)]
    fn settle(a: Self) -> Self {
        a
    }
    #[inline(always)]
    fn square_group<const N: usize>(values: &mut [Self; N], count: usize) {
        for _ in 0..count {
            for value in &mut *values {
                *value = Self(V::square_26(&value.0));
            }
        }
    }

    #[inline(always)]
    fn add<A: Into<Self>, B: Into<Self>>(a: A, b: B) -> Self::Two {
        F26(plus(a.into().0, b.into().0))
    }
    #[inline(always)]
    fn sub<A: Into<Self>, B: Into<Self>>(a: A, b: B) -> Self::Three {
        F26(minus(a.into().0, b.into().0))
    }
    #[inline(always)]
    fn twice_sub_add<A: Into<Self>>(a: A, b: Self) -> (Self::Four, Self::Three) {
        let a = a.into().0;
        let twice = plus(a, a);
        (F26(minus(twice, b.0)), F26(plus(twice, b.0)))
    }
    #[inline(always)]
    fn add_sub(a: Self, b: Self, c: Self) -> Self::Four {
        F26(minus(plus(a.0, b.0), c.0))
    }
    #[inline(always)]
    fn twice_add_sub(a: Self, b: Self, c: Self) -> Self::Three {
        // Five units, so carried.
        F26(carry_small(minus(plus(plus(a.0, a.0), b.0), c.0)))
    }
    #[inline(always)]
    fn add_reduced(a: Self, b: Self) -> Self {
        Self(carry_small(plus(a.0, b.0)))
    }
    #[inline(always)]
    fn sub_reduced(a: Self, b: Self) -> Self {
        Self(carry_small(minus(a.0, b.0)))
    }
    #[inline(always)]
    fn negate_if(mask: V::Mask, a: Self) -> Self::Three {
        let mut out = a.0;
        for limb in 0..10 {
            out[limb] = V::select(mask, V::splat(TWO_P[limb]).sub(a.0[limb]), a.0[limb]);
        }
        F26(out)
    }
    #[inline(always)]
    fn select(mask: V::Mask, a: Self, b: Self) -> Self {
        let mut out = a.0;
        for limb in 0..10 {
            out[limb] = V::select(mask, a.0[limb], b.0[limb]);
        }
        Self(out)
    }

    // Limbs fit 32 bits, so a word holds two.
    #[inline(always)]
    fn pack(self) -> [V; 5] {
        let z = self.0;
        [
            z[0].or(z[1].shl::<32>()),
            z[2].or(z[3].shl::<32>()),
            z[4].or(z[5].shl::<32>()),
            z[6].or(z[7].shl::<32>()),
            z[8].or(z[9].shl::<32>()),
        ]
    }
    #[inline(always)]
    fn unpack(w: [V; 5]) -> Self {
        let low = V::splat(0xffff_ffff);
        Self([
            w[0].and(low),
            w[0].shr::<32>(),
            w[1].and(low),
            w[1].shr::<32>(),
            w[2].and(low),
            w[2].shr::<32>(),
            w[3].and(low),
            w[3].shr::<32>(),
            w[4].and(low),
            w[4].shr::<32>(),
        ])
    }
    #[inline(always)]
    fn pack_loose(loose: Self) -> [V; 5] {
        loose.pack()
    }
    #[inline(always)]
    fn unpack_loose(words: [V; 5]) -> Self {
        Self::unpack(words)
    }
    #[inline(always)]
    fn pack_operand(three: Self::Three) -> [V; 5] {
        // Three units of 26 bits fit 32.
        Self(three.0).pack()
    }
    #[inline(always)]
    fn unpack_operand(words: [V; 5]) -> Self::Three {
        F26(Self::unpack(words).0)
    }
}
