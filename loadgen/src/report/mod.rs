//! What a run says afterwards: as JSON, as a table, and whether it may be believed.
//!
//! Owns [`Report`], its JSON (schema version [`SCHEMA`]; keys end in their unit), its table and the verdict on validity. Invariant: a
//! report whose generator did not keep the pace, or that left messages out of its percentiles, has `valid` false and says why. Rejections
//! and a slow target do not make a report invalid: they are its content.

mod html;
mod svg;
mod table;
mod verdict;
mod words;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::audit::AuditReport;
use crate::hgrm::Summary;
use crate::machine::Machine;

pub(crate) use verdict::{DirectFacts, Facts, OpenFacts, caveats, invalid_reason};
pub use words::{group, time};

/// Version of the JSON: rises when a key changes its meaning or goes. New keys do not raise it.
pub const SCHEMA: u32 = 2;

/// Of the messages intended in the measured time, the share that must have been sent.
pub const SENT_SHARE_MIN: f64 = 0.995;

/// Notes of what went wrong that a report keeps, at most.
pub const PROBLEMS_MAX: usize = 16;

/// Rate wanted and rate reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// Messages per second asked for; `null` in the closed loop.
    pub intended_per_s: Option<f64>,
    /// Messages per second sent in the measured time.
    pub achieved_per_s: f64,
}

/// What the generator itself did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GeneratorReport {
    /// Threads that built and signed.
    pub threads: u32,
    /// How they signed.
    pub signer: String,
    /// Messages built, sent or not.
    pub messages: u64,
    /// Keys derived: misses of the key cache.
    pub keys_derived: u64,
    /// Share of the run in which a thread was planning, building or signing (with time the system gave to others), mean over threads.
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

/// The profile that was played, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileReport {
    /// Its name.
    pub name: String,
    /// Share of the population that took part.
    pub scale: f64,
    /// Seconds of the profile in one second of the run.
    pub speedup: f64,
    /// Hour of its day at which the run began, UTC; `null` if rates were those of the mean day.
    pub at_hour: Option<f64>,
    /// How the rate changed over the measured time.
    pub shape: String,
    /// Devices of the whole population.
    pub population: u64,
    /// Messages per second of the whole population, long-run mean of the models.
    pub population_msgs_per_s: f64,
    /// Which part of the events this generator sent: `worker` of `workers`.
    pub worker: u32,
    /// Number of generators that shared the events.
    pub workers: u32,
}

/// One class of devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Devices that took part.
    pub devices: u64,
    /// Messages due in the measured time.
    pub intended: u64,
    /// Messages that the models expect in that time.
    pub expected: f64,
    /// Of those due, sent.
    pub sent: u64,
    /// Of those sent, acked.
    pub acked: u64,
    /// Of those sent, refused.
    pub rejected: u64,
    /// Bytes of those sent.
    pub bytes: u64,
    /// Share of all messages sent.
    pub share: f64,
    /// Share of all messages in the long-run mean of the profile.
    pub profile_share: f64,
    /// From due (open loop) or wanted (closed loop) to acked.
    pub latency_us: Summary,
}

/// Messages that were sent with a fault on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultReport {
    /// Sent.
    pub sent: u64,
    /// Of these, acked.
    pub acked: u64,
    /// Of these, refused.
    pub rejected: u64,
}

/// Handshakes of the direct topology, warm-up included. All are full ones: the wire knows no resumption of sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandshakeReport {
    /// Handshakes begun per second, at most.
    pub per_s_max: f64,
    /// Handshakes begun.
    pub attempted: u64,
    /// Of these, those that led to a session.
    pub succeeded: u64,
    /// Of these, those that did not.
    pub failed: u64,
    /// The same by what kept them: `timeout`, `refused` by the node, `no_session` on the connection, or `failed`.
    pub failed_by: BTreeMap<String, u64>,
    /// Messages that were not sent because of that.
    pub messages_unsent: u64,
    /// Messages due in the measured time that waited longer than the lag limit for a place or a turn.
    pub messages_waited: u64,
    /// Time for which handshakes waited for their turn, summed over them, seconds.
    pub limited_s: f64,
    /// Time for which there was no place for a connection more, seconds.
    pub pool_full_s: f64,
    /// Connections at once, being made and being closed included, at most.
    pub open_max: u64,
}

