//! The client: one connection to one node, sessions on it, and requests as futures.
//!
//! Owns the connection, the check of the node's key, and the pairing of replies with those who wait for them.
//! Invariants: the server's credit is respected by waiting, and only by [`LoadSender::try_submit`] by an
//! error; a request ends with its reply, the node's refusal, or the reason why the session ended, never
//! silently; a session whose last handle is dropped closes. When and where to connect again is left to the
//! caller.
//!
//! Two ways to submit: [`Session`], where each Submit gives a future of its ack; and, for load generators,
//! [`LoadSender`] with an [`AckStream`], where all acks come through one channel with the time of their
//! arrival and a Submit allocates nothing to wait on.

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, Endpoint, TokioRuntime, VarInt};
use tokio::sync::{Notify, mpsc, oneshot};
use weft_core::MessageId;

use super::error::NetError;
use super::identity::Fingerprint;
use super::link::{self, Handler, Link};
use super::load::{AckStream, DELIVERIES_MAX, Delivery, LoadSender};
use super::subscription::Feed;
use super::transport::{self, ClientWindows, SocketBuffers};
use super::trust::{PinVerifier, Trust};
use crate::frame::{Ack, Lookup, Status, Welcome, WireError};
use crate::limits::GET_MESSAGES_MAX;
use crate::query::{Answer, Query};
use crate::session::{ClientEvent, ClientOptions, ClientSession, Credit, RequestError, SessionEnd};

/// What a client wants of a session.
pub type SessionOptions = ClientOptions;

/// What a client needs to connect.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The node.
    pub address: SocketAddr,
    /// Which key it must have.
    pub trust: Trust,
    /// Local address; by default any, on loopback for a node there.
    pub bind: Option<SocketAddr>,
    /// How long to wait for the handshake.
    pub connect_timeout: Duration,
    /// Windows and buffers.
    pub windows: ClientWindows,
}

impl ClientConfig {
    /// A configuration with default windows and ten seconds to connect.
    #[must_use]
    pub fn new(address: SocketAddr, trust: Trust) -> Self {
        Self {
            address,
            trust,
            bind: None,
            connect_timeout: Duration::from_secs(10),
            windows: ClientWindows::default(),
        }
    }
}

/// Connects to one node again and again from one socket: many clients without a socket for each. Every connection
/// makes a handshake of its own, and a full one: sessions of TLS are not resumed.
#[derive(Clone, Debug)]
pub struct Dialer {
    address: SocketAddr,
    trust: Trust,
    expected: Option<Fingerprint>,
    verifier: Arc<PinVerifier>,
    endpoint: Endpoint,
    quic: quinn::ClientConfig,
    connect_timeout: Duration,
    buffers: SocketBuffers,
}

