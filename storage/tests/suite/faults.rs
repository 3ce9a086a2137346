//! Failing writes and syncs, full disks, damage, and bytes that look like records: errors by name, and nothing acknowledged is lost.

use weft_core::{LaneId, OneByOne};
use weft_storage::segment::{FRAME_BYTES, Frame, SEGMENT_HEADER_BYTES, SegmentHeader};
use weft_storage::sim::{Fault, OperationKind, SimDisk, SimRandom};
use weft_storage::{Disk, LogConfig, LogError, verify_log};

use crate::common::{Batch, LANE, Lane, NETWORK, SMALL, append, assert_holds, assert_verifies, dir, open};
use crate::crash::{Run, Step};

/// One segment for everything.
const ONE: LogConfig = LogConfig { segment_bytes: 65_536, ..SMALL };

fn segment_path() -> std::path::PathBuf {
    dir().join("0000000000000000.seg")
}

fn is_poisoned<T>(result: Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Poisoned(_)))
}

#[test]
fn the_first_failed_write_closes_the_log_for_good_and_says_why() {
    for fault in [Fault::Failure, Fault::ShortWrite { bytes: 0 }, Fault::ShortWrite { bytes: 700 }] {
        let disk = SimDisk::new(1);
        let mut lane = Lane::new(1);
        let (first, second) = (lane.batch(2, 100), lane.batch(3, 100));
        let (mut log, _) = open(&disk, ONE).unwrap();
        append(&mut log, &first).unwrap();
        disk.fail_at(disk.operation_count(), fault);
        assert!(is_poisoned(append(&mut log, &second)));
        assert!(is_poisoned(append(&mut log, &second)), "a log that took a record after a failed one");
        assert!(
            is_poisoned(log.syncer.sync()),
            "a sync after a failed write would acknowledge what may be torn"
        );
        let poison = log.reader.poison().unwrap();
        assert_eq!((poison.operation, &*poison.path), ("write", &*segment_path()));
        assert_holds(&log.reader, &[&first, &second], first.sealed.size());
        assert!(is_poisoned(log.writer.close()));
        let (log, _) = open(&disk, ONE).unwrap();
        assert_holds(&log.reader, &[&first, &second], first.sealed.size());
    }
}

/// A failed sync leaves pages in the cache that read back well, count as clean, and are not on the disk. A program that tries the sync
/// again gets success and loses them. Nor may the next process trust what it reads there.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_next_opening_writes_the_tail_again() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let batches = [lane.batch(2, 100), lane.batch(3, 300), lane.batch(1, 0)];
    let all: Vec<&Batch> = batches.iter().collect();
    let (mut log, _) = open(&disk, ONE).unwrap();
    append(&mut log, &batches[0]).unwrap();
    log.syncer.sync().unwrap();
    append(&mut log, &batches[1]).unwrap();
    append(&mut log, &batches[2]).unwrap();
    disk.fail_at(disk.operation_count(), Fault::Failure);
    assert!(is_poisoned(log.syncer.sync()));
    assert!(is_poisoned(log.syncer.sync()), "the second sync must not succeed");
    assert!(is_poisoned(append(&mut log, &batches[2])));
    assert_eq!(log.reader.durable_size(), batches[0].sealed.size());
    drop(log);
    let (log, recovered) = open(&disk, ONE).unwrap();
    assert_eq!(recovered.size, lane.tree.size());
    assert!(recovered.rewritten_bytes > 0);
    assert_eq!(log.reader.durable_size(), lane.tree.size());
    let (log, _) = open(&disk.crash(&[]), ONE).unwrap();
    assert_holds(&log.reader, &all, lane.tree.size());
}

