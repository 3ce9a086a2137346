//! What a run says afterwards: as JSON, as a table, and whether it may be believed.
//!
//! Owns [`Report`], its JSON (schema version [`SCHEMA`]; keys end in their unit), its table and the verdict on validity. Invariant: a
//! report whose generator did not keep the pace, or that left messages out of its percentiles, has `valid` false and says why. Rejections
//! and a slow target do not make a report invalid: they are its content.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::audit::AuditReport;
use crate::hgrm::Summary;
use crate::machine::Machine;

/// Version of the JSON: rises when a key changes its meaning or goes. New keys do not raise it.
pub const SCHEMA: u32 = 1;

/// Of the messages intended in the measured time, the share that must have been sent.
pub const SENT_SHARE_MIN: f64 = 0.995;

/// Notes of what went wrong that a report keeps, at most.
pub const PROBLEMS_MAX: usize = 16;

/// Rate wanted and rate reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Messages per second asked for; `null` in the closed loop.
    pub intended_per_s: Option<f64>,
    /// Messages per second sent in the measured time.
    pub achieved_per_s: f64,
}

/// What the generator itself did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GeneratorReport {
    /// Threads that built and signed.
    pub threads: u32,
    /// How they signed.
    pub signer: String,
    /// Messages built, sent or not.
    pub messages: u64,
    /// Keys derived: misses of the key cache.
    pub keys_derived: u64,
    /// Share of the run in which a thread was building or signing (with time the system gave to others), mean over threads.
    pub busy_share: f64,
    /// Processor time of all threads, seconds; `null` where the system does not tell.
    pub cpu_s: Option<f64>,
    /// Time for which threads could have run but had no core, seconds.
    pub waited_for_cpu_s: Option<f64>,
    /// Processor time per message built, microseconds.
    pub cpu_us_per_message: Option<f64>,
    /// Time for which threads could not go on because the target (closed loop) or the backlog (open loop) took no more, seconds.
    pub blocked_s: f64,
}

/// The report of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Version of this structure: [`SCHEMA`].
    pub schema: u32,
    /// Version of the generator.
    pub version: String,
    /// When the run began, UTC.
    pub started_at: String,
    /// Whether the figures may be believed.
    pub valid: bool,
    /// Why not.
    pub invalid_reason: Option<String>,
    /// Whether the run was stopped before its time.
    pub stopped: bool,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub loop_mode: &'static str,
    /// Closed loop: unanswered batches per connection, at most.
    pub window: Option<u32>,
    /// Rate wanted and reached.
    pub rate: Rate,
    /// Address of the node, or `null` for the null target.
    pub target: String,
    /// What an ack meant: a level of the wire, or `none` from the null target, which keeps nothing.
    pub ack_level: String,
    /// Messages acked per second in the measured time, by the time of the ack.
    pub throughput_msgs_per_s: f64,
    /// Messages sent, warm-up included.
    pub sent_total: u64,
    /// Messages acked, warm-up included.
    pub acked_total: u64,
    /// Messages refused, warm-up included.
    pub rejected_total: u64,
    /// The same by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Messages sent and never answered.
    pub unacked: u64,
    /// From due (open loop) or wanted (closed loop) to acked.
    pub latency_us: Summary,
    /// From sent to acked.
    pub service_time_us: Summary,
    /// From due to sent.
    pub send_lag_us: Summary,
    /// The part of it that is the generator's own fault.
    pub generator_lag_us: Summary,
    /// What its p99 may be.
    pub lag_p99_us_max: u64,
    /// Time for which the target made connections wait before it took a batch, summed over them, seconds.
    pub held_back_s: f64,
    /// Measured time, seconds.
    pub duration_s: f64,
    /// Time before it, seconds.
    pub warm_up_s: f64,
    /// From the first message to the last ack or the deadline, seconds.
    pub elapsed_s: f64,
    /// Connections.
    pub connections: u32,
    /// Messages in a batch, at most.
    pub batch: u32,
    /// Devices in the population.
    pub devices: u64,
    /// Its name.
    pub seed: u64,
    /// Payload of a message, bytes.
    pub payload_bytes: usize,
    /// A message on the wire, bytes.
    pub message_bytes: usize,
    /// What the generator did.
    pub generator: GeneratorReport,
    /// The target's verifier, if the caller told.
    pub backend: Option<String>,
    /// What was found when acked messages were read back; `null` if they were not.
    pub audit: Option<AuditReport>,
    /// What went wrong on the way, the first few.
    pub problems: Vec<String>,
    /// The machine.
    pub machine: Machine,
    /// Commit of the source.
    pub commit: Option<String>,
    /// The command that made the run, if the caller told.
    pub command_line: Option<String>,
}

