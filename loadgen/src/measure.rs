//! Counting and timing: what a connection notes of each batch, and what the notes say together.
//!
//! Owns [`Meter`], one per connection, and the window of time that is measured. Times are microseconds since the start. Four histograms,
//! each of messages that were due in the window:
//!
//! | histogram | from | to |
//! |---|---|---|
//! | latency | when the message was due (open loop) or its connection wanted to send it (closed loop) | ack received |
//! | service time | batch handed to the connection | ack received |
//! | send lag | as latency | batch handed to the connection |
//! | generator lag | when its gateway should have sent it | batch ready and a connection at work on it; not the time for which the target held sends back |
//!
//! Invariants: latency and service time hold accepted messages only, and no message twice; send lag holds all that were sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use weft_net::{Ack, AckLevel, WireError};

use crate::faults::Fault;
use crate::generate::{Row, Trail};
use crate::hgrm::new_histogram;
use crate::hold::Holds;
use crate::schedule::Schedule;

/// The time that is measured.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) start_us: u64,
    /// Comes earlier than planned when the run is stopped or out of messages.
    end_us: AtomicU64,
}

impl Window {
    pub(crate) const fn new(start_us: u64, end_us: u64) -> Self {
        Self { start_us, end_us: AtomicU64::new(end_us) }
    }

    pub(crate) fn end_us(&self) -> u64 {
        self.end_us.load(Ordering::Relaxed)
    }

    /// Ends the window at `now_us` if it would have ended later.
    pub(crate) fn end_at(&self, now_us: u64) {
        self.end_us.fetch_min(now_us, Ordering::Relaxed);
    }

    pub(crate) fn contains(&self, at_us: u64) -> bool {
        (self.start_us..self.end_us()).contains(&at_us)
    }

    /// Length in seconds; 0 if it ended before it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.end_us().saturating_sub(self.start_us) as f64 / 1e6
    }
}

/// A batch that was sent and is not answered yet.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) number: u64,
    pub(crate) release_us: u64,
    /// When it was complete.
    pub(crate) ready_us: u64,
    pub(crate) rows: Box<[Row]>,
    /// When its connection began to send it.
    pub(crate) called_us: u64,
    /// When the connection had taken it.
    pub(crate) sent_us: u64,
    pub(crate) trail: Box<[Trail]>,
}

impl Flight {
    /// When a message was due.
    fn due_us(&self, schedule: Schedule, row: &Row) -> u64 {
        match schedule {
            Schedule::Closed { .. } => self.called_us,
            Schedule::Open { .. } => self.release_us.saturating_sub(u64::from(row.before_us)),
        }
    }

    /// How long after the end of its own flush interval a message due at `due_us` was ready to leave, for want of a generator. One that
    /// was away for a while joins all that fell due meanwhile into one batch, whose release is that of its last message: lateness counted
    /// from there alone would leave out those that waited longest. What the target held back is not the generator's, and it is all the
    /// same whether a batch was released late or, of those that are made up for, complete long after its release.
    fn ready_late_us(&self, due_us: u64, run: &Rules<'_>) -> u64 {
        let flush_us = run.flush_us.max(1);
        let flushed_us = (due_us / flush_us + 1).saturating_mul(flush_us);
        let ready_us = self.ready_us.max(self.release_us);
        ready_us.saturating_sub(flushed_us).saturating_sub(run.blocked.within(flushed_us, ready_us))
    }
}

/// What is counted and timed of one class.
#[derive(Clone, Debug)]
pub struct ClassMeter {
    /// Messages sent that were due in the measured time.
    pub sent: u64,
    /// Of these, accepted.
    pub acked: u64,
    /// Of these, refused.
    pub rejected: u64,
    /// Bytes of the sent ones.
    pub bytes: u64,
    /// Due to acked.
    pub latency: Histogram<u64>,
}

/// Messages with a fault, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCount {
    /// Sent.
    pub sent: u64,
    /// Accepted.
    pub acked: u64,
    /// Refused.
    pub rejected: u64,
}

