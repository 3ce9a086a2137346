//! Subscriptions: their bytes, their sessions on virtual time, and over real QUIC.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use support::pair::Pair;
use support::welcome_info;
use weft_core::{LaneId, MessageId, PayloadKind, Place};
use weft_net::frame::{CloseReason, Frame, FrameKind};
use weft_net::limits::FRAME_HEAD_BYTES;
use weft_net::session::{ClientEvent, ServerEvent};
use weft_net::subscribe::{CREDIT_MAX, NOTICE_BYTES_MAX, OPEN_MAX};
use weft_net::{
    Bookmark, Client, ClientConfig, Confirmations, Confirmed, ConfirmedMessage, ErrorCode, Found, FrameError,
    Identity, MessageFilter, NetError, NodeState, Notice, NoticeSource, Outcome, Refusal, RequestError,
    Server, ServerConfig, ServerHandle, ServerLimits, Service, Session, SessionEnd, SessionHandle,
    SessionLimits, SessionOptions, Start, Status, Submit, Subscribe, Trust, WelcomeInfo, WireError,
};

const SECOND: Duration = Duration::from_secs(1);

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Frame, FrameError> {
    let kind = FrameKind::from_code(bytes[4]).unwrap();
    Frame::decode(kind, Bytes::copy_from_slice(&bytes[FRAME_HEAD_BYTES..]))
}

/// All messages from now on, two notices ahead.
fn wanted() -> Subscribe {
    Subscribe {
        messages: Some(MessageFilter::default()),
        certified: false,
        start: Start::Now,
        credit: 2,
        positions: Vec::new(),
        open: Vec::new(),
    }
}

fn message(position: u64, outcome: Outcome) -> ConfirmedMessage {
    ConfirmedMessage { position, kind: PayloadKind::DATA, outcome, id: MessageId([position as u8; 32]) }
}

/// Lane 0 is final from `from` to `to`, one message at each position.
fn told(from: u64, to: u64) -> Notice {
    let messages = (from..to).map(|position| message(position, Outcome::None)).collect();
    Notice::Confirmed(Confirmed {
        lane: LaneId(0),
        faults: 0,
        certified: to,
        final_size: to,
        from,
        to,
        messages,
    })
}

// ---------- bytes

