//! `runner --local`: nodes of its own come, come back, and go, whatever happens to the runner. The bare responder stands in
//! for the node, so its values are wrong and the runs fail; what matters here is the processes.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A runner with three stand-in nodes; each start of a node adds its process id to `pids`.
fn start(folder: &Path, settings: &[(&str, &str)]) -> Child {
    let node = folder.join("node");
    let script = format!(
        "#!/bin/sh\necho $$ >> {}/pids\nexec {} null-server --port \"$PORT\"\n",
        folder.display(),
        env!("CARGO_BIN_EXE_runner")
    );
    fs::write(&node, script).unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("--local=3");
    command.env("NODE_BIN", node).env("LOG_DIR", folder.join("logs"));
    let defaults =
        [("KEYS", "10"), ("CONCURRENCY", "4"), ("RESULTS", "off"), ("QUIESCENCE", "0s"), ("CHECK_EVERY", "off")];
    command.envs(defaults).envs(settings.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The nodes' processes, once at least `count` were started.
fn pids(folder: &Path, count: usize) -> Vec<Pid> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let text = fs::read_to_string(folder.join("pids")).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
        }
        assert!(Instant::now() < deadline, "{count} nodes should have been started: {text:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_gone(pids: &[Pid]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let runs = |pid: &&Pid| {
        let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        // A zombie that nobody has collected yet runs no more.
        !status.is_empty() && !status.contains(") Z ")
    };
    while let Some(pid) = pids.iter().find(runs) {
        assert!(Instant::now() < deadline, "process {pid:?} was left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nodes_are_gone_after_a_run_and_after_a_kill_of_the_runner() {
    let folder = tempfile::tempdir().unwrap();
    let output = start(folder.path(), &[("DURATION", "300ms")]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("=== Mesh Bench Summary ==="), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_gone(&pids(folder.path(), 3));
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = tempfile::tempdir().unwrap();
        let mut runner = start(folder.path(), &[("DURATION", "60s")]);
        let nodes = pids(folder.path(), 3);
        kill_process(Pid::from_child(&runner), signal).unwrap();
        runner.wait().unwrap();
        assert_gone(&nodes);
    }
}

#[test]
fn a_killed_node_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = start(folder.path(), &[("DURATION", "60s"), ("RESTART_AFTER", "100ms")]);
    let nodes = pids(folder.path(), 3);
    kill_process(nodes[1], Signal::KILL).unwrap();
    let nodes = pids(folder.path(), 4);
    kill_process(Pid::from_child(&runner), Signal::INT).unwrap();
    runner.wait().unwrap();
    assert_gone(&nodes);
}

#[test]
fn a_node_that_refuses_its_settings_ends_the_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node");
    fs::write(&node, "#!/bin/sh\necho 'node: SOME_SETTING=9: expected another' >&2\nexit 2\n").unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.env("NODE_BIN", node).env("LOG_DIR", folder.path().join("logs")).arg("--local=3");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("SOME_SETTING=9: expected another"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(8), "it took {:?} to give up", began.elapsed());
}

#[test]
fn a_node_that_never_starts_is_told_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.env("NODE_BIN", folder.path().join("absent")).env("LOG_DIR", folder.path()).arg("--local=3");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("NODE_BIN=") && text.contains("expected the node binary"), "{text}");
}
