//! From a run that is over to its report.
//!
//! Owns the arithmetic of the report: rates, shares, device-equivalents, and what the whole population would need. The verdict itself is in
//! [`report`](crate::report).

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::arrival::sampled;
use crate::config::{At, RunConfig, Target, World};
use crate::driver::Shared;
use crate::hgrm::{Summary, encode};
use crate::machine::{Machine, commit, memory_peak_bytes, rfc3339};
use crate::measure::Meter;
use crate::report::{
    ClassReport, DirectFacts, Facts, FaultReport, FullPopulation, GeneratorReport, HandshakeReport,
    Histograms, Moment, OpenFacts, PROBLEMS_MAX, ProfileReport, Rate, ReplayReport, Report, SCHEMA, caveats,
    invalid_reason,
};
use crate::schedule::{Schedule, as_us};

/// What a generator thread did.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadStats {
    pub(crate) messages: u64,
    pub(crate) keys_derived: u64,
    pub(crate) busy: Duration,
    /// From its start until its last batch was handed over.
    pub(crate) active: Duration,
    /// Of this, the time for which there was no room for a batch.
    pub(crate) blocked: Duration,
    /// Messages due in the measured time that were left out on purpose, by class.
    pub(crate) missing: Vec<u64>,
    /// Time on a core and time waiting for one.
    pub(crate) scheduled: Option<(Duration, Duration)>,
}

/// A run that is over, before it is put into words.
pub(crate) struct Finished<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) world: &'a World,
    pub(crate) shared: &'a Shared,
    pub(crate) batch_messages: u32,
    pub(crate) generators: Vec<ThreadStats>,
    pub(crate) stopped: bool,
    pub(crate) elapsed_us: u64,
    pub(crate) timeline: Vec<Moment>,
}

