//! The twins against independent implementations: curve25519-dalek, sha2 and blake3. What holds for the twins holds for
//! the shaders as soon as a device gives the same words, which `weft-gpu` tests.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use proptest::prelude::*;
use sha2::{Digest, Sha512};
use weft_shaders::bindings::{
    BASE_ENTRY_WORDS, Buffers, FE_WORDS, FLAG_INVALID, FLAG_VALID, RESIDENT_WORDS, words, words_at,
};
use weft_shaders::edwards::Point;
use weft_shaders::{
    Field, Kernel, Layout, base_table, equation, field10, field20, hash_blocks, message_ids, scalar,
};

use field10::Fe as F10;
use field20::Fe as F20;

fn bytes(w: &[u32; 8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (four, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(w) {
        *four = word.to_le_bytes();
    }
    out
}

fn words8(bytes: &[u8; 32]) -> [u32; 8] {
    words_at(&words(bytes), 0)
}

/// p as words.
const P: [u32; 8] =
    [0xffff_ffed, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0x7fff_ffff];

/// Values at the edges: 0, 1, 2, 18, 19, p - 1, p, p + 1, 2^255 - 1, all bits, and both patterns of alternating bits.
fn edges() -> Vec<[u32; 8]> {
    let near_p = |low: u32| {
        let mut w = P;
        w[0] = low;
        w
    };
    let small = |low: u32| [low, 0, 0, 0, 0, 0, 0, 0];
    vec![
        small(0),
        small(1),
        small(2),
        small(18),
        small(19),
        small(8191),
        small(8192),
        near_p(0xffff_ffec),
        near_p(0xffff_ffed),
        near_p(0xffff_ffee),
        near_p(0xffff_ffff),
        [0xffff_ffff; 8],
        [0xaaaa_aaaa; 8],
        [0x5555_5555; 8],
    ]
}

/// Both layouts must give the same canonical words for every expression: they share no arithmetic.
fn same(a: F20, b: F10) {
    assert_eq!(bytes(&a.canonical().to_words()), bytes(&b.canonical().to_words()));
}

fn check_field(a: &[u32; 8], b: &[u32; 8]) {
    let (a20, b20) = (F20::from_words(a), F20::from_words(b));
    let (a10, b10) = (F10::from_words(a), F10::from_words(b));
    same(a20, a10);
    same(a20.add(&b20), a10.add(&b10));
    same(a20.sub(&b20), a10.sub(&b10));
    same(a20.mul(&b20), a10.mul(&b10));
    same(a20.sq(), a10.sq());
    same(a20.sq(), a20.mul(&a20).canonical().repack());
    same(
        a20.add(&b20).add(&a20).sub(&b20).trim().mul(&a20),
        a10.add(&b10).add(&a10).sub(&b10).trim().mul(&a10),
    );
    same(a20.sub(&b20).mul(&a20), a10.sub(&b10).mul(&a10));
    same(a20.sub(&b20).tidy(), a10.sub(&b10).tidy());
    assert_eq!(F20::unpack(&a20.pack()), a20);
    assert_eq!(F10::unpack(&a10.pack()), a10);
    assert_eq!(a20.is_zero(), a10.is_zero());
}

/// The same value in the other layout.
trait Repack {
    fn repack(&self) -> F10;
}

impl Repack for F20 {
    fn repack(&self) -> F10 {
        F10::from_words(&self.to_words())
    }
}

#[test]
fn both_layouts_agree_on_every_pair_of_edge_values() {
    for a in edges() {
        for b in edges() {
            check_field(&a, &b);
        }
    }
}

#[test]
fn limbs_at_their_upper_bounds_do_not_overflow() {
    // The largest operands that the tables of bounds allow; overflow checks are on in debug builds.
    let tight20 = F20([8200; 20]);
    let wide20 = F20([26_000; 20]);
    let r = wide20.mul(&tight20);
    assert!(r.0.iter().all(|limb| *limb <= 8200), "a product is tight: {r:?}");
    let r = tight20.sq();
    assert!(r.0.iter().all(|limb| *limb <= 8200), "a square is tight: {r:?}");
    let r = F20([0xffff; 20]).tidy();
    assert!(r.0.iter().all(|limb| *limb <= 8200), "tidy is tight: {r:?}");
    let limbs = |even: u32, odd: u32| F10([even, odd, even, odd, even, odd, even, odd, even, odd]);
    let loose10 = limbs((5 << 26) + (1 << 13), (5 << 25) + (1 << 20));
    let wide10 = limbs((3 << 26) + (1 << 13), (3 << 25) + (1 << 20));
    let tight = |r: F10| {
        r.0.iter()
            .enumerate()
            .all(|(i, limb)| *limb <= if i % 2 == 0 { (1 << 26) + (1 << 11) } else { (1 << 25) + (1 << 18) })
    };
    assert!(tight(loose10.mul(&wide10)), "a product is tight");
    let sum10 = limbs((2 << 26) + (1 << 12), (2 << 25) + (1 << 19));
    assert!(tight(sum10.sq()), "a square is tight");
    assert!(tight(limbs(0x7fff_ffff, 0x7fff_ffff).tidy()), "tidy is tight");
}

#[test]
fn the_constants_are_what_their_names_say() {
    fn check<F: Field>() {
        let minus_one = F::ZERO.sub(&F::ONE).tidy();
        assert!(F::SQRT_M1.sq().sub(&minus_one).is_zero(), "sqrt(-1)");
        let number = |n: u32| F::from_words(&[n, 0, 0, 0, 0, 0, 0, 0]);
        assert!(F::D.mul(&number(121_666)).add(&number(121_665)).is_zero(), "d = -121665/121666");
        assert!(F::D.add(&F::D).sub(&F::D2).is_zero(), "2 d");
        let a = number(123_456_789);
        assert!(weft_shaders::power::invert(&a).mul(&a).sub(&F::ONE).is_zero(), "1/a");
        assert!(weft_shaders::power::invert(&F::ZERO).is_zero(), "1/0 is 0");
    }
    check::<F20>();
    check::<F10>();
}

fn encode<F: Field>(p: &Point<F>) -> [u8; 32] {
    let inverse = weft_shaders::power::invert(&p.z);
    let mut w = p.y.mul(&inverse).canonical().to_words();
    w[7] |= p.x.mul(&inverse).canonical().limb_0() << 31;
    bytes(&w)
}

fn decode<F: Field>(encoding: &[u8; 32]) -> Option<Point<F>> {
    let w = words8(encoding);
    weft_shaders::decode::x_of::<F>(&w).map(|x| Point::affine(x, F::from_words(&w)))
}

fn check_points<F: Field>(a: &[u8; 32], b: &[u8; 32]) {
    let dalek = |e: &[u8; 32]| CompressedEdwardsY(*e).decompress();
    let (ours_a, theirs_a) = (decode::<F>(a), dalek(a));
    assert_eq!(ours_a.is_some(), theirs_a.is_some(), "whether {a:02x?} is a point");
    let (Some(p), Some(q), Some(dp), Some(dq)) = (ours_a, decode::<F>(b), theirs_a, dalek(b)) else { return };
    assert_eq!(encode(&p), dp.compress().to_bytes());
    assert_eq!(encode(&p.double(true)), (dp + dp).compress().to_bytes());
    assert_eq!(encode(&p.plus(&q.summand(), false, true)), (dp + dq).compress().to_bytes());
    assert_eq!(encode(&p.plus(&q.summand(), true, true)), (dp + dq).compress().to_bytes());
    // t is carried rightly: a second addition uses it.
    let sum = p.double(true).plus(&q.summand(), false, true).plus(&p.summand(), false, false);
    assert_eq!(encode(&sum), (dp + dp + dq + dp).compress().to_bytes());
}

#[test]
fn points_of_small_order_and_odd_encodings_match_the_reference() {
    let mut encodings: Vec<[u8; 32]> =
        curve25519_dalek::constants::EIGHT_TORSION.iter().map(|p| p.compress().to_bytes()).collect();
    for edge in edges() {
        let mut e = bytes(&edge);
        encodings.push(e);
        e[31] ^= 0x80;
        encodings.push(e);
    }
    encodings.push(curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED.to_bytes());
    for a in &encodings {
        for b in &encodings {
            check_points::<F20>(a, b);
            check_points::<F10>(a, b);
        }
    }
}

#[test]
fn reduction_modulo_l_matches_the_reference_at_its_edges() {
    let l = scalar::L_WORDS;
    let mut cases = vec![[0; 16], [0xffff_ffff; 16]];
    for shift in 0..9 {
        for low in [l[0] - 1, l[0], l[0] + 1] {
            let mut x = [0; 16];
            x[shift..shift + 8].copy_from_slice(&l);
            x[shift] = low;
            cases.push(x);
        }
    }
    for bit in 0..512 {
        let mut x = [0; 16];
        x[bit / 32] = 1 << (bit % 32);
        cases.push(x);
    }
    for x in &cases {
        check_reduction(x);
    }
}

fn check_reduction(x: &[u32; 16]) {
    let mut wide = [0; 64];
    for (four, word) in wide.as_chunks_mut::<4>().0.iter_mut().zip(x) {
        *four = word.to_le_bytes();
    }
    let expected = Scalar::from_bytes_mod_order_wide(&wide).to_bytes();
    assert_eq!(bytes(&scalar::reduce(x)), expected, "{x:x?}");
}

#[test]
fn only_scalars_below_l_are_canonical() {
    let mut s = scalar::L_WORDS;
    assert!(!scalar::is_canonical(&s));
    s[0] -= 1;
    assert!(scalar::is_canonical(&s));
    assert!(scalar::is_canonical(&[0; 8]));
    assert!(!scalar::is_canonical(&[0xffff_ffff; 8]));
    let mut s = scalar::L_WORDS;
    s[7] -= 1;
    s[0] = 0xffff_ffff;
    assert!(scalar::is_canonical(&s));
}

fn digits_spell(a: &[u32; 8], bias: u32, bits: usize) {
    let d = scalar::digits(a, bias);
    let mut sum = Scalar::ZERO;
    for i in (0..256 / bits).rev() {
        let field = (d[i * bits / 32] >> (i * bits % 32)) & ((1 << bits) - 1);
        let digit = i64::from(field) - (1 << (bits - 1));
        let magnitude = Scalar::from(digit.unsigned_abs());
        sum = sum * Scalar::from(1u64 << bits) + if digit < 0 { -magnitude } else { magnitude };
    }
    let expected: Option<Scalar> = Scalar::from_canonical_bytes(bytes(a)).into();
    assert_eq!(Some(sum), expected);
}

#[test]
fn the_base_table_holds_the_multiples_of_the_base_point_in_both_layouts() {
    let (t20, t10) = (base_table(Layout::U32x20), base_table(Layout::U64x10));
    let load = |i: usize, slot: usize| {
        let at = i * BASE_ENTRY_WORDS + slot * FE_WORDS;
        let (a, b) = (F20::unpack(&words_at(&t20, at)), F10::unpack(&words_at(&t10, at)));
        same(a, b);
        b
    };
    let half = weft_shaders::power::invert(&F10::ONE.add(&F10::ONE));
    for i in [0usize, 1, 2, 3, 254, 255, 4095, 32_766, 32_767] {
        let (plus, minus) = (load(i, 0), load(i, 1));
        let (x, y) = (plus.sub(&minus).mul(&half), plus.add(&minus).mul(&half));
        let expected = EdwardsPoint::mul_base(&Scalar::from(i as u64 + 1)).compress().to_bytes();
        assert_eq!(encode(&Point::affine(x, y)), expected, "entry {i}");
        assert!(x.mul(&y).mul(&F10::D2).sub(&load(i, 2)).is_zero(), "2 d x y of entry {i}");
    }
}

/// A signature of `message` by the secret scalar `a` with the nonce `r`.
fn sign(a: &Scalar, r: &Scalar, message: &[u8]) -> ([u8; 32], [u8; 64]) {
    let key = EdwardsPoint::mul_base(a).compress().to_bytes();
    let r_bytes = EdwardsPoint::mul_base(r).compress().to_bytes();
    let hash = Sha512::new().chain_update(r_bytes).chain_update(key).chain_update(message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r_bytes);
    signature[32..].copy_from_slice(&(r + k * a).to_bytes());
    (key, signature)
}

/// The whole pipeline on twins; the flags of every row after `finish` and after `exact`.
fn verify_with_twins(layout: Layout, buffers: &mut Buffers, hash: Kernel) -> (Vec<u32>, Vec<u32>) {
    let rows = buffers.rows;
    let run = |kernel, buffers: &mut Buffers, count| {
        for id in 0..count {
            weft_shaders::run_twin(kernel, layout, buffers, id);
        }
    };
    run(hash, buffers, rows);
    for kernel in [Kernel::Decode, Kernel::Table, Kernel::Ladder] {
        run(kernel, buffers, rows);
    }
    buffers.option = 4;
    buffers.lanes = rows.div_ceil(4);
    run(Kernel::Finish, buffers, buffers.lanes);
    let after_finish = buffers.flags.clone();
    buffers.option = 1;
    run(Kernel::Decode, buffers, rows);
    run(Kernel::Exact, buffers, rows);
    let flags = buffers.flags.clone();
    run(Kernel::Verdicts, buffers, rows.div_ceil(32));
    (after_finish, flags)
}

#[test]
fn the_whole_pipeline_accepts_good_signatures_at_once_and_refuses_bad_ones() {
    let mut keys = Vec::new();
    let mut ids = Vec::new();
    let mut signatures = Vec::new();
    for i in 0..37u64 {
        let id = [i as u8; 32];
        let (key, mut signature) = sign(&Scalar::from(i * i + 77), &Scalar::from(i + 1_000_003), &id);
        match i % 6 {
            1 => signature[3] ^= 4,
            2 => signature[40] ^= 1,
            3 => signature[63] |= 0x80,
            _ => {}
        }
        keys.push(key);
        ids.push(id);
        signatures.push(signature);
    }
    for layout in Layout::ALL {
        let mut buffers = Buffers::for_ids(&keys, &ids, &signatures, base_table(layout));
        let (after_finish, flags) = verify_with_twins(layout, &mut buffers, Kernel::HashIds);
        for (i, flag) in flags.iter().enumerate() {
            let good = !(1..=3).contains(&(i % 6));
            assert_eq!(*flag, if good { FLAG_VALID } else { FLAG_INVALID }, "row {i}");
            assert_eq!(
                after_finish[i] == FLAG_VALID,
                good,
                "honest rows never reach the exact kernel, row {i}"
            );
            assert_eq!(buffers.scalars[i / 32] >> (i % 32) & 1 == 1, good, "bit of row {i}");
        }
    }
}

/// The integer that 16 random bytes stand for, modulo l.
fn z_of(u: &[u32; 4]) -> Scalar {
    let byte = |i: usize| Scalar::from((u[i / 4] >> (8 * (i % 4))) & 255) - Scalar::from(128u8);
    (0..16).rev().fold(Scalar::ZERO, |sum, i| sum * Scalar::from(256u32) + byte(i))
}

/// Lays out equations over these ranges of the buffers' rows, with z from a fixed seed, and runs their kernels. Which hold.
fn run_equations(layout: Layout, buffers: &mut Buffers, ranges: &[(usize, usize)]) -> Vec<bool> {
    const HOLDS: u32 = 0x1234_5679;
    let rows = buffers.rows;
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state ^ (state >> 13)
    };
    buffers.z = (0..4 * rows).map(|_| random()).collect();
    buffers.equations.clear();
    for (first, count) in ranges {
        let sum = (*first..first + count).fold(Scalar::ZERO, |sum, row| {
            let s = Scalar::from_bytes_mod_order(bytes(&words_at(&buffers.signatures, 16 * row + 8)));
            sum + z_of(&words_at(&buffers.z, 4 * row)) * s
        });
        buffers.equations.extend([*first as u32, *count as u32, HOLDS, 0]);
        buffers.equations.extend(scalar::digits(&words8(&sum.to_bytes()), 0x8000_8000));
    }
    buffers.tables.resize(equation::table_words(rows, ranges.len()).max(buffers.tables.len()), 0);
    buffers.flags.resize(rows + ranges.len(), HOLDS);
    let lanes = ranges.len() * equation::GROUPS * 64;
    let run = |kernel, buffers: &mut Buffers, count| {
        for id in 0..count {
            weft_shaders::run_twin(kernel, layout, buffers, id);
        }
    };
    buffers.option = 0;
    run(Kernel::HashIds, buffers, rows);
    run(Kernel::Decode, buffers, rows);
    buffers.option = 1;
    run(Kernel::Decode, buffers, rows);
    buffers.option = ranges.len();
    run(Kernel::Weigh, buffers, rows);
    run(Kernel::Prepare, buffers, rows);
    run(Kernel::Sort, buffers, lanes);
    run(Kernel::Accumulate, buffers, lanes);
    run(Kernel::Fold, buffers, ranges.len() * equation::WINDOWS);
    run(Kernel::Close, buffers, ranges.len());
    run(Kernel::Settle, buffers, ranges.len() * equation::EQUATION_ROWS);
    buffers.flags[rows..].iter().map(|word| *word == HOLDS).collect()
}

#[test]
fn an_equation_over_good_rows_holds_and_one_bad_row_breaks_it() {
    let rows = 90;
    let id = |row: usize| [row as u8; 32];
    let ids: Vec<_> = (0..rows).map(id).collect();
    let good: Vec<_> = (0..rows as u64)
        .map(|row| sign(&Scalar::from(row * row + 77), &Scalar::from(row + 1_000_003), &id(row as usize)))
        .collect();
    let (keys, good): (Vec<_>, Vec<_>) = good.into_iter().unzip();
    let ranges = [(0, 70), (70, 1), (71, 19)];
    for layout in Layout::ALL {
        let base = base_table(layout);
        let check = |signatures: &[[u8; 64]], ids: &[[u8; 32]], expected: [bool; 3], what: &str| {
            let mut buffers = Buffers::for_ids(&keys, ids, signatures, base.clone());
            assert_eq!(run_equations(layout, &mut buffers, &ranges), expected, "{what}");
            for ((first, count), holds) in ranges.iter().zip(expected) {
                let valid = buffers.flags[*first..first + count].iter().filter(|flag| **flag == FLAG_VALID);
                assert_eq!(
                    valid.count(),
                    if holds { *count } else { 0 },
                    "{what}: settled as a whole or not at all"
                );
            }
        };
        check(&good, &ids, [true, true, true], "all good");
        let mut bad = good.clone();
        bad[33][40] ^= 1;
        check(&bad, &ids, [false, true, true], "one s");
        let mut other = ids.clone();
        other[70][7] ^= 1;
        other[89][0] ^= 0x80;
        check(&good, &other, [true, false, false], "two ids");
        let mut bad = good.clone();
        bad[0][..32].copy_from_slice(&[2; 32]);
        bad[75][32..].copy_from_slice(&[0xff; 32]);
        check(&bad, &ids, [false, true, false], "an R that may be no point, an s that is not below l");
        // Two errors that cancel in a sum without random factors: s + 1 here, s - 1 there.
        let mut bad = good.clone();
        let add = |signature: &mut [u8; 64], n: Scalar| {
            let s = Scalar::from_bytes_mod_order(signature[32..].try_into().expect("32 bytes"));
            signature[32..].copy_from_slice(&(s + n).to_bytes());
        };
        add(&mut bad[1], Scalar::ONE);
        add(&mut bad[2], -Scalar::ONE);
        check(&bad, &ids, [false, true, true], "errors that cancel");
    }
}

#[test]
fn an_equation_takes_points_of_small_order_as_zip215_does() {
    // R = T for every T of small order, s = 0, and A = 0 or of small order: all valid; and a good row with T added to R and to A.
    let torsion = curve25519_dalek::constants::EIGHT_TORSION;
    let (mut keys, mut signatures) = (Vec::new(), Vec::new());
    let id = [3; 32];
    for t in &torsion {
        for a in &torsion {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&t.compress().to_bytes());
            keys.push(a.compress().to_bytes());
            signatures.push(signature);
        }
        let (secret, nonce) = (Scalar::from(987_654_321u64), Scalar::from(192_837u64));
        let key = (EdwardsPoint::mul_base(&secret) + t).compress().to_bytes();
        let r = (EdwardsPoint::mul_base(&nonce) + t).compress().to_bytes();
        let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(id).finalize();
        let k = Scalar::from_bytes_mod_order_wide(&hash.into());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&(nonce + k * secret).to_bytes());
        keys.push(key);
        signatures.push(signature);
    }
    let ids = vec![id; keys.len()];
    for layout in Layout::ALL {
        let mut buffers = Buffers::for_ids(&keys, &ids, &signatures, base_table(layout));
        let ranges: Vec<_> = (0..keys.len()).map(|row| (row, 1)).collect();
        assert_eq!(run_equations(layout, &mut buffers, &[(0, keys.len())]), [true]);
        assert!(run_equations(layout, &mut buffers, &ranges).iter().all(|holds| *holds), "each by itself");
    }
}

