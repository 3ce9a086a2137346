//! Four nodes on loopback in one process: what one takes becomes final everywhere, whoever is down for a while.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::four::{Cluster, NODES, copy_dir, wait_for};
use common::liar::{Liar, batch_of, history, lie};
use common::{Sketch, device, id, now_us, pay, refusals, runtime, send, session, submit};
use weft_core::confirm::{Claim, Witness};
use weft_core::endorse::EndorseError;
use weft_core::receipt::VerifyError;
use weft_core::{
    BatchBuilder, BatchView, DeviceSigner, Draft, GenesisId, LaneId, LaneTree, MessageId, NodeKey,
    PayloadKind, Place, Reason, Receipt, VerifiedMessage,
};
use weft_net::peer::PeerState;
use weft_net::{AckLevel, Answer, ErrorCode, Lookup, NetError, Query, Session};
use weft_node::confirm::Fault;
use weft_node::health::State;
use weft_node::node::RunningNode;
use weft_storage::DataDir;

/// How many of `ids` the node gives out.
fn found(node: &RunningNode, ids: &[MessageId]) -> usize {
    runtime().block_on(async {
        let (_client, session) = session(node, AckLevel::Durable).await;
        let mut found = 0;
        for ids in ids.chunks(100) {
            let answers = session.get(ids).await.unwrap();
            found += answers.iter().filter(|answer| matches!(answer, Lookup::Found(_))).count();
        }
        found
    })
}

#[test]
fn what_one_node_takes_becomes_final_on_all_and_may_be_cited_at_any() {
    let cluster = Cluster::started(1);
    let mut sent = Vec::new();
    for node in 0..NODES {
        sent.extend(send(cluster.node(node), AckLevel::Final, 200, 1));
    }
    for node in 0..NODES {
        cluster.wait_final(node, cluster.final_size(node, node));
        assert_eq!(found(cluster.node(node), &sent), sent.len(), "node {node}");
    }
    // A parent in another lane, below final there.
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(3), AckLevel::Final).await;
        let parents = [sent[0], sent[399]];
        let child = Sketch { parents, ..Sketch::new(&session, 900) }.sign(&device(2));
        let ack = submit(&session, std::slice::from_ref(&child)).await;
        assert_eq!(refusals(&ack), vec![]);
        sent.push(id(&child));
    });
    cluster.wait_final(3, cluster.final_size(3, 3));
    assert_eq!(found(cluster.node(0), &sent), sent.len());
    for node in cluster.up() {
        assert!((0..NODES as u16).all(|lane| node.confirm().faults(LaneId(lane)).is_empty()));
        assert!(!node.confirm().is_silenced());
    }
}

#[test]
fn an_ack_of_level_final_waits_for_a_quorum_and_durable_does_not() {
    let mut cluster = Cluster::new(1);
    cluster.start(0);
    cluster.start(1);
    // Two of four are no quorum: they wait for word of a third, and then go on without.
    cluster.wait_live([0, 1]);
    send(cluster.node(0), AckLevel::Durable, 10, 1);
    let waiting = runtime().block_on(async {
        let (client, session) = session(cluster.node(0), AckLevel::Final).await;
        let message = Sketch::new(&session, 1).sign(&device(3));
        let lengths = [u16::try_from(message.len()).unwrap()];
        let pending = session.submit(&lengths, Bytes::from(message)).await.unwrap();
        tokio::pin!(pending);
        let early = tokio::time::timeout(Duration::from_millis(1500), &mut pending).await;
        assert!(early.is_err(), "two of four have answered {early:?}");
        assert_eq!(cluster.final_size(0, 0), 0);
        let started = tokio::task::block_in_place(|| {
            cluster.start(2);
            Instant::now()
        });
        let ack = pending.await.unwrap();
        assert_eq!((ack.level, refusals(&ack)), (AckLevel::Final, vec![]));
        drop((client, session));
        started.elapsed()
    });
    assert!(cluster.final_size(0, 0) > 0 && waiting < Duration::from_secs(15), "{waiting:?}");
}

