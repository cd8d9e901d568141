//! The in-process target: a worker of each node on every load thread.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use load::{Answer, Client, ErrorKind, Freshness, NodeIndex, Outcome, Target, WriteVersion, say};
use mesh::{GetError, GetOptions, Lookup, Node, Readiness, Ttl, Worker, WriteError, WriteOptions, Written};
use mesh_proto::Consistency;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::sync::{mpsc, oneshot, watch};

use crate::trio::Running;

/// All nodes must be ready this long after the start.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// How often a node that is on its way is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Makes one thread's targets.
#[derive(Debug)]
pub(crate) struct DirectClient {
    pub(crate) nodes: Vec<watch::Receiver<Option<Running>>>,
    pub(crate) seed: u64,
    /// What others ask this thread to read for them.
    pub(crate) questions: Option<mpsc::Receiver<Question>>,
}

/// A read for somebody on another thread: a worker's futures must be polled on the thread that made it.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) node: NodeIndex,
    pub(crate) key: Bytes,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A node and this thread's worker of it.
#[derive(Clone)]
struct NodeEntry {
    node: Node,
    worker: Worker,
}

/// This thread's way into each node; nothing in the place of one that has crashed or is not ready again.
type NodeEntries = Rc<RefCell<Vec<Option<Rc<NodeEntry>>>>>;

impl Client for DirectClient {
    type Target = DirectTarget;

    /// A node serves nobody before it has workers, so no thread can wait for a node before it has made its own of all.
    async fn connect(mut self) -> Result<DirectTarget, String> {
        let mut made = Vec::new();
        for node in &mut self.nodes {
            let running = node.borrow_and_update().clone();
            made.push(running.map(|running| enter(&running.0)).transpose()?);
        }
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        for (index, entry) in made.iter().enumerate() {
            let Some(NodeEntry { node, .. }) = entry.as_deref() else { continue };
            if !matches!(tokio::time::timeout_at(deadline, ready(node)).await, Ok(true)) {
                let (number, seconds, state) = (index + 1, READY_WITHIN.as_secs(), node.readiness());
                return Err(format!("node {number} was not ready within {seconds} s: {state:?}"));
            }
        }
        let entries: NodeEntries = Rc::new(RefCell::new(made));
        for (index, node) in self.nodes.into_iter().enumerate() {
            tokio::task::spawn_local(follow(Rc::clone(&entries), index, node));
        }
        let target = DirectTarget { entries, dice: SmallRng::seed_from_u64(self.seed), key: Vec::new() };
        if let Some(questions) = self.questions {
            tokio::task::spawn_local(answer_questions(target.clone(), questions));
        }
        Ok(target)
    }
}

fn enter(node: &Node) -> Result<Rc<NodeEntry>, String> {
    let worker = node.add_worker().map_err(|error| error.to_string())?;
    Ok(Rc::new(NodeEntry { node: node.clone(), worker }))
}

/// Waits until a node takes traffic; false if it never will.
async fn ready(node: &Node) -> bool {
    loop {
        match node.readiness() {
            Readiness::Ready => return true,
            Readiness::Stopping | Readiness::Refused(_) => return false,
            Readiness::Joining
            | Readiness::Unreachable { .. }
            | Readiness::TooFew { .. }
            | Readiness::Resyncing { .. } => tokio::time::sleep(POLL).await,
        }
    }
}

/// Gives up a node that has crashed, and makes a worker of the one that takes its place.
async fn follow(entries: NodeEntries, index: usize, mut node: watch::Receiver<Option<Running>>) {
    while node.changed().await.is_ok() {
        let running = node.borrow_and_update().clone();
        entries.borrow_mut()[index] = None;
        let Some(running) = running else { continue };
        match enter(&running.0) {
            Ok(entry) => {
                if ready(&entry.node).await {
                    entries.borrow_mut()[index] = Some(entry);
                }
            }
            Err(reason) => say(&format!("[NODE] no worker for node {}: {reason}", index + 1)),
        }
    }
}

async fn answer_questions(mut target: DirectTarget, mut questions: mpsc::Receiver<Question>) {
    let mut value = Vec::new();
    while let Some(Question { node, key, answer }) = questions.recv().await {
        // The caller may be gone; then the answer is dropped.
        let _ = answer.send(target.get_at(node, &key, Freshness::One, &mut value).await);
    }
}

/// One task's way to the nodes.
pub(crate) struct DirectTarget {
    entries: NodeEntries,
    dice: SmallRng,
    /// The key of the last read, whose memory the next one uses: all keys are of one length, so no read allocates.
    key: Vec<u8>,
}

impl Clone for DirectTarget {
    fn clone(&self) -> Self {
        // A clone of the dice would throw the same numbers; how many clones there are makes it differ.
        let clones = Rc::strong_count(&self.entries) as u64;
        let dice = SmallRng::seed_from_u64(self.dice.clone().random::<u64>().wrapping_add(clones));
        Self { entries: Rc::clone(&self.entries), dice, key: Vec::new() }
    }
}

impl DirectTarget {
    /// A node that runs, other than `except`.
    fn pick(&mut self, except: Option<usize>) -> Option<(usize, Rc<NodeEntry>)> {
        let entries = self.entries.borrow();
        let count = entries.len();
        let thrown = self.dice.random_range(0..count);
        let mut nodes = (0..count).map(|step| (thrown + step) % count).filter(|node| Some(*node) != except);
        nodes.find_map(|node| Some((node, Rc::clone(entries[node].as_ref()?))))
    }
}

