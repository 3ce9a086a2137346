//! Queries about receipts and accounts, and their answers.
//!
//! Owns their types and their bytes. Each query is one request of a session: it has the credit, the order and the
//! errors of any other. Invariants: as for all frames ([`codec`](crate::codec)); an answer's kind is the one that its
//! query asks for. What the node knows is left to its service.
//!
//! | type | frame | body after the request id u64 |
//! |---|---|---|
//! | 64 | GetReceipt | message id 32, size u64 (0: the newest final one) |
//! | 65 | Receipt | length u32, a C2SP tlog-proof, text |
//! | 66 | GetConsistency | lane u16, old size u64 (not 0), size u64 (0: the newest final one) |
//! | 67 | Consistency | length u32, `old SIZE`, the proof and the later signed checkpoint, text |
//! | 68 | Cosign | lane u16, size u64, root 32 |
//! | 69 | Cosignature | validator u16, time u64 (seconds since the Unix epoch, below 2^63), signature 64 |
//! | 70 | GetAccount | account 32 |
//! | 71 | Account | state u8 (0 unknown, 1 open, 2 frozen), locked u8 (0, 1), balance u64, next sequence u64; if locked: sequence u64, hash 32 |
//! | 72 | GetHistory | account 32, pair u8 (0, 1), if 1 the other account 32, cursor u64, count u16 (1..=256) |
//! | 73 | History | next cursor u64 (0: no more), count u16 (<= 256), count x (place u64, message id 32, from 32, to 32, sequence u64, amount u64, issued at u64, memo length u16 (<= 256), memo) |

use bytes::Bytes;
use weft_core::confirm::transfer::MEMO_BYTES_MAX;
use weft_core::merkle::Hash;
use weft_core::receipt::RECEIPT_BYTES_MAX;
use weft_core::{Cosignature, DeviceKey, LANES_MAX, LaneId, MessageId, Place};

use crate::codec::{Body, FrameError, at_most, one_to};
use crate::frame::FrameKind;

/// Entries of one History frame, at most: 100 KB with the longest memos.
pub const HISTORY_MAX: usize = 256;

/// Bytes of a history entry without its memo.
const HISTORY_ENTRY_BYTES: usize = 8 + 3 * 32 + 3 * 8 + 2;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The receipt of a message.
    Receipt {
        /// The message.
        id: MessageId,
        /// Size of the lane that it is to prove; 0 for the newest final one.
        size: u64,
    },
    /// The proof that a lane extends what it was.
    Consistency {
        /// The lane.
        lane: LaneId,
        /// The earlier size, not 0.
        old_size: u64,
        /// The later size; 0 for the newest final one.
        size: u64,
    },
    /// A validator's signature under a checkpoint.
    Cosign {
        /// The lane.
        lane: LaneId,
        /// Its size, at the end of a batch.
        size: u64,
        /// Its root there.
        root: Hash,
    },
    /// What an account has.
    Account {
        /// The account.
        account: DeviceKey,
    },
    /// Payments of an account, the newest first.
    History {
        /// The account.
        account: DeviceKey,
        /// Only those between it and this one.
        other: Option<DeviceKey>,
        /// Where to go on: a cursor of an earlier answer of this node, or 0 to start.
        cursor: u64,
        /// How many, 1 to [`HISTORY_MAX`].
        count: u16,
    },
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A receipt as it stands in a file; to be parsed and verified by who asked.
    Receipt(Bytes),
    /// A consistency proof as it stands in a file.
    Consistency(Bytes),
    /// A validator's signature.
    Cosignature(Cosignature),
    /// What an account has.
    Account(AccountState),
    /// Payments.
    History(History),
}

/// How an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AccountStanding {
    /// It was never paid anything.
    Unknown = 0,
    /// It can pay.
    Open = 1,
    /// Its owner signed two operations for its next sequence: it may have stopped itself.
    Frozen = 2,
}

/// What an account has, by the ledger of the node that answers: final operations only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// How it is.
    pub standing: AccountStanding,
    /// Units.
    pub balance: u64,
    /// Sequence of its next operation.
    pub next: u64,
    /// The operation that this validator has accepted and that is not in the ledger yet: sequence and hash.
    pub lock: Option<(u64, Hash)>,
}

/// One payment in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Where the message that carried it lies.
    pub place: Place,
    /// That message.
    pub id: MessageId,
    /// Who paid.
    pub from: DeviceKey,
    /// Who was paid.
    pub to: DeviceKey,
    /// Sequence of the paying account.
    pub sequence: u64,
    /// Units.
    pub amount: u64,
    /// Clock of the device that paid, microseconds since the Unix epoch.
    pub issued_at_us: u64,
    /// A few bytes for people, at most 256.
    pub memo: Bytes,
}

