//! The load client of Redis and memcached: one request, sent on to where a cluster redirects it. Connections carry one request at a time
//! and are kept, as those to nodes are.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use load::{Answer, Client, ErrorKind, Freshness, NodeIndex, Outcome, Parts, Target};
use receive_timestamps::KernelTime;

use super::{
    dial::{ServerFailure, dial},
    meaning::Meaning,
    protocol::Protocol,
    resp,
    servers::{Servers, Topology},
    slots::redirect,
};
use crate::{
    http::TargetHealth,
    wire::{ClientConnection, Deadline, Deadlines},
};

/// One request is redirected so often at most: to a slot's new owner, and on while the slot is moved once more.
const REDIRECTS_MAX: usize = 5;

/// How requests are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheOptions {
    pub(crate) protocol: Protocol,
    pub(crate) request_timeout: Duration,
    pub(crate) kernel_timestamps: bool,
}

/// Makes one thread's targets.
pub(crate) struct CacheClient {
    pub(crate) servers: Arc<Servers>,
    pub(crate) options: CacheOptions,
}

impl Client for CacheClient {
    type Target = CacheTarget;

    async fn connect(self) -> Result<CacheTarget, String> {
        let pool = Rc::new(ServerPool::new(self.servers, self.options.kernel_timestamps));
        tokio::task::spawn_local(Rc::clone(&pool.deadlines).tick_for_ever());
        Ok(CacheTarget::new(pool, self.options))
    }
}

/// One thread's idle connections, last in first out.
#[derive(Debug)]
struct ServerPool {
    servers: Arc<Servers>,
    /// The topology that this thread knows, and its version.
    topology: RefCell<Arc<Topology>>,
    version: Cell<u64>,
    idle: RefCell<Vec<Vec<ClientConnection>>>,
    deadlines: Rc<Deadlines>,
    kernel_timestamps: bool,
    /// A clock that is read once per returned connection, not once per use.
    now: Cell<Instant>,
}

impl ServerPool {
    fn new(servers: Arc<Servers>, kernel_timestamps: bool) -> Self {
        let (version, topology) = (Cell::new(servers.version()), RefCell::new(servers.topology()));
        let now = Cell::new(Instant::now());
        Self { topology, version, servers, idle: RefCell::default(), deadlines: Rc::default(), kernel_timestamps, now }
    }

    /// The place of the server that has this key.
    fn route(&self, key: &[u8]) -> usize {
        let version = self.servers.version();
        if self.version.replace(version) != version {
            *self.topology.borrow_mut() = self.servers.topology();
        }
        self.topology.borrow().route(key)
    }

    fn server(&self, place: usize) -> Arc<TargetHealth> {
        let known = self.topology.borrow().servers.get(place).cloned();
        known.unwrap_or_else(|| Arc::clone(&self.servers.topology().servers[place]))
    }

    /// An idle connection, or a new one.
    async fn take(&self, place: usize, server: &TargetHealth) -> Result<ClientConnection, ServerFailure> {
        let epoch = server.epoch();
        loop {
            let Some(connection) = self.idle.borrow_mut().get_mut(place).and_then(Vec::pop) else { break };
            if connection.epoch == epoch && connection.is_usable(self.now.get()) {
                return Ok(connection);
            }
        }
        let connection = dial(server, self.kernel_timestamps).await?;
        server.mark_up();
        Ok(connection)
    }

    /// Takes a connection back whose reply was read to its end.
    fn give(&self, place: usize, mut connection: ClientConnection) {
        let now = Instant::now();
        self.now.set(now);
        connection.rest(now);
        let mut idle = self.idle.borrow_mut();
        if idle.len() <= place {
            idle.resize_with(place + 1, Vec::new);
        }
        idle[place].push(connection);
    }

    /// Sends a request to a server; after ASKING if it was redirected there for this once. `hear` understands the reply.
    async fn exchange(
        &self,
        place: usize,
        is_ask: bool,
        request: &[u8],
        hear: &mut impl FnMut(&[u8]) -> Result<Option<Heard>, ErrorKind>,
    ) -> Result<(Heard, KernelTime), ServerFailure> {
        let server = self.server(place);
        let epoch = server.epoch();
        let tried = async {
            let mut connection = self.take(place, &server).await?;
            if is_ask {
                let mut asking = Vec::new();
                resp::command(&mut asking, &[b"ASKING"]);
                connection.exchange(&asking, |buffer, _| Ok(resp::parse(buffer)?.map(|_| ()))).await?;
            }
            let heard = connection.exchange(request, |buffer, _| hear(buffer)).await?;
            let received = connection.received();
            self.give(place, connection);
            Ok((heard, received))
        };
        tried.await.inspect_err(|failure: &ServerFailure| {
            // Its idle connections are of no more use, and another server may have taken its place.
            if matches!(failure.kind, ErrorKind::Closed | ErrorKind::Refused) {
                server.mark_down(epoch);
            }
            self.servers.stale.notify_one();
        })
    }
}

