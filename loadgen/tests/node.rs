//! Runs and audits over the real wire on loopback, against a service that keeps what it gets in memory and can be told to misbehave.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use weft_core::{GenesisId, LaneId, MessageId, MessageView, Place, Reason};
use weft_crypto::{Backend, SerialBatch};
use weft_loadgen::cluster::{CoordinateOptions, Job, Seen, coordinate, serve};
use weft_loadgen::{
    AckedLog, AuditOptions, AuditReport, LoadError, NodeTarget, Outcome, Profile, RunConfig, Schedule, Stop,
    Target, Topology, World, audit, run,
};
use weft_net::{
    Ack, AckException, AckLevel, Found, Identity, NodeState, Refusal, Server, ServerConfig, ServerHandle,
    Service, SessionHandle, Status, Submit, Trust, WelcomeInfo,
};

const GENESIS: GenesisId = GenesisId([7; 32]);

/// A ledger in memory.
#[derive(Default)]
struct Fake {
    stored: Mutex<HashMap<MessageId, Vec<u8>>>,
    /// Requests to refuse before taking any.
    refuse_first: AtomicU32,
    /// One message in this many is rejected; 0 for none.
    reject_one_in: u32,
    /// What is said to those who want messages back, and how often before they get them.
    get_refusal: Option<(fn() -> Refusal, AtomicU32)>,
}

impl Service for Fake {
    fn welcome(&self) -> WelcomeInfo {
        WelcomeInfo {
            network: GENESIS.network(),
            genesis: GENESIS,
            ack_level_max: AckLevel::Durable,
            payload_bytes_max: 1_024,
            clock_ahead_us_max: 300_000_000,
            clock_behind_us_max: 300_000_000,
            now_us: 0,
            node_name: "fake".to_owned(),
        }
    }

    async fn submit(&self, submit: Submit, session: SessionHandle) -> Result<(), Refusal> {
        let refuse = |left: u32| left.checked_sub(1);
        if self.refuse_first.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok() {
            return Err(Refusal::overloaded(20, "full"));
        }
        let mut exceptions = Vec::new();
        let mut tips = Vec::new();
        for (index, bytes) in submit.iter().enumerate() {
            let message = MessageView::parse(bytes).expect("the generator writes messages");
            assert_eq!(message.network(), GENESIS.network());
            if self.reject_one_in > 0 && (index as u32).is_multiple_of(self.reject_one_in) {
                exceptions.push(AckException::new(index as u32, Reason::IssuerLimit.with(1, 0)));
                continue;
            }
            let mut stored = self.stored.lock().unwrap();
            let roots = GENESIS.roots();
            for parent in message.parents() {
                assert!(roots.contains(parent) || stored.contains_key(parent), "parents are known messages");
            }
            stored.insert(message.id(), bytes.to_vec());
            tips = vec![message.id(), *message.parents().first().unwrap()];
        }
        let ack = Ack {
            request_id: submit.request_id(),
            level: session.ack_level(),
            count: submit.len() as u32,
            exceptions,
            tips,
        };
        session.ack(ack);
        Ok(())
    }

    async fn tips(&self, _count: usize) -> Result<Vec<MessageId>, Refusal> {
        Ok(GENESIS.roots().to_vec())
    }

    async fn get(&self, ids: Vec<MessageId>) -> Result<Vec<Option<Found>>, Refusal> {
        if let Some((refusal, times)) = &self.get_refusal {
            let left = times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() {
                return Err(refusal());
            }
        }
        let stored = self.stored.lock().unwrap();
        let find = |id: &MessageId| {
            stored.get(id).map(|bytes| Found { place: Place::new(LaneId(0), 1), bytes: bytes.clone().into() })
        };
        Ok(ids.iter().map(find).collect())
    }

    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            state: NodeState::Live,
            uptime_us: 0,
            accepted_total: 0,
            rejected_total: 0,
            queue_messages: 0,
            queue_messages_max: 0,
            durable_age_us: 0,
            flags: 0,
            lane: LaneId(0),
            witnesses_total: 0,
            round_us: 0,
            acks_waiting: 0,
            lanes: Vec::new(),
        })
    }
}

