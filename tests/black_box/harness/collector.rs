//! A collector of traces: takes OTLP as a real one does, over gRPC or HTTP, and remembers every span.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Read,
    sync::{Arc, Mutex},
    time::Duration,
};

use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request as HttpRequest, Response as HttpResponse,
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
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
use prost::Message;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, codec::CompressionEncoding};

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
    /// All that is said of who sent it.
    pub resource: BTreeMap<String, String>,
    /// Whether it is marked as failed.
    pub is_error: bool,
    /// Start and end in nanoseconds since the epoch.
    pub times: (u64, u64),
    /// As text.
    pub attributes: BTreeMap<String, String>,
}

/// A request as it arrived, without its spans.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Such as /v1/traces.
    pub path: String,
    /// By name.
    pub headers: BTreeMap<String, String>,
}

/// A running collector; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Collector {
    endpoint: String,
    delay: Duration,
    spans: Arc<Mutex<Vec<Span>>>,
    received: Arc<Mutex<Vec<Received>>>,
    certificate: Option<String>,
}

impl Collector {
    /// Starts one on a port of the system's choice.
    pub async fn start() -> Self {
        Self::start_slow(Duration::ZERO).await
    }

    /// One that lets each request wait for so long.
    pub async fn start_slow(delay: Duration) -> Self {
        Self::open(delay, false, false).await
    }

    /// One that takes HTTP/1.1 or gRPC, plain or with TLS.
    pub async fn start_as(is_http: bool, has_tls: bool) -> Self {
        Self::open(Duration::ZERO, is_http, has_tls).await
    }

    async fn open(delay: Duration, is_http: bool, has_tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let identity = has_tls.then(|| rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a key"));
        let scheme = if has_tls { "https" } else { "http" };
        let collector = Self {
            endpoint: format!("{scheme}://{}", listener.local_addr().expect("an address")),
            delay,
            spans: Arc::default(),
            received: Arc::default(),
            certificate: identity.as_ref().map(|identity| identity.cert.pem()),
        };
        let acceptor = identity.map(|identity| {
            let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).expect("a key");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.expect("versions").with_no_client_auth();
            let mut config = config.with_single_cert(vec![identity.cert.der().clone()], key).expect("a certificate");
            config.alpn_protocols = vec![if is_http { b"http/1.1".to_vec() } else { b"h2".to_vec() }];
            TlsAcceptor::from(Arc::new(config))
        });
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, collector) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => collector.serve(acceptor.accept(stream).await.expect("TLS"), is_http).await,
                        None => collector.serve(stream, is_http).await,
                    }
                });
            }
        });
        collector
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http: bool) {
        let stream = TokioIo::new(stream);
        // A client may go away at any time.
        if is_http {
            let service = service_fn(move |request| self.clone().take(request));
            let _ = http1::Builder::new().serve_connection(stream, service).await;
        } else {
            let server = TraceServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip);
            let server = TowerToHyperService::new(server);
            let service = service_fn(move |request| {
                self.note(&request);
                server.call(request)
            });
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
        }
    }

    fn note<B>(&self, request: &HttpRequest<B>) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        let received = Received { path: request.uri().path().to_owned(), headers: headers.collect() };
        self.received.lock().unwrap().push(received);
    }

    /// Over HTTP.
    async fn take(self, request: HttpRequest<Incoming>) -> Result<HttpResponse<Empty<Bytes>>, Infallible> {
        self.note(&request);
        let is_packed = request.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip");
        let packed = request.into_body().collect().await.expect("a body").to_bytes();
        let mut body = Vec::new();
        let read =
            if is_packed { GzDecoder::new(&*packed).read_to_end(&mut body) } else { (&*packed).read_to_end(&mut body) };
        read.expect("a whole body");
        self.keep(ExportTraceServiceRequest::decode(&*body).expect("an OTLP request"));
        Ok(HttpResponse::new(Empty::new()))
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// As PEM, of one with TLS.
    pub fn certificate(&self) -> &str {
        self.certificate.as_deref().expect("TLS")
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
        self.keep(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn keep(&self, request: ExportTraceServiceRequest) {
        let mut arrived = self.spans.lock().unwrap();
        for resource in request.resource_spans {
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
                resource: whose.clone(),
                is_error: span.status.is_some_and(|status| status.code == i32::from(StatusCode::Error)),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes: attributes(&span.attributes),
            }));
        }
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
