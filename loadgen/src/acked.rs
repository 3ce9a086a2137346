//! Memory of what was acked: the list that an audit goes through.
//!
//! Owns the record of acked batches: first event, ids, and which rows were not accepted. 32 bytes a message and about 80 a batch, as
//! long as no more than the limit was acked. Beyond it the record keeps every second batch, then every fourth, and so on: a uniform
//! sample by batch number that no target can foresee to matter, since it knows neither numbers nor limit. Invariant: what is recorded was
//! acked at the level asked for.

use weft_core::MessageId;

use crate::population::Population;

/// One acked batch.
#[derive(Debug)]
struct AckedBatch {
    number: u64,
    first_event: u64,
    ids: Box<[MessageId]>,
    /// Rows that were not accepted, rising.
    refused: Box<[u32]>,
}

impl AckedBatch {
    fn messages(&self) -> u64 {
        (self.ids.len() - self.refused.len()) as u64
    }
}

/// One acked message, as an audit needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Number of the event: tells device and sequence.
    pub event: u64,
    /// Id of the message.
    pub id: MessageId,
}

/// All acked batches, or a uniform sample of them.
#[derive(Debug)]
pub struct AckedLog {
    population: Population,
    messages_max: u64,
    batches: Vec<AckedBatch>,
    messages: u64,
    /// Batches whose number is a multiple of this are kept.
    one_in: u64,
}

impl AckedLog {
    /// An empty record for at most `messages_max` messages (at least one batch is kept whatever it holds).
    #[must_use]
    pub fn new(population: Population, messages_max: u64) -> Self {
        Self { population, messages_max, batches: Vec::new(), messages: 0, one_in: 1 }
    }

    /// Records batch `number`: its ids in the order of its events, and the rows that were refused (rising, each below the number of ids).
    pub(crate) fn record(&mut self, number: u64, first_event: u64, ids: Vec<MessageId>, refused: Vec<u32>) {
        if !number.is_multiple_of(self.one_in) || refused.len() >= ids.len() {
            return;
        }
        let batch = AckedBatch { number, first_event, ids: ids.into(), refused: refused.into() };
        self.messages += batch.messages();
        self.batches.push(batch);
        while self.messages > self.messages_max && self.batches.len() > 1 && self.one_in < u64::MAX / 2 {
            self.one_in *= 2;
            let one_in = self.one_in;
            self.batches.retain(|batch| batch.number % one_in == 0);
            self.messages = self.batches.iter().map(AckedBatch::messages).sum();
        }
    }

    /// Messages recorded.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// 1 if everything acked is recorded, n if the batches whose number n divides are.
    #[must_use]
    pub const fn sampled_one_in(&self) -> u64 {
        self.one_in
    }

    /// Whose messages they are.
    #[must_use]
    pub const fn population(&self) -> Population {
        self.population
    }

    /// The recorded messages.
    pub fn iter(&self) -> impl Iterator<Item = Acked> + '_ {
        self.batches.iter().flat_map(|batch| {
            let mut refused = batch.refused.iter().copied().peekable();
            batch.ids.iter().enumerate().filter_map(move |(row, id)| {
                if refused.next_if_eq(&(row as u32)).is_some() {
                    return None;
                }
                Some(Acked { event: batch.first_event + row as u64, id: *id })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn log(messages_max: u64) -> AckedLog {
        let population = Population { seed: 0, devices: NonZeroU64::MIN, sequence_base: 0 };
        AckedLog::new(population, messages_max)
    }

    fn ids(first: u64, count: u64) -> Vec<MessageId> {
        (first..first + count)
            .map(|number| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&number.to_le_bytes());
                MessageId(id)
            })
            .collect()
    }

    #[test]
    fn refused_rows_are_left_out() {
        let mut log = log(100);
        log.record(0, 0, ids(0, 5), vec![0, 3]);
        log.record(1, 5, ids(5, 2), vec![0, 1]);
        log.record(2, 7, ids(7, 2), vec![]);
        let events: Vec<u64> = log.iter().map(|acked| acked.event).collect();
        assert_eq!(events, [1, 2, 4, 7, 8]);
        assert_eq!(log.messages(), 5);
        for acked in log.iter() {
            assert_eq!(acked.id, ids(acked.event, 1)[0]);
        }
    }

    #[test]
    fn beyond_the_limit_a_uniform_sample_stays_and_its_rate_is_told() {
        let mut log = log(1_000);
        for number in 0..1_000 {
            log.record(number, number * 10, ids(number * 10, 10), vec![]);
            assert!(log.messages() <= 1_000);
        }
        assert_eq!(log.sampled_one_in(), 16);
        let batches: Vec<u64> = log.iter().step_by(10).map(|acked| acked.event / 10).collect();
        let expected: Vec<u64> = (0..1_000).step_by(16).collect();
        assert_eq!(batches, expected);
        assert_eq!(log.messages(), log.iter().count() as u64);
    }
}