impl Dialer {
    /// Opens the socket; must be called inside a runtime.
    ///
    /// # Errors
    /// [`NetError::Local`] if it cannot, or the file of known nodes cannot be read.
    pub fn new(config: ClientConfig) -> Result<Self, NetError> {
        let ClientConfig { address, trust, bind, connect_timeout, windows } = config;
        let local = |reason: String| NetError::Local { address, reason };
        let loopback = transport::is_loopback(address);
        if matches!(trust, Trust::InsecureAny) && !loopback {
            return Err(local(
                "trusting any key is allowed on loopback only: pin the node's fingerprint".to_owned(),
            ));
        }
        let expected = trust.expected(address)?;
        let verifier = PinVerifier::new(expected, &transport::provider());
        let tls = transport::client_tls(verifier.clone()).map_err(local)?;
        let mut quic = quinn::ClientConfig::new(tls);
        quic.transport_config(transport::client_transport(&windows, loopback));
        let any = match (address, loopback) {
            (SocketAddr::V4(_), true) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            (SocketAddr::V4(_), false) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            // A socket on ::1 would not reach ::ffff:127.0.0.1.
            (SocketAddr::V6(_), _) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let (socket, buffers) = transport::socket(bind.unwrap_or(any), windows.socket_buffer_bytes)
            .map_err(|error| local(error.to_string()))?;
        let endpoint = Endpoint::new(transport::endpoint_config(), None, socket, Arc::new(TokioRuntime))
            .map_err(|error| local(error.to_string()))?;
        Ok(Self { address, trust, expected, verifier, endpoint, quic, connect_timeout, buffers })
    }

    /// Makes one more connection. Closing it does not wait for its last packets; [`finish`](Self::finish) does.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(&self) -> Result<Client, NetError> {
        let address = self.address;
        let connecting = self
            .endpoint
            .connect_with(self.quic.clone(), address, super::SERVER_NAME)
            .map_err(|error| NetError::Local { address, reason: error.to_string() })?;
        let connection = match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(match (self.expected, self.verifier.seen()) {
                    (Some(known), Some(got)) if known != got => self.trust.mismatch(address, known, got),
                    _ => NetError::of_connection(address, &error),
                });
            }
            Err(_) => return Err(NetError::ConnectTimeout { address, after: self.connect_timeout }),
        };
        let fingerprint = self.verifier.seen();
        if let Some(fingerprint) = fingerprint {
            self.trust.remember(address, fingerprint)?;
        }
        let endpoint = self.endpoint.clone();
        Ok(Client { address, endpoint, shared: true, connection, fingerprint, buffers: self.buffers })
    }

    /// Waits until all connections of this socket are closed and their last packets sent.
    pub async fn finish(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// A connection to a node.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    endpoint: Endpoint,
    /// Whether the socket serves other connections too.
    shared: bool,
    connection: Connection,
    fingerprint: Option<Fingerprint>,
    buffers: SocketBuffers,
}

impl Client {
    /// Connects. With [`Trust::FirstUse`] a node met for the first time is added to the file once the
    /// handshake is done.
    ///
    /// # Errors
    /// See [`NetError`]: nobody answers, the node refuses, it has another key, or it speaks something else.
    pub async fn connect(config: ClientConfig) -> Result<Self, NetError> {
        let client = Dialer::new(config)?.connect().await?;
        Ok(Self { shared: false, ..client })
    }

    /// The node.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Socket buffers as granted.
    #[must_use]
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.buffers
    }

    /// Round trip to the node, as QUIC estimates it.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Figures of the connection: datagrams, losses, path.
    #[must_use]
    pub fn stats(&self) -> quinn::ConnectionStats {
        self.connection.stats()
    }

    /// Opens a session. Waits while the node's limit of streams for this connection is reached, at most the
    /// options' welcome timeout.
    ///
    /// # Errors
    /// The node refuses ([`NetError::Session`] with its code), or does not answer in time.
    pub async fn open_session(&self, options: SessionOptions) -> Result<Session, NetError> {
        self.open(options, None).await
    }

    /// Opens a session for a load generator.
    ///
    /// # Errors
    /// As [`open_session`](Self::open_session).
    pub async fn open_load_session(
        &self,
        options: SessionOptions,
    ) -> Result<(LoadSender, AckStream), NetError> {
        let (deliver, deliveries) = mpsc::channel(DELIVERIES_MAX);
        let session = self.open(options, Some(deliver)).await?;
        let inner = session.inner.inner.clone();
        Ok((LoadSender { session }, AckStream { deliveries, inner }))
    }

    async fn open(
        &self,
        options: SessionOptions,
        deliver: Option<mpsc::Sender<Delivery>>,
    ) -> Result<Session, NetError> {
        let patience = options.welcome_timeout;
        let open = async {
            let lost = |error| NetError::of_connection(self.address, &error);
            let (send, recv) = self.connection.open_bi().await.map_err(lost)?;
            let inner = Arc::new(Inner {
                address: self.address,
                connection: self.connection.clone(),
                link: Link::new(ClientSession::new(options, Instant::now())),
                state: Mutex::default(),
                changed: Notify::new(),
            });
            let (welcomed, welcome) = oneshot::channel();
            let mut handler = Replies { inner: inner.clone(), welcomed: Some(welcomed), deliver };
            let running = inner.clone();
            tokio::spawn(async move {
                link::run(&running.link, send, recv, &mut handler).await;
                // The end was an event, unless the task was cut short.
                running.end(SessionEnd::Lost);
            });
            // From here on a drop of this future closes the session.
            let owner = Arc::new(Owner { inner });
            let welcome = welcome.await.map_err(|_| owner.inner.end_reason())?;
            Ok(Session { inner: owner, welcome: Arc::new(welcome) })
        };
        tokio::time::timeout(patience, open)
            .await
            .unwrap_or_else(|_| Err(SessionEnd::WelcomeTimeout(patience).into()))
    }

    /// Closes the connection and with it all its sessions. What is pending is lost: close the sessions first.
    pub async fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"done");
        if !self.shared {
            self.endpoint.wait_idle().await;
        }
    }
}

