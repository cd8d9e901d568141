//! Faults of a network as data: what happens to traffic between two nodes, in which direction, and until when. Both
//! transports of `mesh` are broken by the same rules, and a rule always expires by itself, even if the process that set it is gone.

use std::{fmt, time::Duration};

use arrayvec::ArrayVec;
use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Monotonic, NodeId};

mod form;
mod partition;

pub use form::{FaultForm, FaultFormError, FaultOrder, LinkForm, LinkOrder};
pub use partition::Partition;

/// The longest delay or jitter of a link.
pub const FAULT_DELAY_MAX: Duration = Duration::from_secs(10);

/// The longest time that a fault may last.
pub const FAULT_TIME_MAX: Duration = Duration::from_secs(600);

/// The most rules in force at a node.
pub const FAULT_RULES_MAX: usize = 64;

/// The furthest that a clock may be set off, either way: a day.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What happens to traffic from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkFault {
    /// Added to every message.
    pub delay: Duration,
    /// Up to this much more, at random; datagrams may overtake each other, streams keep their order.
    pub jitter: Duration,
    /// The share of datagrams that are lost, 0 to 1. Streams are delayed instead, as a retransmission would.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Nothing gets through, in this direction. Connections break after the idle timeout (2 s).
    pub cut: bool,
}

impl LinkFault {
    /// Nothing gets through.
    pub const CUT: Self = Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, cut: true };

    /// Whether traffic passes as if there were no fault.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Both faults, one after the other.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            delay: self.delay + other.delay,
            jitter: self.jitter + other.jitter,
            loss: either(self.loss, other.loss),
            duplicate: either(self.duplicate, other.duplicate),
            cut: self.cut || other.cut,
        }
    }

    /// How long one message is under way.
    pub fn delay(&self, dice: &mut (impl RngCore + ?Sized)) -> Duration {
        if self.jitter.is_zero() {
            return self.delay;
        }
        self.delay + self.jitter.mul_f64(dice.random::<f64>())
    }

    /// Whether one message is lost.
    pub fn is_lost(&self, dice: &mut (impl RngCore + ?Sized)) -> bool {
        happens(self.loss, dice)
    }

    /// How long each copy of a datagram is under way; none if it is lost.
    pub fn copies(&self, dice: &mut (impl RngCore + ?Sized)) -> ArrayVec<Duration, 2> {
        let mut delays = ArrayVec::new();
        if !self.cut && !self.is_lost(dice) {
            delays.push(self.delay(dice));
            if happens(self.duplicate, dice) {
                delays.push(self.delay(dice));
            }
        }
        delays
    }
}

/// Whether something that happens to this share of all messages happens to this one.
fn happens(share: f64, dice: &mut (impl RngCore + ?Sized)) -> bool {
    share > 0.0 && dice.random::<f64>() < share
}

/// The chance that one of two independent things happens.
fn either(one: f64, other: f64) -> f64 {
    1.0 - (1.0 - one) * (1.0 - other)
}

/// Which way traffic goes, seen from the node that has the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the peer to this node.
    In,
    /// From this node to the peer.
    Out,
    /// Both ways.
    #[default]
    Both,
}

impl Direction {
    const fn covers(self, way: Self) -> bool {
        matches!((self, way), (Self::Both, _) | (Self::In, Self::In) | (Self::Out, Self::Out))
    }
}

/// Whose traffic a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPeer {
    /// Everybody's, known or not.
    Everybody,
    /// One node's.
    Node(NodeId),
}

impl fmt::Display for FaultPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Node(id) => id.fmt(f),
        }
    }
}

/// One rule of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultRule {
    /// Whose traffic.
    pub peer: FaultPeer,
    /// Which way.
    pub direction: Direction,
    /// What happens to it.
    pub fault: LinkFault,
    /// When it begins.
    pub from: Monotonic,
    /// When it is over.
    pub until: Monotonic,
    /// If it comes and goes: it is there in the first half of each period, and away in the second.
    pub flap: Option<Duration>,
}

