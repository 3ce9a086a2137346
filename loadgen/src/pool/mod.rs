//! Messages signed before the run: a file of them, in the order in which they fall due.
//!
//! Owns the file format, its writer ([`prepare`]) and its reader ([`Pool`]). A run from a pool plans the same events as the run that the
//! pool was prepared for, and takes message `k` of the file for event `k`: so times, classes and devices are those of the profile, and only
//! signing is done before. The file says what it was prepared for; a run that would plan anything else is refused. Messages carry the clock
//! of their preparation and name the roots of the ledger as parents; a ledger takes each of them once.
//!
//! | offset | size | field, little-endian |
//! |---|---|---|
//! | 0 | 8 | `weftpool` |
//! | 8 | 4 | version, 2 |
//! | 12 | 4 | network |
//! | 16 | 8 | number of messages n |
//! | 24 | 8 | place of the offsets |
//! | 32 | 8 | place of the description |
//! | 40 | 8 | length of the description |
//! | 48 | 16 | zero |
//! | 64 | | messages, back to back |
//! | | 8 (n + 1) | offset of each message, and of the end of the last |
//! | | | description: what it was prepared for, as text |

mod map;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use weft_core::{MessageView, NetworkId};

use crate::arrival::Arrivals;
use crate::clock::RunClock;
use crate::config::RunConfig;
use crate::driver::Stop;
use crate::error::LoadError;
use crate::faults::Fault;
use crate::generate::{Batch, Generator, Row, Traffic, Trail, Voice};
use crate::link::Links;
use crate::schedule::{Plan, Planner, Schedule, Work};
use crate::tips::TipSlot;

const MAGIC: [u8; 8] = *b"weftpool";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 64;

/// Messages of one pool, at most: a terabyte of the smallest.
pub const POOL_MESSAGES_MAX: u64 = 1 << 32;

/// A pool, mapped.
#[derive(Clone, Debug)]
pub struct Pool {
    bytes: Bytes,
    messages: u64,
    offsets_at: usize,
    network: NetworkId,
    description: String,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Pool {
    /// Maps a pool and checks its head; messages themselves are judged by whoever receives them.
    ///
    /// # Errors
    /// If the file cannot be mapped, or is no pool of this version, or shorter than it says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = Bytes::from_owner(map::Mapped::new(&File::open(path)?)?);
        let number = |at: usize| {
            bytes.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
        };
        if bytes.get(..8) != Some(&MAGIC[..]) || bytes.len() < HEAD_BYTES {
            return Err(wrong(format!("{} is no pool of messages", path.display())));
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version != VERSION {
            return Err(wrong(format!(
                "{} has version {version}; this program reads {VERSION}",
                path.display()
            )));
        }
        let cut = || wrong(format!("{} is shorter than it says", path.display()));
        let (messages, offsets_at) = (number(16).ok_or_else(cut)?, number(24).ok_or_else(cut)?);
        let (text_at, text_bytes) = (number(32).ok_or_else(cut)?, number(40).ok_or_else(cut)?);
        if messages == 0 || messages > POOL_MESSAGES_MAX {
            return Err(wrong(format!(
                "a pool of {messages} messages; it has between 1 and {POOL_MESSAGES_MAX}"
            )));
        }
        let end = offsets_at.checked_add(8 * (messages + 1)).ok_or_else(cut)?;
        let text_end = text_at.checked_add(text_bytes).ok_or_else(cut)?;
        if end > bytes.len() as u64 || text_end > bytes.len() as u64 {
            return Err(cut());
        }
        let description = String::from_utf8_lossy(&bytes[text_at as usize..text_end as usize]).into_owned();
        let network = NetworkId([bytes[12], bytes[13], bytes[14], bytes[15]]);
        Ok(Self { bytes, messages, offsets_at: offsets_at as usize, network, description })
    }

    /// Messages in it.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// The ledger that it is for.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// What it was prepared for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    fn offset(&self, index: u64) -> Option<usize> {
        let at = self.offsets_at + 8 * index as usize;
        let bytes = self.bytes.get(at..at + 8)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?))
            .ok()
            .filter(|offset| *offset <= self.offsets_at)
    }

    /// The batch of `work`; `None` if the file does not hold it. With `repeat` the file begins again where it ends.
    pub(crate) fn batch(
        &self,
        work: &Work,
        arrivals: &Arrivals,
        repeat: bool,
        keep_trail: bool,
        clock: RunClock,
    ) -> Option<Batch> {
        let count = work.rows.len() as u64;
        let mut first = work.first_event;
        if repeat {
            first %= self.messages;
            // A batch lies in one piece: one that would run over the end is taken from the beginning.
            if first + count > self.messages {
                first = 0;
            }
        }
        if first + count > self.messages {
            return None;
        }
        let mut lengths = Vec::with_capacity(work.rows.len());
        let start = self.offset(first)?;
        let mut at = start;
        for index in first..first + count {
            let end = self.offset(index + 1).filter(|end| *end > at)?;
            lengths.push(u16::try_from(end - at).ok()?);
            at = end;
        }
        let bytes = self.bytes.slice(start..at);
        let row = |arrival: &crate::arrival::Arrival| Row {
            before_us: u32::try_from(work.release_us.saturating_sub(arrival.due_us)).unwrap_or(u32::MAX),
            class: arrivals.class(arrival) as u8,
            fault: Fault::None,
        };
        let trail = if keep_trail {
            let mut rest = &bytes[..];
            work.rows
                .iter()
                .map(|arrival| {
                    let (message, tail) = MessageView::split(rest).ok()?;
                    rest = tail;
                    let device = arrivals.resolve(arrival).device;
                    Some(Trail { id: message.id(), device, sequence: message.sequence() })
                })
                .collect::<Option<_>>()?
        } else {
            Box::default()
        };
        Some(Batch {
            number: work.number,
            release_us: work.release_us,
            rows: work.rows.iter().map(row).collect(),
            bytes,
            lengths: lengths.into(),
            trail,
            devices: Box::default(),
            ready_us: clock.now_us(),
        })
    }
}

