//! Nodes that may have few files open.

use std::{
    fs::File,
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::harness::{Machine, NodeClient, NodeSpec, eventually};

/// What starts this node with a limit on open files.
fn limited(spec: &NodeSpec, files: u32) -> Command {
    let (node, mut shell) = (spec.command(), Command::new("/bin/sh"));
    shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\"")]).arg(node.get_program());
    shell.env_clear().envs(node.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    shell
}

fn alone() -> NodeSpec {
    NodeSpec::new("few-files").with("REPLICATION_FACTOR", "1").with("WRITE_CONCERN", "1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_refused_and_fill_no_log() {
    let _machine = Machine::alone().await;
    let (spec, folder) = (alone(), TempDir::new().unwrap());
    let path = folder.path().join("log");
    let log = File::create(&path).unwrap();
    let errors = log.try_clone().unwrap();
    let mut node = limited(&spec, 64).stdout(log).stderr(errors).spawn().unwrap();
    let client = NodeClient::new(spec.http);
    let is_ready = async || client.is_ready().await.then_some(());
    eventually("the node to be ready", Duration::from_secs(20), is_ready).await;
    let connections: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(spec.http).ok()).collect();
    assert_eq!(connections.len(), 200);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lines = std::fs::read_to_string(&path).unwrap();
    assert!(lines.lines().count() < 20, "{lines}");
    assert!(lines.contains("CONNECTIONS_MAX is ") && lines.contains("raise `ulimit -n`"), "{lines}");
    drop(connections);
    eventually("the node to be ready again", Duration::from_secs(5), is_ready).await;
    node.kill().unwrap();
    node.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_files_to_serve_at_all_stop_a_node_at_its_start() {
    let _machine = Machine::alone().await;
    for files in [8, 16, 24] {
        let output = limited(&alone(), files).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{files}: {text}");
        assert!(text.contains("raise `ulimit -n`") && !text.contains("panicked"), "{files}: {text}");
    }
}
