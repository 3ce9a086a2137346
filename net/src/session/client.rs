//! The client's end of a session.
//!
//! Owns one session as a client sees it: Hello and Welcome, request ids, the credit that the server gave, and
//! the check that every reply fits its request. [`subscriptions`] has those. Invariants: the credit is never exceeded, so an honest client
//! is never told `overloaded` for it; a reply to nothing, a second reply, an ack below the level asked for or
//! of another count ends the session as a fault of the server. What a request that is still open when the
//! session ends has become is unknown: it may have been stored, and may be sent again (the ledger holds a
//! message once). Reconnecting is left to the caller.

mod subscriptions;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_core::{MessageId, NetworkId};

use super::{Credit, End, Output};
use crate::codec::FrameError;
use crate::frame::{
    Ack, AckLevel, CloseReason, ErrorCode, Frame, FrameKind, Hello, Lookup, Status, Submit, Welcome,
    WireError,
};
use crate::limits::{FRAME_BYTES_MAX, GET_MESSAGES_MAX, TIPS_IN_REPLY_MAX};
use crate::query::{Answer, Query};
use crate::reader::FrameReader;
use crate::subscribe::Notice;

/// What a client wants of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The ledger; `None`, like zero, takes any.
    pub network: Option<NetworkId>,
    /// What an ack is to promise.
    pub ack_level: AckLevel,
    /// How long to wait for the Welcome.
    pub welcome_timeout: Duration,
    /// Whether to ask for the status now and then, so that the server does not end an idle session.
    pub keep_alive: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            network: None,
            ack_level: AckLevel::Durable,
            welcome_timeout: Duration::from_secs(10),
            keep_alive: true,
        }
    }
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The session is open.
    Welcomed(Welcome),
    /// What became of a Submit.
    Ack(Ack),
    /// A request failed; the session goes on.
    Failed(WireError),
    /// Parents.
    Tips {
        /// The request.
        request_id: u64,
        /// At most as many as asked for.
        tips: Vec<MessageId>,
    },
    /// Stored messages.
    Messages {
        /// The request.
        request_id: u64,
        /// One per id asked for.
        answers: Vec<Lookup>,
    },
    /// How the node is.
    Status {
        /// The request.
        request_id: u64,
        /// The answer.
        status: Status,
    },
    /// The answer to a query.
    Answer {
        /// The request.
        request_id: u64,
        /// Of the kind that the query asks for.
        answer: Answer,
    },
    /// A subscription begins.
    Subscribed {
        /// The request.
        request_id: u64,
        /// The first position that will be told, by lane.
        starts: Vec<u64>,
    },
    /// What was subscribed to.
    Notice {
        /// The request.
        request_id: u64,
        /// It follows on the one before it.
        notice: Notice,
    },
    /// A subscription has ended as asked.
    Unsubscribed {
        /// The request.
        request_id: u64,
    },
    /// The node goes down: it takes no more requests and answers what is pending. Subscriptions have ended.
    ShuttingDown,
    /// The session is over; the last event.
    Ended(SessionEnd),
}

/// How a session ended, for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// As asked by the client, everything answered.
    #[error("closed")]
    Done,
    /// The node went down. Requests without a reply may be sent again, elsewhere or later.
    #[error("the node went down")]
    ShutDown,
    /// The server ended it with an error.
    #[error("the node ended the session: {0}")]
    Refused(WireError),
    /// The server reset the stream with this code.
    #[error("the node reset the session: {0}")]
    Reset(ErrorCode),
    /// The server sent what is no frame, or none that fits.
    #[error("the node sent a bad frame: {0}")]
    Fault(FrameError),
    /// A reply that fits no open request, or not this one.
    #[error("the node sent a reply that fits no request: {0}")]
    Mismatch(&'static str),
    /// No Welcome came in time.
    #[error("no Welcome within {0:?}")]
    WelcomeTimeout(Duration),
    /// The transport was lost.
    #[error("the connection was lost")]
    Lost,
}

