//! Nothing acknowledged as durable is lost when the node is killed, and nothing unsound appears.
//!
//! Each round starts the real `weft node` as a child process on one data directory, sends signed messages over QUIC as fast as it
//! acknowledges them, sends SIGKILL at a random moment, starts the node again and reads back every message that was acknowledged in
//! the round, over the same protocol, checking id and signature from the returned bytes. At the end the whole log is verified and a
//! sample over all rounds is read back.
//!
//! `WEFT_KILL_ROUNDS` sets the number of rounds (default 3; CI runs 20; `docs/promises.md` has the long run). `WEFT_SEED` replays the
//! random choices, as far as the scheduler allows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use weft_core::{DeviceSigner, Draft, MessageId, MessageView, PayloadKind};
use weft_net::{AckLevel, Client, ClientConfig, Lookup, SessionOptions, Trust};

/// Messages of one submit.
const SUBMIT_MESSAGES: usize = 64;

/// Acked ids kept per round for the check over all rounds at the end.
const SAMPLE_PER_ROUND: usize = 50;

/// A small generator for the test's own choices (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The program under test; `WEFT_BIN` names another one, such as a release build.
fn binary() -> std::ffi::OsString {
    std::env::var_os("WEFT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_weft").into())
}

/// A node in a child process; killed when dropped, so that no failed assertion leaves one behind.
struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["node", "--listen", "127.0.0.1:0", "--recent-ids-max", "65536", "--segment-bytes", "4MiB"])
            .args(["--free-space-watermark-bytes", "0", "--verify-threads", "1", "--log", "warn", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the node starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let address = loop {
            let line = lines.next().expect("the node says where it listens before it ends").expect("UTF-8");
            if let Some(rest) = line.trim().strip_prefix("listening") {
                break rest.split_whitespace().next().expect("an address").parse().expect("an address");
            }
        };
        Self { child, address }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.child.kill().expect("the node is ours to kill");
        self.child.wait().expect("the node ends");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(address: SocketAddr) -> Client {
    Client::connect(ClientConfig::new(address, Trust::InsecureAny)).await.expect("the node is up")
}

/// Devices that sign on, and where their sequences stand.
struct Fleet {
    signers: Vec<DeviceSigner>,
    sequence: u64,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let signers = (0..16u64)
            .map(|device| {
                let mut bytes = [7u8; 32];
                bytes[..8].copy_from_slice(&seed.to_le_bytes());
                bytes[8..16].copy_from_slice(&device.to_le_bytes());
                DeviceSigner::from_seed(bytes)
            })
            .collect();
        Self { signers, sequence: 0 }
    }

    /// One submit: lengths, bytes, and the ids in it.
    fn submit(
        &mut self,
        network: weft_core::NetworkId,
        parents: [MessageId; 2],
    ) -> (Vec<u16>, Bytes, Vec<MessageId>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (mut lengths, mut all, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SUBMIT_MESSAGES {
            let signer = &self.signers[(self.sequence % self.signers.len() as u64) as usize];
            let mut payload = [0u8; 64];
            payload[16..24].copy_from_slice(&self.sequence.to_le_bytes());
            let draft = Draft {
                network,
                issued_at_us: u64::try_from(now.as_micros()).unwrap(),
                sequence: self.sequence,
                parents,
                kind: PayloadKind::DATA,
                payload: &payload,
            };
            let bytes = draft.sign(signer).expect("a small payload");
            ids.push(MessageView::parse(&bytes).expect("just built").id());
            lengths.push(u16::try_from(bytes.len()).unwrap());
            all.extend_from_slice(&bytes);
            self.sequence += 1;
        }
        (lengths, Bytes::from(all), ids)
    }
}

/// Sends until the node is killed under it; every id that was acknowledged as durable.
async fn load_until_killed(node: &mut Node, fleet: &mut Fleet, kill_after: Duration) -> Vec<MessageId> {
    let client = connect(node.address).await;
    let options = SessionOptions::default();
    let (sender, mut acks) = client.open_load_session(options).await.expect("a session");
    let (network, genesis) = (sender.welcome().network, sender.welcome().genesis);
    let mut sent: std::collections::HashMap<u64, Vec<MessageId>> = std::collections::HashMap::new();
    let mut acked = Vec::new();
    let mut parents = genesis.roots();
    let deadline = Instant::now() + kill_after;
    let mut killed = false;
    loop {
        if !killed && Instant::now() >= deadline {
            node.kill();
            killed = true;
        }
        if !killed && sender.in_flight().requests < 16 {
            let (lengths, bytes, ids) = fleet.submit(network, parents);
            match sender.submit(&lengths, bytes).await {
                Ok(request) => drop(sent.insert(request, ids)),
                Err(error) => panic!("the node refused a submit before it was killed: {error}"),
            }
        }
        // After the kill: whatever reached this side of the socket before it still counts as told to the client.
        let patience = if killed { Duration::from_millis(30) } else { Duration::from_millis(1) };
        match tokio::time::timeout(patience, acks.recv()).await {
            Err(_) if killed => break,
            Err(_) => {}
            Ok(None) => break,
            Ok(Some(delivery)) => {
                let Ok(ack) = delivery.result else { continue };
                assert!(ack.level >= AckLevel::Durable);
                let ids = sent.remove(&ack.request_id).expect("an ack for something sent");
                assert!(ack.exceptions.is_empty(), "an honest message was refused: {:?}", ack.exceptions[0]);
                if let [first, second, ..] = ack.tips[..] {
                    parents = [first, second];
                }
                acked.extend(ids);
            }
        }
    }
    acked
}

/// Reads every id back and checks it from the returned bytes alone.
async fn assert_all_stored(address: SocketAddr, ids: &[MessageId], round: u64) {
    let client = connect(address).await;
    let session = client.open_session(SessionOptions::default()).await.expect("a session");
    for chunk in ids.chunks(512) {
        let found = session.get(chunk).await.expect("an answer");
        for (id, lookup) in chunk.iter().zip(found) {
            let Lookup::Found(found) = lookup else {
                panic!("round {round}: message {id} was acknowledged as durable and is gone");
            };
            let view = MessageView::parse(&found.bytes).expect("a message");
            assert_eq!(view.id(), *id, "round {round}: other bytes came back");
            assert!(
                weft_crypto::serial::verify_one(&view.issuer().0, &id.0, view.signature()),
                "round {round}: message {id} came back with a bad signature"
            );
        }
    }
}

fn weft(arguments: &[&str], data: &Path) -> bool {
    Command::new(binary())
        .args(arguments)
        .arg("--data")
        .arg(data)
        .stdout(Stdio::null())
        .status()
        .expect("weft runs")
        .success()
}

#[test]
fn nothing_acknowledged_as_durable_is_lost_when_the_node_is_killed() {
    let rounds = environment("WEFT_KILL_ROUNDS", 3);
    let seed = environment("WEFT_SEED", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("WEFT_SEED={seed} WEFT_KILL_ROUNDS={rounds}");
    let mut random = Random(seed);
    let scratch = tempfile::tempdir().unwrap();
    let data: PathBuf = scratch.path().join("node");
    assert!(weft(&["init"], &data));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut fleet = Fleet::new(seed);
    let (mut acked_total, mut productive, mut sample) = (0usize, 0u64, Vec::new());
    let mut node = Node::start(&data);
    for round in 0..rounds {
        let kill_after = Duration::from_micros(20_000 + random.below(280_000));
        let acked = runtime.block_on(load_until_killed(&mut node, &mut fleet, kill_after));
        node = Node::start(&data);
        runtime.block_on(assert_all_stored(node.address, &acked, round));
        acked_total += acked.len();
        productive += u64::from(!acked.is_empty());
        sample.extend(
            (0..SAMPLE_PER_ROUND.min(acked.len())).map(|_| acked[random.below(acked.len() as u64) as usize]),
        );
        if round % 50 == 49 {
            println!("round {}: {acked_total} messages acknowledged as durable, none lost", round + 1);
        }
    }
    runtime.block_on(assert_all_stored(node.address, &sample, rounds));
    node.kill();
    assert!(weft(&["verify-log"], &data), "the log does not verify after the last kill");
    println!("{rounds} rounds of kill -9: {acked_total} messages acknowledged as durable, 0 lost");
    assert!(
        productive * 2 > rounds,
        "fewer than half of the rounds had anything acknowledged: the test shows nothing"
    );
}
