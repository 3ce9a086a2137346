//! The guard: a device's verdicts, believed only as far as they are checked.
//!
//! Every batch carries canaries, good and bad, before and after it. Every rejection is verified again on the CPU before
//! it is given out, and so is a random sample of what was accepted. One wrong verdict quarantines the adapter: the
//! batch is verified again on the CPU as a whole, and so is everything after it. A lost or failing device, or one whose
//! driver panics, ends the same way, without the blame. So a message is never refused on the device's word alone, and a
//! device that accepts wrongly is found out after about [`SAMPLE_ONE_IN`] wrong rows.
//!
//! Where one answer stands for many rows (batch equations), the canaries are equations as well, one that must hold and one that must
//! fail, and the sample has a row of every equation that held. A fault inside an equation's arithmetic makes it fail, whose rows are
//! then verified one by one; to be accepted wrongly, its last comparison must be wrong, for which those are the check.
//!
//! Nothing here schedules: see [`GpuVerifier::submit`] for the interface that a scheduler uses.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft_crypto::{BatchVerifier, Columns, Messages};

use crate::canary::{CANARIES, CANARIES_EACH_SIDE, Known};
use crate::engine::{Answer, Engine, InFlight, Method, lock};
use crate::equation::{Equation, Policy};
use crate::error::{GpuError, contain};
use crate::selftest;

/// One accepted row of this many is verified again on the CPU: at 5 million rows a second and 20 us each, 5 % of one
/// core's time per million rows a second.
pub const SAMPLE_ONE_IN: usize = 2048;
/// Accepted rows verified again in every batch, at least.
pub const SAMPLE_MIN: usize = 2;
/// New keys that a batch may add to the resident ones, at most: a stream of keys that are never seen again must not cost the host
/// more than a millisecond or so a batch.
pub const ADMITTED_MAX: usize = 4096;

/// What the guard has seen, counted since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches answered by the device.
    pub batches: u64,
    /// Rows whose verdicts came from the device.
    pub rows: u64,
    /// Rejections verified again on the CPU.
    pub rejections_checked: u64,
    /// Acceptances verified again on the CPU.
    pub sampled: u64,
    /// Wrong verdicts found. The first one quarantines the adapter.
    pub mismatches: u64,
    /// Rows verified on the CPU because the device could not be used.
    pub fallback_rows: u64,
    /// Batch equations over messages.
    pub equations: u64,
    /// Of those, how many failed, so that their rows were verified one by one.
    pub equations_failed: u64,
}

#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    rows: AtomicU64,
    rejections_checked: AtomicU64,
    sampled: AtomicU64,
    mismatches: AtomicU64,
    fallback_rows: AtomicU64,
    equations: AtomicU64,
    equations_failed: AtomicU64,
}

/// A batch that the verifier owns while the device works on it.
#[derive(Clone, Debug, Default)]
pub struct OwnedBatch {
    /// Public keys.
    pub keys: Vec<[u8; 32]>,
    /// 32-byte ids.
    pub ids: Vec<[u8; 32]>,
    /// Signatures.
    pub signatures: Vec<[u8; 64]>,
}

impl OwnedBatch {
    /// The batch as columns.
    #[must_use]
    pub fn columns(&self) -> Columns<'_> {
        Columns { keys: &self.keys, messages: Messages::Ids(&self.ids), signatures: &self.signatures }
    }
}

/// A submitted batch: [`GpuVerifier::poll`] or [`GpuVerifier::wait`] for it.
pub struct Pending {
    batch: OwnedBatch,
    flight: Option<InFlight>,
}

/// A device behind its guard, with a CPU verifier for what the device may not decide.
pub struct GpuVerifier {
    engine: Engine,
    cpu: Arc<dyn BatchVerifier>,
    canaries: Known,
    equation_canaries: Known,
    policy: Mutex<Policy>,
    ended: Mutex<Option<GpuError>>,
    counters: Counters,
    /// Where in the next batch admission begins: not always with the same rows, when a batch has more new keys than may be added.
    turn: AtomicUsize,
}

