//! Spans of what happens apart from requests (gossip, repair, members, faults, start and stop): those that the program makes with
//! `tracing` go the way of the flight records.

use std::{fmt, sync::Arc, time::Duration};

use opentelemetry::{Context, InstrumentationScope, trace::TracerProvider as _};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use super::{SpanPipeline, TraceGuard};

/// Whose spans these are: libraries below make their own, for each request.
const OWN: [&str; 5] = ["mesh", "node", "load", "runner", "observability"];

/// Makes spans of the program's own `tracing` spans, with its log lines as their events; nothing if no traces are wanted.
pub(crate) fn layer_of<S>(traces: &TraceGuard) -> Option<impl Layer<S> + use<S>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    traces.0.as_ref().map(|pipeline| layer(Arc::clone(pipeline)))
}

fn layer<S>(pipeline: Arc<SpanPipeline>) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // OTEL_TRACES_SAMPLER is about requests, of which there are very many.
    let provider =
        SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).with_span_processor(Submit(pipeline)).build();
    let scope = InstrumentationScope::builder("mesh").with_version(env!("CARGO_PKG_VERSION")).build();
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer_with_scope(scope))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_targets(OWN.map(|target| (target, Level::INFO))))
}

/// Hands ended spans to the pipeline, whose guard flushes it.
struct Submit(Arc<SpanPipeline>);

impl SpanProcessor for Submit {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.submit(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl fmt::Debug for Submit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Submit").finish_non_exhaustive()
    }
}
