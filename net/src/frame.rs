//! Frames: what the two sides of a session say to each other, and their bytes.
//!
//! Owns the types and the tables below; the translation is in [`codec`](crate::codec). Invariants: every
//! integer is little-endian; reserved bytes are zero; no frame has two encodings. What a message holds is not
//! looked at here: a Submit carries any bytes cut at any lengths, and the node answers for each message.
//!
//! A stream is a sequence of frames: `u32 length of the body | u8 type | body`.
//!
//! | type | frame | from | body |
//! |---|---|---|---|
//! | 1 | Hello | client | magic `WEFT` 4, version u16, ack level u8, 0 u8, network 4 (zero: any) |
//! | 2 | Welcome | server | version u16, ack level u8, 0 u8, network 4, genesis id 32, payload_bytes_max u32, submit_messages_max u32, frame_bytes_max u32, inflight_requests_max u32, inflight_messages_max u32, inflight_bytes_max u64, idle_ms u32, subscriptions_max u32, clock_ahead_us_max u64, clock_behind_us_max u64, server_time_us u64, node name: length u8, UTF-8 |
//! | 3 | Submit | client | request id u64, count u32 (1..=4096), count x length u16, the messages back to back |
//! | 4 | Ack | server | request id u64, level u8, tips u8 (<= 16), 0 u16, count u32, exceptions u32, tips x id 32, exceptions x (index u32, reason u8, got u64, limit u64) |
//! | 5 | GetTips | client | request id u64, count u16 (<= 256) |
//! | 6 | Tips | server | request id u64, count u16 (<= 256), count x id 32 |
//! | 7 | GetMessages | client | request id u64, count u32 (1..=1024), count x id 32 |
//! | 8 | Messages | server | request id u64, count u32 (1..=1024), count x (0: absent; 1: place u64, length u16, message; 2: ask again) |
//! | 9 | GetStatus | client | request id u64 |
//! | 10 | Status | server | request id u64, state u8, flags u8 (see `node_flags`), lanes u16 (<= 1024), uptime_us u64, accepted u64, rejected u64, queue messages u64, queue messages max u64, durable age us u64 (all ones: never), own lane u16, witnesses made u64, round us u64, acks that wait for confirmation u64, lanes x (lane u16, flags u8 (1 forked, 2 ended, 4 equivocated, 8 connected), weight u64, written u64, durable u64, applied u64, certified u64, final u64, witness followed u64) |
//! | 14 | Error | both | request id u64 (0: the session), code u8, 0 u8, text length u16 (<= 256), retry_after_ms u32, text UTF-8 |
//! | 15 | Close | both | reason u8 |
//!
//! Types 11 to 13 and 23 to 31 are free; 16 to 22 are the subscriptions of [`subscribe`](crate::subscribe), 32 to 63
//! are kept for peers (lanes, witnesses), 64 to 73 are the queries of [`query`](crate::query). Request ids rise from 1
//! within a session. An Error with request id 0 ends the session.

use bytes::Bytes;
use weft_core::{GenesisId, LaneId, MessageId, NetworkId, Place, Reason, Rejection};

