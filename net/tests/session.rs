//! Sessions on virtual time: what an honest pair does, what a bad peer gets, and when deadlines strike.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use support::pair::{Pair, options};
use support::{NETWORK, ack, welcome_info};
use weft_core::receipt::RECEIPT_BYTES_MAX;
use weft_core::{DeviceKey, LaneId, MessageId, NetworkId, Place, Reason, Rejection};
use weft_net::frame::{CloseReason, Frame, Hello};
use weft_net::limits::MESSAGES_BYTES_MAX;
use weft_net::session::{ClientEvent, ClientOptions, End, ServerEvent};
use weft_net::{
    Ack, AckException, AckLevel, Answer, Credit, ErrorCode, Found, Lookup, NodeState, Query, RequestError,
    SessionEnd, SessionLimits, Status, Submit, WireError,
};

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> SessionLimits {
    SessionLimits { frame_bytes_max: 64 << 10, ..SessionLimits::default() }
}

fn status() -> Status {
    Status {
        state: NodeState::Live,
        uptime_us: 1,
        accepted_total: 2,
        rejected_total: 3,
        queue_messages: 4,
        queue_messages_max: 5,
        durable_age_us: 6,
        flags: 0,
        lane: LaneId(0),
        witnesses_total: 0,
        round_us: 0,
        acks_waiting: 0,
        lanes: Vec::new(),
    }
}

/// The code with which the server ended the session.
fn refused(pair: &Pair) -> Option<ErrorCode> {
    match pair.client_end() {
        Some(SessionEnd::Refused(error)) => Some(error.code),
        _ => None,
    }
}

#[test]
fn a_session_shakes_hands_submits_and_is_acked() {
    let mut pair = Pair::open(limits());
    let id = pair.submit(&[184, 200, 0]);
    pair.run();
    let ServerEvent::Submit(submit) = pair.server_events.remove(0) else { panic!() };
    assert_eq!(submit.lengths().collect::<Vec<_>>(), [184, 200, 0]);
    let sent = Ack {
        exceptions: vec![AckException::new(2, Rejection { reason: Reason::Truncated, got: 0, limit: 184 })],
        ..ack(id, 3, AckLevel::Durable)
    };
    assert!(pair.server.ack(pair.now, sent.clone()));
    pair.run();
    assert_eq!(sent.accepted(), 2);
    assert_eq!(pair.client_events, [ClientEvent::Ack(sent)]);
    assert_eq!(pair.client.in_flight(), Credit::default());
    assert_eq!(pair.server.in_flight(), Credit::default());
}

#[test]
fn welcome_carries_the_limits_and_the_time_of_the_node() {
    let mut pair = Pair::new(limits(), options());
    pair.now += 3 * SECOND;
    pair.run();
    let [ClientEvent::Welcomed(welcome)] = &pair.client_events[..] else { panic!() };
    assert_eq!(welcome.frame_bytes_max, 64 << 10);
    assert_eq!(welcome.ack_level, AckLevel::Durable);
    assert_eq!(welcome.server_time_us, welcome_info().now_us + 3_000_000);
    assert_eq!(welcome.genesis.network(), NETWORK);
}

#[test]
fn a_client_of_any_network_is_welcome() {
    let mut pair = Pair::new(limits(), ClientOptions { network: None, ..options() });
    pair.run();
    assert!(matches!(pair.client_events[..], [ClientEvent::Welcomed(_)]));
}

#[test]
fn a_client_of_another_network_is_told_both_and_sent_away() {
    let mut pair = Pair::new(limits(), ClientOptions { network: Some(NetworkId([1, 2, 3, 4])), ..options() });
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::WrongNetwork));
    let text = pair.client_end().unwrap().to_string();
    assert!(text.contains("a1b2c3d4") && text.contains("01020304"), "{text}");
    assert_eq!(pair.server.end(), Some(End::Finish));
    assert!(pair.server_events.is_empty());
}

#[test]
fn a_level_that_the_node_cannot_promise_is_refused_and_not_lowered() {
    let mut pair = Pair::new(limits(), ClientOptions { ack_level: AckLevel::Certified, ..options() });
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::UnsupportedAckLevel));
}

