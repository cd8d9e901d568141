//! Runs of the runner against fake nodes: what it prints, what it exits with, and what it leaves behind.

use std::process::{Command, Output, Stdio};

use super::{FakeMesh, Fault};

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub results: serde_json::Value,
}

impl Ran {
    pub fn totals(&self, field: &str) -> u64 {
        self.results["totals"][field].as_u64().unwrap()
    }

    pub fn integrity(&self, field: &str) -> u64 {
        self.results["integrity"][field].as_u64().unwrap()
    }
}

pub fn command(targets: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    let defaults = [
        ("TARGETS", targets),
        ("DURATION", "1s"),
        ("CONCURRENCY", "8"),
        ("KEYS", "100"),
        ("SET_RATIO", "30"),
        ("QUIESCENCE", "0s"),
        ("CHECK_EVERY", "off"),
        ("RESULTS", "off"),
    ];
    command.env_clear().envs(defaults).envs(settings.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(mesh: &FakeMesh, settings: &[(&str, &str)]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.json");
    let output = command(&mesh.targets(), settings).env("RESULTS", &results).output().unwrap();
    let (code, out) = told(&output);
    let results = std::fs::read(&results).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let results = results.unwrap_or_else(|| panic!("no results:\n{out}"));
    Ran { code, out, results }
}

pub fn told(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// What is printed, with each sentence of the summary in one line.
pub fn sentences(out: &str) -> String {
    out.lines().fold(String::new(), |text, line| {
        // A field's text goes on below its beginning.
        let goes_on = line.starts_with("               ") && !line.starts_with("                ");
        text + if goes_on { " " } else { "\n" } + if goes_on { line.trim_start() } else { line }
    })
}

pub fn misbehaving(fault: Fault, settings: &[(&str, &str)]) -> Ran {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(fault));
    run(&mesh, settings)
}
