//! Traces: from flight records to spans at a collector. `tracer` decides what is kept, `spans` writes it down, `pipeline`
//! sends it away, `served` remembers what peers may still ask for, `rare` is about what happens apart from requests.

mod clock;
mod ids;
mod names;
mod pipeline;
mod rare;
mod served;
mod settings;
mod spans;
mod tracer;

pub(crate) use ids::hex;
pub use pipeline::{InitError, TraceGuard};
pub(crate) use pipeline::{SpanCounts, SpanPipeline};
pub use settings::{OtlpEndpoint, ResourceAttributes, SampleRatio, TraceMode, TraceSettings};
pub(crate) use tracer::Tracer;
pub use tracer::{EndedRequest, KeepTrace, RequestTrace};