impl Finished<'_> {
    pub(crate) fn report(&self, signer: &str) -> (Report, Meter) {
        let Self { config, shared, world, .. } = self;
        let total = shared.totals();
        let window = &shared.window;
        let seconds = window.seconds();
        let per_s = |count: u64| if seconds > 0.0 { round(count as f64 / seconds) } else { 0.0 };
        let unacked = total.sent.saturating_sub(total.acked + total.rejected);
        let blocked_s = shared.blocked_us.load(Ordering::Relaxed) as f64 / 1e6;
        let held_back_s = total.held_back_us as f64 / 1e6;
        let generator = self.generator(signer, blocked_s);
        let classes = self.classes(&total);
        let intended: u64 = classes.iter().map(|class| class.intended).sum();
        let handshakes = shared.handshakes.as_ref().map(|handshakes| handshakes.report());
        let (rate_per_s, open) = match config.schedule {
            Schedule::Closed { .. } => (None, None),
            Schedule::Open { rate_per_s } => {
                let open = OpenFacts {
                    intended,
                    sent_in_time: total.sent_in_time,
                    cut_off: self.cut_off(rate_per_s),
                    generator_lag: Summary::of(&total.generator_lag),
                    lag_p99_us_max: shared.lag_us_max,
                    backlog_full_s: round(blocked_s),
                    held_back_s,
                    busy_share: generator.busy_share,
                    direct: handshakes.as_ref().map(direct_facts),
                };
                let intended_per_s =
                    if seconds > 0.0 { round(intended as f64 / seconds) } else { rate_per_s };
                (Some(intended_per_s), Some(open))
            }
        };
        let facts = Facts {
            measured_s: seconds,
            acked: total.acked,
            unacked,
            connections_lost: shared.connections_lost.load(Ordering::Relaxed),
            waited_for_cpu_s: generator.waited_for_cpu_s.unwrap_or(0.0),
            open,
            closed_busy_share: match (&config.schedule, &config.target) {
                (Schedule::Closed { .. }, Target::Node(_)) => self.unblocked_share(),
                // The null target is there to measure the generator.
                _ => None,
            },
        };
        let invalid_reason = invalid_reason(&facts);
        let mut problems = caveats(&facts);
        problems.extend(shared.problems.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        problems.truncate(PROBLEMS_MAX);
        let (target, ack_level) = match &config.target {
            Target::Node(node) => (node.addr.to_string(), config.ack_level.name().to_owned()),
            Target::Null(_) => ("null".to_owned(), "none".to_owned()),
        };
        let throughput = per_s(total.acked_in_window);
        let per_device = world.profile.rate_per_s() * world.speedup / world.profile.devices() as f64;
        let message_bytes = total.sent_bytes as f64 / total.sent.max(1) as f64;
        let report = Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: rfc3339(shared.traffic.clock.unix_us(0) / 1_000_000),
            valid: invalid_reason.is_none(),
            invalid_reason,
            stopped: self.stopped,
            loop_mode: if rate_per_s.is_some() { "open" } else { "closed" }.to_owned(),
            window: match config.schedule {
                Schedule::Closed { window } => Some(window),
                Schedule::Open { .. } => None,
            },
            rate: Rate { intended_per_s: rate_per_s, achieved_per_s: per_s(total.sent_in_window) },
            target,
            ack_level,
            throughput_msgs_per_s: throughput,
            sent_total: total.sent,
            acked_total: total.acked,
            rejected_total: total.rejected,
            rejected: total.rejected_by.clone(),
            unacked,
            latency_us: Summary::of(&total.latency),
            service_time_us: Summary::of(&total.service_time),
            send_lag_us: Summary::of(&total.send_lag),
            generator_lag_us: Summary::of(&total.generator_lag),
            lag_p99_us_max: shared.lag_us_max,
            held_back_s: round(held_back_s),
            duration_s: seconds,
            warm_up_s: config.warm_up.as_secs_f64(),
            elapsed_s: self.elapsed_us as f64 / 1e6,
            connections: config.connections,
            batch: self.batch_messages,
            devices: config.replay.as_ref().map_or_else(|| world.devices(), |trace| trace.device_max() + 1),
            seed: config.seed,
            payload_bytes: round((message_bytes - weft_core::MESSAGE_BYTES_MIN as f64).max(0.0)),
            message_bytes: round(message_bytes),
            profile: ProfileReport {
                name: world.profile.name.clone(),
                scale: world.scale,
                speedup: world.speedup,
                at_hour: match world.at {
                    At::Mean => None,
                    At::Hour(hour) => Some(hour),
                },
                shape: config.shape.to_string(),
                population: world.profile.devices(),
                population_msgs_per_s: round(world.profile.rate_per_s()),
                worker: world.split.worker,
                workers: world.split.of,
            },
            classes,
            // A trace is what it is: it has no rate per device that its messages could be held against.
            device_equivalents: if config.replay.is_some() { 0.0 } else { (throughput / per_device).round() },
            full_population: if config.replay.is_some() {
                FullPopulation::default()
            } else {
                full_population(world, throughput, generator.cpu_us_per_message)
            },
            faults: total
                .faults
                .iter()
                .map(|(fault, count)| {
                    let report =
                        FaultReport { sent: count.sent, acked: count.acked, rejected: count.rejected };
                    (fault.name().to_owned(), report)
                })
                .collect(),
            missing_on_purpose: self.generators.iter().flat_map(|thread| &thread.missing).sum(),
            timeline: self.timeline.clone(),
            signing: match (&config.pool, config.repeats_pool()) {
                (None, _) => "live",
                (Some(_), false) => "pool",
                (Some(_), true) => "pool, sent over and over",
            }
            .to_owned(),
            topology: config.topology.name().to_owned(),
            handshake_us: Summary::of(&total.handshake),
            handshakes,
            replay: config.replay.as_ref().map(|trace| ReplayReport {
                file: trace.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
                messages: trace.events(),
                length_s: trace.last_us() as f64 / 1e6,
            }),
            memory_peak_bytes: memory_peak_bytes(),
            histograms: histograms(&total),
            generator,
            backend: config.about.backend.clone(),
            audit: None,
            problems,
            machine: Machine::read(config.about.data_dir.as_deref()),
            commit: commit(),
            command_line: config.about.command_line.clone(),
            workers: Vec::new(),
        };
        (report, total)
    }

    fn classes(&self, total: &Meter) -> Vec<ClassReport> {
        let Self { shared, world, .. } = self;
        let (start_us, end_us) = (shared.window.start_us, shared.window.end_us());
        let (intended, expected) = {
            let planner = shared.planner();
            (planner.intended(end_us), planner.expected(start_us, end_us))
        };
        let closed = matches!(self.config.schedule, Schedule::Closed { .. });
        let sent: u64 = total.classes.iter().map(|class| class.sent).sum();
        let rate = world.profile.rate_per_s();
        let report = |(number, class): (usize, &crate::profile::Class)| {
            let meter = &total.classes[number];
            let missing: u64 = self.generators.iter().filter_map(|thread| thread.missing.get(number)).sum();
            let intended = intended.get(number).copied().unwrap_or(0).saturating_sub(missing);
            ClassReport {
                name: class.name.clone(),
                devices: sampled(class.devices, world.scale),
                // A closed loop intends what it sends.
                intended: if closed { meter.sent } else { intended },
                expected: if closed { 0.0 } else { round(expected.get(number).copied().unwrap_or(0.0)) },
                sent: meter.sent,
                acked: meter.acked,
                rejected: meter.rejected,
                bytes: meter.bytes,
                share: round6(meter.sent as f64 / sent.max(1) as f64),
                profile_share: round6(class.rate_per_s() / rate),
                latency_us: Summary::of(&meter.latency),
            }
        };
        world.profile.classes.iter().enumerate().map(report).collect()
    }

    /// Share of their time in which generator threads did not wait for room: in a closed loop they work then, or want a core to do so.
    /// Nothing can be said of threads that had handed over all there was long before the end.
    fn unblocked_share(&self) -> Option<f64> {
        let sum = |pick: fn(&ThreadStats) -> Duration| self.generators.iter().map(pick).sum::<Duration>();
        let active_s = sum(|thread| thread.active).as_secs_f64();
        let until_end_s = self.shared.window.end_us() as f64 / 1e6 * self.generators.len() as f64;
        (active_s > 0.9 * until_end_s && active_s > 0.0)
            .then(|| 1.0 - sum(|thread| thread.blocked).as_secs_f64() / active_s)
    }

    /// Messages that a run which was stopped before its time may have planned and not sent yet: those of the look-ahead, of the flush
    /// interval before the stop and the one after it, and what each thread has in hand.
    fn cut_off(&self, rate_per_s: f64) -> u64 {
        let planned_us = as_us(self.config.warm_up + self.config.duration);
        if !self.stopped || self.shared.window.end_us() >= planned_us {
            return 0;
        }
        let threads = self.generators.len() as u32;
        let ahead = self.config.look_ahead + self.config.flush * (2 + threads);
        (rate_per_s * ahead.as_secs_f64()).ceil() as u64 + u64::from(threads)
    }

    fn generator(&self, signer: &str, blocked_s: f64) -> GeneratorReport {
        let threads = self.generators.len();
        let busy_s: f64 = self.generators.iter().map(|thread| thread.busy.as_secs_f64()).sum();
        let messages: u64 = self.generators.iter().map(|thread| thread.messages).sum();
        let scheduled: Option<Vec<_>> = self.generators.iter().map(|thread| thread.scheduled).collect();
        let sum = |pick: fn(&(Duration, Duration)) -> Duration| {
            scheduled.as_ref().map(|times| round(times.iter().map(pick).sum::<Duration>().as_secs_f64()))
        };
        let cpu_s = sum(|times| times.0);
        let wall_s = (self.elapsed_us as f64 / 1e6).max(1e-6);
        GeneratorReport {
            threads: threads as u32,
            signer: signer.to_owned(),
            messages,
            keys_derived: self.generators.iter().map(|thread| thread.keys_derived).sum(),
            busy_share: round((busy_s / wall_s / threads.max(1) as f64).min(1.0)),
            cpu_s,
            waited_for_cpu_s: sum(|times| times.1),
            cpu_us_per_message: cpu_s
                .filter(|_| messages > 0)
                .map(|cpu_s| round(cpu_s * 1e6 / messages as f64)),
            blocked_s: round(blocked_s),
        }
    }
}

