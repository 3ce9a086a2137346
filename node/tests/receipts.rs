//! Receipts, from a running node to an offline verifier: this program's own, and one in Go that shares no code with it.
//!
//! The Go part is skipped where there is no Go or its libraries are missing, but for `WEFT_REQUIRE_GO=1`, which makes
//! that a failure. On Debian: golang-go, golang-golang-x-mod-dev, golang-lukechampine-blake3-dev.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;
#[path = "common/go.rs"]
mod go;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Sketch, config, device, id, ledger, runtime, session, start, submit};
use go::go_verifier;
use weft_core::receipt::Receipt;
use weft_core::{ConsistencyFile, Genesis, LaneId, MessageId, NodeKey};
use weft_net::{AckLevel, Answer, ErrorCode, NetError, Query, Session};
use weft_node::node::RunningNode;

fn verify(key: &NodeKey, text: &[u8], signature: &[u8; 64]) -> bool {
    weft_crypto::serial::verify_one(&key.0, text, signature)
}

fn genesis(data: &Path) -> Genesis {
    Genesis::decode(&std::fs::read(data.join("genesis.bin")).unwrap()).unwrap()
}

/// Sends `count` messages, several a batch, and gives their ids.
async fn send(session: &Session, from: u64, count: u64) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for chunk in (from..from + count).collect::<Vec<_>>().chunks(300) {
        let messages: Vec<_> =
            chunk.iter().map(|number| Sketch::new(session, *number).sign(&device(1))).collect();
        let ack = submit(session, &messages).await;
        assert_eq!(ack.exceptions, []);
        ids.extend(messages.iter().map(|bytes| id(bytes)));
    }
    ids
}

/// Asks for a receipt until the message is final.
async fn receipt(session: &Session, id: MessageId, size: u64) -> Result<Receipt, NetError> {
    loop {
        match session.query(Query::Receipt { id, size }).await {
            Ok(Answer::Receipt(text)) => return Ok(Receipt::parse(&text).unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(NetError::Request(error)) if error.code == ErrorCode::NotYet => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn code(error: NetError) -> ErrorCode {
    match error {
        NetError::Request(error) => error.code,
        other => panic!("{other}"),
    }
}

#[test]
fn every_message_has_a_receipt_that_verifies_by_the_genesis_before_and_after_a_restart() {
    let data = ledger();
    let genesis = genesis(data.path());
    let mut ids = Vec::new();
    let mut receipts: Vec<Receipt> = Vec::new();
    for round in 0..2 {
        let node = start(&config(data.path()));
        runtime().block_on(async {
            let (_client, session) = session(&node, AckLevel::Durable).await;
            ids.extend(send(&session, 1 + 900 * round, 900).await);
            for wanted in ids.iter().step_by(97).chain(ids.last()) {
                let receipt = receipt(&session, *wanted, 0).await.unwrap();
                let verified = receipt.verify(&genesis, None, verify).unwrap();
                assert_eq!(verified.id, *wanted);
                assert_eq!(verified.endorsement.validators, [0]);
                receipts.push(receipt);
            }
            // An earlier checkpoint can be asked for, if it is that of a batch and covers the message.
            let earlier = receipts[0].checkpoint.checkpoint;
            let again = receipt(&session, ids[0], earlier.size).await.unwrap();
            assert_eq!(again.checkpoint.checkpoint, earlier);
            assert!(again.verify(&genesis, None, verify).is_ok());
            let last = *ids.last().unwrap();
            assert_eq!(code(receipt(&session, last, 1).await.unwrap_err()), ErrorCode::NotFound);
            assert_eq!(
                code(receipt(&session, MessageId([9; 32]), 0).await.unwrap_err()),
                ErrorCode::NotFound
            );
            let future = session.query(Query::Receipt { id: last, size: 1 << 40 }).await.unwrap_err();
            assert_eq!(code(future), ErrorCode::NotYet);
        });
        node.stop();
    }
    // What was given before the restart is part of what is there after it.
    assert!(receipts.iter().all(|receipt| receipt.verify(&genesis, None, verify).is_ok()));
}

#[test]
fn a_later_checkpoint_is_shown_to_extend_an_earlier_one() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let first = send(&session, 1, 500).await;
        let old = receipt(&session, first[3], 0).await.unwrap().checkpoint.checkpoint;
        let second = send(&session, 1_000, 500).await;
        let new = receipt(&session, *second.last().unwrap(), 0).await.unwrap().checkpoint.checkpoint;
        assert!(new.size > old.size);
        let query = Query::Consistency { lane: LaneId(0), old_size: old.size, size: new.size };
        let Answer::Consistency(text) = session.query(query).await.unwrap() else { panic!() };
        let file = ConsistencyFile::parse(&text).unwrap();
        assert_eq!((file.new.checkpoint, file.verify(&old)), (new, Ok(())));
        assert!(file.new.verify(&genesis(data.path()), verify).is_ok());
        for (lane, old_size, size) in [(0, 1, 0), (1, old.size, 0), (1, old.size, new.size)] {
            let query = Query::Consistency { lane: LaneId(lane), old_size, size };
            assert_eq!(code(session.query(query).await.unwrap_err()), ErrorCode::NotFound, "{lane} {size}");
        }
    });
    node.stop();
}

#[test]
fn a_validator_signs_what_is_final_here_and_nothing_else() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let ids = send(&session, 1, 100).await;
        let mut receipt = receipt(&session, ids[0], 0).await.unwrap();
        let checkpoint = receipt.checkpoint.checkpoint;
        let ask = |lane, size, root| session.query(Query::Cosign { lane: LaneId(lane), size, root });
        let Answer::Cosignature(cosignature) = ask(0, checkpoint.size, checkpoint.root).await.unwrap() else {
            panic!()
        };
        // The signature stands for the one in the receipt.
        let genesis = genesis(data.path());
        receipt.checkpoint.lines.truncate(1);
        assert!(receipt.verify(&genesis, None, verify).is_err());
        receipt.checkpoint.add(&cosignature, &genesis.committee[0].key);
        assert!(receipt.verify(&genesis, None, verify).is_ok());
        for (lane, size, root, wrong) in [
            (0, checkpoint.size, [7; 32], ErrorCode::NotFound),
            (0, checkpoint.size - 1, checkpoint.root, ErrorCode::NotFound),
            (0, checkpoint.size + 1, checkpoint.root, ErrorCode::NotYet),
            (0, 0, checkpoint.root, ErrorCode::NotFound),
            (1, checkpoint.size, checkpoint.root, ErrorCode::NotFound),
        ] {
            assert_eq!(code(ask(lane, size, root).await.unwrap_err()), wrong, "{lane} {size}");
        }
    });
    node.stop();
}

