// Field elements in the `points` buffer: 20 pairs of words per row, four slots of five pairs. Twin: memory.rs.

fn points_load(row: u32, slot: u32) -> Fe {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 5u; i++) {
        let pair = points[row * 20u + slot * 5u + i];
        w[2u * i] = pair.x;
        w[2u * i + 1u] = pair.y;
    }
    return fe_unpack(w);
}

fn points_store(row: u32, slot: u32, a: Fe) {
    let w = fe_pack(a);
    unroll for (var i = 0u; i < 5u; i++) {
        points[row * 20u + slot * 5u + i] = vec2<u32>(w[2u * i], w[2u * i + 1u]);
    }
}

/// The words of the public key, or of R.
fn key_words(row: u32) -> array<u32, 8> {
    return words_of(keys[2u * row], keys[2u * row + 1u]);
}

fn r_words(row: u32) -> array<u32, 8> {
    return words_of(signatures[4u * row], signatures[4u * row + 1u]);
}