#[test]
fn a_node_that_was_down_catches_up_and_takes_part_again() {
    let mut cluster = Cluster::started(1);
    let before = send(cluster.node(2), AckLevel::Final, 100, 1);
    cluster.stop(2);
    // Three of four go on.
    let mut sent = before;
    for node in [0, 1, 3] {
        sent.extend(send(cluster.node(node), AckLevel::Final, 1500, 1));
    }
    cluster.start(2);
    cluster.wait_live([2]);
    for lane in [0, 1, 3] {
        cluster.wait_final(lane, cluster.final_size(lane, lane));
    }
    assert_eq!(found(cluster.node(2), &sent), sent.len());
    // With another one down its vote is needed.
    cluster.stop(0);
    sent.extend(send(cluster.node(2), AckLevel::Final, 100, 50));
    assert_eq!(found(cluster.node(2), &sent), sent.len());
    assert!(!cluster.node(2).confirm().is_silenced());
    // And the one that is down now gets what it has missed from whoever has it.
    cluster.start(0);
    cluster.wait_final(2, cluster.final_size(2, 2));
    assert_eq!(found(cluster.node(0), &sent), sent.len());
}

#[test]
fn a_node_restored_from_an_older_copy_stops_before_it_signs_anything_twice() {
    let mut cluster = Cluster::started(1);
    send(cluster.node(1), AckLevel::Final, 50, 1);
    cluster.stop(1);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(cluster.dirs[1].path(), copy.path());
    cluster.start(1);
    cluster.wait_live([1]);
    send(cluster.node(1), AckLevel::Final, 50, 2);
    let size = cluster.final_size(1, 1);
    cluster.wait_final(1, size);
    cluster.stop(1);
    std::fs::remove_dir_all(cluster.dirs[1].path()).unwrap();
    copy_dir(copy.path(), cluster.dirs[1].path());
    cluster.start(1);
    wait_for("it finds out", || cluster.node(1).health().state == State::Poisoned);
    let cause = cluster.node(1).health().cause.unwrap_or_default();
    assert!(cause.contains("signed and does not have"), "{cause}");
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(1), AckLevel::Durable).await;
        let message = Sketch::new(&session, 3).sign(&device(9));
        assert_eq!(refusals(&submit(&session, &[message]).await), [(0, Reason::LogFailed)]);
    });
    // The others go on, and have nothing to reproach it with.
    send(cluster.node(0), AckLevel::Final, 50, 60);
    for node in [0, 2, 3] {
        assert_eq!(cluster.node(node).confirm().faults(LaneId(1)), []);
    }
}

#[test]
fn a_lane_that_its_node_signs_two_ways_is_closed_everywhere_and_all_others_go_on() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let liar = Liar::two_ways([history(&dir, b"one", |_, _| {}), history(&dir, b"another", |_, _| {})]);
    let net = lie(&cluster, &dir, liar);
    for node in cluster.up() {
        wait_for("the fork is known", || node.confirm().faults(LaneId(3)).contains(&Fault::Forked));
    }
    for node in 0..3 {
        send(cluster.node(node), AckLevel::Final, 50, 1);
    }
    let finals: Vec<u64> = (0..3).map(|node| cluster.final_size(node, 3)).collect();
    assert_eq!(finals, [0, 0, 0], "one vote for the one, two for the other: neither is certified");
    for node in cluster.up() {
        assert!((0..3).all(|lane| node.confirm().faults(LaneId(lane)).is_empty()));
    }
    runtime().block_on(net.shutdown());
}

/// Size and root of a lane after a batch.
fn end_of(batch: &Bytes) -> (u64, [u8; 32]) {
    let view = BatchView::parse(batch).unwrap();
    (view.size(), *view.root())
}

fn first_id(batch: &Bytes) -> MessageId {
    BatchView::parse(batch).unwrap().message(0).unwrap().message.id()
}

/// A witness of node 3 that cuts its own lane here.
fn witness(dir: &DataDir, (size, root): (u64, [u8; 32])) -> Bytes {
    let claim = Claim { lane: LaneId(3), size, root };
    let witness = Witness { number: 1, covers_data: true, cut: vec![claim], ..Witness::default() };
    let draft = Draft {
        network: dir.genesis_id().network(),
        issued_at_us: now_us(),
        sequence: 1,
        parents: dir.genesis_id().roots(),
        kind: PayloadKind::WITNESS,
        payload: &witness.encode().unwrap(),
    };
    draft.sign(&DeviceSigner::from_seed(*dir.node_seed())).unwrap().into()
}

