//! The server: accepts connections, runs each stream as a session, and hands what clients ask to a
//! [`Service`].
//!
//! Owns the limits that concern all connections together: how many, how many handshakes, how many sessions,
//! how many bytes in flight. Invariants: whoever comes beyond a limit is told so and costs no more than the
//! telling; a session that fails ends alone; after [`ServerHandle::shutdown`] every request that was taken is
//! answered or counted as unanswered. What a Submit means is left to the service.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime, VarInt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use weft_core::MessageId;

use super::error::BindError;
use super::identity::{Fingerprint, Identity};
use super::link::{self, Handler, Link};
use super::subscription::{Confirmations, Tellers};
use super::transport::{self, ServerLimits, SocketBuffers};
use crate::frame::{Ack, AckLevel, ErrorCode, Found, Status, Submit, WireError};
use crate::query::{Answer, Query};
use crate::session::{ServerEvent, ServerSession, WelcomeInfo};
use crate::subscribe::Subscribe;

/// How long the last packets of a shutdown may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a node does for its clients.
///
/// The futures run in the session's task and may be dropped when the session ends; what they have started
/// must not depend on them.
pub trait Service: Send + Sync + 'static {
    /// What the node says of itself. Called for each session; should be quick.
    fn welcome(&self) -> WelcomeInfo;

    /// Takes a Submit. Until the future is done, nothing more of this session is read: that is the back
    /// pressure. `Ok` means that an ack follows through `session`, from any thread, now or later; `Err`
    /// refuses all of it.
    fn submit(
        &self,
        submit: Submit,
        session: SessionHandle,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Tips for new messages, at most `count`.
    fn tips(&self, count: usize) -> impl Future<Output = Result<Vec<MessageId>, Refusal>> + Send;

    /// Stored messages, one answer for each id.
    fn get(&self, ids: Vec<MessageId>) -> impl Future<Output = Result<Vec<Option<Found>>, Refusal>> + Send;

    /// How the node is.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;

    /// The answer to a query about a receipt or an account, of the kind that the query asks for.
    fn query(&self, query: Query) -> impl Future<Output = Result<Answer, Refusal>> + Send {
        let _ = query;
        std::future::ready(Err(Refusal::unsupported("this node keeps no receipts and no accounts")))
    }

    /// Takes a subscription to confirmation. Nothing more of the session is read until it is done, so it is quick.
    fn subscribe(&self, wanted: Subscribe) -> impl Future<Output = Result<Confirmations, Refusal>> + Send {
        let _ = wanted;
        std::future::ready(Err(Refusal::unsupported("this node tells nothing of confirmation")))
    }
}

/// Why a node refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// When to try again, in milliseconds; 0 if it would not help.
    pub retry_after_ms: u32,
    /// For people; cut to 256 bytes.
    pub text: String,
}

impl Refusal {
    /// The node is full.
    #[must_use]
    pub fn overloaded(retry_after_ms: u32, text: impl Into<String>) -> Self {
        Self { code: ErrorCode::Overloaded, retry_after_ms, text: text.into() }
    }

    /// The node goes down.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self { code: ErrorCode::ShuttingDown, retry_after_ms: 0, text: "the node is going down".to_owned() }
    }

    /// The node failed.
    #[must_use]
    pub fn internal(text: impl Into<String>) -> Self {
        Self { code: ErrorCode::Internal, retry_after_ms: 0, text: text.into() }
    }

    /// What was asked for is not here.
    #[must_use]
    pub fn not_found(text: impl Into<String>) -> Self {
        Self { code: ErrorCode::NotFound, retry_after_ms: 0, text: text.into() }
    }

    /// What was asked for is not final here yet.
    #[must_use]
    pub fn not_yet(retry_after_ms: u32, text: impl Into<String>) -> Self {
        Self { code: ErrorCode::NotYet, retry_after_ms, text: text.into() }
    }

    /// The node does not do this.
    #[must_use]
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self { code: ErrorCode::Unsupported, retry_after_ms: 0, text: text.into() }
    }

    pub(super) fn error(self, request_id: u64) -> WireError {
        WireError::new(request_id, self.code, self.retry_after_ms, self.text)
    }
}

/// What a server needs to start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who the server is.
    pub identity: Identity,
    /// What it may cost.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// A configuration with default limits.
    #[must_use]
    pub fn new(listen: SocketAddr, identity: Identity) -> Self {
        Self { listen, identity, limits: ServerLimits::default() }
    }
}

