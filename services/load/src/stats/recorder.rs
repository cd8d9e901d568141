//! What one thread measured; merged by counts when all have ended.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    aftermath::Aftermath,
    errors::ErrorLog,
    latency::{Latencies, LatencyHistogram},
    tries::Tries,
};
use crate::{Op, history::Integrity, shard::duration};

/// One thread's measurements, or all threads' once merged.
#[derive(BorshDeserialize, BorshSerialize, Debug)]
pub(crate) struct Recorder {
    /// Response times: from when an operation should have begun.
    pub response: Latencies,
    /// Service times by operation: from when it was sent. Only filled under a rate; a closed loop has no difference.
    pub service: [LatencyHistogram; Op::ALL.len()],
    /// Failures.
    pub errors: ErrorLog,
    /// Judgements.
    pub integrity: Integrity,
    /// Operations that a second node answered after a first had failed, by the operation's success.
    pub failed_over: u64,
    /// Tries beyond the first of each operation, whatever they came to.
    pub extra_tries: u64,
    /// Writes of what a read did not find (BACKFILL); no schedule makes them due.
    pub backfills: u64,
    /// Operations that the schedule gave up.
    pub dropped: u64,
    /// Operations that an open loop's schedule made due.
    pub offered: u64,
    /// By how much the schedule itself was late.
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    pub late_max: Duration,
    /// The most operations that waited to begin.
    pub backlog_high: usize,
    /// The longest an operation waited to begin.
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    pub lag_max: Duration,
    /// What the final sweep found.
    pub sweep: SweepTally,
    /// What every node was asked.
    pub(crate) tries: Tries,
    /// The slowest operations, and what traces say.
    pub aftermath: Aftermath,
}

/// What the final sweep found.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SweepTally {
    /// Keys with an acknowledged write that were read.
    pub keys: u64,
    /// Keys that were left out, because the sweep of a mesh that evicts takes no longer than the load.
    pub left_out: u64,
    /// Keys of which a quorum had neither the acknowledged write nor a newer one, and nothing explains it.
    pub lost: u64,
    /// The same where something does, such as an eviction.
    pub explained: u64,
    /// Keys that had been deleted, and are gone.
    pub deleted: u64,
    /// Keys that have expired, and are gone.
    pub expired: u64,
    /// Keys that no node could be asked for.
    pub unread: u64,
    /// By node, asked for what it has itself: values older than the newest acknowledged write that another node had.
    pub stale_by_node: Vec<u64>,
    /// By node: misses of keys that another node had.
    pub missing_by_node: Vec<u64>,
    /// By node: reads that failed.
    pub failed_by_node: Vec<u64>,
}

impl SweepTally {
    fn new(nodes: usize) -> Self {
        let none = || vec![0; nodes];
        Self { stale_by_node: none(), missing_by_node: none(), failed_by_node: none(), ..Self::default() }
    }

    fn merge(&mut self, other: &Self) {
        self.keys += other.keys;
        self.left_out += other.left_out;
        self.lost += other.lost;
        self.explained += other.explained;
        self.deleted += other.deleted;
        self.expired += other.expired;
        self.unread += other.unread;
        let by_node = [
            (&mut self.stale_by_node, &other.stale_by_node),
            (&mut self.missing_by_node, &other.missing_by_node),
            (&mut self.failed_by_node, &other.failed_by_node),
        ];
        for (mine, theirs) in by_node {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }
}

impl Recorder {
    /// Nothing yet.
    #[must_use]
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            response: Latencies::new(nodes),
            service: Default::default(),
            errors: ErrorLog::default(),
            integrity: Integrity::default(),
            failed_over: 0,
            extra_tries: 0,
            backfills: 0,
            dropped: 0,
            offered: 0,
            late_max: Duration::ZERO,
            backlog_high: 0,
            lag_max: Duration::ZERO,
            sweep: SweepTally::new(nodes),
            tries: Tries::new(nodes),
            aftermath: Aftermath::default(),
        }
    }

    /// The distribution of service times of one operation.
    #[must_use]
    pub(crate) const fn service_of(&self, op: Op) -> &LatencyHistogram {
        &self.service[op as usize]
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.response.merge(&other.response);
        self.service.iter_mut().zip(&other.service).for_each(|(mine, theirs)| mine.merge(theirs));
        self.errors.merge(&other.errors);
        self.integrity.merge(&other.integrity);
        self.failed_over += other.failed_over;
        self.extra_tries += other.extra_tries;
        self.backfills += other.backfills;
        self.dropped += other.dropped;
        self.offered += other.offered;
        self.late_max = self.late_max.max(other.late_max);
        self.backlog_high = self.backlog_high.max(other.backlog_high);
        self.lag_max = self.lag_max.max(other.lag_max);
        self.sweep.merge(&other.sweep);
        self.tries.merge(&other.tries);
        self.aftermath.merge(&other.aftermath);
    }
}
