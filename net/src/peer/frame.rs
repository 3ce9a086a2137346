//! What peers say to each other, and its bytes.
//!
//! Owns the table below and the translation. Invariants, each held by a property test and the fuzz target `peer_frame`:
//! decoding is total, canonical (what decodes encodes to the same bytes) and frugal (a declared count is held against
//! its limit and against the bytes that are there before anything is allocated for it). Cutting a stream into frames is
//! left to [`reader`](super::reader), when a frame may come to `link` and `ship`.
//!
//! QUIC version 1, TLS 1.3 with certificates on both sides, ALPN `weft-peer/1`. A stream is a sequence of frames as in
//! [`frame`](crate::frame): `u32 length of the body | u8 type | body`, little-endian, types 32 to 63.
//!
//! | type | frame | stream | body |
//! |---|---|---|---|
//! | 32 | Hello | control, first | magic "WPER", version u16 = 1, lane u16, genesis id 32 |
//! | 33 | Witness | control, chain | a message, 184 to 16,568 bytes |
//! | 34 | Holdings | control | lanes L u16 (<= 1024), validators V u16 (<= 1024), L x (lane u16 rising, size u64, root 32), V x (validator u16 rising, number u64) |
//! | 35 | Ping | control | u64, any |
//! | 36 | Pong | control | the u64 of the Ping |
//! | 40 | Subscribe | lane, first | lane u16, ends E u16 (1 to 512), credit u64 (above 0), E x (size u64, root 32) |
//! | 41 | Grant | lane, asker | credit u64 (above 0) |
//! | 42 | Started | lane, holder, first | size u64, root 32 |
//! | 43 | Batch | lane, holder; proof | a sealed batch, at least 364 bytes |
//! | 44 | NotHeld | lane, holder, only | held size u64 |
//! | 45 | Fork | lane, holder, only | a sealed batch, at least 364 bytes |
//! | 46 | Ended | lane, holder, last | reason u8: 1 changed, 2 failed, 3 replaced |
//! | 48 | WantWitnesses | chain, first | validator u16, count u16 (1 to 256), after number u64 |
//! | 52 | ForkProof | proof, first | lane u16; two Batch frames follow |
//! | 53 | Forked | control | a proof of a fork without its batches, 292 to 3,364 bytes |
//! | 56 | Cosign | cosign, asker, only | lane u16, size u64 (above 0), root 32 |
//! | 57 | Cosignature | cosign, answer | time u64 (seconds since the Unix epoch, below 2^63), signature 64 |
//! | 58 | NotCosigned | cosign, answer | reason u8: 1 not final, 2 no such checkpoint, 3 no vote, 4 failed, 5 busy |

use bytes::Bytes;
use weft_core::lane::{HEADER_BYTES, OFFSET_BYTES, PLACES_BYTES, SEAL_BYTES};
use weft_core::merkle::Hash;
use weft_core::{
    FORK_PROOF_BYTES_MAX, FORK_PROOF_BYTES_MIN, GenesisId, LANES_MAX, LaneId, MESSAGE_BYTES_MAX,
    MESSAGE_BYTES_MIN, SIGNATURE_BYTES,
};

use crate::codec::{Body, FrameError, at_most, one_to};
use crate::frame::wire_enum;
use crate::limits::FRAME_HEAD_BYTES;

/// Version spoken between peers.
pub const PEER_VERSION: u16 = 1;

/// First bytes of a peer's hello.
pub const PEER_MAGIC: [u8; 4] = *b"WPER";

/// Ends in one Subscribe: a locator has at most about 24 for the copy held and as many for each of four sides.
pub const ENDS_MAX: usize = 512;

/// Witnesses asked for at once: 4 MB of the largest.
pub const CHAIN_WITNESSES_MAX: usize = 256;

/// The shortest batch: one message without payload.
pub const BATCH_BYTES_MIN: usize =
    HEADER_BYTES + OFFSET_BYTES + PLACES_BYTES + MESSAGE_BYTES_MIN + SEAL_BYTES;

const END_BYTES: usize = 40;
const HOLDING_BYTES: usize = 2 + END_BYTES;
const FOLLOWED_BYTES: usize = 10;
const COSIGNATURE_BYTES: usize = 8 + SIGNATURE_BYTES;

