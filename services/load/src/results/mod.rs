//! What stays of a run: its folder of files, and what is done with stored runs later.

mod compare;
mod events;
mod intervals;
mod machine;
mod place;
mod publish;
#[cfg(test)]
mod schema;
mod stored;

pub use self::place::Results;
pub(crate) use self::{
    events::{StageLog, StageTimes},
    intervals::Intervals,
    machine::Machine,
    publish::Recorded,
};
