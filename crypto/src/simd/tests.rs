//! Every kernel, on every backend of this CPU and on its twin over arrays, against serial code.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use sha2::{Digest, Sha256, Sha512};

use super::backend::{self, Kernels};
use super::hash::{Context, Hashes};
use super::multiscalar::{Terms, windows_alike, windows_of_two};
use super::point::NielsRow;
use super::sha512::Parts;
use super::sign::SimdSigner;
use super::straus::{GROUP_ROWS_MAX, Term, Workspace};
use super::verify::SimdBatch;
use super::{blake3 as blake3_lanes, scalar};
use crate::sign::{BatchSigner, ExpandedKey};
use crate::{BatchVerifier, Columns, Messages, serial};

/// Whether this CPU has the backend; says so if not, and fails if `WEFT_REQUIRE_BACKENDS` names it.
pub(crate) fn present(name: &str) -> bool {
    let found = backend::detected().iter().any(|kernels| kernels.name == name);
    if !found {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| println!("SKIPPED {name}: not detected"));
        let required = std::env::var("WEFT_REQUIRE_BACKENDS").unwrap_or_default();
        assert!(
            !required.split(',').any(|other| other.trim() == name),
            "{name} is required and not detected"
        );
    }
    found
}

/// The twins and the backends of this CPU.
fn subjects() -> Vec<&'static Kernels> {
    for name in backend::NAMES {
        present(name);
    }
    let mut out = backend::twins().to_vec();
    out.extend(backend::detected());
    out
}

/// A reproducible stream of bytes.
fn stream(seed: u64) -> impl FnMut() -> [u8; 32] {
    let mut counter = seed << 32;
    move || {
        counter += 1;
        Sha256::digest(counter.to_le_bytes()).into()
    }
}

/// Encodings at the edges of decoding: y of 0, 1, -1, 2 (no point), p - 1 .. p + 20 and 2^255 - 1 (not canonical), each
/// with both signs, x = 0 with the sign set among them; and random ones, of which half decode.
fn encodings(random: usize) -> Vec<[u8; 32]> {
    let mut out = Vec::new();
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    for y in 0..=3_u8 {
        let mut low = [0; 32];
        low[0] = y;
        out.push(low);
    }
    for offset in 0..=18 {
        let mut high = p;
        high[0] += offset;
        out.push(high);
    }
    p[0] -= 1;
    out.push(p);
    // The points of order 8.
    for torsion in curve25519_dalek::constants::EIGHT_TORSION {
        out.push(torsion.compress().0);
    }
    let mut next = stream(1);
    out.extend((0..random).map(|_| next()));
    for at in 0..out.len() {
        let mut bytes = out[at];
        bytes[31] ^= 0x80;
        out.push(bytes);
    }
    out
}

#[test]
fn decoding_matches_serial() {
    let encodings = encodings(60);
    let serial: Vec<_> = encodings.iter().map(|bytes| CompressedEdwardsY(*bytes).decompress()).collect();
    assert!(serial.iter().filter(|point| point.is_none()).count() > 20);
    for kernels in subjects() {
        // Every length around the number of lanes, so that no lane's position and no remainder is special.
        for length in (1..=17).chain([encodings.len()]) {
            for start in [0, 5, 23, 48] {
                let part = &encodings[start.min(encodings.len() - length)..][..length];
                let wanted = &serial[start.min(encodings.len() - length)..][..length];
                let mut points = vec![NielsRow::ZERO; length + 1];
                let mut valid = vec![false; length];
                kernels.decode(part, &mut points[..length], &mut valid);
                points[length] = *kernels.neutral_niels();
                for row in 0..length {
                    assert_eq!(valid[row], wanted[row].is_some(), "{} {:x?}", kernels.name, part[row]);
                    if let Some(point) = wanted[row].filter(|_| length < 18) {
                        let mut terms = Terms::default();
                        terms.begin(kernels, 0, 1);
                        terms.push_short(row as u32, 1, false);
                        let sum = terms.evaluate(kernels, &points);
                        let mut encoded = [[0; 32]];
                        kernels.encode(&[sum], &mut encoded);
                        assert_eq!(encoded[0], point.compress().0, "{} row {row}", kernels.name);
                    }
                }
            }
        }
    }
}

