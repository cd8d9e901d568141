//! What is done to nodes during the load: the schedule, its execution, the evidence of each fault, and what a run with faults
//! allows to be said.

mod kills;
mod log;
mod observed;
mod order;
mod plan;
mod record;
mod recovery;
mod repeat;
mod run;
mod timeline;
mod verdict;
mod words;

#[cfg(test)]
pub(crate) use self::record::Survivor;
pub use self::{
    log::Moment,
    order::FaultRequest,
    plan::{FAULT_FORMS, FaultPlan, PlannedFault},
};
pub(crate) use self::{
    log::{FaultLog, unix_ms},
    observed::{ClusterObserver, ObservedEvent},
    record::FaultRecord,
    recovery::{broken, judge, too_much},
    run::{heal_all, inject},
    timeline::{RepeatedFault, completed},
    verdict::{dead_at_once, strays, voids},
};