/// Figures of a running server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections now, handshakes included.
    pub connections: u32,
    /// Handshakes now.
    pub handshakes: u32,
    /// Sessions now.
    pub sessions: u32,
    /// Subscriptions now.
    pub subscriptions: u32,
    /// Bytes of messages handed to the service and not acked, now.
    pub inflight_bytes: u64,
    /// Connections taken since the start.
    pub connections_total: u64,
    /// Connections refused since the start, at the limit of connections or of handshakes.
    pub connections_refused_total: u64,
    /// Handshakes made to prove their address since the start.
    pub handshakes_retried_total: u64,
    /// Sessions opened since the start.
    pub sessions_total: u64,
    /// Sessions refused since the start, at the limit.
    pub sessions_refused_total: u64,
    /// Sessions that failed since the start, by code.
    pub sessions_failed_total: [u64; ErrorCode::ALL.len() + 1],
}

impl ServerStats {
    /// Sessions that failed with this code since the start.
    #[must_use]
    pub fn failed(&self, code: ErrorCode) -> u64 {
        self.sessions_failed_total.get(usize::from(code.code())).copied().unwrap_or_default()
    }
}

/// What a shutdown left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Sessions that ended with everything answered.
    pub sessions_drained: u32,
    /// Sessions cut off at the deadline.
    pub sessions_cut: u32,
    /// Requests that those had open.
    pub requests_unanswered: u32,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU32,
    handshakes: AtomicU32,
    connections_total: AtomicU64,
    connections_refused_total: AtomicU64,
    handshakes_retried_total: AtomicU64,
    sessions_total: AtomicU64,
    sessions_refused_total: AtomicU64,
    sessions_failed_total: [AtomicU64; ErrorCode::ALL.len() + 1],
}

struct Inner<S> {
    service: Arc<S>,
    shared: Arc<Shared>,
}

impl<S> Clone for Inner<S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), shared: self.shared.clone() }
    }
}

/// What the handle of a server and its tasks share.
struct Shared {
    limits: ServerLimits,
    endpoint: Endpoint,
    fingerprint: Fingerprint,
    buffers: SocketBuffers,
    counters: Counters,
    budget: Arc<Semaphore>,
    /// Places for subscriptions, of all connections.
    subscriptions: Arc<Semaphore>,
    sessions: Mutex<HashMap<u64, Arc<SessionInner>>>,
    session_ended: Notify,
    shutting_down: AtomicBool,
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Arc<SessionInner>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session, for the service: answers its Submits. A clone costs one reference count.
#[derive(Clone, Debug)]
pub struct SessionHandle(Arc<SessionInner>);

#[derive(Debug)]
pub(super) struct SessionInner {
    id: u64,
    remote: SocketAddr,
    pub(super) link: Link<ServerSession>,
    /// Places for subscriptions of its connection.
    pub(super) subscriptions: Arc<Semaphore>,
    /// Shares of the server's budget, by request.
    permits: Mutex<HashMap<u64, OwnedSemaphorePermit>>,
}

impl SessionInner {
    fn permits(&self) -> MutexGuard<'_, HashMap<u64, OwnedSemaphorePermit>> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request_id: u64, answer: impl FnOnce(&mut ServerSession, Instant) -> bool) -> bool {
        let answered = answer(&mut self.link.lock(), Instant::now());
        if answered {
            self.permits().remove(&request_id);
            self.link.wake();
        }
        answered
    }
}

impl SessionHandle {
    /// Answers a Submit. Never waits; any thread may call it. False if the session is gone or the Submit
    /// already answered: then the ack is dropped.
    ///
    /// An ack that does not fit its Submit (another count, a level below [`ack_level`](Self::ack_level),
    /// exceptions out of order) is answered with `internal`.
    pub fn ack(&self, ack: Ack) -> bool {
        self.0.answer(ack.request_id, |session, now| session.ack(now, ack))
    }

    /// Refuses a Submit that was taken. As [`ack`](Self::ack).
    pub fn refuse(&self, request_id: u64, refusal: Refusal) -> bool {
        self.0.answer(request_id, |session, now| session.refuse(now, refusal.error(request_id)))
    }

    /// The level that acks of this session must have at least.
    #[must_use]
    pub fn ack_level(&self) -> AckLevel {
        self.0.link.lock().ack_level()
    }

