//! The servers and who has which keys: shared by all threads, changed seldom, so each thread keeps a copy until there is a new one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use load::NodeIndex;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::slots::{SLOTS, SlotRange, slot_of};
use crate::{http::TargetHealth, settings::TargetUrl};

/// Who has which keys.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    /// Those that the run began with in the order of its targets, then any that joined later.
    pub(super) servers: Vec<Arc<TargetHealth>>,
    /// Of a Redis Cluster, each slot's master as a place among the servers.
    slots: Option<Box<[u16]>>,
}

impl Topology {
    /// The server of a key. Without slots, several servers share the keys by their slots' numbers.
    pub(super) fn route(&self, key: &[u8]) -> usize {
        match (&self.slots, self.servers.len()) {
            (Some(slots), _) => usize::from(slots[slot_of(key)]),
            (None, 1) => 0,
            (None, count) => slot_of(key) % count,
        }
    }

    /// Whether a server that has slots was found gone.
    pub(super) fn lacks_masters(&self) -> bool {
        let has_slots =
            |place: usize| self.slots.iter().any(|slots| slots.iter().any(|slot| usize::from(*slot) == place));
        self.servers.iter().enumerate().any(|(place, server)| !server.is_up() && has_slots(place))
    }

    fn place(&self, authority: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.target.authority == authority)
    }
}

/// The servers of a run.
#[derive(Debug)]
pub(crate) struct Servers {
    topology: Mutex<Arc<Topology>>,
    /// Raised with each new topology.
    version: AtomicU64,
    /// Somebody has met a server that is gone, or has not what it should have.
    pub(super) stale: Notify,
    /// How many the run began with.
    planned: usize,
}

impl Servers {
    /// These, and who has the slots if they are a Redis Cluster.
    pub(super) fn new(targets: &[TargetUrl], ranges: Option<&[SlotRange]>) -> Self {
        let servers = targets.iter().map(|target| Arc::new(TargetHealth::new(target.clone(), true))).collect();
        let slots = ranges.map(|_| vec![0; SLOTS].into_boxed_slice());
        let topology = Arc::new(Topology { servers, slots });
        let new = Self {
            topology: Mutex::new(topology),
            version: AtomicU64::new(0),
            stale: Notify::new(),
            planned: targets.len(),
        };
        ranges.into_iter().for_each(|ranges| new.assign(ranges));
        new
    }

    /// Raised whenever [`Self::topology`] changes.
    pub(super) fn version(&self) -> u64 {
        // Relaxed: a thread that is late meets one more redirection.
        self.version.load(Ordering::Relaxed)
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.lock())
    }

    /// Whether these are nodes of one Redis Cluster.
    pub(super) fn are_cluster(&self) -> bool {
        self.topology.lock().slots.is_some()
    }

    /// Under which of the run's targets a server is counted: those that joined later are counted under the first.
    pub(super) const fn counted_as(&self, place: usize) -> NodeIndex {
        NodeIndex(if place < self.planned { place } else { 0 })
    }

    /// Takes note of who has the slots.
    pub(super) fn assign(&self, ranges: &[SlotRange]) {
        self.change(|topology| {
            let mut slots = topology.slots.take().unwrap_or_else(|| vec![0; SLOTS].into_boxed_slice());
            for range in ranges {
                let master = place_in(topology, &range.master);
                slots[range.from..=range.to].fill(u16::try_from(master).unwrap_or(0));
            }
            topology.slots = Some(slots);
        });
    }

    /// The place of the server at this address, which joins the others if it is new.
    pub(super) fn place(&self, authority: &str) -> usize {
        let known = self.topology().place(authority);
        known.unwrap_or_else(|| self.change(|topology| place_in(topology, authority)))
    }

    /// Makes a new topology of the one there is. One change at a time: none undoes another.
    fn change<R>(&self, change: impl FnOnce(&mut Topology) -> R) -> R {
        let mut held = self.topology.lock();
        let mut topology = Topology::clone(&held);
        let result = change(&mut topology);
        *held = Arc::new(topology);
        self.version.fetch_add(1, Ordering::Relaxed);
        result
    }
}

fn place_in(topology: &mut Topology, authority: &str) -> usize {
    topology.place(authority).unwrap_or_else(|| {
        // All nodes of a cluster take the same login.
        let like = &topology.servers[0].target;
        let target = TargetUrl { authority: authority.to_owned(), ..like.clone() };
        topology.servers.push(Arc::new(TargetHealth::new(target, true)));
        topology.servers.len() - 1
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn range(from: usize, to: usize, server: &str) -> SlotRange {
        SlotRange { from, to, master: server.to_owned() }
    }

    #[test]
    fn slots_lead_to_masters_and_servers_that_join_are_counted_under_the_first() {
        let targets: Vec<_> = ["redis://a:1", "redis://b:2"].iter().map(|url| url.parse().unwrap()).collect();
        let servers = Servers::new(&targets, Some(&[range(0, 8191, "a:1"), range(8192, 16_383, "b:2")]));
        // Slots 8040 and 12182.
        let routes = |servers: &Servers| [&b"key-00000007"[..], b"foo"].map(|key| servers.topology().route(key));
        assert_eq!(routes(&servers), [0, 1]);
        let before = servers.version();
        servers.assign(&[range(0, 16_383, "c:3")]);
        assert_eq!(routes(&servers), [2, 2]);
        assert!(servers.version() > before && servers.are_cluster());
        let down = |place: usize| servers.topology().servers[place].mark_down(0);
        down(0);
        assert!(!servers.topology().lacks_masters(), "it has no slots any more");
        down(2);
        assert!(servers.topology().lacks_masters());
        assert_eq!([1, 2].map(|place| servers.counted_as(place)), [NodeIndex(1), NodeIndex(0)]);
        assert_eq!((servers.place("c:3"), servers.place("d:4")), (2, 3));
        assert_eq!(servers.topology().servers[3].target.url(), "redis://d:4");
    }

    #[test]
    fn servers_that_threads_meet_at_the_same_time_have_a_place_each() {
        let servers = Servers::new(&["redis://a:1".parse().unwrap()], Some(&[range(0, 16_383, "a:1")]));
        let meet = |thread: usize| {
            for number in 0..100 {
                let authority = format!("t{thread}:{number}");
                let place = servers.place(&authority);
                let topology = servers.topology();
                assert!(topology.servers.get(place).is_some_and(|server| server.target.authority == authority));
            }
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|thread| drop(scope.spawn(move || meet(thread))));
        });
        assert_eq!(servers.topology().servers.len(), 401);
    }

    #[test]
    fn servers_without_slots_share_the_keys() {
        let targets: Vec<_> = ["memcached://a:1", "memcached://b:2"].iter().map(|url| url.parse().unwrap()).collect();
        let topology = Servers::new(&targets, None).topology();
        let keys = (0..1000).map(|key| format!("key-{key:08}"));
        let second = keys.filter(|key| topology.route(key.as_bytes()) == 1).count();
        assert!((400..600).contains(&second), "{second} of 1000");
    }
}
