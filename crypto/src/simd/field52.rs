//! Field elements in radix 2^52: five limbs of 52 bits, one 64-bit lane each. For AVX-512 IFMA, whose multiply-add
//! takes 52-bit operands and gives the low or the high 52 bits of the product.
//!
//! Why 2^52 and not the usual 2^51: the high half of a product then has exactly the weight of the next limb (no
//! doubling), and since the instruction reads only the low 52 bits of an operand, a value needs no masks before it
//! is multiplied, only carries. The price is that a sum must be carried before it can be an operand (four shifts and
//! four additions); counted in instructions the whole mixed addition is about 17 % shorter.
//!
//! # Bounds
//!
//! * *Clean* (`F52`, one unit): limbs 0 to 3 below 2^52, limb 4 below 2^47 + 2^17, so the value is below
//!   2^255 (1 + 2^-30).
//! * *Operand* (`Two`, `Three`, `Four`): the low 52 bits of limbs 0 to 3 are the value's digits, what lies above them
//!   is left over from carrying and means nothing; limb 4 is below 2^52. Values are below 2^258.
//!
//! A product is below 2^516. Its columns t0 .. t9 are sums of at most ten 52-bit numbers each, below 2^56. The upper
//! five are carried in order, so that t5 .. t8 have their digits in the low 52 bits, and t9 = product >> 468 < 2^48.
//! 2^260 = 32 * 19 = 608 modulo p, so t5 .. t9 are multiplied by 608 into t0 .. t4: low halves into the same limb,
//! high halves into the next; the high half of the last (below 2^6) goes to limb 0 with another factor 608. Then the
//! bits of limb 4 from 47 on (below 2^10) are taken off and added to limb 0 with a factor 19 (2^255 = 19), and
//! carries run from limb 0 to limb 4, which receives at most 2^5: clean up to the masks.
//!
//! A square of a clean value is below 2^510.1, so its t9 is below 2^42.1 and 608 t9 below 2^52: no high half.
//!
//! A difference is a - b + 4p, where 4p = 2^257 - 76 needs two additions (limb 0 and limb 4); limbs may be negative
//! until the arithmetic shifts have carried.
//!
//! # Cost
//!
//! A multiplication: 50 + 12 + 1 multiply-adds, 8 + 3 + 8 (+ 4 masks) others: 85. A square: 30 + 9 + 1, 8 doublings,
//! 19 others: 67. A vector core of this kind starts two 512-bit instructions a cycle (Intel: ports 0 and 5; Zen 4: four
//! halves), so 43 and 34 cycles for eight lanes bound what follows; where only one multiply-add starts per cycle
//! (Zen 4) the bounds are 63 and 40.

use super::field::Field;
use super::lanes::Ifma;

const LOW_52: u64 = (1 << 52) - 1;
const LOW_47: u64 = (1 << 47) - 1;
/// 2^260 modulo p.
const FOLD: u64 = 608;

/// A clean value.
#[derive(Clone, Copy)]
pub(crate) struct F52<V>([V; 5]);

/// An operand of a multiplication, nothing else.
#[derive(Clone, Copy)]
pub(crate) struct Operand52<V>([V; 5]);

impl<V> From<F52<V>> for Operand52<V> {
    #[inline(always)]
    fn from(value: F52<V>) -> Self {
        Self(value.0)
    }
}

/// Carries from limb 0 up to limb 4; digits stay unmasked. `sum` has nonnegative limbs.
#[inline(always)]
fn ripple<V: Ifma>(mut r: [V; 5]) -> [V; 5] {
    r[1] = r[1].add(r[0].shr::<52>());
    r[2] = r[2].add(r[1].shr::<52>());
    r[3] = r[3].add(r[2].shr::<52>());
    r[4] = r[4].add(r[3].shr::<52>());
    r
}

/// [`ripple`] for limbs that may be negative.
#[inline(always)]
fn ripple_signed<V: Ifma>(mut r: [V; 5]) -> [V; 5] {
    r[1] = r[1].add(r[0].sar::<52>());
    r[2] = r[2].add(r[1].sar::<52>());
    r[3] = r[3].add(r[2].sar::<52>());
    r[4] = r[4].add(r[3].sar::<52>());
    r
}

#[inline(always)]
fn clean<V: Ifma>(r: [V; 5]) -> F52<V> {
    let low = V::splat(LOW_52);
    F52([r[0].and(low), r[1].and(low), r[2].and(low), r[3].and(low), r[4]])
}