#[derive(Debug)]
enum Reply {
    Ack(Ack),
    Tips(Vec<MessageId>),
    Messages(Vec<Lookup>),
    Status(Status),
    Answer(Answer),
}

type ReplySender = oneshot::Sender<Result<Reply, NetError>>;

#[derive(Debug, Default)]
pub(super) struct State {
    waiting: HashMap<u64, ReplySender>,
    pub(super) subscriptions: HashMap<u64, Feed>,
    pub(super) end: Option<NetError>,
}

#[derive(Debug)]
pub(super) struct Inner {
    address: SocketAddr,
    connection: Connection,
    pub(super) link: Link<ClientSession>,
    /// Locked before the link where both are.
    state: Mutex<State>,
    /// There may be credit again, or the session has ended.
    changed: Notify,
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end_reason(&self) -> NetError {
        self.state().end.clone().unwrap_or(NetError::Session(SessionEnd::Lost))
    }

    /// Ends the session for those who wait. The first reason counts.
    fn end(&self, end: SessionEnd) {
        let error = match (&end, self.connection.close_reason()) {
            (SessionEnd::Lost, Some(reason)) => NetError::of_connection(self.address, &reason),
            _ => NetError::Session(end),
        };
        let (waiting, subscriptions) = {
            let mut state = self.state();
            state.end.get_or_insert(error);
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.subscriptions))
        };
        for reply in waiting.into_values() {
            let _ = reply.send(Err(self.end_reason()));
        }
        subscriptions.into_values().for_each(|feed| feed.end(self.end_reason()));
        self.changed.notify_waiters();
    }

    fn reply(&self, request_id: u64, reply: Result<Reply, NetError>) {
        let waiting = self.state().waiting.remove(&request_id);
        if let Some(waiting) = waiting {
            // Whoever dropped the future does not want the reply.
            let _ = waiting.send(reply);
        }
    }

    /// Makes a request, unless the session has ended.
    pub(super) fn attempt<T>(
        &self,
        make: impl FnOnce(&mut ClientSession, Instant, &mut State) -> Result<T, RequestError>,
    ) -> Result<T, NetError> {
        let mut state = self.state();
        let made = make(&mut self.link.lock(), Instant::now(), &mut state);
        match made {
            Ok(made) => {
                self.link.wake();
                Ok(made)
            }
            Err(RequestError::NotOpen) => {
                let draining = NetError::Session(SessionEnd::ShutDown);
                Err(state.end.clone().unwrap_or(draining))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a request as soon as there is credit for it.
    pub(super) async fn when_credit<T>(
        &self,
        mut make: impl FnMut(&mut ClientSession, Instant, &mut State) -> Result<T, RequestError>,
    ) -> Result<T, NetError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.attempt(&mut make) {
                Err(NetError::Invalid(RequestError::NoCredit { .. })) => changed.await,
                made => return made,
            }
        }
    }

    /// Asks, and waits for the reply.
    async fn ask(
        &self,
        mut make: impl FnMut(&mut ClientSession, Instant) -> Result<u64, RequestError>,
    ) -> Result<Reply, NetError> {
        let reply = self
            .when_credit(|session, now, state| {
                let request_id = make(session, now)?;
                let (sender, receiver) = oneshot::channel();
                state.waiting.insert(request_id, sender);
                Ok(receiver)
            })
            .await?;
        reply.await.unwrap_or_else(|_| Err(self.end_reason()))
    }

    async fn ended(&self) -> NetError {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let end = self.state().end.clone();
            match end {
                Some(end) => return end,
                None => changed.await,
            }
        }
    }
}

