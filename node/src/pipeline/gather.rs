//! How large a verification batch grows: pure arithmetic, no clock and no queue of its own.
//!
//! A batch verifier costs least per signature when batches are large, and a lone message should not wait for company. `Gather`
//! holds a *target* size. While batches fill before their deadline the target doubles; when a deadline passes with the batch
//! unfilled the target halves, down to one message, at which nothing ever waits. Under load the queue fills a batch without any
//! waiting at all, because everything that queued up behind the previous batch is taken at once.
//!
//! Invariants: `1 <= target <= max`; the wait is never longer than `linger`.

use std::time::Duration;

/// The adaptive batch size of one verification worker.
#[derive(Debug, Clone)]
pub struct Gather {
    target: usize,
    max: usize,
    linger: Duration,
}

/// Why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The target was reached.
    Filled,
    /// The deadline passed first.
    Deadline,
}

impl Gather {
    /// A gatherer whose batches hold at most `max` messages and whose messages wait at most `linger` for company.
    pub fn new(max: usize, linger: Duration) -> Self {
        Self { target: 1, max: max.max(1), linger }
    }

    /// The most messages a batch may hold.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Messages the batch under way should reach before it is closed early.
    pub fn target(&self) -> usize {
        self.target
    }

    /// How long a batch that already holds `have` messages may wait for more, counted from its first message.
    /// `None` when it should be closed at once.
    pub fn wait(&self, have: usize, since_first: Duration) -> Option<Duration> {
        if have >= self.target {
            return None;
        }
        self.linger.checked_sub(since_first).filter(|left| !left.is_zero())
    }

    /// Learns from a closed batch of `size` messages.
    pub fn closed(&mut self, size: usize, how: Closed) {
        self.target = match how {
            // Grow towards what the queue delivers, never past what was seen twice over: a single burst does not commit
            // later, quieter traffic to waiting.
            Closed::Filled => (self.target * 2).min(size.max(1) * 2).min(self.max),
            Closed::Deadline => (self.target / 2).max(1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_message_on_an_idle_node_never_waits() {
        let gather = Gather::new(4096, Duration::from_millis(2));
        assert_eq!(gather.wait(1, Duration::ZERO), None);
    }

    #[test]
    fn the_target_grows_under_load_and_stops_at_the_maximum() {
        let mut gather = Gather::new(1000, Duration::from_millis(2));
        for _ in 0..20 {
            gather.closed(1000, Closed::Filled);
        }
        assert_eq!(gather.target(), 1000);
    }

    #[test]
    fn the_target_falls_back_to_one_when_traffic_thins() {
        let mut gather = Gather::new(1024, Duration::from_millis(2));
        (0..20).for_each(|_| gather.closed(1024, Closed::Filled));
        (0..20).for_each(|_| gather.closed(3, Closed::Deadline));
        assert_eq!(gather.target(), 1);
    }

    #[test]
    fn no_message_waits_longer_than_the_linger() {
        let mut gather = Gather::new(64, Duration::from_millis(2));
        (0..10).for_each(|_| gather.closed(64, Closed::Filled));
        assert_eq!(gather.wait(1, Duration::from_micros(500)), Some(Duration::from_micros(1500)));
        assert_eq!(gather.wait(1, Duration::from_millis(2)), None);
        assert_eq!(gather.wait(1, Duration::from_millis(9)), None);
    }
}
