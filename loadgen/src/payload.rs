//! Payloads that look like readings: a tag, a fixed-size record of plausible values, and a waveform to fill the rest.
//!
//! Owns what the emulated devices say. A payload is a pure function of (device, cycle), so that any run can be reproduced and an auditor
//! needs nothing but the two numbers. Bytes vary from message to message as real readings do: nothing here compresses to nothing, and
//! nothing is a row of zeros. Sizes are the configuration's: a payload shorter than the record carries its first bytes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | tag: `weft.reading.v1`, then a zero byte |
//! | 16 | 4 | counter: the cycle, modulo 2^32 |
//! | 20 | 2 | temperature, hundredths of a degree Celsius, signed |
//! | 22 | 2 | relative humidity, hundredths of a percent |
//! | 24 | 4 | air pressure, pascal |
//! | 28 | 2 | battery, millivolt |
//! | 30 | 1 | received signal strength, dBm, signed |
//! | 31 | 1 | flags: bit 0 moving, bit 1 door open, bit 2 low battery |
//! | 32 | 2 each | samples of a sensor in 16 bits, signed, as many as fit; an odd last byte is the low one |

use crate::mix::{below, mix};

/// The first 16 bytes of every payload (a data payload begins with a tag; design, section 3).
pub const TAG: [u8; 16] = *b"weft.reading.v1\0";

/// Bytes of a payload, at least: the tag.
pub const PAYLOAD_BYTES_MIN: usize = TAG.len();

/// Bytes of tag and record together.
const RECORD_END: usize = 32;

/// Appends the reading of `device` in `cycle` to `out`: exactly `bytes` bytes (fewer than [`PAYLOAD_BYTES_MIN`] give a cut tag).
pub fn write_reading(device: u64, cycle: u64, bytes: usize, out: &mut Vec<u8>) {
    let end = out.len() + bytes;
    // What the device is like stays; what it reads now changes from cycle to cycle.
    let nature = mix(device ^ 0x5745_4654);
    let now = mix(nature ^ mix(cycle));

    let mut record = [0; RECORD_END];
    record[..16].copy_from_slice(&TAG);
    record[16..20].copy_from_slice(&(cycle as u32).to_le_bytes());
    let temperature = below(nature, 4_000) as i16 - 500 + below(now, 100) as i16 - 50;
    record[20..22].copy_from_slice(&temperature.to_le_bytes());
    let humidity = 2_000 + below(mix(nature), 6_000) as u16 + below(mix(now), 200) as u16;
    record[22..24].copy_from_slice(&humidity.to_le_bytes());
    let pressure =
        98_000 + below(nature.rotate_left(17), 5_000) as u32 + below(now.rotate_left(17), 60) as u32;
    record[24..28].copy_from_slice(&pressure.to_le_bytes());
    let battery = 4_200 - below(nature.rotate_left(33), 1_200) as u16 - (cycle.min(200) as u16);
    record[28..30].copy_from_slice(&battery.to_le_bytes());
    record[30] = (-40 - below(nature.rotate_left(49), 60) as i8) as u8;
    record[31] = u8::from(now & 0x7 == 0) | u8::from(now & 0x78 == 0) << 1 | u8::from(battery < 3_000) << 2;
    out.extend_from_slice(&record[..bytes.min(RECORD_END)]);

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

    fn reading(device: u64, cycle: u64, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_reading(device, cycle, bytes, &mut out);
        out
    }

    #[test]
    fn a_payload_has_the_size_asked_for_whatever_it_is() {
        for bytes in (0..200).chain([1_000, 16_383, 16_384]) {
            let mut out = vec![0xAA; 3];
            write_reading(5, 6, bytes, &mut out);
            assert_eq!(out.len(), 3 + bytes);
            assert!(bytes < 16 || out[3..19] == TAG);
        }
    }

    #[test]
    fn a_payload_is_a_function_of_device_and_cycle() {
        assert_eq!(reading(5, 6, 64), reading(5, 6, 64));
        assert_ne!(reading(5, 6, 64), reading(5, 7, 64));
        assert_ne!(reading(5, 6, 64), reading(6, 6, 64));
        assert_eq!(
            reading(5, 6, 20)[..],
            reading(5, 6, 64)[..20],
            "a shorter payload is the beginning of a longer one"
        );
    }

    #[test]
    fn readings_are_plausible() {
        for device in (0..2_000).map(|i| i * 9_999_991) {
            let payload = reading(device, device % 7, 64);
            let field = |at: usize| i16::from_le_bytes([payload[at], payload[at + 1]]);
            assert!((-600..=3_600).contains(&field(20)), "temperature {}", field(20));
            assert!((2_000..=8_200).contains(&field(22)), "humidity {}", field(22));
            assert!((2_800..=4_200).contains(&field(28)), "battery {}", field(28));
            assert!((-100..=-40).contains(&(payload[30] as i8)), "signal {}", payload[30] as i8);
            assert_eq!(payload[31] & !7, 0);
        }
    }
}
