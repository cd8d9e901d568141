//! Which faults, changes and weathers were in force at the same time: what random seeds have really met.

use std::{collections::BTreeMap, fmt, sync::Mutex};

use tokio::time::Instant;

use crate::{changes::Change, plan::Fault};

/// What something in force is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The fault of a step.
    Fault,
    /// What the network is like meanwhile.
    Weather,
    /// A member joins, leaves or gets another share.
    Change,
}

/// When something was in force.
#[derive(Clone, Copy, Debug)]
struct Span {
    role: Role,
    name: &'static str,
    from: Instant,
    until: Instant,
}

/// All that was in force in one simulation.
#[derive(Debug, Default)]
pub struct Spans(Mutex<Vec<Span>>);

impl Spans {
    /// Something that was in force until now.
    pub fn end(&self, role: Role, name: &'static str, from: Instant) {
        let span = Span { role, name, from, until: Instant::now() };
        self.0.lock().expect("nobody panics under this lock").push(span);
    }

    /// What has overlapped.
    pub fn pairs(&self) -> Pairs {
        let spans = self.0.lock().expect("nobody panics under this lock");
        let mut pairs = Pairs::default();
        for row in spans.iter().filter(|span| span.role != Role::Change) {
            let beside = spans
                .iter()
                .filter(|span| span.role != Role::Fault && (span.role, row.role) != (Role::Weather, Role::Weather));
            for column in beside.filter(|span| span.from <= row.until && row.from <= span.until) {
                *pairs.0.entry((row.name, column.name)).or_default() += 1;
            }
        }
        pairs
    }
}

/// How often each fault has overlapped with each change and weather. Weather counts as a fault beside changes.
#[derive(Clone, Debug, Default)]
pub struct Pairs(BTreeMap<(&'static str, &'static str), u64>);

impl Pairs {
    /// Adds those of another simulation.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(pair, count)| *self.0.entry(*pair).or_default() += count);
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = Change::KINDS.iter().chain(Fault::WEATHERS).copied().collect();
        writeln!(f, "overlapped in time, so many times:")?;
        write!(f, "{:22}", "")?;
        columns.iter().try_for_each(|column| write!(f, "  {column}"))?;
        for row in Fault::KINDS {
            write!(f, "\n  {row:20}")?;
            for column in &columns {
                let count = self.0.get(&(*row, *column)).copied().unwrap_or(0);
                write!(f, "  {count:>width$}", width = column.len())?;
            }
        }
        Ok(())
    }
}
