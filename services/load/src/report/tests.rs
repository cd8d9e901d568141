//! A summary of everything at once fits a terminal of 80 columns.

use std::time::{Duration, Instant};

use clap::Parser;
use settings::COLUMNS;

use super::{
    Page, Report, first_screen,
    reconcile::{Difference, LossyNode, OpReconciled, OutcomeReconciled, Reconciliation},
    summary,
    verdict::Verdict,
};
use crate::{
    ErrorKind, LoadSettings, NodeIndex, Op, OutcomeClass, Phase, Run, ValueTtls,
    exec::{Divergence, Observed, Sample, Standstill},
    faults::{FaultRecord, ObservedEvent},
    history::{Finding, Judgement, Violation},
    stats::{KeptFor, LegPart, P99Reconciled, Recorder, Series, SlowRequest, SpanFates, SweepTally, TraceReport, Way},
};

#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    load: LoadSettings,
}

const HASH: &str = "0af7651916cd43dd8448eb211c80319c";

fn target(node: usize) -> String {
    format!("http://mesh-{node}.mesh-headless.bench.svc.cluster.local:8081")
}

/// A run of three nodes with long names in which everything has happened, with large figures.
pub(crate) fn full_report() -> Report {
    let arguments = [
        "test",
        "--keys=1000",
        "--rate=10000000",
        "--delete-ratio=20",
        "--value-bytes=100:70,1KiB:25,64KiB:5",
        "--warmup=1s",
    ];
    let load = Arguments::parse_from(arguments).load;
    let plan = load.plan((0..3).map(target).collect(), 2, &ValueTtls::Fixed(0));
    let run = Run::new(plan);
    let mut recorder = Recorder::new(3);
    let now = Instant::now();
    for (node, phase, op, outcome) in (0..3).flat_map(|node| {
        Phase::ALL.into_iter().flat_map(move |phase| {
            Op::ALL.into_iter().flat_map(move |op| OutcomeClass::ALL.map(|outcome| (node, phase, op, outcome)))
        })
    }) {
        for latency in [Duration::from_micros(7), Duration::from_millis(1234), Duration::from_secs(70)] {
            recorder.response.record(Series { phase, op, outcome, node: NodeIndex(node) }, latency);
            recorder.service[op as usize].record(latency);
            run.live[0].add(crate::Counter::Ops);
        }
    }
    let refused = format!("SET key-00049999 via {}: connection refused, version {HASH}: no quorum", target(2));
    for second in 0..90 {
        let kind = if second % 2 == 0 { ErrorKind::Closed } else { ErrorKind::Indeterminate };
        recorder.errors.add(kind, Duration::from_secs(second), || refused.clone());
    }
    (recorder.offered, recorder.dropped, recorder.backlog_high) = (1_234_567_890, 1_000_000_000, 50_000_001);
    (recorder.failed_over, recorder.extra_tries) = (1_234_567, 12_345_678);
    (recorder.late_max, recorder.lag_max) = (Duration::from_secs(400), Duration::from_secs(500));
    for violation in Violation::ALL {
        for _ in 0..3 {
            recorder.integrity.count(Judgement::Broken(violation), finding);
        }
    }
    recorder.integrity.count(Judgement::Stale(Duration::from_secs(1000)), finding);
    recorder.integrity.count(Judgement::Foreign { overwrites: true }, finding);
    recorder.sweep = SweepTally {
        keys: 20_000_000,
        left_out: 1_234_567,
        deleted: 1_234_567,
        expired: 1_234_567,
        unread: 15_000_000,
        stale_by_node: vec![1_234_567; 3],
        missing_by_node: vec![1_234_567; 3],
        failed_by_node: vec![1_234_567; 3],
        ..SweepTally::default()
    };
    assert!(now.elapsed() < Duration::from_secs(60), "it is made up, not measured");
    let observed =
        Observed { swept: true, load_time: Duration::from_secs(123_456), prefilled: 20_000_000, ..Observed::default() };
    let mut report = Report::new(&run.plan, &recorder, observed);
    happened(&mut report);
    report.verdict = Verdict::of(&report);
    report
}

