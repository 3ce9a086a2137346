//! The one queue between the sessions and everything that verifies: CPU workers at its front, devices where the policy lets them.
//!
//! Owns who may take what, and when they are woken. A worker takes from the front, the oldest jobs, with [`Gather`]'s batch sizes. A
//! device takes from the back the part that it would be done with as soon as the CPU with the rest (see [`super::share`]), or, while
//! devices come first (`--verifier gpu`), from the front everything but small remainders. What a device finds to be no work for it, it
//! gives back, and workers take that in its turn. Invariants: every job leaves for good exactly once; a device sees a job once at most;
//! with no device left, and once the queue is closed, workers take everything. What is in the queue is paid for by the byte budget, so
//! that it needs no bound of its own.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::gather::{Closed, Gather};

/// While devices come first, a backlog below this many messages is the CPU's: it is done before a device has begun.
pub const DEVICE_MESSAGES_MIN: usize = 256;

/// While devices come first, a job that has waited this long is taken by the CPU all the same: a device that hangs is only given up
/// after minutes, and clients must not notice.
pub const URGENT: Duration = Duration::from_secs(2);

/// What can be queued: it counts its messages.
pub trait Weighed {
    /// Messages in it.
    fn messages(&self) -> usize;
}

/// Which jobs a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// None as things are: wake me when there is more.
    Nothing,
    /// None, and I have something else to do: [`JobQueue::take_for_device`] comes back empty.
    Leave,
    /// The oldest, up to this many messages.
    Front(usize),
    /// The newest, up to this many messages.
    Back(usize),
}

struct State<T> {
    jobs: VecDeque<(Instant, T)>,
    /// Messages in `jobs`.
    messages: usize,
    /// What devices gave back, oldest first: the workers'.
    returned: VecDeque<(Instant, T)>,
    open: bool,
    /// Devices that come first and still work.
    devices_first: usize,
    /// Who sleeps: nobody else is woken, since a wake-up is a system call even when nobody hears it.
    workers_waiting: usize,
    devices_waiting: usize,
}

/// The queue.
pub struct JobQueue<T> {
    state: Mutex<State<T>>,
    for_workers: Condvar,
    for_devices: Condvar,
}

impl<T> std::fmt::Debug for JobQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobQueue").finish_non_exhaustive()
    }
}

impl<T: Weighed> State<T> {
    /// How long a worker has to leave the queue alone: `None` when there is nothing for it, zero when it may take now.
    fn workers_wait(&self) -> Option<Duration> {
        if !self.returned.is_empty() {
            return Some(Duration::ZERO);
        }
        let (since, _) = self.jobs.front()?;
        if self.devices_first == 0 || !self.open || self.messages < DEVICE_MESSAGES_MIN {
            return Some(Duration::ZERO);
        }
        Some(URGENT.saturating_sub(since.elapsed()))
    }

    fn pop(&mut self, back: bool) -> Option<T> {
        let (_, job) = if back { self.jobs.pop_back() } else { self.jobs.pop_front() }?;
        self.messages -= job.messages();
        Some(job)
    }

    /// The oldest job, given back or not. While devices come first and may still take what is queued, only what was given back.
    fn pop_for_worker(&mut self) -> Option<T> {
        let Some((returned, _)) = self.returned.front() else { return self.pop(false) };
        let older = self.jobs.front().is_some_and(|(since, _)| since < returned);
        if older && self.devices_first == 0 {
            return self.pop(false);
        }
        self.returned.pop_front().map(|(_, job)| job)
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.returned.is_empty()
    }
}

