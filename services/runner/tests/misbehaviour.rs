//! The runner as a user runs it, against nodes that misbehave: each defect lands in its own count and its own exit code.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use std::{
    process::Child,
    time::{Duration, Instant},
};

use serde_json::Value;

use fake::{FakeMesh, Fault, KILL_TOKEN, command, misbehaving, run, sentences, told};

/// Takes a pattern of text and `#` for a number, so that the summary's lines can be compared.
fn matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    let mut parts = pattern.split('#').peekable();
    while let Some(part) = parts.next() {
        let Some(after) = rest.strip_prefix(part) else { return false };
        rest = after;
        if parts.peek().is_some() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
            let number = rest[..digits].trim_end_matches('.');
            if number.parse::<f64>().is_err() {
                return false;
            }
            rest = &rest[number.len()..];
        }
    }
    rest.is_empty()
}

#[test]
fn a_healthy_mesh_passes_and_the_summary_keeps_its_lines() {
    let mesh = FakeMesh::start();
    let ran = run(&mesh, &[("CHECK_EVERY", "300ms"), ("STATS_EVERY", "400ms")]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    let summary: Vec<_> = ran.out.lines().skip_while(|line| *line != "=== Mesh Bench Summary ===").collect();
    assert_eq!(summary[1], format!("Targets: [{}]", mesh.targets().replace(',', " ")));
    let percentiles = "p50=#ms p95=#ms p99=#ms p99.9=#ms";
    for (line, pattern) in [
        (summary[2], "Total: # | GETs: # | SETs: # | Errors: 0".to_owned()),
        (summary[3], "Hits: local=# remote=# | Miss=0 | WrongValue=0 | HitRatio=100.00%".to_owned()),
        (summary[4], format!("GET {percentiles} | SET {percentiles}")),
        (
            summary[5],
            "Local cache counters (sum across nodes): hits=21 miss=3 local_hit_ratio=87.50% evictions=0 expirations=0 \
             size=9 capacity=27"
                .to_owned(),
        ),
    ] {
        assert!(matches(line, &pattern), "{line:?} should match {pattern:?}");
    }
    assert!(ran.out.contains("[STATS] 127.0.0.1:") && ran.out.contains("hits=7 misses=1"), "{}", ran.out);
    assert!(ran.totals("hits_local") > ran.totals("hits_remote") && ran.totals("hits_remote") > 0);
    assert_eq!(ran.results["sweep"]["keys"], 100);
    assert!(ran.results["comparisons"].as_u64().unwrap() >= 1);
    assert_eq!(ran.results["reconciliation"]["differences"], serde_json::json!([]), "{}", ran.out);
    assert!(ran.out.contains("every reply stands in its node's count"), "{}", ran.out);
    assert!(summary[6..].iter().all(|line| line.chars().count() <= 80), "{}", ran.out);
}

#[test]
fn another_keys_value_is_a_wrong_object() {
    let ran = misbehaving(Fault::WrongObject, &[]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.integrity("wrong_object") > 0);
    assert_eq!((ran.integrity("corrupt"), ran.integrity("missing")), (0, 0));
    assert!(!ran.out.contains("WrongValue=0"));
}

#[test]
fn a_changed_byte_is_a_corrupt_value() {
    let ran = misbehaving(Fault::Corrupt, &[]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.integrity("corrupt") > 0);
    assert_eq!((ran.integrity("wrong_object"), ran.integrity("unwritten")), (0, 0));
}

#[test]
fn a_lost_acknowledged_write_is_found_by_the_sweep() {
    let ran = misbehaving(Fault::LoseWrites, &[("SET_RATIO", "10")]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.results["sweep"]["lost"].as_u64().unwrap() > 0, "{}", ran.out);
    assert!(ran.integrity("stale") > 0);
    assert_eq!(ran.integrity("wrong_object") + ran.integrity("corrupt"), 0);
}

#[test]
fn a_node_that_stays_behind_is_named() {
    let mesh = FakeMesh::start();
    mesh.nodes[2].misbehave(Fault::Behind);
    let settings = [("CHECK_EVERY", "100ms"), ("DURATION", "2s"), ("SET_RATIO", "0")];
    let ran = run(&mesh, &[&settings[..], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]].concat());
    assert_eq!(ran.code, 1, "{}", ran.out);
    let behind = format!("http://127.0.0.1:{}", mesh.nodes[2].port);
    let divergences = ran.results["divergences"].as_array().unwrap();
    assert!(!divergences.is_empty() && divergences.iter().all(|found| found["node"] == behind.as_str()), "{}", ran.out);
    assert!(ran.out.contains(&format!("node={behind} key=key-")), "{}", ran.out);
    // Each was read once more under a trace.
    for found in divergences {
        let (request, _) = mesh.nodes[2].traced(found["trace"].as_str().unwrap()).expect("it came to the node");
        assert!(request.contains(found["key"].as_str().unwrap()), "{request}: {found}");
    }
    assert!(ran.integrity("stale") > 0 && ran.integrity("missing") == 0);
    let stale_by_node = &ran.results["sweep"]["stale_by_node"];
    assert_eq!(*stale_by_node, serde_json::json!([0, 0, 100]), "{}", ran.out);
    assert_eq!(ran.results["sweep"]["lost"], 0);
}

