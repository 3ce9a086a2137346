//! Signing and key expansion in lanes: the same signatures, bit for bit, as [`ExpandedKey::sign`].
//!
//! Hashes, multiples of B and their encodings are computed in lanes; the scalars modulo l on the general registers.
//! Nothing branches or indexes on a secret: `fixed.rs`, `scalar.rs` and `sha512.rs` say how. Nonces and hashes that
//! lie in buffers are wiped; what kernels leave on the stack and in registers is not.

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use zeroize::Zeroize;

use super::backend::Kernels;
use super::scalar;
use super::sha512::Parts;
use crate::columns::Messages;
use crate::sign::{BatchSigner, ExpandedKey};

/// Rows signed together: enough that one inversion serves 64 rows on every backend.
const ROWS_AT_ONCE: usize = 64;

/// A [`BatchSigner`] on vector kernels.
pub(crate) struct SimdSigner {
    kernels: &'static Kernels,
}

impl SimdSigner {
    pub(crate) fn with_kernels(kernels: &'static Kernels) -> Self {
        Self { kernels }
    }
}

impl BatchSigner for SimdSigner {
    fn name(&self) -> &'static str {
        self.kernels.name
    }

    fn sign(&self, keys: &[&ExpandedKey], messages: &Messages<'_>, signatures: &mut [[u8; 64]]) {
        assert_eq!(keys.len(), messages.len(), "keys and messages must have the same number of rows");
        assert_eq!(keys.len(), signatures.len(), "keys and signatures must have the same number of rows");
        let mut digests = [[0_u64; 8]; ROWS_AT_ONCE];
        let mut nonces = [[0_u64; 4]; ROWS_AT_ONCE];
        let mut points = [[0_u8; 32]; ROWS_AT_ONCE];
        for start in (0..keys.len()).step_by(ROWS_AT_ONCE) {
            let rows = ROWS_AT_ONCE.min(keys.len() - start);
            let keys = &keys[start..start + rows];
            let mut parts: [Parts<'_>; ROWS_AT_ONCE] = [[&[]; 3]; ROWS_AT_ONCE];
            for (row, key) in keys.iter().enumerate() {
                parts[row] = [&key.prefix, messages.get(start + row), &[]];
            }
            self.kernels.sha512(&parts[..rows], &mut digests[..rows]);
            for row in 0..rows {
                nonces[row] = scalar::reduce(&digests[row]);
            }
            self.kernels.multiples_of_base(&nonces[..rows], &mut points[..rows]);
            for (row, key) in keys.iter().enumerate() {
                parts[row] = [&points[row], &key.public, messages.get(start + row)];
            }
            self.kernels.sha512(&parts[..rows], &mut digests[..rows]);
            for (row, key) in keys.iter().enumerate() {
                let k = scalar::reduce(&digests[row]);
                let mut secret = scalar::words(key.scalar.as_bytes());
                let s = scalar::multiply_add_mod(&k, &secret, &nonces[row]);
                secret.zeroize();
                signatures[start + row][..32].copy_from_slice(&points[row]);
                signatures[start + row][32..].copy_from_slice(&scalar::bytes(&s));
            }
        }
        digests.zeroize();
        nonces.zeroize();
    }

    fn expand(&self, seeds: &[[u8; 32]], keys: &mut Vec<ExpandedKey>) {
        keys.clear();
        keys.reserve(seeds.len());
        let mut digests = [[0_u64; 8]; ROWS_AT_ONCE];
        let mut scalars = [[0_u64; 4]; ROWS_AT_ONCE];
        let mut publics = [[0_u8; 32]; ROWS_AT_ONCE];
        for seeds in seeds.chunks(ROWS_AT_ONCE) {
            let rows = seeds.len();
            let mut parts: [Parts<'_>; ROWS_AT_ONCE] = [[&[]; 3]; ROWS_AT_ONCE];
            for (parts, seed) in parts.iter_mut().zip(seeds) {
                *parts = [seed, &[], &[]];
            }
            self.kernels.sha512(&parts[..rows], &mut digests[..rows]);
            for row in 0..rows {
                let d = &digests[row];
                let mut clamped = clamp_integer(scalar::bytes(&[d[0], d[1], d[2], d[3]]));
                let mut words = scalar::words(&clamped);
                scalars[row] = scalar::reduce(&[words[0], words[1], words[2], words[3], 0, 0, 0, 0]);
                clamped.zeroize();
                words.zeroize();
            }
            self.kernels.multiples_of_base(&scalars[..rows], &mut publics[..rows]);
            for row in 0..rows {
                let d = &digests[row];
                keys.push(ExpandedKey {
                    scalar: Scalar::from_bytes_mod_order(scalar::bytes(&scalars[row])),
                    prefix: scalar::bytes(&[d[4], d[5], d[6], d[7]]),
                    public: publics[row],
                });
            }
        }
        digests.zeroize();
        scalars.zeroize();
    }
}
