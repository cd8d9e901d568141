//! One runtime's connections to all peers: kept up for as long as the peer is a member, redialled with backoff.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use mesh_proto::{
    Event, Frame, FrameBody, HedgeBudget, Hello, LatencyWindow, LegFailure, Member, MemberState, Monotonic, Mutant,
    NodeId, RejectReason, Stage,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    announced::Follower,
    core::{Core, count},
    links::{
        bounds::{Room, frame_bytes_max},
        link::Link,
        peer::Peer,
        seldom::Seldom,
    },
    membership::reach::{Connected, Starts, lost, restarted},
    transport::{Connection, DialError, Endpoint, ReceiveHalf, SendHalf},
};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a greeting may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a peer that upkeep has lost may take to answer a worker.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// How often overdue legs are looked for: while there are legs, and while there are none.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);
const IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// How often the adaptive hedge delay is worked out, and the breakers are eased.
const DELAY_INTERVAL: Duration = Duration::from_millis(100);
const EASE_INTERVAL: Duration = Duration::from_secs(1);

/// What a runtime uses its connections for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reads and writes.
    Data,
    /// Gossip and repair.
    Upkeep,
}

/// One runtime's peers.
pub(crate) struct Peers {
    core: Arc<Core>,
    endpoint: Arc<dyn Endpoint>,
    purpose: Purpose,
    connected: Arc<Connected>,
    /// Sorted by id.
    table: ArcSwap<Vec<Arc<Peer>>>,
    pub(crate) hedge_budget: Mutex<HedgeBudget>,
    hedge_delay_ns: AtomicU64,
    read_per_try_ns: AtomicU64,
}

impl Peers {
    /// Starts to follow the membership on the current runtime.
    pub(crate) fn start(core: &Arc<Core>, endpoint: Arc<dyn Endpoint>, purpose: Purpose) -> Arc<Self> {
        let peers = Arc::new(Self {
            core: Arc::clone(core),
            endpoint,
            purpose,
            connected: core.reach.add_runtime(),
            table: ArcSwap::default(),
            hedge_budget: Mutex::new(HedgeBudget::default()),
            hedge_delay_ns: AtomicU64::new(0),
            read_per_try_ns: AtomicU64::new(0),
        });
        peers.refresh_delays();
        tokio::spawn(Arc::clone(&peers).follow_members());
        tokio::spawn(Arc::clone(&peers).sweep());
        peers
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<Peer>> {
        let table = self.table.load();
        table.binary_search_by_key(&id, |peer| peer.id).ok().map(|index| Arc::clone(&table[index]))
    }

    pub(crate) fn link(&self, id: NodeId) -> Option<Arc<Link>> {
        let table = self.table.load();
        let index = table.binary_search_by_key(&id, |peer| peer.id).ok()?;
        table[index].link.load_full()
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        let table = self.table.load();
        table.binary_search_by_key(&id, |peer| peer.id).is_ok_and(|index| table[index].is_up())
    }

    /// Runs `send` with the link to a peer, if there is one.
    pub(crate) fn with_link<T>(
        &self,
        id: NodeId,
        send: impl FnOnce(&Arc<Link>) -> Result<T, LegFailure>,
    ) -> Result<T, LegFailure> {
        let table = self.table.load();
        let index = table.binary_search_by_key(&id, |peer| peer.id).map_err(|_| LegFailure::NotSent)?;
        match &*table[index].link.load() {
            Some(link) => send(link),
            None => Err(LegFailure::NotSent),
        }
    }

    /// The other owners, cheapest first.
    pub(crate) fn by_cost(&self, owners: &[NodeId], now: Monotonic) -> ArrayVec<NodeId, 8> {
        let table = self.table.load();
        let cost = |owner: &NodeId| match table.binary_search_by_key(owner, |peer| peer.id) {
            Ok(index) => table[index].cost(now),
            Err(_) => f64::INFINITY,
        };
        let mut costed: ArrayVec<(f64, NodeId), 8> =
            owners.iter().filter(|owner| **owner != self.core.id).map(|owner| (cost(owner), *owner)).collect();
        costed.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
        costed.into_iter().map(|(_, owner)| owner).collect()
    }

    pub(crate) fn hedge_delay(&self) -> Duration {
        // Relaxed: a figure of its own.
        Duration::from_nanos(self.hedge_delay_ns.load(Ordering::Relaxed))
    }

    /// When one leg of a read is given up.
    pub(crate) fn read_per_try(&self) -> Duration {
        Duration::from_nanos(self.read_per_try_ns.load(Ordering::Relaxed))
    }

    /// Whether there is a connection to every living member.
    pub(crate) fn all_up(&self) -> bool {
        let members = self.core.roster.members.borrow();
        // Who is joining is not in the ring before somebody has reached it.
        let is_needed = |member: &&Member| member.state == MemberState::Alive && member.stage != Stage::Joining;
        let mut needed = members.iter().filter(|member| member.id != self.core.id).filter(is_needed);
        needed.all(|member| self.is_up(member.id))
    }

    /// Every peer's link, for sweeping and for people.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.table.load().iter().filter_map(|peer| peer.link.load_full()).collect()
    }

