//! One connection at work: takes batches from the queue, sends them, and settles what comes back.
//!
//! Owns the window of batches in flight and the table of those that are not answered. Two halves run side by side in one task; an answer
//! may overtake the note of what it answers (the target can be faster than the return of the call that sent the batch), so the table holds
//! either. Invariant: every batch handed over is counted as sent once, and as acked or refused at most once; what is left in the table when
//! the task ends was never answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use weft_net::Delivery;

use crate::direct::{Load, Parcel};
use crate::driver::Shared;
use crate::generate::Batch;
use crate::link::{Answers, Link, Sender};
use crate::measure::{Flight, Meter, Rules, check_ack};
use crate::schedule::Schedule;

/// Answers kept for batches not noted yet, at most: the call returns within one poll, so a handful is the most that can meet.
const EARLY_MAX: usize = 4_096;

/// How long ending a session properly may take.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// What is known of a request.
enum Entry {
    Sent(Flight),
    Answered(Delivery),
}

/// Where a connection has its batches from.
pub(crate) enum Feed {
    /// The queue that all gateways share.
    Queue,
    /// The dispatcher of the direct topology.
    Device {
        /// Parts of batches of one device.
        parcels: mpsc::Receiver<Parcel>,
        /// Whom to tell that one is settled.
        load: Arc<Load>,
    },
}

/// State that both halves of a connection use.
struct Connection {
    shared: Arc<Shared>,
    index: usize,
    table: Mutex<HashMap<u64, Entry>>,
    /// Room for batches in flight.
    window: Semaphore,
    /// Set when everything is sent.
    all_sent: AtomicBool,
    all_sent_signal: Notify,
    /// Set by the half that first finds the connection gone.
    lost: AtomicBool,
    /// Whom to tell that a batch is settled, in the direct topology.
    load: Option<Arc<Load>>,
    /// No batch before this time, microseconds since the start: a node that is overloaded says for how long.
    pause_until_us: AtomicU64,
}

/// Sends what the feed gives until it ends and everything is answered, or the connection is lost.
pub(crate) async fn drive(shared: Arc<Shared>, index: usize, link: Link, feed: Feed) {
    let (sender, answers) = link.split(shared.traffic.clock, shared.ack_level);
    let window = match shared.traffic.schedule {
        Schedule::Closed { window } => window as usize,
        // An open loop sends when it is time to; only the target's credit holds it.
        Schedule::Open { .. } => Semaphore::MAX_PERMITS,
    };
    let connection = Connection {
        shared,
        index,
        table: Mutex::new(HashMap::new()),
        window: Semaphore::new(window),
        all_sent: AtomicBool::new(false),
        all_sent_signal: Notify::new(),
        lost: AtomicBool::new(false),
        load: match &feed {
            Feed::Queue => None,
            Feed::Device { load, .. } => Some(Arc::clone(load)),
        },
        pause_until_us: AtomicU64::new(0),
    };
    let mut sender = sender;
    tokio::select! {
        () = connection.receive(answers) => {}
        () = connection.send(&mut sender, feed) => {}
    }
    // A target that no longer listens does not keep a finished run waiting.
    let _ = tokio::time::timeout(FAREWELL_MAX, sender.finish()).await;
}

