//! The part of the summary that tells of kills, one in full, several in a line each, and of the faults of FAULTS.

use std::fmt::Write;

use super::{
    numbers::grouped,
    summary::{field, heading},
};
use crate::faults::{FaultRecord, Timeline};

/// Writes what happened; nothing if nothing was done.
pub(crate) fn faults(out: &mut String, kills: &[Timeline]) -> std::fmt::Result {
    if !kills.is_empty() {
        heading(out, "Fault")?;
    }
    match kills {
        [] => Ok(()),
        [kill] => one(out, kill),
        kills => kills.iter().enumerate().try_for_each(|(index, kill)| line(out, index + 1, kill)),
    }
}

/// Writes what became of the faults of FAULTS.
pub(crate) fn schedule(out: &mut String, faults: &[FaultRecord]) -> std::fmt::Result {
    if !faults.is_empty() {
        heading(out, "Faults")?;
    }
    faults.iter().try_for_each(|record| entry(out, record))
}

fn entry(out: &mut String, record: &FaultRecord) -> std::fmt::Result {
    let what = record.fault.strip_prefix(record.kind).map_or(record.fault.as_str(), str::trim_start);
    let Some(begun) = record.begun_at_s else {
        return field(out, record.kind, &format!("{what} was to come at {:.2} s", record.planned_at_s));
    };
    let end = record.ended_at_s.map_or_else(|| "the end".to_owned(), |at| format!("{at:.2} s"));
    field(out, record.kind, &format!("{what} from {begun:.2} s to {end}"))?;
    if let Some(reason) = &record.failure {
        return writeln!(out, "    no effect: {reason}");
    }
    let effect = record.effect.map_or_else(|| "not seen to the end".to_owned(), |effect| effect.to_string());
    let whole = match (record.ended_at_s, record.recovered_at_s) {
        (Some(ended), Some(at)) => format!("whole again +{:.2} s", at - ended),
        (None, Some(at)) => format!("whole again at {at:.2} s"),
        (_, None) => "not whole again".to_owned(),
    };
    writeln!(out, "    {effect}; {} errors meanwhile; {whole}", grouped(record.errors))
}

fn one(out: &mut String, timeline: &Timeline) -> std::fmt::Result {
    let after = |at: Option<f64>| {
        at.map_or_else(|| "not within the run".to_owned(), |at| format!("+{:.2} s", at - timeline.killed_at_s))
    };
    field(out, "kill", &format!("{} at {:.2} s", timeline.victim, timeline.killed_at_s))?;
    if let Some(reason) = &timeline.failure {
        return field(out, "effect", &format!("none: {reason}"));
    }
    field(out, "silent", &after(timeline.silent_at_s))?;
    for survivor in &timeline.survivors {
        let (dead, alive) = (after(survivor.dead_at_s), after(survivor.alive_at_s));
        if survivor.dead_at_s.is_none() && timeline.back_at_s.is_some() {
            writeln!(out, "    {}: back before it was declared dead", survivor.node)?;
        } else {
            writeln!(out, "    {} saw it dead {dead}, alive again {alive}", survivor.node)?;
        }
    }
    field(out, "back", &after(timeline.back_at_s))?;
    field(out, "ready again", &after(timeline.ready_at_s))
}

fn line(out: &mut String, number: usize, kill: &Timeline) -> std::fmt::Result {
    let name = format!("kill {number}");
    let what = format!("{} at {:.2} s:", kill.victim, kill.killed_at_s);
    if let Some(reason) = &kill.failure {
        return field(out, &name, &format!("{what} no effect: {reason}"));
    }
    let after =
        |at: Option<f64>| at.map_or_else(|| "never".to_owned(), |at| format!("+{:.2} s", at - kill.killed_at_s));
    let dead = after(kill.dead_at_s());
    let (back, ready) = (after(kill.back_at_s), after(kill.ready_at_s));
    field(out, &name, &format!("{what} dead {dead}, back {back}, ready {ready}"))
}