/// Runs `weft` against `node`.
fn weft(node: Option<&RunningNode>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    if let Some(node) = node {
        command.env("WEFT_TO", node.address().to_string()).env("WEFT_PIN", node.fingerprint().to_string());
    }
    command.args(arguments).output().unwrap()
}

fn expect(output: &Output, code: i32, text: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert!(out.contains(text) || err.contains(text), "no {text:?} in:\n{out}\n{err}");
}

/// Receipts of a running node and what belongs to them, in files.
struct Files {
    dir: tempfile::TempDir,
    ids: [MessageId; 2],
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Two receipts, the later of which covers more messages, a consistency proof, the genesis and its keys.
    fn make() -> Self {
        let data = ledger();
        let node = start(&config(data.path()));
        let dir = tempfile::tempdir().unwrap();
        let mut files = Self { dir, ids: [MessageId([0; 32]); 2] };
        std::fs::copy(data.path().join("genesis.bin"), files.path("genesis.bin")).unwrap();
        let genesis = files.name("genesis.bin");
        for (number, (name, count)) in [("old", 40), ("new", 700)].into_iter().enumerate() {
            let ids = runtime().block_on(async {
                let (_client, session) = session(&node, AckLevel::Durable).await;
                send(&session, 1 + 1_000 * number as u64, count).await
            });
            // The last message: its receipt must cover the whole lane so far.
            files.ids[number] = *ids.last().unwrap();
            let id = files.ids[number].to_string();
            let get = ["receipt", "get", &id, "-o", &files.name(name), "--genesis", &genesis];
            expect(&weft(Some(&node), &get), 0, "verified");
        }
        let (old, new, proof) = (files.name("old"), files.name("new"), files.name("proof"));
        let consistency = ["receipt", "consistency", &old, &new, "-o", &proof, "--genesis", &genesis];
        expect(&weft(Some(&node), &consistency), 0, "consistent");
        let bare =
            ["receipt", "get", &files.ids[0].to_string(), "--without-message", "-o", &files.name("bare")];
        expect(&weft(Some(&node), &bare), 0, "not verified");
        let raw = weft(Some(&node), &["get", &files.ids[0].to_string(), "--raw"]);
        std::fs::write(files.path("message"), raw.stdout).unwrap();
        let unknown = ["receipt", "get", &"ab".repeat(32)];
        expect(&weft(Some(&node), &unknown), 1, "not found");
        node.stop();
        let keys = weft(None, &["receipt", "keys", "--genesis", &genesis]);
        expect(&keys, 0, "quorum 1");
        std::fs::write(files.path("keys"), keys.stdout).unwrap();
        files
    }

    /// Writes a copy of a file with one text replaced.
    fn with(&self, name: &str, from: &str, to: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from));
        std::fs::write(self.path("changed"), text.replacen(from, to, 1)).unwrap();
        self.name("changed")
    }
}

