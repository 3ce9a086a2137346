//! The load generator as it is used: real processes, a real node, and what the reports say when something goes wrong.
//!
//! * Coordinated omission: a node that is stopped (SIGSTOP) for two seconds in the middle of a run.
//! * Two workers and a coordinator; and a worker that is killed.
//! * A connection for each device: handshakes counted, limited, and refused by the node.
//! * A node that is killed in the middle of a run and started again: every message that it acked is read back; and one that never is.
//! * A rate that the profile's devices cannot have.
//! * The highest rate that holds an objective, and what is written of it.
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
    start(data, "127.0.0.1:0", &[])
}

/// Starts a node on a ledger that is there.
fn start(data: &Path, listen: &str, more: &[&str]) -> (Process, SocketAddr) {
    let mut child = weft()
        .args(["node", "--listen", listen, "--recent-ids-max", "65536", "--segment-bytes", "4MiB"])
        .args(["--free-space-watermark-bytes", "0", "--verify-threads", "1", "--log", "warn"])
        .args(more)
        .arg("--data")
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
        let workers = merged["workers"].as_array().unwrap();
        assert_eq!(workers.len(), 2, "{workers:?}");
        assert!(workers.iter().all(|worker| worker["clock_error_us"].is_u64()), "{workers:?}");
        assert!(workers.iter().all(|worker| worker["clock_offset_us"].is_i64()), "{workers:?}");
    }
}

/// 30 devices a second, each once: as many handshakes, at most 16 connections at once.
#[test]
fn in_the_direct_topology_each_device_has_a_connection_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("ledger");
    let (node, address) = node(&data);
    let run = |target: &SocketAddr, more: &[&str]| {
        let target = target.to_string();
        let mut arguments = vec!["run", "flat", "--target", &target, "--rate", "30", "--warm-up", "0"];
        arguments.extend(["--topology", "direct", "--lag-p99-max-ms", "1000", "--json", "-", "--quiet"]);
        arguments.extend(more);
        report(&loadgen(&arguments, scratch.path()).wait_with_output().unwrap())
    };
    let free = run(&address, &["--seconds", "4", "--connections", "16", "--handshakes-per-s", "200"]);
    assert_eq!(free["valid"], true, "{}", free["invalid_reason"]);
    let handshakes = &free["handshakes"];
    assert_eq!((&free["acked_total"], &handshakes["attempted"]), (&120.into(), &120.into()), "{handshakes}");
    assert_eq!((&handshakes["succeeded"], &handshakes["failed"]), (&120.into(), &0.into()));
    let open = handshakes["open_max"].as_u64().unwrap();
    assert!((2..=16).contains(&open), "{open} at once");
    assert_eq!(free["handshake_us"]["count"], 120);
    assert!(free["handshake_us"]["p50"].as_u64().unwrap() > 100, "{}", free["handshake_us"]);
    assert!(us(&free, "p50") > free["handshake_us"]["p50"].as_u64().unwrap(), "latency holds the handshake");

    // Ten a second for thirty devices: what was due waits for its turn, and the report says for what.
    let limited = run(&address, &["--seconds", "2", "--connections", "16", "--handshakes-per-s", "10"]);
    assert_eq!((&limited["valid"], &limited["acked_total"]), (&false.into(), &60.into()), "{limited}");
    let reason = limited["invalid_reason"].as_str().unwrap();
    assert!(reason.contains("for their turn (10 a second)"), "{reason}");
    assert!(us(&limited, "max") > 2_500_000, "the last waited for four seconds: {}", limited["latency_us"]);

    // A node that takes fewer connections than the pool holds open refuses the others, whose messages stay unsent.
    drop(node);
    let (_node, address) = start(&data, "127.0.0.1:0", &["--connections-max", "4"]);
    let refused = run(&address, &["--seconds", "2", "--connections", "16", "--handshakes-per-s", "200"]);
    let (handshakes, acked) = (&refused["handshakes"], refused["acked_total"].as_u64().unwrap());
    assert!(handshakes["failed_by"]["refused"].as_u64().unwrap() > 10, "{handshakes}");
    assert_eq!(
        acked + handshakes["messages_unsent"].as_u64().unwrap(),
        60,
        "sent or counted as not: {handshakes}"
    );
    assert!(refused["invalid_reason"].as_str().unwrap().contains("handshakes failed"), "{refused}");
}

