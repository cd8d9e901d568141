//! UDP sockets: how they are bound, and a wrapper through which they can be silenced or taken away from quinn at once,
//! as a killed process's are, and in which faults meet the packets.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use mesh_proto::{Direction, LinkFault};
use parking_lot::RwLock;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    config::{MTU_MAX, QuinnConfigs},
    held::{HeldPackets, OutgoingPacket, Packet},
    timed::{Arrivals, TimedSocket},
    wire::Wire,
};

/// What the kernel may hold for a socket, in bytes, if it lets us: a burst from all peers at once.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What one receive brings at most, in bytes, however many datagrams the kernel has put together.
const RECEIVE_BYTES_MAX: usize = 1 << 16;

/// What one send may carry, in bytes, however many datagrams it is cut into: IP's length has sixteen bits, for its own header
/// and UDP's as well.
const SEND_BYTES_MAX: usize = 65_507;

/// Binds `count` sockets that share the port of `addr`, and says which port that is.
///
/// # Errors
/// As the system says; also if anybody else, even another process that would share it, has the port.
pub(super) fn bind_listeners(addr: SocketAddr, count: usize) -> io::Result<(Vec<UdpSocket>, SocketAddr)> {
    // Every process of this user that sets SO_REUSEPORT gets a share of the port without a word. One exclusive bind
    // before tells us that nobody has it.
    let addr = bind(addr, false)?.local_addr()?;
    let listeners = (0..count).map(|_| bind(addr, true)).collect::<io::Result<_>>()?;
    Ok((listeners, addr))
}

