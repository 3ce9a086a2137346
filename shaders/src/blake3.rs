//! Twin of `blake3.wgsl`: BLAKE3's compression function, chunk counter 0.

/// First block of a chunk.
pub const CHUNK_START: u32 = 1;
/// Last block of a chunk.
pub const CHUNK_END: u32 = 2;
/// The output is the hash.
pub const ROOT: u32 = 8;
/// derive_key mode, hashing the key material.
pub const DERIVE_KEY_MATERIAL: u32 = 64;

fn mix(v: [u32; 4], mx: u32, my: u32) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b).wrapping_add(mx);
    d = (d ^ a).rotate_right(16);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_right(12);
    a = a.wrapping_add(b).wrapping_add(my);
    d = (d ^ a).rotate_right(8);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_right(7);
    [a, b, c, d]
}

/// The new chaining value.
#[must_use]
pub fn compress(chain: &[u32; 8], block: &[u32; 16], length: u32, block_flags: u32) -> [u32; 8] {
    let mut v0 = [chain[0], chain[4], 0x6a09_e667, 0];
    let mut v1 = [chain[1], chain[5], 0xbb67_ae85, 0];
    let mut v2 = [chain[2], chain[6], 0x3c6e_f372, length];
    let mut v3 = [chain[3], chain[7], 0xa54f_f53a, block_flags];
    let mut m = *block;
    for round in 0..7 {
        v0 = mix(v0, m[0], m[1]);
        v1 = mix(v1, m[2], m[3]);
        v2 = mix(v2, m[4], m[5]);
        v3 = mix(v3, m[6], m[7]);
        let d0 = mix([v0[0], v1[1], v2[2], v3[3]], m[8], m[9]);
        let d1 = mix([v1[0], v2[1], v3[2], v0[3]], m[10], m[11]);
        let d2 = mix([v2[0], v3[1], v0[2], v1[3]], m[12], m[13]);
        let d3 = mix([v3[0], v0[1], v1[2], v2[3]], m[14], m[15]);
        v0 = [d0[0], d3[1], d2[2], d1[3]];
        v1 = [d1[0], d0[1], d3[2], d2[3]];
        v2 = [d2[0], d1[1], d0[2], d3[3]];
        v3 = [d3[0], d2[1], d1[2], d0[3]];
        if round < 6 {
            m = [
                m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14],
                m[15], m[8],
            ];
        }
    }
    [
        v0[0] ^ v0[2],
        v1[0] ^ v1[2],
        v2[0] ^ v2[2],
        v3[0] ^ v3[2],
        v0[1] ^ v0[3],
        v1[1] ^ v1[3],
        v2[1] ^ v2[3],
        v3[1] ^ v3[3],
    ]
}
