//! One connection to a peer, from its hello to its end.
//!
//! Owns the control stream both ways, pings, proofs of forks, and the tasks of the connection. Invariants: a peer is told
//! of to the node only after a good hello, and once it is over all its subscriptions have been told so before
//! `disconnected`; a connection of a peer is over for the node before the next one begins. Lanes and chains are left to
//! [`ship`](super::ship).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use weft_core::LaneId;

use super::cosign::COSIGNS_MAX;
use super::frame::{LaneEnd, PeerCode, PeerFrame, PeerFrameError, PeerKind};
use super::greeting::Greeting;
use super::net::{Shared, Slot};
use super::service::Hold;
use super::ship::{self, Ask};
use super::stream::{FrameReceiver, FrameSender, StreamError};

/// Before all other streams.
const CONTROL_PRIORITY: i32 = 100;
/// After control, before lanes.
const PROOF_PRIORITY: i32 = 75;
/// Control frames that are written together.
const CONTROL_WRITE_BYTES: usize = 64 << 10;
/// Proofs on their way to one peer; more are dropped and counted.
const PROOFS_MAX: usize = 2;
/// Chains asked for at once, of one peer; more are refused.
pub(super) const CHAINS_MAX: usize = 8;
/// Streams that a peer may open besides its subscriptions.
pub(super) const OTHER_STREAMS: u32 = (CHAINS_MAX + COSIGNS_MAX) as u32;
/// Unidirectional streams that a peer may open: control and proofs.
pub(super) const UNI_STREAMS: u32 = 1 + PROOFS_MAX as u32;

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) struct LinkEnd {
    pub(super) reason: String,
    /// How long it was connected, from its hello on.
    pub(super) lived: Duration,
    /// The peer's process is another one than it was connected to.
    pub(super) restarted: bool,
}

/// A connection with a good hello.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) slot: Arc<Slot>,
    pub(super) peer: LaneId,
    pub(super) connection: Connection,
    room: Arc<Semaphore>,
    /// Readers that wait for room.
    waiting: AtomicU32,
    control: Mutex<Control>,
    control_added: Notify,
    /// Tasks that must end before the link does; `None` once it is over.
    tasks: Mutex<Option<JoinSet<()>>>,
    asks: Mutex<Asks>,
    chains: Mutex<Vec<u16>>,
    shipping: Mutex<HashMap<LaneId, Arc<Notify>>>,
    proofs: Arc<Semaphore>,
    /// Room for signatures that are asked for, and for those that the peer asks for.
    pub(super) cosigns: [Semaphore; 2],
    /// Held while the node reads its disk to answer: one subscription and one chain of a peer at a time, however often it asks.
    pub(super) ship_turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) chain_turn: Arc<tokio::sync::Mutex<()>>,
    heard: Mutex<Instant>,
    failed: AtomicBool,
    failure: Mutex<Option<(PeerCode, String)>>,
    pinged: AtomicU64,
}

#[derive(Default)]
struct Control {
    frames: VecDeque<PeerFrame>,
    bytes: usize,
}

#[derive(Default)]
struct Asks {
    by_lane: HashMap<LaneId, Arc<Ask>>,
    credit: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The application error code of QUIC.
pub(super) fn code_of(code: PeerCode) -> VarInt {
    VarInt::from_u32(code.code().into())
}

/// What the end of a connection means.
pub(super) fn meaning_of(error: &ConnectionError) -> (Option<PeerCode>, String) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u8::try_from(close.error_code.into_inner()).ok().and_then(PeerCode::from_code);
            let text = String::from_utf8_lossy(&close.reason);
            match code {
                Some(code) => (Some(code), format!("closed by the peer: {code}: {text}")),
                None => (None, error.to_string()),
            }
        }
        // Alert access_denied (RFC 8446, 6.2) is what a verifier's refusal becomes.
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::crypto(49) =>
        {
            let reason = "unknown_key: the peer knows no node with this node's key".to_owned();
            (Some(PeerCode::UnknownKey), reason)
        }
        ConnectionError::TransportError(refused) if refused.code == quinn::TransportErrorCode::crypto(49) => {
            let reason = "unknown_key: the peer has another key than that of its lane".to_owned();
            (Some(PeerCode::UnknownKey), reason)
        }
        ConnectionError::TimedOut => (Some(PeerCode::Idle), "nothing came for too long".to_owned()),
        _ => (None, error.to_string()),
    }
}