#[test]
fn every_finding_names_its_trace_and_its_node_keeps_it() {
    // Of a read, of a write, and after the load.
    for (fault, op) in
        [(Fault::Corrupt, "GET one"), (Fault::LoseWrites, "final sweep, GET quorum"), (Fault::Rewind, "SET")]
    {
        let mesh = FakeMesh::start();
        mesh.nodes.iter().for_each(|node| node.misbehave(fault));
        // Nobody takes spans there; what nodes are asked to keep does not depend on it.
        let traces = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("TRACE_SAMPLE_RATIO", "0")];
        let ran = run(&mesh, &traces);
        assert_eq!(ran.code, 1, "{}", ran.out);
        let findings = ran.results["integrity"]["examples"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding["op"] == op), "{fault:?}: {}", ran.out);
        for finding in findings {
            let (trace, key) = (finding["trace"].as_str().unwrap(), finding["key"].as_str().unwrap());
            let (request, is_kept) = mesh.nodes.iter().find_map(|node| node.traced(trace)).expect("it came to a node");
            assert!(request.contains(key) && is_kept, "{request}: {finding}");
            assert!(ran.out.contains(trace), "{}", ran.out);
        }
    }
}

#[test]
fn a_node_that_counts_what_it_likes_makes_the_run_invalid() {
    for (fault, outcome) in [(Fault::Overcount, "operations"), (Fault::Undercount, "HIT_LOCAL")] {
        let mesh = FakeMesh::start();
        mesh.nodes[1].misbehave(fault);
        let ran = run(&mesh, &[("CHECK_EVERY", "300ms"), ("FINAL_SWEEP", "false")]);
        assert_eq!(ran.code, 2, "{fault:?}: {}", ran.out);
        let differences = ran.results["reconciliation"]["differences"].as_array().unwrap();
        assert!(differences.iter().all(|found| found["node"] == 1), "{differences:?}");
        assert!(differences.iter().any(|found| found["op"] == "GET" && found["outcome"] == outcome), "{differences:?}");
        let name = format!("the first: http://127.0.0.1:{} counted ", mesh.nodes[1].port);
        assert!(ran.out.contains("counts of client and nodes do not agree") && ran.out.contains(&name), "{}", ran.out);
        // Nodes that others use too count more than this client knows of.
        let ran = run(&mesh, &[("RECONCILE", "report"), ("FINAL_SWEEP", "false")]);
        assert_eq!(ran.code, 0, "{fault:?}: {}", ran.out);
        assert!(ran.out.contains(&format!("unexplained  http://127.0.0.1:{}", mesh.nodes[1].port)), "{}", ran.out);
    }
}

#[test]
fn what_nodes_turn_away_or_never_answer_has_a_name() {
    for (fault, field) in [(Fault::Overloaded, "shed"), (Fault::Hang, "timed_out"), (Fault::Close, "broken_off")] {
        let mesh = FakeMesh::start();
        mesh.nodes[1].misbehave(fault);
        let settings = [
            ("REQUEST_TIMEOUT", "100ms"),
            ("DURATION", "2s"),
            ("CONCURRENCY", "16"),
            ("ERRORS_MAX_PERCENT", "100"),
            ("FINAL_SWEEP", "false"),
            ("ENTRY", "strict"),
            ("PREFILL", "false"),
        ];
        let ran = run(&mesh, &settings);
        assert_eq!(ran.code, 0, "{fault:?}: {}", ran.out);
        let both = &ran.results["reconciliation"];
        assert!(both["ops"].as_array().unwrap().iter().any(|op| op[field].as_u64() > Some(0)), "{fault:?}: {both}");
        assert_eq!(both["differences"], serde_json::json!([]), "{fault:?}: {both}");
    }
}

