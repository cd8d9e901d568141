//! FAULTS against nodes that obey, nodes that only say so, and nodes that refuse.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use fake::{FakeMesh, Fault, KILL_TOKEN, Ran, command, run, sentences, told};
use serde_json::{Value, json};

fn with_faults(mesh: &FakeMesh, faults: &str, settings: &[(&str, &str)]) -> Ran {
    let ours = [("FAULTS", faults), ("KILL_TOKEN", KILL_TOKEN), ("FINAL_SWEEP", "false"), ("DURATION", "6s")];
    run(mesh, &[&ours[..], settings].concat())
}

/// What the nodes got, without what the faults do not say.
fn orders(mesh: &FakeMesh, node: usize) -> Vec<Value> {
    mesh.nodes[node].ordered().0
}

#[test]
fn each_fault_is_laid_seen_and_told() {
    let mesh = FakeMesh::start();
    let faults = "at=300ms partition node2 for=100ms; at=400ms loss node1->node3 50% for=100ms, \
                  at=500ms slow 3 20ms for=100ms; at=600ms duplicate node1<->node2 5% for=100ms; \
                  at=700ms clock node1 -1h for=900ms; at=800ms pause node3 for=700ms;";
    let ran = with_faults(&mesh, faults, &[]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    let (second, third) = (format!("{:016x}", mesh.nodes[1].port), format!("{:016x}", mesh.nodes[2].port));
    let link = |peer: &str, direction: &str, change: &dyn Fn(&mut Value)| {
        let mut link = json!({"peer": peer, "direction": direction, "cut": false, "loss": 0.0, "duplicate": 0.0,
            "delay_ms": 0, "jitter_ms": 0, "flap_ms": 0});
        change(&mut link);
        link
    };
    let cut = link("*", "both", &|link| link["cut"] = true.into());
    let order = |links: &[Value], slow_ms: u64| json!({"for_ms": 100, "links": links, "slow_ms": slow_ms, "clock_offset_ms": 0});
    let first = orders(&mesh, 0);
    assert_eq!(first[0], order(&[link(&third, "out", &|link| link["loss"] = 0.5.into())], 0));
    // On a busy machine the next two, a tenth of a second apart, may change places.
    assert!(
        first[1..].contains(&order(&[link(&second, "both", &|link| link["duplicate"] = 0.05.into())], 0)),
        "{first:?}"
    );
    let clock = first.iter().find(|order| order["clock_offset_ms"] == -3_600_000).unwrap();
    assert_eq!((&clock["for_ms"], first.len()), (&json!(900), 3));
    assert_eq!(orders(&mesh, 1), [order(&[cut], 0)]);
    assert_eq!(orders(&mesh, 2), [order(&[], 20)]);
    let told = ran.results["faults"].as_array().unwrap();
    let effects =
        ["packets_dropped", "packets_dropped", "packets_delayed", "packets_duplicated", "clock_off_ms", "silent_s"];
    for (fault, effect) in told.iter().zip(effects) {
        assert!(fault["effect"][effect].is_number(), "{fault}");
        let [begun, ended, whole] =
            ["begun_at_s", "ended_at_s", "recovered_at_s"].map(|at| fault[at].as_f64().unwrap());
        assert!(fault["planned_at_s"].as_f64().unwrap() <= begun && begun < ended && ended <= whole, "{fault}");
    }
    assert_eq!(told.len(), 6);
    for line in
        ["7 packets dropped", "7 packets delayed", "7 packets duplicated", "silent for ", "clock -3", "recovered +"]
    {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
}

#[test]
fn a_repeated_fault_strikes_again_once_the_mesh_was_steady() {
    let mesh = FakeMesh::start();
    let faults = "at=2s pause node3 for=500ms times=2 apart=1s";
    let ran = with_faults(&mesh, faults, &[("DURATION", "11s"), ("RATE", "1000")]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    let [first, second] = &ran.results["faults"].as_array().unwrap()[..] else { panic!("two faults: {}", ran.out) };
    let at = |fault: &Value, field: &str| fault[field].as_f64().unwrap();
    assert!(at(second, "begun_at_s") - at(first, "recovered_at_s") > 4.9, "{second}");
    assert!(at(&first["timeline"], "baseline_p99_ms") > 0.0 && at(&second["timeline"], "baseline_p99_ms") > 0.0);
    let repeated = &ran.results["repeated"][0];
    assert_eq!((&repeated["kind"], &repeated["times"]), (&json!("pause"), &json!(2)), "{repeated}");
    assert_eq!(repeated["in_sync_s"]["of"], 2, "{repeated}");
    assert!(ran.out.contains("  pause × 2 ") && ran.out.contains("    replicas in sync "), "{}", ran.out);
}

#[test]
fn a_fault_that_leaves_no_trace_is_void() {
    for (fault, reason, duration) in [
        ("loss node1 5% for=100ms", "the nodes count no packets dropped", "3s"),
        ("clock node1 +10s for=500ms", "its clock was not seen to move", "3s"),
        ("pause node1 for=3s", "it went on answering", "6s"),
    ] {
        let mesh = FakeMesh::start();
        mesh.nodes[0].mortal.store(false, Ordering::Relaxed);
        let ran = with_faults(
            &mesh,
            &format!("at=300ms {fault}; at=300ms slow node2 1ms for=10ms"),
            &[("DURATION", duration)],
        );
        assert_eq!(ran.code, 2, "{}", ran.out);
        assert!(ran.out.contains(&format!("INVALID {fault} had no effect: {reason}")), "{}", ran.out);
        assert_eq!(ran.results["verdict"]["invalid"].as_array().unwrap().len(), 1, "only that one: {}", ran.out);
    }
}

#[test]
fn a_fault_under_hardly_any_load_or_cut_short_is_void() {
    let ran = with_faults(&FakeMesh::start(), "at=1s slow node1 1ms for=1s", &[("RATE", "60"), ("DURATION", "4s")]);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains("INVALID too little load around slow node1 1ms for=1s: "), "{}", ran.out);
    // A fake node that has died is not started again.
    let ran = with_faults(&FakeMesh::start(), "at=300ms storm node1 2", &[("DURATION", "3s")]);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains("INVALID the run ended during storm node1 2, after 0 of 2 returns"), "{}", ran.out);
}

#[test]
fn who_dies_once_may_stay_away() {
    let ran = with_faults(&FakeMesh::start(), "at=500ms stop node1", &[("DURATION", "3s")]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert_eq!(ran.results["faults"][0]["effect"]["restarts"], 0, "{}", ran.out);
    assert!(ran.results["not_whole"].is_string(), "{}", ran.out);
    assert!(ran.out.contains("    not judged by G6: no new process answered while the load lasted"), "{}", ran.out);
}

#[test]
fn a_recovery_that_takes_longer_than_promised_is_judged_or_explained() {
    // At once, because each takes its time.
    std::thread::scope(|scope| {
        for keys in ["100", "100001"] {
            scope.spawn(move || {
                let mesh = FakeMesh::start();
                let faults = "at=300ms slow node3 1ms for=500ms";
                let settings = [
                    ("FAULTS", faults),
                    ("KILL_TOKEN", KILL_TOKEN),
                    ("FINAL_SWEEP", "false"),
                    ("PREFILL", "false"),
                    ("DURATION", "3s"),
                    ("KEYS", keys),
                ];
                let running = command(&mesh.targets(), &settings).spawn().unwrap();
                let deadline = Instant::now() + Duration::from_secs(30);
                while orders(&mesh, 2).is_empty() {
                    assert!(Instant::now() < deadline, "no fault was laid");
                    std::thread::sleep(Duration::from_millis(20));
                }
                mesh.nodes[1].sees(&mesh.nodes[0], "dead");
                std::thread::sleep(Duration::from_millis(11_500));
                mesh.nodes[1].sees(&mesh.nodes[0], "alive");
                let (code, out) = told(&running.wait_with_output().unwrap());
                let broken = "BROKEN  G6: 1";
                let explained = "    not judged by G6: 10 s are promised for up to 100 000 keys and 100 MB";
                assert_eq!((code, out.matches(broken).count()), if keys == "100" { (1, 1) } else { (0, 0) }, "{out}");
                assert_eq!(out.matches(explained).count(), if keys == "100" { 0 } else { 1 }, "{out}");
            });
        }
    });
}

#[test]
fn losses_are_judged_only_where_the_nodes_settings_promise_that_there_are_none() {
    for (concern, code) in [(1, 0), (2, 1)] {
        let mesh = FakeMesh::start();
        mesh.nodes.iter().for_each(|node| node.concern.store(concern, Ordering::Relaxed));
        mesh.nodes[1].misbehave(Fault::LoseWrites);
        let settings = [("FINAL_SWEEP", "true"), ("QUIESCENCE", "0s"), ("SET_RATIO", "50"), ("CHECK_EVERY", "off")];
        let ran = with_faults(&mesh, "at=500ms crash node1", &[&settings[..], &[("DURATION", "3s")]].concat());
        assert_eq!(ran.code, code, "WRITE_CONCERN={concern}: {}", ran.out);
        let counted = if concern == 1 { "explained" } else { "lost" };
        assert!(ran.results["sweep"][counted].as_u64() > Some(0), "none was lost: {}", ran.results["sweep"]);
        let explained =
            sentences(&ran.out).contains("1 node was dead at once, and WRITE_CONCERN=1 promises nothing then");
        assert_eq!(explained, concern == 1, "{}", ran.out);
    }
}

#[test]
fn an_interrupt_heals_what_is_in_force() {
    let mesh = FakeMesh::start();
    let settings = [
        ("FAULTS", "at=200ms partition node2 for=1m; at=300ms pause node3 for=2s; at=50s slow node1 1s for=1s"),
        ("KILL_TOKEN", KILL_TOKEN),
        ("DURATION", "90s"),
    ];
    let running = command(&mesh.targets(), &settings).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while orders(&mesh, 1).is_empty() {
        assert!(Instant::now() < deadline, "no fault was laid");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let healed_at_start = mesh.nodes[1].ordered().1;
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), rustix::process::Signal::INT).unwrap();
    let (code, out) = told(&running.wait_with_output().unwrap());
    assert_eq!(code, 2, "{out}");
    assert!(mesh.nodes[1].ordered().1 > healed_at_start, "{out}");
    assert_eq!(mesh.nodes[0].ordered(), (Vec::new(), 1), "it had nothing to heal, and was only asked whether it obeys");
    for reason in ["the run ended during partition node2 for=1m", "the run ended before slow node1 1s for=1s"] {
        assert!(out.contains(&format!("INVALID {reason}")), "{out}");
    }
    let healing = out.find("[HEAL]").expect("it says that it heals");
    assert!(out.find("[SWEEP]").is_some_and(|sweep| sweep > healing), "the sweep waits for that: {out}");
}

#[test]
fn who_may_not_is_told_at_the_start() {
    let refused = |mesh: &FakeMesh, settings: &[(&str, &str)], reason: &str| {
        let faults = [("FAULTS", "at=300ms crash node1; at=400ms partition node2 for=100ms")];
        let output = command(&mesh.targets(), &[&faults[..], settings].concat()).output().unwrap();
        let (code, out) = told(&output);
        assert_eq!((code, out.lines().count()), (2, 1), "{out}");
        let is_named = out.starts_with("error: ") || out.starts_with("runner: ");
        assert!(is_named && out.contains(reason), "{out}");
        assert_eq!(mesh.nodes[0].written(), 0, "before the first request");
    };
    refused(&FakeMesh::start(), &[], "KILL_TOKEN=: expected the nodes' token, because FAULTS is set");
    refused(
        &FakeMesh::start(),
        &[("KILL_TOKEN", "x")],
        "refuses them: /fault answered 401: KILL_TOKEN is not the nodes'",
    );
    let mesh = FakeMesh::start();
    mesh.nodes[1].forbids.store(true, Ordering::Relaxed);
    refused(
        &mesh,
        &[("KILL_TOKEN", KILL_TOKEN)],
        "refuses them: /fault answered 403: set ALLOW_KILL=true on the nodes",
    );
    let second = format!("FAULTS: http://127.0.0.1:{}", mesh.nodes[1].port);
    refused(&mesh, &[("KILL_TOKEN", KILL_TOKEN)], &second);
    let kill = [("FAULTS", ""), ("KILL_MODE", "target"), ("KILL_AFTER", "300ms"), ("KILL_TARGET", "2")];
    refused(&mesh, &[&kill[..], &[("KILL_TOKEN", KILL_TOKEN)]].concat(), &second.replace("FAULTS", "KILL_MODE"));
    refused(&FakeMesh::start(), &kill, "refuses them: /fault answered 401: KILL_TOKEN is not the nodes'");
    let unknown = [("KILL_TOKEN", KILL_TOKEN), ("FAULTS", "at=1ms crash node9")];
    let expected =
        "FAULTS=at=1ms crash node9: entry 1 `crash node9`: expected `node9` to be one of TARGETS: http://127.0.0.1:";
    refused(&mesh, &unknown, expected);
}
