//! Writer, syncers and readers at work at once on a real directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weft_core::{OneByOne, Place};
use weft_storage::sim::SimRandom;
use weft_storage::{LogConfig, LogReader, RealDisk, Syncer};

use crate::common::{Batch, LANE, Lane, append, assert_holds, assert_verifies, open_in, seed};

/// Makes durable again and again; tells how many syncs it did.
fn sync_until(syncer: &Syncer, reader: &LogReader, done: &AtomicBool) -> u64 {
    let mut syncs = 0;
    while !done.load(Ordering::Acquire) {
        let written = reader.size();
        let durable = syncer.sync().unwrap();
        assert!(durable >= written, "a sync covers all that was written before it");
        assert!(reader.durable_size() >= durable && reader.durable_size() <= reader.size());
        syncs += 1;
    }
    syncs
}

/// Reads anything that is written, in every way, and compares it; tells how many messages it saw.
fn read_until(reader: &LogReader, history: &[Batch], mut random: SimRandom, done: &AtomicBool) -> u64 {
    let mut seen = 0;
    let mut places = Vec::new();
    while !done.load(Ordering::Acquire) {
        let size = reader.size();
        if size == 0 {
            continue;
        }
        let batch = &history[random.below(history.len() as u64) as usize].sealed;
        reader.find_many(batch.ids(), &mut places);
        for (i, (id, found)) in batch.ids().iter().zip(&places).enumerate() {
            let place = batch.place(i as u32);
            if batch.size() <= size {
                assert_eq!(*found, Some(place), "written before, and not found");
            }
            let Some(message) = reader.message_at(place).unwrap() else { continue };
            assert_eq!(message.view().unwrap().id(), *id);
            seen += 1;
        }
        let position = random.below(size);
        let stored = reader.batch_at(position).unwrap().unwrap();
        assert!(stored.first <= position && position < stored.size);
        let expected = history.iter().find(|batch| batch.sealed.first() == stored.first).unwrap();
        assert!(stored.bytes[..] == *expected.sealed.bytes());
        assert_eq!(reader.message_at(Place::new(LANE, stored.first)).unwrap(), None);
    }
    seen
}

#[test]
fn readers_and_syncers_see_a_growing_log_that_is_whole_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lanes/7");
    let config = LogConfig { segment_bytes: 65_536, free_bytes_min: 0, background: true, hasher: &OneByOne };
    let base = seed(77);
    let mut lane = Lane::new(base);
    let history: Vec<Batch> = (0..400).map(|i| lane.batch(1 + i % 9, (i as usize * 13) % 250)).collect();
    let (mut log, _) = open_in(Arc::new(RealDisk), &path, config).unwrap();
    let done = AtomicBool::new(false);
    let (syncs, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let (syncer, reader) = (log.syncer.clone(), log.reader.clone());
    std::thread::scope(|scope| {
        for i in 0..2 {
            let (syncer, reader, history, done) = (&syncer, &reader, &history, &done);
            let (syncs, seen) = (&syncs, &seen);
            let random = SimRandom::new(base + i);
            scope.spawn(move || syncs.fetch_add(sync_until(syncer, reader, done), Ordering::Relaxed));
            scope.spawn(move || seen.fetch_add(read_until(reader, history, random, done), Ordering::Relaxed));
        }
        for batch in &history {
            append(&mut log, batch).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    assert!(syncs.into_inner() > 0 && seen.into_inner() > 0);
    log.writer.close().unwrap();
    let all: Vec<&Batch> = history.iter().collect();
    assert_holds(&log.reader, &all, lane.tree.size());
    assert!(log.reader.stats().segments > 5);
    drop((log.reader, log.syncer, syncer, reader));
    let (log, recovered) = open_in(Arc::new(RealDisk), &path, config).unwrap();
    assert_eq!((recovered.size, recovered.cut, recovered.indexes_built), (lane.tree.size(), None, 0));
    assert_holds(&log.reader, &all, lane.tree.size());
    assert_verifies(&RealDisk, &path, lane.tree.size());
}

#[test]
fn bytes_handed_out_outlive_the_log_and_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 65_536, free_bytes_min: 0, background: false, hasher: &OneByOne };
    let mut lane = Lane::new(1);
    let batch = lane.batch(3, 100);
    let (mut log, _) = open_in(Arc::new(RealDisk), dir.path(), config).unwrap();
    append(&mut log, &batch).unwrap();
    let message = log.reader.message_at(batch.sealed.place(1)).unwrap().unwrap().into_bytes();
    drop(log);
    std::fs::remove_file(dir.path().join("0000000000000000.seg")).unwrap();
    let sent = std::thread::spawn(move || message.to_vec()).join().unwrap();
    assert_eq!(sent, batch.sealed.message(1).unwrap().bytes());
}

#[test]
fn the_handles_can_go_to_other_threads() {
    fn sendable<T: Send + 'static>() {}
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    sendable::<weft_storage::LaneLog>();
    sendable::<weft_storage::LaneWriter>();
    shareable::<Syncer>();
    shareable::<LogReader>();
    shareable::<weft_storage::disk::Slice>();
}
