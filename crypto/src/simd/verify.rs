//! The batch verifier on vector kernels: from columns to verdicts.
//!
//! 1. SHA-512 of R, A and the message in lanes; k modulo l; rows whose s is not below l are bad.
//! 2. Every distinct key once: from the cache, or decoded in lanes; every R decoded in lanes. Rows of which either is
//!    no point are bad.
//! 3. Coefficients from the whole batch ([`crate::coefficients`]).
//! 4. [`crate::culprits::search`] over what is left, with the equation below: one multiscalar multiplication per group,
//!    one scalar per distinct key, one for B, the coefficient itself for R. Small groups are tested one per lane, and rows
//!    checked one per lane, where that pays better. Decoded points, k and z stay the same throughout.
//!
//! One row or two (with AVX2, some dozens) go to the serial batch verifier: a vector with few lanes in use is slower.
//!
//! All working memory is kept from batch to batch in a pool, as many sets as threads ever verified at once: about
//! 3.1 MB each for batches of 4096, and 0.9 MB more once small groups were tested.

use std::sync::{Arc, Mutex, PoisonError};

use super::backend::Kernels;
use super::check::Single;
use super::multiscalar::Terms;
use super::point::{NielsRow, PointRow};
use super::scalar::{self, Wide};
use super::sha512::Parts;
use super::straus::{Term, Workspace};
use crate::cache::{KeyCache, KeyHasher};
use crate::coefficients::Coefficients;
use crate::culprits::{self, Alarm, Equation, Share};
use crate::{BatchVerifier, Columns, SerialBatch, serial};

/// Keys a verifier keeps decoded unless told otherwise: 2^16 of 192 bytes with their keys, and 12 for each set of four:
/// 12.8 MB.
pub const KEYS_CACHED: usize = 1 << 16;

/// Keys kept for signatures that come in small batches, 203 bytes each: they come to a node with little to do.
const SMALL_KEYS_CACHED: usize = 1 << 12;

/// From this many keys on, all shards of the cache are locked once instead of one for each key.
const READER_KEYS_MIN: usize = 64;

/// Row of B among the points; the distinct keys follow.
const BASE_ROW: u32 = 0;

/// A [`BatchVerifier`] on the vector instructions of this CPU.
pub struct SimdBatch {
    kernels: &'static Kernels,
    cache: Option<KeyCache<NielsRow>>,
    /// For batches too small for vectors, with a cache of its own.
    small: SerialBatch,
    hasher: KeyHasher,
    alarm: Alarm,
    pool: Mutex<Vec<Scratch>>,
}

/// Memory of one batch.
#[derive(Default)]
struct Scratch {
    digests: Vec<[u64; 8]>,
    slots: Vec<u32>,
    /// Per row: its key among the distinct ones, and the scalars.
    row_keys: Vec<u32>,
    k: Vec<[u64; 4]>,
    s: Vec<[u64; 4]>,
    z: Vec<u128>,
    distinct: Vec<[u8; 32]>,
    cached: Vec<bool>,
    encodings: Vec<[u8; 32]>,
    valid: Vec<bool>,
    points: Vec<NielsRow>,
    /// Per distinct key: the sum of z k over the rows of the group, and where it stands in `terms`.
    sums: Vec<Wide>,
    touched: Vec<u32>,
    seen: Vec<bool>,
    rows: Vec<u32>,
    terms: Terms,
    /// For groups side by side in lanes.
    lane_terms: Vec<Term>,
    workspace: Workspace,
}

impl SimdBatch {
    /// A verifier with a cache for `keys_cached` decoded keys (0: none), on the kernels given.
    pub(crate) fn with_kernels(kernels: &'static Kernels, keys_cached: usize) -> Self {
        Self {
            kernels,
            cache: (keys_cached > 0).then(|| KeyCache::new(keys_cached)),
            small: match keys_cached {
                0 => SerialBatch::new(),
                keys => SerialBatch::with_cache(Arc::new(KeyCache::new(keys.min(SMALL_KEYS_CACHED)))),
            },
            hasher: KeyHasher::new(),
            alarm: Alarm::default(),
            pool: Mutex::new(Vec::new()),
        }
    }

