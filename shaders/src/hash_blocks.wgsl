// Kernel: k = SHA-512(R, A, M) mod l for messages of any length, and the digits of k and s. Twin: hash_blocks.rs.
//
// `messages` starts with one entry per row, (place of its first block, number of blocks, 0, 0), the place counted in
// vec4s from the start of the buffer; then the padded blocks, 8 vec4s each, in the order of the bytes.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let span = messages[row];
    var state = sha512_start();
    for (var block = 0u; block < span.y; block++) {
        var w: array<vec2<u32>, 16>;
        unroll for (var i = 0u; i < 8u; i++) {
            let four = messages[span.x + block * 8u + i];
            w[2u * i] = big_endian64(four.x, four.y);
            w[2u * i + 1u] = big_endian64(four.z, four.w);
        }
        state = sha512_block(state, w);
    }
    scalars_store(row, sha512_words(state));
}
