//! The sequencer and a witness of the run before.

use std::path::Path;
use std::thread;

use crossbeam::channel::{bounded, unbounded};
use ed25519_dalek::SigningKey;
use weft_core::confirm::{Setup, Watermarks, Weights, Witness};
use weft_core::tips::TipSelection;
use weft_core::{DeviceSigner, LaneId, MessageView};
use weft_storage::{LaneLog, SimDisk};

use super::*;
use crate::confirm;
use crate::confirm::events::{EventReceiver, events};
use crate::lane::LaneConfig;
use crate::lanes::Lanes;
use crate::random::Random;
use crate::testing::{Author, ROOTS, data, id, message, signer};

/// A sequencer of lane 0 beside `other`, with a witness of the run before that names a message there, and the other ends.
struct Bench {
    /// Of the own lane.
    disk: SimDisk,
    sequencer: Sequencer,
    witness: OwnWitness,
    confirm: Arc<Confirm>,
    health: Arc<Health>,
    events: EventReceiver,
    _syncer: weft_storage::Syncer,
    _witnesses: Sender<OwnWitness>,
    _tips: Sender<Place>,
    _dir: tempfile::TempDir,
}

fn bench(other: &Author, parent: &[u8]) -> Bench {
    let disk = SimDisk::new(1);
    let own = Author::new(Arc::new(disk.clone()), Path::new("/lane"), 0);
    let LaneLog { writer, syncer: _syncer, reader } = own.log;
    let lanes = Lanes::new(LaneId(0), reader, std::iter::once(other.log.reader.clone()));
    let setup = Setup {
        weights: Weights::new(vec![1, 1]),
        lanes: 2,
        lane: Some(LaneId(0)),
        balances: Vec::new(),
        round_us: 1_000,
    };
    let confirm = Arc::new(Confirm::new(confirm::machine(setup, None), LaneId(0)));
    let config = LaneConfig {
        recent_ids_max: 1_024,
        replay_issuers_max: 1_024,
        tips_max: 64,
        tip_selection: TipSelection::default(),
        batch_messages_max: 4_096,
    };
    let key = SigningKey::from_bytes(&[50; 32]);
    let _dir = tempfile::tempdir().unwrap();
    let random = Random::from_seed(&[1; 32]);
    let lane = Lane::open(key, ROOTS, writer, (lanes, confirm.clone()), _dir.path(), config, random).unwrap();
    let payload = Witness { number: 1, ..Witness::default() }.encode().unwrap();
    let bytes = message(&signer(0), PayloadKind::WITNESS, [id(parent), ROOTS[1]], &payload);
    let witness = OwnWitness { id: id(&bytes), bytes };
    let (events_in, events) = events();
    let (_witnesses, witnesses) = bounded(1);
    let (_tips, tips_elsewhere) = bounded(1);
    let health = Arc::new(Health::new());
    health.set_state(State::CatchingUp, None);
    let link = ConfirmLink {
        confirm: confirm.clone(),
        events: events_in,
        witnesses,
        witness: Some(witness.clone()),
        tips_elsewhere,
    };
    let sequencer = Sequencer::new(lane, Arc::default(), health.clone(), link);
    Bench { disk, sequencer, witness, confirm, health, events, _syncer, _witnesses, _tips, _dir }
}

fn other_lane() -> Author {
    Author::new(Arc::new(SimDisk::new(1)), Path::new("/lane"), 1)
}

fn publish(confirm: &Confirm, size: u64) {
    confirm.publish(LaneId(1), &Watermarks { final_size: size, certified: size, applied: size, held: size });
}

#[test]
fn a_recorded_witness_whose_parent_has_to_be_got_again_waits_for_it_and_does_not_stop_the_node() {
    let (mut other, parent) = (other_lane(), data(b"of another lane"));
    let digest = other.append_one(&parent);
    let Bench { sequencer, witness, confirm, health, events, _syncer, _witnesses, _tips, _dir, .. } =
        bench(&other, &parent);
    let (input, batches) = unbounded();
    let (output, groups) = unbounded();
    let running = thread::spawn(move || sequencer.run(&batches, &output));
    thread::sleep(Duration::from_millis(150));
    assert_eq!(health.state(), State::CatchingUp, "not poisoned");
    assert!(groups.try_recv().is_err(), "nothing is appended meanwhile, nor synced");
    publish(&confirm, digest.size());
    let placed = events.recv_timeout(Duration::from_secs(10)).unwrap();
    let Event::Stored(batch) = placed else { panic!("{placed:?}") };
    assert_eq!(batch.witness().map(|placed| placed.id), Some(witness.id));
    drop(input);
    running.join().unwrap();
}

