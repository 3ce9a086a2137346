//! The batch equation's host side: which rows share an equation, their random z, and when equations are worth it.
//!
//! An equation is one answer for up to [`EQUATION_ROWS`] rows, several times cheaper than an answer for each; rows of one that does not
//! hold are verified by the ladder in the same submission. Invariants: no equation crosses the parts of a batch, so that canaries and
//! messages never share one; z comes from the system's randomness, new for every batch, after the batch is complete; the word that
//! means "it holds" is new for every batch and never 0, so that neither an old answer nor memory that nobody wrote says so.

use std::ops::Range;

use weft_crypto::Columns;
use weft_shaders::equation::{EQUATION_ROWS, EQUATION_WORDS, Z_WORDS};
use weft_shaders::{scalar, weigh};

use crate::error::GpuError;

/// Equations of a batch of `rows` rows in `parts` parts, at most.
pub(crate) const fn equations_max(rows: usize, parts: usize) -> usize {
    rows / EQUATION_ROWS + parts
}

/// An equation's rows in its batch, and whether it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equation {
    /// The rows.
    pub rows: Range<usize>,
    /// Whether it held. If not, the ladder verified each of its rows.
    pub held: bool,
}

/// A batch's equations as the device reads them.
pub(crate) struct Plan {
    /// 16 bytes a row.
    pub(crate) z: Vec<u8>,
    /// [`EQUATION_WORDS`] words each.
    pub(crate) words: Vec<u32>,
    pub(crate) rows: Vec<Range<usize>>,
    pub(crate) holds: u32,
}

impl Plan {
    /// Equations of about equal size for each part, with fresh randomness.
    ///
    /// # Errors
    /// [`GpuError::Failed`] if the system has no randomness.
    pub(crate) fn new(parts: &[Columns<'_>]) -> Result<Plan, GpuError> {
        let mut seed = [0; 36];
        getrandom::fill(&mut seed).map_err(|error| GpuError::Failed(format!("no randomness: {error}")))?;
        let (key, word) = (seed.first_chunk::<32>(), seed.last_chunk::<4>());
        let (Some(key), Some(word)) = (key, word) else { return Err(GpuError::Failed(String::new())) };
        let holds = u32::from_le_bytes(*word) | 1;
        let total: usize = parts.iter().map(Columns::len).sum();
        let mut z = vec![0; total * Z_WORDS * 4];
        blake3::Hasher::new_keyed(key).finalize_xof().fill(&mut z);
        let mut plan = Plan { z, words: Vec::new(), rows: Vec::new(), holds };
        let mut first = 0;
        for part in parts {
            let count = part.len().div_ceil(EQUATION_ROWS);
            for number in 0..count {
                let rows = part.len() * number / count..part.len() * (number + 1) / count;
                let in_batch = first + rows.start..first + rows.end;
                let z = plan.z[in_batch.start * 16..in_batch.end * 16].as_chunks::<16>().0;
                let sum = weighted_sum(z, &part.signatures[rows]);
                plan.words.extend([in_batch.start as u32, in_batch.len() as u32, holds, 0]);
                plan.words.extend(scalar::digits(&sum, 0x8000_8000));
                plan.rows.push(in_batch);
            }
            first += part.len();
        }
        debug_assert!(plan.words.len() == plan.rows.len() * EQUATION_WORDS, "the words of each equation");
        Ok(plan)
    }

    /// What the device's words say.
    pub(crate) fn answers(rows: &[Range<usize>], holds: u32, words: &[u32]) -> Vec<Equation> {
        let both = rows.iter().zip(words);
        both.map(|(rows, word)| Equation { rows: rows.clone(), held: *word == holds }).collect()
    }
}

/// The sum of z s modulo l, where z is what 16 random bytes stand for (`weigh.wgsl`) and s the second half of a signature.
fn weighted_sum(z: &[[u8; 16]], signatures: &[[u8; 64]]) -> [u32; 8] {
    // z = u - C with u below 2^128: the sum of u s, and C times the sum of s. At most 2^10 rows: 394 and 266 bits.
    let mut u_s = [0u64; 8];
    let mut s_sum = [0u64; 8];
    for (u, signature) in z.iter().zip(signatures) {
        let u = u128::from_le_bytes(*u);
        let u = [u as u64, (u >> 64) as u64];
        let mut s = [0u64; 4];
        for (word, bytes) in s.iter_mut().zip(signature[32..].as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        add(&mut s_sum, 0, &s);
        for (i, u) in u.iter().enumerate() {
            let mut product = [0u64; 5];
            let mut carry = 0u128;
            for j in 0..4 {
                carry += u128::from(*u) * u128::from(s[j]);
                product[j] = carry as u64;
                carry >>= 64;
            }
            product[4] = carry as u64;
            add(&mut u_s, i, &product);
        }
    }
    let minus_c = weigh::product(&[0; 4], &scalar::reduce(&halves(&s_sum)));
    let mut sum = [0u32; 16];
    let mut carry = 0u64;
    for (i, (a, b)) in scalar::reduce(&halves(&u_s)).iter().zip(minus_c).enumerate() {
        carry += u64::from(*a) + u64::from(b);
        sum[i] = carry as u32;
        carry >>= 32;
    }
    scalar::reduce(&sum)
}

/// Adds `words` to `sum` from word `at` on; the sum has room for all carries.
fn add(sum: &mut [u64; 8], at: usize, words: &[u64]) {
    let mut carry = false;
    for (i, word) in sum[at..].iter_mut().enumerate() {
        let (a, over) = word.overflowing_add(words.get(i).copied().unwrap_or(0));
        let (a, more) = a.overflowing_add(u64::from(carry));
        *word = a;
        carry = over || more;
    }
}

fn halves(words: &[u64; 8]) -> [u32; 16] {
    let mut out = [0; 16];
    for (two, word) in out.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        *two = [*word as u32, (*word >> 32) as u32];
    }
    out
}

/// Batches without equations after the first ones that did not pay, and at most.
const PAUSE_MIN: u32 = 64;
const PAUSE_MAX: u32 = 4096;

/// Whether batches are verified by equations: as long as few of them fail.
///
/// With equations a row costs `cost` of what it costs without, and another 1 if its equation fails. So they pay while the share of
/// rows in failing ones is below `1 - cost`. Beyond that there is a pause, twice as long each time: whoever sends a bad signature for
/// every equation makes this device slower than without them for one batch in [`PAUSE_MIN`] to [`PAUSE_MAX`], by `cost` of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// None: no equations on this device.
    gain: Option<Gain>,
    failing: f64,
    /// Batches to go in this pause.
    pause: u32,
    next_pause: u32,
}