#[test]
fn any_single_fault_at_any_operation_loses_nothing_that_was_acknowledged() {
    use Step::{Append, Close, Kill, Sync};
    let scripts: [&[Step]; 2] = [
        &[Append(2, 500), Sync, Append(2, 500), Append(2, 500), Append(2, 900), Close, Append(2, 900), Sync],
        &[Append(1, 0), Append(3, 900), Kill, Append(1, 100), Append(2, 800), Sync, Append(1, 0)],
    ];
    let faults = [Fault::Failure, Fault::StorageFull, Fault::ShortWrite { bytes: 800 }];
    let mut random = SimRandom::new(2);
    let mut struck = 0;
    for steps in scripts {
        let whole = SimDisk::new(5);
        let complete = Run::new(&whole, SMALL, steps);
        for operation in 0..whole.operation_count() {
            for fault in faults {
                let disk = SimDisk::new(5);
                disk.fail_at(operation, fault);
                // Stops at the first error; errors in building an index file are not told, and it goes on.
                let run = Run::new(&disk, SMALL, steps);
                struck += u64::from(run.written < complete.written);
                // The power fails right after the fault, or after the next process has opened the log.
                for outcome in disk.crash_outcomes(20, &mut random).outcomes {
                    run.check(&disk.crash(&outcome), SMALL);
                }
                let size = run.check(&disk, SMALL);
                for outcome in disk.crash_outcomes(20, &mut random).outcomes {
                    assert_eq!(run.check(&disk.crash(&outcome), SMALL), size, "reported durable, then lost");
                }
                run.check_goes_on(&disk, SMALL, size);
            }
        }
    }
    assert!(struck > 60, "only {struck} runs were cut short");
}

#[test]
fn a_full_disk_is_an_error_on_the_append_that_can_be_tried_again() {
    let disk = SimDisk::new(1);
    let config = LogConfig { free_bytes_min: 10_000, ..SMALL };
    // Two segments and an index file fit over the reserve, three do not.
    disk.set_capacity_bytes(2 * 8_192 + 2_000 + 10_000);
    let mut lane = Lane::new(1);
    let mut history = Vec::new();
    let (mut log, _) = open(&disk, config).unwrap();
    let refused = loop {
        let batch = lane.batch(2, 300);
        match append(&mut log, &batch) {
            Ok(_) => history.push(batch),
            Err(LogError::StorageFull { free_bytes, needed_bytes, .. }) => {
                assert!(free_bytes < needed_bytes && needed_bytes >= 8_192 + 10_000);
                break batch;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(log.reader.stats().segments, 2);
    let size = log.reader.size();
    assert_eq!(log.syncer.sync().unwrap(), size, "what is in the log can still be made durable");
    assert!(log.reader.poison().is_none());
    assert!(matches!(append(&mut log, &refused), Err(LogError::StorageFull { .. })));
    disk.set_capacity_bytes(1 << 20);
    append(&mut log, &refused).unwrap();
    history.push(refused);
    assert_holds(&log.reader, &history.iter().collect::<Vec<_>>(), lane.tree.size());
    drop(log);
    disk.set_capacity_bytes(0);
    let (log, _) = open(&disk, config).unwrap();
    assert_holds(&log.reader, &history.iter().collect::<Vec<_>>(), lane.tree.size());
    let empty = SimDisk::new(1);
    empty.set_capacity_bytes(8_192 + 9_999);
    assert!(matches!(open(&empty, config), Err(LogError::StorageFull { .. })));
}

#[test]
fn an_index_file_that_does_not_fit_stays_in_memory_and_is_built_later() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let mut history = Vec::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    disk.set_capacity_bytes(2 * 8_192);
    while log.reader.stats().segments < 2 {
        let batch = lane.batch(2, 300);
        append(&mut log, &batch).unwrap();
        history.push(batch);
    }
    let all: Vec<&Batch> = history.iter().collect();
    assert!(log.reader.stats().index_error.is_some());
    assert_holds(&log.reader, &all, lane.tree.size());
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered.indexes_built, 1);
    assert!(log.reader.stats().index_error.is_some());
    assert_holds(&log.reader, &all, lane.tree.size());
    drop(log);
    disk.set_capacity_bytes(1 << 20);
    let (log, _) = open(&disk, SMALL).unwrap();
    assert_eq!(log.reader.stats().index_error, None);
    let (_, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered.indexes_built, 0);
    assert_holds(&log.reader, &all, lane.tree.size());
}

#[test]
fn a_write_refused_for_want_of_space_before_any_byte_can_be_tried_again() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let batch = lane.batch(2, 100);
    let (mut log, _) = open(&disk, ONE).unwrap();
    disk.fail_at(disk.operation_count(), Fault::StorageFull);
    assert!(matches!(append(&mut log, &batch), Err(LogError::StorageFull { .. })));
    append(&mut log, &batch).unwrap();
    log.syncer.sync().unwrap();
    let (log, _) = open(&disk.crash(&[]), ONE).unwrap();
    assert_holds(&log.reader, &[&batch], lane.tree.size());
}