    /// Number of the session, unique while the server runs.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Address of the client.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// Whether the session is over: nothing reaches the client any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.link.lock().is_over()
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Listens and serves in tasks of the current tokio runtime, until [`ServerHandle::shutdown`] or the end
    /// of the runtime.
    ///
    /// # Errors
    /// See [`BindError`]: the limits are checked first.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind<S: Service>(config: ServerConfig, service: Arc<S>) -> Result<ServerHandle, BindError> {
        let ServerConfig { listen, identity, limits } = config;
        limits.check()?;
        let failed = |source| BindError::Listen { address: listen, source };
        let tls = transport::server_tls(&identity)?;
        let (socket, buffers) = transport::socket(listen, limits.socket_buffer_bytes).map_err(failed)?;
        if buffers.receive_bytes < limits.socket_buffer_bytes {
            tracing::info!(
                ?buffers,
                "the kernel grants smaller socket buffers than asked for: raise net.core.rmem_max and wmem_max"
            );
        }
        let far = transport::quic_server(&limits, tls.clone(), false);
        let near = Arc::new(transport::quic_server(&limits, tls, true));
        let endpoint = Endpoint::new(transport::endpoint_config(), Some(far), socket, Arc::new(TokioRuntime))
            .map_err(failed)?;
        let shared = Arc::new(Shared {
            budget: Arc::new(Semaphore::new(limits.inflight_bytes_total_max as usize)),
            subscriptions: Arc::new(Semaphore::new(limits.subscriptions_max as usize)),
            limits,
            endpoint: endpoint.clone(),
            fingerprint: identity.fingerprint(),
            buffers,
            counters: Counters::default(),
            sessions: Mutex::default(),
            session_ended: Notify::new(),
            shutting_down: AtomicBool::new(false),
        });
        let inner = Inner { service, shared: shared.clone() };
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                inner.take(incoming, &near);
            }
        });
        Ok(ServerHandle { shared })
    }
}

/// A running server.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl ServerHandle {
    /// Where the server listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// What clients pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared.fingerprint
    }

    /// Socket buffers as granted.
    #[must_use]
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.shared.buffers
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &ServerLimits {
        &self.shared.limits
    }

    /// Figures of this moment.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let counters = &self.shared.counters;
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let free = self.shared.budget.available_permits() as u64;
        ServerStats {
            connections: counters.connections.load(Ordering::Relaxed),
            handshakes: counters.handshakes.load(Ordering::Relaxed),
            sessions: self.shared.sessions().len() as u32,
            subscriptions: self
                .shared
                .limits
                .subscriptions_max
                .saturating_sub(self.shared.subscriptions.available_permits() as u32),
            inflight_bytes: self.shared.limits.inflight_bytes_total_max.saturating_sub(free),
            connections_total: total(&counters.connections_total),
            connections_refused_total: total(&counters.connections_refused_total),
            handshakes_retried_total: total(&counters.handshakes_retried_total),
            sessions_total: total(&counters.sessions_total),
            sessions_refused_total: total(&counters.sessions_refused_total),
            sessions_failed_total: std::array::from_fn(|code| total(&counters.sessions_failed_total[code])),
        }
    }

    /// Goes down in order: refuses new connections, sessions and requests, tells every session, waits until
    /// what is in flight is answered and delivered, at most until `deadline` has passed, then closes all
    /// connections.
    ///
    /// The service must still answer meanwhile.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let shared = &self.shared;
        shared.shutting_down.store(true, Ordering::SeqCst);
        let sessions: Vec<_> = shared.sessions().values().cloned().collect();
        for session in &sessions {
            session.link.lock().shut_down(Instant::now());
            session.link.wake();
        }
        let drained = async {
            loop {
                let ended = shared.session_ended.notified();
                if shared.sessions().is_empty() {
                    break;
                }
                ended.await;
            }
        };
        let _ = tokio::time::timeout(deadline, drained).await;
        let mut report = ShutdownReport::default();
        for session in shared.sessions().values() {
            report.sessions_cut += 1;
            report.requests_unanswered += session.link.lock().in_flight().requests;
        }
        report.sessions_drained = (sessions.len() as u32).saturating_sub(report.sessions_cut);
        shared.endpoint.close(code_of(ErrorCode::ShuttingDown), b"the node is going down");
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, shared.endpoint.wait_idle()).await;
        report
    }
}

