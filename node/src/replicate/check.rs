//! The third gate for the batches of other nodes: signatures and places, in batches as large as the lag.
//!
//! Owns the thread that checks. It takes everything that the machine has asked for, verifies all signatures together by the node's own
//! engine, then looks at each batch by itself ([`check_form`]). Invariants: a verdict is about the bytes in the log under the root that
//! the machine asked about; before a batch is called ill formed for a signature, the serial verifier has confirmed that it is not valid,
//! since that ends another node's lane.
//!
//! What is asked for is bounded by what the machine holds of each lane.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender};
use weft_core::confirm::{BatchDigest, check_form};
use weft_core::{BatchView, LaneId, Limits, MessageId, Place};
use weft_crypto::{BatchVerifier, Columns, Messages};

use super::store::Stores;
use crate::confirm::driver::Event;
use crate::lanes::Lanes;
use crate::stats::Counters;

/// Messages that are verified together: the engine's gain from larger batches has ended long before, and the columns stay in the cache.
pub const ROWS_MAX: usize = 16_384;

/// Newest ids that are remembered of each lane, for parents: most are recent, and the log would have to hash them again.
const WINDOW_IDS: usize = 1 << 16;

/// The checker's parts.
pub struct Checker {
    /// Verifies.
    pub verifier: Arc<dyn BatchVerifier>,
    /// Threads that verify large batches.
    pub workers: usize,
    /// What the genesis allows.
    pub limits: Limits,
    /// The genesis roots.
    pub roots: [MessageId; 2],
    /// All logs.
    pub lanes: Lanes,
    /// Hashes ids.
    pub stores: Arc<Stores>,
    /// Takes the verdicts.
    pub events: Sender<Event>,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// Ids at the end of each lane.
    pub windows: Vec<Window>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

/// The newest ids of one lane, as checked.
#[derive(Clone, Debug, Default)]
pub struct Window {
    first: u64,
    ids: VecDeque<Option<MessageId>>,
}

impl Window {
    fn get(&self, position: u64) -> Option<MessageId> {
        let index = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.ids.get(index).copied().flatten()
    }

    /// Takes a batch's ids. One that does not follow begins anew: the lane has changed to another history, or something was left out.
    fn push(&mut self, first: u64, ids: &[MessageId]) {
        if self.first + self.ids.len() as u64 != first {
            self.ids.clear();
            self.first = first;
        }
        self.ids.push_back(None);
        self.ids.extend(ids.iter().copied().map(Some));
        let over = self.ids.len().saturating_sub(WINDOW_IDS);
        self.ids.drain(..over);
        self.first += over as u64;
    }
}

struct Asked {
    digest: Arc<BatchDigest>,
    bytes: weft_storage::disk::Slice,
    ids: Vec<MessageId>,
}

impl Checker {
    /// The checker's life: until nobody asks any more.
    pub fn run(mut self, asked: &Receiver<Arc<BatchDigest>>) {
        while let Ok(first) = asked.recv() {
            let mut batches: Vec<Asked> = Vec::new();
            let mut rows = 0;
            let mut next = Some(first);
            while let Some(digest) = next {
                if let Some(batch) = self.read(digest) {
                    rows += batch.ids.len();
                    batches.push(batch);
                }
                next = if rows < ROWS_MAX { asked.try_recv().ok() } else { None };
            }
            if !self.check(batches, rows) {
                return;
            }
        }
    }

    /// The bytes that the machine asks about; `None` if the log has another history by now: then it asks again.
    fn read(&self, digest: Arc<BatchDigest>) -> Option<Asked> {
        let reader = self.lanes.get(digest.lane())?;
        let stored = match reader.batch_at(digest.first()) {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::error!(lane = %digest.lane(), %error, "a stored batch cannot be read");
                return None;
            }
        };
        let view = stored.view().ok()?;
        if view.root() != digest.root() {
            return None;
        }
        let ids = self.stores.ids(&view);
        Some(Asked { digest, ids, bytes: stored.bytes })
    }

