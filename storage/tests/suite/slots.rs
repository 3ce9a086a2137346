//! The record in two slots: after a power failure at any operation, with any subset of the unsynced sectors and names on the disk, it is
//! the last one whose write had returned or the one that was being written, and it can be replaced again.

use std::path::Path;
use std::sync::Arc;

use weft_storage::sim::{Fault, SimDisk, SimRandom};
use weft_storage::{Disk, LogError, SlotFile};

const NAME: &str = "record";

fn dir() -> &'static Path {
    Path::new("/data")
}

fn open(disk: &SimDisk) -> Result<(SlotFile, Option<Vec<u8>>), LogError> {
    disk.create_dir_all(dir()).map_err(|source| LogError::Io {
        operation: "create",
        path: dir().to_path_buf(),
        source,
    })?;
    SlotFile::open(Arc::new(disk.clone()), dir(), NAME)
}

/// Record `number` of a run: some are longer than a slot of the smallest file, so that a larger one is needed.
fn record(number: u8) -> Vec<u8> {
    let length = match number {
        3 => 20_000,
        6 => 70_000,
        _ => 900 + usize::from(number),
    };
    vec![number; length]
}

/// Writes records until the power fails; the number of writes that returned. Opens the file again half-way.
fn run(disk: &SimDisk) -> u8 {
    let mut written = 0;
    for number in 1..=8 {
        let Ok((mut slots, found)) = open(disk) else { return written };
        assert_eq!(found, (written > 0).then(|| record(written)));
        if slots.write(&record(number)).is_err() {
            return written;
        }
        written = number;
    }
    written
}

#[test]
fn after_any_crash_the_record_is_the_last_one_written_or_the_one_under_way() {
    let whole = SimDisk::new(5);
    assert_eq!(run(&whole), 8);
    let mut random = SimRandom::new(3);
    let (mut crashes, mut newer) = (0, 0);
    for operation in 0..=whole.operation_count() {
        let disk = SimDisk::new(5);
        disk.fail_at(operation, Fault::PowerOff);
        let written = run(&disk);
        for outcome in disk.crash_outcomes(64, &mut random).outcomes {
            let crashed = disk.crash(&outcome);
            let (mut slots, found) = open(&crashed).expect("the file opens after every crash");
            let last = (written > 0).then(|| record(written));
            let next = Some(record(written + 1));
            assert!(
                found == last || found == next,
                "operation {operation}: {:?}",
                found.map(|found| found[0])
            );
            newer += u32::from(found == next);
            crashes += 1;
            // What was handed out is durable, and the next record goes on from it.
            let again = open(&crashed.crash(&[])).expect("it opens").1;
            assert_eq!(again, found);
            slots.write(b"afterwards").expect("it can be replaced");
            assert_eq!(open(&crashed.crash(&[])).expect("it opens").1.as_deref(), Some(&b"afterwards"[..]));
        }
    }
    assert!(crashes > 300 && newer > 5, "{crashes} crashes, {newer} kept a write that had not returned");
}

#[test]
fn a_failed_sync_ends_all_writing_and_damage_to_both_slots_is_reported() {
    let disk = SimDisk::new(1);
    let (mut slots, _) = open(&disk).expect("an empty disk");
    slots.write(b"one").expect("the first record");
    disk.fail_at(disk.operation_count() + 1, Fault::Failure);
    assert!(slots.write(b"two").is_err_and(|error| error.is_poison()), "the sync fails");
    assert!(slots.write(b"three").is_err_and(|error| error.is_poison()), "and nothing is written any more");
    let path = dir().join(NAME);
    for half in 0..2 {
        let length = disk.read_file(&path).expect("the file").len() as u64;
        disk.flip_bit(&path, half * (length / 2) + 57, 1).expect("the file");
    }
    assert!(matches!(open(&disk), Err(LogError::Damaged(_))));
}

#[test]
fn a_record_that_needs_a_larger_file_on_a_full_disk_waits_and_loses_nothing() {
    let disk = SimDisk::new(5);
    let (mut slots, _) = open(&disk).expect("it opens");
    slots.write(&record(1)).expect("a small one");
    disk.fail_at(disk.operation_count(), Fault::StorageFull);
    let refused = slots.write(&record(3)).expect_err("no room for a larger file");
    assert!(matches!(refused, LogError::StorageFull { .. }), "{refused:?}");
    assert_eq!(open(&disk.crash(&[])).expect("it opens").1, Some(record(1)));
    // What fits is written all the while, and the larger one once there is room.
    slots.write(&record(2)).expect("it fits");
    slots.write(&record(3)).expect("there is room again");
    assert_eq!(open(&disk.crash(&[])).expect("it opens").1, Some(record(3)));
}