fn code_of(code: ErrorCode) -> VarInt {
    VarInt::from_u32(code.code().into())
}

/// Counts while it lives.
struct Counted<F: Fn(&Counters) -> &AtomicU32> {
    shared: Arc<Shared>,
    counter: F,
}

impl<F: Fn(&Counters) -> &AtomicU32> Counted<F> {
    /// `None` at the limit.
    fn new(shared: &Arc<Shared>, limit: u32, counter: F) -> Option<Self> {
        // Only the accept loop adds, so there is no race for the last place.
        let current = counter(&shared.counters);
        if current.load(Ordering::Relaxed) >= limit {
            return None;
        }
        current.fetch_add(1, Ordering::Relaxed);
        Some(Self { shared: shared.clone(), counter })
    }
}

impl<F: Fn(&Counters) -> &AtomicU32> Drop for Counted<F> {
    fn drop(&mut self) {
        (self.counter)(&self.shared.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Service> Inner<S> {
    /// Takes, defers or refuses a connection.
    fn take(&self, incoming: Incoming, near: &Arc<quinn::ServerConfig>) {
        let shared = &self.shared;
        let counters = &shared.counters;
        let limits = &shared.limits;
        if shared.shutting_down.load(Ordering::SeqCst) {
            return incoming.refuse();
        }
        let handshakes = counters.handshakes.load(Ordering::Relaxed);
        if handshakes >= limits.handshakes_retry_above
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            counters.handshakes_retried_total.fetch_add(1, Ordering::Relaxed);
            let _ = incoming.retry();
            return;
        }
        let connection = Counted::new(shared, limits.connections_max, |counters| &counters.connections);
        let handshake = Counted::new(shared, limits.handshakes_max, |counters| &counters.handshakes);
        let (Some(connection), Some(handshake)) = (connection, handshake) else {
            counters.connections_refused_total.fetch_add(1, Ordering::Relaxed);
            // Not a warning: a flood of connections must not become one of log lines. The counter tells.
            tracing::debug!(remote = %incoming.remote_address(), "connection refused: at the limit");
            incoming.refuse();
            return;
        };
        let loopback = transport::is_loopback(incoming.remote_address());
        let connecting = if loopback { incoming.accept_with(near.clone()) } else { incoming.accept() };
        let inner = self.clone();
        tokio::spawn(async move {
            let _connection = connection;
            let established = match connecting {
                Ok(connecting) => {
                    tokio::time::timeout(inner.shared.limits.handshake_timeout, connecting).await
                }
                Err(error) => Ok(Err(error)),
            };
            drop(handshake);
            match established {
                Ok(Ok(connection)) => {
                    inner.shared.counters.connections_total.fetch_add(1, Ordering::Relaxed);
                    inner.serve(connection).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
                Err(_) => tracing::debug!("handshake timed out"),
            }
        });
    }

    /// Runs the sessions of a connection until it ends.
    async fn serve(&self, connection: Connection) {
        let remote = connection.remote_address();
        tracing::debug!(%remote, "connected");
        let mut sessions = JoinSet::new();
        let places = self.shared.limits.session.subscriptions_max as usize;
        let subscriptions = Arc::new(Semaphore::new(places));
        loop {
            let idle = tokio::time::sleep(self.shared.limits.connection_idle_timeout);
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, recv)) => {
                        let (inner, subscriptions) = (self.clone(), subscriptions.clone());
                        sessions.spawn(async move { inner.session(remote, subscriptions, send, recv).await });
                    }
                    Err(reason) => {
                        tracing::debug!(%remote, %reason, "disconnected");
                        break;
                    }
                },
                Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
                () = idle, if sessions.is_empty() => {
                    connection.close(code_of(ErrorCode::Idle), b"no session");
                    break;
                }
            }
        }
        // Their streams are gone, so they end at once; until then the connection's place is taken.
        while sessions.join_next().await.is_some() {}
    }

    async fn session(
        &self,
        remote: SocketAddr,
        subscriptions: Arc<Semaphore>,
        send: SendStream,
        recv: RecvStream,
    ) {
        let shared = &self.shared;
        let now = Instant::now();
        let id = shared.counters.sessions_total.fetch_add(1, Ordering::Relaxed) + 1;
        let machine = ServerSession::new(shared.limits.session.clone(), self.service.welcome(), now);
        let link = Link::new(machine);
        let session = Arc::new(SessionInner { id, remote, link, subscriptions, permits: Mutex::default() });
        let registered = {
            let mut sessions = shared.sessions();
            let free = sessions.len() < shared.limits.sessions_max as usize;
            if free {
                sessions.insert(id, session.clone());
            }
            free
        };
        let registered = registered.then(|| Registered { shared, id });
        if registered.is_none() {
            shared.counters.sessions_refused_total.fetch_add(1, Ordering::Relaxed);
            let text = format!("the node serves {} sessions, its limit", shared.limits.sessions_max);
            session.link.lock().fail(now, ErrorCode::Overloaded, text);
        } else if shared.shutting_down.load(Ordering::SeqCst) {
            session.link.lock().shut_down(now);
        }
        let mut handler = Requests { inner: self, session: &session, tellers: Tellers::default() };
        link::run(&session.link, send, recv, &mut handler).await;
        let failure = session.link.lock().failure();
        if let Some(code) = failure {
            tracing::debug!(%remote, id, %code, "session failed");
            if let Some(counter) = shared.counters.sessions_failed_total.get(usize::from(code.code())) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A session's place among the server's. Gives it back even if the session's task is dropped.
struct Registered<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let session = self.shared.sessions().remove(&self.id);
        if let Some(session) = session {
            session.link.lock().handle_lost();
            session.permits().clear();
        }
        self.shared.session_ended.notify_waiters();
    }
}