impl Connection {
    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.shared.meter(self.index)
    }

    fn rules(&self) -> Rules<'_> {
        self.shared.rules()
    }

    fn lost(&self, reason: &str) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            self.shared.connection_lost(format!("connection {}: {reason}", self.index));
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends; never returns, since the receiving half decides when the connection is done.
    async fn send(&self, sender: &mut Sender, feed: Feed) {
        self.send_all(sender, feed).await;
        self.all_sent.store(true, Ordering::Release);
        self.all_sent_signal.notify_one();
        std::future::pending::<()>().await;
    }

    /// The next batch, and for how long nothing but the generator kept it, if that is known already.
    async fn next(&self, feed: &mut Feed) -> Option<(Batch, Option<u64>)> {
        match feed {
            Feed::Queue => Some((self.shared.queue.pop().await?, None)),
            Feed::Device { parcels, .. } => {
                let parcel = parcels.recv().await?;
                Some((parcel.batch, Some(parcel.idle_us)))
            }
        }
    }

    async fn send_all(&self, sender: &mut Sender, mut feed: Feed) {
        let clock = self.shared.traffic.clock;
        // Until when the target last made this connection wait.
        let mut held_until_us = 0;
        loop {
            match self.window.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return,
            }
            let pause_until_us = self.pause_until_us.load(Ordering::Relaxed);
            if pause_until_us > clock.now_us() {
                tokio::time::sleep_until(clock.instant(pause_until_us).into()).await;
            }
            let Some((batch, idle_us)) = self.next(&mut feed).await else { return };
            let called_us = clock.now_us();
            match sender.submit(&batch.lengths, batch.bytes).await {
                Ok(taken) => {
                    let sent_us = clock.now_us();
                    // Time between ready and send that the target did not cause.
                    let free_us = batch.release_us.max(batch.ready_us).max(held_until_us);
                    let idle_us = idle_us.unwrap_or_else(|| called_us.saturating_sub(free_us));
                    if taken.held_back {
                        held_until_us = sent_us;
                    }
                    let flight = Flight {
                        number: batch.number,
                        release_us: batch.release_us,
                        ready_us: batch.ready_us,
                        rows: batch.rows,
                        called_us,
                        sent_us,
                        trail: batch.trail,
                    };
                    self.meter().on_sent(&flight, &batch.lengths, idle_us, taken.held_back, &self.rules());
                    self.note_sent(taken.request_id, flight);
                }
                Err(error) => {
                    self.lost(&error.to_string());
                    return;
                }
            }
        }
    }

    fn note_sent(&self, request_id: u64, flight: Flight) {
        let mut table = self.table();
        match table.remove(&request_id) {
            Some(Entry::Answered(delivery)) => {
                drop(table);
                self.settle(flight, delivery);
            }
            // Request ids are never used twice: nothing else can be there.
            _ => {
                table.insert(request_id, Entry::Sent(flight));
            }
        }
    }

    /// Settles answers until nothing more will come.
    async fn receive(&self, mut answers: Answers) {
        loop {
            if self.all_sent.load(Ordering::Acquire) && self.table().is_empty() {
                return;
            }
            tokio::select! {
                delivery = answers.recv() => match delivery {
                    Some(delivery) => self.answered(delivery),
                    None => {
                        let reason = answers.close_reason();
                        self.lost(&reason);
                        return;
                    }
                },
                () = self.all_sent_signal.notified() => {}
            }
        }
    }

    fn answered(&self, delivery: Delivery) {
        let mut table = self.table();
        match table.remove(&delivery.request_id) {
            Some(Entry::Sent(flight)) => {
                drop(table);
                self.settle(flight, delivery);
            }
            _ if table.len() < EARLY_MAX => {
                table.insert(delivery.request_id, Entry::Answered(delivery));
            }
            _ => {
                drop(table);
                self.shared.problem(format!("connection {}: an answer to nothing that was sent", self.index));
            }
        }
    }

    fn settle(&self, flight: Flight, delivery: Delivery) {
        let clock = self.shared.traffic.clock;
        match delivery.result {
            Ok(ack) => match check_ack(&ack, &flight, self.shared.ack_level) {
                Ok(()) => {
                    let at_us = clock.at_us(delivery.received_at);
                    let refused = self.meter().on_ack(&flight, &ack, at_us, &self.rules());
                    self.shared.traffic.tips.offer(ack.tips.iter().copied());
                    self.remember(flight, refused);
                }
                // Counts as unanswered: it promises less than was asked for.
                Err(what) => self.shared.problem(format!("connection {}: {what}", self.index)),
            },
            Err(error) => {
                self.meter().on_refused(&flight, &error);
                self.shared.problem(format!("connection {}: batch refused: {error}", self.index));
                if matches!(self.shared.traffic.schedule, Schedule::Closed { .. }) {
                    let pause_us = u64::from(error.retry_after_ms) * 1_000;
                    self.pause_until_us.fetch_max(clock.now_us() + pause_us, Ordering::Relaxed);
                }
            }
        }
        if let Some(load) = &self.load {
            load.done();
        }
        if matches!(self.shared.traffic.schedule, Schedule::Closed { .. }) {
            self.window.add_permits(1);
        }
    }

    fn remember(&self, flight: Flight, refused: Vec<u32>) {
        if let Some(log) = &self.shared.acked {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.record(flight.number, flight.trail, &refused);
        }
    }
}