/// Points with scalars 0, 1, l - 1, around l / 2 (where the sign flips), 2^252 and random; short ones 0, 1, 2^128 - 1;
/// numbers of points that make every window width occur, equal points (their bucket meets itself), small orders.
#[test]
fn multiscalar_multiplication_matches_serial() {
    let mut next = stream(2);
    let good: Vec<_> =
        encodings(400).into_iter().filter(|bytes| serial::decode_point(bytes).is_some()).collect();
    let half = Scalar::from(2_u64).invert();
    let special = [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, half, half - Scalar::ONE, -half];
    for kernels in subjects() {
        let twin = kernels.name.starts_with("array");
        for (long, short) in
            [(0, 0), (1, 0), (0, 1), (1, 1), (2, 3), (9, 8), (17, 30), (60, 60), (150, 200), (700, 900)]
                .into_iter()
                .chain([(40, 0), (0, 70), (2, 110), (90, 1), (0, 600), (400, 0), (5, 1500), (600, 7)])
        {
            if twin && long + short > 120 {
                continue;
            }
            let bytes: Vec<_> = (0..long + short).map(|at| good[(at * 7) % good.len()]).collect();
            let mut points = vec![NielsRow::ZERO; bytes.len() + 1];
            let mut valid = vec![false; bytes.len()];
            kernels.decode(&bytes, &mut points[..bytes.len()], &mut valid);
            points[bytes.len()] = *kernels.neutral_niels();
            let mut terms = Terms::default();
            // Once more with the same memory, to see that nothing is left over.
            for round in 0..2 {
                terms.begin(kernels, long, short);
                let mut wanted = EdwardsPoint::identity();
                for row in 0..long {
                    let scalar = match row {
                        3..9 => special[row - 3],
                        _ => Scalar::from_bytes_mod_order(next()),
                    };
                    terms.push(row as u32, &scalar::words(scalar.as_bytes()));
                    wanted += serial::decode_point(&bytes[row]).unwrap() * scalar;
                }
                for row in long..long + short {
                    let z = match row - long {
                        1 => 0,
                        2 => 1,
                        3 => u128::MAX,
                        4 => 1 << 127,
                        _ => u128::from_le_bytes(*next().first_chunk().unwrap()),
                    };
                    let negative = row % 3 == round;
                    terms.push_short(row as u32, z, negative);
                    let point = serial::decode_point(&bytes[row]).unwrap() * Scalar::from(z);
                    wanted += if negative { -point } else { point };
                }
                let got = terms.evaluate(kernels, &points);
                let mut encoded = [[0; 32]];
                kernels.encode(&[got], &mut encoded);
                // `n P` is computed as `-(l - n) P` where that is shorter: right up to a point of small order, which is
                // all that the cofactored equation asks for.
                let got = serial::decode_point(&encoded[0]).unwrap().mul_by_cofactor();
                assert_eq!(got, wanted.mul_by_cofactor(), "{} {long} {short}", kernels.name);
            }
        }
    }
}

