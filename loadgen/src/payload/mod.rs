//! Payloads that look like what a device of its class says: a tag, a record of plausible values, and more of the same to fill the rest.
//!
//! Owns what the emulated devices say and how long it is. A payload is a pure function of class content, device and the event's bits, so that
//! any run can be reproduced. What a device *is* (where it stands, what its meter read last year) comes from its number and stays; what it
//! reads now comes from the event. Bytes vary as real readings do: nothing here compresses to nothing, and nothing is a row of zeros.
//! A payload shorter than its record carries the record's first bytes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | tag, zero-padded: `weft.environment`, `weft.media`, ... one per [`Content`] |
//! | 16 | up to 24 | the record of the content, little-endian, see `records` |
//! | then | 2 each | samples in 16 bits, signed: a bounded random walk, as many as fit; an odd last byte is the low one. Detections are JSON text instead |

mod records;

use crate::arrival::unit;
use crate::mix::{below, mix};
use crate::profile::{Content, Size};

/// Bytes of the tag that every payload begins with (a data payload begins with a tag; design, section 3).
pub const TAG_BYTES: usize = 16;

/// Bytes of a payload, at least: the tag.
pub const PAYLOAD_BYTES_MIN: usize = TAG_BYTES;

/// The tag of a content.
#[must_use]
pub const fn tag(content: Content) -> [u8; TAG_BYTES] {
    match content {
        Content::Environment => *b"weft.environment",
        Content::Media => *b"weft.media\0\0\0\0\0\0",
        Content::Lighting => *b"weft.lighting\0\0\0",
        Content::Wearable => *b"weft.wearable\0\0\0",
        Content::Meter => *b"weft.meter\0\0\0\0\0\0",
        Content::Machine => *b"weft.machine\0\0\0\0",
        Content::Inventory => *b"weft.inventory\0\0",
        Content::Detection => *b"weft.detection\0\0",
        Content::Position => *b"weft.position\0\0\0",
        Content::Vitals => *b"weft.vitals\0\0\0\0\0",
    }
}

/// How long a payload is, drawn by the bits of its event.
#[must_use]
pub fn draw_size(size: &Size, bits: u64) -> usize {
    let bytes = match *size {
        Size::Fixed { bytes } => return bytes as usize,
        Size::Uniform { min, max } => {
            return min as usize + below(mix(bits ^ 0x5355), u64::from(max - min) + 1) as usize;
        }
        Size::Lognormal { median, mean, min, max } => {
            // The mean of a lognormal is its median times exp(sigma^2 / 2).
            let sigma = (2.0 * (mean / median).ln()).sqrt();
            // Box and Muller, 1958: one of the pair is enough.
            let (first, second) = (unit(mix(bits ^ 0x534C)), unit(mix(bits ^ 0x534D)));
            let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
            (median * (sigma * normal).exp()).clamp(f64::from(min), f64::from(max))
        }
        Size::Pareto { alpha, min, max } => {
            (f64::from(min) * unit(mix(bits ^ 0x5350)).powf(-1.0 / alpha)).min(f64::from(max))
        }
    };
    bytes.round() as usize
}

/// Appends what `device` says to `out`: exactly `bytes` bytes (fewer than [`PAYLOAD_BYTES_MIN`] give a cut tag).
pub fn write_payload(content: Content, device: u64, bits: u64, bytes: usize, out: &mut Vec<u8>) {
    let end = out.len() + bytes;
    out.extend_from_slice(&tag(content)[..bytes.min(TAG_BYTES)]);
    // What the device is like stays; what it reads now changes.
    let nature = mix(device ^ 0x5745_4654);
    let now = mix(nature ^ bits);
    if content == Content::Detection {
        records::detections(nature, now, end, out);
        return;
    }
    let record = records::record(content, nature, now);
    let room = (end - out.len()).min(record.len());
    out.extend_from_slice(&record[..room]);
    // A bounded random walk of 16-bit samples, four to a mixed word.
    let (mut word, mut sample) = (now, 0i16);
    while out.len() < end {
        word = mix(word);
        for step in word.to_le_bytes().chunks_exact(2) {
            sample = sample / 2 + i16::from_le_bytes([step[0], step[1]]) / 8;
            let room = (end - out.len()).min(2);
            out.extend_from_slice(&sample.to_le_bytes()[..room]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Content; 10] = [
        Content::Environment,
        Content::Media,
        Content::Lighting,
        Content::Wearable,
        Content::Meter,
        Content::Machine,
        Content::Inventory,
        Content::Detection,
        Content::Position,
        Content::Vitals,
    ];

    fn payload(content: Content, device: u64, bits: u64, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_payload(content, device, bits, bytes, &mut out);
        out
    }

    #[test]
    fn a_payload_has_the_size_asked_for_whatever_it_is() {
        for content in ALL {
            for bytes in (0..200).chain([1_000, 16_383, 16_384]) {
                let mut out = vec![0xAA; 3];
                write_payload(content, 5, 6, bytes, &mut out);
                assert_eq!(out.len(), 3 + bytes, "{content:?}");
                assert!(bytes < 16 || out[3..19] == tag(content));
            }
        }
    }

    #[test]
    fn a_payload_is_a_function_of_device_and_event_and_no_row_of_zeros() {
        for content in ALL {
            let one = payload(content, 5, 6, 64);
            assert_eq!(one, payload(content, 5, 6, 64));
            assert_ne!(one, payload(content, 5, 7, 64), "{content:?}");
            assert_ne!(one, payload(content, 6, 6, 64), "{content:?}");
            let long = payload(content, 9, 9, 512);
            let zeros = long[16..].iter().filter(|byte| **byte == 0).count();
            assert!(zeros < 60, "{content:?}: {zeros} zero bytes of 496");
        }
    }

    #[test]
    fn tags_differ() {
        let tags: std::collections::BTreeSet<_> = ALL.iter().map(|content| tag(*content)).collect();
        assert_eq!(tags.len(), ALL.len());
    }

    /// Means over 200,000 draws; the standard error of the widest (lognormal, sigma 0.52) is 0.12 %, so 1 % is eight of them.
    #[test]
    fn sizes_have_the_means_of_their_models_and_stay_within_their_limits() {
        for size in [
            Size::Fixed { bytes: 77 },
            Size::Uniform { min: 20, max: 100 },
            Size::Lognormal { median: 56.0, mean: 64.0, min: 16, max: 4_096 },
            Size::Pareto { alpha: 2.5, min: 20, max: 200 },
        ] {
            let draws = 200_000u64;
            let sizes: Vec<usize> = (0..draws).map(|event| draw_size(&size, mix(event))).collect();
            assert!(sizes.iter().all(|bytes| (size.min() as usize..=size.max() as usize).contains(bytes)));
            let mean = sizes.iter().sum::<usize>() as f64 / draws as f64;
            assert!((mean / size.mean() - 1.0).abs() < 0.01, "{size:?}: {mean}, model {}", size.mean());
        }
    }
}
