//! What all simulated nodes share: who listens where, what is wrong with which link, and the dice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use arrayvec::ArrayVec;
use mesh::transport::FaultSwitch;
use mesh_proto::{Direction, LinkFault, NodeId};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{sync::Notify, time::Instant};

use crate::{WorkCosts, count, endpoint::EndpointCore, machine::SimulatedCore};

/// What a lost packet of a stream costs on top of a round trip.
const RETRANSMIT_DELAY: Duration = Duration::from_millis(10);

/// The network's state. Its lock is the innermost one: nothing else is locked under it.
pub(crate) struct Network {
    state: Mutex<State>,
    /// Wakes all connections when a fault came or went. Not a `watch`, whose waiters wake in random order.
    pub(crate) changed: Arc<Notify>,
    pub(crate) traces: DatagramFaults,
}

/// What faults have done to datagrams.
#[derive(Debug, Default)]
pub(crate) struct DatagramFaults {
    pub(crate) cut: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) duplicated: AtomicU64,
    pub(crate) overtaken: AtomicU64,
}

struct State {
    rng: SmallRng,
    faults: BTreeMap<(NodeId, NodeId), LinkFault>,
    silent: BTreeSet<NodeId>,
    /// The rules that nodes have for their own traffic.
    switches: BTreeMap<NodeId, Arc<FaultSwitch>>,
    hosts: BTreeMap<String, SimulatedHost>,
    /// Names that stand for several addresses.
    names: BTreeMap<String, Vec<String>>,
    machine: SimulatedCore,
}

struct SimulatedHost {
    id: NodeId,
    transport: u64,
    listeners: Vec<Weak<EndpointCore>>,
    next: usize,
}

impl SimulatedHost {
    fn open_listeners(&self) -> Vec<Arc<EndpointCore>> {
        self.listeners.iter().filter_map(Weak::upgrade).filter(|core| !core.is_closed()).collect()
    }
}

impl State {
    fn fault(&self, from: NodeId, to: NodeId) -> LinkFault {
        let fault = self.faults.get(&(from, to)).copied().unwrap_or_default();
        let ruled = self.ruled(from, to).map_or(fault, |(rule, _)| fault.and(&rule));
        LinkFault { cut: ruled.cut || self.silent.contains(&from) || self.silent.contains(&to), ..ruled }
    }

