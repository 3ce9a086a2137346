//! Twin of `power.wgsl`: the chain of squarings behind square roots and inverses.

use crate::field::Field;

/// a^(2^252 - 3).
#[must_use]
pub fn power_252_3<F: Field>(a: &F) -> F {
    let mut acc = *a;
    let mut x10 = *a;
    let mut x50 = *a;
    for step in 0..11 {
        let count = [1, 2, 1, 5, 10, 20, 10, 50, 100, 50, 2][step];
        let m = match step {
            2 | 10 => *a,
            6 => x10,
            9 => x50,
            _ => acc,
        };
        for _ in 0..count {
            acc = acc.sq();
        }
        acc = acc.mul(&m);
        match step {
            3 => x10 = acc,
            6 => x50 = acc,
            _ => {}
        }
    }
    acc
}

/// 1 / a (0 for 0): a^(p - 2) = (a^(2^252 - 3))^8 * a^3. As `finish.wgsl` computes it.
#[must_use]
pub fn invert<F: Field>(a: &F) -> F {
    let mut inverse = power_252_3(a);
    for _ in 0..3 {
        inverse = inverse.sq();
    }
    inverse.mul(&a.sq().mul(a))
}
