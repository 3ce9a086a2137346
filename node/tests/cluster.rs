//! Four nodes on loopback in one process: what one takes becomes final everywhere, whoever is down for a while.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Sketch, config, device, id, now_us, pay, refusals, runtime, session, start, submit};
use weft_core::{
    Balance, BatchBuilder, DeviceSigner, Draft, Genesis, LaneId, LaneTree, MessageId, PayloadKind, Place,
    Reason, Validator, VerifiedMessage,
};
use weft_net::peer::{
    Hold, Holdings, LaneEnd, PeerCode, PeerConfig, PeerLimits, PeerMember, PeerNet, PeerService, ShipAnswer,
    ShipCursor, ShipEnd, Shipping, SubscriptionId,
};
use weft_net::{AckLevel, Lookup};
use weft_node::config::Config;
use weft_node::confirm::Fault;
use weft_node::health::State;
use weft_node::node::RunningNode;
use weft_storage::DataDir;

const NODES: usize = 4;

/// A cluster: some of its nodes run.
struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    nodes: Vec<Option<RunningNode>>,
}

impl Cluster {
    /// Directories of a ledger of four validators in which device 1 has `amount`; no node runs.
    fn new(amount: u64) -> Self {
        let seed = |node: usize| [100 + node as u8; 32];
        let validator = |node| Validator {
            key: DeviceSigner::from_seed(seed(node)).public(),
            weight: 1,
            name: String::new(),
        };
        let genesis = Genesis {
            committee: (0..NODES).map(validator).collect(),
            balances: vec![Balance { account: device(1).public(), amount }],
            ..Genesis::single("cluster", now_us(), DeviceSigner::from_seed(seed(0)).public())
        };
        let dir = |node| {
            let dir = tempfile::tempdir().unwrap();
            DataDir::init(dir.path(), &genesis, &seed(node)).unwrap();
            dir
        };
        Self { dirs: (0..NODES).map(dir).collect(), nodes: (0..NODES).map(|_| None).collect() }
    }

    fn started(amount: u64) -> Self {
        let mut cluster = Self::new(amount);
        (0..NODES).for_each(|node| cluster.start(node));
        cluster.wait_live(0..NODES);
        cluster
    }

    fn start(&mut self, node: usize) {
        let config =
            Config { peer_listen: Some("127.0.0.1:0".parse().unwrap()), ..config(self.dirs[node].path()) };
        self.start_with(node, &config);
    }

    fn start_with(&mut self, node: usize, config: &Config) {
        self.nodes[node] = Some(start(config));
        for from in 0..NODES {
            for to in 0..NODES {
                if let (Some(from), Some(there)) = (&self.nodes[from], &self.nodes[to]) {
                    let address = there.peer_address().unwrap().to_string();
                    from.set_peer_address(LaneId(to as u16), Some(address));
                }
            }
        }
    }

    fn stop(&mut self, node: usize) {
        self.nodes[node].take().unwrap().stop();
    }

    fn node(&self, node: usize) -> &RunningNode {
        self.nodes[node].as_ref().unwrap()
    }

    fn up(&self) -> impl Iterator<Item = &RunningNode> {
        self.nodes.iter().flatten()
    }

    fn wait_live(&self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            wait_for("it is live", || self.node(node).health().state == State::Live);
        }
    }

    /// Waits until every running node has lane `lane` final up to `size`.
    fn wait_final(&self, lane: usize, size: u64) {
        for node in self.up() {
            wait_for("it is final everywhere", || node.confirm().final_size(LaneId(lane as u16)) >= size);
        }
    }

    fn final_size(&self, node: usize, lane: usize) -> u64 {
        self.node(node).confirm().final_size(LaneId(lane as u16))
    }

    fn balance(&self, node: usize, account: u8) -> u64 {
        let key = device(account).public();
        self.node(node)
            .confirm()
            .ask(|machine| machine.ledger().account(&key).map_or(0, |account| account.balance))
    }
}

