//! Acks of level `final` are not those of level `certified`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::four::Cluster;
use common::{Sketch, device, refusals, runtime, session};
use weft_core::LaneId;
use weft_net::{AckLevel, PendingAck, Session};

/// Tries to have both messages in what node 2 states first: on a busy machine they may be in two batches, and the second one too late.
const TRIES: u64 = 6;

/// One message, on its way.
async fn hand_in(session: &Session, number: u8, sequence: u64) -> PendingAck {
    let message = Sketch::new(session, sequence).sign(&device(number));
    let lengths = [u16::try_from(message.len()).unwrap()];
    session.submit(&lengths, Bytes::from(message)).await.unwrap()
}

/// Three of four validators run, so each one's votes are needed. Node 2 states its cut as soon as the messages come, and then nothing for
/// a minute. What node 1 states is on its way for a second: so node 2's cut says that it holds the messages and cannot say that
/// they are certified, which they are once node 1's has come. Until node 2 states something again they are not final.
#[test]
fn a_message_that_is_certified_and_not_final_is_acked_as_certified_and_as_final_once_rounds_go_on() {
    let mut cluster = Cluster::new(1);
    // One of four is away, so each waits five seconds before it joins. Node 2 has to have done so while there is nothing to state.
    cluster.start_with(2, |config| config.round_ms = 60_000);
    cluster.wait_live([2]);
    cluster.start(0);
    cluster.start_with(1, |config| config.peer_latency_ms = 1_000);
    cluster.wait_live(0..3);
    let was_seen = (1..=TRIES).any(|sequence| {
        let before = cluster.final_size(0, 0);
        let seen = runtime().block_on(async {
            let (_certified, certified) = session(cluster.node(0), AckLevel::Certified).await;
            let (_final, last) = session(cluster.node(0), AckLevel::Final).await;
            let (mut waits_certified, mut waits_final) =
                tokio::join!(hand_in(&certified, 3, sequence), hand_in(&last, 4, sequence));
            let ack = tokio::time::timeout(Duration::from_secs(6), &mut waits_certified).await;
            let seen = ack.is_ok();
            if let Ok(ack) = ack {
                let ack = ack.unwrap();
                assert_eq!((ack.level, refusals(&ack)), (AckLevel::Certified, vec![]));
                let early = tokio::time::timeout(Duration::from_secs(3), &mut waits_final).await;
                assert!(early.is_err(), "certified is not final: {early:?}");
                let marks = cluster.node(0).confirm().marks(LaneId(0));
                // In a later try the node's own witnesses may have become final meanwhile; the message has not.
                assert!(marks.certified > before && marks.final_size < marks.certified, "{marks:?} {before}");
            }
            // Progress again: node 2 with rounds as they should be.
            tokio::task::block_in_place(|| {
                cluster.stop(2);
                cluster.start(2);
            });
            let ack = tokio::time::timeout(Duration::from_secs(15), waits_final).await;
            let ack = ack.expect("an ack of level final").unwrap();
            assert_eq!((ack.level, refusals(&ack)), (AckLevel::Final, vec![]));
            let marks = cluster.node(0).confirm().marks(LaneId(0));
            assert!(marks.final_size > before, "{marks:?}");
            seen
        });
        if !seen {
            cluster.wait_live([2]);
            cluster.wait_final(0, cluster.node(0).confirm().marks(LaneId(0)).certified);
            cluster.stop(2);
            cluster.start_with(2, |config| config.round_ms = 60_000);
            cluster.wait_live([2]);
        }
        seen
    });
    assert!(was_seen, "no message was certified and not final in {TRIES} tries");
}