impl std::fmt::Display for HandshakeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} begun (at most {} a second), {} done, {} failed, {} connections open at most",
            group(self.attempted),
            self.per_s_max,
            group(self.succeeded),
            group(self.failed),
            group(self.open_max)
        )?;
        for (name, count) in &self.failed_by {
            write!(f, ", {name}: {}", group(*count))?;
        }
        write!(
            f,
            "; {:.1} s of waiting for a turn in all, {:.1} s without a place",
            self.limited_s, self.pool_full_s
        )?;
        if self.messages_waited > 0 {
            write!(f, "; {} messages waited for them beyond the lag limit", group(self.messages_waited))?;
        }
        if self.messages_unsent > 0 {
            write!(f, "; {} messages UNSENT", group(self.messages_unsent))?;
        }
        Ok(())
    }
}

/// The trace that was played in place of the profile's models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplayReport {
    /// Name of the file.
    pub file: String,
    /// Messages in it.
    pub messages: u64,
    /// From its start to its last message, seconds of its own time.
    pub length_s: f64,
}

/// One stretch of the run, about a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moment {
    /// Its end, seconds since the start.
    pub at_s: f64,
    /// Its length, seconds.
    pub seconds: f64,
    /// Messages per second that the models expect to be due: of drawn processes the mean; `null` in the closed loop.
    pub intended_per_s: Option<f64>,
    /// Messages per second that fell due, as drawn, those left out on purpose included; `null` in the closed loop and in reports of a
    /// version that did not tell.
    pub due_per_s: Option<f64>,
    /// Messages per second sent.
    pub sent_per_s: f64,
    /// Messages per second acked.
    pub acked_per_s: f64,
    /// Messages per second refused.
    pub rejected_per_s: f64,
    /// Latency of those acked in it.
    pub latency_us: Summary,
}

/// One of several machines that shared a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerReport {
    /// Its number, name and address.
    pub name: String,
    /// How far its clock was ahead of the coordinator's before the run, microseconds.
    pub clock_offset_us: i64,
    /// By how much this may be wrong: half of the fastest round trip, microseconds.
    pub clock_error_us: u64,
}

/// What the whole population would need, by what this run measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FullPopulation {
    /// Messages per second.
    pub msgs_per_s: f64,
    /// Of them, bits per second on the wire without headers of the network.
    pub gbit_per_s: f64,
    /// Cores that build and sign, like those of this machine.
    pub generator_cores: Option<f64>,
    /// Targets like this one, at the throughput measured here (a lower bound of what one can do in the open loop).
    pub targets: Option<f64>,
}

/// Histograms in HdrHistogram's V2 format, compressed, base64: what other tools, merges and plots read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histograms {
    /// Of `latency_us`.
    pub latency: String,
    /// Of `service_time_us`.
    pub service_time: String,
    /// Of `send_lag_us`.
    pub send_lag: String,
    /// Of `generator_lag_us`.
    pub generator_lag: String,
    /// Of `handshake_us`.
    pub handshake: String,
    /// Of each class's `latency_us`, in the order of `classes`.
    pub classes: Vec<String>,
}