wire_enum! {
    /// Type byte of a frame between peers.
    PeerKind {
        /// Who is there.
        Hello = 32 "Hello",
        /// A signed witness message.
        Witness = 33 "Witness",
        /// What the sender holds.
        Holdings = 34 "Holdings",
        /// Are you there.
        Ping = 35 "Ping",
        /// Yes.
        Pong = 36 "Pong",
        /// Asks for a lane.
        Subscribe = 40 "Subscribe",
        /// More credit.
        Grant = 41 "Grant",
        /// Where shipping starts.
        Started = 42 "Started",
        /// A sealed batch.
        Batch = 43 "Batch",
        /// None of the ends is held.
        NotHeld = 44 "NotHeld",
        /// A batch that contradicts an end.
        Fork = 45 "Fork",
        /// No more comes.
        Ended = 46 "Ended",
        /// Asks for a chain of witnesses.
        WantWitnesses = 48 "WantWitnesses",
        /// Two batches for one position follow.
        ForkProof = 52 "ForkProof",
        /// That a lane was signed two ways, in short.
        Forked = 53 "Forked",
        /// Asks for the sender's signature under a checkpoint.
        Cosign = 56 "Cosign",
        /// That signature.
        Cosignature = 57 "Cosignature",
        /// None.
        NotCosigned = 58 "NotCosigned",
    }
}

wire_enum! {
    /// Why a connection between peers, or a stream of it, was closed: the application error code of QUIC.
    PeerCode {
        /// Done; nothing is wrong.
        Done = 0 "done",
        /// The bytes are no frame, or no frame for this moment.
        BadFrame = 1 "bad_frame",
        /// Another version of this protocol.
        UnsupportedVersion = 2 "unsupported_version",
        /// Another ledger.
        WrongGenesis = 3 "wrong_genesis",
        /// The hello names a lane that is not the key's.
        WrongLane = 4 "wrong_lane",
        /// The key is no node's of this ledger. TLS refuses such a key before; this is for a key of a ledger that has
        /// changed meanwhile.
        UnknownKey = 5 "unknown_key",
        /// The one with the lower lane dialled.
        WrongSide = 6 "wrong_side",
        /// Faults were proven, or too much nonsense came.
        Banned = 7 "banned",
        /// A newer connection of the same node took its place.
        Replaced = 8 "replaced",
        /// Nothing came for too long.
        Idle = 9 "idle",
        /// The peer did not take its bytes.
        SlowPeer = 10 "slow_peer",
        /// No hello came in time.
        HelloTimeout = 11 "hello_timeout",
        /// More batches than the credit allows.
        OverCredit = 12 "over_credit",
        /// The node is going down.
        ShuttingDown = 13 "shutting_down",
        /// The node failed.
        Internal = 14 "internal",
    }
}

wire_enum! {
    /// Why a holder sends no more of a lane.
    EndReason {
        /// Its copy changed.
        Changed = 1 "changed",
        /// It cannot read it.
        Failed = 2 "failed",
        /// A newer subscription took its place.
        Replaced = 3 "replaced",
    }
}

wire_enum! {
    /// Why a node does not cosign a checkpoint.
    NotCosigned {
        /// The lane is not final there so far: later perhaps.
        NotFinal = 1 "not final",
        /// No batch of its copy ends there with this root, and none ever will.
        NoSuch = 2 "no such checkpoint",
        /// It has no vote.
        NoVote = 3 "no vote",
        /// It cannot read its log.
        Failed = 4 "failed",
        /// It is asked for too many at once: later perhaps.
        Busy = 5 "busy",
    }
}

impl NotCosigned {
    /// Whether asking again may help.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::NotFinal | Self::Busy)
    }
}

/// Why bytes are no frame between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFrameError {
    /// No frame has this type.
    #[error("no frame between peers has type {got}")]
    UnknownKind {
        /// The type byte.
        got: u8,
    },
    /// The frame exists, but not here or not now.
    #[error("a {got} frame may not come {when}")]
    Unexpected {
        /// The frame.
        got: PeerKind,
        /// When it came.
        when: &'static str,
    },
    /// A body longer or shorter than its type allows.
    #[error("a {kind} frame of {got} bytes where {least} to {most} are allowed")]
    Length {
        /// The frame.
        kind: PeerKind,
        /// Bytes declared.
        got: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// The stream ended inside a frame, or before the frame that had to come.
    #[error("the stream ended {when}")]
    Cut {
        /// When.
        when: &'static str,
    },
    /// A field of the body is wrong.
    #[error(transparent)]
    Field(#[from] FrameError),
}

impl PeerFrameError {
    /// The code that tells a peer of this error.
    #[must_use]
    pub fn code(&self) -> PeerCode {
        match self {
            Self::Field(FrameError::Version { .. }) => PeerCode::UnsupportedVersion,
            _ => PeerCode::BadFrame,
        }
    }
}

/// The end of a batch of some lane: the size after it and the root of the tree there. Size 0 is the empty lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneEnd {
    /// The lane's size.
    pub size: u64,
    /// Root of its tree at that size.
    pub root: Hash,
}

