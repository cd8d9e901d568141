//! Crash after crash in one run, under load: nothing is lost, nothing wrong is read, nothing deleted comes back.

use std::time::Duration;

use serde_json::Value;

use crate::{harness::Machine, runner_cli::Runner};

const CRASHES: usize = 20;

/// A request may fail if it was sent so long before or after a crash, and no other.
const SECOND_OF_A_CRASH_S: f64 = 1.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_crashes_in_one_run_lose_nothing() {
    let _machine = Machine::alone().await;
    let settings = [
        // The run ends after the last crash; this is only for a machine that is many times slower.
        ("DURATION", "900s"),
        // Little enough that three nodes without optimisation and their client keep up on a slow machine.
        ("RATE", "500"),
        ("CONCURRENCY", "32"),
        ("KEYS", "1000"),
        ("SET_RATIO", "20"),
        ("DELETE_RATIO", "5"),
        ("KILL_MODE", "random"),
        ("KILL_AFTER", "2s"),
        ("KILL_COUNT", &CRASHES.to_string()),
        // Less than a return takes: the next one dies as soon as the last one is ready.
        ("KILL_EVERY", "1s"),
        // Long enough for most deaths to be noticed before the node is back.
        ("RESTART_AFTER", "3s"),
        // A machine that stands still for a moment is neither a node with too much to do nor one that has died.
        ("QUEUE_DELAY_MAX_MS", "5000"),
        ("FAILOVER_AFTER", "2s"),
    ];
    let mut runner = Runner::start_binary("runner", "crashes", &["--local", "3"], &settings);
    let status = runner.exit_within(Duration::from_secs(1000)).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    let results = runner.results();
    let kills = results["faults"].as_array().expect("a list of faults");
    assert_eq!(kills.len(), CRASHES, "{output}");
    let mut ready_at_s = 0.0;
    for kill in kills {
        let time = |field: &str| kill[field].as_f64().unwrap_or_else(|| panic!("no {field} in {kill}"));
        assert!(kill["failure"].is_null(), "{kill}");
        assert!(time("begun_at_s") >= ready_at_s, "killed while another was away: {kill}");
        assert!(time("silent_at_s") >= time("begun_at_s") && time("ended_at_s") > time("silent_at_s"), "{kill}");
        ready_at_s = time("ready_at_s");
    }
    let observed = results["observed"].as_array().expect("a list of events");
    assert!(observed.iter().all(|event| event["kind"] != "restarted"), "the run ordered all of it: {observed:?}");
    let integrity = &results["integrity"];
    assert!(integrity["examples"].as_array().is_some_and(Vec::is_empty), "{output}");
    for kind in ["wrong_object", "corrupt", "unwritten", "missing", "resurrected"] {
        assert_eq!(integrity[kind], 0, "{kind}:\n{output}");
    }
    assert_eq!(results["sweep"]["lost"], 0, "{output}");
    let count = |field: &str| results["totals"][field].as_u64().expect("a count");
    let (total, errors) = (count("total"), count("errors") + count("indeterminate"));
    assert!(errors * 1000 <= total, "{output}");
    assert!(count("deletes") > 0, "{output}");
    let failed = results["failed"].as_array().expect("the first failed requests");
    assert_eq!(failed.len() as u64, errors, "all are listed: {output}");
    let from_crash_s = |failed: &Value| failed["after_fault_s"].as_f64().expect("a distance").abs();
    let elsewhere: Vec<_> = failed.iter().filter(|failed| from_crash_s(failed) > SECOND_OF_A_CRASH_S).collect();
    // A fifth of what is allowed near a crash, for a machine that stands still when it likes.
    assert!(elsewhere.len() as u64 * 5000 <= total, "{elsewhere:#?}\n{output}");
    println!(
        "{CRASHES} crashes in {:.1} s, {errors} of {total} operations failed, at most {:.3} s from a crash",
        results["load_s"].as_f64().unwrap_or_default(),
        failed.iter().map(from_crash_s).fold(0.0, f64::max)
    );
}
