//! A node with a GPU: its verdicts, and that no failure of the device loses or wrongly refuses a message.
//!
//! Needs an adapter of any kind, a software one if `WEFT_GPU_ALLOW_CPU=1`; without one the tests say so and are skipped, but for
//! `WEFT_GPU_REQUIRED=1`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::{Sketch, device, ledger, refusals, runtime, session, submit};
use weft_core::Reason;
use weft_gpu::Options;
use weft_gpu::adapter::{self, Choice};
use weft_gpu::fault::Faults;
use weft_net::AckLevel;
use weft_node::config::Config;
use weft_node::node::{RunningNode, StartError};
use weft_node::pipeline::devices::DeviceReport;

/// Messages of a submit: enough to be a device's.
const MESSAGES: usize = 512;

/// One device at a time: a software adapter has all cores to itself.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_adapter() -> bool {
    match adapter::choose(&Choice::Auto) {
        Ok(found) => found.is_some(),
        Err(error) => {
            let required = std::env::var_os("WEFT_GPU_REQUIRED").is_some_and(|value| value == "1");
            assert!(!required, "WEFT_GPU_REQUIRED=1: {error}");
            eprintln!("SKIPPED gpu: no adapter ({error})");
            false
        }
    }
}

/// A node that puts the GPU first, with faults to inject. Small batches, so that a few submits are several of them.
fn start(data: &std::path::Path) -> (RunningNode, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let options = Options { rows_max: 1024, faults: faults.clone(), ..Options::default() };
    let settings = Config {
        verifier: "gpu".to_owned(),
        http: Some("127.0.0.1:0".parse().unwrap()),
        ..common::config(data)
    };
    (RunningNode::start_with(&settings, &options).expect("the node starts"), faults)
}

/// Sends `submits` submits at once; every fifth message has a bad signature. Every ack must refuse exactly those. Gives the number of
/// messages that were accepted.
fn traffic(node: &RunningNode, first_device: u8, submits: usize) -> usize {
    runtime().block_on(async {
        let (_client, session) = session(node, AckLevel::Durable).await;
        let mut sent = Vec::new();
        for number in 0..submits {
            let signer = device(first_device + number as u8);
            // Within the window of sequences that may come in any order.
            let messages: Vec<Vec<u8>> = (0..MESSAGES)
                .map(|row| {
                    let mut message = Sketch::new(&session, 1 + row as u64).sign(&signer);
                    if row % 5 == 3 {
                        let last = message.len() - 10;
                        message[last] ^= 4;
                    }
                    message
                })
                .collect();
            sent.push(messages);
        }
        let acks = submit_all(&session, &sent).await;
        for ack in acks {
            let refused = refusals(&ack);
            let expected: Vec<(u32, Reason)> = (0..MESSAGES as u32)
                .filter(|row| row % 5 == 3)
                .map(|row| (row, Reason::BadSignature))
                .collect();
            assert_eq!(refused, expected);
        }
    });
    submits * (0..MESSAGES).filter(|row| row % 5 != 3).count()
}

/// All submits are under way before the first ack is waited for.
async fn submit_all(session: &weft_net::Session, submits: &[Vec<Vec<u8>>]) -> Vec<weft_net::Ack> {
    let mut pending = Vec::new();
    for messages in submits {
        let lengths: Vec<u16> = messages.iter().map(|bytes| u16::try_from(bytes.len()).unwrap()).collect();
        pending.push(session.submit(&lengths, bytes::Bytes::from(messages.concat())).await.expect("credit"));
    }
    let mut acks = Vec::new();
    for pending in pending {
        acks.push(pending.await.expect("an ack"));
    }
    acks
}

fn report(node: &RunningNode) -> DeviceReport {
    node.devices().into_iter().next().expect("one device")
}

fn fetch(address: SocketAddr, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The pages for operators say what the device is.
fn pages_say(node: &RunningNode, state: &str) {
    let address = node.http_address().unwrap();
    let health = fetch(address, "/health");
    assert!(health.starts_with("HTTP/1.1 200"), "the CPU does the work of a failed device: {health}");
    assert!(health.contains(&format!("\"state\":\"{state}\",\"cause\"")), "{health}");
    let metrics = fetch(address, "/metrics");
    assert!(metrics.contains(&format!("state=\"{state}\"}} 1\n")), "{metrics}");
}

#[test]
fn the_gpu_verifies_what_is_worth_its_while_and_refuses_exactly_the_bad() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let data = ledger();
    let (node, _) = start(data.path());
    assert_eq!(node.verifier(), "gpu");
    let accepted = traffic(&node, 1, 6);
    let seen = report(&node);
    assert_eq!((seen.state, seen.mismatches, seen.fallback_signatures), ("active", 0, 0), "{seen:?}");
    assert!(seen.signatures >= MESSAGES as u64, "{seen:?}");
    assert!(seen.rejections_checked > 0, "refusals are confirmed by the CPU: {seen:?}");
    pages_say(&node, "active");
    // A lone message is the CPU's.
    let before = report(&node).batches;
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let message = Sketch::new(&session, 1).sign(&device(200));
        assert!(refusals(&submit(&session, &[message]).await).is_empty());
    });
    assert_eq!(report(&node).batches, before);
    let metrics = fetch(node.http_address().unwrap(), "/metrics");
    assert!(metrics.contains(&format!("weft_accepted_total {}\n", accepted + 1)), "{metrics}");
    node.stop();
}

