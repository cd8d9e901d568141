//! One load made by several runners: each a shard with its own keys, random numbers and share of the load, and all of them merged
//! into one report.

mod encode;
mod file;
mod merge;
mod start;

pub(crate) use self::{
    encode::{duration, json, option, text},
    file::{SHARD, ShardFile},
    merge::Doubts,
    start::{await_start, clock_of_first},
};
pub use self::{merge::merge, start::StartAt};

use std::{env, fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};

/// The most runners that one load may have.
const SHARDS_MAX: u32 = 1000;

/// What Kubernetes calls the place of a pod in an Indexed Job.
const JOB_INDEX: &str = "JOB_COMPLETION_INDEX";

/// A runner's place among all that make one load (SHARD).
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerShard {
    /// From 0.
    pub(crate) index: u32,
    /// How many there are.
    pub(crate) count: u32,
}

impl RunnerShard {
    /// The only one.
    pub(crate) const ALL: Self = Self { index: 0, count: 1 };

    /// The one at this place, from 0, of so many.
    #[must_use]
    pub const fn new(index: u32, count: u32) -> Self {
        Self { index, count }
    }

    /// Whether there are others.
    #[must_use]
    pub const fn is_one_of_many(self) -> bool {
        self.count > 1
    }

    /// Whether it is this one that orders faults.
    #[must_use]
    pub const fn is_first(self) -> bool {
        self.index == 0
    }

    /// What its own run is called, where all of them together are called `run_id`.
    #[must_use]
    pub fn run_id(self, run_id: &str) -> String {
        if self.is_one_of_many() { format!("{run_id}-shard-{}", self.index) } else { run_id.to_owned() }
    }

    /// Its share of so many.
    pub(crate) const fn share(self, of: u32) -> u32 {
        of / self.count + (self.index < of % self.count) as u32
    }
}

impl FromStr for RunnerShard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let (index, count) = match text.split_once('/') {
            Some((index, count)) => (number(index), number(count)),
            None => (env::var(JOB_INDEX).ok().as_deref().and_then(number), number(text)),
        };
        let shard = index.zip(count).map(|(index, count)| Self { index, count });
        shard.filter(|shard| shard.index < shard.count && shard.count <= SHARDS_MAX).ok_or_else(|| {
            format!(
                "expected INDEX/COUNT with an index from 0 such as 0/3, or a count of at most {SHARDS_MAX} where {JOB_INDEX} is set"
            )
        })
    }
}

impl fmt::Display for RunnerShard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (of, count) in [(10, 3), (3, 3), (1000, 7), (5, 1)] {
            let shares: Vec<_> = (0..count).map(|index| RunnerShard { index, count }.share(of)).collect();
            assert_eq!(shares.iter().sum::<u32>(), of, "{shares:?}");
            assert!(shares.iter().max() <= shares.iter().min().map(|least| least + 1).as_ref(), "{shares:?}");
        }
    }

    #[test]
    fn a_shard_is_written_as_its_index_and_their_count() {
        assert_eq!("2/3".parse(), Ok(RunnerShard { index: 2, count: 3 }));
        for bad in ["3/3", "1", "0/0", "-1/3", "a/3", "0/1001", ""] {
            assert!(
                bad.parse::<RunnerShard>().is_err_and(|reason| reason.starts_with("expected INDEX/COUNT")),
                "{bad}"
            );
        }
    }
}