#[test]
fn a_request_before_hello_ends_the_session() {
    let mut pair = Pair::new(limits(), options());
    pair.inject_frame(&Frame::GetStatus { request_id: 1 });
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::BadFrame));
    assert!(pair.server_events.is_empty());
}

#[test]
fn a_second_hello_ends_the_session() {
    let mut pair = Pair::open(limits());
    pair.inject_frame(&Frame::Hello(Hello { ack_level: AckLevel::Durable, network: NETWORK }));
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::BadFrame));
}

#[test]
fn a_frame_that_only_servers_send_ends_the_session() {
    let mut pair = Pair::open(limits());
    pair.inject_frame(&Frame::Ack(ack(1, 1, AckLevel::Durable)));
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::BadFrame));
}

#[test]
fn an_oversized_frame_ends_the_session_before_its_bytes_come() {
    let mut pair = Pair::open(limits());
    pair.inject(&[0, 0, 16, 0, 3]);
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::TooLarge));
    let text = pair.client_end().unwrap().to_string();
    assert!(text.contains("1048576") && text.contains("65536"), "{text}");
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_a_bad_frame() {
    let mut pair = Pair::open(limits());
    pair.inject(&[8, 0, 0, 0, 9, 1, 0]);
    pair.finish_client();
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::BadFrame));
}

#[test]
fn request_ids_must_rise() {
    let mut pair = Pair::open(limits());
    pair.inject_frame(&Frame::GetStatus { request_id: 5 });
    pair.inject_frame(&Frame::GetStatus { request_id: 5 });
    pair.run();
    assert_eq!(refused(&pair), Some(ErrorCode::BadFrame));
}

#[test]
fn queries_are_answered_out_of_order() {
    let mut pair = Pair::open(limits());
    let now = pair.now;
    let tips = pair.client.get_tips(now, 4).unwrap();
    let get = pair.client.get_messages(now, vec![MessageId([1; 32]), MessageId([2; 32])]).unwrap();
    let ask = pair.client.get_status(now).unwrap();
    pair.run();
    assert_eq!(
        pair.server_events,
        [
            ServerEvent::GetTips { request_id: tips, count: 4 },
            ServerEvent::GetMessages { request_id: get, ids: vec![MessageId([1; 32]), MessageId([2; 32])] },
            ServerEvent::GetStatus { request_id: ask },
        ]
    );
    let found = Found { place: Place(3), bytes: Bytes::from_static(b"message") };
    assert!(pair.server.status(now, ask, status()));
    assert!(pair.server.messages(now, get, vec![None, Some(found.clone())]));
    assert!(pair.server.tips(now, tips, vec![MessageId([3; 32])]));
    assert!(!pair.server.tips(now, tips, Vec::new()), "answered twice");
    pair.run();
    assert_eq!(
        pair.client_events,
        [
            ClientEvent::Status { request_id: ask, status: status() },
            ClientEvent::Messages { request_id: get, answers: vec![Lookup::Absent, Lookup::Found(found)] },
            ClientEvent::Tips { request_id: tips, tips: vec![MessageId([3; 32])] },
        ]
    );
}

#[test]
fn a_query_is_answered_by_an_answer_of_its_kind_and_no_other() {
    let mut pair = Pair::open(limits());
    let now = pair.now;
    let receipt = Query::Receipt { id: MessageId([1; 32]), size: 0 };
    let first = pair.client.query(now, receipt.clone()).unwrap();
    let second = pair.client.query(now, Query::Account { account: DeviceKey([2; 32]) }).unwrap();
    let third = pair.client.query(now, receipt.clone()).unwrap();
    pair.run();
    assert_eq!(pair.server_events[0], ServerEvent::Query { request_id: first, query: receipt });
    assert_eq!(pair.server_events.len(), 3);
    let text = Answer::Receipt(Bytes::from_static(b"text"));
    assert!(pair.server.answer(now, first, text.clone()));
    assert!(!pair.server.answer(now, first, text.clone()), "answered twice");
    // An answer of another kind, and one that no frame holds, are faults of the node, which the client is told.
    assert!(pair.server.answer(now, second, text.clone()));
    assert!(pair.server.answer(now, third, Answer::Receipt(vec![0; RECEIPT_BYTES_MAX + 1].into())));
    pair.run();
    let fault = |request_id| {
        let text = "the node's answer does not fit the query";
        ClientEvent::Failed(WireError::new(request_id, ErrorCode::Internal, 0, text))
    };
    assert_eq!(
        pair.client_events,
        [ClientEvent::Answer { request_id: first, answer: text }, fault(second), fault(third)]
    );
    assert_eq!(pair.client.in_flight(), Credit::default());
}

