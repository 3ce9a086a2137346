//! A report as text for a terminal.
//!
//! Owns the table. Everything in it comes from the report's fields; nothing is computed here that the JSON does not have.

use std::fmt::Write as _;

use super::{Report, group, time};

impl Report {
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
        let profile = &self.profile;
        let at = profile.at_hour.map_or("mean day".to_owned(), |hour| format!("from {hour:.2} h UTC"));
        let speed =
            if profile.speedup == 1.0 { String::new() } else { format!(", {}x time", profile.speedup) };
        line(
            out,
            "profile",
            &format!("{}, scale {:e}{speed}, {at}, shape {}", profile.name, profile.scale, profile.shape),
        )?;
        let (devices, payload, message) = (group(self.devices), self.payload_bytes, self.message_bytes);
        line(
            out,
            "devices",
            &format!(
                "{devices} of {} (seed {}), payload {payload:.0} B, message {message:.0} B, signing {}, topology {}",
                group(profile.population),
                self.seed,
                self.signing,
                self.topology
            ),
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
        if let Some(handshakes) = &self.handshakes {
            line(out, "handshakes", &handshakes.to_string())?;
        }
        if let Some(trace) = &self.replay {
            let (messages, length) = (group(trace.messages), trace.length_s);
            line(out, "trace", &format!("{}, {messages} messages, {length:.1} s", trace.file))?;
        }
        // A closed loop sends what the target takes, not what the devices would: it stands for no number of them; nor does a trace.
        if self.rate.intended_per_s.is_some() && self.replay.is_none() {
            self.write_population(out)?;
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
            ("handshake", &self.handshake_us),
        ] {
            if name == "handshake" && summary.count == 0 {
                continue;
            }
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
        self.write_classes(out)?;
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
        if let Some(bytes) = self.memory_peak_bytes {
            line(out, "memory", &format!("{} MiB at most", bytes >> 20))?;
        }
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

impl Report {
    fn write_population(&self, out: &mut String) -> std::fmt::Result {
        let full = &self.full_population;
        line(
            out,
            "equivalent to",
            &format!(
                "{} devices of this profile ({:.3} % of {})",
                group(self.device_equivalents.round() as u64),
                100.0 * self.device_equivalents / self.profile.population.max(1) as f64,
                group(self.profile.population)
            ),
        )?;
        let cores =
            full.generator_cores.map_or(String::new(), |cores| format!(", {cores:.0} generator cores"));
        let targets =
            full.targets.map_or(String::new(), |targets| format!(", {targets:.0} targets like this"));
        line(
            out,
            "all of them",
            &format!(
                "{} messages/s, {:.1} Gbit/s{cores}{targets}",
                group(full.msgs_per_s.round() as u64),
                full.gbit_per_s
            ),
        )?;
        for (name, fault) in &self.faults {
            let (sent, acked, rejected) = (group(fault.sent), group(fault.acked), group(fault.rejected));
            line(out, "on purpose", &format!("{name}: {sent} sent, {acked} acked, {rejected} rejected"))?;
        }
        if self.missing_on_purpose > 0 {
            line(out, "on purpose", &format!("missing: {} not sent", group(self.missing_on_purpose)))?;
        }
        Ok(())
    }

    fn write_classes(&self, out: &mut String) -> std::fmt::Result {
        if self.classes.len() < 2 {
            return Ok(());
        }
        writeln!(
            out,
            "\n  {:<16} {:>11} {:>10} {:>10} {:>7} {:>8} {:>9} {:>9} {:>9}",
            "class", "devices", "due", "sent", "share", "profile", "rejected", "p50", "p99"
        )?;
        for class in &self.classes {
            let latency = |us| if class.latency_us.count == 0 { "-".to_owned() } else { time(us) };
            writeln!(
                out,
                "  {:<16} {:>11} {:>10} {:>10} {:>6.2}% {:>7.2}% {:>9} {:>9} {:>9}",
                class.name,
                group(class.devices),
                group(class.intended),
                group(class.sent),
                100.0 * class.share,
                100.0 * class.profile_share,
                group(class.rejected),
                latency(class.latency_us.p50),
                latency(class.latency_us.p99)
            )?;
        }
        Ok(())
    }
}

fn line(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "  {name:<14} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hgrm::Summary;
    use crate::report::Rate;

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
}
