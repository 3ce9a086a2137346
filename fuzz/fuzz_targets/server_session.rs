//! A server session against any client and any node that answers: nothing panics, output, credit and events stay
//! within their limits, every byte sent is a frame of a server, every request taken is answered at most once, and no
//! subscription is sent more than it granted.
//!
//! Input: steps until it ends. A step is a byte: its low three bits say what happens, the bytes behind it how.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weft_core::{GenesisId, LaneId, MessageId, NetworkId, Place};
use weft_net::frame::{
    Ack, AckException, AckLevel, ErrorCode, Found, FrameKind, NodeState, Status, WireError,
};
use weft_net::reader::FrameReader;
use weft_net::session::{End, ServerEvent, ServerSession, WelcomeInfo};
use weft_net::subscribe::CREDIT_MAX;
use weft_net::{Answer, Confirmed, History, Notice, Query, SessionLimits};

const NETWORK: NetworkId = NetworkId(*b"fuzz");

fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (taken, rest) = data.split_at(N.min(data.len()));
    bytes[..taken.len()].copy_from_slice(taken);
    *data = rest;
    bytes
}

fn take_slice<'a>(data: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(length.min(data.len()));
    *data = rest;
    taken
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let limits = SessionLimits {
        frame_bytes_max: 1 << 15,
        inflight_requests_max: 4,
        inflight_messages_max: 20,
        inflight_bytes_max: 2_000,
        subscriptions_max: 2,
        output_bytes_high: 2_000,
        ..SessionLimits::default()
    };
    let info = WelcomeInfo {
        network: NETWORK,
        genesis: GenesisId([1; 32]),
        ack_level_max: AckLevel::Durable,
        payload_bytes_max: 100,
        clock_ahead_us_max: 1,
        clock_behind_us_max: 1,
        now_us: u64::MAX,
        node_name: "é".repeat(40),
    };
    let mut now = Instant::now();
    let mut session = ServerSession::new(limits.clone(), info, now);
    let mut sent = FrameReader::new(1 << 24, |_| true);
    let mut open = Vec::new();
    // Id, credit that was granted, and where it is.
    let mut subscriptions: Vec<(u64, u64, u64)> = Vec::new();
    let mut polled = 0;
    let mut pieces = Vec::new();
    while !data.is_empty() {
        let [step] = take(&mut data);
        match step & 7 {
            // Bytes as they come.
            0 => {
                let [length] = take(&mut data);
                session.handle_input(now, take_slice(&mut data, length.into()));
            }
            // A frame with a right head.
            1 | 2 => {
                let before = session.subscriptions();
                let [kind, low, high] = take(&mut data);
                let kind = FrameKind::ALL[usize::from(kind) % FrameKind::ALL.len()];
                let body = take_slice(&mut data, usize::from(u16::from_le_bytes([low, high & 3])));
                let mut frame = (body.len() as u32).to_le_bytes().to_vec();
                frame.push(kind.code());
                frame.extend_from_slice(body);
                session.handle_input(now, &frame);
                assert!(session.subscriptions() <= before + 1);
            }
            3 => {
                let [steps] = take(&mut data);
                now += Duration::from_millis(u64::from(steps) * u64::from(steps) * 20);
                session.handle_timeout(now);
            }
            4 | 5 if !open.is_empty() => {
                let [which, answer] = take(&mut data);
                let which = usize::from(which) % open.len();
                // The transport lets the node answer below the mark only, but for acks, which come when they come.
                if !session.wants_input() && !matches!(open[which], ServerEvent::Submit(_)) {
                    continue;
                }
                let event = open.swap_remove(which);
                let live = !session.is_over();
                assert_eq!(respond(&mut session, now, &event, answer), live);
                assert!(!respond(&mut session, now, &event, answer), "answered twice");
            }
            4 | 5 if !subscriptions.is_empty() => {
                let [which, length] = take(&mut data);
                let which = usize::from(which) % subscriptions.len();
                let (request_id, credit, at) = &mut subscriptions[which];
                match length {
                    255 => {
                        let error = WireError::new(*request_id, ErrorCode::Internal, 0, "");
                        session.end_subscription(now, error);
                        assert!(session.may_notify(*request_id).is_none());
                    }
                    254 => drop(session.subscribed(now, *request_id, vec![0, 0])),
                    _ => {
                        let to = *at + u64::from(length);
                        let told = Confirmed {
                            lane: LaneId(0),
                            faults: 0,
                            certified: to,
                            final_size: to,
                            from: *at,
                            to,
                            messages: Vec::new(),
                        };
                        let may = session.may_notify(*request_id);
                        let sent = session.notify(now, *request_id, Notice::Confirmed(told));
                        assert_eq!(sent, may == Some(true));
                        if sent {
                            *at = to;
                            *credit = credit.checked_sub(1).expect("more notices than were granted");
                        }
                    }
                }
            }
            6 => {
                let [want, took] = take(&mut data);
                session.poll_transmit(usize::from(want) * 16, &mut pieces);
                for piece in pieces.drain(..) {
                    polled += piece.len();
                    let mut rest = &piece[..];
                    while let Some(frame) = sent.next(&mut rest).expect("frames") {
                        assert!(!matches!(
                            frame.kind(),
                            FrameKind::Hello
                                | FrameKind::Submit
                                | FrameKind::GetTips
                                | FrameKind::GetMessages
                        ));
                    }
                }
                let took = polled.min(usize::from(took) * 16);
                polled -= took;
                session.handle_transmitted(now, took);
            }
            7 => match take(&mut data) {
                [0..=63] => session.shut_down(now),
                [64..=127] => session.handle_finished(now),
                [128..=191] => session.fail(now, ErrorCode::Overloaded, "x".repeat(300)),
                _ => session.handle_lost(),
            },
            _ => {}
        }
        while let Some(event) = session.poll() {
            match event {
                ServerEvent::Opened(_) | ServerEvent::Unsubscribe { .. } => {}
                ServerEvent::Subscribe { request_id, subscribe } => {
                    subscriptions.push((request_id, subscribe.credit.into(), 0));
                }
                // How much was granted the event does not say; the session holds it below its limit.
                ServerEvent::Granted { request_id } => {
                    let credit = subscriptions.iter_mut().find(|(id, ..)| *id == request_id);
                    credit.expect("granted to what was asked for").1 += u64::from(CREDIT_MAX);
                }
                event => open.push(event),
            }
        }
        assert!(session.subscriptions() <= 2);
        subscriptions.retain(|(request_id, ..)| session.may_notify(*request_id).is_some());
        let in_flight = session.in_flight();
        assert!(in_flight.requests <= 4 && in_flight.messages <= 20 && in_flight.bytes <= 2_000);
        assert!((session.output_bytes() as u64) < limits.output_bytes_max(), "{}", session.output_bytes());
        if let Some(End::Finish) = session.end() {
            assert_eq!(session.output_bytes(), 0);
        }
        if session.is_over() {
            assert_eq!(in_flight.requests, 0);
        } else {
            assert_eq!(in_flight.requests as usize, open.len());
        }
    }
});

