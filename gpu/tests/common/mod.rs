//! What every device test needs: an adapter, or a visible skip.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use weft_crypto::testing::adversary::Adversary;
use weft_crypto::testing::{Case, Rows};
use weft_crypto::{BatchVerifier, SerialBatch};
use weft_gpu::adapter::{self, Choice, Found};
use weft_gpu::resident::ENTRY_BYTES;
use weft_gpu::{Engine, GpuVerifier, Method, Options};
use weft_shaders::Layout;

/// Set to `1` where an adapter must be there: a test without one then fails instead of being skipped.
const REQUIRED_VARIABLE: &str = "WEFT_GPU_REQUIRED";
/// Rows per batch in tests: enough for several workgroups, little enough for a software adapter.
pub const ROWS_MAX: usize = 4096;
/// Resident keys in tests, at most.
pub const RESIDENTS: u64 = 600;

/// The adapter that tests use: the best one, or a software one where `WEFT_GPU_ALLOW_CPU=1`.
pub fn adapter() -> Option<Found> {
    match adapter::choose(&Choice::Auto) {
        Ok(found) => found,
        Err(error) if std::env::var_os(REQUIRED_VARIABLE).is_some_and(|value| value == "1") => {
            panic!("{REQUIRED_VARIABLE}=1: {error}")
        }
        Err(error) => {
            eprintln!("SKIPPED gpu: no adapter ({error})");
            None
        }
    }
}

/// One device at a time: software adapters have few cores, and compile each kernel once.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: OnceLock<Mutex<()>> = OnceLock::new();
    ONE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The layouts that this adapter has kernels for. `WEFT_GPU_LAYOUTS=u64x10` restricts them.
pub fn layouts(found: &Found) -> Vec<Layout> {
    let wanted = std::env::var("WEFT_GPU_LAYOUTS").unwrap_or_default();
    Layout::ALL
        .into_iter()
        .filter(|layout| found.description.int64 || !layout.needs_int64())
        .filter(|layout| wanted.is_empty() || wanted.split(',').any(|name| name == layout.name()))
        .collect()
}

/// The layout for tests of what is around the kernels: the one that compiles fastest.
pub fn quick_layout(found: &Found) -> Layout {
    if found.description.int64 { Layout::U64x10 } else { Layout::U32x20 }
}

/// Without equations: what is around the kernels needs none, and they take long to compile.
pub fn options() -> Options {
    let resident_bytes = RESIDENTS * ENTRY_BYTES;
    Options { rows_max: ROWS_MAX, resident_bytes, equations: Some(false), ..Options::default() }
}

/// The same with equations for every batch.
pub fn with_equations() -> Options {
    Options { equations: Some(true), ..options() }
}

pub fn open(found: &Found, layout: Layout, options: &Options) -> Engine {
    Engine::open(found, layout, options).expect("the adapter opens")
}

pub fn guarded(engine: Engine) -> GpuVerifier {
    GpuVerifier::new(engine, Arc::new(SerialBatch::new()))
}

/// The device's own verdicts, without the guard, against what the cases say: by the ladder, and by equations where there are some.
pub fn check_raw(engine: &Engine, context: &str, cases: &[&Case]) {
    check_by(engine, Method::Ladder, context, cases);
    if engine.has_equations() {
        check_by(engine, Method::Equations, context, cases);
    }
}

/// The same by one method.
pub fn check_by(engine: &Engine, method: Method, context: &str, cases: &[&Case]) {
    let rows = Rows::new(cases.iter().copied());
    let columns = rows.columns();
    let mut from = 0;
    while from < cases.len() {
        let to = engine.fitting(&columns, from, usize::MAX).expect("suites fit a device");
        let answer = engine.verify_by(method, &columns.rows(from, to)).expect("the device works");
        for (row, (case, verdict)) in cases[from..to].iter().zip(&answer.verdicts).enumerate() {
            let at = from + row;
            assert_eq!(*verdict, case.valid, "{context}, {method:?}: row {at} is {} {case:02x?}", case.name);
        }
        for equation in &answer.equations {
            let good = cases[from..to][equation.rows.clone()].iter().all(|case| case.valid);
            assert_eq!(equation.held, good, "{context}: rows {:?} after {from}", equation.rows);
        }
        from = to;
    }
}

/// Half honest, half adversarial rows.
pub fn mixture(seed: u64, rows: usize) -> Vec<Case> {
    Adversary::new(seed, true, 40).mixture(rows)
}

/// The verdicts of a verifier.
pub fn verdicts(verifier: &dyn BatchVerifier, cases: &[Case]) -> Vec<bool> {
    let rows = Rows::new(cases);
    let mut verdicts = vec![false; cases.len()];
    verifier.verify(&rows.columns(), &mut verdicts);
    verdicts
}
