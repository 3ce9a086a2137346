//! Accounts, balances, locks, and the rule by which a validator judges an operation.
//!
//! Owns the ledger: what each account has, the next sequence it may use, the operation that it is locked to. It only
//! grows: an operation enters once it is final, its predecessor is in, and the balance covers it; so what was valid
//! at one honest node becomes valid at every one. Invariants: money is conserved, no balance leaves 0..=2^64-1, and
//! an account has at most one lock, for its next sequence. When an operation is final is left to
//! `settle`.
//!
//! Memory: an account exists once it was paid, so money bounds their number; a lock exists for an operation that is
//! accepted here and not in the ledger yet.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::rules::{Rule, Rules};
use super::transfer::{Operation, OperationHash};
use crate::genesis::Balance;
use crate::ids::DeviceKey;

/// Hashes of an account's last operations that are remembered, to tell one sent again from another one for the same
/// sequence. An older one is rejected either way: it is in the ledger, so nothing depends on the votes for its copy.
pub const RECENT_HASHES_MAX: usize = 8;

/// What a validator says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the ledger already: nothing to vote on.
    Moot,
    /// Accepted: the account is locked to it.
    Accept,
    /// Another operation for this sequence is accepted here, or in the ledger.
    Reject,
    /// Its predecessor or the money for it is not here yet: the batch waits.
    Wait,
}

/// What an account has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Units.
    pub balance: u64,
    /// Sequence of the next operation: all before it are in the ledger.
    pub next: u64,
    /// Hashes of the last operations, the newest at the back.
    recent: VecDeque<OperationHash>,
}

/// The operation that an account is locked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The account.
    pub account: DeviceKey,
    /// The sequence.
    pub sequence: u64,
    /// Hash of the operation that was accepted.
    pub hash: [u8; 32],
}

/// Balances and locks.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<DeviceKey, Account>,
    locks: BTreeMap<DeviceKey, Lock>,
    /// Operations for the next sequence seen in applied batches: the first, and whether there was another.
    seen: BTreeMap<DeviceKey, (Lock, bool)>,
    /// Final operations whose predecessor or money is not in yet.
    waiting: BTreeMap<(DeviceKey, u64), Operation>,
}

impl Ledger {
    /// The ledger at the start.
    #[must_use]
    pub fn new(balances: &[Balance]) -> Self {
        let account =
            |balance: &Balance| (balance.account, Account { balance: balance.amount, ..Account::default() });
        Self { accounts: balances.iter().map(account).collect(), ..Self::default() }
    }

    /// An account, if it ever had money.
    #[must_use]
    pub fn account(&self, key: &DeviceKey) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// All accounts, in order of keys.
    pub fn accounts(&self) -> impl Iterator<Item = (&DeviceKey, &Account)> {
        self.accounts.iter()
    }

    /// The lock of an account, if it has one.
    #[must_use]
    pub fn lock_of(&self, key: &DeviceKey) -> Option<&Lock> {
        self.locks.get(key)
    }

    /// Whether two different operations for the account's next sequence lie in applied batches: its owner signed both, and
    /// neither may ever be final.
    #[must_use]
    pub fn is_contested(&self, key: &DeviceKey) -> bool {
        let next = self.accounts.get(key).map(|account| account.next);
        self.seen.get(key).is_some_and(|(first, others)| *others && Some(first.sequence) == next)
    }