/// Killed (SIGKILL) in the middle of a run and started again on the same directory and port. The run is invalid, as it must be; what was
/// acked before is all there, read from a process that never took it.
#[test]
fn an_audit_waits_for_a_node_that_is_restarted_and_finds_all_that_was_acked() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("ledger");
    let (node, address) = node(&data);
    let target = address.to_string();
    let audited = |max: &str| {
        let arguments =
            ["run", "flat", "--target", &target, "--rate", "400", "--seconds", "3", "--warm-up", "0"];
        let more = ["--drain", "1", "--audit", "--audit-restart", "--audit-wait", "120", "--audit-max", max];
        let rest = ["--lag-p99-max-ms", "1000", "--json", "-", "--quiet"];
        loadgen(&[&arguments[..], &more[..], &rest[..]].concat(), scratch.path())
    };
    let run = audited("1000000");
    std::thread::sleep(Duration::from_millis(2_000));
    drop(node);
    std::thread::sleep(Duration::from_millis(300));
    let (node, again) = start(&data, &target, &[]);
    assert_eq!(again, address);
    let killed = report(&run.wait_with_output().unwrap());
    let (acked, audit) = (killed["acked_total"].as_u64().unwrap(), &killed["audit"]);
    assert!(acked > 100, "not vacuous: {killed}");
    assert_eq!((audit["checked"].as_u64(), audit["total"].as_u64()), (Some(acked), Some(acked)), "{audit}");
    assert_eq!((&audit["missing"], &audit["invalid"]), (&0.into(), &0.into()), "{audit}");
    assert_eq!(audit["checked_after_restart"].as_u64(), Some(acked), "{audit}");
    assert_eq!(killed["valid"], false, "what was under way was never answered");

    // Restarted after the run: a sample is read back, and only once the node is another process.
    let run = audited("300");
    std::thread::sleep(Duration::from_millis(6_500));
    drop(node);
    let (_node, _) = start(&data, &target, &[]);
    let sampled = report(&run.wait_with_output().unwrap());
    let audit = &sampled["audit"];
    assert_eq!((&sampled["valid"], &sampled["acked_total"]), (&true.into(), &1_200.into()), "{sampled}");
    assert!(audit["sampled_one_in"].as_u64().unwrap() >= 4, "{audit}");
    let checked = audit["checked"].as_u64().unwrap();
    assert!(
        (50..=300).contains(&checked) && audit["checked_after_restart"].as_u64() == Some(checked),
        "{audit}"
    );
    assert!(
        audit["waits"].as_u64().unwrap() >= 1 && audit["missing"] == 0 && audit["invalid"] == 0,
        "{audit}"
    );
}

