//! Twin of `field10.wgsl`: GF(2^255 - 19) in 10 limbs of 26 and 25 bits. Bounds and reasons stand there.

use crate::field::{Field, Layout};

const MASK26: u32 = 0x3ff_ffff;
const MASK25: u32 = 0x1ff_ffff;

/// 10 limbs of 26 and 25 bits in turn, weight 2^ceil(25.5 i).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fe(pub [u32; 10]);

fn product(a: u32, b: u32) -> u64 {
    u64::from(a) * u64::from(b)
}

/// The low half, as the conversion `u32(t)` of WGSL.
fn low(t: u64) -> u32 {
    (t & 0xffff_ffff) as u32
}

impl Fe {
    fn chain(&self, add_to_limb_0: u32) -> Self {
        let a = &self.0;
        let mut r = [0; 10];
        let mut carry = add_to_limb_0;
        for i in 0..5 {
            carry += a[2 * i];
            r[2 * i] = carry & MASK26;
            carry >>= 26;
            carry += a[2 * i + 1];
            if i < 4 {
                r[2 * i + 1] = carry & MASK25;
                carry >>= 25;
            } else {
                r[2 * i + 1] = carry;
            }
        }
        Fe(r)
    }

    /// Cuts column `k` to its limb; what remains is the carry.
    fn cut(k: usize, t: u64) -> (u32, u64) {
        if k % 2 == 0 { (low(t) & MASK26, t >> 26) } else { (low(t) & MASK25, t >> 25) }
    }

    fn settle(mut r: [u32; 10], carry: u64) -> Self {
        let t = u64::from(r[0]) + carry * 19;
        r[0] = low(t) & MASK26;
        r[1] += low(t >> 26);
        Fe(r)
    }
}

impl Field for Fe {
    const LAYOUT: Layout = Layout::U64x10;
    const ZERO: Self = Fe([0; 10]);
    const ONE: Self = Fe([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const D: Self = Fe([
        56_195_235, 13_857_412, 51_736_253, 6_949_390, 114_729, 24_766_616, 60_832_955, 30_306_712,
        48_412_415, 21_499_315,
    ]);
    const D2: Self = Fe([
        45_281_625, 27_714_825, 36_363_642, 13_898_781, 229_458, 15_978_800, 54_557_047, 27_058_993,
        29_715_967, 9_444_199,
    ]);
    const SQRT_M1: Self = Fe([
        34_513_072, 25_610_706, 9_377_949, 3_500_415, 12_389_472, 33_281_959, 41_962_654, 31_548_777,
        326_685, 11_406_482,
    ]);

    fn add(&self, b: &Self) -> Self {
        let mut r = [0; 10];
        for i in 0..10 {
            r[i] = self.0[i] + b.0[i];
        }
        Fe(r)
    }

    fn sub(&self, b: &Self) -> Self {
        let (a, b) = (&self.0, &b.0);
        let mut r = [0; 10];
        r[0] = a[0] + 0x7ff_ffda - b[0];
        r[1] = a[1] + 0x3ff_fffe - b[1];
        for i in 1..5 {
            r[2 * i] = a[2 * i] + 0x7ff_fffe - b[2 * i];
            r[2 * i + 1] = a[2 * i + 1] + 0x3ff_fffe - b[2 * i + 1];
        }
        Fe(r)
    }

    fn tidy(&self) -> Self {
        let a = &self.0;
        let mut r = [0; 10];
        r[0] = (a[0] & MASK26) + 19 * (a[9] >> 25);
        r[1] = (a[1] & MASK25) + (a[0] >> 26);
        for i in 1..5 {
            r[2 * i] = (a[2 * i] & MASK26) + (a[2 * i - 1] >> 25);
            r[2 * i + 1] = (a[2 * i + 1] & MASK25) + (a[2 * i] >> 26);
        }
        Fe(r)
    }

    fn trim(&self) -> Self {
        *self
    }

    fn mul(&self, b: &Self) -> Self {
        let (a, b) = (&self.0, &b.0);
        let mut a_twice = [0; 10];
        let mut b_19 = [0; 10];
        for i in 0..10 {
            a_twice[i] = a[i] + a[i];
            b_19[i] = 19 * b[i];
        }
        let mut r = [0; 10];
        let mut carry = 0;
        for k in 0usize..10 {
            let mut t = 0;
            for i in 0..10 {
                let j = (k + 10 - i) % 10;
                let left = if i % 2 * (j % 2) == 1 { a_twice[i] } else { a[i] };
                t += product(left, if i <= k { b[j] } else { b_19[j] });
            }
            t += carry;
            (r[k], carry) = Fe::cut(k, t);
        }
        Fe::settle(r, carry)
    }

    fn sq(&self) -> Self {
        let a = &self.0;
        let mut a_twice = [0; 10];
        let mut a_19 = [0; 10];
        for i in 0..10 {
            a_twice[i] = a[i] + a[i];
            a_19[i] = 19 * a[i];
        }
        let mut r = [0; 10];
        let mut carry = 0;
        for k in 0usize..10 {
            let mut t = 0;
            for i in 0..(k + 1) / 2 {
                let j = k - i;
                t += product(a_twice[i], if i % 2 * (j % 2) == 1 { a_twice[j] } else { a[j] });
            }
            for i in k + 1..(k + 11) / 2 {
                let j = k + 10 - i;
                let once = product(a_twice[i], a_19[j]);
                t += if i % 2 * (j % 2) == 1 { once << 1 } else { once };
            }
            if k % 2 == 0 {
                let (i, j) = (k / 2, k / 2 + 5);
                t += product(if i % 2 == 1 { a_twice[i] } else { a[i] }, a[i]);
                t += product(if j % 2 == 1 { a_twice[j] } else { a[j] }, a_19[j]);
            }
            t += carry;
            (r[k], carry) = Fe::cut(k, t);
        }
        Fe::settle(r, carry)
    }

    fn canonical(&self) -> Self {
        let mut r = self.chain(0);
        let mut quotient = r.0[9] >> 25;
        r.0[9] &= MASK25;
        r = r.chain(19 * quotient);
        quotient = r.0[9] >> 25;
        r.0[9] &= MASK25;
        r = r.chain(19 * quotient);
        quotient = r.chain(19).0[9] >> 25;
        r = r.chain(19 * quotient);
        r.0[9] &= MASK25;
        r
    }

    fn is_zero(&self) -> bool {
        self.canonical().0.iter().fold(0, |any, limb| any | limb) == 0
    }

    fn from_words(w: &[u32; 8]) -> Self {
        let mut r = [0; 10];
        for (i, limb) in r.iter_mut().enumerate() {
            let bit = (51 * i).div_ceil(2);
            let (word, shift) = (bit / 32, bit % 32);
            *limb = w[word] >> shift;
            if shift > 6 && word < 7 {
                *limb |= w[word + 1] << (32 - shift);
            }
            *limb &= if i % 2 == 0 { MASK26 } else { MASK25 };
        }
        Fe(r)
    }

    fn to_words(&self) -> [u32; 8] {
        let mut w = [0; 8];
        for (i, limb) in self.0.iter().enumerate() {
            let bit = (51 * i).div_ceil(2);
            let (word, shift) = (bit / 32, bit % 32);
            w[word] |= limb << shift;
            if shift > 6 && word < 7 {
                w[word + 1] |= limb >> (32 - shift);
            }
        }
        w
    }

    fn pack(&self) -> [u32; 10] {
        self.0
    }

    fn unpack(w: &[u32; 10]) -> Self {
        Fe(*w)
    }

    fn limb_0(&self) -> u32 {
        self.0[0]
    }
}
