//! Everything that is decided before a run begins. Results hold it as `setup`.

mod guarantee;
mod limits;
pub(crate) mod objective;
pub(crate) mod phase;
pub(crate) mod settings;

use std::{fmt::Display, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Serialize, Serializer};

pub use self::{
    guarantee::Guarantee,
    limits::check_files,
    objective::{Measure, Objective, Objectives},
    phase::Phase,
    settings::LoadSettings,
};
use crate::{
    NodeIndex, Op, PlannedFault, RunnerShard, StartAt,
    exec::{EXPIRY_ALLOWANCE, KeySpace, ValueSizes, ValueTtls},
    report::numbers::{grouped, without_scheme},
    shard::{duration, option, text},
    target::ReadConsistency,
};

/// A run, decided.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plan {
    /// What the nodes are called in the summary.
    pub targets: Vec<String>,
    /// What they promise.
    pub guarantee: Guarantee,
    /// How long the load lasts.
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub duration: Duration,
    /// The beginning of it that is measured apart.
    #[borsh(skip)]
    #[serde(skip)]
    pub warmup: Duration,
    /// Operations in flight, over all threads.
    pub concurrency: usize,
    /// The nodes run within this process, so that its CPU time is theirs too.
    pub nodes_within: bool,
    /// Threads that make load.
    pub threads: usize,
    /// Operations per second over all threads; nothing keeps `concurrency` in flight instead.
    pub rate: Option<f64>,
    /// Steps of that rate and others lead to the highest one that meets the objectives.
    pub find_max: bool,
    /// The keys.
    #[serde(flatten)]
    pub keys: KeySpace,
    /// How many of a hundred operations write.
    pub set_ratio: u8,
    /// What written values are padded to.
    #[serde(rename = "value_bytes", serialize_with = "display")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub value_sizes: ValueSizes,
    /// How many of a hundred operations delete.
    pub delete_ratio: u8,
    /// How fresh reads must be.
    #[serde(rename = "read_consistency")]
    pub consistency: ReadConsistency,
    /// How long each written value lives, in milliseconds: one lifetime, or several with their weights.
    #[borsh(serialize_with = "text::write", deserialize_with = "text::read")]
    #[serde(serialize_with = "display")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub ttls: ValueTtls,
    /// What a read does not find is written.
    pub backfill: bool,
    /// The longest of those lifetimes; for ever, or as long as the nodes see fit, without one.
    #[borsh(serialize_with = "option::write", deserialize_with = "option::read")]
    #[serde(rename = "ttl_ms", serialize_with = "milliseconds")]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub ttl: Option<Duration>,
    /// Answers are checked.
    #[serde(rename = "checked")]
    pub check: bool,
    /// Seeds every random choice.
    pub seed: u64,
    /// Write every key before the load begins.
    #[serde(skip)]
    pub prefill: bool,
    /// Read every key from every node after it ended.
    #[serde(skip)]
    pub final_sweep: bool,
    /// How long to wait before that.
    #[borsh(skip)]
    #[serde(skip)]
    pub quiescence: Duration,
    /// How often one key is compared between all nodes.
    #[borsh(skip)]
    #[serde(skip)]
    pub check_every: Option<Duration>,
    /// How often the nodes' counters are printed.
    #[borsh(skip)]
    #[serde(skip)]
    pub stats_every: Option<Duration>,
    /// A line after this many operations of a thread; 0 for none.
    #[borsh(skip)]
    #[serde(skip)]
    pub log_every: u64,
    /// More failed operations than this break the run's objective.
    #[serde(skip)]
    pub errors_max_percent: f64,
    /// What it is to reach.
    #[borsh(serialize_with = "text::write", deserialize_with = "text::read")]
    #[serde(skip)]
    pub objectives: Objectives,
    /// What a terminal shows at the end.
    #[borsh(skip)]
    #[serde(skip)]
    pub shown: Shown,
    /// Counts of client and nodes that do not agree make the run invalid.
    #[serde(skip)]
    pub reconcile: bool,
    /// Which runner this is of those that make the load.
    #[serde(skip)]
    pub shard: RunnerShard,
    /// When the load begins.
    #[borsh(skip)]
    #[serde(skip)]
    pub start_at: Option<StartAt>,
    /// What all shards call this run.
    #[serde(skip)]
    pub run_id: String,
    /// Faults, each at its time or in its turn.
    #[borsh(skip)]
    #[serde(skip)]
    pub faults: Vec<PlannedFault>,
}

/// What a terminal shows at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// What a file or a pipe gets.
    pub compat: bool,
    /// All tables before the first screen.
    pub details: bool,
}

/// Values that live no longer than this have all expired when the final sweep begins.
const EXPIRY_AWAITED_MAX: Duration = Duration::from_secs(10);