    /// The best vector backend of this CPU with a cache for `keys_cached` decoded keys (0: none); `None` if it has
    /// none.
    #[must_use]
    pub fn detect(keys_cached: usize) -> Option<Self> {
        super::backend::detected().last().map(|kernels| Self::with_kernels(kernels, keys_cached))
    }

    /// The backend called `name`, if this CPU has it.
    #[must_use]
    pub fn named(name: &str, keys_cached: usize) -> Option<Self> {
        let kernels = super::backend::detected().into_iter().find(|kernels| kernels.name == name)?;
        Some(Self::with_kernels(kernels, keys_cached))
    }

    fn verify_with(
        &self,
        scratch: &mut Scratch,
        mut share: Share,
        batch: &Columns<'_>,
        verdicts: &mut [bool],
    ) -> Share {
        let count = batch.len();
        verdicts.fill(false);
        self.hash(scratch, batch);
        self.find_keys(scratch, batch);
        self.decode(scratch, batch);
        let keys = scratch.distinct.len();
        scratch.rows.clear();
        for row in 0..count {
            let key = scratch.row_keys[row] as usize;
            let good =
                scratch.valid[key] && scratch.valid[keys + row] && scalar::is_canonical(&scratch.s[row]);
            if good {
                scratch.rows.push(row as u32);
            }
        }
        let seed = draw(scratch, count);
        let mut rows = std::mem::take(&mut scratch.rows);
        let costs = &self.kernels.costs;
        let mut equations = Equations { kernels: self.kernels, scratch };
        culprits::search_span(&mut equations, costs, &mut share, &mut rows, seed, verdicts);
        scratch.rows = rows;
        self.remember(scratch, verdicts);
        share
    }