impl GpuVerifier {
    /// Puts the guard around an engine that passed its self-test.
    #[must_use]
    pub fn new(engine: Engine, cpu: Arc<dyn BatchVerifier>) -> Self {
        GpuVerifier {
            policy: Mutex::new(Policy::new(engine.gain())),
            engine,
            cpu,
            canaries: Known::new(CANARIES),
            equation_canaries: Known::for_equations(),
            ended: Mutex::new(None),
            counters: Counters::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The device.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Why the device is used no more, if so.
    #[must_use]
    pub fn ended(&self) -> Option<GpuError> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            batches: get(&self.counters.batches),
            rows: get(&self.counters.rows),
            rejections_checked: get(&self.counters.rejections_checked),
            sampled: get(&self.counters.sampled),
            mismatches: get(&self.counters.mismatches),
            fallback_rows: get(&self.counters.fallback_rows),
            equations: get(&self.counters.equations),
            equations_failed: get(&self.counters.equations_failed),
        }
    }

    /// Rows that [`GpuVerifier::submit`] takes at most.
    #[must_use]
    pub fn rows_max(&self) -> usize {
        self.engine.rows_max().saturating_sub(CANARIES)
    }

    /// [`selftest::measure`] on this device, which an error ends.
    ///
    /// # Errors
    /// As there.
    pub fn measure(&self, rows: usize) -> Result<(usize, Duration), GpuError> {
        let method = match self.engine.gain() {
            Some(gain) if rows >= gain.rows_min => Method::Equations,
            _ => Method::Ladder,
        };
        selftest::measure(&self.engine, method, rows).inspect_err(|error| self.end(error.clone()))
    }

    /// Starts a batch and returns; blocks only while [`Engine::slots`] batches are in flight. Never fails: what the
    /// device cannot do is verified on the CPU when the answer is fetched.
    #[must_use]
    pub fn submit(&self, batch: OwnedBatch) -> Pending {
        let flight = match self.start(&batch.columns(), true, false) {
            Started::Flying(flight) => Some(*flight),
            Started::Full | Started::Refused => None,
        };
        Pending { batch, flight }
    }

    /// The batch and its verdicts, if the device is done with it; else the pending batch back.
    ///
    /// # Errors
    /// The pending batch, when it is not done.
    #[allow(clippy::result_large_err)] // the other side of one answer, not a failure
    pub fn poll(&self, mut pending: Pending) -> Result<(OwnedBatch, Vec<bool>), Pending> {
        let answer = match &mut pending.flight {
            None => None,
            Some(flight) => match contain(|| self.engine.poll(flight).transpose()).transpose() {
                None => return Err(pending),
                Some(answer) => Some(answer),
            },
        };
        let verdicts = self.judge(&pending.batch.columns(), answer, false);
        Ok((pending.batch, verdicts))
    }

    /// The batch and its verdicts; blocks.
    #[must_use]
    pub fn wait(&self, pending: Pending) -> (OwnedBatch, Vec<bool>) {
        let answer = pending.flight.map(|flight| contain(|| self.engine.finish(flight)));
        let verdicts = self.judge(&pending.batch.columns(), answer, false);
        (pending.batch, verdicts)
    }

    /// Starts a batch with its canaries; waits for a slot only if it may.
    fn start(&self, batch: &Columns<'_>, may_wait: bool, suspect: bool) -> Started {
        if batch.is_empty() || self.ended().is_some() {
            return Started::Refused;
        }
        // With bad rows among them equations fail.
        let method = match !suspect && self.engine.has_equations() && lock(&self.policy).take(batch.len()) {
            true => Method::Equations,
            false => Method::Ladder,
        };
        let canaries = self.canaries(method).columns();
        let parts =
            [canaries.rows(0, CANARIES_EACH_SIDE), *batch, canaries.rows(CANARIES_EACH_SIDE, CANARIES)];
        // The first canaries are decoded each time, the last ones' key is resident after the first batches: both ways are watched.
        let started = contain(|| match may_wait {
            true => self.engine.begin(&parts, CANARIES_EACH_SIDE, method).map(Some),
            false => self.engine.try_begin(&parts, CANARIES_EACH_SIDE, method),
        });
        match started {
            Ok(Some(flight)) => Started::Flying(Box::new(flight)),
            Ok(None) => Started::Full,
            Err(GpuError::TooLarge { .. }) => Started::Refused,
            Err(error) => {
                self.end(error);
                Started::Refused
            }
        }
    }

