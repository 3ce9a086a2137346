//! Twin of `field20.wgsl`: GF(2^255 - 19) in 20 limbs of 13 bits. Bounds and reasons stand there.

use crate::field::{Field, Layout};

const MASK: u32 = 8191;
const FOLD: u32 = 608;

/// 20 limbs of 13 bits, weight 2^(13 i).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fe(pub [u32; 20]);

impl Fe {
    fn chain(&self, add_to_limb_0: u32) -> Self {
        let a = &self.0;
        let mut r = [0; 20];
        let mut carry = add_to_limb_0;
        for i in 0..19 {
            carry += a[i];
            r[i] = carry & MASK;
            carry >>= 13;
        }
        r[19] = a[19] + carry;
        Fe(r)
    }

    fn settle(mut r: [u32; 20], carry_lo: u32) -> Self {
        r[0] += FOLD * carry_lo;
        r[1] += r[0] >> 13;
        r[0] &= MASK;
        r[2] += r[1] >> 13;
        r[1] &= MASK;
        Fe(r)
    }
}

impl Field for Fe {
    const LAYOUT: Layout = Layout::U32x20;
    const ZERO: Self = Fe([0; 20]);
    const ONE: Self = {
        let mut limbs = [0; 20];
        limbs[0] = 1;
        Fe(limbs)
    };
    const D: Self = Fe([
        6307, 6859, 4740, 5787, 5982, 3157, 1287, 2472, 4106, 3, 6694, 3827, 1943, 928, 3635, 8142, 2927,
        1905, 219, 164,
    ]);
    const D2: Self = Fe([
        4441, 5527, 1289, 3383, 3773, 6315, 2574, 4944, 20, 7, 5196, 7655, 3886, 1856, 7270, 8092, 5855,
        3810, 438, 72,
    ]);
    const SQRT_M1: Self = Fe([
        176, 4213, 2514, 7222, 3150, 4668, 5311, 213, 792, 6522, 5609, 7159, 2451, 1664, 3245, 7137, 4033,
        1026, 201, 87,
    ]);

    fn add(&self, b: &Self) -> Self {
        let mut r = [0; 20];
        for i in 0..20 {
            r[i] = self.0[i] + b.0[i];
        }
        Fe(r)
    }

    fn sub(&self, b: &Self) -> Self {
        let mut r = [0; 20];
        r[0] = self.0[0] + 15_168 - b.0[0];
        for i in 1..20 {
            r[i] = self.0[i] + 16_382 - b.0[i];
        }
        debug_assert!(
            r.iter().all(|limb| *limb <= 0xffff),
            "the mask after a subtraction must change nothing"
        );
        Fe(r)
    }

    fn tidy(&self) -> Self {
        let a = &self.0;
        debug_assert!(a.iter().all(|limb| *limb <= 0xffff), "fe_tidy takes limbs below 2^16");
        let mut r = [0; 20];
        r[0] = (a[0] & MASK) + FOLD * (a[19] >> 13);
        for i in 1..20 {
            r[i] = (a[i] & MASK) + (a[i - 1] >> 13);
        }
        r[1] += r[0] >> 13;
        r[0] &= MASK;
        Fe(r)
    }

    fn trim(&self) -> Self {
        self.tidy()
    }

    fn mul(&self, b: &Self) -> Self {
        let (a, b) = (&self.0, &b.0);
        let mut r = [0; 20];
        let (mut carry_lo, mut carry_hi) = (0, 0);
        for k in 0usize..20 {
            let mut lo = carry_lo;
            let mut hi = carry_hi;
            for i in 0..=k {
                lo += a[i] * b[k - i];
            }
            for i in k + 1..20 {
                hi += a[i] * b[k + 20 - i];
            }
            if k < 19 {
                lo += FOLD * (hi & MASK);
                carry_hi = hi >> 13;
            } else {
                lo += FOLD * hi;
            }
            r[k] = lo & MASK;
            carry_lo = lo >> 13;
        }
        Fe::settle(r, carry_lo)
    }

    fn sq(&self) -> Self {
        let a = &self.0;
        let mut twice = [0; 20];
        for i in 0..20 {
            twice[i] = a[i] + a[i];
        }
        let mut r = [0; 20];
        let (mut carry_lo, mut carry_hi) = (0, 0);
        for k in 0usize..20 {
            let mut lo = carry_lo;
            let mut hi = carry_hi;
            for i in 0..(k + 1) / 2 {
                lo += twice[i] * a[k - i];
            }
            for i in k + 1..(k + 21) / 2 {
                hi += twice[i] * a[k + 20 - i];
            }
            if k % 2 == 0 {
                lo += a[k / 2] * a[k / 2];
                hi += a[k / 2 + 10] * a[k / 2 + 10];
            }
            if k < 19 {
                lo += FOLD * (hi & MASK);
                carry_hi = hi >> 13;
            } else {
                lo += FOLD * hi;
            }
            r[k] = lo & MASK;
            carry_lo = lo >> 13;
        }
        Fe::settle(r, carry_lo)
    }

    fn canonical(&self) -> Self {
        let mut r = self.chain(0);
        let mut quotient = r.0[19] >> 8;
        r.0[19] &= 255;
        r = r.chain(19 * quotient);
        quotient = r.0[19] >> 8;
        r.0[19] &= 255;
        r = r.chain(19 * quotient);
        quotient = r.chain(19).0[19] >> 8;
        r = r.chain(19 * quotient);
        r.0[19] &= 255;
        r
    }

    fn is_zero(&self) -> bool {
        self.canonical().0.iter().fold(0, |any, limb| any | limb) == 0
    }

    fn from_words(w: &[u32; 8]) -> Self {
        let mut r = [0; 20];
        for (i, limb) in r.iter_mut().enumerate() {
            let (word, shift) = (13 * i / 32, 13 * i % 32);
            *limb = w[word] >> shift;
            if shift > 19 && word < 7 {
                *limb |= w[word + 1] << (32 - shift);
            }
            *limb &= MASK;
        }
        r[19] &= 255;
        Fe(r)
    }

    fn to_words(&self) -> [u32; 8] {
        let mut w = [0; 8];
        for (i, limb) in self.0.iter().enumerate() {
            let (word, shift) = (13 * i / 32, 13 * i % 32);
            w[word] |= limb << shift;
            if shift > 19 && word < 7 {
                w[word + 1] |= limb >> (32 - shift);
            }
        }
        w
    }

    fn pack(&self) -> [u32; 10] {
        let mut w = [0; 10];
        for i in 0..10 {
            w[i] = self.0[2 * i] | (self.0[2 * i + 1] << 14);
        }
        w
    }

    fn unpack(w: &[u32; 10]) -> Self {
        let mut r = [0; 20];
        for i in 0..10 {
            r[2 * i] = w[i] & 0x3fff;
            r[2 * i + 1] = w[i] >> 14;
        }
        Fe(r)
    }

    fn limb_0(&self) -> u32 {
        self.0[0]
    }
}