#[test]
fn an_equation_over_memory_that_nobody_wrote_does_not_hold() {
    for layout in Layout::ALL {
        let mut buffers = Buffers::for_ids(&[[0; 32]], &[[0; 32]], &[[0; 64]], base_table(layout));
        buffers.equations = vec![0, 1, 77, 0];
        buffers.equations.extend(scalar::digits(&[0; 8], 0x8000_8000));
        buffers.tables = vec![0; equation::table_words(1, 1)];
        buffers.flags = vec![0, 77];
        buffers.option = 1;
        weft_shaders::run_twin(Kernel::Close, layout, &mut buffers, 0);
        assert_eq!(buffers.flags[1], 0);
    }
}

#[test]
fn a_weighted_scalar_is_that_of_the_reference() {
    for (u, k) in [([0; 4], [0; 8]), ([u32::MAX; 4], [7, 0, 0, 0, 0, 0, 0, 0]), ([0x8080_8080; 4], [9; 8])] {
        check_weighted(&u, &k);
    }
    let mut top = scalar::L_WORDS;
    top[0] -= 1;
    check_weighted(&[0; 4], &top);
    check_weighted(&[u32::MAX; 4], &top);
}

fn check_weighted(u: &[u32; 4], k: &[u32; 8]) {
    let k_mod_l = Scalar::from_bytes_mod_order(bytes(k));
    let k = words8(&k_mod_l.to_bytes());
    assert_eq!(bytes(&weft_shaders::weigh::product(u, &k)), (z_of(u) * k_mod_l).to_bytes(), "{u:x?} {k:x?}");
}

