//! Whom to probe next, and what became of the probes under way. One round is: ping up to three members, after 2/5 of
//! the interval ask others to ping those that did not answer, after 7/10 accuse those that nobody reached. Where answers take
//! longer than that, by the network or because this node is short of time, rounds stretch until the answers fit: otherwise all
//! members would suspect each other for ever (Lifeguard's aim, Dadgar et al. 2017).
//!
//! The first of the three is always the next living member in the order of ids, the others come from a shuffled
//! round-robin (SWIM, section 4.3). So everybody is probed by somebody in every interval, for certain and not just
//! probably, and the work per node stays the same however large the cluster grows.

use std::{collections::VecDeque, time::Duration};

use arrayvec::ArrayVec;
use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use super::{MemberState, roster::Roster};
use crate::{Monotonic, Mutant, NodeId};

/// Members probed per interval.
pub(super) const PROBES_MAX: usize = 3;

/// Pings under way for others; the oldest is dropped beyond that.
const RELAYS_MAX: usize = 256;

/// A round takes at most this many intervals, however slow the answers are.
const STRETCH_MAX: u32 = 8;

/// So many pairs of members that connect at once make answers as slow as an interval takes.
const PAIRS: u32 = 128;

/// Probes without an answer that are remembered, to learn from an answer that comes late.
const UNANSWERED_MAX: usize = 16;

/// What a round does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbePhase {
    /// Begin with new pings.
    Begin,
    /// Ask others to ping those that have not answered.
    AskOthers,
    /// Accuse those that nobody reached.
    Conclude,
}

/// One member being probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) seq: u32,
    pub(super) target: NodeId,
    pub(super) sent_at: Monotonic,
    /// Whether others were asked to ping it too.
    pub(super) indirect: bool,
}

/// A ping on behalf of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relay {
    seq: u32,
    target: NodeId,
    /// Who asked.
    pub(super) requester: NodeId,
    /// The number under which it asked.
    pub(super) requester_seq: u32,
}

/// The rounds of one node.
#[derive(Debug)]
pub(super) struct Prober {
    interval: Duration,
    order: Vec<NodeId>,
    /// Those not answered yet.
    probes: ArrayVec<Probe, PROBES_MAX>,
    /// Those of former rounds that nobody has answered, the oldest first.
    unanswered: VecDeque<Probe>,
    /// The slowest answer that came directly from the member probed; it fades within some rounds.
    slowest: Duration,
    phase: ProbePhase,
    due: Monotonic,
    began_at: Monotonic,
    /// When the round before this one began.
    last_round: Monotonic,
    seq: u32,
    relays: VecDeque<Relay>,
}

impl Prober {
    /// The first round begins somewhere within the first interval, so that nodes started together do not probe in step.
    pub(super) fn new(interval: Duration, now: Monotonic, rng: &mut SmallRng) -> Self {
        Self {
            interval,
            order: Vec::new(),
            probes: ArrayVec::new(),
            unanswered: VecDeque::new(),
            slowest: Duration::ZERO,
            phase: ProbePhase::Begin,
            due: now + interval.mul_f64(rng.random()),
            began_at: now,
            last_round: now,
            seq: rng.random(),
            relays: VecDeque::new(),
        }
    }

    pub(super) const fn next_deadline(&self) -> Monotonic {
        self.due
    }

    /// Forgets what is under way and begins a new round now.
    pub(super) fn restart(&mut self, now: Monotonic) {
        self.probes.clear();
        self.unanswered.clear();
        self.relays.clear();
        self.phase = ProbePhase::Begin;
        self.due = now;
    }

    /// What is due, if anything; the next phase is scheduled.
    pub(super) fn handle_timeout(&mut self, now: Monotonic) -> Option<ProbePhase> {
        if now < self.due {
            return None;
        }
        let phase = self.phase;
        // If this node is late it reads answers as late.
        self.slowest = self.slowest.max(now.since(self.due) * 2);
        // An answer by way of others takes two round trips.
        let direct = (self.interval * 2 / 5).max(self.patience());
        let indirect = (self.interval * 3 / 10).max(self.patience() * 2);
        (self.phase, self.due) = match phase {
            ProbePhase::Begin => {
                self.began_at = now;
                (ProbePhase::AskOthers, now + direct)
            }
            ProbePhase::AskOthers => (ProbePhase::Conclude, self.began_at + direct + indirect),
            ProbePhase::Conclude => (ProbePhase::Begin, now.max(self.began_at + self.interval)),
        };
        Some(phase)
    }

    /// Chooses this round's targets and starts a probe of each.
    pub(super) fn begin(&mut self, now: Monotonic, me: NodeId, roster: &Roster, rng: &mut SmallRng) -> Vec<Probe> {
        self.probes.clear();
        // An eighth in an interval; rounds that were stretched are longer.
        let intervals = (now.since(self.last_round).as_secs_f64() / self.interval.as_secs_f64()).clamp(1.0, 4.0);
        self.slowest -= self.slowest.mul_f64(intervals / 8.0);
        self.last_round = now;
        for target in self.targets(me, roster, rng) {
            let seq = self.next_seq();
            self.probes.push(Probe { seq, target, sent_at: now, indirect: false });
        }
        self.probes.to_vec()
    }

    /// The probes that have not been answered yet; from now on they count as indirect.
    pub(super) fn ask_others(&mut self) -> Vec<Probe> {
        self.probes.iter_mut().for_each(|probe| probe.indirect = true);
        self.probes.to_vec()
    }

