//! Reads and writes: what coordinators and replicas do.

use mesh_proto::{Mutant, Round, WriteOutcome, WriteStep};

use crate::{
    machines, replica,
    state::{Answer, Broken, Late, Leg, Life, NODES, Node, Nodes, Progress, Seen, State, Write, each, has, only},
};

impl State {
    // What replicas do.

    /// `Core::write_replica_in`.
    pub fn write_replica_in(&mut self, owner: usize, ring: Nodes, stamp: u8) -> Answer {
        let node = &mut self.nodes[owner];
        if node.ring != ring && !Mutant::RingUnchecked.is_planted() {
            return Answer::WrongRing;
        }
        node.clock = node.clock.max(stamp >> 1);
        node.held = replica::written(node.held, stamp);
        let in_sync = node.sync.in_sync;
        match node.held == stamp {
            true if in_sync => Answer::Applied,
            true => Answer::Unconfirmed,
            false if Mutant::StaleWriteAcked.is_planted() => Answer::Applied,
            false => Answer::Stale { newer: node.held, in_sync },
        }
    }

    /// `Core::read_replica_in`.
    pub fn read_replica_in(&self, owner: usize, ring: Nodes) -> Seen {
        let Node { held, sync, ring: own, .. } = self.nodes[owner];
        match (held, sync.in_sync) {
            _ if own != ring && !Mutant::RingUnchecked.is_planted() => Seen::WrongRing,
            (0, false) if !Mutant::MissWhenEmpty.is_planted() => Seen::Unknown,
            (0, _) => Seen::Absent,
            (stamp, in_sync) => Seen::Value { stamp, in_sync },
        }
    }

    // Writes: `Worker::replicate`.

    /// Whether a node would begin or repeat a write now: `Worker::reachable`.
    pub fn is_reachable(&self, coordinator: usize) -> bool {
        let Node { ring, links, .. } = self.nodes[coordinator];
        (ring & (links | only(coordinator))).count_ones() as usize >= machines::concern_size()
    }

    /// `Worker::write`.
    pub fn begin_write(&mut self, at: usize, coordinator: usize) {
        self.left.writes -= 1;
        self.writes[at].coordinator = coordinator as u8;
        self.writes[at].floor = self.acknowledged;
        self.writes[at].stamp = self.tick(coordinator, at);
        self.send_write(at);
    }

    /// `Core::tick`: wall clocks may stand still, so a version is above all that its coordinator has met and no more.
    pub fn tick(&mut self, coordinator: usize, at: usize) -> u8 {
        let clock = &mut self.nodes[coordinator].clock;
        *clock += 1;
        *clock << 1 | at as u8
    }

    /// `Worker::send_write`.
    pub fn send_write(&mut self, at: usize) {
        let coordinator = usize::from(self.writes[at].coordinator);
        let Node { ring, joining, links, .. } = self.nodes[coordinator];
        let write = &mut self.writes[at];
        let late = Late { stamp: write.stamp, ring };
        // `Trail::next_round`.
        write.is_second &= write.ring == ring;
        write.ring = ring;
        write.attempt += 1;
        write.progress = Progress::Running;
        for owner in each(ring) {
            write.legs[owner] = if has(links, owner) || owner == coordinator { Leg::Sent } else { Leg::NotSent };
        }
        each(joining & links).for_each(|peer| write.late[peer] = late);
        if has(ring, coordinator) {
            self.deliver_leg(at, coordinator);
        } else {
            self.conclude_write(at);
        }
    }

    /// An owner takes its leg, and the coordinator its answer. One that comes later makes the write end later, no more.
    pub fn deliver_leg(&mut self, at: usize, owner: usize) {
        let (ring, stamp) = (self.writes[at].ring, self.writes[at].stamp);
        let answer = self.write_replica_in(owner, ring, stamp);
        self.writes[at].legs[owner] = Leg::Answered(answer);
        self.conclude_write(at);
    }

    /// A leg that nobody waits for any more arrives.
    pub fn deliver_late(&mut self, at: usize, owner: usize) {
        let late = std::mem::take(&mut self.writes[at].late[owner]);
        self.write_replica_in(owner, late.ring, late.stamp);
    }