async fn receipt(session: &Session, id: MessageId) -> Result<Receipt, ErrorCode> {
    match session.query(Query::Receipt { id, size: 0 }).await {
        Ok(Answer::Receipt(text)) => Ok(Receipt::parse(&text).unwrap()),
        Err(NetError::Request(error)) => Err(error.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_holds_the_losing_side_of_a_fork_changes_to_the_certified_one_and_keeps_no_trace_of_its_own() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let genesis = dir.genesis().clone();
    let mut tree = LaneTree::new();
    let shared = batch_of(&dir, &mut tree, (1, b"shared"), |_| {});
    let lost = batch_of(&dir, &mut tree.clone(), (2, b"lost"), |_| {});
    let won = [2, 3].map(|number| batch_of(&dir, &mut tree, (number, b"won"), |_| {}));
    let histories = [vec![shared.clone(), lost.clone()], [&[shared.clone()][..], &won].concat()];
    let before = send(cluster.node(0), AckLevel::Final, 50, 1);

    // Node 0 gets the one history, nodes 1 and 2 the other; all three cut what they have. The liar's vote certifies the other.
    let net = lie(&cluster, &dir, Liar::two_ways(histories));
    let lane = LaneId(3);
    let (end, lost_end) = (end_of(&won[1]), end_of(&lost));
    let held = |node: usize| cluster.node(node).confirm().marks(lane).held;
    wait_for("all hold a history", || held(0) == lost_end.0 && held(1) == end.0 && held(2) == end.0);
    let copy = cluster.node(0).confirm().ask(|machine| machine.root_at(lane, lost_end.0).copied());
    assert_eq!(copy, Some(lost_end.1));
    assert_eq!(net.broadcast_witness(&witness(&dir, end)), 3);
    // Acks of node 0's own lane go on meanwhile.
    let meanwhile = std::thread::scope(|scope| {
        let meanwhile = scope.spawn(|| {
            let mut sent = Vec::new();
            for round in 0..20 {
                sent.extend(send(cluster.node(0), AckLevel::Final, 5, 10 + round));
            }
            sent
        });
        cluster.wait_final(3, end.0);
        meanwhile.join().unwrap()
    });
    let after = send(cluster.node(0), AckLevel::Final, 50, 100);

    // Nothing of the lost side is left at node 0, and everything of the other is there, byte for byte.
    let sent = [before, meanwhile, after].concat();
    cluster.wait_final(0, cluster.final_size(0, 0));
    for node in 0..3 {
        assert_eq!(found(cluster.node(node), &sent), sent.len(), "node {node}");
        assert_eq!(cluster.final_size(node, 3), end.0);
        assert_eq!(cluster.node(node).confirm().faults(lane), [Fault::Forked]);
        assert!((0..3).all(|lane| cluster.node(node).confirm().faults(LaneId(lane)).is_empty()));
    }
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(0), AckLevel::Final).await;
        let ids = [&shared, &won[0], &won[1], &lost].map(first_id);
        let found = session.get(&ids).await.unwrap();
        for (batch, found) in [&shared, &won[0], &won[1]].into_iter().zip(&found) {
            let Lookup::Found(found) = found else { panic!("{found:?}") };
            let view = BatchView::parse(batch).unwrap();
            assert_eq!(found.bytes, view.message(0).unwrap().message.bytes());
        }
        assert_eq!(found[3], Lookup::Absent);
        // Receipts from node 0: of what won, with a quorum, its own signature included; of what was lost, none.
        for batch in [&shared, &won[0], &won[1]] {
            let receipt = receipt(&session, first_id(batch)).await.unwrap();
            let verified = receipt.verify(&genesis, None, |key, text, signature| {
                weft_crypto::serial::verify_one(&key.0, text, signature)
            });
            let verified = verified.unwrap();
            assert_eq!((verified.id, verified.place.lane()), (first_id(batch), lane));
            assert_eq!(verified.endorsement.validators, [0, 1, 2]);
        }
        assert_eq!(receipt(&session, first_id(&lost)).await, Err(ErrorCode::NotFound));
        let cosign = |(size, root): (u64, [u8; 32])| session.query(Query::Cosign { lane, size, root });
        assert!(matches!(cosign(end_of(&won[0])).await, Ok(Answer::Cosignature(_))));
        let Err(NetError::Request(error)) = cosign(lost_end).await else { panic!("it signs two histories") };
        assert_eq!(error.code, ErrorCode::NotFound);
        // What won may be cited at node 0, what was lost is not there.
        let cite = |sequence, parent| {
            let mut sketch = Sketch::new(&session, sequence);
            sketch.parents[1] = parent;
            sketch.sign(&device(3))
        };
        let ack = submit(&session, &[cite(1, first_id(&won[1])), cite(2, first_id(&lost))]).await;
        assert_eq!((ack.level, refusals(&ack)), (AckLevel::Final, vec![(1, Reason::UnknownParent)]));
    });

    // Alone, after a restart: the log is that of the side that won, and the fork is known without anybody's word.
    runtime().block_on(net.shutdown());
    (0..3).for_each(|node| cluster.stop(node));
    let weft = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(arguments).arg("--data").arg(cluster.dirs[0].path()).output().unwrap()
    };
    let verified = weft(&["verify-log"]);
    assert!(verified.status.success(), "{verified:?}");
    cluster.start(0);
    let is_closed = |cluster: &Cluster| cluster.node(0).confirm().ask(|machine| machine.is_closed(lane));
    assert_eq!(cluster.node(0).confirm().faults(lane), [Fault::Forked]);
    assert!(is_closed(&cluster));
    assert_eq!(cluster.final_size(0, 3), end.0);
    assert_eq!(found(cluster.node(0), &[first_id(&won[1]), first_id(&lost)]), 1);
    cluster.stop(0);

    // Without a readable proof it starts, says so, and has forgotten the fork and nothing else.
    let file = cluster.dirs[0].path().join("forks");
    let mut bytes = std::fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    [60, half + 60].into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&file, &bytes).unwrap();
    cluster.start(0);
    assert_eq!(cluster.node(0).confirm().faults(lane), []);
    assert!(!is_closed(&cluster));
    assert_eq!(cluster.final_size(0, 3), end.0);
    assert!(cluster.dirs[0].path().join("forks.damaged").exists() && !file.exists());
}

