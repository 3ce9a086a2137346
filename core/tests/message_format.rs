//! The message format held against fixed bytes, round trips and mutations.
#![cfg(feature = "signing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use weft_core::{
    DeviceKey, DeviceSigner, Draft, HEAD_BYTES, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MessageId, MessageView,
    NetworkId, PAYLOAD_BYTES_MAX, PayloadKind, Reason, SIGNATURE_BYTES,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first key of RFC 8032, section 7.1.
fn signer() -> DeviceSigner {
    let seed: MessageId = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse().unwrap();
    DeviceSigner::from_seed(seed.0)
}

fn draft(payload: &[u8]) -> Draft<'_> {
    Draft {
        network: NetworkId([0x01, 0x23, 0x45, 0x67]),
        issued_at_us: 0x0006_4000_1122_3344,
        sequence: 0x0102_0304_0506_0708,
        parents: [MessageId([0xaa; 32]), MessageId([0xbb; 32])],
        kind: PayloadKind::DATA,
        payload,
    }
}

fn verify(message: &MessageView<'_>) -> bool {
    let key = ed25519_dalek::VerifyingKey::from_bytes(&message.issuer().0).unwrap();
    key.verify_strict(&message.id().0, &ed25519_dalek::Signature::from_bytes(message.signature())).is_ok()
}

/// Anyone who writes the format again can check against these bytes. OpenSSL 3 gives the same signature for
/// this key and id.
#[test]
fn a_fixed_seed_gives_a_fixed_message_id_and_signature() {
    let bytes = draft(b"0123456789abcdef\x2a").sign(&signer()).unwrap();
    let expected = concat!(
        "01",
        "00",
        "1100",
        "01234567",
        "4433221100400600",
        "0807060504030201",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "30313233343536373839616263646566",
        "2a",
    );
    let (content, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES);
    assert_eq!(hex(content), expected);
    let message = MessageView::parse(&bytes).unwrap();
    assert_eq!(message.id().0, blake3::derive_key("weft 2026-11 message v1", content));
    assert_eq!(message.id().to_string(), "d43e54b07a881e72bbf9346d00fb858979f04c699281cd10ef6a7483538d1122");
    let expected = concat!(
        "1c602d71c59981313352158c80847e5e49efc49d80e7bbada2d702ed18694516",
        "9be10c6cb620de1c4af757c660736733442dfce05c78cf3c7dddb38ee635a506",
    );
    assert_eq!(hex(signature), expected);
    assert!(verify(&message));
}

#[test]
fn the_signature_is_outside_the_id() {
    let mut bytes = draft(b"x").sign(&signer()).unwrap();
    let id = MessageView::parse(&bytes).unwrap().id();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(MessageView::parse(&bytes).unwrap().id(), id);
}

#[test]
fn any_other_bit_of_a_message_is_under_the_id_and_the_signature() {
    let bytes = draft(b"payload").sign(&signer()).unwrap();
    let id = MessageView::parse(&bytes).unwrap().id();
    let mut parsed = 0;
    for at in 0..bytes.len() - SIGNATURE_BYTES {
        let mut bent = bytes.clone();
        bent[at] ^= 0x10;
        if let Ok(message) = MessageView::parse(&bent) {
            parsed += 1;
            assert_ne!(message.id(), id, "byte {at}");
            let key = ed25519_dalek::VerifyingKey::from_bytes(&message.issuer().0);
            assert!(key.is_err() || !verify(&message), "byte {at}");
        }
    }
    // All but the version and the payload length still parse.
    assert_eq!(parsed, bytes.len() - SIGNATURE_BYTES - 3);
}

#[test]
fn lengths_at_and_beyond_the_limits_are_told_apart() {
    let longest = vec![7; PAYLOAD_BYTES_MAX];
    let bytes = draft(&longest).sign(&signer()).unwrap();
    assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
    assert_eq!(MessageView::parse(&bytes).unwrap().payload(), longest);

    let too_long = vec![7; PAYLOAD_BYTES_MAX + 1];
    let refused = Reason::PayloadTooLong.with(16_385, 16_384);
    assert_eq!(draft(&too_long).sign(&signer()).unwrap_err(), refused);
    let mut out = vec![1, 2, 3];
    assert_eq!(draft(&too_long).write_content(&DeviceKey([0; 32]), &mut out), Err(refused));
    assert_eq!(out, [1, 2, 3]);

    let mut longer = bytes.clone();
    longer.push(0);
    let reason = |bytes: &[u8]| MessageView::parse(bytes).unwrap_err();
    assert_eq!(
        reason(&longer),
        Reason::Oversized.with(MESSAGE_BYTES_MAX as u64 + 1, MESSAGE_BYTES_MAX as u64)
    );
    let mut declared = draft(b"").sign(&signer()).unwrap();
    declared[2..4].copy_from_slice(&16_385u16.to_le_bytes());
    assert_eq!(reason(&declared), refused);
    assert_eq!(reason(&[]), Reason::Truncated.with(0, 184));
    assert_eq!(reason(&bytes[..183]), Reason::Truncated.with(183, 184));
    assert_eq!(reason(&bytes[..184]), Reason::LengthMismatch.with(184, MESSAGE_BYTES_MAX as u64));
    let mut other_version = draft(b"").sign(&signer()).unwrap();
    other_version[0] = 2;
    assert_eq!(reason(&other_version), Reason::BadVersion.with(2, 1));
}

