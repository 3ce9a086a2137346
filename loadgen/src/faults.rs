//! Dirty data: which messages go missing, come late, twice, out of order, or with a signature that does not fit.
//!
//! Owns the draw. A message has one fault at most; shares are exact in expectation, but for what is out of order: a device has to speak
//! twice within a batch for that, and a message whose device does not stays in order and is counted as such. The rates are the profile's (kinds after TSBS, use case
//! iot). What a report expects of each: a missing message was never sent, a late one carries an old device clock, a duplicate and a bad
//! signature are to be refused by name, and one out of order is to be taken all the same.

use serde::{Deserialize, Serialize};

use crate::generate::happens;
use crate::mix::{below, mix};
use crate::profile::Dirty;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It is not sent.
    Missing,
    /// Its clock is behind.
    Late,
    /// It is sent twice.
    Duplicate,
    /// Its sequence is below that of the message of its device before it in the batch: the two have changed places.
    OutOfOrder,
    /// Its signature is not that of its device.
    BadSignature,
}

impl Fault {
    /// All faults that are sent, in the order of reports.
    pub const SENT: [Self; 4] = [Self::Late, Self::Duplicate, Self::OutOfOrder, Self::BadSignature];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Missing => "missing",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::OutOfOrder => "out_of_order",
            Self::BadSignature => "bad_signature",
        }
    }
}

/// The faults of a class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    dirty: Dirty,
    clean: bool,
}

impl Faults {
    pub(crate) fn new(dirty: &Dirty) -> Self {
        Self { dirty: *dirty, clean: dirty.is_clean() }
    }

    /// The fault of the message with these bits.
    pub(crate) fn draw(&self, bits: u64) -> Fault {
        if self.clean {
            return Fault::None;
        }
        let bits = mix(bits ^ 0x4641_554C);
        let mut sum = 0.0;
        for (share, fault) in [
            (self.dirty.missing, Fault::Missing),
            (self.dirty.late, Fault::Late),
            (self.dirty.duplicate, Fault::Duplicate),
            (self.dirty.out_of_order, Fault::OutOfOrder),
            (self.dirty.bad_signature, Fault::BadSignature),
        ] {
            sum += share;
            if happens(bits, sum) {
                return fault;
            }
        }
        Fault::None
    }

    /// How late a late message is, microseconds.
    pub(crate) fn late_us(&self, bits: u64) -> u64 {
        below(mix(bits ^ 0x4C41_5445), (self.dirty.late_s_max * 1e6) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200,000 draws a share of 5 %: the standard error is 0.05 % of all, so 0.3 % is six of them.
    #[test]
    fn faults_come_as_often_as_asked_for() {
        let dirty = Dirty {
            missing: 0.01,
            late: 0.05,
            late_s_max: 9.0,
            duplicate: 0.02,
            out_of_order: 0.3,
            bad_signature: 0.001,
        };
        let faults = Faults::new(&dirty);
        let draws = 200_000u64;
        let share = |fault| {
            (0..draws).filter(|event| faults.draw(mix(*event)) == fault).count() as f64 / draws as f64
        };
        for (fault, wanted) in [
            (Fault::Missing, 0.01),
            (Fault::Late, 0.05),
            (Fault::Duplicate, 0.02),
            (Fault::OutOfOrder, 0.3),
            (Fault::BadSignature, 0.001),
        ] {
            let got = share(fault);
            assert!((got - wanted).abs() < 0.003, "{fault:?}: {got}, wanted {wanted}");
            assert!(got > 0.0);
        }
        assert!((0..1_000).all(|event| faults.late_us(mix(event)) < 9_000_000));
        assert!((0..1_000).all(|event| Faults::new(&Dirty::default()).draw(mix(event)) == Fault::None));
    }
}