#[test]
fn a_replicated_batch_with_a_bad_device_signature_ends_its_lane_before_it_on_every_node() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    // The seal is right, and so is the first message; of the second one a bit of the signature is not.
    let spoiled = history(&dir, b"data", |sequence, message| {
        if sequence == 2 {
            let byte = message.len() - 40;
            message[byte] ^= 1;
        }
    });
    let net = lie(&cluster, &dir, Liar::two_ways([spoiled.clone(), spoiled]));
    for node in cluster.up() {
        wait_for("the lane has ended", || node.confirm().faults(LaneId(3)).contains(&Fault::Ended));
    }
    // A header and a message: the first batch.
    (0..3).for_each(|node| wait_for("the first batch is final", || cluster.final_size(node, 3) == 2));
    for node in 0..3 {
        send(cluster.node(node), AckLevel::Final, 50, 1);
        assert_eq!(cluster.final_size(node, 3), 2, "never the second one");
        assert!((0..3).all(|lane| cluster.node(node).confirm().faults(LaneId(lane)).is_empty()));
    }
    runtime().block_on(net.shutdown());
}

/// A witness that says nothing, with a signature that is not valid.
fn unsigned_witness(
    genesis: GenesisId,
    signer: &DeviceSigner,
    number: u64,
    predecessor: MessageId,
) -> Vec<u8> {
    let payload = Witness { number, predecessor, ..Witness::default() }.encode().unwrap();
    let draft = Draft {
        network: genesis.network(),
        issued_at_us: now_us(),
        sequence: number,
        parents: genesis.roots(),
        kind: PayloadKind::WITNESS,
        payload: &payload,
    };
    let mut message = draft.sign(signer).unwrap();
    *message.last_mut().unwrap() ^= 1;
    message
}

