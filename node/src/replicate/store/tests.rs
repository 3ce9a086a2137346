//! What gets into a log or a side, and what does not.

use super::super::testing::{Author, LANE, stores};
use super::*;

fn root(batch: &Bytes) -> Hash {
    *BatchView::parse(batch).unwrap().root()
}

#[test]
fn a_lane_that_was_signed_two_ways_is_kept_both_ways_and_its_log_changes_to_the_other_one() {
    let (stores, reader, _) = stores();
    let mut author = Author::new();
    let shared = author.batch(b"shared");
    let mut liar = author.fork();
    let here = [author.batch(b"here 1"), author.batch(b"here 2")];
    let there = [liar.batch(b"there 1"), liar.batch(b"there 2"), liar.batch(b"there 3")];
    assert!(
        matches!(stores.take(LANE, &here[0], None).unwrap(), Taken::Stray),
        "what it follows is not here"
    );
    for batch in [&shared, &here[0], &here[1]] {
        assert!(matches!(stores.take(LANE, batch, None).unwrap(), Taken::Stored(_)));
        assert!(matches!(stores.take(LANE, batch, None).unwrap(), Taken::Held(..)));
    }
    assert!(matches!(stores.take(LANE, &there[1], None).unwrap(), Taken::Stray), "its beginning is missing");
    let mut side = Vec::new();
    for batch in &there[..2] {
        let Taken::Side(digest) = stores.take(LANE, batch, None).unwrap() else { panic!("another history") };
        assert_eq!(stores.bytes_of(&digest).as_ref(), Some(batch));
        side.push(digest);
        let again = stores.take(LANE, batch, None).unwrap();
        assert!(
            matches!(again, Taken::Side(again) if Arc::ptr_eq(&again, side.last().unwrap())),
            "the machine may have let go of it"
        );
    }
    let from = BatchView::parse(&shared).unwrap().size();
    stores.switch(LANE, from, &side, || {}).unwrap();
    assert_eq!((reader.size(), reader.cuts()), (liar.tree.size() - 2, 1));
    let last = reader.batch_at(reader.size() - 1).unwrap().unwrap();
    assert_eq!(*last.view().unwrap().root(), root(&there[1]));
    assert!(matches!(stores.take(LANE, &there[2], None).unwrap(), Taken::Stored(_)), "it goes on from there");
    assert!(matches!(stores.take(LANE, &here[0], None).unwrap(), Taken::Side(_)), "the former one is a side");
    let mut synced = Vec::new();
    stores.sync(|lane, size, cuts| synced.push((lane, size, cuts))).unwrap();
    assert_eq!(synced, [(LANE, liar.tree.size(), 1)]);
    {
        let _writing = stores.slots[1].as_ref().unwrap().lock();
        assert!(
            !stores.prune_sides(LANE, reader.size()),
            "whoever confirms does not wait for the disk of a lane"
        );
    }
    assert!(stores.prune_sides(LANE, reader.size()));
    assert_eq!(stores.slots[1].as_ref().unwrap().lock().side_bytes, 0, "let go of");
    assert!(matches!(stores.take(LANE, &here[0], None).unwrap(), Taken::Stray), "it parts below final");
}

#[test]
fn a_batch_that_was_changed_on_the_way_is_not_authentic_and_nothing_is_stored() {
    let (stores, reader, _) = stores();
    let mut author = Author::new();
    let batch = author.batch(b"payload");
    let mut refused = 0;
    for byte in 0..batch.len() {
        let mut changed = batch.to_vec();
        changed[byte] ^= 1;
        match stores.take(LANE, &Bytes::from(changed), None).unwrap() {
            Taken::NotAuthentic(_) => refused += 1,
            // Another position or root: it might follow a history that is not here.
            Taken::Stray => {}
            other => panic!("byte {byte}: {other:?}"),
        }
    }
    assert!(refused > batch.len() / 2, "{refused}");
    let mut stranger = Author { signer: super::super::testing::own_signer(), ..Author::new() };
    let forged = stranger.batch(b"payload");
    assert!(matches!(stores.take(LANE, &forged, None).unwrap(), Taken::NotAuthentic(BatchError::Seal)));
    assert_eq!(reader.size(), 0);
    assert!(
        matches!(stores.take(LaneId(0), &batch, None).unwrap(), Taken::Stray),
        "the own lane is not here"
    );
    assert!(matches!(stores.take(LANE, &batch, None).unwrap(), Taken::Stored(_)));
}