/// Binds one socket, `shared` with others that are, too.
pub(super) fn bind(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Best effort: the system's limit may be lower, and quinn works with whatever there is.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A UDP socket with a switch.
pub(super) struct SwitchedSocket {
    /// Nothing once it was taken away. A lock, since quinn's tasks on this runtime use it while `detach` may come from
    /// another thread; never contended otherwise, and some nanoseconds against the microseconds of a send. Shared with
    /// the task that sends packets which were held back.
    inner: Arc<RwLock<Option<Arc<TimedSocket>>>>,
    wire: Arc<Wire>,
    held: Arc<HeldPackets>,
    arrivals: Arrivals,
    local_addr: SocketAddr,
    max_transmit_segments: usize,
    max_receive_segments: usize,
    may_fragment: bool,
}

impl SwitchedSocket {
    /// Hands `socket` to the current runtime. What it sends and receives goes over `wire`.
    pub(super) fn new(socket: UdpSocket, are_timestamps: bool, wire: Arc<Wire>) -> io::Result<Self> {
        let inner = TimedSocket::new(socket, are_timestamps)?;
        let state = inner.state();
        Ok(Self {
            wire,
            held: Arc::default(),
            arrivals: inner.arrivals().clone(),
            local_addr: inner.io().local_addr()?,
            max_transmit_segments: state.max_gso_segments(),
            // quinn keeps room for so many of the largest datagrams, 32 times over. The kernel never gives more than an IP packet
            // holds.
            max_receive_segments: state.gro_segments().min(RECEIVE_BYTES_MAX.div_ceil(MTU_MAX.into())),
            may_fragment: state.may_fragment(),
            inner: Arc::new(RwLock::new(Some(Arc::new(inner)))),
        })
    }

    /// When the datagrams that were read last were received, now and after every further read.
    pub(super) const fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Closes the socket now, whatever quinn still wants to say. To quinn it looks like a network that loses everything.
    pub(super) fn detach(&self) {
        *self.inner.write() = None;
    }

    /// Sends what the fault lets through, each datagram on its own.
    fn send_faulty(&self, inner: &TimedSocket, transmit: &Transmit<'_>, fault: &LinkFault) -> io::Result<()> {
        let mut is_first = true;
        for datagram in transmit.contents.chunks(transmit.segment_size.unwrap_or(usize::MAX).max(1)) {
            for delay in self.wire.copies(fault) {
                let packet = OutgoingPacket::new(transmit, datagram);
                if !delay.is_zero() {
                    self.hold(delay, Packet::Outgoing(packet));
                    continue;
                }
                match inner.try_send(&packet.transmit()) {
                    // Nothing was sent yet: quinn comes again with all of it. Later ones are lost, as if on the way.
                    Err(error) if is_first && error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    _ => is_first = false,
                }
            }
        }
        Ok(())
    }

    fn hold(&self, delay: std::time::Duration, packet: Packet) {
        if !self.held.hold(delay, packet, || self.late_sender()) {
            self.wire.faults.note(&[]);
        }
    }

    /// Sends packets that were held back, as long as the socket is there. One that it does not take at once is lost.
    fn late_sender(&self) -> impl Fn(&Transmit<'_>) + Send + Sync + 'static {
        let inner = Arc::clone(&self.inner);
        move |transmit| {
            if let Some(inner) = &*inner.read() {
                let _ = inner.try_send(transmit);
            }
        }
    }

    /// Takes from one buffer of received datagrams what the fault keeps back.
    fn receive_faulty(&self, buf: &mut [u8], meta: &mut RecvMeta, fault: &LinkFault) {
        let (stride, mut kept) = (meta.stride.max(1), 0);
        for start in (0..meta.len).step_by(stride) {
            let end = (start + stride).min(meta.len);
            let mut is_kept = false;
            for delay in self.wire.copies(fault) {
                if delay.is_zero() && !is_kept {
                    is_kept = true;
                } else {
                    self.hold(delay, Packet::Incoming(*meta, buf[start..end].into()));
                }
            }
            if is_kept {
                // The only datagram that may be shorter is the last one, and it stays the last one.
                buf.copy_within(start..end, kept);
                kept += end - start;
            }
        }
        // quinn passes over an empty buffer.
        meta.len = kept;
    }
}

impl fmt::Debug for SwitchedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchedSocket").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for SwitchedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(SwitchedPoller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let inner = self.inner.read();
        let Some(inner) = inner.as_ref().filter(|_| !self.wire.is_silent()) else { return Ok(()) };
        match self.wire.fate(transmit.destination, Direction::Out) {
            None => send_in_batches(inner, transmit),
            Some(fault) => self.send_faulty(inner, transmit, &fault),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inner = self.inner.read();
        // A detached socket never wakes its driver again; quinn's own timers and closed handles still do.
        let Some(inner) = &*inner else { return Poll::Pending };
        loop {
            let late = self.held.read(cx, bufs, meta);
            let count = if late > 0 { late } else { ready!(inner.poll_recv(cx, bufs, meta))? };
            // What came while silent is read and thrown away; tokio's budget for the task ends the loop.
            if self.wire.is_silent() {
                continue;
            }
            if late == 0 && self.wire.faults.is_on() {
                for (buf, meta) in bufs.iter_mut().zip(&mut *meta).take(count) {
                    if let Some(fault) = self.wire.fate(meta.addr, Direction::In) {
                        self.receive_faulty(buf, meta, &fault);
                    }
                }
            }
            return Poll::Ready(Ok(count));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_addr)
    }

    fn max_transmit_segments(&self) -> usize {
        // Asked of the socket while it is there: quinn learns on the way that segmentation offload does not work.
        self.inner.read().as_ref().map_or(self.max_transmit_segments, |inner| inner.state().max_gso_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.max_receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Sends as many datagrams at a time as the kernel takes. quinn hands over up to ten at once; where they are large the kernel
/// refuses all of them, which quinn takes for an MTU probe that was too large: they would be lost without a word.
fn send_in_batches(inner: &TimedSocket, transmit: &Transmit<'_>) -> io::Result<()> {
    let segment_size = transmit.segment_size.filter(|_| transmit.contents.len() > SEND_BYTES_MAX);
    let Some(segment_size) = segment_size else { return inner.try_send(transmit) };
    let batch_bytes = (SEND_BYTES_MAX / segment_size).max(1) * segment_size;
    for (index, contents) in transmit.contents.chunks(batch_bytes).enumerate() {
        let Transmit { destination, ecn, segment_size, src_ip, .. } = *transmit;
        match inner.try_send(&Transmit { destination, ecn, contents, segment_size, src_ip }) {
            // quinn would come again with all of it: what does not fit any more is lost, as if on the way.
            Err(error) if index > 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            sent => sent?,
        }
    }
    Ok(())
}

/// Waits until the socket takes more. It holds on to the socket only while it waits, so that `detach` closes it.
struct SwitchedPoller {
    socket: Arc<SwitchedSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for SwitchedPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchedPoller").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl UdpPoller for SwitchedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            let inner = self.socket.inner.read().clone();
            // A detached socket takes everything and sends nothing.
            let Some(inner) = inner else { return Poll::Ready(Ok(())) };
            self.waiting = Some(Box::pin(inner.writable()));
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Ok(())) };
        let writable = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(writable)
    }
}

/// A quinn endpoint and the switch of its socket.
#[derive(Clone)]
pub(super) struct Socketed {
    pub(super) quinn: quinn::Endpoint,
    pub(super) socket: Arc<SwitchedSocket>,
}

impl Socketed {
    pub(super) fn new(
        socket: UdpSocket,
        configs: &QuinnConfigs,
        server: Option<quinn::ServerConfig>,
        wire: &Arc<Wire>,
    ) -> io::Result<Self> {
        let socket = Arc::new(SwitchedSocket::new(socket, configs.are_timestamps, Arc::clone(wire))?);
        let runtime = Arc::new(quinn::TokioRuntime);
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            configs.endpoint.clone(),
            server,
            Arc::clone(&socket) as _,
            runtime,
        )?;
        Ok(Self { quinn, socket })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_shared_port_is_not_free() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (sockets, addr) = bind_listeners(any, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == addr));
        assert_eq!(bind_listeners(addr, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(bind_listeners(addr, 1).is_ok());
    }
}