    /// k and s of every row.
    fn hash(&self, scratch: &mut Scratch, batch: &Columns<'_>) {
        let count = batch.len();
        scratch.digests.resize(count, [0; 8]);
        scratch.k.clear();
        scratch.s.clear();
        const AT_ONCE: usize = 64;
        let mut parts: [Parts<'_>; AT_ONCE] = [[&[]; 3]; AT_ONCE];
        for start in (0..count).step_by(AT_ONCE) {
            let end = count.min(start + AT_ONCE);
            for row in start..end {
                parts[row - start] =
                    [&batch.signatures[row][..32], &batch.keys[row], batch.messages.get(row)];
            }
            self.kernels.sha512(&parts[..end - start], &mut scratch.digests[start..end]);
        }
        for (digest, signature) in scratch.digests.iter().zip(batch.signatures) {
            scratch.k.push(scalar::reduce(digest));
            scratch.s.push(scalar::words(serial::halves(signature).1));
        }
    }

    /// Numbers the distinct keys, in a table with open addressing. The hash has a secret of this process, so that
    /// nobody can aim at collisions. A slot has the key's number in its lower bits and upper bits of the hash above them,
    /// so that few keys but equal ones are compared.
    fn find_keys(&self, scratch: &mut Scratch, batch: &Columns<'_>) {
        let size = (2 * batch.len()).next_power_of_two();
        let mask = (size - 1) as u32;
        scratch.slots.clear();
        // No number has all lower bits set, since at most half as many are given.
        scratch.slots.resize(size, u32::MAX);
        scratch.distinct.clear();
        scratch.row_keys.clear();
        let (slots, distinct) = (&mut scratch.slots[..], &mut scratch.distinct);
        let number = |key: &[u8; 32]| {
            let hash = self.hasher.hash(key);
            let tag = (hash >> 32) as u32 & !mask;
            let mut slot = hash as usize & (size - 1);
            loop {
                let found = slots[slot];
                if found == u32::MAX {
                    let number = distinct.len() as u32;
                    slots[slot] = tag | number;
                    distinct.push(*key);
                    return number;
                }
                let number = found & mask;
                if found & !mask == tag && distinct[number as usize] == *key {
                    return number;
                }
                slot = (slot + 1) & (size - 1);
            }
        };
        scratch.row_keys.extend(batch.keys.iter().map(number));
    }

    /// Points: B, the distinct keys, the R of every row, the neutral element. `valid` is without B.
    fn decode(&self, scratch: &mut Scratch, batch: &Columns<'_>) {
        let keys = scratch.distinct.len();
        let total = keys + batch.len();
        scratch.points.resize(total + 2, NielsRow::ZERO);
        scratch.points[0] = *self.kernels.base();
        scratch.points[total + 1] = *self.kernels.neutral_niels();
        scratch.valid.clear();
        scratch.valid.resize(total, true);
        scratch.cached.clear();
        scratch.cached.resize(keys, false);
        scratch.encodings.clear();
        let points = &mut scratch.points[1..];
        let mut missing = keys;
        if let Some(cache) = &self.cache {
            let (points, cached) = (&mut *points, &mut scratch.cached);
            let mut found = |number: usize, point: &NielsRow| {
                points[number] = *point;
                cached[number] = true;
                missing -= 1;
            };
            // Locks for all at once only where there are many to look up.
            if keys >= READER_KEYS_MIN {
                cache.reader().get_each(&scratch.distinct, found);
            } else {
                for (number, key) in scratch.distinct.iter().enumerate() {
                    if let Some(point) = cache.get(key) {
                        found(number, &point);
                    }
                }
            }
        }
        // Without cached keys everything is decoded in one go and in place.
        if missing == keys {
            scratch.encodings.extend_from_slice(&scratch.distinct);
        } else if missing > 0 {
            let absent = scratch.distinct.iter().zip(&scratch.cached).filter(|(_, cached)| !**cached);
            scratch.encodings.extend(absent.map(|(key, _)| *key));
            let mut decoded = vec![NielsRow::ZERO; missing];
            let mut valid = vec![false; missing];
            self.kernels.decode(&scratch.encodings, &mut decoded, &mut valid);
            let mut next = decoded.into_iter().zip(valid);
            for number in 0..keys {
                if !scratch.cached[number]
                    && let Some((point, good)) = next.next()
                {
                    points[number] = point;
                    scratch.valid[number] = good;
                }
            }
            scratch.encodings.clear();
        }
        let first = keys - scratch.encodings.len();
        scratch.encodings.extend(batch.signatures.iter().map(|signature| *serial::halves(signature).0));
        self.kernels.decode(&scratch.encodings, &mut points[first..total], &mut scratch.valid[first..]);
    }

    /// Stores keys decoded for this batch that signed something valid.
    fn remember(&self, scratch: &mut Scratch, verdicts: &[bool]) {
        let Some(cache) = &self.cache else { return };
        for (&key, &valid) in scratch.row_keys.iter().zip(verdicts) {
            let key = key as usize;
            if valid && !scratch.cached[key] {
                cache.insert(&scratch.distinct[key], scratch.points[1 + key]);
                scratch.cached[key] = true;
            }
        }
    }
}

/// A coefficient per row, and a seed.
fn draw(scratch: &mut Scratch, count: usize) -> u64 {
    let mut coefficients = Coefficients::new();
    let mut block = [0_u8; 64 * 64];
    for start in (0..count).step_by(64) {
        let end = count.min(start + 64);
        for (row, bytes) in (start..end).zip(block.as_chunks_mut::<64>().0) {
            bytes[..32].copy_from_slice(&scalar::bytes(&scratch.k[row]));
            bytes[32..].copy_from_slice(&scalar::bytes(&scratch.s[row]));
        }
        coefficients.absorb(&block[..64 * (end - start)]);
    }
    scratch.z.resize(count + 1, 0);
    coefficients.squeeze(&mut scratch.z);
    scratch.z[count] as u64
}

/// The equation of a batch, for the search.
struct Equations<'a> {
    kernels: &'static Kernels,
    scratch: &'a mut Scratch,
}