    async fn follow_members(self: Arc<Self>) {
        let mut changes = self.core.roster.members.subscribe();
        loop {
            let members = Arc::clone(&self.core.roster.members.borrow());
            self.update(&members);
            tokio::select! {
                biased;
                () = self.core.stopped.cancelled() => break,
                () = changes.changed() => {}
            }
        }
        for link in self.links() {
            link.close();
        }
        // A peer and its link hold each other: a process that starts many nodes would keep them all.
        for peer in self.table.load().iter() {
            peer.link.store(None);
        }
    }

    fn update(self: &Arc<Self>, members: &[Member]) {
        let mut table = Vec::clone(&self.table.load());
        // A member that was forgotten altogether needs no connection any more; its task ends with its entry.
        table.retain(|peer| members.iter().any(|member| member.id == peer.id));
        for member in members.iter().filter(|member| member.id != self.core.id) {
            match table.binary_search_by_key(&member.id, |peer| peer.id) {
                Ok(index) => table[index].addr.lock().clone_from(&member.addr),
                Err(index) => {
                    let peer = Peer::new(member.id, member.addr.clone(), self.core.clock.now());
                    if self.purpose == Purpose::Upkeep && member.state == MemberState::Alive {
                        self.core.routes.begin_dialling(member.id, self.core.clock.now());
                    }
                    table.insert(index, Arc::clone(&peer));
                    tokio::spawn(Arc::clone(self).keep_connected(peer));
                }
            }
        }
        self.table.store(Arc::new(table));
        let is_member = |peer| members.iter().any(|member| member.id == peer);
        self.connected.lock().retain(|peer, _| is_member(*peer));
        self.core.routes.retain(is_member);
    }