use crate::codec::FrameError;
use crate::limits::{SUBMIT_MESSAGES_MAX, TEXT_BYTES_MAX};
use crate::query::{Answer, Query};
use crate::subscribe::{Notice, Subscribe};

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)+
        }

        impl $name {
            /// Every value, in the order of its codes.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value with this code on the wire.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The code on the wire.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The name in reports and configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

pub(crate) use wire_enum;

wire_enum! {
    /// Type byte of a frame.
    FrameKind {
        /// First frame of a client.
        Hello = 1 "Hello",
        /// First frame of a server.
        Welcome = 2 "Welcome",
        /// Messages for the ledger.
        Submit = 3 "Submit",
        /// What became of a Submit.
        Ack = 4 "Ack",
        /// Asks for parents.
        GetTips = 5 "GetTips",
        /// Parents.
        Tips = 6 "Tips",
        /// Asks for stored messages.
        GetMessages = 7 "GetMessages",
        /// Stored messages.
        Messages = 8 "Messages",
        /// Asks how the node is.
        GetStatus = 9 "GetStatus",
        /// How the node is.
        Status = 10 "Status",
        /// A request, or the session, failed.
        Error = 14 "Error",
        /// The sender will ask for nothing more (client) or take nothing more (server).
        Close = 15 "Close",
        /// Asks to be told what is confirmed.
        SubscribeConfirmed = 16 "SubscribeConfirmed",
        /// Where a subscription begins.
        Subscribed = 17 "Subscribed",
        /// More notices may come.
        Grant = 18 "Grant",
        /// A lane has moved.
        Confirmed = 19 "Confirmed",
        /// Operations are decided.
        Decided = 20 "Decided",
        /// A subscription is to end.
        Unsubscribe = 21 "Unsubscribe",
        /// It has ended.
        Unsubscribed = 22 "Unsubscribed",
        /// Asks for the receipt of a message.
        GetReceipt = 64 "GetReceipt",
        /// A receipt.
        Receipt = 65 "Receipt",
        /// Asks for the proof that a lane extends what it was.
        GetConsistency = 66 "GetConsistency",
        /// That proof.
        Consistency = 67 "Consistency",
        /// Asks a validator to sign a checkpoint.
        Cosign = 68 "Cosign",
        /// A validator's signature under a checkpoint.
        Cosignature = 69 "Cosignature",
        /// Asks what an account has.
        GetAccount = 70 "GetAccount",
        /// What an account has.
        Account = 71 "Account",
        /// Asks for payments.
        GetHistory = 72 "GetHistory",
        /// Payments.
        History = 73 "History",
    }
}

wire_enum! {
    /// What an ack promises of a message. Higher promises more.
    AckLevel {
        /// Held in memory and found valid.
        Received = 1 "received",
        /// Handed to the operating system: survives the process, not the machine.
        Written = 2 "written",
        /// In the log and synced: survives the machine.
        Durable = 3 "durable",
        /// Held by a quorum of the committee, synced.
        Certified = 4 "certified",
        /// Certified, and known to be so by a quorum: in the one history that all honest nodes keep.
        Final = 5 "final",
    }
}

impl std::str::FromStr for AckLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|level| level.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|level| level.name()).collect();
            format!("no ack level {text:?}: write one of {}", names.join(", "))
        })
    }
}

wire_enum! {
    /// What a node is doing.
    NodeState {
        /// Takes messages.
        Live = 1 "live",
        /// Takes no more, answers what it has.
        Draining = 2 "draining",
        /// Its log failed: it acks nothing more.
        Poisoned = 3 "poisoned",
        /// On its way into a cluster (reserved).
        Joining = 4 "joining",
        /// Fetching what it missed (reserved).
        CatchingUp = 5 "catching_up",
    }
}

wire_enum! {
    /// Why a request or a session failed. Also the application error code of the QUIC stream or connection
    /// that ends with it.
    ErrorCode {
        /// The bytes are no frame, or no frame for this moment.
        BadFrame = 1 "bad_frame",
        /// A frame's body is longer than the limit.
        TooLarge = 2 "too_large",
        /// The client speaks another version of the wire.
        UnsupportedVersion = 3 "unsupported_version",
        /// The client wants another ledger.
        WrongNetwork = 4 "wrong_network",
        /// The node cannot promise what the client asks for.
        UnsupportedAckLevel = 5 "unsupported_ack_level",
        /// More was asked at once than the credit allows, or the node is full: again after `retry_after_ms`.
        Overloaded = 6 "overloaded",
        /// The peer did not take its bytes.
        SlowPeer = 7 "slow_peer",
        /// The peer said nothing for too long.
        Idle = 8 "idle",
        /// The node is going down.
        ShuttingDown = 9 "shutting_down",
        /// The node failed; its log says how.
        Internal = 10 "internal",
        /// No Hello came in time.
        HelloTimeout = 11 "hello_timeout",
        /// What was asked for is not here, and waiting would not help.
        NotFound = 20 "not_found",
        /// What was asked for is not final here yet: again after `retry_after_ms`.
        NotYet = 21 "not_yet",
        /// The node does not do this.
        Unsupported = 22 "unsupported",
    }
}

wire_enum! {
    /// Why a side closes.
    CloseReason {
        /// A client has nothing more to ask.
        Done = 0 "done",
        /// A server goes down: it answers what is pending.
        ShuttingDown = 1 "shutting_down",
    }
}

/// First frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Ack level wanted for every Submit of the session.
    pub ack_level: AckLevel,
    /// Ledger wanted; zero takes any.
    pub network: NetworkId,
}

