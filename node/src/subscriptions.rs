//! Subscriptions to confirmation: what each is to be told next.
//!
//! ```text
//! watermarks (confirm)  --moved-->            ┌─ has it news? ── no: sleep until something moves
//! ledger (history)      ------------> cursor ─┤
//! logs of all lanes     --batches-->          └─ yes, and it may be sent: one notice, read from the log
//! ```
//!
//! Owns the cursors: where each subscription is in each lane, and which operations it was told as open. Nothing is queued for a
//! subscriber: what it was not told lies in the logs, below final, where it stays as it is, and is read when the subscriber
//! has room for it. So one that is slow, or comes back after a week, costs what one costs that keeps up, and the node waits for none.
//! Invariants: of each lane every message below final is told once, in order; a message with an operation is told with what became of
//! it, and if that is not known yet, the decision follows; a notice rests on durable votes, as the watermarks do. Memory: a cursor has
//! 32 bytes a lane and at most [`OPEN_MAX`] open operations; reading is bounded per notice (`SCANNED_MAX`) and at once
//! (`READS_AT_ONCE_MAX`). When it may be sent is left to the session, what is in the ledger to [`crate::history`].
//!
//! An operation is decided a round or two after its message is final, when the ledger has one for its account and sequence: this one, or
//! another. One whose account signed two may stay open for ever.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use weft_core::confirm::Operation;
use weft_core::{LaneId, MessageId, MessageView, NodeKey, PayloadKind, Place};
use weft_crypto::simd::{Context, Hashes};
use weft_net::frame::lane_flags;
use weft_net::subscribe::{CONFIRMED_MESSAGES_MAX, OPEN_MAX};
use weft_net::{
    Confirmations, Confirmed, ConfirmedMessage, Notice, NoticeSource, Outcome, Refusal, Start, Subscribe,
};
use weft_storage::LogError;

use crate::confirm::{Confirm, Fault};
use crate::history::History;
use crate::lanes::Lanes;

/// Subscriptions that read the log at once, over all clients; others wait their turn.
const READS_AT_ONCE_MAX: usize = 2;

/// Messages looked at for one notice, at most: a few milliseconds of work.
const SCANNED_MAX: usize = 16_384;

// A notice has the bits of a lane's status.
const _: () = assert!(
    Fault::Forked as u8 == lane_flags::FORKED
        && Fault::Ended as u8 == lane_flags::ENDED
        && Fault::Equivocated as u8 == lane_flags::EQUIVOCATED
);

/// When a client that came too early should come back, milliseconds.
const RETRY_AFTER_MS: u32 = 500;

/// What subscriptions are told from.
pub struct Subscriptions {
    confirm: Arc<Confirm>,
    history: Arc<History>,
    lanes: Lanes,
    /// Keys of the lanes' nodes, which sign witnesses with them.
    nodes: Vec<NodeKey>,
    hashes: Hashes,
    id_context: Context,
    reads: Arc<Semaphore>,
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").finish_non_exhaustive()
    }
}

impl Subscriptions {
    /// Of what these hold; `nodes` are the keys of the lanes' nodes.
    pub fn new(confirm: Arc<Confirm>, history: Arc<History>, lanes: Lanes, nodes: Vec<NodeKey>) -> Arc<Self> {
        Arc::new(Self {
            confirm,
            history,
            lanes,
            nodes,
            hashes: Hashes::detect(),
            id_context: Context::new(weft_core::hash::Domain::MESSAGE.context()),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE_MAX)),
        })
    }

    /// Takes a subscription.
    ///
    /// # Errors
    /// `not_found` if it names a lane that does not exist, or an open place beyond where it begins; `not_yet` if it begins now and
    /// this node does not know yet, after a start, how far that is.
    pub fn begin(self: &Arc<Self>, wanted: &Subscribe) -> Result<Confirmations, Refusal> {
        let moved = self.confirm.watch();
        let cursor = Cursor::new(self.clone(), wanted)?;
        let starts = cursor.lanes.iter().map(|lane| lane.next).collect();
        Ok(Confirmations { starts, source: Box::new(Source { cursor: Some(cursor), moved }) })
    }
}

