//! What `weft bench verify` measures: each backend of `weft-crypto`, and the batch verifiers of two other crates.
//!
//! Each peer gets its best build and its best way in: keys decoded before where it can take them decoded, its single
//! verification where the batch is one signature, signatures and keys in its own types before the clock starts.
//! Invariant: [`Contender::verify`] does the whole work of a verdict on bytes that are in memory, and nothing else.

use std::sync::Arc;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::SeedableRng as _;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes};
use weft_crypto::backend::Options;
use weft_crypto::{Backend, BatchVerifier, Columns, Messages};

use super::corpus::{Corpus, KeyMix};
use super::usage;

/// How the peers were compiled, for the report.
pub(super) const PEER_BUILD: &str = "one build with cfg curve25519_dalek_backend=\"avx512\" (.cargo/config.toml): \
    both peers stand on curve25519-dalek 5, which then takes AVX-512 IFMA, AVX2 or portable code by what the CPU has";

/// Decoded keys that the cache of a warm run has room for, per key in the corpus: enough that hardly a set overflows.
const CACHE_ROOM: usize = 4;

/// Whose verifier it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ours,
    Zebra,
    Dalek,
}

/// Something that verifies batches of a corpus. The corpus is the one it was made for.
pub(super) trait Contender: Send + Sync {
    /// Name in the table.
    fn name(&self) -> &str;
    /// Whose it is.
    fn role(&self) -> Role;
    /// The timed part: the `number`th batch of `batch` signatures, all valid. Gives what must be true.
    fn verify(&self, corpus: &Corpus, number: usize, batch: usize, scratch: &mut Vec<bool>) -> bool;
    /// The verdicts on the first batch, with the signature of row `damaged` changed. One verdict for each row, or a
    /// single one for those that judge a batch as a whole.
    fn check(&self, corpus: &Corpus, batch: usize, damaged: Option<usize>) -> Vec<bool>;
    /// What [`Contender::check`] must say of a batch with one damaged row.
    fn expected(&self, batch: usize, damaged: usize) -> Vec<bool>;
}

/// Every contender for one corpus: ours first, then the peers.
pub(super) fn all(backends: &[Backend], corpus: &Corpus) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    for backend in backends {
        let cached_keys = if corpus.mix.cached() { corpus.rows() * CACHE_ROOM } else { 0 };
        let verifier =
            backend.verifier(&Options { cached_keys }).map_err(|error| usage(error.to_string()))?;
        if corpus.mix.cached() {
            // Twice: whoever was displaced by a later key of its set comes back.
            let mut verdicts = vec![false; corpus.rows()];
            verifier.verify(&columns(corpus, &corpus.signatures, 0..corpus.rows()), &mut verdicts);
            verifier.verify(&columns(corpus, &corpus.signatures, 0..corpus.rows()), &mut verdicts);
        }
        contenders.push(Box::new(Ours { verifier }));
    }
    contenders.push(Box::new(Zebra::new(corpus)?));
    contenders.push(Box::new(Dalek::new(corpus)?));
    Ok(contenders)
}

fn columns<'a>(corpus: &'a Corpus, signatures: &'a [[u8; 64]], rows: std::ops::Range<usize>) -> Columns<'a> {
    Columns {
        keys: &corpus.keys[rows.clone()],
        messages: Messages::Ids(&corpus.ids[rows.clone()]),
        signatures: &signatures[rows],
    }
}

/// The first `batch` signatures with one of them changed in its s.
fn damaged_signatures(corpus: &Corpus, batch: usize, damaged: Option<usize>) -> Vec<[u8; 64]> {
    let mut signatures = corpus.signatures[..batch].to_vec();
    if let Some(row) = damaged {
        signatures[row][40] ^= 1;
    }
    signatures
}

struct Ours {
    verifier: Arc<dyn BatchVerifier>,
}

impl Contender for Ours {
    fn name(&self) -> &str {
        self.verifier.name()
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn verify(&self, corpus: &Corpus, number: usize, batch: usize, verdicts: &mut Vec<bool>) -> bool {
        verdicts.clear();
        verdicts.resize(batch, false);
        self.verifier.verify(&columns(corpus, &corpus.signatures, corpus.slice(number, batch)), verdicts);
        verdicts.iter().all(|verdict| *verdict)
    }

    fn check(&self, corpus: &Corpus, batch: usize, damaged: Option<usize>) -> Vec<bool> {
        let signatures = damaged_signatures(corpus, batch, damaged);
        let mut verdicts = vec![damaged.is_some(); batch];
        self.verifier.verify(&columns(corpus, &signatures, 0..batch), &mut verdicts);
        verdicts
    }

    fn expected(&self, batch: usize, damaged: usize) -> Vec<bool> {
        (0..batch).map(|row| row != damaged).collect()
    }
}

/// ed25519-zebra 5.
struct Zebra {
    keys: Vec<VerificationKeyBytes>,
    /// For batches of one when keys are warm.
    decoded: Vec<VerificationKey>,
    signatures: Vec<ed25519_zebra::Signature>,
    warm: bool,
    /// Where every call's coefficients start from: a call may not wait for the system's randomness.
    seed: [u8; 32],
}

impl Zebra {
    fn new(corpus: &Corpus) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
        let keys: Vec<_> = corpus.keys.iter().map(|key| VerificationKeyBytes::from(*key)).collect();
        let decoded = keys.iter().map(|key| VerificationKey::try_from(*key)).collect::<Result<_, _>>()?;
        let signatures = zebra_signatures(&corpus.signatures);
        Ok(Self { keys, decoded, signatures, warm: corpus.mix != KeyMix::Cold, seed })
    }

