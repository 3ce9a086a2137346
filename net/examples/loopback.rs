//! How many bytes of Submits one process carries to itself over loopback: server and client on the same
//! cores, every Submit acked as soon as it is decoded. Shows what the wire and QUIC cost when the node costs
//! nothing.
//!
//! `cargo run --release -p weft-net --example loopback -- [messages per submit] [bytes per message] [connections] [seconds]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_core::{GenesisId, MessageId, NetworkId};
use weft_net::session::{ClientEvent, ClientSession, ServerEvent, ServerSession};
use weft_net::{
    Ack, AckLevel, Client, ClientConfig, Found, Identity, Refusal, Server, ServerConfig, Service,
    SessionHandle, SessionLimits, SessionOptions, Status, Submit, Trust, WelcomeInfo,
};

#[derive(Default)]
struct Sink {
    messages: AtomicU64,
    /// Depends on every message, so that none is left unread.
    checksum: AtomicU64,
}

impl Service for Sink {
    fn welcome(&self) -> WelcomeInfo {
        WelcomeInfo {
            network: NetworkId([1; 4]),
            genesis: GenesisId([1; 32]),
            ack_level_max: AckLevel::Received,
            payload_bytes_max: 16_384,
            clock_ahead_us_max: 0,
            clock_behind_us_max: 0,
            now_us: 0,
            node_name: "sink".to_owned(),
        }
    }

    async fn submit(&self, submit: Submit, session: SessionHandle) -> Result<(), Refusal> {
        let sum: u64 = submit.iter().map(|message| u64::from(message[0])).sum();
        self.checksum.fetch_add(sum, Ordering::Relaxed);
        self.messages.fetch_add(submit.len() as u64, Ordering::Relaxed);
        session.ack(Ack {
            request_id: submit.request_id(),
            level: AckLevel::Received,
            count: submit.len() as u32,
            exceptions: Vec::new(),
            tips: vec![MessageId([2; 32]); 16],
        });
        Ok(())
    }

    async fn tips(&self, _count: usize) -> Result<Vec<MessageId>, Refusal> {
        Ok(Vec::new())
    }

    async fn get(&self, ids: Vec<MessageId>) -> Result<Vec<Option<Found>>, Refusal> {
        Ok(vec![None; ids.len()])
    }

    async fn status(&self) -> Result<Status, Refusal> {
        Err(Refusal::internal("no node"))
    }
}

/// CPU time of this process in clock ticks of 10 ms; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let field =
        |index| after_name.split_whitespace().nth(index).and_then(|text: &str| text.parse::<f64>().ok());
    (field(11).unwrap_or_default() + field(12).unwrap_or_default()) / 100.0
}

/// Nanoseconds of CPU time of this thread; 0 where the system does not say.
fn thread_cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// What both state machines cost without QUIC: bytes move from one to the other in pieces of a datagram.
fn machines_alone(messages: usize, bytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let now = Instant::now();
    let options = SessionOptions { ack_level: AckLevel::Received, ..SessionOptions::default() };
    let mut client = ClientSession::new(options, now);
    let mut server = ServerSession::new(SessionLimits::default(), Sink::default().welcome(), now);
    let lengths = vec![u16::try_from(bytes)?; messages];
    let body = Bytes::from(vec![1; messages * bytes]);
    let mut pieces = Vec::new();
    let (mut acked, mut checksum, start) = (0, 0, thread_cpu_ns());
    while acked < 2_000 {
        if client.welcome().is_some() {
            client.submit(now, &lengths, body.clone())?;
        }
        client.poll_transmit(usize::MAX, &mut pieces);
        for piece in pieces.drain(..) {
            piece.chunks(6_400).for_each(|piece| assert_eq!(server.handle_input(now, piece), piece.len()));
            client.handle_transmitted(now, piece.len());
        }
        while let Some(event) = server.poll() {
            if let ServerEvent::Submit(submit) = event {
                checksum += submit.iter().map(|message| u64::from(message[0])).sum::<u64>();
                let tips = vec![MessageId([2; 32]); 16];
                let (request_id, count) = (submit.request_id(), submit.len() as u32);
                server.ack(
                    now,
                    Ack { request_id, level: AckLevel::Received, count, exceptions: Vec::new(), tips },
                );
            }
        }
        server.poll_transmit(usize::MAX, &mut pieces);
        for piece in pieces.drain(..) {
            client.handle_input(now, &piece);
            server.handle_transmitted(now, piece.len());
        }
        acked +=
            std::iter::from_fn(|| client.poll()).filter(|event| matches!(event, ClientEvent::Ack(_))).count();
    }
    let each = (thread_cpu_ns() - start) / (acked * messages) as f64;
    println!("state machines alone, client and server: {each:.1} ns CPU a message (checksum {checksum})");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut argument = |default| arguments.next().unwrap_or(Ok(default));
    let (messages, bytes) = (argument(512)?, argument(264)?);
    let (connections, seconds) = (argument(1)?, argument(3)?);

    machines_alone(messages, bytes)?;

    let sink = Arc::new(Sink::default());
    let identity = Identity::ephemeral()?;
    let server = Server::bind(ServerConfig::new("127.0.0.1:0".parse()?, identity), sink.clone())?;
    println!("socket buffers {:?}", server.socket_buffers());

    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let config = ClientConfig::new(server.local_addr()?, Trust::Pin(server.fingerprint()));
        let client = Client::connect(config).await?;
        let options = SessionOptions { ack_level: AckLevel::Received, ..SessionOptions::default() };
        let (sender, mut acks) = client.open_load_session(options).await?;
        let lengths = vec![u16::try_from(bytes)?; messages];
        let body = Bytes::from(vec![1; messages * bytes]);
        running.spawn(async move {
            while Instant::now() < until && sender.submit(&lengths, body.clone()).await.is_ok() {}
            let _ = sender.finish().await;
        });
        running.spawn(async move {
            while acks.recv().await.is_some() {}
            let stats = client.stats();
            println!(
                "rtt {:?}, mtu {}, sent {} datagrams in {} calls, lost {}, cwnd {}",
                client.rtt(),
                stats.path.current_mtu,
                stats.udp_tx.datagrams,
                stats.udp_tx.ios,
                stats.path.lost_packets,
                stats.path.cwnd,
            );
        });
    }
    while running.join_next().await.is_some() {}
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let total = sink.messages.load(Ordering::Relaxed) as f64;
    println!(
        "{messages} x {bytes} B, {connections} connections: {:.0} MB/s, {:.0} messages/s, {:.0} ns CPU a message, {:.2} cores busy",
        total * bytes as f64 / wall / 1e6,
        total / wall,
        cpu / total * 1e9,
        cpu / wall,
    );
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
