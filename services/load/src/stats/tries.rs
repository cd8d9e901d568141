//! What every node was asked, try by try: the client side of the reconciliation. An operation is one try or two, and each is counted
//! at the node that it went to, so that a fail-over needs no allowance.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};

use super::latency::OutcomeClass;
use crate::{Answer, ErrorKind, NodeIndex, Op, shard::duration};

/// Replies are also counted over time, for nodes that begin to count anew; at first this finely.
const SLICE: Duration = Duration::from_millis(100);

/// When there are more slices, every two become one.
const SLICES_MAX: usize = 6000;

/// One thread's, or all threads' once merged.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug)]
pub(crate) struct Tries {
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    slice: Duration,
    nodes: Vec<NodeTries>,
}

/// Those at one node.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
struct NodeTries {
    ops: [OpTries; Op::ALL.len()],
    /// Replies in each slice of the load.
    slices: Vec<u32>,
}

/// Those of one operation.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct OpTries {
    /// Replies, by outcome class.
    pub(crate) replies: [u64; OutcomeClass::ALL.len()],
    /// Given up after a time. The node may have done it, or may do it yet.
    pub(crate) timed_out: u64,
    /// Connections that broke. As above.
    pub(crate) broken_off: u64,
}

impl OpTries {
    /// How many replies there were, whatever they said.
    pub(crate) fn replied(&self) -> u64 {
        self.replies.iter().sum()
    }

    /// How many tries a node may have counted, and nobody knows.
    pub(crate) const fn silent(&self) -> u64 {
        self.timed_out + self.broken_off
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.replies.iter_mut().zip(other.replies).for_each(|(sum, other)| *sum += other);
        self.timed_out += other.timed_out;
        self.broken_off += other.broken_off;
    }

    const fn add_silent(&mut self, error: ErrorKind) {
        match error {
            // It never came to the node.
            ErrorKind::Refused => {}
            ErrorKind::TimedOut => self.timed_out += 1,
            _ => self.broken_off += 1,
        }
    }
}

