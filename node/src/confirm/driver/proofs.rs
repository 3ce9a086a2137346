//! Proofs of forks, as the driver comes by them.
//!
//! Owns what is done with a proof: it is on the disk before the fork is shown or passed on.

use bytes::Bytes;
use weft_core::confirm::{BatchDigest, Input};
use weft_core::{BatchView, ForkProof, LaneId};
use weft_storage::LogError;

use super::Driver;
use crate::confirm::Fault;
use crate::lane::with_sources;

impl Driver {
    /// A lane was signed two ways: the proof is written down, then shown and passed on.
    pub(super) fn forked(&mut self, held: &BatchDigest, other: &BatchDigest) {
        let lane = held.lane();
        let bytes =
            self.parts.link.as_ref().map(|link| [held, other].map(|digest| link.stores.bytes_of(digest)));
        let Some([Some(held), Some(other)]) = bytes else {
            // A side that had no room: whoever has it offers it again.
            return self.parts.confirm.fault(lane, Fault::Forked);
        };
        if !self.parts.forks.has(lane)
            && let Err(why) = self.keep_proof(lane, &held, &other)
        {
            tracing::error!(%lane, why, "the proof of a fork is not stored: after a restart it has to come again");
        }
        self.parts.confirm.fault(lane, Fault::Forked);
        let Some(link) = &self.parts.link else { return };
        let Some(net) = link.net.get() else { return };
        for peer in net.send_fork_proof(None, lane, &[held, other]) {
            // It takes no more batches just now.
            if let Some(proof) = link.forks.of(lane) {
                net.send_forked(Some(peer), &proof);
            }
        }
    }

    fn keep_proof(&mut self, lane: LaneId, held: &Bytes, other: &Bytes) -> Result<(), String> {
        let source = self.parts.lanes.get(usize::from(lane.0)).ok_or("there is no such lane")?;
        let [held, other] = [held, other].map(|bytes| BatchView::parse(bytes));
        let (held, other) = held.and_then(|held| Ok((held, other?))).map_err(|error| error.to_string())?;
        let before = source.reader.tree_at(held.first()).map_err(|error| with_sources(&error))?;
        let before = before.ok_or("the log has no such place")?;
        let proof = ForkProof::of_batches(&before, &held, &other).map_err(|error| error.to_string())?;
        self.keep(proof)
    }

    /// Writes a proof down, and has it shown to peers that come.
    fn keep(&mut self, proof: ForkProof) -> Result<(), String> {
        let kept = self.parts.forks.add(proof.clone()).map_err(|error| with_sources(&error));
        if let Some(link) = &self.parts.link {
            link.forks.insert(&proof);
        }
        kept
    }

    /// A proof without batches has come, which holds: the lane is closed, and others are told. Once a lane.
    pub(super) fn proven(&mut self, proof: ForkProof) -> Result<(), LogError> {
        let (lane, at) = (proof.lane, proof.position);
        let known = self.parts.link.as_ref().is_some_and(|link| link.forks.has(lane));
        if known {
            return Ok(());
        }
        tracing::error!(%lane, at, "a lane was signed two ways: a peer has proof of it");
        let bytes = proof.encode();
        if let Err(why) = self.keep(proof) {
            tracing::error!(%lane, why, "the proof of a fork is not stored: after a restart it has to come again");
        }
        self.parts.confirm.fault(lane, Fault::Forked);
        self.input(Input::Forked { lane, at })?;
        if let (Some(net), Ok(bytes)) = (self.parts.link.as_ref().and_then(|link| link.net.get()), bytes) {
            net.send_forked(None, &Bytes::from(bytes));
        }
        Ok(())
    }
}
