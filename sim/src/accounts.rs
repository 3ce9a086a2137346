//! The accounts of a run and what they order.
//!
//! Four accounts: A is honest and signs the same payload again for several gateways; P spends what it received, at
//! once; E signs two payloads for one sequence; Q only receives. Invariant: an honest account has one payload per
//! sequence.

use weft_core::confirm::{Operation, OperationHash, Transfer};
use weft_core::{Balance, DeviceKey, MessageId};

use crate::keys::{Key, Scheme};

/// A run's accounts.
#[derive(Clone, Copy, Debug)]
pub struct Accounts {
    /// Pays P and E in turn; has 3 units.
    pub a: Key,
    /// Pays A.
    pub p: Key,
    /// Pays P or Q, with the same sequence; has 2 units.
    pub e: Key,
    /// Never pays.
    pub q: Key,
}

/// Number of the first account's key; nodes have the numbers below.
const FIRST_KEY: u64 = 1 << 32;

/// All money.
pub const SUPPLY: u64 = 5;

/// Which account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that signs again.
    A,
    /// The one that spends what it received.
    P,
    /// The one that signs twice.
    E,
}

impl Accounts {
    /// The accounts of a run.
    #[must_use]
    pub fn new(scheme: Scheme, seed: u64) -> Self {
        let key = |number| Key::new(scheme, seed, FIRST_KEY + number);
        Self { a: key(0), p: key(1), e: key(2), q: key(3) }
    }

    /// What they have at the start.
    #[must_use]
    pub fn balances(&self) -> Vec<Balance> {
        let balance = |key: &Key, amount| Balance { account: key.public(), amount };
        let mut balances = vec![balance(&self.a, 3), balance(&self.e, 2)];
        balances.sort_unstable_by_key(|balance| balance.account);
        balances
    }

    /// The account's key.
    #[must_use]
    pub const fn key(&self, who: Who) -> &Key {
        match who {
            Who::A => &self.a,
            Who::P => &self.p,
            Who::E => &self.e,
        }
    }

    /// Whether an account never signs two payloads for one sequence.
    #[must_use]
    pub fn is_honest(&self, account: &DeviceKey) -> bool {
        *account != self.e.public()
    }

    /// The payload of an account's operation; E has two, by `choice`.
    #[must_use]
    pub fn payload(&self, who: Who, sequence: u64, choice: bool) -> Vec<u8> {
        let to = match (who, sequence % 2, choice) {
            (Who::A, 0, _) | (Who::E, _, false) => &self.p,
            (Who::A, ..) => &self.e,
            (Who::P, ..) => &self.a,
            (Who::E, _, true) => &self.q,
        };
        let transfer = Transfer { account_sequence: sequence, to: to.public(), amount: 1, memo: b"" };
        transfer.encode().expect("it pays one unit")
    }

    /// The operation that a payload of this account is, in the message with this id.
    #[must_use]
    pub fn operation(&self, who: Who, payload: &[u8], message: MessageId) -> Operation {
        let transfer = Transfer::decode(payload).expect("it was just encoded");
        Operation {
            account: self.key(who).public(),
            sequence: transfer.account_sequence,
            hash: OperationHash::of(payload),
            to: transfer.to,
            amount: transfer.amount,
            message,
        }
    }
}