/// A log of three batches, closed in order.
fn closed_log() -> (SimDisk, Vec<Batch>) {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let history = vec![lane.batch(1, 10), lane.batch(3, 50), lane.batch(2, 100)];
    let (mut log, _) = open(&disk, ONE).unwrap();
    for batch in &history {
        append(&mut log, batch).unwrap();
    }
    log.writer.close().unwrap();
    (disk, history)
}

#[test]
fn a_flipped_bit_anywhere_in_durable_data_is_reported_and_never_cut() {
    let (disk, history) = closed_log();
    let all: Vec<&Batch> = history.iter().collect();
    let size = history[2].sealed.size();
    let used = SEGMENT_HEADER_BYTES as u64 + 3 * 512 + 3 * 512;
    let (mut refused, mut harmless) = (0, 0);
    for offset in 0..used {
        let damaged = disk.fork();
        damaged.flip_bit(&segment_path(), offset, (offset % 8) as u8).unwrap();
        let report = verify_log(&damaged, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(()));
        match open(&damaged, ONE) {
            Ok((log, recovered)) => {
                // Padding between records, or the mark.
                assert_eq!(recovered.size, size, "cut after a flip at {offset}");
                assert_holds(&log.reader, &all, size);
                harmless += 1;
            }
            Err(LogError::Damaged(damage)) => {
                assert_eq!(damage.path, segment_path());
                assert_eq!(report.unwrap().damage, Some(damage), "verify-log names the same damage");
                refused += 1;
            }
            Err(error) => panic!("flip at {offset}: {error}"),
        }
    }
    assert!(refused > 4_096 + 1_500 && harmless > 0, "refused {refused}, harmless {harmless}");
}

#[test]
fn a_lost_sector_of_durable_data_is_reported_and_never_cut() {
    let (disk, history) = closed_log();
    let size = history[2].sealed.size();
    let records = SEGMENT_HEADER_BYTES as u64;
    for sector in 0..5 {
        let damaged = disk.fork();
        damaged.tamper(&segment_path(), records + 512 * sector, &[0; 512]).unwrap();
        match open(&damaged, ONE) {
            Err(LogError::Damaged(damage)) => assert!(damage.offset <= records + 512 * sector),
            other => panic!("sector {sector}: {:?}", other.map(|(_, recovered)| recovered)),
        }
    }
    // The one case that can not be told from a torn tail: the last sync's data are gone and no later frame is left to say so.
    let damaged = disk.fork();
    let bytes = disk.read_file(&segment_path()).unwrap();
    damaged.tamper(&segment_path(), records, &vec![0; bytes.len() - SEGMENT_HEADER_BYTES]).unwrap();
    let (_, recovered) = open(&damaged, ONE).unwrap();
    assert!(recovered.size < size);
}

