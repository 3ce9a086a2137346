//! Vector backends (AVX2, AVX-512 IFMA): batch verification, signing and hashing with one element per lane.
//!
//! | file | owns |
//! |---|---|
//! | `lanes.rs` | what an instruction set must offer; `avx2.rs`, `avx512.rs`, `portable.rs` implement it |
//! | `field.rs`, `field26.rs`, `field52.rs` | field elements: the interface, radix 2^25.5, radix 2^52; bounds as types |
//! | `point.rs`, `decode.rs` | curve points and their decoding under ZIP-215 |
//! | `scalar.rs`, `halve.rs` | integers modulo the group order; short halves of one |
//! | `sha512.rs` | SHA-512 in lanes |
//! | `bucket.rs`, `multiscalar.rs`, `check.rs` | sums of many points; single checks, one per lane |
//! | `verify.rs` | columns to verdicts |
//! | `fixed.rs`, `sign.rs` | multiples of B in constant time; signing and key expansion |
//! | `blake3.rs`, `sha256.rs`, `hash.rs` | message ids and tree hashes, many at a time |
//! | `backend.rs` | detection, and the only place where the generic code is compiled for an instruction set |
//!
//! Every backend gives the verdicts of [`crate::serial::verify_one`]. Where a CPU lacks all of them, use the serial
//! batch verifier.

#![allow(
    clippy::needless_range_loop,
    clippy::type_complexity,
    reason = "kernels walk several arrays with one counter, and tables of kernels spell their signatures out"
)]

mod backend;
mod blake3;
mod bucket;
mod check;
mod decode;
mod field;
mod field26;
mod field52;
mod fixed;
mod halve;
mod hash;
mod lanes;
mod multiscalar;
mod point;
mod scalar;
mod sha256;
mod sha512;
mod sign;
mod straus;
mod verify;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod portable;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use std::sync::Arc;

use crate::BatchVerifier;
use crate::backend::{Backend, Options};
use crate::sign::BatchSigner;

pub use backend::NAMES;
#[cfg(test)]
pub(crate) use backend::{COSTS_AVX2, COSTS_AVX512};
pub use hash::{Context, Hashes};
pub use verify::{KEYS_CACHED, SimdBatch};

/// Names of the vector backends this CPU can run, the fastest last: a subset of [`NAMES`].
#[must_use]
pub fn detected() -> Vec<&'static str> {
    backend::detected().iter().map(|kernels| kernels.name).collect()
}

/// The vector verifier of `backend`, if this CPU can run it.
pub(crate) fn verifier(backend: Backend, options: &Options) -> Option<Arc<dyn BatchVerifier>> {
    Some(Arc::new(SimdBatch::named(backend.name(), options.cached_keys)?))
}

/// The vector signer of `backend`, if this CPU can run it.
pub(crate) fn signer(backend: Backend) -> Option<Arc<dyn BatchSigner>> {
    let kernels = backend::detected().into_iter().find(|kernels| kernels.name == backend.name())?;
    Some(Arc::new(sign::SimdSigner::with_kernels(kernels)))
}
