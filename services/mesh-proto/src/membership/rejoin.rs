//! Whom to look for. Gossip only reaches members that are believed alive, so after a partition, or after a whole mesh
//! has restarted, somebody must knock at the doors of the dead and of the seeds, for ever (memberlist PR #345).

use std::time::Duration;

use super::{Member, MemberState, roster::Roster};
use crate::{Monotonic, Mutant};

/// Seeds tried at once while this node is alone.
const SEEDS_AT_ONCE_MAX: usize = 8;

/// Takes turns over the seeds and over the dead.
#[derive(Debug)]
pub(super) struct Rejoin {
    interval: Duration,
    seeds: Vec<String>,
    due: Monotonic,
    seeds_turn: usize,
    dead_turn: usize,
}

impl Rejoin {
    /// Looks for the seeds at once.
    pub(super) fn new(interval: Duration, mut seeds: Vec<String>, now: Monotonic) -> Self {
        seeds.sort_unstable();
        seeds.dedup();
        Self { interval, seeds, due: now, seeds_turn: 0, dead_turn: 0 }
    }

    pub(super) const fn next_deadline(&self) -> Monotonic {
        self.due
    }

    /// This node was not running: whatever was due is due now.
    pub(super) fn restart(&mut self, now: Monotonic) {
        self.due = self.due.max(now);
    }

    /// The addresses to join now, or nothing if it is not time yet: a seed and a dead member per two intervals, each kind in
    /// turn; while nobody else is in the ring, the seeds and a dead member per interval.
    pub(super) fn handle_timeout(&mut self, now: Monotonic, me: &Member, roster: &Roster) -> Option<Vec<String>> {
        if now < self.due {
            return None;
        }
        let alone = roster.present().next().is_none();
        let (intervals, seeds_count) = if alone { (1, SEEDS_AT_ONCE_MAX) } else { (2, 1) };
        self.due = now + self.interval * intervals;
        let absent = |addr: &str| addr != me.addr && !roster.present().any(|member| member.addr == addr);
        let seeds: Vec<&str> = self.seeds.iter().map(String::as_str).filter(|addr| absent(addr)).collect();
        let dead = roster.iter().filter(|member| member.state == MemberState::Dead);
        let dead: Vec<&str> = dead.map(|member| member.addr.as_str()).filter(|addr| absent(addr)).collect();
        let mut chosen = take_turns(&seeds, &mut self.seeds_turn, seeds_count);
        let dead_count = usize::from(seeds.is_empty() || !Mutant::DeadUnsought.is_planted());
        let dead = take_turns(&dead, &mut self.dead_turn, dead_count);
        chosen.extend(dead);
        chosen.sort_unstable();
        chosen.dedup();
        Some(chosen)
    }
}

/// The next `count` of `addrs`, round and round, none of them twice.
fn take_turns(addrs: &[&str], turn: &mut usize, count: usize) -> Vec<String> {
    let count = count.min(addrs.len());
    let first = turn.checked_rem(addrs.len()).unwrap_or(0);
    *turn = turn.wrapping_add(count);
    addrs.iter().cycle().skip(first).take(count).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::{Incarnation, NodeId, Stage, Weight};

    fn claim(id: u64, state: MemberState) -> Member {
        let (incarnation, weight) = (Incarnation::new(1), Weight::MIN);
        Member { id: NodeId::new(id), addr: format!("node{id}"), incarnation, weight, state, stage: Stage::Normal }
    }

    /// A seed that never came has taken a thousand turns when another member, which is a seed, too, dies.
    #[test]
    fn a_dead_member_is_looked_for_at_once_however_long_a_seed_was_absent() {
        let (interval, me) = (Duration::from_millis(500), claim(0, MemberState::Alive));
        let seeds = ["node1", "node2", "node9"].map(str::to_owned).to_vec();
        let mut now = Monotonic::default();
        let mut rejoin = Rejoin::new(interval, seeds, now);
        let mut roster = Roster::default();
        for id in [1, 2] {
            roster.merge(now, &claim(id, MemberState::Alive), interval);
        }
        for _ in 0..1000 {
            assert_eq!(rejoin.handle_timeout(now, &me, &roster).unwrap(), ["node9"]);
            now = rejoin.next_deadline();
        }
        roster.merge(now, &claim(2, MemberState::Dead), interval);
        assert!(rejoin.handle_timeout(now, &me, &roster).unwrap().contains(&"node2".to_owned()));
    }
}
