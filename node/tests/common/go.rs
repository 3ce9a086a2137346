//! The verifier of receipts in Go, for the suites that hold receipts against it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The Go verifier, built once; `None` without Go.
pub(crate) fn go_verifier() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let required = std::env::var_os("WEFT_REQUIRE_GO").is_some_and(|value| value == "1");
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("go-receipt");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go-receipt");
        // Debian's packages of Go libraries lie in a GOPATH; nothing is fetched.
        let build = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg("main.go")
            .current_dir(source)
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "")
            .env("GOCACHE", dir.path().join("cache"))
            .output();
        let why = match build {
            Ok(output) if output.status.success() => return Some((dir, program)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(!required, "WEFT_REQUIRE_GO=1, but the Go verifier cannot be built: {why}");
        eprintln!("skipped: the Go verifier cannot be built: {why}");
        None
    });
    built.as_ref().map(|(_, program)| program.as_path())
}