/// One width and any two, whatever the terms: only long ones, only short ones and both.
#[test]
fn windows_of_any_widths_give_the_same_sum() {
    let mut next = stream(9);
    let logs: Vec<_> = (0..30).map(|_| Scalar::from_bytes_mod_order(next())).collect();
    let encodings: Vec<_> = logs.iter().map(|log| EdwardsPoint::mul_base(log).compress().0).collect();
    let longest = Scalar::from(2_u64).invert() - Scalar::ONE;
    for kernels in subjects() {
        let width_max = if kernels.name.starts_with("array") { 7 } else { 14 };
        let mut points = vec![NielsRow::ZERO; 31];
        kernels.decode(&encodings, &mut points[..30], &mut [false; 30]);
        points[30] = *kernels.neutral_niels();
        let mut terms = Terms::default();
        let mut check = |parts, long: usize, short: usize| {
            terms.begin_with(parts);
            let mut wanted = Scalar::ZERO;
            for row in 0..long {
                // The largest digit in the top window and those around it, of either sign.
                let scalar = match row {
                    0 => longest,
                    1 => longest + Scalar::ONE,
                    2 => -Scalar::ONE,
                    _ => Scalar::from_bytes_mod_order(next()),
                };
                terms.push(row as u32, &scalar::words(scalar.as_bytes()));
                wanted += scalar * logs[row];
            }
            for row in long..long + short {
                let z = match row - long {
                    0 => u128::MAX,
                    1 => 0,
                    _ => u128::from_le_bytes(*next().first_chunk().unwrap()),
                };
                terms.push_short(row as u32, z, row % 3 == 0);
                let z = Scalar::from(z) * logs[row];
                wanted += if row % 3 == 0 { -z } else { z };
            }
            let sum = terms.evaluate(kernels, &points);
            let mut encoded = [[0; 32]];
            kernels.encode(&[sum], &mut encoded);
            let wanted = EdwardsPoint::mul_base(&wanted).compress().0;
            assert_eq!(encoded[0], wanted, "{} {parts:?} {long} {short}", kernels.name);
        };
        for width in 4..=width_max {
            for (long, short) in [(7, 0), (0, 9), (11, 19)] {
                check(windows_alike(width, long, short), long, short);
            }
            for upper in 4..=width_max {
                check(windows_of_two(width, upper), 11, 19);
            }
        }
    }
}

/// Groups of every size, in every number of lanes, with scalars at their edges (0, 1, the largest, either sign) over points with
/// and without a part of small order. A group is clean up to small order by choice of its multiple of B, or off by one.
#[test]
fn groups_side_by_side_match_serial() {
    let mut next = stream(8);
    let torsion = curve25519_dalek::constants::EIGHT_TORSION;
    let logs: Vec<_> = (0..40).map(|_| Scalar::from_bytes_mod_order(next())).collect();
    let good: Vec<_> = logs
        .iter()
        .enumerate()
        .map(|(at, log)| EdwardsPoint::mul_base(log) + torsion[if at % 3 == 0 { at / 3 % 8 } else { 0 }])
        .collect();
    let encodings: Vec<_> = good.iter().map(|point| point.compress().0).collect();
    let half = Scalar::from(2_u64).invert();
    for kernels in subjects() {
        let twin = kernels.name.starts_with("array");
        let mut points = vec![NielsRow::ZERO; 41];
        kernels.decode(&encodings, &mut points[..40], &mut [false; 40]);
        points[40] = *kernels.neutral_niels();
        let lanes = kernels.costs.lanes;
        let mut workspace = Workspace::default();
        // The larger first, so that memory with something left in it is used again.
        for (rows, used) in [(GROUP_ROWS_MAX, lanes), (5, lanes - 1), (2, 1), (1, lanes), (3, 2)] {
            if twin && rows > 5 {
                continue;
            }
            let mut terms = Vec::new();
            let (mut base, mut wanted) = (Vec::new(), 0_u32);
            for lane in 0..used {
                let mut log = Scalar::ZERO;
                let mut sum = EdwardsPoint::identity();
                for row in 0..rows {
                    let random = next();
                    let scalar = match (lane + row) % 9 {
                        0 => Scalar::ZERO,
                        1 => Scalar::ONE,
                        2 => -Scalar::ONE,
                        3 => half,
                        4 => half - Scalar::ONE,
                        _ => Scalar::from_bytes_mod_order(random),
                    };
                    let short = match (2 * lane + row) % 7 {
                        0 => 0,
                        1 => 1,
                        2 => u128::MAX >> 1,
                        3 => 1 << 126,
                        _ => u128::from_le_bytes(*next().first_chunk().unwrap()) >> 1,
                    };
                    let (long, negative) = scalar::smaller(&scalar::words(scalar.as_bytes()));
                    let (key, nonce) = (usize::from(random[3]) % 40, usize::from(random[4]) % 40);
                    terms.push(Term { key: key as u32, nonce: nonce as u32, long, negative, short });
                    log += scalar * logs[key] + Scalar::from(short) * logs[nonce];
                    sum += good[key] * scalar + good[nonce] * Scalar::from(short);
                }
                let clean = lane % 3 != 1;
                let base_scalar = -log + if clean { Scalar::ZERO } else { Scalar::ONE };
                base.push(scalar::words(base_scalar.as_bytes()));
                sum += EdwardsPoint::mul_base(&base_scalar);
                assert_eq!(sum.mul_by_cofactor() == EdwardsPoint::identity(), clean);
                wanted |= u32::from(clean) << lane;
            }
            let got = kernels.clean_groups(&points, &terms, &base, &mut workspace);
            assert_eq!(got, wanted, "{} {rows} rows in {used} lanes", kernels.name);
        }
    }
}

