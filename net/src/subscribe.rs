//! Subscriptions to confirmation: being told how far the lanes are certified and final, which messages that makes final, and
//! what became of their operations.
//!
//! Owns the types, their bytes, and the [`Bookmark`]: how far a subscriber is. Invariants: as for all frames
//! ([`codec`](crate::codec)); of each lane every message is told once and in order, since each [`Confirmed`] begins where the
//! one before it ended; a subscriber that keeps its bookmark goes on from there at this node after a restart, or at any other,
//! since what is final is the same everywhere. When what is sent is left to [`session`](crate::session), what there is to
//! tell to the node.
//!
//! | type | frame | from | body after the request id u64 |
//! |---|---|---|---|
//! | 16 | SubscribeConfirmed | client | flags u8 (1 messages, 2 witnesses among them, 4 the certified size too, 8 of one issuer), start u8 (0 now, 1 the start), credit u32 (1..=1024); with flag 8: issuer 32; lanes u16 (<= 1024), lanes x (lane u16, position u64), lanes rising; open u16 (<= 1024), open x place u64, rising |
//! | 17 | Subscribed | server | lanes u16 (1..=1024), lanes x position u64 |
//! | 18 | Grant | client | credit u32 (1..=1024) |
//! | 19 | Confirmed | server | lane u16, faults u8 (1 forked, 2 ended, 4 equivocated), certified u64, final u64, from u64, to u64, count u16 (<= 1024), count x (position u64, payload kind u8, outcome u8 (0 none, 1 accepted, 2 rejected, 3 open), id 32), positions rising |
//! | 20 | Decided | server | count u16 (1..=1024), count x (place u64, outcome u8 (not 3; 4 given up)), places rising |
//! | 21 | Unsubscribe | client | |
//! | 22 | Unsubscribed | server | |
//!
//! Flags 2 and 8, and open places, need flag 1. Positions and sizes are at most 2^48; from <= to <= final <= certified; every position lies in
//! from..to.

use std::collections::BTreeSet;

use weft_core::{DeviceKey, LANE_POSITIONS_MAX, LANES_MAX, LaneId, MessageId, PayloadKind, Place};

use crate::codec::{Body, FrameError, at_most, one_to};
use crate::frame::{FrameKind, lane_flags, wire_enum};

/// Messages that one [`Confirmed`] tells of, at most: 43 KB.
pub const CONFIRMED_MESSAGES_MAX: usize = 1_024;

/// Operations that a subscription watches because they were final and not decided, at most. Most are decided within a few rounds;
/// those of accounts whose owner signed two may stay for ever.
pub const OPEN_MAX: usize = 1_024;

/// Notices that a node may be allowed to send ahead, at most.
pub const CREDIT_MAX: u32 = 1_024;

/// Bytes of a message in a [`Confirmed`].
const MESSAGE_BYTES: usize = 8 + 1 + 1 + 32;

/// Bytes of a [`Confirmed`] without messages.
const CONFIRMED_HEAD_BYTES: usize = 8 + 2 + 1 + 4 * 8 + 2;

/// Largest body of a notice.
pub const NOTICE_BYTES_MAX: usize = CONFIRMED_HEAD_BYTES + CONFIRMED_MESSAGES_MAX * MESSAGE_BYTES;

const FLAG_MESSAGES: u8 = 1;
const FLAG_WITNESSES: u8 = 2;
const FLAG_CERTIFIED: u8 = 4;
const FLAG_ISSUER: u8 = 8;

/// Faults of a lane that a [`Confirmed`] tells: bits of [`lane_flags`].
pub const FAULTS_ALL: u8 = lane_flags::FORKED | lane_flags::ENDED | lane_flags::EQUIVOCATED;

wire_enum! {
    /// Where a subscription begins in the lanes for which it names no position.
    Start {
        /// At what is final when it begins.
        Now = 0 "now",
        /// At the start of the ledger.
        Beginning = 1 "start",
    }
}

wire_enum! {
    /// What became of the operation in a final message.
    Outcome {
        /// There is none: the message is data, or a witness. Being final is all that it can be.
        None = 0 "none",
        /// It is in the ledger: by this message, or by another one with the same operation.
        Accepted = 1 "accepted",
        /// Another operation of the account is in the ledger for its sequence: this one never will be.
        Rejected = 2 "rejected",
        /// Neither yet.
        Open = 3 "open",
        /// It was open for so long that the subscription watches it no more: ask for the account.
        GivenUp = 4 "given_up",
    }
}

/// Which messages a subscriber wants to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Witnesses too: every validator makes some each round while there is traffic.
    pub witnesses: bool,
    /// Only those of this issuer.
    pub issuer: Option<DeviceKey>,
}