/// Why a request cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The credit is used up: again after the next reply.
    #[error("in flight {got:?}, the server's limit is {limit:?}")]
    NoCredit {
        /// What would be in flight.
        got: Credit,
        /// The server's limit.
        limit: Credit,
    },
    /// The request can never be made in this session: cut it up.
    #[error("{field}: {got}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        field: &'static str,
        /// How large it is.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// One more subscription than the connection may have.
    #[error("a connection may have {limit} subscriptions")]
    Subscriptions {
        /// The server's limit.
        limit: u32,
    },
    /// The values make no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The session is not open yet, or no more.
    #[error("the session is not open")]
    NotOpen,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    Open,
    /// Asks for nothing more and waits for what is pending.
    Draining,
    /// Over. The output still goes if `End` says Finish.
    Ended(End),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: FrameKind,
    credit: Credit,
    /// Things asked for: tips or ids.
    count: u32,
}

/// One session at the client. See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct ClientSession {
    options: ClientOptions,
    opened_at: Instant,
    sent_at: Instant,
    phase: Phase,
    welcome: Option<Welcome>,
    shut_down: bool,
    reader: FrameReader,
    output: Output,
    pending: HashMap<u64, Pending>,
    subscriptions: HashMap<u64, subscriptions::Subscription>,
    in_flight: Credit,
    last_request_id: u64,
    /// A status asked for to stay alive: its reply is nobody's.
    keep_alive_id: Option<u64>,
    events: VecDeque<ClientEvent>,
}

fn from_server(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Welcome
            | FrameKind::Ack
            | FrameKind::Tips
            | FrameKind::Messages
            | FrameKind::Status
            | FrameKind::Error
            | FrameKind::Close
            | FrameKind::Receipt
            | FrameKind::Consistency
            | FrameKind::Cosignature
            | FrameKind::Account
            | FrameKind::History
            | FrameKind::Subscribed
            | FrameKind::Confirmed
            | FrameKind::Decided
            | FrameKind::Unsubscribed
    )
}

impl ClientSession {
    /// A session that says Hello at `now`.
    #[must_use]
    pub fn new(options: ClientOptions, now: Instant) -> Self {
        let mut output = Output::default();
        let network = options.network.unwrap_or_default();
        output.frame(now, &Frame::Hello(Hello { ack_level: options.ack_level, network }));
        Self {
            options,
            opened_at: now,
            sent_at: now,
            phase: Phase::Hello,
            welcome: None,
            shut_down: false,
            reader: FrameReader::new(FRAME_BYTES_MAX, from_server),
            output,
            pending: HashMap::new(),
            subscriptions: HashMap::new(),
            in_flight: Credit::default(),
            last_request_id: 0,
            keep_alive_id: None,
            events: VecDeque::new(),
        }
    }