fn direct_facts(handshakes: &HandshakeReport) -> DirectFacts {
    DirectFacts {
        per_s_max: handshakes.per_s_max,
        failed: handshakes.failed,
        unsent: handshakes.messages_unsent,
        waited: handshakes.messages_waited,
        limited_s: handshakes.limited_s,
        pool_full_s: handshakes.pool_full_s,
    }
}

fn full_population(world: &World, throughput: f64, cpu_us: Option<f64>) -> FullPopulation {
    let msgs_per_s = world.profile.rate_per_s();
    let bytes = weft_core::MESSAGE_BYTES_MIN as f64 + world.profile.payload_bytes_mean();
    FullPopulation {
        msgs_per_s: round(msgs_per_s),
        gbit_per_s: round(msgs_per_s * bytes * 8.0 / 1e9),
        generator_cores: cpu_us.map(|cpu_us| round(msgs_per_s * cpu_us / 1e6)),
        targets: (throughput > 0.0).then(|| round(msgs_per_s / throughput)),
    }
}

/// The histograms of a report. One that cannot be written is left empty, which readers name.
pub(crate) fn histograms(total: &Meter) -> Histograms {
    let text = |histogram| encode(histogram).unwrap_or_default();
    Histograms {
        latency: text(&total.latency),
        service_time: text(&total.service_time),
        send_lag: text(&total.send_lag),
        generator_lag: text(&total.generator_lag),
        handshake: text(&total.handshake),
        classes: total.classes.iter().map(|class| text(&class.latency)).collect(),
    }
}

/// Three decimals are more than any of these figures is good for.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Shares have more.
fn round6(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
