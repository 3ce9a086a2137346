//! Every backend of this CPU against ed25519-zebra's and ed25519-dalek's batch verifiers, in one process, one core.
//!
//! `ratios [seconds per cell] [batch sizes ..]`. Cold: distinct keys, decoded each time. Warm: keys decoded before.
//! Rows of one case are measured in turn, several times over, and the median counts, so that a change of clock hits
//! all of them. `WEFT_RATIO=avx512:4096:cold` runs one cell only, for a profiler; `avx512:4096:bad10` one with 10 bad signatures in
//! a thousand.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    clippy::needless_range_loop,
    reason = "a measurement that cannot be made should stop"
)]

use std::hint::black_box;
use std::time::Instant;

use weft_crypto::backend::{Backend, Options, available};
use weft_crypto::sign::ExpandedKey;
use weft_crypto::simd::{Context, Hashes};
use weft_crypto::{Columns, Messages};

struct Batch {
    keys: Vec<[u8; 32]>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
}

fn batch(rows: usize, distinct: usize) -> Batch {
    let mut signers = Vec::new();
    for number in 0..distinct as u32 {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        signers.push(ExpandedKey::from_seed(&seed));
    }
    let mut out = Batch { keys: Vec::new(), ids: Vec::new(), signatures: Vec::new() };
    for row in 0..rows {
        let signer = &signers[row % distinct];
        let id = *blake3::hash(&row.to_le_bytes()).as_bytes();
        out.keys.push(*signer.public());
        out.signatures.push(signer.sign(&id));
        out.ids.push(id);
    }
    out
}

/// A sample lasts at least this long.
const SAMPLE_NS: u64 = 5_000_000;

