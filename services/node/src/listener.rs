//! TCP listeners, one per thread, on one port (SO_REUSEPORT). That option would let a second process share the port in
//! silence, so the first socket is bound without it: a port in use is an error.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

const BACKLOG: i32 = 4096;

/// The port cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen for HTTP on tcp {addr}: {reason}; set PORT (and HTTP_BIND) to a free one")]
pub struct ListenError {
    addr: SocketAddr,
    // Not named `source`: the message holds it, and a chain of errors would print it twice.
    reason: std::io::Error,
}

/// One listening socket per thread, all on the same address.
pub struct Listeners {
    sockets: Vec<std::net::TcpListener>,
    addr: SocketAddr,
}

impl Listeners {
    /// Binds `count` sockets.
    ///
    /// # Errors
    /// [`ListenError`] if the address is in use or not ours.
    pub fn bind(addr: SocketAddr, count: usize) -> Result<Self, ListenError> {
        let failed = |reason| ListenError { addr, reason };
        let first = open(addr).and_then(|socket| socket.bind(&addr.into()).map(|()| socket)).map_err(failed)?;
        // Now that the port is ours alone.
        first.set_reuse_port(true).map_err(failed)?;
        let addr = first.local_addr().map_err(failed)?.as_socket().unwrap_or(addr);
        let mut sockets = vec![first];
        for _ in 1..count {
            let socket = open(addr).map_err(failed)?;
            socket.set_reuse_port(true).map_err(failed)?;
            socket.bind(&addr.into()).map_err(failed)?;
            sockets.push(socket);
        }
        sockets.iter().try_for_each(|socket| socket.listen(BACKLOG)).map_err(failed)?;
        Ok(Self { sockets: sockets.into_iter().map(Into::into).collect(), addr })
    }

    /// Where they listen.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The sockets.
    #[must_use]
    pub fn into_sockets(self) -> Vec<std::net::TcpListener> {
        self.sockets
    }
}

fn open(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // So that connections of a process that has just ended do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn several_sockets_share_a_port_that_nobody_else_gets() {
        let mine = Listeners::bind((Ipv4Addr::LOCALHOST, 0).into(), 3).unwrap();
        assert_ne!(mine.addr().port(), 0);
        let others = Listeners::bind(mine.addr(), 1);
        let message = others.err().unwrap().to_string();
        assert!(message.contains(&mine.addr().to_string()) && message.contains("set PORT"), "{message}");
        assert!(mine.into_sockets().iter().all(|socket| socket.local_addr().is_ok()));
    }

    #[test]
    fn a_port_is_free_again_at_once() {
        let first = Listeners::bind((Ipv4Addr::LOCALHOST, 0).into(), 2).unwrap();
        let addr = first.addr();
        drop(first);
        assert!(Listeners::bind(addr, 2).is_ok());
    }

    #[test]
    fn a_port_that_is_taken_is_told_once() {
        let taken = Listeners::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let error = anyhow::Error::from(Listeners::bind(taken.addr(), 1).err().unwrap());
        let text = format!("{error:#}");
        assert!(text.contains("set PORT") && text.matches("Address already in use").count() == 1, "{text}");
    }
}
