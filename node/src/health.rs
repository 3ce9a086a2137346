//! How the node is: its state, the watermarks of its lane, and the age of the last durable write.
//!
//! `Health` is shared by all stages; each publishes what it knows. One thing is decided by it: a poisoned node acknowledges nothing. A node that has work which
//! is not durable is judged by how long that work has waited; an idle node is healthy however long ago its last write was.
//!
//! A full disk lies over the state that the node is in: when there is room again it is back in that state, also if it was catching up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Undurable work older than this is unhealthy: hundreds of times a slow disk's sync, and still well before clients give up.
pub const PENDING_AGE_MAX: Duration = Duration::from_secs(5);

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Recovering its log; it takes nothing yet.
    Starting = 0,
    /// Taking messages.
    Live = 1,
    /// The disk is full: messages are refused until there is room.
    DiskFull = 2,
    /// A write or sync failed: nothing is taken until somebody looks and restarts.
    Poisoned = 3,
    /// Draining before it ends.
    Stopping = 4,
    /// Waiting for word from other nodes of what they hold of its lane; it takes nothing yet.
    Joining = 5,
    /// Behind the other nodes, or confirmation is coming back after a start. It takes messages, but no operations while final is not
    /// back where it was.
    CatchingUp = 6,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Starting,
        Self::Live,
        Self::DiskFull,
        Self::Poisoned,
        Self::Stopping,
        Self::Joining,
        Self::CatchingUp,
    ];

    /// The name used in JSON, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::DiskFull => "disk_full",
            Self::Poisoned => "poisoned",
            Self::Stopping => "stopping",
            Self::Joining => "joining",
            Self::CatchingUp => "catching_up",
        }
    }
}

/// Who finds no room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The log of this node's lane.
    OwnLane = 1,
    /// Logs of other nodes' lanes.
    OtherLanes = 2,
    /// The log of a lane that changes to another history.
    Change = 4,
    /// The record of this validator's votes.
    Votes = 8,
}

/// No room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes that must be free.
    pub needed_bytes: u64,
    /// For the operator.
    pub cause: String,
}

/// The shared state.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    state: AtomicU8,
    /// Whether the last of starting, joining, catching up and live was one of the latter two.
    joined: AtomicBool,
    /// Bits of [`Full`].
    full: AtomicU8,
    /// What was found last.
    no_room: Mutex<Option<NoRoom>>,
    written_size: AtomicU64,
    durable_size: AtomicU64,
    /// Microseconds after `started` of the last durable write, plus one; 0 before the first.
    last_durable_us: AtomicU64,
    /// Microseconds after `started` at which the oldest append that is not durable was made, plus one; 0 when there is none.
    pending_since_us: AtomicU64,
    cause: Mutex<Option<String>>,
}

/// A moment's health, as told to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// What the node is doing.
    pub state: State,
    /// Whether a load balancer should send it clients.
    pub healthy: bool,
    /// Why not, if it is not.
    pub cause: Option<String>,
    /// Positions of the lane handed to the operating system.
    pub written_size: u64,
    /// Positions of the lane known durable.
    pub durable_size: u64,
    /// Milliseconds since the last durable write; none before the first since the start.
    pub durable_age_ms: Option<u64>,
    /// Milliseconds for which the oldest undurable append has waited; none when everything is durable.
    pub pending_age_ms: Option<u64>,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
}