/// Everything counted and timed.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Due to acked.
    pub latency: Histogram<u64>,
    /// Sent to acked.
    pub service_time: Histogram<u64>,
    /// Due to sent.
    pub send_lag: Histogram<u64>,
    /// Due to sent, by the generator's own fault.
    pub generator_lag: Histogram<u64>,
    /// Due to acked, since it was last taken out: for figures over time.
    pub(crate) interval: Histogram<u64>,
    /// The same without the messages that were due in the warm-up: what the interval log holds, so that its sum is that of the report.
    pub(crate) logged: Histogram<u64>,
    /// From the first packet of a connection to the session (direct topology).
    pub handshake: Histogram<u64>,
    /// By class of the profile.
    pub classes: Vec<ClassMeter>,
    /// By fault.
    pub faults: BTreeMap<Fault, FaultCount>,
    /// Messages handed to connections.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages accepted.
    pub acked: u64,
    /// Messages refused, all reasons.
    pub rejected: u64,
    /// Messages refused, by the name of the reason.
    pub rejected_by: BTreeMap<String, u64>,
    /// Of `sent`: due in the window, and sent no later than the lag limit after the last gateway of the window sends.
    pub(crate) sent_in_time: u64,
    /// Of `sent`: sent in the window.
    pub(crate) sent_in_window: u64,
    /// Of `acked`: ack received in the window.
    pub(crate) acked_in_window: u64,
    /// Time that connections waited for the target to take a batch.
    pub(crate) held_back_us: u64,
}

impl Meter {
    /// An empty meter for a profile of so many classes.
    pub(crate) fn new(classes: usize) -> Self {
        let class = ClassMeter { sent: 0, acked: 0, rejected: 0, bytes: 0, latency: new_histogram() };
        Self {
            latency: new_histogram(),
            service_time: new_histogram(),
            send_lag: new_histogram(),
            generator_lag: new_histogram(),
            interval: new_histogram(),
            logged: new_histogram(),
            handshake: new_histogram(),
            classes: vec![class; classes],
            faults: BTreeMap::new(),
            sent: 0,
            sent_bytes: 0,
            acked: 0,
            rejected: 0,
            rejected_by: BTreeMap::new(),
            sent_in_time: 0,
            sent_in_window: 0,
            acked_in_window: 0,
            held_back_us: 0,
        }
    }

    /// Notes that a batch was sent. `lengths` are those of its messages; `idle_us`: for how long it was ready to leave and nothing but the
    /// generator kept it; `held_back`: whether the target made the connection wait.
    pub(crate) fn on_sent(
        &mut self,
        flight: &Flight,
        lengths: &[u16],
        idle_us: u64,
        held_back: bool,
        run: &Rules<'_>,
    ) {
        let count = flight.rows.len() as u64;
        self.sent += count;
        if held_back {
            self.held_back_us += flight.sent_us.saturating_sub(flight.called_us);
        }
        if run.window.contains(flight.sent_us) {
            self.sent_in_window += count;
        }
        let in_time = flight.sent_us <= run.last_flush_us().saturating_add(run.lag_us_max);
        let is_open = matches!(run.schedule, Schedule::Open { .. });
        let mut second = false;
        for (row, bytes) in flight.rows.iter().zip(lengths) {
            self.sent_bytes += u64::from(*bytes);
            if row.fault != Fault::None {
                self.faults.entry(row.fault).or_default().sent += 1;
            }
            let due_us = flight.due_us(run.schedule, row);
            if !run.window.contains(due_us) {
                continue;
            }
            self.send_lag.saturating_record(flight.sent_us.saturating_sub(due_us));
            if is_open {
                self.generator_lag
                    .saturating_record(idle_us.saturating_add(flight.ready_late_us(due_us, run)));
            }
            // The second of a pair was never due: it is sent on top of what was intended.
            second = row.fault == Fault::Duplicate && !second;
            if row.fault == Fault::Duplicate && !second {
                continue;
            }
            self.sent_in_time += u64::from(in_time);
            if let Some(class) = self.classes.get_mut(usize::from(row.class)) {
                class.sent += 1;
                class.bytes += u64::from(*bytes);
            }
        }
    }

