//! The driver of a validator that is a committee by itself, beside two lanes without a vote.

use std::path::Path;
use std::thread;

use crossbeam::channel::{Receiver, bounded};
use weft_core::MessageView;
use weft_core::confirm::{Setup, Weights};
use weft_storage::sim::Fault as DiskFault;
use weft_storage::{Disk as _, SimDisk};

use super::*;
use crate::confirm;
use crate::confirm::events::{EventSender, events};
use crate::lanes::Lanes;
use crate::testing::{Author, NETWORK, ROOTS, data, id, keys, signer};

struct Bench {
    driver: Driver,
    authors: Vec<Author>,
    send: EventSender,
    events: EventReceiver,
    witnesses: Receiver<OwnWitness>,
    confirm: Arc<Confirm>,
    health: Arc<Health>,
    tips: Arc<Mutex<Vec<MessageId>>>,
    votes_disk: SimDisk,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// `before` appends to the lanes before the driver is made.
    fn new(before: impl FnOnce(&mut [Author])) -> Self {
        let mut authors: Vec<Author> =
            (0..3).map(|lane| Author::new(Arc::new(SimDisk::new(1)), Path::new("/lane"), lane)).collect();
        before(&mut authors);
        let dir = tempfile::tempdir().unwrap();
        let mut readers = authors.iter().map(|author| author.log.reader.clone());
        let lanes = Lanes::new(LaneId(0), readers.next().unwrap(), readers);
        let setup = Setup {
            weights: Weights::new(vec![1]),
            lanes: 3,
            lane: Some(LaneId(0)),
            balances: Vec::new(),
            round_us: 1_000,
        };
        let confirm = Arc::new(Confirm::new(confirm::machine(setup, None), LaneId(0)));
        let votes_disk = SimDisk::new(2);
        votes_disk.create_dir_all(Path::new("/data")).unwrap();
        let (record, _) = RecordFile::open_on(Arc::new(votes_disk.clone()), Path::new("/data")).unwrap();
        let health = Arc::new(Health::new());
        health.set_state(State::Live, None);
        let (witnesses_in, witnesses) = bounded(1);
        let (send, events) = events();
        let tips = Arc::<Mutex<Vec<MessageId>>>::default();
        let sources = lanes.readers().iter().zip(keys(3));
        let driver = Driver::new(Parts {
            confirm: confirm.clone(),
            history: Arc::new(History::create(dir.path(), lanes.clone()).unwrap()),
            acks: Arc::new(ConfirmAcks::new(1 << 20)),
            counters: Arc::default(),
            health: health.clone(),
            lanes: sources.map(|(reader, key)| LaneSource { reader: reader.clone(), key }).collect(),
            record,
            signer: signer(0),
            network: NETWORK,
            roots: ROOTS,
            tips: tips.clone(),
            random: Random::from_seed(&[3; 32]),
            witnesses: witnesses_in,
            verified: Vec::new(),
            forks: ForkFile::open(Arc::new(votes_disk.clone()), Path::new("/data"), NETWORK, &keys(3))
                .unwrap(),
            link: None,
            tips_elsewhere: bounded(64).0,
        });
        Self { driver, authors, send, events, witnesses, confirm, health, tips, votes_disk, _dir: dir }
    }

    fn closed(&self) -> bool {
        self.confirm.ask(|machine| machine.is_closed(LaneId(1)))
    }

    fn round(&mut self, event: Event) {
        assert!(self.driver.round(Some(event), &self.events).unwrap());
    }

    /// Goes on until a witness leaves; what it says, and the message.
    fn witness(&mut self) -> (Witness, Vec<u8>) {
        for _ in 0..1_000 {
            if let Ok(own) = self.witnesses.try_recv() {
                let witness = Witness::decode(MessageView::parse(&own.bytes).unwrap().payload()).unwrap();
                return (witness, own.bytes);
            }
            thread::sleep(Duration::from_millis(1));
            self.round(Event::Wake);
        }
        panic!("no witness within a thousand rounds");
    }
}