#[test]
fn an_answer_to_another_kind_of_query_ends_the_session_as_a_fault_of_the_node() {
    let mut pair = Pair::open(limits());
    let asked = pair.client.query(pair.now, Query::Account { account: DeviceKey([2; 32]) }).unwrap();
    let answer = Answer::Receipt(Bytes::from_static(b"text"));
    pair.inject_to_client(&Frame::Answer { request_id: asked, answer });
    pair.run();
    assert_eq!(pair.client_end(), Some(&SessionEnd::Mismatch("no such request is open")));
}

#[test]
fn a_refused_submit_leaves_the_session_open() {
    let mut pair = Pair::open(limits());
    let id = pair.submit(&[10]);
    pair.run();
    let error = WireError::new(id, ErrorCode::Overloaded, 70, "full");
    assert!(pair.server.refuse(pair.now, error.clone()));
    pair.run();
    assert_eq!(pair.client_events, [ClientEvent::Failed(error)]);
    pair.submit(&[10]);
    pair.run();
    assert_eq!(pair.server.in_flight().messages, 1);
}

#[test]
fn an_honest_client_waits_when_its_credit_is_used_up() {
    let mut pair = Pair::open(SessionLimits { inflight_messages_max: 5, ..limits() });
    let first = pair.submit(&[1, 1, 1]);
    let error = pair.client.submit(pair.now, &[1, 1, 1], Bytes::from_static(b"abc")).unwrap_err();
    let RequestError::NoCredit { got, limit } = error else { panic!("{error}") };
    assert_eq!((got.messages, limit.messages), (6, 5));
    // What can never fit is said at once, with the figures.
    let error = pair.client.submit(pair.now, &[1; 6], Bytes::from_static(b"abcdef")).unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { got: 6, limit: 5, .. }), "{error}");
    pair.run();
    assert!(pair.server.ack(pair.now, ack(first, 3, AckLevel::Durable)));
    pair.run();
    pair.submit(&[1, 1, 1]);
}

#[test]
fn a_client_beyond_its_credit_is_told_overloaded_and_when_to_come_back() {
    let mut pair = Pair::open(SessionLimits { inflight_requests_max: 2, ..limits() });
    // Whatever the third request is: the node never sees it.
    for request_id in 1..=3 {
        let submit = Submit::new(request_id, &[4], Bytes::from_static(b"abcd")).unwrap();
        pair.inject_frame(&Frame::Submit(submit));
    }
    pair.client_reads = false;
    pair.run();
    assert_eq!(pair.server_events.len(), 2);
    let error = last_error(&pair.server_sent);
    assert_eq!((error.request_id, error.code, error.retry_after_ms), (3, ErrorCode::Overloaded, 50));
    assert!(error.text.contains("3 requests") && error.text.contains("limits 2"), "{}", error.text);
    assert!(!pair.server.is_over());
}

/// The last Error among these frames.
fn last_error(mut bytes: &[u8]) -> WireError {
    let mut reader = weft_net::reader::FrameReader::new(1 << 24, |_| true);
    let mut last = None;
    while let Some(frame) = reader.next(&mut bytes).unwrap() {
        if let Frame::Error(error) = frame {
            last = Some(error);
        }
    }
    last.unwrap()
}

