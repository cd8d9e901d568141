//! The runner as a Unix tool: its output is best effort, signals end it with a summary, DURATION bounds it.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::{
    fs::File,
    io::Read,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use fake::{FakeMesh, Fault, command, run, told};
use rustix::process::{Pid, Signal, kill_process};

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn wait_for_prefill(mesh: &FakeMesh) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while mesh.nodes[0].written() < 100 {
        assert!(Instant::now() < deadline, "the prefill did not end");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn output_that_nobody_reads_changes_neither_results_nor_exit_code() {
    let mesh = FakeMesh::start();
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.json");
    let settings = [("STATS_EVERY", "100ms"), ("RESULTS", results.to_str().unwrap())];
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for closed in [false, true] {
        let mut command = command(&mesh.targets(), &settings);
        if !closed {
            command.stdout(full()).stderr(full());
        }
        let mut running = command.spawn().unwrap();
        // As `head -1` does.
        let mut output = running.stdout.take();
        let first = output.as_mut().map(|output| output.read(&mut [0; 64]).unwrap());
        drop((output, running.stderr.take()));
        assert_eq!(first.is_some(), closed);
        assert_eq!(running.wait().unwrap().code(), Some(0), "closed: {closed}");
        let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
        assert!(found["totals"]["total"].as_u64() > Some(100), "{found}");
        std::fs::remove_file(&results).unwrap();
    }
}

fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(ignored.trim(), 16).is_ok_and(|signals| signals & 1 == 1)
}

#[test]
fn a_closed_terminal_ends_the_run_with_a_summary() {
    // Where the tests themselves run under nohup, so do their children, and SIGHUP stays ignored.
    let hangs_up = !ignores_hangups();
    let signals =
        [Signal::HUP, Signal::TERM, Signal::INT].into_iter().filter(|signal| *signal != Signal::HUP || hangs_up);
    for signal in signals {
        let mesh = FakeMesh::start();
        let running = command(&mesh.targets(), &[("DURATION", "60s")]).spawn().unwrap();
        wait_for_prefill(&mesh);
        sleep(Duration::from_millis(500));
        send(&running, signal);
        let (code, out) = told(&running.wait_with_output().unwrap());
        assert_eq!(code, 0, "{signal:?}: {out}");
        assert!(out.contains("ended by a signal") && out.trim_end().ends_with("Verdict: PASS (exit code 0)"), "{out}");
    }
}

#[test]
fn a_second_signal_ends_the_waiting_whatever_hangs() {
    let mesh = FakeMesh::start();
    let running = command(&mesh.targets(), &[("DURATION", "60s"), ("REQUEST_TIMEOUT", "10m")]).spawn().unwrap();
    wait_for_prefill(&mesh);
    sleep(Duration::from_millis(500));
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::Hang));
    sleep(Duration::from_millis(500));
    let began = Instant::now();
    send(&running, Signal::INT);
    sleep(Duration::from_millis(500));
    send(&running, Signal::INT);
    let (_, out) = told(&running.wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(5), "{out}");
    assert!(out.contains("=== Mesh Bench Summary ===") && out.contains("Verdict: "), "{out}");
}

#[test]
fn duration_bounds_a_run_whose_rate_cannot_be_met() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::Busy(Duration::from_millis(20))));
    let settings = [("KEYS", "20"), ("RATE", "2000"), ("DURATION", "2s"), ("FINAL_SWEEP", "false")];
    let ran = run(&mesh, &settings);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.results["load_s"].as_f64().unwrap() < 3.0, "{}", ran.out);
    assert!(ran.out.contains("INVALID the rate was too high: "), "{}", ran.out);
    assert!(ran.results["lag"]["offered"].as_u64() > Some(3500), "{}", ran.out);
}

/// The most memory that a process has had resident, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

#[test]
fn the_highest_rate_is_bounded_in_time_and_memory() {
    for is_interrupted in [false, true] {
        let mesh = FakeMesh::start();
        let duration = if is_interrupted { "60s" } else { "2s" };
        let settings = [("KEYS", "20"), ("RATE", "10000000"), ("DURATION", duration), ("FINAL_SWEEP", "false")];
        let running = command(&mesh.targets(), &settings).spawn().unwrap();
        let began = Instant::now();
        sleep(Duration::from_millis(1800));
        let peak_kib = peak_kib(running.id());
        if is_interrupted {
            send(&running, Signal::INT);
        }
        let (code, out) = told(&running.wait_with_output().unwrap());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}: {out}", began.elapsed());
        assert!((1..200 << 10).contains(&peak_kib), "{peak_kib} KiB: {out}");
        assert_eq!(code, 2, "{out}");
        assert!(out.contains("INVALID the rate was too high: ") && !out.contains("Verdict: PASS"), "{out}");
    }
}

#[test]
fn a_runner_that_was_stopped_accuses_nobody() {
    let mesh = FakeMesh::start();
    let settings = [("DURATION", "4s"), ("REQUEST_TIMEOUT", "1s"), ("FINAL_SWEEP", "false")];
    let running = command(&mesh.targets(), &settings).spawn().unwrap();
    wait_for_prefill(&mesh);
    sleep(Duration::from_millis(500));
    send(&running, Signal::STOP);
    sleep(Duration::from_millis(2500));
    send(&running, Signal::CONT);
    let (code, out) = told(&running.wait_with_output().unwrap());
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("INVALID the runner itself stood still"), "{out}");
    assert!(!out.contains("BROKEN ") && !out.contains("MISSED "), "{out}");
}

#[test]
fn objectives_on_latency_cannot_be_judged_by_a_suspect_measurement() {
    for (objectives, expected) in [("", 0), ("errors<1%", 0), ("get.p99<1m", 2)] {
        let mesh = FakeMesh::start();
        let settings = [("DURATION", "2s"), ("FINAL_SWEEP", "false"), ("OBJECTIVES", objectives)];
        let running = command(&mesh.targets(), &settings).spawn().unwrap();
        wait_for_prefill(&mesh);
        sleep(Duration::from_millis(500));
        send(&running, Signal::STOP);
        sleep(Duration::from_millis(600));
        send(&running, Signal::CONT);
        let (code, out) = told(&running.wait_with_output().unwrap());
        assert_eq!(code, expected, "{objectives}: {out}");
        assert!(out.contains("MEASUREMENT  SUSPECT   the runner itself stood still"), "{out}");
    }
}

#[test]
fn colours_are_for_terminals() {
    let mesh = FakeMesh::start();
    let has_colours = |settings: &[(&str, &str)]| {
        let (code, out) = told(&command(&mesh.targets(), settings).output().unwrap());
        assert_eq!(code, 0, "{out}");
        out.contains('\u{1b}')
    };
    assert!(!has_colours(&[]));
    assert!(has_colours(&[("CLICOLOR_FORCE", "1")]));
    assert!(!has_colours(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "0")]));
}
