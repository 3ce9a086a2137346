//! Writing votes down, and signing the witnesses that are made with them.
//!
//! Owns the waiting for room: votes that find none wait, and everything that rests on them with them, and the node says so. What the record
//! is, is left to [`record`](crate::confirm::record).

use std::time::Instant;

use weft_core::confirm::{Votes, Witness};
use weft_core::random::RandomSource as _;
use weft_core::{Draft, MessageId, PayloadKind};
use weft_storage::LogError;

use super::{Driver, FULL_RETRY, NOTE_EVERY, OwnWitness};
use crate::health::{Full, State};
use crate::pipeline::verify::unix_now_us;
use crate::replicate::store::no_room;
use crate::stats::Counters;

impl Driver {
    /// Writes down how far this node has verified others' lanes, if it has no vote whose record would say so: after a restart it need not
    /// verify all of it again.
    pub(super) fn note(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        if now.duration_since(self.noted.0) < NOTE_EVERY {
            return Ok(());
        }
        self.noted.0 = now;
        let votes = self.parts.confirm.ask(|machine| {
            let votes = machine.setup().validator().is_none().then(|| machine.votes())?;
            let sum = votes.lanes.iter().map(|lane| lane.final_size).sum::<u64>();
            (sum != self.noted.1).then_some((votes, sum))
        });
        let Some((votes, sum)) = votes else { return Ok(()) };
        match self.parts.record.write(&votes, None) {
            // Nothing rests on it: later.
            Err(LogError::StorageFull { .. }) => Ok(()),
            written => {
                self.noted.1 = sum;
                written
            }
        }
    }

    pub(super) fn persist(&mut self, votes: &Votes, witness: Option<&OwnWitness>) -> Result<(), LogError> {
        let start = Instant::now();
        let mut waits = false;
        while let Err(error) = self.parts.record.write(votes, witness.map(|witness| &witness.bytes[..])) {
            let ends = matches!(self.parts.health.state(), State::Stopping | State::Poisoned);
            if ends || !matches!(error, LogError::StorageFull { .. }) {
                return Err(error);
            }
            // Nothing may follow that rests on votes which are not written. Whoever waits for what follows is told in time.
            if !std::mem::replace(&mut waits, true) {
                tracing::warn!(%error, "no room for the votes: nothing more is confirmed until there is");
            }
            if let Some(room) = no_room(&error) {
                self.parts.health.found_full(Full::Votes, room);
            }
            std::thread::sleep(FULL_RETRY);
            self.parts.acks.expire(Instant::now(), &self.parts.counters);
        }
        if waits {
            self.parts.health.found_room(Full::Votes);
        }
        let counters = &self.parts.confirm.counters;
        Counters::add(&counters.votes_written, 1);
        Counters::add(&counters.votes_us, u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Signs a witness as a message. Its parents are durable, so that a crash does not take them from under it.
    pub(super) fn sign(&mut self, witness: &Witness) -> Result<OwnWitness, LogError> {
        let bug = |what: String| {
            LogError::Unsound(weft_storage::Damage {
                path: std::path::PathBuf::from("a witness"),
                offset: witness.number,
                what,
            })
        };
        let payload = witness.encode().map_err(|error| bug(error.to_string()))?;
        let draft = Draft {
            network: self.parts.network,
            issued_at_us: unix_now_us(),
            sequence: witness.number,
            parents: self.parents(),
            kind: PayloadKind::WITNESS,
            payload: &payload,
        };
        let bytes = draft.sign(&self.parts.signer).map_err(|error| bug(error.to_string()))?;
        let id = weft_core::MessageView::parse(&bytes).map_err(|error| bug(error.to_string()))?.id();
        Ok(OwnWitness { bytes, id })
    }

    /// Two different durable messages of the own lane, or roots. Not of other lanes: what is final there need not be durable here, and the
    /// witness must fit the own lane again after any crash.
    pub(super) fn parents(&mut self) -> [MessageId; 2] {
        let tips = self.parts.tips.lock().map(|tips| tips.clone()).unwrap_or_default();
        let Some(own) = self.parts.lanes.get(usize::from(self.parts.confirm.lane().0)) else {
            return self.parts.roots;
        };
        let durable = own.reader.durable_size();
        let start = self.parts.random.below(tips.len().max(1) as u64) as usize;
        let (before, after) = tips.split_at(start.min(tips.len()));
        let is_durable =
            |id: &&MessageId| own.reader.find(id).is_some_and(|place| place.position() < durable);
        let mut own_tips = after.iter().chain(before).filter(is_durable);
        let first = own_tips.next();
        let second = own_tips.find(|id| Some(*id) != first);
        let [left, right] = self.parts.roots;
        [first.copied().unwrap_or(left), second.copied().unwrap_or(right)]
    }
}