#[test]
fn a_peer_that_floods_beyond_its_credit_and_reads_nothing_makes_little_pile_up() {
    // 100,000 queries, each of which is refused with an error several times its size. Nothing is read.
    let limits = SessionLimits { inflight_requests_max: 2, output_bytes_high: 16 << 10, ..limits() };
    let mut pair = Pair::open(limits.clone());
    pair.client_reads = false;
    pair.pipe_bytes = 1_000;
    for request_id in 1..=100_000 {
        pair.inject_frame(&Frame::GetStatus { request_id });
    }
    pair.run();
    assert!(!pair.server.wants_input());
    assert!(pair.server.output_bytes() < limits.output_bytes_high + 1_000, "{}", pair.server.output_bytes());
    pair.advance(limits.slow_peer_timeout + SECOND);
    assert_eq!(pair.server.end(), Some(End::Reset(ErrorCode::SlowPeer)));
    assert_eq!(pair.server.output_bytes(), 0);
}

#[test]
fn a_client_that_never_reads_its_acks_is_reset_and_its_memory_freed() {
    let mut pair = Pair::open(limits());
    pair.client_reads = false;
    pair.pipe_bytes = 100;
    let ids: Vec<_> = (0..50).map(|_| pair.submit(&[10])).collect();
    // Its requests come through, since the pipe up is read.
    pair.run();
    for id in ids {
        assert!(pair.server.ack(pair.now, ack(id, 1, AckLevel::Durable)));
    }
    pair.run();
    assert!(pair.server.output_bytes() > 0);
    pair.advance(9 * SECOND);
    assert_eq!(pair.server.end(), None);
    pair.advance(2 * SECOND);
    assert_eq!(pair.server.end(), Some(End::Reset(ErrorCode::SlowPeer)));
    assert_eq!(pair.server.failure(), Some(ErrorCode::SlowPeer));
    assert_eq!(pair.server.output_bytes(), 0);
    assert_eq!(pair.client_end(), Some(&SessionEnd::Reset(ErrorCode::SlowPeer)));
}

#[test]
fn a_peer_that_takes_a_little_now_and_then_is_not_slow() {
    let mut pair = Pair::open(limits());
    pair.pipe_bytes = 64;
    pair.client_reads = false;
    let id = pair.submit(&[10]);
    pair.run();
    let exceptions = (0..1).map(|index| AckException { index, code: 1, got: 0, limit: 0 }).collect();
    assert!(pair.server.ack(
        pair.now,
        Ack { exceptions, tips: vec![MessageId([1; 32]); 16], ..ack(id, 1, AckLevel::Durable) }
    ));
    while !matches!(pair.client_events.last(), Some(ClientEvent::Ack(_))) {
        pair.advance(8 * SECOND);
        assert_eq!(pair.server.end(), None);
        pair.client_reads = true;
        pair.step();
        pair.client_reads = false;
    }
    pair.client_reads = true;
    pair.advance(SECOND);
    assert_eq!(pair.server.output_bytes(), 0);
}

#[test]
fn a_stream_without_hello_is_given_up() {
    let mut pair = Pair::new(limits(), options());
    // The client's Hello is withheld.
    let deadline = pair.server.poll_timeout().unwrap();
    pair.now = deadline - Duration::from_micros(1);
    pair.server.handle_timeout(pair.now);
    assert_eq!(pair.server.failure(), None);
    pair.now = deadline;
    pair.server.handle_timeout(pair.now);
    assert_eq!(pair.server.failure(), Some(ErrorCode::HelloTimeout));
}

#[test]
fn a_deadline_beyond_all_clocks_is_no_deadline() {
    let limits = SessionLimits {
        hello_timeout: Duration::MAX,
        idle_timeout: Duration::MAX,
        slow_peer_timeout: Duration::MAX,
        ..limits()
    };
    let mut pair = Pair::new(limits, ClientOptions { welcome_timeout: Duration::MAX, ..options() });
    pair.advance(1_000_000 * SECOND);
    assert!(matches!(pair.client_events[..], [ClientEvent::Welcomed(_)]));
    assert_eq!(pair.server.poll_timeout(), None);
}

