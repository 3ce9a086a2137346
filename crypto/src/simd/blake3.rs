//! BLAKE3 of many short messages at once, one per 32-bit lane: message ids.
//!
//! A message of up to 1024 bytes is a single chunk and so a chain of compressions with no tree above it: the lanes
//! run those chains side by side, where a library that takes one message at a time has nothing to do in parallel.
//! Lanes may differ in length: a lane whose message ended keeps its digest while the others go on. Longer messages
//! are left to the caller.
//!
//! Source: the BLAKE3 specification, section 2 (compression, chunk and key flags).

use super::lanes::Lanes32;

/// Longest message: one chunk.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;
/// Lanes of the widest vector.
pub(crate) const LANES_MAX: usize = 16;

const BLOCK_BYTES: usize = 64;
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;

/// The first half of SHA-256's initial state, as in the specification; also the whole of it for `sha256.rs`.
#[rustfmt::skip]
pub(crate) const INITIAL: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

/// Writes the 32-byte digest of every message of at most [`MESSAGE_BYTES_MAX`] bytes. `key` and `flags` choose the
/// mode: derived keys have the context's key and the flag DERIVE_KEY_MATERIAL.
#[inline(always)]
pub(crate) fn hash<V: Lanes32>(key: &[u32; 8], flags: u32, messages: &[&[u8]], out: &mut [[u8; 32]]) {
    for (group, out) in messages.chunks(V::COUNT).zip(out.chunks_mut(V::COUNT)) {
        let mut chain = [V::splat(0); 8];
        for word in 0..8 {
            chain[word] = V::splat(key[word]);
        }
        let most = group.iter().map(|message| blocks(message)).max().unwrap_or(1);
        for number in 0..most {
            let mut last = [[0_u8; BLOCK_BYTES]; LANES_MAX];
            let mut block_flags = [0_u32; LANES_MAX];
            let mut lengths = [0_u32; LANES_MAX];
            let mut active = [0_u32; LANES_MAX];
            let mut whole = [None; LANES_MAX];
            for (lane, message) in group.iter().enumerate() {
                let count = blocks(message);
                if number >= count {
                    continue;
                }
                active[lane] = u32::MAX;
                let rest = &message[number * BLOCK_BYTES..];
                block_flags[lane] = flags | if number == 0 { CHUNK_START } else { 0 };
                if number + 1 == count {
                    block_flags[lane] |= CHUNK_END | ROOT;
                }
                match rest.first_chunk::<BLOCK_BYTES>() {
                    Some(block) => {
                        whole[lane] = Some(block);
                        lengths[lane] = BLOCK_BYTES as u32;
                    }
                    None => {
                        last[lane][..rest.len()].copy_from_slice(rest);
                        lengths[lane] = rest.len() as u32;
                    }
                }
            }
            let mut picked = [&last[0]; LANES_MAX];
            for lane in 0..V::COUNT {
                picked[lane] = whole[lane].unwrap_or(&last[lane]);
            }
            let next = compress(
                &chain,
                V::load_blocks(&picked[..V::COUNT]),
                V::from_lanes(&lengths),
                V::from_lanes(&block_flags),
            );
            let active = V::from_lanes(&active);
            for word in 0..8 {
                chain[word] = V::select(active, next[word], chain[word]);
            }
        }
        let mut lanes = [0; LANES_MAX];
        for word in 0..8 {
            chain[word].to_lanes(&mut lanes);
            for (digest, value) in out.iter_mut().zip(lanes) {
                digest[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// Blocks of a message; an empty one has one.
#[inline(always)]
fn blocks(message: &[u8]) -> usize {
    message.len().div_ceil(BLOCK_BYTES).max(1)
}

/// The first eight words of the output: the next chaining value, or the digest if the flags say ROOT. The counter is 0.
#[inline(always)]
fn compress<V: Lanes32>(chain: &[V; 8], m: [V; 16], length: V, flags: V) -> [V; 8] {
    let zero = V::splat(0);
    let mut v = [
        chain[0],
        chain[1],
        chain[2],
        chain[3],
        chain[4],
        chain[5],
        chain[6],
        chain[7],
        V::splat(INITIAL[0]),
        V::splat(INITIAL[1]),
        V::splat(INITIAL[2]),
        V::splat(INITIAL[3]),
        zero,
        zero,
        length,
        flags,
    ];
    macro_rules! quarter {
        ($a:literal, $b:literal, $c:literal, $d:literal, $x:literal, $y:literal) => {
            v[$a] = v[$a].add(v[$b]).add(m[$x]);
            v[$d] = v[$d].xor(v[$a]).rotr::<16, 16>();
            v[$c] = v[$c].add(v[$d]);
            v[$b] = v[$b].xor(v[$c]).rotr::<12, 20>();
            v[$a] = v[$a].add(v[$b]).add(m[$y]);
            v[$d] = v[$d].xor(v[$a]).rotr::<8, 24>();
            v[$c] = v[$c].add(v[$d]);
            v[$b] = v[$b].xor(v[$c]).rotr::<7, 25>();
        };
    }
    macro_rules! round {
        ($a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal, $g:literal, $h:literal,
         $i:literal, $j:literal, $k:literal, $l:literal, $m:literal, $n:literal, $o:literal, $p:literal) => {
            quarter!(0, 4, 8, 12, $a, $b);
            quarter!(1, 5, 9, 13, $c, $d);
            quarter!(2, 6, 10, 14, $e, $f);
            quarter!(3, 7, 11, 15, $g, $h);
            quarter!(0, 5, 10, 15, $i, $j);
            quarter!(1, 6, 11, 12, $k, $l);
            quarter!(2, 7, 8, 13, $m, $n);
            quarter!(3, 4, 9, 14, $o, $p);
        };
    }
    // The message words of each round, permuted from the round before.
    round!(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    round!(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8);
    round!(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1);
    round!(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6);
    round!(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4);
    round!(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7);
    round!(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13);
    [
        v[0].xor(v[8]),
        v[1].xor(v[9]),
        v[2].xor(v[10]),
        v[3].xor(v[11]),
        v[4].xor(v[12]),
        v[5].xor(v[13]),
        v[6].xor(v[14]),
        v[7].xor(v[15]),
    ]
}
