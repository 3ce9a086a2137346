//! What happens when a device fails: every verdict stays right, the device is used no more, and the reason is kept.

mod common;

use std::sync::Arc;

use weft_crypto::testing::{Case, Rows};
use weft_crypto::{BatchVerifier, Messages};
use weft_gpu::fault::Faults;
use weft_gpu::{Counts, Engine, GpuError, GpuVerifier, Options, OwnedBatch};

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
    let Counts { batches, rows, rejections_checked, sampled, mismatches, fallback_rows } = gpu.counts();
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
    assert_eq!(common::guarded(engine).rows_max(), common::ROWS_MAX / 2);
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
