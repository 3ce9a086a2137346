//! Points of the twisted Edwards curve -x^2 + y^2 = 1 + d x^2 y^2 over p, one per lane.
//!
//! Formulas: Hisil, Wong, Carter, Dawson, "Twisted Edwards curves revisited" (2008), for a = -1. They are complete
//! on this curve (a is a square, d is not): no input, neutral or of small order, is an exception, so lanes never
//! branch. Coordinates are extended: x = X/Z, y = Y/Z, T = XY/Z. T is only ever a factor.
//!
//! | operation | multiplications | squares |
//! |---|---|---|
//! | add a row of (y + x, y - x, 2dxy) | 7 | 0 |
//! | add a prepared point (Y + X, Y - X, Z, 2dT) | 8 | 0 |
//! | double | 4 (3 without T) | 4 |
//!
//! Rows are what lies in memory: points whose coordinates are packed words of one representation, to be read only by
//! kernels of the same backend.

use std::hint::black_box;

use super::field::{D_INVERSE, D2, Field};
use super::lanes::Lanes;

/// An affine point in memory, one lane: y + x, y - x, 2dxy (five words each) and a word of padding. 128 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct NielsRow(pub(crate) [u64; 16]);

/// An extended point in memory, one lane: X, Y, Z, T (five words each) and padding. 192 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct PointRow(pub(crate) [u64; 24]);

impl NielsRow {
    pub(crate) const ZERO: Self = Self([0; 16]);
}

impl PointRow {
    pub(crate) const ZERO: Self = Self([0; 24]);
}

const _: () = assert!(size_of::<NielsRow>() == 128 && size_of::<PointRow>() == 192);

/// A point in extended coordinates.
#[derive(Clone, Copy)]
pub(crate) struct Point<F: Field> {
    pub(crate) x: F::Loose,
    pub(crate) y: F::Loose,
    pub(crate) z: F::Loose,
    t: F::Three,
}

/// An affine point (y + x, y - x, 2dxy), of which 2dxy is still to be negated in some lanes.
#[derive(Clone, Copy)]
pub(crate) struct Niels<F: Field> {
    plus: F,
    minus: F,
    t2d: F,
    negative: <F::V as Lanes>::Mask,
}

/// A point prepared to be added often: Y + X, Y - X, Z, 2dT, of which 2dT may have to be negated in some lanes.
#[derive(Clone, Copy)]
pub(crate) struct Prepared<F: Field> {
    plus: F::Three,
    minus: F::Three,
    z: F::Three,
    t2d: F,
    negative: Option<<F::V as Lanes>::Mask>,
}

#[inline(always)]
fn five<V: Copy, const N: usize>(words: &[V; N], at: usize) -> [V; 5] {
    [words[at], words[at + 1], words[at + 2], words[at + 3], words[at + 4]]
}

impl<F: Field> Niels<F> {
    /// Reads a row per lane and negates it where `negative` is set: (y + x, y - x) change places, 2dxy its sign.
    #[inline(always)]
    pub(crate) fn load(rows: &[&[u64; 16]], negative: <F::V as Lanes>::Mask) -> Self {
        Self::from_words(&F::V::load_rows(rows), negative)
    }

    /// From the words of a row in each lane; those beyond the fifteenth are padding.
    #[inline(always)]
    pub(crate) fn from_words<const N: usize>(words: &[F::V; N], negative: <F::V as Lanes>::Mask) -> Self {
        let mut plus = five(words, 0);
        let mut minus = five(words, 5);
        for word in 0..5 {
            let (a, b) = (plus[word], minus[word]);
            plus[word] = F::V::select(negative, b, a);
            minus[word] = F::V::select(negative, a, b);
        }
        Self { plus: F::unpack(plus), minus: F::unpack(minus), t2d: F::unpack(five(words, 10)), negative }
    }
}

impl<F: Field> Point<F> {
    #[inline(always)]
    pub(crate) fn neutral() -> Self {
        Self { x: F::zero().into(), y: F::one().into(), z: F::one().into(), t: F::zero().into() }
    }

