//! What both runners share: the load, its schedule, its statistics and its checks.
//!
//! A runner makes a [`Plan`] from its settings, one [`Client`] per thread and a [`Cluster`] for control, and hands them to
//! [`run_session`]. It gets a [`Report`] back, which knows how to be printed and what the exit code is.

mod keys;
mod plan;
mod settings;
mod value;
mod version;

mod cluster;
mod served;
mod target;

mod aftermath;
mod flight;
mod kept;
mod parts;
mod slowest;

mod run;
mod schedule;
mod stages;
mod sweep;
mod worker;

mod errors;
mod history;
mod judged;
mod latency;
mod live;
mod phase;
mod recorder;

mod compare;
mod fault;
mod fault_log;
mod fault_verdict;
mod progress;
mod session;

mod fault_table;
mod numbers;
mod reconcile;
mod report;
mod slow_table;
mod summary;

pub use aftermath::Aftermath;
pub use cluster::{Cluster, NodeStats, NodeView, Seen};
pub use compare::Divergence;
pub use errors::{ErrorLog, ErrorSummary, ErrorWindow};
pub use fault::Timeline;
pub use fault_log::{FaultLog, Moment};
pub use flight::{Ended, Kept, LegPart, Parts, Way};
pub use history::{
    Action, Ending, Finding, Floor, History, HistorySettings, Integrity, Judgement, Operation, Session, Ticket,
    Violation,
};
pub use kept::{KeptFor, KeptTrace, KeptTraces, SpanFates, TraceReport};
pub use keys::{Distribution as KeyDistribution, KEYS_MAX, KeyIndex, KeyName, KeySpace};
pub use latency::{Distribution, Latencies, OutcomeClass, Series};
pub use live::{Counter, Live, Snapshot};
pub use phase::{Phase, PhaseCell};
pub use plan::{Kill, Plan};
pub use progress::say;
pub use reconcile::{OpReconciled, P99Reconciled, Reconciliation};
pub use recorder::{Recorder, SweepTally};
pub use report::{Report, Verdict};
pub use run::Run;
pub use schedule::{Pacer, Schedule};
pub use served::{Served, ServedOp};
pub use session::run_session;
pub use settings::{Every, LoadSettings, Optional, duration, parse_settings, positive_duration};
pub use slowest::{SlowRequest, Slowest};
pub use summary::render;
pub use target::{Answer, Client, Consistency, ErrorKind, Freshness, NodeIndex, Op, Outcome, Target};
pub use value::{Proof, Stamp, Writer, prove, write_value};
pub use version::Version;