impl Link {
    // ---------- from any thread

    /// Queues a control frame; `false`, and counted, where there is no room.
    pub(super) fn control(&self, frame: PeerFrame) -> bool {
        let bytes = frame.wire_bytes();
        {
            let mut control = lock(&self.control);
            if control.bytes + bytes > self.shared.limits.control_bytes_max {
                self.slot.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            control.bytes += bytes;
            control.frames.push_back(frame);
        }
        self.control_added.notify_one();
        true
    }

    /// Ends the connection for a fault of the peer's.
    pub(super) fn fail(&self, code: PeerCode, reason: &str) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        *lock(&self.failure) = Some((code, reason.to_owned()));
        self.connection.close(code_of(code), reason.as_bytes());
    }

    /// Runs `task` as one that ends before the link does; `false` if the link is over.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut tasks = lock(&self.tasks);
        let Some(tasks) = tasks.as_mut() else { return false };
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.shared.runtime);
        true
    }

    /// Starts a subscription; `false` if the link is over.
    pub(super) fn subscribe(self: &Arc<Self>, ask: &Arc<Ask>, ends: Vec<LaneEnd>, credit: u64) -> bool {
        let limits = &self.shared.limits;
        let credit = {
            let mut asks = lock(&self.asks);
            let left = limits.credit_bytes_max.saturating_sub(asks.credit);
            let credit = credit.min(left).max(limits.credit_bytes_least);
            asks.credit += credit;
            if let Some(before) = asks.by_lane.insert(ask.lane, Arc::clone(ask)) {
                before.stop();
            }
            credit
        };
        let (link, task) = (Arc::clone(self), Arc::clone(ask));
        let spawned = self.spawn(async move {
            ship::ask(&link, &task, ends, credit).await;
            link.asked(&task, credit);
        });
        if !spawned {
            self.asked(ask, credit);
        }
        spawned
    }

    /// A subscription is over.
    fn asked(&self, ask: &Arc<Ask>, credit: u64) {
        let mut asks = lock(&self.asks);
        asks.credit = asks.credit.saturating_sub(credit);
        if asks.by_lane.get(&ask.lane).is_some_and(|current| current.id == ask.id) {
            asks.by_lane.remove(&ask.lane);
        }
        drop(asks);
        self.shared.forget(ask.id);
    }

    /// Asks for a chain, unless it is being asked for; `false` if the link is over or too many are.
    pub(super) fn want_witnesses(self: &Arc<Self>, validator: u16, after: u64) -> bool {
        {
            let mut chains = lock(&self.chains);
            if chains.contains(&validator) {
                return true;
            }
            if chains.len() >= CHAINS_MAX {
                return false;
            }
            chains.push(validator);
        }
        let link = Arc::clone(self);
        self.spawn(async move {
            ship::ask_chain(&link, validator, after).await;
            lock(&link.chains).retain(|asked| *asked != validator);
        })
    }

    /// Sends a proof of a fork, if there is room for it; `false`, and counted, if not.
    pub(super) fn send_proof(self: &Arc<Self>, lane: LaneId, batches: [Bytes; 2]) -> bool {
        let Ok(permit) = Arc::clone(&self.proofs).try_acquire_owned() else {
            self.slot.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let link = Arc::clone(self);
        self.spawn(async move {
            let _permit = permit;
            let Ok(send) = link.connection.open_uni().await else { return };
            let mut send = FrameSender::new(send, PROOF_PRIORITY, link.shared.limits.slow_peer_timeout);
            let [first, second] = batches;
            for frame in [PeerFrame::ForkProof { lane }, PeerFrame::Batch(first), PeerFrame::Batch(second)] {
                if send.frame(&frame).await.is_err() {
                    return;
                }
            }
            send.finish();
        })
    }

    /// When something came last on the control stream.
    pub(super) fn silent(&self) -> Duration {
        lock(&self.heard).elapsed()
    }

    /// Lanes that the peer is being shipped.
    pub(super) fn shipping_count(&self) -> u32 {
        lock(&self.shipping).len() as u32
    }

    // ---------- for `ship`

    /// Room for something received; waits until the node has let go of enough.
    pub(super) async fn hold(&self, bytes: usize) -> Hold {
        let permits = bytes.clamp(1, self.shared.limits.hold_bytes_max) as u32;
        self.waiting.fetch_add(1, Ordering::AcqRel);
        // The semaphore is never closed. Where the link ends meanwhile, so does the one who would count down.
        let permit = Arc::clone(&self.room).acquire_many_owned(permits).await.ok();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        Hold::of(permit)
    }

    /// Notes that a lane is being shipped; the one before it is told that it is replaced.
    pub(super) fn start_shipping(&self, lane: LaneId) -> Arc<Notify> {
        let replaced = Arc::new(Notify::new());
        if let Some(before) = lock(&self.shipping).insert(lane, Arc::clone(&replaced)) {
            before.notify_one();
        }
        replaced
    }

    pub(super) fn stop_shipping(&self, lane: LaneId, replaced: &Arc<Notify>) {
        let mut shipping = lock(&self.shipping);
        if shipping.get(&lane).is_some_and(|current| Arc::ptr_eq(current, replaced)) {
            shipping.remove(&lane);
        }
    }
}