#[test]
fn the_neutral_element_and_all_torsion_is_recognised_and_nothing_else_is() {
    for kernels in subjects() {
        let mut bytes: Vec<_> =
            curve25519_dalek::constants::EIGHT_TORSION.map(|point| point.compress().0).to_vec();
        bytes.push(curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED.0);
        let mut points = vec![NielsRow::ZERO; 10];
        kernels.decode(&bytes, &mut points[..9], &mut [false; 9]);
        points[9] = *kernels.neutral_niels();
        for row in 0..9 {
            let mut terms = Terms::default();
            terms.begin(kernels, 0, 1);
            terms.push_short(row, 1, false);
            let value = terms.evaluate(kernels, &points);
            assert_eq!(kernels.is_torsion(&value), row < 8, "{} {row}", kernels.name);
            assert!(kernels.is_torsion(&kernels.subtract(&value, &value)));
        }
        assert!(kernels.is_torsion(&kernels.neutral()));
    }
}

/// Lengths around the one-block limit and around block boundaries, mixed in one call so that lanes end apart.
#[test]
fn sha512_matches_serial() {
    let data: Vec<u8> = (0..2000_u32).map(|byte| (byte * 7 + byte / 256) as u8).collect();
    let mut lengths =
        vec![0, 1, 32, 46, 47, 48, 63, 64, 111, 112, 127, 128, 129, 239, 240, 255, 256, 1000, 1936];
    for kernels in subjects() {
        for turn in 0..lengths.len() {
            lengths.rotate_left(1);
            let parts: Vec<Parts<'_>> = lengths
                .iter()
                .map(|&length| [&data[..32], &data[turn..turn + 32], &data[..length]])
                .collect();
            let mut out = vec![[0; 8]; parts.len()];
            kernels.sha512(&parts, &mut out);
            for (parts, out) in parts.iter().zip(out) {
                let wanted: [u8; 64] = Sha512::digest(parts.concat()).into();
                let got: Vec<u8> = out.iter().flat_map(|word| word.to_le_bytes()).collect();
                assert_eq!(got, wanted, "{} {}", kernels.name, parts[2].len());
            }
        }
    }
}

/// Lengths around blocks and around one chunk, mixed, in every number of rows up to twice the lanes.
#[test]
fn blake3_matches_serial() {
    const TEXT: &str = "weft 2026-11 message v1";
    let context = Context::new(TEXT);
    let data: Vec<u8> = (0..3000_u32).map(|byte| (byte * 11 + byte / 256) as u8).collect();
    let lengths =
        [0, 1, 63, 64, 65, 120, 127, 128, 129, 250, 512, 1023, blake3_lanes::MESSAGE_BYTES_MAX, 1025, 2500];
    for kernels in subjects() {
        let hashes = Hashes::with_kernels(kernels);
        for rows in 0..34 {
            let messages: Vec<&[u8]> =
                (0..rows).map(|row| &data[row..row + lengths[(row * 4 + rows) % 15]]).collect();
            let mut out = vec![[0; 32]; rows];
            hashes.derive(&context, &messages, &mut out);
            for (message, out) in messages.iter().zip(&out) {
                assert_eq!(*out, ::blake3::derive_key(TEXT, message), "{} {}", kernels.name, message.len());
            }
        }
    }
}

