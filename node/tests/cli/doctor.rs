//! `doctor`: every check gives a line, and a warning gives advice.

use super::weft;

#[test]
fn the_report_names_every_check_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let report = weft(&["doctor", "--data", directory.path().to_str().unwrap(), "--json"]).expect(0).json();
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in [
        "build",
        "kernel",
        "cpu",
        "verifier",
        "gpu",
        "file descriptors",
        "udp receive",
        "udp offload",
        "disk sync",
        "clock",
    ] {
        assert!(names.contains(&name), "no check {name} in {names:?}");
    }
    let warnings = checks.iter().filter(|check| check["status"] == "WARN");
    assert_eq!(report["warnings"], warnings.clone().count());
    assert!(warnings.clone().all(|check| !check["advice"].as_str().unwrap().is_empty()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn strict_turns_warnings_into_exit_code_1() {
    // The tests run a debug build, which is one warning at least.
    if cfg!(debug_assertions) {
        let ran = weft(&["doctor", "--strict"]).expect(1);
        assert!(ran.out.contains("WARN  build"), "{}", ran.out);
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_a_warning_and_no_failure() {
    let ran = weft(&["doctor", "--data", "/proc/nowhere"]).expect(0);
    assert!(ran.out.contains("WARN  disk sync"), "{}", ran.out);
}
