//! The other half of a connection: what peers ask of this node, answered in the order it came, many replies to a write.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh_proto::{
    ControlReply, ControlRequest, Decoder, DigestPage, Event, Frame, FrameBody, Hello, KeyHash, MemberState, Monotonic,
    Mutant, NodeId, ReadAnswer, RecordLimits, RejectReason, ReplyHead, RequestId, ServeOutcome, ServeRecord, Slot,
    SlotPage, TraceContext, Version, WriteAnswer, encode_into, encode_read_reply, encode_read_reply_head,
    encode_write_reply,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    Config,
    core::{Core, count},
    links::bounds::{APART_AT_ONCE_MAX, INLINE_VALUE_BYTES_MAX, PAGE_BYTES_MAX, Room, UNREAD_MAX, frame_bytes_max},
    transport::{Accepted, Connection, Endpoint, ReceiveHalf, SendHalf, Waited},
};

/// Replies are written at the latest when this many bytes have gathered.
const REPLIES_BYTES: usize = 256 << 10;

/// What a key hash and a version take on the wire.
const VERSION_BYTES: usize = 8 + 16;

/// How long a peer may take from its connection to its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// How many large replies may be under way on streams of their own, for one stream of requests, if there is memory for them.
/// Further ones go where the small ones go, and hold back a peer that asks for them without reading.
const REPLIES_APART_MAX: usize = 64;

fn replies_apart_max(config: &Config) -> usize {
    (config.large_bytes_max / config.value_bytes_max.max(1)).clamp(1, REPLIES_APART_MAX)
}

/// Accepts connections until the endpoint closes.
pub(crate) async fn accept(core: Arc<Core>, endpoint: Arc<dyn Endpoint>) {
    while let Some(accepted) = endpoint.accept().await {
        match accepted {
            Accepted::Connection(connection) => {
                tokio::spawn(serve_connection(Arc::clone(&core), connection));
            }
            Accepted::Refused { addr, reason } => {
                count(&core.counters.peers_refused);
                core.observer.event(&Event::PeerRefused { addr, reason });
            }
        }
    }
}

async fn serve_connection(core: Arc<Core>, connection: Arc<dyn Connection>) {
    let peer = connection.peer();
    let ended = tokio::select! {
        biased;
        () = core.stopped.cancelled() => Ok(()),
        served = serve_streams(&core, &connection) => served,
        () = receive_gossip(&core, &connection) => Ok(()),
    };
    core.routes.forget_accepted(peer, &connection);
    if let Err(reason) = ended {
        count(&core.counters.protocol_violations);
        connection.close(&reason);
        core.observer.event(&Event::ProtocolViolation { peer, reason });
    }
}

async fn receive_gossip(core: &Arc<Core>, connection: &Arc<dyn Connection>) {
    let peer = connection.peer();
    while let Ok(datagram) = connection.receive_datagram().await {
        core.routes.set_accepted(peer, connection);
        if !core.handle_gossip(peer, &datagram) {
            // Gossip is lossy by nature, so a broken datagram costs the connection nothing but a count.
            count(&core.counters.protocol_violations);
        }
    }
}

async fn serve_streams(core: &Arc<Core>, connection: &Arc<dyn Connection>) -> Result<(), String> {
    let (violated, mut violation) = tokio::sync::mpsc::channel(1);
    let greeting = timeout(GREETING_TIMEOUT, greet(core, connection)).await;
    let Ok(greeting) = greeting else { return Err("no greeting in time".to_owned()) };
    let Some((send, receive, decoder, limits)) = greeting? else { return Ok(()) };
    let mut next = Some((send, receive, decoder));
    loop {
        if let Some((send, receive, decoder)) = next.take() {
            let apart = Arc::new(Semaphore::new(replies_apart_max(&core.config)));
            let apart_turns = Arc::new(Semaphore::new(APART_AT_ONCE_MAX));
            let (core, connection) = (Arc::clone(core), Arc::clone(connection));
            let stream =
                RequestStream { core, connection, limits, send, apart, apart_turns, waited: Waited::default() };
            let violated = violated.clone();
            tokio::spawn(async move {
                if let Err(reason) = stream.serve(receive, decoder).await {
                    // A full channel holds a violation already.
                    let _ = violated.try_send(reason);
                }
            });
        }
        tokio::select! {
            biased;
            reason = violation.recv() => return Err(reason.unwrap_or_default()),
            accepted = connection.accept_stream() => match accepted {
                Ok((send, receive)) => {
                    next = Some((send, receive, Decoder::new(frame_bytes_max(&core.config))));
                }
                Err(_) => return Ok(()),
            },
        }
    }
}

