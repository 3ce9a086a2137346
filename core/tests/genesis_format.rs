//! The genesis format held against fixed bytes, its limits, round trips and mutations.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use weft_core::genesis::{BALANCES_MAX, Balance, IngestNode};
use weft_core::genesis::{GENESIS_BYTES_MAX, NAME_BYTES_MAX, VALIDATORS_MAX, WEIGHT_SUM_MAX};
use weft_core::{DeviceKey, Genesis, GenesisError, NodeKey, Validator};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(number: u16) -> NodeKey {
    let mut key = [0x55; 32];
    key[..2].copy_from_slice(&number.to_le_bytes());
    NodeKey::from(key)
}

fn committee(count: u16) -> Genesis {
    let committee =
        (0..count).map(|number| Validator { key: key(number), weight: 1, name: String::new() }).collect();
    Genesis { committee, ..Genesis::single("fleet", 1_700_000_000_000_000, key(0)) }
}

#[test]
fn a_committee_of_one_has_fixed_bytes_id_and_roots() {
    let genesis = Genesis::single("demo", 0x0006_4000_1122_3344, NodeKey::from([0x11; 32]));
    let bytes = genesis.encode().unwrap();
    let expected = concat!(
        "5745465447454e31",
        "4433221100400600",
        "00400000",
        "00100000",
        "00a3e11100000000",
        "00a0e3d08c000000",
        "04",
        "64656d6f",
        "0100",
        "1111111111111111111111111111111111111111111111111111111111111111",
        "0100000000000000",
    );
    assert_eq!(hex(&bytes), expected);
    let id = genesis.id().unwrap();
    assert_eq!(id.0, blake3::derive_key("weft 2026-11 genesis v1", &bytes));
    assert_eq!(id.to_string(), "f06227ef23e93f638646bfe4bce2eb2c766c0c0d97f18f1628513580eecb2583");
    assert_eq!(genesis.network().unwrap().0, id.0[..4]);
    for (index, root) in id.roots().into_iter().enumerate() {
        let input = [&id.0[..], &[index as u8]].concat();
        assert_eq!(root.0, blake3::derive_key("weft 2026-11 genesis root v1", &input));
    }
    let limits = genesis.limits().unwrap();
    assert_eq!((limits.network, limits.payload_bytes_max), (genesis.network().unwrap(), 16_384));
    assert_eq!(Genesis::decode(&bytes), Ok(genesis));
}

#[test]
fn ledgers_that_differ_in_one_value_have_different_ids() {
    let base = committee(2);
    let others = [
        Genesis { created_at_us: 1, ..base.clone() },
        Genesis { payload_bytes_max: 1, ..base.clone() },
        Genesis { batch_messages_max: 1, ..base.clone() },
        Genesis { clock_ahead_us_max: 1, ..base.clone() },
        Genesis { clock_behind_us_max: 1, ..base.clone() },
        Genesis { name: "fleeT".into(), ..base.clone() },
        committee(3),
    ];
    let mut ids: Vec<_> = others.iter().chain([&base]).map(|genesis| genesis.id().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), others.len() + 1);
}

/// A cluster: named validators, an ingest node, two accounts with money.
fn cluster() -> Genesis {
    let mut genesis = committee(2);
    genesis.committee[0].name = "north".into();
    genesis.ingest.push(IngestNode { key: key(9), name: "gate".into() });
    let balance = |number, amount| Balance { account: DeviceKey::from([number; 32]), amount };
    genesis.balances = vec![balance(1, 5), balance(2, u64::MAX - 5)];
    genesis
}

#[test]
fn names_ingest_nodes_and_balances_make_a_genesis_of_version_2() {
    let genesis = cluster();
    let bytes = genesis.encode().unwrap();
    let expected = [
        format!("{}0100000000000000056e6f727468", hex(&key(0).0)),
        format!("{}010000000000000000", hex(&key(1).0)),
        format!("0100{}0467617465", hex(&key(9).0)),
        format!("02000000{}0500000000000000{}faffffffffffffff", "01".repeat(32), "02".repeat(32)),
    ];
    let text = hex(&bytes);
    assert!(text.starts_with(&hex(b"WEFTGEN2")), "{text}");
    assert!(text.ends_with(&format!("0200{}", expected.concat())), "{text}");
    assert_eq!(Genesis::decode(&bytes), Ok(genesis.clone()));
    let keys: Vec<_> = genesis.node_keys().collect();
    assert_eq!(keys, [key(0), key(1), key(9)], "lanes in order");
    for length in 0..bytes.len() {
        assert!(
            matches!(Genesis::decode(&bytes[..length]), Err(GenesisError::Truncated { got, .. }) if got == length)
        );
    }
}

