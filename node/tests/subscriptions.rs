//! Subscriptions to confirmation at a committee of one and at four nodes: every message once and in order, whatever restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use common::four::{Cluster, NODES, wait_for};
use common::{config, device, id, ledger, now_us, pay, refusals, runtime, send, session, start, submit};
use weft_core::confirm::Transfer;
use weft_core::{Balance, DeviceSigner, Draft, Genesis, LaneId, MessageId, PayloadKind, Place};
use weft_net::{
    AckLevel, ErrorCode, Lookup, MessageFilter, NetError, Notice, Outcome, Session, Start, Subscribe,
    Subscription,
};
use weft_node::config::Config;
use weft_storage::DataDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// All messages but witnesses, from the start of the ledger.
fn all() -> Subscribe {
    Subscribe {
        messages: Some(MessageFilter::default()),
        certified: false,
        start: Start::Beginning,
        credit: 4,
        positions: Vec::new(),
        open: Vec::new(),
    }
}

/// What a subscriber has been told, over all its subscriptions.
#[derive(Default)]
struct Heard {
    /// By lane, in the order told: position and id.
    messages: BTreeMap<u16, Vec<(u64, MessageId)>>,
    outcomes: HashMap<Place, Vec<Outcome>>,
    final_sizes: BTreeMap<u16, u64>,
}

impl Heard {
    fn count(&self) -> usize {
        self.messages.values().map(Vec::len).sum()
    }

    fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Confirmed(told) => {
                self.final_sizes.insert(told.lane.0, told.final_size);
                let lane = self.messages.entry(told.lane.0).or_default();
                for message in &told.messages {
                    let last = lane.last().map_or(0, |(position, _)| *position);
                    assert!(message.position > last, "told twice or out of order: {message:?}");
                    lane.push((message.position, message.id));
                    if message.outcome != Outcome::None {
                        let place = Place::new(told.lane, message.position);
                        self.outcomes.entry(place).or_default().push(message.outcome);
                    }
                }
            }
            Notice::Decided(decided) => {
                for (place, outcome) in decided {
                    let heard = self.outcomes.get_mut(place).unwrap();
                    assert_eq!(*heard, [Outcome::Open], "decided what was not open");
                    heard.push(*outcome);
                }
            }
        }
    }

    /// Listens until `done`.
    async fn listen(&mut self, subscription: &mut Subscription, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
            self.take(&next.expect("a notice in time").unwrap());
        }
    }

    /// What became of the operation in a message, if that is known.
    fn outcome(&self, id: MessageId) -> Option<Outcome> {
        let lanes = self.messages.iter();
        let mut places = lanes.flat_map(|(lane, messages)| {
            messages.iter().map(move |(position, id)| (Place::new(LaneId(*lane), *position), *id))
        });
        let place = places.find(|(_, told)| *told == id)?.0;
        self.outcomes.get(&place).and_then(|outcomes| outcomes.last()).copied()
    }

    fn ids(&self) -> Vec<MessageId> {
        self.messages.values().flatten().map(|(_, id)| *id).collect()
    }
}

fn assert_each_once(heard: &Heard, sent: &[MessageId]) {
    let ids = heard.ids();
    let unique: HashSet<MessageId> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "a message was told twice");
    assert_eq!(unique, sent.iter().copied().collect());
}

#[test]
fn every_message_is_told_final_once_and_in_order_across_a_restart_of_the_node() {
    let data = ledger();
    let node = start(&config(data.path()));
    let mut sent = send(&node, AckLevel::Durable, 1_500, 1);
    let mut heard = Heard::default();
    let resume = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut subscription = session.subscribe(all()).await.unwrap();
        heard.listen(&mut subscription, |heard| heard.count() >= 500).await;
        subscription.resume()
    });
    // Told at the places where they lie, and below final.
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let (position, first) = heard.messages[&0][0];
        let Lookup::Found(found) = &session.get(&[first]).await.unwrap()[0] else { panic!() };
        assert_eq!(found.place, Place::new(LaneId(0), position));
        assert!(heard.messages[&0].iter().all(|(position, _)| *position < heard.final_sizes[&0]));
    });
    node.stop();
    let node = start(&config(data.path()));
    sent.extend(send(&node, AckLevel::Final, 200, 100));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut subscription = session.subscribe(resume).await.unwrap();
        heard.listen(&mut subscription, |heard| heard.count() >= sent.len()).await;
        // And nothing more.
        let more = tokio::time::timeout(Duration::from_millis(500), async {
            loop {
                heard.take(&subscription.next().await.unwrap());
            }
        });
        assert!(more.await.is_err());
    });
    assert_each_once(&heard, &sent);
    node.stop();
}

