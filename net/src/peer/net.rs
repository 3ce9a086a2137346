//! The handle of a node's connections to its peers.
//!
//! Owns who is dialled and when, who is let in, bans, and the table of peers. Invariants: at most one connection per
//! peer; nothing that is called here waits for a peer. One connection is left to `link`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quinn::{Endpoint, Incoming, Runtime, TokioRuntime};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use weft_core::{GenesisId, LaneId, NodeKey, RandomSource, SplitMix64};

use super::config::{PeerConfig, PeerLimits};
use super::delay::DelayedSocket;
use super::frame::{Holdings, LaneEnd, PeerCode, PeerFrame};
use super::greeting::Greeting;
use super::identity::{Members, PeerIdentity, key_of};
use super::link::{self, Link, OTHER_STREAMS, UNI_STREAMS, code_of, meaning_of};
use super::loss::LossySocket;
use super::reset;
use super::service::{Arrived, PeerService, SubscriptionId};
use super::ship::Ask;
use super::status::{PeerState, PeerStatus};
use crate::quic::SERVER_NAME;
use crate::quic::error::BindError;
use crate::quic::transport::{endpoint_config, is_loopback, peer_transport, socket};

/// Points at which a peer is banned.
const BAN_POINTS: f64 = 100.0;

/// One point fades in this time.
const POINT_FADES_IN: Duration = Duration::from_secs(6);

/// Points for bytes that are no frame, or for more than the credit: the second time within a few minutes is too much.
pub(super) const NONSENSE_POINTS: u32 = 60;

/// A connection that lived this long makes the next wait before dialling short again.
const LIVED_LONG: Duration = Duration::from_secs(10);

/// Handshakes at once, hello and all; more are refused. Members connect once each, so this many at once are strangers.
const HANDSHAKES_MAX: u32 = 256;

/// Handshakes at once from which on whoever dials must first prove its address (RFC 9000, 8.1.2): forged addresses then take no
/// place from members.
const HANDSHAKES_RETRY_ABOVE: u32 = 64;

/// How long the last packets of a shutdown may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why connections to peers could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerStartError {
    /// The socket or TLS.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The members do not name this node's key at its lane.
    #[error("the node's key is not that of lane {lane} in the genesis")]
    NotMember {
        /// The lane.
        lane: LaneId,
    },
}

/// There is no connection to this peer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not connected to the node of lane {}", peer.0)]
pub struct NotConnected {
    /// Its lane.
    pub peer: LaneId,
}

/// A member, and what is known of it.
pub(super) struct Slot {
    pub(super) lane: LaneId,
    key: NodeKey,
    /// Held by the connection that the node knows of.
    pub(super) turn: tokio::sync::Mutex<()>,
    state: Mutex<SlotState>,
    /// Something changed for whoever dials.
    changed: Notify,
    /// Connections that came and are not the peer's yet.
    pub(super) greetings: AtomicU32,
    pub(super) shipped_bytes: AtomicU64,
    pub(super) taken_bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
}

#[derive(Default)]
struct SlotState {
    address: Option<String>,
    link: Option<Arc<Link>>,
    /// Counts connections that want to be the one.
    newest: u64,
    dialling: bool,
    banned_until: Option<Instant>,
    points: f64,
    points_at: Option<Instant>,
    connections: u64,
    /// Of connections that are over.
    sent_bytes: u64,
    received_bytes: u64,
    last_error: Option<String>,
}