/// Hands a session's requests to the service.
struct Requests<'a, S> {
    inner: &'a Inner<S>,
    session: &'a Arc<SessionInner>,
    tellers: Tellers,
}

impl<S: Service> Handler<ServerSession> for Requests<'_, S> {
    // Nobody is left to answer.
    const HANDLES_AFTER_END: bool = false;

    async fn handle(&mut self, event: ServerEvent) {
        let Inner { service, shared } = self.inner;
        let session = self.session;
        let refuse = |request_id: u64, refusal: Refusal| {
            session.answer(request_id, |session, now| session.refuse(now, refusal.error(request_id)));
        };
        match event {
            ServerEvent::Opened(hello) => {
                tracing::debug!(remote = %session.remote, id = session.id, ack_level = %hello.ack_level, "session opened");
            }
            ServerEvent::Submit(submit) => {
                let request_id = submit.request_id();
                // Checked at the start: no Submit is larger than the whole budget.
                let bytes = u32::try_from(submit.bytes().len()).unwrap_or(u32::MAX);
                let Ok(permit) = shared.budget.clone().acquire_many_owned(bytes).await else { return };
                session.permits().insert(request_id, permit);
                if let Err(refusal) = service.submit(submit, SessionHandle(session.clone())).await {
                    refuse(request_id, refusal);
                }
            }
            ServerEvent::GetTips { request_id, count } => match service.tips(count.into()).await {
                Ok(mut tips) => {
                    tips.truncate(count.into());
                    session.answer(request_id, |session, now| session.tips(now, request_id, tips));
                }
                Err(refusal) => refuse(request_id, refusal),
            },
            ServerEvent::GetMessages { request_id, ids } => {
                let count = ids.len();
                match service.get(ids).await {
                    Ok(found) if found.len() == count => {
                        session.answer(request_id, |session, now| session.messages(now, request_id, found));
                    }
                    Ok(_) => refuse(request_id, Refusal::internal("the node did not answer for each id")),
                    Err(refusal) => refuse(request_id, refusal),
                }
            }
            ServerEvent::GetStatus { request_id } => match service.status().await {
                Ok(status) => {
                    session.answer(request_id, |session, now| session.status(now, request_id, status));
                }
                Err(refusal) => refuse(request_id, refusal),
            },
            ServerEvent::Query { request_id, query } => match service.query(query).await {
                Ok(answer) => {
                    session.answer(request_id, |session, now| session.answer(now, request_id, answer));
                }
                Err(refusal) => refuse(request_id, refusal),
            },
            ServerEvent::Subscribe { request_id, subscribe } => {
                let wanted = (request_id, subscribe);
                self.tellers.begin(&**service, session, &shared.subscriptions, wanted).await;
            }
            ServerEvent::Granted { .. } => session.link.room.notify_waiters(),
            ServerEvent::Unsubscribe { request_id } => self.tellers.end(request_id),
        }
    }
}