struct Node {
    service: Arc<Fake>,
    server: ServerHandle,
    target: NodeTarget,
    runtime: Runtime,
}

fn node(service: Fake) -> Node {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let service = Arc::new(service);
    let server = {
        let _inside = runtime.enter();
        let config = ServerConfig::new("127.0.0.1:0".parse().unwrap(), Identity::ephemeral().unwrap());
        Server::bind(config, Arc::clone(&service)).unwrap()
    };
    let target = NodeTarget {
        addr: server.local_addr().unwrap(),
        trust: Trust::Pin(server.fingerprint()),
        network: Some(GENESIS.network()),
    };
    Node { service, server, target, runtime }
}

impl Node {
    fn config(&self) -> RunConfig {
        RunConfig {
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(60),
            messages_max: 3_000,
            batch_messages: 50,
            devices: 700,
            audit: true,
            ..RunConfig::new(Target::Node(self.target.clone()))
        }
    }

    fn run(&self, config: &RunConfig) -> Outcome {
        run(config, &Stop::new(), &mut |_| {}).unwrap()
    }

    fn audit(&self, acked: &AckedLog) -> Result<AuditReport, LoadError> {
        let options = AuditOptions { readers: 2, ..AuditOptions::default() };
        audit(&self.target, acked, &options, &SerialBatch::new(), &Stop::new(), &mut |_| {})
    }
}

#[test]
fn every_acked_message_is_read_back_as_it_was_sent() {
    let node = node(Fake::default());
    for schedule in [Schedule::Closed { window: 4 }, Schedule::Open { rate_per_s: 5_000.0 }] {
        let config = RunConfig { schedule, ..node.config() };
        let outcome = node.run(&config);
        let report = &outcome.report;
        assert_eq!((report.acked_total, report.rejected_total, report.unacked), (3_000, 0, 0), "{report:?}");
        assert_eq!(report.ack_level, "durable");
        let acked = outcome.acked.unwrap();
        assert_eq!(acked.messages(), 3_000);
        let found = node.audit(&acked).unwrap();
        assert_eq!((found.checked, found.missing, found.invalid), (3_000, 0, 0), "{found:?}");
        assert!(found.is_clean() && found.sampled_one_in == 1);
    }
    // Sequences of the second run lay above those of the first, so nothing was the same message twice.
    assert_eq!(node.service.stored.lock().unwrap().len(), 6_000);
}

/// The canary of the audit: each way in which a node can lose or change a message must be found.
#[test]
fn an_audit_finds_missing_and_altered_messages() {
    let node = node(Fake::default());
    let outcome = node.run(&node.config());
    let acked = outcome.acked.unwrap();
    let ids: Vec<MessageId> = acked.iter().map(|acked| acked.id).collect();
    {
        let mut stored = node.service.stored.lock().unwrap();
        for id in &ids[10..13] {
            stored.remove(id);
        }
        let last = |bytes: &Vec<u8>| bytes.len() - 1;
        // Another payload; another signature; another message of the ledger, itself valid; half a message; none of it.
        let payload = stored.get_mut(&ids[100]).unwrap();
        payload[150] ^= 1;
        let signature = stored.get_mut(&ids[200]).unwrap();
        let at = last(signature);
        signature[at - 40] ^= 1;
        let other = stored[&ids[301]].clone();
        stored.insert(ids[300], other);
        let half = stored.get_mut(&ids[400]).unwrap();
        half.truncate(100);
        stored.insert(ids[500], Vec::new());
    }
    let found = node.audit(&acked).unwrap();
    assert_eq!((found.checked, found.missing, found.invalid), (3_000, 3, 5), "{found:?}");
    assert!(!found.is_clean());
    assert_eq!(found.failures.len(), 8);
    let named = |what: &str| found.failures.iter().filter(|failure| failure.contains(what)).count();
    assert_eq!((named("does not have it"), named("another id"), named("signature is not valid")), (3, 2, 1));
    assert!(found.failures.iter().any(|failure| failure.contains(&ids[200].to_string())));
}