impl SlotState {
    fn banned_for(&self) -> Option<Duration> {
        self.banned_until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn points_now(&self) -> f64 {
        let faded =
            self.points_at.map_or(0.0, |at| at.elapsed().as_secs_f64() / POINT_FADES_IN.as_secs_f64());
        (self.points - faded).max(0.0)
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.state().link.clone()
    }

    /// A new connection wants to be the peer's: the one before is closed. Returns its number.
    pub(super) fn announce(&self) -> u64 {
        let mut state = self.state();
        state.newest += 1;
        if let Some(link) = &state.link {
            link.fail(PeerCode::Replaced, "a newer connection took its place");
        }
        state.newest
    }

    /// Makes `link` the peer's connection, unless a newer one has been announced or the peer was banned meanwhile.
    pub(super) fn connected(&self, turn: u64, link: &Arc<Link>) -> bool {
        let mut state = self.state();
        if state.newest != turn || state.banned_for().is_some() {
            return false;
        }
        state.link = Some(Arc::clone(link));
        state.connections += 1;
        state.last_error = None;
        true
    }

    /// The peer's connection is over.
    pub(super) fn disconnected(&self, link: &Arc<Link>, reason: &str) {
        let stats = link.connection.stats();
        let mut state = self.state();
        state.link = None;
        state.sent_bytes += stats.udp_tx.bytes;
        state.received_bytes += stats.udp_rx.bytes;
        state.last_error = Some(reason.to_owned());
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) genesis: GenesisId,
    pub(super) lane: LaneId,
    pub(super) limits: PeerLimits,
    pub(super) service: Arc<dyn PeerService>,
    pub(super) runtime: Handle,
    identity: PeerIdentity,
    members: Members,
    endpoint: Endpoint,
    local_addr: SocketAddr,
    /// By lane; the own one too, and never used.
    slots: Vec<Arc<Slot>>,
    /// Counts up when a lane grew.
    grown: Vec<watch::Sender<u64>>,
    subscriptions: Mutex<HashMap<SubscriptionId, Arc<Ask>>>,
    subscriptions_total: AtomicU64,
    pub(super) handshakes: AtomicU32,
    closing: watch::Sender<bool>,
    random: Mutex<SplitMix64>,
    /// The socket adds latency or loss.
    plays_far: bool,
}

impl Shared {
    pub(super) fn grown(&self, lane: LaneId) -> Option<watch::Receiver<u64>> {
        self.grown.get(usize::from(lane.0)).map(watch::Sender::subscribe)
    }

    /// A subscription is over.
    pub(super) fn forget(&self, id: SubscriptionId) {
        self.subscriptions().remove(&id);
    }

    fn subscriptions(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Arc<Ask>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a fault.
    pub(super) fn fault(&self, slot: &Slot, points: u32, why: &str) {
        let banned = {
            let mut state = slot.state();
            state.points = state.points_now() + f64::from(points);
            state.points_at = Some(Instant::now());
            state.points >= BAN_POINTS
        };
        tracing::warn!(peer = slot.lane.0, points, why, "fault of a peer");
        if banned {
            self.ban(slot, why);
        }
    }

    fn ban(&self, slot: &Slot, why: &str) {
        let link = {
            let mut state = slot.state();
            state.banned_until = Some(Instant::now() + self.limits.ban);
            state.last_error = Some(format!("banned: {why}"));
            state.points = 0.0;
            state.link.clone()
        };
        tracing::warn!(peer = slot.lane.0, why, for_s = self.limits.ban.as_secs(), "peer banned");
        if let Some(link) = link {
            link.fail(PeerCode::Banned, why);
        }
    }

    /// Between half of `wait` and all of it.
    fn jittered(&self, wait: Duration) -> Duration {
        let half = wait / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        half + Duration::from_nanos(random.below(nanos))
    }

    /// Whether a peer is on this machine, and the link to it not made longer or worse than it is: a link that plays another one is to
    /// have the datagrams and the windows of that one.
    fn is_near(&self, remote: SocketAddr) -> bool {
        is_loopback(remote) && !self.plays_far
    }

    fn transport(&self, remote: SocketAddr) -> Arc<quinn::TransportConfig> {
        transport_of(&self.limits, self.slots.len(), self.is_near(remote))
    }

    // ---------- connections that come

    fn take(self: &Arc<Self>, incoming: Incoming, near: &Arc<quinn::ServerConfig>) {
        if *self.closing.borrow() {
            return incoming.refuse();
        }
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        if handshakes >= HANDSHAKES_RETRY_ABOVE
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            let _ = incoming.retry();
            return;
        }
        if handshakes >= HANDSHAKES_MAX {
            tracing::debug!(remote = %incoming.remote_address(), "peer refused: too many handshakes");
            return incoming.refuse();
        }
        let mut greeting = Greeting::new(self);
        let shared = Arc::clone(self);
        let near = Arc::clone(near);
        self.runtime.spawn(async move {
            let remote = incoming.remote_address();
            let connecting =
                if shared.is_near(remote) { incoming.accept_with(near) } else { incoming.accept() };
            let established = match connecting {
                Ok(connecting) => tokio::time::timeout(shared.limits.hello_timeout, connecting).await,
                Err(error) => Ok(Err(error)),
            };
            let connection = match established {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    tracing::info!(%remote, reason = meaning_of(&error).1, "stranger refused");
                    return;
                }
                Err(_) => return,
            };
            let identity = connection.peer_identity();
            let slot = identity
                .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
                .and_then(|chain| chain.first().and_then(key_of))
                .and_then(|key| shared.members.get(&key))
                .and_then(|lane| shared.slots.get(usize::from(lane.0)));
            let refuse = |code: PeerCode, reason: &str| connection.close(code_of(code), reason.as_bytes());
            let Some(slot) = slot else {
                return refuse(PeerCode::UnknownKey, "no node of this ledger has this key");
            };
            if slot.lane <= shared.lane {
                return refuse(PeerCode::WrongSide, "the node with the higher lane dials");
            }
            if slot.state().banned_for().is_some() {
                return refuse(PeerCode::Banned, "banned for faults");
            }
            if !greeting.is_of(slot) {
                return refuse(PeerCode::Replaced, "other connections of this peer have not said hello yet");
            }
            let end = link::run(&shared, slot, connection.clone(), Some(greeting)).await;
            if end.lived.is_zero() {
                slot.state().last_error = Some(end.reason);
            }
        });
    }

