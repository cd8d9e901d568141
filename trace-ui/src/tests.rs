//! The whole program but its sockets: what is exported to it, and what its pages then say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use axum::body::Body;
use http_body_util::BodyExt;
use otlp_embedded::{
    TraceService,
    proto::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    },
};
use tower::ServiceExt;

use super::*;

fn span(trace: u8, id: u8, parent: Option<u8>) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: parent.map(|parent| vec![parent; 8]).unwrap_or_default(),
        name: "mesh.get".to_owned(),
        start_time_unix_nano: 2000,
        end_time_unix_nano: 1000,
        ..Span::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

async fn export(store: &SpanStore, sender: &str, spans: Vec<Span>) {
    let attributes = vec![text("service.name", "node"), text("service.instance.id", sender)];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let sent = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    let request = ExportTraceServiceRequest { resource_spans: vec![sent] };
    store.export(tonic::Request::new(request)).await.unwrap();
}

async fn page(store: &SpanStore, path: &str) -> (u16, Vec<u8>) {
    let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
    let response = routes(store).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn json(store: &SpanStore, path: &str) -> serde_json::Value {
    let (status, body) = page(store, path).await;
    assert_eq!(status, 200, "{path}");
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn what_is_exported_is_found_and_counted() {
    let store = SpanStore::new(10, 1 << 20);
    export(&store, "a", vec![span(1, 1, None), span(1, 2, Some(1))]).await;
    export(&store, "b", vec![span(1, 3, Some(2)), span(2, 1, Some(9))]).await;
    let trace = json(&store, &format!("/api/traces/{}", "01".repeat(16))).await;
    assert_eq!(trace["data"][0]["spans"].as_array().unwrap().len(), 3);
    assert_eq!(trace["data"][0]["processes"].as_object().unwrap().len(), 2);
    assert_eq!(page(&store, &format!("/api/traces/{}", "03".repeat(16))).await.0, 404);

    let status = json(&store, "/status").await;
    assert_eq!(status["spans_by_sender"], serde_json::json!({ "a": 2, "b": 2 }));
    assert_eq!(status["incomplete"], serde_json::json!(["02".repeat(16)]));
    export(&store, "b", vec![span(2, 9, None)]).await;
    assert_eq!(json(&store, "/status").await["incomplete"], serde_json::json!([]));
    assert_eq!(json(&store, "/api/traces?service=node&limit=20").await["total"], 2);
}

#[tokio::test]
async fn nonsense_is_refused_and_counted() {
    let store = SpanStore::new(10, 1 << 20);
    let odd = Span { trace_id: vec![1; 3], ..span(1, 1, None) };
    let nameless = Span { span_id: vec![], ..span(1, 1, None) };
    export(&store, "a", vec![odd, nameless, span(1, 4, Some(4)), span(1, 1, None)]).await;
    let status = json(&store, "/status").await;
    assert_eq!((&status["spans_malformed"], &status["spans_by_sender"]["a"]), (&3.into(), &1.into()));
    assert_eq!(json(&store, "/api/traces?service=node&limit=20").await["total"], 1);
}

#[tokio::test]
async fn the_number_of_traces_is_bounded() {
    let store = SpanStore::new(3, 1 << 20);
    for trace in 1..=200 {
        export(&store, "a", vec![span(trace, 1, Some(2))]).await;
    }
    let status = json(&store, "/status").await;
    assert_eq!((&status["traces"], status["incomplete"].as_array().unwrap().len()), (&3.into(), 3));
}

#[tokio::test]
async fn memory_is_bounded_and_holds_the_newest() {
    const BYTES: usize = 20_000;
    let store = SpanStore::new(1000, BYTES);
    let mut most = 0;
    for trace in 1..=200 {
        export(&store, "a", vec![span(trace, 1, None)]).await;
        let status = json(&store, "/status").await;
        most = most.max(status["memory_bytes"].as_u64().unwrap() as usize);
        assert_eq!(page(&store, &format!("/api/traces/{}", format!("{trace:02x}").repeat(16))).await.0, 200, "{trace}");
    }
    assert!(most > BYTES * 3 / 4 && most <= BYTES, "{most}");
    assert_eq!(page(&store, &format!("/api/traces/{}", "01".repeat(16))).await.0, 404);
    // A request beyond all bounds is forgotten at once, and the next one is kept.
    export(&store, "a", (1..=255).map(|id| span(1, id, None)).collect()).await;
    assert_eq!(json(&store, "/status").await["traces"], 0);
    export(&store, "a", vec![span(1, 1, None)]).await;
    assert_eq!(json(&store, "/status").await["traces"], 1);
}

#[tokio::test]
async fn senders_are_bounded() {
    let store = SpanStore::new(10, 1 << 20);
    for sender in 0..300 {
        export(&store, &format!("sender{sender}"), vec![span(1, 1, None)]).await;
    }
    let status = json(&store, "/status").await;
    assert_eq!(status["spans_by_sender"].as_object().unwrap().len(), 257, "256 by name, and the others");
    assert_eq!(status["spans_by_sender"]["others"], 44);
}

#[tokio::test]
async fn the_ui_is_there() {
    let store = SpanStore::new(1, 1 << 20);
    let (_, page) = page(&store, "/search").await;
    assert!(String::from_utf8_lossy(&page).contains("Jaeger UI"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = listen("UI_BIND", ([127, 0, 0, 1], 0).into()).await.unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).await.unwrap();
    let refusal = listen("UI_BIND", taken).await.unwrap_err();
    assert!(refusal.starts_with(&format!("UI_BIND={taken}: ")) && refusal.contains("another port"), "{refusal}");
    drop(holder);
}
