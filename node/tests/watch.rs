//! `weft watch` as a process. Apart from tests that start nodes anew: a process that is being started holds every lock of its parent for a
//! moment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use common::{config, ledger, send, start};
use weft_net::AckLevel;
use weft_node::node::RunningNode;

/// `weft watch` at a node, with its arguments.
fn watch(node: &RunningNode, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .args(["watch", "--to", &node.address().to_string(), "--pin", &node.fingerprint().to_string()])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn the_command_prints_each_message_and_ends_well_by_count_time_and_signal_naming_where_to_go_on() {
    let data = ledger();
    let node = start(&config(data.path()));
    let sent = send(&node, AckLevel::Final, 20, 1);
    let out = watch(&node, &["--from", "start", "--count", "20"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(sent.iter().all(|id| text.contains(&id.to_string())), "{text}");
    let told = String::from_utf8(out.stderr).unwrap();
    let resume = told.trim().strip_prefix("to go on from here: --from ").unwrap().to_owned();

    let later = send(&node, AckLevel::Final, 10, 50);
    let out = watch(&node, &["--from", &resume, "--json", "--seconds", "2"]).output().unwrap();
    assert!(out.status.success());
    let lines: Vec<serde_json::Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<String> = lines
        .iter()
        .filter_map(|line| line["messages"].as_array())
        .flatten()
        .map(|message| message["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, later.iter().map(ToString::to_string).collect::<Vec<_>>(), "the rest, once, in order");
    let end = lines.last().unwrap();
    assert_eq!((end["event"].as_str(), end["resume_open"].as_str()), (Some("end"), Some("")));

    let mut child = watch(&node, &["--sizes"]).spawn().unwrap();
    send(&node, AckLevel::Final, 10, 60);
    let mut line = String::new();
    // Kept open: a closed pipe would end it, too.
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("lane 0  certified "), "{line:?}");
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{:?}", out.status);
    assert!(String::from_utf8(out.stderr).unwrap().contains("to go on from here: --from 0:"));

    for wrong in [&["--from", "0"][..], &["--open", "x"], &["--sizes", "--witnesses"], &["--from", "9:0"]] {
        let out = watch(&node, wrong).output().unwrap();
        assert!(!out.status.success(), "{wrong:?}");
    }
    node.stop();
}