/// Waits for the first stream's greeting and answers it. Nothing if the connection broke or the peer was rejected.
async fn greet(
    core: &Arc<Core>,
    connection: &Arc<dyn Connection>,
) -> Result<Option<(SendHalf, ReceiveHalf, Decoder, RecordLimits)>, String> {
    let Ok((mut send, mut receive)) = connection.accept_stream().await else { return Ok(None) };
    let mut decoder = Decoder::new(frame_bytes_max(&core.config));
    let hello = loop {
        match decoder.next_frame().map_err(|error| error.to_string())? {
            Some(Frame { body: FrameBody::Hello(hello), .. }) => break hello,
            Some(_) => return Err("the first frame is not a greeting".to_owned()),
            None => {}
        }
        Room::new().make(&mut decoder);
        match receive.read_buf(decoder.buffer()).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    };
    core.unpaused().await;
    let verdict = judge(core, connection.peer(), &hello);
    let refused = verdict.as_ref().err().map(ToString::to_string);
    let mut frame = BytesMut::new();
    encode_into(&core.frame(FrameBody::HelloReply(verdict)), &mut frame);
    if send.write_all(&frame).await.is_err() || send.flush().await.is_err() {
        return Ok(None);
    }
    let Some(reason) = refused else {
        core.handle_greeting(hello.id, &hello);
        return Ok(Some((send, receive, decoder, hello.limits)));
    };
    count(&core.counters.peers_refused);
    core.observer.event(&Event::PeerRefused { addr: hello.addr, reason });
    // The dialler closes once it has read the verdict.
    let _ = timeout(GREETING_TIMEOUT, connection.closed()).await;
    Ok(None)
}

/// Whether a peer that greets like this may stay.
fn judge(core: &Core, authenticated: NodeId, hello: &Hello) -> Result<Hello, RejectReason> {
    let ours = core.hello();
    if hello.protocol != Hello::PROTOCOL {
        return Err(RejectReason::Protocol { theirs: Hello::PROTOCOL });
    }
    if hello.id != authenticated {
        return Err(RejectReason::Identity);
    }
    if hello.mesh != ours.mesh && !Mutant::MeshesMerge.is_planted() {
        return Err(RejectReason::Mesh { name: ours.mesh });
    }
    if hello.id == core.id {
        let itself = hello.start == core.start;
        return Err(if itself { RejectReason::Itself } else { RejectReason::DuplicateId { addr: ours.addr } });
    }
    if (hello.replicas, hello.concern) != (ours.replicas, ours.concern) {
        return Err(RejectReason::Concern { replicas: ours.replicas, concern: ours.concern });
    }
    let members = core.roster.members.borrow();
    let known = members.iter().find(|member| member.id == hello.id && member.addr != hello.addr);
    match known {
        Some(member) if member.state == MemberState::Alive => {
            Err(RejectReason::DuplicateId { addr: member.addr.clone() })
        }
        _ => Ok(ours),
    }
}

/// One stream of requests.
struct RequestStream {
    core: Arc<Core>,
    connection: Arc<dyn Connection>,
    /// What the peer takes.
    limits: RecordLimits,
    send: SendHalf,
    /// A permit for each large reply under way.
    apart: Arc<Semaphore>,
    /// A permit for each of them that is being sent.
    apart_turns: Arc<Semaphore>,
    /// How long what was read last had lain in this host's queue; zero if that is not known.
    waited: Waited,
}