impl Tries {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { slice: SLICE, nodes: vec![NodeTries::default(); nodes] }
    }

    /// Counts the tries of an operation of the load that ended `at` after its beginning.
    pub(crate) fn add(&mut self, op: Op, answer: &Answer, at: Duration) {
        if let Some(before) = answer.before {
            let error = before.is_reply.then_some(OutcomeClass::Error);
            self.add_try(before.node, op, error.ok_or(before.error), at);
        }
        let reply = answer.is_reply.then(|| OutcomeClass::of(answer.outcome));
        self.add_try(answer.node, op, reply.ok_or_else(|| answer.error()), at);
    }

    /// Of an operation before the load, only what its node may be counting yet.
    pub(crate) fn add_ahead(&mut self, op: Op, answer: &Answer) {
        if let Some(before) = answer.before.filter(|before| !before.is_reply) {
            self.nodes[before.node.0].ops[op as usize].add_silent(before.error);
        }
        if !answer.is_reply {
            self.nodes[answer.node.0].ops[op as usize].add_silent(answer.error());
        }
    }

    /// Counts one: what was replied, or why nothing was.
    pub(crate) fn add_try(&mut self, node: NodeIndex, op: Op, reply: Result<OutcomeClass, ErrorKind>, at: Duration) {
        let tries = &mut self.nodes[node.0].ops[op as usize];
        match reply {
            Ok(outcome) => tries.replies[outcome as usize] += 1,
            Err(error) => return tries.add_silent(error),
        }
        while self.slice_of(at) >= SLICES_MAX {
            self.coarsen();
        }
        let slice = self.slice_of(at);
        let slices = &mut self.nodes[node.0].slices;
        if slices.len() <= slice {
            slices.resize(slice + 1, 0);
        }
        slices[slice] += 1;
    }

    /// One that was counted as broken off was never made.
    pub(crate) fn take_back(&mut self, node: NodeIndex, op: Op) {
        self.nodes[node.0].ops[op as usize].broken_off -= 1;
    }

    /// One that was counted as broken off has had a reply after all.
    pub(crate) fn mend(&mut self, node: NodeIndex, op: Op, outcome: OutcomeClass, at: Duration) {
        self.take_back(node, op);
        self.add_try(node, op, Ok(outcome), at);
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.slice < other.slice {
            self.coarsen();
        }
        while other.slice < self.slice {
            other.coarsen();
        }
        for (mine, theirs) in self.nodes.iter_mut().zip(&other.nodes) {
            mine.ops.iter_mut().zip(&theirs.ops).for_each(|(mine, theirs)| mine.add(theirs));
            if mine.slices.len() < theirs.slices.len() {
                mine.slices.resize(theirs.slices.len(), 0);
            }
            mine.slices.iter_mut().zip(&theirs.slices).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    pub(crate) fn of(&self, node: usize, op: Op) -> &OpTries {
        &self.nodes[node].ops[op as usize]
    }

    /// Those of all operations at one node.
    pub(crate) fn at(&self, node: usize) -> OpTries {
        let mut sum = OpTries::default();
        self.nodes[node].ops.iter().for_each(|tries| sum.add(tries));
        sum
    }

    /// The least and the most replies that a node can have given since `from`, which falls within a slice.
    pub(crate) fn replies_since(&self, node: usize, from: Duration) -> (u64, u64) {
        let (slices, within) = (&self.nodes[node].slices, self.slice_of(from));
        let sum = |from: usize| slices.iter().skip(from).copied().map(u64::from).sum();
        (sum(within + 1), sum(within))
    }

    const fn slice_of(&self, at: Duration) -> usize {
        (at.as_nanos() / self.slice.as_nanos()) as usize
    }

    fn coarsen(&mut self) {
        self.slice *= 2;
        for node in &mut self.nodes {
            node.slices = node.slices.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FailedTry, Outcome};

    fn answer(node: usize, outcome: Outcome, is_reply: bool) -> Answer {
        Answer {
            outcome,
            node: NodeIndex(node),
            is_reply,
            before: None,
            is_retried: false,
            doubtful: false,
            version: None,
            served_by: None,
            detail: None,
        }
    }

    #[test]
    fn every_try_is_counted_where_it_went() {
        let (mut one, mut two) = (Tries::new(3), Tries::new(3));
        let first = |error, is_reply| Some(FailedTry { node: NodeIndex(0), error, is_reply });
        let moved = |before| Answer { before, ..answer(1, Outcome::HitLocal, true) };
        one.add(Op::Get, &moved(first(ErrorKind::Refused, false)), Duration::ZERO);
        one.add(Op::Get, &moved(first(ErrorKind::TimedOut, false)), Duration::ZERO);
        two.add(Op::Get, &moved(first(ErrorKind::Unavailable, true)), Duration::ZERO);
        two.add(Op::Get, &answer(2, Outcome::Error(ErrorKind::Closed), false), Duration::ZERO);
        two.add_ahead(Op::Get, &answer(2, Outcome::Error(ErrorKind::TimedOut), false));
        two.add_ahead(Op::Get, &answer(2, Outcome::Acknowledged, true));
        two.add_try(NodeIndex(2), Op::Get, Err(ErrorKind::Closed), Duration::ZERO);
        two.mend(NodeIndex(2), Op::Get, OutcomeClass::Miss, Duration::ZERO);
        one.merge(&two);
        let first = OpTries { replies: [0, 0, 0, 0, 1], timed_out: 1, broken_off: 0 };
        assert_eq!(*one.of(0, Op::Get), first);
        assert_eq!(one.of(1, Op::Get).replies, [3, 0, 0, 0, 0]);
        assert_eq!((one.at(2).silent(), one.at(2).replied()), (2, 1));
    }

    #[test]
    fn replies_since_a_moment_are_known_to_a_slice() {
        let (mut one, mut two) = (Tries::new(1), Tries::new(1));
        let hit = answer(0, Outcome::HitLocal, true);
        for at_ms in [0, 950, 1010, 1050, 1100, 5000] {
            one.add(Op::Get, &hit, Duration::from_millis(at_ms));
        }
        assert_eq!(one.replies_since(0, Duration::from_millis(1020)), (2, 4));
        assert_eq!(one.replies_since(0, Duration::from_secs(9)), (0, 0));
        // A run of an hour has longer slices, in every thread alike.
        two.add(Op::Get, &hit, Duration::from_secs(3600));
        one.merge(&two);
        assert_eq!(one.slice, SLICE * 8);
        assert_eq!(one.replies_since(0, Duration::from_millis(1020)), (2, 6));
        assert_eq!(one.replies_since(0, Duration::from_secs(3000)), (1, 1));
    }
}