#[test]
fn from_now_on_tells_what_comes_and_sizes_alone_tell_no_messages() {
    let data = ledger();
    let node = start(&config(data.path()));
    send(&node, AckLevel::Final, 100, 1);
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut now = session.subscribe(Subscribe { start: Start::Now, ..all() }).await.unwrap();
        let sizes = Subscribe { messages: None, certified: true, ..all() };
        let mut sizes = session.subscribe(sizes).await.unwrap();
        let later = tokio::task::block_in_place(|| send(&node, AckLevel::Final, 60, 50));
        let mut heard = Heard::default();
        heard.listen(&mut now, |heard| heard.count() >= 60).await;
        assert_each_once(&heard, &later);
        let mut alone = Heard::default();
        let final_size = node.confirm().final_size(LaneId(0));
        alone.listen(&mut sizes, |heard| heard.final_sizes.get(&0) >= Some(&final_size)).await;
        assert_eq!(alone.count(), 0);
    });
    node.stop();
}

#[test]
fn only_messages_of_the_issuer_asked_for_are_told_and_witnesses_only_to_who_wants_them() {
    let data = ledger();
    let node = start(&config(data.path()));
    // In each submit of fifty one message is of device 12.
    let sent = send(&node, AckLevel::Final, 500, 1);
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let issuer = Some(device(12).public());
        let wanted = Subscribe { messages: Some(MessageFilter { witnesses: false, issuer }), ..all() };
        let mut subscription = session.subscribe(wanted).await.unwrap();
        let mut heard = Heard::default();
        heard.listen(&mut subscription, |heard| heard.count() >= 10).await;
        assert_each_once(&heard, &sent.iter().skip(2).step_by(50).copied().collect::<Vec<_>>());
        let witnesses = MessageFilter { witnesses: true, issuer: None };
        let wanted = Subscribe { messages: Some(witnesses), ..all() };
        let mut subscription = session.subscribe(wanted).await.unwrap();
        let mut heard = Heard::default();
        heard.listen(&mut subscription, |heard| heard.count() > 500).await;
        assert!(sent.iter().all(|id| heard.ids().contains(id)));
        // A device's message of that kind is no witness: it is told to everybody.
        let welcome = session.welcome();
        let draft = Draft {
            network: welcome.network,
            issued_at_us: now_us(),
            sequence: 1,
            parents: welcome.genesis.roots(),
            kind: PayloadKind::WITNESS,
            payload: b"nothing that a witness says",
        };
        let message = draft.sign(&device(9)).unwrap();
        assert_eq!(refusals(&submit(&session, std::slice::from_ref(&message)).await), []);
        let mut subscription = session.subscribe(all()).await.unwrap();
        let mut heard = Heard::default();
        heard.listen(&mut subscription, |heard| heard.ids().contains(&id(&message))).await;
        assert_eq!(heard.count(), 501);
    });
    node.stop();
}

/// A ledger of one node in which device 1 has `amount`.
fn ledger_with_balance(dir: &std::path::Path, amount: u64) {
    let seed = [77; 32];
    let balances = vec![Balance { account: device(1).public(), amount }];
    let key = DeviceSigner::from_seed(seed).public();
    let genesis = Genesis { balances, ..Genesis::single("money", now_us(), key) };
    DataDir::init(dir, &genesis, &seed).unwrap();
}

#[test]
fn a_payment_is_told_with_its_message_or_decided_later_and_after_a_restart_it_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    ledger_with_balance(dir.path(), 100);
    let node = start(&config(dir.path()));
    let decided = |heard: &Heard, count: usize| {
        heard.outcomes.len() == count
            && heard.outcomes.values().all(|outcomes| outcomes.last() != Some(&Outcome::Open))
    };
    let mut heard = Heard::default();
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Final).await;
        let mut subscription = session.subscribe(all()).await.unwrap();
        for sequence in 0..5 {
            assert_eq!(pay(&session, sequence + 1, (sequence, 2, 10)).await, None);
            heard.listen(&mut subscription, |heard| decided(heard, sequence as usize + 1)).await;
        }
        assert_eq!(subscription.bookmark().open().len(), 0);
    });
    assert!(heard.outcomes.values().all(|outcomes| outcomes.last() == Some(&Outcome::Accepted)));
    node.stop();
    let node = start(&config(dir.path()));
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut again = Heard::default();
        let mut subscription = session.subscribe(all()).await.unwrap();
        again.listen(&mut subscription, |heard| decided(heard, 5)).await;
        assert_eq!(again.messages, heard.messages);
        // Whoever was told that they are open, before the restart, hears the decisions.
        let open: Vec<Place> =
            heard.outcomes.keys().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let wanted = Subscribe { open: open.clone(), ..subscription.resume() };
        let mut late = session.subscribe(wanted).await.unwrap();
        let expected = open.iter().map(|place| (*place, Outcome::Accepted)).collect();
        assert_eq!(late.next().await.unwrap(), Notice::Decided(expected));
    });
    node.stop();
}

