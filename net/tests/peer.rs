//! Peers over real QUIC on loopback: who is let in, what arrives, what a slow or a false peer can do.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

#[path = "support/peers.rs"]
mod peers;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peers::{Event, GENESIS, Node, batch, config, key, pair, seed, start, witness};
use weft_core::{GenesisId, LaneId};
use weft_net::peer::{
    CosignAnswer, Holdings, LaneEnd, NotConnected, NotCosigned, PeerCode, PeerConfig, PeerLimits, PeerNet,
    PeerStartError, PeerState, ShipEnd, Shipping,
};

const LANE: LaneId = LaneId(0);

fn end(size: u64) -> LaneEnd {
    LaneEnd { size, root: [size as u8; 32] }
}

/// Waits until the only peer of `node` has this in its last error.
async fn error_of(node: &Node, text: &str) {
    let last = || node.net.status()[0].last_error.clone().unwrap_or_default();
    node.heard.until(text, |_| last().contains(text)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn witnesses_holdings_and_proofs_arrive_as_they_were_sent_both_ways() {
    let (first, second) = pair(|_| ()).await;
    assert_eq!(first.net.broadcast_witness(&witness(1)), 1);
    second.net.send_witness(LaneId(0), witness(2)).unwrap();
    second.heard.heard(Event::Witness(0, witness(1))).await;
    first.heard.heard(Event::Witness(1, witness(2))).await;
    let holdings = Holdings { lanes: vec![(LaneId(1), end(9))], followed: vec![(0, 4), (1, 7)] };
    first.net.send_holdings(None, &holdings);
    second.heard.heard(Event::Holdings(0, holdings)).await;
    let proof = [batch(1, 5_000), batch(2, 3_000_000)];
    let left_out = [0; 3].map(|_| second.net.send_fork_proof(None, LANE, &proof));
    assert_eq!(left_out, [vec![], vec![], vec![LaneId(0)]], "two are on their way");
    first.heard.heard(Event::Proof(1, LANE, proof)).await;
    let short = Bytes::from(vec![7; 300]);
    first.net.send_forked(Some(LaneId(1)), &short);
    second.heard.heard(Event::Forked(0, short)).await;
    let status = &first.net.status()[0];
    assert_eq!((status.peer, status.state, status.connections_total), (LaneId(1), PeerState::Connected, 1));
    assert!(status.received_bytes_total > 3_000_000, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_genesis_does_not_name_gets_nowhere() {
    let first = start(config(0, 2));
    let mut stranger = config(1, 2);
    stranger.seed = seed(77);
    stranger.members[1].key = key(&seed(77));
    stranger.members[0].address = Some(first.net.local_addr().to_string());
    let stranger = start(stranger);
    error_of(&stranger, "unknown_key").await;
    assert_eq!(first.heard.events(), []);
    assert_eq!(stranger.heard.events(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_with_another_key_than_the_one_dialled_is_refused() {
    // The node of lane 1 listens where the node of lane 0 is expected.
    let other = start(config(1, 3));
    let mut dialling = config(2, 3);
    dialling.members[0].address = Some(other.net.local_addr().to_string());
    let dialling = start(dialling);
    error_of(&dialling, "unknown_key").await;
    assert_eq!((other.heard.events(), dialling.heard.events()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_different_ledgers_part_at_the_hello_and_say_why() {
    let first = start(config(0, 2));
    let mut second = config(1, 2);
    second.genesis = GenesisId([0x43; 32]);
    second.members[0].address = Some(first.net.local_addr().to_string());
    let second = start(second);
    error_of(&second, "wrong_genesis: the ledgers differ").await;
    error_of(&first, "wrong_genesis: the ledgers differ").await;
    assert_eq!((first.heard.events(), second.heard.events()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_genesis_does_not_name_does_not_start() {
    let mut wrong = config(0, 2);
    wrong.seed = seed(9);
    let heard = std::sync::Arc::new(peers::Recorder::default());
    let error = PeerNet::start(wrong, &tokio::runtime::Handle::current(), heard).unwrap_err();
    assert!(matches!(error, PeerStartError::NotMember { lane: LaneId(0) }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_shipped_from_the_highest_shared_end_and_goes_on_as_it_grows() {
    let (holder, asker) = pair(|_| ()).await;
    let bytes: Vec<Bytes> = (1..=7).map(|number| batch(number, 1_000 * usize::from(number))).collect();
    for (number, batch) in bytes.iter().enumerate().take(5) {
        holder.heard.append(LANE.0, number as u64 + 1, batch.clone());
    }
    // One end that the holder does not have, two that it has.
    let ends = vec![LaneEnd { size: 4, root: [99; 32] }, end(2), end(3), end(0)];
    let id = asker.net.subscribe(LaneId(0), LANE, ends, 1 << 20).unwrap();
    asker.heard.until("two batches", |me| me.batches(id) == bytes[3..5]).await;
    assert_eq!(asker.heard.shipping(id), [Shipping::Started(end(3))]);
    for number in [6, 7] {
        holder.heard.append(LANE.0, number, bytes[number as usize - 1].clone());
        holder.net.lane_grew(LANE);
        asker.heard.until("the next batch", |me| me.batches(id) == bytes[3..number as usize]).await;
    }
    asker.net.unsubscribe(id);
    holder.heard.until("the end of shipping", |_| holder.net.status()[0].shipping == 0).await;
    assert_eq!(asker.heard.shipping(id), [Shipping::Started(end(3))]);
    let shipped: usize = bytes[3..].iter().map(Bytes::len).sum();
    assert_eq!(holder.net.status()[0].shipped_bytes_total, shipped as u64);
    assert_eq!(asker.net.status()[0].taken_bytes_total, shipped as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_behind_says_so_and_one_with_another_history_shows_it() {
    let (holder, asker) = pair(|_| ()).await;
    holder.heard.append(LANE.0, 5, batch(5, 700));
    let behind = asker.net.subscribe(LaneId(0), LANE, vec![end(8)], 1 << 20).unwrap();
    asker.heard.heard(Event::Shipping(behind, Shipping::NotHeld { held: 5 })).await;
    let ends = vec![LaneEnd { size: 5, root: [1; 32] }];
    let forked = asker.net.subscribe(LaneId(0), LANE, ends, 1 << 20).unwrap();
    asker.heard.heard(Event::Shipping(forked, Shipping::Fork(batch(5, 700)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_copy_changes_ends_the_shipping_and_a_new_subscription_takes_the_place_of_the_old() {
    let (holder, asker) = pair(|_| ()).await;
    holder.heard.append(LANE.0, 1, batch(1, 700));
    let old = asker.net.subscribe(LaneId(0), LANE, vec![end(0)], 1 << 20).unwrap();
    asker.heard.until("the batch", |me| me.batches(old).len() == 1).await;
    let new = asker.net.subscribe(LaneId(0), LANE, vec![end(0)], 1 << 20).unwrap();
    asker.heard.until("the batch again", |me| me.batches(new).len() == 1).await;
    *holder.heard.ends_with.lock().unwrap() = Some(ShipEnd::Changed);
    holder.net.lane_grew(LANE);
    asker.heard.heard(Event::Shipping(new, Shipping::Ended(ShipEnd::Changed))).await;
    assert_eq!(asker.heard.shipping(old), [Shipping::Started(end(0))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credit_a_holder_stops_reading_and_sending_and_other_lanes_go_on() {
    const BATCH_BYTES: usize = 20_000;
    let (holder, asker) = pair(|_| ()).await;
    for number in 1..=200 {
        holder.heard.append(LANE.0, number, batch(number as u8, BATCH_BYTES));
    }
    let id = asker.net.subscribe(LaneId(0), LANE, vec![end(0)], 200_000).unwrap();
    let stopped = |bytes: usize| {
        let heard = &asker.heard;
        async move {
            heard.until("the credit is used", |me| me.batch_bytes(id) >= bytes).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(heard.batch_bytes(id) <= bytes + BATCH_BYTES, "{}", heard.batch_bytes(id));
        }
    };
    stopped(200_000).await;
    let read = holder.heard.read_bytes.load(Ordering::Relaxed);
    assert!(read <= 200_000 + 2 * BATCH_BYTES, "{read} bytes read ahead");
    // Another lane of the same peer is not held up.
    holder.heard.append(1, 1, batch(9, 50_000));
    let other = asker.net.subscribe(LaneId(0), LaneId(1), vec![end(0)], 100_000).unwrap();
    asker.heard.until("the other lane", |me| me.batch_bytes(other) == 50_000).await;
    asker.net.grant(id, 100_000);
    stopped(300_000).await;
    asker.net.grant(id, 10_000_000);
    asker.heard.until("the rest", |me| me.batches(id).len() == 200).await;
    let sent: Vec<Bytes> = (1..=200).map(|number| batch(number, BATCH_BYTES)).collect();
    assert_eq!(asker.heard.batches(id), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_does_not_take_stops_the_sender_and_is_bounded() {
    let limits = PeerLimits { hold_bytes_max: 10_000, ..PeerLimits::default() };
    let (first, second) = pair(|config| config.limits = limits.clone()).await;
    *second.heard.holds.lock().unwrap() = Some(Vec::new());
    for number in 0..100 {
        first.net.broadcast_witness(&witness(number));
    }
    second.heard.until("room for 25 witnesses", |me| me.witnesses() == 25).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(second.heard.witnesses(), 25);
    *second.heard.holds.lock().unwrap() = None;
    second.heard.until("all witnesses", |me| me.witnesses() == 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_beyond_the_queue_are_dropped_and_counted() {
    let limits = PeerLimits { control_bytes_max: 4_050, ..PeerLimits::default() };
    let (first, _second) = pair(|config| config.limits = limits.clone()).await;
    let queued: usize = (0..5_000).map(|number| first.net.broadcast_witness(&witness(number))).sum();
    let dropped = first.net.status()[0].dropped_total;
    assert!(dropped > 0, "{queued} queued");
    assert_eq!(queued as u64 + dropped, 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_comes_in_order_from_the_number_asked_for() {
    let (holder, asker) = pair(|_| ()).await;
    *holder.heard.chain.lock().unwrap() = (0..300).map(witness).collect();
    asker.net.want_witnesses(LaneId(0), 3, 10).unwrap();
    asker.heard.heard(Event::ChainDone(3, 256, true)).await;
    let came = asker.heard.events().into_iter().filter(|event| matches!(event, Event::Witness(..)));
    assert!(came.eq((10..266).map(|number| Event::Witness(0, witness(number)))));
    asker.net.want_witnesses(LaneId(0), 3, 266).unwrap();
    asker.heard.heard(Event::ChainDone(3, 34, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_gives_its_signature_under_a_checkpoint_or_says_why_not() {
    let (first, second) = pair(|_| ()).await;
    for (size, signer) in [(5, &first), (6, &second)] {
        signer.heard.signatures.lock().unwrap().push((size, [size as u8; 64]));
    }
    // Both ways, many at a time, each with its own answer.
    let given = |size: u64| Ok(CosignAnswer::Given { time_s: 1_000 + size, signature: [size as u8; 64] });
    let refused = |why| Ok(CosignAnswer::Refused(why));
    for _ in 0..20 {
        let answers = tokio::join!(
            second.net.cosign(LaneId(0), LANE, end(5)),
            second.net.cosign(LaneId(0), LANE, end(6)),
            second.net.cosign(LaneId(0), LANE, LaneEnd { size: 5, root: [6; 32] }),
            second.net.cosign(LaneId(0), LaneId(3), end(5)),
            first.net.cosign(LaneId(1), LANE, end(6)),
        );
        assert_eq!(answers.0, given(5));
        assert_eq!(answers.1, refused(NotCosigned::NotFinal));
        assert_eq!(answers.2, refused(NotCosigned::NoSuch));
        assert_eq!(answers.3, refused(NotCosigned::NoSuch));
        assert_eq!(answers.4, given(6));
    }
    assert_eq!(first.net.cosign(LaneId(0), LANE, end(5)).await, Err(NotConnected { peer: LaneId(0) }));
    first.net.shutdown().await;
    second.heard.heard(Event::Disconnected(0, Some(PeerCode::ShuttingDown))).await;
    assert_eq!(second.net.cosign(LaneId(0), LANE, end(5)).await, Err(NotConnected { peer: LaneId(0) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_peer_ends_its_subscriptions_first_and_is_dialled_until_it_is_back() {
    let (first, second) = pair(|_| ()).await;
    let address = first.net.local_addr();
    let id = second.net.subscribe(LaneId(0), LANE, vec![end(0)], 1 << 20).unwrap();
    second.heard.heard(Event::Shipping(id, Shipping::Started(end(0)))).await;
    first.net.shutdown().await;
    let gone = Event::Disconnected(0, Some(PeerCode::ShuttingDown));
    second.heard.heard(gone.clone()).await;
    let events = second.heard.events();
    let at = |event: &Event| events.iter().position(|heard| heard == event);
    assert!(at(&Event::Shipping(id, Shipping::Ended(ShipEnd::Lost))).unwrap() < at(&gone).unwrap());
    assert!(second.net.subscribe(LaneId(0), LANE, vec![end(0)], 1).is_err());
    assert!(second.net.send_witness(LaneId(0), witness(1)).is_err());
    // The port is free once the last task has let go of it.
    drop(first);
    while std::net::UdpSocket::bind(address).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut again = config(0, 2);
    again.listen = address;
    let again = start(again);
    again.heard.heard(Event::Connected(1)).await;
    second.heard.until("connected again", |_| second.net.status()[0].connections_total == 2).await;
    again.net.broadcast_witness(&witness(5));
    second.heard.heard(Event::Witness(0, witness(5))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_connection_of_a_node_counts_and_the_older_is_over_before() {
    let (first, second) = pair(|_| ()).await;
    // The same node once more, as after a crash that the other side has not noticed.
    let mut again = config(1, 2);
    again.members[0].address = Some(first.net.local_addr().to_string());
    let again = start(again);
    again.heard.heard(Event::Connected(0)).await;
    first.heard.until("two connections", |_| first.net.status()[0].connections_total >= 2).await;
    second.heard.heard(Event::Disconnected(0, Some(PeerCode::Replaced))).await;
    let order = first.heard.events();
    assert_eq!(order[..2], [Event::Connected(1), Event::Disconnected(1, Some(PeerCode::Replaced))]);
    assert_eq!(order[2], Event::Connected(1));
    second.net.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_peer_is_dropped_and_stays_out_for_the_time_of_the_ban() {
    let ban = Duration::from_millis(700);
    let (first, second) = pair(|config| config.limits.ban = ban).await;
    first.net.fault(LaneId(1), 99, "something strange");
    // One point fades in six seconds.
    assert!((90..=99).contains(&first.net.status()[0].score));
    assert!(first.net.is_connected(LaneId(1)));
    let since = Instant::now();
    first.net.fault(LaneId(1), 20, "something strange again");
    second.heard.heard(Event::Disconnected(0, Some(PeerCode::Banned))).await;
    second.heard.until("connected again", |_| second.net.status()[0].connections_total == 2).await;
    assert!(since.elapsed() >= ban, "{:?}", since.elapsed());
    // The one who dials does not dial a peer that it has banned.
    let since = Instant::now();
    second.net.ban(LaneId(0), "two histories of a lane");
    assert!(matches!(second.net.status()[0].state, PeerState::Banned(_)));
    first.heard.until("connected a third time", |_| first.net.status()[0].connections_total == 3).await;
    assert!(since.elapsed() >= ban, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_becomes_known_later_is_dialled_at_once() {
    let first = start(config(0, 2));
    let second = start(config(1, 2));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(second.net.status()[0].state, PeerState::Waiting);
    // A name is looked up.
    let address = format!("localhost:{}", first.net.local_addr().port());
    second.net.set_address(LaneId(0), Some(address));
    second.heard.heard(Event::Connected(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn witnesses_overtake_a_lane_that_fills_the_connection() {
    const BATCHES: u64 = 48;
    let latency = Duration::from_millis(20);
    let (holder, asker) = pair(|config| config.latency = latency).await;
    for number in 1..=BATCHES {
        holder.heard.append(LANE.0, number, batch(number as u8, 1 << 20));
    }
    let id = asker.net.subscribe(LaneId(0), LANE, vec![end(0)], 10 << 20).unwrap();
    asker.heard.until("shipping", |me| !me.batches(id).is_empty()).await;
    // As fast as it comes, so that there is always more on its way than the link holds.
    let mut sent = Vec::new();
    let (mut granted, mut number) = (0, 0);
    while asker.heard.batches(id).len() < BATCHES as usize {
        let came = asker.heard.batch_bytes(id) as u64;
        asker.net.grant(id, came - granted);
        granted = came;
        sent.push(Instant::now());
        holder.net.broadcast_witness(&witness(number));
        number += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asker.heard.until("the witnesses", |me| me.witnesses() == sent.len()).await;
    let events = asker.heard.timed();
    let last = events.iter().rfind(|(_, event)| matches!(event, Event::Batch(..))).unwrap().0;
    let mut delays = Vec::new();
    for (at, event) in &events {
        if let Event::Witness(_, message) = event {
            let number = u32::from_le_bytes(message[..4].try_into().unwrap());
            if *at < last {
                delays.push(*at - sent[number as usize]);
            }
        }
    }
    delays.sort_unstable();
    assert!(delays.len() >= 10, "{} witnesses arrived before the last batch", delays.len());
    let median = delays[delays.len() / 2];
    // Behind the ten megabytes on their way it would take as long as these take.
    assert!(median >= latency && median < 3 * latency, "{median:?} of {}", delays.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_with_latency_delays_everything_by_it_and_carries_as_much() {
    let latency = Duration::from_millis(40);
    let (first, second) = pair(|config| config.latency = latency).await;
    let since = Instant::now();
    first.net.broadcast_witness(&witness(1));
    second.heard.heard(Event::Witness(0, witness(1))).await;
    let took = since.elapsed();
    assert!(took >= latency && took < 4 * latency, "{took:?}");
    let rtt = first.net.status()[0].rtt.unwrap();
    assert!(rtt >= 2 * latency, "{rtt:?}");
    assert_eq!(GENESIS, config(0, 1).genesis);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_link_loses_is_sent_again_and_everything_arrives_whole_and_in_order() {
    let lossy = |config: &mut PeerConfig| {
        config.latency = Duration::from_millis(5);
        config.loss_percent = 10.0;
    };
    let (holder, asker) = pair(lossy).await;
    let bytes: Vec<Bytes> = (1..=40).map(|number| batch(number, 30_000)).collect();
    for (number, batch) in (1..).zip(&bytes) {
        holder.heard.append(LANE.0, number, batch.clone());
    }
    let id = asker.net.subscribe(LaneId(0), LANE, vec![end(0)], 10 << 20).unwrap();
    for number in 0..100 {
        holder.net.broadcast_witness(&witness(number));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asker.heard.until("all batches", |me| me.batches(id) == bytes).await;
    asker.heard.until("all witnesses", |me| me.witnesses() == 100).await;
    let witnesses: Vec<Event> = (0..100).map(|number| Event::Witness(0, witness(number))).collect();
    let heard: Vec<Event> = asker.heard.timed().into_iter().map(|(_, event)| event).collect();
    let heard: Vec<Event> = heard.into_iter().filter(|event| matches!(event, Event::Witness(..))).collect();
    assert_eq!(heard, witnesses);
    // About a tenth of what was sent never came, so it was sent more than once.
    let sent = holder.net.status()[0].sent_bytes_total as f64;
    let lost = 1.0 - asker.net.status()[0].received_bytes_total as f64 / sent;
    assert!((0.05..0.2).contains(&lost), "{lost}");
}
