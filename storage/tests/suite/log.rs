//! A log keeps what is appended to it, over segments and openings, and lets everybody read it.

use std::path::Path;

use crate::common::{
    Batch, LANE, Lane, NETWORK, SMALL, append, assert_holds, assert_verifies, dir, open, open_in,
};
use weft_core::{LaneId, LaneTree, MessageId, NetworkId, Place};
use weft_storage::sim::{OperationKind, SimDisk, SimRandom};
use weft_storage::{Disk, LaneLog, LogConfig, LogError};

/// Batches of different sizes: they fill several of the small segments.
fn batches(lane: &mut Lane, count: usize) -> Vec<Batch> {
    (0..count).map(|i| lane.batch(1 + (i as u32 * 7) % 5, (i * 37) % 300)).collect()
}

fn append_all(log: &mut LaneLog, batches: &[Batch]) {
    for batch in batches {
        append(log, batch).unwrap();
    }
}

#[test]
fn batches_are_found_by_position_place_and_id_before_and_after_opening_again() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let history = batches(&mut lane, 40);
    let all: Vec<&Batch> = history.iter().collect();
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!((recovered.size, recovered.segments), (0, 1));
    for (i, batch) in history.iter().enumerate() {
        assert_eq!(append(&mut log, batch).unwrap(), batch.sealed.size());
        if i % 10 == 9 {
            assert_eq!(log.syncer.sync().unwrap(), batch.sealed.size());
        }
    }
    assert_holds(&log.reader, &all, lane.tree.size());
    let stats = log.reader.stats();
    assert!(stats.segments > 4, "{stats:?}");
    assert_eq!(stats.batches, 40);
    assert_eq!(stats.index_error, None);
    assert_eq!(log.writer.close().unwrap(), lane.tree.size());

    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered.tree, lane.tree);
    assert_eq!((recovered.batches, recovered.messages), (stats.batches, stats.messages));
    assert_eq!((recovered.cut, recovered.rewritten_bytes, recovered.indexes_built), (None, 0, 0));
    assert_holds(&log.reader, &all, lane.tree.size());
    assert_verifies(&disk, &dir(), lane.tree.size());
}

#[test]
fn opening_a_log_that_was_closed_writes_nothing() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append(&mut log, &Lane::new(1).batch(2, 10)).unwrap();
    log.writer.close().unwrap();
    let before = disk.operation_count();
    open(&disk, SMALL).unwrap();
    let kinds: Vec<_> = disk.operations().into_iter().skip(before as usize).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [OperationKind::SyncDir, OperationKind::SyncDir]);
}

#[test]
fn a_log_goes_on_after_each_of_many_openings() {
    let disk = SimDisk::new(2);
    let mut lane = Lane::new(2);
    let mut history = Vec::new();
    for round in 0..30 {
        let (mut log, recovered) = open(&disk, SMALL).unwrap();
        assert_eq!(recovered.tree, lane.tree);
        for batch in batches(&mut lane, 1 + round % 3) {
            append(&mut log, &batch).unwrap();
            history.push(batch);
        }
        // Sometimes an orderly end, sometimes none: the process is killed, and the kernel keeps what was written.
        match round % 3 {
            0 => assert_eq!(log.writer.close().unwrap(), lane.tree.size()),
            1 => assert_eq!(log.syncer.sync().unwrap(), lane.tree.size()),
            _ => {}
        }
    }
    let (log, _) = open(&disk, SMALL).unwrap();
    assert_holds(&log.reader, &history.iter().collect::<Vec<_>>(), lane.tree.size());
    assert_verifies(&disk, &dir(), lane.tree.size());
}

#[test]
fn one_sync_serves_many_appends() {
    let disk = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 1 << 20, ..SMALL };
    let (mut log, _) = open(&disk, config).unwrap();
    let before = disk.operation_count() as usize;
    for batch in batches(&mut Lane::new(1), 20) {
        append(&mut log, &batch).unwrap();
    }
    assert_eq!(log.reader.durable_size(), 0);
    let opened_at = log.reader.last_durable_at();
    log.syncer.sync().unwrap();
    log.syncer.sync().unwrap();
    assert_eq!(log.reader.durable_size(), log.reader.size());
    assert!(log.reader.last_durable_at() > opened_at);
    let kinds: Vec<_> = disk.operations().split_off(before).into_iter().map(|(kind, _)| kind).collect();
    let mut expected = vec![OperationKind::Write; 20];
    expected.push(OperationKind::Sync);
    assert_eq!(kinds, expected, "one write for each append and one sync for all");
}

#[test]
fn a_batch_longer_than_a_segment_gets_a_segment_of_its_own_length() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let history = [lane.batch(3, 9_000), lane.batch(1, 10), lane.batch(2, 12_000), lane.batch(1, 5)];
    let all: Vec<&Batch> = history.iter().collect();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    for batch in &history {
        append(&mut log, batch).unwrap();
    }
    assert_holds(&log.reader, &all, lane.tree.size());
    // The empty first segment was replaced, and the small batches found room behind the long ones.
    assert_eq!(log.reader.stats().segments, 2);
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered.segments, 2);
    assert_holds(&log.reader, &all, lane.tree.size());
    assert_verifies(&disk, &dir(), lane.tree.size());
}

