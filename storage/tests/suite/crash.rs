//! Crashes: after a power failure at any operation, with any subset of the unsynced sectors and names on the disk, the log opens, holds
//! everything that was acknowledged durable and nothing that was not appended, and goes on.
//!
//! Short scripts are crashed at every operation, in every state if there are at most [`STATES_MAX`], else in that many. Long ones are
//! random, by seed. Replay with `WEFT_SEED`; `WEFT_SIM_ROUNDS` sets the number of random rounds.

use crate::common::{Batch, Lane, SMALL, append, assert_holds, assert_verifies, dir, open, rounds, seed};
use weft_core::LaneTree;
use weft_storage::sim::{Fault, SimDisk, SimRandom};
use weft_storage::{LaneLog, LogConfig};

/// Crash states tried for one operation of a script.
const STATES_MAX: usize = 512;

/// A step of a script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Append a batch of so many messages with payloads of so many bytes.
    Append(u32, usize),
    Sync,
    /// Close in order and open again.
    Close,
    /// End the process and open again: what is in the cache stays.
    Kill,
    /// Cut all but so many batches, and go on with another history.
    Cut(usize),
}
use Step::{Append, Close, Cut, Kill, Sync};

/// What a run has done until the power failed, or to its end.
pub(crate) struct Run {
    pub(crate) history: Vec<Batch>,
    /// Batches whose append returned.
    pub(crate) written: usize,
    /// The highest durable size told to anybody.
    pub(crate) durable: u64,
}

impl Run {
    /// Runs `steps` on `disk` until an operation fails.
    pub(crate) fn new(disk: &SimDisk, config: LogConfig, steps: &[Step]) -> Self {
        let mut run = Self { history: Vec::new(), written: 0, durable: 0 };
        run.go(disk, config, steps);
        run
    }

    /// Goes through the steps; `None` once the power is off.
    fn go(&mut self, disk: &SimDisk, config: LogConfig, steps: &[Step]) -> Option<()> {
        let mut lane = Lane::new(11);
        let mut log = self.open(disk, config)?;
        for step in steps {
            match *step {
                Append(messages, payload_bytes) => {
                    self.history.push(lane.batch(messages, payload_bytes));
                    append(&mut log, self.history.last()?).ok()?;
                    self.written += 1;
                }
                Sync => self.durable = log.syncer.sync().ok()?,
                Close => {
                    self.durable = log.writer.close().ok()?;
                    log = self.open(disk, config)?;
                }
                Cut(keep) => {
                    let size = self.history[..keep].last().map_or(0, |batch| batch.sealed.size());
                    // From here on nobody relies on what is cut.
                    self.durable = self.durable.min(size);
                    log.writer.cut(size).ok()?;
                    self.history.truncate(keep);
                    (self.written, self.durable) = (keep, size);
                    assert_eq!((log.reader.size(), log.reader.durable_size()), (size, size));
                    assert_holds(&log.reader, &self.history.iter().collect::<Vec<_>>(), size);
                    lane = Lane::at(self.history.last().map_or(&LaneTree::new(), |batch| &batch.after), 23);
                }
                Kill => {
                    drop(log);
                    log = self.open(disk, config)?;
                }
            }
            // Rolling over to a new segment makes things durable, too, and readers are told.
            self.durable = self.durable.max(log.reader.durable_size());
        }
        Some(())
    }

    fn open(&mut self, disk: &SimDisk, config: LogConfig) -> Option<LaneLog> {
        let (log, recovered) = open(disk, config).ok()?;
        assert_eq!(
            recovered.size,
            self.history.get(..self.written)?.last().map_or(0, |batch| batch.sealed.size())
        );
        self.durable = recovered.size;
        Some(log)
    }

