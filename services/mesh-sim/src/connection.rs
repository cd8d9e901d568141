//! A simulated connection: what its two ends share, how each end learns that it is over, and the view of one end.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use mesh::transport::{BoxFuture, Connection, ConnectionLost, PathStats, ReceiveHalf, SendHalf};
use mesh_proto::NodeId;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until},
};

use crate::{
    count,
    network::Network,
    pipe::{Pipe, SimulatedReceive, SimulatedSend},
};

/// The most streams that one end may have open.
const STREAMS_MAX: usize = 64;

/// Datagrams that wait to be read; beyond it new ones are dropped.
const DATAGRAMS_MAX: usize = 1024;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler = 0,
    Accepter = 1,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Accepter,
            Self::Accepter => Self::Dialler,
        }
    }
}

/// A stream as its acceptor gets it: what it writes to, and what it reads from.
pub(crate) type IncomingStream = (Arc<Pipe>, Arc<Pipe>);

/// What the two ends share.
pub(crate) struct Pair {
    pub(crate) network: Arc<Network>,
    ends: [End; 2],
    idle_timeout: Duration,
    pipes: Mutex<Vec<Weak<Pipe>>>,
    /// Wakes `watch`.
    changed: Notify,
}

struct End {
    id: NodeId,
    addr: String,
    streams: Arc<Semaphore>,
    state: Mutex<EndState>,
    changed: Notify,
}

#[derive(Default)]
struct EndState {
    lost: Option<ConnectionLost>,
    /// When this end will notice that it is lost, and what it will think.
    doomed: Option<(Instant, String)>,
    streams: VecDeque<(Instant, IncomingStream)>,
    /// By time of arrival, and number, for those that arrive together.
    datagrams: BTreeMap<(Instant, u64), Bytes>,
    datagrams_sent: u64,
    datagrams_lost: u64,
}

impl Pair {
    pub(crate) fn new(network: Arc<Network>, ends: [(NodeId, String); 2], idle_timeout: Duration) -> Arc<Self> {
        let ends = ends.map(|(id, addr)| End {
            id,
            addr,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            state: Mutex::default(),
            changed: Notify::new(),
        });
        Arc::new(Self { network, ends, idle_timeout, pipes: Mutex::default(), changed: Notify::new() })
    }

    const fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub(crate) fn is_cut(&self, from: Side) -> bool {
        self.network.is_cut(self.end(from).id, self.end(from.other()).id)
    }

    pub(crate) fn stream_delay(&self, from: Side) -> Duration {
        self.network.stream_delay(self.end(from).id, self.end(from.other()).id)
    }

    pub(crate) fn lost(&self, side: Side) -> Option<ConnectionLost> {
        self.end(side).state.lock().lost.clone()
    }

    /// Tells the end `to` of a stream; it sees it at `due`.
    pub(crate) fn announce(&self, to: Side, due: Instant, stream: IncomingStream) {
        let mut state = self.end(to).state.lock();
        if state.lost.is_none() {
            state.streams.push_back((due, stream));
        }
        drop(state);
        self.end(to).changed.notify_waiters();
    }

    /// Closes the end `side`, and tells the other one if that is possible.
    pub(crate) fn close(&self, side: Side, reason: &str) {
        if self.lost(side).is_some() {
            return;
        }
        if self.is_cut(side) {
            return self.vanish(side);
        }
        self.lose(side, "closed here".to_owned());
        self.doom(side.other(), Instant::now() + self.stream_delay(side), format!("closed by the peer: {reason}"));
    }

    /// Takes the end `side` away without a word to the other one. What it has sent into a cut goes with it: nobody sends it again.
    pub(crate) fn vanish(&self, side: Side) {
        if self.is_cut(side) {
            let pipes: Vec<_> = self.pipes.lock().iter().filter_map(Weak::upgrade).collect();
            pipes.iter().filter(|pipe| pipe.from == side).for_each(|pipe| pipe.lose());
        }
        self.lose(side, "closed here".to_owned());
        self.doom(side.other(), Instant::now() + self.idle_timeout, "the peer is silent".to_owned());
    }