/// What a server has said.
#[derive(Debug)]
enum Heard {
    Outcome(Outcome),
    Refused(Vec<u8>),
}

/// One task's way to the servers.
#[derive(Debug)]
pub(crate) struct CacheTarget {
    pool: Rc<ServerPool>,
    options: CacheOptions,
    deadline: Deadline,
    request: Vec<u8>,
    /// When the kernel had received the last reply.
    received: KernelTime,
}

impl Clone for CacheTarget {
    fn clone(&self) -> Self {
        Self::new(Rc::clone(&self.pool), self.options)
    }
}

impl CacheTarget {
    fn new(pool: Rc<ServerPool>, options: CacheOptions) -> Self {
        let deadline = Deadline::new(&pool.deadlines);
        Self { pool, options, deadline, request: Vec::with_capacity(256), received: KernelTime::default() }
    }

    /// Sends the prepared request to the server that has the key, and on to where it is redirected.
    async fn send(&mut self, key: &[u8], mut hear: impl FnMut(&[u8]) -> Result<Option<Heard>, ErrorKind>) -> Answer {
        let Self { pool, options, deadline, request, received } = self;
        *received = KernelTime::default();
        let place = Cell::new(pool.route(key));
        let exchange = async {
            let mut is_ask = false;
            for _ in 0..=REDIRECTS_MAX {
                let heard = pool.exchange(place.get(), is_ask, request, &mut hear).await?;
                *received = heard.1;
                let reason = match heard.0 {
                    Heard::Outcome(outcome) => return Ok(outcome),
                    Heard::Refused(reason) => reason,
                };
                let asked = pool.server(place.get());
                let Some((authority, ask)) = redirect(&reason, &asked.target.authority) else {
                    pool.servers.stale.notify_one();
                    return Err(ServerFailure::refused(&reason));
                };
                place.set(pool.servers.place(&authority));
                is_ask = ask;
                if !ask {
                    pool.servers.stale.notify_one();
                }
            }
            Err(ServerFailure::refused(b"redirected too often"))
        };
        let tried = deadline.within(options.request_timeout, exchange).await;
        let tried = tried.unwrap_or_else(|| {
            pool.servers.stale.notify_one();
            Err(ErrorKind::TimedOut.into())
        });
        answer(pool.servers.counted_as(place.get()), tried)
    }

    async fn send_write(&mut self, key: &[u8]) -> Answer {
        let protocol = self.options.protocol;
        let hear = |buffer: &[u8]| match protocol.meaning(buffer)? {
            None => Ok(None),
            Some(Meaning::Done) => Ok(Some(Heard::Outcome(Outcome::Acknowledged))),
            Some(Meaning::Refused(reason)) => Ok(Some(Heard::Refused(reason.to_vec()))),
            Some(Meaning::Value(_) | Meaning::Nothing) => Err(ErrorKind::Protocol),
        };
        self.send(key, hear).await
    }
}

impl Target for CacheTarget {
    async fn get(&mut self, key: &[u8], _: Freshness, value: &mut Vec<u8>) -> Answer {
        let protocol = self.options.protocol;
        protocol.get(&mut self.request, key);
        value.clear();
        let hear = |buffer: &[u8]| match protocol.meaning(buffer)? {
            None => Ok(None),
            Some(Meaning::Value(found)) => {
                value.extend_from_slice(found);
                Ok(Some(Heard::Outcome(Outcome::HitLocal)))
            }
            Some(Meaning::Nothing) => Ok(Some(Heard::Outcome(Outcome::Miss))),
            Some(Meaning::Refused(reason)) => Ok(Some(Heard::Refused(reason.to_vec()))),
            Some(Meaning::Done) => Err(ErrorKind::Protocol),
        };
        self.send(key, hear).await
    }

    /// One server has the key, whichever is asked.
    async fn get_at(&mut self, _: NodeIndex, key: &[u8], fresh: Freshness, value: &mut Vec<u8>) -> Answer {
        self.get(key, fresh, value).await
    }

    async fn set(&mut self, key: &[u8], value: &[u8], ttl_ms: i64) -> Answer {
        self.options.protocol.set(&mut self.request, key, value, ttl_ms);
        self.send_write(key).await
    }

    async fn delete(&mut self, key: &[u8]) -> Answer {
        self.options.protocol.delete(&mut self.request, key);
        self.send_write(key).await
    }

    fn parts(&self) -> Parts {
        Parts { received: self.received.at(Instant::now()), ..Parts::default() }
    }
}

fn answer(node: NodeIndex, tried: Result<Outcome, ServerFailure>) -> Answer {
    let is_reply = tried.as_ref().err().is_none_or(|failure| failure.detail.is_some());
    let (outcome, detail) = match tried {
        Ok(outcome) => (outcome, None),
        Err(ServerFailure { kind, detail }) => (Outcome::Error(kind), detail),
    };
    Answer {
        outcome,
        node,
        is_reply,
        before: None,
        is_retried: false,
        doubtful: false,
        version: None,
        served_by: None,
        detail,
    }
}
