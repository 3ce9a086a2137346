//! Integer hashing for traffic: cheap, well spread, and not cryptographic.
//!
//! Owns the mixer from which orders, parent choices and readings are drawn. Nothing here guards a secret: keys come from BLAKE3
//! ([`device`](crate::device)).

/// Bijective mixer of 64 bits: the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) with the increment added first,
/// so that 0 does not stay 0.
#[inline]
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Maps 64 well mixed bits to `0 .. limit` by the high half of the product (Lemire, Fast Random Integer Generation in an Interval,
/// 2019, without the rejection: the bias is below `limit / 2^64`). `limit` of 0 gives 0.
#[inline]
#[must_use]
pub const fn below(bits: u64, limit: u64) -> u64 {
    ((bits as u128 * limit as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the published generator seeded with 0 and with 1234567.
    #[test]
    fn the_mixer_gives_the_published_splitmix64_outputs() {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(GAMMA), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