#[test]
fn a_witness_that_did_not_fit_a_full_disk_even_alone_waits_for_room_or_a_while() {
    let (mut other, parent) = (other_lane(), data(b"of another lane"));
    let digest = other.append_one(&parent);
    let mut bench = bench(&other, &parent);
    publish(&bench.confirm, digest.size());
    let now = Instant::now();
    (bench.sequencer.full_until, bench.sequencer.witness_after) = (Some(now), Some(now + WITNESS_RETRY));
    assert!(!bench.sequencer.place_witness());
    bench.sequencer.witness_after = Some(now);
    assert!(bench.sequencer.place_witness(), "it has waited");
    bench.sequencer.lane.rebuild().unwrap();
    (bench.sequencer.full_until, bench.sequencer.witness_after) = (None, Some(now + WITNESS_RETRY));
    assert!(bench.sequencer.place_witness(), "there is room");
}

/// The file system says that there is room, and a new segment finds none: as on a disk with quotas.
#[test]
fn messages_that_find_no_room_do_not_keep_a_witness_from_the_room_that_is_left() {
    let (mut other, parent) = (other_lane(), data(b"of another lane"));
    let digest = other.append_one(&parent);
    let mut bench = bench(&other, &parent);
    publish(&bench.confirm, digest.size());
    // What the lane has now is all that there is.
    bench.disk.set_capacity_bytes(0);
    let sequencer = &mut bench.sequencer;
    sequencer.full_until = Some(Instant::now());
    sequencer.look_for_room();
    let payload = [7; 16_000];
    // 49 kB at a time: 4 MiB end in the midst of one, with room for a witness.
    let place = |sequencer: &mut Sequencer, number: u16| {
        for part in 0..3 {
            let mut seed = [part; 32];
            seed[..2].copy_from_slice(&number.to_le_bytes());
            let bytes = message(&DeviceSigner::from_seed(seed), PayloadKind::DATA, ROOTS, &payload);
            sequencer.place(&VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap())).unwrap();
        }
    };
    let mut number = 0;
    while {
        place(sequencer, number);
        sequencer.flush().is_ok()
    } {
        number += 1;
        assert!(number < 1_000, "a segment has an end");
    }
    sequencer.lane.rebuild().unwrap();

    for _ in 0..3 {
        let before = sequencer.placed;
        // The first time beside a client's message, then while clients find nothing but room that is none.
        let witness = sequencer.place_witness();
        place(sequencer, number);
        let error = sequencer.flush().unwrap_err();
        sequencer.fail(&error, Vec::new());
        sequencer.put_witness_off(witness, sequencer.placed > before);
        assert!(witness && sequencer.full_until.is_some() && sequencer.witness_after.is_none());
    }
    assert!(sequencer.place_witness(), "clients are refused: it is alone");
    sequencer.flush().unwrap();
    assert!(sequencer.confirm.witness.is_none(), "it is in the log");

    // One that was not tried is not put off any further.
    sequencer.confirm.witness = Some(bench.witness.clone());
    let after = Some(Instant::now() + WITNESS_RETRY);
    sequencer.witness_after = after;
    assert!(!sequencer.place_witness());
    sequencer.put_witness_off(false, true);
    assert_eq!(sequencer.witness_after, after);
}

#[test]
fn a_node_that_stops_before_it_has_joined_appends_nothing() {
    for joined in [false, true] {
        let (mut other, parent) = (other_lane(), data(b"of another lane"));
        let digest = other.append_one(&parent);
        let Bench { sequencer, confirm, health, events, _syncer, _witnesses, _tips, _dir, .. } =
            bench(&other, &parent);
        publish(&confirm, digest.size());
        if !joined {
            health.set_state(State::Joining, None);
        }
        health.set_state(State::Stopping, None);
        let (input, batches) = unbounded();
        let (output, groups) = unbounded();
        let running = thread::spawn(move || sequencer.run(&batches, &output).size());
        let placed = events.recv_timeout(Duration::from_millis(if joined { 10_000 } else { 150 })).is_ok();
        drop(input);
        let size = running.join().unwrap();
        assert_eq!((placed, size > 0, groups.try_recv().is_ok()), (joined, joined, joined));
    }
}