#[test]
fn version_2_is_refused_where_version_1_says_all() {
    let mut bytes = committee(1).encode().unwrap();
    bytes[7] = b'2';
    bytes.extend([0; 1 + 2 + 4]);
    assert_eq!(Genesis::decode(&bytes), Err(GenesisError::NotCanonical));
}

#[test]
fn values_of_version_2_beyond_the_limits_are_named() {
    let refused = |change: fn(&mut Genesis)| {
        let mut genesis = cluster();
        change(&mut genesis);
        genesis.encode().unwrap_err()
    };
    assert_eq!(
        refused(|genesis| genesis.ingest[0].name = "x".repeat(65)),
        GenesisError::NodeNameLength { got: 65, limit: 64 }
    );
    assert_eq!(refused(|genesis| genesis.committee[1].name = "\n".into()), GenesisError::NameText);
    assert_eq!(refused(|genesis| genesis.ingest[0].key = key(1)), GenesisError::RepeatedKey { key: key(1) });
    assert_eq!(refused(|genesis| genesis.balances.swap(0, 1)), GenesisError::BalanceOrder { index: 1 });
    assert_eq!(refused(|genesis| genesis.balances[0].amount = 0), GenesisError::BalanceOrder { index: 0 });
    assert_eq!(
        refused(|genesis| genesis.balances[0].amount = 6),
        GenesisError::Supply { index: 1, limit: u64::MAX }
    );
    assert_eq!(
        refused(|genesis| {
            genesis.ingest = (2..1_025).map(|n| IngestNode { key: key(n), name: String::new() }).collect();
        }),
        GenesisError::Nodes { got: 1_025, limit: 1_024 }
    );
    assert_eq!(
        refused(|genesis| {
            let balance = Balance { account: DeviceKey::from([1; 32]), amount: 1 };
            genesis.balances = vec![balance; BALANCES_MAX + 1];
        }),
        GenesisError::Balances { got: BALANCES_MAX + 1, limit: BALANCES_MAX }
    );
}

#[test]
fn declared_balances_are_not_believed_before_their_bytes_are_there() {
    let mut bytes = cluster().encode().unwrap();
    let at = bytes.len() - 84;
    bytes[at..at + 4].copy_from_slice(&65_536u32.to_le_bytes());
    assert!(matches!(Genesis::decode(&bytes), Err(GenesisError::Truncated { .. })));
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let got = u32::MAX as usize;
    assert_eq!(Genesis::decode(&bytes), Err(GenesisError::Balances { got, limit: BALANCES_MAX }));
}

