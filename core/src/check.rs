//! Checks in isolation: what can be said of a message by its own bytes, the limits of the genesis and the
//! time of day.
//!
//! Owns the order of these checks (cheapest first, so that junk costs least) and the [`Limits`]. Left to
//! others: the layout ([`message`](crate::message)), the signature (`weft-crypto`), parents and replays (the
//! node, with [`replay`](crate::replay)).
//!
//! Clocks are judged at ingest only. A batch that is already part of a lane is valid whatever its clocks say
//! (design, section 4).

use crate::ids::NetworkId;
use crate::message::MessageView;
use crate::reject::{Reason, Rejection};

/// What the genesis allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The network that messages must name.
    pub network: NetworkId,
    /// Longest payload, bytes; at most [`PAYLOAD_BYTES_MAX`](crate::PAYLOAD_BYTES_MAX).
    pub payload_bytes_max: u32,
    /// Most messages of one batch; at most [`BATCH_MESSAGES_MAX`](crate::genesis::BATCH_MESSAGES_MAX).
    pub batch_messages_max: u32,
    /// How far a device's clock may be ahead of the node's, microseconds.
    pub clock_ahead_us_max: u64,
    /// How far a device's clock may be behind the node's, microseconds. Also the longest time for which a
    /// device may hold messages back while it is offline.
    pub clock_behind_us_max: u64,
}

/// Checks a message in isolation: network, payload length, parents different, clock; in this order, first
/// failure reported.
///
/// `now_us` is the node's clock in microseconds since the Unix epoch. The clock bounds are inclusive.
///
/// # Errors
/// `wrong_network`, `payload_too_long`, `equal_parents`, `clock_ahead` (limit: latest time allowed) or
/// `clock_behind` (limit: earliest time allowed).
pub fn check_isolated(message: &MessageView<'_>, limits: &Limits, now_us: u64) -> Result<(), Rejection> {
    if message.network() != limits.network {
        let number = |network: NetworkId| u64::from(u32::from_le_bytes(network.0));
        return Err(Reason::WrongNetwork.with(number(message.network()), number(limits.network)));
    }
    let payload_bytes = message.payload().len() as u64;
    if payload_bytes > u64::from(limits.payload_bytes_max) {
        return Err(Reason::PayloadTooLong.with(payload_bytes, u64::from(limits.payload_bytes_max)));
    }
    let [left, right] = message.parents();
    if left == right {
        return Err(Reason::EqualParents.with(0, 0));
    }
    let issued_at_us = message.issued_at_us();
    let latest_us = now_us.saturating_add(limits.clock_ahead_us_max);
    if issued_at_us > latest_us {
        return Err(Reason::ClockAhead.with(issued_at_us, latest_us));
    }
    let earliest_us = now_us.saturating_sub(limits.clock_behind_us_max);
    if issued_at_us < earliest_us {
        return Err(Reason::ClockBehind.with(issued_at_us, earliest_us));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::builder::Draft;
    use crate::ids::{DeviceKey, MessageId};
    use crate::message::PayloadKind;

    const LIMITS: Limits = Limits {
        network: NetworkId([1, 2, 3, 4]),
        payload_bytes_max: 10,
        batch_messages_max: 4_096,
        clock_ahead_us_max: 50,
        clock_behind_us_max: 700,
    };
    const NOW_US: u64 = 1_000;

    fn checked(change: impl FnOnce(&mut Draft<'_>)) -> Result<(), Rejection> {
        let mut draft = Draft {
            network: LIMITS.network,
            issued_at_us: NOW_US,
            sequence: 1,
            parents: [MessageId([1; 32]), MessageId([2; 32])],
            kind: PayloadKind::DATA,
            payload: b"0123456789",
        };
        change(&mut draft);
        let mut bytes = Vec::new();
        draft.write_content(&DeviceKey([9; 32]), &mut bytes).unwrap();
        Draft::finish(&mut bytes, &[0; 64]);
        check_isolated(&MessageView::parse(&bytes).unwrap(), &LIMITS, NOW_US)
    }

    #[test]
    fn a_message_at_every_limit_passes() {
        assert_eq!(checked(|_| ()), Ok(()));
        assert_eq!(checked(|draft| draft.issued_at_us = 1_050), Ok(()));
        assert_eq!(checked(|draft| draft.issued_at_us = 300), Ok(()));
    }

    #[test]
    fn a_message_of_another_network_is_refused() {
        let refused = checked(|draft| draft.network = NetworkId([1, 2, 3, 5]));
        assert_eq!(refused, Err(Reason::WrongNetwork.with(0x0503_0201, 0x0403_0201)));
    }

    #[test]
    fn a_payload_beyond_the_genesis_limit_is_refused() {
        assert_eq!(checked(|draft| draft.payload = b"0123456789a"), Err(Reason::PayloadTooLong.with(11, 10)));
    }

    #[test]
    fn equal_parents_are_refused() {
        let refused = checked(|draft| draft.parents[1] = draft.parents[0]);
        assert_eq!(refused, Err(Reason::EqualParents.with(0, 0)));
    }

    #[test]
    fn a_clock_far_off_is_refused_with_the_bound_that_it_missed() {
        assert_eq!(checked(|draft| draft.issued_at_us = 1_051), Err(Reason::ClockAhead.with(1_051, 1_050)));
        assert_eq!(
            checked(|draft| draft.issued_at_us = u64::MAX),
            Err(Reason::ClockAhead.with(u64::MAX, 1_050))
        );
        assert_eq!(checked(|draft| draft.issued_at_us = 299), Err(Reason::ClockBehind.with(299, 300)));
        assert_eq!(checked(|draft| draft.issued_at_us = 0), Err(Reason::ClockBehind.with(0, 300)));
    }

    #[test]
    fn unlimited_clocks_do_not_overflow() {
        let limits = Limits { clock_ahead_us_max: u64::MAX, clock_behind_us_max: u64::MAX, ..LIMITS };
        let draft = Draft {
            network: LIMITS.network,
            issued_at_us: u64::MAX,
            sequence: 0,
            parents: [MessageId([1; 32]), MessageId([2; 32])],
            kind: PayloadKind::DATA,
            payload: b"",
        };
        let mut bytes = Vec::new();
        draft.write_content(&DeviceKey([9; 32]), &mut bytes).unwrap();
        Draft::finish(&mut bytes, &[0; 64]);
        assert_eq!(check_isolated(&MessageView::parse(&bytes).unwrap(), &limits, NOW_US), Ok(()));
    }
}
