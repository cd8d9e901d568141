//! `GET /stats`: the local store's counters under the names that existing scripts know, and ours below `mesh`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use observability::NodeSample;
use serde_json::{Map, Value};

use crate::app::HttpWorker;

/// Answers with the counters of this node.
pub(super) async fn stats(State(http): State<Arc<HttpWorker>>) -> Response {
    super::json(&view(&http.app.figures()))
}

fn view(sample: &NodeSample) -> Value {
    let (mut store, mut mesh, mut memory) = (Map::new(), Map::new(), Map::new());
    for (name, figure) in sample.fields() {
        let (fields, name) = match name.strip_prefix("memory.") {
            Some(part) => (&mut memory, part),
            None if name.starts_with(|first: char| first.is_ascii_uppercase()) => (&mut store, name),
            None => (&mut mesh, name),
        };
        fields.insert(name.to_owned(), figure.into());
    }
    let (hits, misses) = (sample.stats.store.hits, sample.stats.store.misses);
    // Hits among all look-ups, 0 to 1; 0 before the first.
    store.insert("HitRatio".to_owned(), (hits as f64 / (hits + misses).max(1) as f64).into());
    mesh.insert("pid".to_owned(), std::process::id().into());
    mesh.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    mesh.insert("rss_bytes".to_owned(), sample.memory.resident.into());
    mesh.insert("memory".to_owned(), memory.into());
    mesh.insert("evictions_per_s".to_owned(), sample.last_minute.evictions_per_s.into());
    mesh.insert("evicted_age_s_1m".to_owned(), sample.last_minute.evicted_age_s.into());
    mesh.insert("hit_ratio_1m".to_owned(), sample.last_minute.hit_ratio.into());
    store.insert("mesh".to_owned(), mesh.into());
    store.into()
}

#[cfg(test)]
mod tests {
    use mesh::Stats;
    use mesh_proto::StoreStats;

    use super::*;

    #[test]
    fn the_field_names_are_those_that_scripts_know() {
        let store = StoreStats { hits: 3, misses: 1, entries: 7, entries_max: 9, ..StoreStats::default() };
        let stats = Stats { store, ..Stats::default() };
        let json = view(&NodeSample { stats, in_flight: 1, ..NodeSample::default() });
        let names = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>().join(" "));
        let expected = "Capacity Evictions Expirations HitRatio Hits Misses Shards Size mesh";
        assert_eq!(names(&json).as_deref(), Some(expected));
        let expected = "bytes bytes_max carried_writes connections cpu_ms drift_refused evicted_age_ms evicted_age_s_1m evictions_per_s \
                        fault_packets_delayed \
                        fault_packets_dropped fault_packets_duplicated faults_active faults_laid full further_rounds given_up hedge_wins \
                        hedges hints_dropped hints_dropped_age hints_dropped_full_sync hints_dropped_not_owner \
                        hints_dropped_overflow hints_dropped_refused hints_oldest_age_ms hints_queued hints_queued_bytes \
                        hints_replayed hit_ratio_1m in_flight left_early memory missed_writes peers_refused pid protocol_violations remote_reads \
                        repaired rss_bytes second_rounds tombstones tombstones_collected tombstones_dropped uptime_ms version wrong_ring";
        assert_eq!(names(&json["mesh"]).as_deref(), Some(expected));
        let expected = "allocator code connections flight_records hints other request_bodies spans store";
        assert_eq!(names(&json["mesh"]["memory"]).as_deref(), Some(expected));
        assert_eq!((&json["HitRatio"], &json["Size"], &json["Capacity"]), (&0.75.into(), &7.into(), &9.into()));
        assert_eq!((&json["mesh"]["pid"], &json["mesh"]["in_flight"]), (&std::process::id().into(), &0.into()));
        assert_eq!(view(&NodeSample::default())["HitRatio"], 0.0);
    }
}
