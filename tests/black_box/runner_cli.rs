//! `runner` as a user calls it: what it prints, what it exits with, and what it leaves behind.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Descendants, Loopback, Machine, binary, eventually, exit_within};

/// A `runner` under observation.
pub struct Runner {
    pub child: Child,
    folder: TempDir,
    descendants: Descendants,
}

impl Runner {
    fn start(test: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_binary("runner", test, arguments, settings)
    }

    /// `runner`, or its sibling that has the same settings.
    pub fn start_binary(name: &str, test: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let descendants = Descendants::new(test);
        let output = File::create(folder.path().join("output")).expect("a file");
        let errors = output.try_clone().expect("a second handle");
        let child = Command::new(binary(name))
            .args(arguments)
            .env_clear()
            // The supervisor looks for a tool of the system there.
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RESULTS", folder.path().join("results.json"))
            .env(Descendants::VARIABLE, descendants.mark())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("runner starts");
        Self { child, folder, descendants }
    }

    pub async fn exit_within(&mut self, within: Duration) -> ExitStatus {
        exit_within(&mut self.child, within, "the runner to end").await
    }

    /// All it has written so far, to either stream.
    pub fn output(&self) -> String {
        read(&self.folder.path().join("output"))
    }

    pub fn results(&self) -> Value {
        serde_json::from_str(&read(&self.folder.path().join("results.json"))).expect("RESULTS is JSON")
    }

