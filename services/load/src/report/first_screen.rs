//! What a terminal shows after a run, in the order of a reader's questions: was the cache right, can the measurement be believed, how
//! fast was it, what did the fault do, where did the time go. It fits a screen of 25 lines, with one left for where the rest is.

use super::{
    Cpu, Page, Report, Row, max_rate_table,
    numbers::{cell, count_cell, grouped, percent, shortened, sparkline, without_scheme},
    objectives::samples_needed,
    screen::{Rank, Screen},
    verdict::Measurement,
    verdict_lines::{GREEN, RED, VerdictLine, YELLOW},
};
use crate::{
    Op, Phase,
    exec::Sample,
    faults::{FaultRecord, ObservedEvent},
    stats::P99Reconciled,
};

/// The columns of a label in the tables, before the count.
const LABEL_COLUMNS: usize = 25;

/// The columns before the three phases of a fault, and of each.
const FAULT_COLUMNS: usize = 53;
const PHASE_COLUMNS: usize = 9;

/// Rows of one table are told apart if their 99th percentiles differ by more than this factor, and each has as many operations.
const DIFFERS_BY: f64 = 1.2;
const DIFFERS_OF_MIN: u64 = 10_000;

/// Parts of a response time below this share are left out.
const SHARE_MIN_PERCENT: f64 = 1.0;

const CURVE_COLUMNS: usize = 40;

/// The whole screen.
#[must_use]
pub(crate) fn first_screen(report: &Report, page: Page) -> String {
    let mut screen = Screen::new(page);
    title(&mut screen, report);
    verdicts(&mut screen, report);
    screen.gap();
    load(&mut screen, report);
    if let Some(found) = &report.max_rate {
        max_rate_table::show(&mut screen, found);
        return screen.finish();
    }
    outcomes(&mut screen, report);
    screen.gap();
    latency(&mut screen, report);
    screen.gap();
    faults(&mut screen, report);
    observed(&mut screen, &report.observed);
    for op in Op::ALL {
        parts(&mut screen, report, op);
    }
    curves(&mut screen, &report.samples);
    cpu(&mut screen, report);
    screen.finish()
}

fn title(out: &mut Screen, report: &Report) {
    let setup = &report.setup;
    let place = match setup.is_local() {
        _ if setup.nodes_within => " in this process",
        true => " on loopback",
        false => "",
    };
    let ended = if report.interrupted { ", ended by a signal" } else { "" };
    let (version, nodes, load_s, seed) = (env!("CARGO_PKG_VERSION"), setup.targets.len(), report.load_s, setup.seed);
    let nodes = format!("{nodes} node{}{place}", if nodes == 1 { "" } else { "s" });
    out.sentence(Rank::Always, &format!("Mesh Bench {version} · {nodes} · {load_s:.1} s{ended} · seed {seed}"));
}

fn verdicts(out: &mut Screen, report: &Report) {
    for line in VerdictLine::all(report) {
        out.sentence(Rank::Always, &line.text());
        for reason in line.further.iter().take(2) {
            out.field(Rank::Reasons, "", &format!("{:10}{reason}", ""));
        }
    }
    let verdict = &report.verdict;
    let would_be_2 = verdict.exit_code == 0 && verdict.measurement == Measurement::Suspect;
    let (style, why) = match verdict.exit_code {
        0 if would_be_2 && report.max_rate.is_some() => (GREEN, "the rate is a lower bound"),
        0 if would_be_2 => (GREEN, "would be 2 with objectives on latency: it cannot be judged"),
        0 => (GREEN, ""),
        1 if verdict.broken.is_empty() => (RED, "an objective was missed"),
        1 => (RED, "the guarantee was broken"),
        _ if verdict.invalid.is_empty() => (YELLOW, "objectives cannot be judged by a suspect measurement"),
        _ => (YELLOW, "the run proves nothing"),
    };
    let width = if why.is_empty() { 0 } else { 9 };
    let line = format!("{:<13}{style}{:<width$}{style:#} {why}", "EXIT CODE", verdict.exit_code);
    out.sentence(Rank::Always, line.trim_end());
}