    /// Checks a disk after a crash. Tells the size it came back with.
    pub(crate) fn check(&self, disk: &SimDisk, config: LogConfig) -> u64 {
        let all: Vec<&Batch> = self.history.iter().collect();
        let (log, recovered) = open(disk, config).unwrap();
        let size = recovered.size;
        assert!(size >= self.durable, "{} was acknowledged durable, {size} is left", self.durable);
        assert_holds(&log.reader, &all, size);
        assert_eq!(recovered.size, log.reader.durable_size());
        let kept = self.history.iter().rfind(|batch| batch.sealed.size() == size);
        assert!(size == 0 || kept.is_some(), "the log ends inside a batch");
        if let Some(kept) = kept {
            assert_eq!(recovered.tree, kept.after);
        }
        assert_verifies(disk, &dir(), size);
        size
    }

    /// Checks that the log, recovered at `size`, goes on: appends, syncs, and finds both old and new after another opening.
    pub(crate) fn check_goes_on(&self, disk: &SimDisk, config: LogConfig, size: u64) {
        let (mut log, recovered) = open(disk, config).unwrap();
        assert_eq!((recovered.size, recovered.cut), (size, None), "a cut is done once");
        let mut lane = Lane::at(&recovered.tree, 99);
        let more = [lane.batch(1, 0), lane.batch(2, 100)];
        for batch in &more {
            append(&mut log, batch).unwrap();
        }
        log.syncer.sync().unwrap();
        // Nothing that was not synced survives this one.
        let crashed = disk.crash(&[]);
        let (log, recovered) = open(&crashed, config).unwrap();
        assert_eq!(recovered.size, lane.tree.size());
        let kept = self.history.iter().filter(|batch| batch.sealed.size() <= size);
        let all: Vec<&Batch> = kept.chain(&more).collect();
        assert_holds(&log.reader, &all, lane.tree.size());
    }
}

/// What a test has covered, so that it can assert that it was not vacuous.
#[derive(Debug, Default)]
struct Coverage {
    crashes: u64,
    exhaustive: u64,
    lost_something: u64,
    kept_more_than_durable: u64,
    crashes_in_recovery: u64,
}

/// Crashes `steps` at every operation, and the recovery from some of these crashes at every operation of its own.
fn crash_everywhere(config: LogConfig, steps: &[Step], coverage: &mut Coverage) {
    let whole = SimDisk::new(5);
    let complete = Run::new(&whole, config, steps);
    assert_eq!(complete.written, complete.history.len(), "the script runs to its end without faults");
    let mut random = SimRandom::new(17);
    for operation in 0..=whole.operation_count() {
        let disk = SimDisk::new(5);
        disk.fail_at(operation, Fault::PowerOff);
        let run = Run::new(&disk, config, steps);
        let outcomes = disk.crash_outcomes(STATES_MAX, &mut random);
        coverage.exhaustive += u64::from(outcomes.exhaustive);
        for (i, outcome) in outcomes.outcomes.iter().enumerate() {
            let crashed = disk.crash(outcome);
            let second = (i % 16 == 3).then(|| crashed.fork());
            let size = run.check(&crashed, config);
            coverage.crashes += 1;
            coverage.lost_something +=
                u64::from(size < run.history.last().map_or(0, |batch| batch.sealed.size()));
            coverage.kept_more_than_durable += u64::from(size > run.durable);
            if i % 8 == 3 {
                run.check_goes_on(&crashed, config, size);
            }
            if let Some(second) = second {
                crash_in_recovery(&run, &second, config, coverage, &mut random);
            }
        }
    }
}

/// Crashes the recovery of `disk` at every operation.
fn crash_in_recovery(
    run: &Run,
    disk: &SimDisk,
    config: LogConfig,
    coverage: &mut Coverage,
    random: &mut SimRandom,
) {
    let probe = disk.fork();
    let size = run.check(&probe, config);
    // What recovery reports is durable: it survives a crash that loses all that is not synced.
    assert_eq!(run.check(&probe.crash(&[]), config), size);
    for operation in 0..probe.operation_count() {
        let disk = disk.fork();
        disk.fail_at(operation, Fault::PowerOff);
        assert!(open(&disk, config).is_err() || operation > 0);
        for outcome in disk.crash_outcomes(6, random).outcomes {
            run.check(&disk.crash(&outcome), config);
            coverage.crashes_in_recovery += 1;
        }
    }
}

