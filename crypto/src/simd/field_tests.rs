//! Field arithmetic of every representation and instruction set against a serial twin on plain 64-bit words.
//!
//! Edge values and why: 0 and 1 (neutral elements); 2, 18, 19, 20 (19 is what wraps); p - 1, p, p + 1, 2^255 - 1 (both
//! sides of the modulus, and encodings that are not canonical); 2^254, 2^128 and words of ones (carries that run
//! through); limbs at the very bounds their types allow, which no encoding reaches and only arithmetic does.

use super::field::{Field, P, invert, pow_p58};
use super::field26::F26;
use super::field52::F52;
use super::lanes::{Ifma, Lanes, Twice};
use super::portable::Array;
use proptest::prelude::*;

type Words = [u64; 4];

/// Lanes of the widest pair of vectors.
const LANES_MAX: usize = 16;

/// `x` modulo p for any 640-bit `x`.
fn modulo_p(mut x: [u64; 10]) -> Words {
    loop {
        // x = low + 2^255 high = low + 19 high.
        let mut high = [0_u64; 10];
        for word in 3..10 {
            let upper = if word < 9 { x[word + 1] << 1 } else { 0 };
            high[word - 3] = x[word] >> 63 | upper;
        }
        if high == [0; 10] {
            break;
        }
        let mut sum = [x[0], x[1], x[2], x[3] & (u64::MAX >> 1), 0, 0, 0, 0, 0, 0];
        let mut carry = 0_u128;
        for word in 0..10 {
            carry += u128::from(sum[word]) + 19 * u128::from(high[word]);
            sum[word] = carry as u64;
            carry >>= 64;
        }
        x = sum;
    }
    let out = [x[0], x[1], x[2], x[3]];
    if out.iter().rev().ge(P.iter().rev()) { minus_words(out, P) } else { out }
}

fn minus_words(a: Words, b: Words) -> Words {
    let mut borrow = 0_i128;
    let mut out = [0; 4];
    for word in 0..4 {
        borrow += i128::from(a[word]) - i128::from(b[word]);
        out[word] = borrow as u64;
        borrow >>= 64;
    }
    out
}

fn wide(a: Words) -> [u64; 10] {
    [a[0], a[1], a[2], a[3], 0, 0, 0, 0, 0, 0]
}

fn mul(a: Words, b: Words) -> Words {
    let mut out = [0_u64; 10];
    for i in 0..4 {
        let mut carry = 0_u128;
        for j in 0..4 {
            carry += u128::from(out[i + j]) + u128::from(a[i]) * u128::from(b[j]);
            out[i + j] = carry as u64;
            carry >>= 64;
        }
        out[i + 4] = carry as u64;
    }
    modulo_p(out)
}

fn add(a: Words, b: Words) -> Words {
    let mut out = wide(a);
    let mut carry = 0_u128;
    for word in 0..5 {
        carry += u128::from(out[word]) + u128::from(wide(b)[word]);
        out[word] = carry as u64;
        carry >>= 64;
    }
    modulo_p(out)
}

fn neg(a: Words) -> Words {
    modulo_p(wide(minus_words(P, modulo_p(wide(a)))))
}

fn sub(a: Words, b: Words) -> Words {
    add(a, neg(b))
}

fn power(mut base: Words, exponent: Words) -> Words {
    let mut out = [1, 0, 0, 0];
    for bit in 0..256 {
        if exponent[bit / 64] >> (bit % 64) & 1 == 1 {
            out = mul(out, base);
        }
        base = mul(base, base);
    }
    out
}

fn edges() -> Vec<Words> {
    let top = u64::MAX >> 1;
    let mut out = vec![
        [0; 4],
        [1, 0, 0, 0],
        [2, 0, 0, 0],
        [18, 0, 0, 0],
        [19, 0, 0, 0],
        [20, 0, 0, 0],
        [P[0] - 1, P[1], P[2], P[3]],
        P,
        [P[0] + 1, P[1], P[2], P[3]],
        [u64::MAX, u64::MAX, u64::MAX, top],
        [0, 0, 0, 1 << 62],
        [0, 0, 1, 0],
    ];
    for word in 0..4 {
        let mut ones = [0; 4];
        ones[word] = if word == 3 { top } else { u64::MAX };
        out.push(ones);
    }
    // The boundary of every limb of both representations.
    for bit in [26, 51, 77, 102, 128, 153, 179, 204, 230, 52, 104, 156, 208] {
        let mut one = [0; 4];
        one[bit / 64] = 1 << (bit % 64);
        out.push(one);
        out.push(modulo_p(wide(minus_words(one, [1, 0, 0, 0]))));
    }
    out
}

