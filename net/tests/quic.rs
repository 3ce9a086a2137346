//! Sessions over real QUIC on loopback: what users get, and what bad peers get.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::{NETWORK, ack, welcome_info};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weft_core::{LaneId, MessageId, NetworkId, Place, Reason, Rejection};
use weft_net::frame::{Frame, Hello};
use weft_net::{
    Ack, AckException, AckLevel, Client, ClientConfig, ErrorCode, Found, Identity, Lookup, NetError,
    NodeState, Refusal, RequestError, Server, ServerConfig, ServerHandle, ServerLimits, Service, Session,
    SessionEnd, SessionHandle, SessionOptions, Status, Submit, Trust, WelcomeInfo,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Acks every Submit from another task; empty messages are exceptions. Holds acks while `held`.
struct Echo {
    /// One permit for each ack that may go; closed: all may.
    gate: Arc<Semaphore>,
    /// Time that a Submit keeps the session waiting.
    busy: Duration,
    message: Bytes,
    taken: Mutex<Vec<usize>>,
    /// Calls of `get`.
    gets: AtomicU32,
}

impl Echo {
    fn new() -> Arc<Self> {
        let echo = Self::held();
        echo.gate.close();
        echo
    }

    fn held() -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::new(Semaphore::new(0)),
            busy: Duration::ZERO,
            message: Bytes::from(vec![3; 16_568]),
            taken: Mutex::default(),
            gets: AtomicU32::new(0),
        })
    }

    fn taken(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

impl Service for Echo {
    fn welcome(&self) -> WelcomeInfo {
        welcome_info()
    }

    async fn submit(&self, submit: Submit, session: SessionHandle) -> Result<(), Refusal> {
        tokio::time::sleep(self.busy).await;
        self.taken.lock().unwrap().push(submit.len());
        if submit.bytes().starts_with(b"refuse") {
            return Err(Refusal::overloaded(70, "as you wish"));
        }
        let gate = self.gate.clone();
        tokio::spawn(async move {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            let exceptions = submit
                .lengths()
                .enumerate()
                .filter(|(_, length)| *length == 0)
                .map(|(index, _)| {
                    let rejection = Rejection { reason: Reason::Truncated, got: 0, limit: 184 };
                    AckException::new(index as u32, rejection)
                })
                .collect();
            let answer = Ack { exceptions, ..ack(submit.request_id(), submit.len(), session.ack_level()) };
            session.ack(answer);
        });
        Ok(())
    }

    async fn tips(&self, count: usize) -> Result<Vec<MessageId>, Refusal> {
        Ok((0..count).map(|i| MessageId([i as u8; 32])).collect())
    }

    async fn get(&self, ids: Vec<MessageId>) -> Result<Vec<Option<Found>>, Refusal> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let found = |id: MessageId| {
            (id.0[0] != 0).then(|| Found { place: Place(u64::from(id.0[0])), bytes: self.message.clone() })
        };
        Ok(ids.into_iter().map(found).collect())
    }

    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            state: NodeState::Live,
            uptime_us: 5,
            accepted_total: self.taken() as u64,
            rejected_total: 0,
            queue_messages: 0,
            queue_messages_max: 10,
            durable_age_us: u64::MAX,
            flags: 0,
            lane: LaneId(0),
            witnesses_total: 0,
            round_us: 0,
            acks_waiting: 0,
            lanes: Vec::new(),
        })
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn serve(limits: ServerLimits, service: Arc<Echo>) -> ServerHandle {
    let config = ServerConfig { limits, ..ServerConfig::new(loopback(), Identity::ephemeral().unwrap()) };
    Server::bind(config, service).unwrap()
}

fn pinned(server: &ServerHandle) -> ClientConfig {
    ClientConfig::new(server.local_addr().unwrap(), Trust::Pin(server.fingerprint()))
}

async fn connect(server: &ServerHandle) -> Client {
    Client::connect(pinned(server)).await.unwrap()
}

async fn open(server: &ServerHandle) -> (Client, Session) {
    let client = connect(server).await;
    let session = client.open_session(SessionOptions::default()).await.unwrap();
    (client, session)
}