fn finding(violation: Violation) -> Finding {
    Finding {
        kind: violation.name().into(),
        op: "GET quorum".to_owned(),
        key: "key-00049999".to_owned(),
        entry: target(0),
        served_by: Some(HASH.to_owned()),
        version: Some(HASH.to_owned()),
        acknowledged: Some(HASH.to_owned()),
        acknowledged_by: Some("2:123456".to_owned()),
        acknowledged_before_s: Some(12.345),
        session: Some(HASH.to_owned()),
        trace: Some(HASH.to_owned()),
        ..Finding::default()
    }
}

/// What the nodes, the faults and the traces add.
fn happened(report: &mut Report) {
    let sample = |at: u32| Sample {
        at_s: f64::from(at) / 2.0,
        ops_per_s: f64::from(at) * 1e5,
        errors: 9,
        p50_ms: 1.0,
        p99_ms: f64::from(at) * 99.0,
        ops: Vec::new(),
    };
    report.samples = (1..99).map(sample).collect();
    (report.prefill_s, report.evicted, report.expired) = (1234.5, 12_345_678, 12_345_678);
    report.evicted_age_s = Some(1234.5);
    (report.counters.hits, report.counters.misses) = (1_234_567_890, 1_234_567_890);
    (report.counters.size, report.counters.capacity) = (12_345_678_901, 123_456_789_012);
    report.cpu.node_us_per_op = vec![Some(123.4); 3];
    report.standstills = vec![Standstill { from_s: 40.0, to_s: 48.0 }];
    let event = |kind: &'static str, address: Option<&str>| ObservedEvent {
        at_s: 34.5,
        kind: kind.into(),
        node: target(1),
        address: address.map(str::to_owned),
    };
    report.observed = vec![event("restarted", Some("2001:db8:1234:5678:90ab:cdef:1234:5678"))];
    report.observed.extend((0..30).map(|_| event("joined", None)));
    report.not_whole = Some(format!("{} does not see {} alive", target(0), target(2)));
    report.divergences = vec![
        Divergence {
            at_s: 12.3,
            node: target(1),
            key: "key-00049999".to_owned(),
            has: HASH.to_owned(),
            has_nothing: false,
            newest: HASH.to_owned(),
            trace: Some(HASH.to_owned()),
        };
        9
    ];
    let fault = |kind: &'static str, deaths| {
        let fault = format!("{kind} {}+{} for=5s", target(0), target(1));
        let survivors =
            vec![crate::faults::Survivor { node: target(2), dead_at_s: Some(13.0), alive_at_s: Some(17.0) }];
        FaultRecord { fault, kind: kind.into(), survivors, errors: 1_234_567, ..FaultRecord::example(deaths, 10.0) }
    };
    let reason = format!("{} counts no packets dropped, and it still answers on every one of its links", target(1));
    report.faults = vec![
        fault("partition", 0),
        fault("crash", 1),
        FaultRecord { not_judged: Some(reason.clone()), late_s: Some(12.0), ..fault("pause", 0) },
        FaultRecord { failure: Some(reason), ..fault("duplicate", 0) },
        FaultRecord { begun_at_s: None, ..fault("storm", 3) },
    ];
    report.reconciliation = Some(reconciliation());
    let kept = crate::stats::Kept::ALL.map(|kept| (kept.name(), KeptFor { count: 1_234_567, traces: Vec::new() }));
    let spans = SpanFates {
        kept: 12_345_678,
        exported: 12_345_678,
        failed: 123_456,
        dropped: 123_456,
        asked: 123_456,
        not_asked: 1,
    };
    report.traces = Some(TraceReport { url: String::new(), spans, kept: kept.into() });
    report.slowest = [None, Some(12.3)].map(slow).to_vec();
}