    /// `WriteCall::outcome` and what `Worker::replicate` makes of it.
    pub fn conclude_write(&mut self, at: usize) {
        let write = self.writes[at];
        if write.progress != Progress::Running {
            return;
        }
        match machines::write(write.is_second, write.ring, &write.legs).0 {
            WriteStep::Wait => {}
            WriteStep::Done(outcome) => self.settle_write(at, outcome),
        }
    }

    /// What `Worker::replicate` makes of an outcome.
    pub fn settle_write(&mut self, at: usize, outcome: WriteOutcome) {
        let write = self.writes[at];
        match outcome {
            WriteOutcome::Acknowledged => {
                if write.stamp < write.floor {
                    self.broken = Broken::Order;
                }
                self.acknowledged = self.acknowledged.max(write.stamp);
                self.end_write(at, Progress::Acknowledged);
            }
            WriteOutcome::Stale { newest, next } => {
                let coordinator = usize::from(write.coordinator);
                let clock = &mut self.nodes[coordinator].clock;
                *clock = (*clock).max(machines::stamp(newest) >> 1);
                self.end_write(at, Progress::Again);
                if self.writes[at].progress == Progress::Again {
                    self.writes[at].stamp = self.tick(coordinator, at);
                    self.writes[at].is_second = next == Round::Second;
                }
            }
            WriteOutcome::WrongRing | WriteOutcome::Unconfirmed => self.end_write(at, Progress::Again),
            WriteOutcome::Refused { .. } | WriteOutcome::Indeterminate { .. } => self.end_write(at, Progress::Ended),
        }
    }

    /// Nobody waits for this attempt's legs any more; those under way arrive nevertheless.
    pub fn end_write(&mut self, at: usize, progress: Progress) {
        let write = &mut self.writes[at];
        let late = Late { stamp: write.stamp, ring: write.ring };
        for owner in 0..NODES {
            if write.legs[owner] == Leg::Sent && owner != usize::from(write.coordinator) {
                write.late[owner] = late;
            }
        }
        write.legs = [Leg::None; NODES];
        let is_last = progress == Progress::Again && write.attempt >= self.left.attempts;
        write.progress = if is_last { Progress::Ended } else { progress };
        if matches!(write.progress, Progress::Acknowledged | Progress::Ended) {
            *write = Write { progress: write.progress, late: write.late, ..Write::default() };
        }
    }

    // Reads: `Worker::read`. One attempt: each further one is a read that began later.

    pub fn begin_read(&mut self, coordinator: usize) {
        self.left.reads -= 1;
        let ring = self.nodes[coordinator].ring;
        self.read.progress = Progress::Running;
        self.read.coordinator = coordinator as u8;
        self.read.ring = ring;
        self.read.floor = self.acknowledged;
        if has(ring, coordinator) {
            self.answer_read(coordinator);
        }
    }

    /// An owner answers. When the answer is taken makes no difference: the reader does nothing else meanwhile.
    pub fn answer_read(&mut self, owner: usize) {
        self.read.seen[owner] = self.read_replica_in(owner, self.read.ring);
        let found = machines::read(self.read.ring, usize::from(self.read.coordinator), &self.read.seen);
        if found.is_some_and(|found| found < self.read.floor) {
            self.broken = Broken::Read;
        }
        let is_over = each(self.read.ring).all(|owner| self.read.seen[owner] != Seen::None);
        if found.is_some() || is_over {
            self.end_read();
        }
    }

    pub fn end_read(&mut self) {
        self.read = crate::state::Read { progress: Progress::Ended, ..crate::state::Read::default() };
    }

    /// Whether a quorum read that gets all its answers in this moment, through any node, misses an acknowledged write.
    pub fn misses_now(&self) -> bool {
        let may_miss = self.nodes.iter().any(|node| node.sync.in_sync && node.held < self.acknowledged);
        may_miss
            && (0..NODES).filter(|node| self.nodes[*node].life != Life::Down).any(|coordinator| {
                let ring = self.nodes[coordinator].ring;
                let answers = |owner| owner == coordinator || has(self.nodes[coordinator].links, owner);
                let answers =
                    |owner: &usize| answers(*owner) && (*owner == coordinator || self.connects(coordinator, *owner));
                let mut seen = [Seen::None; NODES];
                each(ring).filter(answers).for_each(|owner| seen[owner] = self.read_replica_in(owner, ring));
                machines::read(ring, coordinator, &seen).is_some_and(|found| found < self.acknowledged)
            })
    }
}