/// A node that refuses `times` requests of an audit with `refusal`, and how long the audit took. It must end by itself: one that is asked
/// to end once it is overdue is no test's result.
fn audit_refused(
    refusal: fn() -> Refusal,
    times: u32,
    patience: Duration,
    stop_after: Option<Duration>,
) -> (AuditReport, Duration) {
    let node = node(Fake { get_refusal: Some((refusal, times.into())), ..Fake::default() });
    let acked = node.run(&node.config()).acked.unwrap();
    let (target, begun, stop) = (node.target, Instant::now(), Stop::new());
    let (found, report) = std::sync::mpsc::channel();
    std::thread::spawn({
        let stop = stop.clone();
        move || {
            let options = AuditOptions { readers: 2, patience, ..AuditOptions::default() };
            let _ = found.send(audit(&target, &acked, &options, &SerialBatch::new(), &stop, &mut |_| {}));
        }
    });
    if let Some(after) = stop_after {
        std::thread::sleep(after);
        stop.request();
    }
    let report = report.recv_timeout(Duration::from_secs(20)).expect("the audit ends").unwrap();
    (report, begun.elapsed())
}

#[test]
fn an_audit_of_a_node_that_cannot_read_what_it_acked_is_broken_off_at_once() {
    let unreadable = || Refusal::internal("a record cannot be read");
    let (found, took) = audit_refused(unreadable, u32::MAX, Duration::from_secs(60), None);
    let reason = found.broken_off.as_deref().unwrap();
    assert!(reason.contains("a record cannot be read") && !found.is_clean(), "{found:?}");
    assert!(took < Duration::from_secs(3), "no patience is spent on it: {took:?}");
}

#[test]
fn an_audit_asks_a_node_that_is_full_again_until_its_patience_is_at_an_end() {
    let full = || Refusal::overloaded(50, "full");
    let (found, _) = audit_refused(full, 5, Duration::from_secs(60), None);
    assert!(found.is_clean() && found.checked == 3_000 && found.waits > 0, "{found:?}");

    let (found, took) = audit_refused(full, u32::MAX, Duration::from_secs(1), None);
    assert!(found.broken_off.as_deref().is_some_and(|reason| reason.contains("full")), "{found:?}");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");

    // Nor is a node's word on when to come again longer than the patience, or a stop unheard meanwhile.
    let for_ever = || Refusal::overloaded(u32::MAX, "full for ever");
    let (found, took) = audit_refused(for_ever, u32::MAX, Duration::from_secs(1), None);
    assert!(found.broken_off.is_some() && took < Duration::from_secs(5), "{took:?} {found:?}");
    let (patience, stop_after) = (Duration::from_secs(600), Some(Duration::from_millis(500)));
    let (found, took) = audit_refused(for_ever, u32::MAX, patience, stop_after);
    assert_eq!((found.broken_off.as_deref(), found.checked), (None, 0), "{found:?}");
    assert!(!found.is_clean() && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn rejections_are_counted_by_name_and_not_audited() {
    let node = node(Fake { reject_one_in: 10, ..Fake::default() });
    let outcome = node.run(&node.config());
    let report = &outcome.report;
    assert_eq!((report.acked_total, report.rejected_total, report.unacked), (2_700, 300, 0));
    assert_eq!(report.rejected["issuer_limit"], 300);
    assert_eq!(report.latency_us.count, 2_700);
    assert!(report.valid, "rejections are a result, not a fault of the run");
    let found = node.audit(&outcome.acked.unwrap()).unwrap();
    assert_eq!((found.checked, found.missing, found.invalid), (2_700, 0, 0));
}

#[test]
fn refused_batches_are_counted_and_a_closed_loop_waits_as_asked() {
    let node = node(Fake { refuse_first: 5.into(), ..Fake::default() });
    let report = node.run(&node.config()).report;
    assert_eq!((report.acked_total, report.rejected["request_overloaded"]), (2_750, 250));
    assert!(report.problems.iter().any(|problem| problem.contains("full")), "{:?}", report.problems);
}

#[test]
fn a_node_that_goes_away_ends_the_run_with_a_report() {
    let node = node(Fake::default());
    let config = RunConfig { messages_max: u64::MAX, drain: Duration::from_secs(2), ..node.config() };
    let begun = Instant::now();
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| node.run(&config).report);
        std::thread::sleep(Duration::from_millis(500));
        node.runtime.block_on(node.server.shutdown(Duration::ZERO));
        run.join().unwrap()
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "it does not wait for its 60 s");
    assert!(report.acked_total > 0 && !report.valid);
    let reason = report.invalid_reason.unwrap();
    assert!(reason.contains("connections were lost"), "{reason}");
    assert!(!report.problems.is_empty());
}

