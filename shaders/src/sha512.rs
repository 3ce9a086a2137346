//! Twin of `sha512.wgsl`: SHA-512 on pairs of 32-bit words, (low, high).

/// A 64-bit word as the shader keeps it: low half, high half.
pub type Pair = [u32; 2];

/// The round constants (FIPS 180-4, section 4.2.3). The host puts them into the parameter buffer.
pub const ROUND_CONSTANTS: [u64; 80] = [
    0x428a_2f98_d728_ae22,
    0x7137_4491_23ef_65cd,
    0xb5c0_fbcf_ec4d_3b2f,
    0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019,
    0x923f_82a4_af19_4f9b,
    0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242,
    0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c,
    0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f,
    0x80de_b1fe_3b16_96b1,
    0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2,
    0xefbe_4786_384f_25e3,
    0x0fc1_9dc6_8b8c_d5b5,
    0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275,
    0x4a74_84aa_6ea6_e483,
    0x5cb0_a9dc_bd41_fbd4,
    0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210,
    0xb003_27c8_98fb_213f,
    0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2,
    0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f,
    0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc,
    0x2e1b_2138_5c26_c926,
    0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de,
    0x766a_0abb_3c77_b2a8,
    0x81c2_c92e_47ed_aee6,
    0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364,
    0xa81a_664b_bc42_3001,
    0xc24b_8b70_d0f8_9791,
    0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910,
    0xf40e_3585_5771_202a,
    0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8,
    0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99,
    0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63,
    0x4ed8_aa4a_e341_8acb,
    0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc,
    0x78a5_636f_4317_2f60,
    0x84c8_7814_a1f0_ab72,
    0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28,
    0xa450_6ceb_de82_bde9,
    0xbef9_a3f7_b2c6_7915,
    0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207,
    0xeada_7dd6_cde0_eb1e,
    0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba,
    0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae,
    0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84,
    0x32ca_ab7b_40c7_2493,
    0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6,
    0x597f_299c_fc65_7e2a,
    0x5fcb_6fab_3ad6_faec,
    0x6c44_198c_4a47_5817,
];

const START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// (low, high) of a 64-bit constant.
#[must_use]
pub const fn pair(a: u64) -> Pair {
    [(a & 0xffff_ffff) as u32, (a >> 32) as u32]
}

fn add(a: Pair, b: Pair) -> Pair {
    let low = a[0].wrapping_add(b[0]);
    [low, a[1].wrapping_add(b[1]).wrapping_add(u32::from(low < a[0]))]
}

fn xor(a: Pair, b: Pair) -> Pair {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

fn and(a: Pair, b: Pair) -> Pair {
    [a[0] & b[0], a[1] & b[1]]
}

fn swapped(a: Pair) -> Pair {
    [a[1], a[0]]
}

fn rotate(a: Pair, bits: u32) -> Pair {
    [(a[0] >> bits) | (a[1] << (32 - bits)), (a[1] >> bits) | (a[0] << (32 - bits))]
}

fn shift(a: Pair, bits: u32) -> Pair {
    [(a[0] >> bits) | (a[1] << (32 - bits)), a[1] >> bits]
}

/// A big-endian word of the input from two words as they lie in memory.
#[must_use]
pub fn big_endian(first: u32, second: u32) -> Pair {
    [second.swap_bytes(), first.swap_bytes()]
}

/// The state before the first block.
#[must_use]
pub fn start() -> [Pair; 8] {
    START.map(pair)
}

/// One block.
#[must_use]
pub fn block(before: &[Pair; 8], block: &[Pair; 16]) -> [Pair; 8] {
    let mut s = *before;
    let mut w = *block;
    for turn in 0..5 {
        for i in 0..16 {
            let e = s[(20 - i) % 8];
            let a = s[(16 - i) % 8];
            let constant = pair(ROUND_CONSTANTS[turn * 16 + i]);
            let sum1 = xor(xor(rotate(e, 14), rotate(e, 18)), rotate(swapped(e), 9));
            let choice = xor(and(e, s[(21 - i) % 8]), and(e.map(|x| !x), s[(22 - i) % 8]));
            let t1 = add(add(s[(23 - i) % 8], sum1), add(choice, add(constant, w[i])));
            let sum0 = xor(xor(rotate(a, 28), rotate(swapped(a), 2)), rotate(swapped(a), 7));
            let b = s[(17 - i) % 8];
            let c = s[(18 - i) % 8];
            let majority = xor(xor(and(a, b), and(a, c)), and(b, c));
            s[(19 - i) % 8] = add(s[(19 - i) % 8], t1);
            s[(23 - i) % 8] = add(t1, add(sum0, majority));
        }
        if turn < 4 {
            for i in 0..16 {
                let w1 = w[(i + 1) % 16];
                let w14 = w[(i + 14) % 16];
                let small0 = xor(xor(rotate(w1, 1), rotate(w1, 8)), shift(w1, 7));
                let small1 = xor(xor(rotate(w14, 19), rotate(swapped(w14), 29)), shift(w14, 6));
                w[i] = add(add(w[i], small0), add(w[(i + 9) % 16], small1));
            }
        }
    }
    for i in 0..8 {
        s[i] = add(s[i], before[i]);
    }
    s
}

/// The digest as 16 little-endian words.
#[must_use]
pub fn words(s: &[Pair; 8]) -> [u32; 16] {
    let mut r = [0; 16];
    for i in 0..8 {
        r[2 * i] = s[i][1].swap_bytes();
        r[2 * i + 1] = s[i][0].swap_bytes();
    }
    r
}
