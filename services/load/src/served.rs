//! What nodes count of the operations that they served, before and after the load: the other side of the books.

use crate::{Op, OutcomeClass};

/// One node's count of one operation, since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServedOp {
    /// How many ended how, indexed by outcome class.
    pub outcomes: [u64; OutcomeClass::ALL.len()],
    /// How many lost their caller before they ended.
    pub abandoned: u64,
    /// Upper bounds in seconds, ascending to infinity, and how many took no longer.
    pub buckets: Vec<(f64, u64)>,
}

/// One node's operations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served {
    /// When it began to count, in Unix seconds.
    pub since_unix_s: f64,
    /// By operation.
    pub ops: [ServedOp; Op::ALL.len()],
}

impl ServedOp {
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

    fn add(&mut self, other: &Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, other)| *sum += other);
        self.abandoned += other.abandoned;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, other)| sum.1 += other.1);
        }
    }

    /// How many were answered without a failure.
    pub(crate) fn answered(&self) -> u64 {
        self.outcomes.iter().sum::<u64>() - self.of(OutcomeClass::Error)
    }

    pub(crate) const fn of(&self, outcome: OutcomeClass) -> u64 {
        self.outcomes[outcome as usize]
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

/// What all nodes together counted between two looks, and which of them have lost a part of it: those that were restarted
/// or did not answer.
pub(crate) fn during(before: &[Option<Served>], after: &[Option<Served>]) -> (Served, Vec<usize>) {
    let (mut sum, mut lossy) = (Served::default(), Vec::new());
    for (node, pair) in before.iter().zip(after).enumerate() {
        let (before, now) = match pair {
            (Some(before), Some(now)) if before.since_unix_s == now.since_unix_s => (Some(before), Some(now)),
            (_, now) => (None, now.as_ref()),
        };
        if before.is_none() {
            lossy.push(node);
        }
        for op in Op::ALL {
            let (Some(now), at) = (now, op as usize) else { continue };
            sum.ops[at].add(&before.map_or_else(|| now.ops[at].clone(), |before| now.ops[at].since(&before.ops[at])));
        }
    }
    (sum, lossy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(since_unix_s: f64, hits: u64) -> Option<Served> {
        let mut served = Served { since_unix_s, ..Served::default() };
        let get = &mut served.ops[Op::Get as usize];
        get.outcomes[OutcomeClass::Local as usize] = hits;
        get.buckets = vec![(0.001, hits / 2), (0.01, hits), (f64::INFINITY, hits)];
        Some(served)
    }

    #[test]
    fn a_node_that_counts_anew_has_lost_what_it_had() {
        let (before, after) = ([served(1.0, 100), served(1.0, 100)], [served(1.0, 150), served(9.0, 30)]);
        let (sum, lossy) = during(&before, &after);
        let get = &sum.ops[Op::Get as usize];
        assert_eq!((get.answered(), lossy), (80, vec![1]));
        assert_eq!(get.buckets, [(0.001, 40), (0.01, 80), (f64::INFINITY, 80)]);
        let (sum, lossy) = during(&before, &[served(1.0, 101), None]);
        assert_eq!((sum.ops[Op::Get as usize].answered(), lossy), (1, vec![1]));
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        let (sum, _) = during(&[served(1.0, 0)], &[served(1.0, 100)]);
        let quantile = sum.ops[Op::Get as usize].quantile(0.99);
        let is_right =
            |found: Quantile| (found.from_s, found.to_s) == (0.001, 0.01) && (found.guess_s - 0.009_82).abs() < 1e-9;
        assert!(quantile.is_some_and(is_right), "{quantile:?}");
        assert_eq!(ServedOp::default().quantile(0.99), None);
        let beyond = ServedOp { buckets: vec![(1.0, 0), (f64::INFINITY, 5)], ..ServedOp::default() };
        assert_eq!(beyond.quantile(0.5), Some(Quantile { from_s: 1.0, guess_s: 1.0, to_s: f64::INFINITY }));
    }
}
