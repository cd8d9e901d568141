//! What is sampled rather than counted as it happens: a node's counters, its ring, its readiness, its process, and the QUIC
//! paths to its peers. Which figures there are is said in `catalogue`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_proto::{PeerHints, Stats};
use metrics::{Counter, Gauge};

use crate::{MemoryUse, catalogue as names, registry::Registry};

/// Peers beyond so many are not shown one by one.
const PEERS_MAX: usize = 1024;

/// One look at a node.
#[derive(Clone, Debug, Default)]
pub struct NodeSample {
    /// What it counts.
    pub stats: Stats,
    /// What is queued of hints for whom.
    pub hints_by_peer: Vec<PeerHints>,
    /// HTTP requests being answered.
    pub in_flight: u64,
    /// Open HTTP connections.
    pub connections: u64,
    /// How late the slowest thread comes to its work.
    pub queue_delay: Duration,
    /// CPU time of the process.
    pub cpu: Duration,
    /// Its memory.
    pub memory: MemoryUse,
    /// The store's last minute.
    pub last_minute: LastMinute,
    /// Time since start.
    pub uptime: Duration,
    /// When the certificate for its HTTP clients expires; nothing without TLS.
    pub certificate_expires_unix_s: Option<i64>,
    /// How it sees its mesh.
    pub view: MeshView,
}

impl NodeSample {
    /// What `GET /stats` shows: names and figures. Names with a capital are those of the store that scripts know; the others
    /// are ours.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let shown = names::FIGURES.iter().filter(|figure| !figure.field.is_empty());
        shown.map(|figure| (figure.field, (figure.read)(self)))
    }
}

/// How a store fared over the last minute, or since the start if that is less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LastMinute {
    /// Entries evicted, for each second.
    pub evictions_per_s: f64,
    /// How much older than the newest write these were, on the average, in seconds; nothing without any.
    pub evicted_age_s: Option<f64>,
    /// Look-ups that found a live value, as a part of all; nothing without any.
    pub hit_ratio: Option<f64>,
}

impl LastMinute {
    /// Whether the store is at its capacity.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.evictions_per_s > 0.0
    }
}

/// How a node sees its mesh.
#[derive(Clone, Debug, Default)]
pub struct MeshView {
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
    /// Members that are heard and cannot be reached.
    pub members_unreachable: u64,
    /// Members that have left the ring and are still handing over.
    pub members_leaving: u64,
    /// The node's wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
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

/// The handles of all that is sampled.
pub(crate) struct SampleSeries {
    /// One for each of [`names::FIGURES`] that has a series.
    figures: Vec<(MetricHandle, &'static names::Figure)>,
    eviction_rate: Gauge,
    evicted_age: Gauge,
    hit_ratio: Gauge,
    start: Gauge,
    clock: Gauge,
    // Taken once a second, by the sampler.
    peers: Mutex<HashMap<String, SampledPeer>>,
}

enum MetricHandle {
    Counter(Counter),
    Gauge(Gauge),
}

impl SampleSeries {
    pub(crate) fn new(registry: &Registry) -> Self {
        let handle = |figure: &'static names::Figure| {
            let (family, labels) = figure.series?;
            let handle = match family.kind {
                names::MetricKind::Counter => MetricHandle::Counter(registry.counter(family, labels)),
                _ => MetricHandle::Gauge(registry.gauge(family, labels)),
            };
            Some((handle, figure))
        };
        Self {
            figures: names::FIGURES.iter().filter_map(handle).collect(),
            eviction_rate: registry.gauge(&names::STORE_EVICTION_RATE, &[]),
            evicted_age: registry.gauge(&names::STORE_EVICTED_AGE, &[]),
            hit_ratio: registry.gauge(&names::STORE_HIT_RATIO, &[]),
            start: registry.gauge(&names::START, &[]),
            clock: registry.gauge(&names::CLOCK, &[]),
            peers: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, registry: &Registry, sample: &NodeSample) {
        for (handle, figure) in &self.figures {
            let value = (figure.read)(sample);
            match handle {
                MetricHandle::Counter(counter) => counter.absolute(value),
                MetricHandle::Gauge(gauge) => gauge.set(value as f64),
            }
        }
        self.eviction_rate.set(sample.last_minute.evictions_per_s);
        // Not a number is a gap on the board; zero would be a very short age, and a very bad ratio.
        self.evicted_age.set(sample.last_minute.evicted_age_s.unwrap_or(f64::NAN));
        self.hit_ratio.set(sample.last_minute.hit_ratio.unwrap_or(f64::NAN));
        self.clock.set(sample.view.unix_ms as f64 / 1000.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Whole seconds, or a step of the clock's rate would look like a restart.
        self.start.set(now.saturating_sub(sample.uptime).as_secs() as f64);
        if let Some(expires) = sample.certificate_expires_unix_s {
            registry.gauge(&names::HTTP_TLS_EXPIRY, &[]).set(expires as f64);
        }
        // A poisoned lock still guards a whole map.
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in &sample.view.peers {
            if peers.len() < PEERS_MAX || peers.contains_key(&peer.id) {
                peers
                    .entry(peer.id.clone())
                    .or_insert_with(|| SampledPeer::new(registry, &peer.id))
                    .set(registry, peer);
            }
        }
    }
}

/// The handles of one peer.
struct SampledPeer {
    addr: String,
    in_flight: Gauge,
    rtt: Gauge,
    cwnd: Gauge,
    sent: Rising,
    lost: Rising,
    congestion: Rising,
}

impl SampledPeer {
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

    fn text_after(samples: &[NodeSample]) -> String {
        let telemetry = Telemetry::new("n1", mesh_proto::NodeId::new(1), "0").expect("constants");
        samples.iter().for_each(|sample| telemetry.sample(sample));
        telemetry.render(Exposition::Prometheus)
    }

    fn with_peer(peer: PeerSample) -> NodeSample {
        let peers = vec![PeerSample { id: "2".to_owned(), ..peer }];
        NodeSample { view: MeshView { ring_hash: u64::MAX, peers, ..MeshView::default() }, ..NodeSample::default() }
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
