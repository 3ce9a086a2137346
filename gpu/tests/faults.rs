//! What happens when a device fails: every verdict stays right, the device is used no more, and the reason is kept.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weft_crypto::testing::adversary::Adversary;
use weft_crypto::testing::{Case, Rows};
use weft_crypto::{BatchVerifier, Columns, Messages, SerialBatch};
use weft_gpu::fault::Faults;
use weft_gpu::{Counts, Engine, GpuError, GpuVerifier, Method, Options, OwnedBatch};

fn faulty() -> Option<(GpuVerifier, Arc<Faults>)> {
    let found = common::adapter()?;
    let faults = Arc::new(Faults::default());
    let options = Options { faults: Arc::clone(&faults), ..common::options() };
    Some((common::guarded(common::open(&found, common::quick_layout(&found), &options)), faults))
}

fn expected(cases: &[Case]) -> Vec<bool> {
    cases.iter().map(|case| case.valid).collect()
}

fn owned(cases: &[Case]) -> OwnedBatch {
    let rows = Rows::new(cases);
    let columns = rows.columns();
    let Messages::Ids(ids) = columns.messages else { panic!("the cases sign ids") };
    OwnedBatch { keys: columns.keys.to_vec(), ids: ids.to_vec(), signatures: columns.signatures.to_vec() }
}

#[test]
fn a_healthy_device_answers_and_its_rejections_and_a_sample_are_checked() {
    let _alone = common::alone();
    let Some((gpu, _)) = faulty() else { return };
    let cases = common::mixture(1, 3 * common::ROWS_MAX / 2);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    let Counts { batches, rows, rejections_checked, sampled, mismatches, fallback_rows, equations, .. } =
        gpu.counts();
    assert_eq!(equations, 0, "none were asked for");
    assert_eq!((batches, rows), (2, cases.len() as u64), "two batches, all rows");
    assert_eq!(rejections_checked, cases.iter().filter(|case| !case.valid).count() as u64);
    assert!(sampled >= 2 * batches && mismatches == 0 && fallback_rows == 0, "{:?}", gpu.counts());
    assert_eq!(gpu.name(), "gpu");
    assert_eq!(gpu.ended(), None);
}

#[test]
fn a_wrong_verdict_on_a_canary_quarantines_the_adapter_and_the_batch_is_verified_again() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    faults.wrong_verdict_at(1);
    let cases = common::mixture(2, 300);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(_))), "{:?}", gpu.ended());
    assert_eq!((gpu.counts().mismatches, gpu.counts().fallback_rows), (1, 300));
    // From now on nothing goes to the device.
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert_eq!((gpu.counts().batches, gpu.counts().fallback_rows), (0, 600));
}

#[test]
fn a_valid_signature_that_the_device_refuses_is_not_refused_and_gives_the_device_away() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    let cases = common::mixture(3, 200);
    let row = cases.iter().position(|case| case.valid).expect("a valid row");
    faults.wrong_verdict_at(4 + row);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(_))), "{:?}", gpu.ended());
}

#[test]
fn an_invalid_signature_that_the_device_accepts_is_found_by_the_sample_in_time() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    let mut cases = common::mixture(4, 40);
    cases.retain(|case| !case.valid);
    assert!(!cases.is_empty());
    cases.truncate(1);
    faults.wrong_verdict_at(4);
    // One wrong row alone in its batch: the sample picks it in the first batches.
    let caught = (0..50).find(|_| {
        let _ = common::verdicts(&gpu, &cases);
        gpu.ended().is_some()
    });
    assert!(caught.is_some(), "a device that accepts everything must be found out");
    assert_eq!(common::verdicts(&gpu, &cases), [false], "and then the CPU decides");
}

#[test]
fn a_device_lost_in_the_middle_of_batches_loses_no_verdict() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    faults.lose_device_in(2);
    let cases = common::mixture(5, 4 * common::ROWS_MAX);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(matches!(gpu.ended(), Some(GpuError::Lost(_) | GpuError::Failed(_))), "{:?}", gpu.ended());
    assert!(gpu.counts().fallback_rows > 0);
    assert_eq!(common::verdicts(&gpu, &cases[..100]), expected(&cases[..100]));
}

#[test]
fn a_panic_inside_the_drivers_interface_loses_no_verdict_and_ends_the_device() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    faults.panic_in(2);
    let cases = common::mixture(11, 3 * common::ROWS_MAX);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(
        matches!(gpu.ended(), Some(GpuError::Failed(why)) if why.contains("injected")),
        "{:?}",
        gpu.ended()
    );
    assert!(gpu.counts().fallback_rows > 0);
}