/// What a node holds: how far its lanes are durable and whose witnesses it has followed how far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Durable end of each lane of which there is something, lanes rising.
    pub lanes: Vec<(LaneId, LaneEnd)>,
    /// Number of the last witness followed, of each validator that has made one, rising.
    pub followed: Vec<(u16, u64)>,
}

/// A frame between peers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the types and the table above")]
pub enum PeerFrame {
    Hello { lane: LaneId, genesis: GenesisId },
    Witness(Bytes),
    Holdings(Holdings),
    Ping(u64),
    Pong(u64),
    Subscribe { lane: LaneId, credit: u64, ends: Vec<LaneEnd> },
    Grant(u64),
    Started(LaneEnd),
    Batch(Bytes),
    NotHeld { held: u64 },
    Fork(Bytes),
    Ended(EndReason),
    WantWitnesses { validator: u16, count: u16, after: u64 },
    ForkProof { lane: LaneId },
    Forked(Bytes),
    Cosign { lane: LaneId, end: LaneEnd },
    Cosignature { time_s: u64, signature: [u8; SIGNATURE_BYTES] },
    NotCosigned(NotCosigned),
}

impl PeerKind {
    /// The least and the most bytes that a body of this type has, where no batch is longer than `batch_bytes_max`.
    #[must_use]
    pub fn body_bytes(self, batch_bytes_max: u32) -> (usize, usize) {
        match self {
            // A later version may say more after the version; enough is read to refuse it by name.
            Self::Hello => (6, 64),
            Self::Witness => (MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX),
            Self::Holdings => (4, 4 + LANES_MAX as usize * (HOLDING_BYTES + FOLLOWED_BYTES)),
            Self::Ping | Self::Pong | Self::Grant | Self::NotHeld => (8, 8),
            Self::Subscribe => (12 + END_BYTES, 12 + ENDS_MAX * END_BYTES),
            Self::Started => (END_BYTES, END_BYTES),
            Self::Batch | Self::Fork => (BATCH_BYTES_MIN, (batch_bytes_max as usize).max(BATCH_BYTES_MIN)),
            Self::Ended => (1, 1),
            Self::WantWitnesses => (12, 12),
            Self::ForkProof => (2, 2),
            Self::Forked => (FORK_PROOF_BYTES_MIN, FORK_PROOF_BYTES_MAX),
            Self::Cosign => (HOLDING_BYTES, HOLDING_BYTES),
            Self::Cosignature => (COSIGNATURE_BYTES, COSIGNATURE_BYTES),
            Self::NotCosigned => (1, 1),
        }
    }

    /// Checks a declared length.
    ///
    /// # Errors
    /// It is not one that this type can have.
    pub fn check_length(self, length: usize, batch_bytes_max: u32) -> Result<(), PeerFrameError> {
        let (least, most) = self.body_bytes(batch_bytes_max);
        if (least..=most).contains(&length) {
            return Ok(());
        }
        let [got, least, most] = [length, least, most].map(|bytes| bytes as u64);
        Err(PeerFrameError::Length { kind: self, got, least, most })
    }
}

impl Body {
    fn lane(&mut self) -> Result<LaneId, FrameError> {
        let lane = LaneId(self.u16("lane")?);
        if lane.is_valid() { Ok(lane) } else { Err(FrameError::Value { field: "lane", got: lane.0.into() }) }
    }

    fn validator(&mut self) -> Result<u16, FrameError> {
        match self.u16("validator")? {
            validator if validator < LANES_MAX => Ok(validator),
            got => Err(FrameError::Value { field: "validator", got: got.into() }),
        }
    }

    fn lane_end(&mut self) -> Result<LaneEnd, FrameError> {
        Ok(LaneEnd { size: self.u64("size")?, root: self.array("root")? })
    }

    fn credit(&mut self) -> Result<u64, FrameError> {
        match self.u64("credit")? {
            0 => Err(FrameError::Value { field: "credit", got: 0 }),
            credit => Ok(credit),
        }
    }

