// SHA-512 (FIPS 180-4) on pairs of 32-bit words: x is the low half, y the high one. Twin: sha512.rs.

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

/// Rotation to the right by 1 .. 31 bits; by 32 more when the caller swaps the halves.
fn rotate64(a: vec2<u32>, bits: u32) -> vec2<u32> {
    return vec2<u32>((a.x >> bits) | (a.y << (32u - bits)), (a.y >> bits) | (a.x << (32u - bits)));
}

fn shift64(a: vec2<u32>, bits: u32) -> vec2<u32> {
    return vec2<u32>((a.x >> bits) | (a.y << (32u - bits)), a.y >> bits);
}

/// A big-endian word of the input from two words as they lie in memory.
fn big_endian64(first: u32, second: u32) -> vec2<u32> {
    return vec2<u32>(swap_bytes(second), swap_bytes(first));
}

fn swap_bytes(a: u32) -> u32 {
    return (a << 24u) | ((a & 0xff00u) << 8u) | ((a >> 8u) & 0xff00u) | (a >> 24u);
}

fn sha512_start() -> array<vec2<u32>, 8> {
    return array<vec2<u32>, 8>(
        vec2<u32>(0xf3bcc908u, 0x6a09e667u), vec2<u32>(0x84caa73bu, 0xbb67ae85u),
        vec2<u32>(0xfe94f82bu, 0x3c6ef372u), vec2<u32>(0x5f1d36f1u, 0xa54ff53au),
        vec2<u32>(0xade682d1u, 0x510e527fu), vec2<u32>(0x2b3e6c1fu, 0x9b05688cu),
        vec2<u32>(0xfb41bd6bu, 0x1f83d9abu), vec2<u32>(0x137e2179u, 0x5be0cd19u),
    );
}

/// One block: five times sixteen rounds. The sixteen are written out, the five are a loop.
fn sha512_block(before: array<vec2<u32>, 8>, block: array<vec2<u32>, 16>) -> array<vec2<u32>, 8> {
    var s = before;
    var w = block;
    for (var turn = 0u; turn < 5u; turn++) {
        unroll for (var i = 0u; i < 16u; i++) {
            // The eight working variables a .. h rotate through the array instead of moving.
            let e = s[(20u - i) % 8u];
            let a = s[(16u - i) % 8u];
            let pair = params.round_constants[turn * 8u + i / 2u];
            var constant: vec2<u32>;
            static if (i % 2u == 0u) {
                constant = pair.xy;
            } else {
                constant = pair.zw;
            }
            let sum1 = rotate64(e, 14u) ^ rotate64(e, 18u) ^ rotate64(e.yx, 9u);
            let choice = (e & s[(21u - i) % 8u]) ^ (~e & s[(22u - i) % 8u]);
            let t1 = add64(add64(s[(23u - i) % 8u], sum1), add64(choice, add64(constant, w[i])));
            let sum0 = rotate64(a, 28u) ^ rotate64(a.yx, 2u) ^ rotate64(a.yx, 7u);
            let b = s[(17u - i) % 8u];
            let c = s[(18u - i) % 8u];
            let majority = (a & b) ^ (a & c) ^ (b & c);
            s[(19u - i) % 8u] = add64(s[(19u - i) % 8u], t1);
            s[(23u - i) % 8u] = add64(t1, add64(sum0, majority));
        }
        if (turn < 4u) {
            unroll for (var i = 0u; i < 16u; i++) {
                let w1 = w[(i + 1u) % 16u];
                let w14 = w[(i + 14u) % 16u];
                let small0 = rotate64(w1, 1u) ^ rotate64(w1, 8u) ^ shift64(w1, 7u);
                let small1 = rotate64(w14, 19u) ^ rotate64(w14.yx, 29u) ^ shift64(w14, 6u);
                w[i] = add64(add64(w[i], small0), add64(w[(i + 9u) % 16u], small1));
            }
        }
    }
    unroll for (var i = 0u; i < 8u; i++) {
        s[i] = add64(s[i], before[i]);
    }
    return s;
}

/// The digest as 16 little-endian words.
fn sha512_words(s: array<vec2<u32>, 8>) -> array<u32, 16> {
    var r: array<u32, 16>;
    unroll for (var i = 0u; i < 8u; i++) {
        r[2u * i] = swap_bytes(s[i].y);
        r[2u * i + 1u] = swap_bytes(s[i].x);
    }
    return r;
}