#[test]
fn submitted_batches_come_back_with_their_verdicts_also_from_a_lost_device() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    let (a, b) = (common::mixture(6, 500), common::mixture(7, 700));
    let first = gpu.submit(owned(&a));
    let mut second = gpu.submit(owned(&b));
    let (batch, verdicts) = gpu.wait(first);
    assert_eq!((batch.keys.len(), verdicts), (500, expected(&a)));
    let verdicts = loop {
        match gpu.poll(second) {
            Ok((_, verdicts)) => break verdicts,
            Err(pending) => second = pending,
        }
        std::thread::yield_now();
    };
    assert_eq!(verdicts, expected(&b));
    faults.lose_device_in(1);
    let third = gpu.submit(owned(&a));
    assert_eq!(gpu.wait(third).1, expected(&a));
    assert!(gpu.ended().is_some());
    let too_large = common::mixture(8, common::ROWS_MAX + 1);
    assert_eq!(gpu.wait(gpu.submit(owned(&too_large))).1, expected(&too_large));
}

#[test]
fn a_device_short_of_memory_gets_smaller_batches_and_without_any_it_is_refused() {
    let _alone = common::alone();
    let Some(found) = common::adapter() else { return };
    let layout = common::quick_layout(&found);
    let faults = Arc::new(Faults::default());
    let options = Options { faults: Arc::clone(&faults), ..common::options() };
    faults.fail_allocations(1);
    let engine = common::open(&found, layout, &options);
    let gpu = common::guarded(engine);
    assert_eq!(gpu.rows_max(), common::ROWS_MAX / 2);
    let cases = common::mixture(12, 300);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert_eq!(gpu.ended(), None, "what it has memory for, it verifies");
    faults.fail_allocations(100);
    let error = Engine::open(&found, layout, &options).err();
    assert_eq!(error, Some(GpuError::OutOfMemory { rows: 1024 + 8 }));
}

#[test]
fn two_nodes_can_share_an_adapter() {
    let _alone = common::alone();
    let Some((one, _)) = faulty() else { return };
    let Some((two, _)) = faulty() else { return };
    let (a, b) = (common::mixture(9, 6000), common::mixture(10, 6000));
    std::thread::scope(|scope| {
        for (gpu, cases) in [(&one, &a), (&two, &b)] {
            scope.spawn(move || assert_eq!(common::verdicts(gpu, cases), expected(cases)));
        }
    });
    assert_eq!(one.ended().or(two.ended()), None);
}

#[test]
fn several_threads_can_share_one_verifier() {
    let _alone = common::alone();
    let Some((gpu, _)) = faulty() else { return };
    let parts: Vec<Vec<Case>> = (20..24).map(|seed| common::mixture(seed, 900)).collect();
    std::thread::scope(|scope| {
        for cases in &parts {
            let gpu = &gpu;
            scope.spawn(move || assert_eq!(common::verdicts(gpu, cases), expected(cases)));
        }
    });
    assert_eq!(gpu.counts().rows, 3600);
}

#[test]
fn threads_whose_batches_are_split_do_not_wait_for_each_others_slots() {
    let _alone = common::alone();
    let Some((gpu, _)) = faulty() else { return };
    let gpu = Arc::new(gpu);
    let (sender, done) = std::sync::mpsc::channel();
    // Three threads, two slots, three pieces each: with a slot held by each of two, none may wait for another.
    for seed in 40..43 {
        let (gpu, sender) = (Arc::clone(&gpu), sender.clone());
        std::thread::spawn(move || {
            let cases = common::mixture(seed, 2 * common::ROWS_MAX + 100);
            let _ = sender.send(common::verdicts(&*gpu, &cases) == expected(&cases));
        });
    }
    for _ in 0..3 {
        let right = done.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(right, Ok(true), "a thread must not hang");
    }
    assert_eq!(gpu.ended(), None);
}

/// A device that verifies every batch by equations, as long as they pay.
fn with_equations() -> Option<(GpuVerifier, Arc<Faults>)> {
    let found = common::adapter()?;
    let faults = Arc::new(Faults::default());
    let options = Options { faults: Arc::clone(&faults), ..common::with_equations() };
    let engine = common::open(&found, common::quick_layout(&found), &options);
    weft_gpu::selftest::check(&engine).expect("the self-test passes");
    Some((common::guarded(engine), faults))
}

