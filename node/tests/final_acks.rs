//! Acks of level `final` are not those of level `certified`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::four::Cluster;
use common::{Sketch, device, refusals, runtime, session};
use weft_core::LaneId;
use weft_net::{AckLevel, PendingAck, Session};

/// One message, on its way.
async fn hand_in(session: &Session, number: u8) -> PendingAck {
    let message = Sketch::new(session, 1).sign(&device(number));
    let lengths = [u16::try_from(message.len()).unwrap()];
    session.submit(&lengths, Bytes::from(message)).await.unwrap()
}

/// Three of four validators run, so each one's votes are needed. Node 2 states its cut as soon as the messages come, and then nothing for
/// a minute. What node 1 states is on its way for a second: so node 2's cut says that it holds the messages and cannot say that
/// they are certified, which they are once node 1's has come. Until node 2 states something again they are not final.
#[test]
fn a_message_that_is_certified_and_not_final_is_acked_as_certified_and_as_final_once_rounds_go_on() {
    let mut cluster = Cluster::new(1);
    cluster.start(0);
    cluster.start_with(1, |config| config.peer_latency_ms = 1_000);
    cluster.start_with(2, |config| config.round_ms = 60_000);
    cluster.wait_live(0..3);
    runtime().block_on(async {
        let (_certified, certified) = session(cluster.node(0), AckLevel::Certified).await;
        let (_final, last) = session(cluster.node(0), AckLevel::Final).await;
        // Both in one batch or two, stated by the same witness of node 2 or not: a cut that it has not stated is not certified.
        let (waits_certified, waits_final) = tokio::join!(hand_in(&certified, 3), hand_in(&last, 4));
        let ack = tokio::time::timeout(Duration::from_secs(10), waits_certified).await;
        let ack = ack.expect("an ack of level certified").unwrap();
        assert_eq!((ack.level, refusals(&ack)), (AckLevel::Certified, vec![]));
        let marks = cluster.node(0).confirm().marks(LaneId(0));
        assert!(marks.certified > 0 && marks.final_size == 0, "{marks:?}");
        tokio::pin!(waits_final);
        let early = tokio::time::timeout(Duration::from_secs(3), &mut waits_final).await;
        assert!(early.is_err(), "certified is not final: {early:?}");
        assert_eq!(cluster.node(0).confirm().final_size(LaneId(0)), 0);
        // Progress again: node 2 with rounds as they should be.
        tokio::task::block_in_place(|| {
            cluster.stop(2);
            cluster.start(2);
        });
        let ack = tokio::time::timeout(Duration::from_secs(15), waits_final).await;
        let ack = ack.expect("an ack of level final").unwrap();
        assert_eq!((ack.level, refusals(&ack)), (AckLevel::Final, vec![]));
        let marks = cluster.node(0).confirm().marks(LaneId(0));
        assert!(marks.final_size > 0, "{marks:?}");
    });
}
