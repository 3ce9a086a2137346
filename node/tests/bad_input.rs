//! What bad input gets: a named status per message, a named error per session or start, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use common::{Sketch, config, device, id, ledger, refusals, runtime, session, start, submit};
use weft_core::{MessageId, NetworkId, Reason};
use weft_net::{AckLevel, Client, ClientConfig, ErrorCode, Lookup, NetError, SessionOptions, Trust};
use weft_node::node::RunningNode;

#[test]
fn one_bad_signature_among_4096_is_named_and_the_others_are_stored() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut messages: Vec<Vec<u8>> = (0..4096)
            .map(|sequence| Sketch::new(&session, sequence).sign(&device((sequence % 7) as u8)))
            .collect();
        let last = messages[1234].len() - 1;
        messages[1234][last - 40] ^= 1;
        let ack = submit(&session, &messages).await;
        assert_eq!(refusals(&ack), [(1234, Reason::BadSignature)]);
        let ids: Vec<MessageId> = messages.iter().map(|bytes| id(bytes)).collect();
        for (chunk, of) in ids.chunks(512).zip(messages.chunks(512)) {
            for (found, sent) in session.get(chunk).await.unwrap().into_iter().zip(of) {
                match found {
                    Lookup::Found(found) => assert_eq!(&found.bytes[..], &sent[..]),
                    other => assert_eq!(sent, &messages[1234], "{other:?}"),
                }
            }
        }
        assert!(matches!(session.get(&ids[1234..1235]).await.unwrap()[..], [Lookup::Absent]));
    });
    node.stop();
}

#[test]
fn a_bad_signature_hurts_only_its_sender() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_a, honest) = session(&node, AckLevel::Durable).await;
        let (_b, liar) = session(&node, AckLevel::Durable).await;
        for round in 0..5 {
            let good: Vec<_> =
                (0..64).map(|k| Sketch::new(&honest, round * 64 + k).sign(&device(1))).collect();
            let bad: Vec<_> = (0..64)
                .map(|k| {
                    let mut bytes = Sketch::new(&liar, round * 64 + k).sign(&device(2));
                    let last = bytes.len() - 1;
                    bytes[last - 50] ^= 0x20;
                    bytes
                })
                .collect();
            let (good, bad) = tokio::join!(submit(&honest, &good), submit(&liar, &bad));
            assert!(refusals(&good).is_empty());
            assert_eq!(bad.exceptions.len(), 64);
        }
    });
    node.stop();
}

#[test]
fn a_client_of_another_network_is_told_both_networks() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let client = Client::connect(ClientConfig::new(node.address(), Trust::InsecureAny)).await.unwrap();
        let options = SessionOptions { network: Some(NetworkId([1, 2, 3, 4])), ..SessionOptions::default() };
        let error = client.open_session(options).await.expect_err("refused");
        let text = error.to_string();
        assert!(matches!(&error, NetError::Session(weft_net::SessionEnd::Refused(wire)) if wire.code == ErrorCode::WrongNetwork), "{text}");
        assert!(text.contains("01020304") && text.contains(&node.network().to_string()), "{text}");
    });
    node.stop();
}

#[test]
fn each_unacceptable_message_gets_its_own_status_and_its_neighbours_are_stored() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let good = |sequence| Sketch::new(&session, sequence);
        let hour_us = 3_600_000_000u64;
        let wrong_network = Sketch { network: NetworkId([9; 4]), ..good(1) };
        let root = good(0).parents[0];
        let equal_parents = Sketch { parents: [root, root], ..good(2) };
        let unknown_parent = Sketch { parents: [root, MessageId([5; 32])], ..good(3) };
        let early = Sketch { issued_at_us: common::now_us() + 24 * hour_us, ..good(4) };
        let late = Sketch { issued_at_us: common::now_us() - 24 * 400 * hour_us, ..good(5) };
        let mut cut = good(6).sign(&device(1));
        cut.truncate(100);
        let mut long = good(7).sign(&device(1));
        long.push(0);
        let mut version = good(8).sign(&device(1));
        version[0] = 9;
        let messages = vec![
            good(9).sign(&device(1)),
            wrong_network.sign(&device(1)),
            equal_parents.sign(&device(1)),
            unknown_parent.sign(&device(1)),
            early.sign(&device(1)),
            late.sign(&device(1)),
            cut,
            long,
            version,
            good(10).sign(&device(1)),
        ];
        let ack = submit(&session, &messages).await;
        let expected = [
            (1, Reason::WrongNetwork),
            (2, Reason::EqualParents),
            (3, Reason::UnknownParent),
            (4, Reason::ClockAhead),
            (5, Reason::ClockBehind),
            (6, Reason::Truncated),
            (7, Reason::LengthMismatch),
            (8, Reason::BadVersion),
        ];
        assert_eq!(refusals(&ack), expected);
        assert_eq!(ack.exceptions[2].got, 1, "parent 1 is the unknown one");
        let stored = session.get(&[id(&messages[0]), id(&messages[9])]).await.unwrap();
        assert!(stored.iter().all(|lookup| matches!(lookup, Lookup::Found(_))));
    });
    node.stop();
}

