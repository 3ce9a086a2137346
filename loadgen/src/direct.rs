//! The direct topology: a connection for each device that speaks, in a bounded pool.
//!
//! Owns the dispatcher, which takes batches from the queue and hands each device's part to that device's own connection, and the pace and
//! the counts of handshakes. A device whose connection is still open uses it; another one makes a handshake, for which the connection that
//! was idle for longest is closed when the pool is full. A device of a reconnect storm has lost its connection: it always makes a
//! handshake. What happens on an open connection is [`connection`](crate::connection)'s.
//!
//! Invariants: no more connections are open, being made or being closed than the pool has places; handshakes begin no faster than asked
//! for; the messages of a device leave in the order in which they were due; every message is sent or counted as not sent. A handshake that
//! fails is not tried again: its messages count as not sent, and the run is short of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use weft_net::{Dialer, NetError, SessionOptions};

use crate::connection::{Feed, drive};
use crate::driver::Shared;
use crate::generate::{Batch, Row};
use crate::hold::Holds;
use crate::link::{Link, session_options};
use crate::measure::Window;
use crate::report::HandshakeReport;

/// Parts of batches that wait for one connection, at most.
const WAITING_MAX: usize = 64;

/// How long the last packets of all connections may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Counts of a run's handshakes.
#[derive(Clone, Debug, Default)]
struct Counts {
    attempted: u64,
    succeeded: u64,
    failed_by: BTreeMap<String, u64>,
    messages_unsent: u64,
    messages_waited: u64,
    limited_us: u64,
    pool_full_us: u64,
    open: u64,
    open_max: u64,
}

/// Pace and counts of handshakes, shared by dispatcher and connections.
#[derive(Debug)]
pub(crate) struct Handshakes {
    per_s_max: f64,
    counts: Mutex<Counts>,
}

impl Handshakes {
    pub(crate) fn new(per_s_max: f64) -> Self {
        Self { per_s_max, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self) -> HandshakeReport {
        let counts = self.counts().clone();
        let seconds = |us: u64| (us as f64 / 1e3).round() / 1e3;
        HandshakeReport {
            per_s_max: self.per_s_max,
            attempted: counts.attempted,
            succeeded: counts.succeeded,
            failed: counts.failed_by.values().sum(),
            failed_by: counts.failed_by,
            messages_unsent: counts.messages_unsent,
            messages_waited: counts.messages_waited,
            limited_s: seconds(counts.limited_us),
            pool_full_s: seconds(counts.pool_full_us),
            open_max: counts.open_max,
        }
    }
}

/// Times at which handshakes may begin: evenly spaced, and what was not used is lost.
#[derive(Debug)]
struct Pace {
    every_us: f64,
    next_us: f64,
}

impl Pace {
    fn new(per_s_max: f64) -> Self {
        Self { every_us: 1e6 / per_s_max, next_us: 0.0 }
    }

    /// The next time, not before `now_us`.
    fn take(&mut self, now_us: u64) -> u64 {
        let at = self.next_us.max(now_us as f64);
        self.next_us = at + self.every_us;
        at as u64
    }
}

/// What a connection has to do, and whom it tells.
#[derive(Debug)]
pub(crate) struct Load {
    /// Parts of batches handed over and not settled.
    outstanding: AtomicU32,
    settled: Arc<Notify>,
}

impl Load {
    /// One part is settled, whatever came of it.
    pub(crate) fn done(&self) {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
        self.settled.notify_one();
    }
}

/// One device's part of a batch.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) batch: Batch,
    /// For how long it was ready to leave and nothing but the generator kept it, microseconds.
    pub(crate) idle_us: u64,
}

/// A device's connection, as the dispatcher sees it.
struct Open {
    parcels: mpsc::Sender<Parcel>,
    load: Arc<Load>,
    /// When its handshake has its turn.
    begin_us: u64,
    /// When it was used last, as a number that only rises.
    used: u64,
}

/// What handing a part over had to wait for.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// Whether for anything.
    any: bool,
    /// For a place in the pool, or behind others for a handshake's turn.
    connection: bool,
    /// For how long its connection still has to wait for its handshake's turn, microseconds.
    turn_us: u64,
}