    fn batch(&self, corpus: &Corpus, signatures: &[ed25519_zebra::Signature], start: usize) -> bool {
        if let [signature] = signatures {
            if self.warm {
                return self.decoded[start].verify(signature, &corpus.ids[start]).is_ok();
            }
            let key = VerificationKey::try_from(self.keys[start]);
            return key.is_ok_and(|key| key.verify(signature, &corpus.ids[start]).is_ok());
        }
        let mut verifier = ed25519_zebra::batch::Verifier::new();
        for (index, signature) in signatures.iter().enumerate() {
            let row = start + index;
            verifier.queue((self.keys[row], *signature, &corpus.ids[row]));
        }
        verifier.verify(ChaCha8Rng::from_seed(self.seed)).is_ok()
    }
}

fn zebra_signatures(signatures: &[[u8; 64]]) -> Vec<ed25519_zebra::Signature> {
    signatures.iter().map(ed25519_zebra::Signature::from_bytes).collect()
}

impl Contender for Zebra {
    fn name(&self) -> &str {
        "zebra-batch"
    }

    fn role(&self) -> Role {
        Role::Zebra
    }

    fn verify(&self, corpus: &Corpus, number: usize, batch: usize, _: &mut Vec<bool>) -> bool {
        let rows = corpus.slice(number, batch);
        self.batch(corpus, &self.signatures[rows.clone()], rows.start)
    }

    fn check(&self, corpus: &Corpus, batch: usize, damaged: Option<usize>) -> Vec<bool> {
        vec![self.batch(corpus, &zebra_signatures(&damaged_signatures(corpus, batch, damaged)), 0)]
    }

    fn expected(&self, _: usize, _: usize) -> Vec<bool> {
        vec![false]
    }
}

/// ed25519-dalek 3.
struct Dalek {
    decoded: Vec<ed25519_dalek::VerifyingKey>,
    signatures: Vec<ed25519_dalek::Signature>,
    warm: bool,
}

impl Dalek {
    fn new(corpus: &Corpus) -> anyhow::Result<Self> {
        let decoded =
            corpus.keys.iter().map(ed25519_dalek::VerifyingKey::from_bytes).collect::<Result<_, _>>()?;
        let signatures = dalek_signatures(&corpus.signatures);
        Ok(Self { decoded, signatures, warm: corpus.mix != KeyMix::Cold })
    }

    fn batch(&self, corpus: &Corpus, signatures: &[ed25519_dalek::Signature], start: usize) -> bool {
        let rows = start..start + signatures.len();
        let fresh: Vec<ed25519_dalek::VerifyingKey>;
        let keys: &[ed25519_dalek::VerifyingKey] = if self.warm {
            &self.decoded[rows.clone()]
        } else {
            let decoded: Result<Vec<_>, _> =
                corpus.keys[rows.clone()].iter().map(ed25519_dalek::VerifyingKey::from_bytes).collect();
            match decoded {
                Ok(keys) => fresh = keys,
                Err(_) => return false,
            }
            &fresh
        };
        if let ([key], [signature]) = (keys, signatures) {
            use ed25519_dalek::Verifier as _;
            return key.verify(&corpus.ids[start], signature).is_ok();
        }
        let messages: Vec<&[u8]> = corpus.ids[rows].iter().map(<[u8; 32]>::as_slice).collect();
        ed25519_dalek::verify_batch(&messages, signatures, keys).is_ok()
    }
}

fn dalek_signatures(signatures: &[[u8; 64]]) -> Vec<ed25519_dalek::Signature> {
    signatures.iter().map(ed25519_dalek::Signature::from_bytes).collect()
}

impl Contender for Dalek {
    fn name(&self) -> &str {
        "dalek-batch"
    }

    fn role(&self) -> Role {
        Role::Dalek
    }

    fn verify(&self, corpus: &Corpus, number: usize, batch: usize, _: &mut Vec<bool>) -> bool {
        let rows = corpus.slice(number, batch);
        self.batch(corpus, &self.signatures[rows.clone()], rows.start)
    }

    fn check(&self, corpus: &Corpus, batch: usize, damaged: Option<usize>) -> Vec<bool> {
        vec![self.batch(corpus, &dalek_signatures(&damaged_signatures(corpus, batch, damaged)), 0)]
    }

    fn expected(&self, _: usize, _: usize) -> Vec<bool> {
        vec![false]
    }
}
