//! What is measured: one recorder per thread, merged by counts at the end, and what is read live while the load runs.

mod aftermath;
mod counts;
mod errors;
mod failures;
mod flight;
mod gap;
mod kept;
mod latency;
mod live;
mod parts;
mod recorder;
mod server_counts;
mod slowest;
mod spread;
mod tries;

#[cfg(test)]
pub(crate) use self::errors::ErrorWindow;
pub(crate) use self::{
    aftermath::Finished,
    errors::{ErrorLog, ErrorSummary},
    failures::FailedRequest,
    gap::P99Reconciled,
    kept::{KeptFor, TraceReport},
    latency::{LatencyHistogram, Series},
    parts::PartSample,
    recorder::{Recorder, SweepTally},
    server_counts::{Cover, ServerOpCounts, during},
    slowest::SlowRequest,
    spread::Spread,
    tries::{OpTries, Tries},
};
pub use self::{
    flight::{Ended, Kept, LegPart, Parts, Way},
    kept::SpanFates,
    latency::OutcomeClass,
    live::{Counter, Live, Snapshot},
    server_counts::ServerCounts,
};
