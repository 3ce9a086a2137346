// Kernel: one bit per signature, 32 to a word, into the first words of `scalars`. Twin: verdicts.rs.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let word = id.x;
    if (word * 32u >= params.rows) {
        return;
    }
    var bits = 0u;
    for (var i = 0u; i < min(32u, params.rows - word * 32u); i++) {
        bits |= select(0u, 1u, flags[word * 32u + i] == FLAG_VALID) << i;
    }
    scalars[word] = bits;
}
