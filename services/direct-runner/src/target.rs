//! The in-process target: a worker of each node on every load thread.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use load::{Answer, Client, ErrorKind, NodeIndex, Outcome, Target, Version};
use mesh::{GetError, GetOptions, Lookup, Ttl, Worker, WriteError, WriteOptions};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::sync::watch;

use crate::trio::Running;

/// Makes one thread's targets.
#[derive(Debug)]
pub(crate) struct DirectClient {
    pub(crate) nodes: Vec<watch::Receiver<Option<Running>>>,
    pub(crate) ttl: Ttl,
    pub(crate) seed: u64,
}

/// This thread's worker of each node; nothing in the place of a crashed one.
type Workers = Rc<RefCell<Vec<Option<Worker>>>>;

impl Client for DirectClient {
    type Target = DirectTarget;

    async fn connect(self) -> Result<DirectTarget, String> {
        let workers: Workers = Rc::new(RefCell::new(vec![None; self.nodes.len()]));
        for (index, mut node) in self.nodes.into_iter().enumerate() {
            follow(&workers, index, &mut node).await?;
            let workers = Rc::clone(&workers);
            tokio::task::spawn_local(async move {
                while node.changed().await.is_ok() {
                    if let Err(reason) = follow(&workers, index, &mut node).await {
                        eprintln!("[NODE] no worker for node {}: {reason}", index + 1);
                    }
                }
            });
        }
        Ok(DirectTarget { workers, ttl: self.ttl, dice: SmallRng::seed_from_u64(self.seed) })
    }
}

/// Takes a worker of the node as it is now.
async fn follow(workers: &Workers, index: usize, node: &mut watch::Receiver<Option<Running>>) -> Result<(), String> {
    let running = node.borrow_and_update().clone();
    workers.borrow_mut()[index] = None;
    if let Some(running) = running {
        let worker = running.0.add_worker().map_err(|error| error.to_string())?;
        workers.borrow_mut()[index] = Some(worker);
    }
    Ok(())
}

/// One task's way to the nodes.
#[derive(Clone)]
pub(crate) struct DirectTarget {
    workers: Workers,
    ttl: Ttl,
    dice: SmallRng,
}

impl DirectTarget {
    /// A node that runs, other than `except`.
    fn pick(&mut self, except: Option<usize>) -> Option<(usize, Worker)> {
        let workers = self.workers.borrow();
        let count = workers.len();
        let thrown = self.dice.random_range(0..count);
        let mut nodes = (0..count).map(|step| (thrown + step) % count).filter(|node| Some(*node) != except);
        nodes.find_map(|node| Some((node, workers[node].clone()?)))
    }

    fn first(&mut self) -> Result<(usize, Worker), Answer> {
        self.pick(None).ok_or_else(|| answer(0, Outcome::Error(ErrorKind::Refused), None))
    }
}

impl Target for DirectTarget {
    async fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Answer {
        let key = Bytes::copy_from_slice(key);
        let (node, worker) = match self.first() {
            Ok(first) => first,
            Err(answer) => return answer,
        };
        let read = read(node, &worker, &key, value).await;
        if !is_worth_another_try(&read) {
            return read;
        }
        let Some((second, worker)) = self.pick(Some(node)) else { return read };
        moved(self::read(second, &worker, &key, value).await)
    }

    async fn get_at(&mut self, node: NodeIndex, key: &[u8], value: &mut Vec<u8>) -> Answer {
        let worker = self.workers.borrow()[node.0].clone();
        match worker {
            Some(worker) => read(node.0, &worker, &Bytes::copy_from_slice(key), value).await,
            None => answer(node.0, Outcome::Error(ErrorKind::Refused), None),
        }
    }

    async fn set(&mut self, key: &[u8], value: &[u8]) -> Answer {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let (node, worker) = match self.first() {
            Ok(first) => first,
            Err(answer) => return answer,
        };
        let written = write(node, &worker, key.clone(), value.clone(), self.ttl).await;
        if !is_worth_another_try(&written) {
            return written;
        }
        let Some((second, worker)) = self.pick(Some(node)) else { return written };
        moved(write(second, &worker, key, value, self.ttl).await)
    }
}

async fn read(node: usize, worker: &Worker, key: &Bytes, value: &mut Vec<u8>) -> Answer {
    let (outcome, hit) = match worker.get(key, GetOptions::default()).await {
        Ok(Lookup::Local(hit)) => (Outcome::HitLocal, Some(hit)),
        Ok(Lookup::Remote(hit)) => (Outcome::HitRemote, Some(hit)),
        Ok(Lookup::Miss { .. }) => (Outcome::Miss, None),
        Err(GetError::Unavailable { .. } | GetError::Overloaded) => (Outcome::Error(ErrorKind::Unavailable), None),
        Err(GetError::TimedOut) => (Outcome::Error(ErrorKind::TimedOut), None),
        Err(GetError::Stopped) => (Outcome::Error(ErrorKind::Closed), None),
    };
    value.clear();
    value.extend_from_slice(hit.as_ref().map_or(&[], |hit| &hit.value));
    answer(node, outcome, hit.map(|hit| Version::new(hit.version.get())))
}

async fn write(node: usize, worker: &Worker, key: Bytes, value: Bytes, ttl: Ttl) -> Answer {
    match worker.set(key, value, WriteOptions { ttl, trace: None }).await {
        Ok(written) => answer(node, Outcome::Acknowledged, Some(Version::new(written.version.get()))),
        Err(error) => {
            let kind = match error {
                WriteError::NoQuorum { .. } | WriteError::Overloaded => ErrorKind::Unavailable,
                WriteError::Indeterminate { .. } => ErrorKind::Indeterminate,
                WriteError::Stopped => ErrorKind::Closed,
                WriteError::TooLarge => ErrorKind::Status(413),
                WriteError::Drift => ErrorKind::Status(500),
            };
            Answer { detail: Some(error.to_string().into()), ..answer(node, Outcome::Error(kind), None) }
        }
    }
}

fn is_worth_another_try(answer: &Answer) -> bool {
    matches!(answer.outcome, Outcome::Error(ErrorKind::Unavailable | ErrorKind::Closed))
}

fn moved(answer: Answer) -> Answer {
    Answer { failed_over: !matches!(answer.outcome, Outcome::Error(_)), ..answer }
}

const fn answer(node: usize, outcome: Outcome, version: Option<Version>) -> Answer {
    Answer { outcome, node: NodeIndex(node), failed_over: false, version, detail: None }
}

/// SET_TTL_MS as the mesh takes it.
pub(crate) fn ttl(set_ttl_ms: i64) -> Ttl {
    match u64::try_from(set_ttl_ms) {
        Ok(0) => Ttl::NodeDefault,
        Ok(millis) => Ttl::After(Duration::from_millis(millis)),
        Err(_) => Ttl::Never,
    }
}
