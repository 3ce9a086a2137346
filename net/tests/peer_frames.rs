//! Frames between peers: the table of `weft_net::peer::frame`, held by examples and by random input.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use bytes::Bytes;
use proptest::prelude::*;
use weft_core::{
    FORK_PROOF_BYTES_MAX, FORK_PROOF_BYTES_MIN, GenesisId, LANES_MAX, LaneId, MESSAGE_BYTES_MAX,
    MESSAGE_BYTES_MIN,
};
use weft_net::FrameError;
use weft_net::limits::FRAME_HEAD_BYTES;
use weft_net::peer::frame::{
    BATCH_BYTES_MIN, CHAIN_WITNESSES_MAX, ENDS_MAX, EndReason, PeerFrameError, PeerKind,
};
use weft_net::peer::reader::PeerReader;
use weft_net::peer::{Holdings, LaneEnd, NotCosigned, PeerCode, PeerFrame};

const BATCH_BYTES_MAX: u32 = 4_096;

fn end() -> impl Strategy<Value = LaneEnd> {
    (any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, root)| LaneEnd { size, root })
}

fn lane() -> impl Strategy<Value = LaneId> {
    (0..LANES_MAX).prop_map(LaneId)
}

fn bytes(least: usize, most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), least..=most).prop_map(Bytes::from)
}

fn holdings() -> impl Strategy<Value = Holdings> {
    let lanes = prop::collection::btree_map(lane(), end(), 0..40);
    let followed = prop::collection::btree_map(0..LANES_MAX, any::<u64>(), 0..40);
    (lanes, followed).prop_map(|(lanes, followed)| Holdings {
        lanes: lanes.into_iter().collect(),
        followed: followed.into_iter().collect(),
    })
}

fn frame() -> impl Strategy<Value = PeerFrame> {
    let batch = || bytes(BATCH_BYTES_MIN, BATCH_BYTES_MIN + 300);
    prop_oneof![
        (lane(), any::<[u8; 32]>())
            .prop_map(|(lane, genesis)| PeerFrame::Hello { lane, genesis: GenesisId(genesis) }),
        bytes(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MIN + 300).prop_map(PeerFrame::Witness),
        holdings().prop_map(PeerFrame::Holdings),
        any::<u64>().prop_map(PeerFrame::Ping),
        any::<u64>().prop_map(PeerFrame::Pong),
        (lane(), 1..u64::MAX, prop::collection::vec(end(), 1..60))
            .prop_map(|(lane, credit, ends)| PeerFrame::Subscribe { lane, credit, ends }),
        (1..u64::MAX).prop_map(PeerFrame::Grant),
        end().prop_map(PeerFrame::Started),
        batch().prop_map(PeerFrame::Batch),
        any::<u64>().prop_map(|held| PeerFrame::NotHeld { held }),
        batch().prop_map(PeerFrame::Fork),
        prop::sample::select(EndReason::ALL).prop_map(PeerFrame::Ended),
        (0..LANES_MAX, 1..=CHAIN_WITNESSES_MAX as u16, any::<u64>())
            .prop_map(|(validator, count, after)| PeerFrame::WantWitnesses { validator, count, after }),
        lane().prop_map(|lane| PeerFrame::ForkProof { lane }),
        bytes(FORK_PROOF_BYTES_MIN, FORK_PROOF_BYTES_MAX).prop_map(PeerFrame::Forked),
        (lane(), 1..u64::MAX, any::<[u8; 32]>())
            .prop_map(|(lane, size, root)| PeerFrame::Cosign { lane, end: LaneEnd { size, root } }),
        (0..=i64::MAX as u64, prop::collection::vec(any::<u8>(), 64)).prop_map(|(time_s, signature)| {
            PeerFrame::Cosignature { time_s, signature: signature.try_into().unwrap() }
        }),
        prop::sample::select(NotCosigned::ALL).prop_map(PeerFrame::NotCosigned),
    ]
}

fn encoded(frame: &PeerFrame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// The frames before the first error, and that error.
fn read(bytes: &[u8], step: usize) -> (Vec<PeerFrame>, Option<PeerFrameError>) {
    let mut reader = PeerReader::new(BATCH_BYTES_MAX);
    let mut frames = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match reader.next(&mut piece, |_| true) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were_however_the_stream_is_cut(
        frames in prop::collection::vec(frame(), 1..6),
        step in 1_usize..700,
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            let before = stream.len();
            frame.encode(&mut stream);
            prop_assert_eq!(stream.len() - before, frame.wire_bytes());
        }
        prop_assert_eq!(read(&stream, step), (frames, None));
    }

    #[test]
    fn what_decodes_has_no_other_encoding(
        kind in prop::sample::select(PeerKind::ALL),
        body in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        if kind.check_length(body.len(), BATCH_BYTES_MAX).is_ok()
            && let Ok(frame) = PeerFrame::decode(kind, body.clone().into())
        {
            prop_assert_eq!(&encoded(&frame)[FRAME_HEAD_BYTES..], &body[..]);
        }
    }

    #[test]
    fn a_changed_byte_gives_another_frame_or_an_error(frame in frame(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&frame);
        let at = at.index(bytes.len());
        bytes[at] ^= 0x41;
        let (frames, _) = read(&bytes, usize::MAX);
        prop_assert_ne!(frames, vec![frame]);
    }
}