    /// Turns a device's answer into verdicts that can be given out. `None`: the device never had the batch.
    fn judge(
        &self,
        batch: &Columns<'_>,
        answer: Option<Result<Answer, GpuError>>,
        suspect: bool,
    ) -> Vec<bool> {
        let checked = match answer {
            Some(Ok(answer)) => self.check(batch, answer),
            Some(Err(error)) => Err(error),
            None => return self.on_cpu(batch, suspect),
        };
        match checked {
            Ok(verdicts) => verdicts,
            Err(error) => {
                self.end(error);
                self.on_cpu(batch, suspect)
            }
        }
    }

    /// The guard proper.
    fn check(&self, batch: &Columns<'_>, answer: Answer) -> Result<Vec<bool>, GpuError> {
        let Answer { mut verdicts, equations } = answer;
        let rows = batch.len();
        let wrong = |what: String| {
            self.counters.mismatches.fetch_add(1, Ordering::Relaxed);
            GpuError::Quarantined(what)
        };
        // An engine that was ended meanwhile by another batch's mismatch is not believed for this one either.
        if let Some(error) = self.ended() {
            return Err(error);
        }
        let after = verdicts.split_off(CANARIES_EACH_SIDE + rows);
        let body = verdicts.split_off(CANARIES_EACH_SIDE);
        let method = if equations.is_empty() { Method::Ladder } else { Method::Equations };
        let canaries = verdicts.iter().chain(&after);
        if let Some(canary) =
            canaries.zip(&self.canaries(method).valid).position(|(got, expected)| got != expected)
        {
            return Err(wrong(format!("canary {canary} came back wrong")));
        }
        let own = match equations.as_slice() {
            [good, own @ .., bad] if good.held && !bad.held => own,
            [] => &[],
            _ => return Err(wrong("an equation of canaries came back wrong".to_owned())),
        };
        let mut body = body;
        let rejected: Vec<usize> = (0..rows).filter(|row| !body[*row]).collect();
        self.counters.rejections_checked.fetch_add(rejected.len() as u64, Ordering::Relaxed);
        if let Some(row) = self.recheck(batch, &rejected, false) {
            return Err(wrong(format!("row {row} of {rows} was refused and is valid")));
        }
        let held = own.iter().filter(|equation| equation.held);
        let held: Vec<Range<usize>> = held
            .map(|Equation { rows, .. }| rows.start - CANARIES_EACH_SIDE..rows.end - CANARIES_EACH_SIDE)
            .collect();
        if !own.is_empty() {
            let failed = rows - held.iter().map(Range::len).sum::<usize>();
            lock(&self.policy).learn(rows, failed);
            let count = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
            count(&self.counters.equations, own.len());
            count(&self.counters.equations_failed, own.len() - held.len());
        }
        let sample = self.sample(&body, &held)?;
        self.counters.sampled.fetch_add(sample.len() as u64, Ordering::Relaxed);
        if let Some(row) = self.recheck(batch, &sample, true) {
            return Err(wrong(format!("row {row} of {rows} was accepted and is invalid")));
        }
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        body.truncate(rows);
        self.admit(batch, &body, method);
        Ok(body)
    }

    /// Keeps the keys of accepted rows on the device, and the last canaries'.
    fn admit(&self, batch: &Columns<'_>, accepted: &[bool], method: Method) {
        let from = self.turn.fetch_add(ADMITTED_MAX, Ordering::Relaxed) % accepted.len().max(1);
        let rows = (from..accepted.len()).chain(0..from).filter(|row| accepted[*row]);
        let canaries = self.canaries(method);
        let own = canaries.columns().rows(CANARIES_EACH_SIDE, CANARIES);
        let own = own.keys.iter().zip(&canaries.valid[CANARIES_EACH_SIDE..]);
        let own = own.filter_map(|(key, valid)| valid.then_some(key));
        self.engine.admit(own.chain(rows.map(|row| &batch.keys[row])), ADMITTED_MAX);
    }

    /// Verifies some rows on the CPU; the first one whose verdict is not `expected`.
    fn recheck(&self, batch: &Columns<'_>, rows: &[usize], expected: bool) -> Option<usize> {
        if rows.is_empty() {
            return None;
        }
        let keys: Vec<[u8; 32]> = rows.iter().map(|row| batch.keys[*row]).collect();
        let signatures: Vec<[u8; 64]> = rows.iter().map(|row| batch.signatures[*row]).collect();
        let messages: Vec<&[u8]> = rows.iter().map(|row| batch.messages.get(*row)).collect();
        let columns = Columns { keys: &keys, messages: Messages::Slices(&messages), signatures: &signatures };
        let mut verdicts = vec![!expected; rows.len()];
        // What the device refused is bad throughout, as a rule: a batch equation over it fails, and the search for the culprits costs more
        // than verifying each by itself.
        match expected {
            true => self.cpu.verify(&columns, &mut verdicts),
            false => self.cpu.verify_suspect(&columns, &mut verdicts),
        }
        verdicts.iter().position(|verdict| *verdict != expected).map(|at| rows[at])
    }

