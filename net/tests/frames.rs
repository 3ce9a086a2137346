//! Frames and their bytes: canonical both ways, total on any input, frugal with declared sizes.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use support::{frames, submit};
use weft_core::{DeviceKey, LaneId, MessageId, NetworkId, Place, Reason, Rejection};
use weft_net::codec::fit_answers;
use weft_net::frame::{CloseReason, Frame, FrameKind, Hello};
use weft_net::limits::{FRAME_BYTES_MAX, FRAME_BYTES_MAX_DEFAULT, FRAME_HEAD_BYTES, MESSAGES_BYTES_MAX};
use weft_net::reader::FrameReader;
use weft_net::{
    Ack, AckException, AckLevel, Answer, ErrorCode, Found, FrameError, History, Lookup, Query, Submit,
    WireError,
};

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Frame, FrameError> {
    let kind = FrameKind::from_code(bytes[4]).unwrap();
    Frame::decode(kind, Bytes::copy_from_slice(&bytes[FRAME_HEAD_BYTES..]))
}

/// Reads all of `bytes`, cut after each of `cuts`.
fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let mut reader = FrameReader::new(FRAME_BYTES_MAX, |_| true);
    let mut frames = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let mut piece = &bytes[from..to];
        from = to;
        while let Some(frame) = reader.next(&mut piece)? {
            frames.push(frame);
        }
        assert!(piece.is_empty());
    }
    assert!(reader.is_between_frames());
    Ok(frames)
}

proptest! {
    #[test]
    fn a_frame_survives_its_bytes_and_says_its_length(frame in frames()) {
        let bytes = encoded(&frame);
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        prop_assert_eq!(length + FRAME_HEAD_BYTES, bytes.len());
        prop_assert!(length <= frame.kind().body_bytes_max(FRAME_BYTES_MAX));
        prop_assert_eq!(decoded(&bytes), Ok(frame));
    }

    #[test]
    fn what_decodes_has_no_other_encoding(code in 0_u8..=80, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some(kind) = FrameKind::from_code(code)
            && let Ok(frame) = Frame::decode(kind, Bytes::from(body.clone()))
        {
            prop_assert_eq!(&encoded(&frame)[FRAME_HEAD_BYTES..], &body[..]);
        }
    }

    #[test]
    fn a_frame_with_a_changed_byte_is_another_frame_or_an_error(frame in frames(), at: proptest::sample::Index, xor in 1_u8..) {
        let mut bytes = encoded(&frame);
        let body = bytes.len() - FRAME_HEAD_BYTES;
        let at = FRAME_HEAD_BYTES + at.index(body);
        bytes[at] ^= xor;
        if let Ok(other) = decoded(&bytes) {
            prop_assert_ne!(&other, &frame);
            prop_assert_eq!(encoded(&other), bytes);
        }
    }

    #[test]
    fn a_frame_cut_short_or_with_a_byte_more_is_an_error(frame in frames(), at: proptest::sample::Index) {
        let bytes = encoded(&frame);
        let to = FRAME_HEAD_BYTES + at.index(bytes.len() - FRAME_HEAD_BYTES);
        prop_assert!(decoded(&bytes[..to]).is_err());
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(decoded(&longer).is_err());
    }

    #[test]
    fn how_a_stream_is_cut_into_pieces_changes_nothing(
        frames in proptest::collection::vec(frames(), 1..6),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(read_in_pieces(&bytes, &cuts), Ok(frames));
    }

    #[test]
    fn a_submit_gives_its_messages_back_without_copying_them(submit in submit(200, 700)) {
        prop_assert_eq!(submit.iter().map(<[u8]>::len).collect::<Vec<_>>(), submit.lengths().collect::<Vec<_>>());
        let joined: Vec<u8> = submit.iter().flatten().copied().collect();
        prop_assert_eq!(&joined[..], &submit.bytes()[..]);
        let whole = submit.bytes().as_ptr_range();
        for message in submit.iter_bytes().filter(|message| !message.is_empty()) {
            prop_assert!(whole.contains(&message.as_ptr()));
        }
        prop_assert_eq!(submit.iter().len(), submit.len());
    }
}

#[test]
fn a_stream_may_be_cut_at_every_byte() {
    let frames = [
        Frame::Hello(Hello { ack_level: AckLevel::Durable, network: NetworkId::default() }),
        Frame::Submit(Submit::new(1, &[3, 0, 2], Bytes::from_static(b"abcde")).unwrap()),
        Frame::Close(CloseReason::Done),
    ];
    let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
    for cut in 0..=bytes.len() {
        assert_eq!(read_in_pieces(&bytes, &[cut]).unwrap(), frames, "cut at {cut}");
    }
    let every: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(read_in_pieces(&bytes, &every).unwrap(), frames);
}

