//! Tells nodes afterwards which traces to keep: what was slow to the client may have been quick on the node, which then
//! would have nothing to show. Load threads only put ids into a queue; one task per node sends them, some at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use load::NodeIndex;
use reqwest::RequestBuilder;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::access::Access;

/// Ids waiting for one node; further ones are lost, and counted.
const QUEUE_MAX: usize = 4096;

/// Ids in one request: as many as a node takes.
const BATCH_MAX: usize = 256;

/// How long the first of a request waits for others. Nodes remember requests for some seconds.
const DELAY: Duration = Duration::from_millis(100);

/// A node that has not taken them by then does not.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long the end of a run waits for what is still queued.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Ids that did not reach their node.
#[derive(Debug, Default)]
pub(crate) struct KeepCounts {
    asked: AtomicU64,
    lost: AtomicU64,
}

impl KeepCounts {
    /// Ids that nodes were to be told, and those of them that were lost.
    pub(crate) fn get(&self) -> (u64, u64) {
        // Relaxed throughout: figures for people.
        (self.asked.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

/// The queues to all nodes.
#[derive(Debug)]
pub(crate) struct Keeper {
    queues: Vec<mpsc::Sender<u128>>,
    counts: Arc<KeepCounts>,
}

/// The tasks behind them.
pub(crate) struct KeepTasks(Vec<JoinHandle<()>>);

impl Keeper {
    /// One task for each of these nodes, on this thread's runtime.
    ///
    /// # Errors
    /// If there can be no HTTP client.
    pub(crate) fn start(urls: impl Iterator<Item = String>, access: &Access) -> Result<(Self, KeepTasks), String> {
        let client = access.client().timeout(TIMEOUT).build();
        let client = client.map_err(|error| format!("cannot make an HTTP client: {error}"))?;
        let counts = Arc::<KeepCounts>::default();
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for url in urls {
            let (queue, ids) = mpsc::channel(QUEUE_MAX);
            queues.push(queue);
            let (client, access, url) = (client.clone(), access.clone(), format!("{url}/trace/keep"));
            let post = move || access.admin(client.post(&url));
            tasks.push(tokio::spawn(tell(post, ids, Arc::clone(&counts))));
        }
        Ok((Self { queues, counts }, KeepTasks(tasks)))
    }

    /// This node is to keep this trace. From any thread; never waits.
    pub(crate) fn keep(&self, node: NodeIndex, trace: u128) {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        if self.queues[node.0].try_send(trace).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> Arc<KeepCounts> {
        Arc::clone(&self.counts)
    }
}

impl KeepTasks {
    /// Waits until all is told, for at most two seconds. The [`Keeper`] must have been dropped before.
    pub(crate) async fn finish(self) {
        let all = async {
            for task in self.0 {
                // A task that panicked has told what it could.
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(FINISH_MAX, all).await;
    }
}

async fn tell(post: impl Fn() -> RequestBuilder, mut ids: mpsc::Receiver<u128>, counts: Arc<KeepCounts>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while ids.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if batch.len() < BATCH_MAX && !ids.is_closed() {
            tokio::time::sleep(DELAY).await;
            while batch.len() < BATCH_MAX
                && let Ok(id) = ids.try_recv()
            {
                batch.push(id);
            }
        }
        let body: String = batch.iter().map(|id| format!("{id:032x}\n")).collect();
        let taken = post().body(body).send().await.is_ok_and(|response| response.status().is_success());
        if !taken {
            counts.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        batch.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn ids_arrive_together_and_what_is_lost_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Nobody listens on port 1 of loopback.
        let urls = [url, "http://127.0.0.1:1".to_owned()];
        let (keeper, tasks) = Keeper::start(urls.into_iter(), &Access::default()).unwrap();
        let counts = keeper.counts();
        (1..=3).for_each(|id| keeper.keep(NodeIndex(0), id));
        keeper.keep(NodeIndex(1), 9);
        drop(keeper);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut text, wanted) = (String::new(), format!("\r\n\r\n{:032x}\n{:032x}\n{:032x}\n", 1, 2, 3));
            while !text.ends_with(&wanted) {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "{text}");
                text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            assert!(text.starts_with("POST /trace/keep HTTP/1.1\r\n"), "{text}");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        tokio::join!(serve, tasks.finish());
        assert_eq!(counts.get(), (4, 1));
    }

    #[tokio::test]
    async fn a_full_queue_is_no_reason_to_wait() {
        let (keeper, tasks) = Keeper::start(["http://127.0.0.1:1".to_owned()].into_iter(), &Access::default()).unwrap();
        (1..=QUEUE_MAX as u128 + 7).for_each(|id| keeper.keep(NodeIndex(0), id));
        assert_eq!(keeper.counts().get(), (QUEUE_MAX as u64 + 7, 7));
        drop((keeper, tasks));
    }
}
