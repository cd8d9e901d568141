//! What a node tells people: in its log, with colours only for a terminal, and of members that it cannot reach.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{Cluster, Descendants, Loopback, Machine, NodeProcess, NodeSpec, eventually};

const WITHIN: Duration = Duration::from_secs(60);

/// Starts a process whose output goes to a terminal.
const TERMINAL: &str = "import pty, sys; pty.spawn(sys.argv[1:])";

/// What a node logs at its start.
async fn first_lines(settings: &[(&str, &str)], on_terminal: bool) -> String {
    let (folder, mark) = (TempDir::new().unwrap(), Descendants::new("first_lines"));
    let log = folder.path().join("log");
    let spec = settings.iter().fold(NodeSpec::new("colours"), |spec, (name, value)| spec.with(name, value));
    let node = spec.command();
    let mut command = if on_terminal { Command::new("python3") } else { Command::new(node.get_program()) };
    if on_terminal {
        command.arg("-c").arg(TERMINAL).arg(node.get_program());
    }
    command.env_clear().envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("TERM", "xterm").env(Descendants::VARIABLE, mark.mark());
    let output = File::create(&log).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let started = async || fs::read_to_string(&log).ok().filter(|text| text.contains("node started"));
    let (text, _) = eventually("the node to say that it has started", WITHIN, started).await;
    for pid in mark.alive() {
        let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
    }
    child.wait().unwrap();
    text
}

#[tokio::test]
async fn a_nodes_log_has_colours_on_a_terminal_only() {
    let _machine = Machine::alone().await;
    let none: &[(&str, &str)] = &[];
    for (settings, on_terminal, expected) in [
        (none, false, false),
        (none, true, true),
        (&[("NO_COLOR", "1")], true, false),
        (&[("CLICOLOR_FORCE", "1")], false, true),
        (&[("LOG_FORMAT", "json")], true, false),
    ] {
        let lines = first_lines(settings, on_terminal).await;
        assert_eq!(lines.contains('\u{1b}'), expected, "{settings:?}, on a terminal: {on_terminal}\n{lines}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_be_reached_is_named() {
    let cluster = Cluster::start(2, &[]).await;
    let folder = TempDir::new().unwrap();
    let seeds = cluster.node(0).spec().public.to_string();
    // Nobody listens there.
    let nowhere = Loopback::fresh().free_port();
    let spec = NodeSpec { public: nowhere, ..NodeSpec::new("lost").with("CACHE_SEEDS", &seeds) };
    let _lost = NodeProcess::start(spec, folder.path());
    for index in 0..2 {
        let client = cluster.node(index).client();
        let counted = async || {
            let metrics = client.text("/metrics").await;
            let count = |line: &&str| line.starts_with("mesh_members_unreachable{") && line.ends_with(" 1");
            metrics.lines().find(count).map(str::to_owned)
        };
        eventually("the metric to count it", WITHIN, counted).await;
        let view = client.cluster().await.unwrap();
        for member in view["members"].as_array().unwrap() {
            let reason = member["unreachable"].as_str();
            let is_lost = member["addr"] == nowhere.to_string();
            assert_eq!(reason.is_some_and(|reason| reason.contains(&nowhere.to_string())), is_lost, "{view}");
        }
        let told = |line: &&str| line.contains("cannot be reached") && line.contains(&nowhere.to_string());
        let times_told = || cluster.node(index).log().lines().filter(told).count();
        let is_told = async || (times_told() > 0).then_some(());
        eventually("the log to name it", WITHIN, is_told).await;
        assert_eq!(times_told(), 1, "{}", cluster.node(index).log());
        assert!(client.is_ready().await, "it waits for one that cannot be reached");
    }
}
