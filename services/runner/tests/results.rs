//! What stays of a run: its folder, the files in it, and what is done with them later.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fake::{FakeMesh, command, told};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn only_run(results: &Path) -> PathBuf {
    let runs: Vec<_> = fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

fn result(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("result.json")).unwrap()).unwrap()
}

fn events(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("events.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The runner with a command about stored runs.
fn stored(results: &Path, arguments: &[&str]) -> (i32, String) {
    let mut runner = Command::new(env!("CARGO_BIN_EXE_runner"));
    told(&runner.env_clear().env("RESULTS", results).args(arguments).output().unwrap())
}

/// How many operations are in the log, by tag.
fn logged(run: &Path) -> BTreeMap<String, u64> {
    let (log, mut counts) = (fs::read(run.join("intervals.hlog")).unwrap(), BTreeMap::new());
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(entry) = entry.unwrap() else { continue };
        let bytes = STANDARD.decode(entry.encoded_histogram()).unwrap();
        let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        *counts.entry(entry.tag().unwrap().as_str().to_owned()).or_default() += histogram.len();
    }
    counts
}

fn assert_whole(run: &Path) -> Value {
    let result = result(run);
    assert_eq!(result["run_id"].as_str(), run.file_name().unwrap().to_str());
    let (mut compiler, mut schemas) = (boon::Compiler::new(), boon::Schemas::new());
    let schema = serde_json::from_str(include_str!("../../../docs/result.schema.json")).unwrap();
    compiler.add_resource("result", schema).unwrap();
    let schema = compiler.compile("result", &mut schemas).unwrap();
    schemas.validate(&result, schema).unwrap_or_else(|error| panic!("{error}"));
    let rows = result["rows"].as_array().unwrap().iter().filter(|row| row["table"] == "outcome");
    let recorded: BTreeMap<_, _> =
        rows.map(|row| (row["label"].as_str().unwrap().replace(' ', "_"), row["count"].as_u64().unwrap())).collect();
    let logged: BTreeMap<_, _> = logged(run).into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(logged, recorded, "the log has what the result has");
    assert_eq!(recorded.values().sum::<u64>(), result["totals"]["total"]);
    let html = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(html.contains(result["run_id"].as_str().unwrap()) && html.len() < 400_000, "{} bytes", html.len());
    result
}

#[test]
fn a_run_leaves_a_folder_that_can_be_shown_reported_and_compared() {
    let (mesh, folder) = (FakeMesh::start(), tempfile::tempdir().unwrap());
    let results = folder.path().join("results");
    let settings = [("RESULTS", results.to_str().unwrap()), ("DURATION", "4500ms"), ("KILL_TOKEN", "secret-token")];
    let (code, out) = told(&command(&mesh.targets(), &settings).output().unwrap());
    assert_eq!(code, 0, "{out}");
    let run = only_run(&results);
    let id = run.file_name().unwrap().to_str().unwrap();
    assert!(out.contains(&format!("\nResults: {}\n", run.display())), "{out}");
    let result = assert_whole(&run);
    let parts: Vec<_> = id.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 6, 4], "YYYYMMDD-HHMMSS-xxxx: {id}");
    assert_eq!((&result["settings"]["KEYS"], &result["interrupted"]), (&"100".into(), &false.into()));
    assert!(!fs::read_to_string(run.join("result.json")).unwrap().contains("secret-token"));
    let sample = &result["samples"][0];
    assert!(sample["ops"][0]["op"] == "GET" && sample["ops"][1]["p99_ms"].as_f64() > Some(0.0), "{sample}");
    let kinds: Vec<_> = events(&run).iter().map(|event| format!("{}", event["kind"])).collect();
    let expected = ["prefill", "prefill", "load", "load", "sweep", "sweep", "verdict"];
    assert_eq!(kinds, expected.map(|kind| format!("\"{kind}\"")));

    for arguments in [&["show"][..], &["show", &id[id.len() - 4..]], &["show", run.to_str().unwrap()]] {
        let (code, text) = stored(&results, arguments);
        assert!(code == 0 && text.starts_with("=== Mesh Bench Summary ===\n"), "{arguments:?}: {text}");
        assert!(text.trim_end().ends_with("Verdict: PASS (exit code 0)") && !text.contains('\u{1b}'), "{text}");
    }
    let report = fs::read(run.join("report.html")).unwrap();
    fs::remove_file(run.join("report.html")).unwrap();
    assert_eq!(stored(&results, &["report", id]), (0, format!("Report: {}\n", run.join("report.html").display())));
    assert!(fs::read(run.join("report.html")).unwrap() == report, "the same of the stored files");

    let (code, text) =
        stored(&results, &["compare", id, id, "--fail-on", "get.p99 > +0%", "--fail-on", "throughput < -0%"]);
    assert!(code == 0 && text.contains("GET p99, ms ") && !text.contains("significant\n"), "{code}: {text}");
    let (code, text) = stored(&results, &["compare", id, run.to_str().unwrap(), "--format", "json"]);
    let compared: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &compared["warnings"], &compared["a"]["run_id"]), (0, &Value::Array(Vec::new()), &id.into()));

    // The same, but 500 times as slow, elsewhere and with another setting.
    let slow = results.join("20990101-000000-5105");
    fs::create_dir(&slow).unwrap();
    let mut changed = result;
    changed["machine"]["cores"] = 99.into();
    changed["settings"]["CONCURRENCY"] = "9".into();
    changed["run_id"] = "20990101-000000-5105".into();
    fs::write(slow.join("result.json"), changed.to_string()).unwrap();
    let log = fs::read(run.join("intervals.hlog")).unwrap();
    fs::write(slow.join("intervals.hlog"), slowed(&log)).unwrap();
    let (code, text) = stored(&results, &["compare", id, "5105", "--fail-on", "get.p50 > +50%"]);
    assert!(code == 1 && text.contains("FAILED  get.p50 > +50%: +"), "{text}");
    let first: Vec<_> = text.lines().take(2).collect();
    assert!(
        first[0].starts_with("WARNING  not the same machine, cores: ") && first[0].ends_with(" in A, 99 in B"),
        "{text}"
    );
    assert_eq!(first[1], "WARNING  not the same CONCURRENCY: 8 in A, 9 in B");
}

