//! Hashes of many short inputs at once, in public form: BLAKE3 message ids and SHA-256 tree hashes.
//!
//! [`Hashes`] picks the widest lanes of the CPU when it is made. Without vector lanes, and for messages longer than
//! one BLAKE3 chunk, it falls back to the `blake3` and `sha2` crates, whose digests are the same. A CPU with SHA
//! instructions hashes a few leaves or nodes faster one by one than in lanes that are mostly empty, so rows that do
//! not fill the lanes are left to it.

use sha2::block_api::compress256;

use super::backend::{self, Kernels};
use super::blake3 as lanes;

/// The flag of BLAKE3's key derivation mode for the material that is hashed.
const DERIVE_KEY_MATERIAL: u32 = 64;

/// Multi-buffer hashing on the instruction set chosen.
#[derive(Clone, Copy)]
pub struct Hashes {
    kernels: Option<&'static Kernels>,
    /// For leaves and nodes of trees.
    tree: Option<&'static Kernels>,
    /// Tree hashes that are left over when all lanes have had their share are made one by one if they are fewer.
    tree_rows_min: usize,
}

/// Lanes of 32 bits from which on SHA-256 in lanes is quicker than the SHA instructions: a leaf and a node cost 141 ns by
/// these, 139 in 8 lanes of AVX2 and 68 in 16 of AVX-512 (Zen 4; bench `message_path`).
const TREE_LANES_MIN_SHA: usize = 16;

/// As many SHA-256 blocks one after the other as all lanes make in the same time: with the SHA instructions 45 ns against
/// 370 ns (Zen 4), without them about 200.
const TREE_ROWS_MIN_SHA: usize = 8;
const TREE_ROWS_MIN: usize = 2;

fn has_sha() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("sha")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The key that a BLAKE3 key-derivation context stands for, computed once.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    text: &'static str,
    words: [u32; 8],
}

impl Context {
    /// Prepares `context`, for instance "weft 2026-11 message v1".
    #[must_use]
    pub fn new(context: &'static str) -> Self {
        let key = ::blake3::hazmat::hash_derive_key_context(context);
        let words = key.as_chunks::<4>().0;
        Self { text: context, words: std::array::from_fn(|word| u32::from_le_bytes(words[word])) }
    }
}

impl Hashes {
    /// On the fastest lanes this CPU has, or none.
    #[must_use]
    pub fn detect() -> Self {
        let kernels = backend::detected().last().copied();
        if has_sha() {
            let tree = kernels.filter(|kernels| kernels.lanes_32() >= TREE_LANES_MIN_SHA);
            Self { kernels, tree, tree_rows_min: TREE_ROWS_MIN_SHA }
        } else {
            Self { kernels, tree: kernels, tree_rows_min: TREE_ROWS_MIN }
        }
    }

    /// On the backend called `name`, if this CPU has it, and on nothing else; "serial" is always there.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name == "serial" {
            return Some(Self::on(None));
        }
        let kernels = backend::detected().into_iter().find(|kernels| kernels.name == name)?;
        Some(Self::on(Some(kernels)))
    }

    fn on(kernels: Option<&'static Kernels>) -> Self {
        Self { kernels, tree: kernels, tree_rows_min: 0 }
    }

    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn with_kernels(kernels: &'static Kernels) -> Self {
        Self::on(Some(kernels))
    }

    /// The backend's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kernels.map_or("serial", |kernels| kernels.name)
    }

    /// `out[i]` = BLAKE3 `derive_key(context, messages[i])`, 32 bytes. Messages of like length next to each other
    /// are fastest; any length is correct.
    ///
    /// # Panics
    /// If `messages` and `out` differ in length: a bug of the caller.
    pub fn derive(&self, context: &Context, messages: &[&[u8]], out: &mut [[u8; 32]]) {
        assert_eq!(messages.len(), out.len(), "messages and digests must have the same number of rows");
        let serial = |message: &[u8]| {
            let mut hasher = ::blake3::Hasher::new_derive_key(context.text);
            hasher.update(message);
            *hasher.finalize().as_bytes()
        };
        let Some(kernels) = self.kernels else {
            for (message, out) in messages.iter().zip(out) {
                *out = serial(message);
            }
            return;
        };
        if messages.iter().all(|message| message.len() <= lanes::MESSAGE_BYTES_MAX) {
            kernels.blake3(&context.words, DERIVE_KEY_MATERIAL, messages, out);
            return;
        }
        // Long messages are replaced by nothing in the lanes and hashed by themselves.
        let short = |message: &&[u8]| message.len() <= lanes::MESSAGE_BYTES_MAX;
        let kept: Vec<&[u8]> =
            messages.iter().map(|message| if short(message) { message } else { &[][..] }).collect();
        kernels.blake3(&context.words, DERIVE_KEY_MATERIAL, &kept, out);
        for (message, out) in messages.iter().zip(out) {
            if !short(message) {
                *out = serial(message);
            }
        }
    }

    /// `out[i]` = RFC 6962 leaf hash of `data[i]`: SHA-256 of 0x00 and the 32 bytes.
    ///
    /// # Panics
    /// If `data` and `out` differ in length: a bug of the caller.
    pub fn leaves(&self, data: &[[u8; 32]], out: &mut [[u8; 32]]) {
        assert_eq!(data.len(), out.len(), "leaves and digests must have the same number of rows");
        let together = self.tree_rows_together(data.len());
        if let Some(kernels) = self.tree {
            kernels.leaves(&data[..together], &mut out[..together]);
        }
        for (data, out) in data[together..].iter().zip(&mut out[together..]) {
            *out = leaf(data);
        }
    }

    /// `out[i]` = RFC 6962 node hash of two children: SHA-256 of 0x01, left and right.
    ///
    /// # Panics
    /// If `children` and `out` differ in length: a bug of the caller.
    pub fn nodes(&self, children: &[[[u8; 32]; 2]], out: &mut [[u8; 32]]) {
        assert_eq!(children.len(), out.len(), "nodes and digests must have the same number of rows");
        let together = self.tree_rows_together(children.len());
        if let Some(kernels) = self.tree {
            kernels.nodes(&children[..together], &mut out[..together]);
        }
        for ([left, right], out) in children[together..].iter().zip(&mut out[together..]) {
            *out = node(left, right);
        }
    }

    /// Of so many leaves or nodes, those that are hashed in lanes.
    fn tree_rows_together(&self, rows: usize) -> usize {
        let Some(kernels) = self.tree else { return 0 };
        let left = rows % kernels.lanes_32();
        if left < self.tree_rows_min { rows - left } else { rows }
    }
}

fn finish(state: [u32; 8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

/// One leaf: one block, padded here.
fn leaf(data: &[u8; 32]) -> [u8; 32] {
    let mut block = [0; 64];
    block[1..33].copy_from_slice(data);
    block[33] = 0x80;
    block[56..].copy_from_slice(&(33_u64 * 8).to_be_bytes());
    let mut state = lanes::INITIAL;
    compress256(&mut state, &[block]);
    finish(state)
}

/// One node: two blocks.
fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut blocks = [[0; 64]; 2];
    blocks[0][0] = 1;
    blocks[0][1..33].copy_from_slice(left);
    blocks[0][33..].copy_from_slice(&right[..31]);
    blocks[1][0] = right[31];
    blocks[1][1] = 0x80;
    blocks[1][56..].copy_from_slice(&(65_u64 * 8).to_be_bytes());
    let mut state = lanes::INITIAL;
    compress256(&mut state, &blocks);
    finish(state)
}
