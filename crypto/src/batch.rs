//! The portable batch verifier: one random linear combination over curve25519-dalek's multiscalar multiplication.
//!
//! Per span of at most [`SPAN_ROWS_MAX`] rows:
//!
//! 1. Decode. A row whose key or R is no point, or whose s is not below L, is bad and takes no further part. Keys are
//!    decoded once per span however often they occur, or come from the [`KeyCache`].
//! 2. Draw the z ([`crate::coefficients`]) and form z*s and z*k once; every later test reuses them.
//! 3. Test `[8]( sum(z s) B + sum(z k)(-A) + sum z (-R) ) = 0`, with one scalar per distinct key; if it fails,
//!    [`crate::culprits`] finds the rows.
//!
//! Exactness: products z*k are reduced mod L, which changes a point with a small-order component by a small-order
//! point; the cofactor removes it, in this equation as in the reference. A row checked by itself goes through the
//! reference's own last step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity, IsIdentity, VartimeMultiscalarMul};

use crate::cache::KeyCache;
use crate::coefficients::Coefficients;
use crate::columns::{BatchVerifier, Columns};
use crate::culprits::{self, Alarm, Costs, Equation, Share};
use crate::serial::{self, DecodedKey};

/// Rows that are decoded, weighted and tested together. Larger groups need fewer additions per row but leave the
/// cache: of 512, 1,024, 2,048 and 4,096 this was the fastest for distinct keys, and within 5 % of 4,096 for few
/// keys. It bounds memory too: about 600 bytes a row, 1.2 MB per call, whatever the caller passes.
pub const SPAN_ROWS_MAX: usize = 2048;

/// The library multiplies fewer than 190 points by Straus' method and more by Pippenger's, which costs less from 128
/// points on, where Straus' tables leave the first-level cache. Groups between the two are padded with `[0]0`, which
/// Pippenger's method skips: 5-20 % off the multiplication of 64 to 94 rows. Should the library move its threshold,
/// this costs nothing but that gain.
const PADDED_POINTS: Range<usize> = 128..190;

/// Costs of this engine in microseconds per row, measured with curve25519-dalek 5's AVX2 backend on a Zen 3 core
/// (its AVX-512 backend has the same ratios within a fifth).
pub(crate) const COSTS: Costs = Costs {
    single: 39.0,
    group: [49.0, 31.0, 22.0, 18.0, 17.0, 16.0, 14.5, 13.5, 12.0, 11.0, 10.5, 9.5, 9.0],
    lanes: 1,
    group_rows_max: SPAN_ROWS_MAX,
    // Groups side by side are worth it in lanes only.
    lane_once: 0.0,
    lane_row: 0.0,
    lane_rows_max: 0,
};

/// The batch verifier on curve25519-dalek: runs everywhere, and is what vector backends are held against.
#[derive(Default)]
pub struct SerialBatch {
    cache: Option<Arc<KeyCache<DecodedKey>>>,
    alarm: Alarm,
}

impl SerialBatch {
    /// A verifier that decodes every key anew in every call.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A verifier that looks keys up in `cache` first, and stores those of valid signatures there.
    #[must_use]
    pub fn with_cache(cache: Arc<KeyCache<DecodedKey>>) -> Self {
        Self { cache: Some(cache), alarm: Alarm::default() }
    }

    fn key(&self, key: &[u8; 32]) -> Option<(DecodedKey, Origin)> {
        if let Some(known) = self.cache.as_ref().and_then(|cache| cache.get(key)) {
            return Some((known, Origin::Cache));
        }
        DecodedKey::decode(key).map(|decoded| (decoded, Origin::Bytes))
    }

    fn remember(&self, key: &[u8; 32], decoded: DecodedKey, origin: Origin) {
        if let (Some(cache), Origin::Bytes) = (&self.cache, origin) {
            cache.insert(key, decoded);
        }
    }

