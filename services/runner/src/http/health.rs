//! Which targets take requests: shared by all threads, so that one thread's refused connection spares the others theirs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{control::HttpCluster, settings::TargetUrl};

/// How often a target that is down is asked whether it is ready.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// One target's health.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) target: TargetUrl,
    /// Where its name led when it was last looked up; locked for a copy, per dialled connection only.
    addr: Mutex<SocketAddr>,
    up: AtomicBool,
    /// Raised whenever the target goes down: connections made before are of no more use.
    epoch: AtomicU32,
}

impl Health {
    pub(crate) fn new(target: TargetUrl, addr: SocketAddr, up: bool) -> Self {
        Self { target, addr: Mutex::new(addr), up: AtomicBool::new(up), epoch: AtomicU32::new(0) }
    }

    // Relaxed throughout: the flags steer, they publish nothing; a late reader only meets one more refused connection.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        *self.addr.lock()
    }

    /// A request failed on a connection of `epoch`. An old connection says nothing about the target now.
    pub(crate) fn mark_down(&self, epoch: u32) {
        if epoch == self.epoch() && self.up.swap(false, Ordering::Relaxed) {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn mark_up(&self) {
        self.up.store(true, Ordering::Relaxed);
    }
}

/// Asks the targets that are down until they are ready; a restarted one may have a new address.
pub(crate) async fn probe_for_ever(targets: Arc<[Health]>, cluster: HttpCluster) {
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        for (node, health) in targets.iter().enumerate() {
            if health.is_up() || cluster.is_ready(node).await != Ok(true) {
                continue;
            }
            if let Ok(Some(addr)) = tokio::net::lookup_host(&health.target.authority).await.map(|mut all| all.next()) {
                *health.addr.lock() = addr;
            }
            health.mark_up();
        }
    }
}