/// What a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// To be told of messages, and of which; else only of sizes.
    pub messages: Option<MessageFilter>,
    /// To be told when only the certified size has moved.
    pub certified: bool,
    /// Where to begin in lanes that are not among the positions.
    pub start: Start,
    /// Notices that may come before the next [`Grant`](crate::frame::Frame::Grant), 1 to [`CREDIT_MAX`].
    pub credit: u32,
    /// Where to begin, by lane, rising: the first position not told yet. It may lie beyond what is there.
    pub positions: Vec<(LaneId, u64)>,
    /// Operations that an earlier subscription told as open, rising, at most [`OPEN_MAX`].
    pub open: Vec<Place>,
}

/// A message below final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmedMessage {
    /// Where it lies in its lane.
    pub position: u64,
    /// Kind of its payload.
    pub kind: PayloadKind,
    /// What became of its operation.
    pub outcome: Outcome,
    /// Its id.
    pub id: MessageId,
}

/// How far a lane is, and what that tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The lane.
    pub lane: LaneId,
    /// What its node was found to have done: bits of [`FAULTS_ALL`].
    pub faults: u8,
    /// Its certified size here.
    pub certified: u64,
    /// Its final size here.
    pub final_size: u64,
    /// What this notice tells of begins here, where the last one of the lane ended.
    pub from: u64,
    /// And ends here: the rest up to the final size follows.
    pub to: u64,
    /// The messages in between that are wanted.
    pub messages: Vec<ConfirmedMessage>,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A lane has moved.
    Confirmed(Confirmed),
    /// Operations that were open are so no more.
    Decided(Vec<(Place, Outcome)>),
}

/// How far a subscriber is: what it needs to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// By lane: the first position not told yet, and the sizes told.
    lanes: Vec<LaneMark>,
    open: BTreeSet<Place>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LaneMark {
    next: u64,
    certified: u64,
    final_size: u64,
}

impl Bookmark {
    /// A subscriber at the start: where each lane begins, and what is open from before.
    #[must_use]
    pub fn new(starts: &[u64], open: &[Place]) -> Self {
        let lanes = starts.iter().map(|next| LaneMark { next: *next, ..LaneMark::default() }).collect();
        Self { lanes, open: open.iter().copied().collect() }
    }

    /// The first position not told yet, by lane.
    pub fn positions(&self) -> impl Iterator<Item = (LaneId, u64)> + '_ {
        // A node has at most 1,024 lanes.
        self.lanes.iter().enumerate().map(|(lane, mark)| (LaneId(lane as u16), mark.next))
    }

    /// Operations told as open and not decided since, rising.
    pub fn open(&self) -> impl ExactSizeIterator<Item = Place> + '_ {
        self.open.iter().copied()
    }

    /// The same wishes from here on.
    #[must_use]
    pub fn resume(&self, wanted: &Subscribe) -> Subscribe {
        let open = if wanted.messages.is_some() { self.open().collect() } else { Vec::new() };
        Subscribe { positions: self.positions().collect(), open, ..wanted.clone() }
    }

    /// Takes what was told.
    ///
    /// # Errors
    /// It does not follow on what was told before: its teller is at fault.
    pub fn take(&mut self, notice: &Notice) -> Result<(), &'static str> {
        match notice {
            Notice::Confirmed(told) => {
                let mark = self.lanes.get_mut(usize::from(told.lane.0));
                let mark = mark.ok_or("a notice of a lane that does not exist")?;
                if told.from != mark.next {
                    return Err("a notice that leaves positions out or tells them twice");
                }
                if told.certified < mark.certified || told.final_size < mark.final_size {
                    return Err("a notice of a lane that shrank");
                }
                let LaneMark { next, certified, final_size } = mark;
                (*next, *certified, *final_size) = (told.to, told.certified, told.final_size);
                let open = told.messages.iter().filter(|message| message.outcome == Outcome::Open);
                self.open.extend(open.map(|message| Place::new(told.lane, message.position)));
                if self.open.len() > OPEN_MAX {
                    return Err("more open operations than a subscription has");
                }
            }
            Notice::Decided(decided) => {
                for (place, _) in decided {
                    if !self.open.remove(place) {
                        return Err("a decision on what was not open");
                    }
                }
            }
        }
        Ok(())
    }
}

/// Largest body of a frame of one of these kinds; `None` for other kinds.
pub(crate) fn body_bytes_max(kind: FrameKind) -> Option<usize> {
    let lanes = usize::from(LANES_MAX);
    Some(match kind {
        FrameKind::SubscribeConfirmed => 8 + 1 + 1 + 4 + 32 + 2 + lanes * 10 + 2 + OPEN_MAX * 8,
        FrameKind::Subscribed => 8 + 2 + lanes * 8,
        FrameKind::Grant => 8 + 4,
        FrameKind::Confirmed => NOTICE_BYTES_MAX,
        FrameKind::Decided => 8 + 2 + OPEN_MAX * 9,
        FrameKind::Unsubscribe | FrameKind::Unsubscribed => 8,
        _ => return None,
    })
}

