//! Writers and readers that go on while a cluster changes, and the rules that everything they see must obey. Each key has one
//! writer, which numbers its writes: a read must give the last acknowledged write before it began or a later one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mesh::{GetError, GetOptions, Lookup, Node, WriteError, WriteOptions};
use mesh_proto::Consistency;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;

use super::Cluster;

const WRITERS: u64 = 6;
const READERS: u64 = 3;
const KEYS_PER_WRITER: u64 = 40;

/// Load under way.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    seed: u64,
}

#[derive(Default)]
struct Shared {
    /// Whom to ask.
    targets: Mutex<Vec<Node>>,
    keys: Mutex<BTreeMap<String, Known>>,
    tally: Mutex<Tally>,
}

/// What is known of a key.
#[derive(Clone, Default)]
struct Known {
    /// The number of the newest acknowledged write.
    acknowledged: Option<u64>,
    /// Writes that may have been made, the one under way included.
    possible: BTreeSet<u64>,
}

/// What came of the operations.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) writes: u64,
    pub(crate) writes_failed: u64,
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
}

impl Load {
    /// Starts against all running nodes.
    pub(crate) fn start(cluster: &Cluster, seed: u64) -> Self {
        let mut load = Self { shared: Arc::default(), tasks: JoinSet::new(), seed };
        load.aim(cluster);
        for writer in 0..WRITERS {
            let (shared, random) = (Arc::clone(&load.shared), SmallRng::seed_from_u64(seed * 100 + writer));
            load.tasks.spawn(async move { shared.write(writer, random, seed).await });
        }
        for reader in 0..READERS {
            let (shared, random) = (Arc::clone(&load.shared), SmallRng::seed_from_u64(seed * 100 + 50 + reader));
            load.tasks.spawn(async move { shared.read(random, seed).await });
        }
        load
    }

    /// From now on asks exactly these nodes: those that are running.
    pub(crate) fn aim(&self, cluster: &Cluster) {
        *self.shared.targets.lock() = cluster.running().iter().map(|index| cluster.node(*index).clone()).collect();
    }

    /// As [`Load::aim`], but spares some.
    pub(crate) fn spare_all(&self, cluster: &Cluster, spared: &[usize]) {
        let others = cluster.running().into_iter().filter(|index| !spared.contains(index));
        *self.shared.targets.lock() = others.map(|index| cluster.node(index).clone()).collect();
    }

    pub(crate) fn tally(&self) -> Tally {
        *self.shared.tally.lock()
    }

    /// Ends the load; then every acknowledged write must be there, asked through every node.
    pub(crate) async fn check(mut self, cluster: &Cluster) -> Tally {
        // Those under way must end: what they wrote is not known otherwise.
        self.shared.targets.lock().clear();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let keys = self.shared.keys.lock().clone();
        for via in cluster.running() {
            for (key, known) in &keys {
                let found = cluster.get(via, key, Consistency::Quorum).await;
                let found = found.unwrap_or_else(|error| panic!("seed {}: {key} via node {via}: {error}", self.seed));
                known.judge(&found, key, self.seed);
            }
        }
        self.tally()
    }
}

impl Shared {
    fn target(&self, random: &mut SmallRng) -> Option<Node> {
        let targets = self.targets.lock();
        if targets.is_empty() { None } else { Some(targets[random.random_range(0..targets.len())].clone()) }
    }

    async fn write(&self, writer: u64, mut random: SmallRng, seed: u64) {
        let mut number = 0;
        while let Some(node) = self.target(&mut random) {
            number += 1;
            let key = format!("w{writer}k{}", random.random_range(0..KEYS_PER_WRITER));
            self.keys.lock().entry(key.clone()).or_default().possible.insert(number);
            let value = Bytes::from(format!("{key}={number}"));
            let written = node.set(Bytes::from(key.clone()), value, WriteOptions::default()).await;
            self.note(&key, number, written.map(|_| ()));
            tokio::time::sleep(Duration::from_millis(random.random_range(2..10))).await;
            assert!(number < 1_000_000, "seed {seed}: nobody ends the load");
        }
    }

    /// What has become of a write.
    fn note(&self, key: &str, number: u64, written: Result<(), WriteError>) {
        let mut keys = self.keys.lock();
        let known = keys.get_mut(key).unwrap();
        let mut tally = self.tally.lock();
        tally.writes += 1;
        tally.writes_failed += u64::from(written.is_err());
        match written {
            Ok(()) => {
                known.acknowledged = Some(number);
                // What is older may not be seen any more.
                known.possible = known.possible.split_off(&number);
            }
            Err(WriteError::Indeterminate { .. }) => {}
            Err(_) => drop(known.possible.remove(&number)),
        }
    }

    async fn read(&self, mut random: SmallRng, seed: u64) {
        while let Some(node) = self.target(&mut random) {
            let key = format!("w{}k{}", random.random_range(0..WRITERS), random.random_range(0..KEYS_PER_WRITER));
            let before = self.keys.lock().get(&key).cloned().unwrap_or_default();
            let consistency = if random.random_bool(0.5) { Consistency::Quorum } else { Consistency::One };
            let options = GetOptions { consistency, trace: None };
            let found = node.get(&Bytes::from(key.clone()), options).await;
            let after = self.keys.lock().get(&key).cloned().unwrap_or_default();
            {
                let mut tally = self.tally.lock();
                tally.reads += 1;
                tally.reads_failed += u64::from(found.is_err());
            }
            match found {
                // Between them everything that may be seen: a write acknowledged meanwhile is in one of the two.
                Ok(found) => before.merged(&after).judge_with(&found, consistency, &key, seed),
                Err(GetError::Unavailable { .. } | GetError::TimedOut | GetError::Stopped) => {}
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(2..10))).await;
        }
    }
}

impl Known {
    /// What a read may see that began at `self` and ended at `after`.
    fn merged(&self, after: &Self) -> Self {
        let first = self.acknowledged.unwrap_or(0);
        let later = after.acknowledged.into_iter().flat_map(|last| first..=last);
        Self {
            acknowledged: self.acknowledged,
            possible: self.possible.iter().chain(&after.possible).copied().chain(later).collect(),
        }
    }

    fn judge(&self, found: &Lookup, key: &str, seed: u64) {
        self.judge_with(found, Consistency::Quorum, key, seed);
    }

    fn judge_with(&self, found: &Lookup, consistency: Consistency, key: &str, seed: u64) {
        match found {
            Lookup::Local(hit) | Lookup::Remote(hit) => {
                let value = std::str::from_utf8(&hit.value).unwrap();
                let (of, number) = value.split_once('=').unwrap();
                assert_eq!(of, key, "seed {seed}: the value of another key");
                let number: u64 = number.parse().unwrap();
                let known = self.acknowledged == Some(number) || self.possible.contains(&number);
                let fresh = consistency == Consistency::One || known;
                assert!(
                    fresh,
                    "seed {seed}: {key} is {number}, acknowledged {:?}, possible {:?}",
                    self.acknowledged, self.possible
                );
            }
            Lookup::Miss { .. } => {
                assert!(
                    self.acknowledged.is_none(),
                    "seed {seed}: {key} is missing, acknowledged {:?}",
                    self.acknowledged
                );
            }
        }
    }
}