#[test]
fn a_second_interrupt_skips_the_sweep() {
    let mesh = FakeMesh::start();
    let running = command(&mesh.targets(), &[("DURATION", "60s"), ("QUIESCENCE", "60s")]).spawn().unwrap();
    wait_for_prefill(&mesh);
    std::thread::sleep(Duration::from_millis(600));
    let began = Instant::now();
    for _ in 0..2 {
        send(&running, rustix::process::Signal::INT);
        std::thread::sleep(Duration::from_millis(500));
    }
    let (code, out) = told(&running.wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(10), "{out}");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("unknown: no final sweep"), "{out}");
}

#[test]
fn a_node_that_answers_503_or_closes_or_hangs_is_replaced_by_another() {
    for fault in [Fault::Unavailable, Fault::Close, Fault::Hang] {
        let mesh = FakeMesh::start();
        mesh.nodes[1].misbehave(fault);
        let ran = run(&mesh, &[("REQUEST_TIMEOUT", "700ms"), ("FINAL_SWEEP", "false"), ("FAILOVER_AFTER", "100ms")]);
        assert_eq!(ran.code, 0, "{fault:?}: {}", ran.out);
        assert_eq!(ran.totals("errors"), 0, "{fault:?}: {}", ran.out);
        assert!(ran.totals("failed_over") > 0, "{fault:?}: {}", ran.out);
    }
}

#[test]
fn a_node_that_answers_nobody_is_replaced_whatever_the_budget() {
    let mesh = FakeMesh::start();
    mesh.nodes[1].misbehave(Fault::Hang);
    let settings = [("REQUEST_TIMEOUT", "700ms"), ("FAILOVER_AFTER", "100ms"), ("EXTRA_TRIES_MAX_PERCENT", "0")];
    let ran = run(&mesh, &[&settings[..], &[("FINAL_SWEEP", "false"), ("CONCURRENCY", "16")]].concat());
    assert_eq!((ran.code, ran.totals("errors")), (0, 0), "{}", ran.out);
    assert!(ran.totals("failed_over") > 0 && ran.totals("extra_tries") >= ran.totals("failed_over"), "{}", ran.out);
    // Also one that falls silent with much on its way to it, each of which has seen it answer others.
    let mesh = FakeMesh::start();
    let running = [&settings[..], &[("FINAL_SWEEP", "false"), ("CONCURRENCY", "64"), ("DURATION", "3s")]].concat();
    let running = command(&mesh.targets(), &running).spawn().unwrap();
    wait_for_prefill(&mesh);
    std::thread::sleep(Duration::from_secs(1));
    mesh.nodes[1].misbehave(Fault::Hang);
    let (code, out) = told(&running.wait_with_output().unwrap());
    assert!(code == 0 && out.contains("| Errors: 0"), "{out}");
}

#[test]
fn nodes_that_are_slow_with_much_to_do_are_not_given_more() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::Busy(Duration::from_millis(50))));
    let settings = [("CONCURRENCY", "48"), ("KEYS", "20"), ("DURATION", "6s"), ("FINAL_SWEEP", "false")];
    let ran = run(&mesh, &settings);
    assert_eq!((ran.code, ran.totals("errors")), (0, 0), "{}", ran.out);
    let (extra, total) = (ran.totals("extra_tries"), ran.totals("total"));
    assert!(total > 100 && extra * 10 <= total, "{extra} extra tries of {total} operations: {}", ran.out);
}

