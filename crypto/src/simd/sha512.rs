//! SHA-512 (FIPS 180-4) of as many messages at once as the vector has lanes.
//!
//! A message is given as three parts that are hashed one after the other (R, A and what was signed; or a prefix and
//! what is signed). Messages that take one block, up to 111 bytes and so every 32-byte id, take the short way; longer
//! ones are padded in a buffer, and a lane whose message has fewer blocks than its neighbours' keeps its state while
//! they go on.

use super::decode::LANES_MAX;
use super::lanes::Lanes;

/// The parts of one message.
pub(crate) type Parts<'a> = [&'a [u8]; 3];

const BLOCK_BYTES: usize = 128;
/// Padding takes a byte and a 16-byte length at least.
const ONE_BLOCK_BYTES_MAX: usize = BLOCK_BYTES - 17;

#[rustfmt::skip]
const INITIAL: [u64; 8] = [
    0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1, 0x9b05_688c_2b3e_6c1f, 0x1f83_d9ab_fb41_bd6b, 0x5be0_cd19_137e_2179,
];

#[rustfmt::skip]
const K: [u64; 80] = [
    0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd, 0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538, 0x59f1_11f1_b605_d019, 0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe, 0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1, 0x9bdc_06a7_25c7_1235, 0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3, 0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483, 0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab, 0xa831_c66d_2db4_3210, 0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725, 0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926, 0x4d2c_6dfc_5ac4_2aed, 0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8, 0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001, 0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218, 0xd699_0624_5565_a910, 0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53, 0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb, 0x5b9c_ca4f_7763_e373, 0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60, 0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9, 0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c, 0xd186_b8c7_21c0_c207, 0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6, 0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493, 0x3c9e_be0a_15c9_bebc, 0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a, 0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817,
];

/// Writes the digest of every message as eight little-endian words: the 512-bit number RFC 8032 makes of it.
#[inline(always)]
pub(crate) fn hash<V: Lanes>(messages: &[Parts<'_>], out: &mut [[u64; 8]]) {
    let mut long: Vec<Vec<u8>> = Vec::new();
    for (group, out) in messages.chunks(V::COUNT).zip(out.chunks_mut(V::COUNT)) {
        let longest = group.iter().map(length).max().unwrap_or(0);
        if longest <= ONE_BLOCK_BYTES_MAX {
            let mut blocks = [[0; BLOCK_BYTES]; LANES_MAX];
            for (block, parts) in blocks.iter_mut().zip(group) {
                let length = fill(block, parts);
                block[length] = 0x80;
                block[BLOCK_BYTES - 8..].copy_from_slice(&(8 * length as u64).to_be_bytes());
            }
            let mut state = initial::<V>();
            compress(&mut state, load(&blocks));
            finish(state, out);
            continue;
        }
        long.resize_with(V::COUNT, Vec::new);
        let mut most = 0;
        let mut blocks = [0; LANES_MAX];
        for (lane, parts) in group.iter().enumerate() {
            let length = length(parts);
            blocks[lane] = (length + 17).div_ceil(BLOCK_BYTES);
            most = most.max(blocks[lane]);
            let buffer = &mut long[lane];
            buffer.clear();
            parts.iter().for_each(|part| buffer.extend_from_slice(part));
            buffer.push(0x80);
            buffer.resize(blocks[lane] * BLOCK_BYTES, 0);
            let end = buffer.len();
            buffer[end - 8..].copy_from_slice(&(8 * length as u64).to_be_bytes());
        }
        let mut state = initial::<V>();
        for number in 0..most {
            let mut block = [[0; BLOCK_BYTES]; LANES_MAX];
            let mut active = 0;
            for lane in 0..group.len() {
                if number < blocks[lane] {
                    active |= 1 << lane;
                    block[lane].copy_from_slice(&long[lane][number * BLOCK_BYTES..][..BLOCK_BYTES]);
                }
            }
            let before = state;
            compress(&mut state, load(&block));
            let active = V::mask_from_bits(active);
            for word in 0..8 {
                state[word] = V::select(active, state[word], before[word]);
            }
        }
        finish(state, out);
    }
    // Parts of signing are secret.
    long.iter_mut().for_each(|buffer| buffer.fill(0));
}

#[inline(always)]
fn length(parts: &Parts<'_>) -> usize {
    parts[0].len() + parts[1].len() + parts[2].len()
}

/// Copies the parts to the start of `block`; returns their length.
#[inline(always)]
fn fill(block: &mut [u8; BLOCK_BYTES], parts: &Parts<'_>) -> usize {
    let mut at = 0;
    for part in parts {
        // The common case has a length known to the compiler.
        if let Ok(part) = <&[u8; 32]>::try_from(*part) {
            block[at..at + 32].copy_from_slice(part);
        } else {
            block[at..at + part.len()].copy_from_slice(part);
        }
        at += part.len();
    }
    at
}

#[inline(always)]
fn initial<V: Lanes>() -> [V; 8] {
    let mut state = [V::splat(0); 8];
    for word in 0..8 {
        state[word] = V::splat(INITIAL[word]);
    }
    state
}

/// The sixteen big-endian words of a block per lane.
#[inline(always)]
fn load<V: Lanes>(blocks: &[[u8; BLOCK_BYTES]; LANES_MAX]) -> [V; 16] {
    let mut out = [V::splat(0); 16];
    let mut lanes = [0; LANES_MAX];
    for word in 0..16 {
        for lane in 0..V::COUNT {
            lanes[lane] = u64::from_be_bytes(blocks[lane].as_chunks::<8>().0[word]);
        }
        out[word] = V::from_lanes(&lanes);
    }
    out
}

#[inline(always)]
fn finish<V: Lanes>(state: [V; 8], out: &mut [[u64; 8]]) {
    let mut lanes = [0; LANES_MAX];
    for word in 0..8 {
        state[word].to_lanes(&mut lanes);
        for (digest, value) in out.iter_mut().zip(lanes) {
            digest[word] = value.swap_bytes();
        }
    }
}

#[inline(always)]
fn compress<V: Lanes>(state: &mut [V; 8], mut w: [V; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    // Sixteen rounds a turn, so that the names of a .. h are back in place and w is indexed by constants.
    for turn in 0..5 {
        macro_rules! round {
            ($i:literal) => {
                if turn > 0 {
                    let x = w[($i + 1) & 15];
                    let y = w[($i + 14) & 15];
                    let sigma0 = x.rotr::<1, 63>().xor3(x.rotr::<8, 56>(), x.shr::<7>());
                    let sigma1 = y.rotr::<19, 45>().xor3(y.rotr::<61, 3>(), y.shr::<6>());
                    w[$i] = w[$i].add(w[($i + 9) & 15]).add(sigma0.add(sigma1));
                }
                let sum1 = e.rotr::<14, 50>().xor3(e.rotr::<18, 46>(), e.rotr::<41, 23>());
                let sum0 = a.rotr::<28, 36>().xor3(a.rotr::<34, 30>(), a.rotr::<39, 25>());
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
