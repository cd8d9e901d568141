//! What all sockets of a node share about what lies between it and its peers: whether it is silent, which faults there are,
//! and which address is whose.
//!
//! A packet says where it comes from or goes to, a fault says which peer. Every connection that was authenticated teaches
//! the address of its other end. A peer's sockets live as long as its process, those it dials from as well as those it
//! listens on; so what was learned once also holds for the connections that it makes later. A peer that was restarted is
//! known again with its first handshake.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrayvec::ArrayVec;
use mesh_proto::{Direction, LinkFault, NodeId};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::SmallRng};

use crate::transport::FaultSwitch;

/// Addresses that are remembered; beyond it the oldest are forgotten. A peer has one more than workers.
const ADDRESSES_MAX: usize = 4096;

/// What all endpoints of a transport have in common below QUIC.
pub(super) struct Wire {
    silent: AtomicBool,
    pub(super) faults: Arc<FaultSwitch>,
    // Locked once per connection, and for every packet only while there are faults.
    addresses: Mutex<Addresses>,
    dice: Mutex<SmallRng>,
}

#[derive(Default)]
struct Addresses {
    owners: HashMap<SocketAddr, NodeId>,
    oldest_first: VecDeque<SocketAddr>,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self {
            silent: AtomicBool::new(false),
            faults: Arc::new(FaultSwitch::new(Arc::default())),
            addresses: Mutex::default(),
            dice: Mutex::new(SmallRng::from_os_rng()),
        }
    }

    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// `peer` is at `addr`: it has proved it, or is about to.
    pub(super) fn learn(&self, addr: SocketAddr, peer: NodeId) {
        let addr = canonical(addr);
        let mut addresses = self.addresses.lock();
        if addresses.owners.insert(addr, peer).is_some() {
            return;
        }
        addresses.oldest_first.push_back(addr);
        if addresses.oldest_first.len() > ADDRESSES_MAX
            && let Some(oldest) = addresses.oldest_first.pop_front()
        {
            addresses.owners.remove(&oldest);
        }
    }

    /// What happens to packets from or to `addr`; nothing if they pass.
    pub(super) fn fate(&self, addr: SocketAddr, way: Direction) -> Option<LinkFault> {
        if !self.faults.is_on() {
            return None;
        }
        let peer = self.addresses.lock().owners.get(&canonical(addr)).copied();
        Some(self.faults.fate(peer, way)).filter(|fault| !fault.is_none())
    }

    /// Throws the dice for one packet, and counts it: how long each of its copies is under way.
    pub(super) fn copies(&self, fault: &LinkFault) -> ArrayVec<std::time::Duration, 2> {
        let copies = fault.copies(&mut *self.dice.lock());
        self.faults.note(&copies);
        copies
    }
}

/// One form for an address that a socket for both families writes as `::ffff:10.0.0.1`.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use mesh_proto::{FaultPeer, FaultRule};

    use super::*;

    fn cut(peer: NodeId, wire: &Wire) -> FaultRule {
        let now = wire.faults.now();
        FaultRule {
            peer: FaultPeer::Node(peer),
            direction: Direction::In,
            fault: LinkFault::CUT,
            from: now,
            until: now + Duration::from_secs(600),
            flap: None,
        }
    }

    #[tokio::test]
    async fn a_fault_meets_the_addresses_of_its_peer() {
        let wire = Wire::new();
        let (peer, other) = (NodeId::new(1), NodeId::new(2));
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        wire.learn(addr("10.0.0.1:5011"), peer);
        wire.learn(addr("[::ffff:10.0.0.1]:40000"), peer);
        wire.learn(addr("10.0.0.2:5011"), other);
        assert_eq!(wire.fate(addr("10.0.0.1:5011"), Direction::In), None, "no fault yet");
        wire.faults.add(&[cut(peer, &wire)]).unwrap();
        for text in ["10.0.0.1:5011", "10.0.0.1:40000", "[::ffff:10.0.0.1]:5011"] {
            assert_eq!(wire.fate(addr(text), Direction::In), Some(LinkFault::CUT), "{text}");
            assert_eq!(wire.fate(addr(text), Direction::Out), None, "{text}");
        }
        assert_eq!(wire.fate(addr("10.0.0.2:5011"), Direction::In), None, "another peer");
        assert_eq!(wire.fate(addr("10.0.0.3:5011"), Direction::In), None, "a stranger");
        wire.learn(addr("10.0.0.1:5011"), other);
        assert_eq!(wire.fate(addr("10.0.0.1:5011"), Direction::In), None, "the address has a new owner");
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let wire = Wire::new();
        let addr = |port: usize| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        for port in 1..=ADDRESSES_MAX + 10 {
            wire.learn(addr(port), NodeId::new(1));
        }
        let addresses = wire.addresses.lock();
        assert_eq!((addresses.owners.len(), addresses.oldest_first.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(!addresses.owners.contains_key(&addr(10)) && addresses.owners.contains_key(&addr(11)));
    }
}
