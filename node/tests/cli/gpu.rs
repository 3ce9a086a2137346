//! GPU commands: what they say without an adapter, and the whole device path where there is one.
//!
//! The device is whatever is there, or Mesa's software driver, which these tests allow themselves. Without any they say so and are
//! skipped, but for `WEFT_GPU_REQUIRED=1`, which makes that a failure.

use super::{Ran, weft, weft_with};

const ALLOW: (&str, &str) = ("WEFT_GPU_ALLOW_CPU", "1");

/// Runs `weft` with software adapters allowed; `None`, after saying so, where there is no adapter at all.
fn on_device(arguments: &[&str], input: &str) -> Option<Ran> {
    let listed = weft_with(&["gpu", "list", "--json"], &[ALLOW], "").expect(0).json();
    if listed["adapters"].as_array().unwrap().is_empty() {
        assert!(std::env::var_os("WEFT_GPU_REQUIRED").is_none_or(|value| value != "1"), "no GPU adapter");
        eprintln!("SKIPPED gpu: no adapter");
        return None;
    }
    Some(weft_with(arguments, &[ALLOW], input))
}

/// Without any Vulkan driver: the loader is told of one that does not exist.
fn without_adapters(arguments: &[&str]) -> Ran {
    weft_with(
        arguments,
        &[ALLOW, ("VK_ICD_FILENAMES", "/nowhere.json"), ("VK_DRIVER_FILES", "/nowhere.json")],
        "",
    )
}

#[test]
fn a_machine_without_adapters_is_told_so_and_keeps_working() {
    let ran = without_adapters(&["gpu", "list"]).expect(0);
    assert!(ran.out.contains("no GPU adapter"), "{}", ran.out);
    for command in [
        &["gpu", "selftest"][..],
        &["bench", "gpu"],
        &["verify-signatures", "--backend", "gpu", "-"],
        &["demo", "--verifier", "gpu", "--seconds", "1"],
    ] {
        let ran = without_adapters(command).expect(3);
        assert!(ran.err.contains("no GPU adapter"), "{command:?}: {}", ran.err);
    }
    let report = without_adapters(&["doctor", "--json"]).expect(0).json();
    let gpu = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "gpu").unwrap();
    assert_eq!(gpu["status"], "PASS");
}

#[test]
fn software_adapters_are_passed_over_unless_allowed() {
    let listed = weft(&["gpu", "list", "--json"]).expect(0).json();
    let adapters = listed["adapters"].as_array().unwrap();
    let software = adapters.iter().filter(|adapter| adapter["kind"] == "software").count();
    if software == 0 || software != adapters.len() {
        return eprintln!("SKIPPED: needs software adapters and no other");
    }
    let ran = weft(&["gpu", "selftest"]).expect(3);
    assert!(ran.err.contains("passed over") && ran.err.contains("WEFT_GPU_ALLOW_CPU"), "{}", ran.err);
}

#[test]
fn every_layout_of_the_adapter_passes_its_self_test() {
    let Some(ran) = on_device(&["gpu", "selftest", "--json"], "") else { return };
    let report = ran.expect(0).json();
    let layouts = report["layouts"].as_array().unwrap();
    assert!(!layouts.is_empty());
    for layout in layouts {
        assert_eq!(layout["passed"], true, "{layout}");
        assert!(layout["signatures_per_s"].as_f64().unwrap() > 0.0, "{layout}");
    }
}