#[test]
fn damage_in_a_sealed_segment_is_found_by_verify_log_with_file_and_offset() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    while log.reader.stats().segments < 4 {
        append(&mut log, &lane.batch(2, 300)).unwrap();
    }
    log.writer.close().unwrap();
    assert_verifies(&disk, &dir(), lane.tree.size());
    let names = disk.list(&dir()).unwrap();
    let second = dir().join(names.iter().filter(|name| name.ends_with(".seg")).nth(1).unwrap());
    let before = verify_log(&disk, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(())).unwrap();
    disk.flip_bit(&second, SEGMENT_HEADER_BYTES as u64 + 512 + 200, 0).unwrap();
    let after = verify_log(&disk, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(())).unwrap();
    let damage = after.damage.unwrap();
    assert_eq!(damage.path, second);
    assert!(damage.offset <= SEGMENT_HEADER_BYTES as u64 + 512 + 200);
    assert!(after.size < before.size);
    // Building its index needs all of it, so without the index file the log does not open.
    disk.remove(&second.with_extension("idx")).unwrap();
    assert!(matches!(open(&disk, SMALL), Err(LogError::Damaged(damage)) if damage.path == second));
}

#[test]
fn a_missing_segment_is_reported() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    while log.reader.stats().segments < 4 {
        append(&mut log, &lane.batch(2, 300)).unwrap();
    }
    drop(log);
    let names: Vec<_> =
        disk.list(&dir()).unwrap().into_iter().filter(|name| name.ends_with(".seg")).collect();
    for name in &names[..3] {
        let disk = disk.fork();
        disk.remove(&dir().join(name)).unwrap();
        assert!(matches!(open(&disk, SMALL), Err(LogError::Damaged(_))), "{name}");
        let report = verify_log(&disk, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(())).unwrap();
        assert!(report.damage.is_some(), "{name}");
    }
}

/// A record that was written and lost in a crash, while one before it was torn, must not come back when the disk shows it again: not
/// even if the same batch is appended again before it, so that every byte it depends on is the same.
#[test]
fn a_record_left_over_beyond_a_cut_tail_is_never_taken_for_part_of_the_log() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let history = [lane.batch(1, 40), lane.batch(1, 50), lane.batch(1, 60)];
    let all: Vec<&Batch> = history.iter().collect();
    let (mut log, _) = open(&disk, ONE).unwrap();
    append(&mut log, &history[0]).unwrap();
    log.syncer.sync().unwrap();
    append(&mut log, &history[1]).unwrap();
    append(&mut log, &history[2]).unwrap();
    drop(log);
    let bytes = disk.read_file(&segment_path()).unwrap();
    let start = |batch: usize| 4_096 + 1_024 * batch;
    // Sector by sector: the second record did not survive, the third did.
    let units = disk.crash_units();
    assert_eq!(units.len(), 4, "two records of two sectors");
    let crashed = disk.crash(&[0, 0, 1, 1]);
    let (mut log, recovered) = open(&crashed, ONE).unwrap();
    assert_eq!(recovered.size, history[0].sealed.size());
    assert_eq!(recovered.cut.unwrap().bytes, 2_048);
    append(&mut log, &history[1]).unwrap();
    log.syncer.sync().unwrap();
    drop(log);
    // The zeros over the tail were lost as well, as they may be on a disk with a failed sync.
    crashed.tamper(&segment_path(), start(2) as u64, &bytes[start(2)..start(3)]).unwrap();
    let (log, recovered) = open(&crashed, ONE).unwrap();
    assert_eq!(recovered.size, history[1].sealed.size());
    assert_holds(&log.reader, &all, history[1].sealed.size());
}

