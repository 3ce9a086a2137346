//! Four nodes of which one lies, keeps silent or has no room: the others go on, and so does it once it can.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::four::{Cluster, NODES, copy_dir, wait_for};
use common::liar::{Liar, Pages, history, lie, ships};
use common::{Sketch, config, device, refusals, runtime, send, session, start, submit};
use weft_core::LaneId;
use weft_net::AckLevel;
use weft_net::peer::{Holdings, LaneEnd, ShipAnswer};
use weft_node::config::Config;
use weft_node::health::State;
use weft_storage::DataDir;

/// What claims everything of all lanes and all chains.
fn everything() -> Holdings {
    let most = LaneEnd { size: u64::MAX, root: [7; 32] };
    Holdings {
        lanes: (0..NODES as u16).map(|lane| (LaneId(lane), most)).collect(),
        followed: (0..NODES as u16).map(|validator| (validator, u64::MAX)).collect(),
    }
}

#[test]
fn a_lane_whose_node_refuses_it_to_most_is_had_from_whoever_has_it() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let batches = history(&dir, b"data", |_, _| {});
    let liar = Liar::new(move |peer, lane, _| match (peer, lane) {
        (LaneId(0), LaneId(3)) => ships(&batches),
        _ => ShipAnswer::NotHeld { held: 0 },
    });
    let net = lie(&cluster, &dir, liar);
    cluster.wait_final(3, 4);
    runtime().block_on(net.shutdown());
}

#[test]
fn a_node_that_claims_everything_and_ships_nothing_holds_up_no_lane_and_nobodys_state() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let batches = history(&dir, b"data", |_, _| {});
    let liar = Liar::new(move |peer, lane, _| match (peer, lane) {
        (LaneId(0), LaneId(3)) => ships(&batches),
        _ => ships(&[]),
    });
    let net = lie(&cluster, &dir, liar);
    wait_for("its claims have come", || {
        net.send_holdings(None, &everything());
        (0..3).all(|node| net.is_connected(LaneId(node)))
    });
    net.send_holdings(None, &everything());
    cluster.wait_final(3, 4);
    for node in 0..3 {
        send(cluster.node(node), AckLevel::Final, 100, 1);
    }
    cluster.wait_live(0..3);
    // Nor does it stop a node from coming back; one whose own lane it claims more of takes half a minute.
    let claims = Holdings {
        lanes: everything().lanes.into_iter().filter(|end| end.0 != LaneId(2)).collect(),
        followed: everything().followed.into_iter().filter(|followed| followed.0 != 2).collect(),
    };
    net.send_holdings(None, &claims);
    cluster.stop(2);
    cluster.start(2);
    net.set_address(LaneId(2), Some(cluster.node(2).peer_address().unwrap().to_string()));
    wait_for("it is back", || {
        net.send_holdings(None, &claims);
        cluster.node(2).health().state == State::Live
    });
    send(cluster.node(2), AckLevel::Final, 100, 50);
    runtime().block_on(net.shutdown());
}

#[test]
fn a_restored_node_finds_out_though_somebody_claims_more_of_its_lane_and_shows_nothing() {
    let mut cluster = Cluster::started(1);
    send(cluster.node(1), AckLevel::Final, 50, 1);
    cluster.stop(1);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(cluster.dirs[1].path(), copy.path());
    cluster.start(1);
    cluster.wait_live([1]);
    send(cluster.node(1), AckLevel::Final, 50, 2);
    cluster.wait_final(1, cluster.final_size(1, 1));
    cluster.stop(1);
    cluster.stop(3);
    std::fs::remove_dir_all(cluster.dirs[1].path()).unwrap();
    copy_dir(copy.path(), cluster.dirs[1].path());
    let settings = |dir: &Path| Config { peer_listen: Some("127.0.0.1:0".parse().unwrap()), ..config(dir) };
    let restored = start(&settings(cluster.dirs[1].path()));
    let address = restored.peer_address().unwrap().to_string();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let net = {
        let asked = asked.clone();
        let silent = Liar::new(move |_, lane, ends| {
            asked.fetch_or(lane == LaneId(1), std::sync::atomic::Ordering::AcqRel);
            ShipAnswer::From(ends[0], Box::new(Pages(std::collections::VecDeque::new())))
        });
        lie(&cluster, &dir, silent)
    };
    net.set_address(LaneId(1), Some(address.clone()));
    wait_for("the liar is asked", || {
        net.send_holdings(None, &everything());
        asked.load(std::sync::atomic::Ordering::Acquire)
    });
    // Only now those come who have it.
    restored.set_peer_address(LaneId(0), Some(cluster.node(0).peer_address().unwrap().to_string()));
    cluster.node(2).set_peer_address(LaneId(1), Some(address));
    wait_for("it finds out", || restored.health().state == State::Poisoned);
    let cause = restored.health().cause.unwrap_or_default();
    assert!(cause.contains("signed and does not have"), "{cause}");
    restored.stop();
    runtime().block_on(net.shutdown());
}