fn honest(seed: u64, rows: usize) -> Vec<Case> {
    Adversary::new(seed, true, 40).honest(rows)
}

#[test]
fn honest_batches_are_verified_by_equations_and_one_bad_row_costs_its_equation_alone() {
    let _alone = common::alone();
    let Some((gpu, _)) = with_equations() else { return };
    let mut cases = honest(50, 3 * 1024);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    let Counts { equations, equations_failed, sampled, .. } = gpu.counts();
    assert_eq!((equations, equations_failed), (3, 0));
    assert!(sampled >= 3, "one row of each is verified again: {sampled}");
    let mut bad = common::mixture(51, 40);
    bad.retain(|case| !case.valid);
    cases[2000] = bad.swap_remove(0);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    let counts = gpu.counts();
    assert_eq!((counts.equations, counts.equations_failed, counts.mismatches), (6, 1, 0), "{counts:?}");
    // What is known to be suspect goes another way.
    let rows = Rows::new(&cases);
    let mut verdicts = vec![false; cases.len()];
    gpu.verify_suspect(&rows.columns(), &mut verdicts);
    assert_eq!((verdicts, gpu.counts().equations, gpu.ended()), (expected(&cases), 6, None));
}

#[test]
fn a_sender_of_bad_signatures_cannot_keep_a_device_at_equations_that_fail() {
    let _alone = common::alone();
    let Some((gpu, _)) = with_equations() else { return };
    let mut cases = honest(52, 256);
    let mut bad = common::mixture(53, 40);
    bad.retain(|case| !case.valid);
    let good = std::mem::replace(&mut cases[77], bad.swap_remove(0));
    for _ in 0..40 {
        assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    }
    let counts = gpu.counts();
    assert!(counts.equations <= 3, "{counts:?}");
    // When the sender is gone, equations come back after the pause.
    cases[77] = good;
    for _ in 0..80 {
        assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    }
    let after = gpu.counts();
    assert!(
        after.equations > counts.equations + 20 && after.equations_failed == counts.equations_failed,
        "{after:?}"
    );
    assert_eq!(gpu.ended(), None);
}

#[test]
fn a_device_for_which_everything_holds_is_caught_by_the_equation_that_must_fail() {
    let _alone = common::alone();
    let Some((gpu, faults)) = with_equations() else { return };
    faults.accept_everything();
    let mut cases = honest(54, 200);
    let mut bad = common::mixture(55, 40);
    bad.retain(|case| !case.valid);
    cases.extend(bad);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases), "in the first batch");
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(_))), "{:?}", gpu.ended());
    assert_eq!(gpu.counts().fallback_rows, cases.len() as u64);
}

#[test]
fn a_canary_row_or_a_canary_equation_that_comes_back_wrong_is_enough() {
    let _alone = common::alone();
    let cases = honest(56, 100);
    // The last equation of a batch of 100 rows is its third: only its word is wrong, since its good rows are valid anyhow.
    let Some((gpu, faults)) = with_equations() else { return };
    faults.wrong_verdict_at(4 + cases.len() + 1);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(why)) if why.contains("canary")), "a row");
    let Some((gpu, faults)) = with_equations() else { return };
    faults.accept_equation(2);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(_))), "an equation");
}

#[test]
fn an_equation_that_is_accepted_wrongly_now_and_then_is_found_by_the_sample() {
    let _alone = common::alone();
    let Some((gpu, faults)) = with_equations() else { return };
    // The messages' equation is the second one, after the canaries'. A quarter of its rows is bad.
    faults.accept_equation(1);
    let mut cases = honest(57, 30);
    let mut bad = common::mixture(58, 60);
    bad.retain(|case| !case.valid);
    cases.extend(bad.into_iter().take(10));
    let caught = (0..200).find(|_| {
        let _ = common::verdicts(&gpu, &cases);
        gpu.ended().is_some()
    });
    assert!(caught.is_some(), "one sampled row in four is bad");
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases), "and then the CPU decides");
}

