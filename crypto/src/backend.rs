//! Which verifier and which signer this machine uses: names, detection, and the choice of `auto`.
//!
//! A backend is detected once, when it is opened, from what the CPU reports; the same binary runs everywhere. Asking
//! by name for one that is absent is an error and never a silent fallback; only `auto` chooses, and says what.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::SerialBatch;
use crate::cache::KeyCache;
use crate::columns::{BatchVerifier, Columns, Messages};
use crate::sign::{BatchSigner, ExpandedKey, SerialSigner};
use crate::simd;

/// The environment variable that names the verifier when the caller has no setting of its own: `auto` or a backend.
pub const VERIFIER_VARIABLE: &str = "WEFT_VERIFIER";

/// A way to compute, by instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// curve25519-dalek, portable.
    Serial,
    /// Lanes of AVX2.
    Avx2,
    /// Lanes of AVX-512 with IFMA.
    Avx512,
}

impl Backend {
    /// Every backend this crate knows, whether this machine has it or not.
    pub const ALL: [Self; 3] = [Self::Serial, Self::Avx2, Self::Avx512];

    /// The name on command lines and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Opens the verifier.
    ///
    /// # Errors
    /// [`BackendError::NotDetected`] if this machine or this build lacks it.
    pub fn verifier(self, options: &Options) -> Result<Arc<dyn BatchVerifier>, BackendError> {
        match self {
            Self::Serial => Ok(match options.cached_keys {
                0 => Arc::new(SerialBatch::new()),
                keys => Arc::new(SerialBatch::with_cache(Arc::new(KeyCache::new(keys)))),
            }),
            other => simd::verifier(other, options).ok_or(BackendError::NotDetected(other)),
        }
    }

    /// Opens the signer.
    ///
    /// # Errors
    /// [`BackendError::NotDetected`] if this machine or this build lacks it.
    pub fn signer(self) -> Result<Arc<dyn BatchSigner>, BackendError> {
        match self {
            Self::Serial => Ok(Arc::new(SerialSigner)),
            other => simd::signer(other).ok_or(BackendError::NotDetected(other)),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        let known = Self::ALL.into_iter().find(|backend| backend.name() == name);
        known.ok_or_else(|| BackendError::Unknown(name.to_owned()))
    }
}

/// What a verifier is opened with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Decoded keys to keep between batches, 0 for none. A `serial` verifier takes 200 bytes for each
    /// ([`crate::cache`]); the cache is shared by all threads that use the verifier.
    pub cached_keys: usize,
}

/// Why there is no such backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// No backend has this name.
    Unknown(String),
    /// The backend exists, but not on this machine or not in this build.
    NotDetected(Backend),
}

impl fmt::Display for BackendError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(out, "unknown backend {name:?}: it must be auto")?;
                Backend::ALL.iter().try_for_each(|backend| write!(out, ", {backend}"))
            }
            Self::NotDetected(backend) => write!(out, "backend {backend} not detected on this machine"),
        }
    }
}

impl std::error::Error for BackendError {}

/// A verifier, and why it was taken.
#[derive(Clone)]
pub struct Chosen {
    /// The verifier.
    pub verifier: Arc<dyn BatchVerifier>,
    /// Nanoseconds per signature of every backend that was measured, fastest first. Empty if there was no choice.
    pub measured: Vec<(Backend, u64)>,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.verifier.name();
        out.debug_struct("Chosen").field("verifier", &name).field("measured", &self.measured).finish()
    }
}

/// Every backend that this machine has, with its verifier.
#[must_use]
pub fn available(options: &Options) -> Vec<(Backend, Arc<dyn BatchVerifier>)> {
    let open = |backend: Backend| Some((backend, backend.verifier(options).ok()?));
    Backend::ALL.into_iter().filter_map(open).collect()
}

/// Opens the verifier called `name`: `auto` for the fastest here, by measurement ([`auto`]), or a backend's name.
///
/// # Errors
/// [`BackendError`] if there is none of that name, or this machine lacks it.
pub fn by_name(name: &str, options: &Options) -> Result<Chosen, BackendError> {
    match name {
        "auto" => Ok(auto(options)),
        name => {
            let verifier = name.parse::<Backend>()?.verifier(options)?;
            Ok(Chosen { verifier, measured: Vec::new() })
        }
    }
}

/// [`by_name`] with the name in [`VERIFIER_VARIABLE`], or `auto` if that is not set.
///
/// # Errors
/// As [`by_name`].
pub fn from_environment(options: &Options) -> Result<Chosen, BackendError> {
    match std::env::var(VERIFIER_VARIABLE) {
        Ok(name) => by_name(&name, options),
        Err(std::env::VarError::NotPresent) => Ok(auto(options)),
        Err(std::env::VarError::NotUnicode(name)) => {
            Err(BackendError::Unknown(name.to_string_lossy().into_owned()))
        }
    }
}