    /// What the rules of both ends make of traffic, and who counts it; nothing if they let it pass.
    fn ruled(&self, from: NodeId, to: NodeId) -> Option<(LinkFault, &Arc<FaultSwitch>)> {
        let at = |node, peer, way| {
            let switch = self.switches.get(&node).filter(|switch| switch.is_on())?;
            Some((switch.fate(Some(peer), way), switch)).filter(|(fault, _)| !fault.is_none())
        };
        match (at(from, to, Direction::Out), at(to, from, Direction::In)) {
            (Some((sent, counts)), Some((received, _))) => Some((sent.and(&received), counts)),
            (sent, received) => sent.or(received),
        }
    }
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            faults: BTreeMap::new(),
            silent: BTreeSet::new(),
            switches: BTreeMap::new(),
            hosts: BTreeMap::new(),
            names: BTreeMap::new(),
            machine: SimulatedCore::default(),
        };
        Self { state: Mutex::new(state), changed: Arc::default(), traces: DatagramFaults::default() }
    }

    pub(crate) fn set_fault(&self, from: NodeId, to: NodeId, fault: LinkFault) {
        self.state.lock().faults.insert((from, to), fault);
        self.changed.notify_waiters();
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().faults.entry((from, to)).or_default().cut = true;
        self.changed.notify_waiters();
    }

    pub(crate) fn heal(&self) {
        self.state.lock().faults.clear();
        self.changed.notify_waiters();
    }

    pub(crate) fn set_work_costs(&self, costs: WorkCosts) {
        self.state.lock().machine.costs = costs;
    }

    /// When both ends have done their part of a handshake that begins now; nothing if that takes no time.
    pub(crate) fn handshake_done(&self) -> Option<Instant> {
        let machine = &mut self.state.lock().machine;
        machine.enqueue(machine.costs.handshake * 2)
    }

    /// When a datagram that is sent now has been dealt with; nothing if that takes no time.
    pub(crate) fn datagram_done(&self) -> Option<Instant> {
        let machine = &mut self.state.lock().machine;
        machine.enqueue(machine.costs.datagram)
    }

    pub(crate) fn set_name(&self, name: &str, addrs: Vec<String>) {
        self.state.lock().names.insert(name.to_owned(), addrs);
    }

    /// The addresses that a name stands for, the asker's own first, as a resolver may have it; none of a name that nobody knows.
    pub(crate) fn resolve(&self, name: &str, asker: &str) -> Vec<String> {
        let mut addrs = self.state.lock().names.get(name).cloned().unwrap_or_else(|| vec![name.to_owned()]);
        addrs.sort_by_key(|addr| addr != asker);
        addrs
    }

    pub(crate) fn set_silent(&self, id: NodeId, silent: bool) {
        let mut state = self.state.lock();
        if silent {
            state.silent.insert(id)
        } else {
            state.silent.remove(&id)
        };
        drop(state);
        self.changed.notify_waiters();
    }

    /// A new process's rules for its own traffic; those of the process before are gone with it.
    pub(crate) fn fault_switch(&self, id: NodeId) -> Arc<FaultSwitch> {
        let switch = Arc::new(FaultSwitch::new(Arc::clone(&self.changed)));
        self.state.lock().switches.insert(id, Arc::clone(&switch));
        switch
    }

    /// Whether nothing gets from `from` to `to`.
    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state.lock().fault(from, to).cut
    }

    /// How long one way takes, without jitter.
    pub(crate) fn mean_delay(&self, from: NodeId, to: NodeId) -> Duration {
        let fault = self.state.lock().fault(from, to);
        fault.delay + fault.jitter / 2
    }

    /// How long a piece of a stream is under way.
    pub(crate) fn stream_delay(&self, from: NodeId, to: NodeId) -> Duration {
        let mut state = self.state.lock();
        let fault = state.fault(from, to);
        let delay = fault.delay(&mut state.rng);
        if fault.is_lost(&mut state.rng) { delay * 3 + RETRANSMIT_DELAY } else { delay }
    }

    /// How long each copy of a datagram is under way; none if it is lost.
    pub(crate) fn datagram_delays(&self, from: NodeId, to: NodeId) -> ArrayVec<Duration, 2> {
        let mut state = self.state.lock();
        let fault = state.fault(from, to);
        let copies = fault.copies(&mut state.rng);
        if let Some((_, counts)) = state.ruled(from, to) {
            counts.note(&copies);
        }
        drop(state);
        match copies.len() {
            0 if fault.cut => count(&self.traces.cut),
            0 => count(&self.traces.lost),
            1 => {}
            _ => count(&self.traces.duplicated),
        }
        copies
    }

    /// Enters a listener. An error if another transport's listener is open at `addr`.
    pub(crate) fn listen(&self, addr: &str, id: NodeId, transport: u64, core: &Arc<EndpointCore>) -> Result<(), ()> {
        let mut state = self.state.lock();
        let host = state.hosts.entry(addr.to_owned()).or_insert_with(|| SimulatedHost {
            id,
            transport,
            listeners: Vec::new(),
            next: 0,
        });
        if host.transport != transport {
            if !host.open_listeners().is_empty() {
                return Err(());
            }
            *host = SimulatedHost { id, transport, listeners: Vec::new(), next: 0 };
        }
        host.listeners.push(Arc::downgrade(core));
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Who listens at `addr`, and which of its listeners has the next turn.
    pub(crate) fn find(&self, addr: &str) -> Option<(NodeId, Arc<EndpointCore>)> {
        let mut state = self.state.lock();
        let host = state.hosts.get_mut(addr)?;
        let listeners = host.open_listeners();
        host.next = host.next.wrapping_add(1);
        let chosen = host.next.checked_rem(listeners.len())?;
        Some((host.id, Arc::clone(&listeners[chosen])))
    }
}
