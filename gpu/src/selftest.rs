//! Opening a device so that it can be believed: known signatures first, then the faster layout, measured.

use std::time::{Duration, Instant};

use weft_shaders::Layout;

use crate::adapter::Found;
use crate::canary::{CANARIES, CANARIES_EACH_SIDE, Known};
use crate::engine::{Engine, Method, Options};
use crate::equation::Gain;
use crate::error::{GpuError, contain};

/// Rows of the self-test: two of each kind on each side of a workgroup, and not a multiple of 32.
const TEST_ROWS: usize = 145;
/// Rows of the measurement between layouts, at most: enough to fill a large device once.
const MEASURE_ROWS: usize = 1 << 14;
/// Sizes at which equations are measured against the ladder, and the time beyond which no larger one is.
const GAIN_ROWS: [usize; 3] = [1 << 12, 1 << 14, 1 << 16];
const GAIN_TIME_MAX: Duration = Duration::from_millis(400);

/// What the self-test of one layout gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The layout.
    pub layout: Layout,
    /// How long opening, compiling and the first batch took.
    pub opened_in: Duration,
    /// Time of one batch of `rows`, or why the layout cannot be used.
    pub batch: Result<(usize, Duration), GpuError>,
    /// Of the layout that was taken: why its batch equations are not used, if they did not pass.
    pub equations: Option<GpuError>,
}

/// Opens `found` in the layout that `options` name, or in the fastest of those that pass the self-test; with batch equations if these pass
/// theirs and are faster ([`Engine::gain`]), or as `options` say.
///
/// On a software adapter the layouts are not compared, because compiling both costs more than the better one gains: `u64x10` is taken,
/// which was three times as fast on every CPU that was measured. For the same reason it has no equations unless they are asked for.
///
/// # Errors
/// The last layout's error if none passes; the equations' if they are demanded and do not pass.
pub fn open(found: &Found, options: &Options) -> Result<(Engine, Vec<Outcome>), GpuError> {
    let layouts: Vec<Layout> = match options.layout {
        Some(layout) => vec![layout],
        None if found.description.software && found.description.int64 => vec![Layout::U64x10],
        None => Layout::ALL.into_iter().filter(|l| found.description.int64 || !l.needs_int64()).collect(),
    };
    let equations = match options.equations {
        None if found.description.software => Some(false),
        wanted => wanted,
    };
    let without = Options { equations: Some(false), ..options.clone() };
    let compare = layouts.len() > 1;
    let mut outcomes = Vec::new();
    let mut best: Option<(Duration, Layout)> = None;
    let mut held = None;
    for layout in layouts {
        // One at a time: a device that has memory for one only would get smaller batches for the other.
        drop(held.take());
        let start = Instant::now();
        let opened = tested(found, layout, &without);
        let opened_in = start.elapsed();
        let batch = opened.and_then(|engine| {
            let measure = || measure(&engine, Method::Ladder, MEASURE_ROWS);
            let (rows, time) = if compare { measure()? } else { (0, Duration::ZERO) };
            if best.is_none_or(|(best, _)| time < best) {
                best = Some((time, layout));
            }
            held = Some(engine);
            Ok((rows, time))
        });
        outcomes.push(Outcome { layout, opened_in, batch, equations: None });
    }
    let Some((_, layout)) = best else {
        let error = outcomes.into_iter().rev().find_map(|outcome| outcome.batch.err());
        return Err(error.unwrap_or(GpuError::NoAdapter { software: 0 }));
    };
    if equations != Some(false) {
        drop(held.take());
        let opened = tested(found, layout, options).and_then(|mut engine| {
            if options.equations.is_none() {
                let gain = measure_gain(&engine)?;
                engine.set_gain(gain);
            }
            Ok(engine)
        });
        match opened {
            Ok(engine) => held = Some(engine),
            Err(error) if options.equations == Some(true) => return Err(error),
            // They are not trusted, the ladder is.
            Err(error) => {
                let taken = outcomes.iter_mut().find(|outcome| outcome.layout == layout);
                taken.into_iter().for_each(|outcome| outcome.equations = Some(error.clone()));
            }
        }
    }
    let engine = match held.filter(|engine| engine.layout() == layout) {
        Some(engine) => engine,
        None => tested(found, layout, &without)?,
    };
    Ok((engine, outcomes))
}

/// Opens and tests one layout.
fn tested(found: &Found, layout: Layout, options: &Options) -> Result<Engine, GpuError> {
    contain(|| {
        let engine = Engine::open(found, layout, options)?;
        check(&engine)?;
        Ok(engine)
    })
}

/// From which batch size on equations are faster here: of three sizes the smallest from which on they are, by a tenth at least. Sizes
/// that take long are left out.
fn measure_gain(engine: &Engine) -> Result<Option<Gain>, GpuError> {
    let mut gain = None;
    for rows in GAIN_ROWS {
        let (_, ladder) = measure(engine, Method::Ladder, rows)?;
        let (measured, equations) = measure(engine, Method::Equations, rows)?;
        let cost = equations.as_secs_f64() / ladder.as_secs_f64().max(1e-9);
        gain = match gain {
            _ if cost > 0.9 => None,
            None => Some(Gain { rows_min: measured, cost }),
            Some(Gain { rows_min, .. }) => Some(Gain { rows_min, cost }),
        };
        if measured < rows || ladder > GAIN_TIME_MAX {
            break;
        }
    }
    Ok(gain)
}

/// Runs the known signatures, and the equations' canaries where there are equations.
///
/// # Errors
/// [`GpuError::Quarantined`] with the row if a verdict is wrong, or what ended the device.
pub fn check(engine: &Engine) -> Result<(), GpuError> {
    if engine.has_equations() {
        let known = Known::for_equations();
        let columns = known.columns();
        let parts = [columns.rows(0, CANARIES_EACH_SIDE), columns.rows(CANARIES_EACH_SIDE, CANARIES)];
        let answer = engine.finish(engine.begin(&parts, 0, Method::Equations)?)?;
        let held: Vec<bool> = answer.equations.iter().map(|equation| equation.held).collect();
        if held != [true, false] || answer.verdicts != known.valid {
            let layout = engine.layout().name();
            let what = format!("self-test in layout {layout}: equations of known rows came back wrong");
            return Err(GpuError::Quarantined(what));
        }
    }
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

/// Rows and time, by this method, of the better of two batches of about `rows` honest signatures (a multiple of 16, at most the device's
/// largest batch): the device's own time, without the guard.
///
/// # Errors
/// [`GpuError::Quarantined`] if it refuses one of them, or what ended the device.
pub fn measure(engine: &Engine, method: Method, rows: usize) -> Result<(usize, Duration), GpuError> {
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
        let answer = contain(|| engine.verify_by(method, &batch))?;
        if answer.verdicts.contains(&false) || answer.equations.iter().any(|equation| !equation.held) {
            return Err(GpuError::Quarantined("a good signature was refused in the measurement".into()));
        }
        best = best.min(start.elapsed());
    }
    Ok((rows, best))
}
