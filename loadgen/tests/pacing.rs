//! What a run says about targets that stall and generators that lag, without a network: the null target stands in for a node.
//!
//! Bounds are wide because other tests may share the cores; what is asserted is what no slow machine can turn around.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use weft_loadgen::profile::presets;
use weft_loadgen::{
    NullTarget, Outcome, Phase, Profile, Progress, RunConfig, Schedule, Stall, Stop, Target, Trace, World,
    run,
};

const STALL: Duration = Duration::from_millis(500);

fn config(schedule: Schedule, stall: Option<Duration>) -> RunConfig {
    let stall = stall.map(|at| Stall { at, length: STALL });
    let target = NullTarget { answer_after: Duration::from_micros(500), stall };
    RunConfig {
        schedule,
        connections: 1,
        batch_messages: 16,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(2),
        drain: Duration::from_secs(20),
        devices: 500,
        // Not what these tests are about.
        lag_p99_max: Duration::from_secs(10),
        ..RunConfig::new(Target::Null(target))
    }
}

fn quiet(config: &RunConfig) -> Outcome {
    run(config, &Stop::new(), &mut |_| {}).unwrap()
}

/// Coordinated omission: half a second of silence in two seconds hits a quarter of all users of a fixed rate, and one batch of a client
/// that waits politely.
#[test]
fn a_stall_shows_in_the_open_loop_and_hardly_in_the_closed_one() {
    let at = Some(Duration::from_millis(700));
    let open = quiet(&config(Schedule::Open { rate_per_s: 2_000.0 }, at)).report;
    assert!(open.valid, "{:?}", open.invalid_reason);
    assert_eq!((open.sent_total, open.acked_total), (4_000, 4_000), "the stall cost no message its place");
    let latency = open.latency_us;
    assert!(latency.max >= 450_000 && latency.p999 >= 450_000, "open loop: {latency:?}");
    // A quarter waited, evenly between nothing and the whole stall: a tenth waited 300 ms and more.
    assert!(latency.p90 >= 250_000, "open loop: {latency:?}");

    let closed = quiet(&config(Schedule::Closed { window: 1 }, at)).report;
    let latency = closed.latency_us;
    assert!(latency.max >= 300_000, "the one batch that met the stall waited for its end: {latency:?}");
    assert!(latency.p90 < 250_000, "closed loop: {latency:?}");
    let stalled = closed.latency_us.count / 16;
    assert!(stalled > 20, "not vacuous: {stalled} batches");
    assert_eq!(closed.generator_lag_us.count, 0, "a closed loop has no time of its own to be late for");
}

#[test]
fn a_generator_that_cannot_keep_the_rate_marks_the_run_invalid() {
    let config = RunConfig {
        duration: Duration::from_millis(600),
        drain: Duration::from_millis(200),
        batch_messages: 256,
        devices: 1_000_000,
        lag_p99_max: Duration::from_millis(20),
        ..config(Schedule::Open { rate_per_s: 5e6 }, None)
    };
    let begun = Instant::now();
    let report = quiet(&config).report;
    assert!(!report.valid);
    let reason = report.invalid_reason.unwrap();
    assert!(reason.contains("the generator lagged"), "{reason}");
    assert!(reason.contains("of 3,000,000 intended messages were sent in time"), "{reason}");
    assert!(reason.contains("short of processor time"), "{reason}");
    assert!(report.generator_lag_us.p99 > 20_000);
    assert!(begun.elapsed() < Duration::from_secs(20), "an impossible rate ends in time all the same");
}

/// 256 batches of one message are the credit of the null target: at 2,000 a second it is used up after 130 ms of the stall.
#[test]
fn a_target_that_holds_sends_back_is_told_from_a_late_generator() {
    let config = RunConfig {
        batch_messages: 1,
        flush: Duration::from_micros(500),
        ..config(Schedule::Open { rate_per_s: 2_000.0 }, Some(Duration::from_millis(500)))
    };
    let report = quiet(&config).report;
    assert!(report.held_back_s > 0.1, "held back for {} s", report.held_back_s);
    let (send, generator) = (report.send_lag_us, report.generator_lag_us);
    assert!(send.max > 200_000, "what was held back was sent late: {send:?}");
    assert!(generator.p99 < send.p99, "and that is not the generator's fault: {generator:?} {send:?}");
}