/// Batches of one such witness each in the lane of node 3, sealed with its key.
fn unsigned_witnesses(dir: &DataDir, count: u64) -> Vec<Bytes> {
    let (genesis, signer) = (dir.genesis_id(), DeviceSigner::from_seed(*dir.node_seed()));
    let (mut tree, mut batches) = (LaneTree::new(), Vec::new());
    let mut predecessor = MessageId([0; 32]);
    for number in 1..=count {
        let message = unsigned_witness(genesis, &signer, number, predecessor);
        predecessor = id(&message);
        let view = weft_core::MessageView::parse(&message).unwrap();
        let mut builder = BatchBuilder::new(1, 10_000);
        builder.push([Place::root(0), Place::root(1)], &VerifiedMessage::vouch(view)).unwrap();
        let seal = |text: &[u8]| signer.sign_bytes(text);
        let sealed = builder.seal(&mut tree, genesis.network(), LaneId(3), seal).unwrap();
        batches.push(Bytes::copy_from_slice(sealed.bytes()));
    }
    batches
}

#[test]
fn what_a_liar_puts_into_its_lane_is_held_against_no_honest_node_that_passes_it_on() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    // Node 0 gets the lane; the others have to ask it, for the chain of witnesses first.
    let liar = Liar::two_ways([unsigned_witnesses(&dir, 8), Vec::new()]);
    let net = lie(&cluster, &dir, liar);
    for node in cluster.up() {
        wait_for("all have found the lane out", || node.confirm().faults(LaneId(3)).contains(&Fault::Ended));
    }
    // A second round of telling each other what is held.
    std::thread::sleep(Duration::from_millis(1_500));
    for (node, running) in cluster.up().enumerate() {
        for peer in running.peers().iter().filter(|peer| peer.peer != LaneId(3)) {
            let honest = peer.state == PeerState::Connected && peer.score == 0;
            assert!(honest, "node {node} of {}: {:?}, {} points", peer.peer, peer.state, peer.score);
        }
    }
    runtime().block_on(net.shutdown());
}

#[test]
fn a_witness_without_a_valid_signature_is_held_against_its_validator_and_against_nobody_else() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let net = lie(&cluster, &dir, Liar::two_ways([Vec::new(), Vec::new()]));
    let score = |node: usize| {
        let peers = cluster.node(node).peers();
        peers.iter().find(|peer| peer.peer == LaneId(3)).map_or(0, |peer| peer.score)
    };
    (0..3).for_each(|node| wait_for("it is connected", || net.is_connected(LaneId(node))));
    let send = |validator: u8| {
        let signer = DeviceSigner::from_seed([100 + validator; 32]);
        let message = unsigned_witness(dir.genesis_id(), &signer, 100, MessageId([1; 32]));
        assert_eq!(net.broadcast_witness(&Bytes::from(message)), 3);
    };
    // Of validator 2: a point each, for the work. Then of the node that sends them. Points fade.
    [2, 2, 2].into_iter().for_each(send);
    send(3);
    for node in 0..3 {
        wait_for("the last one came", || score(node) > 20);
        assert!(score(node) <= 25 + 3, "one fault and not four: {}", score(node));
    }
    runtime().block_on(net.shutdown());
}

#[test]
fn what_a_log_has_lost_of_another_lane_is_verified_again_when_it_comes_back() {
    let mut cluster = Cluster::started(1);
    send(cluster.node(0), AckLevel::Final, 200, 1);
    cluster.wait_final(0, cluster.final_size(0, 0));
    // Node 1 must have written down how far the lane was final: its next witness does.
    send(cluster.node(1), AckLevel::Final, 1, 70);
    cluster.wait_final(0, cluster.final_size(0, 0));
    cluster.stop(1);
    // What was final here, and on no disk here.
    let lost = cluster.dirs[1].path().join("lanes/0");
    std::fs::remove_dir_all(&lost).unwrap();
    std::fs::create_dir(&lost).unwrap();
    cluster.start(1);
    cluster.wait_live([1]);
    cluster.wait_final(0, cluster.final_size(0, 0));
    let verified =
        cluster.node(1).counters().replicated_signatures.load(std::sync::atomic::Ordering::Relaxed);
    assert!(verified >= 200, "{verified} signatures were verified");
}