/// A log in which everything took 500 times as long.
fn slowed(log: &[u8]) -> Vec<u8> {
    use hdrhistogram::serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder};
    let (mut slow, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = IntervalLogWriterBuilder::new().begin_log_with(&mut slow, &mut serializer).unwrap();
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(entry) = entry.unwrap() else { continue };
        let bytes = STANDARD.decode(entry.encoded_histogram()).unwrap();
        let fast: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        let mut slow = Histogram::<u64>::new_with_bounds(1000, 60_000_000_000, 3).unwrap();
        fast.iter_recorded().for_each(|at| slow.saturating_record_n(at.value_iterated_to() * 500, at.count_at_value()));
        writer.write_histogram(&slow, entry.start_timestamp(), entry.duration(), entry.tag()).unwrap();
    }
    slow
}

#[test]
fn an_interrupted_run_leaves_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    for signals in 1..=2 {
        let mesh = FakeMesh::start();
        let results = folder.path().join(signals.to_string());
        let settings = [("RESULTS", results.to_str().unwrap()), ("DURATION", "60s")];
        let running = command(&mesh.targets(), &settings).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while mesh.nodes[0].written() < 100 {
            assert!(Instant::now() < deadline, "the prefill did not end");
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(700));
        for _ in 0..signals {
            kill_process(Pid::from_child(&running), Signal::INT).unwrap();
        }
        let (_, out) = told(&running.wait_with_output().unwrap());
        let run = only_run(&results);
        assert_eq!(assert_whole(&run)["interrupted"], true, "{out}");
        assert_eq!(events(&run).last().unwrap()["kind"], "verdict");
    }
}

#[test]
fn what_cannot_be_shown_or_compared_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path();
    let refused = |arguments: &[&str], reason: &str| {
        let (code, text) = stored(results, arguments);
        assert!(code == 2 && text.lines().count() == 1 && text.contains(reason), "{arguments:?}: {text}");
    };
    refused(&["show"], "there is no run in it");
    refused(&["show", "abcd"], "RUN=abcd: expected a run's folder, its result.json, or the id of a run in ");
    refused(&["compare", "a", "b", "--fail-on", "get.p98 > 1%"], "fail-on=get.p98 > 1%: expected a condition such as");
    let mesh = FakeMesh::start();
    let file = results.join("alone.json");
    let settings = [("RESULTS", file.to_str().unwrap()), ("DURATION", "500ms"), ("FINAL_SWEEP", "false")];
    assert_eq!(told(&command(&mesh.targets(), &settings).output().unwrap()).0, 0);
    let file = file.to_str().unwrap();
    refused(&["compare", file, file], "there are no intervals to compare");
    refused(&["show", file], "summary.txt: cannot read it");
    let short = results.join("short");
    let settings = [("RESULTS", short.to_str().unwrap()), ("DURATION", "500ms"), ("FINAL_SWEEP", "false")];
    assert_eq!(told(&command(&mesh.targets(), &settings).output().unwrap()).0, 0);
    let short = only_run(&short);
    let short = short.to_str().unwrap();
    refused(&["compare", short, short], "8 are needed");
}