fn pack<V: Lanes>(values: &[Words]) -> [V; 4] {
    [0, 1, 2, 3].map(|word| {
        let lanes: Vec<u64> = (0..LANES_MAX).map(|lane| values[lane % values.len()][word]).collect();
        V::from_lanes(&lanes)
    })
}

fn unpack<F: Field>(value: F) -> Vec<Words> {
    let words = value.to_words();
    let mut lanes = [[0_u64; LANES_MAX]; 4];
    for word in 0..4 {
        words[word].to_lanes(&mut lanes[word]);
    }
    (0..F::V::COUNT).map(|lane| [0, 1, 2, 3].map(|word| lanes[word][lane])).collect()
}

fn expect<F: Field>(what: &str, got: F, wanted: impl Fn(usize) -> Words) {
    for (lane, got) in unpack(got).into_iter().enumerate() {
        assert_eq!(got, wanted(lane), "{what}, lane {lane}");
    }
}

/// All operations on one operand per lane; `a`, `b`, `c` have as many elements as the widest vector.
fn check_operations<F: Field>(a: &[Words], b: &[Words], c: &[Words]) {
    let [x, y, z] = [a, b, c].map(|values| F::from_words(pack::<F::V>(values)));
    check_values(x, y, z, a, b, c);
}

fn check_values<F: Field>(x: F, y: F, z: F, a: &[Words], b: &[Words], c: &[Words]) {
    let [a, b, c] = [a, b, c].map(|values| move |lane: usize| modulo_p(wide(values[lane % values.len()])));
    expect("value", x, a);
    expect("product", F::mul(x, y), |i| mul(a(i), b(i)));
    expect("square", F::square(x), |i| mul(a(i), a(i)));
    expect("square of a sum", F::square(F::add(x, y)), |i| mul(add(a(i), b(i)), add(a(i), b(i))));
    let mut both = [x, y];
    F::square_group(&mut both, 3);
    let [first, second] = both;
    let eighth = |v: Words| power(v, [8, 0, 0, 0]);
    expect("three squares", first, |i| eighth(a(i)));
    expect("three squares", second, |i| eighth(b(i)));
    expect("sum, reduced", F::add_reduced(x, y), |i| add(a(i), b(i)));
    expect("difference, reduced", F::sub_reduced(x, y), |i| sub(a(i), b(i)));
    // Summands that are products not carried yet, as large as they can be, and values.
    let loose = |left: F, right: F| F::mul_loose(F::add(left, right), F::sub(left, right));
    let plain = |left: Words, right: Words| mul(add(left, right), sub(left, right));
    let (p, q, r) = (loose(x, y), loose(y, z), loose(z, x));
    let (pa, qa, ra) = (
        move |i: usize| plain(a(i), b(i)),
        move |i: usize| plain(b(i), c(i)),
        move |i: usize| plain(c(i), a(i)),
    );
    expect("settled", F::settle(p), pa);
    expect("operand", F::mul(F::operand(p), z), |i| mul(pa(i), c(i)));
    expect("2p + q - r", F::mul(F::one(), F::twice_add_sub(p, q, r)), |i| {
        sub(add(add(pa(i), pa(i)), qa(i)), ra(i))
    });
    expect("2x + y - z", F::mul(F::one(), F::twice_add_sub(x.into(), y.into(), z.into())), |i| {
        sub(add(add(a(i), a(i)), b(i)), c(i))
    });
    expect("(p + q)(q - r)", F::mul(F::add(p, q), F::sub(q, r)), |i| {
        mul(add(pa(i), qa(i)), sub(qa(i), ra(i)))
    });
    expect("(p + q)^2", F::settle(F::square_loose(F::add(p, q))), |i| {
        mul(add(pa(i), qa(i)), add(pa(i), qa(i)))
    });
    expect("packed and unpacked, loose", F::settle(F::unpack_loose(F::pack_loose(p))), pa);
    expect(
        "packed and unpacked, operand",
        F::mul(z, F::unpack_operand(F::pack_operand(F::sub(p, q)))),
        |i| mul(c(i), sub(pa(i), qa(i))),
    );
    // Every kind of operand on either side where its type allows it, the largest ones together.
    let twice = |v: Words| add(v, v);
    expect("(x + y)(y + z)", F::mul(F::add(x, y), F::add(y, z)), |i| mul(add(a(i), b(i)), add(b(i), c(i))));
    expect("(x - y)(y - z)", F::mul(F::sub(x, y), F::sub(y, z)), |i| mul(sub(a(i), b(i)), sub(b(i), c(i))));
    let mask = F::V::mask_from_bits(0b1010_0110);
    let chosen = |i: usize| 0b1010_0110 >> i & 1 == 1;
    for negative in [None, Some(mask)] {
        let sign = |i: usize, v: Words| if negative.is_some() && chosen(i) { neg(v) } else { v };
        for (two, twice_value) in [(F::Loose::from(x), 0), (p, 1)] {
            let twice = move |i: usize| if twice_value == 0 { twice(a(i)) } else { twice(pa(i)) };
            let yz = move |i: usize| sign(i, mul(sub(b(i), a(i)), c(i)));
            let (less, more) = F::twice_sub_add(two, F::mul_signed(negative, F::sub(y, x), z));
            expect("(2x - yz)(2x + yz)", F::mul(less, more), |i| {
                mul(sub(twice(i), yz(i)), add(twice(i), yz(i)))
            });
            expect("2x - yz", F::mul(less, F::one()), |i| sub(twice(i), yz(i)));
            expect("(2x - yz)(2q + r - p)", F::mul(less, F::twice_add_sub(q, r, p)), |i| {
                mul(sub(twice(i), yz(i)), sub(add(add(qa(i), qa(i)), ra(i)), pa(i)))
            });
        }
    }
    expect("(x + y - z)(x - z)", F::mul(F::add_sub(x.into(), y.into(), z.into()), F::sub(x, z)), |i| {
        mul(sub(add(a(i), b(i)), c(i)), sub(a(i), c(i)))
    });
    expect("(p + q - r)(p - r)", F::mul(F::add_sub(p, q, r), F::sub(p, r)), |i| {
        mul(sub(add(pa(i), qa(i)), ra(i)), sub(pa(i), ra(i)))
    });
    expect("an operand again", F::mul(F::mul_operand(F::add_sub(p, q, r), F::sub(y, z)), z), |i| {
        mul(mul(sub(add(pa(i), qa(i)), ra(i)), sub(b(i), c(i))), c(i))
    });
    expect("negated where chosen", F::mul(z, F::negate_if(mask, x)), |i| {
        mul(c(i), if chosen(i) { neg(a(i)) } else { a(i) })
    });
    expect("selected", F::select(mask, x, y), |i| if chosen(i) { a(i) } else { b(i) });
    expect("packed and unpacked", F::unpack(x.pack()), a);
    let zero = F::V::mask_bits(F::sub_reduced(x, y).is_zero());
    for lane in 0..F::V::COUNT {
        assert_eq!(zero >> lane & 1 == 1, a(lane) == b(lane), "is_zero, lane {lane}");
    }
}

