//! What a proof costs in a long lane, with the roots beside the log and from all leaves, and what it costs to have the roots.
//!
//! `WEFT_LANE_POSITIONS` sets the length of the lane (default 1,000,000: 230 MB of log in a temporary directory, under `TMPDIR`).
//! Messages are as small as they come, so that positions are many for their bytes; signatures are stand-ins, nothing here verifies them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on stops")]

use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weft_core::arena::VerifiedMessage;
use weft_core::lane::build::BatchBuilder;
use weft_core::merkle::{consistency_proof, inclusion_proof};
use weft_core::random::{RandomSource as _, SplitMix64};
use weft_core::{DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId, PayloadKind, Place};
use weft_storage::{LaneHashes, LaneLog, LogConfig, RealDisk, Subtrees};

const NETWORK: NetworkId = NetworkId([1, 2, 3, 4]);
const LANE: LaneId = LaneId(0);
const BATCH: u32 = 4_096;

/// Writes a log of at least `positions`, telling `subtrees` of its roots as a node does.
fn write(dir: &Path, positions: u64, subtrees: &Subtrees) -> (LaneLog, LaneTree) {
    let config = LogConfig { segment_bytes: 256 << 20, free_bytes_min: 0, ..LogConfig::default() };
    let (mut log, _) = LaneLog::open(Arc::new(RealDisk), dir, NETWORK, LANE, config, &|_| true).unwrap();
    let mut tree = LaneTree::new();
    let mut builder = BatchBuilder::new(BATCH, BATCH as usize * 256);
    let mut sequence = 0;
    while tree.size() < positions {
        for _ in 0..BATCH {
            sequence += 1;
            let draft = Draft {
                network: NETWORK,
                issued_at_us: 1,
                sequence,
                parents: [MessageId([1; 32]), MessageId([2; 32])],
                kind: PayloadKind::DATA,
                payload: &[0; 16],
            };
            let mut bytes = Vec::new();
            draft.write_content(&DeviceKey([3; 32]), &mut bytes).unwrap();
            Draft::finish(&mut bytes, &[7; 64]);
            let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
            builder.push([Place::root(0), Place::root(1)], &message).unwrap();
        }
        let sealed = builder.seal(&mut tree, NETWORK, LANE, |_| [7; 64]).unwrap();
        log.writer.append(&sealed, &tree).unwrap();
        subtrees.extend(sealed.first(), sealed.subtrees()).unwrap();
        builder = sealed.recycle();
    }
    (log, tree)
}

fn receipts(criterion: &mut Criterion) {
    let positions = std::env::var("WEFT_LANE_POSITIONS").map_or(1_000_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let roots = tempfile::tempdir_in(dir.path()).unwrap();
    let subtrees = Subtrees::open(roots.path(), NETWORK, LANE, &LaneTree::new()).unwrap();
    let (log, tree) = write(dir.path(), positions, &subtrees);
    let size = tree.size();
    let hashes = LaneHashes::new(&log.reader, &subtrees);
    let mut random = SplitMix64::new(1);

    let mut group = criterion.benchmark_group(format!("proof in a lane of {size}"));
    group.bench_function("inclusion, with roots", |bencher| {
        bencher.iter(|| inclusion_proof(&hashes, random.below(size), size).unwrap());
    });
    group.bench_function("consistency, with roots", |bencher| {
        bencher.iter(|| consistency_proof(&hashes, 1 + random.below(size), size).unwrap());
    });
    group.sample_size(10);
    // What it would be without: every leaf hashed for each proof. A hundredth of the lane is measured, for the whole takes its time.
    let part = size / 100;
    group.throughput(Throughput::Elements(part));
    group.bench_function("inclusion, from the leaves of a hundredth of the lane", |bencher| {
        let empty_dir = tempfile::tempdir_in(dir.path()).unwrap();
        bencher.iter(|| {
            let empty = Subtrees::open(empty_dir.path(), NETWORK, LANE, &LaneTree::new()).unwrap();
            empty.catch_up(&log.reader, part).unwrap();
            inclusion_proof(&LaneHashes::new(&log.reader, &empty), random.below(part), part).unwrap()
        });
    });
    group.throughput(Throughput::Elements(size));
    group.bench_function("opening: roots read and compared with the tree", |bencher| {
        bencher.iter(|| {
            let opened = Subtrees::open(roots.path(), NETWORK, LANE, &tree).unwrap();
            assert_eq!(opened.covered(), size >> 8 << 8);
        });
    });
    group.finish();
}

criterion_group!(benches, receipts);
criterion_main!(benches);
