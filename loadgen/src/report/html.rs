//! A report as one HTML file that needs nothing else: style, plots and figures inside, no script, no reference to anywhere.
//!
//! Owns the page. Every figure comes from the report; plots of latency by percentile come from its encoded histograms. What a report cannot
//! show (a histogram that does not decode) is named in its place.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::svg::{Axis, Scale, Series, escape, plot};
use super::{Report, group, time};
use crate::hgrm::{Summary, decode};

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1c2430;--bg:#fff;--soft:#5b6675;--grid:#dde2e9;--card:#f5f7fa;--ok:#1a7f4b;--bad:#c0312b}\
@media (prefers-color-scheme:dark){:root{--fg:#e4e8ee;--bg:#12161c;--soft:#9aa5b4;--grid:#2b323c;--card:#1a2029;--ok:#4cc38a;--bad:#ff7a70}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:1080px;padding:24px 20px 60px;background:var(--bg);color:var(--fg);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:34px 0 10px}\
.verdict{display:inline-block;padding:2px 10px;border-radius:4px;color:#fff;font-weight:600}.ok{background:var(--ok)}.bad{background:var(--bad)}\
.soft{color:var(--soft)}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:18px 0}\
.card{background:var(--card);border-radius:6px;padding:12px 14px}.card b{display:block;font-size:21px}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(460px,1fr));gap:18px}figure{margin:0;background:var(--card);border-radius:6px;padding:12px}\
figcaption{font-weight:600;margin-bottom:6px}svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}\
.grid{stroke:var(--grid);stroke-width:1}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dashed{stroke-dasharray:5 4}\
.s0{stroke:#2f6fde}.s1{stroke:#e0702a}.s2{stroke:#2a9d62}.s3{stroke:#b5429c}.s4{stroke:#8a6d1f}.s5{stroke:#6b7685}\
.legend{font-size:12.5px;color:var(--soft);display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:6px}\
.legend i{display:inline-block;width:16px;height:3px;margin-right:6px;vertical-align:middle}\
.k0{background:#2f6fde}.k1{background:#e0702a}.k2{background:#2a9d62}.k3{background:#b5429c}.k4{background:#8a6d1f}.k5{background:#6b7685}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:5px 8px;white-space:nowrap;border-bottom:1px solid var(--grid);text-align:right}\
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}td.text{white-space:normal;text-align:left}.wide{overflow-x:auto}.wide table{font-size:13px}.wide th,.wide td{padding:5px 6px}\
.bar{background:#2f6fde;height:9px;border-radius:2px;display:inline-block}code,pre{font:13px/1.45 ui-monospace,monospace}\
pre{background:var(--card);padding:10px 12px;border-radius:6px;white-space:pre-wrap;word-break:break-word}";

impl Report {
    /// The report as one self-contained HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_html(&mut out);
        out
    }

    fn write_html(&self, out: &mut String) -> std::fmt::Result {
        let name = escape(&self.profile.name);
        writeln!(
            out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>weft loadgen: {name}</title><style>{STYLE}</style></head><body>"
        )?;
        let (class, word) = if self.valid { ("ok", "valid") } else { ("bad", "INVALID") };
        writeln!(out, "<h1>{name} <span class=\"verdict {class}\">{word}</span></h1>")?;
        if let Some(reason) = &self.invalid_reason {
            writeln!(out, "<p><b>Why it is invalid:</b> {}</p>", escape(reason))?;
        }
        writeln!(
            out,
            "<p class=\"soft\">{} loop, {:.1} s measured after {:.1} s of warm-up, target {}, acks mean <b>{}</b>, signing {}, \
             topology {}; began {}</p>",
            escape(&self.loop_mode),
            self.duration_s,
            self.warm_up_s,
            escape(&self.target),
            escape(&self.ack_level),
            escape(&self.signing),
            escape(&self.topology),
            escape(&self.started_at)
        )?;
        self.cards(out)?;
        self.plots(out)?;
        self.latencies(out)?;
        self.per_class(out)?;
        self.per_status(out)?;
        self.circumstances(out)?;
        out.push_str("</body></html>\n");
        Ok(())
    }

    fn cards(&self, out: &mut String) -> std::fmt::Result {
        let whole = |value: f64| group(value.round() as u64);
        let latency = |us: u64| if self.latency_us.count == 0 { "-".to_owned() } else { time(us) };
        let intended = self.rate.intended_per_s.map_or("as fast as acks come".to_owned(), |rate| {
            let achieved = if rate > 0.0 { 100.0 * self.rate.achieved_per_s / rate } else { 0.0 };
            format!("{} intended, {achieved:.2} % of it sent", whole(rate))
        });
        let full = &self.full_population;
        let cards = [
            ("messages a second, acked", whole(self.throughput_msgs_per_s), intended),
            (
                "latency, 99th percentile",
                latency(self.latency_us.p99),
                format!(
                    "median {}, 99.9 % {}, max {}",
                    latency(self.latency_us.p50),
                    latency(self.latency_us.p999),
                    latency(self.latency_us.max)
                ),
            ),
            (
                "device-equivalents",
                whole(self.device_equivalents),
                format!("of {} in the profile", group(self.profile.population)),
            ),
            (
                "the whole population",
                format!("{} /s", whole(full.msgs_per_s)),
                format!(
                    "{:.1} Gbit/s{}{}",
                    full.gbit_per_s,
                    full.generator_cores
                        .map_or(String::new(), |cores| format!(", {cores:.0} generator cores")),
                    full.targets.map_or(String::new(), |targets| format!(", {targets:.0} such targets"))
                ),
            ),
        ];
        out.push_str("<div class=\"cards\">");
        for (what, value, more) in cards {
            write!(
                out,
                "<div class=\"card\"><span class=\"soft\">{}</span><b>{}</b><span class=\"soft\">{}</span></div>",
                escape(what),
                escape(&value),
                escape(&more)
            )?;
        }
        out.push_str("</div>\n");
        Ok(())
    }

    fn plots(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("<div class=\"plots\">\n");
        let mut curves = Vec::new();
        let mut problems = Vec::new();
        for (name, text) in [
            ("latency (due to ack)", &self.histograms.latency),
            ("service time (sent to ack)", &self.histograms.service_time),
        ] {
            match decode(text) {
                Ok(histogram) => curves.push(Series {
                    name,
                    points: by_percentile(&histogram),
                    dashed: name.starts_with("service"),
                }),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        out.push_str(&plot("Latency by percentile", &percentile_axis(), &milliseconds(Scale::Log), &curves));
        for problem in problems {
            writeln!(out, "<p>No curve of {}</p>", escape(&problem))?;
        }
        let seconds = || Axis { title: "seconds since the start", scale: Scale::Linear, ticks: Vec::new() };
        let over = |value: fn(&super::Moment) -> Option<f64>| -> Vec<(f64, f64)> {
            self.timeline.iter().filter_map(|moment| Some((moment.at_s, value(moment)?))).collect()
        };
        let mut rates = Vec::new();
        if self.rate.intended_per_s.is_some() {
            rates.push(Series {
                name: "intended (due by the models)",
                points: over(|moment| moment.intended_per_s),
                dashed: true,
            });
        }
        rates.push(Series { name: "sent", points: over(|moment| Some(moment.sent_per_s)), dashed: false });
        rates.push(Series { name: "acked", points: over(|moment| Some(moment.acked_per_s)), dashed: false });
        rates.push(Series {
            name: "rejected",
            points: over(|moment| Some(moment.rejected_per_s)),
            dashed: false,
        });
        let per_second = Axis { title: "messages per second", scale: Scale::Linear, ticks: Vec::new() };
        out.push_str(&plot("Rate intended and achieved, over time", &seconds(), &per_second, &rates));
        let heard = |pick: fn(&Summary) -> u64| -> Vec<(f64, f64)> {
            let heard = self.timeline.iter().filter(|moment| moment.latency_us.count > 0);
            heard.map(|moment| (moment.at_s, pick(&moment.latency_us).max(1) as f64 / 1e3)).collect()
        };
        let lines = [
            Series { name: "max", points: heard(|summary| summary.max), dashed: false },
            Series { name: "p99.9", points: heard(|summary| summary.p999), dashed: false },
            Series { name: "p99", points: heard(|summary| summary.p99), dashed: false },
            Series { name: "p50", points: heard(|summary| summary.p50), dashed: false },
        ];
        out.push_str(&plot(
            "Latency over time, by time of ack",
            &seconds(),
            &milliseconds(Scale::Log),
            &lines,
        ));
        let lags: Vec<Series<'_>> =
            [("send lag", &self.histograms.send_lag), ("generator lag", &self.histograms.generator_lag)]
                .into_iter()
                .filter_map(|(name, text)| {
                    let histogram = decode(text).ok().filter(|histogram| !histogram.is_empty())?;
                    Some(Series { name, points: by_percentile(&histogram), dashed: false })
                })
                .collect();
        if !lags.is_empty() {
            out.push_str(&plot(
                "How late the generator was, by percentile",
                &percentile_axis(),
                &milliseconds(Scale::Log),
                &lags,
            ));
        }
        out.push_str("</div>\n");
        Ok(())
    }

    fn latencies(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(
            "<h2>Times</h2><div class=\"wide\"><table><tr><th></th><th>messages</th><th>p50</th><th>p90</th><th>p99</th>\
             <th>p99.9</th><th>p99.99</th><th>max</th><th>mean</th></tr>",
        );
        for (name, summary) in [
            ("latency: due (or wanted) to acked", &self.latency_us),
            ("service time: sent to acked", &self.service_time_us),
            ("send lag: due to sent", &self.send_lag_us),
            ("generator lag: its own part of it", &self.generator_lag_us),
            ("handshake", &self.handshake_us),
        ] {
            if summary.count == 0 {
                continue;
            }
            write!(out, "<tr><td>{name}</td><td>{}</td>", group(summary.count))?;
            for us in [
                summary.p50,
                summary.p90,
                summary.p99,
                summary.p999,
                summary.p9999,
                summary.max,
                summary.mean as u64,
            ] {
                write!(out, "<td>{}</td>", time(us))?;
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></div>\n");
        Ok(())
    }

    fn per_class(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(
            "<h2>By class of device</h2><div class=\"wide\"><table><tr><th>class</th><th>devices</th><th>due</th><th>model</th><th>sent</th>\
             <th>share</th><th>share in the profile</th><th></th><th>rejected</th><th>p50</th><th>p99</th><th>max</th></tr>",
        );
        let most = self.classes.iter().map(|class| class.share).fold(1e-9, f64::max);
        for class in &self.classes {
            let latency = |us| if class.latency_us.count == 0 { "-".to_owned() } else { time(us) };
            write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2} %</td><td>{:.2} %</td>\
                 <td style=\"text-align:left;min-width:90px\"><span class=\"bar\" style=\"width:{:.0}px\"></span></td>\
                 <td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&class.name),
                group(class.devices),
                group(class.intended),
                group(class.expected.round() as u64),
                group(class.sent),
                100.0 * class.share,
                100.0 * class.profile_share,
                85.0 * class.share / most,
                group(class.rejected),
                latency(class.latency_us.p50),
                latency(class.latency_us.p99),
                latency(class.latency_us.max)
            )?;
        }
        out.push_str("</table></div>\n");
        Ok(())
    }

    fn per_status(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("<h2>By status</h2><table><tr><th>status</th><th>messages</th><th>share</th></tr>");
        let sent = self.sent_total.max(1) as f64;
        let acked = format!("acked ({})", self.ack_level);
        let rows = std::iter::once((acked, self.acked_total))
            .chain(self.rejected.iter().map(|(name, count)| (format!("rejected: {name}"), *count)))
            .chain(std::iter::once(("never answered".to_owned(), self.unacked)));
        for (name, count) in rows {
            write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{:.4} %</td></tr>",
                escape(&name),
                group(count),
                100.0 * count as f64 / sent
            )?;
        }
        out.push_str("</table>\n");
        if !self.faults.is_empty() || self.missing_on_purpose > 0 {
            out.push_str("<h2>Faults made on purpose</h2><table><tr><th>fault</th><th>sent</th><th>acked</th><th>rejected</th></tr>");
            for (name, fault) in &self.faults {
                write!(
                    out,
                    "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                    escape(name),
                    group(fault.sent),
                    group(fault.acked),
                    group(fault.rejected)
                )?;
            }
            writeln!(
                out,
                "</table><p class=\"soft\">{} messages were left out.</p>",
                group(self.missing_on_purpose)
            )?;
        }
        if let Some(audit) = &self.audit {
            writeln!(out, "<p><b>Audit:</b> {}</p>", escape(&audit.to_string()))?;
        }
        for problem in &self.problems {
            writeln!(out, "<p><b>Problem:</b> {}</p>", escape(problem))?;
        }
        Ok(())
    }

    fn circumstances(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        let generator = &self.generator;
        let at = self
            .profile
            .at_hour
            .map_or("the mean of the day".to_owned(), |hour| format!("from {hour:.2} h UTC"));
        let disk = machine.disk.as_ref().map(|disk| format!("{} on {}", disk.file_system, disk.device));
        let rows = [
            (
                "profile",
                format!(
                    "{}, scale {:e}, speedup {}, {at}, shape {}, seed {}",
                    self.profile.name,
                    self.profile.scale,
                    self.profile.speedup,
                    self.profile.shape,
                    self.seed
                ),
            ),
            ("devices", format!("{} of {}", group(self.devices), group(self.profile.population))),
            (
                "load",
                format!(
                    "{} connections, batches of up to {}, message {:.0} bytes on average",
                    self.connections, self.batch, self.message_bytes
                ),
            ),
            (
                "generator",
                format!(
                    "{} threads, {} lanes, {:.0} % busy, {} us of processor a message, {} keys derived",
                    generator.threads,
                    generator.signer,
                    100.0 * generator.busy_share,
                    or_unknown(generator.cpu_us_per_message.map(|us| us.to_string())),
                    group(generator.keys_derived)
                ),
            ),
            ("handshakes", self.handshakes.as_ref().map_or("none: gateways".to_owned(), ToString::to_string)),
            (
                "trace",
                self.replay.as_ref().map_or("none: the models of the profile".to_owned(), |trace| {
                    format!("{}, {} messages, {:.1} s", trace.file, group(trace.messages), trace.length_s)
                }),
            ),
            ("verifier of the target", or_unknown(self.backend.clone())),
            (
                "memory",
                or_unknown(self.memory_peak_bytes.map(|bytes| format!("{} MiB at most", bytes >> 20))),
            ),
            (
                "machine",
                format!(
                    "{} x {}",
                    or_unknown(machine.cores.map(|cores| cores.to_string())),
                    or_unknown(machine.cpu_model.clone())
                ),
            ),
            ("instruction sets", machine.cpu_flags.join(" ")),
            ("GPU", or_unknown(machine.gpu.clone())),
            ("kernel", or_unknown(machine.kernel.clone())),
            ("disk of the target", or_unknown(disk)),
            ("commit", or_unknown(self.commit.clone())),
            ("version", format!("{}, report schema {}", self.version, self.schema)),
        ];
        out.push_str("<h2>Circumstances</h2><table>");
        for (name, value) in rows {
            write!(out, "<tr><td>{name}</td><td class=\"text\">{}</td></tr>", escape(&value))?;
        }
        out.push_str("</table>\n");
        if let Some(command) = &self.command_line {
            writeln!(out, "<h2>Run it again</h2><pre>{}</pre>", escape(command))?;
        }
        Ok(())
    }
}

/// Percentile levels as places: `1 / (1 - level)` on a logarithmic axis, as the published plotters have it.
fn percentile_axis() -> Axis<'static> {
    let ticks =
        [("0 %", 1.0), ("90 %", 10.0), ("99 %", 100.0), ("99.9 %", 1e3), ("99.99 %", 1e4), ("99.999 %", 1e5)];
    Axis {
        title: "percentile",
        scale: Scale::Log,
        ticks: ticks.into_iter().map(|(text, place)| (place, text.to_owned())).collect(),
    }
}

fn milliseconds(scale: Scale) -> Axis<'static> {
    Axis { title: "milliseconds", scale, ticks: Vec::new() }
}

