//! A node's life: levels of acknowledgement, a graceful stop under load, health, and what a signal does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Sketch, config, device, id, ledger, refusals, runtime, session, start, submit};
use weft_core::MessageId;
use weft_net::{
    AckLevel, Client, ClientConfig, ErrorCode, Lookup, NetError, SessionEnd, SessionOptions, Trust,
};

#[test]
fn each_level_of_acknowledgement_is_given_as_asked_and_none_beyond_the_configured_one() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        for (number, level) in AckLevel::ALL.iter().enumerate() {
            let (_client, session) = session(&node, *level).await;
            let message = Sketch::new(&session, number as u64).sign(&device(1));
            let ack = submit(&session, &[message]).await;
            assert_eq!((ack.level, ack.exceptions.len()), (*level, 0));
        }
    });
    node.stop();
    let node = start(&weft_node::config::Config { ack_level: AckLevel::Durable, ..config(data.path()) });
    runtime().block_on(async {
        let client = Client::connect(ClientConfig::new(node.address(), Trust::InsecureAny)).await.unwrap();
        let options = SessionOptions { ack_level: AckLevel::Certified, ..SessionOptions::default() };
        let error = client.open_session(options).await.expect_err("beyond what the operator allows");
        let refused = matches!(&error, NetError::Session(SessionEnd::Refused(wire)) if wire.code == ErrorCode::UnsupportedAckLevel);
        assert!(refused, "{error}");
    });
    node.stop();
}

#[test]
fn acks_carry_tips_that_new_messages_may_name_as_parents() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let first: Vec<_> = (0..20).map(|n| Sketch::new(&session, 1).sign(&device(n))).collect();
        let ack = submit(&session, &first).await;
        // The node's own newest witness is handed out too, once there is one.
        let (ours, others): (Vec<MessageId>, Vec<_>) =
            ack.tips.iter().partition(|tip| first.iter().any(|bytes| id(bytes) == **tip));
        assert!(ours.len() >= 2 && others.len() <= 1, "{ours:?}, {others:?}");
        let child = Sketch { parents: [ours[0], ours[1]], ..Sketch::new(&session, 2) }.sign(&device(1));
        let ack = submit(&session, std::slice::from_ref(&child)).await;
        assert!(refusals(&ack).is_empty());
        // Those that are asked for are published now and then.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let tips = session.tips(64).await.unwrap();
            if tips.contains(&id(&child)) && tips.len() > 2 {
                break;
            }
            assert!(Instant::now() < until, "{tips:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    node.stop();
}

#[test]
fn a_message_may_name_an_earlier_one_of_the_same_submit() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let first = Sketch::new(&session, 1).sign(&device(1));
        let root = Sketch::new(&session, 1).parents[0];
        let second = Sketch { parents: [id(&first), root], ..Sketch::new(&session, 2) }.sign(&device(1));
        assert!(refusals(&submit(&session, &[first, second]).await).is_empty());
    });
    node.stop();
}

#[test]
fn a_stop_under_load_keeps_everything_that_was_acknowledged() {
    let data = ledger();
    let node = start(&config(data.path()));
    let acked = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut waiting = Vec::new();
        for round in 0..40u64 {
            let messages: Vec<_> = (0..32).map(|n| Sketch::new(&session, round).sign(&device(n))).collect();
            let lengths: Vec<u16> = messages.iter().map(|bytes| bytes.len() as u16).collect();
            let ids: Vec<MessageId> = messages.iter().map(|bytes| id(bytes)).collect();
            waiting.push((ids, session.submit(&lengths, messages.concat().into()).await.unwrap()));
        }
        let stop = tokio::task::spawn_blocking(move || node.stop());
        let mut acked = Vec::new();
        for (ids, pending) in waiting {
            // Every submit that was taken is answered: by its ack, or by word that the node goes down.
            let ack = match pending.await {
                Ok(ack) => ack,
                Err(error) => {
                    assert!(error.is_retryable(), "a submit was lost in the stop: {error}");
                    continue;
                }
            };
            {
                let refused: Vec<_> = ack.exceptions.iter().map(|e| e.index as usize).collect();
                acked.extend(
                    ids.into_iter().enumerate().filter(|(i, _)| !refused.contains(i)).map(|(_, id)| id),
                );
            }
        }
        let report = stop.await.unwrap();
        assert_eq!(report.sessions.requests_unanswered, 0);
        assert!(report.durable_size.unwrap() as usize > acked.len());
        acked
    });
    assert!(!acked.is_empty(), "the stop came before any ack: the test shows nothing");
    let node = start(&config(data.path()));
    assert!(node.recovered().cut.is_none(), "a graceful stop leaves no torn tail");
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let found = session.get(&acked).await.unwrap();
        assert!(found.iter().all(|lookup| matches!(lookup, Lookup::Found(_))));
    });
    node.stop();
}

#[test]
fn health_over_http_says_live_and_counts_what_was_accepted() {
    let data = ledger();
    let mut settings = config(data.path());
    settings.http = Some("127.0.0.1:0".parse().unwrap());
    let node = start(&settings);
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let message = Sketch::new(&session, 1).sign(&device(1));
        assert!(refusals(&submit(&session, &[message]).await).is_empty());
    });
    let fetch = |path: &str| {
        let mut stream = std::net::TcpStream::connect(node.http_address().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let health = fetch("/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"durable_age_ms\":"), "{health}");
    assert!(fetch("/metrics").contains("weft_accepted_total 1\n"));
    node.stop();
}

#[test]
fn sigterm_drains_the_node_and_exits_0() {
    let data = ledger();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args([
            "node",
            "--listen",
            "127.0.0.1:0",
            "--free-space-watermark-bytes",
            "0",
            "--segment-bytes",
            "4MiB",
            "--data",
        ])
        .arg(data.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")));
    assert!(listening.is_some(), "the node says where it listens");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "the node did not stop");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}