#[test]
fn a_gpu_caught_with_a_wrong_verdict_is_quarantined_and_no_message_suffers() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let data = ledger();
    let (node, faults) = start(data.path());
    traffic(&node, 1, 2);
    // A row of the batch that is valid: refused by the device, as if bits had flipped.
    faults.wrong_verdict_at(4);
    traffic(&node, 20, 4);
    let seen = report(&node);
    assert_eq!((seen.state, seen.mismatches), ("quarantined", 1), "{seen:?}");
    assert!(seen.fallback_signatures > 0 && seen.cause.is_some(), "{seen:?}");
    pages_say(&node, "quarantined");
    let batches = seen.batches;
    traffic(&node, 40, 2);
    assert_eq!(report(&node).batches, batches, "it is used no more");
    node.stop();
}

#[test]
fn a_gpu_lost_in_the_middle_of_a_batch_loses_no_message() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let data = ledger();
    let (node, faults) = start(data.path());
    traffic(&node, 1, 1);
    faults.lose_device_in(1);
    traffic(&node, 20, 4);
    let seen = report(&node);
    assert_eq!((seen.state, seen.mismatches), ("failed", 0), "{seen:?}");
    assert!(seen.fallback_signatures > 0, "{seen:?}");
    pages_say(&node, "failed");
    node.stop();
}

#[test]
fn two_nodes_share_one_adapter() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let (one, two) = (ledger(), ledger());
    let ((one, _), (two, _)) = (start(one.path()), start(two.path()));
    std::thread::scope(|scope| {
        scope.spawn(|| traffic(&one, 1, 3));
        scope.spawn(|| traffic(&two, 1, 3));
    });
    for node in [one, two] {
        let seen = report(&node);
        assert!(seen.state == "active" && seen.signatures > 0, "{seen:?}");
        node.stop();
    }
}

#[test]
fn one_node_uses_two_adapters_at_once() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let found = adapter::choose(&Choice::Auto).unwrap().unwrap().description.index;
    let data = ledger();
    // The same adapter twice is two devices.
    let settings = Config {
        verifier: "gpu".to_owned(),
        gpu: format!("{found},{found}").parse().unwrap(),
        ..common::config(data.path())
    };
    let options = Options { rows_max: 1024, ..Options::default() };
    let node = RunningNode::start_with(&settings, &options).expect("the node starts");
    traffic(&node, 1, 8);
    let devices = node.devices();
    assert_eq!(devices.len(), 2);
    assert!(devices.iter().all(|device| device.state == "active"), "{devices:?}");
    assert!(devices.iter().map(|device| device.signatures).sum::<u64>() > 0, "{devices:?}");
    node.stop();
}

#[test]
fn a_gpu_beside_a_named_cpu_backend_joins_once_it_is_open_and_harms_nothing() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let found = adapter::choose(&Choice::Auto).unwrap().unwrap().description.index;
    let data = ledger();
    let settings = Config { gpu: found.to_string().parse().unwrap(), ..common::config(data.path()) };
    let node = RunningNode::start_with(&settings, &Options::default()).expect("the node starts");
    assert_eq!(node.verifier(), "serial");
    traffic(&node, 1, 2);
    let started = std::time::Instant::now();
    while report(&node).state == "opening" {
        assert!(started.elapsed().as_secs() < 120, "the device does not open");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    traffic(&node, 20, 2);
    assert_eq!(report(&node).state, "active");
    node.stop();
}

#[test]
fn a_node_that_needs_a_gpu_which_is_not_there_does_not_start_and_says_why() {
    let data = ledger();
    let settings = Config {
        verifier: "gpu".to_owned(),
        gpu: "no such card".parse().unwrap(),
        ..common::config(data.path())
    };
    let error = RunningNode::start(&settings).expect_err("no such card");
    assert!(
        matches!(error, StartError::Verifier(_)) && error.to_string().contains("no such card"),
        "{error}"
    );
}

#[test]
fn a_gpu_without_memory_for_the_smallest_batch_is_an_error_at_the_start() {
    let _alone = alone();
    if !has_adapter() {
        return;
    }
    let data = ledger();
    let faults = Arc::new(Faults::default());
    faults.fail_allocations(usize::MAX / 2);
    let options = Options { faults, ..Options::default() };
    let settings = Config { verifier: "gpu".to_owned(), ..common::config(data.path()) };
    let error = RunningNode::start_with(&settings, &options).expect_err("no memory");
    assert!(error.to_string().contains("out of device memory"), "{error}");
    // Without a demand for the GPU the node runs, and says what became of it.
    let found = adapter::choose(&Choice::Auto).unwrap().unwrap().description.index;
    let settings = Config { gpu: found.to_string().parse().unwrap(), ..common::config(data.path()) };
    let node = RunningNode::start_with(&settings, &options).expect("the CPU is enough");
    traffic(&node, 1, 1);
    let started = std::time::Instant::now();
    while report(&node).state == "opening" {
        assert!(started.elapsed().as_secs() < 120, "the device does not open");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(report(&node).state, "failed");
    node.stop();
}
