//! What both runners share: the load, its schedule, its statistics and its checks.
//!
//! A runner makes a [`Plan`] from its settings, one [`Client`] per thread and a [`Cluster`] for control, and hands them to
//! [`run_session`]. It gets a [`Report`] back, which knows how to be printed and what the exit code is.

mod fault_plan;
mod fault_words;
mod keys;
mod plan;
mod settings;
mod sizes;
mod value;
mod version;

mod cluster;
mod fault_order;
mod served;
mod target;
mod together;

mod aftermath;
mod failures;
mod flight;
mod kept;
mod parts;
mod slowest;
mod tries;

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
mod fault_record;
mod fault_run;
mod fault_verdict;
mod progress;
mod session;

mod fault_table;
mod gap;
mod numbers;
mod reconcile;
mod reconcile_table;
mod report;
mod slow_table;
mod summary;

pub use self::settings::LoadSettings;
pub use aftermath::Aftermath;
pub use cluster::{Cluster, NodeStats, NodeView, Seen};
pub use compare::Divergence;
pub use errors::{ErrorLog, ErrorSummary, ErrorWindow};
pub use failures::FailedRequest;
pub use fault::Timeline;
pub use fault_log::{FaultLog, Moment};
pub use fault_order::{FaultOrder, LinkOrder};
pub use fault_plan::{FAULT_FORMS, FaultEntry, FaultKind, FaultPlan, Place, PlannedFault};
pub use fault_record::{Effect, FaultRecord};
pub use flight::{Ended, Kept, LegPart, Parts, Way};
pub use gap::P99Reconciled;
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
pub use reconcile::{Difference, LossyNode, OpReconciled, OutcomeReconciled, Reconciliation};
pub use recorder::{Recorder, SweepTally};
pub use report::{Report, Verdict};
pub use run::Run;
pub use schedule::{Pacer, Schedule};
pub use served::{Served, ServedOp};
pub use session::run_session;
pub use sizes::ValueSizes;
pub use slowest::{SlowRequest, Slowest};
pub use summary::render;
pub use target::{Answer, Client, Consistency, ErrorKind, FailedTry, Freshness, NodeIndex, Op, Outcome, Target};
pub use together::all_of;
pub use value::{Proof, Stamp, Writer, prove, write_value};
pub use version::Version;