fn load(out: &mut Screen, report: &Report) {
    let setup = &report.setup;
    let totals = &report.totals;
    let scheduled = percent(totals.scheduled(), totals.total) / 100.0;
    let achieved = grouped((totals.ops_per_s * scheduled).round() as u64);
    let rate = match (setup.rate, &report.lag) {
        (Some(rate), Some(lag)) => {
            let given_up = if lag.dropped > 0 { format!(", {} given up", grouped(lag.dropped)) } else { String::new() };
            format!("open loop, {} ops/s offered, {achieved} achieved{given_up}", grouped(rate as u64))
        }
        _ if setup.find_max => setup.loop_words(),
        _ => format!("{}, {achieved} ops/s", setup.loop_words()),
    };
    out.field(Rank::Always, "Load", &format!("{rate}; {}; {}", setup.mix(), setup.key_words()));
}

/// The share of each outcome, and what failed.
fn outcomes(out: &mut Screen, report: &Report) {
    let totals = &report.totals;
    let mut parts = Vec::new();
    let answered = totals.hits_local + totals.hits_remote + totals.misses;
    let share = |count: u64, what: &str| {
        // What happened is never shown as nothing, and what did not happen always never as all.
        let percent = percent(count, answered);
        let digits = if count == answered || (1.0..99.0).contains(&percent) { 0 } else { 2 };
        (count > 0).then(|| format!("{percent:.digits$} % {what}"))
    };
    let hits = [(totals.hits_local, "local hits"), (totals.hits_remote, "remote hits"), (totals.misses, "misses")];
    let gets: Vec<_> = hits.into_iter().filter_map(|(count, what)| share(count, what)).collect();
    if !gets.is_empty() {
        parts.push(format!("GET {}", gets.join(", ")));
    }
    for op in [Op::Set, Op::Delete] {
        let name = op.name();
        let done = report.rows.iter().find(|row| row.table == "outcome" && row.label == format!("{name} OK"));
        parts.extend(done.map(|row| format!("{name} {} ok", grouped(row.count))));
    }
    if totals.indeterminate > 0 {
        let share = percent(totals.indeterminate, totals.total);
        parts.push(format!("{} outcome unknown ({share:.3} %)", grouped(totals.indeterminate)));
    }
    let share =
        if totals.errors > 0 { format!(" ({:.3} %)", percent(totals.errors, totals.total)) } else { String::new() };
    parts.push(format!("{} errors{share}", grouped(totals.errors)));
    if totals.backfills > 0 {
        parts.push(format!("{} backfills", grouped(totals.backfills)));
    }
    if totals.extra_tries > 0 {
        parts.push(format!("{} extra tries", grouped(totals.extra_tries)));
    }
    out.field(Rank::Always, "Outcomes", &parts.join(" · "));
    for error in report.errors.iter().take(2) {
        out.field(Rank::Errors, "", &format!("{} × {}, first {}", grouped(error.count), error.kind, error.first));
    }
    let stale = report.integrity.stale;
    if stale > 0 {
        let share = percent(stale, totals.hits_local + totals.hits_remote);
        let age = format!("age p50 {} ms, max {} ms", cell(report.stale_age_p50_ms), cell(report.stale_age_max_ms));
        out.field(Rank::Errors, "Stale reads", &format!("{} ({share:.4} %), {age}", grouped(stale)));
    }
}

fn latency(out: &mut Screen, report: &Report) {
    let names = ["count", "p50", "p95", "p99", "p99.9", "max"].map(str::to_owned);
    out.line(Rank::Always, &table_line("Response time, ms", &names));
    let is_dashed = table(out, report, "all", Rank::Always);
    for (name, rank) in [("outcome", Rank::Outcomes), ("node", Rank::Nodes)] {
        if Op::ALL.into_iter().any(|op| differ(report, name, op)) {
            table(out, report, name, rank);
        }
    }
    if report.lag.is_some() {
        let dash = if is_dashed { "; –: too few" } else { "" };
        let title = format!("Service time, ms: since the send (response: since its schedule{dash})");
        out.line(Rank::Service, &title);
        table(out, report, "service", Rank::Service);
    } else if is_dashed {
        out.line(Rank::Legend, "  –: too few operations for this percentile");
    }
}

/// Whether the rows of this operation differ in their 99th percentile, as far as they have enough operations.
fn differ(report: &Report, table: &str, op: Op) -> bool {
    let rows = report.rows.iter().filter(|row| row.table == table && row.label.starts_with(op.name()));
    let p99s = rows.filter(|row| row.count >= DIFFERS_OF_MIN).map(|row| row.p99_ms);
    let (low, high) = p99s.fold((f64::MAX, 0.0_f64), |(low, high), p99| (low.min(p99), high.max(p99)));
    high > low * DIFFERS_BY
}

