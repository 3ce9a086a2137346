//! Twin of `weigh.wgsl`: z k mod l, and the digits of z k and z.

use crate::bindings::Buffers;
use crate::equation::Z_WORDS;
use crate::scalar::{L_LOW, digits, fold};

const Z_BIAS: [i32; 10] = [128, 1028, 32, 257, 2056, 64, 514, 4112, 128, 1028];

/// Limb `i` of 13 bits.
fn limb(words: &[u32], i: usize) -> i32 {
    let (word, shift) = (13 * i / 32, 13 * i % 32);
    let mut limb = words[word] >> shift;
    if shift > 19 && word + 1 < words.len() {
        limb |= words[word + 1] << (32 - shift);
    }
    (limb & 8191).cast_signed()
}

/// z k mod l, for the z that the random words `u` stand for.
#[must_use]
pub fn product(u: &[u32; 4], k: &[u32; 8]) -> [u32; 8] {
    let mut z = [0; 10];
    for i in 0..10 {
        z[i] = limb(u, i) - Z_BIAS[i];
    }
    let mut b = [0; 20];
    for i in 0..20 {
        b[i] = limb(k, i);
    }
    let mut a = [0; 40];
    let mut carry = 0;
    for c in 0..30 {
        let mut t = carry;
        for j in 0..10 {
            if j <= c && c < j + 20 {
                t += z[j] * b[c - j];
            }
        }
        if c > 9 && c < 20 {
            t += L_LOW[c - 10];
        }
        if c == 29 {
            t += 32;
        }
        a[c] = t & 8191;
        carry = t >> 13;
    }
    debug_assert!(carry == 0, "z k + 2^130 l is below 2^390 and not negative");
    fold(&a)
}

/// One invocation.
pub fn main(buffers: &mut Buffers, row: usize) {
    let rows = buffers.rows;
    if row >= rows {
        return;
    }
    let mut k = [0; 8];
    let mut borrow = 0;
    for i in 0..8 {
        let word = buffers.scalars[i * rows + row];
        let t = word.wrapping_sub(0x8888_8888);
        k[i] = t.wrapping_sub(borrow);
        borrow = u32::from(word < 0x8888_8888 || t < borrow);
    }
    let mut u = [0; 4];
    u.copy_from_slice(&buffers.z[row * Z_WORDS..(row + 1) * Z_WORDS]);
    let zk = digits(&product(&u, &k), 0x8080_8080);
    for i in 0..8 {
        buffers.tables[i * rows + row] = zk[i];
    }
    for i in 0..4 {
        buffers.tables[(8 + i) * rows + row] = u[i];
    }
}
