//! One kept-alive connection: a request out in one write, a response in, nothing allocated after its first use.

use std::{
    io,
    time::{Duration, Instant},
};

use load::ErrorKind;
use receive_timestamps::{KernelTime, TimestampedStream};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stream::Stream;
use crate::access::Secured;

/// After this long without use, a connection is looked at before it is used again: the server may have closed it.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A connection.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    stream: Stream,
    buffer: Vec<u8>,
    /// The target's epoch when it was dialled.
    pub(crate) epoch: u32,
    used_at: Instant,
    /// A request was sent whose answer has not been read.
    is_owed: bool,
}

impl ClientConnection {
    /// Over a socket that was just connected to a target of this epoch.
    pub(crate) fn over(stream: TcpStream, epoch: u32, kernel_timestamps: bool) -> Result<Self, ErrorKind> {
        // Without it, a request that does not fit one segment would wait for an acknowledgement.
        stream.set_nodelay(true).map_err(|error| not_dialled(&error))?;
        Ok(Self::of(Stream::Plain(TimestampedStream::new(stream, kernel_timestamps)), epoch))
    }

    /// As [`ClientConnection::over`], with a handshake if the target's connections are to be secured.
    pub(crate) async fn secured(
        stream: TcpStream,
        epoch: u32,
        kernel_timestamps: bool,
        secured: Option<&Secured>,
    ) -> Result<Self, ErrorKind> {
        let Some(Secured { connector, name }) = secured else { return Self::over(stream, epoch, kernel_timestamps) };
        stream.set_nodelay(true).map_err(|error| not_dialled(&error))?;
        let stream = connector.connect(name.clone(), TimestampedStream::new(stream, kernel_timestamps)).await;
        Ok(Self::of(Stream::Tls(Box::new(stream.map_err(|error| not_dialled(&error))?)), epoch))
    }

    fn of(stream: Stream, epoch: u32) -> Self {
        Self { stream, buffer: Vec::with_capacity(1024), epoch, used_at: Instant::now(), is_owed: false }
    }

    /// Sends a request and reads until `parse` finds the whole response in what has come so far; it is also told whether no more will.
    pub(crate) async fn exchange<R>(
        &mut self,
        request: &[u8],
        mut parse: impl FnMut(&[u8], bool) -> Result<Option<R>, ErrorKind>,
    ) -> Result<R, ErrorKind> {
        self.is_owed = true;
        self.stream.write_all(request).await.map_err(|error| kind_of(&error))?;
        // TLS may hold back what the socket did not take.
        self.stream.flush().await.map_err(|error| kind_of(&error))?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.map_err(|error| kind_of(&error))?;
            if let Some(response) = parse(&self.buffer, read == 0)? {
                self.is_owed = false;
                return Ok(response);
            }
            if read == 0 {
                return Err(ErrorKind::Closed);
            }
        }
    }

    /// A part of the last response's head.
    pub(crate) fn text(&self, (start, end): (usize, usize)) -> &[u8] {
        self.buffer.get(start..end).unwrap_or_default()
    }

    /// When the kernel had received the last of the last response.
    pub(crate) fn received(&self) -> KernelTime {
        self.stream.tcp().received().get()
    }

    pub(crate) fn rest(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// Whether it can be used again, as far as can be seen from here.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        let trusted = now.saturating_duration_since(self.used_at) < TRUSTED_FOR;
        let waiting = || {
            self.stream.tcp().socket().try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        trusted || waiting()
    }
}

/// A request that is given up is reset: a node answers a client that has only closed its sending side, and stops working for
/// one that is gone.
impl Drop for ClientConnection {
    fn drop(&mut self) {
        if self.is_owed {
            // A socket that cannot be told so is closed already.
            let _ = SockRef::from(self.stream.tcp().socket()).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Whatever the reason, nothing was sent.
pub(crate) fn not_dialled(error: &io::Error) -> ErrorKind {
    if error.kind() == io::ErrorKind::TimedOut { ErrorKind::TimedOut } else { ErrorKind::Refused }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::Closed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A response ends with an empty line.
    fn is_whole(response: &[u8], _: bool) -> Result<Option<usize>, ErrorKind> {
        Ok(response.ends_with(b"\r\n\r\n").then_some(response.len()))
    }

    async fn pair() -> (ClientConnection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (ClientConnection::over(dialled.unwrap(), 0, true).unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_is_reset_and_an_idle_connection_is_closed() {
        let (mut connection, mut server) = pair().await;
        let mut buffer = [0; 64];
        let exchange = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", is_whole);
        assert!(tokio::time::timeout(Duration::from_millis(50), exchange).await.is_err());
        drop(connection);
        assert_eq!(server.read(&mut buffer).await.unwrap_or(0), 18);
        assert_eq!(server.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (mut connection, mut server) = pair().await;
        let answer = async {
            let read = server.read(&mut buffer).await.unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            read
        };
        let (head, _) = tokio::join!(connection.exchange(b"GET / HTTP/1.1\r\n\r\n", is_whole), answer);
        assert_eq!(head.unwrap(), 38);
        drop(connection);
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 0, "closed, not reset");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_answer_that_waited_for_this_thread_tells_when_it_was_received() {
        let (mut connection, server) = pair().await;
        let mut server = server.into_std().unwrap();
        server.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            assert_eq!(server.read(&mut [0; 64]).unwrap(), 18);
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        #[expect(clippy::disallowed_methods, reason = "this thread is to be late")]
        let busy = async { std::thread::sleep(Duration::from_millis(100)) };
        let (head, ()) = tokio::join!(connection.exchange(b"GET / HTTP/1.1\r\n\r\n", is_whole), busy);
        assert_eq!(head.unwrap(), 38);
        // The server took the rest.
        assert!(connection.received().at(Instant::now()).unwrap().elapsed() >= Duration::from_millis(50));
    }
}
