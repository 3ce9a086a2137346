//! Four nodes as processes on loopback: what one acknowledges as certified every node has, and one that dies stops nobody.
//!
//! The nodes are real `weft node` children, made and run as `weft cluster up` does. `WEFT_BIN` names another binary, such as a release
//! build.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "common/processes.rs"]
mod processes;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use processes::{Acked, Links, NODES, Running, binary, feed_all, has_all, join};
use weft_net::{AckLevel, NodeState};
use weft_node::cluster;

/// The longest time in which nothing was acknowledged, in a stretch of time.
fn longest_gap(acked: &Acked, from: Instant, to: Instant) -> Duration {
    let inside = acked.iter().map(|(_, at)| *at).filter(|at| (from..to).contains(at));
    let mut times: Vec<Instant> = std::iter::once(from).chain(inside).chain([to]).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

#[test]
fn what_any_node_acknowledges_as_final_every_node_has_after_all_were_stopped_and_started() {
    let mut running = Running::start(Links::default());
    let (stop, feeding) = feed_all(&running, &[0, 1, 2, 3], (1, AckLevel::Final));
    std::thread::sleep(Duration::from_secs(3));
    stop.store(true, Ordering::Relaxed);
    let acked = join(feeding);
    assert!(acked.iter().all(|acked| !acked.is_empty()));
    cluster::stop_all(&mut running.members).unwrap();
    for number in 0..NODES {
        running.restart(number);
    }
    for number in 0..NODES {
        has_all(&running, number, &acked);
    }
    cluster::stop_all(&mut running.members).unwrap();
}

#[test]
fn a_killed_node_stops_nobody_for_long_and_catches_up_when_it_is_back() {
    let mut running = Running::start(Links { latency_ms: 5, ..Links::default() });
    let (stop, feeding) = feed_all(&running, &[0, 1, 2], (1, AckLevel::Certified));
    let (_, doomed) = feed_all(&running, &[3], (1, AckLevel::Durable));
    std::thread::sleep(Duration::from_secs(2));
    running.members[3].kill();
    let killed = Instant::now();
    doomed.iter().for_each(tokio::task::JoinHandle::abort);
    std::thread::sleep(Duration::from_secs(5));
    let (from, to) = (killed + Duration::from_secs(1), Instant::now());
    running.restart(3);
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let acked = join(feeding);
    for (number, acked) in acked.iter().enumerate() {
        let gap = longest_gap(acked, from, to);
        assert!(
            gap < Duration::from_secs(2),
            "node {number} certified nothing for {gap:?}\n{}",
            running.logs()
        );
    }
    for number in 0..NODES {
        has_all(&running, number, &acked);
    }
    running.until(3, "live again", |status| status.state == NodeState::Live);
    cluster::stop_all(&mut running.members).unwrap();
}

/// Its peers keep the connections of the dead process for ten seconds, and two of them have to dial it: it ends those connections by itself
/// (stateless resets), and joins on the word of all instead of taking messages without it after five seconds.
#[test]
fn a_node_that_is_killed_and_started_again_at_once_hears_from_all_before_it_joins() {
    let mut running = Running::start(Links::default());
    running.members[1].kill();
    running.restart(1);
    running.until(1, "live again", |status| status.state == NodeState::Live);
    let logs = running.logs();
    assert!(!logs.contains("no quorum of nodes has said"), "{logs}");
    cluster::stop_all(&mut running.members).unwrap();
}

#[test]
fn cluster_up_runs_what_init_has_made_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("cluster");
    let weft = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["cluster"]).args(arguments).arg("--data").arg(&data).stdin(Stdio::null());
        command.output().unwrap()
    };
    let made = weft(&["init", "--nodes", "4", "--base-port", "0"]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(weft(&["init"]).status.code(), Some(2), "a cluster is never made anew");
    let ran = weft(&["up", "--seconds", "3"]);
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("node-3") && out.contains("accepted/s") && !out.contains("down"), "{out}");
    // The directories are free again: every node has stopped.
    for number in 0..NODES {
        weft_storage::DataDir::open(&cluster::node_dir(&data, number)).unwrap();
    }
}
