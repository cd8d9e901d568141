//! Runs that are written down: the examples of this repository, and a run that is repeated from its result.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    harness::{Machine, binary},
    runner_cli::Runner,
};

/// What makes an example short.
const SHORT: [&str; 3] = ["--duration=4s", "--keys=300", "--quiescence=300ms"];

/// Runs an example for 4 s, with these flags, and gives its result.
async fn run(example: &str, flags: &[&str], logs: &Path) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let arguments: Vec<_> =
        ["run", file.to_str().expect("UTF-8")].into_iter().chain(SHORT).chain(flags.iter().copied()).collect();
    let mut runner =
        Runner::start_binary("runner", "run_file", &arguments, &[("LOG_DIR", logs.to_str().expect("UTF-8"))]);
    let status = runner.exit_within(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0), "{example}: {}", runner.output());
    runner.results()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_example_runs_and_flags_win_over_it() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().expect("a temporary folder");
    let steady = run("steady.toml", &["--rate=500"], folder.path()).await;
    assert_eq!((&steady["setup"]["rate"], &steady["setup"]["duration_s"]), (&500.0.into(), &4.0.into()));
    let crash = run("crash.toml", &["--rate=500", "--kill-after=1s", "--restart-after=1s"], folder.path()).await;
    assert_eq!(crash["faults"][0]["kind"], "crash");
    let partition = ["--rate=500", "--faults=at=1s partition node2 for=1s"];
    let partition = run("partition.toml", &partition, folder.path()).await;
    assert_eq!(partition["setup"]["read_consistency"], "session");
    let hot = run("hot.toml", &["--concurrency=8"], folder.path()).await;
    assert_eq!(hot["setup"]["distribution"], "zipf:0.99");
    // A run is repeated by its result: the same settings, and the seed that was drawn.
    let id = hot["run_id"].as_str().expect("an id");
    let stored = folder.path().join(id);
    std::fs::create_dir(&stored).expect("a folder");
    std::fs::write(stored.join("result.json"), serde_json::to_vec(&hot).expect("JSON")).expect("a file");
    let results = format!("--results={}", folder.path().display());
    let arguments = [&results, "rerun", id, "--duration=1s"];
    let arguments = arguments.map(AsRef::as_ref);
    let mut runner = Runner::start_binary("runner", "rerun", &arguments, &[("DISTRIBUTION", "uniform")]);
    assert_eq!(runner.exit_within(Duration::from_secs(60)).await.code(), Some(0), "{}", runner.output());
    let again =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.path().join("result.json"));
    let again =
        again.filter(|path| path.is_file() && *path != stored.join("result.json")).last().expect("a second run");
    let again: Value = serde_json::from_slice(&std::fs::read(again).expect("a result")).expect("JSON");
    for field in ["seed", "keys", "distribution", "value_bytes", "set_ratio", "concurrency"] {
        assert_eq!(again["setup"][field], hot["setup"][field], "{field}");
    }
    assert_eq!(again["setup"]["duration_s"], 1.0);
}

#[test]
fn a_run_file_s_mistakes_are_told_before_anything_runs() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("bad.toml");
    let run = |arguments: &[&str]| {
        let ran = Command::new(binary("runner")).env_clear().args(arguments).output().expect("runner starts");
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let name = file.to_str().expect("UTF-8");
    for (text, expected) in [
        ("duraton = \"5s\"\n[load]\nkeys = 0", "did you mean duration?"),
        ("keys = 0", "KEYS=0: expected a whole number"),
        ("keys = [", "expected TOML"),
    ] {
        std::fs::write(&file, text).expect("a file");
        let (code, message) = run(&["run", name]);
        assert!(code == Some(2) && message.contains(expected), "{text}: {code:?} {message}");
    }
    for arguments in [["run", "/no/such.toml"], ["rerun", "/no/such"], ["rerun", name]] {
        let (code, message) = run(&arguments);
        assert!(code == Some(2) && message.starts_with("error: RUN="), "{arguments:?}: {code:?} {message}");
    }
}
