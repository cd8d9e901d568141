//! A client's byte stream with two more bounds: an answer has to be read in time, and a client that was shed for overload is not
//! read from for a moment, so that it cannot ask again at once. A client that sends no more after its request, as `nc -N` and some
//! proxies, is answered; one that resets its connection does not wait for an answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a client whose request was shed is not read from. Shedding costs half as much as a local read: a client that
/// disregards Retry-After would keep a full node from its work.
const HOLD: Duration = Duration::from_millis(100);

/// What a connection's stream has to know of the request that came out of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange(Arc<ExchangeFlags>);

#[derive(Debug, Default)]
struct ExchangeFlags {
    holds_back: AtomicBool,
    is_answering: AtomicBool,
    has_ended: AtomicBool,
}

impl Exchange {
    /// Nothing more is read for a moment, from the next read on.
    pub(crate) fn hold_back(&self) {
        // Relaxed here and below: stream and requests are one task.
        self.0.holds_back.store(true, Ordering::Relaxed);
    }

    /// A request has begun: until its answer is made, the end of what the client sends is not the end of the connection.
    pub(crate) fn begin_answer(&self) {
        self.0.is_answering.store(true, Ordering::Relaxed);
    }

    /// The answer is made, and will be flushed at once.
    pub(crate) fn end_answer(&self) {
        self.0.is_answering.store(false, Ordering::Relaxed);
    }

    /// Whether the client sends no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }

    fn is_answering(&self) -> bool {
        self.0.is_answering.load(Ordering::Relaxed)
    }

    fn take_hold(&self) -> bool {
        self.0.holds_back.load(Ordering::Relaxed) && self.0.holds_back.swap(false, Ordering::Relaxed)
    }
}

/// A client's byte stream.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    stream: S,
    answer_timeout: Duration,
    /// Runs while an answer waits for the client to read, from its first wait to its end: a client that reads a byte now and
    /// then is slow all the same.
    unread: Option<Pin<Box<Sleep>>>,
    exchange: Exchange,
    held: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(stream: S, answer_timeout: Duration, exchange: Exchange) -> Self {
        Self { stream, answer_timeout, unread: None, exchange, held: None }
    }

    fn check_unread(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let timeout = self.answer_timeout;
        match self.unread.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.exchange.take_hold() {
            this.held = Some(Box::pin(sleep(HOLD)));
        }
        if let Some(held) = &mut this.held {
            ready!(held.as_mut().poll(context));
            this.held = None;
        }
        let filled = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let has_ended = buffer.filled().len() == filled && buffer.remaining() > 0;
        if has_ended && (this.exchange.is_answering() || this.unread.is_some()) {
            // The connection is polled again when the answer is made or flushed, and sees the end then.
            this.exchange.0.has_ended.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        if written.is_pending() {
            this.check_unread(context)?;
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if flushed.is_pending() {
            this.check_unread(context)?;
        } else {
            // HTTP flushes only what it has written whole.
            this.unread = None;
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn an_answer_that_is_read_too_slowly_breaks_the_connection() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = ClientStream::new(ours, PATIENCE, Exchange::default());
        stream.write_all(&[1; 16]).await.unwrap();
        // One byte now and then is no help.
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            while theirs.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(PATIENCE / 5).await;
            }
        });
        let written = timeout(PATIENCE * 200, stream.write_all(&[1; 1 << 16])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }

    #[tokio::test]
    async fn an_answer_that_is_read_in_time_does_not() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = ClientStream::new(ours, Duration::from_secs(60), Exchange::default());
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        stream.write_all(&[1; 1000]).await.unwrap();
        stream.flush().await.unwrap();
        assert!(stream.unread.is_none());
        drop(stream);
        assert_eq!(reader.await.unwrap(), 1000);
    }

    #[tokio::test]
    async fn nothing_is_read_for_a_moment_when_asked_to_hold() {
        let (ours, mut theirs) = duplex(16);
        let exchange = Exchange::default();
        let mut stream = ClientStream::new(ours, PATIENCE, exchange.clone());
        theirs.write_all(b"abcd").await.unwrap();
        let mut buffer = [0; 2];
        stream.read_exact(&mut buffer).await.unwrap();
        exchange.hold_back();
        let asked = Instant::now();
        stream.read_exact(&mut buffer).await.unwrap();
        assert!(asked.elapsed() >= HOLD);
        assert_eq!(&buffer, b"cd");
    }
}
