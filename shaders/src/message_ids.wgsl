// Kernel: BLAKE3 (derive_key mode) of messages of at most one chunk, 1,024 bytes. Twin: message_ids.rs.

struct IdParams {
    rows: u32,
    reserved_0: u32,
    reserved_1: u32,
    reserved_2: u32,
    /// The key that BLAKE3 derives from the context string.
    key: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: IdParams;
/// Messages, each from a multiple of 64 bytes on, the last block filled up with zeros.
@group(0) @binding(1) var<storage, read> bytes: array<vec4<u32>>;
/// Per message: number of its first 64-byte block, and its length in bytes.
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
/// Per message: the 32-byte id.
@group(0) @binding(3) var<storage, read_write> ids: array<vec4<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let span = spans[row];
    let blocks = max(1u, (span.y + 63u) / 64u);
    let k0 = params.key[0u];
    let k1 = params.key[1u];
    var chain = array<u32, 8>(k0.x, k0.y, k0.z, k0.w, k1.x, k1.y, k1.z, k1.w);
    for (var block = 0u; block < blocks; block++) {
        var m: array<u32, 16>;
        unroll for (var i = 0u; i < 4u; i++) {
            let four = bytes[(span.x + block) * 4u + i];
            m[4u * i] = four.x;
            m[4u * i + 1u] = four.y;
            m[4u * i + 2u] = four.z;
            m[4u * i + 3u] = four.w;
        }
        var block_flags = DERIVE_KEY_MATERIAL;
        var length = 64u;
        if (block == 0u) {
            block_flags |= CHUNK_START;
        }
        if (block + 1u == blocks) {
            block_flags |= CHUNK_END | ROOT;
            length = span.y - 64u * block;
        }
        chain = blake3_compress(chain, m, length, block_flags);
    }
    ids[2u * row] = vec4<u32>(chain[0u], chain[1u], chain[2u], chain[3u]);
    ids[2u * row + 1u] = vec4<u32>(chain[4u], chain[5u], chain[6u], chain[7u]);
}