/// Place (see [`percentile_axis`]) and milliseconds of each level.
fn by_percentile(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let most = (histogram.len() as f64).clamp(10.0, 1e5);
    histogram
        .iter_quantiles(10)
        .map(|step| {
            let place = 1.0 / (1.0 - step.quantile_iterated_to()).max(1.0 / most);
            (place, step.value_iterated_to().max(1) as f64 / 1e3)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hgrm::{encode, new_histogram};
    use crate::report::{ClassReport, Histograms, Moment, Rate};

    fn report() -> Report {
        let mut latency = new_histogram();
        (1..20_000u64).for_each(|value| latency.record(value).unwrap());
        let text = encode(&latency).unwrap();
        let moment = |second: u64| Moment {
            at_s: second as f64,
            seconds: 1.0,
            intended_per_s: Some(1_000.0),
            sent_per_s: 990.0 + second as f64,
            acked_per_s: 980.0,
            latency_us: Summary::of(&latency),
            ..Moment::default()
        };
        Report {
            valid: true,
            rate: Rate { intended_per_s: Some(1_000.0), achieved_per_s: 999.0 },
            latency_us: Summary::of(&latency),
            timeline: (1..60).map(moment).collect(),
            classes: vec![ClassReport {
                name: "<b>cars</b>".to_owned(),
                share: 1.0,
                ..ClassReport::default()
            }],
            histograms: Histograms {
                latency: text.clone(),
                service_time: text.clone(),
                send_lag: text.clone(),
                generator_lag: text,
                handshake: String::new(),
                classes: Vec::new(),
            },
            command_line: Some("weft loadgen run x --target 127.0.0.1:1 && echo <done>".to_owned()),
            ..Report::default()
        }
    }

    #[test]
    fn the_page_has_its_plots_and_refers_to_nothing_outside() {
        let page = report().html();
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("<path").count(), 2 + 4 + 4 + 2);
        for outside in ["http:", "https:", "<script", "<link", "@import", "url(", "src=", "href=", "//"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(
            page.contains("&lt;b&gt;cars") && !page.contains("<b>cars") && page.contains("echo &lt;done&gt;")
        );
        assert!(!page.contains("NaN") && !page.contains(">inf"));
    }

    #[test]
    fn a_report_without_histograms_says_so() {
        let page = Report::default().html();
        assert!(page.contains("No curve of latency") && page.ends_with("</html>\n"));
    }
}
