//! The device's own verdicts and words: every vector suite, random and adversarial rows, and the twins, word for word.
//! Nothing here goes through the guard, so that no wrong verdict can be mended by it.

mod common;

use std::time::Instant;

use weft_crypto::testing::adversary::Adversary;
use weft_crypto::testing::{self, Case, Rows, suites};
use weft_gpu::{Engine, Method, adapter};
use weft_shaders::bindings::{Buffers, RESIDENT_WORDS, words};
use weft_shaders::{Kernel, Layout, base_table, hash_blocks, run_twin};

/// Random and adversarial rows per layout, unless `WEFT_TEST_CASES` says otherwise.
const ROWS: usize = 100_000;

#[test]
fn every_vector_suite_and_random_rows_get_the_serial_verdicts_and_the_twins_words() {
    let Some(found) = common::adapter() else { return };
    let _alone = common::alone();
    println!("{:?}", found.description);
    for layout in common::layouts(&found) {
        let started = Instant::now();
        let engine = common::open(&found, layout, &common::with_equations());
        println!("{}: opened in {:?}", layout.name(), started.elapsed());
        assert!(engine.has_equations(), "an adapter with too little memory for the lanes of a group");
        weft_gpu::selftest::check(&engine).expect("the self-test passes");
        check_twins(&engine, layout, Method::Ladder);
        check_twins(&engine, layout, Method::Equations);
        check_suites(&engine);
        check_warm_suites(&engine);
        check_random(&engine);
        check_good_equations(&engine);
        check_warm_random(&engine);
        println!("{}: done after {:?}", layout.name(), started.elapsed());
    }
}

fn check_suites(engine: &Engine) {
    let mut bad = 0;
    for suite in suites::all() {
        let cases: Vec<&Case> = suite.cases.iter().collect();
        common::check_raw(engine, suite.name, &cases);
        // In another order, so that every case meets other neighbours and another lane.
        let reversed: Vec<&Case> = suite.cases.iter().rev().collect();
        common::check_raw(engine, suite.name, &reversed);
        bad += suite.cases.iter().filter(|case| !case.valid).count();
    }
    assert!(bad > 10, "the suites must hold invalid signatures, found {bad}");
}

/// The same with resident keys: those of valid rows, as the guard admits them, first to be filled, then warm.
fn check_warm_suites(engine: &Engine) {
    for suite in suites::all() {
        engine.forget();
        let cases: Vec<&Case> = suite.cases.iter().collect();
        let keys: Vec<[u8; 32]> = valid_keys(&suite.cases);
        engine.admit(&keys, usize::MAX);
        let before = engine.residents();
        common::check_raw(engine, &format!("{}, filling", suite.name), &cases);
        common::check_raw(engine, &format!("{}, warm", suite.name), &cases);
        let after = engine.residents();
        assert!(keys.is_empty() || after.hits > before.hits, "{}: warm keys must occur", suite.name);
    }
    engine.forget();
}

fn valid_keys(cases: &[Case]) -> Vec<[u8; 32]> {
    let valid: Vec<&Case> = cases.iter().filter(|case| case.valid).collect();
    Rows::new(valid).columns().keys.to_vec()
}

/// Random rows by more keys than fit, admitted batch by batch: known and unknown keys, filling and evicted, in every batch.
fn check_warm_random(engine: &Engine) {
    let seed = testing::seed("gpu warm");
    let (mut mixed, mut evicted) = (0, 0);
    let start = engine.residents();
    for batch in 0..12u64 {
        // Half of the batches share their signers with the one before.
        let signers = seed.wrapping_add(batch / 2);
        let cases = Adversary::new(signers, true, 250).mixture(700 + batch as usize);
        let before = engine.residents();
        common::check_raw(engine, &format!("seed {seed} batch {batch}"), &cases.iter().collect::<Vec<_>>());
        let hits = engine.residents().hits - before.hits;
        mixed += usize::from(hits > 0 && (hits as usize) < cases.len());
        engine.admit(&valid_keys(&cases), usize::MAX);
        evicted = engine.residents().evictions - start.evictions;
        assert!(engine.residents().keys <= common::RESIDENTS);
    }
    assert!(mixed > 3 && evicted > 100, "not vacuous: {mixed} mixed batches, {evicted} evictions");
    engine.forget();
}

