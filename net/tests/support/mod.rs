//! What the suites share: frames of every kind as proptest strategies, and a node's welcome.
#![allow(dead_code, reason = "each suite uses a part")]

pub(crate) mod pair;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use weft_core::{Cosignature, DeviceKey, GenesisId, LaneId, MessageId, NetworkId, PayloadKind, Place};
use weft_net::frame::{CloseReason, Frame, Hello};
use weft_net::frame::{lane_flags, node_flags};
use weft_net::{
    AccountStanding, AccountState, Ack, AckException, AckLevel, Answer, Confirmed, ConfirmedMessage,
    ErrorCode, Found, History, LaneStatus, Lookup, MessageFilter, NodeState, Notice, Outcome, Payment, Query,
    Start, Status, Submit, Subscribe, Welcome, WelcomeInfo, WireError,
};

/// The network of the tests.
pub(crate) const NETWORK: NetworkId = NetworkId([0xA1, 0xB2, 0xC3, 0xD4]);

/// What a node says in the tests.
pub(crate) fn welcome_info() -> WelcomeInfo {
    let mut genesis = [7; 32];
    genesis[..4].copy_from_slice(&NETWORK.0);
    WelcomeInfo {
        network: NETWORK,
        genesis: GenesisId(genesis),
        ack_level_max: AckLevel::Durable,
        payload_bytes_max: 16_384,
        clock_ahead_us_max: 1_000_000,
        clock_behind_us_max: 2_000_000,
        now_us: 1_800_000_000_000_000,
        node_name: "test".to_owned(),
    }
}

/// A clean ack of `count` messages.
pub(crate) fn ack(request_id: u64, count: usize, level: AckLevel) -> Ack {
    Ack { request_id, level, count: count as u32, exceptions: Vec::new(), tips: vec![MessageId([9; 32])] }
}

fn ids(least: usize, most: usize) -> impl Strategy<Value = Vec<MessageId>> {
    vec(any::<[u8; 32]>().prop_map(MessageId), least..=most)
}

fn level() -> impl Strategy<Value = AckLevel> {
    proptest::sample::select(AckLevel::ALL)
}

fn request_id() -> impl Strategy<Value = u64> {
    1..=u64::MAX
}

fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=bytes_max / 4).prop_map(String::from_iter)
}

pub(crate) fn submit(count_max: usize, length_max: u16) -> impl Strategy<Value = Submit> {
    (request_id(), vec(0..=length_max, 1..=count_max), any::<u8>()).prop_map(|(request_id, lengths, fill)| {
        let total = lengths.iter().map(|length| usize::from(*length)).sum();
        let bytes: Vec<u8> = (0..total).map(|i| fill.wrapping_add(i as u8)).collect();
        Submit::new(request_id, &lengths, bytes.into()).unwrap()
    })
}

prop_compose! {
    fn acks()(
        request_id in request_id(),
        level in level(),
        count in 1..=4_096_u32,
        raw in vec((any::<u32>(), any::<u8>(), any::<u64>(), any::<u64>()), 0..40),
        tips in ids(0, 16),
    ) -> Ack {
        let mut exceptions: Vec<_> = raw
            .into_iter()
            .map(|(index, code, got, limit)| AckException { index: index % count, code, got, limit })
            .collect();
        exceptions.sort_by_key(|exception| exception.index);
        exceptions.dedup_by_key(|exception| exception.index);
        Ack { request_id, level, count, exceptions, tips }
    }
}

prop_compose! {
    fn welcomes()(
        ack_level in level(),
        network: [u8; 4],
        genesis: [u8; 32],
        small: [u32; 7],
        large: [u64; 4],
        node_name in text(64),
    ) -> Welcome {
        let [payload_bytes_max, submit_messages_max, frame_bytes_max, inflight_requests_max, inflight_messages_max,
            idle_ms, subscriptions_max] = small;
        let [inflight_bytes_max, clock_ahead_us_max, clock_behind_us_max, server_time_us] = large;
        Welcome {
            ack_level, network: NetworkId(network), genesis: GenesisId(genesis), payload_bytes_max,
            submit_messages_max, frame_bytes_max, inflight_requests_max, inflight_messages_max, inflight_bytes_max,
            idle_ms, subscriptions_max, clock_ahead_us_max, clock_behind_us_max, server_time_us, node_name,
        }
    }
}