impl FaultRule {
    /// Whether traffic meets it now.
    fn is_on(&self, now: Monotonic) -> bool {
        self.from <= now && now < self.until && self.flap.is_none_or(|period| self.phase(now, period) * 2 < period)
    }

    fn phase(&self, now: Monotonic, period: Duration) -> Duration {
        let (age_ns, period_ns) = (now.since(self.from).as_nanos(), period.as_nanos().max(1));
        // Less than a period, which is bounded by `FAULT_TIME_MAX`.
        Duration::from_nanos(u64::try_from(age_ns % period_ns).unwrap_or(u64::MAX))
    }

    /// When it next comes, goes or ends.
    fn next_change(&self, now: Monotonic) -> Monotonic {
        if now < self.from {
            return self.from;
        }
        let Some(period) = self.flap else { return self.until };
        let phase = self.phase(now, period);
        let to_next = if phase * 2 < period { period / 2 - phase.min(period / 2) } else { period - phase };
        (now + to_next.max(Duration::from_millis(1))).min(self.until)
    }
}

/// All rules of one node.
///
/// [`FaultRules::fate`] is asked for every message, and [`FaultRules::next_change`] says when the answer changes by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultRules(Vec<FaultRule>);

impl FaultRules {
    /// Adds rules to those in force, all or none.
    ///
    /// # Errors
    /// [`TooManyFaults`] if there would be more than [`FAULT_RULES_MAX`].
    pub fn add(&mut self, now: Monotonic, rules: &[FaultRule]) -> Result<(), TooManyFaults> {
        self.forget_ended(now);
        if self.0.len() + rules.len() > FAULT_RULES_MAX {
            return Err(TooManyFaults);
        }
        self.0.extend_from_slice(rules);
        Ok(())
    }

    /// Ends them all.
    pub fn heal(&mut self) {
        self.0.clear();
    }

    /// Drops rules that are over, and says whether any is left.
    pub fn forget_ended(&mut self, now: Monotonic) -> bool {
        self.0.retain(|rule| now < rule.until);
        !self.0.is_empty()
    }

    /// The rules that are not over yet.
    pub fn iter(&self) -> impl Iterator<Item = &FaultRule> {
        self.0.iter()
    }

    /// What happens now to a message that goes this way, [`Direction::In`] or [`Direction::Out`]. Who it is from or for
    /// may be unknown: then only rules about everybody count.
    #[must_use]
    pub fn fate(&self, now: Monotonic, peer: Option<NodeId>, way: Direction) -> LinkFault {
        let concerns = |rule: &&FaultRule| match rule.peer {
            FaultPeer::Everybody => true,
            FaultPeer::Node(id) => peer == Some(id),
        };
        let met = self.0.iter().filter(concerns).filter(|rule| rule.direction.covers(way) && rule.is_on(now));
        met.fold(LinkFault::default(), |sum, rule| sum.and(&rule.fault))
    }

    /// When a rule next comes, goes or ends; nothing without rules.
    #[must_use]
    pub fn next_change(&self, now: Monotonic) -> Option<Monotonic> {
        self.0.iter().filter(|rule| now < rule.until).map(|rule| rule.next_change(now)).min()
    }
}

