//! Twin of `edwards.wgsl`: points in extended coordinates. Formulas and bounds stand there.

use crate::field::Field;

/// A point: x = X/Z, y = Y/Z, T = XY/Z. `t` is zero where the operation before was not asked for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point<F> {
    /// X.
    pub x: F,
    /// Y.
    pub y: F,
    /// Z.
    pub z: F,
    /// T.
    pub t: F,
}

/// A summand: y + x, y - x, 2 z, 2 d t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summand<F> {
    /// Y + X.
    pub y_plus_x: F,
    /// Y - X.
    pub y_minus_x: F,
    /// 2 Z.
    pub z2: F,
    /// 2 d T.
    pub t2d: F,
}

impl<F: Field> Point<F> {
    /// The neutral element.
    pub const IDENTITY: Self = Point { x: F::ZERO, y: F::ONE, z: F::ONE, t: F::ZERO };

    /// The affine point (x, y).
    #[must_use]
    pub fn affine(x: F, y: F) -> Self {
        Point { x, y, z: F::ONE, t: x.mul(&y) }
    }

    /// 2 p.
    #[must_use]
    pub fn double(&self, with_t: bool) -> Self {
        let xx = self.x.sq();
        let yy = self.y.sq();
        let zz = self.z.sq();
        let xy = self.x.mul(&self.y);
        let e = xy.add(&xy);
        let g = yy.sub(&xx);
        let f = zz.add(&zz).add(&xx).sub(&yy).trim();
        let h = yy.add(&xx).trim();
        Point { x: f.mul(&e), y: h.mul(&g), z: f.mul(&g), t: if with_t { h.mul(&e) } else { F::ZERO } }
    }

    /// p + q. `affine` says that q's z is 1.
    #[must_use]
    pub fn plus(&self, q: &Summand<F>, affine: bool, with_t: bool) -> Self {
        let a = self.y.sub(&self.x).mul(&q.y_minus_x);
        let b = self.y.add(&self.x).mul(&q.y_plus_x);
        let c = self.t.mul(&q.t2d);
        let d = if affine { self.z.add(&self.z) } else { self.z.mul(&q.z2) };
        let e = b.sub(&a);
        let f = d.sub(&c).trim();
        let g = d.add(&c);
        let h = b.add(&a).trim();
        Point { x: f.mul(&e), y: h.mul(&g), z: f.mul(&g), t: if with_t { h.mul(&e) } else { F::ZERO } }
    }

    /// The point as a summand, all coordinates tight. As `table.wgsl` makes it.
    #[must_use]
    pub fn summand(&self) -> Summand<F> {
        Summand {
            y_plus_x: self.y.add(&self.x).tidy(),
            y_minus_x: self.y.sub(&self.x).tidy(),
            z2: self.z.add(&self.z).tidy(),
            t2d: self.t.mul(&F::D2),
        }
    }
}
