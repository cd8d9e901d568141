//! `direct-runner` as a user calls it: three nodes within one process, with a crash and without.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Machine, eventually},
    runner_cli::{Runner, assert_summary_filled, figure},
};

const TARGETS: &str = "Targets: [quic://127.0.0.1:";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_in_one_process_carry_load() {
    let _machine = Machine::alone().await;
    let settings = [("DURATION", "2s"), ("KEYS", "500"), ("CONCURRENCY", "32"), ("SET_RATIO", "30")];
    let settings = [&settings[..], &[("CHECK_EVERY", "200ms"), ("QUIESCENCE", "500ms")]].concat();
    let mut runner = Runner::start_binary("direct-runner", "direct", &[], &settings);
    let status = runner.exit_within(Duration::from_secs(40)).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_summary_filled(&output, TARGETS);
    assert_eq!(figure(&output, "WrongValue="), 0.0);
    assert_eq!(figure(&output, "Errors: "), 0.0);
    assert!(runner.results()["comparisons"].as_u64() > Some(2), "no key was compared between the nodes: {output}");
    assert!(!output.contains("panicked"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_within_the_process_is_seen_and_healed() {
    let _machine = Machine::alone().await;
    // Away for longer than SUSPICION_AFTER_MS and its rounds, so that its death is noticed; then interrupted.
    let settings = [
        ("DURATION", "60s"),
        ("KEYS", "500"),
        ("CONCURRENCY", "32"),
        ("KILL_AFTER", "1s"),
        ("SUSPICION_AFTER_MS", "1000"),
        ("RESTART_AFTER", "4s"),
        ("QUIESCENCE", "500ms"),
    ];
    let mut runner = Runner::start_binary("direct-runner", "direct_kill", &[], &settings);
    let recovered = async || runner.output().contains("[RECOVERED]").then_some(());
    eventually("the crashed node to be ready again", Duration::from_secs(40), recovered).await;
    kill_process(Pid::from_child(&runner.child), Signal::INT).unwrap();
    let status = runner.exit_within(Duration::from_secs(20)).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_summary_filled(&output, TARGETS);
    assert_eq!(figure(&output, "WrongValue="), 0.0);
    let (errors, total) = (figure(&output, "Errors: "), figure(&output, "Total: "));
    assert!(errors < total / 1000.0, "{errors} errors in {total} operations");
    let seen = output.lines().filter(|line| line.contains(" saw it dead +") && line.contains("alive again +"));
    assert_eq!(seen.count(), 2, "both survivors see it die and return:\n{output}");
    assert!(output.lines().any(|line| line.contains("ready again") && line.contains('+')), "{output}");
    assert!(!output.contains("panicked"), "{output}");
}