/// There are [`FAULT_RULES_MAX`] rules already, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no more than {FAULT_RULES_MAX} faults can be in force at a node: heal some first")]
pub struct TooManyFaults;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::new(Duration::from_millis(millis))
    }

    fn rule(peer: FaultPeer, direction: Direction, fault: LinkFault) -> FaultRule {
        FaultRule { peer, direction, fault, from: at(100), until: at(200), flap: None }
    }

    #[test]
    fn a_rule_is_about_one_peer_one_way_and_a_time() {
        let (peer, other) = (NodeId::new(1), NodeId::new(2));
        let mut rules = FaultRules::default();
        rules.add(at(100), &[rule(FaultPeer::Node(peer), Direction::In, LinkFault::CUT)]).unwrap();
        let cut = |millis, peer, way| rules.fate(at(millis), peer, way).cut;
        assert!(cut(100, Some(peer), Direction::In) && cut(199, Some(peer), Direction::In));
        assert!(!cut(99, Some(peer), Direction::In) && !cut(200, Some(peer), Direction::In), "outside its time");
        assert!(!cut(150, Some(peer), Direction::Out), "the other way");
        assert!(!cut(150, Some(other), Direction::In) && !cut(150, None, Direction::In), "others");
        assert_eq!(rules.next_change(at(100)), Some(at(200)));
        assert!(rules.forget_ended(at(199)));
        assert!(!rules.forget_ended(at(200)), "it heals by itself");
    }

    #[test]
    fn everybody_includes_strangers_and_faults_add_up() {
        let slow = |delay| LinkFault { delay: Duration::from_millis(delay), loss: 0.5, ..LinkFault::default() };
        let mut rules = FaultRules::default();
        let both = [
            rule(FaultPeer::Everybody, Direction::Both, slow(5)),
            rule(FaultPeer::Node(NodeId::new(1)), Direction::Out, slow(7)),
        ];
        rules.add(at(0), &both).unwrap();
        assert_eq!(rules.fate(at(150), None, Direction::Out).delay, Duration::from_millis(5));
        let sum = rules.fate(at(150), Some(NodeId::new(1)), Direction::Out);
        assert_eq!((sum.delay, sum.loss), (Duration::from_millis(12), 0.75));
        rules.heal();
        assert!(rules.fate(at(150), None, Direction::Out).is_none());
    }

    #[test]
    fn a_flapping_fault_comes_and_goes_and_ends() {
        let mut rules = FaultRules::default();
        let flap = Some(Duration::from_millis(40));
        rules
            .add(at(100), &[FaultRule { flap, ..rule(FaultPeer::Everybody, Direction::Both, LinkFault::CUT) }])
            .unwrap();
        let cut = |millis| rules.fate(at(millis), None, Direction::In).cut;
        assert_eq!(
            [100, 119, 120, 139, 140, 159, 160, 199, 200].map(cut),
            [true, true, false, false, true, true, false, true, false]
        );
        let changes = |millis| rules.next_change(at(millis)).unwrap();
        assert_eq!([100, 119, 120, 139, 180, 190].map(changes), [120, 120, 140, 140, 200, 200].map(at));
        assert_eq!(rules.next_change(at(200)), None);
    }

    #[test]
    fn there_are_only_so_many() {
        let mut rules = FaultRules::default();
        let one = rule(FaultPeer::Everybody, Direction::Both, LinkFault::CUT);
        rules.add(at(100), &[one; FAULT_RULES_MAX]).unwrap();
        assert_eq!(rules.add(at(199), &[one]), Err(TooManyFaults));
        rules.add(at(200), &[one]).unwrap();
        assert_eq!(rules.iter().count(), 1, "those that are over make room");
    }

    #[test]
    fn shares_are_kept_and_follow_from_the_seed() {
        let fault = LinkFault {
            loss: 0.3,
            duplicate: 0.2,
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            ..LinkFault::default()
        };
        let roll = |seed| {
            let mut dice = SmallRng::seed_from_u64(seed);
            (0..10_000).map(|_| fault.copies(&mut dice)).collect::<Vec<_>>()
        };
        let rolled = roll(7);
        assert_eq!(rolled, roll(7));
        let lost = rolled.iter().filter(|copies| copies.is_empty()).count();
        let twice = rolled.iter().filter(|copies| copies.len() == 2).count();
        assert!((2800..3200).contains(&lost), "{lost}");
        assert!((1250..1550).contains(&twice), "{twice}");
        let mut delays = rolled.iter().flatten();
        assert!(delays.all(|delay| (10_000..15_000).contains(&delay.as_micros())));
        assert!(LinkFault::CUT.copies(&mut SmallRng::seed_from_u64(1)).is_empty());
    }
}