/// A cursor, and what wakes it.
struct Source {
    /// Always there, but while a thread reads with it.
    cursor: Option<Cursor>,
    moved: watch::Receiver<u64>,
}

impl NoticeSource for Source {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Notice, Refusal>> + Send + '_>> {
        Box::pin(async move {
            loop {
                // What moves from here on is looked at again.
                self.moved.mark_unchanged();
                let lost = || Refusal::internal("the read was cut off");
                let mut cursor = self.cursor.take().ok_or_else(lost)?;
                if cursor.has_news() {
                    let slot = cursor.parts.reads.clone().acquire_owned().await;
                    let slot = slot.map_err(|_| Refusal::shutting_down())?;
                    let read = tokio::task::spawn_blocking(move || {
                        let told = cursor.step();
                        // With the thread, not with the subscription: one that ends meanwhile does not end the read.
                        drop(slot);
                        (cursor, told)
                    });
                    let (back, told) = read.await.map_err(|_| lost())?;
                    cursor = back;
                    if let Some(notice) = told? {
                        self.cursor = Some(cursor);
                        return Ok(notice);
                    }
                }
                self.cursor = Some(cursor);
                self.moved.changed().await.map_err(|_| Refusal::shutting_down())?;
            }
        })
    }
}

/// Where a subscription is in one lane.
#[derive(Clone, Copy, Debug, Default)]
struct LaneCursor {
    /// First position not told.
    next: u64,
    /// Sizes and faults told.
    certified: u64,
    faults: u8,
}

/// Where a subscription is.
struct Cursor {
    parts: Arc<Subscriptions>,
    wanted: Subscribe,
    lanes: Vec<LaneCursor>,
    /// The lane to look at first: each has its turn.
    turn: usize,
    /// Open operations, the oldest first.
    open: VecDeque<(Place, Operation)>,
    /// What the subscriber says was open, not looked up yet.
    claimed: Vec<Place>,
    /// Operations in the ledger when the open ones were last looked at.
    entered: u64,
    /// A notice that comes next.
    ready: Option<Notice>,
}

impl Cursor {
    fn new(parts: Arc<Subscriptions>, wanted: &Subscribe) -> Result<Self, Refusal> {
        let count = parts.confirm.lanes();
        let beyond = |lane: &LaneId| usize::from(lane.0) >= count;
        let named = wanted.positions.iter().map(|(lane, _)| *lane);
        if let Some(lane) = named.chain(wanted.open.iter().map(|place| place.lane())).find(beyond) {
            return Err(Refusal::not_found(format!("no lane {lane}: the ledger has {count}")));
        }
        let is_everywhere = wanted.start == Start::Beginning || wanted.positions.len() == count;
        if !is_everywhere && parts.confirm.is_restoring() {
            return Err(Refusal::not_yet(RETRY_AFTER_MS, "what is final is coming back after a start"));
        }
        let start = |lane: u16| match wanted.start {
            Start::Now => parts.confirm.final_size(LaneId(lane)),
            Start::Beginning => 0,
        };
        // A genesis has at most 1,024 lanes.
        let mut lanes: Vec<LaneCursor> =
            (0..count as u16).map(|lane| LaneCursor { next: start(lane), ..LaneCursor::default() }).collect();
        for (lane, position) in &wanted.positions {
            lanes[usize::from(lane.0)].next = *position;
        }
        let told_again = |place: &&Place| place.position() >= lanes[usize::from(place.lane().0)].next;
        if let Some(place) = wanted.open.iter().find(told_again) {
            let text =
                format!("{place} is said to be open, and lies where this subscription has not been yet");
            return Err(Refusal::not_found(text));
        }
        // What is certified and final alike says nothing that the start does not say.
        lanes.iter_mut().for_each(|lane| lane.certified = lane.next);
        Ok(Self {
            parts,
            lanes,
            turn: 0,
            open: VecDeque::new(),
            claimed: wanted.open.clone(),
            wanted: wanted.clone(),
            entered: 0,
            ready: None,
        })
    }