/// Hands batches to devices' connections until the queue ends, and then waits until all is answered.
pub(crate) async fn dispatch(shared: Arc<Shared>, dialer: Dialer, places: u32) {
    let Some(handshakes) = shared.handshakes.clone() else { return };
    let mut dispatcher = Dispatcher {
        pace: Pace::new(handshakes.per_s_max),
        handshakes,
        options: session_options(shared.traffic.network, shared.ack_level),
        dialer,
        spare: (places / 8).min(32) as usize,
        places_max: places as usize,
        places: Arc::new(Semaphore::new(places as usize)),
        settled: Arc::new(Notify::new()),
        open: HashMap::new(),
        by_use: BTreeMap::new(),
        used: 0,
        index: 0,
        tasks: JoinSet::new(),
        shared,
    };
    let clock = dispatcher.shared.traffic.clock;
    // When a connection, or the pool, took no more; and when that was for want of connections.
    let (held, full) = (Holds::default(), Holds::default());
    while let Some(batch) = dispatcher.shared.queue.pop().await {
        let (free_us, now_us) = (batch.release_us.max(batch.ready_us), clock.now_us());
        let idle_us = now_us.saturating_sub(free_us).saturating_sub(held.within(free_us, now_us));
        for (device, fresh, part) in parts(batch) {
            let measured = part.measured(&dispatcher.shared.window);
            let begun_us = clock.now_us();
            let waits = dispatcher.hand_over(device, fresh, Parcel { batch: part, idle_us }).await;
            let given_us = clock.now_us();
            if waits.any {
                held.note(begun_us, given_us);
            }
            if waits.connection {
                full.note(begun_us, given_us);
            }
            // Parts wait for the places of those before them too.
            let waited_us = full.within(free_us, given_us) + waits.turn_us;
            if waited_us > dispatcher.shared.lag_us_max {
                dispatcher.handshakes.counts().messages_waited += measured;
            }
        }
        dispatcher.reap();
    }
    dispatcher.finish().await;
}

impl Batch {
    /// Messages of an open loop's batch that were due in `window`.
    fn measured(&self, window: &Window) -> u64 {
        let due_us = |row: &Row| self.release_us.saturating_sub(u64::from(row.before_us));
        self.rows.iter().filter(|row| window.contains(due_us(row))).count() as u64
    }
}

/// A batch cut into runs of rows of one device.
fn parts(batch: Batch) -> impl Iterator<Item = (u64, bool, Batch)> {
    let mut row = 0;
    let mut at = 0;
    std::iter::from_fn(move || {
        let (device, fresh) = *batch.devices.get(row)?;
        let count = batch.devices[row..].iter().take_while(|(other, _)| *other == device).count();
        let rows = row..row + count;
        let bytes: usize = batch.lengths[rows.clone()].iter().map(|length| usize::from(*length)).sum();
        let part = Batch {
            number: batch.number,
            release_us: batch.release_us,
            rows: batch.rows[rows.clone()].into(),
            bytes: batch.bytes.slice(at..at + bytes),
            lengths: batch.lengths[rows.clone()].into(),
            trail: batch.trail.get(rows.clone()).unwrap_or_default().into(),
            devices: Box::default(),
            ready_us: batch.ready_us,
        };
        row = rows.end;
        at += bytes;
        Some((device, fresh, part))
    })
}

struct Dispatcher {
    shared: Arc<Shared>,
    handshakes: Arc<Handshakes>,
    dialer: Dialer,
    options: SessionOptions,
    pace: Pace,
    places: Arc<Semaphore>,
    places_max: usize,
    /// Places kept free, so that a new device need not wait until another's connection has closed.
    spare: usize,
    settled: Arc<Notify>,
    open: HashMap<u64, Open>,
    /// Devices by when their connections were used last.
    by_use: BTreeMap<u64, u64>,
    used: u64,
    index: usize,
    tasks: JoinSet<()>,
}

