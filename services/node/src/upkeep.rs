//! What the main thread does while others answer requests: it hosts the mesh's upkeep, passes what the mesh tells on to
//! telemetry, and samples.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh::Observer;
use mesh_proto::{Event, OpRecord, ServeRecord};
use observability::Telemetry;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::{App, Settings};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Passes on what the mesh tells: neither crate knows the other.
pub struct TelemetryObserver(pub Arc<Telemetry>);

impl Observer for TelemetryObserver {
    fn event(&self, event: &Event) {
        self.0.event(event);
    }

    fn operation(&self, record: &OpRecord) {
        self.0.operation(record);
    }

    fn served(&self, record: &ServeRecord) {
        self.0.served(record);
    }

    fn keep_trace(&self, trace: u128) {
        self.0.keep_trace(trace);
    }
}

/// Samples once a second, for ever.
pub async fn run_upkeep(app: Arc<App>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = app.sample();
        app.look(&sample);
        app.telemetry.sample(&sample);
        app.telemetry.run_upkeep();
    }
}

/// The one line that says what was started.
pub fn announce(settings: &Settings, http: SocketAddr, quic: SocketAddr) {
    let mesh = &settings.mesh;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        id = %mesh.id(),
        name = mesh.name,
        %http,
        tls = settings.http.tls.is_some(),
        %quic,
        public = mesh.public_addr,
        seeds = mesh.seeds.join(","),
        replication_factor = mesh.replicas.get(),
        write_concern = mesh.concern.get(),
        workers = settings.workers,
        capacity_bytes = mesh.store.bytes_max,
        capacity_entries = mesh.store.entries_max,
        "node started"
    );
}
