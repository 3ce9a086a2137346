//! Confirmation at a committee of one: levels, restarts, operations on accounts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Sketch, config, device, id, ledger, now_us, pay, refusals, runtime, session, start, submit};
use weft_core::confirm::{LaneVotes, Votes, Witness};
use weft_core::{Balance, DeviceKey, DeviceSigner, Draft, Genesis, LaneId, MessageId, PayloadKind, Reason};
use weft_net::{AckLevel, Lookup};
use weft_node::confirm::record::RecordFile;
use weft_node::node::RunningNode;
use weft_storage::DataDir;

const LANE: LaneId = LaneId(0);

/// Waits until `done`, at most ten seconds.
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends one data message at `level`.
fn send(node: &RunningNode, level: AckLevel, sequence: u64) -> MessageId {
    runtime().block_on(async {
        let (_client, session) = session(node, level).await;
        let message = Sketch::new(&session, sequence).sign(&device(1));
        let ack = submit(&session, std::slice::from_ref(&message)).await;
        assert_eq!((ack.level, refusals(&ack)), (level, vec![]));
        id(&message)
    })
}

fn place_of(node: &RunningNode, id: MessageId) -> u64 {
    runtime().block_on(async {
        let (_client, session) = session(node, AckLevel::Durable).await;
        match &session.get(&[id]).await.unwrap()[..] {
            [Lookup::Found(found)] => found.place.position(),
            other => panic!("{other:?}"),
        }
    })
}

