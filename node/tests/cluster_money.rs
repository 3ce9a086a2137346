//! Four nodes on loopback: receipts signed by several of them, and double spends handed to two of them at once.
//!
//! `WEFT_DOUBLE_SPENDS` is the number of double spends (1,000), each by an account of its own; at most 60,000.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Sketch, config, device, id, now_us, refusals, runtime, session, start, submit};
use weft_core::confirm::Transfer;
use weft_core::receipt::Receipt;
use weft_core::{Balance, DeviceKey, DeviceSigner, Draft, Genesis, LaneId, PayloadKind, Reason, Validator};
use weft_net::{AccountStanding, AckLevel, Answer, Query, Session};
use weft_node::config::Config;
use weft_node::health::State;
use weft_node::node::RunningNode;
use weft_storage::DataDir;

const NODES: usize = 4;

struct Cluster {
    genesis: Genesis,
    nodes: Vec<RunningNode>,
    dirs: Vec<tempfile::TempDir>,
}

impl Cluster {
    /// Four validators of weight 1, live.
    fn start(mut balances: Vec<Balance>) -> Self {
        let seed = |node: usize| [100 + node as u8; 32];
        let key = |node| DeviceSigner::from_seed(seed(node)).public();
        let validator = |node| Validator { key: key(node), weight: 1, name: format!("node {node}") };
        balances.sort_unstable_by_key(|balance| balance.account);
        let genesis = Genesis {
            committee: (0..NODES).map(validator).collect(),
            balances,
            ..Genesis::single("cluster", now_us(), key(0))
        };
        let mut cluster = Self { genesis, nodes: Vec::new(), dirs: Vec::new() };
        for node in 0..NODES {
            let dir = tempfile::tempdir().unwrap();
            DataDir::init(dir.path(), &cluster.genesis, &seed(node)).unwrap();
            let peers = Some("127.0.0.1:0".parse().unwrap());
            cluster.nodes.push(start(&Config { peer_listen: peers, ..config(dir.path()) }));
            cluster.dirs.push(dir);
        }
        for from in &cluster.nodes {
            for (lane, to) in (0..).zip(&cluster.nodes) {
                from.set_peer_address(LaneId(lane), Some(to.peer_address().unwrap().to_string()));
            }
        }
        for node in &cluster.nodes {
            wait_for("it is live", || node.health().state == State::Live);
        }
        cluster
    }

    /// How far each node has each lane, and has it final.
    fn marks(&self) -> Vec<Vec<(u64, u64)>> {
        let marks = |node: &RunningNode| {
            let marks = (0..NODES as u16).map(|lane| node.confirm().marks(LaneId(lane)));
            marks.map(|marks| (marks.held, marks.final_size)).collect()
        };
        self.nodes.iter().map(marks).collect()
    }

    /// Starts all nodes anew once all have the same and nothing moves any more; none of them knows where the others are then.
    fn isolate(&mut self) {
        let same = |marks: &[Vec<(u64, u64)>]| marks.iter().all(|node| *node == marks[0]);
        wait_for("all is quiet", || {
            let before = self.marks();
            std::thread::sleep(Duration::from_millis(400));
            same(&before) && self.marks() == before
        });
        let before = self.marks();
        self.nodes.drain(..).for_each(|node| drop(node.stop()));
        for dir in &self.dirs {
            let peers = Some("127.0.0.1:0".parse().unwrap());
            self.nodes.push(start(&Config { peer_listen: peers, ..config(dir.path()) }));
        }
        // What is final is a matter of the logs, and read out of them in the background.
        wait_for("all have what they had", || {
            let now = self.marks();
            same(&now) && now[0].iter().zip(&before[0]).all(|(now, before)| now.1 >= before.1)
        });
    }

    fn stop(self) {
        self.nodes.into_iter().for_each(|node| drop(node.stop()));
    }
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "not within thirty seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn verify(key: &DeviceKey, text: &[u8], signature: &[u8; 64]) -> bool {
    weft_crypto::serial::verify_one(&key.0, text, signature)
}