    /// Keeps a connection to one peer until it is no member any more or the node stops.
    async fn keep_connected(self: Arc<Self>, peer: Arc<Peer>) {
        let mut members = self.core.roster.members.subscribe();
        let mut starts = self.core.reach.starts.subscribe();
        let mut backoff = BACKOFF_MIN;
        loop {
            let is_wanted = |members: &Arc<Vec<Member>>| {
                members.iter().any(|member| member.id == peer.id && member.state.is_present())
            };
            if !is_wanted(&self.core.roster.members.borrow()) {
                peer.forget_failures();
            }
            tokio::select! {
                biased;
                () = self.core.stopped.cancelled() => return,
                () = members.wait_for(is_wanted) => {}
            }
            if !self.get(peer.id).is_some_and(|known| Arc::ptr_eq(&known, &peer)) {
                return;
            }
            let lived = tokio::select! {
                biased;
                () = self.core.stopped.cancelled() => return,
                lived = self.connect(&peer, &mut starts) => lived,
            };
            backoff = if lived { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
            tokio::select! {
                biased;
                () = self.core.stopped.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
                // A change of members may be this peer's return, and so may a greeting.
                () = members.changed() => {}
                () = starts.changed() => {}
            }
        }
    }

    /// One connection from dial to end. Whether it ever came up, or could have if it had been dialled later.
    async fn connect(self: &Arc<Self>, peer: &Arc<Peer>, starts: &mut Follower<Starts>) -> bool {
        let (addr, began) = (peer.addr.lock().clone(), self.core.clock.now());
        let known = self.core.reach.start_of(peer.id);
        let greeted = tokio::select! {
            biased;
            greeted = self.dial(&addr, peer.id) => greeted,
            // Packets to a process that is gone are repeated at ever longer intervals. The next one is there already.
            () = restarted(starts, peer.id, known) => return true,
        };
        let Greeted { connection, send, receive, hello } = match greeted {
            Ok(greeted) => greeted,
            Err(error) => {
                self.dial_failed(peer, (addr, began), error);
                return false;
            }
        };
        peer.forget_failures();
        let start = hello.start;
        let link = Link::new(Arc::clone(&self.core), Arc::clone(&peer.health), Arc::clone(&connection), hello.limits);
        peer.link.store(Some(Arc::clone(&link)));
        self.set_connected(peer, Some(start));
        if self.purpose == Purpose::Upkeep {
            let is_first = self.core.routes.set_dialled(peer.id, Some(Arc::clone(&connection)));
            if is_first && !Mutant::FirstContactIsSilent.is_planted() {
                // News that was spread before there was a way has not come here, and does not come again.
                let link = Arc::clone(&link);
                tokio::spawn(async move { link.exchange_members().await });
            }
            self.core.resync_wanted.notify_one();
        }
        self.core.observer.event(&Event::PeerUp { peer: peer.id });
        // Requests and replies wake this task all the time, the rest hardly ever.
        let rest = Seldom::new(async {
            tokio::select! {
                biased;
                () = Self::accept_replies(&link) => "no more streams".to_owned(),
                () = self.receive_gossip(&connection) => "no more datagrams".to_owned(),
                lost = connection.closed() => lost.reason,
                () = restarted(starts, peer.id, Some(start)) => "the peer was restarted".to_owned(),
                () = self.fallen_silent(&link) => "the peer is silent".to_owned(),
                () = self.core.stopped.cancelled() => "the node is stopping".to_owned(),
            }
        });
        let reason = tokio::select! {
            biased;
            () = link.write_requests(send) => "the request stream ended".to_owned(),
            () = link.read_replies(receive) => "the reply stream ended".to_owned(),
            reason = rest => reason,
        };
        peer.link.store(None);
        self.set_connected(peer, None);
        link.close();
        connection.close("done");
        if self.purpose == Purpose::Upkeep {
            self.core.routes.set_dialled(peer.id, None);
            self.core.reach.handle_loss(peer.id, &self.core.roster.members.borrow());
        }
        self.core.observer.event(&Event::PeerDown { peer: peer.id, reason });
        true
    }

    /// Upkeep finds out who is silent. What it has lost may have been its connection alone: a worker asks for itself.
    async fn fallen_silent(&self, link: &Link) {
        if self.purpose == Purpose::Upkeep || Mutant::SilenceUnnoticed.is_planted() {
            return std::future::pending().await;
        }
        let peer = link.connection.peer();
        let mut losses = self.core.reach.losses.subscribe();
        loop {
            let known = self.core.reach.losses_of(peer);
            lost(&mut losses, peer, known).await;
            if timeout(ANSWER_MAX, link.exchange_members()).await != Ok(true) {
                return;
            }
        }
    }

    /// A member that is heard may be one that cannot be reached; that is told once, by the runtime that is always there.
    fn dial_failed(&self, peer: &Peer, (addr, began): (String, Monotonic), error: GreetError) {
        if peer.dial_failed(began, self.core.clock.now(), error.to_string()) && self.purpose == Purpose::Upkeep {
            let (peer, addr, reason) = (peer.id, addr.clone(), error.to_string());
            self.core.observer.event(&Event::PeerUnreachable { peer, addr, reason });
        }
        self.refused(addr, error);
    }

    /// A connection to this process of a peer came up, or it broke.
    fn set_connected(&self, peer: &Arc<Peer>, start: Option<u64>) {
        // A member that was forgotten and came back has another entry, which counts.
        if self.get(peer.id).is_some_and(|known| Arc::ptr_eq(&known, peer)) {
            let mut connected = self.connected.lock();
            match start {
                Some(start) => connected.insert(peer.id, start),
                None => connected.remove(&peer.id),
            };
        }
    }

    /// Large values come back on streams that the peer opens.
    async fn accept_replies(link: &Arc<Link>) {
        while let Ok((_, receive)) = link.connection.accept_stream().await {
            let link = Arc::clone(link);
            tokio::spawn(async move { link.read_replies_apart(receive).await });
        }
    }

    async fn receive_gossip(&self, connection: &Arc<dyn Connection>) {
        while let Ok(datagram) = connection.receive_datagram().await {
            self.core.handle_gossip(connection.peer(), &datagram);
        }
    }

    /// All addresses that a name stands for now.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<String>, DialError> {
        self.endpoint.resolve(name).await
    }

    /// [`Self::greet`], when there is a permit for it.
    async fn dial(&self, addr: &str, expect: NodeId) -> Result<Greeted, GreetError> {
        // Never closed.
        let _permit = match Mutant::DialsUnrationed.is_planted() {
            true => None,
            false => Some(self.core.dials.acquire().await),
        };
        self.greet(addr, Some(expect)).await
    }

