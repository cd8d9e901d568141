//! OBJECTIVES and FIND_MAX as a user sets them: what is met, what is missed, what cannot be judged, and how much a mesh can do.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::time::Duration;

use fake::{FakeMesh, Fault, command, misbehaving, run, told};

#[test]
fn each_objective_is_met_or_missed_by_so_much() {
    let mesh = FakeMesh::start();
    let ran = run(&mesh, &[("OBJECTIVES", "get.p50<10s; throughput>1000000000; errors<1%")]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    let objectives = ran.results["objectives"].as_array().unwrap();
    let met: Vec<_> = objectives.iter().map(|objective| objective["is_met"].as_bool()).collect();
    assert_eq!(met, [Some(true), Some(false), Some(true)], "{objectives:?}");
    assert!(ran.out.contains("MISSED  throughput>1000000000: "), "{}", ran.out);
    let lines: Vec<_> = ran.out.lines().rev().take(4).collect();
    assert_eq!(lines[0], "Verdict: FAIL (exit code 1)");
    assert!(lines[1].starts_with("MEASUREMENT  "), "{lines:?}");
    assert!(lines[2].starts_with("OBJECTIVES   MISSED    throughput>1000000000: "), "{lines:?}");
    assert_eq!(lines[3], "CORRECTNESS  PASS      0 lost, 0 wrong; 100 keys read back from every node");
    let verdict = &ran.results["verdict"];
    assert_eq!((&verdict["correctness"], &verdict["objectives"]), (&"PASS".into(), &"MISSED".into()));
}

#[test]
fn what_has_too_few_operations_makes_the_run_invalid() {
    let settings = [("OBJECTIVES", "get.p99.9<10s"), ("RATE", "300"), ("FINAL_SWEEP", "false")];
    let ran = run(&FakeMesh::start(), &settings);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains("INVALID get.p99.9<10s: only ") && ran.out.contains("10 000 are needed"), "{}", ran.out);
    assert_eq!(ran.results["verdict"]["measurement"], "INVALID");
}

#[test]
fn refused_connections_do_not_improve_a_percentile() {
    // Half of the operations are answered at once, and say no.
    let mesh = FakeMesh::start();
    mesh.nodes.iter().take(2).for_each(|node| node.misbehave(Fault::Overloaded));
    let settings = [("OBJECTIVES", "get.p99<10s; errors<100%"), ("ENTRY", "strict"), ("FINAL_SWEEP", "false")];
    let ran = run(&mesh, &[&settings[..], &[("PREFILL", "false"), ("DURATION", "3s"), ("CONCURRENCY", "32")]].concat());
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("failed, and what fails counts as slower than any limit"), "{}", ran.out);
}

#[test]
fn a_broken_guarantee_wins_over_an_objective_that_cannot_be_judged() {
    let ran = misbehaving(Fault::Corrupt, &[("OBJECTIVES", "set.p99.9<10s"), ("RATE", "400")]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("CORRECTNESS  BROKEN    ") && ran.out.contains("MEASUREMENT  INVALID   "), "{}", ran.out);
}

#[test]
fn bad_objectives_and_searches_are_refused_before_anything_is_asked() {
    for (settings, complaint) in [
        (
            &[("OBJECTIVES", "gte.p99<5ms")][..],
            "OBJECTIVES=gte.p99<5ms: entry 1, `gte.p99<5ms`: `gte` is not known; did you mean get?",
        ),
        (
            &[("OBJECTIVES", "recovery<5s")],
            "OBJECTIVES=recovery<5s: recovery<5s: expected a fault, as by FAULTS or KILL_AFTER",
        ),
        (&[("FIND_MAX", "on"), ("RATE", "100")], "RATE=100: expected 0, because FIND_MAX looks for the rate itself"),
        (
            &[("FIND_MAX", "on"), ("KILL_MODE", "random"), ("KILL_AFTER", "100ms")],
            "FIND_MAX=on: expected off, because FAULTS, KILL_MODE and KILL_AFTER are for a fixed load",
        ),
    ] {
        let (code, out) = told(&command("http://127.0.0.1:1", settings).output().unwrap());
        assert_eq!(code, 2, "{out}");
        assert!(out.starts_with(&format!("error: {complaint}")) && out.lines().count() == 1, "{out}");
    }
}

/// Operations per second of the bucket: between two rates that the search tries.
const CAPACITY: f64 = 1450.0;

#[test]
fn the_highest_rate_of_a_token_bucket_is_found_within_5_percent() {
    let mesh = FakeMesh::start();
    // With one node, no chance decides how much is left to the others.
    let target = format!("http://127.0.0.1:{}", mesh.nodes[0].port);
    mesh.nodes[0].misbehave(Fault::Bucket(Duration::from_secs_f64(1.0 / CAPACITY)));
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.json");
    // A moment without CPU takes a bucket without a burst as long to make up for as there is room above the rate: hence the 60 ms. A step
    // that is 5 % above the capacity leaves more undone than the few operations in flight.
    let settings = [
        ("FIND_MAX", "on"),
        ("DURATION", "800ms"),
        ("OBJECTIVES", "get.p99<60ms; set.p99<60ms"),
        ("SET_RATIO", "50"),
        ("CONCURRENCY", "16"),
        ("FINAL_SWEEP", "false"),
        ("RESULTS", results.to_str().unwrap()),
    ];
    let (code, out) = told(&command(&target, &settings).output().unwrap());
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let search = &found["max_rate"];
    let (met, missed) = (search["ops_per_s"].as_f64().unwrap(), search["missed_ops_per_s"].as_f64().unwrap());
    assert!(search["is_complete"] == true && missed <= met * 1.05, "{out}");
    assert!((met / CAPACITY - 1.0).abs() <= 0.05, "{met}: {out}");
    assert!(search["steps"].as_array().unwrap().len() >= 6, "{out}");
    assert!(out.contains(&format!("Highest rate: {met:.0} ops/s, not {missed:.0} ops/s")), "{out}");
    // With 400 operations of each kind the percentile is not certain, and the run says so.
    assert_eq!((code, &found["verdict"]["correctness"]), (2, &"PASS".into()), "{out}");
    assert!(out.contains("at the highest rate: give its steps a longer DURATION"), "{out}");
}

#[test]
fn a_broken_guarantee_ends_the_search() {
    let ran = misbehaving(Fault::Corrupt, &[("FIND_MAX", "on"), ("DURATION", "300ms"), ("FINAL_SWEEP", "false")]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("[STEP] the guarantee was broken: the search ends"), "{}", ran.out);
    assert_eq!(ran.results["max_rate"]["steps"].as_array().unwrap().len(), 1, "{}", ran.out);
}
