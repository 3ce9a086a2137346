//! How contenders are timed: in turns, round by round, on the same signatures.
//!
//! A machine that is shared slows down and speeds up over seconds. Measured one after the other, contenders would get
//! different machines; in turns they get the same one, and the ratio of two of them within a round hardly notices.
//!
//! One thread is timed by its own CPU clock, which does not count the time in which something else runs on its core;
//! all verifiers here do their work in the calling thread. Several threads are timed by the wall clock: what they
//! reach together is the question there.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::contenders::Contender;
use super::corpus::Corpus;

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

/// Nanoseconds per signature in one thread: for each contender, one figure a round.
pub(super) fn interleaved(
    contenders: &[Box<dyn Contender>],
    corpus: &Corpus,
    batch: usize,
    threads: usize,
    per_row: Duration,
) -> Vec<Vec<f64>> {
    // The first run warms caches and says how many batches fill a round's share of the time.
    let share = per_row / ROUNDS as u32;
    let batches: Vec<usize> = contenders
        .iter()
        .map(|contender| {
            let once = time(contender.as_ref(), corpus, batch, 1, 1).max(Duration::from_nanos(100));
            let several = (share.as_nanos() / 4 / once.as_nanos()).clamp(1, 1 << 20) as usize;
            let one = time(contender.as_ref(), corpus, batch, several, 1) / several as u32;
            (share.as_nanos() / one.as_nanos().max(1)).clamp(1, 1 << 24) as usize
        })
        .collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for ((contender, batches), times) in contenders.iter().zip(&batches).zip(&mut times) {
            let elapsed = time(contender.as_ref(), corpus, batch, *batches, threads);
            times.push(elapsed.as_nanos() as f64 / (batches * batch) as f64);
        }
    }
    times
}

/// Time ([`clock`]) in which each of `threads` threads verifies `batches` batches.
fn time(
    contender: &dyn Contender,
    corpus: &Corpus,
    batch: usize,
    batches: usize,
    threads: usize,
) -> Duration {
    let work = |thread: usize| {
        let mut scratch = Vec::new();
        let mut valid = true;
        for number in 0..batches {
            // Each thread starts elsewhere in the corpus.
            valid &= contender.verify(corpus, black_box(number + thread * 7), batch, &mut scratch);
        }
        assert!(black_box(valid), "{} refused a valid signature while it was timed", contender.name());
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