/// Says hello and hears it. Returns the control stream's halves.
async fn greet(
    shared: &Shared,
    peer: LaneId,
    connection: &Connection,
) -> Result<(FrameSender, FrameReceiver), (PeerCode, String)> {
    let limits = &shared.limits;
    let said = |code: PeerCode, reason: String| (code, format!("{code}: {reason}"));
    let lost = |error: &ConnectionError| {
        let (code, reason) = meaning_of(error);
        (code.unwrap_or(PeerCode::Done), reason)
    };
    let failed = |error: &StreamError| match error {
        StreamError::Lost(error) => lost(error),
        _ => error.closes().unwrap_or((PeerCode::Done, "the control stream was given up".to_owned())),
    };
    let send = connection.open_uni().await.map_err(|error| lost(&error))?;
    let mut send = FrameSender::new(send, CONTROL_PRIORITY, limits.slow_peer_timeout);
    let hello = PeerFrame::Hello { lane: shared.lane, genesis: shared.genesis };
    send.frame(&hello).await.map_err(|error| failed(&error))?;
    let recv = connection.accept_uni().await.map_err(|error| lost(&error))?;
    let mut recv = FrameReceiver::new(recv, limits.batch_bytes_max);
    match recv.next(|kind| kind == PeerKind::Hello).await.map_err(|error| failed(&error))? {
        Some(PeerFrame::Hello { genesis, .. }) if genesis != shared.genesis => Err(said(
            PeerCode::WrongGenesis,
            format!("the ledgers differ: {genesis} there, {} here", shared.genesis),
        )),
        Some(PeerFrame::Hello { lane, .. }) if lane != peer => Err(said(
            PeerCode::WrongLane,
            format!("the hello says lane {}, the key is lane {}'s", lane.0, peer.0),
        )),
        Some(PeerFrame::Hello { .. }) => Ok((send, recv)),
        _ => Err(said(PeerCode::BadFrame, PeerFrameError::Cut { when: "before the hello" }.to_string())),
    }
}

