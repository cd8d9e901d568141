//! What can be known before the first operation is said before it: exit code 2, in one line, with what would mend it.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fake::{FakeMesh, Fault, command, told};

/// It ends at once, with this reason and without a write.
fn assert_refused(mesh: &FakeMesh, mut command: Command, reason: &str) {
    let began = Instant::now();
    let (code, out) = told(&command.output().unwrap());
    assert_eq!((code, out.lines().count()), (2, 1), "{out}");
    let is_told = ["runner: ", "error: "].iter().any(|start| out.starts_with(start));
    assert!(is_told && out.contains(reason), "{out}");
    assert!(began.elapsed() < Duration::from_secs(5), "{out}");
    assert_eq!(mesh.nodes[0].written(), 0, "before the first operation");
}

#[test]
fn targets_of_two_meshes_are_refused() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.is_alone());
    assert_refused(&mesh, command(&mesh.targets(), &[]), "are not of one mesh: the first does not know the second");
}

#[test]
fn a_target_that_is_named_twice_is_refused() {
    let mesh = FakeMesh::start();
    let twice = format!("{0},{0}", mesh.targets().split(',').next().unwrap());
    assert_refused(&mesh, command(&twice, &[]), "are the same node: name each node once");
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let mesh = FakeMesh::start();
    for place in ["/dev/full", "/proc/no/such/results.json", "/proc", "/proc/self/status"] {
        let reason = format!("RESULTS={place}: expected a folder or a .json file that can be written, or off");
        assert_refused(&mesh, command(&mesh.targets(), &[("RESULTS", place)]), &reason);
    }
}

#[test]
fn times_and_lives_beyond_all_limits_are_refused() {
    let (mesh, time) = (FakeMesh::start(), format!("{}s", u64::MAX));
    for name in ["DURATION", "QUIESCENCE", "KILL_AFTER", "REQUEST_TIMEOUT", "FAILOVER_AFTER", "READY_WITHIN"] {
        assert_refused(&mesh, command(&mesh.targets(), &[(name, &time)]), &format!("{name}={time}: expected "));
    }
    let life = [("SET_TTL_MS", "9223372036854775807")];
    assert_refused(&mesh, command(&mesh.targets(), &life), "SET_TTL_MS=9223372036854775807: expected ");
}

#[test]
fn more_operations_in_flight_than_open_files_are_refused() {
    let mesh = FakeMesh::start();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 128; exec \"$0\"", env!("CARGO_BIN_EXE_runner")]);
    limited.env("TARGETS", mesh.targets()).env("CONCURRENCY", "1024").env("RESULTS", "off");
    assert_refused(
        &mesh,
        limited,
        "CONCURRENCY=1024: expected at most 32, because this process may have only 128 files",
    );
}

#[test]
fn a_prefill_in_which_nothing_succeeds_ends_with_the_nodes_reason() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::Unavailable));
    let began = Instant::now();
    let (code, out) = told(&command(&mesh.targets(), &[]).output().unwrap());
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("prefill: no key was written in") && out.contains("unavailable: no quorum"), "{out}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

/// As when all nodes are killed by the kernel for the memory that they take.
#[test]
fn a_prefill_in_which_nothing_succeeds_any_more_ends_too() {
    let mesh = FakeMesh::start();
    let mut runner = command(&mesh.targets(), &[("KEYS", "10000000")]);
    let runner = runner.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mesh.nodes[0].written() == 0 {
        assert!(Instant::now() < deadline, "the prefill did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::Unavailable));
    let (code, out) = told(&runner.wait_with_output().unwrap());
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("prefill: nothing after ") && out.contains("unavailable: no quorum"), "{out}");
}
