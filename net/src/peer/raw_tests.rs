//! Peers that hold a good key and do not keep to the protocol: a connection by hand against a node.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint};
use weft_core::{GenesisId, LaneId, NodeKey};

use super::frame::{PEER_MAGIC, PeerKind};
use super::identity::{Members, PeerIdentity};
use super::link::code_of;
use super::stream::FrameSender;
use super::*;
use crate::quic::SERVER_NAME;
use crate::quic::transport::{endpoint_config, peer_transport, socket};

const GENESIS: GenesisId = GenesisId([5; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

fn seed(number: u16) -> [u8; 32] {
    [number as u8 + 1; 32]
}

fn key(number: u16) -> NodeKey {
    PeerIdentity::new(&seed(number)).unwrap().public()
}

/// Counts what it hears, and ships batches of the same bytes without end. Gives no signature while the gate is closed.
#[derive(Default)]
struct Endless(Mutex<Vec<String>>, Mutex<()>, Chains);

/// Chains that are being read now, and the most that were at once.
#[derive(Default)]
struct Chains {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Endless {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    async fn heard(&self, text: &str) {
        let waiting = async {
            while !self.0.lock().unwrap().iter().any(|heard| heard == text) {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(done.is_ok(), "{text}: never; heard {:?}", self.0.lock().unwrap());
    }
}

struct Same;

impl ShipCursor for Same {
    fn read(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) -> Result<(), ShipEnd> {
        out.extend((0..bytes_max.div_ceil(10_000)).map(|_| Bytes::from(vec![1; 10_000])));
        Ok(())
    }
}

impl PeerService for Endless {
    fn connected(&self, peer: LaneId) {
        self.note(format!("connected {}", peer.0));
    }
    fn disconnected(&self, peer: LaneId, code: Option<PeerCode>, _reason: &str) {
        self.note(format!("disconnected {} {}", peer.0, code.map_or("", PeerCode::name)));
    }
    fn witness(&self, peer: LaneId, _message: Bytes, _hold: Hold) {
        self.note(format!("witness {}", peer.0));
    }
    fn holdings(&self, _peer: LaneId, _holdings: Holdings, _hold: Hold) {}
    fn fork_proof(&self, _peer: LaneId, _lane: LaneId, _batches: [Bytes; 2], _hold: Hold) {}
    fn forked(&self, _peer: LaneId, _proof: Bytes, _hold: Hold) {}
    fn batch(&self, _peer: LaneId, _lane: LaneId, _subscription: SubscriptionId, _batch: Bytes) {}
    fn shipping(&self, _peer: LaneId, _lane: LaneId, _subscription: SubscriptionId, event: Shipping) {
        self.note(format!("{event:?}"));
    }
    fn chain_done(&self, _peer: LaneId, _validator: u16, _received: u32, _complete: bool) {}
    fn ship(&self, _peer: LaneId, _lane: LaneId, ends: &[LaneEnd]) -> ShipAnswer {
        ShipAnswer::From(ends[0], Box::new(Same))
    }
    fn chain(&self, _: LaneId, _: u16, _: u64, count: usize, _: usize) -> Vec<Bytes> {
        let now = self.2.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.2.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        self.2.now.fetch_sub(1, Ordering::SeqCst);
        vec![Bytes::from(vec![2; 200]); count]
    }
    fn cosign(&self, _: LaneId, _: LaneId, end: LaneEnd) -> CosignAnswer {
        self.note(format!("cosign {}", end.size));
        let _open = self.1.lock().unwrap();
        CosignAnswer::Given { time_s: end.size, signature: [4; 64] }
    }
}

/// Node `lane` of four; it dials the others where they are known.
fn node(lane: u16, addresses: &[(usize, String)], limits: PeerLimits) -> (PeerNet, Arc<Endless>) {
    let mut members: Vec<_> = (0..4).map(|lane| PeerMember { key: key(lane), address: None }).collect();
    for (at, address) in addresses {
        members[*at].address = Some(address.clone());
    }
    let heard = Arc::new(Endless::default());
    let config = PeerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        seed: seed(lane),
        genesis: GENESIS,
        lane: LaneId(lane),
        members,
        latency: Duration::ZERO,
        loss_percent: 0.0,
        limits,
    };
    let service: Arc<dyn PeerService> = heard.clone();
    (PeerNet::start(config, &tokio::runtime::Handle::current(), service).unwrap(), heard)
}

/// A connection by hand, with the key of `lane`, to the node of `to`.
async fn raw(lane: u16, to: u16, net: &PeerNet) -> (Endpoint, Connection) {
    raw_at(lane, to, net.local_addr()).await
}

fn members() -> Members {
    Arc::new((0..4).map(|lane| (key(lane), LaneId(lane))).collect())
}

async fn raw_at(lane: u16, to: u16, address: SocketAddr) -> (Endpoint, Connection) {
    let tls = PeerIdentity::new(&seed(lane)).unwrap().client_tls(&members(), key(to)).unwrap();
    let mut config = quinn::ClientConfig::new(tls);
    let long = (Duration::from_secs(5), Duration::from_secs(20));
    config.transport_config(peer_transport(1 << 20, (32, 8), long, true));
    let (socket, _) = socket("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
    let endpoint = Endpoint::new(endpoint_config(), None, socket, Arc::new(quinn::TokioRuntime)).unwrap();
    let connecting = endpoint.connect_with(config, address, SERVER_NAME).unwrap();
    let connection = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap();
    (endpoint, connection)
}

fn encoded(frames: &[PeerFrame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out
}

async fn say(connection: &Connection, bytes: &[u8]) -> quinn::SendStream {
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

fn hello(lane: u16) -> PeerFrame {
    PeerFrame::Hello { lane: LaneId(lane), genesis: GENESIS }
}

/// The code with which the node closes the connection.
async fn closed(connection: &Connection) -> PeerCode {
    let error = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = &error else { panic!("{error}") };
    let code = PeerCode::ALL.iter().find(|code| code_of(**code) == close.error_code);
    *code.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_before_it_is_whole_is_no_fault() {
    let (net, heard) = node(0, &[], PeerLimits::default());
    let (_endpoint, connection) = raw(2, 0, &net).await;
    let mut control = say(&connection, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    let request = encoded(&[PeerFrame::Cosign { lane: LaneId(1), end: LaneEnd { size: 5, root: [5; 32] } }]);
    for length in [0, 1, request.len() - 1] {
        let (send, _recv) = connection.open_bi().await.unwrap();
        let mut send = FrameSender::new(send, 0, PATIENCE);
        send.bytes(Bytes::copy_from_slice(&request[..length])).await.unwrap();
        drop(send);
    }
    let proof = encoded(&[PeerFrame::ForkProof { lane: LaneId(1) }]);
    let mut send = FrameSender::new(connection.open_uni().await.unwrap(), 0, PATIENCE);
    send.bytes(proof.into()).await.unwrap();
    drop(send);
    // One that is whole is answered, after all of these.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&request).await.unwrap();
    send.finish().unwrap();
    assert!(!recv.read_to_end(1_000).await.unwrap().is_empty());
    control.write_all(&encoded(&[PeerFrame::Witness(Bytes::from(vec![3; 300]))])).await.unwrap();
    heard.heard("witness 2").await;
    assert!(net.is_connected(LaneId(2)));
    assert_eq!(net.status()[1].score, 0, "nothing is held against whoever gave up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_closes_the_connection_that_it_came_on_and_no_other() {
    let limits = PeerLimits::default();
    let (net, heard) = node(0, &[], limits.clone());
    let (honest, honest_heard) = node(1, &[(0, net.local_addr().to_string())], limits);
    heard.heard("connected 1").await;
    honest_heard.heard("connected 0").await;
    let bad: [Vec<u8>; 5] = [
        // A type that nobody knows, one that may not come here, a declared length beyond all limits, a lane of no
        // ledger, the hello again.
        vec![0, 0, 0, 0, 99],
        encoded(&[PeerFrame::Grant(5)]),
        vec![0xff, 0xff, 0xff, 0xff, PeerKind::Witness.code()],
        encoded(&[PeerFrame::Holdings(Holdings {
            lanes: vec![(LaneId(2_000), LaneEnd { size: 1, root: [0; 32] })],
            followed: vec![],
        })]),
        encoded(&[hello(2)]),
    ];
    for (number, bytes) in bad.iter().enumerate() {
        let (_endpoint, connection) = raw(2, 0, &net).await;
        if number >= 2 {
            // The second time was too much.
            assert_eq!(closed(&connection).await, PeerCode::Banned, "{number}");
            break;
        }
        let mut stream = say(&connection, &encoded(&[hello(2)])).await;
        heard.heard("connected 2").await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(closed(&connection).await, PeerCode::BadFrame, "{number}");
        heard.heard("disconnected 2 bad_frame").await;
        heard.0.lock().unwrap().retain(|text| !text.contains("connected 2"));
    }
    for bytes in &bad[2..] {
        let (net, heard) = node(0, &[], PeerLimits::default());
        let (_endpoint, connection) = raw(2, 0, &net).await;
        let mut stream = say(&connection, &encoded(&[hello(2)])).await;
        heard.heard("connected 2").await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(closed(&connection).await, PeerCode::BadFrame);
    }
    honest.broadcast_witness(&Bytes::from(vec![3; 300]));
    heard.heard("witness 1").await;
    assert!(net.is_connected(LaneId(1)) && !net.is_connected(LaneId(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_must_come_in_time_and_be_that_of_the_key() {
    let limits = PeerLimits { hello_timeout: Duration::from_millis(300), ..PeerLimits::default() };
    let (net, heard) = node(0, &[], limits);
    let (_silent, connection) = raw(2, 0, &net).await;
    assert_eq!(closed(&connection).await, PeerCode::HelloTimeout);
    let (_other, connection) = raw(2, 0, &net).await;
    let _stream = say(&connection, &encoded(&[hello(3)])).await;
    assert_eq!(closed(&connection).await, PeerCode::WrongLane);
    let (_newer, connection) = raw(2, 0, &net).await;
    let mut newer = encoded(&[hello(2)]);
    assert_eq!(newer[5..9], PEER_MAGIC);
    newer[9] = 2;
    let _stream = say(&connection, &newer).await;
    assert_eq!(closed(&connection).await, PeerCode::UnsupportedVersion);
    assert!(heard.0.lock().unwrap().is_empty(), "{:?}", heard.0.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_member_that_says_no_hello_two_connections_are_kept_and_no_more() {
    let (net, heard) = node(0, &[], PeerLimits::default());
    let (_first_end, first) = raw(2, 0, &net).await;
    let (_second_end, second) = raw(2, 0, &net).await;
    // The node's end of a handshake comes a moment after this one's.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..2 {
        let (_end, connection) = raw(2, 0, &net).await;
        let refused = tokio::time::timeout(Duration::from_secs(2), closed(&connection)).await;
        assert_eq!(refused, Ok(PeerCode::Replaced), "not when the time for its hello is over");
    }
    assert!(first.close_reason().is_none() && second.close_reason().is_none());
    // Whoever says hello is in, and makes room.
    let _control = say(&first, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    let (_end, third) = raw(2, 0, &net).await;
    let _newer = say(&third, &encoded(&[hello(2)])).await;
    heard.heard("disconnected 2 replaced").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_chains_that_a_peer_asks_for_at_once_one_at_a_time_is_read() {
    let (net, heard) = node(0, &[], PeerLimits::default());
    let (_end, connection) = raw(2, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    let mut answers = Vec::new();
    for validator in 0..8 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        let ask = PeerFrame::WantWitnesses { validator, count: 1, after: 0 };
        send.write_all(&encoded(&[ask])).await.unwrap();
        send.finish().unwrap();
        answers.push(recv);
    }
    for mut answer in answers {
        let bytes = tokio::time::timeout(PATIENCE, answer.read_to_end(1 << 16)).await.unwrap().unwrap();
        assert!(bytes.len() > 200);
    }
    assert_eq!(heard.2.most.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_must_not_dial_is_told_so() {
    let (net, _heard) = node(3, &[], PeerLimits::default());
    let (_endpoint, connection) = raw(1, 3, &net).await;
    assert_eq!(closed(&connection).await, PeerCode::WrongSide);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_sends_beyond_the_credit_loses_its_connection() {
    let (net, heard) = node(0, &[], PeerLimits::default());
    let (_endpoint, connection) = raw(2, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    let end = LaneEnd { size: 0, root: [0; 32] };
    net.subscribe(LaneId(2), LaneId(1), vec![end], 1).unwrap();
    let (mut send, _recv) = connection.accept_bi().await.unwrap();
    // The least credit is 64 KiB: seven of these and one byte more than there is.
    let batch = || PeerFrame::Batch(Bytes::from(vec![1; 10_000]));
    let mut frames = vec![PeerFrame::Started(end)];
    frames.extend((0..7).map(|_| batch()));
    send.write_all(&encoded(&frames)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(net.is_connected(LaneId(2)));
    send.write_all(&encoded(&[batch()])).await.unwrap();
    assert_eq!(closed(&connection).await, PeerCode::OverCredit);
    heard.heard("Ended(Lost)").await;
    heard.heard("disconnected 2 over_credit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_of_a_long_batch_is_seen_before_the_batch_is_whole() {
    let (net, heard) = node(0, &[], PeerLimits::default());
    let (_endpoint, connection) = raw(2, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    let end = LaneEnd { size: 0, root: [0; 32] };
    let id = net.subscribe(LaneId(2), LaneId(1), vec![end], 1).unwrap();
    assert_eq!(net.arrived(id), Arrived::default());
    let (mut send, _recv) = connection.accept_bi().await.unwrap();
    send.write_all(&encoded(&[PeerFrame::Started(end)])).await.unwrap();
    heard.heard(&format!("{:?}", Shipping::Started(end))).await;
    assert_eq!(net.arrived(id), Arrived::default(), "no part of a batch");
    let bytes = encoded(&[PeerFrame::Batch(Bytes::from(vec![1; 10_000]))]);
    send.write_all(&bytes[..5_000]).await.unwrap();
    let comes = async |batches, least| {
        while net.arrived(id).batches != batches || net.arrived(id).bytes < least {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::time::timeout(PATIENCE, comes(0, 5_000)).await.unwrap();
    send.write_all(&bytes[5_000..]).await.unwrap();
    tokio::time::timeout(PATIENCE, comes(1, 0)).await.unwrap();
    assert_eq!(net.arrived(id), Arrived { batches: 1, bytes: 0 });
    net.unsubscribe(id);
    assert_eq!(net.arrived(id), Arrived::default(), "it is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_says_nothing_or_takes_nothing_is_lost() {
    let limits = PeerLimits {
        idle_timeout: Duration::from_millis(1_200),
        ping_interval: Duration::from_millis(100),
        slow_peer_timeout: Duration::from_millis(500),
        ..PeerLimits::default()
    };
    let (net, heard) = node(0, &[], limits.clone());
    // QUIC itself answers on its behalf, but its control stream is silent.
    let (_endpoint, connection) = raw(2, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(2)])).await;
    assert_eq!(closed(&connection).await, PeerCode::Idle);
    heard.heard("disconnected 2 idle").await;
    // Grants credit without end and reads nothing.
    let patient = PeerLimits { idle_timeout: Duration::from_secs(60), ..limits };
    let (net, _heard) = node(0, &[], patient);
    let (_endpoint, connection) = raw(3, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(3)])).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let ends = vec![LaneEnd { size: 0, root: [0; 32] }];
    let ask = PeerFrame::Subscribe { lane: LaneId(1), credit: u64::MAX, ends };
    send.write_all(&encoded(&[ask])).await.unwrap();
    assert_eq!(closed(&connection).await, PeerCode::SlowPeer);
}

fn cosign(size: u64) -> PeerFrame {
    PeerFrame::Cosign { lane: LaneId(1), end: LaneEnd { size, root: [0; 32] } }
}

/// Everything that comes on a stream.
async fn all(mut recv: quinn::RecvStream) -> Vec<u8> {
    tokio::time::timeout(PATIENCE, recv.read_to_end(1 << 10)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_requests_for_signatures_unanswered_is_asked_for_no_more_than_eight() {
    // This peer says nothing for as long as the test takes.
    let limits = PeerLimits { idle_timeout: Duration::from_secs(120), ..PeerLimits::default() };
    let (net, heard) = node(0, &[], limits);
    let (_endpoint, connection) = raw(2, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    let end = LaneEnd { size: 7, root: [0; 32] };
    let ask = |net: &PeerNet| {
        let net = net.clone();
        tokio::spawn(async move { net.cosign(LaneId(2), LaneId(1), end).await })
    };
    let asked: Vec<_> = (0..12).map(|_| ask(&net)).collect();
    let mut streams = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), connection.accept_bi()).await {
        streams.push(stream.unwrap());
    }
    assert_eq!(streams.len(), 8);
    // Lanes are not held up by them, and those who give up make room.
    net.subscribe(LaneId(2), LaneId(1), vec![LaneEnd { size: 0, root: [0; 32] }], 1).unwrap();
    let (_send, mut lane) = tokio::time::timeout(PATIENCE, connection.accept_bi()).await.unwrap().unwrap();
    let mut head = [0; 5];
    lane.read_exact(&mut head).await.unwrap();
    assert_eq!(head[4], PeerKind::Subscribe.code());
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    streams.clear();
    let answered = ask(&net);
    let (mut send, recv) = tokio::time::timeout(PATIENCE, connection.accept_bi()).await.unwrap().unwrap();
    assert_eq!(all(recv).await, encoded(&[cosign(7)]));
    send.write_all(&encoded(&[PeerFrame::NotCosigned(NotCosigned::NoVote)])).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, answered).await.unwrap().unwrap();
    assert_eq!(answer, Ok(CosignAnswer::Refused(NotCosigned::NoVote)));
    // What is no answer costs the connection, like all nonsense.
    let answered = ask(&net);
    let (mut send, _recv) = tokio::time::timeout(PATIENCE, connection.accept_bi()).await.unwrap().unwrap();
    send.write_all(&encoded(&[PeerFrame::Pong(1)])).await.unwrap();
    assert_eq!(closed(&connection).await, PeerCode::BadFrame);
    assert!(answered.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_asks_for_too_many_signatures_at_once_is_told_so_and_the_others_are_answered() {
    let (net, heard) = node(0, &[], PeerLimits::default());
    let (_endpoint, connection) = raw(2, 0, &net).await;
    let _control = say(&connection, &encoded(&[hello(2)])).await;
    heard.heard("connected 2").await;
    // A thread holds the gate: a guard must not lie across an await.
    let (open, may_open) = std::sync::mpsc::channel::<()>();
    let (is_closed, was_closed) = std::sync::mpsc::channel::<()>();
    let gated = heard.clone();
    let gate = std::thread::spawn(move || {
        let _closed = gated.1.lock().unwrap();
        is_closed.send(()).unwrap();
        let _ = may_open.recv();
    });
    was_closed.recv().unwrap();
    let mut streams = Vec::new();
    for size in 1..=8 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&encoded(&[cosign(size)])).await.unwrap();
        heard.heard(&format!("cosign {size}")).await;
        streams.push((send, recv));
    }
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(&encoded(&[cosign(9)])).await.unwrap();
    assert_eq!(all(recv).await, encoded(&[PeerFrame::NotCosigned(NotCosigned::Busy)]));
    drop(open);
    gate.join().unwrap();
    for (size, (_send, recv)) in (1..=8).zip(streams) {
        let given = PeerFrame::Cosignature { time_s: size, signature: [4; 64] };
        assert_eq!(all(recv).await, encoded(&[given]));
    }
    assert!(net.is_connected(LaneId(2)));
}

/// The endpoint of a node's process, at this address.
fn process(seed_of: u16, socket: UdpSocket) -> Endpoint {
    let tls = PeerIdentity::new(&seed(seed_of)).unwrap().server_tls(&members()).unwrap();
    let config = reset::keyed(endpoint_config(), &seed(seed_of));
    let server = quinn::ServerConfig::with_crypto(tls);
    Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

/// The first process says nothing of its end: it is moved to another port, and the second one has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_a_process_that_died_is_ended_by_the_next_one_of_the_same_node() {
    for (next, ends) in [(0, true), (1, false)] {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (socket, _) = socket(any, 1 << 20).unwrap();
        let address = socket.local_addr().unwrap();
        let first = process(0, socket);
        let accept = || async { first.accept().await.unwrap().await.unwrap() };
        let ((_endpoint, connection), there) = tokio::join!(raw_at(2, 0, address), accept());
        let elsewhere = UdpSocket::bind(any).unwrap();
        let aside = elsewhere.local_addr().unwrap();
        first.rebind(elsewhere).unwrap();
        // quinn lets go of the old port when a connection's packet comes at the new one.
        let other = tokio::join!(raw_at(3, 0, aside), accept());
        let freed = loop {
            match UdpSocket::bind(address) {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(3)).await,
            }
        };
        let _second = process(next, freed);
        let _stream =
            say(&connection, b"is anybody there, and if so, who? this takes more than a few bytes").await;
        let ended = tokio::time::timeout(
            if ends { PATIENCE } else { Duration::from_millis(500) },
            connection.closed(),
        );
        assert_eq!(ended.await.ok(), ends.then_some(ConnectionError::Reset));
        drop((there, other));
    }
}
