//! A collector of traces: takes OTLP over gRPC as a real one does, and remembers every span.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::status::StatusCode,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// 16 hexadecimal digits, or nothing.
    pub parent: String,
    /// Such as mesh.get.
    pub name: String,
    /// Which service sent it.
    pub service: String,
    /// Which node, or the runner.
    pub instance: String,
    /// Whether it is marked as failed.
    pub is_error: bool,
    /// Start and end in nanoseconds since the epoch.
    pub times: (u64, u64),
    /// As text.
    pub attributes: BTreeMap<String, String>,
}

/// A running collector; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Collector {
    endpoint: String,
    delay: Duration,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts one on a port of the system's choice.
    pub async fn start() -> Self {
        Self::start_slow(Duration::ZERO).await
    }

    /// One that lets each request wait for so long.
    pub async fn start_slow(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Self { endpoint, delay, spans: Arc::default() };
        let service = TowerToHyperService::new(TraceServiceServer::new(collector.clone()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        collector
    }

    /// For OTEL_EXPORTER_OTLP_ENDPOINT.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of one trace so far.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        tokio::time::sleep(self.delay).await;
        let mut arrived = self.spans.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let whose = attributes(&resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let named = |key: &str| whose.get(key).cloned().unwrap_or_default();
            let (service, instance) = (named("service.name"), named("service.instance.id"));
            arrived.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                service: service.clone(),
                instance: instance.clone(),
                is_error: span.status.is_some_and(|status| status.code == i32::from(StatusCode::Error)),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes: attributes(&span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
