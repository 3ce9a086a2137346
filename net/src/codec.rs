//! Frames to bytes and back.
//!
//! Owns the translation of the tables in [`frame`](crate::frame). Invariants, each held by a property test
//! and a fuzz target: decoding is total (any bytes give a frame or a [`FrameError`], never a panic),
//! canonical (what decodes encodes to the same bytes) and frugal (a declared count or length is held against
//! its limit and against the bytes that are there before anything is allocated for it). Cutting a stream into
//! frames is left to [`reader`](crate::reader), when a frame may come to [`session`](crate::session).

mod body;

use bytes::Bytes;
use weft_core::{GenesisId, LANES_MAX, LaneId, MessageId, NetworkId, Place};

pub use body::FrameError;
use body::ID_BYTES;
pub(crate) use body::{Body, at_most, one_to};

use crate::frame::{
    Ack, AckException, AckLevel, CloseReason, ErrorCode, Found, Frame, FrameKind, Hello, LaneStatus, Lookup,
    NodeState, Status, Submit, Welcome, WireError, lane_flags, node_flags,
};
use crate::limits::{
    FRAME_HEAD_BYTES, GET_MESSAGES_MAX, MESSAGES_BYTES_MAX, NODE_NAME_BYTES_MAX, SUBMIT_MESSAGES_MAX,
    TEXT_BYTES_MAX, TIPS_IN_ACK_MAX, TIPS_IN_REPLY_MAX, WIRE_VERSION,
};
use crate::query::{self, Answer, Query};
use crate::subscribe::{self, Notice, Subscribe};

/// First bytes of a Hello.
pub const HELLO_MAGIC: [u8; 4] = *b"WEFT";

const EXCEPTION_BYTES: usize = 21;
const LANE_STATUS_BYTES: usize = 59;
const WELCOME_BYTES_MAX: usize = 101 + NODE_NAME_BYTES_MAX;

impl FrameKind {
    /// Largest body of this type, where no frame may exceed `frame_bytes_max`.
    #[must_use]
    pub fn body_bytes_max(self, frame_bytes_max: u32) -> usize {
        if let Some(own) = query::body_bytes_max(self).or_else(|| subscribe::body_bytes_max(self)) {
            return own;
        }
        let own = match self {
            // A later version may say more after the version; enough is read to refuse it by name.
            Self::Hello => 64,
            Self::Welcome => WELCOME_BYTES_MAX,
            Self::Submit => return frame_bytes_max as usize,
            Self::Ack => 20 + TIPS_IN_ACK_MAX * ID_BYTES + SUBMIT_MESSAGES_MAX as usize * EXCEPTION_BYTES,
            Self::GetTips => 10,
            Self::Tips => 10 + TIPS_IN_REPLY_MAX * ID_BYTES,
            Self::GetMessages => 12 + GET_MESSAGES_MAX as usize * ID_BYTES,
            Self::Messages => MESSAGES_BYTES_MAX,
            Self::GetStatus => 8,
            Self::Status => 86 + LANES_MAX as usize * LANE_STATUS_BYTES,
            Self::Error => 16 + TEXT_BYTES_MAX,
            // The kinds of queries and subscriptions, whose limits were given above.
            _ => 1,
        };
        own.min(crate::limits::FRAME_BYTES_MAX as usize)
    }
}