fn check_random(engine: &Engine) {
    let seed = testing::seed("gpu random");
    let rows = testing::cases(ROWS);
    let (mut good, mut done, mut batch) = (0, 0, 0u64);
    while done < rows {
        let count = (rows - done).min(engine.rows_max() - batch as usize % 3);
        let ids_only = batch % 4 != 3;
        let cases =
            Adversary::new(seed.wrapping_add(batch), ids_only, 2 + batch as usize % 300).mixture(count);
        common::check_raw(engine, &format!("seed {seed} batch {batch}"), &cases.iter().collect::<Vec<_>>());
        good += cases.iter().filter(|case| case.valid).count();
        done += count;
        batch += 1;
    }
    assert!(good > rows / 10 && good < rows - rows / 10, "both verdicts must occur: {good} of {rows} valid");
}

/// Equations over honest rows alone, and with one bad row here and there: those that hold are all the others.
fn check_good_equations(engine: &Engine) {
    let seed = testing::seed("gpu equations");
    let (mut held, mut failed) = (0, 0);
    for batch in 0..6u64 {
        let mut adversary = Adversary::new(seed.wrapping_add(batch), batch % 2 == 0, 40);
        let mut cases = adversary.honest(engine.rows_max() - 7 * batch as usize);
        let mut bad = adversary.mixture(40);
        bad.retain(|case| !case.valid);
        for (number, case) in bad.into_iter().take(batch as usize).enumerate() {
            let at = (number * 1999 + 1023) % cases.len();
            cases[at] = case;
        }
        let rows = Rows::new(&cases);
        let columns = rows.columns();
        let answer = engine.verify_by(Method::Equations, &columns).expect("the device works");
        for (row, (case, verdict)) in cases.iter().zip(&answer.verdicts).enumerate() {
            assert_eq!(*verdict, case.valid, "seed {seed} batch {batch} row {row}: {}", case.name);
        }
        for equation in &answer.equations {
            let good = cases[equation.rows.clone()].iter().all(|case| case.valid);
            assert_eq!(equation.held, good, "seed {seed} batch {batch} rows {:?}", equation.rows);
            if good { held += 1 } else { failed += 1 }
        }
    }
    assert!(held > 10 && failed > 5, "not vacuous: {held} held, {failed} failed");
}