/// Processor time of this thread: on a machine that others use too, the clock on the wall says nothing. (The counter
/// in `/proc` will not do: the kernel brings it up to date at its ticks only, every few milliseconds.)
fn processor_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Median nanoseconds per row of each contender, measured in turn.
fn measure(rows: usize, seconds: f64, contenders: &mut [(String, Box<dyn FnMut() + '_>)]) -> Vec<f64> {
    let mut samples = vec![Vec::new(); contenders.len()];
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds || samples[0].len() < 3 {
        for (samples, (_, run)) in samples.iter_mut().zip(contenders.iter_mut()) {
            let (begin, mut times) = (processor_ns(), 0);
            let spent = loop {
                run();
                times += 1;
                let spent = processor_ns() - begin;
                if spent >= SAMPLE_NS || seconds == 0.0 {
                    break spent;
                }
            };
            samples.push(spent as f64 / (rows * times) as f64);
        }
    }
    let median = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    samples.iter_mut().map(median).collect()
}

fn case(rows: usize, keys: &str, seconds: f64, only: Option<&str>) {
    if let Some(per_mille) = keys.strip_prefix("bad") {
        return poisoned(rows, seconds, only, &[per_mille.parse().unwrap()]);
    }
    let batch = batch(rows, if keys == "64" { rows.min(64) } else { rows });
    let columns =
        Columns { keys: &batch.keys, messages: Messages::Ids(&batch.ids), signatures: &batch.signatures };
    let cached_keys = if keys == "warm" { 4 * rows } else { 0 };
    let backends = available(&Options { cached_keys });
    let dalek_signatures: Vec<_> =
        batch.signatures.iter().map(ed25519_dalek::Signature::from_bytes).collect();
    let dalek_keys: Vec<_> =
        batch.keys.iter().map(|key| ed25519_dalek::VerifyingKey::from_bytes(key).unwrap()).collect();
    let messages: Vec<&[u8]> = batch.ids.iter().map(|id| &id[..]).collect();
    let mut contenders: Vec<(String, Box<dyn FnMut()>)> = Vec::new();
    for (backend, verifier) in &backends {
        if only.is_some_and(|name| name != backend.name()) {
            continue;
        }
        let mut verdicts = vec![false; rows];
        contenders.push((
            backend.name().to_owned(),
            Box::new(move || {
                verifier.verify(&columns, &mut verdicts);
                assert!(!black_box(&verdicts).contains(&false));
            }),
        ));
    }
    if only.is_none() {
        contenders.push((
            "zebra batch".to_owned(),
            Box::new(|| {
                let mut verifier = ed25519_zebra::batch::Verifier::new();
                for row in 0..rows {
                    let key = ed25519_zebra::VerificationKeyBytes::from(batch.keys[row]);
                    let signature = ed25519_zebra::Signature::from(batch.signatures[row]);
                    verifier.queue((key, signature, &batch.ids[row]));
                }
                verifier.verify(Cheap(1)).unwrap();
            }),
        ));
        contenders.push((
            "dalek batch".to_owned(),
            Box::new(|| ed25519_dalek::verify_batch(&messages, &dalek_signatures, &dalek_keys).unwrap()),
        ));
        contenders.push((
            "dalek single".to_owned(),
            Box::new(|| {
                use ed25519_dalek::Verifier;
                for row in 0..rows {
                    dalek_keys[row].verify(&batch.ids[row], &dalek_signatures[row]).unwrap();
                }
            }),
        ));
    }
    let times = measure(rows, seconds, &mut contenders);
    print!("{rows:6} {keys:5}");
    for ((name, _), ns) in contenders.iter().zip(&times) {
        print!("  {name} {ns:8.0}");
    }
    if let Some(place) = contenders.iter().position(|(name, _)| name == "zebra batch") {
        for (backend, ns) in contenders[..place].iter().zip(&times) {
            print!("  | {} {:.2} zebra, {:.2} dalek", backend.0, times[place] / ns, times[place + 1] / ns);
        }
    }
    println!();
}

/// The cheapest generator there is: not random, so that the peer pays nothing for randomness.
struct Cheap(u64);

impl rand_core::TryRng for Cheap {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.try_next_u64()? as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        Ok(self.0)
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Cheap {}

/// Shares of bad signatures, per mille, against a clean batch; then the same where the caller expects bad ones.
fn poisoned(rows: usize, seconds: f64, only: Option<&str>, shares: &[usize]) {
    for (backend, _) in available(&Options::default()) {
        if only.is_some_and(|name| name != backend.name()) {
            continue;
        }
        let clean = batch(rows, rows);
        let mut contenders: Vec<(String, Box<dyn FnMut()>)> = Vec::new();
        for (suspect, per_mille) in
            [false, true].into_iter().flat_map(|suspect| shares.iter().map(move |&share| (suspect, share)))
        {
            let mut signatures = clean.signatures.clone();
            for row in 0..rows {
                if (row + 1) * per_mille / 1000 > row * per_mille / 1000 {
                    signatures[row][40] ^= 1;
                }
            }
            // One each: a verifier remembers that batches failed, and clean ones are to be compared with none of that.
            let verifier = backend.verifier(&Options::default()).unwrap();
            let clean = &clean;
            let mut verdicts = vec![false; rows];
            contenders.push((
                format!("{}{per_mille}", if suspect { "suspect " } else { "" }),
                Box::new(move || {
                    let messages = Messages::Ids(&clean.ids);
                    let columns = Columns { keys: &clean.keys, messages, signatures: &signatures };
                    if suspect {
                        verifier.verify_suspect(&columns, &mut verdicts);
                    } else {
                        verifier.verify(&columns, &mut verdicts);
                    }
                }),
            ));
        }
        let times = measure(rows, seconds, &mut contenders);
        print!("poisoned {rows} {}:", backend.name());
        for ((name, _), ns) in contenders.iter().zip(&times) {
            print!("  {name}/1000 {ns:.0} ({:.2}x)", ns / times[0]);
        }
        println!();
    }
}

fn signing(seconds: f64) {
    let ids: Vec<[u8; 32]> = (0..1024_u32).map(|row| *blake3::hash(&row.to_le_bytes()).as_bytes()).collect();
    let keys: Vec<_> = ids.iter().map(ExpandedKey::from_seed).collect();
    let references: Vec<_> = keys.iter().collect();
    let dalek: Vec<_> = ids.iter().map(ed25519_dalek::SigningKey::from_bytes).collect();
    let mut contenders: Vec<(String, Box<dyn FnMut()>)> = Vec::new();
    for backend in Backend::ALL {
        let Ok(signer) = backend.signer() else { continue };
        let (ids, references) = (&ids, &references);
        let mut signatures = vec![[0; 64]; ids.len()];
        let other = backend.signer();
        contenders.push((
            format!("sign {backend}"),
            Box::new(move || signer.sign(references, &Messages::Ids(ids), black_box(&mut signatures))),
        ));
        let mut out = Vec::new();
        contenders.push((
            format!("expand {backend}"),
            Box::new(move || {
                if let Ok(signer) = &other {
                    signer.expand(ids, black_box(&mut out));
                }
            }),
        ));
    }
    contenders.push((
        "sign dalek".to_owned(),
        Box::new(|| {
            use ed25519_dalek::Signer;
            for (key, id) in dalek.iter().zip(&ids) {
                black_box(key.sign(id));
            }
        }),
    ));
    report(measure(1024, seconds, &mut contenders), &contenders);
}

fn hashing(seconds: f64) {
    let data: Vec<u8> = (0..1024 * 256_u32).map(|byte| byte as u8).collect();
    let pairs: Vec<[[u8; 32]; 2]> = (0..1024).map(|row| [[row as u8; 32], [1; 32]]).collect();
    let leaves: Vec<[u8; 32]> = (0..1024).map(|row| [row as u8; 32]).collect();
    let context = Context::new("weft 2026-11 message v1");
    for bytes in [184, 250] {
        let keyed = blake3::Hasher::new_derive_key("weft 2026-11 message v1");
        let messages: Vec<&[u8]> = data.chunks(256).map(|message| &message[..bytes]).collect();
        let mut contenders: Vec<(String, Box<dyn FnMut()>)> = Vec::new();
        for name in ["serial", "avx2", "avx512"] {
            let Some(hashes) = Hashes::named(name) else { continue };
            let (messages, pairs, leaves, context) = (&messages, &pairs, &leaves, &context);
            let mut out = vec![[0; 32]; 1024];
            contenders.push((
                format!("ids {name}"),
                Box::new(move || hashes.derive(context, messages, black_box(&mut out))),
            ));
            let mut out = vec![[0; 32]; 1024];
            contenders
                .push((format!("nodes {name}"), Box::new(move || hashes.nodes(pairs, black_box(&mut out)))));
            let mut out = vec![[0; 32]; 1024];
            contenders.push((
                format!("leaves {name}"),
                Box::new(move || hashes.leaves(leaves, black_box(&mut out))),
            ));
        }
        contenders.push((
            format!("blake3 crate, {bytes} bytes"),
            Box::new(|| {
                for message in &messages {
                    black_box(keyed.clone().update(message).finalize());
                }
            }),
        ));
        report(measure(1024, seconds, &mut contenders), &contenders);
    }
}

fn report(times: Vec<f64>, contenders: &[(String, Box<dyn FnMut() + '_>)]) {
    for ((name, _), ns) in contenders.iter().zip(&times) {
        print!("{name} {ns:.1}  ");
    }
    println!();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    if let Ok(cell) = std::env::var("WEFT_RATIO") {
        let parts: Vec<_> = cell.split(':').collect();
        case(parts[1].parse().unwrap(), parts[2], seconds, Some(parts[0]));
        return;
    }
    let mut sizes: Vec<usize> = arguments.filter_map(|text| text.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096, 16384];
    }
    signing(seconds);
    hashing(seconds);
    for rows in sizes {
        for keys in ["cold", "warm", "64"] {
            case(rows, keys, seconds, None);
        }
    }
    for rows in [256, 4096] {
        poisoned(rows, 2.0 * seconds, None, &[0, 1, 10, 100, 500, 1000]);
    }
}
