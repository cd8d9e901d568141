//! A UDP socket of this runtime, which tells how long the datagrams that were read last had waited for it.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use quinn::udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use receive_timestamps::{DatagramReader, KernelTime};
use tokio::io::Interest;

use crate::transport::Waited;

/// So many reads count as one at most, if the socket is not empty in between.
const READS_MAX: u32 = 8;

/// When the datagrams that were read last from a socket were received; its clones tell the same.
#[derive(Clone)]
pub(super) struct Arrivals(Arc<ArrivalTimes>);

/// In nanoseconds after `epoch`; 0 if the kernel did not tell.
struct ArrivalTimes {
    epoch: Instant,
    first: AtomicU64,
    last: AtomicU64,
}

impl Arrivals {
    fn new() -> Self {
        Self(Arc::new(ArrivalTimes { epoch: Instant::now(), first: AtomicU64::new(0), last: AtomicU64::new(0) }))
    }

    /// How long ago that was, if the kernel told.
    pub(super) fn waited(&self) -> Option<Waited> {
        // Relaxed: a socket and its readers are one thread.
        let (first, last) = (self.0.first.load(Ordering::Relaxed), self.0.last.load(Ordering::Relaxed));
        if first == 0 || last == 0 {
            return None;
        }
        let now = self.0.epoch.elapsed();
        let since = |received| now.saturating_sub(Duration::from_nanos(received));
        Some(Waited { at_least: since(last), at_most: since(first) })
    }

    /// Takes note of a read. One that goes on where the one before it ended counts with that from its first datagram on.
    fn set(&self, [first, last]: [KernelTime; 2], goes_on: bool) {
        let now = Instant::now();
        let nanos = |time: KernelTime| {
            let after = time.at(now)?.checked_duration_since(self.0.epoch)?;
            u64::try_from(after.as_nanos()).ok()
        };
        if !goes_on {
            self.0.first.store(nanos(first).unwrap_or(0), Ordering::Relaxed);
        }
        self.0.last.store(nanos(last).unwrap_or(0), Ordering::Relaxed);
    }
}

/// What quinn's own wrapper does, and the time of receipt.
pub(super) struct TimedSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Nothing if timestamps are off, or not to be had here.
    reader: Option<DatagramReader>,
    arrivals: Arrivals,
    /// How many times it has been read since it was found empty.
    reads: AtomicU32,
}

impl TimedSocket {
    /// Hands `socket` to the current runtime, and asks the kernel for timestamps if there `are_timestamps`.
    pub(super) fn new(socket: UdpSocket, are_timestamps: bool) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let reader = are_timestamps.then(|| DatagramReader::enable(&socket)).flatten();
        Ok(Self {
            io: tokio::net::UdpSocket::from_std(socket)?,
            state,
            reader,
            arrivals: Arrivals::new(),
            reads: AtomicU32::new(0),
        })
    }

    /// When the datagrams that were read last were received, now and after every further read.
    pub(super) const fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    pub(super) const fn io(&self) -> &tokio::net::UdpSocket {
        &self.io
    }

    pub(super) const fn state(&self) -> &UdpSocketState {
        &self.state
    }

    pub(super) fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit))
    }

    /// Waits until the socket takes more.
    pub(super) async fn writable(self: Arc<Self>) -> io::Result<()> {
        self.io.writable().await
    }

    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let mut count = 0;
            let read = self.io.try_io(Interest::READABLE, || {
                let is_all;
                (count, is_all) = self.read(bufs, meta)?;
                // The socket is empty: nobody need ask again before more has come, which spares a call of the system.
                if is_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match read {
                _ if count > 0 => return Poll::Ready(Ok(count)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                read => return Poll::Ready(read.map(|()| 0)),
            }
        }
    }

    /// How many buffers were filled, and whether that was all that there was.
    fn read(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<(usize, bool)> {
        let Some(reader) = &self.reader else {
            let count = self.state.recv((&self.io).into(), bufs, meta)?;
            return Ok((count, count < bufs.len().min(BATCH_SIZE)));
        };
        let (count, is_all, times) = reader.read(&self.io, bufs, |index, datagram| {
            meta[index] = RecvMeta {
                addr: datagram.from,
                len: datagram.bytes,
                stride: datagram.stride,
                ecn: EcnCodepoint::from_bits(datagram.class),
                dst_ip: datagram.to,
            };
        })?;
        // Relaxed: the socket has one reader. What does not fit into one read is looked at together.
        let reads = self.reads.load(Ordering::Relaxed);
        self.arrivals.set(times, reads > 0);
        self.reads.store(if is_all { 0 } else { (reads + 1) % READS_MAX }, Ordering::Relaxed);
        Ok((count, is_all))
    }
}
