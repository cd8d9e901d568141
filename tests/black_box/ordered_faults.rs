//! `POST /fault`: real nodes cut off, slowed down and set wrong on request, without a proxy and without root.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Consistency, NodeClient, Reply, eventually};

const TOKEN: &str = "to ken";
const KILLABLE: [(&str, &str); 2] = [("ALLOW_KILL", "true"), ("KILL_TOKEN", TOKEN)];
const DETECTED_WITHIN: Duration = Duration::from_secs(15);
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

async fn lay(client: &NodeClient, order: Value) {
    let reply = client.fault("token=to%20ken", &order.to_string()).await;
    assert_eq!(reply.status, 200, "{order}: {}", reply.body);
}

async fn counter(client: &NodeClient, name: &str) -> u64 {
    let stats = client.stats().await.expect("/stats answers");
    stats["mesh"][name].as_u64().unwrap_or_else(|| panic!("{name} is in /stats"))
}

/// How far a node's wall clock is from this process's, in milliseconds; too late by the time that the answer took.
async fn clock_offset_ms(client: &NodeClient) -> i64 {
    let view = client.cluster().await.expect("/cluster answers");
    let ours = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    view["unix_ms"].as_i64().unwrap() - i64::try_from(ours).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_cut_off_and_healed_on_request() {
    let cluster = Cluster::start(3, &KILLABLE).await;
    let [zero, one, two] = [0, 1, 2].map(|index| cluster.node(index).client());
    assert_eq!(zero.set("key", "before").await.status, 200);
    lay(&two, json!({"for_ms": 60_000, "links": [{"peer": "*", "cut": true}]})).await;
    cluster.wait_seen(&[0, 1], 2, "dead", DETECTED_WITHIN).await;
    cluster.wait_seen(&[2], 0, "dead", DETECTED_WITHIN).await;
    cluster.wait_seen(&[2], 1, "dead", DETECTED_WITHIN).await;
    assert!(counter(&two, "fault_packets_dropped").await > 0);
    assert_eq!(counter(&two, "faults_active").await, 1);
    let faults = two.cluster().await.unwrap()["faults"].clone();
    assert_eq!(faults[0]["fault"], "cut both ways: *", "{faults}");
    assert_eq!(one.set("key", "during").await.status, 200, "the larger side accepts writes");
    assert_eq!(two.set("key", "alone").await.status, 503, "the smaller side refuses them");

    let healed = two.heal("token=to%20ken").await;
    assert_eq!((healed.status, healed.body.as_str()), (200, "[]"));
    println!("one mesh again after {:?}", cluster.wait_whole(WHOLE_WITHIN).await);
    assert_eq!(two.get("key", Consistency::Quorum).await.body, "during");
    let metrics = two.text("/metrics").await;
    assert!(metrics.contains("mesh_fault_packets_total{node=\"node2\",outcome=\"dropped\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_hear_each_other_only_through_a_third_stay_alive() {
    let cluster = Cluster::start(3, &KILLABLE).await;
    let [zero, one, two] = [0, 1, 2].map(|index| cluster.node(index).client());
    let began = Instant::now();
    let cut = Duration::from_secs(6);
    // By name at one end, by address at the other; either alone would do.
    lay(&zero, json!({"for_ms": 6000, "links": [{"peer": "node1", "cut": true}]})).await;
    let addr = cluster.node(0).spec().public.to_string();
    lay(&one, json!({"for_ms": 6000, "links": [{"peer": addr, "cut": true}]})).await;
    let mut written = 0;
    while began.elapsed() < cut - Duration::from_secs(1) {
        for client in [&zero, &one, &two] {
            let key = format!("key{written}");
            let reply = client.set(&key, "bridged").await;
            assert_eq!(reply.status, 200, "{key} during the bridge: {}", reply.body);
            written += 1;
        }
        for whom in 0..3 {
            let seen = cluster.states_of(whom).await;
            assert!(seen.iter().all(|state| state != "dead"), "node{whom} is seen as {seen:?}: others can ask for it");
        }
    }
    assert!(counter(&zero, "fault_packets_dropped").await > 0);
    let over = async || (counter(&zero, "faults_active").await == 0).then_some(());
    eventually("the fault to end by itself", Duration::from_secs(15), over).await;
    cluster.wait_whole(WHOLE_WITHIN).await;
    println!("{written} writes acknowledged through the bridge");
    for key in 0..written {
        let reply = zero.get(&format!("key{key}"), Consistency::Quorum).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "bridged"), "key{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_is_set_off_and_a_node_slowed_down_on_request() {
    const SLOW: Duration = Duration::from_millis(150);
    let cluster = Cluster::start(3, &KILLABLE).await;
    let [zero, one, two] = [0, 1, 2].map(|index| cluster.node(index).client());

    // 450 ms between them, within what versions may differ by: nothing is refused, and the newest write is the one that is read.
    lay(&zero, json!({"for_ms": 60_000, "clock_offset_ms": 250})).await;
    lay(&one, json!({"for_ms": 60_000, "clock_offset_ms": -200})).await;
    // The answer travels for a moment, or for longer on a busy machine: a clock can only seem too slow.
    let ahead = async || (clock_offset_ms(&zero).await >= 150).then_some(());
    eventually("node0 to be ahead", Duration::from_secs(5), ahead).await;
    assert!(clock_offset_ms(&zero).await <= 260, "no further than it was told");
    assert!(clock_offset_ms(&one).await <= -190, "behind");
    for round in 0..20 {
        for client in [&zero, &one, &two] {
            let value = format!("{round}");
            assert_eq!(client.set("key", &value).await.status, 200);
            assert_eq!(two.get("key", Consistency::Quorum).await.body, value, "round {round}");
        }
    }
    zero.heal("token=to%20ken").await;
    one.heal("token=to%20ken").await;

    // An hour ahead: the others refuse what it stamps, count it, and say so.
    let refused = counter(&two, "drift_refused").await;
    lay(&zero, json!({"for_ms": 60_000, "clock_offset_ms": 3_600_000})).await;
    let reply = zero.set("from the future", "x").await;
    assert_eq!(reply.status, 503, "nobody has taken it, itself included: {}", reply.body);
    let counted = async || (counter(&two, "drift_refused").await > refused).then_some(());
    eventually("the refusal to be counted", Duration::from_secs(5), counted).await;
    assert_eq!(one.set("other", "x").await.status, 200, "its clock is nobody else's problem");
    zero.heal("token=to%20ken").await;
    let set = async || (zero.set("from the future", "set right").await.status == 200).then_some(());
    eventually("node0 to follow its clock", Duration::from_secs(5), set).await;

    lay(&two, json!({"for_ms": 60_000, "slow_ms": 150})).await;
    for _ in 0..3 {
        let reply = two.get("key", Consistency::One).await;
        assert!(reply.status == 200 && reply.took >= SLOW, "{} after {:?}", reply.status, reply.took);
    }
    assert!(counter(&two, "fault_packets_delayed").await > 0, "peers get its answers late, too");
    two.heal("token=to%20ken").await;
    cluster.wait_whole(WHOLE_WITHIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_orders_are_refused() {
    const CUT: &str = r#"{"for_ms": 1000, "links": [{"peer": "*", "cut": true}]}"#;
    let cluster =
        Cluster::start(1, &[&KILLABLE[..], &[("REPLICATION_FACTOR", "1"), ("WRITE_CONCERN", "1")]].concat()).await;
    let client = cluster.node(0).client();
    let check = |what: &str, reply: Reply, status: u16, says: &str| {
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        assert!(reply.body.contains("urn:problem-type:mesh:") && reply.body.contains(says), "{what}: {}", reply.body);
    };
    for query in ["", "token=", "token=to", "token=to%20kem"] {
        check(query, client.fault(query, CUT).await, 401, "KILL_TOKEN");
        check(query, client.heal(query).await, 401, "KILL_TOKEN");
    }
    check("a query", client.fault("token=to%20ken&for_ms=1", CUT).await, 400, "for_ms");
    for (order, says) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("null", "null"),
        (r#"{"for_ms": 0, "slow_ms": 1}"#, "`for_ms` must be a whole number of milliseconds from 1 to 600000"),
        (r#"{"for_ms": 1, "clock_offset_ms": 86400001}"#, "`clock_offset_ms`"),
        (r#"{"for_ms": 1, "links": [{"peer": "nobody", "cut": true}]}"#, "no member"),
        (r#"{"for_ms": 1, "links": [{"peer": "node0", "cut": true}]}"#, "this node itself"),
        (r#"{"for_ms": 1, "links": [{"peer": "*", "loss": 1.5}]}"#, "`loss`"),
        (r#"{"for_ms": 1, "surprise": 1, "slow_ms": 1}"#, "surprise"),
    ] {
        check(order, client.fault("token=to%20ken", order).await, 400, says);
    }
    let large = format!(r#"{{"for_ms": 1, "links": [{}]}}"#, " ".repeat(100_000));
    check("a large body", client.fault("token=to%20ken", &large).await, 413, "");
    assert_eq!(counter(&client, "faults_laid").await, 0);
    let many = json!({"for_ms": 60_000, "links": vec![json!({"peer": "*", "delay_ms": 1}); 64]});
    lay(&client, many.clone()).await;
    check("one too many", client.fault("token=to%20ken", &many.to_string()).await, 400, "heal some first");
    drop(cluster);

    let cluster = Cluster::start(1, &[("REPLICATION_FACTOR", "1"), ("WRITE_CONCERN", "1")]).await;
    check("off", cluster.node(0).client().fault("token=to%20ken", CUT).await, 403, "ALLOW_KILL");
    check("off", cluster.node(0).client().heal("token=to%20ken").await, 403, "ALLOW_KILL");
}