#[test]
fn every_crash_of_appends_and_syncs_in_one_segment_keeps_what_was_durable() {
    let mut coverage = Coverage::default();
    let config = LogConfig { segment_bytes: 32_768, ..SMALL };
    let scripts: [&[Step]; 5] = [
        &[Append(1, 0), Sync, Append(2, 30)],
        &[Append(1, 0), Append(1, 500), Sync, Append(3, 100), Append(1, 0), Sync],
        &[Append(2, 700), Sync, Append(1, 0), Kill, Append(1, 0), Sync, Append(1, 20)],
        &[Append(1, 0), Close, Append(2, 200), Sync, Append(1, 0), Close, Append(1, 0)],
        &[Append(1, 0), Append(1, 0), Append(1, 0), Append(1, 0), Append(1, 0)],
    ];
    for steps in scripts {
        crash_everywhere(config, steps, &mut coverage);
    }
    println!("{coverage:?}");
    assert!(coverage.exhaustive > 30 && coverage.lost_something > 100, "{coverage:?}");
    assert!(coverage.kept_more_than_durable > 50 && coverage.crashes_in_recovery > 100, "{coverage:?}");
}

#[test]
fn every_crash_while_segments_fill_up_and_follow_each_other_keeps_what_was_durable() {
    let mut coverage = Coverage::default();
    let scripts: [&[Step]; 3] = [
        // A segment holds eight sectors of records.
        &[Append(3, 900), Append(1, 0), Append(2, 300), Sync, Append(1, 700)],
        &[Append(2, 500), Sync, Append(2, 500), Append(2, 500), Append(2, 900), Close, Append(2, 900), Sync],
        // Longer than a segment, as the first batch and later.
        &[Append(1, 9_000), Append(1, 0), Sync, Append(1, 5_000), Append(2, 100)],
    ];
    for steps in scripts {
        crash_everywhere(SMALL, steps, &mut coverage);
    }
    println!("{coverage:?}");
    assert!(coverage.lost_something > 100 && coverage.kept_more_than_durable > 100, "{coverage:?}");
    assert!(coverage.crashes_in_recovery > 100, "{coverage:?}");
}

#[test]
fn every_crash_while_a_tail_is_cut_leaves_a_prefix_and_never_less_than_what_stays() {
    let mut coverage = Coverage::default();
    let scripts: [(LogConfig, &[Step]); 5] = [
        // Inside the only segment, and all of it.
        (
            LogConfig { segment_bytes: 32_768, ..SMALL },
            &[Append(1, 0), Append(2, 300), Sync, Append(1, 0), Cut(1), Append(3, 10), Sync],
        ),
        (LogConfig { segment_bytes: 32_768, ..SMALL }, &[Append(1, 0), Sync, Cut(0), Append(2, 0), Sync]),
        // Into a sealed segment, with two behind it; at the border of two segments; and twice.
        (
            SMALL,
            &[
                Append(2, 500),
                Append(2, 500),
                Append(2, 500),
                Append(2, 900),
                Sync,
                Cut(1),
                Append(1, 0),
                Sync,
            ],
        ),
        (
            SMALL,
            &[
                Append(2, 900),
                Append(2, 900),
                Append(2, 900),
                Cut(2),
                Append(2, 900),
                Sync,
                Cut(2),
                Append(1, 0),
            ],
        ),
        (
            SMALL,
            &[Append(1, 9_000), Append(1, 0), Sync, Append(1, 5_000), Cut(1), Kill, Append(2, 100), Close],
        ),
    ];
    for (config, steps) in scripts {
        crash_everywhere(config, steps, &mut coverage);
    }
    println!("{coverage:?}");
    assert!(coverage.lost_something > 100 && coverage.kept_more_than_durable > 100, "{coverage:?}");
}

