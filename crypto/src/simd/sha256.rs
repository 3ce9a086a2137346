//! SHA-256 (FIPS 180-4) of many short messages at once, one per 32-bit lane: leaves and nodes of Merkle trees
//! (RFC 6962: a leaf is the hash of 0x00 and the data, a node that of 0x01 and its two children).
//!
//! Every message of one call has the same shape, so all lanes have the same number of blocks.

use super::blake3::{INITIAL, LANES_MAX};
use super::lanes::Lanes32;

const BLOCK_BYTES: usize = 64;

#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Leaf hashes of 32-byte data: one block each.
#[inline(always)]
pub(crate) fn leaves<V: Lanes32>(data: &[[u8; 32]], out: &mut [[u8; 32]]) {
    for (group, out) in data.chunks(V::COUNT).zip(out.chunks_mut(V::COUNT)) {
        let mut blocks = [[0_u8; BLOCK_BYTES]; LANES_MAX];
        for (block, data) in blocks.iter_mut().zip(group) {
            block[1..33].copy_from_slice(data);
            block[33] = 0x80;
            block[56..].copy_from_slice(&(33_u64 * 8).to_be_bytes());
        }
        let mut state = initial::<V>();
        compress(&mut state, load(&blocks));
        finish(&state, out);
    }
}

/// Node hashes of pairs of children: two blocks each, of which the second is the same for all up to one byte.
#[inline(always)]
pub(crate) fn nodes<V: Lanes32>(children: &[[[u8; 32]; 2]], out: &mut [[u8; 32]]) {
    for (group, out) in children.chunks(V::COUNT).zip(out.chunks_mut(V::COUNT)) {
        let mut first = [[0_u8; BLOCK_BYTES]; LANES_MAX];
        let mut second = [[0_u8; BLOCK_BYTES]; LANES_MAX];
        for (lane, [left, right]) in group.iter().enumerate() {
            first[lane][0] = 1;
            first[lane][1..33].copy_from_slice(left);
            first[lane][33..].copy_from_slice(&right[..31]);
            second[lane][0] = right[31];
            second[lane][1] = 0x80;
            second[lane][56..].copy_from_slice(&(65_u64 * 8).to_be_bytes());
        }
        let mut state = initial::<V>();
        compress(&mut state, load(&first));
        compress(&mut state, load(&second));
        finish(&state, out);
    }
}

#[inline(always)]
fn initial<V: Lanes32>() -> [V; 8] {
    let mut state = [V::splat(0); 8];
    for word in 0..8 {
        state[word] = V::splat(INITIAL[word]);
    }
    state
}

/// The sixteen big-endian words of a block per lane.
#[inline(always)]
fn load<V: Lanes32>(blocks: &[[u8; BLOCK_BYTES]; LANES_MAX]) -> [V; 16] {
    let mut picked = [&blocks[0]; LANES_MAX];
    for lane in 0..V::COUNT {
        picked[lane] = &blocks[lane];
    }
    let mut words = V::load_blocks(&picked[..V::COUNT]);
    // Byte order: swap the halves of each half, then the halves.
    let mask = V::splat(0x00ff_00ff);
    for word in 0..16 {
        let x = words[word];
        let turned = x.rotr::<8, 24>();
        words[word] = mask.choose(x.rotr::<24, 8>(), turned);
    }
    words
}

#[inline(always)]
fn finish<V: Lanes32>(state: &[V; 8], out: &mut [[u8; 32]]) {
    let mut lanes = [0; LANES_MAX];
    for word in 0..8 {
        state[word].to_lanes(&mut lanes);
        for (digest, value) in out.iter_mut().zip(lanes) {
            digest[4 * word..4 * word + 4].copy_from_slice(&value.to_be_bytes());
        }
    }
}

#[inline(always)]
fn compress<V: Lanes32>(state: &mut [V; 8], mut w: [V; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for turn in 0..4 {
        macro_rules! round {
            ($i:literal) => {
                if turn > 0 {
                    let x = w[($i + 1) & 15];
                    let y = w[($i + 14) & 15];
                    let sigma0 = x.rotr::<7, 25>().xor3(x.rotr::<18, 14>(), x.shr::<3>());
                    let sigma1 = y.rotr::<17, 15>().xor3(y.rotr::<19, 13>(), y.shr::<10>());
                    w[$i] = w[$i].add(w[($i + 9) & 15]).add(sigma0.add(sigma1));
                }
                let sum1 = e.rotr::<6, 26>().xor3(e.rotr::<11, 21>(), e.rotr::<25, 7>());
                let sum0 = a.rotr::<2, 30>().xor3(a.rotr::<13, 19>(), a.rotr::<22, 10>());
                let constant = w[$i].add(V::splat(K[16 * turn + $i]));
                let t1 = h.add(constant).add(sum1.add(e.choose(f, g)));
                let t2 = sum0.add(a.majority(b, c));
                (h, g, f, e, d, c, b, a) = (g, f, e, d.add(t1), c, b, a, t1.add(t2));
            };
        }
        round!(0);
        round!(1);
        round!(2);
        round!(3);
        round!(4);
        round!(5);
        round!(6);
        round!(7);
        round!(8);
        round!(9);
        round!(10);
        round!(11);
        round!(12);
        round!(13);
        round!(14);
        round!(15);
    }
    let end = [a, b, c, d, e, f, g, h];
    for word in 0..8 {
        state[word] = state[word].add(end[word]);
    }
}
