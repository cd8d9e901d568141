//! What nodes count of the operations that they served, before and after the load: the server side of the reconciliation.

use borsh::{BorshDeserialize, BorshSerialize};

use super::latency::OutcomeClass;
use crate::Op;

/// One node's count of one operation, since it started.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, PartialEq)]
pub struct ServerOpCounts {
    /// How many ended how, indexed by outcome class.
    pub outcomes: [u64; OutcomeClass::ALL.len()],
    /// How many lost their caller before they ended.
    pub abandoned: u64,
    /// Upper bounds in seconds, ascending to infinity, and how many took no longer.
    pub buckets: Vec<(f64, u64)>,
}

/// One node's operations.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, PartialEq)]
pub struct ServerCounts {
    /// When it began to count, in Unix seconds.
    pub since_unix_s: f64,
    /// By operation.
    pub ops: [ServerOpCounts; Op::ALL.len()],
    /// Requests and connections that admission control shed, whatever the operation.
    pub shed: u64,
    /// Operations that were answered with an error, because a large value did not fit into memory once more.
    pub withheld: u64,
}

impl ServerOpCounts {
    /// What was counted since `before`, which has the same buckets or none.
    fn since(&self, before: &Self) -> Self {
        let mut change = self.clone();
        change.outcomes.iter_mut().zip(before.outcomes).for_each(|(now, before)| *now = now.saturating_sub(before));
        change.abandoned = change.abandoned.saturating_sub(before.abandoned);
        for (now, before) in change.buckets.iter_mut().zip(&before.buckets) {
            now.1 = now.1.saturating_sub(before.1);
        }
        change
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, other)| *sum += other);
        self.abandoned += other.abandoned;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, other)| sum.1 += other.1);
        }
    }

    /// All of them, however they ended.
    pub(crate) fn all(&self) -> u64 {
        self.outcomes.iter().sum::<u64>() + self.abandoned
    }

    /// The bucket that holds the latency that `share` of all do not exceed, and that latency as Prometheus guesses it: on a
    /// straight line from bound to bound. Nothing if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Quantile> {
        let all = self.buckets.last().map(|bucket| bucket.1).filter(|all| *all > 0)?;
        let rank = share * all as f64;
        let at = self.buckets.iter().position(|(_, count)| *count as f64 >= rank)?;
        let (from_s, below) = if at == 0 { (0.0, 0) } else { self.buckets[at - 1] };
        let (to_s, count) = self.buckets[at];
        let within = (rank - below as f64) / (count - below).max(1) as f64;
        // Whatever lies beyond the last bound is known to do so, and no more.
        let guess_s = if to_s.is_finite() { (to_s - from_s).mul_add(within, from_s) } else { from_s };
        Some(Quantile { from_s, guess_s, to_s })
    }
}

/// A latency within a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantile {
    pub(crate) from_s: f64,
    pub(crate) guess_s: f64,
    pub(crate) to_s: f64,
}

/// How much of what a node did during the load its count covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cover {
    /// All of it.
    Whole,
    /// What it did since it began to count anew, in Unix seconds.
    Since(f64),
    /// Nothing: it does not answer.
    Nothing,
}

/// What a node counted between two looks.
pub(crate) fn during(before: Option<&ServerCounts>, after: Option<&ServerCounts>) -> (ServerCounts, Cover) {
    let Some(after) = after else { return (ServerCounts::default(), Cover::Nothing) };
    let Some(before) = before.filter(|before| before.since_unix_s == after.since_unix_s) else {
        return (after.clone(), Cover::Since(after.since_unix_s));
    };
    let mut change = after.clone();
    change.ops.iter_mut().zip(&before.ops).for_each(|(now, before)| *now = now.since(before));
    change.shed = change.shed.saturating_sub(before.shed);
    change.withheld = change.withheld.saturating_sub(before.withheld);
    (change, Cover::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(since_unix_s: f64, hits: u64) -> Option<ServerCounts> {
        let mut served = ServerCounts { since_unix_s, ..ServerCounts::default() };
        let get = &mut served.ops[Op::Get as usize];
        get.outcomes[OutcomeClass::Local as usize] = hits;
        get.buckets = vec![(0.001, hits / 2), (0.01, hits), (f64::INFINITY, hits)];
        Some(served)
    }

    #[test]
    fn a_node_that_counts_anew_has_lost_what_it_had() {
        let hits = |(served, cover): (ServerCounts, Cover)| (served.ops[Op::Get as usize].all(), cover);
        let before = counts(1.0, 100);
        assert_eq!(hits(during(before.as_ref(), counts(1.0, 150).as_ref())), (50, Cover::Whole));
        assert_eq!(hits(during(before.as_ref(), counts(9.0, 30).as_ref())), (30, Cover::Since(9.0)));
        assert_eq!(hits(during(None, counts(9.0, 30).as_ref())), (30, Cover::Since(9.0)));
        assert_eq!(hits(during(before.as_ref(), None)), (0, Cover::Nothing));
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        let (sum, _) = during(counts(1.0, 0).as_ref(), counts(1.0, 100).as_ref());
        assert_eq!(sum.ops[Op::Get as usize].buckets, [(0.001, 50), (0.01, 100), (f64::INFINITY, 100)]);
        let quantile = sum.ops[Op::Get as usize].quantile(0.99);
        let is_right =
            |found: Quantile| (found.from_s, found.to_s) == (0.001, 0.01) && (found.guess_s - 0.009_82).abs() < 1e-9;
        assert!(quantile.is_some_and(is_right), "{quantile:?}");
        assert_eq!(ServerOpCounts::default().quantile(0.99), None);
        let beyond = ServerOpCounts { buckets: vec![(1.0, 0), (f64::INFINITY, 5)], ..ServerOpCounts::default() };
        assert_eq!(beyond.quantile(0.5), Some(Quantile { from_s: 1.0, guess_s: 1.0, to_s: f64::INFINITY }));
    }
}
