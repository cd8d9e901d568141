//! A report as text. The first lines have the form that existing scripts look for; what follows is for people.

use std::time::Duration;

use super::{
    Page, Report, Row, fault_table, max_rate_table,
    numbers::{cell, count_cell, grouped, millis, ms, percent, shortened, sparkline, without_scheme},
    reconcile_table, slow_table,
    verdict_lines::{GREEN, RED, VerdictLine, YELLOW},
};
use crate::{Violation, stats::SweepTally};

/// The latencies' labels, with two columns before them and one behind.
const LABEL_MAX: usize = 25;

/// A curve and its lowest and highest value stand in one line; a curve of fewer columns shows nothing.
const CURVE_MAX: usize = 44;
const CURVE_LINE_MAX: usize = 65;

/// The lines that programs look for, then all tables; `place` is where the results are, and the verdicts come last.
#[must_use]
pub(super) fn render(report: &Report, place: &str, mut page: Page) -> String {
    contract(&mut page, report);
    tables_of(&mut page, report);
    verdict(&mut page, report, place);
    page.finish()
}

/// All tables.
#[must_use]
pub(super) fn details(report: &Report, mut page: Page) -> String {
    tables_of(&mut page, report);
    page.finish()
}

fn tables_of(out: &mut Page, report: &Report) {
    max_rate_table::write(out, report);
    throughput(out, report);
    tables(out, report);
    errors(out, report);
    integrity(out, report);
    fault_table::write(out, &report.faults, &report.repeated);
    fault_table::write_observed(out, &report.observed, &report.faults);
    reconcile_table::write(out, report);
    slow_table::write(out, report);
}

fn contract(out: &mut Page, report: &Report) {
    let totals = &report.totals;
    let hits = totals.hits_local + totals.hits_remote;
    out.fact("=== Mesh Bench Summary ===");
    out.fact(&format!("Targets: [{}]", report.setup.targets.join(" ")));
    out.fact(&format!(
        "Total: {} | GETs: {} | SETs: {} | Errors: {}",
        totals.total, totals.gets, totals.sets, totals.errors
    ));
    out.fact(&format!(
        "Hits: local={} remote={} | Miss={} | WrongValue={} | HitRatio={:.2}%",
        totals.hits_local,
        totals.hits_remote,
        totals.misses,
        report.integrity.wrong_values(),
        percent(hits, hits + totals.misses)
    ));
    let op = |name: &str| {
        let row = report.rows.iter().find(|row| row.table == "all" && row.label == name);
        let of = |field: fn(&Row) -> f64| ms(row.map_or(0.0, field));
        let (p50, p95) = (of(|row| row.p50_ms), of(|row| row.p95_ms));
        let (p99, p999) = (of(|row| row.p99_ms), of(|row| row.p999_ms));
        format!("{name} p50={p50}ms p95={p95}ms p99={p99}ms p99.9={p999}ms")
    };
    if out.is_terminal() {
        out.fact(&op("GET"));
        out.fact(&op("SET"));
    } else {
        out.fact(&format!("{} | {}", op("GET"), op("SET")));
    }
    let counters = &report.counters;
    out.fact(&format!(
        "Local cache counters (sum across nodes): hits={} miss={} local_hit_ratio={:.2}% evictions={} expirations={} \
         size={} capacity={}",
        counters.hits,
        counters.misses,
        percent(counters.hits, counters.hits + counters.misses),
        counters.evictions,
        counters.expirations,
        counters.size,
        counters.capacity
    ));
    if report.evicted > 0 {
        let rate = report.evicted as f64 / (report.prefill_s + report.load_s).max(1.0);
        let (entries, rate) = (grouped(report.evicted), grouped(rate as u64));
        let age = report.evicted_age_s.map(|age| format!(", {age:.1} s old on the average")).unwrap_or_default();
        out.fact(&format!(
            "Full: {entries} entries were evicted, {rate}/s{age}; an evicted key is a miss, and no lost write"
        ));
    }
}

fn throughput(out: &mut Page, report: &Report) {
    out.heading("Throughput");
    let (totals, setup) = (&report.totals, &report.setup);
    let ended = if report.interrupted { ", ended by a signal" } else { "" };
    let rate = grouped(totals.ops_per_s.round() as u64);
    out.field("rate", &format!("{rate} ops/s for {:.1} s{ended}", report.load_s));
    out.field("load", &format!("{}, {} threads, {}", setup.loop_words(), setup.threads, setup.mix()));
    out.field("seed", &setup.seed.to_string());
    out.field("keys", &setup.key_words());
    if report.prefill_s > 0.0 {
        let keys = format!("{} of {}", grouped(report.prefilled), grouped(setup.keys.count().into()));
        out.field("prefill", &format!("{keys} keys in {:.1} s", report.prefill_s));
    }
    if let Some(lag) = &report.lag {
        let (achieved, offered) = (grouped(totals.scheduled()), grouped(lag.offered));
        let share = percent(totals.scheduled(), lag.offered);
        out.field("achieved", &format!("{share:.1} % of the schedule: {achieved} of {offered} operations"));
        let lag = format!("{:.1} ms at most, backlog {}, given up {}", lag.max_ms, lag.backlog_max, lag.dropped);
        out.field("lag", &lag);
    }
    let cpu = &report.cpu;
    let who = if setup.nodes_within { "client and nodes" } else { "client" };
    let client = format!("{who} {:.0} % of one core, {:.1} µs/op", cpu.client_percent, cpu.client_us_per_op);
    let nodes: Vec<_> = cpu.node_us_per_op.iter().flatten().map(|us| format!("{us:.1}")).collect();
    let nodes = if nodes.is_empty() { String::new() } else { format!("; nodes {} µs/op", nodes.join(" + ")) };
    out.field("CPU", &format!("{client}{nodes}"));
    curves(out, report)
}