fn value<T>(field: &'static str, got: impl Into<u64>) -> Result<T, FrameError> {
    Err(FrameError::Value { field, got: got.into() })
}

fn lane(body: &mut Body) -> Result<LaneId, FrameError> {
    match body.u16("lane")? {
        got if got < LANES_MAX => Ok(LaneId(got)),
        got => value("lane", got),
    }
}

/// A position, or the size of a lane.
fn position(body: &mut Body, field: &'static str) -> Result<u64, FrameError> {
    match body.u64(field)? {
        got if got <= LANE_POSITIONS_MAX => Ok(got),
        got => value(field, got),
    }
}

fn place(body: &mut Body) -> Result<Place, FrameError> {
    let got = Place(body.u64("place")?);
    if got.lane().0 < LANES_MAX { Ok(got) } else { value("place", got.0) }
}

/// Appends credit, as a Subscribe and a Grant have it.
pub(crate) fn put_credit(out: &mut Vec<u8>, credit: u32) {
    out.extend_from_slice(&credit.to_le_bytes());
}

/// Reads credit.
pub(crate) fn credit(body: &mut Body) -> Result<u32, FrameError> {
    let credit = body.u32("credit")?;
    one_to("credit", credit as usize, CREDIT_MAX as usize)?;
    Ok(credit)
}

/// Appends the start of each lane.
pub(crate) fn put_starts(out: &mut Vec<u8>, starts: &[u64]) {
    out.extend_from_slice(&(starts.len() as u16).to_le_bytes());
    starts.iter().for_each(|start| out.extend_from_slice(&start.to_le_bytes()));
}

/// Reads the start of each lane.
pub(crate) fn starts(body: &mut Body) -> Result<Vec<u64>, FrameError> {
    let lanes = usize::from(body.u16("lanes")?);
    one_to("lanes", lanes, LANES_MAX.into())?;
    body.need("lanes", 8 * lanes)?;
    (0..lanes).map(|_| position(body, "position")).collect()
}

impl Subscribe {
    /// Whether the parts fit each other.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        at_most("lanes", self.positions.len(), LANES_MAX.into())?;
        at_most("open places", self.open.len(), OPEN_MAX)?;
        one_to("credit", self.credit as usize, CREDIT_MAX as usize)?;
        if self.messages.is_none() && !self.open.is_empty() {
            return value("open places without messages", self.open.len() as u64);
        }
        if let Some(pair) = self.positions.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return value("lane (they must rise)", pair[1].0.0);
        }
        if let Some((lane, _)) = self.positions.iter().find(|(lane, _)| lane.0 >= LANES_MAX) {
            return value("lane", lane.0);
        }
        if let Some((_, got)) = self.positions.iter().find(|(_, position)| *position > LANE_POSITIONS_MAX) {
            return value("position", *got);
        }
        if let Some(pair) = self.open.windows(2).find(|pair| pair[0] >= pair[1]) {
            return value("open place (they must rise)", pair[1].0);
        }
        if let Some(got) = self.open.last().filter(|last| last.lane().0 >= LANES_MAX) {
            return value("place", got.0);
        }
        Ok(())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let filter = self.messages.unwrap_or_default();
        let flags = u8::from(self.messages.is_some()) * FLAG_MESSAGES
            + u8::from(filter.witnesses) * FLAG_WITNESSES
            + u8::from(self.certified) * FLAG_CERTIFIED
            + u8::from(filter.issuer.is_some()) * FLAG_ISSUER;
        out.extend_from_slice(&[flags, self.start.code()]);
        put_credit(out, self.credit);
        if let Some(issuer) = &filter.issuer {
            out.extend_from_slice(&issuer.0);
        }
        out.extend_from_slice(&(self.positions.len() as u16).to_le_bytes());
        for (lane, position) in &self.positions {
            out.extend_from_slice(&lane.0.to_le_bytes());
            out.extend_from_slice(&position.to_le_bytes());
        }
        out.extend_from_slice(&(self.open.len() as u16).to_le_bytes());
        self.open.iter().for_each(|place| out.extend_from_slice(&place.0.to_le_bytes()));
    }

    pub(crate) fn decode(body: &mut Body) -> Result<Self, FrameError> {
        let known = FLAG_MESSAGES | FLAG_WITNESSES | FLAG_CERTIFIED | FLAG_ISSUER;
        let flags = body.flags("flags", known)?;
        let has = |flag| flags & flag != 0;
        if !has(FLAG_MESSAGES) && (has(FLAG_WITNESSES) || has(FLAG_ISSUER)) {
            return value("flags", flags);
        }
        let start = body.code("start", Start::from_code)?;
        let credit = credit(body)?;
        let issuer = has(FLAG_ISSUER).then(|| body.array("issuer")).transpose()?.map(DeviceKey);
        let lanes = usize::from(body.u16("lanes")?);
        at_most("lanes", lanes, LANES_MAX.into())?;
        body.need("lanes", 10 * lanes)?;
        let mut positions = Vec::with_capacity(lanes);
        for _ in 0..lanes {
            positions.push((lane(body)?, position(body, "position")?));
        }
        let count = usize::from(body.u16("open places")?);
        at_most("open places", count, OPEN_MAX)?;
        body.need("open places", 8 * count)?;
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            open.push(place(body)?);
        }
        let filter = MessageFilter { witnesses: has(FLAG_WITNESSES), issuer };
        let messages = has(FLAG_MESSAGES).then_some(filter);
        let subscribe = Self { messages, certified: has(FLAG_CERTIFIED), start, credit, positions, open };
        subscribe.check()?;
        Ok(subscribe)
    }
}