/// First frame of a server: what the session may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Ack level of the session, as the Hello asked.
    pub ack_level: AckLevel,
    /// The ledger.
    pub network: NetworkId,
    /// Its genesis.
    pub genesis: GenesisId,
    /// Largest payload of a message, in bytes.
    pub payload_bytes_max: u32,
    /// Messages in one Submit, at most.
    pub submit_messages_max: u32,
    /// Largest body of a frame, in bytes.
    pub frame_bytes_max: u32,
    /// Requests open at once, at most.
    pub inflight_requests_max: u32,
    /// Messages submitted and not acked, at most.
    pub inflight_messages_max: u32,
    /// Bytes of messages submitted and not acked, at most.
    pub inflight_bytes_max: u64,
    /// After this long without a whole frame and with nothing in flight the server ends the session, in
    /// milliseconds.
    pub idle_ms: u32,
    /// Subscriptions open at once, over all sessions of a connection, at most.
    pub subscriptions_max: u32,
    /// How far ahead of the node a message's clock may be, in microseconds.
    pub clock_ahead_us_max: u64,
    /// How far behind the node a message's clock may be, in microseconds.
    pub clock_behind_us_max: u64,
    /// The node's clock, in microseconds since the Unix epoch: lets a device correct its own.
    pub server_time_us: u64,
    /// What the operator calls the node.
    pub node_name: String,
}

/// Messages for the ledger. A view of the received bytes: cloning it copies no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    pub(crate) request_id: u64,
    pub(crate) lengths: Bytes,
    pub(crate) bytes: Bytes,
}

impl Submit {
    /// Cuts `bytes` into messages of `lengths`.
    ///
    /// # Errors
    /// No message or more than [`SUBMIT_MESSAGES_MAX`]; lengths that do not add up to `bytes`; request id 0.
    pub fn new(request_id: u64, lengths: &[u16], bytes: Bytes) -> Result<Self, FrameError> {
        let mut column = Vec::with_capacity(2 * lengths.len());
        lengths.iter().for_each(|length| column.extend_from_slice(&length.to_le_bytes()));
        let submit = Self { request_id, lengths: column.into(), bytes };
        submit.check()?;
        Ok(submit)
    }

    pub(crate) fn check(&self) -> Result<(), FrameError> {
        let count = self.lengths.len() / 2;
        if count == 0 || count > SUBMIT_MESSAGES_MAX as usize {
            return Err(FrameError::Count {
                field: "messages of a Submit",
                got: count as u64,
                limit: u64::from(SUBMIT_MESSAGES_MAX),
            });
        }
        if self.request_id == 0 {
            return Err(FrameError::Value { field: "request id", got: 0 });
        }
        let declared: u64 = self.lengths().map(|length| length as u64).sum();
        if declared != self.bytes.len() as u64 {
            return Err(FrameError::Lengths { got: self.bytes.len() as u64, limit: declared });
        }
        Ok(())
    }

    /// Id of the request: the Ack repeats it.
    #[must_use]
    pub fn request_id(&self) -> u64 {
        self.request_id
    }

    /// Number of messages, 1 to [`SUBMIT_MESSAGES_MAX`].
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.lengths.len() / 2
    }

    /// The messages back to back, not copied since they came in.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length of each message in bytes, 0 to 65,535: nothing says that they are right ones.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + Clone + '_ {
        self.lengths.as_chunks::<2>().0.iter().map(|pair| usize::from(u16::from_le_bytes(*pair)))
    }

    /// The messages in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + '_ {
        let mut rest: &[u8] = &self.bytes;
        self.lengths().map(move |length| {
            // `check` made the lengths add up; a shorter rest would give an empty message, not a panic.
            let (message, after) = rest.split_at_checked(length).unwrap_or_default();
            rest = after;
            message
        })
    }

    /// The messages in order, each sharing the Submit's memory.
    pub fn iter_bytes(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.iter().map(|message| self.bytes.slice_ref(message))
    }
}

/// A message of a Submit that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckException {
    /// Which message of the Submit, from 0.
    pub index: u32,
    /// Code of a [`Reason`]; one that this build does not know is kept as it came.
    pub code: u8,
    /// What was got.
    pub got: u64,
    /// What the limit is.
    pub limit: u64,
}

impl AckException {
    /// The exception for message `index`.
    #[must_use]
    pub fn new(index: u32, rejection: Rejection) -> Self {
        Self { index, code: rejection.reason as u8, got: rejection.got, limit: rejection.limit }
    }

    /// The reason, unless it is one that this build does not know.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::try_from(self.code).ok()
    }
}

/// What became of a Submit. Every message not among the exceptions is accepted, at `level`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The Submit's request id.
    pub request_id: u64,
    /// What is promised of the accepted messages.
    pub level: AckLevel,
    /// Messages of the Submit.
    pub count: u32,
    /// Messages not accepted, in rising order of their index.
    pub exceptions: Vec<AckException>,
    /// Fresh tips, at most [`TIPS_IN_ACK_MAX`](crate::limits::TIPS_IN_ACK_MAX).
    pub tips: Vec<MessageId>,
}