#[test]
fn a_replayed_sequence_and_one_below_the_window_are_told_apart_and_a_refused_message_uses_none_up() {
    let data = ledger();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let first = Sketch::new(&session, 1000).sign(&device(1));
        assert!(refusals(&submit(&session, std::slice::from_ref(&first)).await).is_empty());
        let mut other = Sketch::new(&session, 1000);
        other.payload = vec![1; 64];
        let stale = Sketch::new(&session, 1000 - 64);
        let in_window = Sketch::new(&session, 1000 - 63);
        let batch =
            [first.clone(), other.sign(&device(1)), stale.sign(&device(1)), in_window.sign(&device(1))];
        let ack = submit(&session, &batch).await;
        let expected = [(0, Reason::Duplicate), (1, Reason::ReplayedSequence), (2, Reason::StaleSequence)];
        assert_eq!(refusals(&ack), expected);
        // Refused for its parent, then sent again with good ones under the same sequence.
        let lost =
            Sketch { parents: [MessageId([5; 32]), MessageId([6; 32])], ..Sketch::new(&session, 1001) };
        assert_eq!(refusals(&submit(&session, &[lost.sign(&device(1))]).await), [(0, Reason::UnknownParent)]);
        let again = Sketch::new(&session, 1001).sign(&device(1));
        assert!(refusals(&submit(&session, &[again]).await).is_empty());
    });
    node.stop();
}

#[test]
fn replay_protection_and_duplicates_survive_a_restart() {
    let data = ledger();
    let node = start(&config(data.path()));
    let first = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let first = Sketch::new(&session, 7).sign(&device(1));
        assert!(refusals(&submit(&session, std::slice::from_ref(&first)).await).is_empty());
        first
    });
    node.stop();
    let node = start(&config(data.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut other = Sketch::new(&session, 7);
        other.payload = vec![1; 64];
        let child =
            Sketch { parents: [id(&first), Sketch::new(&session, 0).parents[0]], ..Sketch::new(&session, 8) };
        let ack = submit(&session, &[first.clone(), other.sign(&device(1)), child.sign(&device(1))]).await;
        assert_eq!(refusals(&ack), [(0, Reason::Duplicate), (1, Reason::ReplayedSequence)]);
    });
    node.stop();
}

/// A replay used to be stored a second time when the tables in memory had been filled from the newest messages only: the window knew
/// the issuer, did not know the old sequence, and so the log was not asked.
#[test]
fn a_stored_message_is_a_duplicate_even_when_the_tables_have_forgotten_it() {
    let data = ledger();
    let mut settings = config(data.path());
    settings.recent_ids_max = 64;
    let node = start(&settings);
    let old = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let old = Sketch::new(&session, 49).sign(&device(1));
        assert!(refusals(&submit(&session, std::slice::from_ref(&old)).await).is_empty());
        let filler: Vec<_> =
            (0..400u64).map(|n| Sketch::new(&session, n / 8).sign(&device(10 + (n % 8) as u8))).collect();
        assert!(refusals(&submit(&session, &filler).await).is_empty());
        let newer = Sketch::new(&session, 50).sign(&device(1));
        assert!(refusals(&submit(&session, &[newer]).await).is_empty());
        old
    });
    node.stop();
    let node = start(&settings);
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let ack = submit(&session, std::slice::from_ref(&old)).await;
        assert_eq!(refusals(&ack), [(0, Reason::Duplicate)]);
    });
    node.stop();
}

#[test]
fn a_full_disk_is_a_status_with_the_free_space_and_the_watermark() {
    let data = ledger();
    let mut settings = config(data.path());
    let node = start(&settings);
    let kept = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let kept = Sketch::new(&session, 1).sign(&device(1));
        assert!(refusals(&submit(&session, std::slice::from_ref(&kept)).await).is_empty());
        kept
    });
    node.stop();
    // More than any disk has: what a nearly full one looks like to the node. Segments are small, so that the next one is soon needed.
    settings.free_space_watermark_bytes = 1 << 50;
    settings.segment_bytes = 1 << 20;
    let node = start(&settings);
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut refused = None;
        for sequence in 2..200 {
            let mut sketch = Sketch::new(&session, sequence);
            sketch.payload = vec![0; 16_000];
            let messages: Vec<_> = (0..8).map(|n| sketch.sign(&device(10 + n))).collect();
            let ack = submit(&session, &messages).await;
            if let Some(exception) = ack.exceptions.first() {
                refused = Some(*exception);
                break;
            }
        }
        let refused = refused.expect("the watermark was never reached");
        assert_eq!(refused.reason(), Some(Reason::LogFailed));
        assert!(refused.limit >= 1 << 50 && refused.got < refused.limit, "{refused:?}");
        let found = session.get(&[id(&kept)]).await.unwrap();
        assert!(matches!(found[..], [Lookup::Found(_)]), "reading goes on");
        let status = session.status().await.unwrap();
        assert!(status.rejected_total > 0);
    });
    assert!(!node.health().healthy);
    node.stop();
}

#[test]
fn a_data_directory_of_another_network_is_refused_with_both_networks() {
    let (ours, theirs) = (ledger(), ledger());
    let stranger = start(&config(theirs.path()));
    let network = stranger.network();
    runtime().block_on(async {
        let (_client, session) = session(&stranger, AckLevel::Durable).await;
        let message = Sketch::new(&session, 1).sign(&device(1));
        assert!(refusals(&submit(&session, &[message]).await).is_empty());
    });
    stranger.stop();
    // The stranger's log under our genesis.
    std::fs::remove_dir_all(ours.path().join("lanes")).ok();
    copy_dir(&theirs.path().join("lanes"), &ours.path().join("lanes"));
    let error = RunningNode::start(&config(ours.path())).expect_err("refused").to_string();
    assert!(error.contains(&network.to_string()), "{error}");
}

#[test]
fn a_second_node_on_the_same_directory_is_told_who_holds_it() {
    let data = ledger();
    let node = start(&config(data.path()));
    let error = RunningNode::start(&config(data.path())).expect_err("refused").to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    node.stop();
    start(&config(data.path())).stop();
}

#[test]
fn a_directory_without_a_ledger_says_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = RunningNode::start(&config(&dir.path().join("nothing"))).expect_err("refused").to_string();
    assert!(error.contains("weft init"), "{error}");
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
