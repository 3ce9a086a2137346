//! Bytes in, verdicts out: Ed25519 under ZIP-215 rules, one at a time and in large batches.
//!
//! What lives here: the serial reference ([`serial::verify_one`]), the batch verifier on curve25519-dalek
//! ([`SerialBatch`]), the search for the culprits of a batch that fails ([`culprits`]), a bounded cache of decoded
//! keys ([`cache`]), signing for load generators ([`sign`]), vector backends ([`simd`]), and the choice of a backend
//! by name ([`backend`]). What does not: messages, ids and their encodings (`weft-core`), threads (the caller splits
//! its work; every verifier here is `Sync`), and keys on disk.
//!
//! One rule holds for every path in this crate, and the suites under `tests/` hold it for every backend: *the
//! verdict of a signature is what [`serial::verify_one`] says*, whatever it was batched with.
//!
//! ```
//! use weft_crypto::sign::ExpandedKey;
//! use weft_crypto::{BatchVerifier, Columns, Messages, SerialBatch};
//!
//! let key = ExpandedKey::from_seed(&[7; 32]);
//! let good = key.sign(b"first");
//! let columns = Columns {
//!     keys: &[*key.public(), *key.public()],
//!     messages: Messages::Slices(&[b"first", b"second"]),
//!     signatures: &[good, good],
//! };
//! let mut verdicts = [false; 2];
//! SerialBatch::new().verify(&columns, &mut verdicts);
//! assert_eq!(verdicts, [true, false]);
//! ```

#![deny(unsafe_code)]

pub mod backend;
pub mod batch;
pub mod cache;
pub mod coefficients;
pub mod columns;
pub mod culprits;
pub mod serial;
pub mod sign;
pub mod simd;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::Backend;
pub use batch::SerialBatch;
pub use columns::{BatchVerifier, Columns, Messages};
pub use serial::verify_one;