/// Everything that decides which events a run plans, as text: what a pool was prepared for.
#[must_use]
pub fn describe(config: &RunConfig, batch_messages: u32) -> String {
    let world = config.world();
    let pace = match config.schedule {
        // Only the order in which a closed loop draws depends on the batch.
        Schedule::Closed { .. } => format!("closed loop, batches of {batch_messages}"),
        Schedule::Open { rate_per_s } => format!("open loop of {rate_per_s} messages/s"),
    };
    let profile = world.profile.to_toml().unwrap_or_default();
    let digest = blake3::hash(profile.as_bytes()).to_hex();
    format!(
        "profile {} ({}), scale {:e}, speedup {}, at {:?}, shape {}, seed {}, {pace}, warm-up {:?}, measured {:?}, flush {:?}, part {} of {}",
        world.profile.name,
        &digest[..16],
        world.scale,
        world.speedup,
        world.at,
        config.shape,
        config.seed,
        config.warm_up,
        config.duration,
        config.flush,
        world.split.worker,
        world.split.of
    )
}

/// Signs the messages of a run before it and writes them to `path`; returns how many. `observer` hears how many there are so far.
///
/// # Errors
/// If the target (which tells the ledger) cannot be reached, the profile has faults, or the file cannot be written.
pub fn prepare(
    config: &RunConfig,
    path: &Path,
    stop: &Stop,
    observer: &mut dyn FnMut(u64),
) -> Result<u64, LoadError> {
    config.validate()?;
    let world = config.world();
    let profile = &world.profile;
    if !profile.classes.iter().all(|class| class.dirty.as_ref().unwrap_or(&profile.dirty).is_clean()) {
        return Err(LoadError::Config {
            what: "dirty",
            got: "a profile with faults".to_owned(),
            limit: "clean: a pool has one message for each event".to_owned(),
        });
    }
    let signer = config.signer.signer().map_err(|error| LoadError::Config {
        what: "signer",
        got: config.signer.to_string(),
        limit: error.to_string(),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let granted = runtime.block_on(Links::open(config))?.granted;
    let clock = RunClock::start();
    let traffic = Traffic {
        seed: config.seed,
        sequence_base: config.sequence_base.unwrap_or_else(|| clock.unix_us(0)),
        network: granted.network,
        voices: Voice::all(profile),
        schedule: config.schedule,
        clock,
        measured_us: 0..u64::MAX,
        // The roots stay known for as long as the ledger lives.
        tips: TipSlot::new(granted.roots),
        keep_trail: false,
        keep_devices: false,
    };
    let (play, warp) = config.play(&world);
    let arrivals = Arrivals::new(profile, &play);
    let plan = Plan {
        schedule: config.schedule,
        batch_messages: granted.batch_messages,
        warm_up: config.warm_up,
        duration: config.duration,
        messages_max: config.messages_max.min(POOL_MESSAGES_MAX),
        flush: config.flush,
        priority: Box::default(),
    };
    let mut planner = Planner::new(plan, arrivals.clone(), warp);
    let mut generator = Generator::new(Arc::new(traffic), arrivals, config.key_cache_slots, signer);
    let part = path.with_extension("part");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&part)?);
    out.write_all(&[0; HEAD_BYTES])?;
    let mut offsets_file = tempfile_beside(&part)?;
    let mut offsets = BufWriter::with_capacity(1 << 20, &mut offsets_file.0);
    let (mut at, mut messages) = (HEAD_BYTES as u64, 0u64);
    // A closed loop ends by the number of its messages; its clock stands still here.
    while let Some(work) = planner.next(0) {
        if stop.is_requested() {
            break;
        }
        let Some(batch) = generator.build(&work) else { continue };
        out.write_all(&batch.bytes)?;
        for length in &batch.lengths {
            offsets.write_all(&at.to_le_bytes())?;
            at += u64::from(*length);
        }
        messages += batch.rows.len() as u64;
        observer(messages);
    }
    offsets.write_all(&at.to_le_bytes())?;
    offsets.flush()?;
    drop(offsets);
    io::copy(&mut File::open(&offsets_file.1)?, &mut out)?;
    let description = describe(config, granted.batch_messages);
    out.write_all(description.as_bytes())?;
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&granted.network.0);
    head[16..24].copy_from_slice(&messages.to_le_bytes());
    head[24..32].copy_from_slice(&at.to_le_bytes());
    head[32..40].copy_from_slice(&(at + 8 * (messages + 1)).to_le_bytes());
    head[40..48].copy_from_slice(&(description.len() as u64).to_le_bytes());
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &head, 0)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    Ok(messages)
}