/// Appends a frame's head and body; the length is filled in afterwards.
fn framed(kind: FrameKind, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind.code()]);
    body(out);
    let length = (out.len() - start - FRAME_HEAD_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_ids(out: &mut Vec<u8>, ids: &[MessageId]) {
    ids.iter().for_each(|id| out.extend_from_slice(&id.0));
}

impl Submit {
    /// Bytes of the frame's body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        12 + self.lengths.len() + self.bytes.len()
    }

    /// Appends everything of the frame but the messages: those follow on the wire as they are, uncopied.
    pub(crate) fn encode_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.body_bytes() as u32).to_le_bytes());
        out.push(FrameKind::Submit.code());
        out.extend_from_slice(&self.request_id.to_le_bytes());
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.lengths);
    }

    fn decode(mut body: Body) -> Result<Self, FrameError> {
        let request_id = body.request_id()?;
        let count = body.u32("messages of a Submit")? as usize;
        one_to("messages of a Submit", count, SUBMIT_MESSAGES_MAX as usize)?;
        let lengths = body.take("lengths", 2 * count)?;
        let submit = Self { request_id, lengths, bytes: body.0 };
        submit.check()?;
        Ok(submit)
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&HELLO_MAGIC);
        out.extend_from_slice(&WIRE_VERSION.to_le_bytes());
        out.extend_from_slice(&[self.ack_level.code(), 0]);
        out.extend_from_slice(&self.network.0);
    }

    fn decode(mut body: Body) -> Result<Self, FrameError> {
        let magic = body.array("magic")?;
        if magic != HELLO_MAGIC {
            return Err(FrameError::Value { field: "magic", got: u64::from(u32::from_le_bytes(magic)) });
        }
        version(&mut body)?;
        let ack_level = body.code("ack level", AckLevel::from_code)?;
        body.zero("reserved byte", 1)?;
        let network = NetworkId(body.array("network")?);
        body.end()?;
        Ok(Self { ack_level, network })
    }
}

fn version(body: &mut Body) -> Result<(), FrameError> {
    match body.u16("version")? {
        WIRE_VERSION => Ok(()),
        got => Err(FrameError::Version { got, limit: WIRE_VERSION }),
    }
}

impl Welcome {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&WIRE_VERSION.to_le_bytes());
        out.extend_from_slice(&[self.ack_level.code(), 0]);
        out.extend_from_slice(&self.network.0);
        out.extend_from_slice(&self.genesis.0);
        out.extend_from_slice(&self.payload_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.submit_messages_max.to_le_bytes());
        out.extend_from_slice(&self.frame_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.inflight_requests_max.to_le_bytes());
        out.extend_from_slice(&self.inflight_messages_max.to_le_bytes());
        out.extend_from_slice(&self.inflight_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.idle_ms.to_le_bytes());
        out.extend_from_slice(&self.subscriptions_max.to_le_bytes());
        out.extend_from_slice(&self.clock_ahead_us_max.to_le_bytes());
        out.extend_from_slice(&self.clock_behind_us_max.to_le_bytes());
        out.extend_from_slice(&self.server_time_us.to_le_bytes());
        out.push(self.node_name.len() as u8);
        out.extend_from_slice(self.node_name.as_bytes());
    }

    fn decode(mut body: Body) -> Result<Self, FrameError> {
        version(&mut body)?;
        let ack_level = body.code("ack level", AckLevel::from_code)?;
        body.zero("reserved byte", 1)?;
        let welcome = Self {
            ack_level,
            network: NetworkId(body.array("network")?),
            genesis: GenesisId(body.array("genesis id")?),
            payload_bytes_max: body.u32("payload_bytes_max")?,
            submit_messages_max: body.u32("submit_messages_max")?,
            frame_bytes_max: body.u32("frame_bytes_max")?,
            inflight_requests_max: body.u32("inflight_requests_max")?,
            inflight_messages_max: body.u32("inflight_messages_max")?,
            inflight_bytes_max: body.u64("inflight_bytes_max")?,
            idle_ms: body.u32("idle_ms")?,
            subscriptions_max: body.u32("subscriptions_max")?,
            clock_ahead_us_max: body.u64("clock_ahead_us_max")?,
            clock_behind_us_max: body.u64("clock_behind_us_max")?,
            server_time_us: body.u64("server_time_us")?,
            node_name: {
                let length = usize::from(body.u8("node name")?);
                at_most("bytes of the node name", length, NODE_NAME_BYTES_MAX)?;
                body.text("node name", length)?
            },
        };
        body.end()?;
        Ok(welcome)
    }
}

