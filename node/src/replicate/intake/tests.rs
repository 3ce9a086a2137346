//! What the intake does with what comes.

use crossbeam::channel::unbounded;
use weft_core::confirm::Witness;
use weft_core::merkle::EMPTY_ROOT;
use weft_core::{DeviceSigner, Draft, LaneTree, MessageId, PayloadKind};
use weft_storage::SimDisk;

use super::super::store::Stores;
use super::super::testing::{Author, Ground, LANE, NETWORK, ground, keys, own_signer};
use super::*;
use crate::confirm::events::{EventReceiver, events};

const PEER: LaneId = LaneId(3);
const START: LaneEnd = LaneEnd { size: 0, root: EMPTY_ROOT };

/// An intake over two lanes on one disk, and where what it says comes out.
struct Bench {
    disk: SimDisk,
    lanes: Lanes,
    health: Arc<Health>,
    credit: Arc<Credit>,
    events: EventReceiver,
    fetch: Receiver<FetchEvent>,
    /// Kept open.
    _dirty: Receiver<()>,
    own: weft_storage::LaneWriter,
}

fn bench() -> (Intake, Bench) {
    let Ground { disk, own, other, lanes, health, confirm } = ground();
    let (events_in, events) = events();
    let (fetch_in, fetch) = unbounded();
    let (dirty, _dirty) = unbounded();
    let credit = Arc::new(Credit::default());
    let intake = Intake {
        stores: Arc::new(Stores::new(LaneId(0), &keys(), vec![other], health.clone())),
        lanes: lanes.clone(),
        keys: keys().to_vec(),
        validators: 2,
        network: NETWORK,
        confirm,
        chains: Arc::new(Chains::new(2)),
        events: events_in,
        fetch: fetch_in,
        credit: credit.clone(),
        dirty,
        net: Arc::default(),
        health: health.clone(),
        forks: KnownForks::default(),
    };
    (intake, Bench { disk, lanes, health, credit, events, fetch, _dirty, own: own.writer })
}

impl Bench {
    /// What a subscription brings, as the network hands it on.
    fn batch(&self, number: u64, batch: &Bytes) -> Bulk {
        self.credit.came(PEER, LANE, batch.len() as u64);
        let subscription = SubscriptionId(number);
        Bulk::Batch(Shipped { peer: PEER, lane: LANE, subscription, batch: batch.clone() })
    }

    fn size(&self) -> u64 {
        self.lanes.get(LANE).unwrap().size()
    }
}

