//! One direction of a simulated stream: bytes in order, each piece with the time at which it arrives, and a bound on what
//! the writer may be ahead of the reader.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};

use crate::connection::{Handle, IncomingStream, Pair, Side};

/// What may be on its way and unread, in bytes; a writer waits beyond it.
const WINDOW_BYTES: usize = 4 << 20;

/// The most that arrives at once, in bytes.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// One direction of a stream.
pub(crate) struct Pipe {
    pair: Arc<Pair>,
    pub(crate) from: Side,
    state: Mutex<PipeState>,
    /// The stream counts against its opener's limit until both directions are gone.
    _slot: Arc<OwnedSemaphorePermit>,
}

struct PipeState {
    pieces: VecDeque<(Instant, Bytes)>,
    unread_bytes: usize,
    /// When the newest piece arrives; none overtakes it.
    newest_due: Instant,
    is_finished: bool,
    is_abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(crate) fn new(pair: Arc<Pair>, from: Side, slot: Arc<OwnedSemaphorePermit>) -> Self {
        let state = PipeState {
            pieces: VecDeque::new(),
            unread_bytes: 0,
            newest_due: Instant::now(),
            is_finished: false,
            is_abandoned: false,
            reader: None,
            writer: None,
        };
        Self { pair, from, state: Mutex::new(state), _slot: slot }
    }

    /// Lets both halves look again.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn check(&self, side: Side) -> io::Result<()> {
        self.pair.lost(side).map_or(Ok(()), |lost| Err(io::Error::new(io::ErrorKind::NotConnected, lost)))
    }

    /// Takes as much as fits and says when it arrives.
    fn write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<(usize, Instant)>> {
        self.check(self.from)?;
        let due = Instant::now() + self.pair.stream_delay(self.from);
        let mut state = self.state.lock();
        if state.is_abandoned {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the peer reads no further")));
        }
        if state.is_finished {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "finished already")));
        }
        if bytes.is_empty() {
            // An empty piece would look like the end.
            return Poll::Ready(Ok((0, due)));
        }
        let taken = bytes.len().min(PIECE_BYTES_MAX).min(WINDOW_BYTES - state.unread_bytes);
        if taken == 0 {
            state.writer = Some(cx.waker().clone());
            drop(state);
            // Lost between the first look and the waker: nobody would wake us.
            self.check(self.from)?;
            return Poll::Pending;
        }
        state.newest_due = state.newest_due.max(due);
        let due = state.newest_due;
        state.unread_bytes += taken;
        state.pieces.push_back((due, Bytes::copy_from_slice(&bytes[..taken])));
        drop(state);
        self.wake();
        Poll::Ready(Ok((taken, due)))
    }

    /// Ends it, and says when the reader sees that; nothing if it had ended before.
    fn finish(&self) -> Option<Instant> {
        let due = Instant::now() + self.pair.stream_delay(self.from);
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_finished, true) {
            return None;
        }
        state.newest_due = state.newest_due.max(due);
        let due = state.newest_due;
        drop(state);
        self.wake();
        Some(due)
    }

    /// Reads what has arrived; otherwise says when to look again.
    fn read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Result<(), Option<Instant>> {
        let is_cut = self.pair.is_cut(self.from);
        let now = Instant::now();
        let mut state = self.state.lock();
        let next_due =
            state.pieces.front().map_or_else(|| state.is_finished.then_some(state.newest_due), |&(due, _)| Some(due));
        if is_cut || next_due.is_none_or(|due| due > now) {
            state.reader = Some(cx.waker().clone());
            return Err(next_due.filter(|_| !is_cut));
        }
        if let Some((_, piece)) = state.pieces.front_mut() {
            let taken = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..taken]);
            piece.advance(taken);
            if piece.is_empty() {
                state.pieces.pop_front();
            }
            state.unread_bytes -= taken;
            let writer = state.writer.take();
            drop(state);
            writer.into_iter().for_each(Waker::wake);
        }
        Ok(())
    }

    /// Whatever is on its way gets lost.
    pub(crate) fn lose(&self) {
        let mut state = self.state.lock();
        state.pieces.clear();
        state.unread_bytes = 0;
    }

    fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_abandoned = true;
        state.pieces.clear();
        state.unread_bytes = 0;
        drop(state);
        self.wake();
    }
}

/// The half that writes. Dropping it ends the stream in order.
pub(crate) struct SimulatedSend {
    pipe: Arc<Pipe>,
    /// What the other side is told with the first bytes, if it is we who opened the stream.
    announcement: Option<IncomingStream>,
    // After the pipe: dropping the last handle closes the connection, and the end of the stream goes first.
    _handle: Arc<Handle>,
}

impl SimulatedSend {
    pub(crate) const fn new(pipe: Arc<Pipe>, announcement: Option<IncomingStream>, handle: Arc<Handle>) -> Self {
        Self { pipe, announcement, _handle: handle }
    }

    fn announce(&mut self, due: Instant) {
        if let Some(stream) = self.announcement.take() {
            self.pipe.pair.announce(self.pipe.from.other(), due, stream);
        }
    }

    fn finish(&mut self) {
        if let Some(due) = self.pipe.finish() {
            self.announce(due);
        }
    }
}

impl AsyncWrite for SimulatedSend {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe.write(cx, bytes).map_ok(|(taken, due)| {
            self.announce(due);
            taken
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimulatedSend {
    fn drop(&mut self) {
        if self.pipe.check(self.pipe.from).is_ok() {
            self.finish();
        }
    }
}

/// The half that reads. Dropping it makes further writes fail.
pub(crate) struct SimulatedReceive {
    pipe: Arc<Pipe>,
    arrival: Option<Pin<Box<Sleep>>>,
    _handle: Arc<Handle>,
}

impl SimulatedReceive {
    pub(crate) const fn new(pipe: Arc<Pipe>, handle: Arc<Handle>) -> Self {
        Self { pipe, arrival: None, _handle: handle }
    }
}

impl AsyncRead for SimulatedReceive {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let Err(due) = self.pipe.read(cx, buf) else { return Poll::Ready(Ok(())) };
            self.pipe.check(self.pipe.from.other())?;
            let Some(due) = due else { return Poll::Pending };
            let mut arrival = Box::pin(sleep_until(due));
            if arrival.as_mut().poll(cx).is_pending() {
                self.arrival = Some(arrival);
                return Poll::Pending;
            }
        }
    }
}

impl Drop for SimulatedReceive {
    fn drop(&mut self) {
        self.pipe.abandon();
    }
}
