//! The section of the summary about faults: when each started and ended, its evidence, and how long detection and recovery took.

use super::{
    Page,
    numbers::{cell, grouped, without_scheme},
};
use crate::faults::{FaultRecord, ObservedEvent, RepeatedFault};

/// So many events that were not ordered are listed.
const OBSERVED_SHOWN: usize = 20;

/// Writes what became of the faults; nothing if there were none.
pub(super) fn write(out: &mut Page, faults: &[FaultRecord], repeated: &[RepeatedFault]) {
    if !faults.is_empty() {
        out.heading("Faults");
    }
    let deaths = faults.iter().filter(|record| record.deaths == 1).count();
    for record in faults {
        one(out, record);
        if record.deaths == 1 && record.begun_at_s.is_some() && record.failure.is_none() {
            death(out, record, deaths == 1);
        }
        back(out, record);
    }
    repeated.iter().for_each(|repeated| medians(out, repeated));
}

/// When what the clients see was as before, from its start.
fn back(out: &mut Page, record: &FaultRecord) {
    let Some(timeline) = &record.timeline else { return };
    let mut parts = Vec::new();
    if let (Some(first), Some(last)) = (timeline.first_error_s, timeline.last_error_s) {
        parts.push(format!("first error +{first:.1} s, last +{last:.1} s"));
    }
    let after = |at: Option<f64>| match at {
        None => "not back".to_owned(),
        Some(at) if at > 0.0 => format!("back +{at:.1} s"),
        Some(_) => "as before".to_owned(),
    };
    if let Some(baseline) = timeline.baseline_p99_ms {
        parts.push(format!("p99 {} (baseline {} ms)", after(timeline.p99_back_s), cell(baseline)));
        parts.push(format!("hit ratio {}", after(timeline.hit_ratio_back_s)));
    }
    if !parts.is_empty() {
        out.item(4, &parts.join("; "));
    }
}

/// The medians over all faults of a kind.
fn medians(out: &mut Page, repeated: &RepeatedFault) {
    let kind = format!("{} × {}", repeated.kind, repeated.times);
    out.line(&format!("  {kind:<23}{:>8}   interval; seconds after each began", "median"));
    for (name, spread) in repeated.spreads() {
        let Some(spread) = spread else { continue };
        let of = if spread.of < repeated.times { format!(" (of {})", spread.of) } else { String::new() };
        out.line(&format!("    {name:<21}{:>8.2}   {:.2} to {:.2}{of}", spread.median, spread.low, spread.high));
    }
}

/// Writes what happened to the nodes and was not ordered, below the faults if there are any; nothing if there was nothing.
pub(super) fn write_observed(out: &mut Page, observed: &[ObservedEvent], faults: &[FaultRecord]) {
    if faults.is_empty() && !observed.is_empty() {
        out.heading("Faults");
    }
    for (place, event) in observed.iter().take(OBSERVED_SHOWN).enumerate() {
        let name = if place == 0 { "not ordered" } else { "" };
        out.field(name, &format!("at {:.1} s {}", event.at_s, without_scheme(&event.words())));
    }
    if observed.len() > OBSERVED_SHOWN {
        out.field("", &format!("and {} more", observed.len() - OBSERVED_SHOWN));
    }
}

fn one(out: &mut Page, record: &FaultRecord) {
    let what = record.fault.strip_prefix(&*record.kind).map_or(record.fault.as_str(), str::trim_start);
    let Some(begun) = record.begun_at_s else {
        return out.field(&record.kind, &format!("{what} did not start; it was due at {:.2} s", record.planned_at_s));
    };
    let end = record.ended_at_s.map_or_else(|| "the end".to_owned(), |at| format!("{at:.2} s"));
    out.field(&record.kind, &format!("{what} from {begun:.2} s to {end}"));
    if let Some(reason) = &record.failure {
        return out.item(4, &format!("no effect: {reason}"));
    }
    let evidence = record.effect.map_or_else(|| "evidence incomplete".to_owned(), |evidence| evidence.to_string());
    let recovered = match (record.ended_at_s, record.recovered_at_s) {
        (Some(ended), Some(at)) => format!("recovered +{:.2} s", at - ended),
        (None, Some(at)) => format!("recovered at {at:.2} s"),
        (_, None) => "not recovered".to_owned(),
    };
    let (errors, unknown) = (grouped(record.errors), grouped(record.outcome_unknown));
    out.item(4, &format!("{evidence}; {errors} errors, {unknown} outcome unknown meanwhile; {recovered}"));
    record.not_judged.iter().for_each(|reason| out.item(4, &format!("not judged by G6: {reason}")))
}

/// The times of a crash or a stop, from its start; those of each survivor only `in_full`.
fn death(out: &mut Page, record: &FaultRecord, in_full: bool) {
    let begun_s = record.begun_at_s.unwrap_or_default();
    let seen = |at_s: Option<f64>, unseen: &str| {
        at_s.map_or_else(|| unseen.to_owned(), |at_s| format!("+{:.2} s", at_s - begun_s))
    };
    let after = |at_s| seen(at_s, "never");
    for survivor in record.survivors.iter().filter(|_| in_full) {
        let (node, dead, alive) = (&survivor.node, after(survivor.dead_at_s), after(survivor.alive_at_s));
        if survivor.dead_at_s.is_none() && record.ended_at_s.is_some() {
            out.item(4, &format!("{node}: back before it was declared dead"));
        } else {
            out.item(4, &format!("{node} saw it dead {dead}, alive again {alive}"));
        }
    }
    let detected = if in_full { String::new() } else { format!("dead {}, ", after(record.detected_at_s())) };
    // Once the mesh has recovered, the node is back; when it came is known only while the load lasts.
    let unseen = if record.recovered_at_s.is_some() { "after the load" } else { "never" };
    let (silent, back, ready) =
        (after(record.silent_at_s), seen(record.ended_at_s, unseen), seen(record.ready_at_s, unseen));
    out.item(4, &format!("silent {silent}, {detected}back {back}, ready again {ready}"))
}