/// Waits until `done`, at most twenty seconds.
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "not within twenty seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends `count` messages to a node in submits of 50 and tells their ids.
fn send(node: &RunningNode, level: AckLevel, count: u64, first_sequence: u64) -> Vec<MessageId> {
    runtime().block_on(async {
        let (_client, session) = session(node, level).await;
        let mut ids = Vec::new();
        let mut sequence = first_sequence;
        while ids.len() < count as usize {
            let messages: Vec<Vec<u8>> = (0..50.min(count - ids.len() as u64))
                .map(|n| Sketch::new(&session, sequence).sign(&device(10 + n as u8)))
                .collect();
            sequence += 1;
            let ack = submit(&session, &messages).await;
            assert_eq!((ack.level, refusals(&ack)), (level, vec![]));
            ids.extend(messages.iter().map(|bytes| id(bytes)));
        }
        ids
    })
}

/// How many of `ids` the node gives out.
fn found(node: &RunningNode, ids: &[MessageId]) -> usize {
    runtime().block_on(async {
        let (_client, session) = session(node, AckLevel::Durable).await;
        let mut found = 0;
        for ids in ids.chunks(100) {
            let answers = session.get(ids).await.unwrap();
            found += answers.iter().filter(|answer| matches!(answer, Lookup::Found(_))).count();
        }
        found
    })
}

#[test]
fn what_one_node_takes_becomes_final_on_all_and_may_be_cited_at_any() {
    let cluster = Cluster::started(1);
    let mut sent = Vec::new();
    for node in 0..NODES {
        sent.extend(send(cluster.node(node), AckLevel::Final, 200, 1));
    }
    for node in 0..NODES {
        cluster.wait_final(node, cluster.final_size(node, node));
        assert_eq!(found(cluster.node(node), &sent), sent.len(), "node {node}");
    }
    // A parent in another lane, below final there.
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(3), AckLevel::Final).await;
        let parents = [sent[0], sent[399]];
        let child = Sketch { parents, ..Sketch::new(&session, 900) }.sign(&device(2));
        let ack = submit(&session, std::slice::from_ref(&child)).await;
        assert_eq!(refusals(&ack), vec![]);
        sent.push(id(&child));
    });
    cluster.wait_final(3, cluster.final_size(3, 3));
    assert_eq!(found(cluster.node(0), &sent), sent.len());
    for node in cluster.up() {
        assert!((0..NODES as u16).all(|lane| node.confirm().faults(LaneId(lane)).is_empty()));
        assert!(!node.confirm().is_silenced());
    }
}

#[test]
fn an_ack_of_level_final_waits_for_a_quorum_and_durable_does_not() {
    let mut cluster = Cluster::new(1);
    cluster.start(0);
    cluster.start(1);
    // Two of four are no quorum: they wait for word of a third, and then go on without.
    cluster.wait_live([0, 1]);
    send(cluster.node(0), AckLevel::Durable, 10, 1);
    let waiting = runtime().block_on(async {
        let (client, session) = session(cluster.node(0), AckLevel::Final).await;
        let message = Sketch::new(&session, 1).sign(&device(3));
        let lengths = [u16::try_from(message.len()).unwrap()];
        let pending = session.submit(&lengths, Bytes::from(message)).await.unwrap();
        tokio::pin!(pending);
        let early = tokio::time::timeout(Duration::from_millis(1500), &mut pending).await;
        assert!(early.is_err(), "two of four have answered {early:?}");
        assert_eq!(cluster.final_size(0, 0), 0);
        let started = tokio::task::block_in_place(|| {
            cluster.start(2);
            Instant::now()
        });
        let ack = pending.await.unwrap();
        assert_eq!((ack.level, refusals(&ack)), (AckLevel::Final, vec![]));
        drop((client, session));
        started.elapsed()
    });
    assert!(cluster.final_size(0, 0) > 0 && waiting < Duration::from_secs(15), "{waiting:?}");
}

