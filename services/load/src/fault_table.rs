//! The part of the summary that tells of kills: one in full, several in a line each.

use std::fmt::Write;

use crate::{
    Timeline,
    summary::{field, heading},
};

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
