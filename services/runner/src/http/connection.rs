//! One kept-alive connection: a request out in one write, a response in, nothing allocated after its first use.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use load::ErrorKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::response::{Head, parse_head};

/// After this long without use, a connection is looked at before it is used again: the server may have closed it.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The target's epoch when it was dialled.
    pub(crate) epoch: u32,
    used_at: Instant,
}

impl Connection {
    pub(crate) async fn dial(addr: SocketAddr, epoch: u32) -> Result<Self, ErrorKind> {
        let stream = TcpStream::connect(addr).await.map_err(|error| kind_of(&error))?;
        // Without it, a request that does not fit one segment would wait for an acknowledgement.
        stream.set_nodelay(true).map_err(|error| kind_of(&error))?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024), epoch, used_at: Instant::now() })
    }

    /// Sends a request and reads the response; its body goes into `body`.
    pub(crate) async fn exchange(&mut self, request: &[u8], body: &mut Vec<u8>) -> Result<Head, ErrorKind> {
        self.stream.write_all(request).await.map_err(|error| kind_of(&error))?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.map_err(|error| kind_of(&error))?;
            if let Some(head) = parse_head(&self.buffer)?
                && head.copy_body(&self.buffer, read == 0, body)?
            {
                return Ok(head);
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

    pub(crate) fn rest(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// Whether it can be used again, as far as can be seen from here.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        let trusted = now.saturating_duration_since(self.used_at) < TRUSTED_FOR;
        let waiting = || self.stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        trusted || waiting()
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::Closed,
    }
}