#[test]
fn the_layouts_are_those_of_the_tables() {
    let hello = Frame::Hello(Hello { ack_level: AckLevel::Durable, network: NetworkId([1, 2, 3, 4]) });
    assert_eq!(encoded(&hello), *b"\x0c\0\0\0\x01WEFT\x01\0\x03\0\x01\x02\x03\x04");
    let submit = Frame::Submit(Submit::new(0x0102, &[1, 2], Bytes::from_static(b"abc")).unwrap());
    assert_eq!(encoded(&submit), *b"\x13\0\0\0\x03\x02\x01\0\0\0\0\0\0\x02\0\0\0\x01\0\x02\0abc");
    let exception = AckException::new(1, Rejection { reason: Reason::BadSignature, got: 5, limit: 6 });
    assert_eq!(exception.reason(), Some(Reason::BadSignature));
    let ack = Frame::Ack(Ack {
        request_id: 7,
        level: AckLevel::Written,
        count: 2,
        exceptions: vec![exception],
        tips: vec![MessageId([0xEE; 32])],
    });
    let mut expected = b"\x49\0\0\0\x04\x07\0\0\0\0\0\0\0\x02\x01\0\0\x02\0\0\0\x01\0\0\0".to_vec();
    expected.extend([0xEE; 32]);
    expected.extend(b"\x01\0\0\0\x08\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0");
    assert_eq!(encoded(&ack), expected);
    let error = Frame::Error(WireError::new(0, ErrorCode::Overloaded, 50, "full"));
    assert_eq!(encoded(&error), *b"\x14\0\0\0\x0e\0\0\0\0\0\0\0\0\x06\0\x04\0\x32\0\0\0full");
}

#[test]
fn the_layouts_of_queries_are_those_of_their_table() {
    let query = Query::Receipt { id: MessageId([0xAB; 32]), size: 0x0102 };
    let mut expected = b"\x30\0\0\0\x40\x05\0\0\0\0\0\0\0".to_vec();
    expected.extend([0xAB; 32]);
    expected.extend(b"\x02\x01\0\0\0\0\0\0");
    assert_eq!(encoded(&Frame::Query { request_id: 5, query }), expected);
    let answer = Answer::Receipt(Bytes::from_static(b"abc"));
    assert_eq!(
        encoded(&Frame::Answer { request_id: 5, answer }),
        *b"\x0f\0\0\0\x41\x05\0\0\0\0\0\0\0\x03\0\0\0abc"
    );
    let history = Query::History {
        account: DeviceKey([1; 32]),
        other: Some(DeviceKey([2; 32])),
        cursor: 9,
        count: 256,
    };
    let mut expected = b"\x53\0\0\0\x48\x05\0\0\0\0\0\0\0".to_vec();
    expected.extend([1; 32]);
    expected.push(1);
    expected.extend([2; 32]);
    expected.extend(b"\x09\0\0\0\0\0\0\0\0\x01");
    assert_eq!(encoded(&Frame::Query { request_id: 5, query: history }), expected);
}

#[test]
fn a_query_with_a_value_out_of_range_is_a_bad_frame() {
    let cosign = Query::Cosign { lane: LaneId(1_024), size: 1, root: [0; 32] };
    let bytes = encoded(&Frame::Query { request_id: 1, query: cosign });
    assert_eq!(decoded(&bytes), Err(FrameError::Value { field: "lane", got: 1_024 }));
    let consistency = Query::Consistency { lane: LaneId(0), old_size: 0, size: 1 };
    let bytes = encoded(&Frame::Query { request_id: 1, query: consistency });
    assert_eq!(decoded(&bytes), Err(FrameError::Value { field: "old size", got: 0 }));
    for count in [0, 257] {
        let history = Query::History { account: DeviceKey([1; 32]), other: None, cursor: 0, count };
        let bytes = encoded(&Frame::Query { request_id: 1, query: history });
        let error = FrameError::Count { field: "entries", got: count.into(), limit: 256 };
        assert_eq!(decoded(&bytes), Err(error));
    }
    // A count of payments whose bytes are not there is refused before room is made for them.
    let mut bytes = encoded(&Frame::Answer { request_id: 1, answer: Answer::History(History::default()) });
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&256_u16.to_le_bytes());
    assert_eq!(
        decoded(&bytes),
        Err(FrameError::Truncated { field: "payments", got: 0, limit: 256 * (8 + 96 + 24 + 2) })
    );
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    let mut reader = FrameReader::new(FRAME_BYTES_MAX_DEFAULT, |_| true);
    let head = [&(FRAME_BYTES_MAX_DEFAULT + 1).to_le_bytes()[..], &[FrameKind::Submit.code()]].concat();
    let error = reader.next(&mut &head[..]).unwrap_err();
    let limit = u64::from(FRAME_BYTES_MAX_DEFAULT);
    assert_eq!(error, FrameError::TooLarge { kind: FrameKind::Submit, got: limit + 1, limit });
    assert_eq!(error.code(), ErrorCode::TooLarge);
    assert_eq!(reader.held_bytes(), FRAME_HEAD_BYTES);
}