fn check_edges<F: Field>() {
    let edges = edges();
    let at = |start: usize, step: usize| -> Vec<Words> {
        (0..8).map(|lane| edges[(start + step * lane) % edges.len()]).collect()
    };
    // Every pair of edges meets: lanes hold neighbours, the second operand is shifted by every distance.
    for start in (0..edges.len()).step_by(F::V::COUNT) {
        for shift in 0..edges.len() {
            check_operations::<F>(&at(start, 1), &at(start + shift, 1), &at(3 * shift + start, 5));
        }
    }
}

fn check_powers<F: Field>() {
    let edges = edges();
    for pair in edges.chunks(8) {
        let x = F::from_words(pack::<F::V>(pair));
        let inverse = invert([x, F::square(x)]);
        let root = pow_p58([F::square(x), x]);
        let inverse_exponent = [P[0] - 2, P[1], P[2], P[3]];
        let root_exponent = [0xffff_ffff_ffff_fffd, u64::MAX, u64::MAX, 0x0fff_ffff_ffff_ffff];
        let value = |lane: usize| pair[lane % pair.len()];
        expect("inverse", inverse[0], |i| power(value(i), inverse_exponent));
        expect("inverse of the square", inverse[1], |i| power(mul(value(i), value(i)), inverse_exponent));
        expect("p58 power of the square", root[0], |i| power(mul(value(i), value(i)), root_exponent));
        expect("p58 power", root[1], |i| power(value(i), root_exponent));
    }
}

