//! One worker's peer: where it is, the connection to it, its health, and since when it cannot be reached.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use mesh_proto::{Monotonic, NodeId};
use parking_lot::Mutex;

use crate::links::{health::Health, link::Link};

/// A member that could not be connected to for this long is called unreachable. One that starts may take a while.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(10);

/// One peer.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) addr: Mutex<String>,
    pub(crate) link: ArcSwapOption<Link>,
    pub(crate) health: Arc<Health>,
    failing: Mutex<Option<Failing>>,
}

/// Dials that have failed, with nothing in between.
struct Failing {
    since: Monotonic,
    /// Why the last one did.
    reason: String,
    is_told: bool,
}

impl Peer {
    pub(crate) fn new(id: NodeId, addr: String, now: Monotonic) -> Arc<Self> {
        let health = Health::new(id, now);
        Arc::new(Self { id, addr: Mutex::new(addr), link: ArcSwapOption::empty(), health, failing: Mutex::default() })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.load().is_some()
    }

    /// A dial that began at `began` has failed. Whether the peer is unreachable by that, for the first time.
    pub(crate) fn dial_failed(&self, began: Monotonic, now: Monotonic, reason: String) -> bool {
        let mut failing = self.failing.lock();
        let failing = failing.get_or_insert(Failing { since: began, reason: String::new(), is_told: false });
        failing.reason = reason;
        let is_news = !failing.is_told && now.since(failing.since) >= UNREACHABLE_AFTER;
        failing.is_told |= is_news;
        is_news
    }

    /// A dial has succeeded, or nobody wants to reach the peer any more.
    pub(crate) fn forget_failures(&self) {
        *self.failing.lock() = None;
    }

    /// Why it cannot be reached, if it could not for long.
    pub(crate) fn unreachable(&self, now: Monotonic) -> Option<String> {
        let failing = self.failing.lock();
        failing.as_ref().filter(|failing| now.since(failing.since) >= UNREACHABLE_AFTER).map(|it| it.reason.clone())
    }

    /// What it costs to ask this peer next; infinite without a connection.
    pub(crate) fn cost(&self, now: Monotonic) -> f64 {
        let Some(link) = &*self.link.load() else { return f64::INFINITY };
        self.health.cost(now, link.in_flight())
    }
}