#[test]
fn equations_over_poisoned_entries_accept_nothing_and_give_the_device_away() {
    let _alone = common::alone();
    let Some((gpu, faults)) = with_equations() else { return };
    let good = honest(59, 400);
    for _ in 0..2 {
        assert_eq!(common::verdicts(&gpu, &good), expected(&good));
    }
    let keys = gpu.engine().residents().keys as usize;
    assert!(keys > 10 && gpu.counts().equations == 2, "{keys}");
    faults.poison_residents(keys);
    let answer =
        gpu.engine().verify_by(Method::Equations, &owned(&good).columns()).expect("the device works");
    assert!(!answer.equations[0].held && answer.verdicts.contains(&false), "another x is another point");
    assert_eq!(common::verdicts(&gpu, &good), expected(&good), "the guard mends it");
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(_))), "{:?}", gpu.ended());
}

#[test]
fn equations_that_do_not_pass_their_self_test_are_not_used() {
    let _alone = common::alone();
    let Some(found) = common::adapter() else { return };
    let faults = Arc::new(Faults::default());
    let layout = Some(common::quick_layout(&found));
    faults.accept_equation(1);
    let open = |equations| {
        let options =
            Options { faults: Arc::clone(&faults), equations: Some(equations), layout, ..common::options() };
        weft_gpu::selftest::open(&found, &options).map(|(engine, _)| (engine.has_equations(), engine.gain()))
    };
    assert!(matches!(open(true), Err(GpuError::Quarantined(why)) if why.contains("equations")));
    assert_eq!(open(false), Ok((false, None)), "the ladder is another matter");
}

#[test]
fn a_device_lost_among_equations_loses_no_verdict() {
    let _alone = common::alone();
    let Some((gpu, faults)) = with_equations() else { return };
    faults.lose_device_in(2);
    let cases = honest(60, 3 * common::ROWS_MAX);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(gpu.ended().is_some() && gpu.counts().fallback_rows > 0);
}

/// A CPU verifier that counts the rows it was given as suspect and as trusted.
#[derive(Default)]
struct Watched {
    trusted: AtomicUsize,
    suspect: AtomicUsize,
}

impl BatchVerifier for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.trusted.fetch_add(batch.len(), Ordering::Relaxed);
        SerialBatch::new().verify(batch, verdicts);
    }

    fn verify_suspect(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        self.suspect.fetch_add(batch.len(), Ordering::Relaxed);
        SerialBatch::new().verify(batch, verdicts);
    }
}

#[test]
fn what_is_likely_to_be_bad_reaches_the_cpu_as_such() {
    let _alone = common::alone();
    let Some(found) = common::adapter() else { return };
    let faults = Arc::new(Faults::default());
    let options = Options { faults: Arc::clone(&faults), ..common::options() };
    let cpu = Arc::new(Watched::default());
    let gpu = GpuVerifier::new(common::open(&found, common::quick_layout(&found), &options), cpu.clone());
    let cases = common::mixture(44, 200);
    let bad = cases.iter().filter(|case| !case.valid).count();
    let seen = || (cpu.trusted.load(Ordering::Relaxed), cpu.suspect.load(Ordering::Relaxed));
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    let (sampled, refused) = seen();
    assert_eq!(
        (refused, sampled as u64),
        (bad, gpu.counts().sampled),
        "refusals are suspect, the sample is not"
    );
    // The device fails: the batch goes to the CPU as what it was.
    faults.lose_device_in(1);
    let rows = Rows::new(&cases);
    let mut verdicts = vec![false; cases.len()];
    gpu.verify_suspect(&rows.columns(), &mut verdicts);
    assert_eq!((verdicts, seen()), (expected(&cases), (sampled, refused + cases.len())));
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert_eq!(seen(), (sampled + cases.len(), refused + cases.len()));
}

#[test]
fn a_batch_that_nobody_asks_for_gives_its_place_back() {
    let _alone = common::alone();
    let Some((gpu, _)) = faulty() else { return };
    let cases = common::mixture(30, 300);
    for _ in 0..3 * gpu.engine().slots() {
        drop(gpu.submit(owned(&cases)));
    }
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert_eq!(gpu.ended(), None);
}

