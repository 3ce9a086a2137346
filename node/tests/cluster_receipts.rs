//! Receipts of a cluster of four processes: any one node gives one that a quorum of validators has signed, while a quorum lives, and says
//! what is missing when it does not.
//!
//! The Go part is as in `receipts.rs`. `WEFT_BIN` names another binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "common/go.rs"]
mod go;
#[path = "common/processes.rs"]
mod processes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use go::go_verifier;
use processes::{Links, Running, binary, message, runtime, session};
use weft_core::MessageId;
use weft_core::receipt::Receipt;
use weft_net::{AckLevel, Answer, Query};

/// Hands a message in at a node, and waits until it is final there.
fn send(running: &Running, node: usize, device: u8, sequence: u64) -> MessageId {
    runtime().block_on(async {
        let (client, session) = session(&running.members[node], AckLevel::Final).await.unwrap();
        let (id, bytes) = message(&session, device, sequence);
        let ack = session.submit(&[bytes.len() as u16], bytes).await.unwrap().await.unwrap();
        assert_eq!((ack.accepted(), ack.level), (1, AckLevel::Final));
        client.close().await;
        id
    })
}

/// Runs `weft`.
fn weft(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn expect(output: &Output, code: i32, text: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert!(out.contains(text) || err.contains(text), "no {text:?} in:\n{out}\n{err}");
}

/// Files beside the cluster's directories.
struct Files(PathBuf);

impl Files {
    fn name(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn genesis(&self) -> String {
        self.name("genesis.bin")
    }

    /// The receipt that one node gives, fetched and verified by the program, without a word to any other node.
    fn get(&self, running: &Running, node: usize, id: MessageId, name: &str) -> Receipt {
        let member = &running.members[node];
        let (to, pin) = (member.address.to_string(), member.fingerprint.to_string());
        let file = self.name(name);
        let arguments = ["receipt", "get", &id.to_string(), "--to", &to, "--pin", &pin, "-o", &file];
        let got = weft(&[&arguments[..], &["--genesis", &self.genesis()]].concat());
        expect(&got, 0, "(verified)");
        Receipt::parse(&std::fs::read(&file).unwrap()).unwrap()
    }

    fn verify(&self, name: &str) -> Output {
        weft(&["receipt", "verify", &self.name(name), "--genesis", &self.genesis()])
    }
}

/// Lines of validators in a receipt.
fn cosignatures(receipt: &Receipt) -> usize {
    receipt.checkpoint.lines.iter().filter(|line| line.name.contains("/validator/")).count()
}

#[test]
fn one_node_gives_a_receipt_with_a_quorum_of_signatures_while_a_quorum_lives_and_says_what_is_missing() {
    let mut running = Running::start(Links::default());
    let files = Files(running.dir.path().to_owned());
    let first = send(&running, 0, 1, 1);
    let old = files.get(&running, 0, first, "old");
    assert!(cosignatures(&old) >= 3);
    expect(&files.verify("old"), 0, "verified: the message is in the ledger");
    expect(&files.verify("old"), 0, &format!("weight {} of 4", cosignatures(&old)));
    // A message of another node's lane, and a later one of the same.
    let elsewhere = send(&running, 1, 2, 1);
    assert!(cosignatures(&files.get(&running, 0, elsewhere, "elsewhere")) >= 3);
    go_agrees(&files, first, "old");

    // One dies, and its connections are not known to be dead yet: the other three are a quorum, and nobody waits for it.
    running.members[3].kill();
    let second = send(&running, 0, 1, 2);
    let asked = Instant::now();
    let receipt = files.get(&running, 0, second, "three");
    assert_eq!(cosignatures(&receipt), 3);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    expect(&files.verify("three"), 0, "cosigned    weight 3 of 4: 0 (node-0), 1 (node-1), 2 (node-2)");

    // Two are dead. What a quorum has signed before still serves; for another size there is no quorum, and that takes two seconds to
    // find out.
    running.members[2].kill();
    assert!(cosignatures(&files.get(&running, 0, first, "again")) >= 3);
    let size = old.checkpoint.checkpoint.size;
    let (receipt, took) = runtime().block_on(async {
        let (client, session) = session(&running.members[0], AckLevel::Durable).await.unwrap();
        let asked = Instant::now();
        let Answer::Receipt(text) = session.query(Query::Receipt { id: first, size }).await.unwrap() else {
            panic!("another answer")
        };
        let took = asked.elapsed();
        client.close().await;
        (text, took)
    });
    assert!(took < Duration::from_secs(6), "{took:?}");
    std::fs::write(files.name("two"), &receipt).unwrap();
    let receipt = Receipt::parse(&receipt).unwrap();
    assert_eq!((receipt.checkpoint.checkpoint, cosignatures(&receipt)), (old.checkpoint.checkpoint, 2));
    let verified = files.verify("two");
    expect(&verified, 1, "NOT VERIFIED: checkpoint: cosigned by weight 2 of 4");
    expect(&verified, 1, "missing: 2 (node-2), 3 (node-3)");
}

/// Another implementation counts the same cosignatures, and misses one that is taken away.
fn go_agrees(files: &Files, id: MessageId, name: &str) {
    let Some(program) = go_verifier() else { return };
    let keys = weft(&["receipt", "keys", "--genesis", &files.genesis()]);
    expect(&keys, 0, "quorum 3");
    std::fs::write(files.name("keys"), keys.stdout).unwrap();
    let go = |path: &str| Command::new(program).args([&files.name("keys"), path]).output().unwrap();
    let file = files.name(name);
    let text = std::fs::read_to_string(Path::new(&file)).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("/validator/")).collect();
    let count = lines.len();
    let verified = go(&file);
    expect(&verified, 0, &format!("verified {id}"));
    expect(&verified, 0, &format!(" {count} {count}\n"));
    let mut fewer = text.clone();
    for line in &lines[2..] {
        fewer = fewer.replacen(&format!("{line}\n"), "", 1);
    }
    std::fs::write(files.name("fewer"), fewer).unwrap();
    expect(&go(&files.name("fewer")), 1, "cosigned by weight 2, the quorum is 3");
}