#[test]
fn a_silent_client_is_idle_and_one_that_trickles_half_a_frame_too() {
    for trickle in [false, true] {
        let mut pair = Pair::new(limits(), ClientOptions { keep_alive: false, ..options() });
        pair.run();
        if trickle {
            pair.inject(&[100, 0, 0, 0, 3]);
        }
        for _ in 0..29 {
            pair.advance(10 * SECOND);
            assert_eq!(pair.server.failure(), None);
            if trickle {
                pair.inject(&[1]);
            }
        }
        pair.advance(11 * SECOND);
        assert_eq!(refused(&pair), Some(ErrorCode::Idle), "trickle {trickle}");
    }
}

#[test]
fn a_client_that_keeps_alive_stays_for_days_without_telling_its_user() {
    let mut pair = Pair::open(limits());
    let mut asked = 0;
    for _ in 0..1_000 {
        pair.advance(100 * SECOND);
        for event in std::mem::take(&mut pair.server_events) {
            let ServerEvent::GetStatus { request_id } = event else { panic!("{event:?}") };
            assert!(pair.server.status(pair.now, request_id, status()));
            asked += 1;
        }
    }
    assert!((500..=1_000).contains(&asked), "{asked}");
    assert_eq!(pair.server.failure(), None);
    assert!(pair.client_events.is_empty(), "{:?}", pair.client_events);
}

#[test]
fn a_session_with_requests_in_flight_is_not_idle() {
    let mut pair = Pair::new(limits(), ClientOptions { keep_alive: false, ..options() });
    pair.run();
    let id = pair.submit(&[10]);
    pair.advance(1_000 * SECOND);
    assert_eq!(pair.server.failure(), None);
    assert!(pair.server.ack(pair.now, ack(id, 1, AckLevel::Durable)));
    pair.advance(299 * SECOND);
    assert_eq!(pair.server.failure(), None);
    pair.advance(2 * SECOND);
    assert_eq!(refused(&pair), Some(ErrorCode::Idle));
}

#[test]
fn a_client_without_welcome_gives_up() {
    let mut pair = Pair::new(limits(), options());
    pair.client_reads = false;
    pair.run();
    pair.now += 11 * SECOND;
    pair.client.handle_timeout(pair.now);
    assert!(matches!(pair.client.poll(), Some(ClientEvent::Ended(SessionEnd::WelcomeTimeout(_)))));
    assert_eq!(pair.client.end(), Some(End::Reset(ErrorCode::HelloTimeout)));
}

#[test]
fn a_client_that_closes_still_gets_its_acks() {
    let mut pair = Pair::open(limits());
    let id = pair.submit(&[10]);
    pair.client.close(pair.now);
    assert_eq!(pair.client.submit(pair.now, &[1], Bytes::from_static(b"x")), Err(RequestError::NotOpen));
    pair.run();
    assert_eq!(pair.client_end(), None);
    assert!(pair.server.ack(pair.now, ack(id, 1, AckLevel::Durable)));
    pair.run();
    assert!(matches!(pair.client_events[..], [ClientEvent::Ack(_), ClientEvent::Ended(SessionEnd::Done)]));
    assert_eq!((pair.client.end(), pair.server.end()), (Some(End::Finish), Some(End::Finish)));
    assert_eq!(pair.server.failure(), None);
}

#[test]
fn a_stream_finished_without_close_is_a_close() {
    let mut pair = Pair::open(limits());
    pair.submit(&[10]);
    pair.run();
    pair.finish_client();
    pair.run();
    assert_eq!(pair.server.end(), None, "the ack is owed");
    assert!(pair.server.ack(pair.now, ack(1, 1, AckLevel::Durable)));
    pair.run();
    assert_eq!(pair.server.end(), Some(End::Finish));
}