/// Takes the bits from 255 on off limb 4 and carries. Digits stay unmasked.
#[inline(always)]
fn fold_top<V: Ifma>(mut r: [V; 5]) -> [V; 5] {
    r[0] = r[0].madd_lo(r[4].shr::<47>(), V::splat(19));
    r[4] = r[4].and(V::splat(LOW_47));
    ripple(r)
}

/// Columns to an operand. `SMALL`: the product is below 2^510.1.
#[inline(always)]
fn reduce<V: Ifma, const SMALL: bool>(mut t: [V; 10]) -> [V; 5] {
    t[6] = t[6].add(t[5].shr::<52>());
    t[7] = t[7].add(t[6].shr::<52>());
    t[8] = t[8].add(t[7].shr::<52>());
    t[9] = t[9].add(t[8].shr::<52>());
    let fold = V::splat(FOLD);
    let mut r = [
        t[0].madd_lo(t[5], fold),
        t[1].madd_lo(t[6], fold).madd_hi(t[5], fold),
        t[2].madd_lo(t[7], fold).madd_hi(t[6], fold),
        t[3].madd_lo(t[8], fold).madd_hi(t[7], fold),
        t[4].madd_hi(t[8], fold).madd_lo(t[9], fold),
    ];
    if !SMALL {
        r[0] = r[0].madd_lo(V::splat(0).madd_hi(t[9], fold), fold);
    }
    fold_top(r)
}

/// Row by row, so that of the multiply-adds in a row none waits for the one before.
#[inline(always)]
pub(crate) fn product<V: Ifma>(a: &[V; 5], b: &[V; 5]) -> [V; 5] {
    let mut t = [V::splat(0); 10];
    for i in 0..5 {
        for j in 0..5 {
            t[i + j] = t[i + j].madd_lo(a[i], b[j]);
        }
        for j in 0..5 {
            t[i + j + 1] = t[i + j + 1].madd_hi(a[i], b[j]);
        }
    }
    reduce::<V, false>(t)
}

#[inline(always)]
pub(crate) fn squared<V: Ifma, const SMALL: bool>(a: &[V; 5]) -> [V; 5] {
    let mut t = [V::splat(0); 10];
    for i in 0..5 {
        for j in i + 1..5 {
            t[i + j] = t[i + j].madd_lo(a[i], a[j]);
        }
        for j in i + 1..5 {
            t[i + j + 1] = t[i + j + 1].madd_hi(a[i], a[j]);
        }
    }
    for i in 1..9 {
        t[i] = t[i].add(t[i]);
    }
    for i in 0..5 {
        t[2 * i] = t[2 * i].madd_lo(a[i], a[i]);
        t[2 * i + 1] = t[2 * i + 1].madd_hi(a[i], a[i]);
    }
    reduce::<V, SMALL>(t)
}

/// a + b, limb by limb, not carried.
#[inline(always)]
fn plus<V: Ifma>(a: [V; 5], b: [V; 5]) -> [V; 5] {
    [a[0].add(b[0]), a[1].add(b[1]), a[2].add(b[2]), a[3].add(b[3]), a[4].add(b[4])]
}

/// a - b + 4p, limb by limb, not carried.
#[inline(always)]
fn minus<V: Ifma>(a: [V; 5], b: [V; 5]) -> [V; 5] {
    [
        a[0].sub(b[0]).sub(V::splat(76)),
        a[1].sub(b[1]),
        a[2].sub(b[2]),
        a[3].sub(b[3]),
        a[4].sub(b[4]).add(V::splat(1 << 49)),
    ]
}

/// The limbs of the canonical value.
#[inline(always)]
fn freeze<V: Ifma>(z: [V; 5]) -> [V; 5] {
    let mut z = clean(fold_top(z)).0;
    // Below 2^255 + 2^17 < 2p now; subtract p if it is p or more, that is if value + 19 reaches 2^255.
    let mut q = z[0].add(V::splat(19)).shr::<52>();
    q = z[1].add(q).shr::<52>();
    q = z[2].add(q).shr::<52>();
    q = z[3].add(q).shr::<52>();
    q = z[4].add(q).shr::<47>();
    z[0] = z[0].madd_lo(q, V::splat(19));
    z = clean(ripple(z)).0;
    z[4] = z[4].and(V::splat(LOW_47));
    z
}

impl<V: Ifma> Field for F52<V> {
    type V = V;
    type Two = Operand52<V>;
    type Three = Operand52<V>;
    type Four = Operand52<V>;

