//! The signatures that `weft bench verify` works on: made from fixed seeds, so that every run verifies the same bytes.
//!
//! A corpus has at least [`ROWS_MIN`] rows, and contenders go round in it, so that small batches are not timed on the
//! same few signatures again and again, which caches and branch predictors would learn.

use std::ops::Range;

use weft_crypto::sign::ExpandedKey;

/// Rows of a corpus, at least.
const ROWS_MIN: usize = 4_096;
/// Keys in the mix `64`.
const FEW_KEYS: usize = 64;

/// Who signed the batch, and what the verifier knew before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyMix {
    /// All keys distinct, decoded each time.
    Cold,
    /// All keys distinct, decoded before.
    Warm,
    /// 64 keys.
    #[value(name = "64")]
    Few,
}

impl KeyMix {
    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KeyMix::Cold => "cold",
            KeyMix::Warm => "warm",
            KeyMix::Few => "64",
        }
    }
}

/// Columns of valid signatures over 32-byte ids.
pub(crate) struct Corpus {
    /// Its key mix.
    pub(crate) mix: KeyMix,
    /// Public keys.
    pub(crate) keys: Vec<[u8; 32]>,
    /// What was signed.
    pub(crate) ids: Vec<[u8; 32]>,
    /// Signatures.
    pub(crate) signatures: Vec<[u8; 64]>,
}

impl Corpus {
    /// A corpus for batches of up to `batch_max`.
    pub(crate) fn new(mix: KeyMix, batch_max: usize) -> Self {
        let rows = batch_max.max(ROWS_MIN);
        let signers: Vec<ExpandedKey> = match mix {
            KeyMix::Cold | KeyMix::Warm => (0..rows).map(signer).collect(),
            KeyMix::Few => (0..FEW_KEYS).map(signer).collect(),
        };
        let mut corpus = Self { mix, keys: Vec::new(), ids: Vec::new(), signatures: Vec::new() };
        for row in 0..rows {
            let id = bytes("id", row);
            let signer = &signers[row % signers.len()];
            corpus.keys.push(*signer.public());
            corpus.signatures.push(signer.sign(&id));
            corpus.ids.push(id);
        }
        corpus
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.keys.len()
    }

    /// The rows of the `number`th batch of `batch` rows, going round.
    pub(crate) fn slice(&self, number: usize, batch: usize) -> Range<usize> {
        let batches = (self.rows() / batch).max(1);
        let start = (number % batches) * batch;
        start..start + batch
    }
}

fn signer(number: usize) -> ExpandedKey {
    ExpandedKey::from_seed(&bytes("seed", number))
}

fn bytes(what: &str, number: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("weft 2026-11 bench corpus v1");
    hasher.update(what.as_bytes());
    hasher.update(&(number as u64).to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_of_a_corpus_is_valid_and_its_keys_are_as_many_as_the_mix_says() {
        for (mix, keys) in [(KeyMix::Cold, ROWS_MIN), (KeyMix::Few, FEW_KEYS)] {
            let corpus = Corpus::new(mix, 1);
            assert_eq!(corpus.rows(), ROWS_MIN);
            let distinct: std::collections::HashSet<_> = corpus.keys.iter().collect();
            assert_eq!(distinct.len(), keys);
            for row in (0..ROWS_MIN).step_by(101) {
                assert!(weft_crypto::verify_one(
                    &corpus.keys[row],
                    &corpus.ids[row],
                    &corpus.signatures[row]
                ));
            }
        }
    }

    #[test]
    fn batches_go_round_within_the_corpus() {
        let corpus = Corpus::new(KeyMix::Few, 1);
        assert_eq!(corpus.slice(0, 1000), 0..1000);
        assert_eq!(corpus.slice(3, 1000), 3000..4000);
        assert_eq!(corpus.slice(4, 1000), 0..1000);
        assert_eq!(corpus.slice(7, ROWS_MIN), 0..ROWS_MIN);
    }
}