/// Pairs a session's replies with those who wait.
struct Replies {
    inner: Arc<Inner>,
    welcomed: Option<oneshot::Sender<Welcome>>,
    deliver: Option<mpsc::Sender<Delivery>>,
}

impl Replies {
    async fn deliver(&self, request_id: u64, result: Result<Ack, WireError>) {
        let received_at = Instant::now();
        let waiting = self.inner.state().waiting.remove(&request_id);
        match (waiting, &self.deliver) {
            (Some(waiting), _) => {
                // Whoever dropped the future does not want the reply.
                let _ = waiting.send(result.map(Reply::Ack).map_err(NetError::Request));
            }
            (None, Some(deliver)) => {
                // The credit is back before the load generator has looked at the ack.
                self.inner.changed.notify_waiters();
                let _ = deliver.send(Delivery { request_id, received_at, result }).await;
            }
            (None, None) => {}
        }
    }
}

impl Handler<ClientSession> for Replies {
    // Acks that came before the end are acks.
    const HANDLES_AFTER_END: bool = true;

    async fn handle(&mut self, event: ClientEvent) {
        let inner = &self.inner;
        match event {
            ClientEvent::Welcomed(welcome) => {
                if let Some(welcomed) = self.welcomed.take() {
                    let _ = welcomed.send(welcome);
                }
            }
            ClientEvent::Ack(ack) => self.deliver(ack.request_id, Ok(ack)).await,
            ClientEvent::Failed(error) => {
                let feed = inner.state().subscriptions.remove(&error.request_id);
                match feed {
                    Some(feed) => feed.end(NetError::Request(error)),
                    None => self.deliver(error.request_id, Err(error)).await,
                }
            }
            ClientEvent::Subscribed { request_id, starts } => {
                if let Some(feed) = inner.state().subscriptions.get_mut(&request_id) {
                    feed.start(starts);
                }
            }
            ClientEvent::Notice { request_id, notice } => {
                if let Some(feed) = inner.state().subscriptions.get(&request_id) {
                    feed.tell(notice);
                }
            }
            // Whoever ended it waits for nothing.
            ClientEvent::Unsubscribed { .. } => {}
            ClientEvent::Tips { request_id, tips } => inner.reply(request_id, Ok(Reply::Tips(tips))),
            ClientEvent::Messages { request_id, answers } => {
                inner.reply(request_id, Ok(Reply::Messages(answers)));
            }
            ClientEvent::Status { request_id, status } => inner.reply(request_id, Ok(Reply::Status(status))),
            ClientEvent::Answer { request_id, answer } => inner.reply(request_id, Ok(Reply::Answer(answer))),
            ClientEvent::ShuttingDown => tracing::debug!(address = %inner.address, "the node is going down"),
            ClientEvent::Ended(end) => {
                inner.end(end);
                self.welcomed = None;
                self.deliver = None;
            }
        }
        self.inner.changed.notify_waiters();
    }
}

/// Closes the session when the last handle is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) inner: Arc<Inner>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inner.link.lock().close(Instant::now());
        self.inner.link.wake();
    }
}

/// An open session. Clones share it.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) inner: Arc<Owner>,
    welcome: Arc<Welcome>,
}

impl Session {
    pub(super) fn inner(&self) -> &Inner {
        &self.inner.inner
    }

    /// What the node said.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// What is in flight.
    #[must_use]
    pub fn in_flight(&self) -> Credit {
        self.inner().link.lock().in_flight()
    }

    /// Submits the messages that `lengths` cut `bytes` into, waiting for credit first. The messages are not
    /// copied. When this returns, the Submit is on its way; the ack comes through the returned future, and
    /// other Submits need not wait for it.
    ///
    /// # Errors
    /// The Submit is malformed or beyond the node's limits, or the session has ended.
    pub async fn submit(&self, lengths: &[u16], bytes: Bytes) -> Result<PendingAck, NetError> {
        self.inner()
            .when_credit(|session, now, state| {
                let request_id = session.submit(now, lengths, bytes.clone())?;
                let (sender, reply) = oneshot::channel();
                state.waiting.insert(request_id, sender);
                Ok(PendingAck { request_id, reply })
            })
            .await
    }