fn weft(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
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

#[test]
fn a_receipt_needs_signatures_of_a_quorum_which_a_client_collects_where_nodes_cannot_reach_each_other() {
    let mut cluster = Cluster::start(Vec::new());
    let message = runtime().block_on(async {
        let (_client, session) = session(&cluster.nodes[2], AckLevel::Final).await;
        let messages: Vec<_> = (0..40).map(|n| Sketch::new(&session, n).sign(&device(1))).collect();
        assert_eq!(refusals(&submit(&session, &messages).await), []);
        id(&messages[17])
    });
    cluster.isolate();
    let dir = tempfile::tempdir().unwrap();
    let name = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let genesis = cluster.dirs[0].path().join("genesis.bin");
    let (genesis, known) = (genesis.to_str().unwrap(), name("known"));
    let (receipt, message) = (name("receipt"), message.to_string());
    let get = |targets: &[usize], more: &[&str]| {
        let addresses: Vec<String> =
            targets.iter().map(|node| cluster.nodes[*node].address().to_string()).collect();
        let mut arguments = vec!["receipt", "get", &message, "-o", &receipt, "--known-nodes", &known];
        addresses.iter().for_each(|address| arguments.extend(["--target", address]));
        arguments.extend(more);
        weft(&arguments)
    };
    let by = ["--genesis", genesis];
    // Whoever gives the receipt: the message is in lane 2, and each validator signs what is final in its own view.
    for targets in [[0, 1, 2], [2, 3, 0], [3, 1, 2]] {
        expect(&get(&targets, &by), 0, "verified");
        let verified = weft(&["receipt", "verify", &receipt, "--genesis", genesis]);
        expect(&verified, 0, "lane 2 position");
        expect(&verified, 0, "weight 3 of 4");
        std::fs::remove_file(&receipt).unwrap();
    }
    // Two of four are no quorum, the same node twice is one, and without a genesis nobody knows whose signatures count.
    expect(&get(&[0, 1], &by), 1, "cosigned by weight 2 of 4");
    expect(&get(&[0, 1, 1, 0], &by), 1, "cosigned by weight 2 of 4");
    expect(&get(&[0, 1], &[]), 2, "--genesis");
    assert!(!dir.path().join("receipt").exists());
    // A node that is not there is passed over.
    let gone = ["--genesis", genesis, "--target", "127.0.0.1:1", "--timeout-ms", "2000"];
    let more = cluster.nodes[3].address().to_string();
    expect(&get(&[0, 1], &[&gone[..], &["--target", &more]].concat()), 0, "127.0.0.1:1:");
    // All nodes say the same of the lane at the same size.
    let text = std::fs::read(&receipt).unwrap();
    let checkpoint = Receipt::parse(&text).unwrap().checkpoint.checkpoint;
    for node in &cluster.nodes {
        let query = Query::Cosign { lane: checkpoint.lane, size: checkpoint.size, root: checkpoint.root };
        let answer =
            runtime().block_on(async { session(node, AckLevel::Durable).await.1.query(query).await });
        assert!(matches!(answer, Ok(Answer::Cosignature(_))), "{answer:?}");
    }
    assert!(Receipt::parse(&text).unwrap().verify(&cluster.genesis, None, verify).is_ok());
    cluster.stop();
}

fn owner(number: u32) -> DeviceSigner {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    DeviceSigner::from_seed(seed)
}

/// Payments of all that these accounts have, to `to`.
fn payments(session: &Session, from: std::ops::Range<u32>, sent: u64, to: DeviceKey) -> Vec<Vec<u8>> {
    let welcome = session.welcome();
    let transfer = Transfer { account_sequence: 0, to, amount: AMOUNT, memo: b"" };
    let payload = transfer.encode().unwrap();
    let sign = |number| {
        let draft = Draft {
            network: welcome.network,
            issued_at_us: now_us(),
            sequence: sent,
            parents: welcome.genesis.roots(),
            kind: PayloadKind::TRANSFER,
            payload: &payload,
        };
        draft.sign(&owner(number)).unwrap()
    };
    from.map(sign).collect()
}

const AMOUNT: u64 = 7;

type Accounts = Vec<(DeviceKey, u64, u64)>;

fn ledger(node: &RunningNode) -> Accounts {
    node.confirm().ask(|machine| {
        let accounts = machine.ledger().accounts();
        accounts.map(|(key, account)| (*key, account.balance, account.next)).collect()
    })
}

/// Waits until all nodes have the same ledger and have had it for two seconds.
fn wait_settled(cluster: &Cluster) -> Accounts {
    let until = Instant::now() + Duration::from_secs(90);
    let (mut last, mut since) = (ledger(&cluster.nodes[0]), Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let ledgers: Vec<Accounts> = cluster.nodes.iter().map(ledger).collect();
        if ledgers.iter().any(|ledger| *ledger != last) {
            (last, since) = (ledgers[0].clone(), Instant::now());
        } else if since.elapsed() > Duration::from_secs(2) {
            return last;
        }
        assert!(Instant::now() < until, "the ledgers do not settle");
    }
}

#[test]
fn of_double_spends_handed_to_two_nodes_at_once_none_moves_money_twice_and_all_ledgers_agree() {
    let spends: u32 = std::env::var("WEFT_DOUBLE_SPENDS").map_or(1_000, |text| text.parse().unwrap());
    let accounts = (0..spends).map(|number| Balance { account: owner(number).public(), amount: AMOUNT });
    let cluster = Cluster::start(accounts.collect());
    let supply = u64::from(spends) * AMOUNT;
    let (left_to, right_to) = (device(201).public(), device(202).public());
    let both_taken = runtime().block_on(async {
        let (_left, left) = session(&cluster.nodes[0], AckLevel::Durable).await;
        let (_right, right) = session(&cluster.nodes[1], AckLevel::Durable).await;
        let mut both_taken = 0;
        for start in (0..spends).step_by(250) {
            let range = start..spends.min(start + 250);
            let on_left = payments(&left, range.clone(), 1, left_to);
            let on_right = payments(&right, range.clone(), 2, right_to);
            let (on_left, on_right) = tokio::join!(submit(&left, &on_left), submit(&right, &on_right));
            let refused = |ack| {
                let refusals = refusals(ack);
                let known = |reason| matches!(reason, Reason::OperationConflict | Reason::AccountSequence);
                assert!(refusals.iter().all(|(_, reason)| known(*reason)), "{refusals:?}");
                refusals.len() as u32
            };
            both_taken += range.len() as u32 - refused(&on_left) - refused(&on_right);
        }
        both_taken
    });
    let ledger = wait_settled(&cluster);
    let of = |key: DeviceKey| {
        ledger
            .iter()
            .find(|(account, ..)| *account == key)
            .map_or((0, 0), |(_, balance, next)| (*balance, *next))
    };
    assert_eq!(ledger.iter().map(|(_, balance, _)| balance).sum::<u64>(), supply, "money is conserved");
    let (left, right) = (of(left_to).0, of(right_to).0);
    let (mut paid, mut stopped) = (0, 0);
    for number in 0..spends {
        match of(owner(number).public()) {
            (0, 1) => paid += 1,
            (AMOUNT, 0) => stopped += 1,
            other => panic!("account {number}: {other:?}"),
        }
    }
    assert_eq!(left + right, AMOUNT * u64::from(paid), "each payment went to one of the two");
    assert_eq!(paid + stopped, spends);
    // Only who signed two and had both taken can have been stopped.
    assert!(stopped <= both_taken, "{stopped} of {both_taken}");
    assert!(both_taken > 0, "the two nodes were not asked at once");
    eprintln!(
        "{spends} double spends: both taken {both_taken}, paid {paid} ({left} left, {right} right), stopped {stopped}"
    );
    // Each node says of each account what its ledger says, and the stopped ones are reported.
    runtime().block_on(async {
        for node in &cluster.nodes {
            let (_client, session) = session(node, AckLevel::Durable).await;
            for number in (0..spends).step_by(1 + spends as usize / 200) {
                let account = owner(number).public();
                let Ok(Answer::Account(state)) = session.query(Query::Account { account }).await else {
                    panic!("account {number}")
                };
                assert_eq!((state.balance, state.next), of(account));
                let frozen = state.standing == AccountStanding::Frozen;
                assert_eq!(frozen, state.next == 0, "account {number}");
                let query = Query::History { account, other: None, cursor: 0, count: 10 };
                let Ok(Answer::History(history)) = session.query(query).await else { panic!() };
                assert_eq!(history.payments.len() as u64, state.next);
            }
        }
    });
    cluster.stop();
}
