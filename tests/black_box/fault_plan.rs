//! FAULTS of the runner against real nodes: a schedule of short faults under load breaks no promise, and each is seen at the
//! nodes; a fault that is none makes the run invalid.

use std::time::Duration;

use serde_json::Value;

use crate::{harness::Machine, runner_cli::Runner};

/// Little enough for a slow machine, and more than the least that a fault needs.
const LOAD: [(&str, &str); 3] = [("KEYS", "300"), ("CONCURRENCY", "16"), ("SET_RATIO", "20")];

async fn run(test: &str, settings: &[(&str, &str)]) -> (Option<i32>, String, Value) {
    let _machine = Machine::alone().await;
    let settings = [&LOAD[..], settings].concat();
    let mut runner = Runner::start_binary("runner", test, &["--local", "3"], &settings);
    let status = runner.exit_within(Duration::from_secs(180)).await;
    (status.code(), runner.output(), runner.results())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_of_faults_breaks_no_promise_and_each_is_seen() {
    let faults = [
        ("at=1s", "partition node2 for=2s", "packets_dropped"),
        ("at=5s", "partition node1->node3 for=1s", "packets_dropped"),
        ("at=7s", "loss node1<->node2 40% for=1s", "packets_dropped"),
        ("at=9s", "slow node3 20ms for=1s", "packets_delayed"),
        ("at=11s", "pause node1 for=1s", "silent_s"),
        ("at=13s", "clock node2 +400ms for=2s", "clock_off_ms"),
    ];
    let schedule: Vec<_> = faults.iter().map(|(at, fault, _)| format!("{at} {fault}")).collect();
    // The end is far enough from the last fault for a machine that is late; what faults cost is measured elsewhere.
    let settings = [("FAULTS", &*schedule.join("; ")), ("DURATION", "20s"), ("ERRORS_MAX_PERCENT", "100")];
    let (code, output, results) = run("fault_plan", &settings).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(results["integrity"]["examples"].as_array().is_some_and(Vec::is_empty), "{output}");
    assert_eq!((&results["sweep"]["lost"], &results["sweep"]["unread"]), (&0.into(), &0.into()), "{output}");
    assert!(results["not_whole"].is_null(), "{output}");
    let seen = results["faults"].as_array().expect("a list of faults");
    assert_eq!(seen.len(), faults.len());
    for (seen, (_, fault, effect)) in seen.iter().zip(faults) {
        assert_eq!(seen["fault"], fault);
        assert!(seen["effect"][effect].as_f64().is_some_and(|amount| amount > 0.0), "{seen}");
        assert!(seen["recovered_at_s"].is_number(), "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_without_effect_makes_the_run_invalid() {
    // One packet in a million millions.
    let fault = "loss node1<->node2 0.0000000001% for=300ms";
    let settings = [("FAULTS", &*format!("at=1s {fault}")), ("DURATION", "5s"), ("FINAL_SWEEP", "false")];
    let (code, output, results) = run("fault_invalid", &settings).await;
    assert_eq!(code, Some(2), "{output}");
    let reason = format!("{fault} had no effect: the nodes count no packets dropped");
    assert!(output.contains(&format!("INVALID {reason}")), "{output}");
    assert_eq!(results["verdict"]["invalid"][0], reason);
}
