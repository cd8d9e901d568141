//! One connection to a peer, as seen by the side that dialled it: requests go out many to a write, replies come back in any
//! order and complete the calls that wait for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mesh_proto::{
    ControlReply, ControlRequest, Decoder, Event, Frame, FrameBody, KeyHash, LegFailure, LegQueues, Micros, Monotonic,
    ReadAnswer, Record, RecordLimits, RequestId, RingHash, TraceContext, WriteAnswer, encode_into, encode_write,
    encode_write_head,
};
use parking_lot::Mutex;
use slab::Slab;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, oneshot},
    time::timeout,
};

use crate::{
    call::{ReadCall, WriteCall},
    core::{Core, count},
    links::{
        bounds::{APART_AT_ONCE_MAX, CONTROL_TIMEOUT, INLINE_VALUE_BYTES_MAX, Room, UNREAD_MAX, frame_bytes_max},
        health::Health,
    },
    transport::{Connection, ReceiveHalf, SendHalf},
};

/// Buffers larger than this are given back after use instead of being kept.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

const INDEX_BITS: u32 = 16;

/// Who waits for a reply.
pub(crate) enum Waiter {
    Read {
        call: Arc<ReadCall>,
        leg: usize,
    },
    Write {
        call: Arc<WriteCall>,
        leg: usize,
    },
    Control(oneshot::Sender<FrameBody>),
    Hint {
        reply: oneshot::Sender<WriteAnswer>,
        hash: KeyHash,
    },
    /// A node that is joining hears of a write; nothing depends on whether it does.
    Joining,
    /// The read was decided without this leg; its answer still tells how fast the peer is.
    Cancelled,
}

struct Pending {
    waiter: Waiter,
    generation: u32,
    sent: Monotonic,
    deadline: Monotonic,
    /// Whether its lateness has been held against the peer already.
    late: bool,
}

struct LinkState {
    outbox: BytesMut,
    writer: Option<Waker>,
    pending: Slab<Pending>,
    generation: u32,
    closed: bool,
}

/// A live connection to a peer.
pub(crate) struct Link {
    core: Arc<Core>,
    pub(crate) peer: Arc<Health>,
    pub(crate) connection: Arc<dyn Connection>,
    /// What the peer takes.
    pub(crate) limits: RecordLimits,
    state: Mutex<LinkState>,
    in_flight: AtomicUsize,
    apart_bytes: AtomicUsize,
    apart_turns: Semaphore,
}

impl Link {
    pub(crate) fn new(
        core: Arc<Core>,
        peer: Arc<Health>,
        connection: Arc<dyn Connection>,
        limits: RecordLimits,
    ) -> Arc<Self> {
        let state =
            LinkState { outbox: BytesMut::new(), writer: None, pending: Slab::new(), generation: 0, closed: false };
        Arc::new(Self {
            core,
            peer,
            connection,
            limits,
            state: Mutex::new(state),
            in_flight: AtomicUsize::new(0),
            apart_bytes: AtomicUsize::new(0),
            apart_turns: Semaphore::new(APART_AT_ONCE_MAX),
        })
    }

