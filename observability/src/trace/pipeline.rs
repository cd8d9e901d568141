//! The way of spans out of the process: a bounded queue, batches, OTLP. It has a thread and a runtime of its own, so
//! that no request ever waits for it, and counts every span that does not arrive.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    resource::{ResourceDetector, TelemetryResourceDetector},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor},
};
use thiserror::Error;
use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
};

use super::{Collector, TraceSettings, export};

/// Spans on their way; further ones are dropped and counted: some 16 MB.
const QUEUE_SPANS_MAX: usize = 16_384;

/// What a span takes: 350 bytes and its attributes.
const SPAN_BYTES: u64 = 1024;

/// Spans in one request to the collector, well below the 4 MiB that gRPC servers take by default.
const BATCH_SPANS: usize = 2048;

/// How long a span waits for others. What a killed node has not sent within it is lost.
const BATCH_DELAY: Duration = Duration::from_millis(200);

/// How long the end of the process waits for what is still queued.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Why telemetry did not start.
#[derive(Debug, Error)]
pub enum InitError {
    /// The metrics exporter rejects its buckets, which are constants.
    #[error(transparent)]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The span exporter does not take its endpoint.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: {error}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What the exporter says.
        error: ExporterBuildError,
    },
    /// The collector's certificate authority cannot be used.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE={file}: {reason}")]
    Certificate {
        /// As it was given.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no way to verify a collector.
    #[error("an https collector cannot be verified: {0}; set OTEL_EXPORTER_OTLP_CERTIFICATE")]
    Roots(String),
    /// The system gives no thread or no sockets.
    #[error("telemetry cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// What became of the spans that were kept: exported, failed, dropped, or still on their way.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    pub(crate) kept: AtomicU64,
    pub(crate) exported: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// The running pipeline.
pub(crate) struct SpanPipeline {
    processor: Arc<BatchSpanProcessor>,
    queued: Arc<AtomicUsize>,
    counts: Arc<SpanCounts>,
    lost_seen: AtomicU64,
    // Taken once, at the end.
    runtime: Mutex<Option<ExportRuntime>>,
}

impl SpanPipeline {
    /// Starts the thread, for a service of this name and an instance of it. The collector need not be there.
    pub(crate) fn start(
        settings: &TraceSettings,
        collector: &Collector,
        (service, instance): (&str, &str),
        counts: Arc<SpanCounts>,
    ) -> Result<Self, InitError> {
        let runtime = ExportRuntime::start()?;
        let mut exporter = {
            let _inside = runtime.handle.enter();
            export::exporter(collector)?
        };
        exporter.set_resource(&resource(settings, service, instance));
        let queued = Arc::new(AtomicUsize::new(0));
        let exporter = CountingExporter {
            inner: Arc::new(exporter),
            runtime: runtime.handle.clone(),
            queued: Arc::clone(&queued),
            counts: Arc::clone(&counts),
            timeout: collector.timeout,
            is_failing: AtomicBool::new(false),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = Arc::new(BatchSpanProcessor::builder(exporter).with_batch_config(config).build());
        Ok(Self { processor, queued, counts, lost_seen: AtomicU64::new(0), runtime: Mutex::new(Some(runtime)) })
    }

    /// Hands a span over. Never waits: beyond the bound it is dropped and counted, and this is false.
    pub(crate) fn submit(&self, span: SpanData) -> bool {
        // Relaxed throughout: the counts order nothing.
        self.counts.kept.fetch_add(1, Ordering::Relaxed);
        let has_place = self.queued.fetch_add(1, Ordering::Relaxed) < QUEUE_SPANS_MAX;
        if has_place {
            self.processor.on_end(span);
        } else {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        has_place
    }

    /// What the spans on their way take, about.
    pub(crate) fn queued_bytes(&self) -> u64 {
        // Relaxed: a figure for people.
        self.queued.load(Ordering::Relaxed).min(QUEUE_SPANS_MAX) as u64 * SPAN_BYTES
    }

    /// Whether no span was lost since the last call, and the queue is not half full.
    pub(crate) fn keeps_up(&self) -> bool {
        let lost = self.counts.failed.load(Ordering::Relaxed) + self.counts.dropped.load(Ordering::Relaxed);
        let is_new = self.lost_seen.swap(lost, Ordering::Relaxed) != lost;
        !is_new && self.queued.load(Ordering::Relaxed) < QUEUE_SPANS_MAX / 2
    }

    /// Has what is queued sent now. Does not wait for it.
    pub(crate) fn flush(&self) {
        let processor = Arc::clone(&self.processor);
        // Its result says nothing of the spans: the counts do. Without a thread they leave a little later.
        let _ = thread::Builder::new().name("flush".to_owned()).spawn(move || processor.force_flush());
    }

    /// Sends what is queued, for at most [`FLUSH_MAX`], and ends the thread.
    fn stop(&self) {
        let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // No new spans from here on.
        self.queued.fetch_add(QUEUE_SPANS_MAX, Ordering::Relaxed);
        // Its result says nothing of the spans: the counts do.
        let _ = self.processor.shutdown_with_timeout(FLUSH_MAX);
        runtime.stop();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (kept, exported) = (read(&self.counts.kept), read(&self.counts.exported));
        if exported < kept {
            let (failed, dropped) = (read(&self.counts.failed), read(&self.counts.dropped));
            tracing::warn!(kept, exported, failed, dropped, "some spans did not reach the collector");
        }
    }
}

/// Flushes when it is dropped, for at most two seconds. Keep it until the last request is answered.
#[must_use = "what it guards is lost when it is dropped early"]
pub struct TraceGuard(pub(crate) Option<Arc<SpanPipeline>>);

impl Drop for TraceGuard {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.0 {
            pipeline.stop();
        }
    }
}

/// Who sends these spans. What is said expressly wins over what is said among the attributes.
fn resource(settings: &TraceSettings, service: &str, instance: &str) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let ours = [
        ("service.name", service),
        ("service.namespace", "mesh-bench"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
        ("host.name", &host),
    ];
    let ours = ours.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let sdk = TelemetryResourceDetector.detect();
    let sdk = sdk.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let named = settings.service_name.iter().map(|name| ("service.name".to_owned(), name.clone()));
    let all = sdk.chain(ours).chain(settings.attributes.0.iter().cloned()).chain(named);
    Resource::builder_empty().with_attributes(all.map(|(key, value)| KeyValue::new(key, value))).build()
}

/// One thread with a runtime for gRPC.
struct ExportRuntime {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl ExportRuntime {
    fn start() -> std::io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
            // Ends as well if the sender is lost.
            let _ = runtime.block_on(stopped);
            // A name that is being resolved could take minutes.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop, thread })
    }

    fn stop(self) {
        // Fails only if the thread has ended already; a panic there was reported when it happened.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Exports on the runtime, with a deadline that nothing can stretch, and counts.
#[derive(Debug)]
struct CountingExporter {
    inner: Arc<OtlpExporter>,
    runtime: Handle,
    queued: Arc<AtomicUsize>,
    counts: Arc<SpanCounts>,
    timeout: Duration,
    /// Whether the last request failed: only a change is worth a line in the log.
    is_failing: AtomicBool,
}

impl CountingExporter {
    fn count(&self, spans: usize, result: &OTelSdkResult) {
        let count = if result.is_ok() { &self.counts.exported } else { &self.counts.failed };
        count.fetch_add(spans as u64, Ordering::Relaxed);
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "the collector takes no traces: they are dropped until it does");
            }
            Ok(()) if was_failing => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        let inner = Arc::clone(&self.inner);
        let timeout = self.timeout;
        let export = self.runtime.spawn(async move { tokio::time::timeout(timeout, inner.export(batch)).await });
        let result = match export.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(timeout)),
            // The process is ending.
            Err(_) => Err(OTelSdkError::AlreadyShutdown),
        };
        self.count(spans, &result);
        result
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    #[test]
    fn a_resource_says_who_sends_and_what_is_said_expressly_wins() {
        let attributes = "service.version=7,team=cache,service.name=other".parse().unwrap_or_default();
        let mut settings = TraceSettings::default();
        settings.attributes = attributes;
        let of = |settings: &TraceSettings, key: &'static str| {
            let found = resource(settings, "mesh-node", "node1").get(&Key::from_static_str(key));
            found.map(|value| value.to_string()).unwrap_or_default()
        };
        let keys = ["service.name", "service.namespace", "service.version", "service.instance.id", "team"];
        assert_eq!(keys.map(|key| of(&settings, key)), ["other", "mesh-bench", "7", "node1", "cache"]);
        for key in ["host.name", "telemetry.sdk.name", "telemetry.sdk.version", "telemetry.sdk.language"] {
            assert!(!of(&settings, key).is_empty(), "{key}");
        }
        settings.service_name = Some("expressly".to_owned());
        assert_eq!(of(&settings, "service.name"), "expressly");
    }
}