#[test]
fn the_oldest_side_makes_room_for_a_new_one_and_one_batch_is_always_kept() {
    let (stores, _, _) = stores();
    let batch = Author::new().batch(b"held");
    assert!(matches!(stores.take(LANE, &batch, None).unwrap(), Taken::Stored(_)));
    let count = || stores.slots[1].as_ref().unwrap().lock().sides.len();
    // As if one batch, the longest that there is, were longer than all that sides may take.
    let fill = || stores.slots[1].as_ref().unwrap().lock().side_bytes += SIDE_BYTES_MAX;
    fill();
    let first = Author::new().batch(b"first");
    let Taken::Side(digest) = stores.take(LANE, &first, None).unwrap() else { panic!("one is kept") };
    assert_eq!((count(), stores.bytes_of(&digest).is_some()), (1, true));
    let second = Author::new().batch(b"other");
    assert!(matches!(stores.take(LANE, &second, None).unwrap(), Taken::Side(_)));
    assert_eq!((count(), stores.bytes_of(&digest).is_some()), (1, false), "the first one went");
    assert!(matches!(stores.take(LANE, &first, None).unwrap(), Taken::Side(_)), "it may be offered again");
}

#[test]
fn what_goes_on_from_a_side_that_parts_below_final_goes_with_it() {
    let (stores, reader, _) = stores();
    let (mut author, mut liar) = (Author::new(), Author::new());
    for payload in [b"one", b"two"] {
        assert!(matches!(stores.take(LANE, &author.batch(payload), None).unwrap(), Taken::Stored(_)));
    }
    let mut late = author.fork();
    assert!(matches!(stores.take(LANE, &author.batch(b"end"), None).unwrap(), Taken::Stored(_)));
    for _ in 0..4 {
        assert!(matches!(stores.take(LANE, &liar.batch(b"another"), None).unwrap(), Taken::Side(_)));
    }
    let kept = late.batch(b"parts at final");
    assert!(matches!(stores.take(LANE, &kept, None).unwrap(), Taken::Side(_)));
    assert!(stores.prune_sides(LANE, reader.size() - 2));
    let slot = stores.slots[1].as_ref().unwrap().lock();
    let left: Vec<&Bytes> = slot.sides.iter().map(|side| &side.bytes).collect();
    assert_eq!(left, [&kept]);
    assert_eq!(slot.side_bytes, slot.sides[0].cost());
}

#[test]
fn a_sealed_batch_that_does_not_fit_what_it_is_said_to_follow_is_its_senders_fault() {
    let (stores, _, _) = stores();
    let mut author = Author::new();
    let shared = author.batch(b"shared");
    assert!(matches!(stores.take(LANE, &shared, Some((0, EMPTY_ROOT))).unwrap(), Taken::Stored(_)));
    let end = (author.tree.size(), author.tree.root());
    let mut elsewhere = Author::new();
    elsewhere.batch(b"of another history");
    // The seal is right, the tree below it is not the one that is here.
    let next = elsewhere.batch(b"next");
    assert!(matches!(stores.take(LANE, &next, None).unwrap(), Taken::Stray), "it may follow another history");
    let other = Some((end.0, [7; 32]));
    assert!(matches!(stores.take(LANE, &next, other).unwrap(), Taken::Stray), "that is what was said");
    let junk = stores.take(LANE, &next, Some(end)).unwrap();
    assert!(matches!(junk, Taken::NotAuthentic(BatchError::Root)), "{junk:?}");
    let skips = stores.take(LANE, &next, Some((0, EMPTY_ROOT))).unwrap();
    assert!(matches!(skips, Taken::NotAuthentic(BatchError::First { .. })), "{skips:?}");
    assert!(matches!(stores.take(LANE, &author.batch(b"next"), Some(end)).unwrap(), Taken::Stored(_)));
}

#[test]
fn a_lane_that_changed_to_a_history_of_which_a_part_was_let_go_of_gets_it_from_where_its_log_ends() {
    let (stores, reader, _) = stores();
    let mut author = Author::new();
    let shared = author.batch(b"shared");
    let from = (author.tree.size(), author.tree.root());
    let mut liar = author.fork();
    let (mut there, mut ends) = (Vec::new(), Vec::new());
    for payload in [b"there 1", b"there 2"] {
        there.push(liar.batch(payload));
        ends.push((liar.tree.size(), liar.tree.root()));
    }
    for batch in [&shared, &author.batch(b"here")] {
        assert!(matches!(stores.take(LANE, batch, None).unwrap(), Taken::Stored(_)));
    }
    let mut sides = Vec::new();
    for batch in &there {
        let Taken::Side(side) = stores.take(LANE, batch, None).unwrap() else { panic!("another history") };
        sides.push(side);
    }
    // The first one has made room for something else.
    stores.slots[1].as_ref().unwrap().lock().drop_side(0);
    stores.switch(LANE, from.0, &sides, || {}).unwrap();
    assert_eq!(reader.size(), from.0);
    let has = |(size, root): (u64, Hash)| stores.has_end(LANE, size, &root);
    assert!(has((0, EMPTY_ROOT)) && has(from) && !has((from.0, [7; 32])));
    assert!(!has(ends[0]), "what follows it could not be taken");
    assert!(
        !has(ends[1]),
        "a side still, but what follows it is of no use to a log that lacks the one before"
    );
    for batch in &there {
        assert!(matches!(stores.take(LANE, batch, None).unwrap(), Taken::Stored(_)), "also what is a side");
    }
    assert!(has(ends[0]) && has(ends[1]));
    assert_eq!(stores.slots[1].as_ref().unwrap().lock().side_bytes, 0);
}

