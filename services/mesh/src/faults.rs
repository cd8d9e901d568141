//! Faults laid on a running node: its links, its clock, its speed. Each ends by itself, whatever becomes of who ordered it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::{
    Direction, Event, FaultOrder, FaultPeer, FaultRule, FaultStats, LinkFault, LinkOrder, Member, Monotonic, NodeId,
    TooManyFaults,
};
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;
use tracing::{Span, info_span};

use crate::{clock::Clock, observer::Observer, transport::FaultSwitch};

/// Why no fault was laid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultOrderError {
    /// There is nobody of that name.
    #[error("`{peer}` is no member that this node knows: give a name, an id or an address as in /cluster, or *")]
    UnknownPeer {
        /// As it was written.
        peer: String,
    },
    /// A node has no link to itself.
    #[error("`{peer}` is this node itself")]
    Itself {
        /// As it was written.
        peer: String,
    },
    /// See there.
    #[error(transparent)]
    TooMany(#[from] TooManyFaults),
}

/// A fault in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultView {
    /// What it does, in words.
    pub fault: String,
    /// How long it still lasts, in milliseconds.
    pub ends_in_ms: u64,
}

/// The faults of one node.
pub(crate) struct NodeFaults {
    id: NodeId,
    switch: Arc<FaultSwitch>,
    clock: Clock,
    observer: Arc<dyn Observer>,
    /// How much later answers to clients leave, in microseconds: all that a request has to look at.
    slow_us: AtomicU64,
    // Rare: an order, an end, a look from outside.
    in_force: Mutex<InForce>,
}

#[derive(Default)]
struct InForce {
    faults: Vec<Laid>,
    laid: u64,
}

/// One fault in force.
struct Laid {
    number: u64,
    what: String,
    since: Monotonic,
    until: Monotonic,
    slow: Duration,
    clock_offset_ms: i64,
    span: Span,
}

