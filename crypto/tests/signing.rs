//! Signing: equal to RFC 8032's vectors and to another implementation, bit for bit, one at a time and in batches.

use ed25519_dalek::{Signer, SigningKey};
use weft_crypto::Messages;
use weft_crypto::backend::Backend;
use weft_crypto::serial::verify_one;
use weft_crypto::sign::ExpandedKey;
use weft_crypto::testing::{Draw, seed, suites, unhex_array};

#[test]
fn rfc_8032_seeds_give_the_published_keys_and_signatures() {
    let cases = suites::rfc8032().cases;
    for (case, (name, seed, ..)) in cases.iter().zip(suites::RFC8032) {
        let key = ExpandedKey::from_seed(&unhex_array(seed));
        assert_eq!(key.public(), &case.key, "{name}");
        assert_eq!(key.sign(&case.message), case.signature, "{name}");
    }
}

#[test]
fn every_signer_gives_the_signatures_of_ed25519_dalek() {
    let mut draw = Draw::new(seed("signing"));
    for backend in Backend::ALL {
        let Ok(signer) = backend.signer() else {
            eprintln!("SKIPPED {backend}: no signer detected");
            continue;
        };
        assert_eq!(signer.name(), backend.name());
        for rows in [0, 1, 2, 7, 8, 9, 50] {
            let seeds: Vec<[u8; 32]> = (0..rows).map(|_| draw.bytes()).collect();
            let ids: Vec<[u8; 32]> = (0..rows).map(|_| draw.bytes()).collect();
            let texts: Vec<Vec<u8>> = (0..rows).map(|row| draw.vec(row * 7)).collect();
            let slices: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            let mut keys = vec![ExpandedKey::from_seed(&[0; 32])];
            signer.expand(&seeds, &mut keys);
            assert_eq!(keys.len(), rows);
            let keys: Vec<&ExpandedKey> = keys.iter().collect();
            for messages in [Messages::Ids(&ids), Messages::Slices(&slices)] {
                let mut signatures = vec![[0; 64]; rows];
                signer.sign(&keys, &messages, &mut signatures);
                for row in 0..rows {
                    let peer = SigningKey::from_bytes(&seeds[row]);
                    assert_eq!(keys[row].public(), peer.verifying_key().as_bytes());
                    assert_eq!(signatures[row], peer.sign(messages.get(row)).to_bytes());
                    assert!(verify_one(keys[row].public(), messages.get(row), &signatures[row]));
                }
            }
        }
    }
}

#[test]
fn printing_a_key_shows_its_public_half_only() {
    let key = ExpandedKey::from_seed(&[9; 32]);
    let shown = format!("{key:?}");
    let public: String = key.public().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, format!("ExpandedKey {{ public: {public}, .. }}"));
}