fn slow(handler_ms: Option<f64>) -> SlowRequest {
    let leg = |outcome: &str| LegPart {
        peer: target(2).replace("http://", ""),
        outcome: outcome.to_owned(),
        ms: 12_345.678,
        peer_queue_ms: 12_345.6,
        own_queue_ms: 12_345.6,
    };
    SlowRequest {
        phase: Phase::InFault,
        op: Op::Delete,
        outcome: "HIT_REMOTE".into(),
        at_s: 123_456.7,
        node: 1,
        response_ms: 123_456.7,
        lag_ms: 12_345.6,
        client_queue_ms: 12_345.6,
        server_queue_ms: 12_345.6,
        residual_ms: 12_345.6,
        elsewhere_ms: 12_345.6,
        network_ms: 12_345.6,
        handler_ms,
        mesh_ms: handler_ms,
        way: Way {
            trace: None,
            url: Some(format!("http://jaeger:16686/trace/{HASH}")),
            elsewhere: Some((NodeIndex(2), "connection refused".to_owned())),
            legs: ["hedge cancelled", "ok", "timed out"].map(leg).to_vec(),
        },
    }
}

fn reconciliation() -> Reconciliation {
    let ms = 12_345.678;
    let p99 = P99Reconciled {
        response_ms: ms,
        service_ms: ms,
        nodes_ms: ms,
        nodes_bucket_ms: (ms, Some(ms)),
        prometheus_ms: Some(ms),
        told_ms: ms,
        samples: 12_345_678,
        gap_ms: ms,
        lag_ms: ms,
        client_queue_ms: ms,
        server_queue_ms: ms,
        residual_ms: ms,
        elsewhere_ms: ms,
        network_ms: ms,
        handler_ms: ms,
        mesh_ms: -ms,
        in_mesh_ms: ms,
        legs_ms: ms,
        legs_queued_ms: ms,
        unexplained_ms: ms,
        unexplained_percent: 99.9,
    };
    let many = 12_345_678;
    let op = OpReconciled {
        op: Op::Delete,
        outcomes: vec![OutcomeReconciled { outcome: "HIT_REMOTE", client: 1_234_567_890, nodes: 1_234_567_890 }],
        timed_out: many,
        broken_off: many,
        nodes_abandoned: many,
        shed: many,
        withheld: many,
        comparisons: many,
        unexplained: many,
        p99: Some(p99),
    };
    let lossy = |counts_since_s| LossyNode {
        node: 2,
        counts_since_s,
        unknowable: many,
        client_since: (many, many),
        node_since: many,
        unexplained: -12_345_678,
    };
    Reconciliation {
        is_binding: true,
        ops: vec![op],
        lossy_nodes: vec![lossy(None), lossy(Some(12.3))],
        prometheus: Some(format!("{} answers 503: no series of the nodes under these addresses", target(9))),
        differences: vec![Difference {
            node: 1,
            op: Op::Delete,
            outcome: "HIT_REMOTE",
            client: many,
            counted: many,
            unexplained: many,
        }],
    }
}

#[test]
fn a_write_concern_of_one_promises_no_order_of_writes() {
    let arguments = Arguments::parse_from(["test", "--keys=10"]);
    let run = Run::new(arguments.load.plan(vec![target(0)], 1, &ValueTtls::Fixed(0)));
    let mut recorder = Recorder::new(1);
    recorder.integrity.count(Judgement::Broken(Violation::OutOfOrder), finding);
    for (write_concern, is_broken) in [(None, true), (Some(2), true), (Some(1), false)] {
        let report = Report::new(&run.plan, &recorder, Observed { write_concern, ..Observed::default() });
        assert_eq!(!report.verdict.broken.is_empty(), is_broken, "{write_concern:?}: {:?}", report.verdict);
        let out = summary::render(&report, "", Page::new(Some(140)));
        let explained = out.contains("1 writes with too low a version: WRITE_CONCERN=1 promises no order");
        assert_eq!(explained, !is_broken, "{write_concern:?}: {out}");
    }
}

/// How many columns a line takes, without what colours it.
fn columns(line: &str) -> usize {
    textwrap::core::display_width(line)
}

