//! One load by several runners, as a user of one machine meets it: one report, whose counts are those of all.

use std::{path::Path, process::Command, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{Machine, binary, eventually},
    runner_cli::Runner,
};

const SETTINGS: [(&str, &str); 6] = [
    ("LOCAL", "3"),
    ("KEYS", "999"),
    ("RATE", "600"),
    ("CONCURRENCY", "30"),
    ("QUIESCENCE", "500ms"),
    ("RUN_ID", "together"),
];

fn start(test: &str, logs: &Path, settings: &[(&str, &str)]) -> Runner {
    let logs = [("LOG_DIR", logs.to_str().expect("UTF-8"))];
    let all: Vec<_> = SETTINGS.into_iter().chain(logs).chain(settings.iter().copied()).collect();
    Runner::start_binary("runner", test, &["local-shards", "3"], &all)
}

fn merge(places: &[impl AsRef<Path>]) -> (Option<i32>, String) {
    let places = places.iter().map(AsRef::as_ref);
    let merged = Command::new(binary("runner")).env("RESULTS", "off").arg("merge").args(places).output();
    let merged = merged.expect("runner starts");
    (merged.status.code(), String::from_utf8_lossy(&[merged.stdout, merged.stderr].concat()).into_owned())
}

/// How many operations of each node's rows there are, of one part of the run.
fn count(result: &Value, table: &str, label: &str) -> u64 {
    let rows = result["rows"].as_array().expect("rows").iter();
    let is_wanted = |row: &&Value| row["table"] == table && row["label"].as_str().is_some_and(|l| l.ends_with(label));
    rows.filter(is_wanted).filter_map(|row| row["count"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_shards_make_one_load_and_one_report() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().expect("a temporary folder");
    let faults = ("FAULTS", "at=2s pause node2 for=1s");
    // A paused node's requests are lost, which is not what this is about.
    let settings = [("DURATION", "5s"), faults, ("ERRORS_MAX_PERCENT", "100")];
    let mut runner = start("shards", folder.path(), &settings);
    let status = runner.exit_within(Duration::from_secs(90)).await;
    assert_eq!(status.code(), Some(0), "{}", runner.output());
    let whole = runner.results();
    let parts: Vec<_> = (0..3).map(|index| folder.path().join(format!("together/together-shard-{index}"))).collect();
    let results = parts.iter().map(|part| {
        let text = std::fs::read(part.join("result.json")).expect("a result of each shard");
        serde_json::from_slice::<Value>(&text).expect("JSON")
    });
    let results: Vec<_> = results.collect();
    let sum = |of: fn(&Value) -> u64| results.iter().map(of).sum::<u64>();
    assert_eq!(whole["run_id"], "together");
    assert_eq!((&whole["setup"]["keys"], &whole["setup"]["rate"]), (&999.into(), &600.0.into()));
    assert_eq!((&whole["prefilled"], &whole["sweep"]["keys"]), (&999.into(), &999.into()));
    let total = |result: &Value| result["totals"]["total"].as_u64().unwrap_or_default();
    assert_eq!(total(&whole), sum(total));
    assert!((2900..=3000).contains(&total(&whole)), "{} of 3000 that were due", total(&whole));
    // Only the first has ordered the fault, and all have seen it.
    for result in results.iter().chain([&whole]) {
        assert!(result["faults"][0]["effect"]["silent_s"].as_f64() > Some(0.5), "{}", result["faults"]);
        assert!(count(result, "phase", "in fault") > 50, "{}", result["rows"]);
    }
    assert_eq!(whole["faults"].as_array().map(Vec::len), Some(1));
    // Each alone counts a third of what the nodes do; all of them count the same.
    let both = &whole["reconciliation"];
    assert_eq!((&both["is_binding"], &both["differences"]), (&true.into(), &Value::Array(Vec::new())), "{both}");
    assert!(results.iter().all(|result| result["reconciliation"]["is_binding"] == false));
    let (code, output) = merge(&parts[..2]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("INVALID these shards are missing: 2/3"), "{output}");
    let (code, output) = merge(&[&parts[0], &parts[0]]);
    assert!(code == Some(2) && output.contains("shard 0/3 is given twice"), "{output}");
    let (code, output) = merge(&["/no/such"]);
    assert!(code == Some(2) && output.contains("/no/such"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_are_told_to_end_are_merged_as_far_as_they_came() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().expect("a temporary folder");
    let mut runner = start("shards_end", folder.path(), &[("DURATION", "60s")]);
    let log = folder.path().join("together/shard-2.log");
    let began = async || std::fs::read_to_string(&log).ok().filter(|text| text.contains("[PROGRESS]"));
    eventually("the load", Duration::from_secs(60), began).await;
    kill_process(Pid::from_child(&runner.child), Signal::TERM).expect("it lives");
    let status = runner.exit_within(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(0), "{}", runner.output());
    let result = runner.results();
    assert_eq!((&result["interrupted"], &result["verdict"]["broken"]), (&true.into(), &Value::Array(Vec::new())));
    assert!(result["totals"]["total"].as_u64() > Some(1000), "{}", result["totals"]);
}