    /// Ends the round: the probes that nobody answered.
    pub(super) fn conclude(&mut self) -> Vec<Probe> {
        self.unanswered.extend(&self.probes);
        self.unanswered.drain(..self.unanswered.len().saturating_sub(UNANSWERED_MAX));
        self.probes.drain(..).collect()
    }

    /// `from` says that `subject` was reached: the probe that has ended by that, if it was one of this round.
    pub(super) fn handle_ack(&mut self, now: Monotonic, from: NodeId, seq: u32, subject: NodeId) -> Option<Probe> {
        let is_it = |probe: &Probe| probe.seq == seq && probe.target == subject;
        let in_time = self.probes.iter().position(is_it).map(|at| self.probes.remove(at));
        let late = self.unanswered.iter().position(is_it).and_then(|at| self.unanswered.remove(at));
        // What came by way of others tells nothing of how long the member itself takes.
        if let Some(probe) = in_time.or(late).filter(|_| from == subject) {
            self.slowest = self.slowest.max(now.since(probe.sent_at));
        }
        in_time
    }

    /// A member has come, and there are so many now. Each of them connects to it, or has: where many come at once rounds stretch
    /// before the first answer is late.
    pub(super) fn handle_arrival(&mut self, members: usize) {
        if !Mutant::ArrivalsCostNothing.is_planted() {
            let share = self.interval * u32::try_from(members).unwrap_or(u32::MAX).min(PAIRS) / PAIRS;
            self.slowest = (self.slowest + share).min(self.interval * STRETCH_MAX / 4);
        }
    }

    /// These were not probed after all.
    pub(super) fn spare(&mut self, targets: &[NodeId]) {
        self.probes.retain(|probe| !targets.contains(&probe.target));
    }

    /// How long a direct answer may take.
    pub(super) fn patience(&self) -> Duration {
        let most =
            if Mutant::RoundsNeverStretch.is_planted() { Duration::ZERO } else { self.interval * STRETCH_MAX / 3 };
        (self.slowest * 3 / 2).min(most)
    }

    /// Starts a ping on behalf of `requester`; returns its number.
    pub(super) fn relay(&mut self, target: NodeId, requester: NodeId, requester_seq: u32) -> u32 {
        if self.relays.len() >= RELAYS_MAX {
            self.relays.pop_front();
        }
        let seq = self.next_seq();
        self.relays.push_back(Relay { seq, target, requester, requester_seq });
        seq
    }

    /// `subject` answered: who had asked for it, if that was a ping for others.
    pub(super) fn take_relay(&mut self, seq: u32, subject: NodeId) -> Option<Relay> {
        let at = self.relays.iter().position(|relay| relay.seq == seq && relay.target == subject)?;
        self.relays.remove(at)
    }

    fn targets(&mut self, me: NodeId, roster: &Roster, rng: &mut SmallRng) -> ArrayVec<NodeId, PROBES_MAX> {
        let next = roster.after(me).find(|member| member.state == MemberState::Alive);
        let mut targets: ArrayVec<NodeId, PROBES_MAX> = next.map(|member| member.id).into_iter().collect();
        let mut reshuffled = false;
        while !targets.is_full() {
            let Some(id) = self.order.pop() else {
                if reshuffled {
                    break;
                }
                reshuffled = true;
                self.order.extend(roster.present().map(|member| member.id));
                self.order.shuffle(rng);
                continue;
            };
            if !targets.contains(&id) && roster.get(id).is_some_and(|member| member.state.is_present()) {
                targets.push(id);
            }
        }
        targets
    }

    const fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use rand::SeedableRng;

    use super::*;
    use crate::{Incarnation, Stage, Weight, membership::Member};

    /// Runs rounds in which every answer takes this long; how many of the probes had none in time.
    fn unanswered(answer_takes: Duration, rounds: usize) -> usize {
        let interval = Duration::from_millis(100);
        let (mut rng, mut now) = (SmallRng::seed_from_u64(1), Monotonic::default());
        let (me, member, mut roster) = (NodeId::new(1), NodeId::new(2), Roster::default());
        let (incarnation, weight) = (Incarnation::new(1), Weight::MIN);
        let (state, stage) = (MemberState::Alive, Stage::Normal);
        roster.merge(now, &Member { id: member, addr: "b".to_owned(), incarnation, weight, state, stage }, interval);
        let mut prober = Prober::new(interval, now, &mut rng);
        let (mut under_way, mut begun, mut unanswered) = (VecDeque::<Probe>::new(), 0, 0);
        while begun < rounds {
            let answered_at = under_way.front().map(|probe| probe.sent_at + answer_takes);
            now = answered_at.into_iter().fold(prober.next_deadline(), Ord::min);
            if answered_at == Some(now) {
                let probe = under_way.pop_front().unwrap();
                prober.handle_ack(now, member, probe.seq, member);
            }
            match prober.handle_timeout(now) {
                Some(ProbePhase::Begin) => {
                    begun += 1;
                    under_way.extend(prober.begin(now, me, &roster, &mut rng));
                }
                Some(ProbePhase::Conclude) => unanswered += prober.conclude().len(),
                _ => {}
            }
        }
        unanswered
    }

    #[test]
    fn rounds_stretch_until_slow_answers_fit() {
        assert_eq!(unanswered(Duration::from_millis(30), 100), 0);
        assert!(unanswered(Duration::from_millis(72), 100) <= 1);
        assert!(unanswered(Duration::from_millis(250), 100) <= 3);
        assert!(unanswered(Duration::from_secs(5), 100) > 90, "a round has an end");
    }
}
