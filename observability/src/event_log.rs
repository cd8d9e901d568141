//! Events as log lines. What one peer can cause at will (a refused handshake, a broken frame) is logged once a minute per
//! peer and reason, so that the network cannot fill a disk.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_proto::{Event, MemberState};
use tracing::{debug, info, warn};

/// The same complaint is repeated at most this often.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// How many different complaints are remembered; beyond it the oldest are forgotten and may be repeated early.
const COMPLAINTS_MAX: usize = 256;

/// Writes events to the log.
pub(crate) struct EventLog {
    // Taken for complaints only, which are rare or rate-limited here.
    complaints: Mutex<HashMap<String, Instant>>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { complaints: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn write(&self, event: &Event) {
        match event {
            Event::Member { peer, addr, from, to } => {
                let (was, is) = (from.map_or("unknown", MemberState::name), to.name());
                if matches!(to, MemberState::Alive | MemberState::Left) {
                    info!(%peer, addr, was, is, "member");
                } else {
                    warn!(%peer, addr, was, is, "member");
                }
            }
            Event::Refuted { claimed } => {
                warn!(claimed = claimed.name(), "refuted a claim about this node");
            }
            Event::Forgotten { peer } => info!(%peer, "a member that was gone is forgotten"),
            Event::Ring { hash, members, slots_owned } => debug!(?hash, members, slots_owned, "new ring"),
            Event::ProbeSent { .. } => {}
            Event::GossipRound { peer, rtt, indirect, .. } => tracing::trace!(%peer, ?rtt, indirect, "gossip round"),
            Event::PeerUp { peer } => debug!(%peer, "connected"),
            Event::PeerDown { peer, reason } => debug!(%peer, reason, "disconnected"),
            Event::PeerUnreachable { peer, addr, reason } => {
                warn!(%peer, addr, reason, "a member is heard and cannot be reached; is its CACHE_PUBLIC right?");
            }
            Event::PeerRefused { addr, reason } => {
                // Without the port, which differs with each attempt.
                let host = addr.rsplit_once(':').map_or(addr.as_str(), |(host, _)| host);
                if self.is_news(&format!("refused {host} {reason}"), Instant::now()) {
                    warn!(addr, reason, "refused a peer; the same from there is not logged again for a minute");
                }
            }
            Event::ProtocolViolation { peer, reason } => {
                if self.is_news(&format!("violation {peer} {reason}"), Instant::now()) {
                    warn!(%peer, reason, "closed a connection for breaking the protocol");
                }
            }
            Event::ClockSetBack => warn!("this node's clock was set back: it makes versions by it again"),
            Event::DriftRefused { peer, ahead } => {
                let from = peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
                if self.is_news(&format!("drift {from}"), Instant::now()) {
                    warn!(from, ?ahead, "refused a version from the future: check the clocks");
                }
            }
            Event::Repair { peer, slots, keys, took } if *keys > 0 => info!(%peer, slots, keys, ?took, "repaired"),
            Event::Repair { peer, slots, took, .. } => debug!(%peer, slots, ?took, "nothing to repair"),
            Event::InSync { after } => info!(?after, "in sync for all slots owned"),
            Event::HintsDropped(queue) => {
                let (peer, reason) = (queue.peer, queue.reason);
                warn!(%peer, ?reason, hints = queue.hints, bytes = queue.bytes, "gave up hints: comparing with the peer instead");
            }
            Event::HintsReplayed { peer, hints, took } => info!(%peer, hints, ?took, "a peer has got what it missed"),
            Event::FaultBegan { what, time } => warn!(what, ?time, "a fault was laid on this node on request"),
            Event::FaultEnded { what, lasted } => info!(what, ?lasted, "a fault is over"),
            Event::MissedWrite { peer, version } => debug!(%peer, %version, "an owner may lack a write"),
        }
    }

    fn is_news(&self, complaint: &str, now: Instant) -> bool {
        // A poisoned lock still guards a whole map.
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.get(complaint).is_some_and(|at| now.saturating_duration_since(*at) < REPEAT_AFTER) {
            return false;
        }
        if complaints.len() >= COMPLAINTS_MAX {
            let oldest = complaints.iter().min_by_key(|(_, at)| **at).map(|(complaint, _)| complaint.clone());
            oldest.map(|complaint| complaints.remove(&complaint));
        }
        complaints.insert(complaint.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_news_once_a_minute() {
        let log = EventLog::new();
        let start = Instant::now();
        assert!(log.is_news("a", start));
        assert!(!log.is_news("a", start + Duration::from_secs(59)));
        assert!(log.is_news("b", start + Duration::from_secs(59)));
        assert!(log.is_news("a", start + Duration::from_secs(60)));
    }

    #[test]
    fn the_number_of_complaints_is_bounded() {
        let log = EventLog::new();
        let start = Instant::now();
        for n in 0..COMPLAINTS_MAX as u64 + 10 {
            assert!(log.is_news(&n.to_string(), start + Duration::from_millis(n)));
        }
        assert_eq!(log.complaints.lock().map(|map| map.len()).ok(), Some(COMPLAINTS_MAX));
        assert!(!log.is_news("200", start + Duration::from_secs(1)), "the youngest are kept");
    }
}