#[test]
fn keys_of_valid_signatures_stay_decoded_and_those_of_junk_displace_nobody() {
    let _alone = common::alone();
    let Some((gpu, _)) = faulty() else { return };
    let good: Vec<Case> = common::mixture(31, 400).into_iter().filter(|case| case.valid).collect();
    for _ in 0..3 {
        assert_eq!(common::verdicts(&gpu, &good), expected(&good));
    }
    let known = gpu.engine().residents();
    assert!(known.keys > 10 && known.hits >= good.len() as u64, "{known:?}");
    // More keys than fit, none with a valid signature; among them those of valid rows, with another's signature.
    let mut junk: Vec<Case> = Vec::new();
    for seed in 0..40 {
        junk.extend(common::mixture(1000 + seed, 60).into_iter().filter(|case| !case.valid));
    }
    assert_eq!(common::verdicts(&gpu, &junk), expected(&junk));
    let after = gpu.engine().residents();
    assert_eq!((after.keys, after.evictions), (known.keys, 0), "{after:?}");
    assert_eq!(common::verdicts(&gpu, &good), expected(&good));
    assert_eq!(gpu.engine().residents().fills, after.fills, "and all of them are still there");
    assert_eq!(gpu.ended(), None);
}

#[test]
fn a_bad_row_that_fills_an_entry_does_not_cost_the_rows_that_use_it() {
    let _alone = common::alone();
    let Some((gpu, _)) = faulty() else { return };
    let good: Vec<Case> = common::mixture(32, 300).into_iter().filter(|case| case.valid).collect();
    assert_eq!(common::verdicts(&gpu, &good), expected(&good));
    // The first row of every key that is to be filled has an s that is not below l, and is refused without curve arithmetic.
    let mut batch = owned(&good);
    let spoiled = good.len();
    for row in 0..spoiled {
        batch.keys.push(batch.keys[row]);
        batch.ids.push(batch.ids[row]);
        batch.signatures.push(batch.signatures[row]);
        batch.signatures[row][32..].copy_from_slice(&[0xff; 32]);
    }
    let before = gpu.engine().residents().fills;
    let (_, verdicts) = gpu.wait(gpu.submit(batch));
    assert!(gpu.engine().residents().fills > before + 10, "entries were filled by spoiled rows");
    assert!(verdicts[..spoiled].iter().all(|verdict| !verdict));
    assert!(verdicts[spoiled..].iter().all(|verdict| *verdict));
    assert_eq!((gpu.ended(), gpu.counts().mismatches), (None, 0));
}

#[test]
fn poisoned_entries_accept_nothing_wrong_and_are_found_out() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    let good: Vec<Case> = common::mixture(33, 400).into_iter().filter(|case| case.valid).collect();
    // The same keys over other ids: bad rows through warm keys.
    let mut bad = owned(&good);
    bad.ids.iter_mut().for_each(|id| id[7] ^= 0x20);
    for _ in 0..2 {
        assert_eq!(common::verdicts(&gpu, &good), expected(&good));
    }
    // Keys of small order sign everything: those rows are good ones still.
    let serial = |batch: &OwnedBatch| -> Vec<bool> {
        let row = |row: usize| {
            weft_crypto::serial::verify_one(&batch.keys[row], &batch.ids[row], &batch.signatures[row])
        };
        (0..batch.keys.len()).map(row).collect()
    };
    let truth = serial(&bad);
    assert!(truth.iter().filter(|valid| !**valid).count() > 100, "bad rows must occur");
    let keys = gpu.engine().residents().keys as usize;
    assert!(keys > 10);
    faults.poison_residents(keys);
    // The device's own word: nothing bad is accepted, and good rows are refused.
    let raw = gpu.engine().verify(&bad.columns()).expect("the device works");
    assert!(raw.iter().zip(&truth).all(|(raw, truth)| *truth || !raw), "a wrong x accepts no bad signature");
    let raw = gpu.engine().verify(&owned(&good).columns()).expect("the device works");
    assert!(raw.iter().any(|verdict| !verdict), "the fault was there");
    assert_eq!(common::verdicts(&gpu, &good), expected(&good), "the guard mends it");
    assert!(matches!(gpu.ended(), Some(GpuError::Quarantined(_))), "{:?}", gpu.ended());
    assert_eq!(gpu.engine().residents().keys, 0, "and the store is gone with the device");
}

#[test]
fn a_lost_device_keeps_no_keys() {
    let _alone = common::alone();
    let Some((gpu, faults)) = faulty() else { return };
    let cases = common::mixture(34, 300);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(gpu.engine().residents().keys > 0);
    faults.lose_device_in(1);
    assert_eq!(common::verdicts(&gpu, &cases), expected(&cases));
    assert!(gpu.ended().is_some());
    assert_eq!(gpu.engine().residents().keys, 0);
    let key = [cases[0].key];
    assert_eq!(gpu.engine().admit(&key, usize::MAX), 0, "nor takes any");
}
