//! The server's end of a session.
//!
//! Owns one session as the node sees it: the answer to a Hello, the credit, the deadlines, and the order in
//! which a session ends. Invariants: a request is answered once or, if the session ends first, not at all; an
//! ack never promises less than the Hello asked for; above the output mark no input is taken, so a peer that
//! does not read cannot make replies pile up; a peer's error ends this session only. Subscriptions are
//! [`subscriptions`]'s; what is done with a Submit is left to the node.

mod subscriptions;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_core::{GenesisId, MessageId, NetworkId};

use super::{Credit, End, Output};
use crate::codec::{FrameError, fit_answers};
use crate::frame::{
    Ack, AckLevel, CloseReason, ErrorCode, Found, Frame, FrameKind, Hello, Status, Submit, Welcome, WireError,
};
use crate::limits::{
    NODE_NAME_BYTES_MAX, SUBMIT_MESSAGES_MAX, SessionLimits, TIPS_IN_ACK_MAX, TIPS_IN_REPLY_MAX,
};
use crate::query::{Answer, Query};
use crate::reader::FrameReader;
use crate::subscribe::Subscribe;

/// What the node says of itself to a client that comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WelcomeInfo {
    /// The ledger.
    pub network: NetworkId,
    /// Its genesis.
    pub genesis: GenesisId,
    /// The highest ack level that this node can promise.
    pub ack_level_max: AckLevel,
    /// Largest payload of a message, in bytes.
    pub payload_bytes_max: u32,
    /// How far ahead of the node a message's clock may be, in microseconds.
    pub clock_ahead_us_max: u64,
    /// How far behind the node a message's clock may be, in microseconds.
    pub clock_behind_us_max: u64,
    /// The node's clock now, in microseconds since the Unix epoch.
    pub now_us: u64,
    /// What the operator calls the node; cut to [`NODE_NAME_BYTES_MAX`] bytes.
    pub node_name: String,
}

/// What a client asks of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The Hello was good; Welcome is on its way.
    Opened(Hello),
    /// Messages. To be answered by [`ServerSession::ack`] or [`ServerSession::refuse`].
    Submit(Submit),
    /// To be answered by [`ServerSession::tips`] or [`ServerSession::refuse`].
    GetTips {
        /// Id of the request.
        request_id: u64,
        /// Tips wanted.
        count: u16,
    },
    /// To be answered by [`ServerSession::messages`] or [`ServerSession::refuse`].
    GetMessages {
        /// Id of the request.
        request_id: u64,
        /// Ids wanted.
        ids: Vec<MessageId>,
    },
    /// To be answered by [`ServerSession::status`] or [`ServerSession::refuse`].
    GetStatus {
        /// Id of the request.
        request_id: u64,
    },
    /// To be answered by [`ServerSession::answer`] or [`ServerSession::refuse`].
    Query {
        /// Id of the request.
        request_id: u64,
        /// What is asked.
        query: Query,
    },
    /// To be answered by [`ServerSession::subscribed`], then notices, or by [`ServerSession::end_subscription`].
    Subscribe {
        /// Id of the request.
        request_id: u64,
        /// What is wanted.
        subscribe: Subscribe,
    },
    /// More notices of this subscription may be sent.
    Granted {
        /// Id of the request.
        request_id: u64,
    },
    /// This subscription has ended.
    Unsubscribe {
        /// Id of the request.
        request_id: u64,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the Hello.
    Hello,
    /// Takes requests.
    Open,
    /// Takes no more requests and answers what is pending.
    Draining,
    /// Nothing more is to be said but what is in the output.
    Flushing,
    /// Over at once.
    Reset(ErrorCode),
}

#[derive(Clone, Copy, Debug)]
struct Request {
    kind: FrameKind,
    credit: Credit,
}

/// One session at the server. See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct ServerSession {
    limits: SessionLimits,
    info: WelcomeInfo,
    opened_at: Instant,
    phase: Phase,
    ack_level: AckLevel,
    reader: FrameReader,
    output: Output,
    requests: HashMap<u64, Request>,
    subscriptions: HashMap<u64, subscriptions::Open>,
    in_flight: Credit,
    last_request_id: u64,
    /// When the last whole frame came or the last reply was sent.
    active_at: Instant,
    events: VecDeque<ServerEvent>,
    failure: Option<ErrorCode>,
}