#[test]
fn a_batch_that_does_not_continue_the_log_is_refused_and_harms_nothing() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let (first, second, third) = (lane.batch(2, 5), lane.batch(2, 5), lane.batch(2, 5));
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append(&mut log, &first).unwrap();
    let name = |result: Result<u64, LogError>| match result {
        Err(LogError::WrongBatch { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(append(&mut log, &third)), "first position");
    assert_eq!(name(append(&mut log, &first)), "first position");
    assert_eq!(name(log.writer.append(&second.sealed, &first.after)), "tree size");
    let mut other_tree = LaneTree::new();
    (0..second.sealed.size()).for_each(|_| other_tree.push(&[1; 32]));
    assert_eq!(name(log.writer.append(&second.sealed, &other_tree)), "root (1: equal to the tree's)");
    append(&mut log, &second).unwrap();
    append(&mut log, &third).unwrap();
    assert_holds(&log.reader, &[&first, &second, &third], third.sealed.size());
}

#[test]
fn files_of_another_network_or_lane_are_refused() {
    let disk = SimDisk::new(1);
    drop(open(&disk, SMALL).unwrap());
    let open_as = |network, lane| {
        LaneLog::open(std::sync::Arc::new(disk.clone()), &dir(), network, lane, SMALL, &|_| true).err()
    };
    match open_as(NetworkId([9; 4]), LANE) {
        Some(LogError::AnotherNetwork { got, expected, .. }) => {
            assert_eq!((got, expected), (NETWORK, NetworkId([9; 4])));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(open_as(NETWORK, LaneId(8)), Some(LogError::AnotherLane { got: LANE, .. })));
}

#[test]
fn a_log_whose_last_batch_another_key_signed_is_refused() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append(&mut log, &Lane::new(1).batch(2, 5)).unwrap();
    drop(log);
    let opened =
        LaneLog::open(std::sync::Arc::new(disk), &dir(), NETWORK, LANE, SMALL, &|_| false).map(|_| ());
    assert!(matches!(opened, Err(LogError::Unsound(_))), "{opened:?}");
}

#[test]
fn settings_out_of_range_are_refused() {
    for segment_bytes in [0, 4_096, 10_000, 1 << 40] {
        let opened = open(&SimDisk::new(1), LogConfig { segment_bytes, ..SMALL });
        assert!(matches!(opened, Err(LogError::Config { .. })), "{segment_bytes}");
    }
}

#[test]
fn ids_and_places_that_are_not_there_are_not_found() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(3);
    let history = batches(&mut lane, 30);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append_all(&mut log, &history);
    let mut random = SimRandom::new(9);
    let mut ids: Vec<MessageId> = Vec::new();
    for batch in &history {
        for id in batch.sealed.ids() {
            ids.push(*id);
            // Same prefix as a stored one, another id: only the whole id tells.
            let mut near = *id;
            near.0[31] ^= 1;
            ids.push(near);
        }
        ids.push(MessageId(std::array::from_fn(|_| random.next_u64() as u8)));
    }
    let mut places = Vec::new();
    log.reader.find_many(&ids, &mut places);
    let stored: Vec<bool> = places.iter().map(Option::is_some).collect();
    assert_eq!(stored.iter().filter(|stored| **stored).count() as u64, log.reader.stats().messages);
    for (id, place) in ids.iter().zip(&places) {
        assert_eq!(log.reader.find(id), *place);
        if let Some(place) = place {
            assert_eq!(log.reader.message_at(*place).unwrap().unwrap().view().unwrap().id(), *id);
        }
    }
    for place in
        [Place::new(LaneId(8), 1), Place::root(0), Place::new(LANE, lane.tree.size()), Place(u64::MAX)]
    {
        assert_eq!(log.reader.message_at(place).unwrap(), None);
    }
}

#[test]
fn a_missing_or_damaged_index_file_is_built_again() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(4);
    let history = batches(&mut lane, 30);
    let all: Vec<&Batch> = history.iter().collect();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append_all(&mut log, &history);
    drop(log);
    let names = disk.list(&dir()).unwrap();
    let indexes: Vec<_> =
        names.iter().filter(|name| name.ends_with(".idx")).map(|name| dir().join(name)).collect();
    assert!(indexes.len() >= 3, "{names:?}");
    disk.remove(&indexes[0]).unwrap();
    disk.flip_bit(&indexes[1], 300, 2).unwrap();
    // An index of another state of the same segment: as after restoring one file of a backup.
    disk.tamper(&indexes[2], 0, &disk.read_file(&indexes[1]).unwrap()[..256]).unwrap();
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered.indexes_built, 3);
    assert_holds(&log.reader, &all, lane.tree.size());
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered.indexes_built, 0);
    assert_holds(&log.reader, &all, lane.tree.size());
}

