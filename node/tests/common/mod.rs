//! What the node's integration tests share: a node on loopback with a directory of its own, and devices that sign.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

pub mod four;
pub mod liar;

use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use weft_core::{DeviceSigner, Draft, MessageId, MessageView, NetworkId, PayloadKind};
use weft_net::{Ack, AckLevel, Client, ClientConfig, Session, SessionOptions, Trust};
use weft_node::config::Config;
use weft_node::node::{RunningNode, init_ledger};

/// A directory with a fresh ledger of one node.
pub fn ledger() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    init_ledger(dir.path(), "test").expect("a fresh ledger");
    dir
}

/// Settings for a small node on loopback.
pub fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        verifier: "serial".to_owned(),
        verify_threads: Some(1),
        segment_bytes: 4 << 20,
        free_space_watermark_bytes: 0,
        recent_ids_max: 1 << 16,
        replay_issuers_max: 1 << 12,
        ..Config::default()
    }
}

/// A node that runs on `config`.
pub fn start(config: &Config) -> RunningNode {
    RunningNode::start(config).expect("the node starts")
}

/// A runtime for clients, shared by the tests of one file.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

/// A session with `node`, and the connection that carries it.
pub async fn session(node: &RunningNode, ack_level: AckLevel) -> (Client, Session) {
    let client = Client::connect(ClientConfig::new(node.address(), Trust::Pin(node.fingerprint())))
        .await
        .expect("a connection");
    let session = client
        .open_session(SessionOptions { ack_level, ..SessionOptions::default() })
        .await
        .expect("a session");
    (client, session)
}

/// This machine's clock, microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// A message to be: change what the test is about, then sign.
#[derive(Clone, Debug)]
pub struct Sketch {
    pub network: NetworkId,
    pub issued_at_us: u64,
    pub sequence: u64,
    pub parents: [MessageId; 2],
    pub payload: Vec<u8>,
}

impl Sketch {
    /// An acceptable message with the genesis roots as parents.
    pub fn new(session: &Session, sequence: u64) -> Self {
        let welcome = session.welcome();
        Self {
            network: welcome.network,
            issued_at_us: now_us(),
            sequence,
            parents: welcome.genesis.roots(),
            payload: vec![0; 64],
        }
    }

    /// The signed bytes.
    pub fn sign(&self, signer: &DeviceSigner) -> Vec<u8> {
        Draft {
            network: self.network,
            issued_at_us: self.issued_at_us,
            sequence: self.sequence,
            parents: self.parents,
            kind: PayloadKind::DATA,
            payload: &self.payload,
        }
        .sign(signer)
        .expect("the payload fits")
    }
}

/// The device with this number.
pub fn device(number: u8) -> DeviceSigner {
    DeviceSigner::from_seed([number; 32])
}

/// Sends messages as one submit and waits for the ack.
pub async fn submit(session: &Session, messages: &[Vec<u8>]) -> Ack {
    let lengths: Vec<u16> = messages.iter().map(|bytes| u16::try_from(bytes.len()).unwrap()).collect();
    let pending = session.submit(&lengths, Bytes::from(messages.concat())).await.expect("credit");
    pending.await.expect("an ack")
}

/// Sends `count` messages to a node in submits of 50 and tells their ids.
pub fn send(node: &RunningNode, level: AckLevel, count: u64, first_sequence: u64) -> Vec<MessageId> {
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

/// The id of signed bytes.
pub fn id(bytes: &[u8]) -> MessageId {
    MessageView::parse(bytes).expect("a message").id()
}

/// The refusals of an ack: index and reason.
pub fn refusals(ack: &Ack) -> Vec<(u32, weft_core::Reason)> {
    ack.exceptions
        .iter()
        .map(|exception| (exception.index, exception.reason().expect("a known reason")))
        .collect()
}

/// Hands in a transfer from device 1 and tells what was said about it.
pub async fn pay(
    session: &Session,
    sequence: u64,
    (account_sequence, to, amount): (u64, u8, u64),
) -> Option<weft_core::Reason> {
    let transfer =
        weft_core::confirm::Transfer { account_sequence, to: device(to).public(), amount, memo: b"" };
    let welcome = session.welcome();
    let message = Draft {
        network: welcome.network,
        issued_at_us: now_us(),
        sequence,
        parents: welcome.genesis.roots(),
        kind: PayloadKind::TRANSFER,
        payload: &transfer.encode().expect("a transfer"),
    }
    .sign(&device(1))
    .expect("a short payload");
    let ack = submit(session, &[message]).await;
    refusals(&ack).first().map(|refusal| refusal.1)
}