fn witnesses(node: &RunningNode) -> u64 {
    node.confirm().counters.witnesses.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn an_ack_of_level_final_leaves_when_the_message_is_final_and_an_idle_node_says_nothing() {
    let data = ledger();
    let node = start(&config(data.path()));
    for sequence in 1..=5 {
        let message = send(&node, AckLevel::Final, sequence);
        let place = place_of(&node, message);
        let marks = node.confirm().marks(LANE);
        assert!(marks.final_size > place && marks.certified >= marks.final_size, "{marks:?} {place}");
    }
    // Two more rounds at most: the witness over the data, and those that make it final.
    std::thread::sleep(Duration::from_millis(500));
    let silent = witnesses(&node);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(witnesses(&node), silent, "nothing to state, nothing stated");
    assert!(silent >= 5, "one before each of five acks");
    node.stop();
}

#[test]
fn after_a_restart_what_was_final_is_final_and_the_chain_goes_on() {
    let data = ledger();
    let node = start(&config(data.path()));
    let first = send(&node, AckLevel::Final, 1);
    let final_size = node.confirm().final_size(LANE);
    node.stop();
    let node = start(&config(data.path()));
    assert!(node.confirm().final_size(LANE) >= final_size, "at the start, before anything is asked");
    assert!(place_of(&node, first) < final_size);
    send(&node, AckLevel::Final, 2);
    assert!(!node.confirm().is_silenced());
    assert!(node.confirm().ask(|machine| machine.followed(0)) >= 2, "one chain over both lives");
    node.stop();
}

#[test]
fn a_validator_that_has_lost_its_votes_states_nothing_more_and_keeps_taking_messages() {
    let data = ledger();
    let node = start(&config(data.path()));
    send(&node, AckLevel::Final, 1);
    node.stop();
    std::fs::remove_file(data.path().join("votes")).unwrap();
    let node = start(&config(data.path()));
    assert!(node.confirm().is_silenced());
    send(&node, AckLevel::Durable, 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(witnesses(&node), 0);
    node.stop();
}

#[test]
fn a_witness_that_the_log_has_lost_is_put_back_from_the_record() {
    let data = ledger();
    let seed = *DataDir::open(data.path()).unwrap().node_seed();
    let (signer, genesis) = {
        let dir = DataDir::open(data.path()).unwrap();
        (DeviceSigner::from_seed(seed), dir.genesis_id())
    };
    // The node died after it had made its votes durable and before its log had the witness.
    let witness = Witness { number: 1, ..Witness::default() };
    let message = Draft {
        network: genesis.network(),
        issued_at_us: now_us(),
        sequence: 1,
        parents: genesis.roots(),
        kind: PayloadKind::WITNESS,
        payload: &witness.encode().unwrap(),
    }
    .sign(&signer)
    .unwrap();
    let nothing = (0, weft_core::merkle::EMPTY_ROOT);
    let lane = LaneVotes { cut: nothing, certified: nothing, judged: 0, final_size: 0 };
    let votes = Votes { number: 1, lanes: vec![lane], locks: vec![] };
    RecordFile::open(data.path()).unwrap().0.write(&votes, Some(&message)).unwrap();

    let node = start(&config(data.path()));
    wait_for("the chain has it", || node.confirm().ask(|machine| machine.followed(0)) >= 1);
    assert!(place_of(&node, id(&message)) > 0);
    send(&node, AckLevel::Final, 1);
    assert!(!node.confirm().is_silenced() && node.confirm().ask(|machine| machine.followed(0)) >= 2);
    node.stop();
}

/// A ledger of one node in which device 1 has `amount`.
fn ledger_with_balance(dir: &Path, amount: u64) {
    let seed = [77; 32];
    let key = DeviceSigner::from_seed(seed).public();
    let balances = vec![Balance { account: device(1).public(), amount }];
    let genesis = Genesis { balances, ..Genesis::single("money", now_us(), key) };
    DataDir::init(dir, &genesis, &seed).unwrap();
}

fn balance(node: &RunningNode, key: DeviceKey) -> u64 {
    node.confirm().ask(|machine| machine.ledger().account(&key).map_or(0, |account| account.balance))
}

#[test]
fn an_operation_is_taken_only_if_it_would_be_accepted_and_moves_money_once_it_is_final() {
    let dir = tempfile::tempdir().unwrap();
    ledger_with_balance(dir.path(), 100);
    let node = start(&config(dir.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Final).await;
        assert_eq!(pay(&session, 1, (0, 2, 101)).await, Some(Reason::InsufficientBalance));
        assert_eq!(pay(&session, 2, (1, 2, 10)).await, Some(Reason::AccountSequence), "not its turn yet");
        assert_eq!(pay(&session, 3, (0, 2, 60)).await, None);
        // An operation is settled by witnesses below final: a round or two after the message is final.
        wait_for("it enters the ledger", || balance(&node, device(2).public()) == 60);
        assert_eq!(pay(&session, 4, (0, 3, 60)).await, Some(Reason::AccountSequence), "spent already");
        assert_eq!(pay(&session, 5, (1, 3, 41)).await, Some(Reason::InsufficientBalance));
        assert_eq!(pay(&session, 6, (1, 3, 40)).await, None);
        wait_for("it enters the ledger", || balance(&node, device(3).public()) == 40);
    });
    assert_eq!(balance(&node, device(1).public()), 0);
    node.stop();
    let node = start(&config(dir.path()));
    wait_for("the ledger is back", || balance(&node, device(3).public()) == 40);
    assert_eq!((balance(&node, device(1).public()), balance(&node, device(2).public())), (0, 60));
    node.stop();
}

#[test]
fn of_two_operations_for_one_sequence_the_node_takes_one_however_close_they_come() {
    let dir = tempfile::tempdir().unwrap();
    ledger_with_balance(dir.path(), 100);
    let node = start(&config(dir.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        for round in 0..10 {
            let left = pay(&session, 2 * round + 1, (round, 2, 1));
            let right = pay(&session, 2 * round + 2, (round, 3, 1));
            let (left, right) = tokio::join!(left, right);
            let refused: Vec<Reason> = [left, right].into_iter().flatten().collect();
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert!(matches!(refused[0], Reason::OperationConflict | Reason::AccountSequence), "{refused:?}");
            wait_for("one enters the ledger", || balance(&node, device(1).public()) == 99 - round);
        }
    });
    let total: u64 = (1..=3).map(|number| balance(&node, device(number).public())).sum();
    assert_eq!(total, 100, "money is conserved");
    node.stop();
}
