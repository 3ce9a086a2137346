//! The records of each kind of payload: which values, in which range.
//!
//! Owns ranges and layouts. All integers little-endian, in the order of the table; every record has [`RECORD_BYTES`] bytes.
//!
//! | content | fields |
//! |---|---|
//! | environment | temperature 0.01 C i16, humidity 0.01 % u16, pressure Pa u32, battery mV u16, light lx u16, CO2 ppm u16, signal dBm i8, flags u8, uptime s u32, serial u32 |
//! | media | session u32, position ms u32, buffer ms u16, bitrate kbit/s u16, volume u8, state u8, dropped frames u16, uptime s u32, serial u32 |
//! | lighting | dimmer 0.1 % u16, colour temperature K u16, power mW u32, energy Wh u32, on-time s u32, switch count u32, serial u32 |
//! | wearable | heart rate u8, oxygen % u8, skin 0.01 C i16, steps u32, distance dm u32, energy kJ u16, cadence u16, battery % u16, elevation dm i16, serial u32 |
//! | meter | register Wh u64, power W u32, three voltages 0.1 V u16, frequency mHz u16, serial u32 |
//! | machine | speed rpm u16, pressure kPa u16, temperature 0.1 C i16, vibration um/s u16, pieces u32, state u16, fault u16, hours u32, serial u32 |
//! | inventory | item u64, shelf u32, count u16, event u16, battery mV u16, temperature 0.1 C i16, serial u32 |
//! | position | latitude 1e-7 deg i32, longitude 1e-7 deg i32, speed cm/s u16, heading 0.01 deg u16, altitude dm i32, accuracy cm u16, satellites u16, serial u32 |
//! | vitals | heart rate u8, oxygen u8, systolic u8, diastolic u8, temperature 0.01 C u16, respiration u8, alarm u8, ECG lead mV u16 x2, sequence u32, ward u32, serial u32 |

use std::io::Write as _;

use crate::mix::{below, mix};
use crate::profile::Content;

/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 24;

/// Values drawn from a word of mixed bits, one after the other.
struct Values {
    word: u64,
}

impl Values {
    fn within(&mut self, least: i64, most: i64) -> i64 {
        self.word = mix(self.word);
        least + below(self.word, (most - least + 1) as u64) as i64
    }
}

/// A record under construction; what does not fit is cut.
struct Record {
    bytes: [u8; RECORD_BYTES],
    used: usize,
}

impl Record {
    fn put<const N: usize>(&mut self, value: [u8; N]) {
        let end = (self.used + N).min(RECORD_BYTES);
        self.bytes[self.used..end].copy_from_slice(&value[..end - self.used]);
        self.used = end;
    }

    fn u8(&mut self, value: i64) {
        self.put((value as u8).to_le_bytes());
    }

    fn u16(&mut self, value: i64) {
        self.put((value as u16).to_le_bytes());
    }

    fn u32(&mut self, value: i64) {
        self.put((value as u32).to_le_bytes());
    }

    fn u64(&mut self, value: i64) {
        self.put((value as u64).to_le_bytes());
    }
}

