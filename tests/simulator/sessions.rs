//! The clients: each does one thing after the other, through any node that runs, and writes down what it was told.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use load::{Proof, Stamp, Writer, prove, write_value};
use mesh::{GetError, GetOptions, Lookup, Node, Ttl, WriteError, WriteOptions, Written};
use mesh_proto::{Consistency, Version};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cluster::Cluster,
    history::{Action, Fate, History, Key, Level, Moment, Operation, Seen, WriteId},
    life::Life,
    narrator::narrate,
    plan::Plan,
};

/// So many keys, the first ones, take a third of all operations.
const HOT_KEYS: u32 = 3;

/// What the clients share with the schedule.
pub struct Clients {
    pub cluster: Arc<Cluster>,
    pub history: Mutex<History>,
    epoch: Instant,
    run: u32,
    keys: u32,
    at_once: bool,
    done: AtomicU64,
    pub is_over: AtomicBool,
    /// What a client waits between two operations, on average.
    pub pause_us: AtomicU64,
    is_held: AtomicBool,
    released: Notify,
    busy: AtomicUsize,
}

impl Clients {
    /// No client yet.
    pub fn new(plan: &Plan, cluster: &Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::clone(cluster),
            history: Mutex::default(),
            epoch: Instant::now(),
            // 24 bits, and never zero.
            run: ((plan.seed as u32) & 0x00ff_ffff) | 1,
            keys: plan.keys,
            at_once: plan.at_once,
            done: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            pause_us: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
            released: Notify::new(),
            busy: AtomicUsize::new(0),
        })
    }

    /// How many operations have ended.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Lets no client begin anything, and waits until what they do is done.
    pub async fn hold(&self) {
        self.is_held.store(true, Relaxed);
        while self.busy.load(Relaxed) > 0 {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets them go on.
    pub fn release(&self) {
        self.is_held.store(false, Relaxed);
        self.released.notify_waiters();
    }

    fn moment(&self) -> Moment {
        self.history.lock().expect("nobody panics under this lock").moment(self.epoch.elapsed())
    }

    /// Waits for the next of the moments at which all clients act.
    async fn next_moment(&self, apart: Duration) {
        let past = self.epoch.elapsed().as_micros() / apart.as_micros();
        let next = u32::try_from(past + 1).expect("simulations are short");
        sleep_until(self.epoch + apart * next).await;
    }

    fn note(&self, operation: Operation) {
        self.history.lock().expect("nobody panics under this lock").operations.push(operation);
        self.done.fetch_add(1, Relaxed);
    }

    /// Reads a key through one node when nothing else happens, and writes it down as client 255's.
    pub async fn sweep(&self, via: usize, node: &Node, life: &Life, key: Key, level: Level) {
        let begun = self.moment();
        let seen = self.get(node, life, key, level).await;
        let action = Action::Get { level, seen };
        self.note(Operation { session: u8::MAX, via, key, begun, ended: self.moment(), action });
    }

    async fn get(&self, node: &Node, life: &Life, key: Key, level: Level) -> Seen {
        let name = name(key);
        let consistency = match level {
            Level::One | Level::Settled => Consistency::One,
            Level::Session(floor) => Consistency::Session(floor),
            Level::Quorum => Consistency::Quorum,
        };
        let answer = tokio::select! {
            biased;
            answer = node.get(&name, GetOptions { consistency, ..GetOptions::default() }) => answer,
            () = life.over() => Err(GetError::Stopped),
        };
        match answer {
            Ok(Lookup::Local(hit) | Lookup::Remote(hit)) => match prove(&hit.value, &name) {
                Proof::Genuine(Stamp { writer, seq }) if writer.run == self.run => {
                    Seen::Value { version: hit.version, write: WriteId { session: writer.thread, seq } }
                }
                other => Seen::Wrong(format!("{other:?}")),
            },
            Ok(Lookup::Miss { .. }) => Seen::Miss,
            Err(_) => Seen::Failed,
        }
    }
}

fn name(key: Key) -> Bytes {
    Bytes::from(format!("key-{:08}", key.0))
}

fn fate(answer: Option<Result<Written, WriteError>>) -> Fate {
    match answer {
        Some(Ok(written)) => Fate::Acknowledged(written.version),
        Some(Err(WriteError::Indeterminate { version, .. })) => Fate::Unknown(Some(version)),
        Some(Err(_)) => Fate::Refused,
        None => Fate::Unknown(None),
    }
}

/// One client.
pub struct Session {
    clients: Arc<Clients>,
    number: u8,
    dice: SmallRng,
    seq: u64,
    /// The newest that it has written or read of each key.
    known: HashMap<Key, Version>,
}

impl Session {
    /// Client number `number`.
    pub fn new(clients: &Arc<Clients>, seed: u64, number: u8) -> Self {
        let dice = SmallRng::seed_from_u64(seed.wrapping_mul(257).wrapping_add(u64::from(number)));
        Self { clients: Arc::clone(clients), number, dice, seq: 0, known: HashMap::new() }
    }

    /// Works until it is over.
    pub async fn run(mut self) {
        let clients = Arc::clone(&self.clients);
        while !clients.is_over.load(Relaxed) {
            let pause = clients.pause_us.load(Relaxed);
            if clients.at_once {
                clients.next_moment(Duration::from_micros(pause.max(1))).await;
            } else {
                sleep(Duration::from_micros(self.dice.random_range(0..=2 * pause))).await;
            }
            while clients.is_held.load(Relaxed) {
                clients.released.notified().await;
            }
            clients.busy.fetch_add(1, Relaxed);
            self.operate().await;
            clients.busy.fetch_sub(1, Relaxed);
        }
    }

    async fn operate(&mut self) {
        let running = self.clients.cluster.serving();
        if running.is_empty() {
            return;
        }
        let (via, node, life) = &running[self.dice.random_range(0..running.len())];
        let hot = self.dice.random_bool(0.33);
        let key = Key(self.dice.random_range(0..if hot { HOT_KEYS.min(self.clients.keys) } else { self.clients.keys }));
        let begun = self.clients.moment();
        let action = match self.dice.random_range(0..100) {
            0..38 => self.set(node, life, key, None).await,
            38..44 => {
                let ttl = Duration::from_millis(self.dice.random_range(100..4000));
                self.set(node, life, key, Some(ttl)).await
            }
            44..52 => {
                let deletion = node.delete(name(key), WriteOptions::default());
                let answer = tokio::select! {
                    biased;
                    answer = deletion => Some(answer),
                    () = life.over() => None,
                };
                Action::Delete { fate: fate(answer) }
            }
            percent => {
                let level = match percent {
                    52..70 => Level::One,
                    70..85 => Level::Session(self.known.get(&key).copied().unwrap_or(Version::ZERO)),
                    _ => Level::Quorum,
                };
                Action::Get { level, seen: self.clients.get(node, life, key, level).await }
            }
        };
        let seen = match action {
            Action::Set { fate: Fate::Acknowledged(version), .. }
            | Action::Delete { fate: Fate::Acknowledged(version) }
            | Action::Get { seen: Seen::Value { version, .. }, .. } => version,
            _ => Version::ZERO,
        };
        let known = self.known.entry(key).or_insert(Version::ZERO);
        *known = seen.max(*known);
        let (session, via) = (self.number, *via);
        let ended = self.clients.moment();
        narrate(self.clients.epoch, || {
            format!("client {session} via node {via}, key {}, since {:?}: {action:?}", key.0, begun.time)
        });
        self.clients.note(Operation { session, via, key, begun, ended, action });
    }

    async fn set(&mut self, node: &Node, life: &Life, key: Key, ttl: Option<Duration>) -> Action {
        self.seq += 1;
        let name = name(key);
        let stamp = Stamp { writer: Writer { run: self.clients.run, thread: self.number }, seq: self.seq };
        let mut value = Vec::new();
        write_value(&mut value, &name, stamp, 0);
        let options = WriteOptions { ttl: ttl.map_or(Ttl::Never, Ttl::After), ..WriteOptions::default() };
        let answer = tokio::select! {
            biased;
            answer = node.set(name, Bytes::from(value), options) => Some(answer),
            () = life.over() => None,
        };
        if let Some(Err(error)) = &answer {
            narrate(self.clients.epoch, || format!("write {} of client {}: {error:?}", self.seq, self.number));
        }
        Action::Set { write: WriteId { session: self.number, seq: self.seq }, ttl, fate: fate(answer) }
    }
}