    /// All locks, in order of accounts.
    pub fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.values()
    }

    /// Puts back the locks that were durable before a restart.
    pub(crate) fn restore_locks(&mut self, locks: &[Lock]) {
        self.locks.extend(locks.iter().map(|lock| (lock.account, *lock)));
    }

    /// What `lock` says under `rules`: the operation's hash, or weakened its message's id.
    fn lock_value(operation: &Operation, rules: &impl Rules) -> [u8; 32] {
        if rules.weakens(Rule::LockById) { operation.message.0 } else { operation.hash.0 }
    }

    /// Judges an operation, given the locks that earlier operations of the same batch have taken.
    pub(crate) fn judge(
        &self,
        operation: &Operation,
        taken: &BTreeMap<DeviceKey, Lock>,
        rules: &impl Rules,
    ) -> Verdict {
        let Some(account) = self.accounts.get(&operation.account) else {
            return if rules.weakens(Rule::RejectUncovered) { Verdict::Reject } else { Verdict::Wait };
        };
        if operation.sequence < account.next {
            let same = account.recent.contains(&operation.hash);
            return if same { Verdict::Moot } else { Verdict::Reject };
        }
        let value = Self::lock_value(operation, rules);
        if let Some(lock) = taken.get(&operation.account).or_else(|| self.locks.get(&operation.account)) {
            // A lock of a later sequence was taken when this one was in the ledger already.
            if lock.sequence > operation.sequence
                || (lock.sequence == operation.sequence && lock.hash != value)
            {
                return Verdict::Reject;
            }
        }
        if operation.sequence == account.next && operation.amount <= account.balance {
            return Verdict::Accept;
        }
        if rules.weakens(Rule::RejectUncovered) { Verdict::Reject } else { Verdict::Wait }
    }

    /// Judges an operation that was final here before a restart and whose vote was not stated yet. It had passed all
    /// gates then: it was accepted, and its lock is here or its sequence had entered the ledger; or another one was. So
    /// without its lock it is rejected, which is safe, and needed by nobody if it is in the ledger of an honest node
    /// already. Waiting for the ledger instead would be waiting for oneself.
    pub(crate) fn judge_again(&self, operation: &Operation, rules: &impl Rules) -> Verdict {
        if self.has_passed(operation) {
            return self.judge(operation, &BTreeMap::new(), rules);
        }
        let value = Self::lock_value(operation, rules);
        let lock = self.locks.get(&operation.account).filter(|lock| lock.sequence == operation.sequence);
        match lock {
            Some(lock) if lock.hash == value => Verdict::Accept,
            _ => Verdict::Reject,
        }
    }

    /// The lock that accepting `operation` takes.
    pub(crate) fn lock_for(operation: &Operation, rules: &impl Rules) -> Lock {
        let hash = Self::lock_value(operation, rules);
        Lock { account: operation.account, sequence: operation.sequence, hash }
    }

    /// Takes locks. They are durable with the next witness, before it leaves.
    pub(crate) fn lock(&mut self, locks: BTreeMap<DeviceKey, Lock>, rules: &impl Rules) {
        if rules.weakens(Rule::LoseLocks) {
            self.locks.clear();
            return;
        }
        self.locks.extend(locks);
    }

    /// Notes an operation of an applied batch, for [`may_append`](Self::may_append).
    pub(crate) fn see(&mut self, operation: &Operation) {
        let Some(account) = self.accounts.get(&operation.account) else { return };
        if operation.sequence != account.next {
            return;
        }
        let (account, sequence, hash) = (operation.account, operation.sequence, operation.hash.0);
        let first = Lock { account, sequence, hash };
        let seen = self.seen.entry(account).or_insert((first, false));
        if seen.0.sequence != sequence {
            *seen = (first, false);
        }
        seen.1 |= seen.0.hash != hash;
    }

    /// Whether this node may append the operation to its lane: it would accept it, and has seen no other for this
    /// sequence.
    pub(crate) fn may_append(&self, operation: &Operation, rules: &impl Rules) -> bool {
        let seen = self.seen.get(&operation.account).filter(|seen| seen.0.sequence == operation.sequence);
        let alone = seen.is_none_or(|(first, others)| !others && first.hash == operation.hash.0);
        // A lock by message id would refuse what the rule under test must refuse itself.
        let locks_by_id = rules.weakens(Rule::LockById);
        let verdict = match self.judge(operation, &BTreeMap::new(), rules) {
            Verdict::Reject if locks_by_id && alone => Verdict::Accept,
            verdict => verdict,
        };
        alone && verdict == Verdict::Accept
    }

    /// Takes a final operation, and hands out all that thereby enter the ledger, in order.
    pub(crate) fn settle(&mut self, operation: Operation) -> Vec<Operation> {
        let next = self.accounts.get(&operation.account).map_or(0, |account| account.next);
        if operation.sequence < next {
            return Vec::new();
        }
        self.waiting.entry((operation.account, operation.sequence)).or_insert(operation);
        let mut entered = Vec::new();
        let mut check = alloc::vec![operation.account];
        while let Some(key) = check.pop() {
            while let Some(operation) = self.enter_next(&key) {
                check.push(operation.to);
                entered.push(operation);
            }
        }
        entered
    }

    /// Enters the next operation of an account, if it is final and covered.
    fn enter_next(&mut self, key: &DeviceKey) -> Option<Operation> {
        let account = self.accounts.get_mut(key)?;
        let operation = *self.waiting.get(&(*key, account.next))?;
        account.balance = account.balance.checked_sub(operation.amount)?;
        account.next += 1;
        account.recent.push_back(operation.hash);
        if account.recent.len() > RECENT_HASHES_MAX {
            account.recent.pop_front();
        }
        let passed = account.next;
        self.waiting.remove(&(*key, operation.sequence));
        // Money is conserved, so a credit never overflows: all balances together were in 64 bits at the start.
        let credited = self.accounts.entry(operation.to).or_default();
        credited.balance = credited.balance.saturating_add(operation.amount);
        if self.locks.get(key).is_some_and(|lock| lock.sequence < passed) {
            self.locks.remove(key);
        }
        if self.seen.get(key).is_some_and(|(seen, _)| seen.sequence < passed) {
            self.seen.remove(key);
        }
        Some(operation)
    }

    /// Whether an operation has no effect any more: its sequence is in the ledger.
    pub(crate) fn has_passed(&self, operation: &Operation) -> bool {
        self.accounts.get(&operation.account).is_some_and(|account| operation.sequence < account.next)
    }
}
