// Kernel: k = SHA-512(R, A, id) mod l for 32-byte ids, and the digits of k and s. Twin: hash_ids.rs.
//
// 96 bytes and the padding are exactly one block.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let r = words_of(signatures[4u * row], signatures[4u * row + 1u]);
    let a = words_of(keys[2u * row], keys[2u * row + 1u]);
    let m = words_of(messages[2u * row], messages[2u * row + 1u]);
    var w: array<vec2<u32>, 16>;
    unroll for (var i = 0u; i < 4u; i++) {
        w[i] = big_endian64(r[2u * i], r[2u * i + 1u]);
        w[i + 4u] = big_endian64(a[2u * i], a[2u * i + 1u]);
        w[i + 8u] = big_endian64(m[2u * i], m[2u * i + 1u]);
    }
    w[12u] = vec2<u32>(0u, 0x80000000u);
    w[15u] = vec2<u32>(768u, 0u);
    scalars_store(row, sha512_words(sha512_block(sha512_start(), w)));
}