    /// Connects to an address and greets the node there.
    pub(crate) async fn greet(&self, addr: &str, expect: Option<NodeId>) -> Result<Greeted, GreetError> {
        let connection = self.endpoint.dial(addr, expect).await?;
        let greeting = async {
            let (mut send, mut receive) =
                connection.open_stream().await.map_err(|lost| GreetError::Broken(lost.reason))?;
            let mut frame = bytes::BytesMut::new();
            mesh_proto::encode_into(&self.core.frame(FrameBody::Hello(self.core.hello())), &mut frame);
            send.write_all(&frame).await.map_err(|error| GreetError::Broken(error.to_string()))?;
            let reply = read_frame(&mut receive, frame_bytes_max(&self.core.config)).await;
            match reply.map(|frame| frame.body) {
                Some(FrameBody::HelloReply(Ok(hello))) => Ok((send, receive, hello)),
                Some(FrameBody::HelloReply(Err(reason))) => Err(GreetError::Rejected(reason)),
                _ => Err(GreetError::Broken("no greeting came back".to_owned())),
            }
        };
        let greeted = timeout(GREETING_TIMEOUT, greeting).await;
        match greeted.unwrap_or_else(|_| Err(GreetError::Broken("no greeting in time".to_owned()))) {
            Ok((send, receive, hello)) => {
                self.core.handle_greeting(connection.peer(), &hello);
                Ok(Greeted { connection, send, receive, hello })
            }
            Err(error) => {
                connection.close("greeting failed");
                Err(error)
            }
        }
    }

    /// An attempt to connect has failed. Only distrust and refusal are worth telling; silence is what dead peers do.
    pub(crate) fn refused(&self, addr: String, error: GreetError) {
        match &error {
            GreetError::Dial(DialError::Untrusted { .. }) => {}
            GreetError::Rejected(RejectReason::Itself) => return,
            GreetError::Rejected(RejectReason::Mesh { .. }) => {}
            // The process before this one may have had another address, and is not given up yet.
            GreetError::Rejected(RejectReason::DuplicateId { .. }) if !self.core.is_duplicate_for_long() => return,
            GreetError::Rejected(reason) => self.core.refuse(format!("{addr} turned this node away: {reason}")),
            GreetError::Dial(_) | GreetError::Broken(_) => return,
        }
        count(&self.core.counters.peers_refused);
        self.core.observer.event(&Event::PeerRefused { addr, reason: error.to_string() });
    }

    async fn sweep(self: Arc<Self>) {
        let mut pause = SWEEP_INTERVAL;
        let (mut delay_due, mut ease_due) = (self.core.clock.now(), self.core.clock.now());
        loop {
            tokio::select! {
                biased;
                () = self.core.stopped.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let now = self.core.clock.now();
            pause = IDLE_INTERVAL;
            for link in self.links().iter().filter(|link| link.in_flight() > 0) {
                link.sweep(now);
                pause = SWEEP_INTERVAL;
            }
            if now >= delay_due {
                delay_due = now + DELAY_INTERVAL;
                self.refresh_delays();
            }
            if now >= ease_due {
                ease_due = now + EASE_INTERVAL;
                for peer in self.table.load().iter() {
                    peer.health.ease_breaker();
                }
            }
        }
    }

    fn refresh_delays(&self) {
        let mut p95_by_peer: Vec<Duration> = self.table.load().iter().filter_map(|peer| peer.health.p95()).collect();
        let hedge = self.core.config.hedge_delay.unwrap_or_else(|| LatencyWindow::hedge_delay(&mut p95_by_peer));
        let per_try = LatencyWindow::per_try(&mut p95_by_peer, self.core.config.read_per_try);
        // Relaxed: figures of their own.
        for (cell, delay) in [(&self.hedge_delay_ns, hedge), (&self.read_per_try_ns, per_try)] {
            cell.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// A connection whose other end has answered the greeting.
pub(crate) struct Greeted {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
    /// Who answered.
    pub(crate) hello: Hello,
}

/// Why a peer could not be greeted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It turned us away.
    #[error("{0}")]
    Rejected(RejectReason),
    /// The connection broke, or what came back was no greeting.
    #[error("the greeting failed: {0}")]
    Broken(String),
}

/// Reads exactly one frame; nothing if the stream ends or holds anything else.
async fn read_frame(stream: &mut ReceiveHalf, frame_bytes_max: usize) -> Option<Frame> {
    let mut decoder = mesh_proto::Decoder::new(frame_bytes_max);
    loop {
        if let Some(frame) = decoder.next_frame().ok()? {
            return Some(frame);
        }
        Room::new().make(&mut decoder);
        if stream.read_buf(decoder.buffer()).await.ok()? == 0 {
            return None;
        }
    }
}