    fn holdings(&mut self) -> Result<Holdings, FrameError> {
        let lanes = usize::from(self.u16("lanes")?);
        at_most("lanes", lanes, LANES_MAX.into())?;
        let followed = usize::from(self.u16("validators")?);
        at_most("validators", followed, LANES_MAX.into())?;
        self.need("holdings", lanes * HOLDING_BYTES + followed * FOLLOWED_BYTES)?;
        let mut holdings =
            Holdings { lanes: Vec::with_capacity(lanes), followed: Vec::with_capacity(followed) };
        for _ in 0..lanes {
            let lane = self.lane()?;
            if holdings.lanes.last().is_some_and(|last| last.0 >= lane) {
                return Err(FrameError::Value { field: "lane out of order", got: lane.0.into() });
            }
            holdings.lanes.push((lane, self.lane_end()?));
        }
        for _ in 0..followed {
            let validator = self.validator()?;
            if holdings.followed.last().is_some_and(|last| last.0 >= validator) {
                return Err(FrameError::Value { field: "validator out of order", got: validator.into() });
            }
            holdings.followed.push((validator, self.u64("number")?));
        }
        Ok(holdings)
    }
}

fn put_end(out: &mut Vec<u8>, end: &LaneEnd) {
    out.extend_from_slice(&end.size.to_le_bytes());
    out.extend_from_slice(&end.root);
}

impl PeerFrame {
    /// The type.
    #[must_use]
    pub fn kind(&self) -> PeerKind {
        match self {
            Self::Hello { .. } => PeerKind::Hello,
            Self::Witness(_) => PeerKind::Witness,
            Self::Holdings(_) => PeerKind::Holdings,
            Self::Ping(_) => PeerKind::Ping,
            Self::Pong(_) => PeerKind::Pong,
            Self::Subscribe { .. } => PeerKind::Subscribe,
            Self::Grant(_) => PeerKind::Grant,
            Self::Started(_) => PeerKind::Started,
            Self::Batch(_) => PeerKind::Batch,
            Self::NotHeld { .. } => PeerKind::NotHeld,
            Self::Fork(_) => PeerKind::Fork,
            Self::Ended(_) => PeerKind::Ended,
            Self::WantWitnesses { .. } => PeerKind::WantWitnesses,
            Self::ForkProof { .. } => PeerKind::ForkProof,
            Self::Forked(_) => PeerKind::Forked,
            Self::Cosign { .. } => PeerKind::Cosign,
            Self::Cosignature { .. } => PeerKind::Cosignature,
            Self::NotCosigned(_) => PeerKind::NotCosigned,
        }
    }