impl Ack {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request_id.to_le_bytes());
        out.extend_from_slice(&[self.level.code(), self.tips.len() as u8, 0, 0]);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&(self.exceptions.len() as u32).to_le_bytes());
        put_ids(out, &self.tips);
        for exception in &self.exceptions {
            out.extend_from_slice(&exception.index.to_le_bytes());
            out.push(exception.code);
            out.extend_from_slice(&exception.got.to_le_bytes());
            out.extend_from_slice(&exception.limit.to_le_bytes());
        }
    }

    fn decode(mut body: Body) -> Result<Self, FrameError> {
        let request_id = body.request_id()?;
        let level = body.code("ack level", AckLevel::from_code)?;
        let tips = usize::from(body.u8("tips")?);
        body.zero("reserved bytes", 2)?;
        let count = body.u32("messages of an Ack")?;
        one_to("messages of an Ack", count as usize, SUBMIT_MESSAGES_MAX as usize)?;
        let exceptions = body.u32("exceptions")? as usize;
        at_most("exceptions", exceptions, count as usize)?;
        let tips = body.ids("tips", tips, TIPS_IN_ACK_MAX)?;
        body.need("exceptions", exceptions * EXCEPTION_BYTES)?;
        let mut ack = Self { request_id, level, count, exceptions: Vec::with_capacity(exceptions), tips };
        let mut least = 0;
        for _ in 0..exceptions {
            let exception = AckException {
                index: body.u32("exception")?,
                code: body.u8("exception")?,
                got: body.u64("exception")?,
                limit: body.u64("exception")?,
            };
            if exception.index < least || exception.index >= count {
                return Err(FrameError::Value {
                    field: "index of an exception",
                    got: exception.index.into(),
                });
            }
            least = exception.index + 1;
            ack.exceptions.push(exception);
        }
        body.end()?;
        Ok(ack)
    }
}

impl Status {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.state.code(), self.flags]);
        out.extend_from_slice(&(self.lanes.len() as u16).to_le_bytes());
        for number in [
            self.uptime_us,
            self.accepted_total,
            self.rejected_total,
            self.queue_messages,
            self.queue_messages_max,
            self.durable_age_us,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.lane.0.to_le_bytes());
        for number in [self.witnesses_total, self.round_us, self.acks_waiting] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for lane in &self.lanes {
            out.extend_from_slice(&lane.lane.0.to_le_bytes());
            out.push(lane.flags);
            let LaneStatus { weight, written, durable, applied, certified, final_size, witness, .. } = *lane;
            for number in [weight, written, durable, applied, certified, final_size, witness] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    fn decode(body: &mut Body) -> Result<Self, FrameError> {
        let state = body.code("node state", NodeState::from_code)?;
        let flags = body.flags("node flags", node_flags::ALL)?;
        let lanes = usize::from(body.u16("lanes")?);
        at_most("lanes", lanes, usize::from(LANES_MAX))?;
        let mut status = Self {
            state,
            uptime_us: body.u64("uptime_us")?,
            accepted_total: body.u64("accepted_total")?,
            rejected_total: body.u64("rejected_total")?,
            queue_messages: body.u64("queue_messages")?,
            queue_messages_max: body.u64("queue_messages_max")?,
            durable_age_us: body.u64("durable_age_us")?,
            flags,
            lane: LaneId(body.u16("own lane")?),
            witnesses_total: body.u64("witnesses")?,
            round_us: body.u64("round_us")?,
            acks_waiting: body.u64("acks waiting")?,
            lanes: Vec::new(),
        };
        body.need("lanes", lanes * LANE_STATUS_BYTES)?;
        status.lanes.reserve_exact(lanes);
        for _ in 0..lanes {
            status.lanes.push(LaneStatus {
                lane: LaneId(body.u16("lane")?),
                flags: body.flags("lane flags", lane_flags::ALL)?,
                weight: body.u64("lane")?,
                written: body.u64("lane")?,
                durable: body.u64("lane")?,
                applied: body.u64("lane")?,
                certified: body.u64("lane")?,
                final_size: body.u64("lane")?,
                witness: body.u64("lane")?,
            });
        }
        Ok(status)
    }
}

fn encode_answers(answers: &[Lookup], out: &mut Vec<u8>) {
    out.extend_from_slice(&(answers.len() as u32).to_le_bytes());
    for answer in answers {
        match answer {
            Lookup::Absent => out.push(0),
            Lookup::Found(found) => {
                out.push(1);
                out.extend_from_slice(&found.place.0.to_le_bytes());
                out.extend_from_slice(&(found.bytes.len() as u16).to_le_bytes());
                out.extend_from_slice(&found.bytes);
            }
            Lookup::AskAgain => out.push(2),
        }
    }
}

