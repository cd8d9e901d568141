//! `GET /stats`: the local store's counters under the names that existing scripts know, and ours below `mesh`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use mesh::Stats;
use mesh_proto::StoreStats;
use serde::Serialize;

use crate::{app::HttpWorker, process};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StatsView {
    hits: u64,
    misses: u64,
    evictions: u64,
    expirations: u64,
    /// Live entries.
    size: u64,
    /// The bound on entries.
    capacity: u64,
    /// Hits among all look-ups, 0 to 1; 0 before the first.
    hit_ratio: f64,
    shards: u64,
    #[serde(rename = "mesh")]
    mesh: MeshStats,
}

#[derive(Serialize)]
struct MeshStats {
    bytes: u64,
    bytes_max: u64,
    tombstones: u64,
    tombstones_collected: u64,
    tombstones_dropped: u64,
    hedges: u64,
    hedge_wins: u64,
    remote_reads: u64,
    missed_writes: u64,
    second_rounds: u64,
    further_rounds: u64,
    carried_writes: u64,
    wrong_ring: u64,
    drift_refused: u64,
    repaired: u64,
    given_up: u64,
    left_early: u64,
    hints_queued: u64,
    hints_queued_bytes: u64,
    hints_oldest_age_ms: u64,
    hints_replayed: u64,
    hints_dropped: u64,
    hints_dropped_overflow: u64,
    hints_dropped_age: u64,
    hints_dropped_not_owner: u64,
    hints_dropped_refused: u64,
    hints_dropped_full_sync: u64,
    peers_refused: u64,
    protocol_violations: u64,
    faults_active: u64,
    faults_laid: u64,
    fault_packets_dropped: u64,
    fault_packets_delayed: u64,
    fault_packets_duplicated: u64,
    in_flight: usize,
    connections: usize,
    uptime_ms: u64,
    pid: u32,
    cpu_ms: u64,
    rss_bytes: Option<u64>,
}

/// See the file's head.
pub(super) async fn stats(State(http): State<Arc<HttpWorker>>) -> Response {
    let app = &http.app;
    let stats = app.node.stats();
    let mesh = MeshStats {
        // Without this request itself.
        in_flight: app.in_flight.get().saturating_sub(1),
        connections: app.connections.get(),
        uptime_ms: u64::try_from(app.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..mesh_stats(&stats)
    };
    super::json(&view(&stats.store, mesh))
}

fn view(store: &StoreStats, mesh: MeshStats) -> StatsView {
    let lookups = store.hits + store.misses;
    StatsView {
        hits: store.hits,
        misses: store.misses,
        evictions: store.evictions,
        expirations: store.expirations,
        size: store.entries,
        capacity: store.entries_max,
        hit_ratio: if lookups == 0 { 0.0 } else { store.hits as f64 / lookups as f64 },
        shards: store.shards,
        mesh,
    }
}

fn mesh_stats(stats: &Stats) -> MeshStats {
    let hints = &stats.hints;
    MeshStats {
        bytes: stats.store.bytes,
        bytes_max: stats.store.bytes_max,
        tombstones: stats.store.tombstones,
        tombstones_collected: stats.store.tombstones_collected,
        tombstones_dropped: stats.store.tombstones_dropped,
        hedges: stats.hedges,
        hedge_wins: stats.hedge_wins,
        remote_reads: stats.remote_reads,
        missed_writes: stats.missed_writes,
        second_rounds: stats.second_rounds,
        further_rounds: stats.further_rounds,
        carried_writes: stats.carried_writes,
        wrong_ring: stats.wrong_ring,
        drift_refused: stats.drift_refused,
        repaired: stats.repaired,
        given_up: stats.given_up,
        left_early: stats.left_early,
        hints_queued: hints.queued,
        hints_queued_bytes: hints.queued_bytes,
        hints_oldest_age_ms: u64::try_from(hints.oldest_age.as_millis()).unwrap_or(u64::MAX),
        hints_replayed: hints.replayed,
        hints_dropped: hints.dropped(),
        hints_dropped_overflow: hints.dropped_overflow,
        hints_dropped_age: hints.dropped_age,
        hints_dropped_not_owner: hints.dropped_not_owner,
        hints_dropped_refused: hints.dropped_refused,
        hints_dropped_full_sync: hints.dropped_full_sync,
        peers_refused: stats.peers_refused,
        protocol_violations: stats.protocol_violations,
        faults_active: stats.faults.active,
        faults_laid: stats.faults.laid,
        fault_packets_dropped: stats.faults.packets_dropped,
        fault_packets_delayed: stats.faults.packets_delayed,
        fault_packets_duplicated: stats.faults.packets_duplicated,
        in_flight: 0,
        connections: 0,
        uptime_ms: 0,
        pid: std::process::id(),
        cpu_ms: process::cpu_ms(),
        rss_bytes: process::rss_bytes(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_field_names_are_those_that_scripts_know() {
        let store = StoreStats { hits: 3, misses: 1, entries: 7, entries_max: 9, ..StoreStats::default() };
        let stats = Stats { store, ..Stats::default() };
        let json = serde_json::to_value(view(&stats.store, mesh_stats(&stats))).unwrap();
        let mut names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected = ["Capacity", "Evictions", "Expirations", "HitRatio", "Hits", "Misses", "Shards", "Size", "mesh"];
        assert_eq!(names, expected);
        assert_eq!((&json["HitRatio"], &json["Size"], &json["Capacity"]), (&0.75.into(), &7.into(), &9.into()));
        assert_eq!(json["mesh"]["pid"], std::process::id());
        assert_eq!(view(&StoreStats::default(), mesh_stats(&stats)).hit_ratio, 0.0);
    }
}