/// The report of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    pub loop_mode: String,
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
    /// Connections; in the direct topology those open at once, at most.
    pub connections: u32,
    /// Messages in a batch, at most.
    pub batch: u32,
    /// Devices in the population; in a replay the highest number of one, plus one.
    pub devices: u64,
    /// Its name.
    pub seed: u64,
    /// Payload of a message, bytes, mean of what was sent.
    pub payload_bytes: f64,
    /// A message on the wire, bytes, mean of what was sent.
    pub message_bytes: f64,
    /// The profile.
    pub profile: ProfileReport,
    /// Its classes.
    pub classes: Vec<ClassReport>,
    /// How many devices of this profile the throughput is: messages acked per second over messages per second and device.
    pub device_equivalents: f64,
    /// What the whole population would need.
    pub full_population: FullPopulation,
    /// Messages with a fault on purpose, by kind.
    pub faults: BTreeMap<String, FaultReport>,
    /// Messages due in the measured time that were left out on purpose.
    pub missing_on_purpose: u64,
    /// The run over time.
    pub timeline: Vec<Moment>,
    /// `live`, or `pool` for messages signed before the run.
    pub signing: String,
    /// `gateway` (many devices on one connection) or `direct` (a connection for each device that speaks).
    pub topology: String,
    /// Direct topology: from the first packet of a connection to its encryption, of handshakes begun in the measured time.
    pub handshake_us: Summary,
    /// Direct topology: what became of handshakes.
    pub handshakes: Option<HandshakeReport>,
    /// The trace that was played, if one was.
    pub replay: Option<ReplayReport>,
    /// Largest memory of this process, bytes (with a node in the same process: of both).
    pub memory_peak_bytes: Option<u64>,
    /// The histograms behind the figures.
    pub histograms: Histograms,
    /// What the generator did.
    pub generator: GeneratorReport,
    /// The target's verifier, if the caller told.
    pub backend: Option<String>,
    /// What was found when acked messages were read back; `null` if they were not.
    pub audit: Option<AuditReport>,
    /// What went wrong on the way, the first few, and what the figures hold that the target did not cause.
    pub problems: Vec<String>,
    /// The machine.
    pub machine: Machine,
    /// Commit of the source.
    pub commit: Option<String>,
    /// The command that made the run, if the caller told.
    pub command_line: Option<String>,
    /// The machines that shared the run, those that were lost included; empty if it was one.
    pub workers: Vec<WorkerReport>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Whether `value` is what `schema` allows: the part of JSON Schema that the page uses.
    fn fits(value: &serde_json::Value, schema: &serde_json::Value, root: &serde_json::Value, at: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            return fits(value, &root["$defs"][name.rsplit('/').next().unwrap()], root, at);
        }
        if let Some(any) = schema["anyOf"].as_array() {
            if !value.is_null() {
                fits(value, &any[0], root, at);
            }
            return;
        }
        let kind = match value {
            serde_json::Value::Null => "null",
            serde_json::Value::Bool(_) => "boolean",
            serde_json::Value::Number(number) if number.is_f64() => "number",
            serde_json::Value::Number(_) => "integer",
            serde_json::Value::String(_) => "string",
            serde_json::Value::Array(_) => "array",
            serde_json::Value::Object(_) => "object",
        };
        let kinds: Vec<&str> = match &schema["type"] {
            serde_json::Value::Array(kinds) => kinds.iter().filter_map(|kind| kind.as_str()).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let allowed = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
        assert!(allowed, "{at}: {kind} where the schema has {kinds:?}");
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let known = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                    let known = known.unwrap_or_else(|| panic!("{at}.{name} is not in the schema"));
                    fits(value, known, root, &format!("{at}.{name}"));
                }
                for name in schema["required"].as_array().into_iter().flatten() {
                    assert!(fields.contains_key(name.as_str().unwrap()), "{at} lacks {name}");
                }
            }
            serde_json::Value::Array(items) => {
                items.iter().for_each(|item| fits(item, &schema["items"], root, &format!("{at}[]")));
            }
            _ => {}
        }
    }

    #[test]
    fn the_documented_schema_is_that_of_the_report() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadgen-report.schema.json");
        let schema: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(schema["version"], SCHEMA);
        assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
        let full = Report {
            audit: Some(AuditReport::default()),
            classes: vec![ClassReport::default()],
            handshakes: Some(HandshakeReport {
                failed_by: BTreeMap::from([("refused".to_owned(), 1)]),
                ..HandshakeReport::default()
            }),
            replay: Some(ReplayReport::default()),
            workers: vec![WorkerReport::default()],
            timeline: vec![Moment::default()],
            faults: BTreeMap::from([("late".to_owned(), FaultReport::default())]),
            rejected: BTreeMap::from([("duplicate".to_owned(), 1)]),
            machine: Machine {
                disk: Some(crate::machine::Disk {
                    file_system: "ext4".to_owned(),
                    device: "/dev/vda".to_owned(),
                    model: None,
                    rotational: Some(false),
                }),
                ..Machine::default()
            },
            ..Report::default()
        };
        for report in [Report::default(), full] {
            fits(&serde_json::to_value(&report).unwrap(), &schema, &schema, "report");
        }
    }
}
