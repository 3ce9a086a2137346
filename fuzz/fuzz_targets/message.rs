//! Any bytes as a message: nothing panics, and what is taken is exactly what the encoder writes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::{Arena, Draft, Limits, MESSAGE_BYTES_MAX, MessageView, NetworkId, Reason, check_isolated};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok((message, after)) = MessageView::split(rest) {
        assert_eq!(message.bytes().len() + after.len(), rest.len());
        check(&message, data.len() as u64);
        rest = after;
    }
    match MessageView::parse(data) {
        Ok(message) => check(&message, u64::MAX),
        Err(refused) => assert!(refused.reason != Reason::Oversized || data.len() > MESSAGE_BYTES_MAX),
    }
});

fn check(message: &MessageView<'_>, now_us: u64) {
    let draft = Draft {
        network: message.network(),
        issued_at_us: message.issued_at_us(),
        sequence: message.sequence(),
        parents: *message.parents(),
        kind: message.kind(),
        payload: message.payload(),
    };
    let mut bytes = Vec::new();
    let id = draft.write_content(message.issuer(), &mut bytes).expect("the payload was within its limit");
    Draft::finish(&mut bytes, message.signature());
    assert_eq!(bytes, message.bytes());
    assert_eq!(id, message.id());

    let mut arena = Arena::new(1, bytes.len());
    assert_eq!(arena.push(&bytes), Ok(0));
    let arena = arena.verify_with(&[true]);
    assert_eq!(arena.verified(0).map(|message| message.id()), Some(id));

    let limits = Limits {
        network: NetworkId([0; 4]),
        payload_bytes_max: 100,
        batch_messages_max: 1,
        clock_ahead_us_max: 1_000,
        clock_behind_us_max: 1_000,
    };
    if check_isolated(message, &limits, now_us).is_ok() {
        assert!(message.payload().len() <= 100 && message.network() == limits.network);
        assert!(message.issued_at_us().abs_diff(now_us) <= 1_000);
        assert_ne!(message.parents()[0], message.parents()[1]);
    }
}