    // ---------- connections that are dialled

    async fn dial_loop(self: Arc<Self>, slot: Arc<Slot>) {
        let mut closing = self.closing.subscribe();
        let going_down = async move {
            let _ = closing.wait_for(|closing| *closing).await;
        };
        tokio::select! {
            () = going_down => {}
            () = self.keep_dialled(&slot) => {}
        }
    }

    async fn keep_dialled(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut wait = self.limits.redial_least;
        loop {
            let changed = slot.changed.notified();
            let (address, banned) = {
                let state = slot.state();
                (state.address.clone(), state.banned_for())
            };
            if let Some(left) = banned {
                tokio::time::sleep(left).await;
                continue;
            }
            let Some(address) = address else {
                changed.await;
                continue;
            };
            slot.state().dialling = true;
            let dialled = self.dial(slot, &address).await;
            slot.state().dialling = false;
            let worked = match dialled {
                Ok(connection) => {
                    let end = link::run(self, slot, connection, None).await;
                    if end.lived.is_zero() {
                        slot.state().last_error = Some(format!("{address}: {}", end.reason));
                    }
                    // A peer that has just been started again is not one that drops its connections.
                    end.lived >= LIVED_LONG || end.restarted
                }
                Err(reason) => {
                    tracing::debug!(peer = slot.lane.0, %address, %reason, "peer not reached");
                    slot.state().last_error = Some(format!("{address}: {reason}"));
                    false
                }
            };
            if worked {
                wait = self.limits.redial_least;
            }
            let pause = tokio::time::sleep(self.jittered(wait));
            tokio::select! {
                () = pause => wait = (wait * 2).min(self.limits.redial_most),
                () = changed => wait = self.limits.redial_least,
            }
        }
    }

    async fn dial(&self, slot: &Slot, address: &str) -> Result<quinn::Connection, String> {
        let dial = async {
            let mut addresses = tokio::net::lookup_host(address).await.map_err(|error| error.to_string())?;
            let own = self.local_addr;
            // A socket of one family reaches addresses of that family only.
            let remote = addresses
                .find(|remote| own.is_ipv6() || remote.is_ipv4())
                .ok_or_else(|| format!("no address that {own} can reach"))?;
            let tls = self.identity.client_tls(&self.members, slot.key).map_err(|error| error.to_string())?;
            let mut config = quinn::ClientConfig::new(tls);
            config.transport_config(self.transport(remote));
            let connecting =
                self.endpoint.connect_with(config, remote, SERVER_NAME).map_err(|error| error.to_string())?;
            connecting.await.map_err(|error| meaning_of(&error).1)
        };
        let limit = self.limits.hello_timeout;
        tokio::time::timeout(limit, dial).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }
}

