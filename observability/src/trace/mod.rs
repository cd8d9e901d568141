//! Traces: from flight records to spans at a collector. `tracer` decides what is kept, `spans` writes it down, `pipeline`
//! sends it away, `served` remembers what peers may still ask for, `answered` what callers may, `layer` is for what happens apart from
//! requests, `client` is the other side.

mod answered;
mod budget;
mod client;
mod clock;
mod export;
mod ids;
mod layer;
mod names;
mod otlp;
mod pipeline;
mod served;
mod settings;
mod spans;
mod tracer;

pub use client::{ClientAnswer, ClientRequest, ClientTrace, ClientTracer, ClientTry, SpanTotals};
pub(crate) use ids::hex;
pub(crate) use layer::layer_of;
pub(crate) use otlp::{Collector, OtlpCompression, OtlpProtocol};
pub use otlp::{OtlpSettings, Sampler};
pub use pipeline::{InitError, TraceGuard};
pub(crate) use pipeline::{SpanCounts, SpanPipeline};
pub use settings::{ResourceAttributes, SampleRatio, TraceMode, TraceSettings};
pub(crate) use tracer::Tracer;
pub use tracer::{EndedRequest, KeepTrace, RequestTrace, TraceDecision};