    async fn assert_nobody_left(&self) {
        self.descendants.ended(Duration::from_secs(3)).await;
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Only after a failed assertion is anybody left here.
        self.descendants.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- runner ---\n{}", self.output());
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The lines that existing scripts look for, by how they start.
const SUMMARY: [&str; 5] =
    ["=== Mesh Bench Summary ===", "Total: ", "Hits: local=", "GET p50=", "Local cache counters ("];

const TARGETS: &str = "Targets: [http://";

/// The number that follows `label` in the summary.
pub fn figure(output: &str, label: &str) -> f64 {
    let start = output.find("=== Mesh Bench Summary ===").expect("a summary");
    let summary = &output[start..];
    let at = summary.find(label).unwrap_or_else(|| panic!("no `{label}` in:\n{summary}")) + label.len();
    let digits: String = summary[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after `{label}` in:\n{summary}"))
}

pub fn assert_summary_filled(output: &str, targets: &str) {
    for start in SUMMARY.into_iter().chain([targets]) {
        assert!(output.lines().any(|line| line.starts_with(start)), "no line `{start}…` in:\n{output}");
    }
    for label in ["Total: ", "GETs: ", "SETs: ", "Hits: local=", "HitRatio=", "local_hit_ratio=", "size=", "capacity="]
    {
        assert!(figure(output, label) > 0.0, "`{label}` is 0 in:\n{output}");
    }
    for op in ["GET ", "| SET "] {
        let mut last = 0.0;
        for quantile in ["p50=", "p95=", "p99=", "p99.9="] {
            let line = output.lines().find(|line| line.starts_with("GET p50=")).expect("the line of percentiles");
            let part = &line[line.find(op).expect("both operations")..];
            let at = part.find(quantile).expect("all four percentiles") + quantile.len();
            let value: String = part[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let value: f64 = value.parse().expect("milliseconds");
            assert!(value > 0.0 && value >= last, "{op}{quantile}{value} after {last}");
            last = value;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_fills_every_line_and_leaves_nobody() {
    let _machine = Machine::alone().await;
    let settings = [("DURATION", "3s"), ("KEYS", "500"), ("CONCURRENCY", "32")];
    let mut runner = Runner::start("short_run", &["--local", "3"], &settings);
    // The mark is only worth something if it is seen on the nodes while they live.
    let seen = async || (runner.descendants.alive().len() >= 4).then_some(());
    eventually("the runner and three nodes", Duration::from_secs(20), seen).await;
    let status = runner.exit_within(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0), "{}", runner.output());
    assert_summary_filled(&runner.output(), TARGETS);
    assert!(runner.output().contains("WrongValue=0"));
    // Nobody else asks these nodes, so both sides count the same, but for differences that have names.
    let both = &runner.results()["reconciliation"];
    assert!(both["differences"].as_array().is_some_and(Vec::is_empty), "{both}");
    assert!(both["lossy_nodes"].as_array().is_some_and(Vec::is_empty), "{both}");
    for op in both["ops"].as_array().expect("operations") {
        let counted: u64 =
            op["outcomes"].as_array().expect("outcomes").iter().filter_map(|o| o["nodes"].as_u64()).sum();
        assert!(counted > 100 && op["unexplained"] == 0, "{op}");
    }
    assert!(runner.output().contains("── Client and nodes "), "{}", runner.output());
    runner.assert_nobody_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_breaks_no_promise() {
    let _machine = Machine::alone().await;
    let settings = [
        ("DURATION", "15s"),
        ("KEYS", "2000"),
        ("CONCURRENCY", "32"),
        ("KILL_MODE", "random"),
        ("KILL_AFTER", "5s"),
        // Long enough for its death to be noticed, so that the run shows both.
        ("RESTART_AFTER", "4s"),
    ];
    let mut runner = Runner::start("kill", &["--local", "3"], &settings);
    let status = runner.exit_within(Duration::from_secs(90)).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_summary_filled(&output, TARGETS);
    // What the killed node had counted is gone. What it has counted since is not, nor is what the others count.
    let both = &runner.results()["reconciliation"];
    assert!(both["differences"].as_array().is_some_and(Vec::is_empty), "{both}");
    let restarted = &both["lossy_nodes"].as_array().filter(|nodes| nodes.len() == 1).expect("one node")[0];
    assert!(restarted["counts_since_s"].as_f64().is_some_and(|at_s| at_s > 5.0), "{restarted}");
    assert!(restarted["unknowable"].as_u64() > Some(0) && restarted["unexplained"] == 0, "{restarted}");
    assert_eq!(figure(&output, "WrongValue="), 0.0);
    let (errors, total) = (figure(&output, "Errors: "), figure(&output, "Total: "));
    assert!(errors < total / 1000.0, "{errors} errors in {total} operations");
    let seen: Vec<&str> = output.lines().filter(|line| line.contains(" saw it dead +")).collect();
    assert_eq!(seen.len(), 2, "both survivors see it dead:\n{output}");
    for line in seen {
        let after = line.split("dead +").nth(1).and_then(|rest| rest.split(' ').next()).expect("seconds");
        let after: f64 = after.parse().expect("seconds");
        // SUSPICION_AFTER_MS, two rounds of GOSSIP_INTERVAL_MS, and how rarely the runner looks.
        assert!(after <= 3.5, "{line}");
        assert!(line.contains("alive again +"), "it never rejoined: {line}");
    }
    assert!(
        output.lines().any(|line| line.contains("ready again") && line.contains('+')),
        "never ready again:\n{output}"
    );
    runner.assert_nobody_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_expiry_and_sessions_survive_a_kill() {
    let _machine = Machine::alone().await;
    let settings = [
        ("DURATION", "6s"),
        ("KEYS", "300"),
        ("CONCURRENCY", "16"),
        ("SET_RATIO", "30"),
        ("DELETE_RATIO", "10"),
        ("SET_TTL_MS", "1500"),
        ("READ_CONSISTENCY", "session"),
        ("KILL_MODE", "random"),
        ("KILL_AFTER", "2s"),
        ("RESTART_AFTER", "1s"),
        // What the kill costs is measured elsewhere.
        ("ERRORS_MAX_PERCENT", "100"),
    ];
    let mut runner = Runner::start("mixture", &["--local", "3"], &settings);
    let status = runner.exit_within(Duration::from_secs(90)).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    let results = runner.results();
    assert!(results["integrity"]["examples"].as_array().is_some_and(Vec::is_empty), "{output}");
    assert!(results["totals"]["deletes"].as_u64().is_some_and(|deletes| deletes > 0), "{output}");
    assert_eq!(results["sweep"]["lost"], 0, "{output}");
    runner.assert_nobody_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_it_still_sums_up() {
    let _machine = Machine::alone().await;
    for (test, signal) in [("interrupted", Signal::INT), ("terminated", Signal::TERM)] {
        let settings = [("DURATION", "60s"), ("KEYS", "500"), ("CONCURRENCY", "32")];
        let mut runner = Runner::start(test, &["--local", "3"], &settings);
        let under_way = async || runner.output().contains("[PROGRESS]").then_some(());
        eventually("a progress line", Duration::from_secs(40), under_way).await;
        kill_process(Pid::from_child(&runner.child), signal).unwrap();
        let status = runner.exit_within(Duration::from_secs(20)).await;
        assert!(status.code().is_some(), "the signal killed it outright");
        assert_summary_filled(&runner.output(), TARGETS);
        runner.assert_nobody_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_it_ends_within_the_grace_of_a_container() {
    let _machine = Machine::alone().await;
    // Far more keys than can be swept in that time, and a target that never comes.
    let keys = [("KEYS", "10000000"), ("DURATION", "60s"), ("CONCURRENCY", "32")];
    let target = [("TARGETS", "http://127.0.0.1:9"), ("READY_WITHIN", "60s")];
    let cases: [(&str, &[&str], &[_], _); 2] =
        [("many_keys", &["--local", "3"], &keys, "[PREFILL]"), ("no_target", &[], &target, "")];
    for (test, arguments, settings, seen) in cases {
        let mut runner = Runner::start(test, arguments, settings);
        let under_way = async || runner.output().contains(seen).then_some(());
        eventually("a line of progress", Duration::from_secs(40), under_way).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        kill_process(Pid::from_child(&runner.child), Signal::TERM).unwrap();
        let status = runner.exit_within(Duration::from_secs(30)).await;
        let output = runner.output();
        assert!(status.code().is_some(), "the signal killed it outright:\n{output}");
        let last = if seen.is_empty() { "interrupted before the nodes were ready" } else { "\nVerdict: " };
        assert!(output.contains(last), "{output}");
        runner.assert_nobody_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_outright_it_leaves_nobody_either() {
    let _machine = Machine::alone().await;
    let mut runner = Runner::start("killed", &["--local", "3"], &[("DURATION", "60s"), ("KEYS", "500")]);
    let seen = async || (runner.descendants.alive().len() >= 4).then_some(());
    eventually("the runner and three nodes", Duration::from_secs(20), seen).await;
    runner.child.kill().unwrap();
    runner.child.wait().unwrap();
    runner.assert_nobody_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_targets_are_said_so_at_once() {
    let _machine = Machine::alone().await;
    let target = format!("http://{}", Loopback::fresh().free_port());
    let mut runner = Runner::start("unreachable", &[], &[("TARGETS", &target), ("DURATION", "5s")]);
    let status = runner.exit_within(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(2), "{}", runner.output());
    assert!(runner.output().contains(&target), "the message does not name {target}:\n{}", runner.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_settings_stop_it_at_the_start() {
    let _machine = Machine::alone().await;
    for (variable, value) in [
        ("DURATION", "0s"),
        ("DURATION", "soon"),
        ("KEYS", "0"),
        ("KEYS", "-1"),
        ("SET_RATIO", "101"),
        ("SET_RATIO", "ten"),
        ("CONCURRENCY", "0"),
        ("RECONCILE", "perhaps"),
        ("KILL_MODE", "sometimes"),
        ("KILL_AFTER", "later"),
        ("TARGETS", "not a url"),
    ] {
        let mut runner = Runner::start("bad_settings", &[], &[(variable, value)]);
        let status = runner.exit_within(Duration::from_secs(5)).await;
        let output = runner.output();
        assert!(status.code().is_some_and(|code| code != 0), "{variable}={value} was accepted:\n{output}");
        let flag = variable.to_lowercase().replace('_', "-");
        assert!(output.contains(variable) || output.contains(&flag), "{variable}={value} is not named:\n{output}");
        assert!(output.contains(value.trim_end_matches('s')), "{variable}={value} is not shown:\n{output}");
    }
    let mut runner = Runner::start("bad_flag", &["--no-such-flag"], &[]);
    let status = runner.exit_within(Duration::from_secs(5)).await;
    assert!(status.code().is_some_and(|code| code != 0));
}