/// Answers as a node would; with some values of `answer`, as a node in error.
fn respond(session: &mut ServerSession, now: Instant, event: &ServerEvent, answer: u8) -> bool {
    match event {
        ServerEvent::Opened(_)
        | ServerEvent::Subscribe { .. }
        | ServerEvent::Granted { .. }
        | ServerEvent::Unsubscribe { .. } => false,
        ServerEvent::Submit(submit) => {
            let request_id = submit.request_id();
            if answer == 255 {
                return session.refuse(now, WireError::new(request_id, ErrorCode::Internal, 1, ""));
            }
            let exceptions = (0..u32::from(answer >> 4)).map(|index| AckException {
                index,
                code: answer,
                got: 1,
                limit: 2,
            });
            let level = AckLevel::ALL[usize::from(answer) % AckLevel::ALL.len()];
            session.ack(
                now,
                Ack {
                    request_id,
                    level,
                    count: submit.len() as u32,
                    exceptions: exceptions.collect(),
                    tips: vec![MessageId([answer; 32]); usize::from(answer & 31)],
                },
            )
        }
        ServerEvent::GetTips { request_id, count } => session.tips(
            now,
            *request_id,
            vec![MessageId([answer; 32]); usize::from(*count) + usize::from(answer)],
        ),
        ServerEvent::GetMessages { request_id, ids } => {
            let found = ids.iter().map(|id| {
                (id.0[0] & 1 == 0).then(|| Found {
                    place: Place(u64::from(answer)),
                    bytes: vec![answer; usize::from(answer) * 64].into(),
                })
            });
            session.messages(now, *request_id, found.collect())
        }
        ServerEvent::Query { request_id, query } => {
            // With some values an answer of another kind, or one that no frame holds: the client then hears `internal`.
            let text = vec![answer; usize::from(answer) * 2_000];
            let made = match query {
                Query::Consistency { .. } => Answer::Consistency(text.into()),
                Query::History { .. } => {
                    Answer::History(History { next_cursor: answer.into(), payments: Vec::new() })
                }
                _ => Answer::Receipt(text.into()),
            };
            session.answer(now, *request_id, made)
        }
        ServerEvent::GetStatus { request_id } => session.status(
            now,
            *request_id,
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
            },
        ),
    }
}
