// BLAKE3's compression function (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020), chunk counter 0. Twin: blake3.rs.

const CHUNK_START = 1u;
const CHUNK_END = 2u;
const ROOT = 8u;
const DERIVE_KEY_MATERIAL = 64u;

fn rotate32(a: u32, bits: u32) -> u32 {
    return (a >> bits) | (a << (32u - bits));
}

/// The quarter round on (a, b, c, d) with two message words.
fn blake3_mix(v: vec4<u32>, mx: u32, my: u32) -> vec4<u32> {
    var a = v.x;
    var b = v.y;
    var c = v.z;
    var d = v.w;
    a = a + b + mx;
    d = rotate32(d ^ a, 16u);
    c = c + d;
    b = rotate32(b ^ c, 12u);
    a = a + b + my;
    d = rotate32(d ^ a, 8u);
    c = c + d;
    b = rotate32(b ^ c, 7u);
    return vec4<u32>(a, b, c, d);
}

/// The new chaining value (at the root: the first 32 bytes of output).
fn blake3_compress(chain: array<u32, 8>, block: array<u32, 16>, length: u32, block_flags: u32) -> array<u32, 8> {
    // Four columns (v[i], v[i + 4], v[i + 8], v[i + 12]).
    var v0 = vec4<u32>(chain[0u], chain[4u], 0x6a09e667u, 0u);
    var v1 = vec4<u32>(chain[1u], chain[5u], 0xbb67ae85u, 0u);
    var v2 = vec4<u32>(chain[2u], chain[6u], 0x3c6ef372u, length);
    var v3 = vec4<u32>(chain[3u], chain[7u], 0xa54ff53au, block_flags);
    var m = block;
    unroll for (var round = 0u; round < 7u; round++) {
        v0 = blake3_mix(v0, m[0u], m[1u]);
        v1 = blake3_mix(v1, m[2u], m[3u]);
        v2 = blake3_mix(v2, m[4u], m[5u]);
        v3 = blake3_mix(v3, m[6u], m[7u]);
        let d0 = blake3_mix(vec4<u32>(v0.x, v1.y, v2.z, v3.w), m[8u], m[9u]);
        let d1 = blake3_mix(vec4<u32>(v1.x, v2.y, v3.z, v0.w), m[10u], m[11u]);
        let d2 = blake3_mix(vec4<u32>(v2.x, v3.y, v0.z, v1.w), m[12u], m[13u]);
        let d3 = blake3_mix(vec4<u32>(v3.x, v0.y, v1.z, v2.w), m[14u], m[15u]);
        v0 = vec4<u32>(d0.x, d3.y, d2.z, d1.w);
        v1 = vec4<u32>(d1.x, d0.y, d3.z, d2.w);
        v2 = vec4<u32>(d2.x, d1.y, d0.z, d3.w);
        v3 = vec4<u32>(d3.x, d2.y, d1.z, d0.w);
        static if (round < 6u) {
            m = array<u32, 16>(
                m[2u], m[6u], m[3u], m[10u], m[7u], m[0u], m[4u], m[13u],
                m[1u], m[11u], m[12u], m[5u], m[9u], m[14u], m[15u], m[8u],
            );
        }
    }
    return array<u32, 8>(
        v0.x ^ v0.z, v1.x ^ v1.z, v2.x ^ v2.z, v3.x ^ v3.z,
        v0.y ^ v0.w, v1.y ^ v1.w, v2.y ^ v2.w, v3.y ^ v3.w,
    );
}