impl NodeFaults {
    pub(crate) fn new(id: NodeId, switch: Arc<FaultSwitch>, clock: Clock, observer: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self { id, switch, clock, observer, slow_us: AtomicU64::new(0), in_force: Mutex::default() })
    }

    /// Lays all of `order`, or nothing. A runtime must be there to end it.
    pub(crate) fn lay(self: &Arc<Self>, order: &FaultOrder, members: &[Member]) -> Result<(), FaultOrderError> {
        let from = self.switch.now();
        let rule =
            |peer, direction, fault, flap| FaultRule { peer, direction, fault, from, until: from + order.time, flap };
        let mut rules = Vec::new();
        for LinkOrder { peer, direction, fault, flap } in &order.links {
            rules.push(rule(self.resolve(peer, members)?, *direction, *fault, *flap));
        }
        if !order.slow.is_zero() {
            let late = LinkFault { delay: order.slow, ..LinkFault::default() };
            rules.push(rule(FaultPeer::Everybody, Direction::Out, late, None));
        }
        self.switch.add(&rules)?;
        let since = self.clock.now();
        let mut in_force = self.in_force.lock();
        let first = in_force.laid + 1;
        for (what, slow, clock_offset_ms) in describe(order) {
            in_force.laid += 1;
            let (number, until) = (in_force.laid, since + order.time);
            let span = info_span!(parent: None, "fault.injected", fault = what);
            span.in_scope(|| self.observer.event(&Event::FaultBegan { what: what.clone(), time: order.time }));
            in_force.faults.push(Laid { number, what, since, until, slow, clock_offset_ms, span });
        }
        let numbers = first..=in_force.laid;
        self.apply(&in_force);
        drop(in_force);
        let (faults, time) = (Arc::clone(self), order.time);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            faults.end(|laid| numbers.contains(&laid.number));
        });
        Ok(())
    }

    /// Ends all of them.
    pub(crate) fn heal(&self) {
        self.switch.heal();
        self.end(|_| true);
    }

    pub(crate) fn slowness(&self) -> Duration {
        // Relaxed: an answer more or less before a fault begins does not matter.
        Duration::from_micros(self.slow_us.load(Ordering::Relaxed))
    }

    pub(crate) fn view(&self) -> Vec<FaultView> {
        let now = self.clock.now();
        let left_ms = |laid: &Laid| u64::try_from(laid.until.since(now).as_millis()).unwrap_or(u64::MAX);
        let view = |laid: &Laid| FaultView { fault: laid.what.clone(), ends_in_ms: left_ms(laid) };
        self.in_force.lock().faults.iter().map(view).collect()
    }

    pub(crate) fn stats(&self) -> FaultStats {
        let counts = self.switch.counts();
        let in_force = self.in_force.lock();
        FaultStats {
            active: in_force.faults.len() as u64,
            laid: in_force.laid,
            packets_dropped: counts.dropped,
            packets_delayed: counts.delayed,
            packets_duplicated: counts.duplicated,
        }
    }

    fn end(&self, is_over: impl Fn(&Laid) -> bool) {
        let now = self.clock.now();
        let mut in_force = self.in_force.lock();
        let (over, rest) = std::mem::take(&mut in_force.faults).into_iter().partition::<Vec<_>, _>(is_over);
        in_force.faults = rest;
        self.apply(&in_force);
        drop(in_force);
        for laid in over {
            let ended = Event::FaultEnded { what: laid.what, lasted: now.since(laid.since) };
            laid.span.in_scope(|| self.observer.event(&ended));
        }
    }

    /// Faults of the same kind add up.
    fn apply(&self, in_force: &InForce) {
        let slow: Duration = in_force.faults.iter().map(|laid| laid.slow).sum();
        self.slow_us.store(u64::try_from(slow.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.clock.set_offset_ms(in_force.faults.iter().map(|laid| laid.clock_offset_ms).sum());
    }

    fn resolve(&self, peer: &str, members: &[Member]) -> Result<FaultPeer, FaultOrderError> {
        if peer == "*" {
            return Ok(FaultPeer::Everybody);
        }
        let named = NodeId::from_name(peer);
        let meant =
            |member: &&Member| member.addr == peer || member.id == named || NodeId::parse(peer) == Some(member.id);
        match members.iter().find(meant) {
            Some(member) if member.id == self.id => Err(FaultOrderError::Itself { peer: peer.to_owned() }),
            Some(member) => Ok(FaultPeer::Node(member.id)),
            None => Err(FaultOrderError::UnknownPeer { peer: peer.to_owned() }),
        }
    }
}

/// Each fault of an order in words, with what it does to the node itself.
fn describe(order: &FaultOrder) -> Vec<(String, Duration, i64)> {
    let links = order.links.iter().map(|link| (link.to_string(), Duration::ZERO, 0));
    let slow = (!order.slow.is_zero()).then(|| (format!("slow by {:?}", order.slow), order.slow, 0));
    let offset_ms = order.clock_offset_ms;
    let clock = (offset_ms != 0).then(|| (format!("clock off by {offset_ms:+} ms"), Duration::ZERO, offset_ms));
    links.chain(slow).chain(clock).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use mesh_proto::{Incarnation, MemberState, Stage, Weight};

    use super::*;
    use crate::{NoObserver, WallClock};

    fn faults() -> (Arc<NodeFaults>, Clock) {
        let clock = Clock::new(WallClock::System);
        let switch = Arc::new(FaultSwitch::new(Arc::default()));
        (NodeFaults::new(NodeId::from_name("a"), switch, clock.clone(), Arc::new(NoObserver)), clock)
    }

    fn member(name: &str) -> Member {
        Member {
            id: NodeId::from_name(name),
            addr: format!("{name}:5011"),
            incarnation: Incarnation::new(1),
            weight: Weight::from_capacity(1),
            state: MemberState::Alive,
            stage: Stage::Normal,
        }
    }

    fn order(slow_ms: u64, clock_offset_ms: i64) -> FaultOrder {
        FaultOrder {
            time: Duration::from_secs(10),
            links: Vec::new(),
            slow: Duration::from_millis(slow_ms),
            clock_offset_ms,
        }
    }

    fn cut(peer: &str) -> FaultOrder {
        let link = LinkOrder { peer: peer.to_owned(), direction: Direction::Both, fault: LinkFault::CUT, flap: None };
        FaultOrder { links: vec![link], ..order(0, 0) }
    }

    #[tokio::test(start_paused = true)]
    async fn faults_add_up_and_end_by_themselves() {
        let (faults, clock) = faults();
        faults.lay(&order(100, -500), &[]).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        faults.lay(&order(20, 200), &[]).unwrap();
        assert_eq!((faults.slowness(), clock.offset_ms()), (Duration::from_millis(120), -300));
        assert_eq!(faults.view().len(), 4);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!((faults.slowness(), clock.offset_ms()), (Duration::from_millis(20), 200));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((faults.slowness(), clock.offset_ms()), (Duration::ZERO, 0));
        assert_eq!((faults.stats().active, faults.stats().laid), (0, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn healing_ends_all_at_once() {
        let (faults, clock) = faults();
        faults.lay(&order(100, -500), &[]).unwrap();
        faults.lay(&cut("*"), &[]).unwrap();
        faults.heal();
        assert_eq!((faults.slowness(), clock.offset_ms(), faults.view()), (Duration::ZERO, 0, Vec::new()));
        assert!(faults.switch.rules().is_empty());
        faults.lay(&order(0, 7), &[]).unwrap();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(clock.offset_ms(), 7, "the end of those before is not the end of this one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_called_by_name_or_id_or_address() {
        let (faults, _) = faults();
        let members = [member("a"), member("b")];
        let id = NodeId::from_name("b").to_string();
        for (number, name) in (1..).zip(["b", "b:5011", id.as_str(), "*"]) {
            faults.lay(&cut(name), &members).unwrap();
            assert_eq!(faults.switch.rules().len(), number, "{name}");
        }
        assert_eq!(faults.lay(&cut("c"), &members), Err(FaultOrderError::UnknownPeer { peer: "c".to_owned() }));
        assert_eq!(faults.lay(&cut("a:5011"), &members), Err(FaultOrderError::Itself { peer: "a:5011".to_owned() }));
        assert_eq!(faults.view()[1].fault, "cut both ways: b:5011");
    }
}