#[test]
fn a_validator_that_gives_wrong_signatures_spoils_no_receipt_and_is_banned_for_them() {
    let mut cluster = Cluster::new(1);
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_live(0..3);
    let dir = DataDir::open(cluster.dirs[3].path()).unwrap();
    let net = lie(&cluster, &dir, Liar { forges: true, ..Liar::two_ways([vec![], vec![]]) });
    wait_for("the liar is connected", || net.is_connected(LaneId(0)));
    let ids = send(cluster.node(0), AckLevel::Final, 10, 1);
    let genesis = dir.genesis();
    let verify = |key: &NodeKey, text: &[u8], signature: &[u8; 64]| {
        weft_crypto::serial::verify_one(&key.0, text, signature)
    };
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(0), AckLevel::Durable).await;
        let whole = receipt(&session, ids[0]).await.unwrap();
        assert_eq!(whole.verify(genesis, None, verify).unwrap().endorsement.validators, [0, 1, 2]);
        // Without node 2 there is no quorum, so that everybody's answer is waited for.
        tokio::task::block_in_place(|| cluster.stop(2));
        let size = whole.checkpoint.checkpoint.size;
        // Points fade: the fourth time may be a little short of a ban, the fifth is not.
        for asked in 1..=5 {
            let Ok(Answer::Receipt(text)) = session.query(Query::Receipt { id: ids[0], size }).await else {
                panic!("no receipt")
            };
            let receipt = Receipt::parse(&text).unwrap();
            let error = VerifyError::Checkpoint(EndorseError::NoQuorum { got: 2, total: 4 });
            assert_eq!(receipt.verify(genesis, None, verify), Err(error));
            let peers = cluster.node(0).peers();
            let liar = peers.iter().find(|peer| peer.peer == LaneId(3)).unwrap();
            let is_banned = matches!(liar.state, PeerState::Banned(_));
            assert!(
                if asked < 4 { liar.score > 25 * (asked - 1) } else { asked == 4 || is_banned },
                "{liar:?}"
            );
        }
        assert!(cluster.node(0).peers().iter().all(|peer| peer.peer == LaneId(3) || peer.score == 0));
    });
    runtime().block_on(net.shutdown());
}

#[test]
fn of_a_double_spend_at_two_nodes_at_once_no_two_halves_are_ever_in_a_ledger() {
    let cluster = Cluster::started(1000);
    let mut entered = 0;
    for round in 0..15u64 {
        // An account that signs two payloads for one sequence can stop itself: then the test is over.
        let next = cluster
            .node(0)
            .confirm()
            .ask(|machine| machine.ledger().account(&device(1).public()).map_or(0, |account| account.next));
        if next < round {
            break;
        }
        runtime().block_on(async {
            let (_left, left) = session(cluster.node(0), AckLevel::Durable).await;
            let (_right, right) = session(cluster.node(3), AckLevel::Durable).await;
            let spends =
                (pay(&left, 2 * round + 1, (round, 2, 1)), pay(&right, 2 * round + 2, (round, 3, 1)));
            let refused = tokio::join!(spends.0, spends.1);
            assert!(refused.0.is_none() || refused.1.is_none(), "{refused:?}");
        });
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && cluster.balance(0, 1) == 1000 - round {
            std::thread::sleep(Duration::from_millis(10));
        }
        entered += u64::from(cluster.balance(0, 1) < 1000 - round);
    }
    // All ledgers come to agree, and no money was made.
    for node in 0..NODES {
        wait_for("the ledgers agree", || {
            (1..=3).all(|account| cluster.balance(node, account) == cluster.balance(0, account))
        });
        let [spent, left, right] = [1, 2, 3].map(|account| cluster.balance(node, account));
        assert_eq!((spent + left + right, left + right), (1000, entered), "node {node}");
    }
}

/// Niceness of the threads of this process whose names begin so.
#[cfg(target_os = "linux")]
fn niceness(name: &str) -> Vec<i32> {
    let of = |task: std::fs::DirEntry| {
        let is_named = std::fs::read_to_string(task.path().join("comm")).ok()?.starts_with(name);
        let stat = std::fs::read_to_string(task.path().join("stat")).ok().filter(|_| is_named)?;
        // Field 19 of all; the name, field 2, ends with the last bracket.
        stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
    };
    std::fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(of).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_of_a_cluster_takes_messages_with_what_time_is_left_after_it_has_checked_those_of_others() {
    let _cluster = Cluster::started(1);
    let (checks, takes) = (niceness("weft-check"), niceness("weft-verify"));
    assert!(checks.len() >= NODES && takes.len() >= NODES, "{checks:?} {takes:?}");
    let least = checks.iter().max().unwrap() + 10;
    assert!(takes.iter().all(|takes| *takes >= least.min(19)), "{checks:?} {takes:?}");
}