/// Limbs at the bounds of one unit, as packed words, with the value they stand for.
fn bounds_26() -> Vec<([u64; 5], Words)> {
    let even = (1_u64 << 26) + (1 << 18);
    let odd = (1_u64 << 25) + (1 << 18);
    let mut out = Vec::new();
    // All limbs at their bound; then all but one; then only one.
    for special in 0..21_usize {
        let limbs: Vec<u64> = (0..10)
            .map(|limb| {
                let bound = if limb % 2 == 0 { even } else { odd };
                let at = limb == special % 10;
                if special == 20 || (special < 10) == at { bound } else { 0 }
            })
            .collect();
        let mut words = [0; 5];
        let mut value = [0_u64; 4];
        let places = [0, 26, 51, 77, 102, 128, 153, 179, 204, 230];
        for limb in 0..10 {
            words[limb / 2] |= limbs[limb] << (32 * (limb % 2));
            value = add(value, mul([limbs[limb], 0, 0, 0], power([2, 0, 0, 0], [places[limb], 0, 0, 0])));
        }
        out.push((words, value));
    }
    out
}

fn bounds_52() -> Vec<([u64; 5], Words)> {
    let mut out = Vec::new();
    for special in 0..11_usize {
        let mut words = [0_u64; 5];
        let mut value = [0_u64; 4];
        for limb in 0..5 {
            let bound = if limb == 4 { (1_u64 << 47) + (1 << 17) - 1 } else { (1 << 52) - 1 };
            let at = limb == special % 5;
            words[limb] = if special == 10 || (special < 5) == at { bound } else { 0 };
            value = add(value, mul([words[limb], 0, 0, 0], power([2, 0, 0, 0], [52 * limb as u64, 0, 0, 0])));
        }
        out.push((words, value));
    }
    out
}

fn check_bounds<F: Field>(bounds: &[([u64; 5], Words)]) {
    let load = |start: usize| {
        let rows: Vec<_> = (0..LANES_MAX).map(|lane| &bounds[(start + lane) % bounds.len()]).collect();
        let columns = [0, 1, 2, 3, 4].map(|word| {
            let lanes: Vec<u64> = rows.iter().map(|(words, _)| words[word]).collect();
            F::V::from_lanes(&lanes)
        });
        (F::unpack(columns), rows.iter().map(|(_, value)| *value).collect::<Vec<_>>())
    };
    for start in 0..bounds.len() {
        for shift in 0..bounds.len() {
            let ((x, a), (y, b), (z, c)) = (load(start), load(start + shift), load(start + 2 * shift));
            check_values(x, y, z, &a, &b, &c);
        }
    }
}

