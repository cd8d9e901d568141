//! Which targets take requests: shared by all threads, so that one thread's refused connection spares the others theirs.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::net::{TcpStream, lookup_host};

use crate::{access::Secured, control::HttpCluster, settings::TargetUrl};

/// How often a target that is down is asked whether it is ready.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// How long an address of a name is tried before the next one is.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// One target's health.
#[derive(Debug)]
pub(crate) struct TargetHealth {
    pub(crate) target: TargetUrl,
    /// Nothing if its connections are not encrypted.
    pub(crate) secured: Option<Secured>,
    /// Which of its name's addresses was connected to last; locked for a copy, per dialled connection only.
    connected: Mutex<Option<SocketAddr>>,
    up: AtomicBool,
    /// Raised whenever the target goes down: connections made before are of no more use.
    epoch: AtomicU32,
}

impl TargetHealth {
    pub(crate) fn new(target: TargetUrl, up: bool) -> Self {
        Self { target, secured: None, connected: Mutex::default(), up: AtomicBool::new(up), epoch: AtomicU32::new(0) }
    }

    /// The same target, over TLS if `secured` says how.
    #[must_use]
    pub(crate) fn over(self, secured: Option<Secured>) -> Self {
        Self { secured, ..self }
    }

    /// Resolves the name anew and tries all its addresses, beginning with the one that was connected to last.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let mut addrs: Vec<_> = lookup_host(&self.target.authority).await?.collect();
        let last = *self.connected.lock();
        addrs.sort_by_key(|addr| Some(*addr) != last);
        let (addr, stream) = first_that_accepts(&addrs).await?;
        *self.connected.lock() = Some(addr);
        Ok(stream)
    }

    // Relaxed throughout: the flags steer, they publish nothing; a late reader only meets one more refused connection.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// A request failed on a connection of `epoch`. An old connection says nothing about the target now.
    pub(crate) fn mark_down(&self, epoch: u32) {
        if epoch == self.epoch() && self.up.swap(false, Ordering::Relaxed) {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It takes requests.
    pub(crate) fn mark_up(&self) {
        self.up.store(true, Ordering::Relaxed);
    }
}

async fn first_that_accepts(addrs: &[SocketAddr]) -> io::Result<(SocketAddr, TcpStream)> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (at, addr) in addrs.iter().enumerate() {
        let connect = TcpStream::connect(addr);
        let connected = if at + 1 == addrs.len() {
            connect.await
        } else {
            let tried = tokio::time::timeout(NEXT_ADDRESS_AFTER, connect).await;
            tried.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match connected {
            Ok(stream) => return Ok((*addr, stream)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Asks the targets that are down until they are ready.
pub(crate) async fn probe_for_ever(targets: Arc<[TargetHealth]>, cluster: HttpCluster) {
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        for (node, health) in targets.iter().enumerate() {
            if !health.is_up() && cluster.is_ready(node).await == Ok(true) {
                health.mark_up();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn all_addresses_of_a_name_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        // Nobody listens on the second, and packets to the first (RFC 5737, for documentation) lead nowhere, or are refused.
        let dead = |text: &str| text.parse::<SocketAddr>().unwrap();
        let addrs = [dead("192.0.2.1:9"), dead("[::1]:1"), dead("127.0.0.1:1"), live];
        assert_eq!(first_that_accepts(&addrs).await.unwrap().0, live);
        assert!(first_that_accepts(&addrs[2..3]).await.is_err());
        assert!(first_that_accepts(&[]).await.is_err());
        let target = TargetHealth::new(TargetUrl::new(&format!("localhost:{}", live.port())), true);
        target.connect().await.unwrap();
        assert_eq!(*target.connected.lock(), Some(live), "which is tried first from now on");
    }
}