    /// From an affine point: (2x : 2y : 2), whose T is 2xy = 2dxy / d.
    #[inline(always)]
    pub(crate) fn from_niels(p: &Niels<F>) -> Self {
        Self {
            x: F::sub_reduced(p.plus, p.minus).into(),
            y: F::add_reduced(p.plus, p.minus).into(),
            z: F::constant([2, 0, 0, 0]).into(),
            t: F::mul_operand(F::constant(D_INVERSE), F::negate_if(p.negative, p.t2d)).into(),
        }
    }

    #[inline(always)]
    pub(crate) fn load(rows: &[&[u64; 24]]) -> Self {
        Self::from_columns(&F::V::load_rows(rows))
    }

    /// Writes one row per lane.
    #[inline(always)]
    pub(crate) fn store(&self, rows: &mut [[u64; 24]]) {
        F::V::to_rows(&self.columns(), rows);
    }

    #[inline(always)]
    pub(crate) fn columns(&self) -> [F::V; 24] {
        let mut columns = [F::V::splat(0); 24];
        columns[..5].copy_from_slice(&F::pack_loose(self.x));
        columns[5..10].copy_from_slice(&F::pack_loose(self.y));
        columns[10..15].copy_from_slice(&F::pack_loose(self.z));
        columns[15..20].copy_from_slice(&F::pack_operand(self.t));
        columns
    }

    #[inline(always)]
    pub(crate) fn from_columns(words: &[F::V; 24]) -> Self {
        Self {
            x: F::unpack_loose(five(words, 0)),
            y: F::unpack_loose(five(words, 5)),
            z: F::unpack_loose(five(words, 10)),
            t: F::unpack_operand(five(words, 15)),
        }
    }

    /// `self + other`, 7 multiplications.
    ///
    /// In an order in which no product needs the one just before it, here or in the next addition to the result: its sum
    /// is carried while another is under way.
    #[inline(always)]
    pub(crate) fn add_niels(&self, other: &Niels<F>) -> Self {
        let c = F::mul_signed(Some(other.negative), self.t, other.t2d);
        let a = F::mul_loose(F::sub(self.y, self.x), other.minus);
        let b = F::mul_loose(F::add(self.y, self.x), other.plus);
        let (f, g) = F::twice_sub_add(self.z, c);
        let z = F::mul_loose(f, g);
        let h = F::add(b, a);
        let y = F::mul_loose(g, h);
        let e = F::sub(b, a);
        let t = F::mul_operand(e, h).into();
        Self { x: F::mul_loose(f, e), y, z, t }
    }

    /// `self + other`, 8 multiplications.
    #[inline(always)]
    pub(crate) fn add_prepared(&self, other: &Prepared<F>) -> Self {
        self.add_prepared_for(other, true)
    }

    /// [`Point::add_prepared`]; without `t` the result's T is stale, for a point that is doubled next.
    #[inline(always)]
    pub(crate) fn add_prepared_for(&self, other: &Prepared<F>, t: bool) -> Self {
        let a = F::mul_loose(F::sub(self.y, self.x), other.minus);
        let b = F::mul_loose(F::add(self.y, self.x), other.plus);
        let z = F::mul_loose(F::operand(self.z), other.z);
        let c = F::mul_signed(other.negative, self.t, other.t2d);
        let (e, h) = (F::sub(b, a), F::add(b, a));
        let t = if t { F::mul_operand(e, h).into() } else { self.t };
        let (f, g) = F::twice_sub_add(z, c);
        let y = F::mul_loose(g, h);
        let x = F::mul_loose(f, e);
        Self { x, y, z: F::mul_loose(f, g), t }
    }

    #[inline(always)]
    pub(crate) fn add(&self, other: &Self) -> Self {
        self.add_prepared(&other.prepare())
    }

    #[inline(always)]
    pub(crate) fn prepare(&self) -> Prepared<F> {
        Prepared {
            plus: F::add(self.y, self.x).into(),
            minus: F::sub(self.y, self.x),
            z: F::operand(self.z).into(),
            t2d: F::mul(self.t, F::constant(D2)),
            negative: None,
        }
    }

    /// `2 self`. With E = X^2 + Y^2 - (X + Y)^2 = -2XY, G = X^2 - Y^2, F = 2Z^2 + G, H = X^2 + Y^2 the double is
    /// (EF : GH : FG : EH).
    #[inline(always)]
    pub(crate) fn double(&self) -> Self {
        let (e, f, g, h) = self.doubled();
        let y = F::mul_loose(g, h);
        let x = F::mul_loose(e, f);
        Self { x, y, z: F::mul_loose(f, g), t: F::mul_operand(e, h).into() }
    }

