//! Logs, metrics and traces of a node: the only crate that knows how telemetry leaves the process. It is told what happened in
//! the closed types of `mesh-proto` and knows nothing of the mesh that tells it. Read `telemetry` first.

pub mod authorities;
mod catalogue;
mod event_log;
mod exposition;
mod http_series;
mod latency_series;
mod logging;
mod memory;
mod peer_series;
pub mod process;
mod registry;
mod runner;
mod sample;
mod scrape;
mod telemetry;
mod text;
mod trace;

pub use exposition::Exposition;
pub use http_series::{Cut, Shed, TlsFailure};
pub use logging::{LogFormat, LoggingError, check_filter, init_logging, init_spans};
pub use memory::{AllocatorUse, MemoryUse};
pub use runner::{FaultEvent, OpSeries, RunnerSample};
pub use sample::{LastMinute, MeshView, NodeSample, PeerSample};
pub use scrape::{NodeOperations, p99_query};
pub use telemetry::{Telemetry, init};
pub use text::Exemplar;
pub use trace::{
    ClientAnswer, ClientRequest, ClientTrace, ClientTracer, ClientTry, EndedRequest, InitError, KeepTrace,
    OtlpSettings, RequestTrace, ResourceAttributes, SampleRatio, Sampler, SpanTotals, TraceDecision, TraceGuard,
    TraceMode, TraceSettings,
};
