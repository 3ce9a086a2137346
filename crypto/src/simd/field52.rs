//! Field elements in radix 2^52: five limbs of 52 bits, one 64-bit lane each. For AVX-512 IFMA, whose multiply-add
//! takes 52-bit operands and gives the low or the high 52 bits of the product.
//!
//! Why 2^52 and not the usual 2^51: the high half of a product then has exactly the weight of the next limb (no
//! doubling), and since the instruction reads only the low 52 bits of an operand, a value needs no masks before it
//! is multiplied, only carries. The price is that a sum must be carried before it can be an operand (eleven instructions, see below).
//!
//! # Bounds
//!
//! * *Clean* (`F52`, one unit): limbs 0 to 3 below 2^52, limb 4 below 2^47 + 2^17, so the value is below
//!   2^255 (1 + 2^-30).
//! * *Operand*: the low 52 bits of limbs 0 to 3 are the value's digits, what lies above them is left over from
//!   carrying and means nothing; limb 4 and the value as for a clean one.
//! * *Loose*: limbs below 2^56, not carried.
//!
//! A product of operands is below 2^510.1. Its columns t0 .. t9 are sums of at most nine 52-bit numbers each, below 2^56. The
//! upper five are carried in order, so that t5 .. t8 have their digits in the low 52 bits, and t9 = product >> 468 < 2^42.1.
//! 2^260 = 32 * 19 = 608 modulo p, so t5 .. t9 are multiplied by 608 into t0 .. t4: low halves into the same limb,
//! high halves into the next; 608 t9 is below 2^52 and has no high half. t4, the longest, then has nine and two terms: 11 * 2^52 < 2^56, loose.
//!
//! Sums are of loose values: at most three of them, and 1024 p = 2^265 - 1024 * 19 where something is taken away, with limbs of 2^57 - 32 (and
//! 2^57 - 19,456), more than any loose limb: all stay positive, and below 2^58.4. [`carry`] takes the bits of limb 4 from 47 on (below
//! 2^11.4) off and adds them to limb 0 with a factor 19 (2^255 = 19), and carries from limb 0 to limb 4, which receives
//! at most 2^7: an operand, and with its digits masked a clean value.
//!
//! # Cost
//!
//! A multiplication, loose: 50 + 9 multiply-adds, 8 others: 67. A square: 30 + 9, 8 doublings, 8 others: 55. To carry: one multiply-add and
//! 10 others, 4 masks to clean. A vector core of this kind starts two 512-bit instructions a cycle (Intel: ports 0 and 5; Zen 4: four
//! halves); where only one multiply-add starts per cycle (Zen 4) they are the bound: 59 and 39 cycles for eight lanes.

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

/// A summand, nothing else.
#[derive(Clone, Copy)]
pub(crate) struct Loose52<V>([V; 5]);

/// A product that is to be taken as negative in some lanes.
#[derive(Clone, Copy)]
pub(crate) struct Signed52<V: Ifma> {
    product: [V; 5],
    negative: Option<V::Mask>,
}

impl<V> From<F52<V>> for Operand52<V> {
    #[inline(always)]
    fn from(value: F52<V>) -> Self {
        Self(value.0)
    }
}

impl<V> From<F52<V>> for Loose52<V> {
    #[inline(always)]
    fn from(value: F52<V>) -> Self {
        Self(value.0)
    }
}

/// Limbs of up to 2^58.4 to an operand's: takes the bits from 255 on off limb 4 and carries from limb 0 up to limb 4.
#[inline(always)]
fn carry<V: Ifma>(mut r: [V; 5]) -> [V; 5] {
    r[0] = r[0].madd_lo(r[4].shr::<47>(), V::splat(19));
    r[4] = r[4].and(V::splat(LOW_47));
    ripple(r)
}

#[inline(always)]
fn ripple<V: Ifma>(mut r: [V; 5]) -> [V; 5] {
    r[1] = r[1].add(r[0].shr::<52>());
    r[2] = r[2].add(r[1].shr::<52>());
    r[3] = r[3].add(r[2].shr::<52>());
    r[4] = r[4].add(r[3].shr::<52>());
    r
}

/// Masks the digits of an operand.
#[inline(always)]
fn clean<V: Ifma>(r: [V; 5]) -> F52<V> {
    let low = V::splat(LOW_52);
    F52([r[0].and(low), r[1].and(low), r[2].and(low), r[3].and(low), r[4]])
}

/// Columns to loose limbs.
#[inline(always)]
fn fold<V: Ifma>(mut t: [V; 10]) -> [V; 5] {
    t[6] = t[6].add(t[5].shr::<52>());
    t[7] = t[7].add(t[6].shr::<52>());
    t[8] = t[8].add(t[7].shr::<52>());
    t[9] = t[9].add(t[8].shr::<52>());
    let by = V::splat(FOLD);
    [
        t[0].madd_lo(t[5], by),
        t[1].madd_lo(t[6], by).madd_hi(t[5], by),
        t[2].madd_lo(t[7], by).madd_hi(t[6], by),
        t[3].madd_lo(t[8], by).madd_hi(t[7], by),
        t[4].madd_hi(t[8], by).madd_lo(t[9], by),
    ]
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
    fold(t)
}

#[inline(always)]
pub(crate) fn squared<V: Ifma>(a: &[V; 5]) -> [V; 5] {
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
    fold(t)
}

