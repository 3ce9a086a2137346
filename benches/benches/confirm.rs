//! What confirmation costs: time in `weft_core::confirm` per message and per round, by validators and lanes.
//!
//! One bench value is the time of one whole round at one node: every lane has grown by one batch of 256 messages, and
//! every validator's witness covers them all and certifies what the round before covered. The batches' digests are made
//! beforehand (their hashing is the log's cost, paid once for everything); everything else that the machine does is in.
//! The line printed per row is that time divided by the messages of the round: it has to fall as lanes are added, and
//! rise no faster than validators x lanes. With `--test` each row runs once.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_core::confirm::{BatchDigest, Claim, Effect, Input, Machine, Setup, Weights, Witness};
use weft_core::{
    BatchBuilder, BatchView, DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId,
    PayloadKind, Place, VerifiedMessage,
};

const BATCH_MESSAGES: u64 = 256;
const NETWORK: NetworkId = NetworkId([1; 4]);

/// The lanes' batches of one round, read.
fn round(trees: &mut [LaneTree], number: u64) -> Vec<Arc<BatchDigest>> {
    let mut batches = Vec::new();
    for (lane, tree) in trees.iter_mut().enumerate() {
        let mut builder = BatchBuilder::new(BATCH_MESSAGES as u32, 1 << 20);
        for sequence in 0..BATCH_MESSAGES {
            let draft = Draft {
                network: NETWORK,
                issued_at_us: number,
                sequence,
                parents: [MessageId([1; 32]), MessageId([2; 32])],
                kind: PayloadKind::DATA,
                payload: &[0; 64],
            };
            let mut bytes = Vec::new();
            draft.write_content(&DeviceKey([lane as u8; 32]), &mut bytes).unwrap();
            Draft::finish(&mut bytes, &[0; 64]);
            let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
            builder.push([Place::root(0), Place::root(1)], &message).unwrap();
        }
        let before = tree.clone();
        let sealed = builder.seal(tree, NETWORK, LaneId(lane as u16), |_| [0; 64]).unwrap();
        let bytes = sealed.bytes().to_vec();
        let view = BatchView::parse(&bytes).unwrap();
        let (digest, _) = BatchDigest::read(&view, &before, &DeviceKey([0; 32]), |_, _, _| true).unwrap();
        batches.push(Arc::new(digest));
    }
    batches
}

/// A validator's witness: cuts everything, certifies what was cut the round before.
fn witness(number: u64, batches: &[Arc<BatchDigest>], before: &[Arc<BatchDigest>]) -> Arc<Witness> {
    let claim =
        |batch: &Arc<BatchDigest>| Claim { lane: batch.lane(), size: batch.size(), root: *batch.root() };
    let predecessor = MessageId(if number == 1 { [0; 32] } else { [9; 32] });
    Arc::new(Witness {
        number,
        predecessor,
        covers_data: true,
        cut: batches.iter().map(claim).collect(),
        certified: before.iter().map(claim).collect(),
        ..Witness::default()
    })
}

/// Runs `rounds` rounds; the time in the machine.
fn run(validators: usize, lanes: usize, rounds: u64) -> (Duration, u64) {
    let setup = Setup {
        weights: Weights::new(vec![1; validators]),
        lanes,
        lane: None,
        balances: Vec::new(),
        round_us: 100_000,
    };
    let mut machine = Machine::new(setup);
    let mut trees = vec![LaneTree::new(); lanes];
    let mut before: Vec<Arc<BatchDigest>> = Vec::new();
    let (mut time, mut finals) = (Duration::ZERO, 0);
    let mut effects = Vec::new();
    for number in 1..=rounds {
        let batches = round(&mut trees, number);
        let witnesses: Vec<Arc<Witness>> =
            (0..validators).map(|_| witness(number, &batches, &before)).collect();
        let began = Instant::now();
        for batch in &batches {
            machine.handle(0, Input::Batch(Arc::clone(batch)), &mut effects);
        }
        let asked: Vec<Effect> = std::mem::take(&mut effects);
        for effect in asked {
            if let Effect::CheckForm(batch) = effect {
                let (lane, first, root) = (batch.lane(), batch.first(), *batch.root());
                machine.handle(0, Input::Formed { lane, first, root, well_formed: true }, &mut effects);
            }
        }
        for (validator, witness) in witnesses.iter().enumerate() {
            let (id, witness) = (MessageId([9; 32]), Arc::clone(witness));
            machine.handle(0, Input::Witness { validator: validator as u16, id, witness }, &mut effects);
        }
        time += began.elapsed();
        finals += effects.iter().filter(|effect| matches!(effect, Effect::Final { .. })).count() as u64;
        effects.clear();
        before = batches;
    }
    // Not vacuous: every lane has become final in every round but the first.
    assert_eq!(finals, (rounds - 1) * lanes as u64);
    black_box(&machine);
    (time, finals)
}

fn confirm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("confirm_round");
    group.sample_size(10);
    let is_test = std::env::args().any(|argument| argument == "--test");
    for validators in [4, 16, 64] {
        for lanes in [4, 16, 64] {
            let messages = BATCH_MESSAGES * lanes as u64;
            group.throughput(Throughput::Elements(messages));
            if !is_test {
                let rounds = 40;
                let (time, finals) = run(validators, lanes, rounds);
                let per_message = time.as_nanos() as f64 / (rounds * messages) as f64;
                let per_pair = time.as_nanos() as f64 / (rounds as f64 * (validators * lanes) as f64);
                println!(
                    "{validators} validators, {lanes} lanes: {per_message:.2} ns a message, {per_pair:.0} ns a validator and lane each round, {finals} batches final"
                );
            }
            let id = BenchmarkId::from_parameter(format!("{validators}x{lanes}"));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| run(validators, lanes, rounds.max(2)).0);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, confirm);
criterion_main!(benches);