/// What a measurement said of equations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Batches of fewer rows are faster without.
    pub rows_min: usize,
    /// The time with equations, as a part of the time without; below 1.
    pub cost: f64,
}

impl Gain {
    /// Where equations are demanded and nothing was measured.
    pub const DEMANDED: Gain = Gain { rows_min: 1, cost: 0.5 };
}

impl Policy {
    pub(crate) fn new(gain: Option<Gain>) -> Policy {
        Policy { gain, failing: 0.0, pause: 0, next_pause: PAUSE_MIN }
    }

    /// Whether the next batch is to be verified by equations.
    pub(crate) fn take(&mut self, rows: usize) -> bool {
        if self.gain.is_none_or(|gain| rows < gain.rows_min) {
            return false;
        }
        self.pause = self.pause.saturating_sub(1);
        self.pause == 0
    }

    /// Learns what became of a batch of equations: of `rows` rows, `failed` were in ones that failed.
    pub(crate) fn learn(&mut self, rows: usize, failed: usize) {
        let Some(gain) = self.gain else { return };
        self.failing = (self.failing + failed as f64 / rows.max(1) as f64) / 2.0;
        if self.failing >= 1.0 - gain.cost {
            self.pause = self.next_pause;
            self.next_pause = (2 * self.next_pause).min(PAUSE_MAX);
            // The next one decides by itself.
            self.failing = 0.0;
        } else if failed == 0 {
            self.next_pause = (self.next_pause / 2).max(PAUSE_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_crypto::Messages;

    fn policy() -> Policy {
        Policy::new(Some(Gain { rows_min: 1000, cost: 0.6 }))
    }

    #[test]
    fn equations_are_for_batches_that_are_large_enough_and_devices_that_gain() {
        assert!(!Policy::new(None).take(1 << 20));
        assert!(!policy().take(999) && policy().take(1000));
    }

    #[test]
    fn a_sender_who_makes_every_equation_fail_costs_one_batch_in_very_many() {
        let mut policy = policy();
        let mut tried = 0;
        for _ in 0..20_000 {
            if policy.take(5000) {
                tried += 1;
                policy.learn(5000, 5000);
            }
        }
        assert!((7..=16).contains(&tried), "{tried}");
        // Then only good ones come: after one pause all batches are verified by equations again.
        let mut last = 0;
        for batch in 0..20_000 {
            if policy.take(5000) {
                policy.learn(5000, 0);
                last += usize::from(batch >= PAUSE_MAX);
            }
        }
        assert_eq!(last, 20_000 - PAUSE_MAX as usize);
    }

    #[test]
    fn a_few_failing_equations_do_not_end_what_still_pays() {
        let mut policy = policy();
        for batch in 0..1000 {
            assert!(policy.take(8000), "batch {batch}");
            policy.learn(8000, 1000 * (batch % 3));
        }
        let taken = (0..1000).filter(|_| policy.take(8000)).count();
        assert_eq!(taken, 1000);
        policy.learn(8000, 8000);
        assert!(
            !policy.take(8000),
            "half of the rows twice, in the mean of the last batches: more than is gained"
        );
    }

    fn columns<'a>(keys: &'a [[u8; 32]], signatures: &'a [[u8; 64]]) -> Columns<'a> {
        Columns { keys, messages: Messages::Ids(keys), signatures }
    }

    #[test]
    fn parts_share_no_equation_and_every_row_is_in_one() {
        let (keys, signatures) = (vec![[0; 32]; 5000], vec![[0xff; 64]; 5000]);
        for sizes in [[4, 2500, 4], [4, EQUATION_ROWS, 4], [1, EQUATION_ROWS + 1, 0], [0, 1, 0]] {
            let parts = sizes.map(|size| columns(&keys[..size], &signatures[..size]));
            let plan = Plan::new(&parts).expect("randomness");
            let total: usize = sizes.iter().sum();
            let mut next = 0;
            for rows in &plan.rows {
                assert!(rows.start == next && !rows.is_empty() && rows.len() <= EQUATION_ROWS, "{sizes:?}");
                next = rows.end;
            }
            assert_eq!(next, total);
            assert!(plan.rows.len() <= equations_max(total, 3), "{sizes:?}: {}", plan.rows.len());
            let starts: Vec<usize> = plan.rows.iter().map(|rows| rows.start).collect();
            let mut start = 0;
            for size in sizes.into_iter().filter(|size| *size > 0) {
                assert!(starts.contains(&start), "{sizes:?}: a part begins with an equation of its own");
                start += size;
            }
            assert!(plan.holds != 0 && plan.z.len() == 16 * total);
        }
        let z = |_| Plan::new(&[columns(&keys, &signatures)]).expect("randomness").z;
        assert_ne!(z(0), z(1), "new for every batch");
    }

    #[test]
    fn the_weighted_sum_is_that_of_the_rows_taken_one_by_one() {
        // Rows whose s is below l, at l, and beyond all reason.
        let mut signatures = vec![[0x13; 64], [0; 64], [0xff; 64]];
        for (i, word) in scalar::L_WORDS.iter().enumerate() {
            signatures[1][32 + 4 * i..36 + 4 * i].copy_from_slice(&word.to_le_bytes());
        }
        signatures[0][63] = 0;
        let signatures: Vec<[u8; 64]> = signatures.into_iter().cycle().take(EQUATION_ROWS).collect();
        let z: Vec<[u8; 16]> = (0..signatures.len())
            .map(|i| [i as u8, 0xff, 3, 0x80, 7, 0, 0xff, 9, 1, 2, 3, 4, 5, 6, 7, (i * 7) as u8])
            .collect();
        let mut expected = [0u32; 8];
        for (z, signature) in z.iter().zip(&signatures) {
            let words = |bytes: &[u8]| weft_shaders::bindings::words(bytes);
            let mut s = [0; 16];
            s[..8].copy_from_slice(&words(&signature[32..]));
            let u: [u32; 4] = weft_shaders::bindings::words_at(&words(z), 0);
            let term = weigh::product(&u, &scalar::reduce(&s));
            let mut sum = [0; 16];
            let mut carry = 0u64;
            for i in 0..8 {
                carry += u64::from(expected[i]) + u64::from(term[i]);
                sum[i] = carry as u32;
                carry >>= 32;
            }
            expected = scalar::reduce(&sum);
        }
        assert_eq!(weighted_sum(&z, &signatures), expected);
        assert_eq!(
            weighted_sum(&[[0xff; 16]; EQUATION_ROWS], &[[0xff; 64]; EQUATION_ROWS]).len(),
            8,
            "no overflow"
        );
    }
}
