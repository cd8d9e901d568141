//! How a node sees itself and its mesh, sampled once a second: its ring, its readiness, its process, and the QUIC paths to
//! its peers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{Counter, Gauge};

use crate::{catalogue as names, registry::Registry};

/// Peers beyond so many are not shown one by one.
const PEERS_MAX: usize = 1024;

/// One look at the mesh.
#[derive(Clone, Debug, Default)]
pub struct MeshSample {
    /// The ring's 64-bit hash.
    pub ring_hash: u64,
    /// This node's share, 1 to 16.
    pub ring_weight: u64,
    /// Slots this node owns, as any replica.
    pub slots_owned: u64,
    /// Those of them it can say "miss" for.
    pub slots_in_sync: u64,
    /// Whether it wants traffic.
    pub ready: bool,
    /// Members that catch up before they enter the ring.
    pub members_joining: u64,
    /// Members that have left the ring and are still handing over.
    pub members_leaving: u64,
    /// Reads that went to another node, since start.
    pub remote_reads: u64,
    /// Requests that came with another ring, since start.
    pub wrong_ring: u64,
    /// Records dropped because others own their slots now, since start.
    pub given_up: u64,
    /// Peers that left before all that they held was taken over, since start.
    pub left_early: u64,
    /// CPU time of the process, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Time since start.
    pub uptime: Duration,
    /// The node's wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Faults in force.
    pub faults_active: u64,
    /// Packets that faults lost, since start.
    pub fault_packets_dropped: u64,
    /// Packets that they held back.
    pub fault_packets_delayed: u64,
    /// Packets that they doubled.
    pub fault_packets_duplicated: u64,
    /// All other members.
    pub peers: Vec<PeerSample>,
}

/// One peer, as the connections to it show it.
#[derive(Clone, Debug, Default)]
pub struct PeerSample {
    /// Its id, as other series are labelled.
    pub id: String,
    /// Its address, for people.
    pub addr: String,
    /// Requests in flight to it.
    pub in_flight: u64,
    /// Smoothed round-trip time; nothing without a connection.
    pub rtt: Option<Duration>,
    /// Congestion windows, in bytes.
    pub cwnd_bytes: u64,
    /// Packets sent over the connections that are up.
    pub sent_packets: u64,
    /// Those that were lost.
    pub lost_packets: u64,
    /// Times that a window shrank.
    pub congestion_events: u64,
}

/// The handles.
pub(crate) struct MeshSeries {
    ring_hash: Gauge,
    ring_weight: Gauge,
    slots_owned: Gauge,
    slots_in_sync: Gauge,
    ready: Gauge,
    members_joining: Gauge,
    members_leaving: Gauge,
    remote_reads: Counter,
    wrong_ring: Counter,
    given_up: Counter,
    left_early: Counter,
    cpu: Counter,
    resident: Gauge,
    start: Gauge,
    clock: Gauge,
    faults_active: Gauge,
    /// Dropped, delayed, duplicated.
    fault_packets: [Counter; 3],
    // Taken once a second, by the sampler.
    peers: Mutex<HashMap<String, PeerSeries>>,
}

impl MeshSeries {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            ring_hash: registry.gauge(&names::RING_HASH, &[]),
            ring_weight: registry.gauge(&names::RING_WEIGHT, &[]),
            slots_owned: registry.gauge(&names::RING_SLOTS_OWNED, &[]),
            slots_in_sync: registry.gauge(&names::SLOTS_IN_SYNC, &[]),
            ready: registry.gauge(&names::READY, &[]),
            members_joining: registry.gauge(&names::MEMBERS_JOINING, &[]),
            members_leaving: registry.gauge(&names::MEMBERS_LEAVING, &[]),
            remote_reads: registry.counter(&names::REMOTE_READS, &[]),
            wrong_ring: registry.counter(&names::WRONG_RING, &[]),
            given_up: registry.counter(&names::GIVEN_UP, &[]),
            left_early: registry.counter(&names::LEFT_EARLY, &[]),
            cpu: registry.counter(&names::PROCESS_CPU, &[]),
            resident: registry.gauge(&names::PROCESS_MEMORY, &[]),
            start: registry.gauge(&names::START, &[]),
            clock: registry.gauge(&names::CLOCK, &[]),
            faults_active: registry.gauge(&names::FAULTS_ACTIVE, &[]),
            fault_packets: ["dropped", "delayed", "duplicated"]
                .map(|outcome| registry.counter(&names::FAULT_PACKETS, &[("outcome", outcome)])),
            peers: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, registry: &Registry, sample: &MeshSample) {
        // A gauge is an f64, which holds 53 bits exactly.
        self.ring_hash.set((sample.ring_hash >> 12) as f64);
        self.ring_weight.set(sample.ring_weight as f64);
        self.slots_owned.set(sample.slots_owned as f64);
        self.slots_in_sync.set(sample.slots_in_sync as f64);
        self.ready.set(if sample.ready { 1.0 } else { 0.0 });
        self.members_joining.set(sample.members_joining as f64);
        self.members_leaving.set(sample.members_leaving as f64);
        self.remote_reads.absolute(sample.remote_reads);
        self.wrong_ring.absolute(sample.wrong_ring);
        self.given_up.absolute(sample.given_up);
        self.left_early.absolute(sample.left_early);
        self.cpu.absolute(sample.cpu_ms);
        self.clock.set(sample.unix_ms as f64 / 1000.0);
        self.faults_active.set(sample.faults_active as f64);
        let packets = [sample.fault_packets_dropped, sample.fault_packets_delayed, sample.fault_packets_duplicated];
        for (counter, packets) in self.fault_packets.iter().zip(packets) {
            counter.absolute(packets);
        }
        self.resident.set(sample.resident_bytes as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Whole seconds, or a step of the clock's rate would look like a restart.
        self.start.set(now.saturating_sub(sample.uptime).as_secs() as f64);
        // A poisoned lock still guards a whole map.
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in &sample.peers {
            if peers.len() < PEERS_MAX || peers.contains_key(&peer.id) {
                peers.entry(peer.id.clone()).or_insert_with(|| PeerSeries::new(registry, &peer.id)).set(registry, peer);
            }
        }
    }
}

