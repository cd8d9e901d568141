//! Jaeger's UI where Jaeger's container cannot run: spans come in over OTLP, stay in bounded memory, and are served by the query API that
//! Jaeger's UI, and our tests, speak. `GET /status` says what was received and which traces lack a span.

mod settings;
mod store;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    process::ExitCode,
};

use axum::{Json, Router, extract::State, routing::get};
use clap::Parser;
use otlp_embedded::{TraceServiceServer, ui_app};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{codec::CompressionEncoding, transport::Server};

use crate::{
    settings::Settings,
    store::{SpanStore, StoreReport},
};

/// What one export may weigh; nodes send 2048 spans at a time, at some 400 bytes each.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Exports of one connection that are worked on at a time.
const REQUESTS_MAX: usize = 16;

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("trace-ui: {reason}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(settings: &Settings) -> Result<(), String> {
    let otlp = listen("OTLP_BIND", settings.otlp_bind).await?;
    let ui = listen("UI_BIND", settings.ui_bind).await?;
    let store = SpanStore::new(settings.traces_max, settings.memory_max_bytes());
    println!("traces at http://{}, OTLP over gRPC at {}", address(&ui)?, address(&otlp)?);
    let service = TraceServiceServer::new(store.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let receiver = Server::builder().concurrency_limit_per_connection(REQUESTS_MAX).add_service(service);
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|error| format!("cannot wait for signals: {error}"))?;
    let ended = tokio::select! {
        ended = receiver.serve_with_incoming(TcpListenerStream::new(otlp)) => ended.map_err(|error| error.to_string()),
        ended = axum::serve(ui, routes(&store)) => ended.map_err(|error| error.to_string()),
        _ = terminated.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| error.to_string()),
    };
    ended
}

fn routes(store: &SpanStore) -> Router {
    let status = Router::new().route("/status", get(status)).with_state(store.clone());
    status.fallback_service(ui_app(store.state(), "/"))
}

async fn status(State(store): State<SpanStore>) -> Json<StoreReport> {
    Json(store.report().await)
}

async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "; is a Jaeger or another collector running? Stop it, or choose another port",
            _ => "",
        };
        format!("{setting}={address}: {error}{hint}")
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error: io::Error| error.to_string())
}

#[cfg(test)]
mod tests;
