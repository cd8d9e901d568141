//! What both runners share: the load, its schedule, its statistics and its checks.
//!
//! A runner makes a `Plan` from its settings, one [`Client`] per thread and a [`Cluster`] for control, and hands them to
//! [`run_plan`]. It gets a `Report` back, which knows how to be printed and what the exit code is.

mod exec;
mod faults;
mod history;
mod live;
mod plan;
mod report;
mod results;
mod shard;
mod stats;
mod target;

#[cfg(feature = "alone")]
pub mod alone;

pub use exec::{
    Interrupts, Proof, Run, Stamp, ValueTtls, Writer, all_of, block_on, complain, exit_code, prove, run_plan, say,
    write_value,
};
pub use faults::{FAULT_FORMS, FaultPlan, FaultRequest, Moment, PlannedFault};
pub use history::Violation;
pub use plan::{Guarantee, LoadSettings, Measure, Objective, Objectives, Phase, Plan, check_files};
pub use results::{Format, PairedRuns, Repeated, Results, StoredRuns};
pub use shard::{RunnerShard, StartAt, merge};
pub use stats::{Counter, Ended, Kept, LegPart, Live, OutcomeClass, Parts, ServerCounts, Snapshot, SpanFates, Way};
pub use target::{
    Answer, Client, Cluster, ErrorKind, FailedTry, Freshness, NodeIndex, NodeStats, NodeView, Op, Outcome,
    ReadConsistency, Target, WriteVersion,
};