/// The handles of one peer.
struct PeerSeries {
    addr: String,
    in_flight: Gauge,
    rtt: Gauge,
    cwnd: Gauge,
    sent: Rising,
    lost: Rising,
    congestion: Rising,
}

impl PeerSeries {
    fn new(registry: &Registry, id: &str) -> Self {
        let rising = |family| Rising { counter: registry.counter(family, &[("peer", id)]), seen: 0 };
        Self {
            addr: String::new(),
            in_flight: registry.gauge(&names::PEER_IN_FLIGHT, &[("peer", id)]),
            rtt: registry.gauge(&names::QUIC_RTT, &[("peer", id)]),
            cwnd: registry.gauge(&names::QUIC_CWND, &[("peer", id)]),
            sent: rising(&names::QUIC_SENT),
            lost: rising(&names::QUIC_LOST),
            congestion: rising(&names::QUIC_CONGESTION),
        }
    }

    fn set(&mut self, registry: &Registry, peer: &PeerSample) {
        if self.addr != peer.addr {
            let info = |addr: &str| registry.gauge(&names::PEER_INFO, &[("peer", &peer.id), ("addr", addr)]);
            if !self.addr.is_empty() {
                info(&self.addr).set(0.0);
            }
            info(&peer.addr).set(1.0);
            self.addr.clone_from(&peer.addr);
        }
        self.in_flight.set(peer.in_flight as f64);
        // Not a number is a gap on the board; zero would be a very good round-trip time.
        self.rtt.set(peer.rtt.map_or(f64::NAN, |rtt| rtt.as_secs_f64()));
        self.cwnd.set(peer.cwnd_bytes as f64);
        self.sent.set(peer.sent_packets);
        self.lost.set(peer.lost_packets);
        self.congestion.set(peer.congestion_events);
    }
}

/// A counter over connections that come and go: when one breaks, its share of the sum is gone, but not what was counted.
struct Rising {
    counter: Counter,
    seen: u64,
}

impl Rising {
    fn set(&mut self, sum: u64) {
        self.counter.increment(sum.saturating_sub(self.seen));
        self.seen = sum;
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::{Exposition, Telemetry};

    fn text_after(samples: &[MeshSample]) -> String {
        let telemetry = Telemetry::new("n1", mesh_proto::NodeId::new(1), "0").expect("constants");
        samples.iter().for_each(|sample| telemetry.sample_mesh(sample));
        telemetry.render(Exposition::Prometheus)
    }

    fn with_peer(peer: PeerSample) -> MeshSample {
        let id = "2".to_owned();
        MeshSample { ring_hash: u64::MAX, peers: vec![PeerSample { id, ..peer }], ..MeshSample::default() }
    }

    #[test]
    fn a_lost_connection_takes_no_counts_back() {
        let sent = |sent_packets| with_peer(PeerSample { sent_packets, ..PeerSample::default() });
        let text = text_after(&[sent(100), sent(30), sent(35)]);
        assert!(text.contains("mesh_quic_sent_packets_total{node=\"n1\",peer=\"2\"} 105\n"), "{text}");
    }

    #[test]
    fn a_peer_has_one_address_at_a_time() {
        let at = |addr: &str| with_peer(PeerSample { addr: addr.to_owned(), ..PeerSample::default() });
        let text = text_after(&[at("a:1"), at("b:1")]);
        assert!(text.contains("mesh_peer_info{node=\"n1\",peer=\"2\",addr=\"a:1\"} 0\n"), "{text}");
        assert!(text.contains("mesh_peer_info{node=\"n1\",peer=\"2\",addr=\"b:1\"} 1\n"), "{text}");
        assert!(text.contains("mesh_ring_hash{node=\"n1\"} 4503599627370495\n"), "{text}");
        assert!(text.contains("mesh_quic_rtt_seconds{node=\"n1\",peer=\"2\"} NaN\n"), "{text}");
    }
}