prop_compose! {
    fn statuses()(
        state in proptest::sample::select(NodeState::ALL),
        numbers: [u64; 6],
        confirmation: [u64; 3],
        flags in 0..=node_flags::ALL,
        lane: u16,
        lanes in vec((any::<u16>(), 0..=lane_flags::ALL, any::<[u64; 7]>()), 0..20),
    ) -> Status {
        let [uptime_us, accepted_total, rejected_total, queue_messages, queue_messages_max, durable_age_us] = numbers;
        let [witnesses_total, round_us, acks_waiting] = confirmation;
        let status = |(lane, flags, sizes): (u16, u8, [u64; 7])| {
            let [weight, written, durable, applied, certified, final_size, witness] = sizes;
            let lane = LaneId(lane);
            LaneStatus { lane, flags, weight, written, durable, applied, certified, final_size, witness }
        };
        let lanes = lanes.into_iter().map(status).collect();
        Status {
            state, uptime_us, accepted_total, rejected_total, queue_messages, queue_messages_max, durable_age_us,
            flags, lane: LaneId(lane), witnesses_total, round_us, acks_waiting, lanes,
        }
    }
}

fn answers() -> impl Strategy<Value = Vec<Lookup>> {
    vec(
        prop_oneof![
            Just(Lookup::Absent),
            Just(Lookup::AskAgain),
            (any::<u64>(), vec(any::<u8>(), 0..300)).prop_map(|(place, bytes)| {
                Lookup::Found(Found { place: Place(place), bytes: Bytes::from(bytes) })
            }),
        ],
        1..30,
    )
}

fn errors() -> impl Strategy<Value = WireError> {
    (any::<u64>(), proptest::sample::select(ErrorCode::ALL), any::<u32>(), text(256)).prop_map(
        |(request_id, code, retry_after_ms, text)| WireError::new(request_id, code, retry_after_ms, text),
    )
}

fn key() -> impl Strategy<Value = DeviceKey> {
    any::<[u8; 32]>().prop_map(DeviceKey)
}

fn lane() -> impl Strategy<Value = LaneId> {
    (0..weft_core::LANES_MAX).prop_map(LaneId)
}

/// Every kind of query.
pub(crate) fn queries() -> impl Strategy<Value = Query> {
    prop_oneof![
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(id, size)| Query::Receipt { id: MessageId(id), size }),
        (lane(), 1..=u64::MAX, any::<u64>()).prop_map(|(lane, old_size, size)| Query::Consistency {
            lane,
            old_size,
            size
        }),
        (lane(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(lane, size, root)| Query::Cosign {
            lane,
            size,
            root
        }),
        key().prop_map(|account| Query::Account { account }),
        (key(), proptest::option::of(key()), any::<u64>(), 1..=256_u16)
            .prop_map(|(account, other, cursor, count)| Query::History { account, other, cursor, count }),
    ]
}

fn payments() -> impl Strategy<Value = Payment> {
    (any::<[u64; 4]>(), any::<[[u8; 32]; 3]>(), vec(any::<u8>(), 0..=256)).prop_map(
        |([place, sequence, amount, issued_at_us], [id, from, to], memo)| Payment {
            place: Place(place),
            id: MessageId(id),
            from: DeviceKey(from),
            to: DeviceKey(to),
            sequence,
            amount,
            issued_at_us,
            memo: memo.into(),
        },
    )
}

/// Every kind of answer to them.
pub(crate) fn query_answers() -> impl Strategy<Value = Answer> {
    let standing =
        proptest::sample::select(&[AccountStanding::Unknown, AccountStanding::Open, AccountStanding::Frozen]);
    let lock = proptest::option::of((any::<u64>(), any::<[u8; 32]>()));
    prop_oneof![
        vec(any::<u8>(), 0..400).prop_map(|text| Answer::Receipt(text.into())),
        vec(any::<u8>(), 0..400).prop_map(|text| Answer::Consistency(text.into())),
        (any::<u16>(), 0..=i64::MAX as u64, any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(
            |(validator, time_s, left, right)| {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&left);
                signature[32..].copy_from_slice(&right);
                Answer::Cosignature(Cosignature { validator, time_s, signature })
            }
        ),
        (standing, any::<u64>(), any::<u64>(), lock).prop_map(|(standing, balance, next, lock)| {
            Answer::Account(AccountState { standing, balance, next, lock })
        }),
        (any::<u64>(), vec(payments(), 0..5))
            .prop_map(|(next_cursor, payments)| Answer::History(History { next_cursor, payments })),
    ]
}

fn sizes() -> impl Strategy<Value = [u64; 4]> {
    any::<[u32; 4]>().prop_map(|mut sizes| {
        sizes.sort_unstable();
        sizes.map(u64::from)
    })
}