fn started(number: u64, end: LaneEnd) -> Bulk {
    Bulk::Started { peer: PEER, lane: LANE, subscription: SubscriptionId(number), end }
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_keeps_batches_and_credit_back_and_the_node_goes_on_by_itself_when_there_is_room() {
    let (intake, bench) = bench();
    bench.disk.set_capacity_bytes(300_000);
    let (urgent_in, urgent) = unbounded();
    let (bulk_in, bulk) = unbounded();
    let intake = std::thread::spawn(move || intake.run(&urgent, &bulk));
    let mut author = Author::new();
    bulk_in.send(started(1, START)).unwrap();
    for _ in 0..40 {
        bulk_in.send(bench.batch(1, &author.batch(&[7; 10_000]))).unwrap();
    }
    wait_for("the disk is full", || bench.health.state() == State::DiskFull);
    let size = bench.size();
    assert!(size < author.tree.size());
    assert!(bench.credit.waits(PEER, LANE).0, "the peer has no credit for what waits");
    assert!(bench.health.report().cause.unwrap().contains("no room"));
    bench.disk.set_capacity_bytes(1 << 30);
    wait_for("everything is in the log", || bench.size() == author.tree.size());
    wait_for("the node goes on", || bench.health.state() == State::Live);
    wait_for("credit is given back", || bench.credit.waits(PEER, LANE) == (false, false));
    assert_eq!(bench.events.try_iter().count(), 40, "in order, each once");
    urgent_in.send(Urgent::Stop).unwrap();
    intake.join().unwrap();
}

#[test]
fn after_junk_nothing_more_of_a_subscription_is_looked_at_and_another_one_is() {
    let (intake, bench) = bench();
    let mut running = Running::new(intake);
    let mut author = Author::new();
    let (first, second) = (author.batch(b"first"), author.batch(b"second"));
    let mut junk = first.to_vec();
    let byte = junk.len() / 2;
    junk[byte] ^= 1;
    running.bulk(started(1, START)).unwrap();
    for batch in [&Bytes::from(junk), &first, &second] {
        running.bulk(bench.batch(1, batch)).unwrap();
    }
    assert_eq!(bench.size(), 0);
    assert_eq!(bench.credit.waits(PEER, LANE), (false, false));
    let strays = bench.fetch.try_iter().filter(|event| matches!(event, FetchEvent::Stray { .. }));
    assert_eq!(strays.count(), 1, "it is given up once");
    running.bulk(started(2, START)).unwrap();
    for batch in [&first, &second] {
        running.bulk(bench.batch(2, batch)).unwrap();
    }
    assert_eq!(bench.size(), author.tree.size());
}

#[test]
fn a_side_that_comes_again_is_given_to_the_machine_again() {
    let (intake, bench) = bench();
    let mut running = Running::new(intake);
    running.bulk(started(1, START)).unwrap();
    running.bulk(bench.batch(1, &Author::new().batch(b"here"))).unwrap();
    let there = Author::new().batch(b"there");
    for number in 2..4 {
        running.bulk(started(number, START)).unwrap();
        running.bulk(bench.batch(number, &there)).unwrap();
    }
    let sides = || bench.events.try_iter().filter(|event| matches!(event, Event::Side(_))).count();
    assert_eq!(sides(), 2, "it may have been too early for it, or was let go of");
    running.look().unwrap();
    assert_eq!(sides(), 0, "not all the time");
    running.sides_at = Instant::now();
    running.look().unwrap();
    assert_eq!(sides(), 1, "nor only when somebody shows it again");
}

fn witness(number: u64) -> Urgent {
    let predecessor = MessageId([u8::from(number > 1); 32]);
    let draft = Draft {
        network: NETWORK,
        issued_at_us: number,
        sequence: 1,
        parents: [MessageId([1; 32]), MessageId([2; 32])],
        kind: PayloadKind::WITNESS,
        payload: &Witness { number, predecessor, ..Witness::default() }.encode().unwrap(),
    };
    let message = Bytes::from(draft.sign(&DeviceSigner::from_seed([5; 32])).unwrap());
    Urgent::Witness { peer: PEER, message, hold: Hold::free() }
}

#[test]
fn batches_have_their_turn_however_many_witnesses_wait() {
    let (intake, bench) = bench();
    let mut running = Running::new(intake);
    let (urgent_in, urgent) = unbounded();
    let (bulk_in, bulk) = unbounded();
    (1..=1_000).for_each(|number| urgent_in.send(witness(number)).unwrap());
    let mut author = Author::new();
    bulk_in.send(started(1, START)).unwrap();
    bulk_in.send(bench.batch(1, &author.batch(b"batch"))).unwrap();
    for _ in 0..2 * (URGENT_RUN_MAX + 1) {
        match running.next(&urgent, &bulk) {
            Next::Urgent(urgent) => running.urgent(urgent).unwrap(),
            Next::Bulk(bulk) => running.bulk(bulk).unwrap(),
            Next::Nothing | Next::End => panic!("there is work"),
        }
    }
    assert_eq!(bench.size(), author.tree.size());
    assert_eq!(urgent.len(), 1_000 - 2 * URGENT_RUN_MAX as usize, "witnesses go first");
}

#[test]
fn only_what_this_node_has_sealed_says_anything_about_its_own_lane() {
    let (intake, mut bench) = bench();
    let mut own = Author { signer: own_signer(), lane: LaneId(0), tree: LaneTree::new() };
    let mut append = |batch: &Bytes, after: &LaneTree| {
        let view = BatchView::parse(batch).unwrap();
        bench.own.append_view(&view, &view.ids().collect::<Vec<_>>(), after).unwrap();
    };
    let first = own.batch(b"first");
    append(&first, &own.tree);
    let forgotten =
        Author { signer: own_signer(), lane: LaneId(0), tree: own.tree.clone() }.batch(b"forgotten");
    let second = own.batch(b"second");
    append(&second, &own.tree);
    let running = Running::new(intake);
    let own_of = |batch: &Bytes| running.own(batch).unwrap();
    for batch in [&first, &second] {
        assert!(matches!(own_of(batch), Taken::Held(..)));
    }
    let forged = Author { lane: LaneId(0), ..Author::new() }.batch(b"forged");
    assert!(matches!(own_of(&forged), Taken::NotAuthentic(BatchError::Seal)), "whoever sent it is to blame");
    let mut spoiled = second.to_vec();
    let byte = spoiled.len() - 40;
    spoiled[byte] ^= 1;
    assert!(matches!(own_of(&Bytes::from(spoiled)), Taken::NotAuthentic(_)));
    assert_eq!(running.parts.health.state(), State::Live);
    assert!(matches!(own_of(&forgotten), Taken::Stray));
    assert_eq!(running.parts.health.state(), State::Poisoned, "it was signed, and is not here");
}

#[test]
fn a_proof_about_what_is_not_here_yet_waits_for_it_and_junk_does_not() {
    let (intake, bench) = bench();
    let mut running = Running::new(intake);
    let mut author = Author::new();
    let shared = author.batch(b"shared");
    let mut liar = author.fork();
    let (here, there) = (author.batch(b"here"), liar.batch(b"there"));
    let proof = |batches: [&Bytes; 2], peer| {
        let batches = batches.map(Bytes::clone).to_vec();
        Urgent::Proof { peer, lane: LANE, batches, room: Counted::Held(Hold::free()) }
    };
    running.urgent(proof([&here, &here], LaneId(1))).unwrap();
    assert!(running.proofs.is_empty(), "it proves nothing");
    running.urgent(proof([&here, &there], PEER)).unwrap();
    assert_eq!(running.proofs.len(), 1);
    running.bulk(started(1, START)).unwrap();
    running.bulk(bench.batch(1, &shared)).unwrap();
    running.look().unwrap();
    assert_eq!(running.proofs.len(), 1, "not again so soon");
    running.proofs.get_mut(&LANE).unwrap().looked.1 -= PROOF_EVERY;
    running.look().unwrap();
    assert!(running.proofs.is_empty());
    let sides = bench.events.try_iter().filter(|event| matches!(event, Event::Side(_)));
    assert_eq!((bench.size(), sides.count()), (author.tree.size(), 1));
}

#[test]
fn nobody_fills_the_room_of_sides_with_more_proofs_about_a_lane_that_is_closed() {
    let (mut intake, bench) = bench();
    let mut author = Author::new();
    let here = author.batch(b"here");
    let setup = intake.confirm.ask(|machine| machine.setup().clone());
    let proof = |payload: &[u8]| {
        let batches = vec![here.clone(), Author::new().batch(payload)];
        Urgent::Proof { peer: PEER, lane: LANE, batches, room: Counted::Held(Hold::free()) }
    };
    let sides = || bench.events.try_iter().filter(|event| matches!(event, Event::Side(_))).count();
    let mut closed = crate::confirm::machine(setup, None);
    closed.handle(0, weft_core::confirm::Input::Forked { lane: LANE, at: 0 }, &mut Vec::new());
    let confirm = [intake.confirm.clone(), Arc::new(Confirm::new(closed, LaneId(0)))];
    let mut taken = Vec::new();
    for confirm in confirm {
        intake.confirm = confirm;
        let mut running = Running::new(intake);
        running.bulk(started(1, START)).unwrap();
        running.bulk(bench.batch(1, &here)).unwrap();
        for payload in [b"there 1", b"there 2", b"there 3"] {
            running.urgent(proof(payload)).unwrap();
        }
        taken.push(sides());
        // What is asked for is taken.
        running.bulk(started(2, START)).unwrap();
        running.bulk(bench.batch(2, &Author::new().batch(b"there 4"))).unwrap();
        assert_eq!(sides(), 1);
        intake = running.parts;
    }
    assert_eq!(taken, [3, 0], "as long as it is open, and once it is closed");
}

#[test]
fn a_proof_without_batches_is_looked_at_once_a_lane_and_one_about_the_own_lane_stops_the_node() {
    let (intake, bench) = bench();
    let mut running = Running::new(intake);
    let proof_by = |seed: u8, lane: LaneId| {
        let author = || Author { signer: DeviceSigner::from_seed([seed; 32]), lane, tree: LaneTree::new() };
        let batches = [author().batch(b"here"), author().batch(b"there")];
        let [here, there] = batches.each_ref().map(|batch| BatchView::parse(batch).unwrap());
        ForkProof::of_batches(&LaneTree::new(), &here, &there).unwrap()
    };
    let forked = |proof: &ForkProof| Urgent::Forked {
        peer: PEER,
        proof: Bytes::from(proof.encode().unwrap()),
        hold: Hold::free(),
    };
    let told = || bench.events.try_iter().filter(|event| matches!(event, Event::Proven(_))).count();
    // Seeds of the two nodes.
    let (own, other) = (9, 5);
    let proof = proof_by(other, LANE);
    for (seed, lane) in [(own, LANE), (other, LaneId(0)), (other, LaneId(9))] {
        running.urgent(forked(&proof_by(seed, lane))).unwrap();
    }
    running
        .urgent(Urgent::Forked { peer: PEER, proof: Bytes::from_static(b"WFP1"), hold: Hold::free() })
        .unwrap();
    assert_eq!((told(), bench.health.state()), (0, State::Live), "they prove nothing");
    running.urgent(forked(&proof)).unwrap();
    assert_eq!(told(), 1);
    running.parts.forks.insert(&proof);
    running.urgent(forked(&proof)).unwrap();
    assert_eq!(told(), 0, "it is known");
    running.urgent(forked(&proof_by(own, LaneId(0)))).unwrap();
    assert_eq!(bench.health.state(), State::Poisoned);
}