impl Health {
    /// A node that has just begun.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            state: AtomicU8::new(State::Starting as u8),
            joined: AtomicBool::new(false),
            full: AtomicU8::new(0),
            no_room: Mutex::new(None),
            written_size: AtomicU64::new(0),
            durable_size: AtomicU64::new(0),
            last_durable_us: AtomicU64::new(0),
            pending_since_us: AtomicU64::new(0),
            cause: Mutex::new(None),
        }
    }

    /// What the node is doing.
    pub fn state(&self) -> State {
        let state = State::ALL
            .get(usize::from(self.state.load(Ordering::Acquire)))
            .copied()
            .unwrap_or(State::Starting);
        let takes = matches!(state, State::Live | State::CatchingUp);
        if takes && self.full.load(Ordering::Acquire) != 0 { State::DiskFull } else { state }
    }

    /// Somebody finds no room on the disk.
    pub fn found_full(&self, who: Full, room: NoRoom) {
        if self.full.load(Ordering::Acquire) == 0 {
            let NoRoom { free_bytes, needed_bytes, cause } = &room;
            tracing::warn!(
                free_bytes,
                needed_bytes,
                cause,
                "the disk is full: messages are refused until there is room"
            );
        }
        if let Ok(mut slot) = self.no_room.lock() {
            *slot = Some(room);
        }
        self.full.fetch_or(who as u8, Ordering::AcqRel);
    }

    /// Who found no room has found some.
    pub fn found_room(&self, who: Full) {
        let before = self.full.fetch_and(!(who as u8), Ordering::AcqRel);
        if before == who as u8 {
            tracing::info!("the disk has room again: taking messages");
        }
    }

    /// Whether this one finds no room.
    pub fn is_full(&self, who: Full) -> bool {
        self.full.load(Ordering::Acquire) & who as u8 != 0
    }

    /// The room that was missing last, if there is none for lanes of other nodes or for votes: what is taken meanwhile is not confirmed.
    pub fn full_elsewhere(&self) -> Option<NoRoom> {
        if self.full.load(Ordering::Acquire) & !(Full::OwnLane as u8) == 0 {
            return None;
        }
        self.no_room.lock().ok()?.clone()
    }

    /// Enters `state`, with the reason where there is one. A poisoned node stays poisoned.
    pub fn set_state(&self, state: State, cause: Option<String>) {
        if matches!(state, State::Starting | State::Joining) {
            self.joined.store(false, Ordering::Release);
        }
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now != State::Poisoned as u8).then_some(state as u8)
        });
        if before.is_ok()
            && let Ok(mut slot) = self.cause.lock()
        {
            *slot = cause;
        }
        if before.is_ok() {
            self.note_joined(state);
        }
    }

    fn note_joined(&self, state: State) {
        if matches!(state, State::Live | State::CatchingUp) {
            self.joined.store(true, Ordering::Release);
        }
    }

    /// Whether this node knows that nobody knows more of its lane and its witnesses than it does itself, so that it may sign. That it
    /// stops, or is out of order, does not make it so: it may do that before it has joined.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    /// Enters `to` if the node is still in `from`: for states that follow each other by themselves.
    pub fn change_state(&self, from: State, to: State) {
        let changed =
            self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if changed {
            if let Ok(mut slot) = self.cause.lock() {
                *slot = None;
            }
            self.note_joined(to);
        }
    }

    /// Microseconds since the start, plus one, so that 0 can mean never.
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    /// An append was handed to the operating system.
    pub fn written(&self, size: u64) {
        self.written_size.store(size, Ordering::Release);
        let _ = self.pending_since_us.compare_exchange(0, self.now_us(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// A sync has made everything below `size` durable.
    pub fn durable(&self, size: u64) {
        self.durable_size.store(size, Ordering::Release);
        let now = self.now_us();
        self.last_durable_us.store(now, Ordering::Release);
        // What was appended while the sync ran is still pending; its age is then at most that of this sync.
        let pending = if size >= self.written_size.load(Ordering::Acquire) { 0 } else { now };
        self.pending_since_us.store(pending, Ordering::Release);
        // An append between the two lines above found a mark that was then wiped out: set it again.
        if self.written_size.load(Ordering::Acquire) > size {
            let _ = self.pending_since_us.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The lane as recovered at start.
    pub fn recovered(&self, size: u64) {
        self.written_size.store(size, Ordering::Release);
        self.durable_size.store(size, Ordering::Release);
    }

    /// Positions known durable.
    pub fn durable_size(&self) -> u64 {
        self.durable_size.load(Ordering::Acquire)
    }

    /// A moment's health.
    pub fn report(&self) -> HealthReport {
        let now = self.now_us();
        let age_ms = |at: u64| (at != 0).then(|| now.saturating_sub(at) / 1000);
        let state = self.state();
        let pending_age_ms = age_ms(self.pending_since_us.load(Ordering::Acquire));
        let stuck = pending_age_ms.is_some_and(|ms| u128::from(ms) > PENDING_AGE_MAX.as_millis());
        let mut cause = self.cause.lock().ok().and_then(|cause| cause.clone());
        if cause.is_none() && self.full.load(Ordering::Acquire) != 0 {
            cause = self.no_room.lock().ok().and_then(|room| room.as_ref().map(|room| room.cause.clone()));
        }
        if stuck && cause.is_none() {
            cause = Some(format!(
                "appended messages have waited {} ms to become durable (limit {} ms)",
                pending_age_ms.unwrap_or(0),
                PENDING_AGE_MAX.as_millis()
            ));
        }
        HealthReport {
            state,
            healthy: state == State::Live && !stuck,
            cause,
            written_size: self.written_size.load(Ordering::Acquire),
            durable_size: self.durable_size(),
            durable_age_ms: age_ms(self.last_durable_us.load(Ordering::Acquire)),
            pending_age_ms,
            uptime_ms: now / 1000,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_live_node_is_healthy_and_a_starting_one_is_not() {
        let health = Health::new();
        assert!(!health.report().healthy);
        health.set_state(State::Live, None);
        assert!(health.report().healthy);
        assert_eq!(health.report().durable_age_ms, None);
    }

    #[test]
    fn a_poisoned_node_stays_poisoned_and_says_why() {
        let health = Health::new();
        health.set_state(State::Poisoned, Some("sync failed".into()));
        health.set_state(State::Live, None);
        let report = health.report();
        assert_eq!(
            (report.state, report.healthy, report.cause.as_deref()),
            (State::Poisoned, false, Some("sync failed"))
        );
    }

    #[test]
    fn a_full_disk_lies_over_the_state_and_goes_when_everybody_has_room() {
        let health = Health::new();
        let room = || NoRoom { free_bytes: 1, needed_bytes: 2, cause: "full".into() };
        health.set_state(State::Joining, None);
        health.found_full(Full::OtherLanes, room());
        assert_eq!(health.state(), State::Joining, "room makes nobody join");
        health.set_state(State::CatchingUp, None);
        health.found_full(Full::OwnLane, room());
        let report = health.report();
        assert_eq!((report.state, report.cause.as_deref()), (State::DiskFull, Some("full")));
        health.found_room(Full::OtherLanes);
        assert_eq!((health.state(), health.full_elsewhere()), (State::DiskFull, None));
        health.found_room(Full::OwnLane);
        assert_eq!((health.state(), health.report().cause), (State::CatchingUp, None));
        health.found_full(Full::Change, room());
        health.set_state(State::Poisoned, None);
        assert_eq!(health.state(), State::Poisoned);
    }

    #[test]
    fn work_is_pending_until_a_sync_covers_it() {
        let health = Health::new();
        health.written(10);
        assert!(health.report().pending_age_ms.is_some());
        health.durable(5);
        assert!(health.report().pending_age_ms.is_some(), "positions 5 to 10 are not durable");
        health.durable(10);
        let report = health.report();
        assert_eq!((report.pending_age_ms, report.durable_size), (None, 10));
        assert!(report.durable_age_ms.is_some());
    }
}
