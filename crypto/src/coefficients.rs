//! The random coefficients of a batch: one 128-bit z per signature.
//!
//! A batch is accepted if one random linear combination of its equations holds. Whoever could predict the z could
//! choose two bad signatures whose errors cancel, so they are drawn from BLAKE3 keyed with a secret of this process
//! and fed with the whole batch:
//!
//! * unpredictable, because the key is 32 bytes of the operating system's randomness that never leave the process;
//! * bound to the batch, because every (k, s) is hashed before the first z is read. k is SHA-512 over R, A and the
//!   message, so a change of any byte of any row changes every z, and no state is carried from batch to batch.
//!
//! With z uniform over 2^128 values a batch with a bad signature passes with probability 2^-128 (the errors lie in
//! the group of prime order L once the cofactor is multiplied in, and at most one z of 2^128 < L cancels the rest).
//! Shorter coefficients would save bucket additions and are not used: that probability is what an attacker gets per
//! attempt, and attempts are cheap.

use std::sync::LazyLock;

/// The secret of this process, drawn at the first batch.
///
/// A system without randomness cannot verify in batches safely, so it is a panic at the first use, at start-up, and
/// not an error that some caller could overlook.
static SECRET: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret)
        .expect("the operating system gives no randomness, which batch verification needs");
    secret
});

/// Coefficients of one batch: absorb every row, then read one z per row.
pub struct Coefficients {
    hasher: blake3::Hasher,
}

impl Coefficients {
    /// Starts with the secret of this process.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[must_use]
    pub fn new() -> Self {
        Self::keyed(&SECRET)
    }

    fn keyed(secret: &[u8; 32]) -> Self {
        Self { hasher: blake3::Hasher::new_keyed(secret) }
    }

    /// Binds the coefficients to `bytes`: for a batch, k and s of every row (32 bytes each), in the order of the
    /// rows. Callers keep the framing unambiguous (rows of one length do).
    pub fn absorb(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Fills `out` with independent uniform coefficients.
    pub fn squeeze(self, out: &mut [u128]) {
        let mut reader = self.hasher.finalize_xof();
        let mut block = [0_u8; 1024];
        for group in out.chunks_mut(block.len() / 16) {
            reader.fill(&mut block);
            for (z, bytes) in group.iter_mut().zip(block.as_chunks::<16>().0) {
                *z = u128::from_le_bytes(*bytes);
            }
        }
    }
}

impl Default for Coefficients {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(secret: u8, input: &[u8], count: usize) -> Vec<u128> {
        let mut coefficients = Coefficients::keyed(&[secret; 32]);
        coefficients.absorb(input);
        let mut out = vec![0; count];
        coefficients.squeeze(&mut out);
        out
    }

    #[test]
    fn coefficients_depend_on_every_byte_of_the_batch_and_on_the_secret() {
        let base = draw(1, &[7; 640], 10);
        assert_eq!(base, draw(1, &[7; 640], 10), "the same batch must give the same coefficients");
        for at in [0, 1, 63, 64, 639] {
            let mut changed = [7; 640];
            changed[at] ^= 1;
            let other = draw(1, &changed, 10);
            assert!(base.iter().zip(&other).all(|(a, b)| a != b), "byte {at} must change every coefficient");
        }
        assert!(base.iter().zip(&draw(2, &[7; 640], 10)).all(|(a, b)| a != b));
    }

    #[test]
    fn no_coefficient_repeats_and_every_bit_takes_both_values() {
        let mut many = draw(3, b"", 5000);
        let (ones, zeros) = many.iter().fold((0, 0), |(ones, zeros), z| (ones | z, zeros | !z));
        assert_eq!((ones, zeros), (u128::MAX, u128::MAX));
        many.sort_unstable();
        many.dedup();
        assert_eq!(many.len(), 5000);
    }

    #[test]
    fn the_process_secret_is_not_zero_and_stays() {
        assert_ne!(*SECRET, [0; 32]);
        let (mut first, mut second) = ([0; 3], [0; 3]);
        Coefficients::new().squeeze(&mut first);
        Coefficients::default().squeeze(&mut second);
        assert_eq!(first, second);
    }
}