impl RequestStream {
    /// Answers until the stream ends; an error is a violation of the protocol.
    async fn serve(mut self, mut receive: ReceiveHalf, mut decoder: Decoder) -> Result<(), String> {
        let (mut replies, mut room) = (BytesMut::new(), Room::new());
        loop {
            while let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
                self.answer(frame, &mut replies)?;
                if replies.len() >= REPLIES_BYTES && !self.write(&mut replies).await? {
                    return Ok(());
                }
            }
            if !replies.is_empty() && !self.write(&mut replies).await? {
                return Ok(());
            }
            room.make(&mut decoder);
            match receive.read_buf(decoder.buffer()).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(bytes) => room.handle_read(bytes),
            }
            self.waited = self.connection.waited().unwrap_or_default();
            self.core.unpaused().await;
        }
    }

    /// Whether the stream is still open; an error if the peer does not read.
    async fn write(&mut self, replies: &mut BytesMut) -> Result<bool, String> {
        let written = timeout(UNREAD_MAX, self.send.write_all(replies)).await;
        replies.clear();
        match written {
            Ok(written) => Ok(written.is_ok()),
            Err(_) => Err(format!("replies were not read for {} s", UNREAD_MAX.as_secs())),
        }
    }

    fn answer(&self, frame: Frame, replies: &mut BytesMut) -> Result<(), String> {
        let (core, request, theirs) = (&*self.core, frame.request, frame.ring);
        let ring = core.roster.ring();
        let reply = ReplyHead { request, ring: ring.hash(), waited: self.waited.at_most.into() };
        // The clock is read for traced legs only.
        let traced = frame.trace.map(|trace| (trace, core.clock.now()));
        match frame.body {
            FrameBody::Read { hash, key } => {
                let answer = match core.read_replica_in(theirs, Slot::of(hash), hash, &key) {
                    // It would break the connection. What no quorum of owners could take was never acknowledged.
                    ReadAnswer::Value { value, .. } if value.len() as u64 > self.limits.value_bytes_max => {
                        ReadAnswer::Unknown
                    }
                    answer => answer,
                };
                match &answer {
                    ReadAnswer::Value { value, .. }
                        if value.len() > INLINE_VALUE_BYTES_MAX
                            && let Ok(permit) = Arc::clone(&self.apart).try_acquire_owned() =>
                    {
                        let mut head = BytesMut::new();
                        let value = encode_read_reply_head(&mut head, &reply, hash, &answer);
                        self.answer_apart([head.freeze(), value], permit);
                    }
                    _ => encode_read_reply(replies, &reply, hash, &answer),
                }
                if let Some(traced) = traced {
                    self.served(traced, hash, LegAnswer::read(&answer));
                }
            }
            FrameBody::Write(record) => {
                let answer = core.write_replica_in(theirs, Some(self.connection.peer()), &record);
                encode_write_reply(replies, &reply, record.hash, &answer);
                if let Some(traced) = traced {
                    self.served(traced, record.hash, LegAnswer::write(&answer, record.version));
                }
            }
            FrameBody::Control(control) => {
                let mut body = answer_control(core, self.connection.peer(), theirs == ring.hash(), control);
                if let FrameBody::Page(page) = &mut body {
                    page.records.retain(|record| self.limits.admit(record));
                }
                if request != RequestId::default() {
                    encode_into(&Frame::new(request, core.roster.ring_hash(), body), replies);
                }
            }
            FrameBody::Hello(_)
            | FrameBody::HelloReply(_)
            | FrameBody::ReadReply { .. }
            | FrameBody::WriteReply { .. }
            | FrameBody::ControlReply(_)
            | FrameBody::Page(_) => return Err("a frame that is no request".to_owned()),
        }
        Ok(())
    }

    /// Tells of a leg that carries a trace.
    fn served(&self, (trace, started): (TraceContext, Monotonic), hash: KeyHash, answered: LegAnswer) {
        let LegAnswer { is_write, outcome, version } = answered;
        let peer = self.connection.peer();
        let (took, waited) = (self.core.clock.now().since(started), self.waited.at_least.into());
        let record = ServeRecord { peer, trace, is_write, outcome, hash, version, started, took, waited };
        self.core.observer.served(&record);
    }

    /// Sends a large reply on a stream of its own when its turn comes.
    fn answer_apart(&self, reply: [Bytes; 2], permit: OwnedSemaphorePermit) {
        let (connection, turns) = (Arc::clone(&self.connection), Arc::clone(&self.apart_turns));
        tokio::spawn(async move {
            let sent = async {
                let _turn = turns.acquire().await;
                // If it fails the connection is gone, and the asker knows; or the asker does not want it any more.
                let _ = connection.send_apart(reply).await;
            };
            // Who asked has given up long before.
            let _ = timeout(UNREAD_MAX, sent).await;
            drop(permit);
        });
    }
}