#[test]
fn a_node_that_was_down_catches_up_and_takes_part_again() {
    let mut cluster = Cluster::started(1);
    let before = send(cluster.node(2), AckLevel::Final, 100, 1);
    cluster.stop(2);
    // Three of four go on.
    let mut sent = before;
    for node in [0, 1, 3] {
        sent.extend(send(cluster.node(node), AckLevel::Final, 1500, 1));
    }
    cluster.start(2);
    cluster.wait_live([2]);
    for lane in [0, 1, 3] {
        cluster.wait_final(lane, cluster.final_size(lane, lane));
    }
    assert_eq!(found(cluster.node(2), &sent), sent.len());
    // With another one down its vote is needed.
    cluster.stop(0);
    sent.extend(send(cluster.node(2), AckLevel::Final, 100, 50));
    assert_eq!(found(cluster.node(2), &sent), sent.len());
    assert!(!cluster.node(2).confirm().is_silenced());
    // And the one that is down now gets what it has missed from whoever has it.
    cluster.start(0);
    cluster.wait_final(2, cluster.final_size(2, 2));
    assert_eq!(found(cluster.node(0), &sent), sent.len());
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_node_restored_from_an_older_copy_stops_before_it_signs_anything_twice() {
    let mut cluster = Cluster::started(1);
    send(cluster.node(1), AckLevel::Final, 50, 1);
    cluster.stop(1);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(cluster.dirs[1].path(), copy.path());
    cluster.start(1);
    cluster.wait_live([1]);
    send(cluster.node(1), AckLevel::Final, 50, 2);
    let size = cluster.final_size(1, 1);
    cluster.wait_final(1, size);
    cluster.stop(1);
    std::fs::remove_dir_all(cluster.dirs[1].path()).unwrap();
    copy_dir(copy.path(), cluster.dirs[1].path());
    cluster.start(1);
    wait_for("it finds out", || cluster.node(1).health().state == State::Poisoned);
    let cause = cluster.node(1).health().cause.unwrap_or_default();
    assert!(cause.contains("signed and does not have"), "{cause}");
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(1), AckLevel::Durable).await;
        let message = Sketch::new(&session, 3).sign(&device(9));
        assert_eq!(refusals(&submit(&session, &[message]).await), [(0, Reason::LogFailed)]);
    });
    // The others go on, and have nothing to reproach it with.
    send(cluster.node(0), AckLevel::Final, 50, 60);
    for node in [0, 2, 3] {
        assert_eq!(cluster.node(node).confirm().faults(LaneId(1)), []);
    }
}

type Ship = dyn Fn(LaneId, LaneId, &[LaneEnd]) -> ShipAnswer + Send + Sync;

/// A node that ships what it likes: of which lane is asked by which peer, from which ends on.
struct Liar(Box<Ship>);

const NOTHING: LaneEnd = LaneEnd { size: 0, root: weft_core::merkle::EMPTY_ROOT };

impl Liar {
    /// Signs two histories of its lane, 3, and gives one to node 0 and the other to all others.
    fn two_ways(histories: [Vec<Bytes>; 2]) -> Self {
        Self(Box::new(move |peer, lane, ends| {
            if lane != LaneId(3) || !ends.contains(&NOTHING) {
                return ShipAnswer::NotHeld { held: 0 };
            }
            ships(&histories[usize::from(peer != LaneId(0))])
        }))
    }
}

/// Ships these batches and nothing more.
fn ships(batches: &[Bytes]) -> ShipAnswer {
    ShipAnswer::From(NOTHING, Box::new(Pages(batches.iter().cloned().collect())))
}

struct Pages(std::collections::VecDeque<Bytes>);

impl ShipCursor for Pages {
    fn read(&mut self, _: usize, out: &mut Vec<Bytes>) -> Result<(), ShipEnd> {
        out.extend(self.0.drain(..));
        Ok(())
    }
}

