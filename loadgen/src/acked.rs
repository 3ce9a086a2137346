//! Memory of what was acked: the list that an audit goes through.
//!
//! Owns the record of acked batches: id, device and sequence of each message that was accepted. 48 bytes a message and about 60 a batch, as
//! long as no more than the limit was acked. Beyond it the record keeps every second batch, then every fourth, and so on: a uniform
//! sample by batch number that no target can foresee to matter, since it knows neither numbers nor limit. Invariant: what is recorded was
//! acked at the level asked for.

use weft_core::MessageId;

use crate::generate::Trail;

/// One acked batch.
#[derive(Debug)]
struct AckedBatch {
    number: u64,
    messages: Box<[Trail]>,
}

/// One acked message, as an audit needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Number of the device.
    pub device: u64,
    /// Sequence number of the message.
    pub sequence: u64,
    /// Id of the message.
    pub id: MessageId,
}

/// All acked batches, or a uniform sample of them.
#[derive(Debug)]
pub struct AckedLog {
    seed: u64,
    messages_max: u64,
    batches: Vec<AckedBatch>,
    messages: u64,
    /// Batches whose number is a multiple of this are kept.
    one_in: u64,
}

impl AckedLog {
    /// An empty record of the population `seed`, for at most `messages_max` messages (at least one batch is kept whatever it holds).
    #[must_use]
    pub fn new(seed: u64, messages_max: u64) -> Self {
        Self { seed, messages_max, batches: Vec::new(), messages: 0, one_in: 1 }
    }

    /// Records batch `number`: its messages, and the rows that were refused (rising, each below the number of messages).
    pub(crate) fn record(&mut self, number: u64, trail: Box<[Trail]>, refused: &[u32]) {
        if !number.is_multiple_of(self.one_in) || refused.len() >= trail.len() {
            return;
        }
        let messages = if refused.is_empty() {
            trail
        } else {
            let mut refused = refused.iter().copied().peekable();
            let accepted = |(row, _): &(usize, Trail)| refused.next_if_eq(&(*row as u32)).is_none();
            trail.iter().copied().enumerate().filter(accepted).map(|(_, trail)| trail).collect()
        };
        self.messages += messages.len() as u64;
        self.batches.push(AckedBatch { number, messages });
        while self.messages > self.messages_max && self.batches.len() > 1 && self.one_in < u64::MAX / 2 {
            self.one_in *= 2;
            let one_in = self.one_in;
            self.batches.retain(|batch| batch.number % one_in == 0);
            self.messages = self.batches.iter().map(|batch| batch.messages.len() as u64).sum();
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

    /// Whose messages they are: the seed of the population.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The recorded messages.
    pub fn iter(&self) -> impl Iterator<Item = Acked> + '_ {
        let acked = |trail: &Trail| Acked { device: trail.device, sequence: trail.sequence, id: trail.id };
        self.batches.iter().flat_map(move |batch| batch.messages.iter().map(acked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(messages_max: u64) -> AckedLog {
        AckedLog::new(0, messages_max)
    }

    fn trail(first: u64, count: u64) -> Box<[Trail]> {
        (first..first + count)
            .map(|number| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&number.to_le_bytes());
                Trail { id: MessageId(id), device: number, sequence: number }
            })
            .collect()
    }

    #[test]
    fn refused_rows_are_left_out() {
        let mut log = log(100);
        log.record(0, trail(0, 5), &[0, 3]);
        log.record(1, trail(5, 2), &[0, 1]);
        log.record(2, trail(7, 2), &[]);
        let devices: Vec<u64> = log.iter().map(|acked| acked.device).collect();
        assert_eq!(devices, [1, 2, 4, 7, 8]);
        assert_eq!(log.messages(), 5);
        for acked in log.iter() {
            assert_eq!(acked.id, trail(acked.device, 1)[0].id);
        }
    }

    #[test]
    fn beyond_the_limit_a_uniform_sample_stays_and_its_rate_is_told() {
        let mut log = log(1_000);
        for number in 0..1_000 {
            log.record(number, trail(number * 10, 10), &[]);
            assert!(log.messages() <= 1_000);
        }
        assert_eq!(log.sampled_one_in(), 16);
        let batches: Vec<u64> = log.iter().step_by(10).map(|acked| acked.device / 10).collect();
        let expected: Vec<u64> = (0..1_000).step_by(16).collect();
        assert_eq!(batches, expected);
        assert_eq!(log.messages(), log.iter().count() as u64);
    }
}
