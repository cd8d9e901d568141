//! Two run files that are run in turn and compared by pairs.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use fake::{FakeMesh, command, told};

#[test]
fn two_files_are_run_in_turn_and_compared_by_pairs() {
    let mesh = FakeMesh::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (slow, fast, results, logs) = (path("a.toml"), path("b.toml"), path("results"), path("logs"));
    let file = |rate: u32| format!("rate = {rate}\nprefill = false\nfinal_sweep = false\nkeys = 50\n");
    std::fs::write(&slow, file(200)).unwrap();
    std::fs::write(&fast, file(400)).unwrap();
    // What a test sets goes before the files: nothing of the load may be there.
    let mut command = command(&mesh.targets(), &[("RESULTS", &results), ("DURATION", "5s")]);
    for variable in ["KEYS", "RATE", "PREFILL", "FINAL_SWEEP"] {
        command.env_remove(variable);
    }
    command.arg(format!("--log-dir={logs}")).args(["compare", "--abba=1", "--fail-on=throughput > +50%", "--"]);
    let (code, out) = told(&command.args([&slow, &fast]).output().unwrap());
    let order: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("[ABBA] run ")).collect();
    let letters: Vec<_> = order.iter().filter_map(|line| line.split(": ").nth(1)?.split(',').next()).collect();
    assert_eq!(letters, ["A", "B", "B", "A"], "{out}");
    assert!(out.contains("differs  RATE: 200 in A, 400 in B") && !out.contains("RUN_ID"), "{out}");
    let throughput = out.lines().find(|line| line.starts_with("throughput")).expect(&out);
    let change: f64 = throughput.split_whitespace().find_map(|word| word.strip_prefix('+')?.parse().ok()).expect(&out);
    assert!((80.0..120.0).contains(&change), "{out}");
    assert!(out.contains("over 2 pairs") && out.contains("6 are needed, --abba 3"), "{out}");
    assert_eq!(code, 0, "two pairs prove nothing: {out}");
}

#[test]
fn a_file_that_is_not_there_is_named_before_any_run() {
    let mesh = FakeMesh::start();
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&mesh.targets(), &[("RESULTS", folder.path().to_str().unwrap())]);
    let (code, out) = told(&command.args(["compare", "--abba=1", "--", "no.toml", "none.toml"]).output().unwrap());
    assert!(code == 2 && out.contains("no.toml: cannot read it") && !out.contains("[ABBA]"), "{out}");
}
