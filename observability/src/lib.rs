//! Logs, metrics and traces of a node: the only crate that knows how telemetry leaves the process. It is told what happened in
//! the closed types of `mesh-proto` and knows nothing of the mesh that tells it. Read `telemetry` first.

mod catalogue;
mod event_log;
mod exposition;
mod latency_series;
mod logging;
mod peer_series;
mod registry;
mod telemetry;
mod trace;

pub use exposition::Exposition;
pub use logging::{LogFormat, LoggingError, check_filter, init_logging};
pub use telemetry::{NodeSample, Telemetry, init};
pub use trace::{
    EndedRequest, InitError, KeepTrace, OtlpEndpoint, RequestTrace, ResourceAttributes, SampleRatio, TraceGuard,
    TraceMode, TraceSettings,
};