    #[inline(always)]
    fn constant(words: [u64; 4]) -> Self {
        Self::from_words([V::splat(words[0]), V::splat(words[1]), V::splat(words[2]), V::splat(words[3])])
    }
    #[inline(always)]
    fn from_words(w: [V; 4]) -> Self {
        let low = V::splat(LOW_52);
        Self([
            w[0].and(low),
            w[0].shr::<52>().or(w[1].shl::<12>()).and(low),
            w[1].shr::<40>().or(w[2].shl::<24>()).and(low),
            w[2].shr::<28>().or(w[3].shl::<36>()).and(low),
            w[3].shr::<16>().and(V::splat(LOW_47)),
        ])
    }
    #[inline(always)]
    fn to_words(self) -> [V; 4] {
        let z = freeze(self.0);
        [
            z[0].or(z[1].shl::<52>()),
            z[1].shr::<12>().or(z[2].shl::<40>()),
            z[2].shr::<24>().or(z[3].shl::<28>()),
            z[3].shr::<36>().or(z[4].shl::<16>()),
        ]
    }

    #[inline(always)]
    fn mul<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Self {
        clean(V::product_52(&a.into().0, &b.into().0))
    }
    #[inline(always)]
    fn mul_operand<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Self::Two {
        Operand52(V::product_52(&a.into().0, &b.into().0))
    }
    #[inline(always)]
    fn square<A: Into<Self::Two>>(a: A) -> Self {
        clean(V::square_52::<false>(&a.into().0))
    }
    #[inline(always)]
    fn square_group<const N: usize>(mut values: [Self; N], count: usize) -> [Self; N] {
        for _ in 0..count {
            for value in &mut values {
                // Digits stay unmasked from one square to the next.
                value.0 = V::square_52::<true>(&value.0);
            }
        }
        for value in &mut values {
            *value = clean(value.0);
        }
        values
    }

    #[inline(always)]
    fn add(a: Self, b: Self) -> Self::Two {
        Operand52(ripple(plus(a.0, b.0)))
    }
    #[inline(always)]
    fn sub(a: Self, b: Self) -> Self::Three {
        Operand52(ripple_signed(minus(a.0, b.0)))
    }
    #[inline(always)]
    fn twice_add(a: Self, b: Self) -> Self::Three {
        Operand52(ripple(plus(plus(a.0, a.0), b.0)))
    }
    #[inline(always)]
    fn twice_sub(a: Self, b: Self) -> Self::Four {
        Operand52(ripple_signed(minus(plus(a.0, a.0), b.0)))
    }
    #[inline(always)]
    fn add_sub(a: Self, b: Self, c: Self) -> Self::Four {
        Operand52(ripple_signed(minus(plus(a.0, b.0), c.0)))
    }
    #[inline(always)]
    fn twice_add_sub(a: Self, b: Self, c: Self) -> Self::Three {
        // Below 2^256 + 2^255 + 2^257. b - c as in `sub`, which a doubling needs as well.
        Operand52(ripple_signed(plus(plus(a.0, a.0), minus(b.0, c.0))))
    }
    #[inline(always)]
    fn add_reduced(a: Self, b: Self) -> Self {
        clean(fold_top(plus(a.0, b.0)))
    }
    #[inline(always)]
    fn sub_reduced(a: Self, b: Self) -> Self {
        reduce_signed(minus(a.0, b.0))
    }
    #[inline(always)]
    fn negate_if(mask: V::Mask, a: Self) -> Self::Three {
        let zero = V::splat(0);
        let negated = minus([zero; 5], a.0);
        let mut out = a.0;
        for limb in 0..5 {
            out[limb] = V::select(mask, negated[limb], a.0[limb]);
        }
        Operand52(ripple_signed(out))
    }
    #[inline(always)]
    fn select(mask: V::Mask, a: Self, b: Self) -> Self {
        let mut out = a.0;
        for limb in 0..5 {
            out[limb] = V::select(mask, a.0[limb], b.0[limb]);
        }
        Self(out)
    }

    #[inline(always)]
    fn pack(self) -> [V; 5] {
        self.0
    }
    #[inline(always)]
    fn unpack(words: [V; 5]) -> Self {
        Self(words)
    }
    #[inline(always)]
    fn pack_operand(two: Self::Two) -> [V; 5] {
        two.0
    }
    #[inline(always)]
    fn unpack_operand(words: [V; 5]) -> Self::Two {
        Operand52(words)
    }
}

/// A carried difference or sum of a few units, limbs possibly negative, to a clean value.
#[inline(always)]
fn reduce_signed<V: Ifma>(sum: [V; 5]) -> F52<V> {
    // The whole value is positive, so after this limb 4 is, and the digits below it are its true ones.
    let digits = clean(ripple_signed(sum)).0;
    clean(fold_top(digits))
}