fn transport_of(limits: &PeerLimits, members: usize, loopback: bool) -> Arc<quinn::TransportConfig> {
    // A lane has one subscription at a time and one that is on its way out.
    let asks = u32::try_from(2 * members).unwrap_or(u32::MAX) + OTHER_STREAMS;
    let silence = (limits.idle_timeout / 4, limits.idle_timeout);
    peer_transport(limits.window_bytes, (asks, UNI_STREAMS), silence, loopback)
}

/// A node's connections to its peers. Clones are handles of the same; nothing here waits, but for futures.
#[derive(Clone)]
pub struct PeerNet {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for PeerNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerNet").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl PeerNet {
    /// Listens, and dials every member with a lower lane and an address; in tasks of `runtime`.
    ///
    /// # Errors
    /// See [`PeerStartError`].
    pub fn start(
        config: PeerConfig,
        runtime: &Handle,
        service: Arc<dyn PeerService>,
    ) -> Result<Self, PeerStartError> {
        let PeerConfig { listen, seed, genesis, lane, members, latency, loss_percent, limits } = config;
        let identity = PeerIdentity::new(&seed)?;
        if members.get(usize::from(lane.0)).map(|member| member.key) != Some(identity.public()) {
            return Err(PeerStartError::NotMember { lane });
        }
        let lanes = (0..).map(LaneId);
        let keys: Members = Arc::new(members.iter().map(|member| member.key).zip(lanes).collect());
        let failed = |source| BindError::Listen { address: listen, source };
        let tls = identity.server_tls(&keys)?;
        let server = |loopback| {
            let mut config = quinn::ServerConfig::with_crypto(tls.clone());
            config.transport_config(transport_of(&limits, members.len(), loopback));
            config.max_incoming(HANDSHAKES_MAX as usize);
            config
        };
        let near = Arc::new(server(true));
        let (socket, buffers) = socket(listen, limits.socket_buffer_bytes).map_err(failed)?;
        if buffers.receive_bytes < limits.socket_buffer_bytes {
            tracing::info!(?buffers, "the kernel grants smaller socket buffers to peers than asked for");
        }
        // Sockets and timers of quinn belong to the runtime that is entered.
        let _entered = runtime.enter();
        let mut socket = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
        if !latency.is_zero() {
            socket = DelayedSocket::new(socket, latency);
        }
        if loss_percent > 0.0 {
            socket = LossySocket::new(socket, loss_percent / 100.0, lane.0.into());
        }
        let endpoint = Endpoint::new_with_abstract_socket(
            reset::keyed(endpoint_config(), &seed),
            Some(server(false)),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let local_addr = endpoint.local_addr().map_err(failed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = u64::try_from(now.as_nanos()).unwrap_or_default() ^ (u64::from(lane.0) << 48);
        let grown = members.iter().map(|_| watch::Sender::new(0)).collect();
        let slots = members.into_iter().zip((0..).map(LaneId)).map(|(member, lane)| {
            let state = SlotState { address: member.address, ..SlotState::default() };
            Arc::new(Slot {
                lane,
                key: member.key,
                turn: tokio::sync::Mutex::new(()),
                state: Mutex::new(state),
                changed: Notify::new(),
                greetings: AtomicU32::new(0),
                shipped_bytes: AtomicU64::new(0),
                taken_bytes: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            })
        });
        let shared = Arc::new(Shared {
            genesis,
            lane,
            limits,
            service,
            runtime: runtime.clone(),
            identity,
            members: keys,
            endpoint,
            local_addr,
            slots: slots.collect(),
            grown,
            subscriptions: Mutex::default(),
            subscriptions_total: AtomicU64::new(0),
            handshakes: AtomicU32::new(0),
            closing: watch::Sender::new(false),
            random: Mutex::new(SplitMix64::new(seed)),
            plays_far: !latency.is_zero() || loss_percent > 0.0,
        });
        let accepting = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Some(incoming) = accepting.endpoint.accept().await {
                accepting.take(incoming, &near);
            }
        });
        for slot in shared.slots.iter().filter(|slot| slot.lane < lane) {
            runtime.spawn(Arc::clone(&shared).dial_loop(Arc::clone(slot)));
        }
        Ok(Self { shared })
    }

