//! Which keys the load touches, and how often each: uniformly, in turn, or a few of them most of the time.

use std::{
    fmt::{Display, Formatter},
    io::{self, Read, Write},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use borsh::{BorshDeserialize, BorshSerialize};
use rand::Rng;
use rand_distr::{Distribution as _, Zipf};
use serde::{Serialize, Serializer};

use crate::{Op, shard::RunnerShard};

/// The most keys one run may use; the checker remembers 64 bytes for each.
pub(crate) const KEYS_MAX: u32 = 20_000_000;

/// A key's name: `key-` and eight digits, so that all keys cost the same.
pub(crate) type KeyName = [u8; 12];

/// One key of a run, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyIndex(u32);

impl KeyIndex {
    /// The key with this number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its place in a table of all keys.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// Its name in the cache.
    #[must_use]
    pub fn name(self) -> KeyName {
        let mut name = *b"key-00000000";
        let mut rest = self.0;
        for digit in name[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        name
    }
}

/// How often each key is chosen (DISTRIBUTION).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// The key of rank n in proportion to `1 / n^exponent`; the exponent is above 0.
    Zipf(f64),
    /// A share of the operations goes to a share of the keys, both in percent; the rest to the other keys.
    Hotspot {
        /// The operations' share.
        operations: f64,
        /// The keys' share.
        keys: f64,
        /// How often other keys become hot, which were cold before; nothing for never.
        shift: Option<Duration>,
    },
    /// Writes take one key after the other; the n-th last written is read in proportion to `1 / n^0.99`.
    Latest,
    /// One key after the other, over all threads.
    Sequential,
}

/// The skew of [`Distribution::Latest`], as in YCSB.
const LATEST_EXPONENT: f64 = 0.99;

/// Beyond this, the first key has all of the load but what a double cannot tell from nothing.
const EXPONENT_MAX: f64 = 50.0;

impl FromStr for Distribution {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected uniform, zipf:EXPONENT with an exponent above 0 and at most 50 such as zipf:0.99, \
            hotspot:OPERATIONS/KEYS in percent such as hotspot:90/10, or with a time after which other keys are hot such as \
            hotspot:90/10/5s, latest, or sequential";
        let parsed = match text.split_once(':') {
            None if text == "uniform" => Some(Self::Uniform),
            None if text == "latest" => Some(Self::Latest),
            None if text == "sequential" => Some(Self::Sequential),
            Some(("zipf", exponent)) => number(exponent).filter(|exponent| *exponent <= EXPONENT_MAX).map(Self::Zipf),
            Some(("hotspot", shares)) => hotspot(shares),
            _ => None,
        };
        parsed.ok_or(EXPECTED)
    }
}

/// A number above 0.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number| *number > 0.0)
}

/// `OPERATIONS/KEYS` or `OPERATIONS/KEYS/TIME`.
fn hotspot(shares: &str) -> Option<Distribution> {
    let share = |text| number(text).filter(|share| *share <= 100.0);
    let (operations, rest) = shares.split_once('/')?;
    let (keys, shift) = rest.split_once('/').map_or((rest, None), |(keys, shift)| (keys, Some(shift)));
    let shift = match shift {
        Some(text) => Some(settings::positive_duration(text).ok()?),
        None => None,
    };
    Some(Distribution::Hotspot { operations: share(operations)?, keys: share(keys)?, shift })
}

impl Display for Distribution {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => out.write_str("uniform"),
            Self::Zipf(exponent) => write!(out, "zipf:{exponent}"),
            Self::Hotspot { operations, keys, shift: None } => write!(out, "hotspot:{operations}/{keys}"),
            Self::Hotspot { operations, keys, shift: Some(shift) } => {
                let shift = humantime::format_duration(*shift).to_string().replace(' ', "");
                write!(out, "hotspot:{operations}/{keys}/{shift}")
            }
            Self::Latest => out.write_str("latest"),
            Self::Sequential => out.write_str("sequential"),
        }
    }
}

