//! What both runners share: the load, its schedule, its statistics and its checks.
//!
//! A runner makes a `Plan` from its settings, one [`Client`] per thread and a [`Cluster`] for control, and hands them to
//! [`run_plan`]. It gets a `Report` back, which knows how to be printed and what the exit code is.

mod cluster;
mod guarantee;
mod limits;
mod objective;
mod phase;
mod plan;
mod program;
mod settings;
mod target;
mod version;

mod exec;
mod faults;
mod history;
mod live;
mod report;
mod results;
mod shard;
mod stats;

#[cfg(feature = "alone")]
pub mod alone;

pub use self::settings::LoadSettings;
pub use cluster::{Cluster, NodeStats, NodeView};
pub use exec::{Interrupts, Proof, Run, Stamp, ValueTtls, Writer, all_of, complain, prove, run_plan, say, write_value};
pub use faults::{FAULT_FORMS, FaultPlan, FaultRequest, Moment, PlannedFault};
pub use guarantee::Guarantee;
pub use history::Violation;
pub use limits::check_files;
pub use objective::{Measure, Objective, Objectives};
pub use phase::Phase;
pub use plan::Plan;
pub use program::{block_on, exit_code};
pub use results::{Format, PairedRuns, Repeated, Results, StoredRuns};
pub use shard::{RunnerShard, StartAt, merge};
pub use stats::{Counter, Ended, Kept, LegPart, Live, OutcomeClass, Parts, ServerCounts, Snapshot, SpanFates, Way};
pub use target::{Answer, Client, ErrorKind, FailedTry, Freshness, NodeIndex, Op, Outcome, ReadConsistency, Target};
pub use version::WriteVersion;