/// Runs a connection to the peer of `slot` until it is over. `greeting` counts it until it is the peer's.
pub(super) async fn run(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    connection: Connection,
    greeting: Option<Greeting>,
) -> LinkEnd {
    let peer = slot.lane;
    let refused = |code, reason: String| {
        connection.close(code_of(code), reason.as_bytes());
        LinkEnd { reason, lived: Duration::ZERO, restarted: false }
    };
    let greeted = tokio::time::timeout(shared.limits.hello_timeout, greet(shared, peer, &connection)).await;
    let (send, recv) = match greeted {
        Ok(Ok(streams)) => streams,
        Ok(Err((code, reason))) => return refused(code, reason),
        Err(_) => return refused(PeerCode::HelloTimeout, "no hello came in time".to_owned()),
    };
    let link = Arc::new(Link {
        shared: Arc::clone(shared),
        slot: Arc::clone(slot),
        peer,
        connection: connection.clone(),
        room: Arc::new(Semaphore::new(shared.limits.hold_bytes_max)),
        waiting: AtomicU32::new(0),
        control: Mutex::default(),
        control_added: Notify::new(),
        tasks: Mutex::new(Some(JoinSet::new())),
        asks: Mutex::default(),
        chains: Mutex::default(),
        shipping: Mutex::default(),
        proofs: Arc::new(Semaphore::new(PROOFS_MAX)),
        cosigns: [Semaphore::new(COSIGNS_MAX), Semaphore::new(COSIGNS_MAX)],
        ship_turn: Arc::default(),
        chain_turn: Arc::default(),
        heard: Mutex::new(Instant::now()),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
        pinged: AtomicU64::new(0),
    });
    // The newest connection counts: a peer that was restarted comes back before its old one is noticed to be dead.
    let turn = slot.announce();
    let _in_turn = slot.turn.lock().await;
    if !slot.connected(turn, &link) {
        return refused(PeerCode::Replaced, "a newer connection took its place".to_owned());
    }
    drop(greeting);
    let since = Instant::now();
    tracing::info!(peer = peer.0, remote = %connection.remote_address(), "peer connected");
    shared.service.connected(peer);
    let (code, reason) = converse(&link, send, recv).await;
    let (code, reason) =
        lock(&link.failure).take().map_or((code, reason), |failure| (Some(failure.0), failure.1));
    let restarted = matches!(connection.close_reason(), Some(ConnectionError::Reset));
    connection.close(code_of(code.unwrap_or(PeerCode::Done)), reason.as_bytes());
    // Taken out first: what is asked of the link from here on is refused.
    let tasks = lock(&link.tasks).take();
    if let Some(mut tasks) = tasks {
        while tasks.join_next().await.is_some() {}
    }
    slot.disconnected(&link, &reason);
    if link.failed.load(Ordering::Acquire) && matches!(code, Some(PeerCode::BadFrame | PeerCode::OverCredit))
    {
        shared.fault(slot, super::net::NONSENSE_POINTS, &reason);
    }
    shared.service.disconnected(peer, code, &reason);
    tracing::info!(peer = peer.0, %reason, "peer disconnected");
    LinkEnd { reason, lived: since.elapsed(), restarted }
}

/// Everything that a connection does besides what this node asks for; returns how it ended.
async fn converse(link: &Arc<Link>, send: FrameSender, recv: FrameReceiver) -> (Option<PeerCode>, String) {
    let mut serving = JoinSet::new();
    let streams = async {
        loop {
            tokio::select! {
                stream = link.connection.accept_bi() => match stream {
                    Ok((send, recv)) => {
                        let link = Arc::clone(link);
                        serving.spawn(async move { ship::serve(&link, send, recv).await });
                    }
                    Err(error) => return meaning_of(&error),
                },
                Some(_) = serving.join_next(), if !serving.is_empty() => {}
            }
        }
    };
    let ended = |result: Result<(), StreamError>| match result {
        Err(StreamError::Lost(error)) => meaning_of(&error),
        Err(error) => match error.closes() {
            Some((code, reason)) => {
                link.fail(code, &reason);
                (Some(code), reason)
            }
            None => (None, "the control stream was given up".to_owned()),
        },
        Ok(()) => (None, "the control stream ended".to_owned()),
    };
    tokio::select! {
        end = streams => end,
        result = write_control(link, send) => ended(result),
        result = read_control(link, recv) => ended(result),
        result = read_proofs(link) => ended(result),
        () = ping(link) => {
            let reason = "nothing came for too long".to_owned();
            (Some(PeerCode::Idle), reason)
        }
    }
}

