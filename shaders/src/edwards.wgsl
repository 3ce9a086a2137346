// Points of the curve -x^2 + y^2 = 1 + d x^2 y^2, extended coordinates (x = X/Z, y = Y/Z, T = XY/Z), after Hisil,
// Wong, Carter, Dawson (2008). The addition is complete: it holds for every pair of points, small orders included.
// Twin: edwards.rs. Comments name the bounds that the field files define.

/// Coordinates tight. `t` may be stale: whoever needs it says so to the operation before.
struct Point {
    x: Fe,
    y: Fe,
    z: Fe,
    t: Fe,
}

/// A summand: y + x, y - x, 2 z and 2 d t, tight, except `t2d`, which may be wide.
struct Summand {
    y_plus_x: Fe,
    y_minus_x: Fe,
    z2: Fe,
    t2d: Fe,
}

fn point_identity() -> Point {
    var p: Point;
    p.y[0u] = 1u;
    p.z[0u] = 1u;
    return p;
}

/// 2 p: 3 squarings and 4 multiplications, 5 with `t`.
fn point_double(p: Point, with_t: bool) -> Point {
    let x = fe_bound(p.x);
    let y = fe_bound(p.y);
    let xx = fe_sq(x);
    let yy = fe_sq(y);
    let zz = fe_sq(fe_bound(p.z));
    let xy = fe_mul(x, y);
    let e = fe_bound(fe_add(xy, xy));
    let g = fe_sub(yy, xx);
    let f = fe_bound(fe_trim(fe_sub(fe_add(fe_add(zz, zz), xx), yy)));
    let h = fe_bound(fe_trim(fe_add(yy, xx)));
    var r: Point;
    r.x = fe_mul(f, e);
    r.y = fe_mul(h, g);
    r.z = fe_mul(f, g);
    if (with_t) {
        r.t = fe_mul(h, e);
    }
    return r;
}

/// p + q: 6 multiplications, one more unless q is affine (z = 1), one more with `t`. Needs p.t.
fn point_add(p: Point, q: Summand, affine: bool, with_t: bool) -> Point {
    let a = fe_mul(fe_sub(p.y, p.x), fe_bound(q.y_minus_x));
    let b = fe_mul(fe_bound(fe_add(p.y, p.x)), fe_bound(q.y_plus_x));
    let c = fe_mul(fe_bound(p.t), fe_bound(q.t2d));
    let z = fe_bound(p.z);
    var d: Fe;
    if (affine) {
        d = fe_bound(fe_add(z, z));
    } else {
        d = fe_mul(z, fe_bound(q.z2));
    }
    let e = fe_sub(b, a);
    let f = fe_bound(fe_trim(fe_sub(d, c)));
    let g = fe_bound(fe_add(d, c));
    let h = fe_bound(fe_trim(fe_add(b, a)));
    var r: Point;
    r.x = fe_mul(f, e);
    r.y = fe_mul(h, g);
    r.z = fe_mul(f, g);
    if (with_t) {
        r.t = fe_mul(h, e);
    }
    return r;
}
