//! The gate for witnesses that come on the stream.
//!
//! Owns what is looked at and in which order: what costs nothing first. Invariants: only what its validator has signed passes; what was
//! followed already costs no verification; of one validator at most [`BURST`] witnesses are verified at once and [`PER_SECOND`] a second, fewer
//! if they are full of rejects, so that neither it nor whoever repeats its witnesses takes the time of batches. What does not pass for want of budget is asked for again
//! when its chain is behind. A second witness with a number that was followed lately does pass: it proves something.

use std::time::Instant;

use bytes::Bytes;
use weft_core::confirm::Witness;
use weft_core::{MessageId, MessageView, NetworkId, NodeKey, PayloadKind};

/// Witnesses of one validator that are verified a second: a chain grows by ten, one that is caught up on comes as fast as this.
pub const PER_SECOND: u64 = 2_000;

/// Witnesses of one validator that are verified at once: several answers to a question for a chain.
pub const BURST: u64 = 1_024;

/// A witness so far behind the last one followed proves nothing: the machine remembers as many ids.
const PROVES_WITHIN: u64 = 64;

/// What one witness takes of a budget, which fills by the microsecond.
const COST_US: u64 = 1_000_000 / PER_SECOND;

/// So many rejects take a microsecond more: a witness of sixteen kilobytes may name 130,000, and reading and counting them takes milliseconds.
const REJECTS_PER_US: u64 = 8;

/// What was seen in a message.
#[derive(Debug)]
pub enum Seen {
    /// No honest node sends it.
    Nonsense(&'static str),
    /// This validator has not signed it. Whoever passes on what lies in its lane is not to blame for what is in it.
    Unsigned(u16),
    /// It was followed, or proves nothing any more.
    Known,
    /// Its validator's budget is used up.
    TooMany,
    /// A witness of this validator.
    New {
        /// Whose.
        validator: u16,
        /// Id of its message.
        id: MessageId,
        /// What it says.
        witness: Witness,
    },
}

/// One validator's budget.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left_us: u64,
    at: Instant,
}

impl Budget {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_micros();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.left_us = self.left_us.saturating_add(passed).min(BURST * COST_US);
        self.at = now;
    }
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    keys: Vec<NodeKey>,
    network: NetworkId,
    budgets: Vec<Budget>,
}

impl Gate {
    /// A gate for the witnesses of validators with these keys.
    pub fn new(keys: Vec<NodeKey>, network: NetworkId) -> Self {
        let full = Budget { left_us: BURST * COST_US, at: Instant::now() };
        Self { budgets: vec![full; keys.len()], keys, network }
    }