/// At 2,000 a second in batches of 6 the credit of the null target lasts for three quarters of a second of the stall, and the backlog for
/// 32 ms more: for the rest of it the generator may not go on. What fell due meanwhile is made up for in full batches, released long ago.
#[test]
fn a_generator_that_a_full_backlog_held_back_did_not_lag() {
    let config = RunConfig {
        backlog_messages_max: 64,
        flush: Duration::from_millis(3),
        lag_p99_max: Duration::from_millis(200),
        ..config(Schedule::Open { rate_per_s: 2_000.0 }, None)
    };
    let stall = Some(Stall { at: Duration::from_millis(500), length: Duration::from_secs(1) });
    let target = NullTarget { answer_after: Duration::from_micros(500), stall };
    let report = quiet(&RunConfig { target: Target::Null(target), ..config }).report;
    assert!(report.generator.blocked_s > 0.1, "not vacuous: {} s", report.generator.blocked_s);
    let (send, generator) = (report.send_lag_us, report.generator_lag_us);
    assert!(send.p99 > 100_000 && generator.p99 < send.p99 / 3, "{generator:?} {send:?}");
    assert!(report.valid, "{:?}", report.invalid_reason);
}

#[test]
fn a_stopped_run_ends_soon_and_still_reports() {
    let config =
        RunConfig { duration: Duration::from_secs(600), ..config(Schedule::Closed { window: 4 }, None) };
    let stop = Stop::new();
    let begun = Instant::now();
    let mut looks = 0;
    let mut last: Option<Progress> = None;
    let outcome = run(&config, &stop, &mut |progress| {
        looks += 1;
        last = Some(progress.clone());
        stop.request();
    })
    .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30));
    let report = outcome.report;
    assert!(report.stopped && report.valid, "{:?}", report.invalid_reason);
    assert!(report.acked_total > 0 && report.unacked == 0);
    assert!(report.duration_s < 30.0 && report.throughput_msgs_per_s > 0.0);
    assert!(looks >= 2, "one look a second and one at the end");
    let last = last.unwrap();
    assert_eq!((last.phase, last.acked, last.in_flight), (Phase::Draining, report.acked_total, 0));
}

/// What was planned for after the stop, or was due right before it, is not what the generator fell short of.
#[test]
fn an_open_loop_that_is_stopped_stays_valid() {
    let config = RunConfig {
        duration: Duration::from_secs(600),
        lag_p99_max: Duration::from_millis(500),
        ..config(Schedule::Open { rate_per_s: 2_000.0 }, None)
    };
    let stop = Stop::new();
    let report = run(&config, &stop, &mut |_| stop.request()).unwrap().report;
    assert!(report.stopped && report.valid, "{:?}", report.invalid_reason);
    assert!(report.duration_s < 30.0 && report.acked_total > 1_000, "{} acked", report.acked_total);
}

#[test]
fn a_message_limit_is_kept_exactly_in_both_loops() {
    for schedule in [Schedule::Closed { window: 3 }, Schedule::Open { rate_per_s: 5_000.0 }] {
        let config =
            RunConfig { messages_max: 1_001, generator_threads: 3, connections: 2, ..config(schedule, None) };
        let report = quiet(&config).report;
        assert_eq!((report.sent_total, report.acked_total), (1_001, 1_001), "{schedule:?}");
        assert_eq!(report.latency_us.count, 1_001, "{schedule:?}");
        assert!(report.valid, "{schedule:?}: {:?}", report.invalid_reason);
    }
}

