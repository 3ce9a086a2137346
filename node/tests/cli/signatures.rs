//! `verify-signatures`: one verdict for one line, in order, and a clear end where a line is no question.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use weft_core::DeviceSigner;

use super::{weft, weft_with};

fn line(pk: &[u8], msg: &[u8], sig: &[u8]) -> String {
    format!(
        "{{\"pk\":\"{}\",\"msg\":\"{}\",\"sig\":\"{}\"}}\n",
        hex::encode(pk),
        hex::encode(msg),
        hex::encode(sig)
    )
}

/// A valid line over a message of `length` bytes.
fn valid(number: u8, length: usize) -> String {
    let signer = DeviceSigner::from_seed([number; 32]);
    let message = vec![number; length];
    line(&signer.public().0, &message, &signer.sign_bytes(&message))
}

#[test]
fn verdicts_come_one_a_line_in_order_for_messages_of_any_length() {
    let signer = DeviceSigner::from_seed([1; 32]);
    let signature = signer.sign_bytes(b"hello");
    let key = signer.public().0;
    let mut changed = signature;
    changed[40] ^= 1;
    let input = [
        valid(2, 0),
        line(&key, b"hello", &signature),
        line(&key, b"hallo", &signature),
        line(&key, b"hello", &changed),
        valid(3, 100_000),
        // Questions whose answer needs no arithmetic.
        line(&key[..31], b"hello", &signature),
        line(&key, b"hello", &signature[..63]),
        line(&[], b"", &[]),
        valid(4, 32),
    ]
    .concat();
    let ran = weft_with(&["verify-signatures", "-"], &[], "").expect(0);
    assert_eq!(ran.out, "", "no line, no verdict");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines.jsonl");
    std::fs::write(&file, &input).unwrap();
    for backend in ["auto", "serial"] {
        let ran = weft(&["verify-signatures", "--backend", backend, file.to_str().unwrap()]).expect(0);
        assert_eq!(ran.out, "true\ntrue\nfalse\nfalse\ntrue\nfalse\nfalse\nfalse\ntrue\n");
    }
}

#[test]
fn a_small_order_key_is_judged_by_zip_215() {
    // A = R = the neutral element, s = 0: 0 = 0 + k 0, whatever the message. Strict verifiers refuse it, ZIP-215
    // accepts it.
    let mut neutral = [0u8; 32];
    neutral[0] = 1;
    let mut signature = [0u8; 64];
    signature[0] = 1;
    let ran = weft_with(&["verify-signatures", "-"], &[], &line(&neutral, b"anything", &signature)).expect(0);
    assert_eq!(ran.out, "true\n");
}

#[test]
fn more_lines_than_one_batch_are_judged_each() {
    let signer = DeviceSigner::from_seed([9; 32]);
    let (good, bad) = (signer.sign_bytes(b"x"), signer.sign_bytes(b"y"));
    let mut input = String::new();
    let mut expected = String::new();
    for number in 0..5_000 {
        let is_bad = number % 1_999 == 7;
        input.push_str(&line(&signer.public().0, b"x", if is_bad { &bad } else { &good }));
        let _ = writeln!(expected, "{}", !is_bad);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("many.jsonl");
    std::fs::write(&file, &input).unwrap();
    let ran = weft(&["verify-signatures", file.to_str().unwrap()]).expect(0);
    assert!(ran.out == expected, "verdicts differ");
}

#[test]
fn a_line_that_is_no_question_ends_the_command_after_the_verdicts_before_it() {
    let cases = [
        "nonsense\n",
        "{\"pk\":\"00\"}\n",
        "{\"pk\":\"0g\",\"msg\":\"\",\"sig\":\"\"}\n",
        "{\"pk\":\"000\",\"msg\":\"\",\"sig\":\"\"}\n",
        "{\"pk\":1,\"msg\":\"\",\"sig\":\"\"}\n",
        "\n",
        "[]\n",
    ];
    for case in cases {
        let input = [valid(1, 5), valid(2, 5), case.to_owned(), valid(3, 5)].concat();
        let ran = weft_with(&["verify-signatures", "-"], &[], &input).expect(2);
        assert_eq!(ran.out, "true\ntrue\n", "{case:?}");
        assert!(ran.err.contains("stdin, line 3:"), "{case:?}: {}", ran.err);
    }
}

#[test]
fn fields_beside_the_three_are_ignored_and_a_last_line_needs_no_end() {
    let first = valid(1, 3).replace("{\"pk\"", "{\"comment\":\"from a test suite\",\"tcId\":7,\"pk\"");
    let ran = weft_with(&["verify-signatures", "-"], &[], &(first + valid(2, 3).trim_end())).expect(0);
    assert_eq!(ran.out, "true\ntrue\n");
}

#[test]
fn an_unknown_backend_is_refused_with_the_names_there_are() {
    let ran = weft_with(&["verify-signatures", "--backend", "abacus", "-"], &[], "").expect(2);
    assert!(ran.err.contains("abacus") && ran.err.contains("serial"), "{}", ran.err);
    assert!(ran.err.contains("available here: auto, serial"), "{}", ran.err);
    weft(&["verify-signatures", "/no/such/file"]).expect(3);
}

#[test]
fn a_program_can_ask_line_by_line_and_read_each_verdict_before_the_next() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["verify-signatures", "--backend", "serial", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 0..5 {
        ask.write_all(valid(number, 10).as_bytes()).unwrap();
        ask.flush().unwrap();
        // Hangs here if verdicts wait for a full batch.
        assert_eq!(answers.next().unwrap().unwrap(), "true");
    }
    drop(ask);
    assert!(child.wait().unwrap().success());
}