#[test]
fn a_subscriber_that_does_not_read_holds_up_nobody_and_reads_everything_later() {
    let data = ledger();
    let node = start(&config(data.path()));
    let sent = runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        let mut slow = session.subscribe(Subscribe { credit: 1, ..all() }).await.unwrap();
        let sent = tokio::task::block_in_place(|| send(&node, AckLevel::Final, 10_000, 1));
        let mut fast = session.subscribe(all()).await.unwrap();
        let mut heard = Heard::default();
        heard.listen(&mut fast, |heard| heard.count() >= sent.len()).await;
        assert_each_once(&heard, &sent);
        assert!(session.status().await.is_ok(), "its own session answers too");
        let mut heard = Heard::default();
        heard.listen(&mut slow, |heard| heard.count() >= sent.len()).await;
        assert_each_once(&heard, &sent);
        sent
    });
    assert_eq!(sent.len(), 10_000);
    node.stop();
}

async fn refused(session: &Session, wanted: Subscribe) -> ErrorCode {
    match session.subscribe(wanted).await {
        Err(NetError::Request(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_told_is_refused_by_name_and_costs_the_session_nothing() {
    let data = ledger();
    let limits = Config { subscriptions_max: 2, connection_subscriptions_max: 3, ..config(data.path()) };
    let node = start(&limits);
    let sent = send(&node, AckLevel::Final, 50, 1);
    runtime().block_on(async {
        let (_client, session) = session(&node, AckLevel::Durable).await;
        assert_eq!(session.welcome().subscriptions_max, 3);
        let lane = Subscribe { positions: vec![(LaneId(1), 0)], ..all() };
        assert_eq!(refused(&session, lane).await, ErrorCode::NotFound);
        let lane = Subscribe { open: vec![Place::new(LaneId(9), 0)], ..all() };
        assert_eq!(refused(&session, lane).await, ErrorCode::NotFound);
        let ahead = Subscribe { open: vec![Place::new(LaneId(0), 7)], ..all() };
        assert_eq!(refused(&session, ahead).await, ErrorCode::NotFound, "it lies where nothing was told yet");
        // Places of no operations: a header, a message of data.
        let none = vec![Place::new(LaneId(0), 0), Place::new(LaneId(0), 1)];
        let positions = vec![(LaneId(0), 2)];
        let wanted = Subscribe { positions, open: none.clone(), ..all() };
        let mut subscription = session.subscribe(wanted).await.unwrap();
        let decided = none.into_iter().map(|place| (place, Outcome::None)).collect();
        assert_eq!(subscription.next().await.unwrap(), Notice::Decided(decided));
        // Further than this node is: it waits, whatever comes meanwhile.
        let beyond = Subscribe { positions: vec![(LaneId(0), 1 << 40)], ..all() };
        let mut waiting = session.subscribe(beyond).await.unwrap();
        assert_eq!(refused(&session, all()).await, ErrorCode::Overloaded, "two are all there are");
        tokio::task::block_in_place(|| send(&node, AckLevel::Final, 50, 60));
        assert!(tokio::time::timeout(Duration::from_millis(300), waiting.next()).await.is_err());
        let mut heard = Heard::default();
        heard.listen(&mut subscription, |heard| heard.count() >= 99).await;
        assert!(!heard.ids().contains(&sent[0]), "position 1 was before its start");
    });
    node.stop();
}

#[test]
fn four_nodes_tell_the_same_and_a_subscriber_goes_on_at_another_one() {
    let mut cluster = Cluster::started(1);
    let mut sent = Vec::new();
    for node in 0..NODES {
        sent.extend(send(cluster.node(node), AckLevel::Final, 300, 1));
    }
    let mut heard = Heard::default();
    let resume = runtime().block_on(async {
        let (_client, session) = session(cluster.node(1), AckLevel::Durable).await;
        let mut subscription = session.subscribe(all()).await.unwrap();
        heard.listen(&mut subscription, |heard| heard.count() >= 500).await;
        subscription.resume()
    });
    // Node 1 goes; the others go on, and so does its subscriber at node 2.
    cluster.stop(1);
    for node in [0, 2, 3] {
        sent.extend(send(cluster.node(node), AckLevel::Final, 200, 50));
    }
    let resume = runtime().block_on(async {
        let (_client, session) = session(cluster.node(2), AckLevel::Durable).await;
        let mut subscription = session.subscribe(resume).await.unwrap();
        heard.listen(&mut subscription, |heard| heard.count() >= 1_500).await;
        subscription.resume()
    });
    cluster.start(1);
    cluster.wait_live([1]);
    sent.extend(send(cluster.node(1), AckLevel::Final, 100, 90));
    runtime().block_on(async {
        let (_client, session) = session(cluster.node(1), AckLevel::Durable).await;
        let mut subscription = session.subscribe(resume).await.unwrap();
        heard.listen(&mut subscription, |heard| heard.count() >= sent.len()).await;
    });
    assert_each_once(&heard, &sent);
    for node in 0..NODES {
        runtime().block_on(async {
            let (_client, session) = session(cluster.node(node), AckLevel::Durable).await;
            let mut subscription = session.subscribe(all()).await.unwrap();
            let mut here = Heard::default();
            here.listen(&mut subscription, |here| here.count() >= sent.len()).await;
            assert_eq!(here.messages, heard.messages, "node {node}");
        });
    }
}

/// Hands in a payment of one unit, the account's first.
async fn spend(session: &Session, from: u8, to: u8) -> Option<MessageId> {
    let transfer = Transfer { account_sequence: 0, to: device(to).public(), amount: 1, memo: b"" };
    let welcome = session.welcome();
    let draft = Draft {
        network: welcome.network,
        issued_at_us: now_us(),
        sequence: u64::from(to),
        parents: welcome.genesis.roots(),
        kind: PayloadKind::TRANSFER,
        payload: &transfer.encode().unwrap(),
    };
    let message = draft.sign(&device(from)).unwrap();
    let ack = submit(session, std::slice::from_ref(&message)).await;
    refusals(&ack).is_empty().then(|| id(&message))
}

#[test]
fn of_a_double_spend_one_half_is_told_accepted_and_the_other_rejected_on_all_nodes() {
    const ACCOUNTS: u8 = 12;
    let balance = |account| Balance { account: device(account).public(), amount: 1 };
    let mut cluster = Cluster::with_balances((1..=ACCOUNTS).map(balance).collect());
    (0..NODES).for_each(|node| cluster.start(node));
    cluster.wait_live(0..NODES);
    // Of each account two payments for one sequence, at two nodes at once. A few are told so at once; of some neither gets a quorum.
    let mut pairs = Vec::new();
    for account in 1..=ACCOUNTS {
        runtime().block_on(async {
            let (_left, left) = session(cluster.node(0), AckLevel::Durable).await;
            let (_right, right) = session(cluster.node(3), AckLevel::Durable).await;
            let (left, right) = tokio::join!(spend(&left, account, 100), spend(&right, account, 101));
            pairs.extend(left.zip(right).map(|(left, right)| (account, left, right)));
        });
    }
    let paid = |node: usize| {
        let paid = |account: &u8| cluster.balance(node, *account) == 0;
        (1..=ACCOUNTS).filter(paid).collect::<Vec<_>>()
    };
    wait_for("the ledgers agree", || {
        let first = paid(0);
        std::thread::sleep(Duration::from_secs(1));
        (0..NODES).all(|node| paid(node) == first)
    });
    let paid = paid(0);
    let settled: Vec<_> = pairs.iter().filter(|(account, ..)| paid.contains(account)).collect();
    assert!(!settled.is_empty(), "{} pairs, {} accounts have paid", pairs.len(), paid.len());
    for node in 0..NODES {
        runtime().block_on(async {
            let (_client, session) = session(cluster.node(node), AckLevel::Durable).await;
            let mut subscription = session.subscribe(all()).await.unwrap();
            let mut heard = Heard::default();
            let known = |heard: &Heard| {
                let ids: HashSet<MessageId> = heard.ids().into_iter().collect();
                pairs.iter().all(|(_, left, right)| ids.contains(left) && ids.contains(right))
            };
            heard.listen(&mut subscription, known).await;
            for (account, left, right) in &pairs {
                let outcomes = [heard.outcome(*left), heard.outcome(*right)].map(Option::unwrap);
                if paid.contains(account) {
                    let one = [Outcome::Accepted, Outcome::Rejected];
                    assert!(outcomes == one || outcomes == [one[1], one[0]], "{account}: {outcomes:?}");
                } else {
                    assert_eq!(outcomes, [Outcome::Open; 2], "{account}");
                }
            }
        });
    }
}