/// The thread number that victims are drawn by: load threads have smaller ones.
const VICTIMS: usize = 255;

/// Sets the random numbers of shards apart: 2^64 divided by the golden section.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Plan {
    /// What the next operation is.
    pub(crate) fn choose_op(&self, rng: &mut impl Rng) -> Op {
        let thrown = rng.random_range(0..100);
        if thrown < self.set_ratio {
            Op::Set
        } else if thrown < self.set_ratio + self.delete_ratio {
            Op::Delete
        } else {
            Op::Get
        }
    }

    /// Whether there is a final sweep: it proves nothing without what was acknowledged.
    #[must_use]
    pub const fn sweeps(&self) -> bool {
        self.final_sweep && self.check
    }

    /// How long the mesh is left alone before the final sweep.
    #[must_use]
    pub fn quiescence(&self) -> Duration {
        // A moment beyond the allowance, so that whatever is still there has no excuse.
        let expired = self.ttl.filter(|ttl| *ttl <= EXPIRY_AWAITED_MAX).map(|ttl| ttl + 2 * EXPIRY_ALLOWANCE);
        self.quiescence.max(expired.unwrap_or_default())
    }

    /// How operations are begun, in words.
    pub(crate) fn loop_words(&self) -> String {
        match self.rate {
            _ if self.find_max => format!(
                "open loop, steps of {} towards the highest rate, at most {} in flight",
                humantime::format_duration(self.duration),
                self.concurrency
            ),
            None => format!("closed loop, {} in flight", self.concurrency),
            Some(rate) => format!("open loop, {} ops/s, at most {} in flight", grouped(rate as u64), self.concurrency),
        }
    }

    /// What the operations are, in words.
    pub(crate) fn mix(&self) -> String {
        let deletes = if self.delete_ratio > 0 { format!(", {} % DEL", self.delete_ratio) } else { String::new() };
        let backfill = if self.backfill { ", backfill on a miss" } else { "" };
        format!("{} % SET{deletes}{backfill}", self.set_ratio)
    }

    /// Which keys and values there are, in words.
    pub(crate) fn key_words(&self) -> String {
        let sizes = self.value_sizes.to_string();
        let sizes = if sizes == "0" { String::new() } else { format!(", values of {sizes} bytes") };
        let ttls = match &self.ttls {
            ValueTtls::Fixed(_) => String::new(),
            ttls @ ValueTtls::Weighted(_) => format!(", TTL {ttls} ms"),
        };
        format!("{} keys, {}{sizes}{ttls}", grouped(self.keys.count().into()), self.keys.distribution())
    }

    /// Whether all nodes run on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let is_local = |target: &String| {
            let name = without_scheme(target);
            name.starts_with("127.") || name.starts_with("localhost")
        };
        self.nodes_within || self.targets.iter().all(is_local)
    }

    /// The limit of an objective that takes the place of ERRORS_MAX_PERCENT, if there is one.
    pub(crate) fn errors_objective(&self) -> Option<f64> {
        let objectives = self.objectives.as_slice().iter().filter(|objective| objective.is_about_all_errors());
        objectives.map(|objective| objective.limit).reduce(f64::min)
    }

    /// All of it in one line.
    pub(crate) fn banner(&self) -> String {
        let (targets, duration) = (self.targets.join(" "), humantime::format_duration(self.duration));
        let (load, mix, keys) = (self.loop_words(), self.mix(), self.key_words());
        let duration = if self.find_max { String::new() } else { format!("{duration}; ") };
        format!("[LOAD] {targets}: {load}, {mix}; {keys}; {duration}seed {}", self.seed)
    }

    /// Random numbers for one task, of this shard.
    pub(crate) fn dice(&self, thread: usize, task: usize) -> SmallRng {
        dice(self.seed.wrapping_add(u64::from(self.shard.index).wrapping_mul(GOLDEN)), thread, task)
    }

    /// The `number`-th node that faults strike at random: the same in all shards.
    #[must_use]
    pub fn draw_victim(&self, number: u32) -> NodeIndex {
        let mut dice = dice(self.seed, VICTIMS, number as usize);
        NodeIndex(dice.random_range(0..self.targets.len()))
    }

    /// Thread `index`'s share of the operations in flight.
    #[must_use]
    pub const fn concurrency_of(&self, index: usize) -> usize {
        self.concurrency / self.threads + (index < self.concurrency % self.threads) as usize
    }
}

fn dice(seed: u64, thread: usize, task: usize) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ ((thread as u64) << 48) ^ ((task as u64 + 1) << 24))
}

fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

fn milliseconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    Serialize::serialize(&duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)), to)
}

fn display<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