/// A profile that has nothing to say at the end of its time: the rate is that of the whole time, not of its noisy part.
#[test]
fn a_silent_end_of_a_run_is_measured_too() {
    let text = "name = \"b\"\nabout = \"b\"\n[[class]]\nname = \"c\"\ndevices = 1000\n\
                payload = { kind = \"fixed\", bytes = 64 }\n[[class.stream]]\narrival = \"beta\"\n\
                every_s = 100.0\nwindow_s = 0.4\n";
    let world = World::new(std::sync::Arc::new(Profile::parse(text).unwrap()));
    let config = RunConfig {
        world: Some(world.clone()),
        ..config(Schedule::Open { rate_per_s: world.rate_per_s() }, None)
    };
    let report = quiet(&config).report;
    assert!(report.valid, "{:?}", report.invalid_reason);
    assert_eq!(
        (report.sent_total, report.classes[0].intended, report.classes[0].sent),
        (1_000, 1_000, 1_000)
    );
    assert!((report.duration_s - 2.0).abs() < 1e-6, "{}", report.duration_s);
    assert!((report.throughput_msgs_per_s - 500.0).abs() < 1.0, "{}", report.throughput_msgs_per_s);
}

#[test]
fn warm_up_is_sent_but_not_measured() {
    let config = RunConfig {
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(1),
        ..config(Schedule::Open { rate_per_s: 1_000.0 }, None)
    };
    let report = quiet(&config).report;
    assert_eq!((report.sent_total, report.acked_total, report.latency_us.count), (2_000, 2_000, 1_000));
    assert!((report.duration_s - 1.0).abs() < 1e-6 && report.elapsed_s >= 2.0);
    assert!(report.generator.keys_derived <= 500 && report.generator.messages == 2_000);
}

/// What was recorded is played as it was: time, device, size and class of every message, ties included. Recorded once more, a replay is the
/// same file, and at twice the speed it is over in half the time.
#[test]
fn a_replayed_schedule_is_the_recorded_one() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.csv"), dir.path().join("second.csv"));
    let mut world = World::new(std::sync::Arc::new(presets::load("world-20b").unwrap()));
    world.scale = 2e-5;
    let classes: Vec<String> = world.profile.classes.iter().map(|class| class.name.clone()).collect();
    let recorded = RunConfig {
        schedule: Schedule::Open { rate_per_s: world.rate_per_s() },
        world: Some(world.clone()),
        duration: Duration::from_millis(1_500),
        record: Some(first.clone()),
        ..config(Schedule::Open { rate_per_s: 1.0 }, None)
    };
    let original = quiet(&recorded).report;
    assert!(original.problems.is_empty(), "{:?}", original.problems);
    let trace = std::sync::Arc::new(Trace::open(&first, classes).unwrap());
    assert_eq!(trace.events(), original.sent_total);
    assert!(trace.events() > 2_000 && trace.last_us() < 1_500_000, "not vacuous: {}", trace.events());
    assert!(trace.device_max() > 10_000_000_000);

    world.scale = 1.0;
    let replayed = RunConfig {
        schedule: Schedule::Open { rate_per_s: trace.rate_per_s() },
        world: Some(world.clone()),
        record: Some(second.clone()),
        replay: Some(trace.clone()),
        ..recorded
    };
    let again = quiet(&replayed).report;
    assert_eq!(again.sent_total, original.sent_total);
    for (one, other) in original.classes.iter().zip(&again.classes) {
        assert_eq!((&one.name, one.intended, one.sent), (&other.name, other.intended, other.sent));
    }
    let bytes = |report: &weft_loadgen::Report| report.classes.iter().map(|class| class.bytes).sum::<u64>();
    assert_eq!(bytes(&again), bytes(&original), "sizes are those of the trace");
    let text = |path| std::fs::read_to_string(path).unwrap();
    assert!(text(&first) == text(&second), "the trace of a replay is the trace that was played");
    assert_eq!(again.replay.unwrap().messages, original.sent_total);
    assert_eq!(again.device_equivalents, 0.0, "a trace stands for no number of the profile's devices");

    world.speedup = 3.0;
    let fast = RunConfig {
        schedule: Schedule::Open { rate_per_s: 3.0 * trace.rate_per_s() },
        world: Some(world),
        record: None,
        duration: Duration::from_secs(60),
        ..replayed
    };
    let fast = quiet(&fast).report;
    assert_eq!(fast.sent_total, original.sent_total);
    assert!(fast.duration_s < 3.0, "it ends when the trace does: {} s", fast.duration_s);
    assert!(fast.valid, "{:?}", fast.invalid_reason);
}