/// Payments, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Where to go on; 0 if these were the last.
    pub next_cursor: u64,
    /// The payments.
    pub payments: Vec<Payment>,
}

/// Largest body of a frame of one of these kinds; `None` for other kinds.
pub(crate) fn body_bytes_max(kind: FrameKind) -> Option<usize> {
    Some(match kind {
        FrameKind::GetReceipt => 8 + 32 + 8,
        FrameKind::GetConsistency => 8 + 2 + 8 + 8,
        FrameKind::Receipt | FrameKind::Consistency => 8 + 4 + RECEIPT_BYTES_MAX,
        FrameKind::Cosign => 8 + 2 + 8 + 32,
        FrameKind::Cosignature => 8 + 2 + 8 + 64,
        FrameKind::GetAccount => 8 + 32,
        FrameKind::Account => 8 + 2 + 16 + 40,
        FrameKind::GetHistory => 8 + 32 + 1 + 32 + 8 + 2,
        FrameKind::History => 8 + 8 + 2 + HISTORY_MAX * (HISTORY_ENTRY_BYTES + MEMO_BYTES_MAX),
        _ => return None,
    })
}

fn lane(body: &mut Body) -> Result<LaneId, FrameError> {
    match body.u16("lane")? {
        got if got < LANES_MAX => Ok(LaneId(got)),
        got => Err(FrameError::Value { field: "lane", got: got.into() }),
    }
}

fn flag(body: &mut Body, field: &'static str) -> Result<bool, FrameError> {
    match body.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(FrameError::Value { field, got: got.into() }),
    }
}

/// A text of a file. Whether it is UTF-8 is for its parser to say.
fn text(body: &mut Body) -> Result<Bytes, FrameError> {
    let length = body.u32("text")? as usize;
    at_most("bytes of text", length, RECEIPT_BYTES_MAX)?;
    body.take("text", length)
}