/// The rows of one table; gives whether one of their percentiles is left out.
fn table(out: &mut Screen, report: &Report, name: &str, rank: Rank) -> bool {
    let mut is_dashed = false;
    for row in report.rows.iter().filter(|row| row.table == name) {
        let (op, rest) = row.label.split_once(' ').unwrap_or((&row.label, ""));
        let rest = if name == "service" { "" } else { without_scheme(rest) };
        let label = format!("  {op} {rest}");
        let cells = cells(row);
        is_dashed |= cells.iter().any(|cell| cell == "–");
        out.line(rank, &table_line(label.trim_end(), &cells));
    }
    is_dashed
}

fn cells(row: &Row) -> [String; 6] {
    let of = |rank: f64, ms: f64| if row.count < samples_needed(rank) { "–".to_owned() } else { cell(ms) };
    [
        count_cell(row.count),
        of(50.0, row.p50_ms),
        of(95.0, row.p95_ms),
        of(99.0, row.p99_ms),
        of(99.9, row.p999_ms),
        cell(row.max_ms),
    ]
}

fn table_line(label: &str, cells: &[String; 6]) -> String {
    let [count, percentiles @ ..] = cells;
    let percentiles: String = percentiles.iter().map(|cell| format!("{cell:>9}")).collect();
    let label = shortened(label, LABEL_COLUMNS);
    format!("{label:<LABEL_COLUMNS$}{count:>10}{percentiles}").trim_end().to_owned()
}

/// Before, during and after all faults, and how the mesh recovered from them.
fn faults(out: &mut Screen, report: &Report) {
    let Some(first) = report.faults.first() else { return };
    let times = match (first.begun_at_s, first.ended_at_s) {
        _ if report.faults.len() > 1 => format!("{} faults", report.faults.len()),
        (None, _) => "did not start".to_owned(),
        (Some(begun), None) => format!("{begun:.2} s to the end"),
        (Some(begun), Some(ended)) => format!("{begun:.2}–{ended:.2} s"),
    };
    let names: Vec<_> =
        report.faults.iter().map(|fault| fault.fault.replace("https://", "").replace("http://", "")).collect();
    let width = FAULT_COLUMNS - 13 - times.chars().count() - 3;
    let what = if report.faults.len() > 1 { names.join(", ") } else { names.concat() };
    let what = format!("{:<13}{}, {times}", "Fault", shortened(&what, width));
    let phases = [Phase::Steady, Phase::InFault, Phase::Recovered];
    out.line(Rank::Always, &fault_line(&what, &["before", "during", "after"].map(str::to_owned)));
    for op in Op::ALL {
        let p99 = phases.map(|phase| {
            let label = format!("{} {}", op.name(), phase.name());
            let row = report.rows.iter().find(|row| row.table == "phase" && row.label == label);
            row.filter(|row| row.count >= samples_needed(99.0)).map(|row| cell(row.p99_ms))
        });
        if p99.iter().any(Option::is_some) {
            let rank = if op == Op::Get { Rank::Always } else { Rank::SecondOperation };
            let p99 = p99.map(|p99| p99.unwrap_or_else(|| "–".to_owned()));
            out.line(rank, &fault_line(&format!("  {} p99, ms", op.name()), &p99));
        }
    }
    let failed = phases.map(|phase| grouped(report.failed_by_phase[phase.index()]));
    out.line(Rank::Always, &fault_line("  errors + outcome unknown", &failed));
    out.field(Rank::Always, "  recovered", &recovered(&report.faults));
}

/// How many nodes did what that the run had not ordered, and the first of it.
fn observed(out: &mut Screen, observed: &[ObservedEvent]) {
    let Some(first) = observed.first() else { return };
    let count = |kind| observed.iter().filter(|event| event.kind == kind).count();
    let counts = ["restarted", "left", "dead", "joined"].map(|kind| (count(kind), kind));
    let counts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    let first = format!("{:.1} s {}", first.at_s, without_scheme(&first.words()));
    out.field(Rank::Always, "Not ordered", &format!("{}; first at {first}", counts.join(", ")));
}

fn fault_line(label: &str, cells: &[String; 3]) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:>PHASE_COLUMNS$}")).collect();
    format!("{label:<FAULT_COLUMNS$}{cells}")
}

