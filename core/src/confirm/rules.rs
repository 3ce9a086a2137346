//! The rules of confirmation by name, so that a simulator can weaken one of them and must then find out.
//!
//! Owns the list. Invariant: production code is `Machine<Strict>`; [`Strict`] has no state and answers false to
//! everything, so the compiler leaves no switch in it. Each rule stands where it is used, as
//! `if rules.weakens(Rule::...)`; what breaks without it is in `docs/confirmation.md`.

/// One rule that a simulation can weaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// Who has not covered an operation counts as accepting it.
    UncoveredAccepts,
    /// An operation is final because its prefix is: rejects are not counted.
    FinalByPrefix,
    /// The ledger takes operations at level 1.
    LedgerAtLevelOne,
    /// A third of certified cuts does not amplify.
    NoAmplification,
    /// One certified cut amplifies.
    AmplifyByOne,
    /// Parents need be certified only, not final.
    CiteCertified,
    /// After a fork nothing is stated again.
    NoRestating,
    /// The copy never changes.
    NoSwitch,
    /// The copy changes without a certified prefix.
    EagerSwitch,
    /// Half of the weight is a quorum of cuts.
    Majority,
    /// Locks hold the message's id, not the operation's hash.
    LockById,
    /// Locks are forgotten now and then.
    LoseLocks,
    /// A validator that was restored from an old backup goes on voting.
    Amnesia,
    /// What the balance does not cover yet is rejected, not waited for.
    RejectUncovered,
    /// Certified cuts count without comparing roots.
    UncheckedRoots,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 15] = [
        Self::UncoveredAccepts,
        Self::FinalByPrefix,
        Self::LedgerAtLevelOne,
        Self::NoAmplification,
        Self::AmplifyByOne,
        Self::CiteCertified,
        Self::NoRestating,
        Self::NoSwitch,
        Self::EagerSwitch,
        Self::Majority,
        Self::LockById,
        Self::LoseLocks,
        Self::Amnesia,
        Self::RejectUncovered,
        Self::UncheckedRoots,
    ];
}

/// Which rules hold. Asked at every place where a rule stands.
pub trait Rules {
    /// Whether `rule` is weakened here and now.
    fn weakens(&self, rule: Rule) -> bool;
}

/// All rules hold: what every node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strict;

impl Rules for Strict {
    #[inline]
    fn weakens(&self, _: Rule) -> bool {
        false
    }
}
