//! What stays of a run: its folder of files, and what is done with stored runs later.

mod commands;
mod compare;
mod events;
mod html;
mod intervals;
mod machine;
mod place;
mod publish;
#[cfg(test)]
mod schema;
mod stored;

pub use self::{
    commands::{Format, StoredRuns},
    compare::PairedRuns,
    place::Results,
    stored::Repeated,
};
pub(crate) use self::{
    intervals::{IntervalSum, Intervals},
    machine::{Machine, Versions},
    publish::Recorded,
};
