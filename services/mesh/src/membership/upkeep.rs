//! Everything a node does without being asked: gossip, joining, publishing its weight, sweeping the store, and
//! repair by comparison and by hints.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mesh_proto::{Mutant, RejectReason, Weight, WeightSampler};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    core::Core,
    links::{
        health::Health,
        link::Link,
        peers::{GreetError, Greeted, Peers},
    },
    repair::collect::collect_tombstones,
};

/// How often a part of the store is looked through for what has expired.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// How many entries are looked at each time, of those that lie beside one that has expired: at well under 1 % of a core.
const SWEEP_ENTRIES: usize = 1000;

/// As long as most of them have expired, it goes on: so many times at most, which is a million a second.
const SWEEPS_MAX: usize = 50;

/// How long a join may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How many addresses of one name are tried.
const ADDRS_MAX: usize = 64;

/// How many names are tried at the same time.
const JOINS_AT_ONCE_MAX: usize = 16;

/// Starts upkeep on the current runtime.
pub(crate) fn start(core: &Arc<Core>, peers: &Arc<Peers>, joins: mpsc::Receiver<String>) {
    tokio::spawn(gossip(Arc::clone(core)));
    tokio::spawn(join(Arc::clone(core), Arc::clone(peers), joins));
    tokio::spawn(sweep(Arc::clone(core)));
    tokio::spawn(publish_weight(Arc::clone(core)));
    tokio::spawn(crate::membership::reached::run(Arc::clone(core), Arc::clone(peers)));
    tokio::spawn(crate::repair::resync::run(Arc::clone(core), Arc::clone(peers)));
    tokio::spawn(crate::repair::hints::run(Arc::clone(core), Arc::clone(peers)));
}

async fn gossip(core: Arc<Core>) {
    loop {
        let deadline = core.clock.instant(core.roster.next_deadline());
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep_until(deadline) => {
                core.unpaused().await;
                core.with_membership(|_, _| {});
            }
            () = core.roster.moved.notified() => {}
        }
    }
}

/// Joins seeds and returning members: each takes one exchange of member lists. Many at a time, because one that is gone for good
/// is waited for until the time is up, and those that are back would wait with it.
async fn join(core: Arc<Core>, peers: Arc<Peers>, mut joins: mpsc::Receiver<String>) {
    let mut underway = BTreeSet::new();
    let mut attempts = JoinSet::new();
    loop {
        let addr = tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            Some(tried) = attempts.join_next() => {
                // An attempt does not panic, and is not aborted before the node stops.
                if let Ok(addr) = tried {
                    underway.remove(&addr);
                }
                continue;
            }
            addr = joins.recv(), if underway.len() < JOINS_AT_ONCE_MAX => match addr {
                Some(addr) => addr,
                None => return,
            },
        };
        core.unpaused().await;
        if underway.insert(addr.clone()) {
            let (core, peers) = (Arc::clone(&core), Arc::clone(&peers));
            attempts.spawn(async move {
                let exchanged = tokio::time::timeout(JOIN_TIMEOUT, exchange_with_all(&core, &peers, &addr)).await;
                // At first a peer may not be there yet, or its name not be known.
                if exchanged == Ok(true) || core.clock.now().since_start() >= JOIN_TIMEOUT {
                    core.with_membership(|membership, _| membership.handle_tried(&addr));
                    core.resync_wanted.notify_one();
                }
                addr
            });
        }
    }
}

/// Exchanges member lists with the nodes at all addresses that a name stands for, this node among them perhaps. Whether all
/// have answered.
async fn exchange_with_all(core: &Arc<Core>, peers: &Arc<Peers>, name: &str) -> bool {
    let Ok(mut addrs) = peers.resolve(name).await else { return false };
    if Mutant::FirstAddressOnly.is_planted() {
        addrs.truncate(1);
    }
    let exchanges = addrs.into_iter().take(ADDRS_MAX).map(|addr| {
        let (core, peers) = (Arc::clone(core), Arc::clone(peers));
        async move { exchange_members(&core, &peers, &addr).await }
    });
    exchanges.collect::<JoinSet<bool>>().join_all().await.into_iter().all(|answered| answered)
}

/// Whether the member list of the node at this address has come.
async fn exchange_members(core: &Arc<Core>, peers: &Arc<Peers>, addr: &str) -> bool {
    let Greeted { connection, send, receive, hello } = match peers.greet(addr, None).await {
        Ok(greeted) => greeted,
        Err(error) => {
            let is_itself = matches!(error, GreetError::Rejected(RejectReason::Itself));
            peers.refused(addr.to_owned(), error);
            return is_itself;
        }
    };
    let peer = Health::new(connection.peer(), core.clock.now());
    let link = Link::new(Arc::clone(core), peer, Arc::clone(&connection), hello.limits);
    let has_come = tokio::select! {
        biased;
        has_come = link.exchange_members() => has_come,
        () = link.write_requests(send) => false,
        () = link.read_replies(receive) => false,
    };
    link.close();
    connection.close("members exchanged");
    has_come
}

async fn sweep(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        for _ in 0..SWEEPS_MAX {
            if core.replica.store.sweep(core.clock.unix(), SWEEP_ENTRIES) < SWEEP_ENTRIES / 2 {
                break;
            }
            tokio::task::yield_now().await;
        }
        core.replica.store.tidy();
        core.follow_wall_clock();
        collect_tombstones(&core, SWEEP_INTERVAL);
    }
}

async fn publish_weight(core: Arc<Core>) {
    let sample = || Weight::from_capacity(core.config.store.bytes_max);
    let mut sampler = WeightSampler::new(sample(), core.clock.now());
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep(core.config.weight_update) => {}
        }
        if let Some(weight) = sampler.handle_sample(core.clock.now(), sample()) {
            core.with_membership(|membership, now| membership.handle_weight(now, weight));
        }
    }
}
