//! One node of the mesh, with HTTP in front. This thread hosts the mesh's upkeep; requests have threads of their own.

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use mesh::{
    Node,
    transport::{QuicConfig, QuicTransport},
};
use node::{
    App, Listeners, Settings, Shutdown, ShutdownPhase, TelemetryObserver, Workers, announce,
    connections_within_file_limit, run_upkeep,
};
use observability::Telemetry;
use tracing::{Instrument, info_span};

/// How long it may take to close connections to the mesh.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A tenth of a request's CPU went into the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let settings = Settings::from_args(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Output is best effort: a closed standard error changes nothing.
            let mut stderr = std::io::stderr();
            let text = ::settings::fitted(&format!("error: {error:#}"), &stderr);
            let _ = writeln!(stderr, "{text}");
            ExitCode::FAILURE
        }
    }
}

fn start(mut settings: Settings) -> anyhow::Result<()> {
    let mesh = &settings.mesh;
    let (telemetry, traces) = observability::init(&mesh.name, mesh.id(), env!("CARGO_PKG_VERSION"), &settings.traces)?;
    observability::init_logging(settings.log_format, &settings.log, &traces)?;
    let http = &mut settings.http;
    http.connections_max = connections_within_file_limit(http.connections_max, settings.workers.get())?;
    http.load_tls()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start a runtime")?.block_on(run(settings, telemetry))?;
    // What is queued is sent now.
    drop(traces);
    Ok(())
}

async fn run(settings: Settings, telemetry: Arc<Telemetry>) -> anyhow::Result<()> {
    let starting = info_span!("node.start");
    let mesh = settings.mesh.clone();
    let mut quic = QuicConfig::new(mesh.id(), settings.bind, settings.credentials.clone());
    quic.listeners = settings.workers.get();
    quic.send_window_bytes = mesh.peer_queue_bytes_max;
    quic.are_timestamps = settings.http.kernel_timestamps;
    let transport = QuicTransport::new(quic)?;
    let listeners = Listeners::bind(settings.http.bind(), settings.workers.get())?;
    announce(&settings, listeners.addr(), transport.local_addr());

    let node = Node::start_upkeep(mesh, Arc::new(transport), Arc::new(TelemetryObserver(Arc::clone(&telemetry))))?;
    let shutdown = Shutdown::default();
    let app = Arc::new(App::new(node.clone(), telemetry, &settings, shutdown.clone()));
    tokio::spawn(run_upkeep(Arc::clone(&app)));
    app.reload_tls();
    // Before anybody can be told that the node is ready, and stop it.
    shutdown.start_on_signals()?;
    let workers = Workers::start(&app, settings.http, listeners).instrument(starting).await?;
    tokio::select! {
        () = shutdown.reached(ShutdownPhase::Leaving) => {}
        reason = node.refused() => anyhow::bail!(reason),
    }
    stop(&node, &shutdown, workers).instrument(info_span!("node.stop")).await
}

async fn stop(node: &Node, shutdown: &Shutdown, mut workers: Workers) -> anyhow::Result<()> {
    tracing::info!("leaving");
    if !node.leave().await {
        tracing::warn!(
            "no other member has taken over all that this node holds: what it alone holds is lost (DRAIN_TIMEOUT_MS)"
        );
    }
    tracing::info!("draining");
    shutdown.drain();
    workers.drained().await;
    tokio::time::timeout(CLOSE_MAX, node.close()).await.context("closing connections to the mesh took too long")?;
    shutdown.finish();
    workers.join();
    tracing::info!("stopped");
    Ok(())
}
