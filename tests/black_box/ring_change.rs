//! Nodes that join and leave while clients write and read: nobody notices.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Cluster, eventually},
    runner_cli::Runner,
};

/// For a machine that is many times slower; a change takes a second or two.
const CHANGED_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_become_five_and_three_again_under_load() {
    // What a slow machine does to latencies is not the point here: nobody loses patience.
    let patient = [
        ("DRAIN_TIMEOUT_MS", "60000"),
        ("QUEUE_DELAY_MAX_MS", "60000"),
        ("READ_TIMEOUT_MS", "10000"),
        ("WRITE_TIMEOUT_MS", "10000"),
        ("SUSPICION_AFTER_MS", "10000"),
    ];
    let mut cluster = Cluster::start(3, &patient).await;
    // Those that stay to the end: what the others do to clients is not the point here.
    let targets = [1, 2].map(|index| format!("http://{}", cluster.node(index).spec().http)).join(",");
    let settings = [
        ("TARGETS", &targets[..]),
        // It is interrupted before.
        ("DURATION", "900s"),
        // Little enough for nodes without optimisation and their client on a slow machine.
        ("RATE", "200"),
        ("CONCURRENCY", "8"),
        ("REQUEST_TIMEOUT", "15s"),
        ("ERRORS_MAX_PERCENT", "1"),
        ("KEYS", "2000"),
        ("SET_RATIO", "30"),
        ("DELETE_RATIO", "5"),
        ("READ_CONSISTENCY", "session"),
    ];
    let mut runner = Runner::start_binary("runner", "ring_change", &[], &settings);
    let under_way = async || runner.output().contains("[PROGRESS]").then_some(());
    eventually("load", CHANGED_WITHIN, under_way).await;

    cluster.add();
    cluster.add();
    let joined = cluster.wait_whole(CHANGED_WITHIN).await;
    // Each key has three owners among five: the others have to let go of it.
    let given_up = async || (cluster.stat(&[0, 1, 2], "/mesh/given_up").await > 0).then_some(());
    eventually("former owners to give up records", CHANGED_WITHIN, given_up).await;

    // Not the two that came last: some keys are then left to owners that were none at first. Both at once: they take turns.
    let leavers = [0, 3];
    leavers.iter().for_each(|index| cluster.node(*index).terminate());
    for index in leavers {
        let status = cluster.node_mut(index).ended(CHANGED_WITHIN).await;
        assert_eq!(status.code(), Some(0), "node{index}:\n{}", cluster.node(index).log());
    }
    let left = cluster.wait_whole(CHANGED_WITHIN).await;
    assert_eq!(cluster.stat(&[1, 2, 4], "/mesh/left_early").await, 0, "somebody left before all was handed over");

    kill_process(Pid::from_child(&runner.child), Signal::INT).expect("the runner takes signals");
    let status = runner.exit_within(CHANGED_WITHIN).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    let results = runner.results();
    assert!(results["integrity"]["examples"].as_array().is_some_and(Vec::is_empty), "{output}");
    assert_eq!(results["sweep"]["lost"], 0, "{output}");
    let count = |field: &str| results["totals"][field].as_u64().expect("a count");
    assert!(count("total") >= 500, "too little load to prove anything:\n{output}");
    assert!(count("errors") * 100 <= count("total"), "{output}");
    println!(
        "whole {joined:?} after two had joined and {left:?} after two had left; {} of {} operations failed",
        count("errors"),
        count("total")
    );
}