fn curves(out: &mut Page, report: &Report) {
    if report.samples.len() < 4 {
        return;
    }
    let mut curve = |name: &str, value: fn(&crate::exec::Sample) -> f64, text: fn(f64) -> String, unit: &str| {
        let values: Vec<_> = report.samples.iter().map(value).collect();
        let (low, high) = (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
        let range = format!("  {} to {}{unit}", text(low), text(high));
        let columns = CURVE_MAX.min(CURVE_LINE_MAX.saturating_sub(range.len()));
        out.field(name, &format!("{}{range}", sparkline(&values, columns)));
    };
    curve("ops/s", |sample| sample.ops_per_s, |rate| grouped(rate as u64), "");
    curve("p99", |sample| sample.p99_ms, cell, " ms");
}

fn tables(out: &mut Page, report: &Report) {
    out.heading(if report.max_rate.is_some() { "Latency in ms, over all steps" } else { "Latency in ms" });
    let phases = report.rows.iter().filter(|row| row.table == "phase" && row.label.starts_with("GET")).count();
    let line = |label: &str, count: &str, cells: [&str; 6]| {
        let cells = cells.map(|cell| format!("{cell:>7}"));
        format!("  {label:<LABEL_MAX$} {count:>10}{}", cells.concat())
    };
    out.line(&line("", "count", ["mean", "p50", "p95", "p99", "p99.9", "max"]));
    for table in ["all", "outcome", "node", "phase", "service"] {
        if table == "phase" && phases < 2 {
            continue;
        }
        for row in report.rows.iter().filter(|row| row.table == table) {
            let (op, rest) = row.label.split_once(' ').unwrap_or((&row.label, ""));
            let label = shortened(format!("{op} {}", without_scheme(rest)).trim_end(), LABEL_MAX);
            let cells = [row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms, row.p999_ms, row.max_ms].map(cell);
            out.line(&line(&label, &count_cell(row.count), cells.each_ref().map(String::as_str)));
        }
        if matches!(table, "all" | "outcome" | "node") {
            out.gap();
        }
    }
    out.close();
}

fn errors(out: &mut Page, report: &Report) {
    out.heading("Failures");
    let totals = &report.totals;
    let share = percent(totals.errors, totals.total);
    out.field("errors", &format!("{} ({share:.3} % of all operations)", grouped(totals.errors)));
    if totals.indeterminate > 0 {
        let share = percent(totals.indeterminate, totals.total);
        let words = format!("outcome of {} writes ({share:.3} % of all operations)", grouped(totals.indeterminate));
        out.field("unknown", &words);
    }
    let share = percent(totals.extra_tries, totals.total);
    let extra = format!("{} extra tries ({share:.3} % of all operations)", grouped(totals.extra_tries));
    out.field("fail-overs", &format!("{} answered by a second node; {extra}", grouped(totals.failed_over)));
    for error in &report.errors {
        out.item(2, &format!("{:>9} × {}", grouped(error.count), error.kind));
        for window in error.windows.iter().take(4) {
            let (from, to) = (window.from_s, window.to_s);
            out.item(14, &format!("errors between {from:.1}s and {to:.1}s: {}", grouped(window.count)));
        }
        if error.windows.len() > 4 {
            out.item(14, &format!("and in {} later windows", error.windows.len() - 4));
        }
        out.item(14, &format!("first: {}", error.first));
    }
}

fn integrity(out: &mut Page, report: &Report) {
    out.heading("Integrity");
    if !report.setup.check {
        return out.field("not checked", "CHECK=off");
    }
    let found = &report.integrity;
    let of = |violation| grouped(found.of(violation));
    let reads = report.totals.hits_local + report.totals.hits_remote;
    out.field("wrong object", &of(Violation::WrongObject));
    let (unwritten, changed) = (of(Violation::Unwritten), of(Violation::VersionChanged));
    out.field("corrupt", &format!("{}, unwritten {unwritten}, version changed {changed}", of(Violation::Corrupt)));
    out.field("missing", &format!("{} misses of acknowledged keys", of(Violation::Missing)));
    let lost = report.sweep.as_ref().map_or_else(
        || "unknown: no final sweep".to_owned(),
        |sweep| format!("{} of {} keys{}", of(Violation::Lost), grouped(sweep.keys), remarks(sweep)),
    );
    out.field("lost writes", &lost);
    explained(out, report);
    out.field("order", &format!("{} acknowledged with too low a version", of(Violation::OutOfOrder)));
    let (quorum, session) = (of(Violation::StaleQuorum), of(Violation::SessionBroken));
    let asked = report.setup.consistency.name();
    let too_old = format!("{quorum} quorum reads, {session} session reads (the load read at {asked})");
    out.field("too old", &too_old);
    let (resurrected, outlived) = (of(Violation::Resurrected), of(Violation::Outlived));
    out.field("resurrected", &format!("{resurrected} deleted, refused or overwritten, {outlived} expired"));
    let stale = format!("{} reads ({:.4} %)", grouped(found.stale), percent(found.stale, reads));
    let age = |ms: f64| millis(Duration::from_secs_f64(ms / 1e3));
    let ages = if found.stale > 0 {
        format!(", age p50 {} ms, max {} ms", age(report.stale_age_p50_ms), age(report.stale_age_max_ms))
    } else {
        String::new()
    };
    out.field("stale", &format!("{stale}{ages}"));
    if found.foreign > 0 {
        out.field("foreign", &format!("{} values of another run", grouped(found.foreign)));
    }
    let divergences = report.unexplained_divergences();
    let evicted = match report.divergences.len() - divergences {
        0 => String::new(),
        evicted => format!(", and {evicted} nodes had nothing where an eviction explains it"),
    };
    out.field("divergence", &format!("{divergences} in {} comparisons{evicted}", report.comparisons));
    for divergence in report.divergences.iter().take(5) {
        let (at_s, node, key) = (divergence.at_s, &divergence.node, &divergence.key);
        let trace = divergence.trace.iter().map(|trace| format!(", trace {trace}")).collect::<String>();
        out.item(
            4,
            &format!("{at_s:.1}s {key} at {node}: has {}, newest {}{trace}", divergence.has, divergence.newest),
        );
    }
    if let Some(sweep) = report.sweep.as_ref().filter(|_| report.setup.guarantee.has_replicas()) {
        sweep_nodes(out, report, sweep);
    }
    found.examples.iter().for_each(|example| out.item(4, &example.line()));
}

/// What would break the guarantee, if nothing explained it.
fn explained(out: &mut Page, report: &Report) {
    let what = [
        (Violation::Missing, "misses"),
        (Violation::Lost, "keys gone in the final sweep"),
        (Violation::StaleQuorum, "older values in quorum reads"),
        (Violation::SessionBroken, "older values in session reads"),
        (Violation::Resurrected, "values back"),
        (Violation::OutOfOrder, "writes with too low a version"),
    ];
    let what = what.map(|(kind, words)| (report.integrity.explained(kind), words));
    let what: Vec<_> = what.iter().filter(|(count, _)| *count > 0).collect();
    if what.is_empty() {
        return;
    }
    let what: Vec<_> = what.iter().map(|(count, words)| format!("{} {words}", grouped(*count))).collect();
    out.field("explained", &format!("{}: {}", what.join(", "), report.explanations().join("; ")));
}

fn remarks(sweep: &SweepTally) -> String {
    let mut text = String::new();
    let remarks = [
        (sweep.deleted, "are deleted"),
        (sweep.expired, "have expired"),
        (sweep.unread, "could not be read"),
        (sweep.left_out, "more were left out, since nodes evict and the sweep ends after as long as the load took"),
    ];
    for (count, what) in remarks {
        if count > 0 {
            text.push_str(&format!(", {} {what}", grouped(count)));
        }
    }
    text
}

fn sweep_nodes(out: &mut Page, report: &Report, sweep: &SweepTally) {
    for (node, target) in report.setup.targets.iter().enumerate() {
        let (stale, missing) = (sweep.stale_by_node[node], sweep.missing_by_node[node]);
        let failed = match sweep.failed_by_node[node] {
            0 => String::new(),
            failed => format!(", {} not answered", grouped(failed)),
        };
        out.item(4, &format!("after the run {target}: {} stale, {} missing{failed}", grouped(stale), grouped(missing)));
    }
}

fn verdict(out: &mut Page, report: &Report, place: &str) {
    let verdict = &report.verdict;
    out.gap();
    if !place.is_empty() {
        out.fact(place);
    }
    let lists = [
        ("BROKEN ", RED, &verdict.broken),
        ("MISSED ", RED, &verdict.missed),
        ("INVALID", YELLOW, &verdict.invalid),
        ("SUSPECT", YELLOW, &verdict.suspect),
    ];
    for (word, style, reasons) in lists {
        for reason in reasons {
            out.fact(&format!("{style}{word}{style:#} {reason}"));
        }
    }
    report.max_rate.iter().for_each(|found| out.fact(&max_rate_table::fact(found)));
    VerdictLine::all(report).iter().for_each(|line| out.fact(&line.text()));
    let (word, style) = match verdict.exit_code {
        0 => ("PASS", GREEN),
        1 => ("FAIL", RED),
        _ => ("INVALID RUN", YELLOW),
    };
    out.fact(&format!("{style}Verdict: {word} (exit code {}){style:#}", verdict.exit_code));
}