    /// What the frame carries as it is: sent after the head, uncopied.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            Self::Witness(bytes) | Self::Batch(bytes) | Self::Fork(bytes) | Self::Forked(bytes) => {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// Appends the frame without its [`payload`](Self::payload): all of it where there is none.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, self.kind().code()]);
        match self {
            Self::Hello { lane, genesis } => {
                out.extend_from_slice(&PEER_MAGIC);
                out.extend_from_slice(&PEER_VERSION.to_le_bytes());
                out.extend_from_slice(&lane.0.to_le_bytes());
                out.extend_from_slice(&genesis.0);
            }
            Self::Witness(_) | Self::Batch(_) | Self::Fork(_) | Self::Forked(_) => (),
            Self::Holdings(holdings) => {
                out.extend_from_slice(&(holdings.lanes.len() as u16).to_le_bytes());
                out.extend_from_slice(&(holdings.followed.len() as u16).to_le_bytes());
                for (lane, end) in &holdings.lanes {
                    out.extend_from_slice(&lane.0.to_le_bytes());
                    put_end(out, end);
                }
                for (validator, number) in &holdings.followed {
                    out.extend_from_slice(&validator.to_le_bytes());
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
            Self::Ping(number) | Self::Pong(number) | Self::Grant(number) => {
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Subscribe { lane, credit, ends } => {
                out.extend_from_slice(&lane.0.to_le_bytes());
                out.extend_from_slice(&(ends.len() as u16).to_le_bytes());
                out.extend_from_slice(&credit.to_le_bytes());
                ends.iter().for_each(|end| put_end(out, end));
            }
            Self::Started(end) => put_end(out, end),
            Self::NotHeld { held } => out.extend_from_slice(&held.to_le_bytes()),
            Self::Ended(reason) => out.push(reason.code()),
            Self::WantWitnesses { validator, count, after } => {
                out.extend_from_slice(&validator.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&after.to_le_bytes());
            }
            Self::ForkProof { lane } => out.extend_from_slice(&lane.0.to_le_bytes()),
            Self::Cosign { lane, end } => {
                out.extend_from_slice(&lane.0.to_le_bytes());
                put_end(out, end);
            }
            Self::Cosignature { time_s, signature } => {
                out.extend_from_slice(&time_s.to_le_bytes());
                out.extend_from_slice(signature);
            }
            Self::NotCosigned(reason) => out.push(reason.code()),
        }
        let payload = self.payload().map_or(0, Bytes::len);
        let length = (out.len() - start - FRAME_HEAD_BYTES + payload) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(out);
        if let Some(payload) = self.payload() {
            out.extend_from_slice(payload);
        }
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        FRAME_HEAD_BYTES
            + match self {
                Self::Hello { .. } => 40,
                Self::Witness(bytes) | Self::Batch(bytes) | Self::Fork(bytes) | Self::Forked(bytes) => {
                    bytes.len()
                }
                Self::Holdings(holdings) => {
                    4 + holdings.lanes.len() * HOLDING_BYTES + holdings.followed.len() * FOLLOWED_BYTES
                }
                Self::Ping(_) | Self::Pong(_) | Self::Grant(_) | Self::NotHeld { .. } => 8,
                Self::Subscribe { ends, .. } => 12 + ends.len() * END_BYTES,
                Self::Started(_) => END_BYTES,
                Self::Ended(_) => 1,
                Self::WantWitnesses { .. } => 12,
                Self::ForkProof { .. } => 2,
                Self::Cosign { .. } => HOLDING_BYTES,
                Self::Cosignature { .. } => COSIGNATURE_BYTES,
                Self::NotCosigned(_) => 1,
            }
    }

    /// Reads a body of this type, whose length has been checked by [`PeerKind::check_length`].
    ///
    /// # Errors
    /// The bytes are not the body of such a frame.
    pub fn decode(kind: PeerKind, body: Bytes) -> Result<Self, PeerFrameError> {
        let mut body = Body(body);
        let frame = match kind {
            // What carries bytes as they are has no fields.
            PeerKind::Witness => return Ok(Self::Witness(body.0)),
            PeerKind::Batch => return Ok(Self::Batch(body.0)),
            PeerKind::Fork => return Ok(Self::Fork(body.0)),
            PeerKind::Forked => return Ok(Self::Forked(body.0)),
            PeerKind::Hello => {
                let magic: [u8; 4] = body.array("magic")?;
                if magic != PEER_MAGIC {
                    let got = u64::from(u32::from_le_bytes(magic));
                    return Err(FrameError::Value { field: "magic", got }.into());
                }
                match body.u16("version")? {
                    PEER_VERSION => (),
                    got => return Err(FrameError::Version { got, limit: PEER_VERSION }.into()),
                }
                Self::Hello { lane: body.lane()?, genesis: GenesisId(body.array("genesis id")?) }
            }
            PeerKind::Holdings => Self::Holdings(body.holdings()?),
            PeerKind::Ping => Self::Ping(body.u64("ping")?),
            PeerKind::Pong => Self::Pong(body.u64("pong")?),
            PeerKind::Subscribe => {
                let lane = body.lane()?;
                let ends = usize::from(body.u16("ends")?);
                one_to("ends", ends, ENDS_MAX)?;
                let credit = body.credit()?;
                body.need("ends", ends * END_BYTES)?;
                let ends = (0..ends).map(|_| body.lane_end()).collect::<Result<_, _>>()?;
                Self::Subscribe { lane, credit, ends }
            }
            PeerKind::Grant => Self::Grant(body.credit()?),
            PeerKind::Started => Self::Started(body.lane_end()?),
            PeerKind::NotHeld => Self::NotHeld { held: body.u64("held")? },
            PeerKind::Ended => Self::Ended(body.code("reason", EndReason::from_code)?),
            PeerKind::WantWitnesses => {
                let (validator, count) = (body.validator()?, body.u16("count")?);
                one_to("witnesses", count.into(), CHAIN_WITNESSES_MAX)?;
                Self::WantWitnesses { validator, count, after: body.u64("after")? }
            }
            PeerKind::ForkProof => Self::ForkProof { lane: body.lane()? },
            PeerKind::Cosign => match (body.lane()?, body.lane_end()?) {
                (_, LaneEnd { size: 0, .. }) => {
                    return Err(FrameError::Value { field: "size", got: 0 }.into());
                }
                (lane, end) => Self::Cosign { lane, end },
            },
            PeerKind::Cosignature => match body.u64("time")? {
                time_s if time_s <= i64::MAX as u64 => {
                    Self::Cosignature { time_s, signature: body.array("signature")? }
                }
                got => return Err(FrameError::Value { field: "time", got }.into()),
            },
            PeerKind::NotCosigned => Self::NotCosigned(body.code("reason", NotCosigned::from_code)?),
        };
        body.end()?;
        Ok(frame)
    }
}
