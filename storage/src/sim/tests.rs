//! The simulated disk keeps what a crash may keep, and nothing else.

use std::collections::BTreeSet;

use super::*;

const FILE: &str = "/d/a";

/// A disk with a durable directory and a durable file of 4 sectors.
fn disk_with_file() -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.create(Path::new(FILE), 4 * SECTOR_BYTES as u64).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    (disk, file)
}

fn first_bytes(disk: &SimDisk) -> Vec<u8> {
    disk.read_file(Path::new(FILE)).unwrap().chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
}

#[test]
fn every_subset_of_unsynced_sectors_survives_in_some_crash_and_synced_ones_in_all() {
    let (disk, file) = disk_with_file();
    file.write_at(0, &[&[1; SECTOR_BYTES]]).unwrap();
    file.sync_data().unwrap();
    file.write_at(SECTOR_BYTES as u64, &[&[2; 2 * SECTOR_BYTES]]).unwrap();
    file.write_at(SECTOR_BYTES as u64, &[&[3; 5]]).unwrap();
    let outcomes = disk.crash_outcomes(100, &mut SimRandom::new(0));
    assert!(outcomes.exhaustive);
    let seen: BTreeSet<_> =
        outcomes.outcomes.iter().map(|outcome| first_bytes(&disk.crash(outcome))).collect();
    let mut expected = BTreeSet::new();
    for second in [0, 2, 3] {
        for third in [0, 2] {
            expected.insert(vec![1, second, third, 0]);
        }
    }
    assert_eq!(seen, expected);
    assert_eq!(first_bytes(&disk), [1, 3, 2, 0], "the process reads what it wrote");
}

#[test]
fn names_without_a_directory_sync_may_vanish_and_a_file_never_synced_may_be_empty() {
    let (disk, _file) = disk_with_file();
    disk.create(Path::new("/d/b"), 512).unwrap();
    disk.rename(Path::new(FILE), Path::new("/d/c")).unwrap();
    let outcomes = disk.crash_outcomes(100, &mut SimRandom::new(0));
    assert_eq!((outcomes.outcomes.len(), outcomes.exhaustive), (8, true));
    let mut seen = BTreeSet::new();
    for outcome in outcomes.outcomes {
        let crashed = disk.crash(&outcome);
        let b = crashed.read_file(Path::new("/d/b")).map(|bytes| bytes.len()).ok();
        seen.insert((crashed.list(Path::new("/d")).unwrap(), b));
    }
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = [
        (names(&["a"]), None),
        (names(&["c"]), None),
        (names(&["a", "b"]), Some(0)),
        (names(&["a", "b"]), Some(512)),
        (names(&["b", "c"]), Some(0)),
        (names(&["b", "c"]), Some(512)),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn after_a_failed_sync_only_writing_again_makes_bytes_durable() {
    let (disk, file) = disk_with_file();
    file.write_at(0, &[&[1; SECTOR_BYTES]]).unwrap();
    disk.fail_at(disk.operation_count(), Fault::Failure);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(first_bytes(&disk)[0], 1);
    assert_eq!(first_bytes(&disk.crash(&[]))[0], 0, "lost in spite of the second sync");
    assert_eq!(first_bytes(&disk.crash(&[1]))[0], 1, "or written after all");
    file.write_at(0, &[&[1; SECTOR_BYTES]]).unwrap();
    file.sync_data().unwrap();
    assert!(disk.crash_units().is_empty());
    assert_eq!(first_bytes(&disk.crash(&[]))[0], 1);
}

#[test]
fn faults_strike_at_their_operation_and_power_stays_off() {
    let (disk, file) = disk_with_file();
    let now = disk.operation_count();
    disk.fail_at(now, Fault::ShortWrite { bytes: 600 });
    disk.fail_at(now + 1, Fault::StorageFull);
    disk.fail_at(now + 3, Fault::PowerOff);
    assert_eq!(file.write_at(0, &[&[7; 1_024]]).unwrap_err().written, 600);
    assert_eq!(first_bytes(&disk), [7, 7, 0, 0]);
    let full = file.write_at(0, &[&[8; 1_024]]).unwrap_err();
    assert_eq!((full.written, full.source.kind()), (0, io::ErrorKind::StorageFull));
    file.write_at(0, &[&[9; 512]]).unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.write_at(0, &[&[9; 512]]).is_err());
    assert!(disk.free_bytes(Path::new("/d")).is_err());
    assert_eq!(disk.crash(&[]).free_bytes(Path::new("/d")).unwrap(), (1 << 40) - 2_048);
}

#[test]
fn a_full_disk_refuses_files_that_do_not_fit() {
    let (disk, _file) = disk_with_file();
    disk.set_capacity_bytes(3_000);
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 952);
    let error = disk.create(Path::new("/d/b"), 1_000).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.create(Path::new("/d/b"), 952).unwrap();
}

#[test]
fn too_many_states_are_sampled_and_the_extremes_are_among_them() {
    let (disk, file) = disk_with_file();
    for _ in 0..20 {
        file.write_at(0, &[&[1; 4 * SECTOR_BYTES]]).unwrap();
    }
    let outcomes = disk.crash_outcomes(50, &mut SimRandom::new(3));
    assert_eq!((outcomes.outcomes.len(), outcomes.exhaustive), (50, false));
    assert_eq!(outcomes.outcomes[0], [0; 4]);
    assert_eq!(outcomes.outcomes[1], [20; 4]);
}
