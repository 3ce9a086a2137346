//! The witness format held against fixed bytes, its limits, round trips and mutations.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use weft_core::confirm::{Claim, Rejects, Witness, WitnessError};
use weft_core::{LaneId, MessageId};

fn claim(lane: u16, size: u64) -> Claim {
    Claim { lane: LaneId(lane), size, root: [lane as u8 + 1; 32] }
}

fn witness() -> Witness {
    Witness {
        number: 7,
        predecessor: MessageId([9; 32]),
        covers_data: true,
        cut: vec![claim(0, 40), claim(3, 5_000)],
        certified: vec![claim(3, 4_000)],
        cut_again: vec![claim(2, 10), claim(2, 12)],
        certified_again: vec![claim(2, 10)],
        rejects: vec![
            Rejects { lane: LaneId(0), positions: vec![5] },
            Rejects { lane: LaneId(3), positions: (100..200).step_by(3).collect() },
        ],
    }
}

#[test]
fn a_witness_has_fixed_bytes() {
    let small = Witness {
        number: 1,
        cut: vec![Claim { lane: LaneId(2), size: 10, root: [0xaa; 32] }],
        rejects: vec![Rejects { lane: LaneId(2), positions: vec![4, 6] }],
        ..Witness::default()
    };
    let mut expected = vec![1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    expected.extend(1u64.to_le_bytes());
    expected.extend([0; 32]);
    expected.extend([2, 0]);
    expected.extend(10u64.to_le_bytes());
    expected.extend([0xaa; 32]);
    // Two positions close together: a bitmap of one byte is shorter than an offset of four.
    expected.extend([2, 0, 1, 1, 0]);
    expected.extend(4u64.to_le_bytes());
    expected.push(0b101);
    assert_eq!(small.encode().unwrap(), expected);
    assert_eq!(Witness::decode(&expected), Ok(small));
}

#[test]
fn lists_and_bitmaps_of_rejects_survive() {
    let witness = witness();
    let bytes = witness.encode().unwrap();
    assert_eq!(bytes.len() as u64, witness.encoded_bytes());
    assert_eq!(Witness::decode(&bytes), Ok(witness));
    // Far apart: a list.
    let far = Witness {
        number: 1,
        cut: vec![claim(0, 1 << 30)],
        rejects: vec![Rejects { lane: LaneId(0), positions: vec![1, 1 << 20, 1 << 29] }],
        ..Witness::default()
    };
    assert_eq!(far.encoded_bytes(), 52 + 42 + 13 + 8);
    assert_eq!(Witness::decode(&far.encode().unwrap()), Ok(far));
}

#[test]
fn a_witness_cut_short_or_with_bytes_behind_it_is_refused() {
    let mut bytes = witness().encode().unwrap();
    for length in 0..bytes.len() {
        let refused = Witness::decode(&bytes[..length]).unwrap_err();
        assert!(matches!(refused, WitnessError::Length { got, .. } if got == length), "{length}: {refused}");
    }
    bytes.push(0);
    let got = bytes.len();
    assert_eq!(Witness::decode(&bytes), Err(WitnessError::Length { got, limit: got - 1 }));
}

#[test]
fn values_out_of_range_or_order_are_named() {
    let refused = |change: fn(&mut Witness)| {
        let mut witness = witness();
        change(&mut witness);
        witness.encode().unwrap_err()
    };
    assert_eq!(refused(|witness| witness.number = 0), WitnessError::Number { got: 0 });
    assert_eq!(refused(|witness| witness.number = 1), WitnessError::Number { got: 1 });
    assert_eq!(refused(|witness| witness.predecessor = MessageId([0; 32])), WitnessError::Number { got: 7 });
    assert_eq!(refused(|witness| witness.cut.swap(0, 1)), WitnessError::Claim { index: 1, lane: 0, got: 40 });
    assert_eq!(
        refused(|witness| witness.cut[1].lane = LaneId(1_024)),
        WitnessError::Claim { index: 1, lane: 1_024, got: 5_000 }
    );
    assert_eq!(
        refused(|witness| witness.certified[0].size = 0),
        WitnessError::Claim { index: 0, lane: 3, got: 0 }
    );
    assert_eq!(
        refused(|witness| witness.cut_again[1].size = 10),
        WitnessError::Claim { index: 1, lane: 2, got: 10 }
    );
    let rejects = |index, lane| WitnessError::Rejects { index, lane };
    assert_eq!(refused(|witness| witness.rejects[0].positions[0] = 40), rejects(0, 0));
    assert_eq!(refused(|witness| witness.rejects[0].positions.clear()), rejects(0, 0));
    assert_eq!(refused(|witness| witness.rejects[0].lane = LaneId(1)), rejects(0, 1));
    assert_eq!(refused(|witness| witness.rejects.swap(0, 1)), rejects(1, 0));
    assert!(matches!(
        refused(|witness| witness.cut_again = (1..400).map(|size| claim(2, size)).collect()),
        WitnessError::Length { limit: 16_384, .. }
    ));
}

#[test]
fn a_bitmap_where_a_list_is_shorter_is_not_canonical() {
    let list = Witness {
        number: 1,
        cut: vec![claim(0, 1_000)],
        rejects: vec![Rejects { lane: LaneId(0), positions: vec![0, 500] }],
        ..Witness::default()
    };
    let mut bytes = list.encode().unwrap();
    let at = 52 + 42;
    assert_eq!(bytes[at + 2], 0, "a list");
    bytes.truncate(at);
    bytes.extend([0, 0, 1, 63, 0]);
    bytes.extend([0; 8]);
    let mut bitmap = [0; 63];
    (bitmap[0], bitmap[62]) = (1, 1 << 4);
    bytes.extend(bitmap);
    assert_eq!(Witness::decode(&bytes), Err(WitnessError::Rejects { index: 0, lane: 0 }));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        number in 2u64.., sizes in prop::collection::btree_map(0u16..1_024, 1u64..1 << 40, 0..40),
        positions in prop::collection::btree_set(0u64..3_000, 1..200),
    ) {
        let cut: Vec<Claim> = sizes.iter().map(|(lane, size)| claim(lane % 250, *size)).collect();
        let mut cut: Vec<Claim> = cut;
        cut.sort_unstable();
        cut.dedup_by_key(|claim| claim.lane);
        let rejects = cut.first().map(|claim| Rejects {
            lane: claim.lane,
            positions: positions.iter().copied().filter(|position| *position < claim.size).collect(),
        });
        let rejects = rejects.into_iter().filter(|group| !group.positions.is_empty()).collect();
        let witness = Witness { number, predecessor: MessageId([1; 32]), cut, rejects, ..Witness::default() };
        prop_assert_eq!(Witness::decode(&witness.encode().unwrap()), Ok(witness));
    }

    #[test]
    fn bytes_that_are_decoded_encode_to_themselves(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = witness().encode().unwrap();
        for (at, value) in mutations {
            *at.get_mut(&mut bytes) = value;
        }
        if let Ok(witness) = Witness::decode(&bytes) {
            prop_assert_eq!(witness.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(witness) = Witness::decode(&bytes) {
            prop_assert_eq!(witness.encode().unwrap(), bytes);
        }
    }
}
