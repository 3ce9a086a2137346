//! Four nodes in network namespaces: delay and loss, a node cut off, a node killed, in a loop under load; in the end every node has what any
//! node has acknowledged as certified or final.
//!
//! Needs root and iproute2. Where that is not to be had the test is skipped with a message, unless `WEFT_REQUIRE_NETNS=1`. Delay and loss
//! come from the kernel's netem. A kernel without it drops packets by a filter program instead, or, if it has neither, the nodes do
//! (`peer_loss`); the delay is `peer_latency_ms` then. The test says which it is, and with `WEFT_REQUIRE_NETNS=1` loss must be the
//! kernel's. `WEFT_NETNS_ROUNDS` is the number of rounds (default 2).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "common/processes.rs"]
mod processes;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use processes::{Links, NODES, Running, binary, feed_all, has_all, join};
use weft_net::{AckLevel, NodeState};
use weft_node::cluster::{self, NewCluster};

/// One way, on each node's link.
const DELAY_MS: u64 = 10;
const LOSS_PERCENT: u32 = 1;

/// Who makes links long and bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoiler {
    /// The kernel's network emulator: delay and loss.
    Netem,
    /// A filter program of the kernel: loss.
    Filter,
    /// The nodes themselves: delay and loss.
    Nodes,
}

/// A network of namespaces: a bridge here, a link from it into the namespace of each node. Taken apart when dropped.
struct Network {
    name: String,
    spoiler: Spoiler,
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

fn netem(link: &str) -> Result<(), String> {
    let (delay, loss) = (format!("{DELAY_MS}ms"), format!("{LOSS_PERCENT}%"));
    run("tc", &["qdisc", "add", "dev", link, "root", "netem", "delay", &delay, "loss", &loss])
}

/// A program (classic BPF) draws a random number for each packet and puts some of them into a class whose queue is a black hole. All others
/// are in no class and go straight through.
fn drop_by_filter(link: &str) -> Result<(), String> {
    // Load the random number at offset -4096 + 56; if it is greater than the limit, answer 0 (no match), else -1 (the filter's class).
    let limit = u64::from(u32::MAX) * u64::from(LOSS_PERCENT) / 100;
    let program = format!("4,32 0 0 {},37 0 1 {limit},6 0 0 0,6 0 0 {}", u32::MAX - 4_095 + 56, u32::MAX);
    for arguments in [
        &["qdisc", "add", "dev", link, "root", "handle", "1:", "htb", "default", "0"][..],
        &["class", "add", "dev", link, "parent", "1:", "classid", "1:2", "htb", "rate", "100mbit"],
        &["qdisc", "add", "dev", link, "parent", "1:2", "handle", "2:", "blackhole"],
        &["filter", "add", "dev", link, "parent", "1:", "bpf", "bytecode", &program, "flowid", "1:2"],
    ] {
        if let Err(error) = run("tc", arguments) {
            // Without the rest it would do nothing, or drop nothing: there is to be no trace of it.
            let _ = run("tc", &["qdisc", "del", "dev", link, "root"]);
            return Err(error);
        }
    }
    Ok(())
}

impl Network {
    fn new() -> Result<Self, String> {
        // Names of interfaces have at most 15 bytes.
        let name = format!("wft{}", std::process::id() % 100_000);
        let mut network = Self { name, spoiler: Spoiler::Netem };
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
            // The kernel cuts segmented sends before they leave, so that packets are lost one by one further on.
            ip(&[&inside[..], &["link", "set", "eth0", "gso_max_segs", "1"]].concat())?;
        }
        network.spoiler = network.spoil();
        Ok(network)
    }

    /// Makes each link long and bad, in the direction of its node.
    fn spoil(&self) -> Spoiler {
        let each = |spoil: fn(&str) -> Result<(), String>| -> Result<(), String> {
            (0..NODES).try_for_each(|number| spoil(&self.link(number)))
        };
        let netem = each(netem);
        let filter = netem.as_ref().err().map(|_| each(drop_by_filter));
        match (netem, filter) {
            (Err(netem), Some(Err(filter))) => {
                eprintln!("the nodes lose datagrams themselves; no netem: {netem}; no filter: {filter}");
                Spoiler::Nodes
            }
            (Err(netem), _) => {
                eprintln!("a filter program loses packets; no netem: {netem}");
                Spoiler::Filter
            }
            (Ok(()), _) => Spoiler::Netem,
        }
    }

    /// Packets that the kernel has lost on purpose.
    fn lost(&self) -> u64 {
        let lost = |number| {
            let link = self.link(number);
            let shown = Command::new("tc").args(["-s", "qdisc", "show", "dev", &link]).output().unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            // The first discipline is the root; its figures are those of everything below it.
            let (_, dropped) = shown.split_once("(dropped ").unwrap_or_default();
            dropped.split(',').next().unwrap().parse::<u64>().unwrap()
        };
        (0..NODES).map(lost).sum()
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
    let spoiler = network.spoiler;
    assert!(!required || spoiler != Spoiler::Nodes, "WEFT_REQUIRE_NETNS=1, and the kernel loses nothing");
    let links = Links {
        latency_ms: if spoiler == Spoiler::Netem { 0 } else { DELAY_MS },
        loss_percent: if spoiler == Spoiler::Nodes { LOSS_PERCENT.into() } else { 0.0 },
    };
    let command = Box::new(move |number: usize| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &spaces[number]]).arg(binary());
        command
    });
    let mut running = Running::start_with(new, links, command);
    let mut all = Vec::new();
    for round in 0..rounds {
        let (cut, killed) = (round % NODES, (round + 1) % NODES);
        let (stop, feeding) =
            feed_all(&running, &[0, 1, 2, 3], (1, [AckLevel::Certified, AckLevel::Final][round % 2]));
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
    if spoiler != Spoiler::Nodes {
        let lost = network.lost();
        eprintln!("{lost} packets lost");
        assert!(lost > 0, "nothing was lost on any link");
    }
    for number in 0..NODES {
        has_all(&running, number, &all);
        running.until(number, "live", |status| status.state == NodeState::Live);
    }
    cluster::stop_all(&mut running.members).unwrap();
}