impl Dispatcher {
    /// Gives a device its part; tells what that had to wait for.
    async fn hand_over(&mut self, device: u64, fresh: bool, parcel: Parcel) -> Waits {
        if fresh {
            self.retire(device);
        }
        let mut parcel = parcel;
        let mut waits = Waits::default();
        let clock = self.shared.traffic.clock;
        if let Some(open) = self.open.get_mut(&device) {
            self.by_use.remove(&open.used);
            self.used += 1;
            open.used = self.used;
            self.by_use.insert(self.used, device);
            open.load.outstanding.fetch_add(1, Ordering::AcqRel);
            let given = match open.parcels.try_send(parcel) {
                Ok(()) => None,
                Err(TrySendError::Full(parcel)) => {
                    waits = Waits { any: true, connection: open.begin_us > clock.now_us(), turn_us: 0 };
                    open.parcels.send(parcel).await.err().map(|error| error.0)
                }
                Err(TrySendError::Closed(parcel)) => Some(parcel),
            };
            match given {
                None => return Waits { turn_us: open.begin_us.saturating_sub(clock.now_us()), ..waits },
                // The connection was lost meanwhile.
                Some(back) => {
                    parcel = back;
                    self.retire(device);
                }
            }
        }
        let (place, waited_for_place) = self.place().await;
        let begin_us = self.begin(device, parcel, place);
        // Ahead of need: closing takes a round trip.
        while self.open.len() > self.places_max - self.spare && self.retire_idle() {}
        Waits {
            any: waits.any || waited_for_place,
            connection: waits.connection || waited_for_place,
            turn_us: begin_us.saturating_sub(clock.now_us()),
        }
    }

    /// Lets a device's connection end, once all on it is answered.
    fn retire(&mut self, device: u64) {
        if let Some(open) = self.open.remove(&device) {
            self.by_use.remove(&open.used);
        }
    }

    /// Retires the connection that was idle for longest; `false` if none is idle.
    fn retire_idle(&mut self) -> bool {
        let idle = self.by_use.values().copied().find(|device| {
            self.open.get(device).is_none_or(|open| open.load.outstanding.load(Ordering::Acquire) == 0)
        });
        idle.is_some_and(|device| {
            self.retire(device);
            true
        })
    }

    /// A place in the pool, and whether there was a wait for it.
    async fn place(&mut self) -> (Option<OwnedSemaphorePermit>, bool) {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return (Some(place), false);
        }
        let begun_us = self.shared.traffic.clock.now_us();
        let settled = Arc::clone(&self.settled);
        let mut retired = false;
        let place = loop {
            let idle = settled.notified();
            // One that is retired gives its place back when it has closed; one that is not idle may become so.
            retired = retired || self.retire_idle();
            tokio::select! {
                // Nobody closes this semaphore.
                place = Arc::clone(&self.places).acquire_owned() => break place.ok(),
                () = idle => {}
            }
        };
        let waited_us = self.shared.traffic.clock.now_us().saturating_sub(begun_us);
        self.handshakes.counts().pool_full_us += waited_us;
        (place, true)
    }

    /// Begins a connection for `device`; tells when its handshake has its turn.
    fn begin(&mut self, device: u64, parcel: Parcel, place: Option<OwnedSemaphorePermit>) -> u64 {
        let (parcels, receiver) = mpsc::channel(WAITING_MAX);
        let load = Arc::new(Load { outstanding: AtomicU32::new(1), settled: Arc::clone(&self.settled) });
        let now_us = self.shared.traffic.clock.now_us();
        let begin_us = self.pace.take(now_us);
        {
            let mut counts = self.handshakes.counts();
            counts.limited_us += begin_us - now_us;
            counts.open += 1;
            counts.open_max = counts.open_max.max(counts.open);
        }
        // The channel is new and has room.
        let _ = parcels.try_send(parcel);
        self.used += 1;
        self.index += 1;
        self.by_use.insert(self.used, device);
        self.open.insert(device, Open { parcels, load: Arc::clone(&load), begin_us, used: self.used });
        let device = DeviceTask {
            shared: Arc::clone(&self.shared),
            handshakes: Arc::clone(&self.handshakes),
            dialer: self.dialer.clone(),
            options: self.options.clone(),
            index: self.index,
            begin_us,
            _place: place,
        };
        self.tasks.spawn(device.run(receiver, load));
        begin_us
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.note(ended);
        }
    }

    fn note(&self, ended: Result<(), tokio::task::JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.shared.connection_lost("a connection task panicked".to_owned());
        }
    }

    async fn finish(mut self) {
        self.open.clear();
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended);
        }
        let _ = tokio::time::timeout(FAREWELL_MAX, self.dialer.finish()).await;
    }
}