#[test]
fn a_resident_key_is_decoded_once_and_no_row_takes_another_keys_x() {
    let id = [9; 32];
    let (key, signature) = sign(&Scalar::from(123_456u64), &Scalar::from(777u64), &id);
    let (other, others) = sign(&Scalar::from(654_321u64), &Scalar::from(888u64), &id);
    // Row 0 fills the entry although its s is not below l; row 1 has the same key; row 2 is sent to the entry with another.
    let mut spoiled = signature;
    spoiled[32..].copy_from_slice(&[0xff; 32]);
    let (keys, signatures) = ([key, key, other], [spoiled, signature, others]);
    for layout in Layout::ALL {
        let mut buffers = Buffers::for_ids(&keys, &[id; 3], &signatures, base_table(layout));
        let entry = buffers.points.len();
        buffers.points.resize(entry + RESIDENT_WORDS, 0);
        buffers.places = vec![entry as u32 / 2; 3];
        buffers.list = vec![0];
        let (_, flags) = verify_with_twins(layout, &mut buffers, Kernel::HashIds);
        assert_eq!(flags, [FLAG_INVALID, FLAG_VALID, FLAG_INVALID], "filling");
        assert_eq!(buffers.points[entry + FE_WORDS..], words8(&key), "the entry says whose it is");
        // Warm: nothing is decoded.
        (buffers.option, buffers.lanes, buffers.list) = (0, 0, Vec::new());
        let (_, flags) = verify_with_twins(layout, &mut buffers, Kernel::HashIds);
        assert_eq!(flags, [FLAG_INVALID, FLAG_VALID, FLAG_INVALID], "warm");
    }
}