impl Ack {
    /// Messages accepted.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        self.count.saturating_sub(self.exceptions.len() as u32)
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it lies.
    pub place: Place,
    /// Head, payload and signature.
    pub bytes: Bytes,
}

/// Answer for one id of a GetMessages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Not stored here.
    Absent,
    /// Stored.
    Found(Found),
    /// Stored, but it did not fit into this reply: ask again.
    AskAgain,
}

/// One lane and its node, as a node sees them. Sizes are in positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: LaneId,
    /// What its node was found to have done, and whether it is connected: bits of [`lane_flags`].
    pub flags: u8,
    /// Weight of its node in the committee; 0 for a node without a vote.
    pub weight: u64,
    /// Size written.
    pub written: u64,
    /// Size synced.
    pub durable: u64,
    /// Size applied: checked and judged.
    pub applied: u64,
    /// Size certified.
    pub certified: u64,
    /// Size final.
    pub final_size: u64,
    /// Number of the last witness of its node that was followed.
    pub witness: u64,
}

/// Bits of [`LaneStatus::flags`].
pub mod lane_flags {
    /// The lane was signed two ways.
    pub const FORKED: u8 = 1;
    /// The lane ends before a batch that is not well formed.
    pub const ENDED: u8 = 2;
    /// Its node signed two witnesses with one number.
    pub const EQUIVOCATED: u8 = 4;
    /// Its node is connected, or is this one.
    pub const CONNECTED: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;
}

/// Bits of [`Status::flags`].
pub mod node_flags {
    /// A validator that states nothing any more: it has forgotten what it signed.
    pub const SILENCED: u8 = 1;
    /// Final is still coming back after a restart: operations are not judged.
    pub const RESTORING: u8 = 2;
    /// There is no room on its disk: it takes nothing until there is.
    pub const DISK_FULL: u8 = 4;
    /// Its votes wait for room on the disk: it confirms nothing until there is.
    pub const VOTES_WAIT: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: NodeState,
    /// Microseconds since it started.
    pub uptime_us: u64,
    /// Messages accepted since it started.
    pub accepted_total: u64,
    /// Messages rejected since it started.
    pub rejected_total: u64,
    /// Messages in its queues.
    pub queue_messages: u64,
    /// Messages that its queues can hold.
    pub queue_messages_max: u64,
    /// Age of the last durable write, in microseconds; `u64::MAX` if there was none.
    pub durable_age_us: u64,
    /// Bits of [`node_flags`].
    pub flags: u8,
    /// The lane that it writes.
    pub lane: LaneId,
    /// Witnesses that it has made since it started.
    pub witnesses_total: u64,
    /// Shortest time between two of them, in microseconds.
    pub round_us: u64,
    /// Acks that wait for confirmation.
    pub acks_waiting: u64,
    /// Its lanes, at most [`LANES_MAX`](weft_core::LANES_MAX).
    pub lanes: Vec<LaneStatus>,
}

/// A failed request, or the end of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct WireError {
    /// The request; 0 is the whole session.
    pub request_id: u64,
    /// Why.
    pub code: ErrorCode,
    /// When to try again, in milliseconds; 0 if it would not help.
    pub retry_after_ms: u32,
    /// For people, at most [`TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

impl WireError {
    /// An error whose text is cut to [`TEXT_BYTES_MAX`] bytes at a character.
    #[must_use]
    pub fn new(request_id: u64, code: ErrorCode, retry_after_ms: u32, text: impl Into<String>) -> Self {
        let mut text = text.into();
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self { request_id, code, retry_after_ms, text }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the types and the table above")]
pub enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Submit(Submit),
    Ack(Ack),
    GetTips { request_id: u64, count: u16 },
    Tips { request_id: u64, tips: Vec<MessageId> },
    GetMessages { request_id: u64, ids: Vec<MessageId> },
    Messages { request_id: u64, answers: Vec<Lookup> },
    GetStatus { request_id: u64 },
    Status { request_id: u64, status: Status },
    Error(WireError),
    Close(CloseReason),
    Query { request_id: u64, query: Query },
    Answer { request_id: u64, answer: Answer },
    Subscribe { request_id: u64, subscribe: Subscribe },
    Subscribed { request_id: u64, starts: Vec<u64> },
    Grant { request_id: u64, credit: u32 },
    Notice { request_id: u64, notice: Notice },
    Unsubscribe { request_id: u64 },
    Unsubscribed { request_id: u64 },
}
