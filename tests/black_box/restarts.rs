//! Rolling restarts at the pace of `docker compose restart`: SIGTERM to one, two or all nodes at once, each started again as soon as
//! its process has ended, under load. The same with 50 rounds each is `make perf PERF="--only restarts"`.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Cluster, eventually},
    runner_cli::Runner,
};

/// For a machine that is many times slower; a round takes two seconds.
const WITHIN: Duration = Duration::from_secs(120);

const NODES: usize = 3;

const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_one_two_and_all_nodes_at_once_lose_nothing() {
    // A slow machine must not use up the time that a graceful stop may take.
    let mut cluster = Cluster::start(NODES, &[("DRAIN_TIMEOUT_MS", "60000"), ("QUEUE_DELAY_MAX_MS", "60000")]).await;
    let targets = [0, 1, 2].map(|index| format!("http://{}", cluster.node(index).spec().http)).join(",");
    let settings = [
        ("TARGETS", &targets[..]),
        // It is interrupted before.
        ("DURATION", "900s"),
        ("RATE", "200"),
        ("CONCURRENCY", "8"),
        ("KEYS", "1000"),
        ("SET_RATIO", "20"),
        ("DELETE_RATIO", "5"),
        // Requests fail while all nodes are away, and restarted nodes count from zero.
        ("ERRORS_MAX_PERCENT", "100"),
        ("RECONCILE", "report"),
    ];
    let mut runner = Runner::start_binary("runner", "restarts", &[], &settings);
    let under_way = async || runner.output().contains("[PROGRESS]").then_some(());
    eventually("load", WITHIN, under_way).await;
    for round in 0..ROUNDS {
        for count in 1..=NODES {
            let first = round * NODES + count;
            let chosen: Vec<usize> = (first..first + count).map(|index| index % NODES).collect();
            restart(&mut cluster, &chosen).await;
            cluster.wait_whole(WITHIN).await;
        }
    }
    kill_process(Pid::from_child(&runner.child), Signal::INT).expect("the runner takes signals");
    let status = runner.exit_within(WITHIN).await;
    let output = runner.output();
    assert_eq!(status.code(), Some(0), "{output}");
    let results = runner.results();
    assert!(results["integrity"]["examples"].as_array().is_some_and(Vec::is_empty), "{output}");
    assert_eq!(results["sweep"]["lost"], 0, "{output}");
    // The runner has ordered none of it, and names what it saw.
    let restarted: Vec<_> =
        results["observed"].as_array().expect("a list").iter().filter(|event| event["kind"] == "restarted").collect();
    assert!(targets.split(',').all(|target| restarted.iter().any(|event| event["node"] == target)), "{restarted:?}");
    assert!(restarted.len() <= ROUNDS * NODES * (NODES + 1) / 2, "{restarted:?}");
    assert!(output.contains("[OBSERVED]") && output.contains("  not ordered  at "), "{output}");
    let count = |field: &str| results["totals"][field].as_u64().expect("a count");
    assert!(count("total") >= 500, "too little load to prove anything:\n{output}");
    println!("{} of {} operations failed", count("errors") + count("indeterminate"), count("total"));
}

/// SIGTERM to these nodes at the same moment; each is started again as soon as it has ended.
async fn restart(cluster: &mut Cluster, chosen: &[usize]) {
    chosen.iter().for_each(|index| cluster.node(*index).terminate());
    let mut away = chosen.to_vec();
    let restarted = async || {
        away.retain(|index| {
            let node = cluster.node_mut(*index);
            let ended = node.has_ended();
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(0), "node{index}:\n{}", node.log());
                node.start_again();
            }
            ended.is_none()
        });
        away.is_empty().then_some(())
    };
    eventually("all nodes to be started again", WITHIN, restarted).await;
}