    /// Takes bytes of the server: always all of them.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over() {
            match self.reader.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(frame)) => self.handle_frame(now, frame),
                Err(error) => self.fault(now, SessionEnd::Fault(error)),
            }
        }
        bytes.len()
    }

    /// The server has finished its side.
    pub fn handle_finished(&mut self, _now: Instant) {
        let end = match self.phase {
            _ if self.shut_down => SessionEnd::ShutDown,
            Phase::Draining if self.pending.is_empty() => SessionEnd::Done,
            _ => SessionEnd::Lost,
        };
        self.end_with(End::Finish, end);
    }

    /// The server has reset its side with this application error code.
    pub fn handle_reset(&mut self, code: u64) {
        let code = u8::try_from(code).ok().and_then(ErrorCode::from_code);
        let end = code.map_or(SessionEnd::Lost, SessionEnd::Reset);
        self.end_with(End::Reset(ErrorCode::Internal), end);
    }

    /// The server reads no further: what is not sent never will be. Why, it says on its own side of the
    /// stream.
    pub fn discard_output(&mut self) {
        self.output.clear();
    }

    /// The transport is gone.
    pub fn handle_lost(&mut self) {
        self.end_with(End::Reset(ErrorCode::Internal), SessionEnd::Lost);
    }

    /// Acts on the deadlines that `now` has reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.phase == Phase::Hello {
            let end = SessionEnd::WelcomeTimeout(self.options.welcome_timeout);
            self.end_with(End::Reset(ErrorCode::HelloTimeout), end);
        } else if let Ok(id) =
            self.ask(now, FrameKind::GetStatus, 0, |request_id| Frame::GetStatus { request_id })
        {
            self.keep_alive_id = Some(id);
        } else {
            // No credit means that something is in flight, and the session not idle.
            self.sent_at = now;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (&self.phase, &self.welcome) {
            (Phase::Hello, _) => self.opened_at.checked_add(self.options.welcome_timeout),
            (Phase::Open, Some(welcome)) if self.options.keep_alive && self.keep_alive_id.is_none() => {
                // A third of the server's patience: one lost keep-alive is not the end.
                let third = Duration::from_millis(u64::from(welcome.idle_ms) / 3);
                Some(self.sent_at + third.max(Duration::from_millis(10)))
            }
            _ => None,
        }
    }

    /// Moves about `bytes_max` bytes of output to `out`. What the transport takes of it is told by
    /// [`handle_transmitted`](Self::handle_transmitted).
    pub fn poll_transmit(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) {
        self.output.poll(bytes_max, out);
    }

    /// The transport has taken `bytes` of what was polled.
    pub fn handle_transmitted(&mut self, now: Instant, bytes: usize) {
        self.output.transmitted(now, bytes);
    }

    /// The next thing that the client hears.
    pub fn poll(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// What the transport should do, once the session is over or has nothing more to say.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.phase {
            Phase::Ended(End::Finish) if self.output.pending_bytes() > 0 => None,
            Phase::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Whether the session is over: no reply will come any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// What the server allows, once it has said so.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// What is in flight.
    #[must_use]
    pub fn in_flight(&self) -> Credit {
        self.in_flight
    }

    fn limit(&self) -> Option<(Credit, &Welcome)> {
        let welcome = self.welcome.as_ref().filter(|_| self.phase == Phase::Open)?;
        let limit = Credit {
            requests: welcome.inflight_requests_max,
            messages: welcome.inflight_messages_max,
            bytes: welcome.inflight_bytes_max,
        };
        Some((limit, welcome))
    }

    fn take_credit(&mut self, kind: FrameKind, credit: Credit, count: u32) -> Result<u64, RequestError> {
        let (limit, _) = self.limit().ok_or(RequestError::NotOpen)?;
        let got = self.in_flight.plus(credit);
        if !got.fits(limit) {
            return Err(RequestError::NoCredit { got, limit });
        }
        self.in_flight = got;
        self.last_request_id += 1;
        self.pending.insert(self.last_request_id, Pending { kind, credit, count });
        Ok(self.last_request_id)
    }

    /// Submits the messages that `lengths` cut `bytes` into, and returns the id of the request. The bytes are
    /// not copied.
    ///
    /// # Errors
    /// [`RequestError::NoCredit`] until a reply comes; the other errors are final for this request.
    pub fn submit(&mut self, now: Instant, lengths: &[u16], bytes: Bytes) -> Result<u64, RequestError> {
        let (limit, welcome) = self.limit().ok_or(RequestError::NotOpen)?;
        let mut submit = Submit::new(u64::MAX, lengths, bytes)?;
        let credit = Credit::of_submit(submit.len(), submit.bytes.len());
        for (field, got, limit) in [
            ("messages of a Submit", credit.messages.into(), u64::from(welcome.submit_messages_max)),
            ("messages of a Submit", credit.messages.into(), limit.messages.into()),
            ("bytes of a Submit", credit.bytes, limit.bytes),
            ("body of a Submit", submit.body_bytes() as u64, welcome.frame_bytes_max.into()),
        ] {
            if got > limit {
                return Err(RequestError::TooLarge { field, got, limit });
            }
        }
        submit.request_id = self.take_credit(FrameKind::Submit, credit, credit.messages)?;
        self.output.submit(now, &submit);
        self.sent_at = now;
        Ok(submit.request_id)
    }

    /// Asks for tips, at most [`TIPS_IN_REPLY_MAX`].
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn get_tips(&mut self, now: Instant, count: u16) -> Result<u64, RequestError> {
        within("tips", count.into(), TIPS_IN_REPLY_MAX as u64)?;
        self.ask(now, FrameKind::GetTips, count.into(), |request_id| Frame::GetTips { request_id, count })
    }

    /// Asks for stored messages, 1 to [`GET_MESSAGES_MAX`].
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn get_messages(&mut self, now: Instant, ids: Vec<MessageId>) -> Result<u64, RequestError> {
        within("ids", ids.len() as u64, GET_MESSAGES_MAX.into())?;
        if ids.is_empty() {
            return Err(FrameError::Count { field: "ids", got: 0, limit: GET_MESSAGES_MAX.into() }.into());
        }
        let count = ids.len() as u32;
        self.ask(now, FrameKind::GetMessages, count, |request_id| Frame::GetMessages { request_id, ids })
    }

    /// Asks how the node is.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn get_status(&mut self, now: Instant) -> Result<u64, RequestError> {
        self.ask(now, FrameKind::GetStatus, 0, |request_id| Frame::GetStatus { request_id })
    }

    /// Asks about a receipt or an account.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn query(&mut self, now: Instant, query: Query) -> Result<u64, RequestError> {
        // What is pending is known by the kind of its answer: that of a query says no less than the query's own.
        self.ask(now, query.answer_kind(), 0, |request_id| Frame::Query { request_id, query })
    }

    fn ask(
        &mut self,
        now: Instant,
        kind: FrameKind,
        count: u32,
        frame: impl FnOnce(u64) -> Frame,
    ) -> Result<u64, RequestError> {
        let request_id = self.take_credit(kind, Credit::QUERY, count)?;
        self.output.frame(now, &frame(request_id));
        self.sent_at = now;
        Ok(request_id)
    }

    /// Asks for nothing more: the session ends once everything pending is answered.
    pub fn close(&mut self, now: Instant) {
        match self.phase {
            Phase::Open => {
                self.output.frame(now, &Frame::Close(CloseReason::Done));
                self.phase = Phase::Draining;
                self.end_if_drained();
            }
            Phase::Hello => self.end_with(End::Finish, SessionEnd::Done),
            Phase::Draining | Phase::Ended(_) => {}
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) {
        match (frame, self.phase == Phase::Hello) {
            (Frame::Welcome(welcome), true) => self.handle_welcome(now, welcome),
            // With request id 0 the session is over; before Welcome there is no other request.
            (Frame::Error(error), hello) if hello || error.request_id == 0 => {
                self.end_with(End::Finish, SessionEnd::Refused(error));
            }
            (frame, true) => {
                let error = FrameError::Unexpected { got: frame.kind(), when: "before Welcome" };
                self.fault(now, SessionEnd::Fault(error));
            }
            (Frame::Close(_), _) => {
                if !self.shut_down {
                    self.shut_down = true;
                    self.events.push_back(ClientEvent::ShuttingDown);
                }
                self.phase = Phase::Draining;
                self.end_if_drained();
            }
            (Frame::Ack(ack), _) => self.handle_ack(now, ack),
            (Frame::Error(error), _) if self.ends_subscription(&error) => {}
            (Frame::Error(error), _) => {
                let kept_alive = self.keep_alive_id == Some(error.request_id);
                if self.settle(now, error.request_id, None).is_some() {
                    if !kept_alive {
                        self.events.push_back(ClientEvent::Failed(error));
                    }
                    self.end_if_drained();
                }
            }
            (Frame::Tips { request_id, tips }, _) => {
                let Some(pending) = self.settle(now, request_id, Some(FrameKind::GetTips)) else { return };
                if tips.len() > pending.count as usize {
                    return self.fault(now, SessionEnd::Mismatch("more tips than asked for"));
                }
                self.events.push_back(ClientEvent::Tips { request_id, tips });
                self.end_if_drained();
            }
            (Frame::Messages { request_id, answers }, _) => {
                let Some(pending) = self.settle(now, request_id, Some(FrameKind::GetMessages)) else {
                    return;
                };
                if answers.len() != pending.count as usize {
                    return self.fault(now, SessionEnd::Mismatch("not one answer per id"));
                }
                self.events.push_back(ClientEvent::Messages { request_id, answers });
                self.end_if_drained();
            }
            (Frame::Status { request_id, status }, _) => {
                let kept_alive = self.keep_alive_id == Some(request_id);
                if self.settle(now, request_id, Some(FrameKind::GetStatus)).is_some() {
                    if !kept_alive {
                        self.events.push_back(ClientEvent::Status { request_id, status });
                    }
                    self.end_if_drained();
                }
            }
            (Frame::Answer { request_id, answer }, _) => {
                if self.settle(now, request_id, Some(answer.kind())).is_some() {
                    self.events.push_back(ClientEvent::Answer { request_id, answer });
                    self.end_if_drained();
                }
            }
            (Frame::Subscribed { request_id, starts }, _) => self.handle_subscribed(now, request_id, starts),
            (Frame::Notice { request_id, notice }, _) => self.handle_notice(now, request_id, notice),
            (Frame::Unsubscribed { request_id }, _) => self.handle_unsubscribed(now, request_id),
            (frame, _) => {
                let error = FrameError::Unexpected { got: frame.kind(), when: "after Welcome" };
                self.fault(now, SessionEnd::Fault(error));
            }
        }
    }

    fn handle_welcome(&mut self, now: Instant, welcome: Welcome) {
        let wanted = self.options.network.unwrap_or_default();
        if wanted != NetworkId::default() && wanted != welcome.network {
            return self.fault(now, SessionEnd::Mismatch("welcomed to another network"));
        }
        if welcome.ack_level < self.options.ack_level {
            return self.fault(now, SessionEnd::Mismatch("welcomed with a lower ack level"));
        }
        self.phase = Phase::Open;
        self.sent_at = now;
        self.welcome = Some(welcome.clone());
        self.events.push_back(ClientEvent::Welcomed(welcome));
    }

    fn handle_ack(&mut self, now: Instant, ack: Ack) {
        let Some(pending) = self.settle(now, ack.request_id, Some(FrameKind::Submit)) else { return };
        if ack.count != pending.count {
            return self.fault(now, SessionEnd::Mismatch("an ack of another number of messages"));
        }
        if ack.level < self.options.ack_level {
            return self.fault(now, SessionEnd::Mismatch("an ack below the level asked for"));
        }
        self.events.push_back(ClientEvent::Ack(ack));
        self.end_if_drained();
    }

    /// Takes a request off the pending ones. `None`, and the session is over, if there is no such request of
    /// this kind.
    fn settle(&mut self, now: Instant, request_id: u64, kind: Option<FrameKind>) -> Option<Pending> {
        match self.pending.remove(&request_id) {
            Some(pending) if kind.is_none_or(|kind| kind == pending.kind) => {
                self.in_flight = self.in_flight.minus(pending.credit);
                if self.keep_alive_id == Some(request_id) {
                    self.keep_alive_id = None;
                }
                Some(pending)
            }
            _ => {
                self.fault(now, SessionEnd::Mismatch("no such request is open"));
                None
            }
        }
    }

    fn end_if_drained(&mut self) {
        if self.phase == Phase::Draining && self.pending.is_empty() {
            let end = if self.shut_down { SessionEnd::ShutDown } else { SessionEnd::Done };
            self.end_with(End::Finish, end);
        }
    }

    /// The server is at fault: it is told so, and the session is over.
    fn fault(&mut self, now: Instant, end: SessionEnd) {
        if !self.is_over() {
            let error = WireError::new(0, ErrorCode::BadFrame, 0, end.to_string());
            self.output.frame(now, &Frame::Error(error));
            self.end_with(End::Finish, end);
        }
    }

    fn end_with(&mut self, end: End, why: SessionEnd) {
        if self.is_over() {
            return;
        }
        if matches!(end, End::Reset(_)) {
            self.output.clear();
        }
        self.phase = Phase::Ended(end);
        self.pending = HashMap::new();
        self.subscriptions = HashMap::new();
        self.in_flight = Credit::default();
        self.events.push_back(ClientEvent::Ended(why));
    }
}

fn within(field: &'static str, got: u64, limit: u64) -> Result<(), RequestError> {
    if got > limit { Err(RequestError::TooLarge { field, got, limit }) } else { Ok(()) }
}
