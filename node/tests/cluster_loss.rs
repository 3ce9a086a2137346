//! Four nodes, each a process, on links that are long and lose datagrams: QUIC on real sockets has to send again what is lost, and nothing
//! that was acknowledged as certified or final is missing anywhere, also when a node is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "common/processes.rs"]
mod processes;

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use processes::{Links, NODES, Running, binary, feed_all, has_all, join};
use weft_net::{AckLevel, NodeState};
use weft_node::cluster;

/// Messages at once from each of four generators, which wait for their acks: together one to two thousand a second.
const AT_ONCE: usize = 50;

#[test]
fn on_long_links_that_lose_datagrams_a_killed_node_comes_back_and_nothing_acknowledged_is_missing_anywhere() {
    let links = Links { latency_ms: 20, loss_percent: 2.0 };
    let mut running = Running::start(links);
    // The loss is not only asked for: it is in force.
    let data = cluster::node_dir(running.dir.path(), 2);
    let config = Command::new(binary()).args(["config", "--data"]).arg(data).output().unwrap();
    let config = String::from_utf8_lossy(&config.stdout).into_owned();
    let line = config.lines().find(|line| line.contains("peer_loss"));
    assert!(line.is_some_and(|line| line.contains("2.0")), "{config}");

    let (stop, certified) = feed_all(&running, &[0, 1], (AT_ONCE, AckLevel::Certified));
    let (stop_too, final_ones) = feed_all(&running, &[2, 3], (AT_ONCE, AckLevel::Final));
    std::thread::sleep(Duration::from_secs(2));
    running.members[1].kill();
    std::thread::sleep(Duration::from_secs(2));
    running.restart(1);
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    stop_too.store(true, Ordering::Relaxed);
    let acked = [join(certified), join(final_ones)].concat();
    let counts: Vec<usize> = acked.iter().map(Vec::len).collect();
    eprintln!("acknowledged {counts:?}");
    assert!(counts.iter().all(|count| *count >= 10 * AT_ONCE), "{counts:?}\n{}", running.logs());
    for number in 0..NODES {
        has_all(&running, number, &acked);
        running.until(number, "live", |status| status.state == NodeState::Live);
    }
    cluster::stop_all(&mut running.members).unwrap();
}