/// Waits until the server's figures are as wanted.
async fn until(server: &ServerHandle, what: &str, wanted: impl Fn(&weft_net::ServerStats) -> bool) {
    let start = Instant::now();
    while !wanted(&server.stats()) {
        assert!(start.elapsed() < PATIENCE, "no {what}: {:?}", server.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A QUIC connection that speaks whatever the test wants: no session machine stands between.
async fn raw(server: &ServerHandle, stream_window: u32) -> quinn::Connection {
    #[derive(Debug)]
    struct Anyone(rustls::crypto::WebPkiSupportedAlgorithms);
    impl rustls::client::danger::ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General(String::new()))
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anyone = Arc::new(Anyone(provider.signature_verification_algorithms));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    tls.alpn_protocols = vec![weft_net::quic::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(stream_window.into());
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    endpoint.connect_with(config, server.local_addr().unwrap(), "weft").unwrap().await.unwrap()
}

fn frame_bytes(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn hello() -> Vec<u8> {
    frame_bytes(&Frame::Hello(Hello { ack_level: AckLevel::Durable, network: NETWORK }))
}

/// All frames that come until the server ends the stream.
async fn all_frames(recv: &mut quinn::RecvStream) -> Vec<Frame> {
    let bytes = timeout(PATIENCE, recv.read_to_end(1 << 24)).await.unwrap().unwrap();
    let mut reader = weft_net::reader::FrameReader::new(1 << 24, |_| true);
    let mut rest = &bytes[..];
    std::iter::from_fn(|| reader.next(&mut rest).unwrap()).collect()
}

#[tokio::test]
async fn messages_are_submitted_and_acked_and_questions_answered() {
    let echo = Echo::new();
    let server = serve(ServerLimits::default(), echo.clone());
    let (client, session) = open(&server).await;
    assert_eq!(session.welcome().network, NETWORK);
    assert_eq!(client.fingerprint(), Some(server.fingerprint()));

    let pending = session.submit(&[200, 0, 300], vec![1; 500].into()).await.unwrap();
    let got = pending.await.unwrap();
    assert_eq!((got.level, got.count, got.accepted()), (AckLevel::Durable, 3, 2));
    assert_eq!(got.exceptions[0].index, 1);
    assert_eq!(got.exceptions[0].reason(), Some(Reason::Truncated));
    assert_eq!(got.tips, [MessageId([9; 32])]);

    assert_eq!(session.tips(3).await.unwrap().len(), 3);
    assert_eq!(session.status().await.unwrap().accepted_total, 1);
    // More than one request's worth of ids, and far more bytes than one reply holds.
    let ids: Vec<_> = (0..1_100).map(|i| MessageId([(i % 3) as u8; 32])).collect();
    let answers = session.get(&ids).await.unwrap();
    for (id, answer) in ids.iter().zip(&answers) {
        match answer {
            Lookup::Absent => assert_eq!(id.0[0], 0),
            Lookup::Found(found) => {
                assert_eq!((found.place, found.bytes.len()), (Place(id.0[0].into()), 16_568));
            }
            Lookup::AskAgain => panic!(),
        }
    }
    session.close().await.unwrap();
    until(&server, "end of the session", |stats| stats.sessions == 0).await;
    assert_eq!(server.stats().inflight_bytes, 0);
    client.close().await;
    until(&server, "end of the connection", |stats| stats.connections == 0).await;
}

#[tokio::test]
async fn a_refused_submit_comes_with_its_reason_and_the_session_goes_on() {
    let server = serve(ServerLimits::default(), Echo::new());
    let (_client, session) = open(&server).await;
    let error = session.submit(&[6], Bytes::from_static(b"refuse")).await.unwrap().await.unwrap_err();
    assert_eq!(
        (error.code(), error.retry_after()),
        (Some(ErrorCode::Overloaded), Some(Duration::from_millis(70)))
    );
    assert!(error.is_retryable());
    session.submit(&[6], Bytes::from_static(b"accept")).await.unwrap().await.unwrap();
    until(&server, "budget back", |stats| stats.inflight_bytes == 0).await;
}

#[tokio::test]
async fn submits_are_pipelined_and_wait_for_credit() {
    let echo = Echo::held();
    let mut limits = ServerLimits::default();
    limits.session.inflight_requests_max = 4;
    let server = serve(limits, echo.clone());
    let (_client, session) = open(&server).await;
    let mut pending = Vec::new();
    for _ in 0..4 {
        pending.push(session.submit(&[10], vec![0; 10].into()).await.unwrap());
    }
    let fifth = session.submit(&[10], vec![0; 10].into());
    assert!(timeout(Duration::from_millis(100), fifth).await.is_err(), "no credit is left");
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.submit(&[10], vec![0; 10].into()).await.unwrap().await.unwrap() }
    });
    echo.gate.add_permits(5);
    for pending in pending {
        pending.await.unwrap();
    }
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_load_session_delivers_all_acks_in_one_stream() {
    let server = serve(ServerLimits::default(), Echo::new());
    let client = connect(&server).await;
    let (sender, mut acks) = client.open_load_session(SessionOptions::default()).await.unwrap();
    let sending = tokio::spawn(async move {
        let messages = Bytes::from(vec![7; 64 * 250]);
        let mut ids = Vec::new();
        for _ in 0..500 {
            ids.push(sender.submit(&[250; 64], messages.clone()).await.unwrap());
        }
        sender.finish().await.unwrap();
        ids
    });
    let mut got = Vec::new();
    while let Some(delivery) = acks.recv().await {
        assert_eq!(delivery.result.unwrap().accepted(), 64);
        got.push(delivery.request_id);
    }
    got.sort_unstable();
    assert_eq!(got, sending.await.unwrap());
    assert!(matches!(acks.end_reason(), Some(NetError::Session(SessionEnd::Done))));
}

#[tokio::test]
async fn a_submit_beyond_the_credit_at_once_is_an_error_and_not_a_wait() {
    let mut limits = ServerLimits::default();
    limits.session.inflight_requests_max = 1;
    let server = serve(limits, Echo::held());
    let client = connect(&server).await;
    let (sender, _acks) = client.open_load_session(SessionOptions::default()).await.unwrap();
    sender.try_submit(&[1], Bytes::from_static(b"a")).unwrap();
    let error = sender.try_submit(&[1], Bytes::from_static(b"a")).unwrap_err();
    assert!(matches!(error, NetError::Invalid(RequestError::NoCredit { .. })), "{error}");
    assert_eq!(sender.in_flight().requests, 1);
}

#[tokio::test]
async fn a_client_of_another_network_is_refused_by_name() {
    let server = serve(ServerLimits::default(), Echo::new());
    let client = connect(&server).await;
    let options = SessionOptions { network: Some(NetworkId([0; 4])), ..SessionOptions::default() };
    client.open_session(options).await.unwrap();
    let options = SessionOptions { network: Some(NetworkId([1; 4])), ..SessionOptions::default() };
    let error = client.open_session(options).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::WrongNetwork), "{error}");
    assert!(error.to_string().contains("a1b2c3d4"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn an_oversized_frame_closes_its_session_with_a_named_error_and_no_other() {
    let server = serve(ServerLimits::default(), Echo::new());
    let (_client, honest) = open(&server).await;
    let connection = raw(&server, 1 << 20).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    send.write_all(&[0xFF, 0xFF, 0xFF, 0x7F, 3]).await.unwrap();
    let frames = all_frames(&mut recv).await;
    let [Frame::Welcome(_), Frame::Error(error)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((error.code, error.request_id), (ErrorCode::TooLarge, 0));
    assert!(error.text.contains("2147483647") && error.text.contains("2097152"), "{}", error.text);
    // The same connection may open another, and the honest client notices nothing.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(all_frames(&mut recv).await[..], [Frame::Welcome(_)]));
    honest.submit(&[3], Bytes::from_static(b"abc")).await.unwrap().await.unwrap();
    assert_eq!(server.stats().failed(ErrorCode::TooLarge), 1);
}

#[tokio::test]
async fn garbage_and_truncated_frames_are_bad_frames() {
    let server = serve(ServerLimits::default(), Echo::new());
    let connection = raw(&server, 1 << 20).await;
    let truncated = [hello(), vec![8, 0, 0, 0, 9, 1]].concat();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    for bytes in [http, vec![0xA5; 5_000], truncated] {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        // The server may refuse before it has read all.
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        let frames = all_frames(&mut recv).await;
        assert!(
            matches!(frames.last(), Some(Frame::Error(error)) if error.code == ErrorCode::BadFrame),
            "{frames:?}"
        );
    }
    until(&server, "three failures", |stats| stats.failed(ErrorCode::BadFrame) == 3).await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_acks_is_closed_as_slow_and_its_memory_freed() {
    let mut limits = ServerLimits::default();
    limits.session.slow_peer_timeout = Duration::from_millis(300);
    limits.session.output_bytes_high = 64 << 10;
    let server = serve(limits, Echo::new());
    let (_client, honest) = open(&server).await;
    // A window of 2 KiB fills with acks at once; the client goes on submitting and reads nothing.
    let connection = raw(&server, 2 << 10).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    let flood = async {
        for request_id in 1.. {
            let submit = Submit::new(request_id, &[0; 200], Bytes::new()).unwrap();
            if send.write_all(&frame_bytes(&Frame::Submit(submit))).await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, flood).await.expect("the server stops the stream");
    let reset = timeout(PATIENCE, async {
        let mut buffer = [0; 4_096];
        loop {
            match recv.read(&mut buffer).await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    });
    let reset = reset.await.unwrap();
    let code = quinn::VarInt::from_u32(ErrorCode::SlowPeer.code().into());
    assert!(matches!(reset, Err(quinn::ReadError::Reset(got)) if got == code), "{reset:?}");
    until(&server, "slow peer", |stats| {
        stats.failed(ErrorCode::SlowPeer) == 1 && stats.sessions == 1 && stats.inflight_bytes == 0
    })
    .await;
    honest.submit(&[3], Bytes::from_static(b"abc")).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_client_that_asks_for_much_at_once_and_reads_nothing_is_answered_no_further_than_the_mark() {
    let service = Echo::new();
    let server = serve(ServerLimits::default(), service.clone());
    let connection = raw(&server, 2 << 10).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    // Each reply is a megabyte, and two hundred questions come in one piece.
    let ids = vec![MessageId([1; 32]); 64];
    let ask = |request_id| frame_bytes(&Frame::GetMessages { request_id, ids: ids.clone() });
    let questions: Vec<u8> = (1..=200).flat_map(ask).collect();
    send.write_all(&hello()).await.unwrap();
    send.write_all(&questions).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(service.gets.load(Ordering::SeqCst), 1, "one reply is far beyond the mark");
}

#[tokio::test]
async fn a_client_that_opens_ten_thousand_streams_gets_sixteen_and_hurts_nobody() {
    let server = serve(ServerLimits::default(), Echo::new());
    let (_client, honest) = open(&server).await;
    let connection = raw(&server, 1 << 20).await;
    let opened = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let (connection, opened) = (connection.clone(), opened.clone());
        tasks.spawn(async move {
            if let Ok((mut send, recv)) = connection.open_bi().await {
                send.write_all(&hello()).await.unwrap();
                opened.lock().unwrap().push((send, recv));
            }
        });
    }
    until(&server, "sixteen sessions and the honest one", |stats| stats.sessions == 17).await;
    for _ in 0..50 {
        honest.submit(&[3], Bytes::from_static(b"abc")).await.unwrap().await.unwrap();
    }
    assert_eq!(opened.lock().unwrap().len(), 16);
    assert_eq!((server.stats().sessions, server.stats().sessions_total), (17, 17));
    // Those that end make room for as many.
    opened.lock().unwrap().truncate(8);
    until(&server, "the next streams", |stats| stats.sessions_total == 25 && stats.sessions == 17).await;
    tasks.abort_all();
}

#[tokio::test]
async fn a_session_beyond_the_servers_limit_is_told_overloaded() {
    let server = serve(ServerLimits { sessions_max: 1, ..ServerLimits::default() }, Echo::new());
    let (client, first) = open(&server).await;
    let error = client.open_session(SessionOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Overloaded), "{error}");
    assert!(error.retry_after().is_some());
    first.close().await.unwrap();
    until(&server, "free place", |stats| stats.sessions == 0).await;
    client.open_session(SessionOptions::default()).await.unwrap();
    assert_eq!(server.stats().sessions_refused_total, 1);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_with_a_clear_error() {
    let server = serve(ServerLimits { connections_max: 2, ..ServerLimits::default() }, Echo::new());
    let first = connect(&server).await;
    let (_second, session) = open(&server).await;
    let error = Client::connect(pinned(&server)).await.unwrap_err();
    assert!(matches!(error, NetError::Refused { .. }), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("connection limit"), "{error}");
    session.status().await.unwrap();
    first.close().await;
    until(&server, "free place", |stats| stats.connections == 1).await;
    connect(&server).await;
    assert_eq!(server.stats().connections_refused_total, 1);
}

#[tokio::test]
async fn when_many_handshakes_are_open_a_client_must_prove_its_address_first() {
    let server = serve(ServerLimits { handshakes_retry_above: 0, ..ServerLimits::default() }, Echo::new());
    let (_client, session) = open(&server).await;
    session.status().await.unwrap();
    assert_eq!(server.stats().handshakes_retried_total, 1);
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused_with_both_fingerprints() {
    let server = serve(ServerLimits::default(), Echo::new());
    let other = Identity::ephemeral().unwrap().fingerprint();
    let config = ClientConfig::new(server.local_addr().unwrap(), Trust::Pin(other));
    let error = Client::connect(config).await.unwrap_err();
    assert!(
        matches!(error, NetError::KeyMismatch { pinned, got, .. } if pinned == other && got == server.fingerprint()),
        "{error}"
    );
}

#[tokio::test]
async fn a_node_trusted_on_first_use_must_keep_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let known = directory.path().join("known_nodes");
    let server = serve(ServerLimits::default(), Echo::new());
    let address = server.local_addr().unwrap();
    let config = || ClientConfig::new(address, Trust::FirstUse(known.clone()));
    for _ in 0..2 {
        Client::connect(config()).await.unwrap().close().await;
    }
    let text = std::fs::read_to_string(&known).unwrap();
    assert_eq!(text, format!("{address} {}\n", server.fingerprint()));
    // The same address, another key.
    server.shutdown(PATIENCE).await;
    drop(server);
    let identity = Identity::ephemeral().unwrap();
    let impostor = loop {
        match Server::bind(ServerConfig::new(address, identity.clone()), Echo::new()) {
            Ok(impostor) => break impostor,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let error = Client::connect(config()).await.unwrap_err();
    let NetError::KeyChanged { known: before, got, path, .. } = &error else { panic!("{error}") };
    assert_eq!((text.contains(&before.to_string()), *got, path), (true, impostor.fingerprint(), &known));
    assert_eq!(std::fs::read_to_string(&known).unwrap(), text, "never updated");
}

#[tokio::test]
async fn trusting_anyone_works_on_loopback_only() {
    let server = serve(ServerLimits::default(), Echo::new());
    let address = server.local_addr().unwrap();
    Client::connect(ClientConfig::new(address, Trust::InsecureAny)).await.unwrap();
    let far = ClientConfig::new("192.0.2.1:1".parse().unwrap(), Trust::InsecureAny);
    let error = Client::connect(far).await.unwrap_err();
    assert!(matches!(error, NetError::Local { .. }) && error.to_string().contains("pin"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_with_the_time_waited() {
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let config = ClientConfig {
        connect_timeout: Duration::from_millis(200),
        ..ClientConfig::new(silent.local_addr().unwrap(), Trust::InsecureAny)
    };
    let error = Client::connect(config).await.unwrap_err();
    assert!(matches!(error, NetError::ConnectTimeout { .. }), "{error}");
}

#[tokio::test]
async fn a_graceful_shutdown_delivers_pending_acks() {
    let echo = Echo::held();
    let server = serve(ServerLimits::default(), echo.clone());
    let (_client, session) = open(&server).await;
    let mut pending = Vec::new();
    for _ in 0..20 {
        pending.push(session.submit(&[10], vec![0; 10].into()).await.unwrap());
    }
    while echo.taken() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let shutdown = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown(PATIENCE).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = Client::connect(pinned(&server)).await.unwrap_err();
    assert!(matches!(error, NetError::Refused { .. }), "{error}");
    assert!(!shutdown.is_finished(), "acks are owed");
    echo.gate.add_permits(20);
    for pending in pending {
        pending.await.unwrap();
    }
    let report = timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    assert_eq!((report.sessions_drained, report.sessions_cut, report.requests_unanswered), (1, 0, 0));
    let end = session.ended().await;
    assert_eq!(end.code(), Some(ErrorCode::ShuttingDown), "{end}");
    assert!(session.submit(&[1], Bytes::from_static(b"x")).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_beyond_its_deadline_and_counts_what_it_left() {
    let echo = Echo::held();
    let server = serve(ServerLimits::default(), echo.clone());
    let (_client, session) = open(&server).await;
    let pending = session.submit(&[10], vec![0; 10].into()).await.unwrap();
    while echo.taken() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = server.shutdown(Duration::from_millis(100)).await;
    assert_eq!((report.sessions_drained, report.sessions_cut, report.requests_unanswered), (0, 1, 1));
    let error = timeout(PATIENCE, pending).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ShuttingDown), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_busy_node_slows_its_client_down_and_holds_no_more_than_the_budget() {
    let echo = Arc::new(Echo { busy: Duration::from_millis(2), ..Arc::into_inner(Echo::held()).unwrap() });
    let mut limits = ServerLimits { inflight_bytes_total_max: 256 << 10, ..ServerLimits::default() };
    limits.session.frame_bytes_max = 64 << 10;
    limits.session.inflight_bytes_max = 256 << 10;
    let server = serve(limits.clone(), echo.clone());
    // Three sessions, each with credit for the whole budget.
    let (client, _) = open(&server).await;
    let mut sending = Vec::new();
    for _ in 0..3 {
        let session = client.open_session(SessionOptions::default()).await.unwrap();
        sending.push(tokio::spawn(async move {
            let mut acked = 0;
            let mut pending = Vec::new();
            for _ in 0..30 {
                pending.push(session.submit(&[10_000; 2], vec![0; 20_000].into()).await.unwrap());
            }
            for pending in pending {
                acked += pending.await.unwrap().count;
            }
            acked
        }));
    }
    // The budget fills; then acks go one by one.
    until(&server, "full budget", |stats| stats.inflight_bytes + 20_000 > 256 << 10).await;
    while sending.iter().any(|sending| !sending.is_finished()) {
        assert!(server.stats().inflight_bytes <= 256 << 10);
        echo.gate.add_permits(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for sending in sending {
        assert_eq!(sending.await.unwrap(), 60);
    }
    until(&server, "empty budget", |stats| stats.inflight_bytes == 0).await;
}

#[tokio::test]
async fn a_dropped_session_closes_itself_and_a_dropped_client_its_connection() {
    let server = serve(ServerLimits::default(), Echo::new());
    let (client, session) = open(&server).await;
    until(&server, "session", |stats| stats.sessions == 1).await;
    drop(session);
    until(&server, "no session", |stats| stats.sessions == 0).await;
    drop(client);
    until(&server, "no connection", |stats| stats.connections == 0).await;
}

#[tokio::test]
async fn a_connection_without_a_session_is_closed_after_a_while() {
    let limits =
        ServerLimits { connection_idle_timeout: Duration::from_millis(200), ..ServerLimits::default() };
    let server = serve(limits, Echo::new());
    let client = connect(&server).await;
    until(&server, "end of the connection", |stats| stats.connections == 0).await;
    let error = client.open_session(SessionOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Idle), "{error}");
}

#[tokio::test]
async fn socket_buffers_are_reported_as_granted() {
    let server = serve(ServerLimits::default(), Echo::new());
    let buffers = server.socket_buffers();
    assert_eq!(buffers.requested_bytes, 4 << 20);
    assert!(buffers.receive_bytes > 0 && buffers.receive_bytes <= buffers.requested_bytes, "{buffers:?}");
}