#[test]
fn the_layouts_are_those_of_the_table() {
    let subscribe = Subscribe {
        messages: Some(MessageFilter { witnesses: false, issuer: Some(weft_core::DeviceKey([7; 32])) }),
        certified: true,
        start: Start::Beginning,
        credit: 3,
        positions: vec![(LaneId(2), 9)],
        open: vec![Place::new(LaneId(1), 5)],
    };
    let mut expected = b"\x44\0\0\0\x10\x05\0\0\0\0\0\0\0\x0d\x01\x03\0\0\0".to_vec();
    expected.extend([7; 32]);
    expected.extend(b"\x01\0\x02\0\x09\0\0\0\0\0\0\0\x01\0\x05\0\0\0\0\0\x01\0");
    assert_eq!(encoded(&Frame::Subscribe { request_id: 5, subscribe }), expected);
    let starts = vec![1, 2];
    assert_eq!(
        encoded(&Frame::Subscribed { request_id: 5, starts }),
        *b"\x1a\0\0\0\x11\x05\0\0\0\0\0\0\0\x02\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
    );
    assert_eq!(
        encoded(&Frame::Grant { request_id: 5, credit: 4 }),
        *b"\x0c\0\0\0\x12\x05\0\0\0\0\0\0\0\x04\0\0\0"
    );
    let confirmed = Confirmed {
        lane: LaneId(1),
        faults: 2,
        certified: 9,
        final_size: 8,
        from: 3,
        to: 7,
        messages: vec![ConfirmedMessage { kind: PayloadKind::TRANSFER, ..message(4, Outcome::Rejected) }],
    };
    let mut expected = b"\x57\0\0\0\x13\x05\0\0\0\0\0\0\0\x01\0\x02".to_vec();
    for size in [9_u64, 8, 3, 7] {
        expected.extend(size.to_le_bytes());
    }
    expected.extend(b"\x01\0\x04\0\0\0\0\0\0\0\x03\x02");
    expected.extend([4; 32]);
    let notice = Notice::Confirmed(confirmed);
    assert_eq!(encoded(&Frame::Notice { request_id: 5, notice }), expected);
    let notice = Notice::Decided(vec![(Place::new(LaneId(1), 4), Outcome::GivenUp)]);
    assert_eq!(
        encoded(&Frame::Notice { request_id: 5, notice }),
        *b"\x13\0\0\0\x14\x05\0\0\0\0\0\0\0\x01\0\x04\0\0\0\0\0\x01\0\x04"
    );
    for (frame, code) in
        [(Frame::Unsubscribe { request_id: 5 }, 21), (Frame::Unsubscribed { request_id: 5 }, 22)]
    {
        assert_eq!(encoded(&frame), [8, 0, 0, 0, code, 5, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn counts_that_the_bytes_cannot_hold_or_no_frame_may_have_are_refused_before_memory_is_taken() {
    let head = |kind: FrameKind, rest: &[u8]| {
        Frame::decode(kind, [&1_u64.to_le_bytes(), rest].concat().into()).unwrap_err()
    };
    let truncated = |field, limit| FrameError::Truncated { field, got: 0, limit };
    let count = |field, got, limit| FrameError::Count { field, got, limit };
    let subscribe = |rest: &[u8]| head(FrameKind::SubscribeConfirmed, &[&[1, 0, 1, 0, 0, 0], rest].concat());
    assert_eq!(subscribe(&1_024_u16.to_le_bytes()), truncated("lanes", 10_240));
    assert_eq!(subscribe(&1_025_u16.to_le_bytes()), count("lanes", 1_025, 1_024));
    assert_eq!(subscribe(b"\0\0\x00\x04"), truncated("open places", 8_192));
    assert_eq!(subscribe(b"\0\0\x01\x04"), count("open places", 1_025, 1_024));
    assert_eq!(head(FrameKind::Subscribed, &1_024_u16.to_le_bytes()), truncated("lanes", 8_192));
    assert_eq!(head(FrameKind::Subscribed, &0_u16.to_le_bytes()), count("lanes", 0, 1_024));
    let confirmed =
        |messages: u16| head(FrameKind::Confirmed, &[&[0; 35][..], &messages.to_le_bytes()].concat());
    assert_eq!(confirmed(1_024), truncated("messages", 1_024 * 42));
    assert_eq!(confirmed(1_025), count("messages", 1_025, 1_024));
    assert_eq!(head(FrameKind::Decided, &1_024_u16.to_le_bytes()), truncated("decisions", 9_216));
    assert_eq!(head(FrameKind::Decided, &0_u16.to_le_bytes()), count("decisions", 0, 1_024));
    for credit in [0, CREDIT_MAX + 1] {
        let error = count("credit", credit.into(), 1_024);
        assert_eq!(head(FrameKind::Grant, &credit.to_le_bytes()), error);
    }
}

#[test]
fn a_notice_out_of_order_or_a_wish_that_contradicts_itself_is_a_bad_frame() {
    let bad = |change: fn(&mut Confirmed)| {
        let Notice::Confirmed(mut confirmed) = told(2, 6) else { panic!() };
        change(&mut confirmed);
        decoded(&encoded(&Frame::Notice { request_id: 1, notice: Notice::Confirmed(confirmed) }))
    };
    assert!(bad(|_| {}).is_ok());
    let changes: [fn(&mut Confirmed); 7] = [
        |told| told.messages.swap(0, 1),
        |told| told.messages[1] = told.messages[0],
        |told| told.messages[0].position = 1,
        |told| told.to = 5,
        |told| told.final_size = 5,
        |told| told.certified = 5,
        |told| told.messages[0].outcome = Outcome::GivenUp,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(matches!(bad(change), Err(FrameError::Value { .. })), "change {at}");
    }
    let decided = |decided: Vec<(Place, Outcome)>| {
        decoded(&encoded(&Frame::Notice { request_id: 1, notice: Notice::Decided(decided) }))
    };
    let [first, second] = [Place(1), Place(2)];
    assert!(decided(vec![(first, Outcome::Accepted), (second, Outcome::Rejected)]).is_ok());
    assert!(decided(vec![(second, Outcome::Accepted), (first, Outcome::Rejected)]).is_err());
    assert!(decided(vec![(first, Outcome::Open)]).is_err());
    let subscribe = |change: fn(&mut Subscribe)| {
        let mut subscribe = wanted();
        change(&mut subscribe);
        decoded(&encoded(&Frame::Subscribe { request_id: 1, subscribe }))
    };
    assert!(subscribe(|_| {}).is_ok());
    let changes: [fn(&mut Subscribe); 5] = [
        |wanted| (wanted.messages, wanted.open) = (None, vec![Place(1)]),
        |wanted| wanted.positions = vec![(LaneId(1), 0), (LaneId(0), 0)],
        |wanted| wanted.positions = vec![(LaneId(1_024), 0)],
        |wanted| wanted.positions = vec![(LaneId(0), (1 << 48) + 1)],
        |wanted| wanted.open = vec![Place(2), Place(2)],
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(matches!(subscribe(change), Err(FrameError::Value { .. })), "change {at}");
    }
}

// ---------- bookmarks

#[test]
fn a_bookmark_takes_only_what_follows_and_names_where_to_go_on() {
    let mut bookmark = Bookmark::new(&[5, 0], &[]);
    assert!(bookmark.take(&told(4, 6)).is_err(), "told before");
    assert!(bookmark.take(&told(6, 7)).is_err(), "position 5 is left out");
    bookmark.take(&told(5, 8)).unwrap();
    let shrunk = Notice::Confirmed(Confirmed {
        lane: LaneId(0),
        faults: 0,
        certified: 9,
        final_size: 7,
        from: 8,
        to: 8,
        messages: Vec::new(),
    });
    assert!(bookmark.take(&shrunk).is_err());
    let place = Place::new(LaneId(1), 3);
    assert!(bookmark.take(&Notice::Decided(vec![(place, Outcome::Accepted)])).is_err(), "was not open");
    let open = Notice::Confirmed(Confirmed {
        lane: LaneId(1),
        faults: 0,
        certified: 4,
        final_size: 4,
        from: 0,
        to: 4,
        messages: vec![message(3, Outcome::Open)],
    });
    bookmark.take(&open).unwrap();
    let resumed = bookmark.resume(&wanted());
    assert_eq!(resumed.positions, [(LaneId(0), 8), (LaneId(1), 4)]);
    assert_eq!(resumed.open, [place]);
    bookmark.take(&Notice::Decided(vec![(place, Outcome::Rejected)])).unwrap();
    assert_eq!(bookmark.open().len(), 0);
}

#[test]
fn a_bookmark_holds_no_more_open_operations_than_a_subscription_may_have() {
    let mut bookmark = Bookmark::new(&[0], &[]);
    let open = |from: u64| {
        let mut notice = told(from, from + 1_024);
        let Notice::Confirmed(confirmed) = &mut notice else { panic!() };
        confirmed.messages.iter_mut().for_each(|message| message.outcome = Outcome::Open);
        notice
    };
    bookmark.take(&open(0)).unwrap();
    assert_eq!(bookmark.open().len(), OPEN_MAX);
    assert!(bookmark.take(&open(1_024)).is_err());
}

// ---------- sessions

fn limits() -> SessionLimits {
    SessionLimits { subscriptions_max: 2, ..SessionLimits::default() }
}

/// A pair with an open subscription that begins at position 0 of one lane.
fn subscribed(limits: SessionLimits, wanted: Subscribe) -> (Pair, u64) {
    let mut pair = Pair::open(limits);
    let id = pair.client.subscribe(pair.now, wanted).unwrap();
    pair.run();
    assert!(matches!(pair.server_events.remove(0), ServerEvent::Subscribe { .. }));
    assert!(pair.server.subscribed(pair.now, id, vec![0]));
    pair.run();
    assert_eq!(pair.client_events.remove(0), ClientEvent::Subscribed { request_id: id, starts: vec![0] });
    (pair, id)
}

#[test]
fn notices_come_up_to_the_credit_and_go_on_when_more_is_granted() {
    let (mut pair, id) = subscribed(limits(), wanted());
    assert!(pair.server.notify(pair.now, id, told(0, 1)));
    assert!(pair.server.notify(pair.now, id, told(1, 3)));
    assert_eq!(pair.server.may_notify(id), Some(false), "the credit is used up");
    assert!(!pair.server.notify(pair.now, id, told(3, 4)));
    pair.run();
    let notice = |notice| ClientEvent::Notice { request_id: id, notice };
    assert_eq!(pair.client_events, [notice(told(0, 1)), notice(told(1, 3))]);
    pair.client_events.clear();
    pair.client.grant(pair.now, id, 1).unwrap();
    pair.run();
    assert_eq!(pair.server_events, [ServerEvent::Granted { request_id: id }]);
    assert!(pair.server.notify(pair.now, id, told(3, 4)));
    pair.run();
    assert_eq!(pair.client_events, [notice(told(3, 4))]);
    assert_eq!(pair.client.in_flight().requests, 0, "a subscription takes no credit of requests");
}

#[test]
fn a_subscriber_that_does_not_read_is_sent_no_more_than_its_mark_holds() {
    let limits = SessionLimits { output_bytes_high: 2_000, ..limits() };
    let (mut pair, id) = subscribed(limits, Subscribe { credit: CREDIT_MAX, ..wanted() });
    pair.pipe_bytes = 0;
    let mut sent = 0;
    while pair.server.notify(pair.now, id, told(sent, sent + 10)) {
        sent += 10;
    }
    assert!(pair.server.output_bytes() < 2_000 + 500, "{}", pair.server.output_bytes());
    assert_eq!(pair.server.may_notify(id), Some(false));
    // And it is not waited for, for ever: it granted what it does not take.
    pair.advance(11 * SECOND);
    assert_eq!(pair.server.failure(), Some(ErrorCode::SlowPeer));
    assert_eq!(pair.server.may_notify(id), None);
}

#[test]
fn a_subscriber_that_grants_nothing_more_keeps_its_subscription_for_as_long_as_it_lives() {
    let (mut pair, id) = subscribed(limits(), Subscribe { credit: 1, ..wanted() });
    assert!(pair.server.notify(pair.now, id, told(0, 1)));
    // The keep-alive of the client answers for it.
    pair.advance(3_600 * SECOND);
    for event in std::mem::take(&mut pair.server_events) {
        let ServerEvent::GetStatus { .. } = event else { panic!("{event:?}") };
    }
    assert_eq!(pair.server.may_notify(id), Some(false));
    assert_eq!(pair.server.subscriptions(), 1);
}

#[test]
fn a_subscriber_that_gives_no_sign_of_life_is_idle_like_any_other_session() {
    let (mut pair, id) = subscribed(limits(), wanted());
    // Nothing of what its machine says for it leaves.
    pair.pipe_bytes = 0;
    pair.advance(limits().idle_timeout + SECOND);
    assert_eq!(pair.server.failure(), Some(ErrorCode::Idle));
    assert_eq!(pair.server.may_notify(id), None);
}

#[test]
fn an_ended_subscription_is_told_nothing_more_and_its_place_is_free() {
    let (mut pair, id) = subscribed(SessionLimits { subscriptions_max: 1, ..limits() }, wanted());
    let limit = RequestError::Subscriptions { limit: 1 };
    assert_eq!(pair.client.subscribe(pair.now, wanted()).unwrap_err(), limit);
    // On its way when the client lets go.
    assert!(pair.server.notify(pair.now, id, told(0, 1)));
    pair.client.unsubscribe(pair.now, id);
    pair.client.unsubscribe(pair.now, id);
    pair.run();
    assert_eq!(pair.server_events, [ServerEvent::Unsubscribe { request_id: id }]);
    assert_eq!(pair.client_events, [ClientEvent::Unsubscribed { request_id: id }]);
    assert!(!pair.server.notify(pair.now, id, told(1, 2)));
    assert_eq!(pair.client.grant(pair.now, id, 1), Err(RequestError::NotOpen));
    assert!(pair.client.subscribe(pair.now, wanted()).is_ok());
}

#[test]
fn a_client_that_subscribes_and_ends_it_in_one_breath_makes_the_node_do_nothing() {
    let mut pair = Pair::open(limits());
    pair.client_reads = false;
    for request_id in 1..=1_000 {
        pair.inject_frame(&Frame::Subscribe { request_id, subscribe: wanted() });
        pair.inject_frame(&Frame::Unsubscribe { request_id });
    }
    pair.run();
    assert_eq!((pair.server.subscriptions(), pair.server_events.len()), (0, 0));
    assert_eq!(pair.server.failure(), None);
    // Grants in small pieces are one event until the node has looked.
    let (mut pair, id) = subscribed(limits(), wanted());
    (0..100).for_each(|_| pair.client.grant(pair.now, id, 1).unwrap());
    pair.run();
    assert_eq!(pair.server_events, [ServerEvent::Granted { request_id: id }]);
}

#[test]
fn an_end_that_crosses_the_nodes_own_is_an_end_all_the_same() {
    let (mut pair, id) = subscribed(limits(), wanted());
    pair.client.unsubscribe(pair.now, id);
    assert!(pair.server.end_subscription(pair.now, WireError::new(id, ErrorCode::Internal, 0, "lost")));
    pair.run();
    assert_eq!(pair.client_events, [ClientEvent::Unsubscribed { request_id: id }]);
    assert_eq!((pair.server_events.len(), pair.server.failure()), (0, None));
}

#[test]
fn a_subscription_that_the_node_refuses_or_ends_ends_alone() {
    let mut pair = Pair::open(limits());
    let refused = pair.client.subscribe(pair.now, wanted()).unwrap();
    let ended = pair.client.subscribe(pair.now, wanted()).unwrap();
    pair.run();
    assert!(pair.server.end_subscription(pair.now, WireError::new(refused, ErrorCode::NotFound, 0, "no")));
    assert!(pair.server.subscribed(pair.now, ended, vec![0]));
    assert!(pair.server.notify(pair.now, ended, told(0, 1)));
    assert!(pair.server.end_subscription(pair.now, WireError::new(ended, ErrorCode::Internal, 0, "lost")));
    assert!(!pair.server.end_subscription(pair.now, WireError::new(ended, ErrorCode::Internal, 0, "lost")));
    // It crosses the end on its way, and is let pass.
    pair.client.grant(pair.now, ended, 1).unwrap();
    pair.run();
    let failed: Vec<u64> = pair
        .client_events
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Failed(error) => Some(error.request_id),
            _ => None,
        })
        .collect();
    assert_eq!(failed, [refused, ended]);
    let id = pair.client.get_status(pair.now).unwrap();
    pair.run();
    assert!(
        matches!(pair.server_events.last(), Some(ServerEvent::GetStatus { request_id }) if *request_id == id)
    );
}

#[test]
fn a_client_beyond_the_limit_is_told_so_and_its_session_goes_on() {
    let mut pair = Pair::open(limits());
    // Whatever it is told: it asked beside its own machine.
    pair.client_reads = false;
    for request_id in 1..=3 {
        pair.inject_frame(&Frame::Subscribe { request_id, subscribe: wanted() });
    }
    pair.run();
    assert_eq!(pair.server.subscriptions(), 2);
    assert_eq!(pair.server_events.len(), 2);
    assert_eq!(pair.server.failure(), None);
    let sent = String::from_utf8_lossy(&pair.server_sent).into_owned();
    assert!(sent.contains("3 subscriptions; the limit of a connection is 2"), "{sent:?}");
}

#[test]
fn credit_without_end_and_numbers_never_used_end_the_session() {
    for frame in [
        Frame::Grant { request_id: 1, credit: CREDIT_MAX },
        Frame::Grant { request_id: 9, credit: 1 },
        Frame::Unsubscribe { request_id: 9 },
        Frame::Subscribe { request_id: 1, subscribe: wanted() },
        Frame::Subscribed { request_id: 1, starts: vec![0] },
        Frame::Notice { request_id: 1, notice: told(0, 1) },
    ] {
        let (mut pair, id) = subscribed(limits(), wanted());
        assert_eq!(id, 1);
        pair.inject_frame(&frame);
        pair.run();
        assert_eq!(pair.server.failure(), Some(ErrorCode::BadFrame), "{:?}", frame.kind());
        assert_eq!(pair.server.may_notify(id), None);
    }
}

#[test]
fn a_node_that_tells_out_of_turn_is_at_fault() {
    let many = Notice::Decided(vec![(Place(3), Outcome::Accepted)]);
    let cases = [
        (Frame::Notice { request_id: 1, notice: told(1, 2) }, "leaves positions out"),
        (Frame::Notice { request_id: 1, notice: many }, "not open"),
        (Frame::Notice { request_id: 2, notice: told(0, 1) }, "nobody asked for"),
        (Frame::Subscribed { request_id: 1, starts: vec![0] }, "not asked for"),
        (Frame::Unsubscribed { request_id: 1 }, "nobody asked for"),
    ];
    for (frame, why) in cases {
        let (mut pair, _) = subscribed(limits(), wanted());
        pair.inject_to_client(&frame);
        pair.run();
        let end = pair.client_end().unwrap();
        assert!(matches!(end, SessionEnd::Mismatch(text) if text.contains(why)), "{end:?}");
    }
    // Beyond the credit; messages where only sizes were asked for.
    let (mut pair, _) = subscribed(limits(), Subscribe { credit: 1, ..wanted() });
    pair.inject_to_client(&Frame::Notice { request_id: 1, notice: told(0, 1) });
    pair.inject_to_client(&Frame::Notice { request_id: 1, notice: told(1, 2) });
    pair.run();
    assert_eq!(pair.client_end(), Some(&SessionEnd::Mismatch("a notice beyond the credit")));
    let (mut pair, _) = subscribed(limits(), Subscribe { messages: None, ..wanted() });
    pair.inject_to_client(&Frame::Notice { request_id: 1, notice: told(0, 1) });
    pair.run();
    assert_eq!(pair.client_end(), Some(&SessionEnd::Mismatch("messages that nobody asked for")));
}

#[test]
fn a_notice_that_no_frame_can_hold_is_the_nodes_fault_and_ends_the_subscription() {
    let (mut pair, id) = subscribed(limits(), wanted());
    assert!(!pair.server.notify(pair.now, id, told(0, 1_025)));
    pair.run();
    assert!(
        matches!(&pair.client_events[..], [ClientEvent::Failed(error)] if error.code == ErrorCode::Internal)
    );
    assert!(encoded(&Frame::Notice { request_id: 1, notice: told(0, 1_024) }).len() <= NOTICE_BYTES_MAX + 5);
}

#[test]
fn a_session_that_closes_waits_for_replies_and_not_for_subscriptions() {
    let (mut pair, id) = subscribed(limits(), wanted());
    pair.client.close(pair.now);
    pair.run();
    assert_eq!(pair.client_end(), Some(&SessionEnd::Done));
    assert_eq!(pair.server.may_notify(id), None);
    // And one that the node closes.
    let (mut pair, id) = subscribed(limits(), wanted());
    pair.server.shut_down(pair.now);
    assert_eq!(pair.server.may_notify(id), None);
    pair.run();
    assert_eq!(pair.client_end(), Some(&SessionEnd::ShutDown));
    let close = Frame::Close(CloseReason::ShuttingDown);
    assert!(pair.server_sent.ends_with(&encoded(&close)));
}

// ---------- over QUIC

/// A node whose one lane has as many final messages as `size` says, each at its position.
struct Teller {
    size: Arc<AtomicU64>,
    /// Messages in a notice, at most.
    step: u64,
}

struct Source {
    size: Arc<AtomicU64>,
    next: u64,
    step: u64,
}

impl NoticeSource for Source {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Notice, Refusal>> + Send + '_>> {
        Box::pin(async move {
            loop {
                let size = self.size.load(Ordering::SeqCst);
                if size == u64::MAX {
                    return Err(Refusal::internal("as you wish"));
                }
                if size > self.next {
                    let (from, to) = (self.next, size.min(self.next + self.step));
                    self.next = to;
                    return Ok(told(from, to));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }
}

impl Service for Teller {
    fn welcome(&self) -> WelcomeInfo {
        welcome_info()
    }

    async fn submit(&self, _: Submit, _: SessionHandle) -> Result<(), Refusal> {
        Err(Refusal::internal("no"))
    }

    async fn tips(&self, _: usize) -> Result<Vec<MessageId>, Refusal> {
        Ok(Vec::new())
    }

    async fn get(&self, _: Vec<MessageId>) -> Result<Vec<Option<Found>>, Refusal> {
        Err(Refusal::internal("no"))
    }

    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            state: NodeState::Live,
            uptime_us: 5,
            accepted_total: 0,
            rejected_total: 0,
            queue_messages: 0,
            queue_messages_max: 10,
            durable_age_us: u64::MAX,
            flags: 0,
            lane: LaneId(0),
            witnesses_total: 0,
            round_us: 0,
            acks_waiting: 0,
            lanes: Vec::new(),
        })
    }

    async fn subscribe(&self, wanted: Subscribe) -> Result<Confirmations, Refusal> {
        let next = wanted.positions.first().map_or(0, |(_, position)| *position);
        let source = Source { size: self.size.clone(), next, step: self.step };
        Ok(Confirmations { starts: vec![next], source: Box::new(source) })
    }
}

fn serve(limits: ServerLimits, step: u64) -> (ServerHandle, Arc<AtomicU64>) {
    let size = Arc::new(AtomicU64::new(0));
    let identity = Identity::ephemeral().unwrap();
    let config = ServerConfig { limits, ..ServerConfig::new("127.0.0.1:0".parse().unwrap(), identity) };
    let server = Server::bind(config, Arc::new(Teller { size: size.clone(), step })).unwrap();
    (server, size)
}

async fn open(server: &ServerHandle) -> (Client, Session) {
    let trust = Trust::Pin(server.fingerprint());
    let client = Client::connect(ClientConfig::new(server.local_addr().unwrap(), trust)).await.unwrap();
    let session = client.open_session(SessionOptions::default()).await.unwrap();
    (client, session)
}

/// Waits until as many subscriptions are open as wanted.
async fn until(server: &ServerHandle, subscriptions: u32) {
    for _ in 0..2_000 {
        if server.stats().subscriptions == subscriptions {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?}", server.stats());
}

#[tokio::test]
async fn a_subscriber_hears_everything_once_and_goes_on_from_its_bookmark() {
    let (server, size) = serve(ServerLimits::default(), 100);
    let (client, session) = open(&server).await;
    assert_eq!(session.welcome().subscriptions_max, 4);
    let mut subscription = session.subscribe(wanted()).await.unwrap();
    size.store(1_000, Ordering::SeqCst);
    let mut reference = Bookmark::new(&[0], &[]);
    for _ in 0..5 {
        reference.take(&subscription.next().await.unwrap()).unwrap();
    }
    let resume = subscription.resume();
    assert_eq!(resume.positions, [(LaneId(0), 500)]);
    drop((client, session, subscription));
    let (_client, session) = open(&server).await;
    let mut subscription = session.subscribe(resume).await.unwrap();
    for _ in 0..5 {
        reference.take(&subscription.next().await.unwrap()).unwrap();
    }
    assert_eq!(reference.positions().next(), Some((LaneId(0), 1_000)));
    // Nothing more is there, and the wait for it may be given up and begun again.
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(20), subscription.next()).await.is_err());
    }
    size.store(1_001, Ordering::SeqCst);
    reference.take(&subscription.next().await.unwrap()).unwrap();
    size.store(u64::MAX, Ordering::SeqCst);
    for _ in 0..2 {
        let end = subscription.next().await.unwrap_err();
        assert!(matches!(&end, NetError::Request(error) if error.code == ErrorCode::Internal), "{end:?}");
    }
    assert!(session.status().await.is_ok(), "the session goes on");
    until(&server, 0).await;
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_holds_up_neither_its_session_nor_others() {
    let (server, size) = serve(ServerLimits::default(), 1_024);
    let (_client, session) = open(&server).await;
    let _slow = session.subscribe(Subscribe { credit: 64, ..wanted() }).await.unwrap();
    let mut fast = session.subscribe(wanted()).await.unwrap();
    size.store(1_024 * 1_000, Ordering::SeqCst);
    let mut reference = Bookmark::new(&[0], &[]);
    for _ in 0..1_000 {
        reference.take(&fast.next().await.unwrap()).unwrap();
    }
    assert!(session.status().await.is_ok());
    assert_eq!(server.stats().failed(ErrorCode::SlowPeer), 0);
}

#[tokio::test]
async fn subscriptions_are_bounded_by_connection_and_in_all_and_a_dropped_one_frees_its_place() {
    let session = SessionLimits { subscriptions_max: 2, ..SessionLimits::default() };
    let (server, _) = serve(ServerLimits { session, subscriptions_max: 3, ..ServerLimits::default() }, 1);
    let overloaded = |error: NetError| {
        assert!(
            matches!(&error, NetError::Request(error) if error.code == ErrorCode::Overloaded),
            "{error:?}"
        );
    };
    let (client, session) = open(&server).await;
    let first = session.subscribe(wanted()).await.unwrap();
    let _second = session.subscribe(wanted()).await.unwrap();
    let limit = NetError::Invalid(RequestError::Subscriptions { limit: 2 });
    assert_eq!(session.subscribe(wanted()).await.unwrap_err().to_string(), limit.to_string());
    // A second session of the connection has no places of its own.
    let beside = client.open_session(SessionOptions::default()).await.unwrap();
    overloaded(beside.subscribe(wanted()).await.unwrap_err());
    let (_other_client, other) = open(&server).await;
    let _third = other.subscribe(wanted()).await.unwrap();
    overloaded(other.subscribe(wanted()).await.unwrap_err());
    // The place is free for the same session as soon as the end is told, and for others then.
    drop(first);
    let again = loop {
        match session.subscribe(wanted()).await {
            Ok(again) => break again,
            // Its end is not told yet.
            Err(NetError::Invalid(RequestError::Subscriptions { limit: 2 })) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    };
    drop(again);
    until(&server, 2).await;
    let _fourth = other.subscribe(wanted()).await.unwrap();
    // A connection that is gone leaves no subscription behind.
    drop((beside, session, _second));
    client.close().await;
    until(&server, 2).await;
}

#[tokio::test]
async fn a_server_that_goes_down_ends_its_subscriptions_and_waits_for_none() {
    let (server, size) = serve(ServerLimits::default(), 1);
    let (_client, session) = open(&server).await;
    let mut subscription = session.subscribe(wanted()).await.unwrap();
    size.store(1, Ordering::SeqCst);
    subscription.next().await.unwrap();
    let report = server.shutdown(5 * SECOND).await;
    assert_eq!((report.sessions_drained, report.sessions_cut), (1, 0));
    let end = subscription.next().await.unwrap_err();
    assert!(matches!(end, NetError::Session(SessionEnd::ShutDown)), "{end:?}");
}