async fn write_control(link: &Arc<Link>, mut send: FrameSender) -> Result<(), StreamError> {
    loop {
        let added = link.control_added.notified();
        let mut bytes = Vec::new();
        {
            let mut control = lock(&link.control);
            while bytes.len() < CONTROL_WRITE_BYTES
                && let Some(frame) = control.frames.pop_front()
            {
                control.bytes -= frame.wire_bytes();
                frame.encode(&mut bytes);
            }
        }
        if bytes.is_empty() {
            added.await;
        } else {
            send.bytes(bytes.into()).await?;
        }
    }
}

async fn read_control(link: &Arc<Link>, mut recv: FrameReceiver) -> Result<(), StreamError> {
    let service = &link.shared.service;
    let allowed = |kind| {
        matches!(
            kind,
            PeerKind::Witness | PeerKind::Holdings | PeerKind::Forked | PeerKind::Ping | PeerKind::Pong
        )
    };
    while let Some(frame) = recv.next(allowed).await? {
        *lock(&link.heard) = Instant::now();
        match frame {
            PeerFrame::Witness(message) => {
                let hold = link.hold(message.len()).await;
                service.witness(link.peer, message, hold);
            }
            PeerFrame::Holdings(holdings) => {
                let hold = link.hold(PeerFrame::Holdings(holdings.clone()).wire_bytes()).await;
                service.holdings(link.peer, holdings, hold);
            }
            PeerFrame::Forked(proof) => {
                let hold = link.hold(proof.len()).await;
                service.forked(link.peer, proof, hold);
            }
            PeerFrame::Ping(number) => {
                link.control(PeerFrame::Pong(number));
            }
            // Being heard is all that it is for; the round trip is QUIC's.
            _ => {}
        }
        // Waiting for the node's room is not the peer's silence.
        *lock(&link.heard) = Instant::now();
    }
    Ok(())
}

async fn read_proofs(link: &Arc<Link>) -> Result<(), StreamError> {
    let limits = &link.shared.limits;
    loop {
        let recv = link.connection.accept_uni().await.map_err(StreamError::Lost)?;
        let mut recv = FrameReceiver::new(recv, limits.batch_bytes_max);
        // One proof at a time: two batches are the most that is held before the node takes them.
        match read_proof(&mut recv).await {
            Ok((lane, batches)) => {
                let hold = link.hold(batches[0].len() + batches[1].len()).await;
                link.shared.service.fork_proof(link.peer, lane, batches, hold);
            }
            Err(StreamError::GivenUp) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn read_proof(recv: &mut FrameReceiver) -> Result<(LaneId, [Bytes; 2]), StreamError> {
    let cut = || StreamError::Bad(PeerFrameError::Cut { when: "inside a proof" });
    let Some(PeerFrame::ForkProof { lane }) = recv.next(|kind| kind == PeerKind::ForkProof).await? else {
        return Err(cut());
    };
    let mut batches = [Bytes::new(), Bytes::new()];
    for batch in &mut batches {
        match recv.next(|kind| kind == PeerKind::Batch).await? {
            Some(PeerFrame::Batch(bytes)) => *batch = bytes,
            _ => return Err(cut()),
        }
    }
    Ok((lane, batches))
}

/// Pings; returns when the peer is silent for too long.
async fn ping(link: &Arc<Link>) {
    let limits = &link.shared.limits;
    let mut ticks = tokio::time::interval(limits.ping_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if link.silent() > limits.idle_timeout && link.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        link.control(PeerFrame::Ping(link.pinged.fetch_add(1, Ordering::Relaxed)));
    }
}
