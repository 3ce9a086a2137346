//! Rules under which one rule does not hold: what the simulator's canaries run.
//!
//! Invariant: without a rule to weaken this is [`Strict`](weft_core::confirm::Strict), and the same seed gives the same
//! run.

use std::cell::Cell;

use weft_core::confirm::{Rule, Rules};

/// All rules but one.
#[derive(Clone, Debug)]
pub struct Weak {
    rule: Option<Rule>,
    state: Cell<u64>,
}

impl Weak {
    /// All rules but `rule`; `seed` decides when a rule that fails now and then fails.
    #[must_use]
    pub fn new(rule: Option<Rule>, seed: u64) -> Self {
        Self { rule, state: Cell::new(seed) }
    }

    /// One chance in `of`.
    fn chance(&self, of: u64) -> bool {
        // Knuth's MMIX generator; its high bits are good enough for a fault.
        let next =
            self.state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state.set(next);
        (next >> 33).is_multiple_of(of)
    }
}

impl Rules for Weak {
    fn weakens(&self, rule: Rule) -> bool {
        self.rule == Some(rule)
            && match rule {
                Rule::EagerSwitch => self.chance(2),
                Rule::LoseLocks => self.chance(3),
                _ => true,
            }
    }
}
