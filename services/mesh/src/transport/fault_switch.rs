//! Where a node's network is broken on purpose: the rules in force, shared by all its sockets. Without rules it costs each
//! packet one look at a flag.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::{Direction, FaultRule, FaultRules, LinkFault, Monotonic, NodeId, TooManyFaults};
use parking_lot::RwLock;
use tokio::{sync::Notify, time::Instant};

/// The rules of one node's network.
#[derive(Debug)]
pub struct FaultSwitch {
    /// The zero of the rules' times.
    start: Instant,
    /// Whether there are rules: all that a packet has to look at while there are none.
    is_on: AtomicBool,
    // Read for every packet while there are faults, written when one comes or ends.
    rules: RwLock<FaultRules>,
    /// Raised with every change, so that only the newest follower goes on.
    generation: AtomicU64,
    /// Told whenever a fault comes or goes.
    changed: Arc<Notify>,
    dropped: AtomicU64,
    delayed: AtomicU64,
    duplicated: AtomicU64,
}

/// What the rules have done to packets since the node began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Packets that were lost.
    pub dropped: u64,
    /// Packets that were held back.
    pub delayed: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
}

impl FaultSwitch {
    /// No faults. `changed` is told of those to come.
    #[must_use]
    pub fn new(changed: Arc<Notify>) -> Self {
        Self {
            start: Instant::now(),
            is_on: AtomicBool::new(false),
            rules: RwLock::default(),
            generation: AtomicU64::new(0),
            changed,
            dropped: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            duplicated: AtomicU64::new(0),
        }
    }

    /// The time that rules are written in.
    #[must_use]
    pub fn now(&self) -> Monotonic {
        Monotonic::new(self.start.elapsed())
    }

    /// Adds rules, all or none. They end by themselves; a runtime must be there to see to that.
    ///
    /// # Errors
    /// [`TooManyFaults`], and nothing has changed.
    pub fn add(self: &Arc<Self>, rules: &[FaultRule]) -> Result<(), TooManyFaults> {
        self.rules.write().add(self.now(), rules)?;
        let generation = self.turned();
        tokio::spawn(Arc::clone(self).follow(generation));
        Ok(())
    }

    /// Ends all of them now.
    pub fn heal(&self) {
        self.rules.write().heal();
        self.turned();
    }

    /// The rules that are not over.
    #[must_use]
    pub fn rules(&self) -> Vec<FaultRule> {
        let now = self.now();
        self.rules.read().iter().filter(|rule| now < rule.until).copied().collect()
    }

    /// What they have done.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        // Relaxed: each figure stands alone.
        FaultCounts {
            dropped: self.dropped.load(Ordering::Relaxed),
            delayed: self.delayed.load(Ordering::Relaxed),
            duplicated: self.duplicated.load(Ordering::Relaxed),
        }
    }

    /// Whether there are rules at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        // Relaxed: a packet more or less before a fault begins does not matter.
        self.is_on.load(Ordering::Relaxed)
    }

    /// What happens now to a packet from or to `peer`.
    #[must_use]
    pub fn fate(&self, peer: Option<NodeId>, way: Direction) -> LinkFault {
        if !self.is_on() {
            return LinkFault::default();
        }
        self.rules.read().fate(self.now(), peer, way)
    }

    /// Notes what became of a packet: how long each of its copies is under way.
    pub fn note(&self, copies: &[Duration]) {
        let happened = [
            (&self.dropped, copies.is_empty()),
            (&self.delayed, copies.iter().any(|delay| !delay.is_zero())),
            (&self.duplicated, copies.len() > 1),
        ];
        for (counter, _) in happened.into_iter().filter(|(_, has_happened)| *has_happened) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The rules have changed, or time has changed what they say.
    fn turned(&self) -> u64 {
        let is_on = self.rules.write().forget_ended(self.now());
        self.is_on.store(is_on, Ordering::Relaxed);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        self.changed.notify_waiters();
        generation
    }

    /// Tells of faults that come, go and end by themselves, until there are none or newer ones have a follower.
    async fn follow(self: Arc<Self>, mut generation: u64) {
        loop {
            let next = self.rules.read().next_change(self.now());
            let Some(next) = next else { break };
            tokio::time::sleep_until(self.start + next.since_start()).await;
            if self.generation.load(Ordering::Relaxed) != generation {
                return;
            }
            generation = self.turned();
        }
    }
}