    fn doom(&self, side: Side, at: Instant, reason: String) {
        if at <= Instant::now() {
            return self.lose(side, reason);
        }
        let mut state = self.end(side).state.lock();
        if state.doomed.as_ref().is_none_or(|&(earlier, _)| at < earlier) {
            state.doomed = Some((at, reason));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn lose(&self, side: Side, reason: String) {
        let mut state = self.end(side).state.lock();
        if state.lost.is_some() {
            return;
        }
        state.lost = Some(ConnectionLost { reason });
        // Dropped after the lock: the streams' pipes may be the last owners of this pair.
        let unclaimed = (std::mem::take(&mut state.streams), std::mem::take(&mut state.datagrams));
        drop(state);
        drop(unclaimed);
        self.end(side).streams.close();
        self.wake_all();
        self.changed.notify_waiters();
    }

    fn wake_all(&self) {
        for end in &self.ends {
            end.changed.notify_waiters();
        }
        let pipes: Vec<_> = self.pipes.lock().iter().filter_map(Weak::upgrade).collect();
        for pipe in pipes {
            pipe.wake();
        }
    }

    /// Breaks the ends when their time has come, and wakes everybody when a fault came or went. It ends with the
    /// connection, which is over at the latest when nobody holds either end.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut cut_since = None;
        loop {
            let mut network_changed = pin!(self.network.changed.notified());
            let mut changed = pin!(self.changed.notified());
            network_changed.as_mut().enable();
            changed.as_mut().enable();
            let now = Instant::now();
            let is_cut = self.is_cut(Side::Dialler) || self.is_cut(Side::Accepter);
            cut_since = is_cut.then(|| cut_since.unwrap_or(now));
            let mut next = None;
            for side in [Side::Dialler, Side::Accepter] {
                let Some((at, reason)) = self.fate(side, cut_since) else { continue };
                if at <= now {
                    self.lose(side, reason);
                } else {
                    next = Some(next.map_or(at, |next: Instant| next.min(at)));
                }
            }
            if self.lost(Side::Dialler).is_some() && self.lost(Side::Accepter).is_some() {
                return;
            }
            self.wake_all();
            let deadline = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = network_changed => {}
                () = deadline => {}
            }
        }
    }

    /// When and why an end that is not lost yet will be.
    fn fate(&self, side: Side, cut_since: Option<Instant>) -> Option<(Instant, String)> {
        let state = self.end(side).state.lock();
        if state.lost.is_some() {
            return None;
        }
        let silence = cut_since.map(|since| (since + self.idle_timeout, "the peer is silent".to_owned()));
        [state.doomed.clone(), silence].into_iter().flatten().min_by_key(|&(at, _)| at)
    }

    fn new_pipe(self: &Arc<Self>, from: Side, slot: &Arc<tokio::sync::OwnedSemaphorePermit>) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe::new(Arc::clone(self), from, Arc::clone(slot)));
        let mut pipes = self.pipes.lock();
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.push(Arc::downgrade(&pipe));
        drop(pipes);
        pipe
    }

    /// Waits at `side` until `take` finds something, told what time it is and whether the other side is cut off. It
    /// says otherwise when to look again.
    async fn wait<T>(
        &self,
        side: Side,
        mut take: impl FnMut(&mut EndState, Instant, bool) -> Result<T, Option<Instant>> + Send,
    ) -> Result<T, ConnectionLost> {
        loop {
            let mut changed = pin!(self.end(side).changed.notified());
            changed.as_mut().enable();
            let is_cut = self.is_cut(side.other());
            let due = {
                let mut state = self.end(side).state.lock();
                match take(&mut state, Instant::now(), is_cut) {
                    Ok(taken) => return Ok(taken),
                    Err(due) => match &state.lost {
                        Some(lost) => return Err(lost.clone()),
                        None => due,
                    },
                }
            };
            match due {
                Some(due) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }
}

/// Keeps one end alive: the connection and each half of its streams hold it, and when the last one goes, it is closed.
pub(crate) struct Handle {
    pub(crate) pair: Arc<Pair>,
    pub(crate) side: Side,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.pair.close(self.side, "dropped");
    }
}

/// One end's view of a connection.
pub(crate) struct SimulatedConnection(Arc<Handle>);

impl SimulatedConnection {
    /// The views of the dialler and of the accepter.
    pub(crate) fn both(pair: &Arc<Pair>) -> [Arc<Self>; 2] {
        [Side::Dialler, Side::Accepter].map(|side| Arc::new(Self(Arc::new(Handle { pair: Arc::clone(pair), side }))))
    }