    fn slot(&self, peer: LaneId) -> Option<&Arc<Slot>> {
        self.shared.slots.get(usize::from(peer.0))
    }

    pub(super) fn link(&self, peer: LaneId) -> Result<Arc<Link>, NotConnected> {
        self.slot(peer).and_then(|slot| slot.link()).ok_or(NotConnected { peer })
    }

    fn links(&self) -> impl Iterator<Item = Arc<Link>> + '_ {
        self.shared.slots.iter().filter_map(|slot| slot.link())
    }

    /// Where peers reach this node.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Sends a witness to all connected peers. Returns how many it was queued for.
    pub fn broadcast_witness(&self, message: &Bytes) -> usize {
        self.links().filter(|link| link.control(PeerFrame::Witness(message.clone()))).count()
    }

    /// Sends a witness to one peer. Where no room is left in its queue it is dropped and counted.
    ///
    /// # Errors
    /// It is not connected.
    pub fn send_witness(&self, peer: LaneId, message: Bytes) -> Result<(), NotConnected> {
        self.link(peer)?.control(PeerFrame::Witness(message));
        Ok(())
    }

    /// Tells one peer, or all, what this node holds.
    pub fn send_holdings(&self, peer: Option<LaneId>, holdings: &Holdings) {
        for link in self.links().filter(|link| peer.is_none_or(|peer| peer == link.peer)) {
            link.control(PeerFrame::Holdings(holdings.clone()));
        }
    }

    /// Passes a proof of a fork on to all connected peers but `except`: two batches for one position of `lane`. A peer
    /// that has not taken the last two proofs yet is left out: who is, is returned.
    pub fn send_fork_proof(&self, except: Option<LaneId>, lane: LaneId, batches: &[Bytes; 2]) -> Vec<LaneId> {
        let others = self.links().filter(|link| Some(link.peer) != except);
        others.filter(|link| !link.send_proof(lane, batches.clone())).map(|link| link.peer).collect()
    }

    /// Tells one peer, or all, that a lane was signed two ways: by the proof's bytes, without its batches. Where no room is left in a
    /// peer's queue it is dropped and counted.
    pub fn send_forked(&self, peer: Option<LaneId>, proof: &Bytes) {
        for link in self.links().filter(|link| peer.is_none_or(|peer| peer == link.peer)) {
            link.control(PeerFrame::Forked(proof.clone()));
        }
    }

    /// Asks a peer for what follows the highest of `ends` that it has of `lane`, with this much credit, as far as
    /// [`PeerLimits::credit_bytes_max`] goes. A subscription to the same lane of the same peer is given up. At most
    /// 512 ends are sent, the first ones and the last.
    ///
    /// # Errors
    /// It is not connected.
    pub fn subscribe(
        &self,
        peer: LaneId,
        lane: LaneId,
        mut ends: Vec<LaneEnd>,
        credit_bytes: u64,
    ) -> Result<SubscriptionId, NotConnected> {
        let link = self.link(peer)?;
        if ends.len() > super::frame::ENDS_MAX {
            ends.drain(super::frame::ENDS_MAX - 1..ends.len() - 1);
        }
        if ends.is_empty() {
            ends.push(LaneEnd { size: 0, root: weft_core::merkle::EMPTY_ROOT });
        }
        let id = SubscriptionId(self.shared.subscriptions_total.fetch_add(1, Ordering::Relaxed) + 1);
        let ask = Ask::new(id, lane);
        self.shared.subscriptions().insert(id, Arc::clone(&ask));
        if !link.subscribe(&ask, ends, credit_bytes.max(1)) {
            return Err(NotConnected { peer });
        }
        Ok(id)
    }

    /// Gives a subscription up: batches on their way may still come, no event does.
    pub fn unsubscribe(&self, subscription: SubscriptionId) {
        let ask = self.shared.subscriptions().remove(&subscription);
        if let Some(ask) = ask {
            ask.stop();
        }
    }

    /// Gives credit back: `bytes` of batches have been consumed.
    pub fn grant(&self, subscription: SubscriptionId, bytes: u64) {
        if bytes > 0
            && let Some(ask) = self.shared.subscriptions().get(&subscription)
        {
            ask.grant(bytes);
        }
    }

    /// What has come by a subscription so far: a long batch on a slow link takes its time. Nothing once it is over.
    #[must_use]
    pub fn arrived(&self, subscription: SubscriptionId) -> Arrived {
        self.shared.subscriptions().get(&subscription).map_or_else(Arrived::default, |ask| ask.arrived())
    }

    /// Asks a peer for the witnesses of `validator` after this number, at most 256; they come through
    /// [`PeerService::witness`], then [`PeerService::chain_done`]. Where that validator's chain, or eight others, are
    /// being asked for already, nothing happens.
    ///
    /// # Errors
    /// It is not connected.
    pub fn want_witnesses(&self, peer: LaneId, validator: u16, after: u64) -> Result<(), NotConnected> {
        self.link(peer)?.want_witnesses(validator, after);
        Ok(())
    }

    /// More of a lane is durable here, or it changed: whoever is being shipped it is sent on. Cheap; call it after each
    /// sync.
    pub fn lane_grew(&self, lane: LaneId) {
        if let Some(grown) = self.shared.grown.get(usize::from(lane.0)) {
            grown.send_modify(|count| *count += 1);
        }
    }

    /// Counts a fault that is not proof: at 100 points, which fade by one every six seconds, the peer is banned.
    pub fn fault(&self, peer: LaneId, points: u32, why: &str) {
        if let Some(slot) = self.slot(peer) {
            self.shared.fault(slot, points, why);
        }
    }

    /// Drops a peer for a proven fault; for [`PeerLimits::ban`] it is neither dialled nor let in.
    pub fn ban(&self, peer: LaneId, why: &str) {
        if let Some(slot) = self.slot(peer) {
            self.shared.ban(slot, why);
        }
    }

    /// Changes where a peer is dialled, from the next attempt on, which is made at once if one is waited for.
    pub fn set_address(&self, peer: LaneId, address: Option<String>) {
        if let Some(slot) = self.slot(peer) {
            slot.state().address = address;
            slot.changed.notify_one();
        }
    }

    /// Whether there is a connection to this peer.
    #[must_use]
    pub fn is_connected(&self, peer: LaneId) -> bool {
        self.link(peer).is_ok()
    }

    /// Figures of all peers, in the order of their lanes.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let others = self.shared.slots.iter().filter(|slot| slot.lane != self.shared.lane);
        others.map(|slot| slot.status()).collect()
    }

    /// Closes all connections and the socket; waits for the last packets, at most a second.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.closing.send_replace(true);
        for link in self.links() {
            link.fail(PeerCode::ShuttingDown, "the node is going down");
        }
        shared.endpoint.close(code_of(PeerCode::ShuttingDown), b"the node is going down");
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, shared.endpoint.wait_idle()).await;
    }
}

