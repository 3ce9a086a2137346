//! What does it cost to know that a message is not in the log, by the length of the log? Every message that comes in asks that.
//!
//! Segments are of 4 MiB (12,600 messages of 248 bytes), so that many of them fit a bench; the answer must not grow with their number.

#![allow(clippy::expect_used, missing_docs, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_core::lane::build::BatchBuilder;
use weft_core::{
    DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId, OneByOne, PayloadKind, Place,
    VerifiedMessage,
};
use weft_storage::{LaneLog, LogConfig, RealDisk};

const NETWORK: NetworkId = NetworkId([1; 4]);
const LANE: LaneId = LaneId(0);
const ASKED: usize = 4096;

/// Appends batches until the log has this many segments.
fn fill(log: &mut LaneLog, tree: &mut LaneTree, segments: u64) {
    while log.reader.stats().segments < segments {
        let mut builder = BatchBuilder::new(4096, 4 << 20);
        for sequence in 0..1_200 {
            let draft = Draft {
                network: NETWORK,
                issued_at_us: tree.size(),
                sequence,
                parents: [MessageId([1; 32]), MessageId([2; 32])],
                kind: PayloadKind::DATA,
                payload: &[0; 64],
            };
            let mut bytes = Vec::new();
            draft.write_content(&DeviceKey([7; 32]), &mut bytes).expect("the payload fits");
            Draft::finish(&mut bytes, &[0; 64]);
            let message = VerifiedMessage::vouch(MessageView::parse(&bytes).expect("just written"));
            builder.push([Place::root(0), Place::root(1)], &message).expect("there is room");
        }
        let batch = builder.seal(tree, NETWORK, LANE, |_| [0; 64]).expect("not empty");
        log.writer.append(&batch, tree).expect("the disk has room");
    }
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("absent_id");
    group.throughput(Throughput::Elements(ASKED as u64));
    group.sample_size(10);
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Without background work every segment is ready when the append that fills it returns.
    let config =
        LogConfig { segment_bytes: 4 << 20, free_bytes_min: 0, background: false, hasher: &OneByOne };
    let opened = LaneLog::open(Arc::new(RealDisk), dir.path(), NETWORK, LANE, config, &|_| true);
    let (mut log, _) = opened.expect("an empty directory");
    let mut tree = LaneTree::new();
    let absent: Vec<MessageId> =
        (0..ASKED as u64).map(|i| MessageId(*blake3::hash(&i.to_le_bytes()).as_bytes())).collect();
    for segments in [2, 8, 32, 128] {
        fill(&mut log, &mut tree, segments);
        group.bench_function(BenchmarkId::new("segments", segments), |bencher| {
            bencher.iter(|| absent.iter().filter(|id| black_box(log.reader.find(id)).is_some()).count());
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