/// Every kernel's words against its twin's, stage by stage.
fn check_twins(engine: &Engine, layout: Layout, method: Method) {
    let mut cases = Adversary::new(7, true, 5).mixture(90);
    cases.extend(suites::small_order().cases.into_iter().take(40));
    // Each part with nothing resident, then while entries are filled, then warm; of the first one half the keys.
    let parts = [&cases[..90], &cases[90..]];
    let passes = parts.iter().flat_map(|part| [(*part, 0), (*part, 1), (*part, 2)]);
    let mut resident = Vec::new();
    for (part, pass) in passes {
        if pass == 0 {
            engine.forget();
            resident.clear();
        } else if pass == 1 {
            let keys = valid_keys(part);
            engine.admit(&keys[..keys.len().div_ceil(2)], usize::MAX);
        }
        let rows = Rows::new(part);
        let columns = rows.columns();
        let mut twin = Buffers::for_ids(columns.keys, &[], columns.signatures, base_table(layout));
        twin.messages = match columns.messages {
            weft_crypto::Messages::Ids(ids) => words(ids.as_flattened()),
            weft_crypto::Messages::Slices(slices) => {
                let rows = (0..part.len()).map(|row| {
                    let r: &[u8; 32] = columns.signatures[row].first_chunk().expect("32 bytes");
                    (r, &columns.keys[row], slices[row])
                });
                words(&hash_blocks::pack_blocks(rows))
            }
        };
        let (per_lane, lanes) = weft_gpu::engine::finish_shape(part.len());
        let mut decodes = 0;
        // Asked before: the store is locked while a batch goes step by step.
        let before = engine.residents();
        let entries = before.keys as usize * RESIDENT_WORDS;
        engine
            .step(&columns, method, true, |stage, _, device| {
                // What stands in the memory that the equations share with the tables, before a kernel of theirs writes there.
                if !stage.kernel.is_of_equations() && stage.kernel != Kernel::Table {
                    twin.tables = device.tables.clone();
                }
                (twin.z, twin.equations) = (device.z.clone(), device.equations.clone());
                let equations = device.flags.len() - part.len();
                if twin.flags.len() < device.flags.len() {
                    twin.flags.extend(&device.flags[part.len()..]);
                }
                (twin.places, twin.list) = (device.places.clone(), device.list.clone());
                if twin.points.len() < device.points.len() {
                    twin.points.resize(device.points.len(), 0);
                    let behind = twin.points.len() - resident.len();
                    twin.points[behind..].copy_from_slice(&resident);
                }
                (twin.option, twin.lanes) = match stage.kernel {
                    Kernel::Finish => (per_lane, lanes),
                    Kernel::Decode if decodes > 0 => (1, 0),
                    kernel if kernel.is_of_equations() => (equations, 0),
                    _ => (0, 0),
                };
                decodes += usize::from(stage.kernel == Kernel::Decode);
                for id in 0..stage.invocations {
                    run_twin(stage.kernel, layout, &mut twin, id);
                }
                let name = stage.kernel.name();
                assert_eq!(device.flags, twin.flags, "flags after {name}");
                match stage.kernel {
                    Kernel::Verdicts => {
                        let words = part.len().div_ceil(32);
                        assert_eq!(device.scalars[..words], twin.scalars[..words], "verdict bits");
                    }
                    _ => assert_eq!(device.scalars, twin.scalars, "scalars after {name}"),
                }
                let flags = &twin.flags[..part.len()];
                compare(&device.points, &twin.points, 40, flags, name);
                match stage.kernel {
                    // Word for word, whatever is in rows that are invalid already.
                    kernel if kernel.is_of_equations() => {
                        assert!(device.tables == twin.tables, "tables after {name}");
                    }
                    _ => compare(&device.tables, &twin.tables, 320, flags, name),
                }
                let behind = twin.points.len() - common::RESIDENTS as usize * RESIDENT_WORDS;
                if decodes > 0 {
                    // Every key that was admitted is in this batch.
                    let filled = behind..behind + entries;
                    assert_eq!(device.points[filled.clone()], twin.points[filled], "residents after {name}");
                }
            })
            .expect("the device works");
        let now = engine.residents();
        let (fills, hits) = (now.fills - before.fills, now.hits - before.hits);
        match pass {
            0 => assert_eq!((fills, hits, entries), (0, 0, 0), "nothing resident"),
            1 => assert!(fills > 0 && fills == before.keys, "every entry is filled once"),
            _ => assert!(fills == 0 && hits >= before.keys, "every entry is used"),
        }
        resident = twin.points[twin.points.len() - common::RESIDENTS as usize * RESIDENT_WORDS..].to_vec();
    }
    engine.forget();
}

/// Rows that a kernel wrote: those not yet decided. The memory of the others holds what batches before left there.
fn compare(device: &[u32], twin: &[u32], per_row: usize, flags: &[u32], kernel: &str) {
    for (row, flag) in flags.iter().enumerate() {
        let at = row * per_row..(row + 1) * per_row;
        // A slot that no kernel of this batch has written yet is zero in the twin.
        let same =
            device[at.clone()].iter().zip(&twin[at]).all(|(device, twin)| device == twin || *twin == 0);
        assert!(same || *flag == weft_shaders::bindings::FLAG_INVALID, "{kernel}: row {row}");
    }
}

#[test]
fn message_ids_are_those_of_the_cpu_at_every_length() {
    let Some(found) = common::adapter() else { return };
    let _alone = common::alone();
    let engine = common::open(&found, common::quick_layout(&found), &common::options());
    let context = "weft 2026-11 message v1";
    let hasher = weft_gpu::hasher::MessageHasher::new(&engine, context).expect("the kernel compiles");
    let bodies: Vec<Vec<u8>> =
        (0..1100usize).map(|length| (0..length).map(|i| (i * 7 + length) as u8).collect()).collect();
    let messages: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let ids = hasher.ids(&messages).expect("the device works");
    for (message, id) in messages.iter().zip(&ids) {
        assert_eq!(*id, blake3::derive_key(context, message), "{} bytes", message.len());
    }
    assert_eq!(hasher.ids(&messages[3..5]).expect("again"), ids[3..5]);
}

#[test]
fn auto_passes_over_software_adapters_unless_they_are_allowed() {
    let found = adapter::list();
    let software = found.iter().filter(|f| f.description.software).count();
    let all = found.len();
    let chosen = adapter::choose_from(found, &adapter::Choice::Auto, false);
    match chosen {
        Ok(Some(found)) => assert!(!found.description.software),
        Ok(None) => panic!("auto is not off"),
        Err(error) => {
            assert_eq!(software, all, "only software may be passed over");
            assert_eq!(error, weft_gpu::GpuError::NoAdapter { software });
        }
    }
}
