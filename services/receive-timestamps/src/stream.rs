//! A TCP stream that tells when the kernel received what was read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::Received;

/// How much room is offered to a read, at first and at most, in bytes. All of it is filled with zeros before, so it follows what comes.
#[cfg(target_os = "linux")]
const ROOM_MIN: usize = 256;
#[cfg(target_os = "linux")]
const ROOM_MAX: usize = 64 << 10;

/// A TCP stream, and when what was read last was received.
#[derive(Debug)]
pub struct TimestampedStream {
    stream: TcpStream,
    received: Received,
    /// Nothing if timestamps are off, or not to be had here.
    #[cfg(target_os = "linux")]
    control: Option<crate::linux::Control>,
    #[cfg(target_os = "linux")]
    room: usize,
}

impl TimestampedStream {
    /// Asks the kernel for timestamps if `is_on`; where it has none, nothing will be known.
    #[must_use]
    pub fn new(stream: TcpStream, is_on: bool) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            control: is_on.then(|| crate::linux::Control::enable(&stream)).flatten(),
            #[cfg(target_os = "linux")]
            room: ROOM_MIN,
            stream,
            received: Received::default(),
        }
    }

    /// The socket.
    #[must_use]
    pub const fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// When what was read last was received, now and after every further read.
    #[must_use]
    pub const fn received(&self) -> &Received {
        &self.received
    }
}

impl AsyncRead for TimestampedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        #[cfg(target_os = "linux")]
        if let Some(control) = &mut this.control {
            loop {
                std::task::ready!(this.stream.poll_read_ready(context))?;
                let room = this.room.min(buffer.remaining());
                match control.read(&this.stream, buffer.initialize_unfilled_to(room)) {
                    Ok((bytes, stamp)) => {
                        buffer.advance(bytes);
                        let wanted = bytes * if bytes == this.room { 4 } else { 2 };
                        this.room = wanted.clamp(ROOM_MIN, ROOM_MAX);
                        this.received.set(stamp);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TimestampedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::KernelTime;

    async fn pair(is_on: bool) -> (TcpStream, TimestampedStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (dialled.unwrap(), TimestampedStream::new(accepted.unwrap().0, is_on))
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_waited_in_the_socket_is_told_by_when_it_was_received() {
        let (mut sender, mut stream) = pair(true).await;
        let mut buffer = [0; 64];
        // The kernel begins to take timestamps a moment after the first socket has asked for them.
        for _ in 0..1000 {
            sender.write_all(b"first").await.unwrap();
            let _ = stream.read(&mut buffer).await.unwrap();
            if stream.received().get() != KernelTime::default() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for waits in [0, 40, 5] {
            let before = Instant::now();
            sender.write_all(b"more").await.unwrap();
            let after = Instant::now();
            #[expect(clippy::disallowed_methods, reason = "this thread is to be late")]
            std::thread::sleep(Duration::from_millis(waits));
            assert_eq!(stream.read(&mut buffer).await.unwrap(), 4);
            let received = stream.received().get().at(Instant::now()).unwrap();
            let slack = Duration::from_millis(1);
            assert!((before - slack..after + slack).contains(&received), "{:?}", received.elapsed());
        }
    }

    #[tokio::test]
    async fn bytes_come_as_from_any_stream() {
        for is_on in [true, false] {
            let (mut sender, mut stream) = pair(is_on).await;
            let sent: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[at as usize % 4]).collect();
            let expected = sent.clone();
            let sending = tokio::spawn(async move {
                for part in sent.chunks(70_000) {
                    sender.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let mut back = [0; 4];
                sender.read_exact(&mut back).await.unwrap();
                back
            });
            let mut read = vec![0; expected.len()];
            // Reads that fill their room, and reads that do not.
            stream.read_exact(&mut read[..64]).await.unwrap();
            stream.read_exact(&mut read[64..]).await.unwrap();
            assert!(read == expected);
            stream.write_all(b"back").await.unwrap();
            assert_eq!(&sending.await.unwrap(), b"back");
            assert_eq!(stream.read(&mut read).await.unwrap(), 0, "the end");
            assert_eq!(stream.read(&mut read).await.unwrap(), 0, "and again");
            assert!(is_on || stream.received().get() == KernelTime::default());
        }
    }
}