/// The record of a device that is like `nature` and reads `now`.
pub(super) fn record(content: Content, nature: u64, now: u64) -> [u8; RECORD_BYTES] {
    let (mut is, mut reads) = (Values { word: nature }, Values { word: now });
    let mut record = Record { bytes: [0; RECORD_BYTES], used: 0 };
    match content {
        Content::Environment => {
            record.u16(is.within(-500, 3_500) + reads.within(-50, 50));
            record.u16(is.within(2_000, 8_000) + reads.within(0, 200));
            record.u32(is.within(98_000, 103_000) + reads.within(0, 60));
            record.u16(is.within(2_900, 4_100) + reads.within(-30, 30));
            record.u16(reads.within(0, 40_000));
            record.u16(is.within(400, 900) + reads.within(0, 300));
            record.u8(is.within(-100, -45) + reads.within(-3, 3));
            record.u8(reads.within(0, 7));
            record.u32(is.within(1_000, 90_000_000) + reads.within(0, 86_400));
        }
        Content::Media => {
            record.u32(is.within(1, i64::from(u32::MAX)));
            record.u32(reads.within(0, 7_200_000));
            record.u16(reads.within(2_000, 30_000));
            record.u16(is.within(96, 16_000));
            record.u8(is.within(0, 100));
            record.u8(reads.within(0, 4));
            record.u16(reads.within(0, 20));
            record.u32(is.within(1_000, 30_000_000) + reads.within(0, 86_400));
        }
        Content::Lighting => {
            record.u16(reads.within(0, 1_000));
            record.u16(is.within(2_200, 6_500));
            record.u32(reads.within(200, 60_000));
            record.u32(is.within(100, 900_000) + reads.within(0, 100));
            record.u32(reads.within(1, 86_400));
            record.u32(is.within(10, 200_000));
        }
        Content::Wearable => {
            record.u8(is.within(48, 75) + reads.within(0, 90));
            record.u8(reads.within(93, 100));
            record.u16(is.within(3_100, 3_500) + reads.within(-80, 80));
            record.u32(reads.within(1, 25_000));
            record.u32(reads.within(1, 200_000));
            record.u16(reads.within(10, 12_000));
            record.u16(reads.within(1, 190));
            record.u16(reads.within(3, 100));
            record.u16(is.within(-50, 20_000) + reads.within(-90, 90));
        }
        Content::Meter => {
            record.u64(is.within(1_000_000, 90_000_000_000) + reads.within(0, 4_000));
            record.u32(reads.within(5, 11_000));
            record.u16(reads.within(2_240, 2_360));
            record.u16(reads.within(2_240, 2_360));
            record.u16(reads.within(2_240, 2_360));
            record.u16(reads.within(49_950, 50_050));
        }
        Content::Machine => {
            record.u16(is.within(300, 18_000) + reads.within(-40, 40));
            record.u16(is.within(100, 25_000) + reads.within(-20, 20));
            record.u16(is.within(180, 1_100) + reads.within(-15, 15));
            record.u16(reads.within(80, 9_000));
            record.u32(is.within(0, 90_000_000) + reads.within(0, 5_000));
            record.u16(reads.within(1, 6));
            record.u16(if reads.within(0, 99) == 0 { reads.within(1, 900) } else { 0 });
            record.u32(is.within(10, 180_000));
        }
        Content::Inventory => {
            record.u64(is.within(4_000_000_000_000, 9_999_999_999_999));
            record.u32(is.within(1, 400_000));
            record.u16(reads.within(0, 500));
            record.u16(reads.within(1, 9));
            record.u16(is.within(2_900, 3_100) + reads.within(-10, 10));
            record.u16(is.within(-180, 220) + reads.within(-8, 8));
        }
        Content::Position => {
            record.u32(is.within(-550_000_000, 650_000_000) + reads.within(-90_000, 90_000));
            record.u32(is.within(-1_790_000_000, 1_790_000_000) + reads.within(-90_000, 90_000));
            record.u16(reads.within(0, 4_200));
            record.u16(reads.within(0, 35_999));
            record.u32(is.within(-50, 25_000) + reads.within(-20, 20));
            record.u16(reads.within(80, 1_200));
            record.u16(reads.within(5, 24));
        }
        Content::Vitals => {
            record.u8(is.within(50, 85) + reads.within(-8, 40));
            record.u8(reads.within(88, 100));
            record.u8(is.within(105, 150) + reads.within(-9, 9));
            record.u8(is.within(60, 95) + reads.within(-6, 6));
            record.u16(is.within(3_620, 3_720) + reads.within(-20, 120));
            record.u8(reads.within(9, 24));
            record.u8(i64::from(reads.within(0, 199) == 0));
            record.u16(reads.within(-1_500, 1_800));
            record.u16(reads.within(-1_500, 1_800));
            record.u32(reads.within(1, 90_000_000));
            record.u32(is.within(1, 40_000));
        }
        // Text, written by `detections`.
        Content::Detection => {}
    }
    // The serial number fills what is left.
    while record.used < RECORD_BYTES {
        record.u32(is.within(1, i64::from(u32::MAX)));
    }
    record.bytes
}

/// Appends detections as JSON text up to `end`; the last one may be cut, as a full buffer would cut it.
pub(super) fn detections(nature: u64, now: u64, end: usize, out: &mut Vec<u8>) {
    const THINGS: [&str; 8] = ["person", "car", "bicycle", "dog", "parcel", "truck", "face", "cat"];
    let (mut is, mut reads) = (Values { word: nature }, Values { word: now });
    if out.len() < end {
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            "{{\"cam\":{},\"frame\":{},\"seen\":[",
            is.within(1, 999_999_999),
            reads.within(1, 99_999_999)
        );
    }
    while out.len() < end {
        let thing = THINGS[reads.within(0, 7) as usize];
        let (x, y) = (reads.within(0, 1_919), reads.within(0, 1_079));
        let (w, h, p) = (reads.within(8, 640), reads.within(8, 480), reads.within(50, 99));
        let _ = write!(out, "{{\"is\":\"{thing}\",\"p\":0.{p},\"box\":[{x},{y},{w},{h}]}},");
    }
    out.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_plausible() {
        for device in (0..2_000).map(|i| i * 9_999_991) {
            let field = |record: &[u8], at: usize| i16::from_le_bytes([record[at], record[at + 1]]);
            let environment = record(Content::Environment, mix(device), mix(device + 1));
            assert!((-550..=3_550).contains(&field(&environment, 0)));
            assert!((2_000..=8_200).contains(&field(&environment, 2)));
            let vitals = record(Content::Vitals, mix(device), mix(device + 1));
            assert!((42..=125).contains(&vitals[0]) && (88..=100).contains(&vitals[1]));
            let position = record(Content::Position, mix(device), mix(device + 1));
            let latitude = i32::from_le_bytes([position[0], position[1], position[2], position[3]]);
            assert!((-560_000_000..=660_000_000).contains(&latitude));
        }
    }

    #[test]
    fn detections_are_text() {
        let mut out = Vec::new();
        detections(3, 4, 300, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("{\"cam\":") && text.contains("\"box\":["), "{text}");
    }
}
