//! The load generator as it is used: real processes, a real node, and what the reports say when something goes wrong.
//!
//! * Coordinated omission: a node that is stopped (SIGSTOP) for two seconds in the middle of a run.
//! * Two workers and a coordinator; and a worker that is killed.
//!
//! Rates are low, so that a debug build on a busy machine keeps them; what is asserted holds on any machine that does.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn weft() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    command
}

/// A child that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

fn node(data: &Path) -> (Process, SocketAddr) {
    let made = weft().args(["init", "--data"]).arg(data).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut child = weft()
        .args(["node", "--listen", "127.0.0.1:0", "--recent-ids-max", "65536", "--segment-bytes", "4MiB"])
        .args(["--free-space-watermark-bytes", "0", "--verify-threads", "1", "--log", "warn", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("the node says where it listens before it ends").unwrap();
        if let Some(rest) = line.trim().strip_prefix("listening") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    (Process(child), address)
}

/// `weft loadgen` with these arguments, its report on stdout.
fn loadgen(arguments: &[&str], home: &Path) -> Child {
    weft()
        .arg("loadgen")
        .args(arguments)
        .env("HOME", home)
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "no report ({error}): {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn us(report: &Value, level: &str) -> u64 {
    report["latency_us"][level].as_u64().unwrap()
}

/// Two seconds of six in which the node does nothing: in the open loop a third of all messages fell due meanwhile and waited up to two
/// seconds; in the closed loop only the batches that were under way did, and the others were never sent.
#[test]
fn a_node_paused_for_two_seconds_shows_in_the_open_loop_and_hides_in_the_closed_one() {
    let scratch = tempfile::tempdir().unwrap();
    let (node, address) = node(&scratch.path().join("ledger"));
    let target = address.to_string();
    let run = |more: &[&str]| {
        let mut arguments = vec![
            "run",
            "flat",
            "--target",
            &target,
            "--seconds",
            "6",
            "--warm-up",
            "1",
            "--json",
            "-",
            "--quiet",
        ];
        arguments.extend(more);
        let child = loadgen(&arguments, scratch.path());
        // One second of warm-up, and the time to start.
        std::thread::sleep(Duration::from_millis(3_500));
        node.signal(Signal::STOP);
        let stopped = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        node.signal(Signal::CONT);
        let paused_us = stopped.elapsed().as_micros() as u64;
        (report(&child.wait_with_output().unwrap()), paused_us)
    };
    let (open, paused_us) = run(&["--rate", "500"]);
    assert_eq!(open["unacked"], 0, "{open}");
    assert_eq!(open["sent_total"], 3_500, "the pause cost no message its place");
    // Whoever fell due right after the stop waited for all of it; a tenth of a second for the machine's own delays.
    assert!(us(&open, "max") + 100_000 > paused_us, "max {} of a pause of {paused_us}", us(&open, "max"));
    assert!(us(&open, "p999") + 150_000 > paused_us, "p99.9 {}", us(&open, "p999"));
    // A third waited, uniformly between nothing and the pause: the 90th percentile is 70 % of it.
    assert!(us(&open, "p90") > paused_us / 2, "p90 {}", us(&open, "p90"));

    let (closed, paused_us) = run(&["--rate", "500", "--closed", "1", "--batch", "4", "--connections", "1"]);
    assert!(us(&closed, "max") + 100_000 > paused_us, "the batch that met the pause: {}", us(&closed, "max"));
    assert!(us(&closed, "p90") < paused_us / 4, "a polite client hides it: p90 {}", us(&closed, "p90"));
    assert!(closed["latency_us"]["count"].as_u64().unwrap() > 400, "not vacuous: {closed}");
    assert_eq!((&open["loop"], &closed["loop"]), (&"open".into(), &"closed".into()));
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn two_workers_report_as_one_and_a_killed_one_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let parts = scratch.path().join("parts");
    for kill in [false, true] {
        let listen = free_port();
        let coordinator = loadgen(
            &[
                "coordinate",
                "world-20b",
                "--target",
                "null",
                "--workers",
                "2",
                "--listen",
                &listen,
                "--rate",
                "2000",
                "--seconds",
                "3",
                "--warm-up",
                "0",
                "--lag-p99-max-ms",
                "500",
                "--drain",
                "2",
                "--parts",
                parts.to_str().unwrap(),
                "--json",
                "-",
                "--quiet",
            ],
            scratch.path(),
        );
        let worker = |name: &str| {
            let arguments = ["worker", "--coordinator", &listen, "--name", name, "--quiet"];
            // The coordinator may not listen yet.
            for _ in 0..100 {
                if std::net::TcpStream::connect(&listen).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Process(loadgen(&arguments, scratch.path()))
        };
        let (_ann, mut ben) = (worker("ann"), worker("ben"));
        if kill {
            std::thread::sleep(Duration::from_millis(3_500));
            ben.0.kill().unwrap();
        }
        let merged = report(&coordinator.wait_with_output().unwrap());
        if kill {
            assert_eq!(merged["valid"], false);
            let reason = merged["invalid_reason"].as_str().unwrap();
            assert!(reason.contains("worker lost") && reason.contains("ben"), "{reason}");
            assert!(
                merged["acked_total"].as_u64().unwrap() > 0,
                "the other one's messages are there: {merged}"
            );
            continue;
        }
        assert_eq!(merged["valid"], true, "{}", merged["invalid_reason"]);
        assert_eq!(merged["profile"]["workers"], 2);
        let mut sum = weft_loadgen::hgrm::new_histogram();
        let mut sent = 0;
        for worker in 0..2 {
            let text = std::fs::read_to_string(parts.join(format!("worker-{worker}.json"))).unwrap();
            let part: weft_loadgen::Report = serde_json::from_str(&text).unwrap();
            sum.add(weft_loadgen::hgrm::decode(&part.histograms.latency).unwrap()).unwrap();
            sent += part.sent_total;
            assert!(part.sent_total > 1_000, "each sends its half: {}", part.sent_total);
        }
        let all = weft_loadgen::hgrm::decode(merged["histograms"]["latency"].as_str().unwrap()).unwrap();
        assert_eq!(all, sum, "the merged histogram is the sum of the parts");
        assert_eq!(merged["sent_total"].as_u64().unwrap(), sent);
    }
}