    /// Notes an ack; returns the rows that were refused, rising.
    pub(crate) fn on_ack(&mut self, flight: &Flight, ack: &Ack, at_us: u64, run: &Rules<'_>) -> Vec<u32> {
        let count = flight.rows.len() as u32;
        let mut refused: Vec<u32> = Vec::with_capacity(ack.exceptions.len());
        for exception in ack.exceptions.iter().filter(|exception| exception.index < count) {
            let name = exception.reason().map_or("unknown_reason", |reason| reason.name());
            self.refuse(name, 1);
            refused.push(exception.index);
        }
        let accepted = u64::from(count) - refused.len() as u64;
        self.acked += accepted;
        if run.window.contains(at_us) {
            self.acked_in_window += accepted;
        }
        let service_us = at_us.saturating_sub(flight.sent_us);
        let mut next_refused = refused.iter().copied().peekable();
        let mut measured = 0;
        for (index, row) in flight.rows.iter().enumerate() {
            let is_refused = next_refused.next_if_eq(&(index as u32)).is_some();
            if row.fault != Fault::None {
                let fault = self.faults.entry(row.fault).or_default();
                *(if is_refused { &mut fault.rejected } else { &mut fault.acked }) += 1;
            }
            let due_us = flight.due_us(run.schedule, row);
            let in_window = run.window.contains(due_us);
            let class = self.classes.get_mut(usize::from(row.class)).filter(|_| in_window);
            if is_refused {
                if let Some(class) = class {
                    class.rejected += 1;
                }
                continue;
            }
            let latency_us = at_us.saturating_sub(due_us);
            self.interval.saturating_record(latency_us);
            if in_window {
                self.latency.saturating_record(latency_us);
                self.logged.saturating_record(latency_us);
                measured += 1;
            }
            if let Some(class) = class {
                class.acked += 1;
                class.latency.saturating_record(latency_us);
            }
        }
        self.service_time.saturating_record_n(service_us, measured);
        refused
    }

    /// Counts refused messages.
    pub(crate) fn refuse(&mut self, name: &str, count: u64) {
        self.rejected += count;
        match self.rejected_by.get_mut(name) {
            Some(known) => *known += count,
            None => {
                self.rejected_by.insert(name.to_owned(), count);
            }
        }
    }

    /// Notes that the target refused a whole batch.
    pub(crate) fn on_refused(&mut self, flight: &Flight, error: &WireError) {
        self.refuse(refusal_name(error), flight.rows.len() as u64);
    }

    /// Adds what another meter noted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.service_time, &other.service_time),
            (&mut self.send_lag, &other.send_lag),
            (&mut self.generator_lag, &other.generator_lag),
            (&mut self.interval, &other.interval),
            (&mut self.logged, &other.logged),
            (&mut self.handshake, &other.handshake),
        ] {
            // Cannot fail: all histograms of this crate have one range.
            let _ = mine.add(theirs);
        }
        for (name, count) in &other.rejected_by {
            *self.rejected_by.entry(name.clone()).or_insert(0) += count;
        }
        for (mine, theirs) in self.classes.iter_mut().zip(&other.classes) {
            mine.sent += theirs.sent;
            mine.acked += theirs.acked;
            mine.rejected += theirs.rejected;
            mine.bytes += theirs.bytes;
            let _ = mine.latency.add(&theirs.latency);
        }
        for (fault, theirs) in &other.faults {
            let mine = self.faults.entry(*fault).or_default();
            mine.sent += theirs.sent;
            mine.acked += theirs.acked;
            mine.rejected += theirs.rejected;
        }
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.acked += other.acked;
        self.rejected += other.rejected;
        self.sent_in_time += other.sent_in_time;
        self.sent_in_window += other.sent_in_window;
        self.acked_in_window += other.acked_in_window;
        self.held_back_us += other.held_back_us;
    }
}

/// What decides how a batch is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) schedule: Schedule,
    pub(crate) window: &'a Window,
    pub(crate) lag_us_max: u64,
    /// How often a gateway of an open loop sends what is due.
    pub(crate) flush_us: u64,
    /// When generator threads could not go on because the backlog was full.
    pub(crate) blocked: &'a Holds,
}

impl Rules<'_> {
    /// When gateways send the last of what falls due in the window: at the end of its last flush interval.
    fn last_flush_us(&self) -> u64 {
        let flush_us = self.flush_us.max(1);
        self.window.end_us().div_ceil(flush_us).saturating_mul(flush_us)
    }
}

/// Whether an ack answers this batch at the level asked for; if not, why it does not count.
pub(crate) fn check_ack(ack: &Ack, flight: &Flight, asked: AckLevel) -> Result<(), String> {
    if ack.level < asked {
        return Err(format!("an ack of level {:?} where {asked:?} was asked for", ack.level));
    }
    if ack.count as usize != flight.rows.len() {
        return Err(format!("an ack of {} messages for a batch of {}", ack.count, flight.rows.len()));
    }
    Ok(())
}

/// Name of a refusal of a whole batch, as reports count it.
fn refusal_name(error: &WireError) -> &'static str {
    use weft_net::ErrorCode;
    match error.code {
        ErrorCode::Overloaded => "request_overloaded",
        ErrorCode::ShuttingDown => "request_shutting_down",
        ErrorCode::BadFrame => "request_bad_frame",
        ErrorCode::TooLarge => "request_too_large",
        ErrorCode::Internal => "request_internal",
        _ => "request_refused",
    }
}

#[cfg(test)]
mod tests {
    use weft_core::Reason;
    use weft_net::AckException;