/// The life of one connection.
struct DeviceTask {
    shared: Arc<Shared>,
    handshakes: Arc<Handshakes>,
    dialer: Dialer,
    options: SessionOptions,
    index: usize,
    begin_us: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for DeviceTask {
    fn drop(&mut self) {
        self.handshakes.counts().open -= 1;
    }
}

impl DeviceTask {
    async fn run(self, mut parcels: mpsc::Receiver<Parcel>, load: Arc<Load>) {
        let clock = self.shared.traffic.clock;
        tokio::time::sleep_until(clock.instant(self.begin_us).into()).await;
        match self.connect().await {
            Ok(link) => {
                self.handshakes.counts().succeeded += 1;
                let feed = Feed::Device { parcels, load };
                drive(Arc::clone(&self.shared), self.index, link, feed).await;
            }
            Err(error) => {
                let mut unsent = 0;
                parcels.close();
                while let Some(parcel) = parcels.recv().await {
                    unsent += parcel.batch.rows.len() as u64;
                    load.done();
                }
                let mut counts = self.handshakes.counts();
                *counts.failed_by.entry(failure_name(&error).to_owned()).or_default() += 1;
                counts.messages_unsent += unsent;
                drop(counts);
                self.shared.problem(format!("handshake: {error}"));
            }
        }
    }

    /// Handshake and session.
    async fn connect(&self) -> Result<Link, NetError> {
        let clock = self.shared.traffic.clock;
        self.handshakes.counts().attempted += 1;
        let begun_us = clock.now_us();
        let client = self.dialer.connect().await?;
        let took_us = clock.now_us().saturating_sub(begun_us);
        if self.shared.window.contains(begun_us) {
            self.shared.meter(self.index).handshake.saturating_record(took_us);
        }
        let (sender, answers) = client.open_load_session(self.options.clone()).await?;
        Ok(Link::Node { client, sender, answers })
    }
}

/// What kept a handshake from being done, as reports count it.
fn failure_name(error: &NetError) -> &'static str {
    match error {
        NetError::ConnectTimeout { .. } => "timeout",
        NetError::Refused { .. } => "refused",
        NetError::Session(_) => "no_session",
        NetError::Local { .. } => "local",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weft_net::AckLevel;

    use super::*;
    use crate::faults::Fault;

    #[test]
    fn a_batch_is_cut_at_devices_and_loses_nothing() {
        let devices: Box<[(u64, bool)]> = [7, 7, 9, 7].map(|device| (device, device == 9)).into();
        let row = |before_us| Row { before_us, class: 0, fault: Fault::None };
        let batch = Batch {
            number: 3,
            release_us: 50,
            rows: (0..4).map(row).collect(),
            bytes: Bytes::from_static(b"aabbbcdddd"),
            lengths: [2, 3, 1, 4].into(),
            trail: Box::default(),
            devices,
            ready_us: 40,
        };
        let parts: Vec<_> = parts(batch).collect();
        let seen: Vec<_> = parts
            .iter()
            .map(|(device, fresh, part)| {
                (*device, *fresh, &part.bytes[..], part.rows[0].before_us, &part.lengths[..])
            })
            .collect();
        type Seen<'a> = (u64, bool, &'a [u8], u32, &'a [u16]);
        let expected: [Seen<'_>; 3] =
            [(7, false, b"aabbb", 0, &[2, 3]), (9, true, b"c", 2, &[1]), (7, false, b"dddd", 3, &[4])];
        assert_eq!(seen, expected);
    }

    #[test]
    fn handshakes_begin_evenly_and_unused_times_are_lost() {
        let mut pace = Pace::new(100.0);
        let times: Vec<u64> = [0, 0, 5_000, 90_000, 90_000].into_iter().map(|now| pace.take(now)).collect();
        assert_eq!(times, [0, 10_000, 20_000, 90_000, 100_000]);
    }

    #[test]
    fn the_session_asks_for_what_the_run_needs() {
        let network = weft_core::NetworkId([1, 2, 3, 4]);
        let options = session_options(network, AckLevel::Written);
        assert_eq!((options.network, options.ack_level), (Some(network), AckLevel::Written));
    }
}