    pub(crate) fn in_flight(&self) -> usize {
        // Relaxed: a hint for steering and for people.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Queues a request. `encode` writes its frame.
    pub(crate) fn request(
        &self,
        waiter: Waiter,
        now: Monotonic,
        deadline: Monotonic,
        encode: impl FnOnce(&mut BytesMut, RequestId),
    ) -> Result<RequestId, LegFailure> {
        let mut state = self.state.lock();
        if state.closed
            || state.pending.len() >= self.core.config.peer_in_flight_max.min(1 << INDEX_BITS)
            || state.outbox.len() >= self.core.config.peer_queue_bytes_max
        {
            return Err(LegFailure::NotSent);
        }
        let id = state.insert(waiter, now, deadline);
        encode(&mut state.outbox, id);
        state.wake_writer();
        self.in_flight.store(state.pending.len(), Ordering::Relaxed);
        Ok(id)
    }

    /// Queues a write; a large one for a stream of its own.
    pub(crate) fn send_write(
        self: &Arc<Self>,
        waiter: Waiter,
        now: Monotonic,
        deadline: Monotonic,
        trace: Option<TraceContext>,
        (ring, record): (RingHash, &Record),
    ) -> Result<RequestId, LegFailure> {
        if record.value_bytes() <= INLINE_VALUE_BYTES_MAX {
            return self.request(waiter, now, deadline, |out, id| encode_write(out, id, ring, trace, record));
        }
        let id = {
            let mut state = self.state.lock();
            if state.closed
                || state.pending.len() >= self.core.config.peer_in_flight_max.min(1 << INDEX_BITS)
                || self.apart_bytes.load(Ordering::Relaxed) >= self.core.config.large_bytes_max
            {
                return Err(LegFailure::NotSent);
            }
            state.insert(waiter, now, deadline)
        };
        let mut head = BytesMut::new();
        let value = encode_write_head(&mut head, id, ring, trace, record);
        let frame = [head.freeze(), value];
        self.apart_bytes.fetch_add(frame.iter().map(Bytes::len).sum(), Ordering::Relaxed);
        tokio::spawn(Arc::clone(self).send_apart(id, frame));
        Ok(id)
    }

    /// Sends a large request when its turn comes, if anybody still waits for the reply, which it reads.
    async fn send_apart(self: Arc<Self>, id: RequestId, frame: [Bytes; 2]) {
        let bytes = frame.iter().map(Bytes::len).sum();
        // Never closed.
        let turn = self.apart_turns.acquire().await;
        // A failure here is a failed connection: the task that notices first fails all that is pending.
        let sent =
            if self.is_wanted(id) { timeout(UNREAD_MAX, self.connection.send_apart(frame)).await.ok() } else { None };
        self.apart_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(Ok(receive)) = sent {
            // A peer that is paused answers nobody, and takes the turns of all that are not late yet.
            let _ = timeout(self.core.config.write_timeout, self.read_replies_apart(receive)).await;
        }
        drop(turn);
    }

    /// Whether the reply to a request that was not sent yet is waited for. One that its caller has given up fails as not sent.
    fn is_wanted(&self, id: RequestId) -> bool {
        let now = self.core.clock.now();
        let is_wanted = self.state.lock().find(id).map(|pending| match &pending.waiter {
            Waiter::Write { call, .. } => !call.is_abandoned(),
            _ => true,
        });
        if is_wanted == Some(false)
            && let Some((waiter, _)) = self.take(id, now)
        {
            self.fail_all(vec![waiter], now, LegFailure::NotSent);
        }
        is_wanted == Some(true)
    }

    /// Queues a frame that is not answered.
    pub(crate) fn tell(&self, frame: &Frame) {
        let mut state = self.state.lock();
        if !state.closed && state.outbox.len() < self.core.config.peer_queue_bytes_max {
            encode_into(frame, &mut state.outbox);
            state.wake_writer();
        }
    }

    /// Sends a control request and waits for its reply; nothing if the connection broke or the time is up.
    pub(crate) async fn control(&self, request: ControlRequest, timeout: Duration) -> Option<(FrameBody, Duration)> {
        let (sender, receiver) = oneshot::channel();
        let now = self.core.clock.now();
        let ring = self.core.roster.ring_hash();
        self.request(Waiter::Control(sender), now, now + timeout, |outbox, request_id| {
            encode_into(&Frame::new(request_id, ring, FrameBody::Control(request)), outbox);
        })
        .ok()?;
        let reply = receiver.await.ok()?;
        Some((reply, self.core.clock.now().since(now)))
    }

    /// Tells the peer whom this node knows, and learns whom the peer knows; whether it has answered.
    pub(crate) async fn exchange_members(&self) -> bool {
        let request = ControlRequest::Members(self.core.roster.members());
        match self.control(request, CONTROL_TIMEOUT).await {
            Some((FrameBody::ControlReply(ControlReply::Members(members)), _)) => {
                self.core.handle_members(&members);
                true
            }
            _ => false,
        }
    }

    /// Sends a hint as a write of its own. The reply never comes if the connection breaks or the time is up; nothing if it
    /// could not be sent.
    pub(crate) fn write(self: &Arc<Self>, record: &Record) -> Option<oneshot::Receiver<WriteAnswer>> {
        let (reply, receiver) = oneshot::channel();
        let now = self.core.clock.now();
        let deadline = now + self.core.config.write_timeout;
        let ring = self.core.roster.ring_hash();
        let waiter = Waiter::Hint { reply, hash: record.hash };
        self.send_write(waiter, now, deadline, None, (ring, record)).ok().map(|_| receiver)
    }

    /// The call was decided without this leg.
    pub(crate) fn cancel(&self, id: RequestId) {
        let mut state = self.state.lock();
        if let Some(pending) = state.find(id) {
            pending.waiter = Waiter::Cancelled;
        }
    }

    /// Writes what is queued until the connection breaks: all that has gathered goes out in one write.
    pub(crate) async fn write_requests(&self, mut stream: SendHalf) {
        let mut batch = BytesMut::new();
        loop {
            let open = std::future::poll_fn(|context| {
                let mut state = self.state.lock();
                if state.closed {
                    return Poll::Ready(false);
                }
                if state.outbox.is_empty() {
                    state.writer = Some(context.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut state.outbox, &mut batch);
                Poll::Ready(true)
            })
            .await;
            if !open {
                return;
            }
            match timeout(UNREAD_MAX, stream.write_all(&batch)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return self.violated(format!("requests were not read for {} s", UNREAD_MAX.as_secs())),
            }
            batch.clear();
            if batch.capacity() > BUFFER_BYTES_KEPT {
                batch = BytesMut::new();
            }
        }
    }

    /// Reads replies from the stream of requests until it ends or breaks.
    pub(crate) async fn read_replies(&self, stream: ReceiveHalf) {
        self.read_frames(stream, |_| true).await;
    }

    /// Reads the replies on a stream of their own. It is dropped, and what is left of it not sent, where nobody waits for the
    /// next reply any more.
    pub(crate) async fn read_replies_apart(&self, stream: ReceiveHalf) {
        self.read_frames(stream, |id| {
            let is_cancelled = |pending: &mut Pending| matches!(pending.waiter, Waiter::Cancelled);
            let is_cancelled = self.state.lock().find(id).map(is_cancelled);
            if is_cancelled == Some(true)
                && let now = self.core.clock.now()
                && let Some((_, took)) = self.take(id, now)
            {
                self.peer.record_read(now, took);
            }
            is_cancelled == Some(false)
        })
        .await;
    }

    async fn read_frames(&self, mut stream: ReceiveHalf, is_wanted: impl Fn(RequestId) -> bool) {
        let (mut decoder, mut room) = (Decoder::new(frame_bytes_max(&self.core.config)), Room::new());
        loop {
            room.make(&mut decoder);
            match stream.read_buf(decoder.buffer()).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => room.handle_read(bytes),
            }
            let waited = self.connection.waited().unwrap_or_default().at_most.into();
            if decoder.missing_bytes() > 0 && decoder.next_request().is_some_and(|id| !is_wanted(id)) {
                return;
            }
            loop {
                let violation = match decoder.next_frame() {
                    Ok(None) => break,
                    Ok(Some(frame)) => self.handle_reply(frame, waited).err(),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(reason) = violation {
                    self.violated(reason);
                    return;
                }
            }
        }
    }

    /// The reply has `waited` here.
    fn handle_reply(&self, frame: Frame, waited: Micros) -> Result<(), String> {
        let now = self.core.clock.now();
        let queues = LegQueues { peer: frame.waited, own: waited };
        let Some((waiter, took)) = self.take(frame.request, now) else {
            // An answer after its deadline: nobody waits for it any more.
            return Ok(());
        };
        match (waiter, frame.body) {
            (Waiter::Read { call, leg }, FrameBody::ReadReply { answer, .. }) => {
                self.peer.record_read(now, took);
                if let ReadAnswer::WrongRing(members) = &answer {
                    self.core.handle_members(members);
                }
                call.handle_answer(now, (leg, queues), answer);
            }
            (Waiter::Write { call, leg }, FrameBody::WriteReply { answer, hash }) => {
                if hash != call.record.hash {
                    return Err("a write was answered for another key".to_owned());
                }
                self.peer.record_write(now, took);
                if let WriteAnswer::WrongRing(members) = &answer {
                    self.core.handle_members(members);
                }
                call.handle_answer(&self.core, now, (leg, queues), &answer);
            }
            (Waiter::Hint { reply, hash }, FrameBody::WriteReply { answer, hash: answered }) => {
                if hash != answered {
                    return Err("a hint was answered for another key".to_owned());
                }
                if let WriteAnswer::WrongRing(members) = &answer {
                    self.core.handle_members(members);
                }
                // Its sender may be gone, with the node.
                let _ = reply.send(answer);
            }
            (Waiter::Control(reply), body @ (FrameBody::ControlReply(_) | FrameBody::Page(_))) => {
                // The caller may have given up.
                let _ = reply.send(body);
            }
            (Waiter::Joining, FrameBody::WriteReply { .. }) => {}
            (Waiter::Cancelled, _) => self.peer.record_read(now, took),
            _ => return Err("a reply of another kind than its request".to_owned()),
        }
        Ok(())
    }

    fn take(&self, id: RequestId, now: Monotonic) -> Option<(Waiter, Duration)> {
        let mut state = self.state.lock();
        state.find(id)?;
        let pending = state.pending.remove((id.0 & ((1 << INDEX_BITS) - 1)) as usize);
        self.in_flight.store(state.pending.len(), Ordering::Relaxed);
        Some((pending.waiter, now.since(pending.sent)))
    }

    /// Gives up on what is past its deadline, and holds what is slow against the peer. Called every few milliseconds.
    pub(crate) fn sweep(&self, now: Monotonic) {
        let mut expired = Vec::new();
        {
            let mut state = self.state.lock();
            let per_try = self.core.config.read_per_try;
            let mut gone = Vec::new();
            for (index, pending) in &mut state.pending {
                if !pending.late && now.since(pending.sent) > per_try && !matches!(pending.waiter, Waiter::Control(_)) {
                    pending.late = true;
                    self.peer.record_late(now, now.since(pending.sent));
                }
                if pending.deadline <= now {
                    gone.push(index);
                }
            }
            expired.extend(gone.into_iter().map(|index| state.pending.remove(index).waiter));
            self.in_flight.store(state.pending.len(), Ordering::Relaxed);
        }
        self.fail_all(expired, now, LegFailure::TimedOut);
    }

    /// The connection is gone: everything in flight fails.
    pub(crate) fn close(&self) {
        let waiters: Vec<Waiter> = {
            let mut state = self.state.lock();
            state.closed = true;
            state.outbox = BytesMut::new();
            state.wake_writer();
            self.in_flight.store(0, Ordering::Relaxed);
            std::mem::take(&mut state.pending).into_iter().map(|(_, pending)| pending.waiter).collect()
        };
        self.fail_all(waiters, self.core.clock.now(), LegFailure::Disconnected);
    }

    fn fail_all(&self, waiters: Vec<Waiter>, now: Monotonic, failure: LegFailure) {
        for waiter in waiters {
            match waiter {
                Waiter::Read { call, leg } => call.handle_failure(now, leg, failure),
                Waiter::Write { call, leg } => call.handle_failure(&self.core, now, leg, failure),
                Waiter::Control(_) | Waiter::Hint { .. } | Waiter::Joining | Waiter::Cancelled => {}
            }
        }
    }

    fn violated(&self, reason: String) {
        count(&self.core.counters.protocol_violations);
        self.connection.close(&reason);
        self.core.observer.event(&Event::ProtocolViolation { peer: self.peer.id, reason });
    }
}

impl LinkState {
    fn insert(&mut self, waiter: Waiter, sent: Monotonic, deadline: Monotonic) -> RequestId {
        self.generation = self.generation.wrapping_add(1) & ((1 << (u32::BITS - INDEX_BITS)) - 1);
        let generation = self.generation;
        let index = self.pending.insert(Pending { waiter, generation, sent, deadline, late: false });
        // Fewer than 2^INDEX_BITS are pending, so an index fits.
        RequestId((generation << INDEX_BITS) | u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn find(&mut self, id: RequestId) -> Option<&mut Pending> {
        let (index, generation) = ((id.0 & ((1 << INDEX_BITS) - 1)) as usize, id.0 >> INDEX_BITS);
        self.pending.get_mut(index).filter(|pending| pending.generation == generation)
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