    fn canaries(&self, method: Method) -> &Known {
        match method {
            Method::Ladder => &self.canaries,
            Method::Equations => &self.equation_canaries,
        }
    }

    /// Random accepted rows, and one of each equation that held. Their choice must not be foreseen by whoever sends messages, so it comes
    /// from the system; without randomness there is no guard, and the device is not used.
    fn sample(&self, verdicts: &[bool], held: &[Range<usize>]) -> Result<Vec<usize>, GpuError> {
        // Drawn among the accepted alone: whoever fills a batch with bad rows must not thin out the sample.
        let accepted: Vec<usize> = (0..verdicts.len()).filter(|row| verdicts[*row]).collect();
        let wanted = (accepted.len() / SAMPLE_ONE_IN).max(SAMPLE_MIN);
        let random = getrandom::u64().map_err(|error| GpuError::Failed(format!("no randomness: {error}")));
        let mut state = random?;
        let mut below = |limit: usize| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            ((u128::from(z) * limit as u128) >> 64) as usize
        };
        let mut sample: Vec<usize> = held.iter().map(|rows| rows.start + below(rows.len())).collect();
        while sample.len() < wanted && !accepted.is_empty() {
            sample.push(accepted[below(accepted.len())]);
        }
        Ok(sample)
    }

    fn on_cpu(&self, batch: &Columns<'_>, suspect: bool) -> Vec<bool> {
        let mut verdicts = vec![false; batch.len()];
        self.counters.fallback_rows.fetch_add(batch.len() as u64, Ordering::Relaxed);
        match suspect {
            false => self.cpu.verify(batch, &mut verdicts),
            true => self.cpu.verify_suspect(batch, &mut verdicts),
        }
        verdicts
    }

    fn end(&self, error: GpuError) {
        // A panic may have taken a slot with it: nobody must wait for that one.
        self.engine.fail(error.clone());
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// What became of a batch that was to be started.
enum Started {
    /// The device has it.
    Flying(Box<InFlight>),
    /// All slots are in flight.
    Full,
    /// The device cannot take it: the CPU's.
    Refused,
}

impl GpuVerifier {
    fn verify_all(&self, batch: &Columns<'_>, verdicts: &mut [bool], suspect: bool) {
        let rows = batch.check_lengths(verdicts);
        let mut flights: VecDeque<(usize, usize, Option<InFlight>)> = VecDeque::new();
        let mut settle = |from: usize, to: usize, flight: Option<InFlight>| {
            let answer = flight.map(|flight| contain(|| self.engine.finish(flight)));
            verdicts[from..to].copy_from_slice(&self.judge(&batch.rows(from, to), answer, suspect));
        };
        let mut from = 0;
        while from < rows {
            // A message too long for the device goes to the CPU in a batch of its own.
            let fits = self.engine.fitting(batch, from, self.rows_max());
            let to = fits.filter(|to| *to > from).unwrap_or(from + 1);
            let flight = loop {
                if fits.is_none() {
                    break None;
                }
                // Waits for a slot only while it holds none: threads that held one each would wait for one another.
                match self.start(&batch.rows(from, to), flights.is_empty(), suspect) {
                    Started::Flying(flight) => break Some(*flight),
                    Started::Refused => break None,
                    Started::Full => {
                        if let Some((from, to, flight)) = flights.pop_front() {
                            settle(from, to, flight);
                        }
                    }
                }
            };
            flights.push_back((from, to, flight));
            from = to;
        }
        for (from, to, flight) in flights {
            settle(from, to, flight);
        }
    }
}

impl BatchVerifier for GpuVerifier {
    fn name(&self) -> &'static str {
        "gpu"
    }

    fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.verify_all(batch, verdicts, false);
    }

    /// The device verifies each row by itself. What falls to the CPU is verified as suspect there.
    fn verify_suspect(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.verify_all(batch, verdicts, true);
    }
}