#[test]
fn the_largest_genesis_fits_its_limit() {
    let mut genesis = committee(VALIDATORS_MAX as u16);
    genesis.name = "n".repeat(NAME_BYTES_MAX);
    genesis.committee.iter_mut().for_each(|validator| validator.name = "v".repeat(NAME_BYTES_MAX));
    let account = |number: usize| {
        let mut account = [0; 32];
        account[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Balance { account: DeviceKey::from(account), amount: 1 }
    };
    genesis.balances = (0..BALANCES_MAX).map(account).collect();
    let bytes = genesis.encode().unwrap();
    assert_eq!(bytes.len(), GENESIS_BYTES_MAX);
    assert_eq!(Genesis::decode(&bytes), Ok(genesis));
}

#[test]
fn values_beyond_the_limits_are_named() {
    let refused = |change: fn(&mut Genesis)| {
        let mut genesis = committee(3);
        change(&mut genesis);
        assert_eq!(genesis.encode().unwrap_err(), genesis.id().unwrap_err());
        genesis.validate().unwrap_err()
    };
    assert_eq!(
        refused(|genesis| genesis.payload_bytes_max = 16_385),
        GenesisError::PayloadLimit { got: 16_385, limit: 16_384 }
    );
    assert_eq!(
        refused(|genesis| genesis.batch_messages_max = 0),
        GenesisError::BatchLimit { got: 0, limit: 4_096 }
    );
    assert_eq!(
        refused(|genesis| genesis.batch_messages_max = 4_097),
        GenesisError::BatchLimit { got: 4_097, limit: 4_096 }
    );
    assert_eq!(refused(|genesis| genesis.name.clear()), GenesisError::NameLength { got: 0, limit: 64 });
    assert_eq!(
        refused(|genesis| genesis.name = "ä".repeat(33)),
        GenesisError::NameLength { got: 66, limit: 64 }
    );
    assert_eq!(refused(|genesis| genesis.name = "a\x1b[31m".into()), GenesisError::NameText);
    assert_eq!(
        refused(|genesis| genesis.committee.clear()),
        GenesisError::CommitteeSize { got: 0, limit: 1_024 }
    );
    assert_eq!(
        refused(|genesis| *genesis = committee(1_025)),
        GenesisError::CommitteeSize { got: 1_025, limit: 1_024 }
    );
    assert_eq!(refused(|genesis| genesis.committee[1].weight = 0), GenesisError::ZeroWeight { index: 1 });
    assert_eq!(
        refused(|genesis| genesis.committee[1].weight = WEIGHT_SUM_MAX),
        GenesisError::WeightSum { index: 1, limit: WEIGHT_SUM_MAX }
    );
    assert_eq!(
        refused(|genesis| genesis.committee[2].weight = u64::MAX),
        GenesisError::WeightSum { index: 2, limit: WEIGHT_SUM_MAX }
    );
    assert_eq!(
        refused(|genesis| genesis.committee[2].key = genesis.committee[0].key),
        GenesisError::RepeatedKey { key: key(0) }
    );
}

#[test]
fn a_file_cut_short_or_with_bytes_behind_it_is_refused() {
    let mut bytes = committee(2).encode().unwrap();
    for length in 0..bytes.len() {
        let refused = Genesis::decode(&bytes[..length]).unwrap_err();
        assert!(
            matches!(refused, GenesisError::Truncated { got, limit } if got == length && limit > length),
            "{refused}"
        );
    }
    bytes.push(0);
    let length = bytes.len();
    assert_eq!(Genesis::decode(&bytes), Err(GenesisError::TrailingBytes { got: length, limit: length - 1 }));
    bytes[0] = b'X';
    assert_eq!(Genesis::decode(&bytes), Err(GenesisError::BadMagic { got: *b"XEFTGEN1" }));
}

#[test]
fn a_declared_committee_is_not_believed_before_its_bytes_are_there() {
    let mut bytes = committee(1).encode().unwrap();
    let at = bytes.len() - 42;
    bytes[at..at + 2].copy_from_slice(&1_024u16.to_le_bytes());
    let limit = at + 2 + 1_024 * 40;
    assert_eq!(Genesis::decode(&bytes), Err(GenesisError::Truncated { got: bytes.len(), limit }));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        created_at_us in any::<u64>(), payload_bytes_max in 0u32..=16_384,
        batch_messages_max in 1u32..=4_096, clocks in any::<[u64; 2]>(), name in "[a-zA-Zäöü€ ]{1,16}",
        weights in prop::collection::vec(1..u64::MAX / 4_096, 1..20),
    ) {
        let validator = |(weight, number)| Validator { key: key(number), weight, name: String::new() };
        let committee = weights.into_iter().zip(0..).map(validator).collect();
        let genesis = Genesis {
            created_at_us, payload_bytes_max, batch_messages_max, clock_ahead_us_max: clocks[0],
            clock_behind_us_max: clocks[1], name, committee, ingest: Vec::new(), balances: Vec::new(),
        };
        let bytes = genesis.encode().unwrap();
        prop_assert_eq!(Genesis::decode(&bytes), Ok(genesis));
    }

    #[test]
    fn bytes_that_are_decoded_encode_to_themselves(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = committee(3).encode().unwrap();
        let before = bytes.clone();
        *at.get_mut(&mut bytes) = value;
        if let Ok(genesis) = Genesis::decode(&bytes) {
            prop_assert_eq!(&genesis.encode().unwrap(), &bytes);
            prop_assert_eq!(bytes == before, genesis == committee(3));
        }
    }

    #[test]
    fn bytes_of_version_2_that_are_decoded_encode_to_themselves(
        at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let mut bytes = cluster().encode().unwrap();
        *at.get_mut(&mut bytes) = value;
        if let Ok(genesis) = Genesis::decode(&bytes) {
            prop_assert_eq!(&genesis.encode().unwrap(), &bytes);
        }
    }
}
