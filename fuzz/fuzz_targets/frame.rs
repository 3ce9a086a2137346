//! Any bytes as a frame and as a stream of frames: nothing panics, what decodes has no other encoding, a Submit's
//! messages add up, and how a stream is cut changes nothing.
//!
//! Input: the first byte picks the type of one body and the step in which the whole input is read as a stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_net::FrameError;
use weft_net::frame::{Frame, FrameKind};
use weft_net::limits::FRAME_HEAD_BYTES;
use weft_net::reader::FrameReader;

const FRAME_BYTES_MAX: u32 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let [first, rest @ ..] = data else { return };
    let kind = FrameKind::ALL[usize::from(*first) % FrameKind::ALL.len()];
    if let Ok(frame) = Frame::decode(kind, rest.to_vec().into()) {
        check(&frame, rest);
    }
    let whole = read(rest, usize::MAX);
    assert_eq!(read(rest, 1 + usize::from(*first)), whole);
    let mut bytes = Vec::new();
    whole.0.iter().for_each(|frame| frame.encode(&mut bytes));
    assert!(rest.starts_with(&bytes));
});

fn check(frame: &Frame, body: &[u8]) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(&bytes[FRAME_HEAD_BYTES..], body);
    assert_eq!(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize, body.len());
    if let Frame::Submit(submit) = frame {
        assert_eq!(submit.iter().map(<[u8]>::len).sum::<usize>(), submit.bytes().len());
        assert_eq!(submit.iter().count(), submit.len());
    }
}

/// The frames before the first error, and that error.
fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut reader = FrameReader::new(FRAME_BYTES_MAX, |_| true);
    let mut frames = Vec::new();
    for mut piece in bytes.chunks(step.min(bytes.len().max(1))) {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
            assert!(reader.held_bytes() <= FRAME_HEAD_BYTES + FRAME_BYTES_MAX as usize);
        }
        assert!(piece.is_empty());
    }
    (frames, None)
}