#[test]
fn signatures_are_verified_through_the_device_with_the_verdicts_of_the_cpu() {
    use std::fmt::Write as _;
    use weft_core::DeviceSigner;
    let signer = DeviceSigner::from_seed([5; 32]);
    let mut input = String::new();
    for length in 0..300usize {
        let message = vec![length as u8; length * 7];
        let mut signature = signer.sign_bytes(&message);
        signature[length % 64] ^= u8::from(length % 5 == 0);
        let (pk, msg) = (hex::encode(signer.public().0), hex::encode(&message));
        let _ =
            writeln!(input, "{{\"pk\":\"{pk}\",\"msg\":\"{msg}\",\"sig\":\"{}\"}}", hex::encode(signature));
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines.jsonl");
    std::fs::write(&file, &input).unwrap();
    let path = file.to_str().unwrap();
    let Some(ran) = on_device(&["verify-signatures", "--backend", "gpu", path], "") else { return };
    let cpu = weft(&["verify-signatures", "--backend", "serial", path]).expect(0);
    assert_eq!(ran.expect(0).out, cpu.out);
    assert_eq!(cpu.out.matches("false").count(), 60);
}

#[test]
fn a_small_bench_has_the_device_the_cpu_and_what_was_left_out() {
    let arguments = [
        "bench",
        "gpu",
        "--batch",
        "256,1024,1048576",
        "--seconds-per-row",
        "0.01",
        "--seconds-max",
        "0.5",
        "--json",
    ];
    let Some(ran) = on_device(&arguments, "") else { return };
    let report = ran.expect(0).json();
    let rows = report["rows"].as_array().unwrap();
    for what in ["verify", "verify warm", "transfer", "hash", "cpu serial", "cpu hash"] {
        let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no row {what}"));
        assert!(row["per_s"].as_f64().unwrap() > 0.0, "{row}");
    }
    let verify = rows.iter().find(|row| row["what"] == "verify").unwrap();
    assert!(verify["speedup_vs_cpu_thread"].as_f64().unwrap() > 0.0, "{verify}");
    assert_eq!(report["guard"]["mismatches"], 0);
    let resident = &report["resident"];
    assert!(
        resident["hits"].as_u64().unwrap() >= 1024 && resident["capacity"].as_u64().unwrap() > 0,
        "{resident}"
    );
    assert!(report["left_out"].is_array() && report["adapter"]["name"].is_string());
    weft(&["bench", "gpu", "--batch", "0"]).expect(2);
    weft(&["bench", "gpu", "--offline", "navi99"]).expect(2);
}

/// The figures that the kernels are held to on hardware that no test machine has: see docs/gpu.md.
#[test]
fn kernels_compiled_for_two_amd_chips_spill_nothing_and_reach_five_million_signatures_a_second_on_the_card() {
    let installed = std::fs::read_dir("/usr/share/vulkan/icd.d").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("radeon_icd"))
    });
    if !installed {
        assert!(
            std::env::var_os("WEFT_GPU_REQUIRED").is_none_or(|value| value != "1"),
            "Mesa's RADV is missing"
        );
        return eprintln!("SKIPPED: Mesa's RADV is not installed");
    }
    for chip in ["navi21", "navi10"] {
        // Both on the card of the claim: 60 compute units at 2.1 GHz.
        let arguments =
            ["bench", "gpu", "--offline", chip, "--simds", "120", "--clock-mhz", "2100", "--json", "-"];
        let report = weft(&arguments).expect(0).json();
        assert!(report["device"].as_str().unwrap().to_lowercase().contains(chip), "{}", report["device"]);
        let kernels = report["kernels"].as_array().unwrap();
        assert_eq!(kernels.len(), 32, "sixteen kernels in two layouts");
        for kernel in kernels {
            assert_eq!(kernel["spilled_registers"], 0, "{kernel}");
            assert!(
                kernel["registers"].as_u64().unwrap() > 0 && kernel["instructions"].as_u64().unwrap() > 0
            );
            if kernel["kernel"] == "ladder" {
                assert!(kernel["waves_per_simd"].as_u64().unwrap() >= 4, "{kernel}");
            }
        }
        let rate = report["best"]["signatures_per_s"].as_f64().unwrap();
        println!("{chip}: {rate} signatures/s, {}", report["best"]);
        assert!(rate >= 5e6, "{}", report["best"]);
        let warm = report["best"]["warm_signatures_per_s"].as_f64().unwrap();
        let saved = report["best"]["warm_key_saves_cycles"].as_f64().unwrap();
        assert!(saved > 3000.0 && warm > 1.05 * rate, "resident keys save decoding: {}", report["best"]);
    }
}