#[test]
fn lengths_are_refused_by_the_head_alone() {
    for kind in PeerKind::ALL {
        let (least, most) = kind.body_bytes(BATCH_BYTES_MAX);
        for (length, fits) in [(least, true), (most, true), (most + 1, false), (least.wrapping_sub(1), false)]
        {
            let Ok(declared) = u32::try_from(length) else { continue };
            let mut head = declared.to_le_bytes().to_vec();
            head.push(kind.code());
            let mut reader = PeerReader::new(BATCH_BYTES_MAX);
            let result = reader.next(&mut &head[..], |_| true);
            assert_eq!(result.is_ok(), fits, "{kind}: {length}");
            assert!(reader.held_bytes() <= FRAME_HEAD_BYTES, "{kind}: {length}");
        }
    }
    let (_, most) = PeerKind::Witness.body_bytes(BATCH_BYTES_MAX);
    assert_eq!(most, MESSAGE_BYTES_MAX);
}

#[test]
fn room_follows_what_has_come_and_not_what_is_declared() {
    let mut reader = PeerReader::new(64 << 20);
    let mut head = (64_u32 << 20).to_le_bytes().to_vec();
    head.push(PeerKind::Batch.code());
    head.extend_from_slice(&[7; 100]);
    assert_eq!(reader.next(&mut &head[..], |_| true), Ok(None));
    assert!(reader.held_bytes() < 1 << 20, "{}", reader.held_bytes());
}

#[test]
fn a_type_that_may_not_come_now_is_refused_before_its_body() {
    let mut reader = PeerReader::new(BATCH_BYTES_MAX);
    let frame = encoded(&PeerFrame::Ping(7));
    let error = reader.next(&mut &frame[..5], |kind| kind == PeerKind::Hello).unwrap_err();
    assert!(matches!(error, PeerFrameError::Unexpected { got: PeerKind::Ping, .. }), "{error}");
}

#[test]
fn lists_out_of_order_and_counts_beyond_their_limits_are_errors() {
    let lanes = |lanes: &[u16]| {
        let end = LaneEnd { size: 1, root: [0; 32] };
        let holdings =
            Holdings { lanes: lanes.iter().map(|lane| (LaneId(*lane), end)).collect(), followed: vec![] };
        encoded(&PeerFrame::Holdings(holdings))
    };
    assert!(read(&lanes(&[1, 2]), 99).1.is_none());
    for bad in [&[2, 1][..], &[3, 3], &[LANES_MAX]] {
        assert!(read(&lanes(bad), 99).1.is_some(), "{bad:?}");
    }
    let ends = vec![LaneEnd { size: 1, root: [0; 32] }; ENDS_MAX + 1];
    let subscribe = PeerFrame::Subscribe { lane: LaneId(0), credit: 1, ends };
    assert!(read(&encoded(&subscribe), 99).1.is_some());
    assert!(read(&encoded(&PeerFrame::Grant(0)), 99).1.is_some());
    let many = PeerFrame::WantWitnesses { validator: 0, count: CHAIN_WITNESSES_MAX as u16 + 1, after: 0 };
    assert!(read(&encoded(&many), 99).1.is_some());
    let nothing = PeerFrame::Cosign { lane: LaneId(0), end: LaneEnd { size: 0, root: [0; 32] } };
    assert!(read(&encoded(&nothing), 99).1.is_some());
    for (time_s, fits) in [(1 << 63, false), ((1 << 63) - 1, true)] {
        let cosignature = PeerFrame::Cosignature { time_s, signature: [0; 64] };
        assert_eq!(read(&encoded(&cosignature), 99).1.is_none(), fits);
    }
}

#[test]
fn a_hello_of_another_version_is_refused_by_name_whatever_follows() {
    let mut hello = encoded(&PeerFrame::Hello { lane: LaneId(3), genesis: GenesisId([9; 32]) });
    hello[FRAME_HEAD_BYTES + 4] = 2;
    hello.extend_from_slice(&[5; 10]);
    hello[0] += 10;
    let error = read(&hello, 99).1.unwrap();
    assert_eq!(error, PeerFrameError::Field(FrameError::Version { got: 2, limit: 1 }));
    assert_eq!(error.code(), PeerCode::UnsupportedVersion);
}

#[test]
fn the_smallest_hello_is_these_bytes() {
    let hello = encoded(&PeerFrame::Hello { lane: LaneId(0x0102), genesis: GenesisId([0xab; 32]) });
    let mut expected = vec![40, 0, 0, 0, 32];
    expected.extend_from_slice(b"WPER\x01\x00\x02\x01");
    expected.extend_from_slice(&[0xab; 32]);
    assert_eq!(hello, expected);
}