    /// E, F, G, H of [`Point::double`].
    #[inline(always)]
    fn doubled(&self) -> (F::Four, F::Three, F::Three, F::Two) {
        let yy = F::square_loose(F::operand(self.y));
        let xx = F::square_loose(F::operand(self.x));
        let sum = F::square_loose(F::add(self.x, self.y));
        let zz = F::square_loose(F::operand(self.z));
        let e = F::add_sub(xx, yy, sum);
        let g = F::sub(xx, yy);
        let f = F::twice_add_sub(zz, xx, yy);
        (e, f, g, F::add(xx, yy))
    }

    /// [`Point::double`] without T, for a point that is doubled again next; its T is stale.
    #[inline(always)]
    pub(crate) fn double_without_t(&self) -> Self {
        Self { t: self.t, ..self.double() }
    }

    /// [`Point::double_times`] with the formula once, in a loop: for callers whose other code should stay in the
    /// instruction cache. A `count` of 0 changes nothing.
    #[inline(always)]
    pub(crate) fn double_in_a_loop(&self, count: u32) -> Self {
        let mut point = *self;
        for left in (0..black_box(count)).rev() {
            let (e, f, g, h) = point.doubled();
            let y = F::mul_loose(g, h);
            let x = F::mul_loose(e, f);
            point = Self { x, y, z: F::mul_loose(f, g), t: point.t };
            if left == 0 {
                point.t = F::mul_operand(e, h).into();
            }
        }
        point
    }

    /// `2^count self`, for a `count` of at least 1.
    #[inline(always)]
    pub(crate) fn double_times(&self, count: u32) -> Self {
        let mut point = *self;
        for _ in 1..count {
            point = point.double_without_t();
        }
        point.double()
    }

    #[inline(always)]
    pub(crate) fn negate(&self) -> Self {
        // T enters as an operand only, so it is negated by recomputing nothing: a product with -1 reduces it again.
        let minus_one = F::sub_reduced(F::zero(), F::one());
        Self {
            x: F::sub_reduced(F::zero(), F::settle(self.x)).into(),
            y: self.y,
            z: self.z,
            t: F::mul_operand(self.t, minus_one).into(),
        }
    }

    /// Lanes whose point is the neutral element, (0 : z : z).
    #[inline(always)]
    pub(crate) fn neutral_mask(&self) -> u32 {
        let x = F::V::mask_bits(F::settle(self.x).is_zero());
        x & F::V::mask_bits(F::sub_reduced(F::settle(self.y), F::settle(self.z)).is_zero())
    }
}

impl<F: Field> Prepared<F> {
    /// A row of a table per lane: Y + X, Y - X, Z, 2dT.
    #[inline(always)]
    pub(crate) fn store_from(point: &Point<F>, rows: &mut [[u64; 24]]) {
        let t2d = F::mul(point.t, F::constant(D2));
        let mut columns = [F::V::splat(0); 24];
        columns[..5].copy_from_slice(&F::pack_operand(F::add(point.y, point.x).into()));
        columns[5..10].copy_from_slice(&F::pack_operand(F::sub(point.y, point.x)));
        columns[10..15].copy_from_slice(&F::pack_operand(F::operand(point.z).into()));
        columns[15..20].copy_from_slice(&t2d.pack());
        F::V::to_rows(&columns, rows);
    }

    /// Reads a row per lane that [`Prepared::store_from`] wrote, negated where `negative` is set.
    #[inline(always)]
    pub(crate) fn load(rows: &[&[u64; 24]], negative: <F::V as Lanes>::Mask) -> Self {
        let words = F::V::load_rows(rows);
        let mut plus = five(&words, 0);
        let mut minus = five(&words, 5);
        for word in 0..5 {
            let (a, b) = (plus[word], minus[word]);
            plus[word] = F::V::select(negative, b, a);
            minus[word] = F::V::select(negative, a, b);
        }
        Self {
            plus: F::unpack_operand(plus),
            minus: F::unpack_operand(minus),
            z: F::unpack_operand(five(&words, 10)),
            t2d: F::unpack(five(&words, 15)),
            negative: Some(negative),
        }
    }
}