impl PeerService for Liar {
    fn connected(&self, _: LaneId) {}
    fn disconnected(&self, _: LaneId, _: Option<PeerCode>, _: &str) {}
    fn witness(&self, _: LaneId, _: Bytes, _: Hold) {}
    fn holdings(&self, _: LaneId, _: Holdings, _: Hold) {}
    fn fork_proof(&self, _: LaneId, _: LaneId, _: [Bytes; 2], _: Hold) {}
    fn batch(&self, _: LaneId, _: LaneId, _: SubscriptionId, _: Bytes) {}
    fn shipping(&self, _: LaneId, _: LaneId, _: SubscriptionId, _: Shipping) {}
    fn chain_done(&self, _: LaneId, _: u16, _: u32, _: bool) {}

    fn ship(&self, peer: LaneId, lane: LaneId, ends: &[LaneEnd]) -> ShipAnswer {
        (self.0)(peer, lane, ends)
    }

    fn chain(&self, _: LaneId, _: u16, _: u64, _: usize, _: usize) -> Vec<Bytes> {
        Vec::new()
    }
}

/// Batches of one message each in the lane of node 3, sealed with its key. `spoil` may change a message after it was signed.
fn history(dir: &DataDir, payload: &[u8], spoil: impl Fn(u64, &mut Vec<u8>)) -> Vec<Bytes> {
    let (genesis, signer) = (dir.genesis_id(), DeviceSigner::from_seed(*dir.node_seed()));
    let mut tree = LaneTree::new();
    let mut batches = Vec::new();
    for sequence in 1..=2 {
        let draft = Draft {
            network: genesis.network(),
            issued_at_us: now_us(),
            sequence,
            parents: genesis.roots(),
            kind: PayloadKind::DATA,
            payload,
        };
        let mut message = draft.sign(&device(5)).unwrap();
        spoil(sequence, &mut message);
        let mut builder = BatchBuilder::new(1, 10_000);
        let view = weft_core::MessageView::parse(&message).unwrap();
        builder.push([Place::root(0), Place::root(1)], &VerifiedMessage::vouch(view)).unwrap();
        let seal = |text: &[u8]| signer.sign_bytes(text);
        let sealed = builder.seal(&mut tree, genesis.network(), LaneId(3), seal).unwrap();
        batches.push(Bytes::copy_from_slice(sealed.bytes()));
    }
    batches
}

/// Node 3 of the cluster is this liar from now on.
fn lie(cluster: &Cluster, dir: &DataDir, liar: Liar) -> PeerNet {
    let members = dir.genesis().node_keys().enumerate().map(|(lane, key)| PeerMember {
        key,
        address: cluster.nodes[lane].as_ref().map(|node| node.peer_address().unwrap().to_string()),
    });
    let config = PeerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        seed: *dir.node_seed(),
        genesis: dir.genesis_id(),
        lane: LaneId(3),
        members: members.collect(),
        latency: Duration::ZERO,
        limits: PeerLimits::default(),
    };
    PeerNet::start(config, runtime().handle(), std::sync::Arc::new(liar)).unwrap()
}

#[test]
fn a_lane_that_its_node_signs_two_ways_is_closed_everywhere_and_all_others_go_on() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let liar = Liar::two_ways([history(&dir, b"one", |_, _| {}), history(&dir, b"another", |_, _| {})]);
    let net = lie(&cluster, &dir, liar);
    for node in cluster.up() {
        wait_for("the fork is known", || node.confirm().faults(LaneId(3)).contains(&Fault::Forked));
    }
    for node in 0..3 {
        send(cluster.node(node), AckLevel::Final, 50, 1);
    }
    let finals: Vec<u64> = (0..3).map(|node| cluster.final_size(node, 3)).collect();
    assert_eq!(finals, [0, 0, 0], "one vote for the one, two for the other: neither is certified");
    for node in cluster.up() {
        assert!((0..3).all(|lane| node.confirm().faults(LaneId(lane)).is_empty()));
    }
    runtime().block_on(net.shutdown());
}