#[test]
fn messages_of_every_length_around_the_block_boundaries_verify() {
    let messages: Vec<Vec<u8>> = [0, 1, 31, 32, 46, 47, 48, 63, 64, 65, 174, 175, 176, 500]
        .iter()
        .map(|length| (0..*length).map(|i: usize| (i * 7) as u8).collect())
        .collect();
    let signed: Vec<_> = messages
        .iter()
        .map(|m| sign(&Scalar::from(99u64), &Scalar::from(1234 + m.len() as u64), m))
        .collect();
    let (keys, signatures): (Vec<_>, Vec<_>) = signed.into_iter().unzip();
    let rows = (0..keys.len()).map(|i| {
        let r: &[u8; 32] = signatures[i][..32].try_into().expect("32 bytes");
        (r, &keys[i], messages[i].as_slice())
    });
    let blocks = hash_blocks::pack_blocks(rows);
    let ids = vec![[0; 32]; keys.len()];
    let mut buffers = Buffers::for_ids(&keys, &ids, &signatures, base_table(Layout::U64x10));
    buffers.messages = words(&blocks);
    let (_, flags) = verify_with_twins(Layout::U64x10, &mut buffers, Kernel::HashBlocks);
    assert!(flags.iter().all(|flag| *flag == FLAG_VALID), "{flags:?}");
}

