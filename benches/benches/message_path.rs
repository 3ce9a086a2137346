//! What does a message cost beside its signature? Id, tables, tree and batch, each per message of 248 bytes.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weft_core::lane::build::BatchBuilder;
use weft_core::recent::RecentIds;
use weft_core::replay::ReplayTable;
use weft_core::{
    BatchHasher, DeviceKey, DeviceSigner, Draft, GenesisId, LaneId, LaneTree, MessageId, MessageView,
    NetworkId, OneByOne, PayloadKind, Place, RandomSource as _, SplitMix64, VerifiedMessage,
};
use weft_crypto::simd::Hashes;

const MESSAGES: usize = 4096;

/// The vector code behind the tree's seam, as the node has it.
#[derive(Clone, Copy)]
struct Lanes(Hashes);

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl BatchHasher for Lanes {
    fn ids(&self, contents: &[&[u8]], out: &mut [MessageId]) {
        OneByOne.ids(contents, out);
    }

    fn leaves(&self, data: &[[u8; 32]], out: &mut [[u8; 32]]) {
        self.0.leaves(data, out);
    }

    fn nodes(&self, children: &[[[u8; 32]; 2]], out: &mut [[u8; 32]]) {
        self.0.nodes(children, out);
    }
}

/// Ids in the window of a node.
const WINDOW: usize = 1 << 20;

fn messages() -> Vec<Vec<u8>> {
    let signer = DeviceSigner::from_seed([1; 32]);
    let parents = GenesisId([7; 32]).roots();
    (0..MESSAGES as u64)
        .map(|sequence| {
            let draft = Draft {
                network: NetworkId([7; 4]),
                issued_at_us: 1_800_000_000_000_000 + sequence,
                sequence,
                parents,
                kind: PayloadKind::DATA,
                payload: &[3; 64],
            };
            draft.sign(&signer).expect("the payload fits")
        })
        .collect()
}

fn message_path(c: &mut Criterion) {
    let messages = messages();
    let views: Vec<MessageView<'_>> =
        messages.iter().map(|bytes| MessageView::parse(bytes).expect("signed here")).collect();
    let ids: Vec<MessageId> = views.iter().map(MessageView::id).collect();
    let mut group = c.benchmark_group("message_path");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("parse_and_id", |b| {
        b.iter(|| {
            for bytes in &messages {
                let _ = black_box(MessageView::parse(bytes).map(|view| view.id()));
            }
        });
    });
    group.bench_function("recent_ids_insert_and_get", |b| {
        let mut recent = RecentIds::new(1 << 20, 1);
        let mut round = 0u64;
        b.iter(|| {
            round += 1;
            for (position, id) in ids.iter().enumerate() {
                let mut id = *id;
                let salt = round ^ u64::from(id.0[0]);
                id.0[..8].copy_from_slice(&salt.to_le_bytes());
                recent.insert(id, Place(position as u64));
                black_box(recent.get(&id));
            }
        });
    });
    // A full window far larger than the caches, as a node's is: an id is new, two parents lie anywhere in it.
    for (name, ahead) in [("recent_ids_of_a_million_one_by_one", 0), ("recent_ids_of_a_million_touched", 32)]
    {
        group.bench_function(name, |b| {
            let mut random = SplitMix64::new(5);
            let id = |random: &mut SplitMix64| MessageId(std::array::from_fn(|_| random.next_u64() as u8));
            let mut recent = RecentIds::new(WINDOW, 1);
            let mut window: Vec<MessageId> = (0..WINDOW).map(|_| id(&mut random)).collect();
            for (id, place) in window.iter().zip(0..) {
                recent.insert(*id, Place(place));
            }
            let mut next = 0;
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let new: Vec<MessageId> = (0..MESSAGES).map(|_| id(&mut random)).collect();
                    // Not those that are about to leave.
                    let staying = (WINDOW - MESSAGES) as u64;
                    let mut parent = || window[(next + MESSAGES + random.below(staying) as usize) % WINDOW];
                    let parents: Vec<MessageId> = (0..2 * MESSAGES).map(|_| parent()).collect();
                    let started = Instant::now();
                    for (new, parents) in new.chunks(32).zip(parents.chunks(64)) {
                        if ahead > 0 {
                            recent.touch(new.iter().chain(parents), new.len());
                        }
                        for (id, parents) in new.iter().zip(parents.as_chunks::<2>().0) {
                            black_box(recent.get(id));
                            black_box(parents.each_ref().map(|parent| recent.get(parent)));
                            recent.insert(*id, Place(7));
                        }
                    }
                    spent += started.elapsed();
                    for id in new {
                        window[next] = id;
                        next = (next + 1) % WINDOW;
                    }
                }
                spent
            });
        });
    }
    group.bench_function("replay_check_and_set", |b| {
        let mut table = ReplayTable::new(1 << 16, 1);
        let keys: Vec<DeviceKey> = ids.iter().map(|id| DeviceKey(id.0)).collect();
        let mut sequence = 0;
        b.iter(|| {
            sequence += 1;
            for key in &keys {
                let _ = black_box(table.check_and_set(key, sequence));
            }
        });
    });
    group.bench_function("tree_push", |b| {
        b.iter_batched_ref(
            LaneTree::new,
            |tree| ids.iter().for_each(|id| tree.push(&id.0)),
            BatchSize::SmallInput,
        );
    });
    let named = |name| Hashes::named(name).map(|hashes| (format!("tree_append_{name}"), Lanes(hashes)));
    let detected = ("tree_append_detected".to_owned(), Lanes(Hashes::detect()));
    for (name, hasher) in ["serial", "avx2", "avx512"].into_iter().filter_map(named).chain([detected]) {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                LaneTree::new,
                |tree| tree.append(MessageId::hashes(&ids), &hasher, |_| {}),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("build_and_seal_batch", |b| {
        let verified: Vec<VerifiedMessage<'_>> =
            views.iter().map(|view| VerifiedMessage::vouch(*view)).collect();
        b.iter(|| {
            let mut builder = BatchBuilder::new(MESSAGES as u32, 4 << 20);
            for message in &verified {
                builder.push([Place::root(0), Place::root(1)], message).expect("the batch has room");
            }
            let mut tree = LaneTree::new();
            black_box(
                builder.seal(&mut tree, NetworkId([7; 4]), LaneId(0), |_| [0; 64]).expect("a sound batch"),
            );
        });
    });
    group.finish();
}

criterion_group!(benches, message_path);
criterion_main!(benches);