    fn verify_span(&self, batch: &Columns<'_>, share: &mut Share, verdicts: &mut [bool]) {
        verdicts.fill(false);
        if let [key] = batch.keys {
            if let Some((decoded, origin)) = self.key(key) {
                verdicts[0] =
                    serial::verify_quickly(&decoded, key, batch.messages.get(0), &batch.signatures[0]);
                if verdicts[0] {
                    self.remember(key, decoded, origin);
                }
            }
            return;
        }
        let mut span = Span::decode(batch, |key| self.key(key));
        let seed = span.weigh();
        let mut rows: Vec<u32> = (0..span.rows.len() as u32).collect();
        let mut valid = vec![false; rows.len()];
        culprits::search_span(&mut span, &COSTS, share, &mut rows, seed, &mut valid);
        for (row, valid) in span.rows.iter().zip(valid) {
            verdicts[row.index as usize] = valid;
            if valid {
                let (decoded, origin) = &mut span.keys[row.key as usize];
                self.remember(&batch.keys[row.index as usize], *decoded, *origin);
                *origin = Origin::Cache;
            }
        }
    }
}

impl BatchVerifier for SerialBatch {
    fn name(&self) -> &'static str {
        "serial"
    }

    fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        let share = self.verify_from(self.alarm.share(), batch, verdicts);
        self.alarm.note(&share);
    }

    fn verify_suspect(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.verify_from(Share::suspect(), batch, verdicts);
    }
}

impl SerialBatch {
    pub(crate) fn verify_from(&self, mut share: Share, batch: &Columns<'_>, verdicts: &mut [bool]) -> Share {
        let rows = batch.check_lengths(verdicts);
        // Spans of nearly equal size, so that none is left with a handful of rows.
        let spans = rows.div_ceil(SPAN_ROWS_MAX);
        let mut start = 0;
        for left in (1..=spans).rev() {
            let end = start + (rows - start).div_ceil(left);
            self.verify_span(&batch.rows(start, end), &mut share, &mut verdicts[start..end]);
            start = end;
        }
        share
    }
}

/// Where a decoded key came from: only fresh ones are worth storing.
#[derive(Clone, Copy)]
enum Origin {
    Cache,
    Bytes,
}

/// One signature that decoded.
struct Row {
    /// Its place in the caller's columns.
    index: u32,
    /// Its key in [`Span::keys`].
    key: u32,
    s: Scalar,
    k: Scalar,
    /// z, z*s and z*k mod L.
    z: Scalar,
    zs: Scalar,
    zk: Scalar,
}

/// The decoded form of a span, and scratch space for sums per key.
struct Span {
    rows: Vec<Row>,
    /// -R of each row; apart from the rest, because the multiplication streams over them.
    r_negated: Vec<EdwardsPoint>,
    keys: Vec<(DecodedKey, Origin)>,
    /// The sum of z*k per key, zero between tests.
    sums: Vec<Scalar>,
    /// Keys that occur in the group under test.
    touched: Vec<u32>,
}

impl Span {
    fn decode(batch: &Columns<'_>, decode_key: impl Fn(&[u8; 32]) -> Option<(DecodedKey, Origin)>) -> Self {
        let length = batch.len();
        let mut span = Self {
            rows: Vec::with_capacity(length),
            r_negated: Vec::with_capacity(length),
            keys: Vec::with_capacity(length),
            sums: Vec::new(),
            touched: Vec::with_capacity(length),
        };
        // `None`: the key does not decode, and need not be tried again.
        let mut numbers: HashMap<&[u8; 32], Option<u32>> = HashMap::with_capacity(length);
        for (index, (key, signature)) in batch.keys.iter().zip(batch.signatures).enumerate() {
            let (r_bytes, s_bytes) = serial::halves(signature);
            // Cheapest check first: what fails here costs no square root.
            let Some(s) = serial::decode_scalar(s_bytes) else { continue };
            let number = match numbers.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let number = decode_key(key).map(|decoded| {
                        span.keys.push(decoded);
                        span.keys.len() as u32 - 1
                    });
                    *new.insert(number)
                }
            };
            let Some(number) = number else { continue };
            let Some(r) = serial::decode_point(r_bytes) else { continue };
            let k = serial::challenge(r_bytes, key, batch.messages.get(index));
            let zero = Scalar::ZERO;
            span.rows.push(Row { index: index as u32, key: number, s, k, z: zero, zs: zero, zk: zero });
            span.r_negated.push(-r);
        }
        span.sums = vec![Scalar::ZERO; span.keys.len()];
        span
    }

    /// Draws the coefficients and multiplies them in. Returns a seed for the culprit search.
    fn weigh(&mut self) -> u64 {
        let mut coefficients = Coefficients::new();
        for row in &self.rows {
            coefficients.absorb(row.k.as_bytes());
            coefficients.absorb(row.s.as_bytes());
        }
        let mut drawn = vec![0_u128; self.rows.len() + 1];
        coefficients.squeeze(&mut drawn);
        for (row, z) in self.rows.iter_mut().zip(&drawn) {
            row.z = Scalar::from(*z);
            row.zs = row.z * row.s;
            row.zk = row.z * row.k;
        }
        drawn[self.rows.len()] as u64
    }
}