#[test]
fn an_unknown_payload_kind_is_plain_data() {
    let bytes = Draft { kind: PayloadKind(200), ..draft(b"x") }.sign(&signer()).unwrap();
    let message = MessageView::parse(&bytes).unwrap();
    assert_eq!((message.kind(), message.kind().name()), (PayloadKind(200), None));
    assert_eq!(message.kind().to_string(), "kind 200");
    let names: Vec<_> = (0..8).map(|kind| PayloadKind(kind).name().unwrap()).collect();
    assert_eq!(
        names,
        ["data", "sealed", "commitment", "transfer", "channel", "market", "registry", "witness"]
    );
}

#[test]
fn a_signer_does_not_show_its_secret() {
    let text = format!("{:?}", signer());
    assert!(text.contains("d75a980182b10ab7"), "{text}");
    assert!(!text.contains("9d61b19d"), "{text}");
}

prop_compose! {
    fn any_message()(
        seed in any::<[u8; 32]>(), network in any::<[u8; 4]>(), issued_at_us in any::<u64>(),
        sequence in any::<u64>(), parents in any::<[[u8; 32]; 2]>(), kind in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..600),
    ) -> (DeviceKey, Vec<u8>, Vec<u8>) {
        let signer = DeviceSigner::from_seed(seed);
        let draft = Draft {
            network: NetworkId(network), issued_at_us, sequence, parents: parents.map(MessageId),
            kind: PayloadKind(kind), payload: &payload,
        };
        let bytes = draft.sign(&signer).unwrap();
        let message = MessageView::parse(&bytes).unwrap();
        assert_eq!((message.network().0, message.issued_at_us()), (network, issued_at_us));
        assert_eq!(message.sequence(), sequence);
        assert_eq!((message.parents().map(|id| id.0), message.kind().0), (parents, kind));
        (signer.public(), payload.clone(), bytes)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read((key, payload, bytes) in any_message()) {
        let message = MessageView::parse(&bytes).unwrap();
        prop_assert_eq!(message.version(), 1);
        prop_assert_eq!(message.issuer(), &key);
        prop_assert_eq!(message.payload(), &payload[..]);
        prop_assert_eq!(message.content(), &bytes[..HEAD_BYTES + payload.len()]);
        prop_assert_eq!(message.bytes(), &bytes[..]);
        prop_assert!(verify(&message));
    }

    #[test]
    fn messages_in_a_row_are_split_one_by_one(
        messages in prop::collection::vec(any_message(), 1..5),
        rest in prop::collection::vec(any::<u8>(), 0..MESSAGE_BYTES_MIN),
    ) {
        let mut joined: Vec<u8> = messages.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
        joined.extend_from_slice(&rest);
        let mut left = &joined[..];
        for (_, _, bytes) in &messages {
            let message;
            (message, left) = MessageView::split(left).unwrap();
            prop_assert_eq!(message.bytes(), &bytes[..]);
        }
        prop_assert_eq!(left, &rest[..]);
        prop_assert!(MessageView::split(left).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_parsed_or_refused_without_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400), fix in any::<bool>(),
    ) {
        if fix && bytes.len() >= MESSAGE_BYTES_MIN {
            bytes[0] = 1;
            let payload = (bytes.len() - MESSAGE_BYTES_MIN) as u16;
            bytes[2..4].copy_from_slice(&payload.to_le_bytes());
            prop_assert!(MessageView::parse(&bytes).is_ok());
        }
        if let Ok((message, rest)) = MessageView::split(&bytes) {
            prop_assert_eq!(message.bytes().len() + rest.len(), bytes.len());
            prop_assert_eq!(MessageView::parse(message.bytes()).unwrap().id(), message.id());
        }
        if let Ok(message) = MessageView::parse(&bytes) {
            prop_assert_eq!(message.bytes(), &bytes[..]);
        }
    }
}
