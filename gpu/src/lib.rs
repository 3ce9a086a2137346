//! Ed25519 batch verification and message hashing on any GPU through wgpu, guarded by the CPU.
//!
//! Owns: the choice of an adapter ([`adapter`]), opening it with a self-test and the faster field layout
//! ([`selftest`]), the way of a batch through it ([`engine`]), the guard that makes its verdicts safe to use
//! ([`verifier`]), keys that stay decoded on the device ([`resident`]), batch equations ([`equation`]), message ids ([`hasher`]), measurements ([`mod@bench`]), and what an AMD compiler says of the kernels without
//! the card (`offline`). Leaves to `weft-shaders` what runs on the
//! device, to `weft-crypto` the rules and the CPU's part, and to the node when a batch goes to a device at all.
//!
//! ```no_run
//! use std::sync::Arc;
//! use weft_gpu::{GpuVerifier, adapter, selftest};
//!
//! # fn main() -> Result<(), weft_gpu::GpuError> {
//! if let Some(found) = adapter::choose(&adapter::Choice::Auto)? {
//!     let (engine, _) = selftest::open(&found, &weft_gpu::Options::default())?;
//!     let gpu = GpuVerifier::new(engine, Arc::new(weft_crypto::SerialBatch::new()));
//! }
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

pub mod adapter;
pub mod bench;
mod cache;
mod canary;
mod compile;
pub mod engine;
pub mod equation;
mod error;
pub mod fault;
pub mod hasher;
mod input;
mod memory;
#[cfg(not(target_vendor = "apple"))]
#[allow(unsafe_code)] // Vulkan without wgpu between
pub mod offline;
pub mod resident;
pub mod selftest;
mod stepping;
pub mod verifier;
mod wait;

pub use engine::{Engine, Method, Options};
pub use error::GpuError;
pub use memory::device_bytes;
pub use resident::ResidentCounts;
pub use verifier::{Counts, GpuVerifier, OwnedBatch, Pending};
pub use weft_shaders::{Kernel, Layout};
