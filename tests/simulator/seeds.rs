//! Which seeds are simulated: those that once failed, and new ones with every commit.

use std::{
    env, fmt,
    process::Command,
    str::FromStr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Seeds that once failed, one a line.
const LIST: &str = include_str!("seeds.txt");

/// For how long new seeds are simulated if nothing else is said, the listed ones included.
const TIME: Duration = Duration::from_secs(360);

/// A seed, and which version of the generator makes its plan. What a seed means changes with the generator; one that once failed
/// has to mean the same for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// Version of the generator, from 1.
    pub generation: u32,
    /// The seed.
    pub number: u64,
}

impl Seed {
    /// The newest version of the generator.
    pub const GENERATION: u32 = 2;

    /// A seed of the newest version.
    pub const fn new(number: u64) -> Self {
        Self { generation: Self::GENERATION, number }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.generation, self.number)
    }
}

impl FromStr for Seed {
    type Err = String;

    /// `2:77`, or `77` for a seed of the newest version.
    fn from_str(text: &str) -> Result<Self, String> {
        let newest = Self::GENERATION.to_string();
        let (generation, number) = text.split_once(':').unwrap_or((&newest, text));
        let wrong = || {
            format!(
                "{text}: expected a whole number, or a version of the generator up to {newest} and a number, as in 1:77"
            )
        };
        let generation = generation.parse().ok().filter(|generation| (1..=Self::GENERATION).contains(generation));
        Ok(Self { generation: generation.ok_or_else(wrong)?, number: number.parse().map_err(|_| wrong())? })
    }
}

/// Seeds that once failed.
pub fn listed() -> Vec<Seed> {
    let lines = LIST.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds = lines.filter(|line| !line.is_empty()).map(str::parse);
    seeds.collect::<Result<_, _>>().unwrap_or_else(|wrong| panic!("seeds.txt: {wrong}"))
}

/// The seeds of one run, to be taken by many threads.
#[derive(Debug)]
pub struct Seeds {
    listed: Vec<Seed>,
    taken: AtomicUsize,
    next: AtomicU64,
    /// The first new seed.
    pub from: Seed,
    /// How many new seeds there are.
    pub count: u64,
    /// How far apart.
    pub step: u64,
    /// New seeds are taken only before.
    pub until: Option<Instant>,
}

impl Seeds {
    /// One alone.
    pub fn one(seed: Seed) -> Self {
        Self::new(vec![seed], seed, 0, None)
    }

    /// What the environment asks for: MESH_SEED alone; SEEDS new ones; or those of the list, and then new ones for SEED_SECONDS.
    /// New ones begin with FROM, or with a number that follows from the commit, and are STEP apart: the last digit of a seed says how
    /// much of the guarantee it puts to the test.
    pub fn chosen() -> Self {
        if let Some(seed) = setting("MESH_SEED") {
            return Self::one(seed);
        }
        let from = setting("FROM").unwrap_or_else(|| Seed::new(base()));
        match setting("SEEDS") {
            Some(count) => Self { step: setting("STEP").unwrap_or(1), ..Self::new(Vec::new(), from, count, None) },
            None => {
                let time = setting("SEED_SECONDS").map_or(TIME, Duration::from_secs);
                Self::new(listed(), from, u64::MAX - from.number, Some(Instant::now() + time))
            }
        }
    }

    const fn new(listed: Vec<Seed>, from: Seed, count: u64, until: Option<Instant>) -> Self {
        Self { listed, taken: AtomicUsize::new(0), next: AtomicU64::new(0), from, count, step: 1, until }
    }

    /// The next one.
    pub fn take(&self) -> Option<Seed> {
        // Relaxed: each number is taken once, in any order.
        if let Some(seed) = self.listed.get(self.taken.fetch_add(1, Relaxed)) {
            return Some(*seed);
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let index = self.next.fetch_add(1, Relaxed);
        (index < self.count).then(|| Seed { number: self.from.number + index * self.step, ..self.from })
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (listed, from, count) = (self.listed.len(), self.from, self.count);
        match self.until {
            _ if count == 0 => write!(f, "seed {}", self.listed.first().map(Seed::to_string).unwrap_or_default()),
            None if self.step == 1 => write!(f, "{count} seeds from FROM={from} on"),
            None => write!(f, "{count} seeds from FROM={from} on, STEP={} apart", self.step),
            Some(until) => {
                let secs = until.saturating_duration_since(Instant::now()).as_secs_f64();
                write!(f, "{listed} seeds that once failed, then new ones from FROM={from} on, for {secs:.0} s in all")
            }
        }
    }
}

/// The first of a row of numbers that another commit does not have.
fn base() -> u64 {
    let head = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let head = head.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    // Without a repository there is no commit: these are no worse.
    head.and_then(|head| u64::from_str_radix(head.get(..10)?, 16).ok()).unwrap_or(1 << 40)
}

/// A setting of the environment.
pub fn setting<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|wrong| panic!("{name}={text}: {wrong}")))
}

#[test]
fn every_listed_seed_is_read() {
    assert_eq!(listed().first(), Some(&Seed { generation: 1, number: 3695 }));
    assert_eq!("77".parse(), Ok(Seed::new(77)));
    for wrong in ["", "x", "0:1", "3:1", "1:", "-1"] {
        wrong.parse::<Seed>().unwrap_err();
    }
}