#[test]
fn a_target_that_cannot_serve_the_run_is_an_error_before_anything_is_sent() {
    let node = node(Fake::default());
    let refused = |change: fn(&mut RunConfig)| {
        let mut config = node.config();
        change(&mut config);
        run(&config, &Stop::new(), &mut |_| {}).unwrap_err().to_string()
    };
    assert!(refused(|config| config.payload_bytes = 2_000).contains("largest payload is 1024 bytes"));
    assert!(refused(|config| config.ack_level = AckLevel::Final).contains("connection to the target"));
    let elsewhere = refused(|config| {
        let Target::Node(target) = &mut config.target else { return };
        target.network = Some(weft_core::NetworkId([9; 4]));
    });
    assert!(elsewhere.contains("connection to the target"), "{elsewhere}");
    assert_eq!(node.service.stored.lock().unwrap().len(), 0);
}

/// 60 devices speak within 0.4 s and then none does: at 60 handshakes a second all are sent long before the run ends, but half a second late.
#[test]
fn a_direct_run_in_which_messages_waited_for_their_turn_is_invalid_though_all_were_sent() {
    let node = node(Fake::default());
    let text = "name = \"b\"\nabout = \"b\"\n[[class]]\nname = \"c\"\ndevices = 60\n\
                payload = { kind = \"fixed\", bytes = 64 }\n[[class.stream]]\narrival = \"beta\"\n\
                every_s = 100.0\nwindow_s = 0.4\n";
    let world = World::new(Arc::new(Profile::parse(text).unwrap()));
    let run = |handshakes_per_s| {
        let config = RunConfig {
            schedule: Schedule::Open { rate_per_s: world.rate_per_s() },
            world: Some(world.clone()),
            duration: Duration::from_secs(3),
            messages_max: u64::MAX,
            connections: 64,
            topology: Topology::Direct { handshakes_per_s },
            lag_p99_max: Duration::from_millis(200),
            audit: false,
            ..node.config()
        };
        node.run(&config).report
    };
    let limited = run(60.0);
    let handshakes = limited.handshakes.unwrap();
    assert_eq!((limited.acked_total, handshakes.failed), (60, 0), "{handshakes:?}");
    assert!((10..60).contains(&handshakes.messages_waited), "{handshakes:?}");
    let reason = limited.invalid_reason.unwrap();
    assert!(reason.contains("of 60 messages waited longer than 200 ms"), "{reason}");
    assert!(
        !reason.contains("sent in time") && !reason.contains("lagged"),
        "nothing else was wrong: {reason}"
    );
    let free = run(10_000.0);
    let handshakes = free.handshakes.unwrap();
    assert_eq!((free.acked_total, handshakes.messages_waited), (60, 0), "{handshakes:?}");
    assert!(free.valid, "{:?}", free.invalid_reason);
}

