//! Accounts: what queries tell of them, histories over restarts, double spends, and the commands that pay.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{config, now_us, refusals, runtime, session, start, submit};
use weft_core::confirm::Transfer;
use weft_core::{Balance, DeviceKey, DeviceSigner, Draft, Genesis, PayloadKind, Reason};
use weft_net::{
    AccountStanding, AccountState, AckLevel, Answer, ErrorCode, History, NetError, Payment, Query, Session,
};
use weft_node::node::RunningNode;
use weft_storage::DataDir;

fn owner(number: u16) -> DeviceSigner {
    let mut seed = [0x5a; 32];
    seed[..2].copy_from_slice(&number.to_le_bytes());
    DeviceSigner::from_seed(seed)
}

fn key(number: u16) -> DeviceKey {
    owner(number).public()
}

/// A ledger in which each of the first `accounts` owners has `amount`.
fn ledger(dir: &Path, accounts: u16, amount: u64) -> Genesis {
    let seed = [77; 32];
    let mut balances: Vec<Balance> =
        (0..accounts).map(|number| Balance { account: key(number), amount }).collect();
    balances.sort_unstable_by_key(|balance| balance.account);
    let node = DeviceSigner::from_seed(seed).public();
    let genesis = Genesis { balances, ..Genesis::single("money", now_us(), node) };
    DataDir::init(dir, &genesis, &seed).unwrap();
    genesis
}

/// `sent` numbers the messages of an owner; the account's own `sequence` is in the payload.
fn payment(
    session: &Session,
    (from, sent, sequence): (u16, u64, u64),
    (to, amount, memo): (u16, u64, &[u8]),
) -> Vec<u8> {
    let transfer = Transfer { account_sequence: sequence, to: key(to), amount, memo };
    let welcome = session.welcome();
    let draft = Draft {
        network: welcome.network,
        issued_at_us: now_us(),
        sequence: sent,
        parents: welcome.genesis.roots(),
        kind: PayloadKind::TRANSFER,
        payload: &transfer.encode().unwrap(),
    };
    draft.sign(&owner(from)).unwrap()
}

