//! A client session against any server: nothing panics, the credit is never exceeded, every reply fits a request that
//! was open, each request is settled at most once, notices come within the credit and follow on each other, the end is
//! told once and is last, and every byte sent is a frame of a client.
//!
//! Input: steps until it ends. A step is a byte: its low three bits say what happens, the bytes behind it how.

#![no_main]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weft_core::{DeviceKey, GenesisId, MessageId, NetworkId};
use weft_net::frame::{AckLevel, Frame, FrameKind, Welcome};
use weft_net::reader::FrameReader;
use weft_net::session::{ClientEvent, ClientOptions, ClientSession};
use weft_net::{Bookmark, MessageFilter, Query, Start, Subscribe};

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

fn welcome(requests: u8, messages: u8) -> Frame {
    Frame::Welcome(Welcome {
        ack_level: AckLevel::Durable,
        network: NETWORK,
        genesis: GenesisId([1; 32]),
        payload_bytes_max: 100,
        submit_messages_max: 10,
        frame_bytes_max: 1_000,
        inflight_requests_max: requests.into(),
        inflight_messages_max: messages.into(),
        inflight_bytes_max: 2_000,
        idle_ms: 1_000,
        subscriptions_max: u32::from(requests) & 3,
        clock_ahead_us_max: 1,
        clock_behind_us_max: 1,
        server_time_us: 1,
        node_name: String::new(),
    })
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let mut now = Instant::now();
    let options = ClientOptions { network: Some(NETWORK), ..ClientOptions::default() };
    let mut session = ClientSession::new(options, now);
    let mut sent = FrameReader::new(1 << 24, |_| true);
    let mut open = HashSet::new();
    // What is subscribed to: the credit left, and where it is.
    let mut subscriptions: HashMap<u64, (u64, Option<Bookmark>)> = HashMap::new();
    let mut ended = false;
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
                let [kind, low, high] = take(&mut data);
                let kind = FrameKind::ALL[usize::from(kind) % FrameKind::ALL.len()];
                let body = take_slice(&mut data, usize::from(u16::from_le_bytes([low, high & 3])));
                let mut frame = (body.len() as u32).to_le_bytes().to_vec();
                frame.push(kind.code());
                frame.extend_from_slice(body);
                session.handle_input(now, &frame);
            }
            3 => {
                let [steps] = take(&mut data);
                now += Duration::from_millis(u64::from(steps) * 20);
                session.handle_timeout(now);
            }
            4 => {
                let [requests, messages] = take(&mut data);
                let mut bytes = Vec::new();
                welcome(requests, messages).encode(&mut bytes);
                session.handle_input(now, &bytes);
            }
            5 => {
                let [what, count] = take(&mut data);
                let id = subscriptions.keys().min().copied().unwrap_or_default();
                match what {
                    248..=250 => {
                        let subscribe = Subscribe {
                            messages: (count & 1 == 1).then(MessageFilter::default),
                            certified: false,
                            start: Start::Now,
                            credit: u32::from(count) & 7,
                            positions: Vec::new(),
                            open: Vec::new(),
                        };
                        if let Ok(request_id) = session.subscribe(now, subscribe) {
                            subscriptions.insert(request_id, (u64::from(count) & 7, None));
                            let limit =
                                session.welcome().expect("no subscription before Welcome").subscriptions_max;
                            assert!(session.subscriptions() <= limit as usize);
                        }
                        continue;
                    }
                    251..=252 => {
                        if session.grant(now, id, count.into()).is_ok() {
                            subscriptions.get_mut(&id).expect("granted to what is open").0 +=
                                u64::from(count);
                        }
                        continue;
                    }
                    253..=254 => {
                        session.unsubscribe(now, id);
                        continue;
                    }
                    _ => {}
                }
                let made = match what & 7 {
                    0 => {
                        let lengths = vec![u16::from(what); count.into()];
                        let total = usize::from(what) * usize::from(count);
                        session.submit(now, &lengths, vec![what; total].into())
                    }
                    1 => session.get_tips(now, u16::from(count) * 2),
                    4 => session.query(now, Query::Account { account: DeviceKey([count; 32]) }),
                    5 => session.query(now, Query::Receipt { id: MessageId([count; 32]), size: what.into() }),
                    2 => session.get_messages(now, vec![MessageId([what; 32]); count.into()]),
                    _ => session.get_status(now),
                };
                if let Ok(request_id) = made {
                    assert!(open.insert(request_id));
                    let limits = session.welcome().expect("no request before Welcome");
                    let in_flight = session.in_flight();
                    assert!(in_flight.requests <= limits.inflight_requests_max);
                    assert!(in_flight.messages <= limits.inflight_messages_max);
                    assert!(in_flight.bytes <= limits.inflight_bytes_max);
                }
            }
            6 => {
                let [want] = take(&mut data);
                session.poll_transmit(usize::from(want) * 16, &mut pieces);
                for piece in pieces.drain(..) {
                    session.handle_transmitted(now, piece.len());
                    let mut rest = &piece[..];
                    while let Some(frame) = sent.next(&mut rest).expect("frames") {
                        assert!(!matches!(
                            frame.kind(),
                            FrameKind::Welcome
                                | FrameKind::Ack
                                | FrameKind::Tips
                                | FrameKind::Messages
                                | FrameKind::Subscribed
                                | FrameKind::Confirmed
                                | FrameKind::Decided
                                | FrameKind::Unsubscribed
                        ));
                    }
                }
            }
            _ => match take(&mut data) {
                [0..=63] => session.close(now),
                [64..=127] => session.handle_finished(now),
                [code @ 128..=191] => session.handle_reset(u64::from(code) - 128),
                _ => session.handle_lost(),
            },
        }
        while let Some(event) = session.poll() {
            assert!(!ended, "an event after the end");
            match event {
                ClientEvent::Ack(ack) => assert!(open.remove(&ack.request_id)),
                ClientEvent::Failed(error) => {
                    let subscribed = subscriptions.remove(&error.request_id).is_some();
                    assert!(subscribed || open.remove(&error.request_id));
                }
                ClientEvent::Subscribed { request_id, starts } => {
                    let begun = &mut subscriptions.get_mut(&request_id).expect("asked for").1;
                    assert!(begun.replace(Bookmark::new(&starts, &[])).is_none());
                }
                ClientEvent::Notice { request_id, notice } => {
                    let (credit, bookmark) = subscriptions.get_mut(&request_id).expect("asked for");
                    *credit = credit.checked_sub(1).expect("a notice beyond the credit");
                    bookmark.as_mut().expect("begun").take(&notice).expect("it follows");
                }
                ClientEvent::Unsubscribed { request_id } => {
                    assert!(subscriptions.remove(&request_id).is_some());
                }
                ClientEvent::Tips { request_id, .. }
                | ClientEvent::Messages { request_id, .. }
                | ClientEvent::Status { request_id, .. }
                | ClientEvent::Answer { request_id, .. } => assert!(open.remove(&request_id)),
                ClientEvent::Welcomed(_) | ClientEvent::ShuttingDown => {}
                ClientEvent::Ended(_) => ended = true,
            }
        }
        assert_eq!(ended, session.is_over());
        // The keep-alive is in flight and nobody's.
        let in_flight = session.in_flight().requests as usize;
        assert!(ended || in_flight == open.len() || in_flight == open.len() + 1);
    }
});
