//! Traces: from flight records to spans at a collector. `tracer` decides what is kept, `spans` writes it down, `pipeline`
//! sends it away, `served` remembers what peers may still ask for, `answered` what callers may, `rare` is about what happens
//! apart from requests, `client` is the other side.

mod answered;
mod client;
mod clock;
mod ids;
mod names;
mod pipeline;
mod rare;
mod served;
mod settings;
mod spans;
mod tracer;

pub use client::{ClientAnswer, ClientRequest, ClientTrace, ClientTracer, ClientTry, SpanTotals};
pub(crate) use ids::hex;
pub use pipeline::{InitError, TraceGuard};
pub(crate) use pipeline::{SpanCounts, SpanPipeline};
pub use settings::{OtlpEndpoint, ResourceAttributes, SampleRatio, TraceMode, TraceSettings};
pub(crate) use tracer::Tracer;
pub use tracer::{EndedRequest, Fate, KeepTrace, RequestTrace};