#[test]
fn merkle_leaves_and_nodes_match_serial() {
    let mut next = stream(3);
    let subjects: Vec<Hashes> = subjects().into_iter().map(Hashes::with_kernels).collect();
    // What was detected leaves some rows to the CPU's own instructions.
    let chosen = [Hashes::detect(), Hashes::named("serial").unwrap()];
    for hashes in subjects.into_iter().chain(chosen) {
        for rows in (0..34).chain([100]) {
            let data: Vec<_> = (0..rows).map(|_| next()).collect();
            let pairs: Vec<_> = (0..rows).map(|_| [next(), next()]).collect();
            let mut leaves = vec![[0; 32]; rows];
            let mut nodes = vec![[0; 32]; rows];
            hashes.leaves(&data, &mut leaves);
            hashes.nodes(&pairs, &mut nodes);
            for row in 0..rows {
                let leaf: [u8; 32] = Sha256::digest([&[0][..], &data[row]].concat()).into();
                let node: [u8; 32] =
                    Sha256::digest([&[1][..], &pairs[row][0], &pairs[row][1]].concat()).into();
                assert_eq!((leaves[row], nodes[row]), (leaf, node), "{} {row}", hashes.name());
            }
        }
    }
}

/// Scalars 0, 1, 8 (the digit whose sign turns), 16, l - 1, all digits alike, and random.
#[test]
fn multiples_of_the_base_match_serial() {
    let mut next = stream(4);
    let mut scalars = vec![Scalar::ZERO, Scalar::ONE, Scalar::from(7_u64), Scalar::from(8_u64), -Scalar::ONE];
    for digit in 0..16_u8 {
        scalars.push(Scalar::from_bytes_mod_order([digit * 17; 32]));
    }
    scalars.extend((0..60).map(|_| Scalar::from_bytes_mod_order(next())));
    let words: Vec<_> = scalars.iter().map(|scalar| scalar::words(scalar.as_bytes())).collect();
    for kernels in subjects() {
        for length in [1, 3, 8, 9, scalars.len()] {
            let mut out = vec![[0; 32]; length];
            kernels.multiples_of_base(&words[..length], &mut out);
            for (scalar, out) in scalars.iter().zip(out) {
                assert_eq!(out, EdwardsPoint::mul_base(scalar).compress().0, "{} {scalar:?}", kernels.name);
            }
        }
    }
}

#[test]
fn signatures_and_expanded_keys_equal_the_serial_ones_bit_for_bit() {
    let mut next = stream(5);
    for kernels in subjects() {
        let signer = SimdSigner::with_kernels(kernels);
        for rows in [0, 1, 7, 8, 9, 64, 65, 130] {
            if rows > 65 && kernels.name.starts_with("array") {
                continue;
            }
            let seeds: Vec<_> = (0..rows).map(|_| next()).collect();
            let mut keys = Vec::new();
            signer.expand(&seeds, &mut keys);
            let ids: Vec<_> = (0..rows).map(|_| next()).collect();
            let long: Vec<u8> = (0..600_u32).map(|byte| byte as u8).collect();
            let slices: Vec<&[u8]> = (0..rows).map(|row| &long[..row * 5 % 600]).collect();
            let references: Vec<_> = keys.iter().collect();
            for messages in [Messages::Ids(&ids), Messages::Slices(&slices)] {
                let mut signatures = vec![[0; 64]; rows];
                signer.sign(&references, &messages, &mut signatures);
                for row in 0..rows {
                    let serial = ExpandedKey::from_seed(&seeds[row]);
                    assert_eq!(keys[row].public(), serial.public(), "{} {row}", kernels.name);
                    assert_eq!(signatures[row], serial.sign(messages.get(row)), "{} {row}", kernels.name);
                }
            }
        }
    }
}

struct Rows {
    keys: Vec<[u8; 32]>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
}

fn signed(rows: usize, distinct: usize) -> Rows {
    let mut next = stream(6);
    let signers: Vec<_> = (0..distinct).map(|_| ExpandedKey::from_seed(&next())).collect();
    let ids: Vec<_> = (0..rows).map(|_| next()).collect();
    Rows {
        keys: (0..rows).map(|row| *signers[row % distinct].public()).collect(),
        signatures: (0..rows).map(|row| signers[row % distinct].sign(&ids[row])).collect(),
        ids,
    }
}

