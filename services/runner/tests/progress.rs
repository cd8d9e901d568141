//! What a runner shows while it goes on, without a terminal.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use fake::{FakeMesh, command};
use serde_json::Value;

/// Standard output and standard error of a run of two and a half seconds.
fn output(settings: &[(&str, &str)]) -> (String, String) {
    let mesh = FakeMesh::start();
    let settings = [&[("DURATION", "2500ms"), ("FINAL_SWEEP", "false")], settings].concat();
    let output = command(&mesh.targets(), &settings).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{errors}");
    (out, errors)
}

#[test]
fn each_second_has_a_row_on_standard_error() {
    let (out, errors) = output(&[("PROGRESS", "rows")]);
    let lines: Vec<_> = errors.lines().collect();
    assert!(lines[0].trim_start().starts_with("time s"), "{errors}");
    let times: Vec<_> = lines[1..].iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(times, ["1", "2", "3"], "the last one is that of the rest: {errors}");
    assert!(out.starts_with("[LOAD] ") && !out.contains("time s") && out.contains("Verdict: "), "{out}");
}

#[test]
fn programs_get_one_object_a_second_and_nothing_else() {
    let (out, errors) = output(&[("PROGRESS", "ndjson")]);
    let objects: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let kinds: Vec<_> = objects.iter().filter_map(|object| object["type"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "interval").count(), 3, "{out}");
    let ended = objects.last().unwrap();
    assert_eq!((&ended["type"], &ended["exit_code"]), (&"result".into(), &0.into()), "{out}");
    let ops: u64 = objects.iter().filter_map(|object| object["ops"].as_u64()).sum();
    assert!(ops > 100, "{out}");
    assert!(errors.contains("Verdict: PASS"), "people read the rest on standard error: {errors}");
}

#[test]
fn unasked_nothing_is_added_without_a_terminal() {
    for progress in ["auto", "plain", "off"] {
        let (_, errors) = output(&[("PROGRESS", progress)]);
        assert_eq!(errors, "", "{progress}");
    }
}
