//! A node that cannot start leaves nothing behind in the process that tried.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![cfg(target_os = "linux")]

mod common;

use std::net::UdpSocket;

use common::config;
use common::four::{Cluster, wait_for};
use weft_node::config::Config;
use weft_node::health::State;
use weft_node::node::{RunningNode, StartError};

/// Threads of nodes in this process, but for those that serve sockets.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("weft-") && !name.starts_with("weft-net")).collect()
}

#[test]
fn a_node_whose_port_for_peers_is_taken_ends_all_that_it_has_started() {
    let mut cluster = Cluster::new(1);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings =
        Config { peer_listen: Some(taken.local_addr().unwrap()), ..config(cluster.dirs[0].path()) };
    let error = RunningNode::start(&settings).unwrap_err();
    assert!(matches!(error, StartError::Replication(_)), "{error}");
    wait_for("its threads are gone", || threads().is_empty());
    (0..3).for_each(|node| cluster.start(node));
    wait_for("it is live", || cluster.node(0).health().state == State::Live);
}