/// Signatures in the measurement of [`auto`]: a batch of the size that a loaded node sees, a few milliseconds each.
const SAMPLE_ROWS: usize = 256;

/// The fastest verifier of this machine: each one verifies the same batch three times and its best time counts.
/// Takes some 20 ms per backend, and no measurement at all if there is only one.
///
/// A backend that refuses a valid signature or takes a bad one in that batch is passed over: such a CPU or build is
/// broken. The serial verifier is taken as given.
#[must_use]
pub fn auto(options: &Options) -> Chosen {
    let found = available(options);
    if let [(_, only)] = found.as_slice() {
        return Chosen { verifier: Arc::clone(only), measured: Vec::new() };
    }
    let sample = Sample::new();
    let mut timed: Vec<_> = found
        .into_iter()
        .filter_map(|(backend, verifier)| {
            // Timed without a cache, so that the first run does not pay for the others.
            let uncached = backend.verifier(&Options::default()).ok()?;
            let time = sample.time(uncached.as_ref())?;
            let ns_per_signature = (time.as_nanos() / SAMPLE_ROWS as u128) as u64;
            Some((ns_per_signature, backend, verifier))
        })
        .collect();
    timed.sort_by_key(|(ns_per_signature, backend, _)| (*ns_per_signature, *backend));
    let measured = timed.iter().map(|(ns_per_signature, backend, _)| (*backend, *ns_per_signature)).collect();
    let verifier = match timed.into_iter().next() {
        Some((_, _, fastest)) => fastest,
        None => Arc::new(SerialBatch::new()),
    };
    Chosen { verifier, measured }
}

/// The batch that backends are timed with.
struct Sample {
    keys: Vec<[u8; 32]>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
}

impl Sample {
    fn new() -> Self {
        let mut sample = Self { keys: Vec::new(), ids: Vec::new(), signatures: Vec::new() };
        for row in 0..SAMPLE_ROWS as u32 {
            let mut id = [0x5a; 32];
            id[..4].copy_from_slice(&row.to_le_bytes());
            let key = ExpandedKey::from_seed(&id);
            sample.keys.push(*key.public());
            sample.signatures.push(key.sign(&id));
            sample.ids.push(id);
        }
        sample
    }

    /// The best of three runs; `None` if a verdict is wrong.
    fn time(&self, verifier: &dyn BatchVerifier) -> Option<Duration> {
        let columns =
            |signatures| Columns { keys: &self.keys, messages: Messages::Ids(&self.ids), signatures };
        let mut verdicts = [false; SAMPLE_ROWS];
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            verifier.verify(&columns(&self.signatures), &mut verdicts);
            best = best.min(start.elapsed());
            if verdicts.contains(&false) {
                return None;
            }
        }
        let mut damaged = self.signatures.clone();
        damaged[SAMPLE_ROWS / 2][40] ^= 1;
        verifier.verify(&columns(&damaged), &mut verdicts);
        let expected = |(row, verdict): (usize, &bool)| *verdict == (row != SAMPLE_ROWS / 2);
        verdicts.iter().enumerate().all(expected).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_backend_is_always_available() {
        let found = available(&Options::default());
        assert_eq!(found[0].0, Backend::Serial);
        assert_eq!(found[0].1.name(), "serial");
        assert_eq!(by_name("serial", &Options { cached_keys: 10 }).unwrap().verifier.name(), "serial");
    }

    #[test]
    fn every_available_backend_carries_its_own_name_and_is_found_by_it() {
        for (backend, verifier) in available(&Options::default()) {
            assert_eq!(verifier.name(), backend.name());
            assert_eq!(by_name(backend.name(), &Options::default()).unwrap().verifier.name(), backend.name());
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let error = by_name("sse2", &Options::default()).unwrap_err();
        assert_eq!(error, BackendError::Unknown("sse2".to_owned()));
        assert_eq!(error.to_string(), "unknown backend \"sse2\": it must be auto, serial, avx2, avx512");
    }

    #[test]
    fn auto_takes_the_fastest_of_the_backends_it_measured() {
        let chosen = auto(&Options::default());
        match chosen.measured.first() {
            Some((fastest, _)) => {
                assert_eq!(chosen.verifier.name(), fastest.name());
                assert!(chosen.measured.is_sorted_by_key(|(_, nanoseconds)| *nanoseconds));
            }
            None => assert_eq!(chosen.verifier.name(), "serial"),
        }
    }

    #[test]
    fn the_sample_of_auto_passes_over_a_backend_with_a_wrong_verdict() {
        struct Says(bool);
        impl BatchVerifier for Says {
            fn name(&self) -> &'static str {
                "constant"
            }
            fn verify(&self, _: &Columns<'_>, verdicts: &mut [bool]) {
                verdicts.fill(self.0);
            }
        }
        let sample = Sample::new();
        assert_eq!(sample.time(&Says(true)), None);
        assert_eq!(sample.time(&Says(false)), None);
        assert!(sample.time(&SerialBatch::new()).is_some());
    }
}