/// Loose limbs of radix 2^52 at their bound, all or all but one or one only, in every sum that takes them.
fn check_loose_bounds<V: Ifma>() {
    type F<V> = F52<V>;
    let mut bounds = Vec::new();
    for special in 0..11_usize {
        let mut words = [0_u64; 5];
        let mut value = [0_u64; 4];
        for limb in 0..5 {
            let at = limb == special % 5;
            words[limb] = if special == 10 || (special < 5) == at { (1 << 56) - 1 } else { 0 };
            value = add(value, mul([words[limb], 0, 0, 0], power([2, 0, 0, 0], [52 * limb as u64, 0, 0, 0])));
        }
        bounds.push((words, value));
    }
    for (p, a) in &bounds {
        for (q, b) in &bounds {
            for (r, c) in &bounds {
                let load = |words: &[u64; 5]| F::<V>::unpack_loose(words.map(V::splat));
                let (p, q, r) = (load(p), load(q), load(r));
                let twice = |v: Words| add(v, v);
                expect("settled", F::<V>::settle(p), |_| *a);
                // As operands of a square: whatever is above the digits must do no harm.
                let squared = |v: F52<V>| F::<V>::square(v);
                let one = F::<V>::one();
                expect("p + q", squared(F::mul(F::add(p, q), one)), |_| mul(add(*a, *b), add(*a, *b)));
                expect("p - q", squared(F::mul(F::sub(p, q), one)), |_| mul(sub(*a, *b), sub(*a, *b)));
                expect("p + q - r", F::mul(F::<V>::add_sub(p, q, r), F::sub(p, q)), |_| {
                    mul(sub(add(*a, *b), *c), sub(*a, *b))
                });
                expect("2p + q - r", F::mul(F::<V>::twice_add_sub(p, q, r), F::operand(r)), |_| {
                    mul(sub(add(twice(*a), *b), *c), *c)
                });
            }
        }
    }
}

#[test]
fn radix_52_matches_serial_with_loose_limbs_at_their_bounds() {
    check_loose_bounds::<Array<8>>();
    #[cfg(target_arch = "x86_64")]
    if super::tests::present("avx512") {
        check_loose_bounds::<super::avx512::V8>();
    }
}

#[test]
fn radix_26_matches_serial_at_edges() {
    check_edges::<F26<Array<4>, 1>>();
    check_powers::<F26<Array<4>, 1>>();
}

#[test]
fn radix_26_matches_serial_with_limbs_at_their_bounds() {
    check_bounds::<F26<Array<4>, 1>>(&bounds_26());
}

#[test]
fn radix_52_matches_serial_at_edges() {
    check_edges::<F52<Array<8>>>();
    check_powers::<F52<Array<8>>>();
    check_edges::<F52<Twice<Array<4>>>>();
    check_powers::<F52<Twice<Array<4>>>>();
}

#[test]
fn radix_52_matches_serial_with_limbs_at_their_bounds() {
    check_bounds::<F52<Array<8>>>(&bounds_52());
    check_bounds::<F52<Twice<Array<4>>>>(&bounds_52());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx2_matches_serial_at_edges_and_bounds() {
    if super::tests::present("avx2") {
        check_edges::<F26<super::avx2::V4, 1>>();
        check_powers::<F26<super::avx2::V4, 1>>();
        check_bounds::<F26<super::avx2::V4, 1>>(&bounds_26());
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx512_matches_serial_at_edges_and_bounds() {
    if super::tests::present("avx512") {
        check_edges::<F52<super::avx512::V8>>();
        check_edges::<F52<Twice<super::avx512::V8>>>();
        check_powers::<F52<super::avx512::V8>>();
        check_powers::<F52<Twice<super::avx512::V8>>>();
        check_bounds::<F52<super::avx512::V8>>(&bounds_52());
        check_bounds::<F52<Twice<super::avx512::V8>>>(&bounds_52());
    }
}

fn words() -> impl Strategy<Value = Vec<Words>> {
    let word = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)];
    let value = (word.clone(), word.clone(), word.clone(), word)
        .prop_map(|(a, b, c, d)| [a, b, c, d & (u64::MAX >> 1)]);
    proptest::collection::vec(value, 8)
}

proptest! {
    #[test]
    fn every_representation_matches_serial(a in words(), b in words(), c in words()) {
        check_operations::<F26<Array<4>, 1>>(&a, &b, &c);
        check_operations::<F52<Array<8>>>(&a, &b, &c);
        #[cfg(target_arch = "x86_64")]
        {
            if super::tests::present("avx2") {
                check_operations::<F26<super::avx2::V4, 1>>(&a, &b, &c);
            }
            if super::tests::present("avx512") {
                check_operations::<F52<super::avx512::V8>>(&a, &b, &c);
                    }
        }
    }
}