#[test]
fn a_node_that_was_away_when_a_fork_was_proven_is_told_when_it_comes_also_by_nodes_that_have_only_the_proof()
{
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    cluster.stop(2);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let (here, there) = (history(&dir, b"data", |_, _| {}), history(&dir, b"other data", |_, _| {}));
    let shipped = here.clone();
    let liar = Liar::new(move |_, lane, _| match lane {
        LaneId(3) => ships(&shipped),
        _ => ShipAnswer::NotHeld { held: 0 },
    });
    let net = lie(&cluster, &dir, liar);
    let is_forked = |cluster: &Cluster, node: usize| {
        cluster.node(node).confirm().faults(LaneId(3)).contains(&weft_node::confirm::Fault::Forked)
    };
    wait_for("both have the lane", || {
        (0..2).all(|node| {
            cluster.node(node).confirm().ask(|machine| machine.watermarks(LaneId(3)).unwrap().held) == 4
        })
    });
    net.send_fork_proof(None, LaneId(3), &[here[0].clone(), there[0].clone()]);
    wait_for("both know", || (0..2).all(|node| is_forked(&cluster, node)));
    runtime().block_on(net.shutdown());
    // What they had of the other side is gone.
    for node in 0..2 {
        cluster.stop(node);
        cluster.start(node);
    }
    cluster.start(2);
    wait_for("it knows", || is_forked(&cluster, 2));
    assert!(cluster.node(2).confirm().ask(|machine| machine.is_closed(LaneId(3))));
    // And tells others, after a restart too.
    cluster.stop(0);
    cluster.stop(1);
    cluster.stop(2);
    cluster.start(2);
    std::fs::remove_file(cluster.dirs[0].path().join("forks")).unwrap();
    cluster.start(0);
    wait_for("it is told", || is_forked(&cluster, 0));
}

#[test]
fn a_node_without_room_for_other_lanes_says_so_and_is_back_when_there_is_room() {
    let mut cluster = Cluster::started(1);
    cluster.stop(3);
    // More than any disk has; segments are small, so that the next one is soon needed.
    cluster.start_with(3, |config| {
        (config.free_space_watermark_bytes, config.segment_bytes) = (1 << 50, 1 << 20);
    });
    cluster.wait_live([3]);
    let filled = runtime().block_on(async {
        let (_client, session) = session(cluster.node(0), AckLevel::Durable).await;
        let until = Instant::now() + Duration::from_secs(30);
        for sequence in 1.. {
            let mut sketch = Sketch::new(&session, sequence);
            sketch.payload = vec![0; 16_000];
            let messages: Vec<_> = (0..8).map(|n| sketch.sign(&device(10 + n))).collect();
            assert_eq!(refusals(&submit(&session, &messages).await), []);
            match cluster.node(3).health().state {
                State::DiskFull => return sequence,
                State::Poisoned => panic!("{:?}", cluster.node(3).health().cause),
                _ => assert!(Instant::now() < until, "the watermark is never reached"),
            }
        }
        0
    });
    assert!(filled > 0);
    let status = runtime().block_on(async {
        let (_client, session) = session(cluster.node(3), AckLevel::Durable).await;
        session.status().await.unwrap()
    });
    assert_eq!(status.flags, weft_net::frame::node_flags::DISK_FULL, "`weft status` says so too");
    // The others go on, and it stays as it is.
    send(cluster.node(1), AckLevel::Final, 50, 1);
    assert_eq!(cluster.node(3).health().state, State::DiskFull, "{:?}", cluster.node(3).health().cause);
    cluster.stop(3);
    cluster.start(3);
    cluster.wait_live([3]);
    for lane in 0..3 {
        cluster.wait_final(lane, cluster.final_size(lane, lane));
    }
}