impl Equation for Span {
    type Value = EdwardsPoint;

    fn value(&mut self, rows: &[u32]) -> EdwardsPoint {
        let mut base = Scalar::ZERO;
        for &row in rows {
            let row = &self.rows[row as usize];
            base += row.zs;
            let sum = &mut self.sums[row.key as usize];
            if *sum == Scalar::ZERO {
                self.touched.push(row.key);
            }
            *sum += row.zk;
        }
        // A sum that came back to zero on its way would be listed twice and counted twice.
        self.touched.sort_unstable();
        self.touched.dedup();
        let points = 1 + self.touched.len() + rows.len();
        let padding = if PADDED_POINTS.contains(&points) { PADDED_POINTS.end - points } else { 0 };
        let neutral = EdwardsPoint::identity();
        let scalars = iter::once(&base)
            .chain(self.touched.iter().map(|&key| &self.sums[key as usize]))
            .chain(rows.iter().map(|&row| &self.rows[row as usize].z))
            .chain(iter::repeat_n(&Scalar::ZERO, padding));
        let points = iter::once(&ED25519_BASEPOINT_POINT)
            .chain(self.touched.iter().map(|&key| self.keys[key as usize].0.negated()))
            .chain(rows.iter().map(|&row| &self.r_negated[row as usize]))
            .chain(iter::repeat_n(&neutral, padding));
        let value = EdwardsPoint::vartime_multiscalar_mul(scalars, points);
        for key in self.touched.drain(..) {
            self.sums[key as usize] = Scalar::ZERO;
        }
        value
    }

    fn difference(&mut self, whole: &EdwardsPoint, part: &EdwardsPoint) -> EdwardsPoint {
        whole - part
    }

    fn is_neutral(&mut self, value: &EdwardsPoint) -> bool {
        value.mul_by_cofactor().is_identity()
    }

    fn clean_groups(&mut self, rows: &[u32], size: usize, clean: &mut [bool]) {
        for (group, clean) in rows.chunks(size).zip(clean) {
            let value = self.value(group);
            *clean = self.is_neutral(&value);
        }
    }

