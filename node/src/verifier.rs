//! Which CPU backend and which GPUs a node verifies with, and why.
//!
//! | `verifier` | `gpu` | the node verifies with |
//! |---|---|---|
//! | `auto` | `auto` | the fastest CPU backend, and the best GPU beside it if there is a real one |
//! | `auto` | adapters | the fastest CPU backend, and these adapters beside it |
//! | a CPU backend | `auto`, `off` | that backend alone: whoever names one gets it |
//! | a CPU backend | adapters | that backend, and these adapters beside it |
//! | `gpu` | `auto`, adapters | the GPU first; the CPU gets small batches, and everything once the GPU has failed |
//! | any but `gpu` | `off` | the CPU alone |
//!
//! `auto` never takes a software adapter, allowed or not: it shares the CPU's cores and is slower than its backends. What was asked
//! for by name and is not there is an error; what `auto` does without is a line in the log.

use std::sync::Arc;

use weft_crypto::BatchVerifier;
use weft_crypto::backend::{self, BackendError};
use weft_gpu::adapter::{self, Found, Selection};
use weft_gpu::{GpuError, GpuVerifier, Options, selftest};

/// The value of `verifier` that puts the GPU first.
pub const GPU: &str = "gpu";

/// Why there is no such verifier here.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// No such CPU backend.
    #[error("{0}, gpu")]
    Backend(#[from] BackendError),
    /// No such GPU, or it does not work.
    #[error("{0}")]
    Gpu(#[from] GpuError),
    /// `verifier gpu` with `gpu off`.
    #[error("`verifier` is gpu, but `gpu` is off")]
    Off,
}

/// The verifiers of a node.
pub struct Chosen {
    /// The CPU's.
    pub cpu: Arc<dyn BatchVerifier>,
    /// GPUs that take part, not opened yet.
    pub adapters: Vec<Found>,
    /// Whether they come first.
    pub devices_first: bool,
    /// What was chosen and why, for the log.
    pub why: String,
}

/// The verifiers that the settings `verifier` and `gpu` mean on this machine.
///
/// # Errors
/// If something asked for by name is not here.
pub fn choose(verifier: &str, gpu: &Selection, options: &backend::Options) -> Result<Chosen, VerifierError> {
    let devices_first = verifier == GPU;
    let name = if devices_first { "auto" } else { verifier };
    let chosen = backend::by_name(name, options)?;
    let cpu = chosen.verifier;
    let mut why = match chosen.measured.as_slice() {
        [] => format!("CPU: {}", cpu.name()),
        measured => {
            let figures: Vec<String> =
                measured.iter().map(|(backend, ns)| format!("{backend} {ns} ns")).collect();
            format!("CPU: {}, the fastest here (per signature: {})", cpu.name(), figures.join(", "))
        }
    };
    let adapters = if gpu.is_off() {
        if devices_first {
            return Err(VerifierError::Off);
        }
        why.push_str("; GPU: off");
        Vec::new()
    } else if devices_first || !gpu.is_auto() {
        gpu.adapters()?
    } else if verifier != "auto" {
        why.push_str("; GPU: none, since the verifier was named");
        Vec::new()
    } else {
        match adapter::choose_from(adapter::list(), &adapter::Choice::Auto, false) {
            Ok(found) => found.into_iter().collect(),
            Err(GpuError::NoAdapter { software: 0 }) => {
                why.push_str("; GPU: none, no adapter was found");
                Vec::new()
            }
            Err(GpuError::NoAdapter { software }) => {
                why.push_str(&format!(
                    "; GPU: none, {software} software adapter(s) only, which would take the CPU's own time and be slower"
                ));
                Vec::new()
            }
            Err(error) => {
                why.push_str(&format!("; GPU: none, {error}"));
                Vec::new()
            }
        }
    };
    for found in &adapters {
        let place = if devices_first { "first" } else { "beside the CPU" };
        why.push_str(&format!("; GPU: {}, {place}", found.description.name));
    }
    Ok(Chosen { cpu, adapters, devices_first, why })
}

/// A GPU behind its guard for a command that verifies with nothing else: the adapter that `gpu` names first.
///
/// # Errors
/// If there is none that may be used, or it does not pass its self-test.
pub fn open_gpu(gpu: &Selection, cached_keys: usize) -> Result<GpuVerifier, VerifierError> {
    let found = gpu.adapters()?.into_iter().next().ok_or(VerifierError::Off)?;
    let cpu = backend::auto(&backend::Options { cached_keys }).verifier;
    let options = Options { cache_dir: cache_dir(), ..Options::default() };
    let (engine, _) = selftest::open(&found, &options)?;
    Ok(GpuVerifier::new(engine, cpu))
}

/// Where commands keep compiled kernels: `weft/gpu` below `$XDG_CACHE_HOME` or `~/.cache`, if there is such a place.
#[must_use]
pub fn cache_dir() -> Option<std::path::PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("weft").join("gpu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_here(verifier: &str, gpu: &str) -> Result<Chosen, VerifierError> {
        choose(verifier, &gpu.parse().unwrap(), &backend::Options::default())
    }

    #[test]
    fn a_named_backend_and_gpu_off_mean_the_cpu_alone() {
        for (verifier, gpu) in [("serial", "auto"), ("serial", "off"), ("auto", "off")] {
            let chosen = choose_here(verifier, gpu).unwrap();
            assert!(chosen.adapters.is_empty() && !chosen.devices_first, "{verifier} {gpu}: {}", chosen.why);
        }
    }

    #[test]
    fn auto_takes_no_software_adapter_and_says_why() {
        let chosen = choose_here("auto", "auto").unwrap();
        assert!(chosen.adapters.iter().all(|found| !found.description.software), "{}", chosen.why);
        assert!(chosen.why.contains("CPU: ") && chosen.why.contains("GPU: "), "{}", chosen.why);
        let software = adapter::list().iter().filter(|found| found.description.software).count();
        if chosen.adapters.is_empty() && software > 0 {
            assert!(chosen.why.contains("software adapter(s) only"), "{}", chosen.why);
        }
    }

    #[test]
    fn what_is_asked_for_and_is_not_there_is_an_error_that_says_so() {
        assert!(matches!(choose_here("gpu", "off"), Err(VerifierError::Off)));
        let error = choose_here("auto", "no such card").err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("no such card")), "{error:?}");
        let error = choose_here("abacus", "auto").err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("abacus")), "{error:?}");
    }
}