    fn check(&mut self, batches: Vec<Asked>, rows: usize) -> bool {
        let views: Vec<Option<BatchView<'_>>> =
            batches.iter().map(|batch| BatchView::parse(&batch.bytes).ok()).collect();
        let mut keys = Vec::with_capacity(rows);
        let mut ids = Vec::with_capacity(rows);
        let mut signatures = Vec::with_capacity(rows);
        for (batch, view) in batches.iter().zip(&views) {
            for (entry, id) in view.iter().flat_map(BatchView::messages).zip(&batch.ids) {
                keys.push(entry.message.issuer().0);
                ids.push(id.0);
                signatures.push(*entry.message.signature());
            }
        }
        let mut verdicts = vec![false; keys.len()];
        self.verify(&keys, &ids, &signatures, &mut verdicts);
        Counters::add(&self.counters.replicated_signatures, keys.len() as u64);
        self.counters.replicated_checks.fetch_add(1, Ordering::Relaxed);
        let mut row = 0;
        for (batch, view) in batches.iter().zip(views) {
            let end = (row + batch.ids.len()).min(verdicts.len());
            let range = row..end;
            row = end;
            let digest = &batch.digest;
            let well_formed = view.is_some_and(|view| {
                let verdicts = &mut verdicts[range.clone()];
                self.confirm_refused(&keys[range.clone()], &ids[range.clone()], &signatures[range], verdicts);
                self.is_well_formed(&view, verdicts)
            });
            if well_formed && let Some(window) = self.windows.get_mut(usize::from(digest.lane().0)) {
                window.push(digest.first(), &batch.ids);
            }
            let (lane, first, root) = (digest.lane(), digest.first(), *digest.root());
            if self.events.send(Event::Formed { lane, first, root, well_formed }).is_err() {
                return false;
            }
        }
        true
    }

    fn verify(&self, keys: &[[u8; 32]], ids: &[[u8; 32]], signatures: &[[u8; 64]], verdicts: &mut [bool]) {
        // A thread each is worth it from about a millisecond of work on.
        let share = keys.len().div_ceil(self.workers.max(1)).max(1_024);
        if keys.len() <= share {
            if !keys.is_empty() {
                let columns = Columns { keys, messages: Messages::Ids(ids), signatures };
                self.verifier.verify(&columns, verdicts);
            }
            return;
        }
        std::thread::scope(|scope| {
            let parts = keys.chunks(share).zip(ids.chunks(share)).zip(signatures.chunks(share));
            for (((keys, ids), signatures), verdicts) in parts.zip(verdicts.chunks_mut(share)) {
                let verifier = &self.verifier;
                scope.spawn(move || {
                    verifier.verify(&Columns { keys, messages: Messages::Ids(ids), signatures }, verdicts);
                });
            }
        });
    }

    /// What the engine refuses is asked of the serial verifier.
    fn confirm_refused(
        &self,
        keys: &[[u8; 32]],
        ids: &[[u8; 32]],
        signatures: &[[u8; 64]],
        verdicts: &mut [bool],
    ) {
        for (index, verdict) in verdicts.iter_mut().enumerate().filter(|(_, verdict)| !**verdict) {
            if weft_crypto::serial::verify_one(&keys[index], &ids[index], &signatures[index]) {
                tracing::error!(
                    verifier = self.verifier.name(),
                    "the verifier refused a signature that the serial one takes: a defect; the serial one is right"
                );
                *verdict = true;
            } else {
                // One is enough to end the lane.
                return;
            }
        }
    }

    fn is_well_formed(&self, view: &BatchView<'_>, verdicts: &[bool]) -> bool {
        match check_form(view, &self.limits, verdicts, |place| self.id_at(place)) {
            Ok(()) => true,
            Err(why) => {
                tracing::error!(lane = %view.lane(), first = view.first(), %why, "a batch is not well formed");
                false
            }
        }
    }

    fn id_at(&self, place: Place) -> Option<MessageId> {
        if place.lane() == LaneId::ROOTS {
            return self.roots.get(usize::try_from(place.position()).ok()?).copied();
        }
        let window = self.windows.get(usize::from(place.lane().0))?;
        if let Some(id) = window.get(place.position()) {
            return Some(id);
        }
        let stored = self.lanes.get(place.lane())?.message_at(place).ok()??;
        Some(stored.view().ok()?.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_answers_for_the_newest_positions_of_one_history_only() {
        let id = |number: u8| MessageId([number; 32]);
        let mut window = Window::default();
        window.push(0, &[id(1), id(2)]);
        window.push(3, &[id(3)]);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|at| window.get(at)),
            [None, Some(id(1)), Some(id(2)), None, Some(id(3)), None]
        );
        window.push(3, &[id(9)]);
        assert_eq!([1, 4].map(|at| window.get(at)), [None, Some(id(9))], "the lane has changed");
        window.push(5, &vec![id(7); 2 * WINDOW_IDS]);
        assert_eq!(window.ids.len(), WINDOW_IDS);
        assert_eq!((window.get(4), window.get(5 + 2 * WINDOW_IDS as u64)), (None, Some(id(7))));
    }
}
