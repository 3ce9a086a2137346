//! How fast are batches of signatures verified, against the batch verifiers of ed25519-zebra 5 and ed25519-dalek 3?
//!
//! Distinct keys, decoded in every iteration by all but dalek, whose interface takes decoded keys. `weft bench verify` measures the same
//! with more key mixes and prints ratios; this bench is for following one change through time.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_core::DeviceSigner;
use weft_crypto::backend::{self, Options};
use weft_crypto::{Columns, Messages};

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    group.sample_size(10);
    for count in [64usize, 1024, 4096] {
        let ids: Vec<[u8; 32]> = (0..count).map(|n| [n as u8 ^ (n >> 8) as u8; 32]).collect();
        let signers: Vec<DeviceSigner> = (0..count)
            .map(|n| {
                let mut seed = [9; 32];
                seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
                DeviceSigner::from_seed(seed)
            })
            .collect();
        let keys: Vec<[u8; 32]> = signers.iter().map(|signer| signer.public().0).collect();
        let signatures: Vec<[u8; 64]> =
            signers.iter().zip(&ids).map(|(signer, id)| signer.sign_bytes(id)).collect();
        group.throughput(Throughput::Elements(count as u64));
        for (name, verifier) in backend::available(&Options::default()) {
            group.bench_with_input(BenchmarkId::new(name.name(), count), &count, |b, _| {
                let columns = Columns { keys: &keys, messages: Messages::Ids(&ids), signatures: &signatures };
                let mut verdicts = vec![false; count];
                b.iter(|| verifier.verify(&columns, &mut verdicts));
                assert!(verdicts.iter().all(|verdict| *verdict));
            });
        }
        group.bench_with_input(BenchmarkId::new("ed25519-zebra", count), &count, |b, _| {
            b.iter(|| {
                let mut batch = ed25519_zebra::batch::Verifier::new();
                for ((key, id), signature) in keys.iter().zip(&ids).zip(&signatures) {
                    let key = ed25519_zebra::VerificationKeyBytes::from(*key);
                    batch.queue((key, ed25519_zebra::Signature::from(*signature), id));
                }
                black_box(batch.verify(rand::rng())).expect("all are valid");
            });
        });
        group.bench_with_input(BenchmarkId::new("ed25519-dalek", count), &count, |b, _| {
            let keys: Vec<ed25519_dalek::VerifyingKey> =
                keys.iter().map(|key| ed25519_dalek::VerifyingKey::from_bytes(key).expect("a key")).collect();
            let signatures: Vec<ed25519_dalek::Signature> =
                signatures.iter().map(ed25519_dalek::Signature::from_bytes).collect();
            let messages: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
            b.iter(|| ed25519_dalek::verify_batch(&messages, &signatures, &keys).expect("all are valid"));
        });
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