/// What the verdict on a run is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Length of the measured time, seconds.
    pub(crate) measured_s: f64,
    pub(crate) acked: u64,
    pub(crate) unacked: u64,
    pub(crate) connections_lost: u32,
    /// Open loop only.
    pub(crate) open: Option<OpenFacts>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenFacts {
    pub(crate) rate_per_s: f64,
    /// Messages due in the measured time.
    pub(crate) intended: u64,
    /// Of these, sent in time.
    pub(crate) sent_in_time: u64,
    pub(crate) generator_lag_p99_us: u64,
    pub(crate) lag_p99_us_max: u64,
    /// For how long the backlog was full.
    pub(crate) backlog_full_s: f64,
    pub(crate) held_back_s: f64,
}

impl OpenFacts {
    /// What was short when an open loop fell behind.
    fn cause(&self) -> String {
        if self.backlog_full_s > 0.0 {
            format!(
                "the target held sends back for {:.1} s and the backlog was full for {:.1} s",
                self.held_back_s, self.backlog_full_s
            )
        } else if self.held_back_s > 0.0 {
            format!("the target held sends back for {:.1} s", self.held_back_s)
        } else {
            "the generator was short of processor time".to_owned()
        }
    }
}

/// Why a run may not be believed, if so.
pub(crate) fn invalid_reason(facts: &Facts) -> Option<String> {
    let mut reasons = Vec::new();
    if facts.measured_s <= 0.0 {
        reasons.push("the run ended before the measured time began".to_owned());
    } else if facts.acked == 0 {
        reasons.push("no message was acked".to_owned());
    }
    if facts.connections_lost > 0 {
        reasons.push(format!("{} connections were lost", facts.connections_lost));
    }
    if facts.unacked > 0 {
        reasons.push(format!(
            "{} messages were sent and never answered: the percentiles do not hold them",
            group(facts.unacked)
        ));
    }
    if let Some(open) = facts.open {
        let mut late = Vec::new();
        if open.generator_lag_p99_us > open.lag_p99_us_max {
            let (lag, limit) = (time(open.generator_lag_p99_us), time(open.lag_p99_us_max));
            late.push(format!("the generator lagged: p99 of its lag is {lag}, limit {limit}"));
        }
        // At the end of the time one lag limit's worth of messages may be under way.
        let slack = open.rate_per_s * open.lag_p99_us_max as f64 / 1e6;
        let short = open.intended.saturating_sub(open.sent_in_time) as f64;
        if short > slack.max((1.0 - SENT_SHARE_MIN) * open.intended as f64) {
            late.push(format!(
                "{} of {} intended messages were sent in time ({:.1} %, at least {:.1} % wanted)",
                group(open.sent_in_time),
                group(open.intended),
                100.0 * open.sent_in_time as f64 / open.intended as f64,
                100.0 * SENT_SHARE_MIN,
            ));
        }
        if !late.is_empty() {
            late.push(open.cause());
            reasons.append(&mut late);
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

impl Report {
    /// Writes the report as indented JSON.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// The report as text for a terminal, up to 100 columns wide.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        match &self.invalid_reason {
            None => writeln!(out, "Load report: valid")?,
            Some(reason) => writeln!(out, "Load report: INVALID: {reason}")?,
        }
        if self.stopped {
            line(out, "stopped", "before its time, on request")?;
        }
        let window =
            self.window.map_or(String::new(), |window| format!(", {window} batches in flight on each"));
        let pace = match self.rate.intended_per_s {
            Some(rate) => format!("open loop, {} messages/s wanted", group(rate.round() as u64)),
            None => "closed loop".to_owned(),
        };
        let connections = self.connections;
        line(
            out,
            "load",
            &format!("{pace}, {connections} connections{window}, batches of up to {}", self.batch),
        )?;
        let (devices, payload, message) = (group(self.devices), self.payload_bytes, self.message_bytes);
        line(
            out,
            "devices",
            &format!("{devices} (seed {}), payload {payload} B, message {message} B", self.seed),
        )?;
        let (throughput, sent) = (self.throughput_msgs_per_s, self.rate.achieved_per_s);
        line(
            out,
            "throughput",
            &format!(
                "{} messages/s acked (level {}), {} sent, over {:.1} s",
                group(throughput.round() as u64),
                self.ack_level,
                group(sent.round() as u64),
                self.duration_s
            ),
        )?;
        line(
            out,
            "messages",
            &format!(
                "{} sent, {} acked, {} rejected, {} unanswered (warm-up included)",
                group(self.sent_total),
                group(self.acked_total),
                group(self.rejected_total),
                group(self.unacked)
            ),
        )?;
        for (name, count) in &self.rejected {
            line(out, "", &format!("rejected {name}: {}", group(*count)))?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "  {:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"
        )?;
        for (name, summary) in [
            ("latency", &self.latency_us),
            ("service time", &self.service_time_us),
            ("send lag", &self.send_lag_us),
            ("generator lag", &self.generator_lag_us),
        ] {
            // In the closed loop nothing is ever due before it is sent.
            if name.ends_with("lag") && self.rate.intended_per_s.is_none() {
                continue;
            }
            write!(out, "  {name:<14}")?;
            let mean = summary.mean.round() as u64;
            let columns =
                [summary.p50, summary.p90, summary.p99, summary.p999, summary.p9999, summary.max, mean];
            for value in columns {
                match summary.count {
                    0 => write!(out, " {:>9}", "-")?,
                    _ => write!(out, " {:>9}", time(value))?,
                }
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        let generator = &self.generator;
        let per_message = generator
            .cpu_us_per_message
            .map_or(String::new(), |us| format!(", {us:.1} us of processor a message"));
        line(
            out,
            "generator",
            &format!(
                "{} threads, {} signing, {:.0} % busy{per_message}",
                generator.threads,
                generator.signer,
                100.0 * generator.busy_share
            ),
        )?;
        if let Some(audit) = &self.audit {
            line(out, "audit", &audit.to_string())?;
            for failure in &audit.failures {
                line(out, "", failure)?;
            }
        }
        for problem in &self.problems {
            line(out, "problem", problem)?;
        }
        if let Some(backend) = &self.backend {
            line(out, "verifier", backend)?;
        }
        let machine = &self.machine;
        let cores = machine.cores.map_or("?".to_owned(), |cores| cores.to_string());
        let memory = machine.memory_bytes.map_or(String::new(), |bytes| format!(", {} GiB", bytes >> 30));
        line(
            out,
            "machine",
            &format!(
                "{} x {}{memory}, {}",
                cores,
                machine.cpu_model.as_deref().unwrap_or("unknown processor"),
                machine.kernel.as_deref().unwrap_or("unknown kernel")
            ),
        )?;
        if !machine.cpu_flags.is_empty() {
            line(out, "", &machine.cpu_flags.join(" "))?;
        }
        if let Some(disk) = &machine.disk {
            let model = disk.model.as_deref().map_or(String::new(), |model| format!(" ({model})"));
            line(out, "disk", &format!("{} on {}{model}", disk.file_system, disk.device))?;
        }
        let commit = self.commit.as_deref().unwrap_or("unknown");
        line(out, "commit", &format!("{commit}, run began {}", self.started_at))
    }
}

fn line(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "  {name:<14} {value}")
}

/// A whole number with its thousands apart.
#[must_use]
pub fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds in the unit that leaves three or four digits.
#[must_use]
pub fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            measured_s: 10.0,
            acked: 100_000,
            open: Some(OpenFacts {
                rate_per_s: 10_000.0,
                intended: 100_000,
                sent_in_time: 99_900,
                generator_lag_p99_us: 2_000,
                lag_p99_us_max: 20_000,
                ..OpenFacts::default()
            }),
            ..Facts::default()
        }
    }

    fn reason(change: impl FnOnce(&mut Facts, &mut OpenFacts)) -> String {
        let mut facts = good();
        let mut open = facts.open.unwrap();
        change(&mut facts, &mut open);
        facts.open = Some(open);
        invalid_reason(&facts).unwrap()
    }

    #[test]
    fn a_run_that_kept_its_pace_and_was_answered_is_valid() {
        assert_eq!(invalid_reason(&good()), None);
        assert_eq!(invalid_reason(&Facts { open: None, ..good() }), None);
    }

    #[test]
    fn a_lagging_generator_makes_a_run_invalid_and_the_reason_names_what_was_short() {
        let text = reason(|_, open| open.generator_lag_p99_us = 21_000);
        assert_eq!(
            text,
            "the generator lagged: p99 of its lag is 21.0 ms, limit 20.0 ms; the generator was short of processor time"
        );
        let text = reason(|_, open| {
            open.generator_lag_p99_us = 21_000;
            open.backlog_full_s = 1.5;
            open.held_back_s = 3.0;
        });
        assert!(
            text.ends_with("the target held sends back for 3.0 s and the backlog was full for 1.5 s"),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_sent_less_than_it_intended_is_invalid() {
        let text = reason(|_, open| open.sent_in_time = 99_400);
        assert!(text.starts_with("99,400 of 100,000 intended messages were sent in time (99.4 %"), "{text}");
        // Half a percent may be missing, not more.
        let mut facts = good();
        facts.open = facts.open.map(|open| OpenFacts { sent_in_time: 99_500, ..open });
        assert_eq!(invalid_reason(&facts), None);
    }

    #[test]
    fn unanswered_messages_lost_connections_and_empty_runs_are_named() {
        assert!(
            reason(|facts, _| facts.unacked = 1_234).contains("1,234 messages were sent and never answered")
        );
        assert!(reason(|facts, _| facts.connections_lost = 1).contains("1 connections were lost"));
        assert!(reason(|facts, _| facts.acked = 0).contains("no message was acked"));
        assert!(reason(|facts, _| facts.measured_s = 0.0).contains("before the measured time began"));
    }

    #[test]
    fn the_json_has_the_keys_that_other_tools_read() {
        let report = Report {
            audit: Some(AuditReport { checked: 3, ..AuditReport::default() }),
            rejected: BTreeMap::from([("bad_signature".to_owned(), 2)]),
            ..Report::default()
        };
        let mut json = Vec::new();
        report.write_json(&mut json).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        for key in [
            "schema",
            "acked_total",
            "throughput_msgs_per_s",
            "ack_level",
            "latency_us",
            "service_time_us",
            "send_lag_us",
            "sent_total",
            "rejected",
            "unacked",
            "valid",
            "invalid_reason",
            "audit",
            "loop",
            "rate",
            "duration_s",
            "connections",
            "batch",
            "devices",
            "payload_bytes",
            "backend",
            "machine",
            "commit",
            "command_line",
            "started_at",
        ] {
            assert!(value.get(key).is_some(), "{key} is missing");
        }
        for key in ["p50", "p90", "p99", "p999", "p9999", "max", "mean"] {
            assert!(value["latency_us"][key].is_number(), "latency_us.{key}");
        }
        for key in ["checked", "missing", "invalid", "seconds"] {
            assert!(value["audit"][key].is_number(), "audit.{key}");
        }
        assert_eq!(value["rejected"]["bad_signature"], 2);
    }

    #[test]
    fn the_table_shows_the_verdict_first_and_fits_a_terminal() {
        let report = Report {
            invalid_reason: Some("the generator lagged".to_owned()),
            rate: Rate { intended_per_s: Some(40_000.0), achieved_per_s: 39_999.6 },
            latency_us: Summary { count: 1, p50: 1_234, max: 2_345_678, ..Summary::default() },
            ..Report::default()
        };
        let table = report.table();
        assert!(table.starts_with("Load report: INVALID: the generator lagged\n"));
        assert!(
            table.contains("40,000 messages/s wanted")
                && table.contains("1.23 ms")
                && table.contains("2.35 s")
        );
        assert!(table.lines().all(|line| line.chars().count() <= 110), "{table}");
    }

    #[test]
    fn numbers_are_grouped_and_times_have_units() {
        assert_eq!(
            [group(0), group(999), group(1_000), group(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [time(999), time(1_000), time(99_950), time(999_999)],
            ["999 us", "1.00 ms", "100.0 ms", "1000 ms"]
        );
    }
}