/// The keys of a run, and how one of them is chosen. Clones share the place in a sequence.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeySpace {
    /// Of this shard.
    #[serde(rename = "keys")]
    count: u32,
    /// Keys that are numbered alike in all shards: every so many-th is this one's.
    #[serde(skip)]
    shard: RunnerShard,
    #[serde(serialize_with = "text")]
    #[cfg_attr(test, schemars(with = "String"))]
    distribution: Distribution,
    #[serde(skip)]
    choice: Choice,
    /// Rank r is key `r * stride mod count`: a permutation, since the two have no common divisor. Keys of neighbouring
    /// ranks so lie apart in any table of keys; that they fall into unrelated slots is the hash's doing.
    #[serde(skip)]
    stride: u64,
    /// Keys taken so far, where they are taken in order.
    #[serde(skip)]
    taken: Arc<AtomicU64>,
}

/// What it was made of.
impl BorshSerialize for KeySpace {
    fn serialize<W: Write>(&self, to: &mut W) -> io::Result<()> {
        BorshSerialize::serialize(&(self.count, self.distribution.to_string()), to)
    }
}

/// Of what it was made of, as if there were no other shards.
impl BorshDeserialize for KeySpace {
    fn deserialize_reader<R: Read>(from: &mut R) -> io::Result<Self> {
        let (count, distribution) = <(u32, String)>::deserialize_reader(from)?;
        Ok(Self::new(count, distribution.parse().map_err(io::Error::other)?))
    }
}

fn text<S: Serializer>(distribution: &Distribution, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(distribution)
}

/// What a choice needs.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Uniform,
    Zipf(Zipf<f64>),
    Hotspot { share: f64, hot: u32, shift: Option<Duration> },
    Latest(Zipf<f64>),
    Sequential,
}

impl KeySpace {
    /// `count` keys, at least one.
    #[must_use]
    pub fn new(count: u32, distribution: Distribution) -> Self {
        Self::of_shard(count, distribution, RunnerShard::ALL)
    }

    /// One shard's share of `total` keys, at least one: those whose number leaves its index, when divided by how many shards there are.
    #[must_use]
    pub(crate) fn of_shard(total: u32, distribution: Distribution, shard: RunnerShard) -> Self {
        let count = shard.share(total).max(1);
        // It refuses only what a distribution's text cannot say: no key, or an exponent below 0.
        let zipf = |exponent| Zipf::new(f64::from(count), exponent).ok();
        let choice = match distribution {
            Distribution::Zipf(exponent) => zipf(exponent).map(Choice::Zipf),
            Distribution::Hotspot { operations, keys, shift } => {
                let hot = (f64::from(count) * keys / 100.0).round() as u32;
                Some(Choice::Hotspot { share: operations / 100.0, hot: hot.clamp(1, count), shift })
            }
            Distribution::Latest => zipf(LATEST_EXPONENT).map(Choice::Latest),
            Distribution::Sequential => Some(Choice::Sequential),
            Distribution::Uniform => None,
        };
        // A golden section puts neighbours far apart.
        let golden = (f64::from(count) * 0.618) as u64;
        let stride = (golden.max(1)..).find(|stride| gcd(*stride, count.into()) == 1).unwrap_or(1);
        Self { count, shard, distribution, choice: choice.unwrap_or(Choice::Uniform), stride, taken: Arc::default() }
    }

    /// How many keys there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// What no key's number reaches.
    pub(crate) const fn numbers(&self) -> u32 {
        self.count.saturating_mul(self.shard.count)
    }

    /// The `place`-th of these keys, from 0.
    pub(crate) const fn at(&self, place: u32) -> KeyIndex {
        KeyIndex(place * self.shard.count + self.shard.index)
    }

    /// How they are chosen.
    #[must_use]
    pub const fn distribution(&self) -> Distribution {
        self.distribution
    }

    /// The key of a rank: ranks in order are keys at random, as far as any table or ring can tell.
    #[must_use]
    pub(crate) const fn at_rank(&self, rank: u64) -> KeyIndex {
        let count = self.count as u64;
        self.at((rank % count * self.stride % count) as u32)
    }

    /// Chooses a key for an operation that is to begin `at` after the load did.
    #[must_use]
    pub fn choose(&self, op: Op, at: Duration, rng: &mut impl Rng) -> KeyIndex {
        let count = u64::from(self.count);
        let rank = match &self.choice {
            Choice::Uniform => return self.at(rng.random_range(0..self.count)),
            Choice::Sequential => return self.at((self.take() % count) as u32),
            Choice::Zipf(ranks) => self.rank(ranks, rng),
            Choice::Hotspot { share, hot, shift } => {
                let is_hot = *hot == self.count || rng.random_bool(*share);
                let rank = if is_hot { rng.random_range(0..*hot) } else { rng.random_range(*hot..self.count) };
                let shifts = shift.map_or(0, |shift| at.as_nanos() / shift.as_nanos());
                let shifts = u64::try_from(shifts % u128::from(self.count)).unwrap_or_default();
                u64::from(rank) + shifts * u64::from(*hot)
            }
            Choice::Latest(_) if op == Op::Set => self.take(),
            // As if all keys had been written in order before the load began. Relaxed: a moment late is late by a write.
            Choice::Latest(ages) => count + self.taken.load(Ordering::Relaxed) - 1 - self.rank(ages, rng),
        };
        self.at_rank(rank)
    }