#[test]
fn the_commands_fetch_receipts_and_verify_them_without_a_node() {
    let files = Files::make();
    let genesis = files.name("genesis.bin");
    let verify = |file: &str, more: &[&str]| {
        weft(None, &[&["receipt", "verify", file, "--genesis", &genesis][..], more].concat())
    };
    let verified = verify(&files.name("new"), &["--json"]);
    expect(&verified, 0, "\"verified\": true");
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["id"], files.ids[1].to_string());
    assert_eq!((&report["weight"], &report["weight_total"]), (&1.into(), &1.into()));
    expect(&verify(&files.name("old"), &[]), 0, "cosigned    weight 1 of 1: 0");
    // Without its message a receipt needs it, and takes no other.
    expect(&verify(&files.name("bare"), &[]), 1, "NOT VERIFIED: message: the receipt does not hold it");
    expect(&verify(&files.name("bare"), &["--message", &files.name("message")]), 0, "verified");
    let other = ["--message", &files.name("message")];
    expect(&verify(&files.name("new"), &other), 1, "another one than the one given");
    // What does not hold is named.
    let index = std::fs::read_to_string(files.path("new")).unwrap();
    let index = index.lines().nth(2).unwrap().to_owned();
    expect(&verify(&files.with("new", &index, "index 1"), &[]), 1, "NOT VERIFIED: inclusion:");
    expect(&verify(&files.with("new", "validator/0", "validator/1"), &[]), 1, "weight 0 of 1");
    expect(&verify(&files.with("new", "tlog-proof@v1", "tlog-proof@v2"), &[]), 1, "not a receipt");
    expect(&verify(&files.name("nothing"), &[]), 3, "cannot open");
    // Another ledger's genesis, none at all, and one with another id.
    let elsewhere = ledger();
    let other = elsewhere.path().join("genesis.bin");
    let wrong = weft(None, &["receipt", "verify", &files.name("new"), "--genesis", other.to_str().unwrap()]);
    expect(&wrong, 1, "checkpoint is of network");
    let none = weft(None, &["receipt", "verify", &files.name("new"), "--genesis", &files.name("keys")]);
    expect(&none, 2, "not a weft genesis");
    expect(&verify(&files.name("new"), &["--genesis-id", &"00".repeat(32)]), 2, "has the id");
    // Consistency, offline.
    let consistency = |old: &str, new: &str, proof: &str| {
        weft(None, &["receipt", "consistency", old, new, "--proof", proof, "--genesis", &genesis])
    };
    let (old, new, proof) = (files.name("old"), files.name("new"), files.name("proof"));
    expect(&consistency(&old, &new, &proof), 0, "consistent");
    expect(&consistency(&old, &proof, &proof), 0, "consistent");
    expect(&consistency(&new, &old, &proof), 2, "name the earlier one first");
    let text = std::fs::read_to_string(&proof).unwrap();
    let hash = text.lines().nth(1).unwrap();
    let broken = files.with("proof", hash, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    expect(&consistency(&old, &new, &broken), 1, "NOT CONSISTENT");
}

#[test]
fn an_independent_implementation_verifies_the_receipts_and_finds_the_same_faults() {
    let Some(program) = go_verifier() else { return };
    let files = Files::make();
    let go = |arguments: &[&str]| {
        let keys = files.name("keys");
        Command::new(program).args([&[&keys[..]], arguments].concat()).output().unwrap()
    };
    let (old, new, proof) = (files.name("old"), files.name("new"), files.name("proof"));
    let verified = go(&[&new]);
    expect(&verified, 0, &format!("verified {}", files.ids[1]));
    // One cosignature, of weight 1.
    expect(&verified, 0, " 1 1\n");
    expect(&go(&[&old]), 0, &format!("verified {}", files.ids[0]));
    expect(&go(&[&new, &old, &proof]), 0, "verified");
    // The message, the place, the seal, the cosignature, the root.
    let text = std::fs::read_to_string(&new).unwrap();
    let line = |number: usize| text.lines().nth(number).unwrap().to_owned();
    let message = line(1);
    let flipped = if message.as_bytes()[200] == b'A' { "B" } else { "A" };
    let changed = format!("{}{flipped}{}", &message[..200], &message[201..]);
    expect(&go(&[&files.with("new", &message, &changed)]), 1, "NOT VERIFIED");
    expect(&go(&[&files.with("new", &line(2), "index 1")]), 1, "NOT VERIFIED");
    let signatures: Vec<&str> = text.lines().filter(|line| line.starts_with('\u{2014}')).collect();
    assert_eq!(signatures.len(), 2);
    for signature in signatures {
        let (name, encoded) = signature.rsplit_once(' ').unwrap();
        // Inside the signature, beyond key id and time.
        let flipped = if encoded.as_bytes()[40] == b'A' { "B" } else { "A" };
        let changed = format!("{name} {}{flipped}{}", &encoded[..40], &encoded[41..]);
        expect(&go(&[&files.with("new", signature, &changed)]), 1, "invalid signature");
        let without = files.with("new", &format!("{signature}\n"), "");
        expect(&go(&[&without]), 1, "NOT VERIFIED");
    }
    let hash = std::fs::read_to_string(&proof).unwrap().lines().nth(1).unwrap().to_owned();
    let broken = files.with("proof", &hash, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    expect(&go(&[&new, &old, &broken]), 1, "NOT VERIFIED");
}