#[test]
fn message_ids_match_blake3_at_every_block_boundary() {
    let context = "weft 2026-11 message v1";
    let key = words8(&blake3::hazmat::hash_derive_key_context(context));
    for length in [0, 1, 63, 64, 65, 127, 128, 129, 184, 256, 1000, 1023, 1024] {
        let message: Vec<u8> = (0..length).map(|i: usize| (i * 31) as u8).collect();
        let mut padded = vec![0; 64];
        padded.extend_from_slice(&message);
        padded.resize(64 + length.next_multiple_of(64).max(64), 0);
        let id = message_ids::main(&key, &words(&padded), &[[1, length as u32]], 0);
        assert_eq!(bytes(&id), blake3::derive_key(context, &message), "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn field_layouts_agree(a: [u32; 8], b: [u32; 8]) {
        check_field(&a, &b);
    }

    #[test]
    fn point_arithmetic_matches_the_reference(a: [u8; 32], b: [u8; 32]) {
        check_points::<F20>(&a, &b);
        check_points::<F10>(&a, &b);
    }

    #[test]
    fn reduction_matches_the_reference(x: [u32; 16]) {
        check_reduction(&x);
    }

    #[test]
    fn digits_spell_their_scalar(x: [u32; 16]) {
        let a = scalar::reduce(&x);
        digits_spell(&a, 0x8888_8888, 4);
        digits_spell(&a, 0x8000_8000, 16);
    }
}
