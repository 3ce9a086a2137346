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
    /// Keys drawn by Zipf's law (exponent 1) from as many as there are rows, decoded before.
    Zipf,
}

impl KeyMix {
    /// Whether a verifier with a cache of keys has seen them all before.
    pub(crate) fn cached(self) -> bool {
        self != KeyMix::Cold
    }

    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KeyMix::Cold => "cold",
            KeyMix::Warm => "warm",
            KeyMix::Few => "64",
            KeyMix::Zipf => "zipf",
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
            KeyMix::Cold | KeyMix::Warm | KeyMix::Zipf => (0..rows).map(signer).collect(),
            KeyMix::Few => (0..FEW_KEYS).map(signer).collect(),
        };
        let ranks = Ranks::new(signers.len());
        let mut corpus = Self { mix, keys: Vec::new(), ids: Vec::new(), signatures: Vec::new() };
        for row in 0..rows {
            let id = bytes("id", row);
            let signer = match mix {
                KeyMix::Zipf => &signers[ranks.draw(row)],
                _ => &signers[row % signers.len()],
            };
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

/// Zipf's law with exponent 1: the key of rank r is drawn with a chance in proportion to 1 / r.
struct Ranks {
    /// Sums of 1 / r up to each rank.
    sums: Vec<f64>,
}

impl Ranks {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += 1.0 / rank as f64;
            sum
        };
        Self { sums: (1..=count).map(add).collect() }
    }

    /// The rank, from 0, of the key of row `row`: the same in every run.
    fn draw(&self, row: usize) -> usize {
        let word = bytes("rank", row).first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        let total = self.sums.last().copied().unwrap_or(0.0);
        let point = word as f64 / u64::MAX as f64 * total;
        self.sums.partition_point(|sum| *sum < point).min(self.sums.len().saturating_sub(1))
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
    fn zipf_keys_are_drawn_with_a_chance_of_one_over_their_rank() {
        let ranks = Ranks::new(1000);
        let mut counts = vec![0_u32; 1000];
        for row in 0..20_000 {
            counts[ranks.draw(row)] += 1;
        }
        // 1 / H(1000) = 0.1336 of all for the first rank, a tenth of it for the tenth.
        assert!((2400..2950).contains(&counts[0]), "{}", counts[0]);
        assert!((200..340).contains(&counts[9]), "{}", counts[9]);
        assert!(counts[500..].iter().sum::<u32>() > 1000, "the tail is missing");
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
