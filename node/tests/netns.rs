//! Four nodes in network namespaces: delay and loss, a node cut off, a node killed, in a loop under load; in the end every node has what any
//! node has acknowledged as certified or final.
//!
//! Needs root and iproute2. Where that is not to be had the test is skipped with a message, unless `WEFT_REQUIRE_NETNS=1`. Delay and loss
//! come from the kernel's netem; a kernel without it (the test says so) gets its delay from `peer_latency_ms`, and no loss.
//! `WEFT_NETNS_ROUNDS` is the number of rounds (default 2).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "common/processes.rs"]
mod processes;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use processes::{NODES, Running, binary, feed_all, has_all, join};
use weft_net::{AckLevel, NodeState};
use weft_node::cluster::{self, NewCluster};

/// One way, on each node's link.
const DELAY_MS: u64 = 10;
const LOSS_PERCENT: &str = "1";

/// A network of namespaces: a bridge here, a link from it into the namespace of each node. Taken apart when dropped.
struct Network {
    name: String,
    netem: bool,
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let out =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim()))
}

fn host(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 213, 77, number as u8 + 1).into()
}

impl Network {
    fn new() -> Result<Self, String> {
        // Names of interfaces have at most 15 bytes.
        let name = format!("wft{}", std::process::id() % 100_000);
        let mut network = Self { name, netem: true };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", "10.213.77.254/24", "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for number in 0..NODES {
            let (space, link) = (network.space(number), network.link(number));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["link", "set", &link, "master", &bridge, "up"])?;
            let inside = ["-n", space.as_str()];
            let address = format!("{}/24", host(number));
            for arguments in [
                &["addr", "add", &address, "dev", "eth0"][..],
                &["link", "set", "eth0", "up"],
                &["link", "set", "lo", "up"],
            ] {
                ip(&[&inside[..], arguments].concat())?;
            }
            let delay = format!("{DELAY_MS}ms");
            let netem =
                ["qdisc", "add", "dev", "eth0", "root", "netem", "delay", &delay, "loss", LOSS_PERCENT];
            if let Err(error) = run("tc", &[&inside[..], &netem[..]].concat()) {
                eprintln!("no netem here, so no loss: {error}");
                network.netem = false;
            }
        }
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn space(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn link(&self, number: usize) -> String {
        format!("{}v{number}", self.name)
    }

    /// Cuts a node off from everybody, or ends that.
    fn cut(&self, number: usize, cut: bool) {
        ip(&["link", "set", &self.link(number), if cut { "down" } else { "up" }]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 0..NODES {
            let _ = ip(&["link", "del", &self.link(number)]);
            let _ = ip(&["netns", "del", &self.space(number)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

#[test]
fn partitions_and_deaths_in_a_loop_lose_nothing_that_was_acknowledged() {
    let required = std::env::var("WEFT_REQUIRE_NETNS").is_ok_and(|value| value == "1");
    let rounds: usize = std::env::var("WEFT_NETNS_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => {
            assert!(!required, "WEFT_REQUIRE_NETNS=1, and no network namespaces: {why}");
            eprintln!(
                "skipped: no network namespaces here ({why}); WEFT_REQUIRE_NETNS=1 makes this a failure"
            );
            return;
        }
    };
    let spaces: Vec<String> = (0..NODES).map(|number| network.space(number)).collect();
    let new = NewCluster { hosts: (0..NODES).map(host).collect(), ..NewCluster::new(NODES) };
    let latency_ms = if network.netem { 0 } else { DELAY_MS };
    let command = Box::new(move |number: usize| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &spaces[number]]).arg(binary());
        command
    });
    let mut running = Running::start_with(new, latency_ms, command);
    let mut all = Vec::new();
    for round in 0..rounds {
        let (cut, killed) = (round % NODES, (round + 1) % NODES);
        let (stop, feeding) =
            feed_all(&running, &[0, 1, 2, 3], [AckLevel::Certified, AckLevel::Final][round % 2]);
        std::thread::sleep(Duration::from_secs(2));
        network.cut(cut, true);
        std::thread::sleep(Duration::from_secs(3));
        network.cut(cut, false);
        std::thread::sleep(Duration::from_secs(2));
        running.members[killed].kill();
        std::thread::sleep(Duration::from_secs(2));
        running.restart(killed);
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        let acked = join(feeding);
        let counts: Vec<usize> = acked.iter().map(Vec::len).collect();
        eprintln!("round {round}: node {cut} cut off, node {killed} killed; acknowledged {counts:?}");
        assert!(acked.iter().all(|acked| !acked.is_empty()), "{counts:?}\n{}", running.logs());
        all.extend(acked);
    }
    for number in 0..NODES {
        has_all(&running, number, &all);
        running.until(number, "live", |status| status.state == NodeState::Live);
    }
    cluster::stop_all(&mut running.members).unwrap();
}
