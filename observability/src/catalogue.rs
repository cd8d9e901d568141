//! Every metric there is: its name, its kind, its help text, its buckets. A name stands here and nowhere else, so that
//! dashboards and rules can be checked against this file.

use std::time::Duration;

use crate::NodeSample;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, in [`SECONDS_BUCKETS`].
    Seconds,
}

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// As exposed. Counters end in `_total`.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) kind: MetricKind,
    /// One sentence for readers of `/metrics`.
    pub(crate) help: &'static str,
}

/// 5 µs to 5 s in steps of 1, 2, 5 with a few more where a request usually ends. The runner uses the same bounds, so that
/// its percentiles can be laid over the nodes'.
pub(crate) const SECONDS_BUCKETS: [f64; 22] = [
    0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_35, 0.000_5, 0.000_75, 0.001, 0.001_5, 0.002,
    0.003_5, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// One figure of a [`NodeSample`]: where it stands in `GET /stats`, which series shows it, or both.
pub(crate) struct Figure {
    /// Its name in `GET /stats`; nothing if it is not there.
    pub(crate) field: &'static str,
    /// Its family and its label, if it has a series.
    pub(crate) series: Option<(&'static Family, &'static [(&'static str, &'static str)])>,
    /// Where it is read.
    pub(crate) read: fn(&NodeSample) -> u64,
}

/// A family may be followed by what is sampled for it: the field of `GET /stats`, a label, and how to read it. `_` stands for
/// a figure that is no metric.
macro_rules! catalogue {
    ($($constant:ident: $kind:ident $name:literal $help:literal
        $([$($field:literal $(($label:literal = $value:literal))? |$sample:ident| $read:expr),*])?;)*
     $(_: $other:literal |$of:ident| $other_read:expr;)*) => {
        $(pub(crate) const $constant: Family = Family { name: $name, kind: MetricKind::$kind, help: $help };)*
        /// All of them, in the order of this file.
        pub(crate) const ALL: &[Family] = &[$($constant),*];
        /// Everything that is sampled.
        pub(crate) const FIGURES: &[Figure] = &[
            $($($(Figure {
                field: $field,
                series: Some((&$constant, &[$(($label, $value))?])),
                read: |$sample| $read,
            },)*)?)*
            $(Figure { field: $other, series: None, read: |$of| $other_read },)*
        ];
    };
}

catalogue! {
    REQUESTS: Counter "mesh_requests_total" "Operations of the mesh API by kind and outcome.";
    OP_DURATION: Seconds "mesh_op_duration_seconds" "The mesh's part of an operation.";
    INFLIGHT: Gauge "mesh_inflight_requests" "HTTP requests being answered." ["" |s| s.in_flight];
    HEDGE_LEGS: Counter "mesh_hedge_legs_total" "Hedge legs of reads by how they ended.";
    HEDGE_WINS: Counter "mesh_hedge_wins_total" "Hedge legs whose answer made the result.";
    QUORUM_ACK: Seconds "mesh_quorum_ack_seconds" "Time until an owner confirmed a write, this node included; only confirmations that came before the answer.";
    MISSED_WRITES: Counter "mesh_missed_writes_total" "Write legs that failed: this owner may lack the write until repaired.";

    MEMBER_STATE: Gauge "mesh_member_state" "1 for the state that this node believes the peer to be in, else 0.";
    SUSPICIONS: Counter "mesh_suspicions_total" "Times that a peer became suspect.";
    REFUTATIONS: Counter "mesh_refutations_total" "Times that this node refuted a claim that it was suspect or dead.";
    GOSSIP_ROUNDS: Counter "mesh_gossip_rounds_total" "Gossip rounds by how the probed peer answered.";
    GOSSIP_ROUND: Seconds "mesh_gossip_round_seconds" "Time from a probe to its answer.";
    RING_MEMBERS: Gauge "mesh_ring_members" "Members of the ring in force.";
    MEMBERS_JOINING: Gauge "mesh_members_joining" "Members, this node included, that catch up before they enter the ring." ["" |s| s.view.members_joining];
    MEMBERS_UNREACHABLE: Gauge "mesh_members_unreachable" "Members that are heard, but that this node could not connect to for 10 s or longer; GET /cluster says which and why." ["" |s| s.view.members_unreachable];
    MEMBERS_LEAVING: Gauge "mesh_members_leaving" "Members, this node included, that have left the ring and are still handing over." ["" |s| s.view.members_leaving];
    RING_SLOTS_OWNED: Gauge "mesh_ring_slots_owned" "Slots that this node owns, as any replica." ["" |s| s.view.slots_owned];

    RING_HASH: Gauge "mesh_ring_hash" "The upper 52 bits of the ring's hash: nodes that differ in it disagree on owners." ["" |s| s.view.ring_hash >> 12];
    RING_WEIGHT: Gauge "mesh_ring_weight" "This node's published share of the ring, 1 to 16." ["" |s| s.view.ring_weight];
    SLOTS_IN_SYNC: Gauge "mesh_slots_in_sync" "Slots owned that this node can say MISS for." ["" |s| s.view.slots_in_sync];
    READY: Gauge "mesh_ready" "1 while the node wants traffic, as GET /ready says." ["" |s| s.view.ready.into()];

    PEER_INFO: Gauge "mesh_peer_info" "1 for the address under which this node knows the peer, to join series by.";
    PEER_IN_FLIGHT: Gauge "mesh_peer_in_flight" "Requests to the peer that wait for its answer.";
    QUIC_RTT: Gauge "mesh_quic_rtt_seconds" "Smoothed round-trip time to the peer.";
    QUIC_CWND: Gauge "mesh_quic_cwnd_bytes" "Congestion windows towards the peer, all connections together.";
    QUIC_SENT: Counter "mesh_quic_sent_packets_total" "Packets sent to the peer.";
    QUIC_LOST: Counter "mesh_quic_lost_packets_total" "Packets to the peer that were lost.";
    QUIC_CONGESTION: Counter "mesh_quic_congestion_events_total" "Times that a congestion window towards the peer shrank.";
    REMOTE_READS: Counter "mesh_remote_reads_total" "Reads that went to another node." ["remote_reads" |s| s.stats.remote_reads];
    WRONG_RING: Counter "mesh_wrong_ring_total" "Requests answered with the member list because the rings differed." ["wrong_ring" |s| s.stats.wrong_ring];
    PEER_UP: Counter "mesh_peer_connections_total" "Connections to peers that came up.";
    PEER_DOWN: Counter "mesh_peer_disconnections_total" "Connections to peers that broke.";
    PEER_REFUSED: Counter "mesh_peer_refused_total" "Handshakes and greetings refused.";
    PROTOCOL_VIOLATIONS: Counter "mesh_protocol_violations_total" "Connections closed for breaking the protocol.";
    DRIFT_REFUSED: Counter "mesh_drift_refused_total" "Versions refused for being too far in the future.";

    FAULTS_ACTIVE: Gauge "mesh_faults_active" "Faults in force at this node on request." ["faults_active" |s| s.stats.faults.active];
    FAULT_PACKETS: Counter "mesh_fault_packets_total" "Packets that faults on request have met, by what happened to them." ["fault_packets_dropped" ("outcome" = "dropped") |s| s.stats.faults.packets_dropped,
        "fault_packets_delayed" ("outcome" = "delayed") |s| s.stats.faults.packets_delayed,
        "fault_packets_duplicated" ("outcome" = "duplicated") |s| s.stats.faults.packets_duplicated];
    CLOCK: Gauge "mesh_clock_timestamp_seconds" "What this node's wall clock says; compare it with the time of the scrape.";

    REPAIR_ROUNDS: Counter "mesh_repair_rounds_total" "Resync and repair rounds ended.";
    REPAIR_KEYS: Counter "mesh_repair_keys_total" "Records taken from peers by resync and repair.";
    REPAIR_ROUND: Seconds "mesh_repair_round_seconds" "Time that a resync or repair round took.";
    SECOND_ROUNDS: Counter "mesh_second_rounds_total" "Writes that were sent a second time, because owners held something newer." ["second_rounds" |s| s.stats.second_rounds];
    FURTHER_ROUNDS: Counter "mesh_further_rounds_total" "Writes that were sent more often, though all owners that answered were in sync and in one ring: there should be none." ["further_rounds" |s| s.stats.further_rounds];
    CARRIED_WRITES: Counter "mesh_carried_writes_total" "Writes that a later write of the same key carried." ["carried_writes" |s| s.stats.carried_writes];
    GIVEN_UP: Counter "mesh_given_up_records_total" "Records dropped because others own their slots now, and hold them." ["given_up" |s| s.stats.given_up];
    LEFT_EARLY: Counter "mesh_left_early_total" "Peers that left before this node had taken over all that they held." ["left_early" |s| s.stats.left_early];

    HINTS_QUEUED: Gauge "mesh_hints_queued" "Writes that this peer has missed and that wait for it here.";
    HINTS_QUEUED_BYTES: Gauge "mesh_hints_queued_bytes" "What these hints are charged for, book-keeping included.";
    HINTS_OLDEST_AGE: Gauge "mesh_hints_oldest_age_seconds" "How long the oldest of these hints has waited.";
    HINTS_REPLAYED: Counter "mesh_hints_replayed_total" "Hints that a peer has taken, or had something newer for." ["hints_replayed" |s| s.stats.hints.replayed];
    HINTS_DROPPED: Counter "mesh_hints_dropped_total" "Hints given up, by reason; a comparison makes up for them." ["hints_dropped_overflow" ("reason" = "overflow") |s| s.stats.hints.dropped_overflow,
        "hints_dropped_age" ("reason" = "age") |s| s.stats.hints.dropped_age,
        "hints_dropped_not_owner" ("reason" = "not_owner") |s| s.stats.hints.dropped_not_owner,
        "hints_dropped_refused" ("reason" = "refused") |s| s.stats.hints.dropped_refused,
        "hints_dropped_full_sync" ("reason" = "full_sync") |s| s.stats.hints.dropped_full_sync];

    STORE_ENTRIES: Gauge "mesh_store_entries" "Live entries." ["Size" |s| s.stats.store.entries];
    STORE_ENTRIES_MAX: Gauge "mesh_store_entries_max" "The bound on live entries." ["Capacity" |s| s.stats.store.entries_max];
    STORE_BYTES: Gauge "mesh_store_bytes" "Bytes accounted, book-keeping included." ["bytes" |s| s.stats.store.bytes];
    STORE_BYTES_MAX: Gauge "mesh_store_bytes_max" "The bound on bytes." ["bytes_max" |s| s.stats.store.bytes_max];
    STORE_PAYLOAD_BYTES: Gauge "mesh_store_payload_bytes" "Bytes of the keys and values in the store." ["" |s| s.stats.store.payload_bytes];
    STORE_TOMBSTONES: Gauge "mesh_store_tombstones" "Tombstones and stubs of expired entries." ["tombstones" |s| s.stats.store.tombstones];
    STORE_TOMBSTONE_BYTES: Gauge "mesh_store_tombstone_bytes" "Bytes of tombstones and stubs, their keys included." ["" |s| s.stats.store.tombstone_bytes];
    STORE_TOMBSTONES_COLLECTED: Counter "mesh_store_tombstones_collected_total" "Tombstones dropped because nobody needs them any more." ["tombstones_collected" |s| s.stats.store.tombstones_collected];
    STORE_TOMBSTONES_DROPPED: Counter "mesh_store_tombstones_dropped_total" "Tombstones dropped because there were too many." ["tombstones_dropped" |s| s.stats.store.tombstones_dropped];
    STORE_EVICTIONS: Counter "mesh_store_evictions_total" "Live entries dropped to make room." ["Evictions" |s| s.stats.store.evictions];
    STORE_EXPIRATIONS: Counter "mesh_store_expirations_total" "Entries that reached their expiry." ["Expirations" |s| s.stats.store.expirations];
    STORE_FULL: Gauge "mesh_store_full" "1 if entries were evicted within the last minute, else 0: the store is at its capacity." ["full" |s| u64::from(s.last_minute.is_full())];
    STORE_EVICTION_RATE: Gauge "mesh_store_eviction_rate" "Live entries dropped to make room for each second of the last minute.";
    STORE_EVICTED_AGE: Gauge "mesh_store_evicted_age_seconds" "How much older than the newest write the entries of the last minute were that made room, on the average.";
    STORE_HIT_RATIO: Gauge "mesh_store_hit_ratio" "Look-ups of the last minute in the local store that found a live value, as a part of all, 0 to 1.";
    STORE_HITS: Counter "mesh_store_hits_total" "Look-ups in the local store that found a live value." ["Hits" |s| s.stats.store.hits];
    STORE_MISSES: Counter "mesh_store_misses_total" "Look-ups in the local store that did not." ["Misses" |s| s.stats.store.misses];

    HTTP_CONNECTIONS: Gauge "mesh_http_connections" "Open HTTP connections." ["connections" |s| s.connections];
    HTTP_CONNECTIONS_REFUSED: Counter "mesh_http_connections_refused_total" "Connections refused at CONNECTIONS_MAX.";
    HTTP_REQUESTS_SHED: Counter "mesh_http_requests_shed_total" "Requests shed with 503, by the bound they met: before they were looked at, or (answers) a large value in place of its answer.";
    HTTP_CONNECTIONS_CUT: Counter "mesh_http_connections_cut_total" "Connections closed because the client kept the node waiting, by what it waited for.";
    HTTP_TLS_FAILURES: Counter "mesh_http_tls_handshake_failures_total" "TLS handshakes with clients that failed, by reason.";
    HTTP_TLS_EXPIRY: Gauge "mesh_http_tls_certificate_expiry_timestamp_seconds" "When the certificate of HTTP_TLS_CERT expires; only with TLS.";
    HTTP_QUEUE_DURATION: Seconds "mesh_http_queue_duration_seconds" "Time from the kernel's receipt of a request to the mesh to its handler, if the kernel tells it.";
    HTTP_QUEUE_DELAY: Gauge "mesh_http_queue_delay_seconds" "How long requests lately waited at the slowest thread before they were looked at.";
    HTTP_PROBLEMS: Counter "mesh_http_problems_total" "Requests answered with an error by the HTTP layer or the mesh, by status.";
    TRACEPARENT_MALFORMED: Counter "mesh_traceparent_malformed_total" "Requests with a traceparent header that was ignored.";

    PROCESS_CPU: Counter "process_cpu_seconds_total" "CPU time of all threads, user and system.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" "Resident memory." ["" |s| s.memory.resident];
    PROCESS_FILES: Gauge "process_open_fds" "Open files.";
    PROCESS_FILES_MAX: Gauge "process_max_fds" "Files that this process may have open.";
    THREAD_CPU: Counter "mesh_thread_cpu_seconds_total" "CPU time of the threads of a name.";
    THREAD_RUN_QUEUE: Counter "mesh_thread_run_queue_seconds_total" "Time that the threads of a name could have run and waited for a core.";
    MEMORY: Gauge "mesh_memory_bytes" "Resident memory by what it is for; what is not known to be for anything is other." ["memory.store" ("part" = "store") |s| s.stats.store.bytes,
        "memory.hints" ("part" = "hints") |s| s.stats.hints.queued_bytes,
        "memory.code" ("part" = "code") |s| s.memory.code,
        "memory.allocator" ("part" = "allocator") |s| s.memory.overhead(),
        "memory.connections" ("part" = "connections") |s| s.memory.connections,
        "memory.request_bodies" ("part" = "request_bodies") |s| s.memory.request_bodies,
        "memory.flight_records" ("part" = "flight_records") |s| s.memory.flight_records,
        "memory.spans" ("part" = "spans") |s| s.memory.spans,
        "memory.other" ("part" = "other") |s| s.memory.other(&s.stats)];
    START: Gauge "process_start_time_seconds" "When this process started.";
    SPANS_KEPT: Counter "mesh_spans_kept_total" "Spans handed to the exporter: those exported, failed, dropped or under way.";
    SPANS_EXPORTED: Counter "mesh_spans_exported_total" "Spans that the collector took.";
    SPANS_FAILED: Counter "mesh_spans_failed_total" "Spans that the collector did not take in time.";
    SPANS_DROPPED: Counter "mesh_spans_dropped_total" "Spans dropped because too many were under way.";
    TRACE_KEEP_MISSES: Counter "mesh_trace_keep_misses_total" "Traces that a peer or a client asked to keep and nothing was recorded of, or not yet.";

    BUILD_INFO: Gauge "mesh_build_info" "Always 1; the labels say which build and which node this is.";

    RUNNER_OPS: Seconds "runner_op_duration_seconds" "Response times as clients see them, by operation and outcome, within 3 %.";
    RUNNER_SERVICE: Seconds "runner_service_duration_seconds" "Service times: as response times, but from when a request was sent, within 3 %.";
    RUNNER_ERRORS: Counter "runner_errors_total" "Operations that failed, by kind.";
    RUNNER_SENT: Counter "runner_writes_sent_total" "Writes sent, failed ones and the prefill included.";
    RUNNER_FAIL_OVERS: Counter "runner_fail_overs_total" "Operations that a second node answered after a first had failed.";
    RUNNER_EXTRA_TRIES: Counter "runner_extra_tries_total" "Tries beyond the first of each operation, whatever they came to.";
    RUNNER_VIOLATIONS: Counter "runner_integrity_violations_total" "Answers that break the guarantee, by kind.";
    RUNNER_STALE: Counter "runner_stale_reads_total" "Reads older than an acknowledged write; allowed at consistency one.";
    RUNNER_SWEPT: Counter "runner_swept_reads_total" "Reads of the final sweep.";
    RUNNER_PHASE: Gauge "runner_phase" "1 for the part of the run that is going on, else 0.";
    RUNNER_FAULT: Gauge "runner_fault_event_timestamp_seconds" "When something happened to a node, by action, kind of fault and target.";
    RUNNER_LAG: Gauge "runner_schedule_lag_max_seconds" "The longest that an operation has waited to begin; only under RATE.";
    RUNNER_TARGET: Gauge "runner_target_in_flight" "The requests in flight that the run aims at.";
    RUNNER_SPANS: Counter "runner_spans_total" "The runner's own spans, by fate: all that were kept, and those exported, failed or dropped.";
    RUNNER_TRACE_KEEPS: Counter "runner_trace_keeps_total" "Traces that nodes were asked to keep after the fact, and those that could not be asked for.";
    RUNNER_INFO: Gauge "runner_build_info" "Always 1; the labels say which build and which run this is.";

    // Only in GET /stats: as metrics they are counted per peer or per outcome, where they happen.
    _: "Shards" |s| s.stats.store.shards;
    _: "hedges" |s| s.stats.hedges;
    _: "hedge_wins" |s| s.stats.hedge_wins;
    _: "missed_writes" |s| s.stats.missed_writes;
    _: "drift_refused" |s| s.stats.drift_refused;
    _: "repaired" |s| s.stats.repaired;
    _: "hints_queued" |s| s.stats.hints.queued;
    _: "hints_queued_bytes" |s| s.stats.hints.queued_bytes;
    _: "evicted_age_ms" |s| s.stats.store.evicted_age_ms;
    _: "hints_oldest_age_ms" |s| millis(s.stats.hints.oldest_age);
    _: "hints_dropped" |s| s.stats.hints.dropped();
    _: "peers_refused" |s| s.stats.peers_refused;
    _: "protocol_violations" |s| s.stats.protocol_violations;
    _: "faults_laid" |s| s.stats.faults.laid;
    // Without the request that asks.
    _: "in_flight" |s| s.in_flight.saturating_sub(1);
    _: "uptime_ms" |s| millis(s.uptime);
    _: "cpu_ms" |s| millis(s.cpu);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut seen = HashSet::new();
        for family in ALL {
            assert!(seen.insert(family.name), "{} stands here twice", family.name);
            assert!(
                ["mesh_", "runner_", "process_"].iter().any(|prefix| family.name.starts_with(prefix)),
                "{}",
                family.name
            );
            assert_eq!(family.name.ends_with("_total"), family.kind == MetricKind::Counter, "{}", family.name);
            // A gauge may be in seconds too.
            assert!(family.name.ends_with("_seconds") || family.kind != MetricKind::Seconds, "{}", family.name);
            assert!(!family.name.ends_with("_seconds") || family.kind != MetricKind::Counter, "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }

    #[test]
    fn the_documentation_lists_them_all_and_no_others() {
        let text = include_str!("../../docs/OBSERVABILITY.md");
        let section = text.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap_or_default();
        let written: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let kind = |kind| match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Seconds => "histogram",
        };
        let wanted =
            ALL.iter().map(|family| format!("| `{}` | {} | {} |", family.name, kind(family.kind), family.help));
        let wanted: Vec<String> = wanted.collect();
        assert_eq!(written, wanted, "docs/OBSERVABILITY.md should say:\n{}", wanted.join("\n"));
    }

    #[test]
    fn buckets_rise() {
        assert!(SECONDS_BUCKETS.is_sorted_by(|a, b| a < b));
    }
}
