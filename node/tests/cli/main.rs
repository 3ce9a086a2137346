//! The commands that need no running node, run as a user runs them: the real binary, its output, its exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::Write as _;
use std::process::{Command, Stdio};

mod bench;
mod config;
mod doctor;
mod gpu;
mod keys;
mod log;
mod signatures;

/// What a command left behind.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The command must have ended with `code`.
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("stdout is not JSON ({error}):\n{}", self.out))
    }
}

/// Runs `weft` with these arguments, without the environment's own settings.
fn weft(arguments: &[&str]) -> Ran {
    weft_with(arguments, &[], "")
}

/// Runs `weft` with arguments, environment variables and an input.
fn weft_with(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    let mut child = command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // Inputs of these tests fit the pipe's buffer; a command that reads none of it may have closed it already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the binary ends");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

#[test]
fn every_command_has_a_help_text_with_an_example() {
    let commands: &[&[&str]] = &[
        &["init"],
        &["node"],
        &["demo"],
        &["loadgen"],
        &["key", "new"],
        &["key", "show"],
        &["send"],
        &["get"],
        &["tips"],
        &["status"],
        &["account", "show"],
        &["history"],
        &["receipt", "get"],
        &["receipt", "verify"],
        &["receipt", "consistency"],
        &["receipt", "keys"],
        &["inspect", "log"],
        &["inspect", "segment"],
        &["inspect", "message"],
        &["verify-log"],
        &["verify-signatures"],
        &["bench", "verify"],
        &["bench", "gpu"],
        &["gpu", "list"],
        &["gpu", "selftest"],
        &["config"],
        &["doctor"],
    ];
    for command in commands {
        let help = weft(&[command, &["--help"][..]].concat()).expect(0);
        let example = format!("weft {}", command.join(" "));
        // Once in the usage line, at least once more in an example.
        assert!(help.out.matches(&example).count() >= 2, "{example} --help shows no example:\n{}", help.out);
        assert!(help.out.contains("Example"), "{example} --help:\n{}", help.out);
    }
}

#[test]
fn a_wrong_flag_is_exit_code_2_and_says_so_on_stderr() {
    let ran = weft(&["doctor", "--loud"]).expect(2);
    assert!(ran.err.contains("--loud"), "{}", ran.err);
    assert_eq!(ran.out, "");
}

#[test]
fn logs_never_stand_on_stdout() {
    let ran = weft(&["--log", "trace", "config", "--json"]).expect(0);
    ran.json();
}
