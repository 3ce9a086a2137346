//! Opening a device so that it can be believed: known signatures first, then the faster layout, measured.

use std::time::{Duration, Instant};

use weft_shaders::Layout;

use crate::adapter::Found;
use crate::canary::Known;
use crate::engine::{Engine, Options};
use crate::error::{GpuError, contain};

/// Rows of the self-test: two of each kind on each side of a workgroup, and not a multiple of 32.
const TEST_ROWS: usize = 145;
/// Rows of the measurement between layouts, at most: enough to fill a large device once.
const MEASURE_ROWS: usize = 1 << 14;

/// What the self-test of one layout gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The layout.
    pub layout: Layout,
    /// How long opening, compiling and the first batch took.
    pub opened_in: Duration,
    /// Time of one batch of `rows`, or why the layout cannot be used.
    pub batch: Result<(usize, Duration), GpuError>,
}

/// Opens `found` in the layout that `options` name, or in the fastest of those that pass the self-test.
///
/// On a software adapter the layouts are not compared, because compiling both costs more than the better one gains:
/// `u64x10` is taken, which was three times as fast on every CPU that was measured.
///
/// # Errors
/// The last layout's error if none passes.
pub fn open(found: &Found, options: &Options) -> Result<(Engine, Vec<Outcome>), GpuError> {
    let layouts: Vec<Layout> = match options.layout {
        Some(layout) => vec![layout],
        None if found.description.software && found.description.int64 => vec![Layout::U64x10],
        None => Layout::ALL.into_iter().filter(|l| found.description.int64 || !l.needs_int64()).collect(),
    };
    let compare = layouts.len() > 1;
    let mut outcomes = Vec::new();
    let mut best: Option<(Duration, Engine)> = None;
    for layout in layouts {
        let start = Instant::now();
        let opened = contain(|| {
            Engine::open(found, layout, options).and_then(|engine| check(&engine).map(|()| engine))
        });
        let opened_in = start.elapsed();
        let batch = match opened {
            Ok(engine) => {
                match if compare { measure(&engine, MEASURE_ROWS) } else { Ok((0, Duration::ZERO)) } {
                    Ok((rows, time)) => {
                        if best.as_ref().is_none_or(|(best, _)| time < *best) {
                            best = Some((time, engine));
                        }
                        Ok((rows, time))
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        outcomes.push(Outcome { layout, opened_in, batch });
    }
    match best {
        Some((_, engine)) => Ok((engine, outcomes)),
        None => Err(outcomes
            .into_iter()
            .rev()
            .find_map(|outcome| outcome.batch.err())
            .unwrap_or(GpuError::NoAdapter { software: 0 })),
    }
}

/// Runs the known signatures.
///
/// # Errors
/// [`GpuError::Quarantined`] with the row if a verdict is wrong, or what ended the device.
pub fn check(engine: &Engine) -> Result<(), GpuError> {
    let known = Known::new(TEST_ROWS.min(engine.rows_max()));
    let verdicts = engine.verify(&known.columns())?;
    match verdicts.iter().zip(&known.valid).position(|(got, expected)| got != expected) {
        None => Ok(()),
        Some(row) => Err(GpuError::Quarantined(format!(
            "self-test in layout {}: row {row} must be {}",
            engine.layout().name(),
            if known.valid[row] { "valid" } else { "invalid" }
        ))),
    }
}

/// Rows and time of the better of two batches of about `rows` honest signatures (a multiple of 16, at most the device's
/// largest batch): the device's own time, without the guard.
///
/// # Errors
/// [`GpuError::Quarantined`] if it refuses one of them, or what ended the device.
pub fn measure(engine: &Engine, rows: usize) -> Result<(usize, Duration), GpuError> {
    let known = Known::new(16);
    let rows = (rows.min(engine.rows_max()) / 16).max(1) * 16;
    let columns = known.columns();
    // Good rows that took the ordinary way: even ones, without the two of small order.
    let honest: Vec<usize> = (0..16).step_by(2).filter(|row| ![4, 10].contains(row)).collect();
    let of = |n: usize| honest[n % honest.len()];
    let keys: Vec<_> = (0..rows).map(|n| columns.keys[of(n)]).collect();
    let signatures: Vec<_> = (0..rows).map(|n| columns.signatures[of(n)]).collect();
    let messages: Vec<&[u8]> = (0..rows).map(|n| columns.messages.get(of(n))).collect();
    let ids: Vec<[u8; 32]> = messages.iter().filter_map(|id| <[u8; 32]>::try_from(*id).ok()).collect();
    let batch = weft_crypto::Columns {
        keys: &keys,
        messages: weft_crypto::Messages::Ids(&ids),
        signatures: &signatures,
    };
    let mut best = Duration::MAX;
    for _ in 0..2 {
        let start = Instant::now();
        if contain(|| engine.verify(&batch))?.contains(&false) {
            return Err(GpuError::Quarantined("a good signature was refused in the measurement".into()));
        }
        best = best.min(start.elapsed());
    }
    Ok((rows, best))
}