/// The node is never restarted, so nothing can be read from a process that never took the messages: the run's figures stand, and the exit
/// code says that the audit does not.
#[test]
fn an_audit_that_is_broken_off_says_so_in_the_report_and_by_the_exit_code() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("ledger");
    let (_node, address) = node(&data);
    let target = address.to_string();
    let arguments = ["run", "flat", "--target", &target, "--rate", "200", "--seconds", "1", "--warm-up", "0"];
    let more = [
        "--lag-p99-max-ms",
        "1000",
        "--audit",
        "--audit-restart",
        "--audit-wait",
        "1",
        "--json",
        "-",
        "--quiet",
    ];
    let output = loadgen(&[&arguments[..], &more[..]].concat(), scratch.path()).wait_with_output().unwrap();
    let report = report(&output);
    assert_eq!((&report["valid"], &report["acked_total"]), (&true.into(), &200.into()), "{report}");
    let audit = &report["audit"];
    assert_eq!((&audit["checked"], &audit["total"]), (&0.into(), &200.into()), "{audit}");
    assert!(audit["broken_off"].as_str().unwrap().contains("0 of 200"), "{audit}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_rate_above_what_all_devices_send_is_refused_and_not_played_at_less() {
    let scratch = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let arguments = ["run", "flat", "--target", "null", "--seconds", "0.2", "--warm-up", "0", "--quiet"];
        loadgen(&[&arguments[..], more].concat(), scratch.path()).wait_with_output().unwrap()
    };
    let refused = run(&["--rate", "150000"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{why}");
    assert!(
        why.contains("--rate 150000") && why.contains("100000 messages a second at --speedup 1"),
        "{why}"
    );
    let faster = run(&["--rate", "1500", "--speedup", "2", "--lag-p99-max-ms", "1000"]);
    assert!(faster.status.success(), "{}", String::from_utf8_lossy(&faster.stderr));
}

/// All that the profile's devices send is held, so that the search is over after one short trial and three that confirm it.
#[test]
fn a_search_says_what_it_found_and_on_what_with_which_settings() {
    let scratch = tempfile::tempdir().unwrap();
    let profile = "name = \"small\"\nabout = \"t\"\n[[class]]\nname = \"meter\"\ndevices = 200\n\
                   payload = { kind = \"fixed\", bytes = 32 }\n[[class.stream]]\narrival = \"periodic\"\nperiod_s = 1.0\n";
    let path = scratch.path().join("small.toml");
    std::fs::write(&path, profile).unwrap();
    let arguments = "--target null --find-max p99<=2s --seconds 2 --warm-up 0 --connections 3 --batch 9 --seed 77 \
                     --lag-p99-max-ms 1500 --dirty bad_signature=0.05 --json - --quiet";
    let arguments: Vec<&str> =
        ["run", path.to_str().unwrap()].into_iter().chain(arguments.split_whitespace()).collect();
    let found = report(&loadgen(&arguments, scratch.path()).wait_with_output().unwrap());
    assert_eq!((&found["nominal_rate_per_s"], &found["schema"]), (&200.0.into(), &1.into()), "{found}");
    assert!((170.0..230.0).contains(&found["rate_per_s"].as_f64().unwrap()), "{found}");
    let trials = found["trials"].as_array().unwrap();
    assert!(trials.len() >= 4 && trials.iter().all(|trial| trial["refused_share"] == 0.0), "{found}");
    for (name, value) in [
        ("objective", Value::from("p99<=2.00s")),
        ("profile", "small".into()),
        ("population", 200.into()),
        ("seed", 77.into()),
        ("target", "null".into()),
        ("ack_level", "none".into()),
        ("topology", "gateway".into()),
        ("handshakes_per_s_max", Value::Null),
        ("connections", 3.into()),
        ("batch", 9.into()),
        ("flush_us", 2_000.into()),
        ("signing", "live".into()),
        ("generator_threads", 1.into()),
        ("lag_p99_us_max", 1_500_000.into()),
        ("warm_up_s", 0.0.into()),
        ("trial_s", 2.0.into()),
        ("speedup", 1.0.into()),
        ("at_hour", Value::Null),
    ] {
        assert_eq!(found[name], value, "{name}: {found}");
    }
    assert!(found["faults"]["bad_signature"]["sent"].as_u64().unwrap() > 0, "{found}");
    for name in ["version", "started_at", "signer", "command_line"] {
        assert!(found[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {found}");
    }
    for name in ["cpu_model", "cpu_flags", "kernel", "gpu"] {
        assert!(found["machine"].get(name).is_some(), "{name}: {found}");
    }
    assert!(found.get("commit").is_some() && found.get("backend").is_some(), "{found}");
}