#[test]
fn a_bad_row_is_found_at_every_lane_position_by_the_twins_too() {
    let clean = signed(19, 7);
    for kernels in subjects() {
        let verifier = SimdBatch::with_kernels(kernels, 16);
        for bad in (0..=19).step_by(if kernels.name.starts_with("array") { 5 } else { 1 }) {
            let mut signatures = clean.signatures.clone();
            if let Some(signature) = signatures.get_mut(bad) {
                // A bit of s or of R, in turn.
                signature[if bad % 2 == 0 { 40 } else { 3 }] ^= 4;
            }
            let columns =
                Columns { keys: &clean.keys, messages: Messages::Ids(&clean.ids), signatures: &signatures };
            let mut verdicts = vec![false; 19];
            verifier.verify(&columns, &mut verdicts);
            for (row, verdict) in verdicts.iter().enumerate() {
                assert_eq!(*verdict, row != bad, "{} row {row} with {bad} bad", kernels.name);
            }
        }
    }
}

/// Batches that fill part of a vector, one vector, and a little more.
#[test]
fn small_batches_get_exact_verdicts_by_the_twins_too() {
    for rows in 1..=9 {
        let clean = signed(rows, rows);
        for kernels in subjects() {
            let verifier = SimdBatch::with_kernels(kernels, 0);
            let step = if kernels.name.starts_with("array") { 3 } else { 1 };
            // The last is nobody's row.
            for bad in (rows % step..=rows).step_by(step) {
                let mut signatures = clean.signatures.clone();
                if let Some(signature) = signatures.get_mut(bad) {
                    signature[33] ^= 1;
                }
                let messages = Messages::Ids(&clean.ids);
                let mut verdicts = vec![false; rows];
                let columns = Columns { keys: &clean.keys, messages, signatures: &signatures };
                verifier.verify(&columns, &mut verdicts);
                for (row, verdict) in verdicts.iter().enumerate() {
                    assert_eq!(*verdict, row != bad, "{} row {row} of {rows}, {bad} bad", kernels.name);
                }
            }
        }
    }
}

#[test]
fn any_share_of_bad_rows_gets_exact_verdicts_with_and_without_a_cache() {
    let clean = signed(600, 100);
    for kernels in backend::detected() {
        for cached in [0, 50, 1000] {
            let verifier = SimdBatch::with_kernels(kernels, cached);
            for every in [1, 2, 10, 100, 599, 1000] {
                let mut signatures = clean.signatures.clone();
                for row in (0..600).filter(|row| row % every == every - 1) {
                    signatures[row][33 + row % 20] ^= 1 << (row % 8);
                }
                let columns = Columns {
                    keys: &clean.keys,
                    messages: Messages::Ids(&clean.ids),
                    signatures: &signatures,
                };
                let mut verdicts = vec![false; 600];
                verifier.verify(&columns, &mut verdicts);
                for (row, verdict) in verdicts.iter().enumerate() {
                    assert_eq!(*verdict, row % every != every - 1, "{} row {row} of {every}", kernels.name);
                }
            }
        }
    }
}