fn from_client(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Hello
            | FrameKind::Submit
            | FrameKind::GetTips
            | FrameKind::GetMessages
            | FrameKind::GetStatus
            | FrameKind::Error
            | FrameKind::Close
            | FrameKind::GetReceipt
            | FrameKind::GetConsistency
            | FrameKind::Cosign
            | FrameKind::GetAccount
            | FrameKind::GetHistory
            | FrameKind::SubscribeConfirmed
            | FrameKind::Grant
            | FrameKind::Unsubscribe
    )
}

impl ServerSession {
    /// A session opened at `now` by a client that has yet to say Hello. `info.now_us` is the node's clock at
    /// `now`.
    #[must_use]
    pub fn new(limits: SessionLimits, mut info: WelcomeInfo, now: Instant) -> Self {
        let mut end = info.node_name.len().min(NODE_NAME_BYTES_MAX);
        while !info.node_name.is_char_boundary(end) {
            end -= 1;
        }
        info.node_name.truncate(end);
        Self {
            reader: FrameReader::new(limits.frame_bytes_max, from_client),
            ack_level: info.ack_level_max,
            limits,
            info,
            opened_at: now,
            phase: Phase::Hello,
            output: Output::default(),
            requests: HashMap::new(),
            subscriptions: HashMap::new(),
            in_flight: Credit::default(),
            last_request_id: 0,
            active_at: now,
            events: VecDeque::new(),
            failure: None,
        }
    }