#[test]
fn a_node_that_goes_down_answers_what_is_pending_and_refuses_the_rest() {
    let mut pair = Pair::open(limits());
    let id = pair.submit(&[10]);
    pair.run();
    pair.server.shut_down(pair.now);
    // On its way when the node said so.
    let late = pair.submit(&[20]);
    pair.run();
    assert_eq!(pair.server_events.len(), 1);
    assert!(pair.server.ack(pair.now, ack(id, 1, AckLevel::Durable)));
    pair.run();
    let [shutting_down, failed, acked, ended] = &pair.client_events[..] else {
        panic!("{:?}", pair.client_events)
    };
    assert_eq!(*shutting_down, ClientEvent::ShuttingDown);
    assert!(
        matches!(failed, ClientEvent::Failed(error) if error.request_id == late && error.code == ErrorCode::ShuttingDown)
    );
    assert!(matches!(acked, ClientEvent::Ack(ack) if ack.request_id == id));
    assert_eq!(*ended, ClientEvent::Ended(SessionEnd::ShutDown));
    assert_eq!(pair.server.end(), Some(End::Finish));
}

#[test]
fn an_ack_that_promises_less_than_asked_never_leaves_the_server() {
    for (level, count, indexes) in [
        (AckLevel::Written, 2, &[][..]),
        (AckLevel::Durable, 1, &[]),
        (AckLevel::Durable, 2, &[2]),
        (AckLevel::Durable, 2, &[1, 0]),
    ] {
        let mut pair = Pair::open(limits());
        let id = pair.submit(&[10, 10]);
        pair.run();
        let exceptions =
            indexes.iter().map(|&index| AckException { index, code: 1, got: 0, limit: 0 }).collect();
        assert!(pair.server.ack(pair.now, Ack { exceptions, ..ack(id, count, level) }));
        pair.run();
        let [ClientEvent::Failed(error)] = &pair.client_events[..] else {
            panic!("{:?}", pair.client_events)
        };
        assert_eq!((error.request_id, error.code), (id, ErrorCode::Internal));
    }
}

#[test]
fn a_server_that_acks_what_nobody_asked_is_left() {
    let good = ack(1, 2, AckLevel::Durable);
    for bad in [
        Frame::Ack(Ack { request_id: 9, ..good.clone() }),
        Frame::Ack(Ack { count: 1, ..good.clone() }),
        Frame::Ack(Ack { level: AckLevel::Received, ..good.clone() }),
        Frame::Tips { request_id: 1, tips: Vec::new() },
        Frame::Error(WireError::new(9, ErrorCode::Overloaded, 0, "")),
    ] {
        let mut pair = Pair::open(limits());
        assert_eq!(pair.submit(&[1, 1]), 1);
        pair.run();
        pair.inject_to_client(&bad);
        pair.run();
        assert!(matches!(pair.client_end(), Some(SessionEnd::Mismatch(_))), "{bad:?}");
        assert!(pair.server.is_over(), "the server was told");
    }
    let mut pair = Pair::open(limits());
    pair.submit(&[1, 1]);
    pair.run();
    pair.inject_to_client(&Frame::Ack(good.clone()));
    pair.inject_to_client(&Frame::Ack(good));
    pair.run();
    assert!(matches!(pair.client_events[0], ClientEvent::Ack(_)));
    assert!(matches!(pair.client_end(), Some(SessionEnd::Mismatch(_))), "a second ack for one Submit");
}

#[test]
fn a_server_that_answers_too_much_is_left() {
    let mut pair = Pair::open(limits());
    pair.client.get_tips(pair.now, 1).unwrap();
    pair.run();
    pair.inject_to_client(&Frame::Tips { request_id: 1, tips: vec![MessageId([0; 32]); 2] });
    pair.run();
    assert!(matches!(pair.client_end(), Some(SessionEnd::Mismatch(_))));
}

#[test]
fn replies_of_the_largest_size_keep_the_output_within_its_bound() {
    let limits = limits();
    let mut pair = Pair::open(limits.clone());
    pair.client_reads = false;
    pair.pipe_bytes = 10;
    let now = pair.now;
    let wanted = vec![MessageId([0; 32]); 1_000];
    let ids: Vec<_> = (0..8).map(|_| pair.client.get_messages(now, wanted.clone()).unwrap()).collect();
    pair.pipe_bytes = usize::MAX;
    pair.run();
    pair.pipe_bytes = 10;
    // The glue asks one query at a time and stops reading above the mark; here the first reply alone is
    // beyond it.
    let found = Found { place: Place(1), bytes: vec![0; 16_568].into() };
    assert!(pair.server.messages(now, ids[0], vec![Some(found); 1_000]));
    assert!(!pair.server.wants_input());
    assert!(pair.server.output_bytes() <= MESSAGES_BYTES_MAX + 100);
    assert!((pair.server.output_bytes() as u64) < limits.output_bytes_max());
}