#[test]
fn a_node_with_too_much_to_do_is_not_replaced_but_counted() {
    let mesh = FakeMesh::start();
    mesh.nodes[1].misbehave(Fault::Overloaded);
    let ran = run(&mesh, &[("FINAL_SWEEP", "false")]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    // A slow machine may answer late, which is another reason to try elsewhere; retries of what was shed would be as many.
    assert!(ran.totals("errors") > 10 && ran.totals("failed_over") * 10 < ran.totals("errors"), "{}", ran.out);
    assert_eq!(ran.results["errors"][0]["kind"], "overloaded (503)");
}

#[test]
fn strict_entry_counts_what_a_dead_node_costs() {
    let mesh = FakeMesh::start();
    mesh.nodes[2].misbehave(Fault::Close);
    let ran = run(&mesh, &[("ENTRY", "strict"), ("FINAL_SWEEP", "false")]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.totals("errors") > 10 && ran.totals("failed_over") == 0, "{}", ran.out);
    let errors = ran.results["errors"].as_array().unwrap();
    let count = |kind: &str| {
        let found = errors.iter().find(|error| error["kind"] == kind);
        found.map_or(0, |found| found["count"].as_u64().unwrap())
    };
    assert!(count("connection closed") > 10, "{}", ran.out);
    // The outcome of a write whose connection broke is unknown.
    assert!(ran.totals("indeterminate") > 0 && count("outcome unknown") == ran.totals("indeterminate"), "{}", ran.out);
    assert!(ran.out.contains("errors between 0.") && ran.out.contains("unknown      outcome of "), "{}", ran.out);
    let failed = ran.results["failed"].as_array().unwrap();
    let expected = |failed: &Value| match failed["op"].as_str() {
        Some("GET") => failed["error"] == "connection closed",
        _ => failed["error"] == "outcome unknown" && failed["detail"] == "connection closed",
    };
    assert!(failed.len() as u64 == (ran.totals("errors") + ran.totals("indeterminate")).min(1000), "{}", ran.out);
    assert!(failed.iter().filter(|failed| failed["node"] == 2).all(expected), "{failed:?}");
}

#[test]
fn a_miss_that_evictions_explain_is_no_lost_write() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::LoseWrites));
    // Lost at the prefill already: such keys are misses.
    let settings = [("SET_RATIO", "0"), ("KEYS", "400")];
    let lost = run(&mesh, &settings);
    assert_eq!(lost.code, 1, "{}", lost.out);
    assert!(lost.integrity("missing") > 0 && lost.results["sweep"]["lost"].as_u64().unwrap() > 0);
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::LoseWrites));
    let evicting = command(&mesh.targets(), &settings).spawn().unwrap();
    wait_for_prefill(&mesh);
    mesh.nodes[0].evict(20);
    let (code, out) = told(&evicting.wait_with_output().unwrap());
    assert_eq!(code, 0, "{out}");
    let at_the_top = out.lines().skip_while(|line| *line != "=== Mesh Bench Summary ===").nth(6).unwrap_or_default();
    assert!(
        matches(at_the_top, "Full: 20 entries were evicted, #/s; an evicted key is a miss, and no lost write"),
        "{out}"
    );
    let out = sentences(&out);
    let line = |name: &str| out.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default().trim();
    assert!(line("lost writes").starts_with("lost writes  0 of "), "{out}");
    assert!(line("missing").ends_with(" 0 misses of acknowledged keys"), "{out}");
    assert!(line("explained").contains(" keys gone in the final sweep: 20 evicted, 0 expired"), "{out}");
}

#[test]
fn more_keys_gone_than_were_evicted_are_lost() {
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.misbehave(Fault::LoseWrites));
    let results = tempfile::tempdir().unwrap();
    let results = results.path().join("results.json");
    let mut evicting = command(&mesh.targets(), &[("SET_RATIO", "0"), ("KEYS", "400")]);
    let evicting = evicting.env("RESULTS", &results).spawn().unwrap();
    wait_for_prefill(&mesh);
    mesh.nodes[0].evict(2);
    let (code, out) = told(&evicting.wait_with_output().unwrap());
    assert_eq!(code, 1, "{out}");
    let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    assert_eq!((&results["evicted"], &results["sweep"]["explained"]), (&2.into(), &2.into()), "{out}");
    assert!(results["sweep"]["lost"].as_u64().unwrap() > 0, "{out}");
    assert_eq!(results["integrity"]["lost"], results["sweep"]["lost"], "{out}");
    assert_eq!(results["integrity"]["missing"], 0, "reads of the same key may miss any number of times\n{out}");
}