    fn remote(&self) -> &End {
        self.0.pair.end(self.0.side.other())
    }
}

impl Connection for SimulatedConnection {
    fn peer(&self) -> NodeId {
        self.remote().id
    }

    fn remote_addr(&self) -> String {
        self.remote().addr.clone()
    }

    fn open_stream(&self) -> BoxFuture<'_, Result<(SendHalf, ReceiveHalf), ConnectionLost>> {
        Box::pin(async {
            let Handle { pair, side } = &*self.0;
            let closed = || pair.lost(*side).unwrap_or_else(|| ConnectionLost { reason: "closed here".to_owned() });
            let slot = Arc::clone(&pair.end(*side).streams).acquire_owned().await.map_err(|_| closed())?;
            let slot = Arc::new(slot);
            let (outgoing, incoming) = (pair.new_pipe(*side, &slot), pair.new_pipe(side.other(), &slot));
            let announcement = (Arc::clone(&incoming), Arc::clone(&outgoing));
            let send = SimulatedSend::new(outgoing, Some(announcement), Arc::clone(&self.0));
            let receive = SimulatedReceive::new(incoming, Arc::clone(&self.0));
            Ok((Box::new(send) as SendHalf, Box::new(receive) as ReceiveHalf))
        })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<(SendHalf, ReceiveHalf), ConnectionLost>> {
        Box::pin(async {
            let take = |state: &mut EndState, now: Instant, is_cut: bool| match state.streams.front() {
                Some(&(due, _)) if due <= now && !is_cut => state.streams.pop_front().ok_or(None),
                // A cut that ends wakes us.
                front => Err(front.map(|&(due, _)| due).filter(|_| !is_cut)),
            };
            let (_, (outgoing, incoming)) = self.0.pair.wait(self.0.side, take).await?;
            let send = SimulatedSend::new(outgoing, None, Arc::clone(&self.0));
            let receive = SimulatedReceive::new(incoming, Arc::clone(&self.0));
            Ok((Box::new(send) as SendHalf, Box::new(receive) as ReceiveHalf))
        })
    }

    fn send_datagram(&self, datagram: Bytes) {
        let Handle { pair, side } = &*self.0;
        let delays = pair.network.datagram_delays(pair.end(*side).id, self.remote().id);
        let number = {
            let mut state = pair.end(*side).state.lock();
            state.datagrams_sent += 1;
            state.datagrams_lost += u64::from(delays.is_empty());
            state.datagrams_sent
        };
        if pair.lost(*side).is_some() {
            return;
        }
        let done = pair.network.datagram_done();
        let mut state = self.remote().state.lock();
        for (copy, delay) in (0..).zip(delays) {
            if state.lost.is_none() && state.datagrams.len() < DATAGRAMS_MAX {
                let arrives = Instant::now() + delay;
                let place = (done.map_or(arrives, |done| done.max(arrives)), number * 2 + copy);
                if state.datagrams.last_key_value().is_some_and(|(last, _)| *last > place) {
                    count(&pair.network.traces.overtaken);
                }
                state.datagrams.insert(place, datagram.clone());
            }
        }
        drop(state);
        self.remote().changed.notify_waiters();
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionLost>> {
        let take = |state: &mut EndState, now, _is_cut| match state.datagrams.first_entry() {
            Some(first) if first.key().0 <= now => Ok(first.remove()),
            first => Err(first.map(|first| first.key().0)),
        };
        Box::pin(self.0.pair.wait(self.0.side, take))
    }

    fn closed(&self) -> BoxFuture<'_, ConnectionLost> {
        Box::pin(async {
            let take = |state: &mut EndState, _now, _is_cut| state.lost.clone().ok_or(None);
            self.0.pair.wait(self.0.side, take).await.unwrap_or_else(|lost| lost)
        })
    }

    fn close(&self, reason: &str) {
        self.0.pair.close(self.0.side, reason);
    }

    fn path(&self) -> PathStats {
        let Handle { pair, side } = &*self.0;
        let (here, there) = (pair.end(*side).id, self.remote().id);
        let state = pair.end(*side).state.lock();
        PathStats {
            rtt: pair.network.mean_delay(here, there) + pair.network.mean_delay(there, here),
            sent_packets: state.datagrams_sent,
            lost_packets: state.datagrams_lost,
            ..PathStats::default()
        }
    }
}