impl Equation for Equations<'_> {
    type Value = PointRow;

    /// `sum of z (k A + R - s B)`: the negative of the module's convention, which is neutral as often.
    fn value(&mut self, rows: &[u32]) -> PointRow {
        let scratch = &mut *self.scratch;
        let keys = scratch.distinct.len();
        scratch.sums.resize(keys, [0; 7]);
        scratch.seen.resize(keys, false);
        scratch.touched.clear();
        let mut base: Wide = [0; 7];
        for &row in rows {
            let row = row as usize;
            let key = scratch.row_keys[row] as usize;
            if !scratch.seen[key] {
                scratch.seen[key] = true;
                scratch.sums[key] = [0; 7];
                scratch.touched.push(key as u32);
            }
            scalar::add_product(&mut scratch.sums[key], scratch.z[row], &scratch.k[row]);
            scalar::add_product(&mut base, scratch.z[row], &scratch.s[row]);
        }
        scratch.terms.begin(self.kernels, 1 + scratch.touched.len(), rows.len());
        scratch.terms.push(BASE_ROW, &scalar::negate(&scalar::reduce_wide(&base)));
        for &key in &scratch.touched {
            scratch.seen[key as usize] = false;
            scratch.terms.push(1 + key, &scalar::reduce_wide(&scratch.sums[key as usize]));
        }
        for &row in rows {
            scratch.terms.push_short(1 + keys as u32 + row, scratch.z[row as usize], false);
        }
        scratch.terms.evaluate(self.kernels, &scratch.points)
    }

    fn difference(&mut self, whole: &PointRow, part: &PointRow) -> PointRow {
        self.kernels.subtract(whole, part)
    }

    fn is_neutral(&mut self, value: &PointRow) -> bool {
        self.kernels.is_torsion(value)
    }

    fn clean_groups(&mut self, rows: &[u32], size: usize, clean: &mut [bool]) {
        let scratch = &mut *self.scratch;
        let keys = scratch.distinct.len() as u32;
        let lanes = self.kernels.costs.lanes;
        let mut base = Vec::with_capacity(lanes);
        for (rows, clean) in rows.chunks(size * lanes).zip(clean.chunks_mut(lanes)) {
            scratch.lane_terms.clear();
            base.clear();
            for group in rows.chunks(size) {
                let mut sum: Wide = [0; 7];
                for &row in group {
                    let at = row as usize;
                    // A digit less than with all 128 bits.
                    let short = scratch.z[at] >> 1;
                    let mut product: Wide = [0; 7];
                    scalar::add_product(&mut product, short, &scratch.k[at]);
                    scalar::add_product(&mut sum, short, &scratch.s[at]);
                    let (long, negative) = scalar::smaller(&scalar::reduce_wide(&product));
                    let (key, nonce) = (1 + scratch.row_keys[at], 1 + keys + row);
                    scratch.lane_terms.push(Term { key, nonce, long, negative, short });
                }
                // The last group may be short: nothing times B fills it.
                for _ in group.len()..size {
                    let nothing =
                        Term { key: BASE_ROW, nonce: BASE_ROW, long: [0; 4], negative: false, short: 0 };
                    scratch.lane_terms.push(nothing);
                }
                base.push(scalar::negate(&scalar::reduce_wide(&sum)));
            }
            let found = self.kernels.clean_groups(
                &scratch.points,
                &scratch.lane_terms,
                &base,
                &mut scratch.workspace,
            );
            for (lane, clean) in clean.iter_mut().enumerate() {
                *clean = found >> lane & 1 == 1;
            }
        }
    }

    fn check_rows(&mut self, rows: &[u32], valid: &mut [bool]) {
        let scratch = &*self.scratch;
        let keys = scratch.distinct.len() as u32;
        let mut singles = Vec::with_capacity(rows.len());
        for &row in rows {
            let at = row as usize;
            singles.push(Single {
                key: 1 + scratch.row_keys[at],
                nonce: 1 + keys + row,
                k: scratch.k[at],
                s: scratch.s[at],
            });
        }
        let lanes = self.kernels.costs.lanes;
        for (group, valid) in singles.chunks(lanes).zip(valid.chunks_mut(lanes)) {
            let found = self.kernels.check(&scratch.points, group);
            for (lane, valid) in valid.iter_mut().enumerate() {
                *valid = found >> lane & 1 == 1;
            }
        }
    }
}

impl BatchVerifier for SimdBatch {
    fn name(&self) -> &'static str {
        self.kernels.name
    }

    fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        let share = self.verify_from(self.alarm.share(), batch, verdicts);
        self.alarm.note(&share);
    }

    fn verify_suspect(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.verify_from(Share::suspect(), batch, verdicts);
    }
}

impl SimdBatch {
    fn verify_from(&self, share: Share, batch: &Columns<'_>, verdicts: &mut [bool]) -> Share {
        let count = batch.check_lengths(verdicts);
        if count <= self.kernels.serial_rows_max {
            return self.small.verify_from(share, batch, verdicts);
        }
        let pooled = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = pooled.unwrap_or_default();
        let share = self.verify_with(&mut scratch, share, batch, verdicts);
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        share
    }
}