/// To a net that is not there, and stores without lanes.
fn link(bench: &Bench) -> (Link, Receiver<replicate::check::Asked>) {
    let stores = replicate::store::Stores::new(LaneId(0), &keys(3), Vec::new(), bench.health.clone());
    Link::new(Arc::new(stores), 1)
}

#[test]
fn what_was_durable_before_the_driver_heard_of_it_is_stated() {
    let mut bench = Bench::new(|_| {});
    bench.driver.replay().unwrap();
    let digest = bench.authors[1].append_one(&data(b"a"));
    bench.authors[1].sync();
    // The sync is told of first.
    bench.round(Event::Wake);
    let size = digest.size();
    bench.round(Event::Stored(digest));
    assert_eq!(bench.confirm.ask(|machine| machine.durable_size(LaneId(1))), size);
    let (witness, _) = bench.witness();
    assert_eq!(
        witness.cut.iter().map(|claim| (claim.lane, claim.size)).collect::<Vec<_>>(),
        [(LaneId(1), size)]
    );
}

#[test]
fn a_lane_that_is_far_behind_is_fed_in_turn_with_the_others() {
    let mut bench = Bench::new(|authors| {
        (0..100).for_each(|_| drop(authors[1].append_one(&data(b"a"))));
        authors[2].append_one(&data(b"b"));
    });
    bench.round(Event::Wake);
    let held = |bench: &Bench, lane| {
        bench.confirm.ask(|machine| machine.watermarks(LaneId(lane)).unwrap_or_default().held)
    };
    assert_eq!((held(&bench, 1), held(&bench, 2)), (2 * FEED_BATCHES_MAX as u64, 2));
    assert_eq!(bench.driver.sleep(), Duration::ZERO, "there is more");
    for _ in 0..100 / FEED_BATCHES_MAX {
        bench.round(Event::Wake);
    }
    assert_eq!(held(&bench, 1), 200);
    assert_ne!(bench.driver.sleep(), Duration::ZERO);
}

#[test]
fn a_witness_names_messages_of_its_own_lane_only() {
    let other = data(b"of another lane");
    let own = data(b"of the own lane");
    let mut bench = Bench::new(|authors| {
        authors[1].append_one(&other);
        authors[1].append_one(&data(b"of another lane too"));
        authors[1].sync();
    });
    *bench.tips.lock().unwrap() = vec![id(&other), id(&data(b"of another lane too"))];
    let (witness, message) = bench.witness();
    assert_eq!(*MessageView::parse(&message).unwrap().parents(), ROOTS);
    // Back in the own lane; and a message that is appended and not durable is no parent either.
    let placed = bench.authors[0].append_one(&message);
    bench.round(Event::Stored(placed));
    let placed = bench.authors[0].append_one(&own);
    bench.round(Event::Stored(placed));
    *bench.tips.lock().unwrap() = vec![id(&other), id(&own)];
    assert!(!bench.driver.parents().contains(&id(&own)));
    bench.authors[0].sync();
    assert_eq!(bench.driver.parents(), [id(&own), ROOTS[1]]);
    assert_eq!(witness.number, 1);
}

#[test]
fn the_next_witness_is_not_made_before_the_last_one_is_on_the_disk_in_its_lane() {
    let mut bench = Bench::new(|authors| {
        authors[1].append_one(&data(b"a"));
        authors[1].sync();
    });
    let (_, first) = bench.witness();
    let placed = bench.authors[0].append_one(&first);
    bench.round(Event::Stored(placed));
    let digest = bench.authors[1].append_one(&data(b"b"));
    bench.authors[1].sync();
    bench.round(Event::Stored(digest));
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(1));
        bench.round(Event::Wake);
        assert_ne!(bench.driver.sleep(), Duration::ZERO, "it does not turn in circles");
    }
    assert!(bench.witnesses.try_recv().is_err(), "a crash now would leave a gap in the chain");
    bench.authors[0].sync();
    assert_eq!(bench.witness().0.number, 2);
}