fn places(most: usize) -> impl Strategy<Value = Vec<Place>> {
    proptest::collection::btree_set((0..weft_core::LANES_MAX, 0..1_u64 << 40), 0..=most).prop_map(|places| {
        places.into_iter().map(|(lane, position)| Place::new(LaneId(lane), position)).collect()
    })
}

prop_compose! {
    /// Every way to subscribe.
    pub(crate) fn subscribes()(
        filter in proptest::option::of((any::<bool>(), proptest::option::of(key()))),
        certified: bool,
        start in proptest::sample::select(Start::ALL),
        credit in 1..=1_024_u32,
        lanes in proptest::collection::btree_map(0..weft_core::LANES_MAX, 0..=1_u64 << 48, 0..20),
        open in places(20),
    ) -> Subscribe {
        let messages = filter.map(|(witnesses, issuer)| MessageFilter { witnesses, issuer });
        let open = if messages.is_some() { open } else { Vec::new() };
        let positions = lanes.into_iter().map(|(lane, position)| (LaneId(lane), position)).collect();
        Subscribe { messages, certified, start, credit, positions, open }
    }
}

/// Every kind of notice.
pub(crate) fn notices() -> impl Strategy<Value = Notice> {
    let outcomes = &[Outcome::None, Outcome::Accepted, Outcome::Rejected, Outcome::Open];
    let messages =
        vec((1..100_u64, any::<u8>(), proptest::sample::select(outcomes), any::<[u8; 32]>()), 0..30);
    let confirmed = (lane(), 0..8_u8, sizes(), messages).prop_map(|(lane, faults, sizes, raw)| {
        let [from, _, _, _] = sizes;
        let mut position = from;
        let mut messages = Vec::new();
        for (step, kind, outcome, id) in raw {
            position += step;
            messages.push(ConfirmedMessage { position, kind: PayloadKind(kind), outcome, id: MessageId(id) });
        }
        let [to, final_size, certified] = [sizes[1], sizes[2], sizes[3]].map(|size| size.max(position + 1));
        Notice::Confirmed(Confirmed { lane, faults, certified, final_size, from, to, messages })
    });
    let decided = &[Outcome::None, Outcome::Accepted, Outcome::Rejected, Outcome::GivenUp];
    let decided =
        (places(20), proptest::sample::select(decided)).prop_filter_map("none", |(places, outcome)| {
            let decided: Vec<_> = places.into_iter().map(|place| (place, outcome)).collect();
            (!decided.is_empty()).then_some(Notice::Decided(decided))
        });
    prop_oneof![confirmed, decided]
}

/// Every kind of frame.
pub(crate) fn frames() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (level(), any::<[u8; 4]>())
            .prop_map(|(ack_level, network)| Frame::Hello(Hello { ack_level, network: NetworkId(network) })),
        welcomes().prop_map(Frame::Welcome),
        submit(50, 400).prop_map(Frame::Submit),
        acks().prop_map(Frame::Ack),
        (request_id(), 0..=256_u16).prop_map(|(request_id, count)| Frame::GetTips { request_id, count }),
        (request_id(), ids(0, 256)).prop_map(|(request_id, tips)| Frame::Tips { request_id, tips }),
        (request_id(), ids(1, 40)).prop_map(|(request_id, ids)| Frame::GetMessages { request_id, ids }),
        (request_id(), answers()).prop_map(|(request_id, answers)| Frame::Messages { request_id, answers }),
        request_id().prop_map(|request_id| Frame::GetStatus { request_id }),
        (request_id(), queries()).prop_map(|(request_id, query)| Frame::Query { request_id, query }),
        (request_id(), query_answers()).prop_map(|(request_id, answer)| Frame::Answer { request_id, answer }),
        (request_id(), statuses()).prop_map(|(request_id, status)| Frame::Status { request_id, status }),
        (request_id(), subscribes())
            .prop_map(|(request_id, subscribe)| Frame::Subscribe { request_id, subscribe }),
        (request_id(), vec(0..=1_u64 << 48, 1..20))
            .prop_map(|(request_id, starts)| Frame::Subscribed { request_id, starts }),
        (request_id(), 1..=1_024_u32).prop_map(|(request_id, credit)| Frame::Grant { request_id, credit }),
        (request_id(), notices()).prop_map(|(request_id, notice)| Frame::Notice { request_id, notice }),
        request_id().prop_map(|request_id| Frame::Unsubscribe { request_id }),
        request_id().prop_map(|request_id| Frame::Unsubscribed { request_id }),
        errors().prop_map(Frame::Error),
        proptest::sample::select(CloseReason::ALL).prop_map(Frame::Close),
    ]
}