#[test]
fn a_closed_loop_says_whether_the_node_or_the_generator_bounds_it() {
    let node = node(Fake::default());
    let run = |window, batch_messages| {
        let config = RunConfig {
            schedule: Schedule::Closed { window },
            generator_threads: 1,
            connections: 1,
            batch_messages,
            devices: 1_000_000,
            signer: Backend::Serial,
            duration: Duration::from_secs(2),
            messages_max: u64::MAX,
            audit: false,
            ..node.config()
        };
        node.run(&config).report
    };
    let told = |report: &weft_loadgen::Report| {
        report.problems.iter().any(|problem| problem.contains("the generator's threads bound this run"))
    };
    // Signing one by one, with a key to derive for each, takes longer than what this node does with a message.
    let bound = run(64, 50);
    assert!(told(&bound) && bound.valid, "{} busy, {:?}", bound.generator.busy_share, bound.invalid_reason);
    // One message, and nothing until its ack.
    let waiting = run(1, 1);
    assert!(
        !told(&waiting) && waiting.valid,
        "{} busy: {:?}",
        waiting.generator.busy_share,
        waiting.problems
    );
}

/// A worker that said that it was ready before it knew would be missed only after the others had begun.
#[test]
fn a_worker_that_cannot_connect_is_named_before_the_others_begin() {
    let node = node(Fake::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coordinator = listener.local_addr().unwrap();
    let worker = |name: &'static str, target: NodeTarget| {
        std::thread::spawn(move || {
            let settings = |target| RunConfig::new(target);
            let resolve = |_: &Job| Ok(Target::Node(target.clone()));
            serve(coordinator, name, settings, resolve, &Stop::new(), &mut |_| {})
        })
    };
    let job = Job {
        profile: Profile::flat(1_000, 64, 1_000.0).to_toml().unwrap(),
        scale: 1.0,
        speedup: 1.0,
        at_hour: None,
        shape: "constant".to_owned(),
        closed: None,
        warm_up_us: 0,
        duration_us: 1_000_000,
        drain_us: 5_000_000,
        connections: 1,
        batch: 50,
        seed: 1,
        lag_p99_us_max: 1_000_000,
        ack_level: "durable".to_owned(),
        flush_us: 2_000,
        handshakes_per_s: None,
        target: "resolved by each worker".to_owned(),
        pin: None,
        worker: 0,
        workers: 0,
    };
    let able = worker("able", node.target.clone());
    let unable = worker("unable", NodeTarget { network: Some(GenesisId([8; 32]).network()), ..node.target });
    let options = CoordinateOptions { workers: 2, wait: Duration::from_secs(30), job };
    let mut seen = Vec::new();
    let (merged, parts) = coordinate(&listener, &options, &mut |event| seen.push(event.clone())).unwrap();
    assert_eq!(merged.workers.len(), 2, "the lost one has a clock too: {:?}", merged.workers);
    for worker in &merged.workers {
        // All on one machine: what is estimated cannot be further off than it says, give or take the clock's own steps.
        assert!(worker.clock_offset_us.unsigned_abs() <= worker.clock_error_us + 2, "{worker:?}");
        assert!(worker.name.starts_with("worker "), "{worker:?}");
    }
    assert!(parts.iter().all(|part| part.workers.is_empty()));
    let lost = seen.iter().position(|event| matches!(event, Seen::Lost(who) if who.contains("unable")));
    let started = seen.iter().position(|event| matches!(event, Seen::Started));
    assert!(lost.is_some() && lost < started, "{seen:?}");
    assert!(unable.join().unwrap().is_err());
    let own = able.join().unwrap().unwrap();
    assert_eq!((parts.len(), own.valid), (1, true), "{:?}", own.invalid_reason);
    assert!(own.acked_total > 300, "half of a thousand devices speak once: {}", own.acked_total);
    assert!(!merged.valid && merged.invalid_reason.unwrap().contains("unable"));
}
