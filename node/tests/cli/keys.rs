//! Key files: made once, private, readable by others' tools.

use std::os::unix::fs::PermissionsExt as _;

use super::weft;

#[test]
fn a_new_key_is_a_private_file_whose_public_key_is_shown_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("device.key");
    let path = file.to_str().unwrap();
    let made = weft(&["key", "new", path]).expect(0);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let shown = weft(&["key", "show", path]).expect(0);
    assert_eq!(made.out, shown.out);
    assert_eq!(made.out.trim().len(), 64);
    let report = weft(&["key", "show", path, "--json"]).expect(0).json();
    assert_eq!(report["public_key"], made.out.trim());
    // The seed is never on a stream.
    let seed = std::fs::read_to_string(&file).unwrap();
    assert!(!made.out.contains(seed.trim()) && !made.err.contains(seed.trim()));
}

#[test]
fn the_file_holds_the_seed_of_rfc_8032() {
    // Test 1 of RFC 8032, section 7.1.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rfc.key");
    std::fs::write(&file, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n").unwrap();
    let shown = weft(&["key", "show", file.to_str().unwrap()]).expect(0);
    assert_eq!(shown.out.trim(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    // Written by hand, so with the usual mode: that is pointed out.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let shown = weft(&["key", "show", file.to_str().unwrap()]).expect(0);
    assert!(shown.err.contains("chmod 600"), "{}", shown.err);
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("precious");
    std::fs::write(&file, "keep me").unwrap();
    let ran = weft(&["key", "new", file.to_str().unwrap()]).expect(2);
    assert!(ran.err.contains("never overwritten"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "keep me");
}

#[test]
fn what_is_no_key_file_is_refused_without_repeating_its_content() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("not-a-key");
    for content in
        ["", "secret words", &"ab".repeat(31), &"ab".repeat(33), &"xy".repeat(32), &"0".repeat(1 << 16)]
    {
        std::fs::write(&file, content).unwrap();
        let ran = weft(&["key", "show", file.to_str().unwrap()]).expect(2);
        assert!(ran.err.contains("64 hex digits"), "{}", ran.err);
        assert!(content.is_empty() || !ran.err.contains(content), "{}", ran.err);
    }
    weft(&["key", "show", directory.path().join("absent").to_str().unwrap()]).expect(3);
}
