//! The shared table of multiples of the base point, computed at start instead of shipped: 32,768 points, 3.9 MB.
//!
//! Invariant: entry j (from 0) holds (j + 1) B in affine form as y + x, y - x and 2 d x y, each canonical and packed in
//! the layout asked for. Computed in the `u64x10` layout, the faster one on a CPU, whatever the target layout is.

use crate::bindings::{BASE_ENTRIES, BASE_ENTRY_WORDS, FE_WORDS};
use crate::decode::x_of;
use crate::edwards::Point;
use crate::field::Field;
use crate::field10::Fe;
use crate::power::invert;

/// The base point's encoding (RFC 8032): y = 4/5, x even.
const BASE_WORDS: [u32; 8] =
    [0x6666_6658, 0x6666_6666, 0x6666_6666, 0x6666_6666, 0x6666_6666, 0x6666_6666, 0x6666_6666, 0x6666_6666];

/// The whole table in layout `F`.
#[must_use]
pub fn table<F: Field>() -> Vec<u32> {
    // The base point is a point: the other arm is never taken, and gives a table that fails every self-test.
    let x = x_of::<Fe>(&BASE_WORDS).unwrap_or(Fe::ZERO);
    let first = Point::affine(x, Fe::from_words(&BASE_WORDS));
    let summand = first.summand();
    let mut points = Vec::with_capacity(BASE_ENTRIES);
    let mut products = Vec::with_capacity(BASE_ENTRIES);
    let (mut p, mut product) = (first, Fe::ONE);
    for _ in 0..BASE_ENTRIES {
        products.push(product);
        product = product.mul(&p.z);
        points.push([p.x, p.y, p.z]);
        p = p.plus(&summand, true, true);
    }
    let mut inverse = invert(&product);
    let mut table = vec![0; BASE_ENTRIES * BASE_ENTRY_WORDS];
    for i in (0..BASE_ENTRIES).rev() {
        let [x, y, z] = &points[i];
        let z_inverse = inverse.mul(&products[i]);
        inverse = inverse.mul(z);
        let (x, y) = (x.mul(&z_inverse), y.mul(&z_inverse));
        let entry = [y.add(&x), y.sub(&x), x.mul(&y).mul(&Fe::D2)];
        for (slot, a) in entry.iter().enumerate() {
            let packed = F::from_words(&a.canonical().to_words()).pack();
            table[i * BASE_ENTRY_WORDS + slot * FE_WORDS..][..FE_WORDS].copy_from_slice(&packed);
        }
    }
    table
}
