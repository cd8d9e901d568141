//! `make bench` and `make observe` as a user calls them, with binaries that are built already: a `cargo` that does nothing is
//! first on the PATH.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::harness::{Descendants, Machine, binary, eventually, exit_within};

/// For a machine that is many times slower.
const WITHIN: Duration = Duration::from_secs(90);

/// A running `make`, in a process group of its own, as a shell starts it.
struct Make {
    child: Child,
    folder: TempDir,
    descendants: Descendants,
}

impl Make {
    fn start(test: &str, arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (tools, release) = (folder.path().join("tools"), folder.path().join("release"));
        for new in [&tools, &release] {
            fs::create_dir(new).expect("a folder");
        }
        for (tool, script) in [("cargo", "true"), ("docker", "false"), ("protoc", "false"), ("apt-get", "false")] {
            // The trace UI is not to be had, and of the rest all is built already.
            let path = tools.join(tool);
            fs::write(
                &path,
                format!("#!/bin/sh\necho \"{tool} $*\"\ncase \"$*\" in *trace-ui*) false ;; *) {script} ;; esac\n"),
            )
            .expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
        }
        for name in ["node", "runner"] {
            symlink(binary(name), release.join(name)).expect("a link");
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path))).expect("a PATH");
        let output = File::create(folder.path().join("output")).expect("a file");
        let descendants = Descendants::new(test);
        let child = Command::new("make")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_clear()
            .env("PATH", path)
            .env("HOME", std::env::var_os("HOME").unwrap_or_default())
            .env("CARGO_TARGET_DIR", folder.path())
            .env("RESULTS", folder.path().join("results"))
            .env(Descendants::VARIABLE, descendants.mark())
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second handle"))
            .stdout(output)
            .process_group(0)
            .spawn()
            .expect("make starts");
        Self { child, folder, descendants }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Waits for its end; gives its exit code, if it has one.
    async fn ended(&mut self) -> Option<i32> {
        exit_within(&mut self.child, WITHIN, "make to end").await.code()
    }
}

impl Drop for Make {
    fn drop(&mut self) {
        self.descendants.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- make ---\n{}", self.output());
        }
    }
}

#[tokio::test]
async fn bench_starts_as_many_nodes_as_it_is_told_and_names_misspelt_variables() {
    let _machine = Machine::alone().await;
    let variables = ["DURATON=20s", "KILL_MOD=random", "DURATION=1s", "CONCURRENCY=4", "KEYS=200", "LOCAL=5"];
    let mut make = Make::start("bench", &[&["bench"][..], &variables].concat());
    assert_eq!(make.ended().await, Some(0));
    let output = make.output();
    for warning in
        ["DURATON is not a setting; did you mean DURATION?", "KILL_MOD is not a setting; did you mean KILL_MODE?"]
    {
        assert!(output.contains(&format!("warning: {warning}\n")), "{warning}");
    }
    let targets = output.lines().find_map(|line| line.strip_prefix("Targets: ")).expect("a summary");
    assert_eq!(targets.matches("http://").count(), 5, "{targets}");
    assert!(output.trim_end().ends_with("Verdict: PASS (exit code 0)"));
}

#[tokio::test]
async fn bench_loads_targets_if_there_are_any() {
    let _machine = Machine::alone().await;
    // Nobody is there, which make tells by an exit code of its own.
    let mut make = Make::start("targets", &["bench", "TARGETS=http://127.0.0.1:1", "DURATION=1s", "KEYS=200"]);
    assert_eq!(make.ended().await, Some(2));
    let output = make.output();
    assert!(output.contains("127.0.0.1:1") && !output.contains("=== Mesh Bench Summary ==="));
}

#[tokio::test]
async fn a_signal_ends_observe_in_the_summary_and_leaves_nothing() {
    let _machine = Machine::alone().await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if is_ignored(signal) {
            continue;
        }
        let folder = TempDir::new().expect("a temporary folder");
        let observe = |folder: &Path| format!("OBSERVE=--local --free-ports --folder {}", folder.display());
        let variables = ["DURATION=120s", "CONCURRENCY=4", "KEYS=200", "KILL_MODE=none", "KILL_AFTER="];
        let mut make = Make::start("observe", &[&["observe", &observe(folder.path())][..], &variables].concat());
        let under_way = async || make.output().contains("[PROGRESS]").then_some(());
        eventually("load", WITHIN, under_way).await;
        let pid = Pid::from_child(&make.child);
        match signal {
            // As `kill` does; a terminal tells all that it has started.
            Signal::TERM => kill_process(pid, signal),
            _ => kill_process_group(pid, signal),
        }
        .expect("make takes signals");
        make.ended().await;
        let output = make.output();
        let expected = [
            "=== Mesh Bench Summary ===",
            "ended by a signal",
            "lost writes  0 of 200 keys",
            "Verdict: PASS (exit code 0)",
            "What this run can tell you, and where:",
        ];
        for line in expected {
            assert!(output.contains(line), "{signal:?}: {line}");
        }
        assert!(!output.contains("Error ") && !output.contains("Traceback"), "{signal:?}");
        make.descendants.ended(Duration::from_secs(30)).await;
    }
}

#[tokio::test]
async fn observe_says_first_what_comes_up_and_stays_until_a_signal_if_asked() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().expect("a temporary folder");
    let observe = format!("OBSERVE=--local --free-ports --folder {}", folder.path().display());
    let variables = ["KEEP=1", "DURATION=1s", "CONCURRENCY=4", "KEYS=200", "KILL_MODE=none", "KILL_AFTER="];
    let mut make = Make::start("keep", &[&["observe", &observe][..], &variables].concat());
    let stays = async || make.output().contains("stay up. Ctrl-C ends them.").then_some(());
    eventually("the end of the run", WITHIN, stays).await;
    let output = make.output();
    let before_the_build = output.split("cargo build").next().expect("a beginning");
    for line in ["  nodes       http://127.0.0.1:", "  Prometheus  ", "  Jaeger UI   ", "  Grafana     MISSING"] {
        assert!(before_the_build.contains(line) && before_the_build.len() < output.len(), "{line}");
    }
    assert!(!output.contains("apt-get") && output.contains("Verdict: PASS (exit code 0)"));
    let nodes = output.lines().find_map(|line| line.strip_prefix("  nodes ")).expect("the nodes");
    let node = nodes.split_whitespace().next().and_then(|url| url.strip_prefix("http://")).expect("a node");
    std::net::TcpStream::connect(node).expect("the nodes are up after the run");
    kill_process_group(Pid::from_child(&make.child), Signal::TERM).expect("make takes signals");
    make.ended().await;
    make.descendants.ended(Duration::from_secs(30)).await;
}

/// Where the tests themselves run under nohup, or in the background of a script, so do their children, and SIGHUP or SIGINT stays
/// ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    let bit = 1_u64 << (signal.as_raw() - 1);
    u64::from_str_radix(ignored.trim(), 16).is_ok_and(|signals| signals & bit != 0)
}