#[test]
fn a_cut_at_no_batchs_end_is_refused_and_changes_nothing() {
    let disk = SimDisk::new(5);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut lane = Lane::new(3);
    let batches = [lane.batch(2, 10), lane.batch(3, 10)];
    for batch in &batches {
        append(&mut log, batch).unwrap();
    }
    for size in [1, 2, 4, 6, 8, 100] {
        assert!(log.writer.cut(size).is_err(), "{size}");
    }
    assert_holds(&log.reader, &batches.iter().collect::<Vec<_>>(), 7);
    assert_eq!(log.reader.tree_at(3).unwrap().as_ref(), Some(&batches[0].after));
    assert_eq!((log.reader.tree_at(4).unwrap(), log.reader.batch_ending_at(4).unwrap()), (None, None));
    let held = log.reader.batch_ending_at(7).unwrap().unwrap();
    log.writer.cut(3).unwrap();
    assert_eq!(held.view().unwrap().first(), 3, "what a reader has in its hands stays readable");
    assert_eq!((log.reader.cuts(), log.reader.batch_at(4).unwrap()), (1, None));
}

/// A random script: bursts of appends of any size, with syncs, closings and kills between.
fn random_steps(random: &mut SimRandom) -> Vec<Step> {
    let steps = 5 + random.below(60);
    let mut step = || match random.below(12) {
        0..=1 => Sync,
        2 if random.one_in(2) => Close,
        3 if random.one_in(2) => Kill,
        4 => Append(1 + random.below(40) as u32, random.below(300) as usize),
        _ => Append(1 + random.below(4) as u32, random.below(200) as usize),
    };
    (0..steps).map(|_| step()).collect()
}

#[test]
fn random_long_workloads_crashed_at_random_keep_what_was_durable() {
    let base = seed(0x5eed);
    let mut coverage = Coverage::default();
    for round in 0..rounds(120) {
        let mut random = SimRandom::new(base.wrapping_add(round));
        let steps = random_steps(&mut random);
        let segment_bytes = SMALL.segment_bytes << random.below(4);
        let config = LogConfig { segment_bytes, ..SMALL };
        let whole = SimDisk::new(round);
        Run::new(&whole, config, &steps);
        for _ in 0..3 {
            let disk = SimDisk::new(round);
            disk.fail_at(random.below(whole.operation_count() + 1), Fault::PowerOff);
            let run = Run::new(&disk, config, &steps);
            for _ in 0..5 {
                let crashed = disk.crash_at_random(&mut random);
                let size = run.check(&crashed, config);
                run.check_goes_on(&crashed, config, size);
                coverage.crashes += 1;
                coverage.lost_something +=
                    u64::from(size < run.history.last().map_or(0, |batch| batch.sealed.size()));
                coverage.kept_more_than_durable += u64::from(size > run.durable);
            }
        }
    }
    println!("{coverage:?}");
    assert!(coverage.lost_something > 0 && coverage.kept_more_than_durable > 0, "{coverage:?}");
}

/// The canary: on a disk that acknowledges syncs and does nothing, the same checks must find lost data. If they do not, they check nothing.
#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let steps = [Append(1, 0), Append(2, 300), Sync, Append(1, 0), Append(1, 100), Sync, Append(1, 0)];
    let config = LogConfig { segment_bytes: 32_768, ..SMALL };
    let disk = SimDisk::new(5);
    // Honest until the log is begun, so that it is its records that are at stake.
    drop(open(&disk, config).unwrap());
    disk.lie_about_syncs();
    let run = Run::new(&disk, config, &steps);
    assert!(run.durable > 0);
    let (mut lost, mut refused, mut lucky) = (0, 0, 0);
    for outcome in disk.crash_outcomes(2_000, &mut SimRandom::new(1)).outcomes {
        match open(&disk.crash(&outcome), config) {
            Ok((_, recovered)) if recovered.size < run.durable => lost += 1,
            Ok(_) => lucky += 1,
            Err(weft_storage::LogError::Damaged(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("lost {lost}, refused {refused}, lucky {lucky}");
    assert!(lost > 0, "the crash test would not notice a missing sync");
    assert!(refused > 0, "a later record's claim must give the lie away where it survives");
}
