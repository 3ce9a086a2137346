//! Any bytes as a frame between peers and as a stream of them: nothing panics, what decodes has no other encoding, how a
//! stream is cut changes nothing, and no more is held than has come.
//!
//! Input: the first byte picks the type of one body and the step in which the whole input is read as a stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_net::limits::FRAME_HEAD_BYTES;
use weft_net::peer::PeerFrame;
use weft_net::peer::frame::{PeerFrameError, PeerKind};
use weft_net::peer::reader::PeerReader;

const BATCH_BYTES_MAX: u32 = 1 << 20;

/// What a reader makes room for at once.
const ROOM_BYTES: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let [first, rest @ ..] = data else { return };
    let kind = PeerKind::ALL[usize::from(*first) % PeerKind::ALL.len()];
    if kind.check_length(rest.len(), BATCH_BYTES_MAX).is_ok()
        && let Ok(frame) = PeerFrame::decode(kind, rest.to_vec().into())
    {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(&bytes[FRAME_HEAD_BYTES..], rest);
        assert_eq!(bytes.len(), frame.wire_bytes());
    }
    let whole = read(rest, usize::MAX);
    assert_eq!(read(rest, 1 + usize::from(*first)), whole);
    let mut bytes = Vec::new();
    whole.0.iter().for_each(|frame| frame.encode(&mut bytes));
    assert!(rest.starts_with(&bytes));
});

/// The frames before the first error, and that error.
fn read(bytes: &[u8], step: usize) -> (Vec<PeerFrame>, Option<PeerFrameError>) {
    let mut reader = PeerReader::new(BATCH_BYTES_MAX);
    let mut frames = Vec::new();
    for mut piece in bytes.chunks(step.min(bytes.len().max(1))) {
        loop {
            match reader.next(&mut piece, |_| true) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(piece.is_empty());
        assert!(reader.held_bytes() <= FRAME_HEAD_BYTES + (2 * bytes.len()).max(ROOM_BYTES));
    }
    (frames, None)
}