#[test]
fn a_log_that_lacks_batches_of_its_new_history_takes_no_other_ones_in_their_place() {
    let (stores, reader, _) = stores();
    let mut author = Author::new();
    let shared = author.batch(b"shared");
    let from = author.tree.size();
    let (mut liar, mut other) = (author.fork(), author.fork());
    let first = liar.batch(b"there 1");
    let between = liar.tree.size();
    let mut late = liar.fork();
    let (second, third) = (liar.batch(b"there 2"), late.batch(b"elsewhere from there 1 on"));
    for batch in [&shared, &author.batch(b"here")] {
        assert!(matches!(stores.take(LANE, batch, None).unwrap(), Taken::Stored(_)));
    }
    let side = |batch: &Bytes| match stores.take(LANE, batch, None).unwrap() {
        Taken::Side(side) => side,
        taken => panic!("{taken:?}"),
    };
    let (first_side, second_side, third_side) = (side(&first), side(&second), side(&third));
    // All of it has made room for something else.
    let forget = || while stores.slots[1].as_ref().unwrap().lock().drop_side(0) {};
    forget();
    stores.switch(LANE, from, &[first_side, second_side], || {}).unwrap();
    side(&other.batch(b"a third history"));
    assert_eq!(reader.size(), from, "the machine holds something else there");
    // The machine may change again, beyond what the log has.
    stores.switch(LANE, between, &[third_side], || {}).unwrap();
    assert_eq!(reader.size(), from);
    assert!(matches!(stores.take(LANE, &first, None).unwrap(), Taken::Stored(_)));
    side(&second);
    assert!(matches!(stores.take(LANE, &third, None).unwrap(), Taken::Stored(_)));
    assert!(
        matches!(stores.take(LANE, &late.batch(b"on"), None).unwrap(), Taken::Stored(_)),
        "anything again"
    );
}

/// Fills the log until it wants another segment and there is no room for one.
fn fill(stores: &Stores, author: &mut Author) -> Bytes {
    for _ in 0..50 {
        let batch = author.batch(&[7; 10_000]);
        match stores.take(LANE, &batch, None).unwrap() {
            Taken::Stored(_) => {}
            Taken::Full(room) => {
                assert!(room.free_bytes < room.needed_bytes, "{room:?}");
                return batch;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_batch_without_room_is_not_taken_and_the_log_goes_on_once_there_is_room() {
    let (stores, reader, disk) = stores();
    disk.set_capacity_bytes(100_000);
    let mut author = Author::new();
    let batch = fill(&stores, &mut author);
    let size = reader.size();
    assert!(matches!(stores.take(LANE, &batch, None).unwrap(), Taken::Full(_)), "still");
    stores.sync(|_, _, _| {}).unwrap();
    disk.set_capacity_bytes(1 << 30);
    assert!(matches!(stores.take(LANE, &batch, None).unwrap(), Taken::Stored(_)));
    assert!(reader.size() > size && reader.poison().is_none());
}

#[test]
fn a_lane_that_has_to_change_on_a_full_disk_changes_when_there_is_room_and_wakes_the_sync() {
    let (stores, reader, disk) = stores();
    let (bell, rung) = crossbeam::channel::bounded(1);
    stores.set_bell(Some(bell));
    let mut author = Author::new();
    let shared = author.batch(b"shared");
    let mut liar = author.fork();
    let there = liar.batch(b"there");
    for batch in [&shared, &author.batch(b"here")] {
        assert!(matches!(stores.take(LANE, batch, None).unwrap(), Taken::Stored(_)));
    }
    let Taken::Side(side) = stores.take(LANE, &there, None).unwrap() else { panic!("another history") };
    disk.set_capacity_bytes(1);
    let mut waited = 0;
    let from = BatchView::parse(&shared).unwrap().size();
    stores
        .switch(LANE, from, &[side], || {
            waited += 1;
            assert_eq!(stores.health.state(), State::DiskFull);
            assert!(matches!(stores.take(LANE, &author.batch(b"more"), None).unwrap(), Taken::Full(_)));
            assert!(rung.try_recv().is_err());
            disk.set_capacity_bytes(1 << 30);
        })
        .unwrap();
    assert_eq!((waited, stores.health.state(), rung.try_recv()), (1, State::Live, Ok(())));
    assert_eq!((reader.size(), reader.cuts()), (liar.tree.size(), 1));
    assert_eq!(reader.durable_size(), reader.size(), "nothing else may come that would have it synced");
    // At the end of the node it is not waited for, nor by one that is of no use any more.
    disk.set_capacity_bytes(1);
    for state in [State::Stopping, State::Poisoned] {
        stores.health.set_state(state, None);
        let error = stores.switch(LANE, 0, &[], || panic!("no waiting")).unwrap_err();
        assert!(no_room(&error).is_some(), "{error}");
    }
}