/// What is shown of one fault's recovery, or of all together.
fn recovered(faults: &[FaultRecord]) -> String {
    if let [only] = faults {
        let evidence = only.effect.map_or_else(String::new, |effect| format!("; {effect}"));
        let when = match (&only.failure, only.ended_at_s, only.recovered_at_s) {
            (Some(_), ..) => "no effect".to_owned(),
            (_, Some(ended), Some(at)) => format!("all replicas in sync {:.2} s after its end", at - ended),
            (_, None, Some(at)) => format!("all replicas in sync at {at:.2} s"),
            (_, _, None) => "not seen in sync again".to_owned(),
        };
        return format!("{when}{evidence}");
    }
    let after = |fault: &FaultRecord| Some(fault.recovered_at_s? - fault.ended_at_s.or(fault.begun_at_s)?);
    let times: Vec<_> = faults.iter().filter_map(after).collect();
    let longest = times.iter().copied().fold(0.0, f64::max);
    let from = format!("{} of {}, in sync at most {longest:.2} s after the end", times.len(), faults.len());
    let without = faults.iter().filter(|fault| fault.failure.is_some() || fault.begun_at_s.is_none()).count();
    if without > 0 { format!("{from}; {without} without effect") } else { from }
}

/// Where the time of the operations around the p99 went.
fn parts(out: &mut Screen, report: &Report, op: Op) {
    let reconciled = report.reconciliation.iter().flat_map(|both| &both.ops).find(|found| found.op == op);
    let Some(p99) = reconciled.and_then(|found| found.p99.as_ref()) else { return };
    let shares = shares(p99);
    if shares.is_empty() {
        return;
    }
    let rank = if op == Op::Get { Rank::Parts } else { Rank::SecondOperation };
    let shares: Vec<_> = shares.iter().map(|(name, share)| format!("{name} {share:.0} %")).collect();
    out.field(rank, &format!("{} p99", op.name()), &shares.join(" · "));
}

/// The largest first.
fn shares(p99: &P99Reconciled) -> Vec<(&'static str, f64)> {
    let parts = [
        ("lag", p99.lag_ms),
        ("other node", p99.elsewhere_ms),
        ("client queue", p99.client_queue_ms),
        ("server queue", p99.server_queue_ms),
        ("network", p99.network_ms),
        ("residual", p99.residual_ms),
        ("legs' queues", p99.legs_queued_ms),
        ("handler + mesh", p99.handler_ms + p99.in_mesh_ms - p99.legs_queued_ms),
    ];
    let whole: f64 = parts.iter().map(|(_, ms)| ms).sum();
    let share = |(name, ms): (&'static str, f64)| (name, if whole > 0.0 { ms * 100.0 / whole } else { 0.0 });
    let mut shares: Vec<_> = parts.map(share).into_iter().filter(|(_, share)| *share >= SHARE_MIN_PERCENT).collect();
    shares.sort_by(|one, other| other.1.total_cmp(&one.1));
    shares
}

fn curves(out: &mut Screen, samples: &[Sample]) {
    if samples.len() < 4 {
        return;
    }
    let mut curve = |name: &str, value: fn(&Sample) -> f64, text: fn(f64) -> String, unit: &str| {
        let values: Vec<_> = samples.iter().map(value).collect();
        let (low, high) = (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
        let line = sparkline(&values, CURVE_COLUMNS);
        out.field(Rank::Curves, name, &format!("{line}  {} to {}{unit}", text(low), text(high)));
    };
    curve("ops/s", |sample| sample.ops_per_s, |rate| grouped(rate as u64), "");
    curve("p99", |sample| sample.p99_ms, cell, " ms");
}

fn cpu(out: &mut Screen, report: &Report) {
    let Cpu { client_percent, node_us_per_op, .. } = &report.cpu;
    let who = if report.setup.nodes_within { "client and nodes" } else { "client" };
    let cores = |us: &f64| format!("{:.2}", us * report.totals.ops_per_s / 1e6);
    let nodes: Vec<_> = node_us_per_op.iter().flatten().map(cores).collect();
    let nodes = if nodes.is_empty() { String::new() } else { format!("; nodes {}", nodes.join(" + ")) };
    let machine = std::thread::available_parallelism()
        .map_or_else(|_| String::new(), |cores| format!("; this machine {cores} cores"));
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average = average.split(' ').next().filter(|average| !average.is_empty());
    let average = average.map(|average| format!(", load average {average}")).unwrap_or_default();
    out.field(Rank::Cpu, "CPU", &format!("{who} {:.2} cores{nodes}{machine}{average}", client_percent / 100.0));
}
