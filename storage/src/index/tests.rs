//! Index files find what they were built from, and nothing damaged is used.

use std::path::Path;
use std::sync::Arc;

use weft_core::{LaneId, NetworkId};

use super::*;
use crate::disk::{Access, Disk};
use crate::sim::{SimDisk, SimRandom};

const PATH: &str = "/i";

fn covers() -> Covers {
    Covers { network: NetworkId([1, 2, 3, 4]), lane: LaneId(3), first: 10, size: 1_000_000, last: [5; 32] }
}

/// A disk with `bytes` as its index file.
fn disk_with(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(0);
    disk.create(Path::new(PATH), bytes.len() as u64).unwrap().write_at(0, &[bytes]).unwrap();
    disk
}

fn open(disk: &SimDisk, covers: &Covers) -> Result<IndexFile, IndexError> {
    let file: Arc<_> = disk.open(Path::new(PATH), Access::Map).unwrap();
    IndexFile::open(file, covers)
}

fn records(count: u32) -> Vec<RecordStart> {
    (0..count).map(|i| RecordStart { position: 10 * i, sector: 8 + 3 * i }).collect()
}

#[test]
fn every_id_is_found_and_few_absent_ones_pass_the_filter() {
    let mut random = SimRandom::new(3);
    // Uniform ids as they come; nothing but edges; a lump that a sender ground for; one; none.
    let uniform: Vec<u64> = (0..5_000).map(|_| random.next_u64()).collect();
    let edges = vec![0, 0, 1, u64::MAX - 1, u64::MAX, u64::MAX];
    let lump: Vec<u64> = (0..3_000).map(|i| 0x8000_0000_0000 + i / 2).chain([u64::MAX]).collect();
    for prefixes in [uniform, edges, lump, vec![77], vec![]] {
        let entries: Vec<_> = prefixes.iter().enumerate().map(|(i, prefix)| (*prefix, i as u32)).collect();
        let index =
            open(&disk_with(&file::encode(&covers(), entries.clone(), &records(4))), &covers()).unwrap();
        assert_eq!(index.ids(), entries.len() as u64);
        for (prefix, position) in &entries {
            let expected: Vec<u32> =
                entries.iter().filter(|(other, _)| other == prefix).map(|entry| entry.1).collect();
            assert!(expected.contains(position));
            assert_eq!(index.find(*prefix).collect::<Vec<_>>(), expected, "{prefix:#x}");
        }
        let absent = (0..2_000).map(|_| random.next_u64());
        assert!(absent.into_iter().all(|prefix| index.find(prefix).next().is_none()));
    }
}

#[test]
fn the_filter_stops_all_but_a_few_absent_ids() {
    let mut random = SimRandom::new(4);
    let entries: Vec<_> = (0..20_000).map(|i| (random.next_u64(), i)).collect();
    let index = open(&disk_with(&file::encode(&covers(), entries, &[])), &covers()).unwrap();
    let passed = (0..20_000).filter(|_| index.may_have(random.next_u64())).count();
    // One in 150 is 133 here; a filter that lets all or none through would be broken.
    assert!((50..300).contains(&passed), "{passed} of 20,000 absent ids passed");
}

#[test]
fn positions_lead_to_the_record_that_holds_them() {
    let index = open(&disk_with(&file::encode(&covers(), vec![(1, 1)], &records(100))), &covers()).unwrap();
    let mut memory = MemoryIndex::new(0);
    records(100).into_iter().for_each(|start| memory.add(start, &[]));
    for position in 0..1_200 {
        let expected = records(100)[(position as usize / 10).min(99)];
        assert_eq!(index.record_at(position), Some(expected));
        assert_eq!(memory.record_at(position), Some(expected));
    }
    assert_eq!(MemoryIndex::new(0).record_at(5), None);
}

#[test]
fn an_index_of_another_segment_or_length_or_with_any_damage_is_refused() {
    let entries: Vec<_> = (0..50).map(|i| (u64::from(i) << 55, i)).collect();
    let bytes = file::encode(&covers(), entries, &records(7));
    assert!(open(&disk_with(&bytes), &covers()).is_ok());
    let others = [
        Covers { network: NetworkId([0; 4]), ..covers() },
        Covers { lane: LaneId(4), ..covers() },
        Covers { first: 11, ..covers() },
        Covers { size: 1_000_001, ..covers() },
        Covers { last: [6; 32], ..covers() },
    ];
    for other in others {
        assert_eq!(open(&disk_with(&bytes), &other).err(), Some(IndexError::AnotherSegment));
    }
    for length in [1, 255, 256, bytes.len() - 1] {
        assert!(open(&disk_with(&bytes[..length]), &covers()).is_err());
    }
    for offset in 0..bytes.len() as u64 {
        let disk = disk_with(&bytes);
        disk.flip_bit(Path::new(PATH), offset, 3).unwrap();
        assert!(open(&disk, &covers()).is_err(), "byte {offset}");
    }
}
