//! How contenders are timed: in turns, round by round, on the same input.
//!
//! A machine that is shared slows down and speeds up over seconds. Measured one after the other, contenders would get
//! different machines; in turns they get the same one, and the ratio of two of them within a round hardly notices.
//!
//! One thread is timed by its own CPU clock, which does not count the time in which something else runs on its core;
//! all contenders here do their work in the calling thread. Several threads are timed by the wall clock: what they
//! reach together is the question there.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Memory that a contender writes to, one set a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) verdicts: Vec<bool>,
    pub(super) signatures: Vec<[u8; 64]>,
    pub(super) digests: Vec<[u8; 32]>,
}

/// Something to time.
pub(super) trait Work: Sync {
    /// Its name, for a failure.
    fn name(&self) -> &str;
    /// The timed part, for the `number`th time. Gives what must be true.
    fn run(&self, number: usize, scratch: &mut Scratch) -> bool;
}

/// Rounds of a cell: odd, so that a median is one of them; enough that two disturbed ones do not matter.
const ROUNDS: usize = 7;

/// Which clock [`interleaved`] reads.
pub(super) fn clock(threads: usize) -> &'static str {
    if threads == 1 { "thread_cpu" } else { "wall" }
}

/// CPU time of this thread since it began.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Nanoseconds per unit in one thread, where a run of each is `units` units: for each contender, one figure a round.
pub(super) fn interleaved<W: Work>(
    contenders: &[W],
    units: usize,
    threads: usize,
    per_row: Duration,
) -> Vec<Vec<f64>> {
    // The first run warms caches and says how many runs fill a round's share of the time.
    let share = per_row / ROUNDS as u32;
    let runs: Vec<usize> = contenders
        .iter()
        .map(|contender| {
            let once = time(contender, 1, 1).max(Duration::from_nanos(100));
            let several = (share.as_nanos() / 4 / once.as_nanos()).clamp(1, 1 << 20) as usize;
            let one = time(contender, several, 1) / several as u32;
            (share.as_nanos() / one.as_nanos().max(1)).clamp(1, 1 << 24) as usize
        })
        .collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for ((contender, runs), times) in contenders.iter().zip(&runs).zip(&mut times) {
            let elapsed = time(contender, *runs, threads);
            times.push(elapsed.as_nanos() as f64 / (runs * units) as f64);
        }
    }
    times
}

/// Time ([`clock`]) in which each of `threads` threads does `runs` runs.
fn time<W: Work>(contender: &W, runs: usize, threads: usize) -> Duration {
    let work = |thread: usize| {
        let mut scratch = Scratch::default();
        let mut right = true;
        for number in 0..runs {
            // Each thread starts elsewhere in the corpus.
            right &= contender.run(black_box(number + thread * 7), &mut scratch);
        }
        assert!(black_box(right), "{} gave a wrong result while it was timed", contender.name());
    };
    if threads == 1 {
        let start = thread_cpu();
        work(0);
        return thread_cpu().saturating_sub(start);
    }
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    barrier.wait();
                    work(thread);
                })
            })
            .collect();
        let start = Instant::now();
        barrier.wait();
        for handle in handles {
            if let Err(panic) = handle.join() {
                std::panic::resume_unwind(panic);
            }
        }
        start.elapsed()
    })
}

/// The middle value.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median over rounds of `peer / ours`: how many times faster `ours` is.
pub(super) fn median_ratio(peer: &[f64], ours: &[f64]) -> f64 {
    median(peer.iter().zip(ours).map(|(peer, ours)| peer / ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_two_contenders_does_not_notice_a_slow_round() {
        // The machine was three times slower in the second round, and one contender alone was disturbed in the third.
        let peer = [100.0, 300.0, 100.0, 100.0, 100.0];
        let ours = [50.0, 150.0, 90.0, 50.0, 50.0];
        assert_eq!(median_ratio(&peer, &ours), 2.0);
        assert_eq!(median(ours), 50.0);
    }
}
