//! The measured table of one adapter: `cargo run --release -p weft-gpu --example bench [-- ADAPTER [MAX_ROWS [SECONDS]]]`.
//!
//! Signs rows on all cores, then prints, as a Markdown table: guarded verification for batches of 256 to `MAX_ROWS`
//! (1,048,576), every kernel's share, the uploads alone, message ids, and the CPU on one thread, all in one run.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use weft_crypto::backend;
use weft_crypto::sign::ExpandedKey;
use weft_gpu::hasher::MessageHasher;
use weft_gpu::{Engine, GpuVerifier, Options, OwnedBatch, adapter, bench, selftest};
use weft_shaders::Layout;

const CONTEXT: &str = "weft 2026-11 message v1";
/// Distinct keys among the rows: every 64th row has the same one.
const KEY_REUSE: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let choice: adapter::Choice = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let rows: usize = arguments.next().as_deref().unwrap_or("1048576").parse()?;
    let budget = Duration::from_secs_f64(arguments.next().as_deref().unwrap_or("1").parse()?);
    for found in adapter::list() {
        println!("{:?}", found.description);
    }
    let found = adapter::choose(&choice)?.ok_or("off")?;
    println!("using {}", found.description.name);

    let start = Instant::now();
    let owned = sign(rows);
    println!("signed {rows} rows in {:.1} s", start.elapsed().as_secs_f64());
    let batch = owned.columns();
    let sizes: Vec<usize> = (8..=20).step_by(2).map(|bits| 1 << bits).filter(|size| *size <= rows).collect();

    println!("| what | layout | rows | time ms | million rows/s |\n|---|---|---|---|---|");
    let print = |layout: &str, row: &bench::Row| {
        println!(
            "| {} | {layout} | {} | {:.3} | {:.3} |",
            row.what,
            row.rows,
            row.time.as_secs_f64() * 1e3,
            row.rate() / 1e6
        );
    };
    for layout in Layout::ALL {
        if layout.needs_int64() && !found.description.int64 {
            continue;
        }
        for rows_max in [1 << 14, 1 << 16, 1 << 18] {
            let start = Instant::now();
            let engine = Engine::open(&found, layout, &Options { rows_max, ..Options::default() })?;
            selftest::check(&engine)?;
            let opened = start.elapsed();
            let part = batch.rows(0, engine.rows_max().min(rows));
            let kernels = bench::kernels(&engine, &part)?;
            let gpu = GpuVerifier::new(engine, backend::auto(&backend::Options::default()).verifier);
            let label = format!("{} batches of {}", layout.name(), gpu.engine().rows_max());
            println!("| open and self-test | {label} | - | {:.0} | - |", opened.as_secs_f64() * 1e3);
            kernels.iter().for_each(|row| print(&label, row));
            bench::transfer(gpu.engine(), &batch, &sizes, budget)?.iter().for_each(|row| print(&label, row));
            bench::verify(&gpu, &batch, &sizes, budget)?.iter().for_each(|row| print(&label, row));
            println!("| counts | {label} | {:?} | | |", gpu.counts());
            if rows_max == 1 << 16 {
                let hasher = MessageHasher::new(gpu.engine(), CONTEXT)?;
                let bodies: Vec<[u8; 256]> = (0..rows.min(1 << 18)).map(message).collect();
                let messages: Vec<&[u8]> = bodies.iter().map(<[u8; 256]>::as_slice).collect();
                bench::hash(&hasher, &messages, &sizes, budget)?.iter().for_each(|row| print(&label, row));
            }
        }
    }
    let bodies: Vec<[u8; 256]> = (0..1 << 14).map(message).collect();
    let time = bench::median(budget, || {
        bodies.iter().for_each(|body| {
            black_box(blake3::derive_key(CONTEXT, body));
        });
    });
    print("one thread", &bench::Row { what: "cpu hash".into(), rows: bodies.len(), time });
    for (_, verifier) in backend::available(&backend::Options::default()) {
        for size in [1 << 10, 1 << 14] {
            print("one thread", &bench::cpu(verifier.as_ref(), &batch.rows(0, size.min(rows)), budget));
        }
    }
    Ok(())
}

fn message(row: usize) -> [u8; 256] {
    let mut body = [0x42; 256];
    body[..8].copy_from_slice(&(row as u64).to_le_bytes());
    body
}

/// Honest rows, signed on all cores.
fn sign(rows: usize) -> OwnedBatch {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = rows.div_ceil(threads);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut signer = ExpandedKey::from_seed(&[0; 32]);
                    (thread * each..((thread + 1) * each).min(rows))
                        .map(|row| {
                            if row % KEY_REUSE == 0 {
                                let mut seed = [1; 32];
                                seed[..8].copy_from_slice(&(row as u64).to_le_bytes());
                                signer = ExpandedKey::from_seed(&seed);
                            }
                            let id = *blake3::hash(&row.to_le_bytes()).as_bytes();
                            (*signer.public(), id, signer.sign(&id))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    OwnedBatch {
        keys: parts.iter().map(|part| part.0).collect(),
        ids: parts.iter().map(|part| part.1).collect(),
        signatures: parts.iter().map(|part| part.2).collect(),
    }
}