/// a + b, limb by limb, not carried.
#[inline(always)]
fn plus<V: Ifma>(a: [V; 5], b: [V; 5]) -> [V; 5] {
    [a[0].add(b[0]), a[1].add(b[1]), a[2].add(b[2]), a[3].add(b[3]), a[4].add(b[4])]
}

/// 1024 p, every limb above a loose one.
const ABOVE: [u64; 5] =
    [(1 << 57) - 32 * 608, (1 << 57) - 32, (1 << 57) - 32, (1 << 57) - 32, (1 << 57) - 32];

/// a - b + 1024 p, limb by limb, not carried.
#[inline(always)]
fn minus<V: Ifma>(a: [V; 5], b: [V; 5]) -> [V; 5] {
    let mut out = a;
    for limb in 0..5 {
        out[limb] = a[limb].add(V::splat(ABOVE[limb])).sub(b[limb]);
    }
    out
}

/// The limbs of the canonical value.
#[inline(always)]
fn freeze<V: Ifma>(z: [V; 5]) -> [V; 5] {
    let mut z = clean(carry(z)).0;
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
    type Loose = Loose52<V>;
    type Signed = Signed52<V>;
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
    fn mul_loose<A: Into<Self::Four>, B: Into<Self::Three>>(a: A, b: B) -> Loose52<V> {
        Loose52(V::product_52(&a.into().0, &b.into().0))
    }
    #[inline(always)]
    fn square_loose<A: Into<Self::Two>>(a: A) -> Loose52<V> {
        Loose52(V::square_52(&a.into().0))
    }
    #[inline(always)]
    fn mul_signed<A: Into<Self::Four>>(negative: Option<V::Mask>, a: A, b: Self) -> Signed52<V> {
        Signed52 { product: V::product_52(&a.into().0, &b.0), negative }
    }
    #[inline(always)]
    fn operand(a: Loose52<V>) -> Operand52<V> {
        Operand52(carry(a.0))
    }
    #[inline(always)]
    fn settle(a: Loose52<V>) -> Self {
        clean(carry(a.0))
    }
    #[inline(always)]
    fn square_group<const N: usize>(values: &mut [Self; N], count: usize) {
        for _ in 0..count {
            for value in &mut *values {
                // Digits stay unmasked from one square to the next.
                value.0 = carry(V::square_52(&value.0));
            }
        }
        for value in values {
            *value = clean(value.0);
        }
    }

    #[inline(always)]
    fn add<A: Into<Loose52<V>>, B: Into<Loose52<V>>>(a: A, b: B) -> Operand52<V> {
        Operand52(carry(plus(a.into().0, b.into().0)))
    }
    #[inline(always)]
    fn sub<A: Into<Loose52<V>>, B: Into<Loose52<V>>>(a: A, b: B) -> Operand52<V> {
        Operand52(carry(minus(a.into().0, b.into().0)))
    }
    #[inline(always)]
    fn twice_sub_add<A: Into<Loose52<V>>>(a: A, b: Signed52<V>) -> (Operand52<V>, Operand52<V>) {
        let a = a.into().0;
        let twice = plus(a, a);
        let (less, more) = (carry(minus(twice, b.product)), carry(plus(twice, b.product)));
        // To change places is cheaper than to negate.
        let Some(negative) = b.negative else { return (Operand52(less), Operand52(more)) };
        let mut out = (less, more);
        for limb in 0..5 {
            out.0[limb] = V::select(negative, more[limb], less[limb]);
            out.1[limb] = V::select(negative, less[limb], more[limb]);
        }
        (Operand52(out.0), Operand52(out.1))
    }
    #[inline(always)]
    fn add_sub(a: Loose52<V>, b: Loose52<V>, c: Loose52<V>) -> Operand52<V> {
        Operand52(carry(minus(plus(a.0, b.0), c.0)))
    }
    #[inline(always)]
    fn twice_add_sub(a: Loose52<V>, b: Loose52<V>, c: Loose52<V>) -> Operand52<V> {
        // b - c as in `sub`, which a doubling needs as well.
        Operand52(carry(plus(plus(a.0, a.0), minus(b.0, c.0))))
    }
    #[inline(always)]
    fn add_reduced(a: Self, b: Self) -> Self {
        clean(carry(plus(a.0, b.0)))
    }
    #[inline(always)]
    fn sub_reduced(a: Self, b: Self) -> Self {
        clean(carry(minus(a.0, b.0)))
    }
    #[inline(always)]
    fn negate_if(mask: V::Mask, a: Self) -> Operand52<V> {
        let negated = minus([V::splat(0); 5], a.0);
        let mut out = a.0;
        for limb in 0..5 {
            out[limb] = V::select(mask, negated[limb], a.0[limb]);
        }
        Operand52(carry(out))
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
    fn pack_loose(loose: Loose52<V>) -> [V; 5] {
        loose.0
    }
    #[inline(always)]
    fn unpack_loose(words: [V; 5]) -> Loose52<V> {
        Loose52(words)
    }
    #[inline(always)]
    fn pack_operand(three: Operand52<V>) -> [V; 5] {
        three.0
    }
    #[inline(always)]
    fn unpack_operand(words: [V; 5]) -> Operand52<V> {
        Operand52(words)
    }
}
