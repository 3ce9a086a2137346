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

/// Where x of the row's public key lies in `points`: in the row's own slot 0, or in the entry of a resident key.
fn place_of(row: u32) -> u32 {
    return keys[params.places + (row >> 2u)][row & 3u];
}

/// Whether that place is a resident entry.
fn is_resident(row: u32, place: u32) -> bool {
    return place != row * 20u;
}

/// x at a place, of a row or of a resident key.
fn place_load(place: u32) -> Fe {
    var w: array<u32, 10>;
    unroll for (var i = 0u; i < 5u; i++) {
        let pair = points[place + i];
        w[2u * i] = pair.x;
        w[2u * i + 1u] = pair.y;
    }
    return fe_unpack(w);
}

fn place_store(place: u32, a: Fe) {
    let w = fe_pack(a);
    unroll for (var i = 0u; i < 5u; i++) {
        points[place + i] = vec2<u32>(w[2u * i], w[2u * i + 1u]);
    }
}

/// Whether the resident entry at `place` is another key's: then nobody may take its x for this one's.
fn is_foreign(place: u32, key: array<u32, 8>) -> bool {
    var differ = 0u;
    unroll for (var i = 0u; i < 4u; i++) {
        let pair = points[place + 5u + i];
        differ |= (pair.x ^ key[2u * i]) | (pair.y ^ key[2u * i + 1u]);
    }
    return differ != 0u;
}

/// The words of the public key, or of R.
fn key_words(row: u32) -> array<u32, 8> {
    return words_of(keys[2u * row], keys[2u * row + 1u]);
}

fn r_words(row: u32) -> array<u32, 8> {
    return words_of(signatures[4u * row], signatures[4u * row + 1u]);
}