/// Senders choose payloads, and a torn tail is full of them. If bytes in a payload could pass for a frame that claims durability beyond
/// the end, anybody could keep a node from starting after a crash.
#[test]
fn a_payload_made_to_look_like_a_record_does_not_keep_the_log_from_opening() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, ONE).unwrap();
    let mut lane = Lane::new(1);
    let first = lane.batch(1, 0);
    append(&mut log, &first).unwrap();
    log.syncer.sync().unwrap();
    let second = lane.batch(4, 1_000);
    append(&mut log, &second).unwrap();
    drop(log);
    let header = disk.read_file(&segment_path()).unwrap();
    let (header, _) = SegmentHeader::decode(&header).unwrap();
    let forged = Frame {
        count: 1,
        length_bytes: 400,
        first: 1_000,
        durable: 1_000,
        session: 0,
        content: [0; 24],
        previous: [0; 32],
    };
    // The crash loses the first sector of the second record; in a later one there is the forgery.
    let at = SEGMENT_HEADER_BYTES as u64 + 1_024;
    let try_salt = |salt: &[u8; 32]| {
        let mut sector = [0; 512];
        sector[..FRAME_BYTES].copy_from_slice(&forged.encode(salt));
        let disk = disk.fork();
        disk.tamper(&segment_path(), at, &[0; 512]).unwrap();
        disk.tamper(&segment_path(), at + 512, &sector).unwrap();
        open(&disk, ONE).map(|(_, recovered)| recovered.size)
    };
    assert_eq!(try_salt(&[0; 32]).unwrap(), first.sealed.size());
    // Who knows the salt can, which shows that this test puts the forgery where it would count.
    assert!(matches!(try_salt(&header.salt), Err(LogError::Damaged(_))));
}

#[test]
fn a_log_cut_by_a_crash_says_what_it_cut() {
    let disk = SimDisk::new(1);
    let mut lane = Lane::new(1);
    let (first, second) = (lane.batch(1, 0), lane.batch(5, 400));
    let (mut log, _) = open(&disk, ONE).unwrap();
    append(&mut log, &first).unwrap();
    log.syncer.sync().unwrap();
    append(&mut log, &second).unwrap();
    let mut everything: Vec<u32> = disk.crash_units().iter().map(|unit| unit - 1).collect();
    everything[3] = 0;
    let crashed = disk.crash(&everything);
    let report = verify_log(&crashed, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(())).unwrap();
    assert_eq!((report.damage, report.size, report.closed), (None, first.sealed.size(), false));
    let (_, recovered) = open(&crashed, ONE).unwrap();
    let cut = recovered.cut.unwrap();
    assert_eq!((cut.bytes, cut.offset), (report.torn_bytes, SEGMENT_HEADER_BYTES as u64 + 512));
    assert!(cut.found.contains("body"), "{}", cut.found);
    let report = verify_log(&crashed, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(())).unwrap();
    assert_eq!((report.torn_bytes, report.closed), (0, true));
}

#[test]
fn verify_log_asks_about_every_batch_and_reports_the_first_refusal() {
    let (disk, history) = closed_log();
    let mut asked = Vec::new();
    let report = verify_log(&disk, &dir(), NETWORK, LANE, &OneByOne, &mut |batch, ids| {
        asked.push((batch.first(), ids.to_vec()));
        if asked.len() == 3 { Err("message 1: signature".to_owned()) } else { Ok(()) }
    })
    .unwrap();
    let expected: Vec<_> =
        history.iter().map(|batch| (batch.sealed.first(), batch.sealed.ids().to_vec())).collect();
    assert_eq!(asked, expected);
    assert_eq!((report.batches, report.size), (2, history[1].sealed.size()));
    let damage = report.damage.unwrap();
    assert_eq!((damage.what.as_str(), damage.offset), ("message 1: signature", 4_096 + 512 + 1_536));
    assert!(verify_log(&disk, &dir(), NETWORK, LaneId(8), &OneByOne, &mut |_, _| Ok(())).is_err());
}

#[test]
fn what_an_interrupted_roll_left_behind_is_tidied_up() {
    let disk = SimDisk::new(1);
    drop(open(&disk, SMALL).unwrap());
    for name in ["spare", "0000000000000000.idx.tmp"] {
        disk.create(&dir().join(name), 512).unwrap();
    }
    let before = disk.operation_count() as usize;
    drop(open(&disk, SMALL).unwrap());
    let removed = disk.operations().split_off(before);
    assert_eq!(removed.iter().filter(|(kind, _)| *kind == OperationKind::Remove).count(), 2);
    assert_eq!(disk.list(&dir()).unwrap(), ["0000000000000000.seg"]);
}