impl DirectTarget {
    /// Writes through any node, and once more through another if that is worth it.
    async fn write(&mut self, write: impl AsyncFn(&Worker) -> Result<Written, WriteError>) -> Answer {
        let Some((first, entry)) = self.pick(None) else { return nobody() };
        let answer = written(first, write(&entry.worker).await);
        if !is_worth_another_try(&answer, &entry.node) {
            return answer;
        }
        let Some((second, entry)) = self.pick(Some(first)) else { return answer };
        let nothing_written = answer.outcome == Outcome::Error(ErrorKind::Unavailable);
        Answer { doubtful: !nothing_written, ..moved(written(second, write(&entry.worker).await)) }
    }
}

impl Target for DirectTarget {
    async fn get(&mut self, key: &[u8], fresh: Freshness, value: &mut Vec<u8>) -> Answer {
        let Some((first, entry)) = self.pick(None) else { return nobody() };
        self.key.clear();
        self.key.extend_from_slice(key);
        let key = Bytes::from(std::mem::take(&mut self.key));
        let mut answer = read(first, &entry.worker, &key, fresh, value).await;
        if is_worth_another_try(&answer, &entry.node)
            && let Some((second, entry)) = self.pick(Some(first))
        {
            answer = moved(read(second, &entry.worker, &key, fresh, value).await);
        }
        self.key = Vec::from(key);
        answer
    }

    async fn get_at(&mut self, node: NodeIndex, key: &[u8], fresh: Freshness, value: &mut Vec<u8>) -> Answer {
        let entry = self.entries.borrow()[node.0].clone();
        match entry {
            Some(entry) => read(node.0, &entry.worker, &Bytes::copy_from_slice(key), fresh, value).await,
            None => answer(node.0, Outcome::Error(ErrorKind::Refused)),
        }
    }

    async fn set(&mut self, key: &[u8], value: &[u8], ttl_ms: i64) -> Answer {
        let (key, value, ttl) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value), ttl(ttl_ms));
        let set = async |worker: &Worker| {
            worker.set(key.clone(), value.clone(), WriteOptions { ttl, trace: None }, &mut None).await
        };
        self.write(set).await
    }

    async fn delete(&mut self, key: &[u8]) -> Answer {
        let key = Bytes::copy_from_slice(key);
        self.write(async |worker: &Worker| worker.delete(key.clone(), WriteOptions::default(), &mut None).await).await
    }
}

async fn read(node: usize, worker: &Worker, key: &Bytes, fresh: Freshness, value: &mut Vec<u8>) -> Answer {
    let consistency = match fresh {
        Freshness::One => Consistency::One,
        Freshness::Session(met) => Consistency::Session(mesh_proto::Version::new(met.get())),
        Freshness::Quorum => Consistency::Quorum,
    };
    let mut gone = None;
    let (outcome, hit) = match worker.get(key, GetOptions { consistency, trace: None }, &mut None).await {
        Ok(Lookup::Local(hit)) => (Outcome::HitLocal, Some(hit)),
        Ok(Lookup::Remote(hit)) => (Outcome::HitRemote, Some(hit)),
        Ok(Lookup::Miss { version }) => {
            gone = version;
            (Outcome::Miss, None)
        }
        Err(GetError::Unavailable { .. }) => (Outcome::Error(ErrorKind::Unavailable), None),
        Err(GetError::TimedOut) => (Outcome::Error(ErrorKind::TimedOut), None),
        Err(GetError::Stopped) => (Outcome::Error(ErrorKind::Closed), None),
    };
    value.clear();
    value.extend_from_slice(hit.as_ref().map_or(&[], |hit| &hit.value));
    let version = hit.as_ref().map(|hit| hit.version).or(gone).map(|version| WriteVersion::new(version.get()));
    Answer { version, served_by: hit.map(|hit| hit.served_by.get()), ..answer(node, outcome) }
}

fn written(node: usize, result: Result<Written, WriteError>) -> Answer {
    match result {
        Ok(Written { version }) => {
            Answer { version: Some(WriteVersion::new(version.get())), ..answer(node, Outcome::Acknowledged) }
        }
        Err(error) => {
            let kind = match error {
                WriteError::NoQuorum { .. } => ErrorKind::Unavailable,
                WriteError::Indeterminate { .. } => ErrorKind::Indeterminate,
                WriteError::Stopped => ErrorKind::Closed,
                WriteError::TooLarge => ErrorKind::Status(413),
                WriteError::Drift => ErrorKind::Status(500),
            };
            Answer { detail: Some(error.to_string().into()), ..answer(node, Outcome::Error(kind)) }
        }
    }
}

/// As over HTTP: a node that refuses, or that crashed under the request, may be replaced by another.
fn is_worth_another_try(answer: &Answer, entry: &Node) -> bool {
    match answer.outcome {
        Outcome::Error(ErrorKind::Unavailable | ErrorKind::Closed) => true,
        Outcome::Error(_) => entry.readiness() == Readiness::Stopping,
        _ => false,
    }
}

/// No node runs.
const fn nobody() -> Answer {
    answer(0, Outcome::Error(ErrorKind::Refused))
}

fn moved(answer: Answer) -> Answer {
    Answer { is_retried: true, ..answer }
}

const fn answer(node: usize, outcome: Outcome) -> Answer {
    let node = NodeIndex(node);
    // No node counts requests here, so the first of two tries is not told.
    let (is_reply, before) = (true, None);
    Answer {
        outcome,
        node,
        is_reply,
        before,
        is_retried: false,
        doubtful: false,
        version: None,
        served_by: None,
        detail: None,
    }
}

/// SET_TTL_MS as the mesh takes it.
fn ttl(set_ttl_ms: i64) -> Ttl {
    match u64::try_from(set_ttl_ms) {
        Ok(0) => Ttl::NodeDefault,
        Ok(millis) => Ttl::After(Duration::from_millis(millis)),
        Err(_) => Ttl::Never,
    }
}