    /// The next place in the sequence.
    fn take(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed)
    }

    /// From 0, though rounding may take the last beyond its end.
    fn rank(&self, ranks: &Zipf<f64>, rng: &mut impl Rng) -> u64 {
        (ranks.sample(rng) as u64).min(self.count.into()) - 1
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const SAMPLES: usize = 200_000;

    fn space(count: u32, distribution: &str) -> KeySpace {
        KeySpace::new(count, distribution.parse().unwrap())
    }

    /// How often each rank was chosen.
    fn counts(keys: &KeySpace, seed: u64) -> Vec<f64> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut by_key = vec![0.0; keys.count as usize];
        (0..SAMPLES).for_each(|_| by_key[keys.choose(Op::Get, Duration::ZERO, &mut rng).get()] += 1.0);
        (0..u64::from(keys.count)).map(|rank| by_key[(rank * keys.stride % u64::from(keys.count)) as usize]).collect()
    }

    /// Pearson's chi-square in standard deviations from its mean; ranks with fewer than 20 expected samples count together.
    fn surprise(counts: &[f64], weight: impl Fn(usize) -> f64) -> f64 {
        let weights: Vec<_> = (0..counts.len()).map(weight).collect();
        let scale = SAMPLES as f64 / weights.iter().sum::<f64>();
        let expected: Vec<_> = weights.iter().map(|weight| weight * scale).collect();
        let head = expected.iter().position(|expected| *expected < 20.0).unwrap_or(expected.len());
        let mut bins: Vec<_> = counts.iter().copied().zip(expected.iter().copied()).take(head).collect();
        let tail = (counts[head..].iter().sum::<f64>(), expected[head..].iter().sum::<f64>());
        if tail.1 >= 20.0 {
            bins.push(tail);
        }
        let chi: f64 = bins.iter().map(|(seen, expected)| (seen - expected).powi(2) / expected).sum();
        let freedom = (bins.len() - 1).max(1) as f64;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn names_have_one_width() {
        assert_eq!(&KeyIndex::new(1234).name(), b"key-00001234");
        assert_eq!(&KeyIndex::new(KEYS_MAX - 1).name(), b"key-19999999");
    }

    #[test]
    fn uniform_reaches_every_key_about_as_often() {
        let found = surprise(&counts(&space(1000, "uniform"), 7), |_| 1.0);
        assert!(found < 5.0, "{found}");
    }

    #[test]
    fn every_zipf_exponent_has_its_law() {
        for exponent in [0.1, 0.5, 0.99, 1.0, 1.001, 1.2, 2.0, 3.5, 50.0] {
            for count in [1, 2, 10, 50_000] {
                let keys = KeySpace::new(count, Distribution::Zipf(exponent));
                let found = surprise(&counts(&keys, 7), |rank| (rank as f64 + 1.0).powf(-exponent));
                assert!(found < 5.0, "zipf:{exponent} of {count} keys is {found} standard deviations off");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_zipf_exponent_has_its_law(exponent in 0.01_f64..6.0, count in 1_u32..5000, seed: u64) {
            let keys = KeySpace::new(count, Distribution::Zipf(exponent));
            let found = surprise(&counts(&keys, seed), |rank| (rank as f64 + 1.0).powf(-exponent));
            prop_assert!(found < 10.0, "{} standard deviations off", found);
        }

        #[test]
        fn ranks_are_a_permutation_of_the_keys(count in 1_u32..5000) {
            let keys = space(count, "zipf:1");
            let mut all: Vec<_> = (0..u64::from(count)).map(|rank| rank * keys.stride % u64::from(count)).collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..u64::from(count)));
        }
    }

    #[test]
    fn a_chi_square_notices_another_law() {
        let counts = counts(&space(50_000, "zipf:0.99"), 7);
        assert!(surprise(&counts, |rank| (rank as f64 + 1.0).powf(-0.95)) > 10.0);
    }

    #[test]
    fn neighbouring_ranks_lie_apart() {
        let keys = space(50_000, "zipf:0.99");
        let mut hot: Vec<_> = (0..10).map(|rank| rank * keys.stride % 50_000).collect();
        hot.sort_unstable();
        assert!(hot.windows(2).all(|pair| pair[1] - pair[0] > 1000), "{hot:?}");
    }

    #[test]
    fn a_hotspot_has_its_share() {
        for (text, hot, share) in
            [("hotspot:90/10", 100, 0.9), ("hotspot:50/0.01", 1, 0.5), ("hotspot:20/100", 1000, 1.0)]
        {
            let counts = counts(&space(1000, text), 7);
            let found = counts[..hot].iter().sum::<f64>() / SAMPLES as f64;
            assert!((found - share).abs() < 0.005, "{text}: {found}");
            let cold = if share < 1.0 { (1.0 - share) / (1000 - hot) as f64 } else { 0.0 };
            let found = surprise(&counts, |rank| if rank < hot { share / hot as f64 } else { cold });
            assert!(found < 5.0, "{text}: {found}");
        }
    }

    #[test]
    fn a_hotspot_shifts_to_keys_that_were_cold() {
        let keys = space(1000, "hotspot:100/10/5s");
        let hot = |seconds: u64| {
            let mut rng = SmallRng::seed_from_u64(7);
            let at = Duration::from_secs(seconds);
            (0..5000).map(|_| keys.choose(Op::Get, at, &mut rng)).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(hot(0), hot(4), "within one time");
        let all: Vec<_> = (0..10).map(|time| hot(5 * time)).collect();
        assert!(all.iter().all(|hot| hot.len() == 100));
        let union: std::collections::BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(union.len(), 1000, "every key has its turn");
        assert_eq!(hot(50), hot(0), "and then the first ones again");
    }

    #[test]
    fn the_last_written_are_read_most() {
        let keys = space(100, "latest");
        let mut rng = SmallRng::seed_from_u64(7);
        let written: Vec<_> = (0..250).map(|_| keys.choose(Op::Set, Duration::ZERO, &mut rng)).collect();
        assert!(written[..100].iter().enumerate().all(|(at, key)| !written[..at].contains(key)));
        assert_eq!(written[..100], written[100..200]);
        let mut by_age = vec![0.0; 100];
        for _ in 0..SAMPLES {
            let read = keys.choose(Op::Get, Duration::ZERO, &mut rng);
            by_age[written.iter().rev().position(|key| *key == read).unwrap()] += 1.0;
        }
        let found = surprise(&by_age, |age| (age as f64 + 1.0).powf(-LATEST_EXPONENT));
        assert!(found < 5.0, "{found}");
        let unwritten = space(100, "latest").choose(Op::Get, Duration::ZERO, &mut rng);
        assert!(unwritten.get() < 100);
    }

    #[test]
    fn a_sequence_takes_every_key_in_turn_over_all_clones() {
        let (one, mut rng) = (space(3, "sequential"), SmallRng::seed_from_u64(7));
        let other = one.clone();
        let taken: Vec<_> = (0..4)
            .flat_map(|_| [&one, &other])
            .map(|keys| keys.choose(Op::Get, Duration::ZERO, &mut rng).get())
            .collect();
        assert_eq!(taken, [0, 1, 2, 0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_distribution_is_read_and_shown_alike_or_explained() {
        for text in [
            "uniform",
            "zipf:0.99",
            "zipf:1",
            "zipf:1.2",
            "zipf:2",
            "hotspot:90/10",
            "hotspot:99.9/0.1",
            "hotspot:90/10/1m30s",
            "latest",
            "sequential",
        ] {
            assert_eq!(Distribution::from_str(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "zipf",
            "zipf:",
            "zipf:0",
            "zipf:-1",
            "zipf:nan",
            "zipf:inf",
            "zipf:51",
            "normal",
            "hotspot",
            "hotspot:90",
            "hotspot:0/10",
            "hotspot:90/0",
            "hotspot:101/10",
            "hotspot:90/101",
            "latest:1",
            "uniform:1",
        ] {
            assert!(Distribution::from_str(bad).is_err(), "{bad}");
        }
    }
}