impl Confirmed {
    fn check(&self) -> Result<(), FrameError> {
        at_most("messages", self.messages.len(), CONFIRMED_MESSAGES_MAX)?;
        let ordered = [self.from, self.to, self.final_size, self.certified, LANE_POSITIONS_MAX];
        if let Some(pair) = ordered.windows(2).find(|pair| pair[0] > pair[1]) {
            return value("size (from <= to <= final <= certified)", pair[0]);
        }
        let mut least = self.from;
        for message in &self.messages {
            if message.position < least || message.position >= self.to {
                return value("position", message.position);
            }
            least = message.position + 1;
            if message.outcome == Outcome::GivenUp {
                return value("outcome", message.outcome.code());
            }
        }
        Ok(())
    }
}

impl Notice {
    /// The type of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Confirmed(_) => FrameKind::Confirmed,
            Self::Decided(_) => FrameKind::Decided,
        }
    }

    /// Whether a frame can hold it.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Confirmed(told) => told.check(),
            Self::Decided(decided) => {
                one_to("decisions", decided.len(), OPEN_MAX)?;
                if let Some(pair) = decided.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
                    return value("place (they must rise)", pair[1].0.0);
                }
                match decided.iter().find(|(_, outcome)| *outcome == Outcome::Open) {
                    Some((_, open)) => value("outcome", open.code()),
                    None => Ok(()),
                }
            }
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Confirmed(told) => {
                out.extend_from_slice(&told.lane.0.to_le_bytes());
                out.push(told.faults);
                for size in [told.certified, told.final_size, told.from, told.to] {
                    out.extend_from_slice(&size.to_le_bytes());
                }
                out.extend_from_slice(&(told.messages.len() as u16).to_le_bytes());
                for message in &told.messages {
                    out.extend_from_slice(&message.position.to_le_bytes());
                    out.extend_from_slice(&[message.kind.0, message.outcome.code()]);
                    out.extend_from_slice(&message.id.0);
                }
            }
            Self::Decided(decided) => {
                out.extend_from_slice(&(decided.len() as u16).to_le_bytes());
                for (place, outcome) in decided {
                    out.extend_from_slice(&place.0.to_le_bytes());
                    out.push(outcome.code());
                }
            }
        }
    }

    /// Reads what follows the request id; `None` if `kind` is no notice.
    pub(crate) fn decode(kind: FrameKind, body: &mut Body) -> Result<Option<Self>, FrameError> {
        let notice = match kind {
            FrameKind::Confirmed => {
                let lane = lane(body)?;
                let faults = body.flags("faults", FAULTS_ALL)?;
                let [certified, final_size, from, to] = [
                    position(body, "certified size")?,
                    position(body, "final size")?,
                    position(body, "from")?,
                    position(body, "to")?,
                ];
                let count = usize::from(body.u16("messages")?);
                at_most("messages", count, CONFIRMED_MESSAGES_MAX)?;
                body.need("messages", MESSAGE_BYTES * count)?;
                let mut messages = Vec::with_capacity(count);
                for _ in 0..count {
                    messages.push(ConfirmedMessage {
                        position: body.u64("position")?,
                        kind: PayloadKind(body.u8("payload kind")?),
                        outcome: body.code("outcome", Outcome::from_code)?,
                        id: MessageId(body.array("message id")?),
                    });
                }
                Self::Confirmed(Confirmed { lane, faults, certified, final_size, from, to, messages })
            }
            FrameKind::Decided => {
                let count = usize::from(body.u16("decisions")?);
                one_to("decisions", count, OPEN_MAX)?;
                body.need("decisions", 9 * count)?;
                let mut decided = Vec::with_capacity(count);
                for _ in 0..count {
                    decided.push((place(body)?, body.code("outcome", Outcome::from_code)?));
                }
                Self::Decided(decided)
            }
            _ => return Ok(None),
        };
        notice.check()?;
        Ok(Some(notice))
    }
}