async fn account(session: &Session, number: u16) -> AccountState {
    loop {
        match session.query(Query::Account { account: key(number) }).await {
            Ok(Answer::Account(state)) => return state,
            Err(NetError::Request(error)) if error.code == ErrorCode::NotYet => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the ledger has come to sequence `next` of an account.
async fn settled(session: &Session, number: u16, next: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    while account(session, number).await.next < next {
        assert!(Instant::now() < until, "account {number} does not come to sequence {next}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn page(session: &Session, number: u16, other: Option<u16>, cursor: u64, count: u16) -> History {
    let query = Query::History { account: key(number), other: other.map(key), cursor, count };
    match session.query(query).await.unwrap() {
        Answer::History(history) => history,
        other => panic!("{other:?}"),
    }
}

async fn history(session: &Session, number: u16, other: Option<u16>) -> Vec<Payment> {
    page(session, number, other, 0, 256).await.payments
}

/// The history of an account once it has so many payments. The ledger shows a payment a moment before the history has it.
async fn history_of(session: &Session, number: u16, payments: usize) -> Vec<Payment> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let found = history(session, number, None).await;
        if found.len() >= payments {
            return found;
        }
        assert!(Instant::now() < until, "account {number} has {} of {payments} payments", found.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_history_has_every_payment_of_an_account_newest_first_and_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path(), 2, 1_000);
    let node = start(&config(dir.path()));
    let before = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        for round in 0..6 {
            for (from, to) in [(0, 1), (1, 2), (0, 2), (1, 1)] {
                let sequence = account(&session, from).await.next;
                let memo = format!("{round}: {from} to {to}");
                let message = payment(&session, (from, sequence, sequence), (to, 1 + round, memo.as_bytes()));
                let ack = submit(&session, &[message]).await;
                assert_eq!(refusals(&ack), []);
                settled(&session, from, sequence + 1).await;
            }
        }
        history_of(&session, 1, 18).await;
        let mine = history(&session, 0, None).await;
        assert_eq!(mine.len(), 12);
        assert_eq!(
            mine.iter().map(|payment| payment.sequence).collect::<Vec<_>>(),
            (0..12).rev().collect::<Vec<_>>()
        );
        assert_eq!((mine[0].to, mine[0].amount, &mine[0].memo[..]), (key(2), 6, &b"5: 0 to 2"[..]));
        assert_eq!(history(&session, 2, None).await.len(), 12);
        let both = history(&session, 1, Some(0)).await;
        assert_eq!(both, history(&session, 0, Some(1)).await);
        assert_eq!(both.iter().map(|payment| payment.amount).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
        // A payment to oneself stands there once.
        assert_eq!(history(&session, 1, Some(1)).await.len(), 6);
        assert_eq!(history(&session, 1, None).await.len(), 18);
        // In pages, each going on where the one before ended.
        let (mut cursor, mut paged) = (0, Vec::new());
        loop {
            let page = page(&session, 1, None, cursor, 5).await;
            assert!(page.payments.len() <= 5);
            paged.extend(page.payments);
            cursor = page.next_cursor;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(paged, history(&session, 1, None).await);
        // A cursor of another account, and one beyond all.
        for (number, cursor) in [(7, 1), (0, 1_000_000), (2, 4)] {
            let query = Query::History { account: key(number), other: None, cursor, count: 1 };
            let error = session.query(query).await.unwrap_err();
            assert!(
                matches!(error, NetError::Request(error) if error.code == ErrorCode::NotFound),
                "{number}"
            );
        }
        assert_eq!(history(&session, 7, None).await, []);
        let unknown = AccountState { standing: AccountStanding::Unknown, balance: 0, next: 0, lock: None };
        assert_eq!(account(&session, 7).await, unknown);
        (mine, account(&session, 0).await, account(&session, 1).await, account(&session, 2).await)
    });
    assert_eq!(before.1.balance + before.2.balance + before.3.balance, 2_000);
    assert_eq!((before.1.standing, before.1.balance, before.1.next), (AccountStanding::Open, 1_000 - 42, 12));
    node.stop();
    let node = start(&config(dir.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        settled(&session, 0, 12).await;
        settled(&session, 1, 12).await;
        let after = (account(&session, 0).await, account(&session, 1).await, account(&session, 2).await);
        assert_eq!((before.1, before.2, before.3), after);
        assert_eq!(before.0, history_of(&session, 0, before.0.len()).await);
    });
    node.stop();
}

#[test]
fn of_a_thousand_double_spends_handed_in_on_two_connections_at_once_none_moves_money_twice() {
    const ACCOUNTS: u16 = 100;
    const ROUNDS: u64 = 10;
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path(), ACCOUNTS, ROUNDS);
    let node = start(&config(dir.path()));
    runtime().block_on(async {
        let (_left, left) = session(&node, AckLevel::Durable).await;
        let (_right, right) = session(&node, AckLevel::Durable).await;
        let mut both_refused = 0;
        for round in 0..ROUNDS {
            // Each account pays its all of this round to one on the left, and to another one on the right.
            let messages = |session: &Session, shift: u16| -> Vec<Vec<u8>> {
                let sent = 2 * round + u64::from(shift);
                let one = |number| payment(session, (number, sent, round), (ACCOUNTS + shift, 1, b""));
                (0..ACCOUNTS).map(one).collect()
            };
            let (on_left, on_right) = (messages(&left, 1), messages(&right, 2));
            let (on_left, on_right) = tokio::join!(submit(&left, &on_left), submit(&right, &on_right));
            let refused = |ack| -> Vec<u32> {
                let refusals: Vec<(u32, Reason)> = refusals(ack);
                let known = |reason| matches!(reason, Reason::OperationConflict | Reason::AccountSequence);
                assert!(refusals.iter().all(|(_, reason)| known(*reason)), "{refusals:?}");
                refusals.into_iter().map(|(index, _)| index).collect()
            };
            let (on_left, on_right) = (refused(&on_left), refused(&on_right));
            for number in 0..u32::from(ACCOUNTS) {
                let refused = (on_left.contains(&number), on_right.contains(&number));
                assert_ne!(refused, (false, false), "account {number} spent twice in round {round}");
                both_refused += u32::from(refused == (true, true));
            }
            for number in 0..ACCOUNTS {
                settled(&left, number, round + 1).await;
            }
        }
        assert_eq!(both_refused, 0, "one node takes the first");
        let mut supply = 0;
        for number in 0..ACCOUNTS + 3 {
            supply += account(&left, number).await.balance;
        }
        assert_eq!(supply, u64::from(ACCOUNTS) * ROUNDS, "money is conserved");
        for number in 0..ACCOUNTS {
            let sequences: Vec<u64> = history_of(&left, number, ROUNDS as usize)
                .await
                .iter()
                .map(|payment| payment.sequence)
                .collect();
            assert_eq!(sequences, (0..ROUNDS).rev().collect::<Vec<_>>(), "account {number}");
        }
        let got = |page: &History| page.payments.iter().map(|payment| payment.amount).sum::<u64>();
        let (mut paid, mut pages) = (0, 0);
        for number in [ACCOUNTS + 1, ACCOUNTS + 2] {
            let mut cursor = 0;
            loop {
                let page = page(&left, number, None, cursor, 256).await;
                paid += got(&page);
                pages += 1;
                cursor = page.next_cursor;
                if cursor == 0 {
                    break;
                }
            }
        }
        assert_eq!(paid, u64::from(ACCOUNTS) * ROUNDS);
        assert!(pages >= 4);
    });
    node.stop();
}

/// A directory with key files, and a node to run commands against.
struct Bench {
    dir: tempfile::TempDir,
    node: RunningNode,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn weft(&self, arguments: &[&str]) -> Output {
        let to = self.node.address().to_string();
        weft(arguments, &[("WEFT_TO", &to), ("WEFT_PIN", &self.node.fingerprint().to_string())])
    }
}

fn weft(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn expect(output: &Output, code: i32, text: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert!(out.contains(text) || err.contains(text), "no {text:?} in:\n{out}\n{err}");
    out.trim().to_owned()
}

#[test]
fn the_commands_make_payments_and_show_them() {
    let dir = tempfile::tempdir().unwrap();
    let name = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let alice = expect(&weft(&["key", "new", &name("alice.key")], &[]), 0, "");
    let bob = expect(&weft(&["key", "new", &name("bob.key")], &[]), 0, "");
    let data = name("ledger");
    let balance = format!("{alice}=1000");
    let twice = weft(&["init", "--data", &data, "--balance", &balance, "--balance", &balance], &[]);
    expect(&twice, 2, "is there twice");
    expect(&weft(&["init", "--data", &data, "--balance", "xyz=1"], &[]), 2, "need KEY=AMOUNT");
    expect(
        &weft(&["init", "--data", &data, "--balance", &format!("{alice}=0")], &[]),
        2,
        "begins with something",
    );
    expect(&weft(&["init", "--data", &data, "--balance", &balance], &[]), 0, "1000 units on 1 account");
    let node = start(&config(Path::new(&data)));
    let bench = Bench { dir, node };
    let key = bench.name("alice.key");

    expect(&bench.weft(&["account", "show", &alice]), 0, "balance   1000");
    expect(&bench.weft(&["account", "show", &bob]), 0, "state     unknown");
    let pay = |key: &str, to: &str, amount: &str, memo: &str| {
        bench.weft(&["send", "--key", key, "--to", to, "--amount", amount, "--memo", memo])
    };
    let first = expect(&pay(&key, &bob, "25", "order 17"), 0, "the account has 975 now");
    expect(&pay(&bench.name("bob.key"), &alice, "5", "change"), 0, "the account has 20 now");
    expect(&pay(&bench.name("bob.key"), &alice, "21", ""), 1, "does not cover 21");
    expect(&pay(&key, &bob, "0", ""), 2, "moves something");
    expect(&bench.weft(&["send", "--key", &key, "--to", &bob]), 2, "");
    expect(&bench.weft(&["send", "--to", &bob, "--amount", "1"]), 2, "--key");
    expect(&bench.weft(&["account", "show", &key]), 0, "balance   980");

    let shown = bench.weft(&["history", &alice, "--json"]);
    expect(&shown, 0, "");
    let report: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&report[0]["memo"], &report[0]["amount"]), (&"change".into(), &5.into()));
    assert_eq!((&report[1]["id"], &report[1]["memo"]), (&first.as_str().into(), &"order 17".into()));
    assert_eq!(report.as_array().unwrap().len(), 2);
    let between = expect(&bench.weft(&["history", "--between", &bob, &key]), 0, "");
    assert!(
        between.contains("-5 ") && between.contains("+25 ") && between.contains("\"order 17\""),
        "{between}"
    );
    expect(&bench.weft(&["history", &"ab".repeat(32)]), 0, "no payments");

    // The payment's message is in the ledger like any other: its receipt says so to whoever has the genesis.
    let genesis = Path::new(&data).join("genesis.bin");
    let receipt = bench.name("receipt");
    expect(&bench.weft(&["receipt", "get", &first, "-o", &receipt]), 0, "");
    let verify = ["receipt", "verify", &receipt, "--genesis", genesis.to_str().unwrap()];
    expect(&weft(&verify, &[]), 0, &first);
    bench.node.stop();
}

#[test]
fn a_key_signs_no_second_payment_while_the_first_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let name = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let alice = expect(&weft(&["key", "new", &name("alice.key")], &[]), 0, "");
    let data = name("ledger");
    expect(&weft(&["init", "--data", &data, "--balance", &format!("{alice}=100")], &[]), 0, "");
    let node = start(&config(Path::new(&data)));
    let network = node.network();
    let bench = Bench { dir, node };
    let (bob, carol) = (key(1).to_string(), key(2).to_string());
    let alice = bench.name("alice.key");
    let pay = |to: &str, amount: &str| bench.weft(&["send", "--key", &alice, "--to", to, "--amount", amount]);
    // As a command leaves it that was cut off between signing and the answer.
    let signed = Transfer { account_sequence: 0, to: key(1), amount: 10, memo: b"" }.encode().unwrap();
    let note = bench.path("alice.key.paid");
    std::fs::write(&note, format!("{network} {}\n", hex::encode(&signed))).unwrap();
    expect(&pay(&carol, "10"), 1, &format!("--to {bob} --amount 10"));
    expect(&pay(&bob, "11"), 1, "an earlier payment is not in the ledger yet");
    expect(&bench.weft(&["history", &alice]), 0, "no payments");
    // The same payment again is the same one, however often.
    expect(&pay(&bob, "10"), 0, "the account has 90 now");
    // Now another one may follow; and one that is only sent is settled before the next one is signed.
    expect(&pay(&carol, "10"), 0, "the account has 80 now");
    let sent = ["send", "--key", &alice, "--to", &bob, "--amount", "7", "--ack", "durable"];
    expect(&bench.weft(&sent), 0, "sent at level durable");
    let paid = expect(&pay(&bob, "7"), 0, "the account has");
    assert_eq!(paid.len(), 64);
    // What this key has signed, and the node's ledger does not know: the node is behind, or another one.
    let ahead = Transfer { account_sequence: 9, to: key(1), amount: 1, memo: b"" }.encode().unwrap();
    std::fs::write(&note, format!("{network} {}\n", hex::encode(&ahead))).unwrap();
    expect(&pay(&bob, "1"), 1, "it is behind");
    // Of another ledger it says nothing about this one; damaged, it says that.
    std::fs::write(&note, format!("00000000 {}\n", hex::encode(&ahead))).unwrap();
    expect(&pay(&bob, "1"), 0, "final");
    std::fs::write(&note, "damaged\n").unwrap();
    expect(&pay(&bob, "1"), 3, "is damaged");
    bench.node.stop();
}