    /// Takes bytes of the peer and returns how many: all of them, unless output has reached its mark. Then
    /// the rest is to be kept until [`wants_input`](Self::wants_input) says so.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            if matches!(self.phase, Phase::Flushing | Phase::Reset(_)) {
                return bytes.len();
            }
            if !self.wants_input() {
                break;
            }
            match self.reader.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    self.active_at = now;
                    self.handle_frame(now, frame);
                }
                Err(error) => self.fail_frame(now, error),
            }
        }
        bytes.len() - rest.len()
    }

    /// Whether input is taken: not while output is above its mark.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.output.pending_bytes() < self.limits.output_bytes_high
    }

    /// The peer has finished its side: as if it had sent a Close, unless it stopped inside a frame.
    pub fn handle_finished(&mut self, now: Instant) {
        match self.phase {
            Phase::Flushing | Phase::Reset(_) => {}
            _ if !self.reader.is_between_frames() => {
                self.fail(now, ErrorCode::BadFrame, "the stream ends inside a frame");
            }
            Phase::Hello => self.flush(),
            Phase::Open | Phase::Draining => self.drain(),
        }
    }

    /// The peer is gone: nothing more can be sent.
    pub fn handle_lost(&mut self) {
        self.flush();
        self.output.clear();
        self.phase = Phase::Reset(ErrorCode::Idle);
    }

    /// Acts on the deadlines that `now` has reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(deadline) = self.poll_timeout() else { return };
        if now < deadline {
            return;
        }
        if self.slow_deadline().is_some_and(|slow| now >= slow) {
            self.reset(ErrorCode::SlowPeer);
        } else if self.phase == Phase::Hello {
            let after = self.limits.hello_timeout;
            self.fail(now, ErrorCode::HelloTimeout, format!("no Hello within {after:?}"));
        } else {
            let after = self.limits.idle_timeout;
            self.fail(
                now,
                ErrorCode::Idle,
                format!("no frame within {after:?}: open a session again when needed"),
            );
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next. A deadline too far away for a clock is none.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Hello => self.opened_at.checked_add(self.limits.hello_timeout),
            Phase::Open if self.requests.is_empty() && self.output.pending_bytes() == 0 => {
                self.active_at.checked_add(self.limits.idle_timeout)
            }
            Phase::Reset(_) => return None,
            Phase::Open | Phase::Draining | Phase::Flushing => None,
        };
        match (own, self.slow_deadline()) {
            (Some(own), Some(slow)) => Some(own.min(slow)),
            (own, slow) => own.or(slow),
        }
    }

    fn slow_deadline(&self) -> Option<Instant> {
        self.output.stalled_since.and_then(|since| since.checked_add(self.limits.slow_peer_timeout))
    }

    /// Moves about `bytes_max` bytes of output to `out`. What the transport takes of it is told by
    /// [`handle_transmitted`](Self::handle_transmitted).
    pub fn poll_transmit(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) {
        self.output.poll(bytes_max, out);
    }

    /// The transport has taken `bytes` of what was polled.
    pub fn handle_transmitted(&mut self, now: Instant, bytes: usize) {
        self.output.transmitted(now, bytes);
        self.active_at = now;
    }

    /// The next thing that the client asks.
    pub fn poll(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// What the transport should do, once the session is over.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.phase {
            Phase::Reset(code) => Some(End::Reset(code)),
            Phase::Flushing if self.output.pending_bytes() == 0 => Some(End::Finish),
            _ => None,
        }
    }

    /// Whether no request is taken and no reply sent any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Flushing | Phase::Reset(_))
    }

    /// Why the session failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<ErrorCode> {
        self.failure
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> Credit {
        self.in_flight
    }

    /// Output that waits, in bytes.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.output.pending_bytes()
    }

    /// Ack level of the session.
    #[must_use]
    pub fn ack_level(&self) -> AckLevel {
        self.ack_level
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) {
        match (frame, self.phase == Phase::Hello) {
            (Frame::Hello(hello), true) => self.handle_hello(now, hello),
            (Frame::Error(_) | Frame::Close(_), true) => self.flush(),
            (frame, true) => {
                self.fail_frame(now, FrameError::Unexpected { got: frame.kind(), when: "before Hello" });
            }
            (Frame::Submit(submit), _) => {
                let credit = Credit::of_submit(submit.len(), submit.bytes.len());
                if self.admit(now, submit.request_id, FrameKind::Submit, credit) {
                    self.events.push_back(ServerEvent::Submit(submit));
                }
            }
            (Frame::GetTips { request_id, count }, _) => {
                if self.admit(now, request_id, FrameKind::GetTips, Credit::QUERY) {
                    self.events.push_back(ServerEvent::GetTips { request_id, count });
                }
            }
            (Frame::GetMessages { request_id, ids }, _) => {
                if self.admit(now, request_id, FrameKind::GetMessages, Credit::QUERY) {
                    self.events.push_back(ServerEvent::GetMessages { request_id, ids });
                }
            }
            (Frame::GetStatus { request_id }, _) => {
                if self.admit(now, request_id, FrameKind::GetStatus, Credit::QUERY) {
                    self.events.push_back(ServerEvent::GetStatus { request_id });
                }
            }
            (Frame::Query { request_id, query }, _) => {
                if self.admit(now, request_id, query.answer_kind(), Credit::QUERY) {
                    self.events.push_back(ServerEvent::Query { request_id, query });
                }
            }
            (Frame::Subscribe { request_id, subscribe }, _) => {
                self.handle_subscribe(now, request_id, subscribe);
            }
            (Frame::Grant { request_id, credit }, _) => self.handle_grant(now, request_id, credit),
            (Frame::Unsubscribe { request_id }, _) => self.handle_unsubscribe(now, request_id),
            (Frame::Close(_), _) => self.drain(),
            // The client found fault with us and has said so: nobody reads further.
            (Frame::Error(_), _) => self.flush(),
            (frame, _) => {
                self.fail_frame(now, FrameError::Unexpected { got: frame.kind(), when: "after Hello" });
            }
        }
    }

    fn handle_hello(&mut self, now: Instant, hello: Hello) {
        let own = self.info.network;
        if hello.network != NetworkId::default() && hello.network != own {
            let text = format!("this node serves network {own}, not {}", hello.network);
            return self.fail(now, ErrorCode::WrongNetwork, text);
        }
        let level_max = self.info.ack_level_max;
        if hello.ack_level > level_max {
            let text = format!("this node promises at most {level_max}, not {}", hello.ack_level);
            return self.fail(now, ErrorCode::UnsupportedAckLevel, text);
        }
        self.ack_level = hello.ack_level;
        self.phase = Phase::Open;
        let age_us = now.saturating_duration_since(self.opened_at).as_micros() as u64;
        let welcome = Welcome {
            ack_level: hello.ack_level,
            network: own,
            genesis: self.info.genesis,
            payload_bytes_max: self.info.payload_bytes_max,
            submit_messages_max: SUBMIT_MESSAGES_MAX,
            frame_bytes_max: self.limits.frame_bytes_max,
            inflight_requests_max: self.limits.inflight_requests_max,
            inflight_messages_max: self.limits.inflight_messages_max,
            inflight_bytes_max: self.limits.inflight_bytes_max,
            idle_ms: millis(self.limits.idle_timeout),
            subscriptions_max: self.limits.subscriptions_max,
            clock_ahead_us_max: self.info.clock_ahead_us_max,
            clock_behind_us_max: self.info.clock_behind_us_max,
            server_time_us: self.info.now_us.saturating_add(age_us),
            node_name: self.info.node_name.clone(),
        };
        self.output.frame(now, &Frame::Welcome(welcome));
        self.events.push_back(ServerEvent::Opened(hello));
    }

    /// Whether a request may go to the node; if not, it is answered here.
    fn admit(&mut self, now: Instant, request_id: u64, kind: FrameKind, credit: Credit) -> bool {
        if !self.is_next(now, request_id) {
            return false;
        }
        let after = self.in_flight.plus(credit);
        let limit = Credit {
            requests: self.limits.inflight_requests_max,
            messages: self.limits.inflight_messages_max,
            bytes: self.limits.inflight_bytes_max,
        };
        if !after.fits(limit) {
            let text = format!(
                "in flight {} requests, {} messages, {} bytes; limits {}, {}, {}",
                after.requests, after.messages, after.bytes, limit.requests, limit.messages, limit.bytes
            );
            let retry_after_ms = millis(self.limits.retry_after);
            let error = WireError::new(request_id, ErrorCode::Overloaded, retry_after_ms, text);
            self.output.frame(now, &Frame::Error(error));
            return false;
        }
        self.in_flight = after;
        self.requests.insert(request_id, Request { kind, credit });
        true
    }

    /// Answers a Submit. False if it is not open: already answered, or the session is over.
    ///
    /// Tips beyond [`TIPS_IN_ACK_MAX`] are cut off. An ack that does not fit its Submit (other count, a lower
    /// level than the session's, exceptions out of order) is a fault of the node: the client gets `internal`
    /// instead, never a promise that nobody made.
    pub fn ack(&mut self, now: Instant, mut ack: Ack) -> bool {
        let Some(request) = self.requests.get(&ack.request_id) else { return false };
        let rising = ack.exceptions.windows(2).all(|pair| pair[0].index < pair[1].index);
        let inside = ack.exceptions.last().is_none_or(|last| last.index < ack.count);
        if request.kind != FrameKind::Submit
            || ack.count != request.credit.messages
            || ack.level < self.ack_level
            || !rising
            || !inside
        {
            let text = "the node's ack does not fit the Submit";
            return self.refuse(now, WireError::new(ack.request_id, ErrorCode::Internal, 0, text));
        }
        ack.tips.truncate(TIPS_IN_ACK_MAX);
        self.reply(now, ack.request_id, FrameKind::Submit, &Frame::Ack(ack))
    }

    /// Answers a request with an error. False if it is not open.
    pub fn refuse(&mut self, now: Instant, error: WireError) -> bool {
        let Some(request) = self.requests.get(&error.request_id) else { return false };
        let kind = request.kind;
        let error = WireError::new(error.request_id, error.code, error.retry_after_ms, error.text);
        self.reply(now, error.request_id, kind, &Frame::Error(error))
    }

    /// Answers a GetTips. False if it is not open.
    pub fn tips(&mut self, now: Instant, request_id: u64, mut tips: Vec<MessageId>) -> bool {
        tips.truncate(TIPS_IN_REPLY_MAX);
        self.reply(now, request_id, FrameKind::GetTips, &Frame::Tips { request_id, tips })
    }

    /// Answers a GetMessages with one entry per id. What does not fit one frame is answered with "ask again".
    /// False if the request is not open.
    pub fn messages(&mut self, now: Instant, request_id: u64, found: Vec<Option<Found>>) -> bool {
        let answers = fit_answers(found);
        self.reply(now, request_id, FrameKind::GetMessages, &Frame::Messages { request_id, answers })
    }

    /// Answers a GetStatus. False if it is not open.
    pub fn status(&mut self, now: Instant, request_id: u64, mut status: Status) -> bool {
        status.lanes.truncate(usize::from(weft_core::LANES_MAX));
        self.reply(now, request_id, FrameKind::GetStatus, &Frame::Status { request_id, status })
    }

    /// Answers a query. False if it is not open. An answer of another kind, or one that no frame can hold, is a fault of
    /// the node: the client gets `internal` instead.
    pub fn answer(&mut self, now: Instant, request_id: u64, answer: Answer) -> bool {
        let Some(request) = self.requests.get(&request_id) else { return false };
        let kind = answer.kind();
        if request.kind != kind || !answer.fits() {
            let text = "the node's answer does not fit the query";
            return self.refuse(now, WireError::new(request_id, ErrorCode::Internal, 0, text));
        }
        self.reply(now, request_id, kind, &Frame::Answer { request_id, answer })
    }

    fn reply(&mut self, now: Instant, request_id: u64, kind: FrameKind, frame: &Frame) -> bool {
        if self.requests.get(&request_id).is_none_or(|request| request.kind != kind) {
            return false;
        }
        if let Some(request) = self.requests.remove(&request_id) {
            self.in_flight = self.in_flight.minus(request.credit);
        }
        self.output.frame(now, frame);
        self.active_at = now;
        if self.phase == Phase::Draining {
            self.drain();
        }
        true
    }

    /// The node goes down: says so, refuses what comes from now on, and ends once everything in flight is
    /// answered.
    pub fn shut_down(&mut self, now: Instant) {
        match self.phase {
            Phase::Hello => self.fail(now, ErrorCode::ShuttingDown, "the node is going down"),
            Phase::Open => {
                self.output.frame(now, &Frame::Close(CloseReason::ShuttingDown));
                self.drain();
            }
            Phase::Draining | Phase::Flushing | Phase::Reset(_) => {}
        }
    }

    fn drain(&mut self) {
        self.subscriptions = HashMap::new();
        self.phase = if self.requests.is_empty() { Phase::Flushing } else { Phase::Draining };
    }

    /// Nothing more is asked or answered; what is in the output still goes.
    fn flush(&mut self) {
        self.phase = Phase::Flushing;
        self.events.clear();
        self.requests = HashMap::new();
        self.subscriptions = HashMap::new();
        self.in_flight = Credit::default();
        self.reader = FrameReader::new(self.limits.frame_bytes_max, from_client);
    }

    /// Ends the session with an error that the peer is told of.
    pub fn fail(&mut self, now: Instant, code: ErrorCode, text: impl Into<String>) {
        if self.is_over() {
            return;
        }
        let retry_after_ms = match code {
            ErrorCode::Overloaded | ErrorCode::ShuttingDown => millis(self.limits.retry_after),
            _ => 0,
        };
        self.output.frame(now, &Frame::Error(WireError::new(0, code, retry_after_ms, text)));
        self.failure = Some(code);
        self.flush();
    }

    fn fail_frame(&mut self, now: Instant, error: FrameError) {
        self.fail(now, error.code(), error.to_string());
    }

    fn reset(&mut self, code: ErrorCode) {
        self.failure.get_or_insert(code);
        self.flush();
        self.output.clear();
        self.phase = Phase::Reset(code);
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