    /// Looks at a message that is said to be a witness. `followed` tells the number followed of a validator, `known` the message with a
    /// number of it that was followed lately.
    pub fn look(
        &mut self,
        message: &Bytes,
        followed: impl Fn(u16) -> u64,
        known: impl Fn(u16, u64) -> Option<Bytes>,
        now: Instant,
    ) -> Seen {
        let Ok(view) = MessageView::parse(message) else {
            return Seen::Nonsense("a witness that is no message");
        };
        let validator = self.keys.iter().position(|key| key == view.issuer());
        let Some(validator) = validator.filter(|_| view.kind() == PayloadKind::WITNESS) else {
            return Seen::Nonsense("a witness of nobody who votes");
        };
        if view.network() != self.network {
            return Seen::Nonsense("a witness of another ledger");
        }
        let Some(budget) = self.budgets.get_mut(validator) else { return Seen::Known };
        // A genesis has at most 1,024 validators.
        let validator = validator as u16;
        let followed = followed(validator);
        // The number is read before the rest, which may be a hundred thousand rejects.
        if Witness::peek_number(view.payload())
            .is_some_and(|number| number.saturating_add(PROVES_WITHIN) <= followed)
        {
            return Seen::Known;
        }
        let number = Witness::peek_number(view.payload()).unwrap_or(0);
        if number <= followed && known(validator, number).is_some_and(|known| known == *message) {
            return Seen::Known;
        }
        budget.refill(now);
        if budget.left_us < COST_US {
            return Seen::TooMany;
        }
        let Ok(witness) = Witness::decode(view.payload()) else {
            return Seen::Nonsense("a witness that says nothing");
        };
        let id = view.id();
        if !weft_crypto::serial::verify_one(&view.issuer().0, &id.0, view.signature()) {
            // Whoever sent it has made it up: its validator's budget is not its.
            return Seen::Unsigned(validator);
        }
        let rejects: usize = witness.rejects.iter().map(|rejects| rejects.positions.len()).sum();
        budget.left_us = budget.left_us.saturating_sub(COST_US + rejects as u64 / REJECTS_PER_US);
        Seen::New { validator, id, witness }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_core::confirm::{Claim, Rejects};
    use weft_core::{DeviceSigner, Draft, LaneId};

    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 4]);

    fn message(seed: u8, number: u64, issued_at_us: u64) -> Bytes {
        let predecessor = MessageId([u8::from(number > 1); 32]);
        let witness = Witness { number, predecessor, ..Witness::default() };
        signed(seed, number, issued_at_us, &witness)
    }

    fn signed(seed: u8, number: u64, issued_at_us: u64, witness: &Witness) -> Bytes {
        let draft = Draft {
            network: NETWORK,
            issued_at_us,
            sequence: number,
            parents: [MessageId([1; 32]), MessageId([2; 32])],
            kind: PayloadKind::WITNESS,
            payload: &witness.encode().unwrap(),
        };
        Bytes::from(draft.sign(&DeviceSigner::from_seed([seed; 32])).unwrap())
    }

    fn gate() -> Gate {
        Gate::new([3, 4].map(|seed| DeviceSigner::from_seed([seed; 32]).public()).to_vec(), NETWORK)
    }

    fn forged(message: &Bytes) -> Bytes {
        let mut bytes = message.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        Bytes::from(bytes)
    }

    #[test]
    fn what_was_followed_is_not_verified_again_and_a_second_one_with_its_number_is() {
        let (mut gate, now) = (gate(), Instant::now());
        let (first, second, old) = (message(3, 100, 1), message(3, 100, 2), message(3, 36, 1));
        let mut look = |message: &Bytes| gate.look(message, |_| 100, |_, _| Some(first.clone()), now);
        assert!(matches!(look(&first), Seen::Known));
        // Not verified: else it would be nonsense.
        assert!(matches!(look(&forged(&old)), Seen::Known), "it proves nothing any more");
        assert!(matches!(look(&forged(&second)), Seen::Unsigned(_)));
        assert!(
            matches!(look(&second), Seen::New { validator: 0, .. }),
            "signed twice: the machine must see it"
        );
        assert!(matches!(look(&message(3, 101, 1)), Seen::New { .. }));
        assert!(matches!(look(&message(9, 101, 1)), Seen::Nonsense(_)), "of nobody who votes");
    }

    #[test]
    fn a_witness_that_names_a_hundred_thousand_rejects_takes_more_of_its_validators_budget() {
        let (mut gate, now) = (gate(), Instant::now());
        let claim = Claim { lane: LaneId(0), size: 1 << 30, root: [1; 32] };
        let rejects = Rejects { lane: LaneId(0), positions: (0..128_000).collect() };
        let witness = Witness { number: 1, cut: vec![claim], rejects: vec![rejects], ..Witness::default() };
        let large = signed(3, 1, 1, &witness);
        let passed = |gate: &mut Gate, message: &Bytes| {
            let seen = || gate.look(message, |_| 0, |_, _| None, now);
            std::iter::repeat_with(seen).take_while(|seen| matches!(seen, Seen::New { .. })).count() as u64
        };
        let (large, small) = (passed(&mut gate, &large), passed(&mut gate, &message(4, 1, 1)));
        assert_eq!(small, BURST);
        assert!(large <= BURST / 30, "{large} of {small}");
    }

    #[test]
    fn a_validator_that_signs_without_end_uses_up_its_own_budget_and_no_other_ones() {
        let (mut gate, now) = (gate(), Instant::now());
        let mut look = |message: &Bytes, after_ms| {
            gate.look(message, |_| 0, |_, _| None, now + Duration::from_millis(after_ms))
        };
        let (mine, other) = (message(3, 1, 1), message(4, 1, 1));
        for _ in 0..2 * BURST {
            assert!(matches!(look(&forged(&other), 0), Seen::Unsigned(_)), "costs the other one nothing");
            if matches!(look(&mine, 0), Seen::TooMany) {
                break;
            }
        }
        assert!(matches!(look(&mine, 0), Seen::TooMany));
        assert!(matches!(look(&other, 0), Seen::New { .. }));
        assert!(matches!(look(&mine, 10), Seen::New { .. }), "it fills again");
    }
}