/// A file for the offsets, which are written while the messages are; removed when dropped.
fn tempfile_beside(part: &Path) -> io::Result<OffsetsFile> {
    let path = part.with_extension("offsets");
    Ok(OffsetsFile(File::create(&path)?, path))
}

struct OffsetsFile(File, std::path::PathBuf);

impl Drop for OffsetsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
    }
}

/// Whether `pool` was prepared for this run on this ledger.
pub(crate) fn check(
    pool: &Pool,
    config: &RunConfig,
    network: NetworkId,
    batch_messages: u32,
) -> Result<(), LoadError> {
    if pool.network != network {
        return Err(LoadError::Target {
            what: "network",
            got: network.to_string(),
            limit: pool.network.to_string(),
        });
    }
    let wanted = describe(config, batch_messages);
    if pool.description != wanted {
        return Err(LoadError::Config {
            what: "pool",
            got: pool.description.clone(),
            limit: format!("prepared for this run: {wanted}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_crypto::verify_one;

    use super::*;
    use crate::config::{NullTarget, Target, World};
    use crate::driver::run;
    use crate::profile::presets;

    fn config() -> RunConfig {
        let mut world = World::new(Arc::new(presets::load("world-20b").unwrap()));
        world.scale = 2e-5;
        RunConfig {
            schedule: Schedule::Open { rate_per_s: world.rate_per_s() },
            world: Some(world),
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(800),
            lag_p99_max: Duration::from_secs(10),
            ..RunConfig::new(Target::Null(NullTarget::default()))
        }
    }

    #[test]
    fn a_run_from_a_pool_sends_the_messages_that_were_signed_for_its_events() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.bin");
        let messages = prepare(&config(), &path, &Stop::new(), &mut |_| {}).unwrap();
        assert!(messages > 1_000, "not vacuous: {messages}");
        let pool = Arc::new(Pool::open(&path).unwrap());
        assert_eq!((pool.messages(), pool.description()), (messages, describe(&config(), 256).as_str()));
        let mut rest = &pool.bytes[HEAD_BYTES..pool.offsets_at];
        for _ in 0..messages {
            let (message, tail) = MessageView::split(rest).unwrap();
            rest = tail;
            assert!(verify_one(&message.issuer().0, &message.id().0, message.signature()));
        }
        assert!(rest.is_empty());
        let live = run(&config(), &Stop::new(), &mut |_| {}).unwrap().report;
        let from_pool = RunConfig { pool: Some(Arc::clone(&pool)), ..config() };
        let report = run(&from_pool, &Stop::new(), &mut |_| {}).unwrap().report;
        assert_eq!((report.sent_total, report.acked_total), (messages, messages));
        assert!(report.signing.starts_with("pool") && live.signing == "live");
        let counts = |report: &crate::report::Report| {
            report.classes.iter().map(|class| (class.sent, class.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(counts(&report), counts(&live), "class by class the same events and sizes");
        let other = RunConfig { seed: 2, ..from_pool };
        let error = run(&other, &Stop::new(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("seed 1") && error.contains("prepared for this run"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the pool");
    }

    #[test]
    fn a_file_that_is_no_pool_or_is_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.bin");
        prepare(&RunConfig { messages_max: 100, ..config() }, &path, &Stop::new(), &mut |_| {}).unwrap();
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            let other = dir.path().join("other");
            std::fs::write(&other, bytes).unwrap();
            Pool::open(&other).unwrap_err().to_string()
        };
        assert!(refused(b"").contains("empty"));
        assert!(refused(&good[..40]).contains("no pool"));
        assert!(refused(&good[..good.len() - 1]).contains("shorter"));
        assert!(refused(&good[..HEAD_BYTES]).contains("shorter"));
        let mut version = good.clone();
        version[8] = 9;
        assert!(refused(&version).contains("version 9"));
        let mut many = good.clone();
        many[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(refused(&many).contains("a pool of"));
        // Offsets that lie are found when they are used: the batch is not made.
        let mut lying = good;
        let at = u64::from_le_bytes(lying[24..32].try_into().unwrap()) as usize;
        lying[at + 8..at + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        let other = dir.path().join("lying");
        std::fs::write(&other, &lying).unwrap();
        let report = run(
            &RunConfig { pool: Some(Arc::new(Pool::open(&other).unwrap())), messages_max: 100, ..config() },
            &Stop::new(),
            &mut |_| {},
        )
        .unwrap()
        .report;
        assert!(
            !report.valid && report.problems.iter().any(|problem| problem.contains("used up")),
            "{report:?}"
        );
    }
}