#[test]
fn memory_follows_the_bytes_that_came_and_not_the_length_declared() {
    let mut reader = FrameReader::new(FRAME_BYTES_MAX, |_| true);
    let head = [&FRAME_BYTES_MAX.to_le_bytes()[..], &[FrameKind::Submit.code()]].concat();
    assert!(reader.next(&mut &head[..]).unwrap().is_none());
    let mut came = 0;
    for _ in 0..300 {
        assert!(reader.next(&mut &[0; 1_000][..]).unwrap().is_none());
        came += 1_000;
        assert!(
            reader.held_bytes() <= 2 * came + (64 << 10) + 2_000,
            "{} held of {came}",
            reader.held_bytes()
        );
    }
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused_without_allocating() {
    // 4,096 exceptions, 1,024 ids or lanes declared, and nothing behind: an error, at once.
    let mut ack = 1_u64.to_le_bytes().to_vec();
    ack.extend([3, 0, 0, 0]);
    ack.extend(4_096_u32.to_le_bytes());
    ack.extend(4_096_u32.to_le_bytes());
    let error = Frame::decode(FrameKind::Ack, ack.into()).unwrap_err();
    assert_eq!(error, FrameError::Truncated { field: "exceptions", got: 0, limit: 4_096 * 21 });
    let mut get = 1_u64.to_le_bytes().to_vec();
    get.extend(1_024_u32.to_le_bytes());
    let error = Frame::decode(FrameKind::GetMessages, get.into()).unwrap_err();
    assert_eq!(error, FrameError::Truncated { field: "ids", got: 0, limit: 32_768 });
    let mut get = 1_u64.to_le_bytes().to_vec();
    get.extend(u32::MAX.to_le_bytes());
    let error = Frame::decode(FrameKind::GetMessages, get.into()).unwrap_err();
    assert_eq!(error, FrameError::Count { field: "ids", got: u32::MAX.into(), limit: 1_024 });
}

#[test]
fn a_submit_of_none_or_of_4097_messages_is_refused() {
    for count in [0, 4_097] {
        let error = Submit::new(1, &vec![0; count], Bytes::new()).unwrap_err();
        assert!(
            matches!(error, FrameError::Count { got, limit: 4_096, .. } if got == count as u64),
            "{error}"
        );
    }
    assert_eq!(Submit::new(1, &[0; 4_096], Bytes::new()).unwrap().len(), 4_096);
    assert_eq!(
        Submit::new(1, &[2], Bytes::from_static(b"abc")),
        Err(FrameError::Lengths { got: 3, limit: 2 })
    );
}

#[test]
fn exceptions_out_of_order_or_beyond_the_count_are_refused() {
    let at = |indexes: &[u32]| {
        let exceptions =
            indexes.iter().map(|&index| AckException { index, code: 1, got: 0, limit: 0 }).collect();
        decoded(&encoded(&Frame::Ack(Ack {
            request_id: 1,
            level: AckLevel::Durable,
            count: 3,
            exceptions,
            tips: Vec::new(),
        })))
    };
    assert!(at(&[0, 2]).is_ok());
    for bad in [&[2, 0][..], &[1, 1], &[3]] {
        assert!(matches!(at(bad), Err(FrameError::Value { .. })), "{bad:?}");
    }
}

#[test]
fn a_hello_of_another_version_is_named_whatever_else_it_says() {
    let body = [b"WEFT".as_slice(), &2_u16.to_le_bytes(), b"all is new from here"].concat();
    let error = Frame::decode(FrameKind::Hello, body.into()).unwrap_err();
    assert_eq!(error, FrameError::Version { got: 2, limit: 1 });
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
}

#[test]
fn a_text_is_cut_at_a_character() {
    let error = WireError::new(1, ErrorCode::Internal, 0, "é".repeat(300));
    assert_eq!(error.text.len(), 256);
    let error = WireError::new(1, ErrorCode::Internal, 0, format!("x{}", "é".repeat(300)));
    assert_eq!(error.text.len(), 255);
}

#[test]
fn messages_that_do_not_fit_one_reply_are_to_be_asked_for_again() {
    let found = Found { place: Place(1), bytes: Bytes::from(vec![1; 16_568]) };
    let mut answers = vec![Some(found); 1_023];
    answers.push(None);
    let answers = fit_answers(answers);
    assert_eq!(answers.len(), 1_024);
    let fit = answers.iter().filter(|answer| matches!(answer, Lookup::Found(_))).count();
    assert_eq!(fit, MESSAGES_BYTES_MAX / 16_578);
    assert_eq!(answers[1_023], Lookup::Absent);
    assert_eq!(answers.iter().filter(|answer| **answer == Lookup::AskAgain).count(), 1_023 - fit);
    let bytes = encoded(&Frame::Messages { request_id: 1, answers });
    assert!(bytes.len() - FRAME_HEAD_BYTES <= MESSAGES_BYTES_MAX);
    assert!(decoded(&bytes).is_ok());
}