#[test]
fn an_index_with_forged_checksums_may_miss_a_message_and_never_misplaces_one() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(6);
    let history = batches(&mut lane, 30);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append_all(&mut log, &history);
    let size = log.reader.size();
    drop(log);
    let index = disk.list(&dir()).unwrap().into_iter().find(|name| name.ends_with(".idx")).unwrap();
    let index = dir().join(index);
    // By an index that is intact otherwise, all records and messages of the segment lie one position later than they do.
    let mut bytes = disk.read_file(&index).unwrap().to_vec();
    let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let ids = number(40) as usize;
    let positions = 256 + 64 * number(20) as usize + 8 * ids;
    let starts = positions + 4 * ids;
    for at in (positions..starts).step_by(4).chain((starts..bytes.len()).step_by(8)) {
        let position = u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        bytes[at..at + 4].copy_from_slice(&(position + 1).to_le_bytes());
    }
    let body = *blake3::hash(&bytes[256..]).as_bytes();
    bytes[80..112].copy_from_slice(&body);
    let checksum = blake3::derive_key("weft 2026-11 log index v1", &bytes[..224]);
    bytes[224..256].copy_from_slice(&checksum);
    disk.tamper(&index, 0, &bytes).unwrap();
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!((recovered.indexes_built, log.reader.size()), (0, size), "the forgery is believed");
    let mut missed = 0;
    for batch in &history {
        for (id, i) in batch.sealed.ids().iter().zip(0..) {
            match log.reader.find(id) {
                Some(place) => assert_eq!(place, batch.sealed.place(i)),
                None => missed += 1,
            }
        }
    }
    assert!(missed > 0, "the forged index was not asked");
}

#[test]
fn ids_are_found_in_segments_that_a_sieve_covers_and_that_came_in_place_of_some_cut() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(9);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let history = batches(&mut lane, 40);
    append_all(&mut log, &history);
    let stats = log.reader.stats();
    assert!(stats.segments > 6);
    assert_eq!(stats.segments_sieved, stats.segments - 1, "all but the active one");
    assert_holds(&log.reader, &history.iter().collect::<Vec<_>>(), lane.tree.size());

    // Another history from the middle on: what was cut is not found, what came for it is.
    let (kept, lost) = history.split_at(17);
    log.writer.cut(kept[16].sealed.size()).unwrap();
    let after_cut = log.reader.stats();
    assert!(after_cut.segments_sieved < after_cut.segments && after_cut.segments < stats.segments);
    lane.tree = kept[16].after.clone();
    let again = batches(&mut lane, 25);
    append_all(&mut log, &again);
    let size = lane.tree.size();
    let all: Vec<&Batch> = kept.iter().chain(&again).collect();
    assert_holds(&log.reader, &all, size);
    let absent: Vec<MessageId> = lost.iter().flat_map(|batch| batch.sealed.ids()).copied().collect();
    let mut places = Vec::new();
    log.reader.find_many(&absent, &mut places);
    assert!(places.iter().all(Option::is_none) && absent.iter().all(|id| log.reader.find(id).is_none()));
    let stats = log.reader.stats();
    assert_eq!(stats.segments_sieved, stats.segments - 1);

    drop(log);
    let (log, _) = open(&disk, SMALL).unwrap();
    let stats = log.reader.stats();
    assert_eq!(stats.segments_sieved, stats.segments - 1, "after opening");
    assert_holds(&log.reader, &all, size);
}

#[test]
fn reading_from_a_position_starts_with_the_batch_that_holds_it() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(5);
    let history = batches(&mut lane, 12);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    append_all(&mut log, &history);
    for position in 0..lane.tree.size() {
        let expected = history.iter().filter(|batch| batch.sealed.size() > position);
        let found: Vec<u64> = log.reader.batches_from(position).map(|batch| batch.unwrap().first).collect();
        assert_eq!(found, expected.map(|batch| batch.sealed.first()).collect::<Vec<_>>());
    }
    assert!(log.reader.batches_from(lane.tree.size()).next().is_none());
}

#[test]
fn the_real_disk_keeps_a_log_with_background_work_like_the_simulated_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lanes/7");
    let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(weft_storage::RealDisk);
    let config = LogConfig { background: true, ..SMALL };
    let mut lane = Lane::new(6);
    let history = batches(&mut lane, 60);
    let all: Vec<&Batch> = history.iter().collect();
    let (mut log, _) = open_in(disk.clone(), &path, config).unwrap();
    for batch in &history {
        append(&mut log, batch).unwrap();
    }
    assert_holds(&log.reader, &all, lane.tree.size());
    log.writer.close().unwrap();
    let (log, recovered) = open_in(disk.clone(), &path, config).unwrap();
    assert_eq!((recovered.cut, recovered.indexes_built), (None, 0), "the thread has built the index files");
    assert_holds(&log.reader, &all, lane.tree.size());
    assert_verifies(&*disk, &path, lane.tree.size());
    assert!(!Path::new(&path).join("spare").exists() || recovered.segments > 0);
}