    fn check_rows(&mut self, rows: &[u32], valid: &mut [bool]) {
        for (&row, valid) in rows.iter().zip(valid) {
            let decoded = &self.rows[row as usize];
            let key = &self.keys[decoded.key as usize].0;
            *valid = serial::equation_holds(key, &decoded.k, &decoded.s, &self.r_negated[row as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Messages;
    use crate::serial::verify_one;
    use crate::sign::ExpandedKey;

    type Pair<const N: usize> = [[u8; N]; 2];

    /// Two signatures made bad so that their errors cancel: s is one too high in the first, one too low in the
    /// second. Without random coefficients their batch would pass.
    fn cancelling_pair() -> (Pair<32>, Pair<32>, Pair<64>) {
        let key = ExpandedKey::from_seed(&[3; 32]);
        let ids = [[1; 32], [2; 32]];
        let mut signatures = ids.map(|id| key.sign(&id));
        for (signature, error) in signatures.iter_mut().zip([Scalar::ONE, -Scalar::ONE]) {
            let s = serial::decode_scalar(serial::halves(signature).1).unwrap() + error;
            signature[32..].copy_from_slice(s.as_bytes());
        }
        ([*key.public(); 2], ids, signatures)
    }

    #[test]
    fn errors_that_cancel_pass_with_equal_coefficients_and_are_found_with_drawn_ones() {
        let (keys, ids, signatures) = cancelling_pair();
        let batch = Columns { keys: &keys, messages: Messages::Ids(&ids), signatures: &signatures };
        let mut span = Span::decode(&batch, |key| Some((DecodedKey::decode(key)?, Origin::Bytes)));
        for row in &mut span.rows {
            (row.z, row.zs, row.zk) = (Scalar::ONE, row.s, row.k);
        }
        let value = span.value(&[0, 1]);
        assert!(span.is_neutral(&value), "the forgery must work against constant coefficients");

        span.weigh();
        let value = span.value(&[0, 1]);
        assert!(!span.is_neutral(&value));
        let mut verdicts = [true; 2];
        SerialBatch::new().verify(&batch, &mut verdicts);
        assert_eq!(verdicts, [false; 2]);
    }

    #[test]
    fn values_add_up_so_that_a_difference_is_the_value_of_the_rest() {
        let (keys, ids, signatures) = cancelling_pair();
        let batch = Columns { keys: &keys, messages: Messages::Ids(&ids), signatures: &signatures };
        let mut span = Span::decode(&batch, |key| Some((DecodedKey::decode(key)?, Origin::Bytes)));
        span.weigh();
        let (whole, first, second) = (span.value(&[0, 1]), span.value(&[0]), span.value(&[1]));
        assert_eq!(span.difference(&whole, &first), second);
        assert_eq!(span.value(&[1, 0]), whole);
    }

    #[test]
    fn a_key_whose_scalars_cancel_on_the_way_is_counted_once() {
        let (keys, ids, signatures) = cancelling_pair();
        let (keys, ids, signatures) = ([keys[0]; 3], [ids[0], ids[1], ids[0]], [signatures[0]; 3]);
        let batch = Columns { keys: &keys, messages: Messages::Ids(&ids), signatures: &signatures };
        let mut span = Span::decode(&batch, |key| Some((DecodedKey::decode(key)?, Origin::Bytes)));
        span.weigh();
        // The sum over the first two rows is zero; the third row touches the key again.
        span.rows[1].zk = -span.rows[0].zk;
        let zk = span.rows[2].zk;
        let zs = span.rows[0].zs + span.rows[1].zs + span.rows[2].zs;
        let r: EdwardsPoint = (0..3).map(|row| span.r_negated[row] * span.rows[row].z).sum();
        let expected = EdwardsPoint::mul_base(&zs) + span.keys[0].0.negated() * zk + r;
        assert_eq!(span.value(&[0, 1, 2]), expected);
        assert_eq!(span.sums, [Scalar::ZERO]);
    }

    #[test]
    fn only_keys_of_valid_signatures_enter_the_cache() {
        let (good, bad) = (ExpandedKey::from_seed(&[1; 32]), ExpandedKey::from_seed(&[2; 32]));
        let ids = [[7; 32]; 3];
        let keys = [*good.public(), *bad.public(), *good.public()];
        let signatures = [good.sign(&ids[0]), good.sign(&ids[0]), good.sign(&ids[0])];
        for length in [1, 3] {
            let cache = Arc::new(KeyCache::new(16));
            let verifier = SerialBatch::with_cache(Arc::clone(&cache));
            let batch = Columns { keys: &keys, messages: Messages::Ids(&ids), signatures: &signatures };
            let mut verdicts = [false; 3];
            for _ in 0..2 {
                verifier.verify(&batch.rows(0, length), &mut verdicts[..length]);
                assert_eq!(verdicts[..length], [true, false, true][..length]);
            }
            assert!(cache.get(good.public()).is_some());
            assert!(cache.get(bad.public()).is_none());
            assert!(verify_one(&keys[0], &ids[0], &signatures[0]));
        }
    }
}
