//! What several test modules share: small messages with a readable origin.

use alloc::vec::Vec;

use crate::builder::Draft;
use crate::ids::{DeviceKey, MessageId, NetworkId};
use crate::message::PayloadKind;

pub(crate) const NETWORK: NetworkId = NetworkId([0xaa, 0xbb, 0xcc, 0xdd]);

/// A well-formed message of device `issuer` whose signature is 64 bytes of its issuer's number.
pub(crate) fn message(issuer: u8, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let parents = [MessageId([1; 32]), MessageId([2; 32])];
    let draft = Draft {
        network: NETWORK,
        issued_at_us: 1_000_000,
        sequence,
        parents,
        kind: PayloadKind::DATA,
        payload,
    };
    let mut bytes = Vec::new();
    draft.write_content(&DeviceKey([issuer; 32]), &mut bytes).unwrap();
    Draft::finish(&mut bytes, &[issuer; 64]);
    bytes
}
