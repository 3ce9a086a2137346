//! `bench verify`, run small: every cell has its rows and the peers beside them. Figures are not judged here.

use super::weft;

#[test]
fn a_small_run_has_a_row_for_every_contender_in_every_cell() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("verify.json");
    let path = file.to_str().unwrap();
    let arguments = [
        "bench",
        "verify",
        "--backend",
        "serial",
        "--batch",
        "1,5",
        "--keys",
        "cold,warm,64",
        "--threads",
        "1,2",
        "--seconds-per-row",
        "0.01",
        "--json",
        path,
    ];
    let ran = weft(&arguments).expect(0);
    assert!(ran.out.contains("zebra-batch") && ran.out.contains("(peer)"), "{}", ran.out);
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let contenders = ["serial", "zebra-batch", "dalek-batch"];
    assert_eq!(rows.len(), contenders.len() * 2 * 3 * 2);
    for contender in contenders {
        for batch in [1, 5] {
            for keys in ["cold", "warm", "64"] {
                for threads in [1, 2] {
                    let found = rows.iter().filter(|row| {
                        row["backend"] == contender
                            && row["batch"] == batch
                            && row["keys"] == keys
                            && row["threads"] == threads
                    });
                    assert_eq!(
                        found.count(),
                        1,
                        "{contender}, batch {batch}, keys {keys}, threads {threads}"
                    );
                }
            }
        }
    }
    for row in rows {
        for key in
            ["ns_per_signature", "signatures_per_s", "speedup_vs_zebra_batch", "speedup_vs_dalek_batch"]
        {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key} in {row}");
        }
        if row["backend"] == "zebra-batch" {
            assert_eq!(row["speedup_vs_zebra_batch"], 1.0);
        }
    }
    for key in ["machine", "command", "peers", "result_hash"] {
        assert!(!report[key].is_null(), "no {key}");
    }
    // The hash is over verdicts, so it is the same whatever the times were.
    let again = weft(&arguments).expect(0);
    let hash = report["result_hash"].as_str().unwrap();
    assert!(ran.out.contains(hash) && again.out.contains(hash));
}

#[test]
fn lists_that_cannot_be_measured_are_refused_with_the_limits() {
    for (flag, value, part) in [
        ("--batch", "0", "1 to 65536"),
        ("--batch", "65537", "1 to 65536"),
        ("--threads", "0", "1 to 1024"),
        ("--threads", "some", "or all"),
        ("--seconds-per-row", "0", "0.01 to 600"),
        ("--keys", "tepid", "tepid"),
        ("--backend", "abacus", "abacus"),
    ] {
        let ran = weft(&["bench", "verify", flag, value]).expect(2);
        assert!(ran.err.contains(part), "{flag} {value}: {}", ran.err);
    }
}