#[test]
fn a_witness_that_the_machine_has_from_the_log_before_its_event_counts_as_the_last_one_too() {
    let mut bench = Bench::new(|authors| {
        authors[1].append_one(&data(b"a"));
        authors[1].sync();
    });
    let (_, first) = bench.witness();
    // Two batches of the own lane, and the driver hears of the first one.
    let before = bench.authors[0].append_one(&data(b"before it"));
    let placed = bench.authors[0].append_one(&first);
    bench.round(Event::Stored(before));
    assert_eq!(bench.confirm.ask(|machine| machine.followed(0)), 1, "it has come back by the log");
    let digest = bench.authors[1].append_one(&data(b"b"));
    bench.authors[1].sync();
    bench.round(Event::Stored(digest));
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(1));
        bench.round(Event::Wake);
    }
    assert!(bench.witnesses.try_recv().is_err(), "a crash now would leave a gap in the chain");
    bench.round(Event::Stored(placed));
    bench.authors[0].sync();
    assert_eq!(bench.witness().0.number, 2);
}

#[test]
fn votes_for_which_there_is_no_room_are_written_when_there_is_and_their_witness_waits() {
    let mut bench = Bench::new(|authors| {
        authors[1].append_one(&data(b"a"));
        authors[1].sync();
    });
    let now = bench.votes_disk.operation_count();
    bench.votes_disk.fail_at(now, DiskFault::StorageFull);
    let started = Instant::now();
    let (witness, _) = bench.witness();
    assert_eq!(witness.number, 1);
    assert!(started.elapsed() >= FULL_RETRY, "it was refused once");
    assert_eq!(bench.health.state(), State::Live);
    assert_eq!(bench.health.full_elsewhere(), None, "there is room again");
    let (_, recorded) =
        RecordFile::open_on(Arc::new(bench.votes_disk.crash(&[])), Path::new("/data")).unwrap();
    assert_eq!(recorded.unwrap().votes.number, 1, "durable when it leaves");
}

#[test]
fn while_votes_wait_for_room_the_node_is_not_live_and_takes_no_messages() {
    let mut bench = Bench::new(|authors| {
        authors[1].append_one(&data(b"a"));
        authors[1].sync();
    });
    let now = bench.votes_disk.operation_count();
    (now..now + 3).for_each(|operation| bench.votes_disk.fail_at(operation, DiskFault::StorageFull));
    let health = bench.health.clone();
    let seen = thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(20);
        while health.state() == State::Live && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let says_so = health.full_elsewhere().is_some() && health.is_full(crate::health::Full::Votes);
        (health.state(), says_so, health.report())
    });
    bench.witness();
    let (state, says_so, report) = seen.join().unwrap();
    assert_eq!((state, says_so, report.healthy), (State::DiskFull, true, false));
    assert!(report.cause.unwrap().contains("no room"), "the operator is told why");
    assert_eq!(bench.health.state(), State::Live);
}

#[test]
fn what_a_lane_has_changed_to_and_is_not_in_the_log_is_checked_when_it_comes_and_is_no_damage() {
    let mut bench = Bench::new(|_| {});
    let disk: Arc<dyn weft_storage::Disk> = Arc::new(SimDisk::new(3));
    let mut there = Author::new(disk, Path::new("/there"), 1);
    let digest = there.append_one(&data(b"there"));
    let (link, asked) = link(&bench);
    bench.driver.parts.link = Some(link);
    bench.driver.ask_form(&digest);
    assert!(asked.try_recv().is_err(), "it has to come again first");
    bench.authors[1].append_one(&data(b"there"));
    bench.round(Event::Stored(digest.clone()));
    let asked: Vec<Hash> = asked.try_iter().map(|asked| *asked.digest.root()).collect();
    assert!(!asked.is_empty() && asked.iter().all(|root| root == digest.root()));
    bench.driver.ask_form(&there.append_one(&data(b"there too")));
    bench.driver.forget_later(LaneId(1), digest.size());
    assert!(bench.driver.later.values().all(VecDeque::is_empty), "the copy has changed again");
}