/// A peer has given up hints for this node. Where there are more members than replicas it may have coordinated writes of slots
/// that it does not own, so what was missed is with others.
fn compare_with(core: &Core, peer: NodeId) {
    let ring = core.roster.ring();
    if ring.members().len() > core.config.replicas.get() {
        core.compare_now(ring.members().iter().map(|(member, _)| *member));
    } else {
        core.compare_now([peer]);
    }
}

/// Answers a control request. What concerns slots is answered only if both sides have the same ring: only then does every
/// later write of those slots go to the asker as well.
fn answer_control(core: &Core, peer: NodeId, same_ring: bool, request: ControlRequest) -> FrameBody {
    let reply = match request {
        ControlRequest::Members(members) => {
            core.handle_members(&members);
            ControlReply::Members(core.roster.members())
        }
        ControlRequest::CompareWithMe => {
            compare_with(core, peer);
            ControlReply::Done
        }
        ControlRequest::Forget { id } => {
            core.forget(id);
            ControlReply::Done
        }
        ControlRequest::KeepTrace(trace) => {
            core.observer.keep_trace(u128::from_be_bytes(trace));
            ControlReply::Done
        }
        ControlRequest::Reached { start } if core.reach.can_send(peer, start) => ControlReply::Done,
        ControlRequest::Reached { .. } => ControlReply::Refused,
        _ if !same_ring => ControlReply::Refused,
        ControlRequest::HandedOver { incarnation } if core.has_taken_over(peer, incarnation) => ControlReply::Done,
        ControlRequest::HandedOver { .. } => ControlReply::Refused,
        ControlRequest::InSync => ControlReply::InSync(core.replica.sync.words()),
        ControlRequest::Digests { first, count } => {
            let digests =
                core.replica.store.digests().into_iter().skip(first.index()).take(usize::from(count)).collect();
            ControlReply::Digests(DigestPage { first, digests })
        }
        ControlRequest::Versions { slots } => {
            let versions = slots.into_iter().map(|slot| (slot, core.replica.store.versions(slot)));
            let (mut listed, mut entries) = (Vec::new(), 0);
            for (slot, of_slot) in versions {
                entries += of_slot.len();
                if entries * VERSION_BYTES > PAGE_BYTES_MAX {
                    // The asker pulls page by page instead.
                    return FrameBody::ControlReply(ControlReply::Refused);
                }
                listed.push((slot, of_slot));
            }
            ControlReply::Versions(listed)
        }
        ControlRequest::PullKeys { slot, hashes, bytes_max } => {
            let (records, next) = core.replica.store.page_of(slot, &hashes, (bytes_max as usize).min(PAGE_BYTES_MAX));
            return FrameBody::Page(SlotPage { slot, records, next });
        }
        ControlRequest::Pull { slot, after, bytes_max } => {
            let (records, next) = core.replica.store.page(slot, after, (bytes_max as usize).min(PAGE_BYTES_MAX));
            return FrameBody::Page(SlotPage { slot, records, next });
        }
    };
    FrameBody::ControlReply(reply)
}

/// What a replica said, in the words of the flight record.
struct LegAnswer {
    is_write: bool,
    outcome: ServeOutcome,
    version: Option<Version>,
}

impl LegAnswer {
    fn read(answer: &ReadAnswer) -> Self {
        let (outcome, version) = match answer {
            ReadAnswer::Value { version, .. } => (ServeOutcome::Hit, Some(*version)),
            ReadAnswer::Gone { version } => (ServeOutcome::Gone, Some(*version)),
            ReadAnswer::Absent => (ServeOutcome::Absent, None),
            ReadAnswer::Unknown => (ServeOutcome::Unknown, None),
            ReadAnswer::WrongRing(_) => (ServeOutcome::WrongRing, None),
        };
        Self { is_write: false, outcome, version }
    }

    fn write(answer: &WriteAnswer, version: Version) -> Self {
        let outcome = match answer {
            WriteAnswer::Applied | WriteAnswer::AppliedUnconfirmed => ServeOutcome::Applied,
            WriteAnswer::Stale { .. } | WriteAnswer::Collected { .. } => ServeOutcome::Stale,
            WriteAnswer::Drift { .. } | WriteAnswer::TooLarge => ServeOutcome::Refused,
            WriteAnswer::WrongRing(_) => ServeOutcome::WrongRing,
        };
        Self { is_write: true, outcome, version: Some(version) }
    }
}
