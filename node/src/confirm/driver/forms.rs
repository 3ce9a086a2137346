//! What is asked of the checker, and when.
//!
//! Owns what has to wait: the machine may change to a history of which this node has kept less than the machine has seen. What is
//! missing comes again, and is checked when it lies in the log; until then its absence is no damage. Bounded by what the machine holds
//! of a lane.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_core::LaneId;
use weft_core::confirm::BatchDigest;

use super::Driver;
use crate::replicate::check::Asked;

impl Driver {
    /// Has a batch of another lane checked, as soon as it is in the log.
    pub(super) fn ask_form(&mut self, digest: &Arc<BatchDigest>) {
        let Some(link) = &self.parts.link else { return };
        let source = self.parts.lanes.get(usize::from(digest.lane().0));
        if source.is_some_and(|source| source.reader.size() < digest.size()) {
            self.later.entry(digest.lane()).or_default().push_back(Arc::clone(digest));
            return;
        }
        // The checker is gone only when the node ends.
        let _ =
            link.check.send(Asked { digest: Arc::clone(digest), cuts: link.cuts.load(Ordering::Acquire) });
    }

    /// The log of `lane` has grown: what waited for that is checked.
    pub(super) fn ask_later(&mut self, lane: LaneId) {
        let Some(source) = self.parts.lanes.get(usize::from(lane.0)) else { return };
        let size = source.reader.size();
        let Some(later) = self.later.get_mut(&lane) else { return };
        let ready = later.iter().take_while(|digest| digest.size() <= size).count();
        let ready: Vec<_> = later.drain(..ready).collect();
        if later.is_empty() {
            self.later.remove(&lane);
        }
        ready.iter().for_each(|digest| self.ask_form(digest));
    }

    /// The copy of `lane` has changed beyond `from`: what the machine still wants to know of that it asks for again.
    pub(super) fn forget_later(&mut self, lane: LaneId, from: u64) {
        if let Some(later) = self.later.get_mut(&lane) {
            later.retain(|digest| digest.size() <= from);
        }
    }
}