    /// Asks for tips, at most [`TIPS_IN_REPLY_MAX`](crate::limits::TIPS_IN_REPLY_MAX).
    ///
    /// # Errors
    /// The node refuses, or the session has ended.
    pub async fn tips(&self, count: u16) -> Result<Vec<MessageId>, NetError> {
        match self.inner().ask(|session, now| session.get_tips(now, count)).await? {
            Reply::Tips(tips) => Ok(tips),
            _ => Err(mismatch()),
        }
    }

    /// Asks how the node is.
    ///
    /// # Errors
    /// The node refuses, or the session has ended.
    pub async fn status(&self) -> Result<Status, NetError> {
        match self.inner().ask(|session, now| session.get_status(now)).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(mismatch()),
        }
    }

    /// Asks about a receipt or an account. The answer is of the kind that the query asks for.
    ///
    /// # Errors
    /// The node refuses, or the session has ended.
    pub async fn query(&self, query: Query) -> Result<Answer, NetError> {
        match self.inner().ask(|session, now| session.query(now, query.clone())).await? {
            Reply::Answer(answer) => Ok(answer),
            _ => Err(mismatch()),
        }
    }

    /// Fetches stored messages, any number, one answer for each id: found or absent. Asks again for what did
    /// not fit one reply.
    ///
    /// # Errors
    /// The node refuses, or the session has ended.
    pub async fn get(&self, ids: &[MessageId]) -> Result<Vec<Lookup>, NetError> {
        let mut answers = vec![Lookup::AskAgain; ids.len()];
        let mut missing: Vec<usize> = (0..ids.len()).collect();
        let mut rounds = 0;
        while !missing.is_empty() {
            let now: Vec<_> = missing.iter().copied().take(GET_MESSAGES_MAX as usize).collect();
            let wanted: Vec<_> = now.iter().map(|&index| ids[index]).collect();
            let reply = self.inner().ask(|session, now| session.get_messages(now, wanted.clone())).await?;
            let Reply::Messages(got) = reply else { return Err(mismatch()) };
            rounds += 1;
            let before = missing.len();
            for (index, answer) in now.into_iter().zip(got) {
                answers[index] = answer;
            }
            missing.retain(|&index| answers[index] == Lookup::AskAgain);
            if missing.len() == before {
                return Err(NetError::Unanswered { missing: before, rounds });
            }
        }
        Ok(answers)
    }

    /// Closes the session: nothing more can be asked of it or its clones. Waits until everything pending is
    /// answered.
    ///
    /// # Errors
    /// It ended otherwise than by this.
    pub async fn close(&self) -> Result<(), NetError> {
        self.inner().link.lock().close(Instant::now());
        self.inner().link.wake();
        match self.inner().ended().await {
            NetError::Session(SessionEnd::Done) => Ok(()),
            end => Err(end),
        }
    }

    /// Waits for the end of the session, and tells the reason.
    pub async fn ended(&self) -> NetError {
        self.inner().ended().await
    }
}

fn mismatch() -> NetError {
    SessionEnd::Mismatch("a reply of another kind").into()
}

/// The ack of one Submit, when it comes.
#[derive(Debug)]
pub struct PendingAck {
    request_id: u64,
    reply: oneshot::Receiver<Result<Reply, NetError>>,
}

impl PendingAck {
    /// Id of the Submit in its session.
    #[must_use]
    pub fn request_id(&self) -> u64 {
        self.request_id
    }
}

impl Future for PendingAck {
    type Output = Result<Ack, NetError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply).poll(context).map(|reply| match reply {
            Ok(Ok(Reply::Ack(ack))) => Ok(ack),
            Ok(Ok(_)) => Err(mismatch()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SessionEnd::Lost.into()),
        })
    }
}