#[test]
fn a_node_that_has_evicted_a_key_is_not_behind() {
    let settings = [("CHECK_EVERY", "100ms"), ("DURATION", "2500ms"), ("SET_RATIO", "0")];
    let told = |evicted: u64| {
        let mesh = FakeMesh::start();
        let running = command(&mesh.targets(), &settings).spawn().unwrap();
        wait_for_prefill(&mesh);
        mesh.nodes[1].misbehave(Fault::Evict);
        mesh.nodes[1].evict(evicted);
        told(&running.wait_with_output().unwrap())
    };
    let (code, out) = told(0);
    assert!(code == 1 && out.contains("comparisons found a node that stayed behind"), "{out}");
    let (code, out) = told(50);
    assert_eq!(code, 0, "{out}");
    assert!(sentences(&out).contains("nodes had nothing where an eviction explains it"), "{out}");
}

/// The run has taken its first counters once it has written something.
fn wait_for_prefill(mesh: &FakeMesh) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while mesh.nodes[0].written() == 0 {
        assert!(Instant::now() < deadline, "the prefill did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_kill_is_verified_and_told() {
    let mesh = FakeMesh::start();
    let kill = [("KILL_MODE", "target"), ("KILL_AFTER", "300ms"), ("KILL_TARGET", "2"), ("KILL_TOKEN", KILL_TOKEN)];
    let kill = [&kill[..], &[("FINAL_SWEEP", "false")]].concat();
    let ran = run(&mesh, &kill);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.results["faults"][0]["silent_at_s"].is_number(), "{}", ran.out);
    assert!(ran.totals("failed_over") > 0 && ran.totals("errors") == 0, "{}", ran.out);
    let mesh = FakeMesh::start();
    mesh.nodes.iter().for_each(|node| node.mortal.store(false, std::sync::atomic::Ordering::Relaxed));
    let ran = run(&mesh, &[&kill[..], &[("DURATION", "5600ms")]].concat());
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains(" had no effect: it still answers"), "{}", ran.out);
    let progress = ran.out.lines().find(|line| line.starts_with("[PROGRESS]")).expect("a line every five seconds");
    assert!(matches(progress, "[PROGRESS] t=5s ops=# ops/s=# err=0 wrong=0 p99=#ms"), "{progress}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let mesh = FakeMesh::start();
    let ran = run(&mesh, &[("RATE", "500"), ("DURATION", "2s"), ("FINAL_SWEEP", "false")]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!((900..=1002).contains(&ran.totals("total")), "{}", ran.out);
    assert!(ran.out.contains("GET service time"), "{}", ran.out);
}

#[test]
fn an_interrupt_still_gives_the_summary() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mesh = FakeMesh::start();
        let running = command(&mesh.targets(), &[("DURATION", "60s")]).spawn().unwrap();
        wait_for_prefill(&mesh);
        std::thread::sleep(Duration::from_millis(600));
        send(&running, signal);
        let began = Instant::now();
        let (code, out) = told(&running.wait_with_output().unwrap());
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(code, 0, "{out}");
        assert!(out.contains("=== Mesh Bench Summary ===") && out.contains("ended by a signal"), "{out}");
    }
}

fn send(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn unreachable_targets_are_named_within_five_seconds() {
    let began = Instant::now();
    let (code, out) = told(&command("http://127.0.0.1:1,http://no-such-host.invalid:8081", &[]).output().unwrap());
    assert_eq!(code, 2, "{out}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(out.contains("http://127.0.0.1:1: Connection refused"), "{out}");
    assert!(out.contains("http://no-such-host.invalid:8081: "), "{out}");
}

#[test]
fn bad_settings_end_the_runner_at_once() {
    for (name, value) in [
        ("DURATION", "0"),
        ("KEYS", "0"),
        ("SET_RATIO", "101"),
        ("KILL_MODE", "random"),
        ("TARGETS", "node1"),
        ("ENTRY", "loose"),
    ] {
        let (code, out) = told(&command("http://127.0.0.1:1", &[(name, value)]).output().unwrap());
        assert_eq!(code, 2, "{name}: {out}");
        let named = if name == "KILL_MODE" { "KILL_AFTER=" } else { &format!("{name}={value}: expected") };
        assert!(out.contains(named) && out.lines().count() == 1, "{out}");
    }
}