/// Not a test: times of every kernel, for the tables of `docs/benchmarks.md`.
/// `cargo test --release -p weft-crypto stage -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn stage_times() {
    use super::bucket::Task;
    use super::check::Single;
    use super::point::PointRow;
    use std::time::Instant;

    fn time(units: usize, mut run: impl FnMut()) -> f64 {
        let mut samples: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed().as_nanos() as f64 / units as f64
            })
            .collect();
        samples.sort_by(f64::total_cmp);
        samples[7]
    }

    let mut next = stream(7);
    let rows = 2048;
    let bytes: Vec<_> = (0..rows).map(|_| ExpandedKey::from_seed(&next()).public).collect();
    let scalars: Vec<_> = (0..rows).map(|_| Scalar::from_bytes_mod_order(next())).collect();
    let words: Vec<_> = scalars.iter().map(|scalar| scalar::words(scalar.as_bytes())).collect();
    for kernels in backend::detected() {
        let lanes = kernels.lanes;
        let mut points = vec![NielsRow::ZERO; rows + 1];
        let mut valid = vec![false; rows];
        let decode = time(rows, || kernels.decode(&bytes, &mut points[..rows], &mut valid));
        points[rows] = *kernels.neutral_niels();
        let parts: Vec<_> = bytes.iter().map(|key| [&key[..], &key[..], &key[..]]).collect();
        let mut digests = vec![[0; 8]; rows];
        let sha = time(rows, || kernels.sha512(&parts, &mut digests));
        let reduce_hash = time(rows, || {
            for digest in &mut digests {
                let low = scalar::reduce(digest);
                digest[..4].copy_from_slice(&low);
            }
        });
        let mut wide = [0; 7];
        let product = time(rows, || {
            for x in &words {
                scalar::add_product(
                    std::hint::black_box(&mut wide),
                    u128::from(x[0]) << 64 | u128::from(x[1]),
                    x,
                );
            }
        });
        // 1024 lists of eight.
        let entries: Vec<u32> =
            (0..8192_u32).map(|at| at.wrapping_mul(0x9e37_79b1) % (2 * rows as u32)).collect();
        let tasks: Vec<_> = (0..1024).map(|out| Task { start: 8 * out, length: 8, out }).collect();
        let mut buckets = vec![PointRow::ZERO; 1024];
        let fill = time(8192, || kernels.accumulate(&points, &entries, &tasks, &mut buckets));
        let mut sums = vec![PointRow::ZERO; 23 * lanes];
        let mut runs = vec![PointRow::ZERO; 23 * lanes];
        let sum = time(23 * 1024, || {
            for window in 0..23 {
                let at = window * lanes..(window + 1) * lanes;
                kernels.reduce(&buckets, &mut sums[at.clone()], &mut runs[at]);
            }
        });
        let combine = time(1, || {
            kernels.combine(&sums, &runs, 1024 / lanes, 11, None);
        });
        let lanes = kernels.costs.lanes;
        let singles: Vec<_> = (0..lanes as u32)
            .map(|row| Single { key: row, nonce: row + 1, k: words[0], s: words[1] })
            .collect();
        let check = time(lanes, || {
            kernels.check(&points, &singles);
        });
        let mut workspace = Workspace::default();
        let side_by_side: Vec<String> = [1, 2, 4, 8, 16]
            .iter()
            .map(|&size| {
                let term = |row: usize| Term {
                    key: row as u32,
                    nonce: (rows - 1 - row) as u32,
                    long: scalar::smaller(&words[row]).0,
                    negative: row.is_multiple_of(2),
                    short: u128::from(words[row][0]) << 63 | 1,
                };
                let terms: Vec<_> = (0..size * lanes).map(term).collect();
                let cost = time(size * lanes, || {
                    kernels.clean_groups(&points, &terms, &words[..lanes], &mut workspace);
                });
                format!("{size}: {cost:.0}")
            })
            .collect();
        let mut out = vec![[0; 32]; rows];
        let multiples = time(rows, || kernels.multiples_of_base(&words, &mut out));
        let mut terms = Terms::default();
        let sizes: Vec<String> = (0..12)
            .map(|exponent| {
                let size = 1 << exponent;
                let cost = time(size, || {
                    terms.begin(kernels, size, size);
                    for row in 0..size {
                        terms.push(row as u32, &words[row]);
                    }
                    for row in 0..size {
                        terms.push_short((rows - 1 - row) as u32, u128::from(words[row][0]) << 64 | 1, false);
                    }
                    terms.evaluate(kernels, &points);
                });
                format!("{size}: {cost:.0}")
            })
            .collect();
        println!(
            "{}: decode {decode:.0}/point, sha512 {sha:.1}, reduce {reduce_hash:.1}, product {product:.1}, \
             bucket fill {fill:.2}/entry, bucket sum {sum:.1}/bucket, combine {combine:.0}, check {check:.0}/row, \
             groups side by side per row {}, base multiple {multiples:.0}, multiscalar per row {}",
            kernels.name,
            side_by_side.join(" "),
            sizes.join(" ")
        );
    }
}