#[test]
fn a_summary_of_everything_fits_80_columns() {
    let report = full_report();
    let out = summary::render(&report, "Results: results/20261128-211703-7c1e", Page::new(Some(COLUMNS)));
    let wide: Vec<_> = out.lines().filter(|line| columns(line) > COLUMNS).collect();
    assert!(wide.is_empty(), "{wide:#?}\n{out}");
    for section in
        ["Throughput", "Latency in ms", "Failures", "Integrity", "Faults", "Client and nodes", "Slowest", "Traces"]
    {
        assert!(out.contains(&format!("── {section}")), "{section}: {out}");
    }
    for list in ["BROKEN", "MISSED", "INVALID", "SUSPECT", "Verdict: FAIL", "Full: ", "no effect", "saw it dead"] {
        assert!(out.contains(list), "{list}: {out}");
    }
    // Its widest table makes use of them.
    assert_eq!(out.lines().map(columns).max(), Some(COLUMNS), "{out}");
}

#[test]
fn a_wider_terminal_has_longer_sentences_and_the_same_tables() {
    let report = full_report();
    let page = |terminal| summary::render(&report, "", Page::new(terminal));
    let (narrow, wide) = (page(Some(COLUMNS)), page(Some(140)));
    assert!(wide.lines().count() < narrow.lines().count());
    assert!(wide.lines().map(columns).all(|columns| columns <= 140), "{wide}");
    let is_table = |line: &&str| line.contains("──") || line.trim_start().starts_with("GET HIT_LOCAL");
    let table = |out: &str| out.lines().filter(is_table).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(table(&narrow), table(&wide));
}