impl Slot {
    fn status(&self) -> PeerStatus {
        let state = self.state();
        let link = state.link.as_ref();
        let now = match (link, state.banned_for()) {
            (_, Some(left)) => PeerState::Banned(left),
            (Some(_), None) => PeerState::Connected,
            (None, None) if state.dialling => PeerState::Dialling,
            (None, None) => PeerState::Waiting,
        };
        let stats = link.map(|link| link.connection.stats());
        let (sent, received) = stats.map_or((0, 0), |stats| (stats.udp_tx.bytes, stats.udp_rx.bytes));
        PeerStatus {
            peer: self.lane,
            state: now,
            address: link
                .map(|link| link.connection.remote_address().to_string())
                .or_else(|| state.address.clone()),
            rtt: link.map(|link| link.connection.rtt()),
            silent: link.map(|link| link.silent()),
            connections_total: state.connections,
            sent_bytes_total: state.sent_bytes + sent,
            received_bytes_total: state.received_bytes + received,
            shipped_bytes_total: self.shipped_bytes.load(Ordering::Relaxed),
            taken_bytes_total: self.taken_bytes.load(Ordering::Relaxed),
            dropped_total: self.dropped.load(Ordering::Relaxed),
            shipping: link.map_or(0, |link| link.shipping_count()),
            score: state.points_now() as u32,
            last_error: state.last_error.clone(),
        }
    }
}