fn decode_answers(body: &mut Body) -> Result<Vec<Lookup>, FrameError> {
    let count = body.u32("answers")? as usize;
    one_to("answers", count, GET_MESSAGES_MAX as usize)?;
    body.need("answers", count)?;
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        answers.push(match body.u8("answer")? {
            0 => Lookup::Absent,
            1 => {
                let place = Place(body.u64("place")?);
                let length = usize::from(body.u16("message length")?);
                Lookup::Found(Found { place, bytes: body.take("message", length)? })
            }
            2 => Lookup::AskAgain,
            got => return Err(FrameError::Value { field: "answer", got: got.into() }),
        });
    }
    Ok(answers)
}

/// Turns what a node found into answers that fit one frame: the messages that do not fit are to be asked for
/// again.
#[must_use]
pub fn fit_answers(found: Vec<Option<Found>>) -> Vec<Lookup> {
    let mut left = MESSAGES_BYTES_MAX - 12 - found.len().min(GET_MESSAGES_MAX as usize);
    found
        .into_iter()
        .take(GET_MESSAGES_MAX as usize)
        .map(|found| match found {
            None => Lookup::Absent,
            Some(found) if found.bytes.len() > usize::from(u16::MAX) => Lookup::Absent,
            Some(found) => match left.checked_sub(10 + found.bytes.len()) {
                None => Lookup::AskAgain,
                Some(after) => {
                    left = after;
                    Lookup::Found(found)
                }
            },
        })
        .collect()
}

