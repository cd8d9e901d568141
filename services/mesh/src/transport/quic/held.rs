//! Packets that a fault delays: held here until they are due, then sent, or handed to quinn as if they had just arrived.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IoSliceMut,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use tokio::{sync::Notify, time::Instant};

/// Packets held for one socket at a time; more are lost.
const HELD_PACKETS_MAX: usize = 16_384;

/// The same in bytes.
const HELD_BYTES_MAX: usize = 32 << 20;

/// The packets that one socket holds back.
#[derive(Default)]
pub(super) struct HeldPackets {
    /// Whether there are any: all that a socket has to look at while there are none.
    in_use: AtomicBool,
    state: Mutex<HeldState>,
    /// An earlier packet than all others has come.
    sooner: Notify,
}

#[derive(Default)]
struct HeldState {
    /// By the time at which they are due, and number, for those that are due together.
    packets: BTreeMap<(Instant, u64), Packet>,
    number: u64,
    bytes: usize,
    /// Packets that are due and have not been read yet.
    arrived: VecDeque<(RecvMeta, Box<[u8]>)>,
    reader: Option<Waker>,
    is_paced: bool,
}

/// A packet on its way.
pub(super) enum Packet {
    /// To be sent.
    Outgoing(OutgoingPacket),
    /// To be read.
    Incoming(RecvMeta, Box<[u8]>),
}

/// A packet to be sent.
pub(super) struct OutgoingPacket {
    destination: std::net::SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<std::net::IpAddr>,
    bytes: Box<[u8]>,
}

impl OutgoingPacket {
    /// A copy of one of the datagrams of `transmit`.
    pub(super) fn new(transmit: &Transmit<'_>, datagram: &[u8]) -> Self {
        let Transmit { destination, ecn, src_ip, .. } = *transmit;
        Self { destination, ecn, src_ip, bytes: datagram.into() }
    }

    pub(super) fn transmit(&self) -> Transmit<'_> {
        Transmit {
            destination: self.destination,
            ecn: self.ecn,
            contents: &self.bytes,
            segment_size: None,
            src_ip: self.src_ip,
        }
    }
}

impl Packet {
    const fn len(&self) -> usize {
        match self {
            Self::Outgoing(packet) => packet.bytes.len(),
            Self::Incoming(_, bytes) => bytes.len(),
        }
    }
}

impl HeldPackets {
    /// Holds a packet for `delay`; it is lost, and the answer no, if too many are held. `send` is what an outgoing packet is
    /// given to.
    pub(super) fn hold<S>(self: &Arc<Self>, delay: Duration, packet: Packet, send: impl FnOnce() -> S) -> bool
    where
        S: Fn(&Transmit<'_>) + Send + Sync + 'static,
    {
        let mut state = self.state.lock();
        if state.packets.len() >= HELD_PACKETS_MAX || state.bytes + packet.len() > HELD_BYTES_MAX {
            return false;
        }
        let key = (Instant::now() + delay, state.number);
        let is_sooner = state.packets.first_key_value().is_none_or(|(first, _)| key < *first);
        state.number += 1;
        state.bytes += packet.len();
        state.packets.insert(key, packet);
        let is_paced = std::mem::replace(&mut state.is_paced, true);
        self.in_use.store(true, Ordering::Relaxed);
        drop(state);
        if !is_paced {
            tokio::spawn(Arc::clone(self).pace(send()));
        } else if is_sooner {
            self.sooner.notify_one();
        }
        true
    }

    /// Moves what has arrived into the buffers; nothing has, if it says 0, and then the reader will be woken.
    pub(super) fn read(&self, cx: &Context<'_>, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        // Only the socket's reader itself makes incoming packets wait, so that it sees the flag that it has set.
        if !self.in_use.load(Ordering::Relaxed) {
            return 0;
        }
        let mut state = self.state.lock();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some((arrived, bytes)) = state.arrived.pop_front() else { break };
            state.bytes -= bytes.len();
            // A packet that was read here before fits.
            let len = bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { len, stride: len, ..arrived };
            count += 1;
        }
        state.reader = Some(cx.waker().clone());
        self.in_use.store(!state.packets.is_empty() || !state.arrived.is_empty(), Ordering::Relaxed);
        count
    }

    /// Lets packets go when they are due, until none is left.
    async fn pace(self: Arc<Self>, send: impl Fn(&Transmit<'_>) + Send + Sync) {
        while let Some(next) = self.release(&send) {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Lets go what is due, and says when the next one is; nothing if none is left.
    fn release(&self, send: &impl Fn(&Transmit<'_>)) -> Option<Instant> {
        let mut outgoing = Vec::new();
        let mut state = self.state.lock();
        let later = state.packets.split_off(&(Instant::now() + Duration::from_nanos(1), 0));
        for packet in std::mem::replace(&mut state.packets, later).into_values() {
            match packet {
                Packet::Outgoing(packet) => {
                    state.bytes -= packet.bytes.len();
                    outgoing.push(packet);
                }
                Packet::Incoming(meta, bytes) => state.arrived.push_back((meta, bytes)),
            }
        }
        let reader = if state.arrived.is_empty() { None } else { state.reader.take() };
        let next = state.packets.first_key_value().map(|(&(due, _), _)| due);
        state.is_paced = next.is_some();
        self.in_use.store(next.is_some() || !state.arrived.is_empty(), Ordering::Relaxed);
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        for packet in &outgoing {
            send(&packet.transmit());
        }
        next
    }
}