    /// Whether there may be something to tell. Reads no log.
    fn has_news(&self) -> bool {
        self.ready.is_some()
            || (!self.open.is_empty() && self.parts.history.entered_total() != self.entered)
            || self.claimed.iter().any(|place| self.is_final(*place))
            || (0..self.lanes.len()).any(|lane| self.has_moved(lane))
    }

    fn is_final(&self, place: Place) -> bool {
        self.parts.confirm.final_size(place.lane()) > place.position()
    }

    fn has_moved(&self, index: usize) -> bool {
        let (lane, told) = (LaneId(index as u16), &self.lanes[index]);
        let marks = self.parts.confirm.marks(lane);
        marks.final_size > told.next
            // What the subscriber knows to be final and this node does not: it waits until the node does.
            || marks.final_size == told.next
                && (self.wanted.certified && marks.certified > told.certified
                    || self.parts.confirm.fault_bits(lane) != told.faults)
    }

    /// The next notice, if there is one.
    fn step(&mut self) -> Result<Option<Notice>, Refusal> {
        if let Some(ready) = self.ready.take() {
            return Ok(Some(ready));
        }
        if let Some(decided) = self.decide()? {
            return Ok(Some(decided));
        }
        for _ in 0..self.lanes.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.lanes.len();
            if self.has_moved(index) {
                return self.tell(index).map(Some);
            }
        }
        Ok(None)
    }

    /// Which open operations are so no more.
    fn decide(&mut self) -> Result<Option<Notice>, Refusal> {
        let mut decided = Vec::new();
        let (final_now, later) = self.claimed.iter().partition(|place| self.is_final(**place));
        self.claimed = later;
        let claimed: Vec<Place> = final_now;
        for place in &claimed {
            match self.parts.operation_at(*place)? {
                Some(operation) => self.open.push_back((*place, operation)),
                None => decided.push((*place, Outcome::None)),
            }
        }
        let entered = self.parts.history.entered_total();
        if entered != self.entered || !claimed.is_empty() {
            self.entered = entered;
            let mut still = VecDeque::with_capacity(self.open.len());
            for (place, operation) in self.open.drain(..) {
                match self.parts.outcome(&operation, place)? {
                    Outcome::Open => still.push_back((place, operation)),
                    outcome => decided.push((place, outcome)),
                }
            }
            self.open = still;
        }
        decided.sort_unstable_by_key(|(place, _)| *place);
        Ok((!decided.is_empty()).then_some(Notice::Decided(decided)))
    }

    /// What there is to tell of a lane.
    fn tell(&mut self, index: usize) -> Result<Notice, Refusal> {
        let lane = LaneId(index as u16);
        let faults = self.parts.confirm.fault_bits(lane);
        let marks = self.parts.confirm.marks(lane);
        let from = self.lanes[index].next;
        let (to, messages, open) = match self.wanted.messages {
            None => (marks.final_size, Vec::new(), Vec::new()),
            // Looked at before the outcomes are: what is decided in between is found by the next look.
            Some(_) => self.read(lane, from, marks.final_size)?,
        };
        // Each is read by itself, and may have moved in between.
        let certified = marks.certified.max(marks.final_size);
        self.lanes[index] = LaneCursor { next: to, certified, faults };
        let told = Confirmed { lane, faults, certified, final_size: marks.final_size, from, to, messages };
        let told = Notice::Confirmed(told);
        let over = (self.open.len() + self.claimed.len() + open.len()).saturating_sub(OPEN_MAX);
        // The oldest have had their time; places that the subscriber claims and nobody finds are older still.
        let claimed = self.claimed.drain(..over.min(self.claimed.len()));
        let mut given_up: Vec<(Place, Outcome)> = claimed.map(|place| (place, Outcome::GivenUp)).collect();
        let oldest = self.open.drain(..over - given_up.len());
        given_up.extend(oldest.map(|(place, _)| (place, Outcome::GivenUp)));
        self.open.extend(open);
        if given_up.is_empty() {
            return Ok(told);
        }
        given_up.sort_unstable_by_key(|(place, _)| *place);
        self.ready = Some(told);
        Ok(Notice::Decided(given_up))
    }

    /// The wanted messages of a lane from a position on, as many as a notice holds: how far that is, the messages, and the open
    /// operations among them.
    #[allow(clippy::type_complexity, reason = "three results of one pass")]
    fn read(
        &self,
        lane: LaneId,
        from: u64,
        final_size: u64,
    ) -> Result<(u64, Vec<ConfirmedMessage>, Vec<(Place, Operation)>), Refusal> {
        let filter = self.wanted.messages.unwrap_or_default();
        let parts = &self.parts;
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::error!(%lane, %error, "a final batch cannot be read");
            Refusal::internal(format!("the log cannot be read: {error}"))
        };
        let reader = parts.lanes.get(lane).ok_or_else(|| unreadable(&"no such lane"))?;
        let node = parts.nodes.get(usize::from(lane.0));
        // Of anybody else a message of this kind is data.
        let is_witness = |message: &MessageView<'_>| {
            message.kind() == PayloadKind::WITNESS && node.is_some_and(|node| node.0 == message.issuer().0)
        };
        let (mut messages, mut open) = (Vec::new(), Vec::new());
        let (mut at, mut scanned) = (from, 0);
        while at < final_size && messages.len() < CONFIRMED_MESSAGES_MAX && scanned < SCANNED_MAX {
            let batch = reader.batch_at(at).map_err(|error: LogError| unreadable(&error))?;
            let batch = batch.ok_or_else(|| unreadable(&"it is not there"))?;
            let view = batch.view().map_err(|error| unreadable(&error))?;
            // Position `first` is the batch's header.
            let start = at.saturating_sub(batch.first + 1);
            at = batch.size;
            let mut wanted: Vec<(u64, MessageView<'_>)> = Vec::new();
            for found in (start..u64::from(view.count())).map_while(|index| view.message(index as u32)) {
                if messages.len() + wanted.len() == CONFIRMED_MESSAGES_MAX {
                    at = found.position;
                    break;
                }
                scanned += 1;
                let message = found.message;
                let kind = filter.witnesses || !is_witness(&message);
                if kind && filter.issuer.is_none_or(|issuer| issuer == *message.issuer()) {
                    wanted.push((found.position, message));
                }
            }
            let contents: Vec<&[u8]> = wanted.iter().map(|(_, message)| message.content()).collect();
            let mut ids = vec![[0; 32]; contents.len()];
            parts.hashes.derive(&parts.id_context, &contents, &mut ids);
            for ((position, message), id) in wanted.into_iter().zip(ids) {
                let (id, place) = (MessageId(id), Place::new(lane, position));
                let outcome = match Operation::read(&message, || id) {
                    None => Outcome::None,
                    Some(operation) => {
                        let outcome = parts.outcome(&operation, place)?;
                        if outcome == Outcome::Open {
                            open.push((place, operation));
                        }
                        outcome
                    }
                };
                messages.push(ConfirmedMessage { position, kind: message.kind(), outcome, id });
            }
        }
        Ok((at, messages, open))
    }
}

impl Subscriptions {
    fn outcome(&self, operation: &Operation, place: Place) -> Result<Outcome, Refusal> {
        Ok(match self.history.has(operation, place)? {
            None => Outcome::Open,
            Some(true) => Outcome::Accepted,
            Some(false) => Outcome::Rejected,
        })
    }

    /// The operation in the message at `place`, if there are both.
    fn operation_at(&self, place: Place) -> Result<Option<Operation>, Refusal> {
        let Some(reader) = self.lanes.get(place.lane()) else { return Ok(None) };
        let stored = reader.message_at(place);
        let stored = stored.map_err(|error| Refusal::internal(format!("the log cannot be read: {error}")))?;
        let Some(stored) = stored else { return Ok(None) };
        let Ok(view) = stored.view() else { return Ok(None) };
        Ok(Operation::read(&view, || view.id()))
    }
}