impl Frame {
    /// The type.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::Welcome(_) => FrameKind::Welcome,
            Self::Submit(_) => FrameKind::Submit,
            Self::Ack(_) => FrameKind::Ack,
            Self::GetTips { .. } => FrameKind::GetTips,
            Self::Tips { .. } => FrameKind::Tips,
            Self::GetMessages { .. } => FrameKind::GetMessages,
            Self::Messages { .. } => FrameKind::Messages,
            Self::GetStatus { .. } => FrameKind::GetStatus,
            Self::Status { .. } => FrameKind::Status,
            Self::Error(_) => FrameKind::Error,
            Self::Close(_) => FrameKind::Close,
            Self::Query { query, .. } => query.kind(),
            Self::Answer { answer, .. } => answer.kind(),
            Self::Subscribe { .. } => FrameKind::SubscribeConfirmed,
            Self::Subscribed { .. } => FrameKind::Subscribed,
            Self::Grant { .. } => FrameKind::Grant,
            Self::Notice { notice, .. } => notice.kind(),
            Self::Unsubscribe { .. } => FrameKind::Unsubscribe,
            Self::Unsubscribed { .. } => FrameKind::Unsubscribed,
        }
    }

    /// Appends the frame, head and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Self::Submit(submit) = self {
            submit.encode_head(out);
            out.extend_from_slice(&submit.bytes);
            return;
        }
        framed(self.kind(), out, |out| match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Welcome(welcome) => welcome.encode(out),
            Self::Submit(_) => {}
            Self::Ack(ack) => ack.encode(out),
            Self::GetTips { request_id, count } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }
            Self::Tips { request_id, tips } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                out.extend_from_slice(&(tips.len() as u16).to_le_bytes());
                put_ids(out, tips);
            }
            Self::GetMessages { request_id, ids } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
                put_ids(out, ids);
            }
            Self::Messages { request_id, answers } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                encode_answers(answers, out);
            }
            Self::GetStatus { request_id } => out.extend_from_slice(&request_id.to_le_bytes()),
            Self::Status { request_id, status } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                status.encode(out);
            }
            Self::Error(error) => {
                out.extend_from_slice(&error.request_id.to_le_bytes());
                out.extend_from_slice(&[error.code.code(), 0]);
                out.extend_from_slice(&(error.text.len() as u16).to_le_bytes());
                out.extend_from_slice(&error.retry_after_ms.to_le_bytes());
                out.extend_from_slice(error.text.as_bytes());
            }
            Self::Close(reason) => out.push(reason.code()),
            Self::Query { request_id, query } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                query.encode(out);
            }
            Self::Answer { request_id, answer } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                answer.encode(out);
            }
            Self::Subscribe { request_id, subscribe } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                subscribe.encode(out);
            }
            Self::Subscribed { request_id, starts } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                subscribe::put_starts(out, starts);
            }
            Self::Grant { request_id, credit } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                subscribe::put_credit(out, *credit);
            }
            Self::Notice { request_id, notice } => {
                out.extend_from_slice(&request_id.to_le_bytes());
                notice.encode(out);
            }
            Self::Unsubscribe { request_id } | Self::Unsubscribed { request_id } => {
                out.extend_from_slice(&request_id.to_le_bytes());
            }
        });
    }

    /// Reads a body of this type.
    ///
    /// # Errors
    /// The bytes are not the body of such a frame.
    pub fn decode(kind: FrameKind, body: Bytes) -> Result<Self, FrameError> {
        let mut body = Body(body);
        let frame = match kind {
            FrameKind::Hello => return Hello::decode(body).map(Self::Hello),
            FrameKind::Welcome => return Welcome::decode(body).map(Self::Welcome),
            FrameKind::Submit => return Submit::decode(body).map(Self::Submit),
            FrameKind::Ack => return Ack::decode(body).map(Self::Ack),
            FrameKind::GetTips => {
                let request_id = body.request_id()?;
                let count = body.u16("tips")?;
                at_most("tips", count.into(), TIPS_IN_REPLY_MAX)?;
                Self::GetTips { request_id, count }
            }
            FrameKind::Tips => {
                let request_id = body.request_id()?;
                let count = body.u16("tips")?.into();
                Self::Tips { request_id, tips: body.ids("tips", count, TIPS_IN_REPLY_MAX)? }
            }
            FrameKind::GetMessages => {
                let request_id = body.request_id()?;
                let count = body.u32("ids")? as usize;
                one_to("ids", count, GET_MESSAGES_MAX as usize)?;
                Self::GetMessages { request_id, ids: body.ids("ids", count, GET_MESSAGES_MAX as usize)? }
            }
            FrameKind::Messages => {
                let request_id = body.request_id()?;
                Self::Messages { request_id, answers: decode_answers(&mut body)? }
            }
            FrameKind::GetStatus => Self::GetStatus { request_id: body.request_id()? },
            FrameKind::Status => {
                let request_id = body.request_id()?;
                Self::Status { request_id, status: Status::decode(&mut body)? }
            }
            FrameKind::Error => {
                let request_id = body.u64("request id")?;
                let code = body.code("error code", ErrorCode::from_code)?;
                body.zero("reserved byte", 1)?;
                let length = usize::from(body.u16("text")?);
                at_most("bytes of text", length, TEXT_BYTES_MAX)?;
                let retry_after_ms = body.u32("retry_after_ms")?;
                let text = body.text("text", length)?;
                Self::Error(WireError { request_id, code, retry_after_ms, text })
            }
            FrameKind::Close => Self::Close(body.code("close reason", CloseReason::from_code)?),
            FrameKind::SubscribeConfirmed => {
                let request_id = body.request_id()?;
                Self::Subscribe { request_id, subscribe: Subscribe::decode(&mut body)? }
            }
            FrameKind::Subscribed => {
                let request_id = body.request_id()?;
                Self::Subscribed { request_id, starts: subscribe::starts(&mut body)? }
            }
            FrameKind::Grant => {
                let request_id = body.request_id()?;
                Self::Grant { request_id, credit: subscribe::credit(&mut body)? }
            }
            FrameKind::Unsubscribe => Self::Unsubscribe { request_id: body.request_id()? },
            FrameKind::Unsubscribed => Self::Unsubscribed { request_id: body.request_id()? },
            kind => {
                let request_id = body.request_id()?;
                if let Some(query) = Query::decode(kind, &mut body)? {
                    Self::Query { request_id, query }
                } else if let Some(answer) = Answer::decode(kind, &mut body)? {
                    Self::Answer { request_id, answer }
                } else if let Some(notice) = Notice::decode(kind, &mut body)? {
                    Self::Notice { request_id, notice }
                } else {
                    return Err(FrameError::UnknownKind { got: kind.code() });
                }
            }
        };
        body.end()?;
        Ok(frame)
    }
}