    use super::*;

    const OPEN: Schedule = Schedule::Open { rate_per_s: 1_000.0 };

    fn rules<'a>(window: &'a Window, lag_us_max: u64, flush_us: u64, blocked: &'a Holds) -> Rules<'a> {
        Rules { schedule: OPEN, window, lag_us_max, flush_us, blocked }
    }

    /// Events due at 0, 1, ... milliseconds.
    fn flight(count: u32, called_us: u64, sent_us: u64) -> Flight {
        let release_us = 10_000;
        let row =
            |number| Row { before_us: release_us as u32 - number * 1_000, class: 0, fault: Fault::None };
        let rows = (0..count).map(row).collect();
        Flight { number: 0, release_us, ready_us: 0, rows, called_us, sent_us, trail: Box::default() }
    }

    const LENGTHS: [u16; 10] = [200; 10];

    fn ack(count: u32, exceptions: Vec<AckException>) -> Ack {
        Ack { request_id: 1, level: AckLevel::Durable, count, exceptions, tips: Vec::new() }
    }

    fn close(got: u64, want: u64) -> bool {
        got.abs_diff(want) <= want / 1_000 + 1
    }

    #[test]
    fn a_generator_that_was_away_is_late_with_all_that_fell_due_meanwhile() {
        let window = Window::new(0, 1_000_000);
        // Events due at 0, 1, .. 9 ms leave together with one due at 250 ms.
        let joined = |held: Option<(u64, u64)>| {
            let blocked = Holds::default();
            held.into_iter().for_each(|(from_us, until_us)| blocked.note(from_us, until_us));
            let rules = rules(&window, 20_000, 2_000, &blocked);
            let release_us = 252_000;
            let due = (0..10).map(|number| number * 1_000).chain([250_000]);
            let rows = due.map(|due_us| Row { before_us: release_us - due_us, class: 0, fault: Fault::None });
            let flight = Flight {
                release_us: u64::from(release_us),
                rows: rows.collect(),
                ..flight(0, 252_000, 252_000)
            };
            let mut meter = Meter::new(1);
            meter.on_sent(&flight, &[200; 11], 0, false, &rules);
            assert_eq!(meter.generator_lag.len(), 11);
            (meter.generator_lag.value_at_quantile(0.05), meter.generator_lag.max())
        };
        let (least, most) = joined(None);
        assert!(least <= 1 && close(most, 250_000), "{least} {most}");
        let (_, most) = joined(Some((1, 252_000)));
        assert!(most <= 1, "{most} us, while the target kept everything back");
        let (_, most) = joined(Some((1, 150_000)));
        assert!(close(most, 102_000), "away for 102 ms after the target took more: {most}");
        let (_, most) = joined(Some((151_000, 252_000)));
        assert!(close(most, 149_000), "away for 149 ms before the target held it back: {most}");
    }

    #[test]
    fn what_is_made_up_for_after_a_full_backlog_is_late_by_the_time_that_making_it_took() {
        let window = Window::new(0, 10_000_000);
        let blocked = Holds::default();
        blocked.note(1_000_000, 4_000_000);
        let rules = rules(&window, 20_000, 10_000, &blocked);
        // A full batch of what fell due right after the backlog was full: its release is long past when it can be built.
        let late = |release_us: u64, ready_us| {
            let flight = Flight { release_us, ready_us, ..flight(10, ready_us, ready_us) };
            let mut meter = Meter::new(1);
            meter.on_sent(&flight, &LENGTHS, 0, false, &rules);
            meter.generator_lag.max()
        };
        assert!(close(late(1_010_000, 4_003_000), 3_000), "built as soon as there was room");
        assert!(close(late(4_010_000, 4_013_000), 3_000), "due and built after it");
        assert!(close(late(910_000, 4_003_000), 93_000), "due before it, and not built by then");
        assert!(close(late(1_010_000, 5_000_000), 1_000_000), "away once there was room");
    }

    #[test]
    fn an_open_loop_counts_latency_from_when_each_message_was_due() {
        let window = Window::new(0, 1_000_000);
        let blocked = Holds::default();
        let rules = rules(&window, 20_000, 10_000, &blocked);
        let mut meter = Meter::new(1);
        // Events 0 to 9 are due at 0, 1, .. 9 ms; all are sent at 30 ms and acked at 50 ms.
        let flight = flight(10, 29_000, 30_000);
        meter.on_sent(&flight, &LENGTHS, 7_000, false, &rules);
        let refused = meter.on_ack(&flight, &ack(10, Vec::new()), 50_000, &rules);
        assert!(refused.is_empty());
        assert!(close(meter.latency.min(), 41_000) && close(meter.latency.max(), 50_000));
        assert!(close(meter.send_lag.min(), 21_000) && close(meter.send_lag.max(), 30_000));
        assert!(close(meter.service_time.min(), 20_000) && close(meter.service_time.max(), 20_000));
        assert!(close(meter.generator_lag.max(), 7_000));
        assert_eq!(
            (meter.latency.len(), meter.acked, meter.sent_in_time, meter.acked_in_window),
            (10, 10, 10, 10)
        );
    }

