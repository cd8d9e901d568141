//! Runs whose faults prove nothing say so, and end with their own exit code.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::sync::atomic::Ordering;

use fake::{FakeMesh, Fault, KILL_TOKEN, run};

const KILL: [(&str, &str); 5] = [
    ("KILL_MODE", "target"),
    ("KILL_AFTER", "400ms"),
    ("KILL_TARGET", "2"),
    ("KILL_TOKEN", KILL_TOKEN),
    ("FINAL_SWEEP", "false"),
];

/// Exit code 2, and the reason.
fn assert_void(mesh: &FakeMesh, settings: &[(&str, &str)], reason: &str) {
    let ran = run(mesh, &[&KILL[..], settings].concat());
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.lines().any(|line| line.starts_with(&format!("INVALID {reason}"))), "{}", ran.out);
    assert!(ran.out.contains("Verdict: INVALID RUN (exit code 2)"), "{}", ran.out);
    assert!(ran.results["verdict"]["invalid"][0].as_str().unwrap().starts_with(reason), "{}", ran.out);
}

#[test]
fn a_kill_under_hardly_any_load_is_void() {
    let settings = [("RATE", "60"), ("DURATION", "3s")];
    assert_void(&FakeMesh::start(), &settings, "too little load around crash http://127.0.0.1:");
}

#[test]
fn a_kill_that_leaves_no_trace_is_void() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.mortal.store(false, Ordering::Relaxed));
    let reason = format!("crash {} had no effect: it still answers", mesh.targets().split(',').nth(1).unwrap());
    assert_void(&mesh, &[("DURATION", "5s")], &reason);
}

#[test]
fn too_few_kills_are_void() {
    // Nobody starts a fake node again.
    let settings = [("KILL_COUNT", "2"), ("KILL_EVERY", "0s")];
    let mesh = FakeMesh::start();
    let reason =
        format!("the run ended during crash {}, after 0 of 1 returns", mesh.targets().split(',').nth(1).unwrap());
    assert_void(&mesh, &settings, &reason);
}

#[test]
fn errors_before_a_kill_break_the_objective_however_few() {
    let mesh = FakeMesh::start();
    mesh.nodes[0].misbehave(Fault::Overloaded);
    let ran = run(&mesh, &[&KILL[..], &[("ERRORS_MAX_PERCENT", "99.9")]].concat());
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("operations failed while no fault explains it"), "{}", ran.out);
}