#[test]
fn what_programs_look_for_stays_in_one_line_in_a_file() {
    let report = full_report();
    let out = summary::render(&report, "Results: results/20261128-211703-7c1e", Page::new(None));
    let out = anstream::adapter::strip_str(&out).to_string();
    let starts =
        ["Targets: [", "Total: ", "Hits: local=", "GET p50=", "Local cache counters (sum", "Full: ", "Results: "];
    let reasons =
        ["BROKEN ", "MISSED ", "INVALID ", "SUSPECT ", "CORRECTNESS  ", "OBJECTIVES   ", "MEASUREMENT  ", "Verdict: "];
    let is_fact = |line: &str| starts.iter().chain(&reasons).any(|start| line.starts_with(start));
    let facts: Vec<_> = out.lines().filter(|line| is_fact(line)).collect();
    let percentiles = facts.iter().find(|line| line.starts_with("GET p50=")).unwrap_or(&"");
    assert!(percentiles.contains("| SET p50=") && percentiles.ends_with("ms"), "{percentiles}");
    assert!(facts.iter().any(|line| line.contains("capacity=123456789012")), "{facts:#?}");
    let verdict = &report.verdict;
    for reason in [&verdict.broken, &verdict.missed, &verdict.invalid, &verdict.suspect].into_iter().flatten() {
        assert!(facts.iter().any(|line| line.ends_with(reason.as_str())), "{reason}: {facts:#?}");
    }
    let wide: Vec<_> = out.lines().filter(|line| !is_fact(line) && columns(line) > COLUMNS).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn the_first_screen_of_everything_fits_25_lines_of_80_columns() {
    let report = full_report();
    for terminal in [COLUMNS, 140] {
        let out = first_screen::first_screen(&report, Page::new(Some(terminal)));
        // One more line says where the rest is.
        assert!(out.lines().count() <= 24, "{} lines\n{out}", out.lines().count());
        assert!(out.lines().all(|line| columns(line) <= terminal), "{out}");
        let order =
            ["CORRECTNESS  ", "OBJECTIVES   ", "MEASUREMENT  ", "EXIT CODE    ", "Load ", "Outcomes ", "Response time"];
        let order = order.iter().chain(&["Fault ", "  recovered"]).map(|start| {
            let at = out.lines().position(|line| line.starts_with(start));
            at.unwrap_or_else(|| panic!("{start}: {out}"))
        });
        assert!(order.is_sorted(), "{out}");
        for word in ["BROKEN", "MISSED", "INVALID", "the guarantee was broken"] {
            assert!(out.contains(word), "{word}: {out}");
        }
    }
}

/// A run of so many reads of one node, and nothing else.
fn plain_report(arguments: &[&str], reads: u64) -> Report {
    let load = Arguments::parse_from(["test"].iter().chain(arguments)).load;
    let plan = load.plan(vec!["http://127.0.0.1:8081".to_owned()], 1, &ValueTtls::Fixed(0));
    let mut recorder = Recorder::new(1);
    let series = Series { phase: Phase::Steady, op: Op::Get, outcome: OutcomeClass::Local, node: NodeIndex(0) };
    for read in 0..reads {
        recorder.response.record(series, Duration::from_micros(1000 + read));
    }
    recorder.offered = reads;
    let observed = Observed { load_time: Duration::from_secs(1), swept: true, ..Observed::default() };
    Report::new(&plan, &recorder, observed)
}

#[test]
fn the_first_screen_of_a_plain_run_answers_in_a_few_lines() {
    let screen = |report: &Report| {
        let out = first_screen::first_screen(report, Page::new(Some(COLUMNS)));
        anstream::adapter::strip_str(&out).to_string()
    };
    let out = screen(&plain_report(&["--objectives=get.p99<5ms"], 2000));
    for line in [
        "CORRECTNESS  PASS      0 lost, 0 wrong; 0 keys read back from every node",
        "OBJECTIVES   PASS      get.p99<5ms: 2.980 ms, 40 % below",
        "MEASUREMENT  VALID",
        "EXIT CODE    0",
        "Outcomes     GET 100 % local hits · 0 errors",
        "  GET                         2 000    2.000    2.900    2.980        –    3.000",
        "  –: too few operations for this percentile",
    ] {
        assert!(out.lines().any(|found| found == line), "{line}:\n{out}");
    }
    assert!(out.lines().count() <= 15 && !out.contains("Fault") && !out.contains("Service time"), "{out}");
    let unchecked = screen(&plain_report(&["--check=off"], 2000));
    assert!(unchecked.contains("CORRECTNESS  UNCHECKED CHECK=off"), "{unchecked}");
    let open = screen(&plain_report(&["--rate=2000"], 2000));
    assert!(
        open.contains("open loop, 2 000 ops/s offered, 2 000 achieved;") && open.contains("Service time, ms"),
        "{open}"
    );
}

#[test]
fn what_the_run_did_not_order_is_named_with_its_time() {
    let report = full_report();
    let screen = first_screen::first_screen(&report, Page::new(Some(COLUMNS)));
    assert!(screen.contains("\nNot ordered  1 restarted, 30 joined; first at 34.5 s"), "{screen}");
    let summary = report.summary("", Page::new(None));
    let lines: Vec<_> = summary.lines().filter(|line| line.contains("at 34.5 s ")).collect();
    assert_eq!(lines.len(), 20, "{summary}");
    assert!(lines[0].starts_with("  not ordered  at 34.5 s ") && summary.contains("and 11 more"), "{summary}");
}

#[test]
fn an_objective_rests_on_its_measurement_and_takes_the_place_of_the_limit_of_errors() {
    let mut report = plain_report(&["--objectives=get.p99<5ms"], 2000);
    assert_eq!(report.verdict.exit_code, 0, "{:?}", report.verdict);
    report.standstills = vec![Standstill { from_s: 0.1, to_s: 0.5 }];
    assert_eq!(Verdict::of(&report).exit_code, 2, "latency cannot be judged");
    let mut report = plain_report(&["--objectives=errors<5%"], 2000);
    report.standstills = vec![Standstill { from_s: 0.1, to_s: 0.5 }];
    assert_eq!(Verdict::of(&report).exit_code, 0);
    report.totals.errors = 20;
    assert!(Verdict::of(&report).missed.is_empty(), "ERRORS_MAX_PERCENT is not judged beside it");
    report.setup.objectives = Default::default();
    assert_eq!(Verdict::of(&report).missed.len(), 1);
}