impl Query {
    /// The type of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Receipt { .. } => FrameKind::GetReceipt,
            Self::Consistency { .. } => FrameKind::GetConsistency,
            Self::Cosign { .. } => FrameKind::Cosign,
            Self::Account { .. } => FrameKind::GetAccount,
            Self::History { .. } => FrameKind::GetHistory,
        }
    }

    /// The type of the frame that answers it.
    #[must_use]
    pub fn answer_kind(&self) -> FrameKind {
        match self {
            Self::Receipt { .. } => FrameKind::Receipt,
            Self::Consistency { .. } => FrameKind::Consistency,
            Self::Cosign { .. } => FrameKind::Cosignature,
            Self::Account { .. } => FrameKind::Account,
            Self::History { .. } => FrameKind::History,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Receipt { id, size } => {
                out.extend_from_slice(&id.0);
                out.extend_from_slice(&size.to_le_bytes());
            }
            Self::Consistency { lane, old_size, size } => {
                out.extend_from_slice(&lane.0.to_le_bytes());
                out.extend_from_slice(&old_size.to_le_bytes());
                out.extend_from_slice(&size.to_le_bytes());
            }
            Self::Cosign { lane, size, root } => {
                out.extend_from_slice(&lane.0.to_le_bytes());
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(root);
            }
            Self::Account { account } => out.extend_from_slice(&account.0),
            Self::History { account, other, cursor, count } => {
                out.extend_from_slice(&account.0);
                out.push(u8::from(other.is_some()));
                if let Some(other) = other {
                    out.extend_from_slice(&other.0);
                }
                out.extend_from_slice(&cursor.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
    }

    /// Reads what follows the request id; `None` if `kind` is no query of these.
    pub(crate) fn decode(kind: FrameKind, body: &mut Body) -> Result<Option<Self>, FrameError> {
        Ok(Some(match kind {
            FrameKind::GetReceipt => {
                Self::Receipt { id: MessageId(body.array("message id")?), size: body.u64("size")? }
            }
            FrameKind::GetConsistency => {
                let lane = lane(body)?;
                let old_size = body.u64("old size")?;
                if old_size == 0 {
                    return Err(FrameError::Value { field: "old size", got: 0 });
                }
                Self::Consistency { lane, old_size, size: body.u64("size")? }
            }
            FrameKind::Cosign => {
                Self::Cosign { lane: lane(body)?, size: body.u64("size")?, root: body.array("root")? }
            }
            FrameKind::GetAccount => Self::Account { account: DeviceKey(body.array("account")?) },
            FrameKind::GetHistory => {
                let account = DeviceKey(body.array("account")?);
                let other = flag(body, "pair")?.then(|| body.array("other account")).transpose()?;
                let cursor = body.u64("cursor")?;
                let count = body.u16("count")?;
                one_to("entries", count.into(), HISTORY_MAX)?;
                Self::History { account, other: other.map(DeviceKey), cursor, count }
            }
            _ => return Ok(None),
        }))
    }
}

impl Answer {
    /// The type of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Receipt(_) => FrameKind::Receipt,
            Self::Consistency(_) => FrameKind::Consistency,
            Self::Cosignature(_) => FrameKind::Cosignature,
            Self::Account(_) => FrameKind::Account,
            Self::History(_) => FrameKind::History,
        }
    }

    /// Whether a frame can hold it.
    pub(crate) fn fits(&self) -> bool {
        match self {
            Self::Receipt(text) | Self::Consistency(text) => text.len() <= RECEIPT_BYTES_MAX,
            Self::Cosignature(cosignature) => cosignature.time_s <= i64::MAX as u64,
            Self::Account(_) => true,
            Self::History(history) => {
                history.payments.len() <= HISTORY_MAX
                    && history.payments.iter().all(|payment| payment.memo.len() <= MEMO_BYTES_MAX)
            }
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Receipt(text) | Self::Consistency(text) => {
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text);
            }
            Self::Cosignature(cosignature) => {
                out.extend_from_slice(&cosignature.validator.to_le_bytes());
                out.extend_from_slice(&cosignature.time_s.to_le_bytes());
                out.extend_from_slice(&cosignature.signature);
            }
            Self::Account(account) => {
                out.extend_from_slice(&[account.standing as u8, u8::from(account.lock.is_some())]);
                out.extend_from_slice(&account.balance.to_le_bytes());
                out.extend_from_slice(&account.next.to_le_bytes());
                if let Some((sequence, hash)) = &account.lock {
                    out.extend_from_slice(&sequence.to_le_bytes());
                    out.extend_from_slice(hash);
                }
            }
            Self::History(history) => {
                out.extend_from_slice(&history.next_cursor.to_le_bytes());
                out.extend_from_slice(&(history.payments.len() as u16).to_le_bytes());
                history.payments.iter().for_each(|payment| payment.encode(out));
            }
        }
    }

    /// Reads what follows the request id; `None` if `kind` is no answer of these.
    pub(crate) fn decode(kind: FrameKind, body: &mut Body) -> Result<Option<Self>, FrameError> {
        Ok(Some(match kind {
            FrameKind::Receipt => Self::Receipt(text(body)?),
            FrameKind::Consistency => Self::Consistency(text(body)?),
            FrameKind::Cosignature => {
                let validator = body.u16("validator")?;
                let time_s = body.u64("time")?;
                if time_s > i64::MAX as u64 {
                    return Err(FrameError::Value { field: "time", got: time_s });
                }
                Self::Cosignature(Cosignature { validator, time_s, signature: body.array("signature")? })
            }
            FrameKind::Account => {
                let standing = match body.u8("state")? {
                    0 => AccountStanding::Unknown,
                    1 => AccountStanding::Open,
                    2 => AccountStanding::Frozen,
                    got => return Err(FrameError::Value { field: "state", got: got.into() }),
                };
                let locked = flag(body, "locked")?;
                let (balance, next) = (body.u64("balance")?, body.u64("next sequence")?);
                let lock = locked.then(|| Ok((body.u64("locked sequence")?, body.array("locked hash")?)));
                Self::Account(AccountState { standing, balance, next, lock: lock.transpose()? })
            }
            FrameKind::History => {
                let next_cursor = body.u64("next cursor")?;
                let count = usize::from(body.u16("payments")?);
                at_most("payments", count, HISTORY_MAX)?;
                body.need("payments", count * HISTORY_ENTRY_BYTES)?;
                let mut payments = Vec::with_capacity(count);
                for _ in 0..count {
                    payments.push(Payment::decode(body)?);
                }
                Self::History(History { next_cursor, payments })
            }
            _ => return Ok(None),
        }))
    }
}

impl Payment {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.place.0.to_le_bytes());
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.from.0);
        out.extend_from_slice(&self.to.0);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.amount.to_le_bytes());
        out.extend_from_slice(&self.issued_at_us.to_le_bytes());
        out.extend_from_slice(&(self.memo.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.memo);
    }

    fn decode(body: &mut Body) -> Result<Self, FrameError> {
        Ok(Self {
            place: Place(body.u64("place")?),
            id: MessageId(body.array("message id")?),
            from: DeviceKey(body.array("from")?),
            to: DeviceKey(body.array("to")?),
            sequence: body.u64("sequence")?,
            amount: body.u64("amount")?,
            issued_at_us: body.u64("issued at")?,
            memo: {
                let length = usize::from(body.u16("memo")?);
                at_most("bytes of a memo", length, MEMO_BYTES_MAX)?;
                body.take("memo", length)?
            },
        })
    }
}