    #[test]
    fn a_closed_loop_counts_latency_from_when_the_connection_began_to_send() {
        let window = Window::new(0, 1_000_000);
        let rules = Rules {
            schedule: Schedule::Closed { window: 1 },
            window: &window,
            lag_us_max: 20_000,
            flush_us: 10_000,
            blocked: &Holds::default(),
        };
        let mut meter = Meter::new(1);
        let flight = flight(4, 100_000, 101_000);
        meter.on_sent(&flight, &LENGTHS, 0, true, &rules);
        meter.on_ack(&flight, &ack(4, Vec::new()), 105_000, &rules);
        assert!(close(meter.latency.max(), 5_000) && close(meter.service_time.max(), 4_000));
        assert_eq!((meter.generator_lag.len(), meter.held_back_us), (0, 1_000));
    }

    #[test]
    fn messages_outside_the_window_are_counted_but_not_measured() {
        let window = Window::new(4_000, 8_000);
        let blocked = Holds::default();
        let rules = rules(&window, 1_000, 10_000, &blocked);
        let mut meter = Meter::new(1);
        let flight = flight(10, 11_500, 11_500);
        meter.on_sent(&flight, &LENGTHS, 0, false, &rules);
        meter.on_ack(&flight, &ack(10, Vec::new()), 11_800, &rules);
        // Due in [4, 8) ms: events 4 to 7, which leave at 10 ms; sent later than 10 + 1 ms, so none in time.
        assert_eq!((meter.sent, meter.acked, meter.latency.len(), meter.send_lag.len()), (10, 10, 4, 4));
        assert_eq!((meter.sent_in_time, meter.sent_in_window, meter.acked_in_window), (0, 0, 0));
        let on_time = Flight { called_us: 10_900, sent_us: 10_900, ..flight };
        meter.on_sent(&on_time, &LENGTHS, 0, false, &rules);
        assert_eq!(meter.sent_in_time, 4);
        window.end_at(5_000);
        window.end_at(6_000);
        assert_eq!(window.end_us(), 5_000, "an end only moves forward in time when it comes earlier");
    }

    #[test]
    fn refused_messages_are_counted_by_reason_and_have_no_latency() {
        let window = Window::new(0, 1_000_000);
        let blocked = Holds::default();
        let rules = rules(&window, 20_000, 10_000, &blocked);
        let mut meter = Meter::new(1);
        let flight = flight(5, 10_000, 10_000);
        let unknown = AckException { index: 3, code: 250, got: 0, limit: 0 };
        let beyond = AckException { index: 5, code: 1, got: 0, limit: 0 };
        let exceptions = vec![AckException::new(1, Reason::BadSignature.with(0, 0)), unknown, beyond];
        assert_eq!(meter.on_ack(&flight, &ack(5, exceptions), 20_000, &rules), [1, 3]);
        assert_eq!((meter.acked, meter.rejected, meter.latency.len()), (3, 2, 3));
        assert_eq!(
            meter.rejected_by,
            BTreeMap::from([("bad_signature".to_owned(), 1), ("unknown_reason".to_owned(), 1)])
        );
        let mut sum = Meter::new(1);
        sum.add(&meter);
        sum.add(&meter);
        assert_eq!((sum.acked, sum.rejected_by["bad_signature"], sum.latency.len()), (6, 2, 6));
    }

    #[test]
    fn an_ack_that_promises_less_or_answers_something_else_does_not_count() {
        let flight = flight(5, 0, 0);
        assert!(check_ack(&ack(5, Vec::new()), &flight, AckLevel::Durable).is_ok());
        assert!(check_ack(&ack(5, Vec::new()), &flight, AckLevel::Written).is_ok());
        assert!(check_ack(&ack(4, Vec::new()), &flight, AckLevel::Durable).is_err());
        let weak = Ack { level: AckLevel::Written, ..ack(5, Vec::new()) };
        assert!(check_ack(&weak, &flight, AckLevel::Durable).unwrap_err().contains("Written"));
    }
}
