//! The checker as a user meets it: one planted defect for each part of the guarantee is found under its own name, and a mesh
//! that keeps it all is never accused.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use fake::{FakeMesh, Fault, misbehaving, run};

const KINDS: [&str; 11] = [
    "wrong_object",
    "corrupt",
    "unwritten",
    "missing",
    "lost",
    "out_of_order",
    "stale_quorum",
    "session_broken",
    "resurrected",
    "outlived",
    "version_changed",
];

/// A mixture of everything that explains something.
const MIXTURE: [(&str, &str); 5] =
    [("SET_RATIO", "30"), ("DELETE_RATIO", "10"), ("SET_TTL_MS", "300"), ("KEYS", "40"), ("CONCURRENCY", "16")];

/// The defect is found as `kind`, and as nothing else unless it is among `consequences`.
fn assert_found(fault: Fault, settings: &[(&str, &str)], kind: &str, consequences: &[&str]) {
    let ran = misbehaving(fault, settings);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for other in KINDS {
        let found = ran.integrity(other) > 0;
        assert_eq!(found, other == kind || (found && consequences.contains(&other)), "{other}: {}", ran.out);
    }
    let example = ran.results["integrity"]["examples"].as_array().unwrap().iter().find(|found| found["kind"] == kind);
    let example = example.unwrap_or_else(|| panic!("no example: {}", ran.out));
    assert!(example["key"].as_str().unwrap().starts_with("key-"), "{example}");
    assert!(example["entry"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{example}");
    assert!(example["ended_s"].as_f64().unwrap() >= example["began_s"].as_f64().unwrap(), "{example}");
    if kind != "out_of_order" {
        assert_eq!(example["served_by"], "00000000000000ab", "{example}");
    }
    assert!(ran.out.contains(&format!("    {kind}: ")), "{}", ran.out);
}

#[test]
fn a_mesh_that_keeps_the_guarantee_is_never_accused() {
    for consistency in ["one", "session", "quorum"] {
        let settings = [&MIXTURE[..], &[("READ_CONSISTENCY", consistency)]].concat();
        let ran = run(&FakeMesh::start(), &settings);
        assert_eq!(ran.code, 0, "{consistency}: {}", ran.out);
        assert!(KINDS.iter().all(|kind| ran.integrity(kind) == 0), "{consistency}: {}", ran.out);
        assert!(ran.totals("deletes") > 0 && ran.totals("misses") > 0, "{consistency}: {}", ran.out);
        let sweep = &ran.results["sweep"];
        let gone = sweep["deleted"].as_u64().unwrap() + sweep["expired"].as_u64().unwrap();
        assert_eq!((sweep["keys"].as_u64(), sweep["lost"].as_u64()), (Some(40), Some(0)), "{consistency}: {}", ran.out);
        assert_eq!(gone, 40, "all had expired by then, or been deleted: {}", ran.out);
        assert_eq!(ran.results["setup"]["read_consistency"], consistency);
    }
}

/// Each writes and deletes what the other has written, which no checker can tell from a loss by itself.
#[test]
fn two_runs_on_one_mesh_accuse_nobody() {
    for consistency in ["one", "session", "quorum"] {
        let mesh = FakeMesh::start();
        let other =
            [("RECONCILE", "report"), ("READ_CONSISTENCY", consistency), ("DURATION", "2s"), ("DELETE_RATIO", "20")];
        let settings = [&other[..], &[("KEYS", "40"), ("SET_RATIO", "40")]].concat();
        std::thread::scope(|scope| {
            let runs = [0, 1].map(|_| scope.spawn(|| run(&mesh, &settings)));
            for ran in runs.map(|ran| ran.join().unwrap()) {
                assert_eq!(ran.code, 0, "{consistency}: {}", ran.out);
                assert!(ran.integrity("foreign") > 0, "the other one did not write: {}", ran.out);
            }
        });
    }
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert_found(Fault::Forge, &[], "unwritten", &[]);
}

#[test]
fn a_miss_without_a_reason_is_found() {
    // The final sweep meets it too, and calls it by its name there.
    assert_found(Fault::Forget, &[("KEYS", "400")], "missing", &["lost"]);
}

#[test]
fn a_version_below_an_acknowledged_one_is_found() {
    assert_found(Fault::Rewind, &[], "out_of_order", &["lost"]);
}

#[test]
fn a_version_that_no_write_had_is_found() {
    assert_found(Fault::ChangeVersion, &[("SET_RATIO", "5"), ("KEYS", "1000")], "version_changed", &["resurrected"]);
}

#[test]
fn an_old_value_for_a_quorum_is_found() {
    assert_found(Fault::StaleQuorum, &[("READ_CONSISTENCY", "quorum")], "stale_quorum", &["lost"]);
}

#[test]
fn a_session_that_is_sent_back_is_found() {
    assert_found(Fault::ForgetSession, &[("READ_CONSISTENCY", "session")], "session_broken", &[]);
}

#[test]
fn what_comes_back_after_a_deletion_is_found() {
    assert_found(Fault::Resurrect, &[("DELETE_RATIO", "10")], "resurrected", &["version_changed"]);
}

#[test]
fn what_outlives_its_time_is_found() {
    assert_found(Fault::Outlive, &[("SET_TTL_MS", "100"), ("SET_RATIO", "0")], "outlived", &[]);
}

#[test]
fn without_checks_nothing_is_judged() {
    let ran = misbehaving(Fault::Forge, &[("CHECK", "off"), ("READ_CONSISTENCY", "session")]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("not checked  CHECK=off") && ran.results["sweep"].is_null(), "{}", ran.out);
    assert_eq!(ran.results["setup"]["checked"], false);
}
