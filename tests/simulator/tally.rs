//! What happened in a simulation, counted: a run in which a fault left no trace proves nothing.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mesh::Observer;
use mesh_proto::{Event, MemberState, OpRecord};

/// Counts events over all nodes of one cluster.
#[derive(Debug, Default)]
pub struct Tally {
    suspicions: AtomicU64,
    deaths: AtomicU64,
    departures: AtomicU64,
    refutations: AtomicU64,
    connections_lost: AtomicU64,
    missed_writes: AtomicU64,
    hints_replayed: AtomicU64,
    hints_dropped: AtomicU64,
    records_repaired: AtomicU64,
    slots_pulled: AtomicU64,
    drift_refused: AtomicU64,
    clocks_set_back: AtomicU64,
    rings: AtomicU64,
    violations: AtomicU64,
    second_rounds: AtomicU64,
    further_rounds: AtomicU64,
    carried_writes: AtomicU64,
}

impl Observer for Tally {
    fn event(&self, event: &Event) {
        if let Event::Repair { slots, .. } = event {
            self.slots_pulled.fetch_add(*slots as u64, Relaxed);
        }
        let (counter, more) = match event {
            Event::Member { to: MemberState::Suspect, .. } => (&self.suspicions, 1),
            Event::Member { to: MemberState::Dead, .. } => (&self.deaths, 1),
            Event::Member { to: MemberState::Left, .. } => (&self.departures, 1),
            Event::Refuted { .. } => (&self.refutations, 1),
            Event::PeerDown { .. } => (&self.connections_lost, 1),
            Event::MissedWrite { .. } => (&self.missed_writes, 1),
            Event::HintsReplayed { hints, .. } => (&self.hints_replayed, *hints),
            Event::HintsDropped(queue) => (&self.hints_dropped, queue.hints),
            Event::Repair { keys, .. } => (&self.records_repaired, *keys as u64),
            Event::DriftRefused { .. } => (&self.drift_refused, 1),
            Event::ClockSetBack => (&self.clocks_set_back, 1),
            Event::Ring { .. } => (&self.rings, 1),
            Event::ProtocolViolation { .. } => (&self.violations, 1),
            _ => return,
        };
        counter.fetch_add(more, Relaxed);
    }

    fn operation(&self, _record: &OpRecord) {}
}

impl Tally {
    /// Adds what a node has counted of its writes, at its end.
    pub fn add_rounds(&self, stats: &mesh::Stats) {
        self.second_rounds.fetch_add(stats.second_rounds, Relaxed);
        self.further_rounds.fetch_add(stats.further_rounds, Relaxed);
        self.carried_writes.fetch_add(stats.carried_writes, Relaxed);
    }

    /// Every count with its name.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (name, counter) in [
            ("suspicions", &self.suspicions),
            ("dead declarations", &self.deaths),
            ("departures", &self.departures),
            ("refutations", &self.refutations),
            ("connections lost", &self.connections_lost),
            ("missed writes", &self.missed_writes),
            ("hints replayed", &self.hints_replayed),
            ("hints dropped", &self.hints_dropped),
            ("records repaired", &self.records_repaired),
            ("slots pulled", &self.slots_pulled),
            ("drift refusals", &self.drift_refused),
            ("clocks set back", &self.clocks_set_back),
            ("rings built", &self.rings),
            ("protocol violations", &self.violations),
            ("writes in two rounds", &self.second_rounds),
            ("writes in more than two rounds", &self.further_rounds),
            ("writes carried by others", &self.carried_writes),
        ] {
            counts.add(name, counter.load(Relaxed));
        }
        counts
    }
}

/// Sums by name.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Adds to one sum.
    pub fn add(&mut self, name: &'static str, more: u64) {
        *self.0.entry(name).or_default() += more;
    }

    /// Adds all sums of another.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// One sum.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All sums, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