#[test]
fn a_proof_that_a_peer_shows_closes_its_lane_and_is_kept_for_the_next_start_and_for_other_peers() {
    let mut bench = Bench::new(|_| {});
    let (first, _) = link(&bench);
    bench.driver.parts.link = Some(first.clone());
    let batch = |payload: &[u8]| {
        let disk: Arc<dyn weft_storage::Disk> = Arc::new(SimDisk::new(3));
        Author::new(disk, Path::new("/there"), 1).append(&[(&data(payload), crate::testing::ROOT_PLACES)]).0
    };
    let batches = [batch(b"here"), batch(b"there")];
    let [here, there] = batches.each_ref().map(|batch| weft_core::BatchView::parse(batch).unwrap());
    let proof = ForkProof::of_batches(&weft_core::LaneTree::new(), &here, &there).unwrap();
    bench.round(Event::Proven(Box::new(proof.clone())));
    assert!(bench.closed());
    assert_eq!(bench.confirm.faults(LaneId(1)), [Fault::Forked]);
    assert_eq!(first.forks.all(), [Bytes::from(proof.encode().unwrap())]);
    let disk: Arc<dyn weft_storage::Disk> = Arc::new(bench.votes_disk.crash(&[]));
    let mut next = Bench::new(|_| {});
    let (second, _) = link(&next);
    next.driver.parts.link = Some(second.clone());
    next.driver.parts.forks = ForkFile::open(disk, Path::new("/data"), NETWORK, &keys(3)).unwrap();
    next.driver.replay().unwrap();
    assert!(next.closed() && second.forks.all() == first.forks.all());
}

#[test]
fn damage_to_this_nodes_copy_of_a_lane_stops_it_by_name() {
    let Bench { driver, send, events, health, .. } = Bench::new(|_| {});
    let damage = weft_storage::Damage { path: "lanes/1".into(), offset: 5, what: "a byte".to_owned() };
    send.send(Event::Damaged(LogError::Damaged(damage))).unwrap();
    send.send(Event::Stop).unwrap();
    driver.run(&events);
    assert_eq!(health.state(), State::Poisoned);
    let cause = health.report().cause.unwrap_or_default();
    assert!(cause.contains("lanes/1"), "{cause}");
}

#[test]
fn a_node_that_stops_before_it_has_joined_states_nothing() {
    for joined in [true, false] {
        let mut bench = Bench::new(|authors| {
            authors[0].append_one(&data(b"a"));
            authors[0].sync();
        });
        if !joined {
            bench.driver.parts.health = Arc::new(Health::new());
            bench.driver.parts.health.set_state(State::Joining, None);
            bench.driver.parts.health.set_state(State::Stopping, None);
        }
        bench.driver.replay().unwrap();
        let stated = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(1));
            bench.round(Event::Wake);
            bench.witnesses.try_recv().is_ok()
        });
        let number = bench.confirm.ask(|machine| machine.votes().number);
        assert_eq!((stated, number > 0), (joined, joined));
    }
}

/// Time is up after each event and after each lane: nothing is lost, and each lane has its turn.
#[test]
fn lanes_that_are_far_behind_and_a_full_queue_do_not_keep_back_the_tick() {
    let mut bench = Bench::new(|authors| {
        for author in authors.iter_mut() {
            for number in 0..20_u8 {
                author.append_one(&data(&[number]));
            }
        }
    });
    bench.driver.round_max = Duration::ZERO;
    let held = |bench: &Bench| -> Vec<u64> { (0..3).map(|lane| bench.driver.held(LaneId(lane))).collect() };
    (0..5).for_each(|_| bench.send.send(Event::Wake).unwrap());
    bench.round(Event::Wake);
    let size = bench.authors[0].log.reader.size();
    let share = size / 20 * 8;
    assert_eq!(held(&bench), [share, 0, 0], "one lane's share");
    assert_eq!(bench.events.try_iter().count(), 5, "and one event");
    bench.round(Event::Wake);
    assert_eq!(held(&bench), [share, share, 0], "then the next lane's");
    for _ in 0..7 {
        assert!(bench.driver.hungry);
        bench.round(Event::Wake);
    }
    assert_eq!(held(&bench), [size; 3]);
}
