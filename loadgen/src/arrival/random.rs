//! The random numbers of arrival processes: one SplitMix64 sequence per stream, and the exponential times drawn from it.
//!
//! Owns [`Draws`]. Deterministic: the same seed gives the same run on every machine. Not cryptographic, as [`mix`](crate::mix) says.

use crate::mix::{below, mix};

/// A sequence of draws.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 mixed bits.
    #[inline]
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Uniform above 0 and at most 1.
    #[inline]
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.bits())
    }

    /// Exponential with mean 1.
    #[inline]
    pub(super) fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Uniform in `0 .. limit`.
    #[inline]
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        below(self.bits(), limit)
    }
}

/// Mixed bits as a value above 0 and at most 1, in steps of 2^-53.
#[inline]
#[must_use]
pub fn unit(bits: u64) -> f64 {
    ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
}