#[test]
fn a_close_reason_from_a_client_before_hello_just_ends() {
    let mut pair = Pair::new(limits(), options());
    pair.inject_frame(&Frame::Close(CloseReason::Done));
    pair.run();
    assert_eq!(pair.server.failure(), None);
    assert_eq!(pair.server.end(), Some(End::Finish));
}

/// A whole session: some submits and queries, answered as they come, then a close. Returns what both sides
/// saw.
fn whole_session(
    piece_bytes: usize,
    pipe_bytes: usize,
    lengths: &[Vec<u16>],
) -> (Vec<ClientEvent>, Vec<ServerEvent>) {
    let mut pair = Pair::new(limits(), options());
    (pair.piece_bytes, pair.pipe_bytes) = (piece_bytes, pipe_bytes);
    pair.run();
    for lengths in lengths {
        pair.submit(lengths);
        pair.client.get_tips(pair.now, 3).unwrap();
    }
    let mut seen = Vec::new();
    let mut closed = false;
    loop {
        let moved = pair.step();
        let now = pair.now;
        for event in std::mem::take(&mut pair.server_events) {
            match &event {
                ServerEvent::Submit(submit) => {
                    assert!(pair.server.ack(now, ack(submit.request_id(), submit.len(), AckLevel::Durable)));
                }
                ServerEvent::GetTips { request_id, .. } => {
                    assert!(pair.server.tips(now, *request_id, vec![MessageId([1; 32])]));
                }
                _ => {}
            }
            seen.push(event);
        }
        if !moved {
            if closed {
                break;
            }
            closed = true;
            pair.client.close(now);
        }
    }
    assert_eq!((pair.client.end(), pair.server.end()), (Some(End::Finish), Some(End::Finish)));
    (pair.client_events, seen)
}

#[test]
fn pieces_of_every_size_give_the_same_session() {
    let lengths = [vec![184, 0, 300], vec![1; 20], vec![5_000]];
    let whole = whole_session(usize::MAX, usize::MAX, &lengths);
    assert_eq!(whole.0.len(), 1 + 6 + 1, "{:?}", whole.0);
    for piece in 1..200 {
        assert!(whole_session(piece, usize::MAX, &lengths) == whole, "pieces of {piece} bytes");
    }
    for pipe in [1, 7, 100] {
        assert!(whole_session(usize::MAX, pipe, &lengths) == whole, "a pipe of {pipe} bytes");
    }
}

proptest! {
    #[test]
    fn random_pieces_give_the_same_session(
        piece in 1_usize..2_000,
        pipe in 1_usize..2_000,
        lengths in proptest::collection::vec(proptest::collection::vec(0_u16..600, 1..20), 1..6),
    ) {
        let whole = whole_session(usize::MAX, usize::MAX, &lengths);
        prop_assert!(whole_session(piece, pipe, &lengths) == whole);
    }

    #[test]
    fn no_bytes_make_either_side_panic_or_hold_more_than_its_bound(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        after_hello: bool,
    ) {
        let limits = limits();
        let mut pair = if after_hello { Pair::open(limits.clone()) } else { Pair::new(limits.clone(), options()) };
        let now = pair.now;
        for piece in &pieces {
            let taken = pair.server.handle_input(now, piece);
            prop_assert!(taken <= piece.len());
            pair.client.handle_input(now, piece);
            prop_assert!((pair.server.output_bytes() as u64) < limits.output_bytes_max());
        }
        // Five random bytes are no frame head but once in two million.
        prop_assert!(pieces.concat().len() < 5 || pair.server.is_over());
    }
}
