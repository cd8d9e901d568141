//! What is done to nodes during the load: the schedule, its execution, the evidence of each fault, and what a run with faults
//! allows to be said.

mod kill;
mod log;
mod order;
mod plan;
mod record;
mod run;
mod verdict;
mod words;

pub(crate) use self::{
    kill::{Timeline, inject},
    log::{FaultLog, unix_ms},
    record::FaultRecord,
    run::{keep_faults, mend},
    verdict::{fault_voids, strays, voids},
};
pub use self::{
    log::Moment,
    order::FaultOrder,
    plan::{FAULT_FORMS, FaultPlan, PlannedFault},
};