impl<T: Weighed> JobQueue<T> {
    /// An open, empty queue, of which `devices_first` devices get everything that is worth their while.
    #[must_use]
    pub fn new(devices_first: usize) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            messages: 0,
            returned: VecDeque::new(),
            open: true,
            devices_first,
            workers_waiting: 0,
            devices_waiting: 0,
        };
        Self { state: Mutex::new(state), for_workers: Condvar::new(), for_devices: Condvar::new() }
    }

    /// Nothing in here panics half-way through a change, so that a poisoned lock guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The job, once the queue is closed.
    pub fn push(&self, job: T) -> Result<(), T> {
        let mut state = self.lock();
        if !state.open {
            return Err(job);
        }
        state.messages += job.messages();
        state.jobs.push_back((Instant::now(), job));
        // No device takes a smaller backlog: it need not be woken to find that out, submit by submit.
        let devices = state.devices_waiting > 0 && state.messages >= DEVICE_MESSAGES_MIN;
        let workers = state.workers_waiting > 0;
        drop(state);
        if workers {
            self.for_workers.notify_one();
        }
        if devices {
            // One of them asks for what another one would not: all must look.
            self.for_devices.notify_all();
        }
        Ok(())
    }

    /// Takes nothing more; those who take get what is left, and then `None`.
    pub fn close(&self) {
        self.lock().open = false;
        self.for_workers.notify_all();
        self.for_devices.notify_all();
    }

    /// Closes the queue and drops what is in it: nobody takes the results any more. The jobs' shares of the budget come back.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.open = false;
        state.messages = 0;
        let jobs = (std::mem::take(&mut state.jobs), std::mem::take(&mut state.returned));
        drop(state);
        drop(jobs);
        self.for_workers.notify_all();
        self.for_devices.notify_all();
    }

    /// Gives jobs that a device took to the workers.
    ///
    /// # Errors
    /// The jobs, once the queue is closed: the workers may be gone already.
    pub fn give_back(&self, jobs: Vec<T>) -> Result<(), Vec<T>> {
        let mut state = self.lock();
        if !state.open {
            return Err(jobs);
        }
        let now = Instant::now();
        state.returned.extend(jobs.into_iter().map(|job| (now, job)));
        let workers = state.workers_waiting > 0;
        drop(state);
        if workers {
            self.for_workers.notify_one();
        }
        Ok(())
    }

    /// A device that came first works no more.
    pub fn device_gone(&self) {
        let mut state = self.lock();
        state.devices_first = state.devices_first.saturating_sub(1);
        drop(state);
        self.for_workers.notify_all();
    }

    /// A worker waits until it is woken, or for at most `wait`.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State<T>>,
        wait: Option<Duration>,
    ) -> MutexGuard<'a, State<T>> {
        state.workers_waiting += 1;
        let mut state = match wait {
            Some(wait) => {
                self.for_workers.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.for_workers.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.workers_waiting -= 1;
        state
    }

    /// A worker's next batch: the oldest job and those behind it, as `gather` says. Waits for the first one; `None` when the queue is
    /// closed and empty.
    pub fn take(&self, gather: &mut Gather) -> Option<Vec<T>> {
        let mut state = self.lock();
        loop {
            match state.workers_wait() {
                Some(Duration::ZERO) => break,
                Some(wait) => state = self.sleep(state, Some(wait)),
                None if !state.open => return None,
                None => state = self.sleep(state, None),
            }
        }
        let started = Instant::now();
        let (mut batch, mut messages) = (Vec::new(), 0);
        let how = loop {
            if messages >= gather.max() {
                break Closed::Filled;
            }
            // What is queued already costs no waiting, whatever the target.
            if state.workers_wait() == Some(Duration::ZERO)
                && let Some(job) = state.pop_for_worker()
            {
                messages += job.messages();
                batch.push(job);
                continue;
            }
            if !state.open {
                break Closed::Filled;
            }
            let Some(wait) = gather.wait(messages, started.elapsed()) else {
                break if messages >= gather.target() { Closed::Filled } else { Closed::Deadline };
            };
            state = self.sleep(state, Some(wait));
        };
        let more = !state.is_empty() && state.workers_waiting > 0;
        drop(state);
        if more {
            // A wake-up may have gone to this worker while it lingered: pass it on.
            self.for_workers.notify_one();
        }
        gather.closed(messages, how);
        Some(batch)
    }

    /// A device's next batch: what `ask` makes of the messages queued. Waits until it asks for something; empty if it wants to leave,
    /// `None` when the queue is closed.
    pub fn take_for_device(&self, ask: impl Fn(usize) -> Ask) -> Option<Vec<T>> {
        let mut state = self.lock();
        let (back, wanted) = loop {
            if !state.open {
                return None;
            }
            match ask(state.messages) {
                Ask::Front(wanted) if wanted > 0 && state.messages > 0 => break (false, wanted),
                Ask::Back(wanted) if wanted > 0 && state.messages > 0 => break (true, wanted),
                Ask::Leave => return Some(Vec::new()),
                _ => {
                    state.devices_waiting += 1;
                    state = self.for_devices.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.devices_waiting -= 1;
                }
            }
        };
        let (mut batch, mut messages) = (Vec::new(), 0);
        loop {
            let next = if back { state.jobs.back() } else { state.jobs.front() };
            // At least one job, then no more than was asked for.
            let fits = next.is_some_and(|(_, job)| batch.is_empty() || messages + job.messages() <= wanted);
            let Some(job) = (if fits { state.pop(back) } else { None }) else { break };
            messages += job.messages();
            batch.push(job);
        }
        let more = !state.jobs.is_empty() && state.workers_waiting > 0;
        drop(state);
        if back {
            batch.reverse();
        }
        if more {
            // The rest may be small enough for a worker now.
            self.for_workers.notify_one();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Job(usize, usize);

    impl Weighed for Job {
        fn messages(&self) -> usize {
            self.1
        }
    }

    fn gather() -> Gather {
        Gather::new(1000, Duration::ZERO)
    }

    fn filled(devices_first: usize, jobs: &[(usize, usize)]) -> JobQueue<Job> {
        let queue = JobQueue::new(devices_first);
        for (name, messages) in jobs {
            queue.push(Job(*name, *messages)).unwrap();
        }
        queue
    }

    fn names(batch: Option<Vec<Job>>) -> Vec<usize> {
        batch.unwrap_or_default().iter().map(|job| job.0).collect()
    }

    #[test]
    fn a_worker_takes_the_oldest_jobs_up_to_the_largest_batch() {
        let queue = filled(0, &[(1, 400), (2, 400), (3, 400), (4, 400)]);
        assert_eq!(names(queue.take(&mut gather())), [1, 2, 3], "closed by the first job that reaches it");
        assert_eq!(names(queue.take(&mut gather())), [4]);
    }

    #[test]
    fn a_device_takes_the_newest_jobs_and_leaves_the_oldest_to_the_cpu() {
        let queue = filled(0, &[(1, 100), (2, 100), (3, 100), (4, 100)]);
        assert_eq!(names(queue.take_for_device(|queued| Ask::Back(queued / 2))), [3, 4]);
        assert_eq!(names(queue.take(&mut gather())), [1, 2]);
    }

    #[test]
    fn a_job_larger_than_what_is_asked_for_is_taken_alone() {
        let queue = filled(1, &[(1, 5000), (2, 10)]);
        assert_eq!(names(queue.take_for_device(|_| Ask::Front(100))), [1]);
    }

    #[test]
    fn while_devices_come_first_workers_get_small_backlogs_only_until_the_device_is_gone() {
        let queue = filled(1, &[(1, DEVICE_MESSAGES_MIN - 1)]);
        assert_eq!(names(queue.take(&mut gather())), [1], "small: not worth a device");
        queue.push(Job(2, DEVICE_MESSAGES_MIN)).unwrap();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| names(queue.take(&mut gather())));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!worker.is_finished(), "large: the device's");
            queue.device_gone();
            assert_eq!(worker.join().unwrap(), [2]);
        });
    }

    #[test]
    fn a_job_that_no_device_takes_in_time_goes_to_a_worker() {
        let queue = filled(1, &[(1, 10 * DEVICE_MESSAGES_MIN)]);
        let started = Instant::now();
        assert_eq!(names(queue.take(&mut gather())), [1]);
        assert!(started.elapsed() >= URGENT, "not before it is urgent");
    }

    #[test]
    fn what_a_device_gives_back_is_the_workers_in_its_turn_and_no_devices_again() {
        let large = DEVICE_MESSAGES_MIN;
        for devices_first in [0, 1] {
            let queue = filled(devices_first, &[(1, large), (2, large)]);
            let taken = queue.take_for_device(|_| Ask::Back(large)).unwrap();
            assert_eq!(taken, [Job(2, large)]);
            queue.give_back(taken).unwrap();
            queue.push(Job(3, large)).unwrap();
            let mut one = Gather::new(1, Duration::ZERO);
            if devices_first == 0 {
                assert_eq!(names(queue.take(&mut one)), [1], "the oldest first");
            }
            assert_eq!(names(queue.take(&mut one)), [2], "at once, though a device comes first");
            let rest = names(queue.take_for_device(|_| Ask::Front(10 * large)));
            assert_eq!(rest, if devices_first == 0 { vec![3] } else { vec![1, 3] });
            queue.close();
            assert_eq!(
                queue.give_back(vec![Job(4, 1)]),
                Err(vec![Job(4, 1)]),
                "nobody may be there to take it"
            );
            assert_eq!(queue.take(&mut gather()), None);
        }
    }

    #[test]
    fn a_device_is_not_woken_for_backlogs_that_no_device_takes() {
        let queue = JobQueue::new(0);
        let asked = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let device = scope.spawn(|| {
                let ask = |queued: usize| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if queued < DEVICE_MESSAGES_MIN { Ask::Nothing } else { Ask::Leave }
                };
                queue.take_for_device(ask)
            });
            while queue.lock().devices_waiting == 0 {
                std::thread::yield_now();
            }
            for name in 1..DEVICE_MESSAGES_MIN {
                queue.push(Job(name, 1)).unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(asked.load(Ordering::Relaxed), 1, "only when it came");
            queue.push(Job(0, 1)).unwrap();
            assert_eq!(device.join().unwrap(), Some(Vec::new()), "it left, and took nothing");
        });
        assert_eq!(names(queue.take(&mut gather())).len(), DEVICE_MESSAGES_MIN);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_takes_no_more() {
        let queue = filled(1, &[(1, 10_000)]);
        queue.close();
        assert_eq!(queue.push(Job(2, 1)), Err(Job(2, 1)));
        assert_eq!(queue.take_for_device(|_| Ask::Front(1)), None, "the workers drain it");
        assert_eq!(names(queue.take(&mut gather())), [1]);
        assert_eq!(queue.take(&mut gather()), None);
        let queue = filled(0, &[(1, 10)]);
        queue.abandon();
        assert_eq!(queue.take(&mut gather()), None, "abandoned with what was in it");
    }

    #[test]
    fn every_job_leaves_exactly_once_whoever_takes() {
        let queue: JobQueue<Job> = JobQueue::new(0);
        let (seen, jobs) = (AtomicUsize::new(0), 20_000);
        let (workers, devices) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Neither kind goes on before the other has taken something: else the first one scheduled may take it all.
        let wait_for = |others: &AtomicUsize| {
            while others.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
        };
        // A backlog for the devices from the start; then jobs come while it is worked on.
        let (backlog, messages) = (2000, 32);
        for number in 1..=backlog {
            queue.push(Job(number, messages)).unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut gather = Gather::new(64, Duration::from_micros(100));
                    while let Some(batch) = queue.take(&mut gather) {
                        seen.fetch_add(batch.iter().map(|job| job.0).sum(), Ordering::Relaxed);
                        workers.fetch_add(batch.len(), Ordering::Relaxed);
                        wait_for(&devices);
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
                scope.spawn(|| {
                    let least = DEVICE_MESSAGES_MIN;
                    let ask = |queued| if queued < least { Ask::Nothing } else { Ask::Back(least) };
                    while let Some(batch) = queue.take_for_device(ask) {
                        seen.fetch_add(batch.iter().map(|job| job.0).sum(), Ordering::Relaxed);
                        devices.fetch_add(batch.len(), Ordering::Relaxed);
                        wait_for(&workers);
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
            }
            for number in backlog + 1..=jobs {
                queue.push(Job(number, messages)).unwrap();
                if number % 64 == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
            queue.close();
        });
        assert_eq!(seen.into_inner(), jobs * (jobs + 1) / 2, "the sum of all numbers, each once");
        assert!(workers.into_inner() > 0 && devices.into_inner() > 0, "both kinds must have worked");
    }
}
