//! Clusters of child processes for the suites: their start, traffic to them, and what they have.

#![allow(dead_code, reason = "each suite uses a part")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use weft_core::{DeviceSigner, Draft, MessageId, MessageView, PayloadKind};
use weft_net::{
    AckLevel, Client, ClientConfig, Fingerprint, Lookup, NodeState, Session, SessionOptions, Trust,
};
use weft_node::cluster::{self, Member, NewCluster};

pub(crate) const NODES: usize = 4;

/// How long anything may take here; debug builds on a busy machine are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a generator waits for an ack. A node that was killed never gives it.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("WEFT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_weft").into()).into()
}

/// What the nodes make of the links between them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Links {
    pub(crate) latency_ms: u64,
    pub(crate) loss_percent: f64,
}

pub(crate) struct Running {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) members: Vec<Member>,
    command: Box<dyn Fn(usize) -> Command>,
}

impl Running {
    /// Nodes on loopback.
    pub(crate) fn start(links: Links) -> Self {
        let new = NewCluster { base_port: 0, ..NewCluster::new(NODES) };
        Self::start_with(new, links, Box::new(|_| Command::new(binary())))
    }

    /// Nodes that `command` runs.
    pub(crate) fn start_with(
        mut new: NewCluster,
        links: Links,
        command: Box<dyn Fn(usize) -> Command>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        new.settings.retain(|line| !line.starts_with("segment_bytes") && !line.starts_with("free_space"));
        new.settings.push("segment_bytes = \"4MiB\"".to_owned());
        new.settings.push("free_space_watermark_bytes = 0".to_owned());
        new.settings.push("verifier = \"serial\"".to_owned());
        new.settings.push(format!("peer_latency_ms = {}", links.latency_ms));
        new.settings.push(format!("peer_loss = {:?}", links.loss_percent));
        cluster::create(dir.path(), &new).unwrap();
        let start = |number| Member::start(command(number), dir.path(), number, &[]).unwrap();
        let members = (0..NODES).map(start).collect();
        let running = Self { dir, members, command };
        for member in 0..NODES {
            running.until(member, "live", |status| status.state == NodeState::Live);
        }
        running
    }

    pub(crate) fn restart(&mut self, number: usize) {
        self.members[number] = Member::start((self.command)(number), self.dir.path(), number, &[]).unwrap();
    }

    /// Waits until a node says this of itself.
    pub(crate) fn until(&self, number: usize, what: &str, holds: impl Fn(&weft_net::Status) -> bool) {
        let since = Instant::now();
        loop {
            let status = runtime().block_on(async {
                let (client, session) = session(&self.members[number], AckLevel::Durable).await?;
                let status = session.status().await.ok();
                client.close().await;
                status
            });
            if status.as_ref().is_some_and(&holds) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "node {number} is not {what}: {status:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of every node's log.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for number in 0..NODES {
            let log = std::fs::read_to_string(cluster::log_file(self.dir.path(), number)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!(
                "--- node {number}\n{}\n",
                lines[lines.len().saturating_sub(15)..].join("\n")
            ));
        }
        text
    }
}

pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

pub(crate) async fn session(member: &Member, ack_level: AckLevel) -> Option<(Client, Session)> {
    let mut config = ClientConfig::new(member.address, Trust::Pin(member.fingerprint));
    config.connect_timeout = Duration::from_secs(5);
    let client = Client::connect(config).await.ok()?;
    let session =
        client.open_session(SessionOptions { ack_level, ..SessionOptions::default() }).await.ok()?;
    Some((client, session))
}

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// One signed message.
pub(crate) fn message(session: &Session, device: u8, sequence: u64) -> (MessageId, Bytes) {
    let welcome = session.welcome();
    let draft = Draft {
        network: welcome.network,
        issued_at_us: now_us(),
        sequence,
        parents: welcome.genesis.roots(),
        kind: PayloadKind::DATA,
        payload: &[device; 40],
    };
    let bytes = draft.sign(&DeviceSigner::from_seed([device; 32])).unwrap();
    (MessageView::parse(&bytes).unwrap().id(), bytes.into())
}

/// What was acknowledged, and when.
pub(crate) type Acked = Vec<(MessageId, Instant)>;

/// Sends so many messages at once to a node and, when they are acknowledged at this level, as many again, until told to stop. A node that
/// is away or does not answer is asked again a little later, with new messages.
async fn feed(
    to: (SocketAddr, Fingerprint),
    device: u8,
    (at_once, level): (usize, AckLevel),
    stop: Arc<AtomicBool>,
) -> Acked {
    // Rising over several feeds of one device.
    let (mut acked, mut sequence) = (Vec::new(), now_us());
    while !stop.load(Ordering::Relaxed) {
        let mut config = ClientConfig::new(to.0, Trust::Pin(to.1));
        config.connect_timeout = Duration::from_secs(2);
        let Ok(client) = Client::connect(config).await else { continue };
        let options = SessionOptions { ack_level: level, ..SessionOptions::default() };
        if let Ok(session) = client.open_session(options).await {
            while !stop.load(Ordering::Relaxed) {
                let (mut ids, mut lengths, mut together) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..at_once {
                    sequence += 1;
                    let (id, bytes) = message(&session, device, sequence);
                    ids.push(id);
                    lengths.push(bytes.len() as u16);
                    together.extend_from_slice(&bytes);
                }
                let answered = async { session.submit(&lengths, together.into()).await.ok()?.await.ok() };
                let answer = tokio::time::timeout(ANSWER_WITHIN, answered).await;
                let Ok(Some(ack)) = answer else { break };
                if ack.accepted() as usize == at_once {
                    assert_eq!(ack.level, level);
                    acked.extend(ids.into_iter().map(|id| (id, Instant::now())));
                } else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        client.close().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    acked
}

pub(crate) fn feed_all(
    running: &Running,
    nodes: &[usize],
    what: (usize, AckLevel),
) -> (Arc<AtomicBool>, Vec<tokio::task::JoinHandle<Acked>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let feeding = nodes
        .iter()
        .map(|number| {
            let member = &running.members[*number];
            let to = (member.address, member.fingerprint);
            runtime().spawn(feed(to, *number as u8 + 1, what, Arc::clone(&stop)))
        })
        .collect();
    (stop, feeding)
}

pub(crate) fn join(feeding: Vec<tokio::task::JoinHandle<Acked>>) -> Vec<Acked> {
    feeding.into_iter().map(|task| runtime().block_on(task).unwrap()).collect()
}

/// Waits until a node has all of these; each with the id that was acknowledged, from its bytes.
pub(crate) fn has_all(running: &Running, number: usize, acked: &[Acked]) {
    let ids: Vec<MessageId> = acked.iter().flatten().map(|(id, _)| *id).collect();
    assert!(!ids.is_empty());
    let since = Instant::now();
    let mut missing = ids;
    while !missing.is_empty() {
        missing = runtime().block_on(async {
            let Some((client, session)) = session(&running.members[number], AckLevel::Durable).await else {
                return missing;
            };
            let mut left = Vec::new();
            for ids in missing.chunks(500) {
                let found = session.get(ids).await.unwrap();
                for (id, found) in ids.iter().zip(found) {
                    match found {
                        Lookup::Found(found) => {
                            assert_eq!(MessageView::parse(&found.bytes).unwrap().id(), *id);
                        }
                        _ => left.push(*id),
                    }
                }
            }
            client.close().await;
            left
        });
        assert!(
            since.elapsed() < PATIENCE,
            "node {number} lacks {} messages\n{}",
            missing.len(),
            running.logs()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