#[test]
fn a_replicated_batch_with_a_bad_device_signature_ends_its_lane_before_it_on_every_node() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    // The seal is right, and so is the first message; of the second one a bit of the signature is not.
    let spoiled = history(&dir, b"data", |sequence, message| {
        if sequence == 2 {
            let byte = message.len() - 40;
            message[byte] ^= 1;
        }
    });
    let net = lie(&cluster, &dir, Liar::two_ways([spoiled.clone(), spoiled]));
    for node in cluster.up() {
        wait_for("the lane has ended", || node.confirm().faults(LaneId(3)).contains(&Fault::Ended));
    }
    // A header and a message: the first batch.
    (0..3).for_each(|node| wait_for("the first batch is final", || cluster.final_size(node, 3) == 2));
    for node in 0..3 {
        send(cluster.node(node), AckLevel::Final, 50, 1);
        assert_eq!(cluster.final_size(node, 3), 2, "never the second one");
        assert!((0..3).all(|lane| cluster.node(node).confirm().faults(LaneId(lane)).is_empty()));
    }
    runtime().block_on(net.shutdown());
}

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
    let liar = Liar(Box::new(move |peer, lane, _| match (peer, lane) {
        (LaneId(0), LaneId(3)) => ships(&batches),
        _ => ShipAnswer::NotHeld { held: 0 },
    }));
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
    let liar = Liar(Box::new(move |peer, lane, _| match (peer, lane) {
        (LaneId(0), LaneId(3)) => ships(&batches),
        _ => ships(&[]),
    }));
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
        ..everything()
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
        let silent = Liar(Box::new(move |_, lane, ends| {
            asked.fetch_or(lane == LaneId(1), std::sync::atomic::Ordering::AcqRel);
            ShipAnswer::From(ends[0], Box::new(Pages(std::collections::VecDeque::new())))
        }));
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
fn a_node_without_room_for_other_lanes_says_so_and_is_back_when_there_is_room() {
    let mut cluster = Cluster::started(1);
    cluster.stop(3);
    // More than any disk has; segments are small, so that the next one is soon needed.
    let settings = Config {
        peer_listen: Some("127.0.0.1:0".parse().unwrap()),
        free_space_watermark_bytes: 1 << 50,
        segment_bytes: 1 << 20,
        ..config(cluster.dirs[3].path())
    };
    cluster.start_with(3, &settings);
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

#[test]
fn of_a_double_spend_at_two_nodes_at_once_no_two_halves_are_ever_in_a_ledger() {
    let cluster = Cluster::started(1000);
    let mut entered = 0;
    for round in 0..15u64 {
        // An account that signs two payloads for one sequence can stop itself: then the test is over.
        let next = cluster
            .node(0)
            .confirm()
            .ask(|machine| machine.ledger().account(&device(1).public()).map_or(0, |account| account.next));
        if next < round {
            break;
        }
        runtime().block_on(async {
            let (_left, left) = session(cluster.node(0), AckLevel::Durable).await;
            let (_right, right) = session(cluster.node(3), AckLevel::Durable).await;
            let spends =
                (pay(&left, 2 * round + 1, (round, 2, 1)), pay(&right, 2 * round + 2, (round, 3, 1)));
            let refused = tokio::join!(spends.0, spends.1);
            assert!(refused.0.is_none() || refused.1.is_none(), "{refused:?}");
        });
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && cluster.balance(0, 1) == 1000 - round {
            std::thread::sleep(Duration::from_millis(10));
        }
        entered += u64::from(cluster.balance(0, 1) < 1000 - round);
    }
    // All ledgers come to agree, and no money was made.
    for node in 0..NODES {
        wait_for("the ledgers agree", || {
            (1..=3).all(|account| cluster.balance(node, account) == cluster.balance(0, account))
        });
        let [spent, left, right] = [1, 2, 3].map(|account| cluster.balance(node, account));
        assert_eq!((spent + left + right, left + right), (1000, entered), "node {node}");
    }
}
