//! The node's source of randomness for choices that others should not predict, such as which tips to hand out.
//!
//! BLAKE3 in its extendable output mode, seeded by the operating system: fast enough to be asked once per ack, unpredictable to
//! clients, and not meant for keys.

use weft_core::random::RandomSource;

/// Bytes taken from the stream at a time.
const BLOCK_BYTES: usize = 512;

/// An unpredictable stream of numbers.
pub struct Random {
    stream: blake3::OutputReader,
    block: [u8; BLOCK_BYTES],
    used: usize,
}

impl Random {
    /// A stream seeded by the operating system.
    ///
    /// # Errors
    /// If it has no randomness to give.
    pub fn from_system() -> Result<Self, getrandom::Error> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self::from_seed(&seed))
    }

    /// The stream of a seed, for tests that replay.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let stream = blake3::Hasher::new_keyed(seed).finalize_xof();
        Self { stream, block: [0; BLOCK_BYTES], used: BLOCK_BYTES }
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl RandomSource for Random {
    fn next_u64(&mut self) -> u64 {
        if self.used + 8 > BLOCK_BYTES {
            self.stream.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(bytes)
    }
}
