//! Whom to look for. Gossip only reaches members that are believed alive, so after a partition, or after a whole mesh
//! has restarted, somebody must knock at the doors of the dead and of the seeds, for ever (memberlist PR #345).

use std::time::Duration;

use super::{Member, MemberState, roster::Roster};
use crate::Monotonic;

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
        let alone = roster.in_ring().next().is_none();
        let (intervals, seeds_count) = if alone { (1, SEEDS_AT_ONCE_MAX) } else { (2, 1) };
        self.due = now + self.interval * intervals;
        let absent = |addr: &str| addr != me.addr && !roster.in_ring().any(|member| member.addr == addr);
        let seeds: Vec<&str> = self.seeds.iter().map(String::as_str).filter(|addr| absent(addr)).collect();
        let dead = roster.iter().filter(|member| member.state == MemberState::Dead);
        let dead: Vec<&str> = dead.map(|member| member.addr.as_str()).filter(|addr| absent(addr)).collect();
        let mut chosen = take_turns(&seeds, &mut self.seeds_turn, seeds_count);
        let dead = take_turns(&dead, &mut self.dead_turn, 1);
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
