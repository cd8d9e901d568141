//! What happened to the nodes and was not ordered by this run: processes that restart, members that leave, die and join. The nodes are
//! asked once a second.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::FaultRecord;
use crate::{Cluster, NodeIndex, Run, all_of, say, target::cluster::MemberSeen};

/// How often nodes are asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a fault of this run does is noticed at most so long after the mesh has recovered from it, in seconds.
const NOTICED_AFTER_S: f64 = 3.0;

/// A node's start is computed from its uptime and this host's clock: starts that are no further apart are one, in seconds.
const ONE_START_S: f64 = 0.5;

/// The results list no more of them.
const OBSERVED_MAX: usize = 1000;

/// One event that this run did not order.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObservedEvent {
    /// When it was seen, in seconds after the load began; of a restart, when the new process started.
    pub at_s: f64,
    /// `restarted`, `joined`, `left` or `dead`.
    pub kind: Cow<'static, str>,
    /// The node as in TARGETS; of a member, where its peers reach it.
    pub node: String,
    /// The node's new address, if it has another one since it restarted.
    pub address: Option<String>,
}

impl ObservedEvent {
    /// In a sentence, without its time.
    pub(crate) fn words(&self) -> String {
        let address = self.address.iter().map(|address| format!(" at the new address {address}")).collect::<String>();
        format!("{} {}{address}", self.node, self.kind)
    }
}

/// Looks at the nodes, and keeps what it sees.
#[derive(Debug)]
pub(crate) struct ClusterObserver {
    watched: Vec<WatchedTarget>,
    members: RefCell<Members>,
    seen: RefCell<Vec<ObservedEvent>>,
}

impl ClusterObserver {
    /// For a run with so many targets.
    pub(crate) fn new(targets: usize) -> Self {
        let watched = std::iter::repeat_with(WatchedTarget::default).take(targets).collect();
        Self { watched, members: RefCell::default(), seen: RefCell::default() }
    }

    /// Looks once a second until dropped. `faults` are those of this run.
    pub(crate) async fn watch(&self, run: &Run, cluster: &impl Cluster, faults: &RefCell<Vec<FaultRecord>>) {
        loop {
            self.look(run, cluster, faults).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All that was seen, what has happened since the last look included.
    pub(crate) async fn finish(
        self,
        run: &Run,
        cluster: &impl Cluster,
        faults: &RefCell<Vec<FaultRecord>>,
    ) -> Vec<ObservedEvent> {
        // A node that does not answer any more must not hold up the end.
        let _ = tokio::time::timeout(LOOK_EVERY, self.look(run, cluster, faults)).await;
        self.seen.into_inner()
    }

    async fn look(&self, run: &Run, cluster: &impl Cluster, faults: &RefCell<Vec<FaultRecord>>) {
        let looks = self.watched.iter().enumerate().map(|(at, watched)| watched.look(run, cluster, NodeIndex(at)));
        let restarted = all_of(looks).await.into_iter().flatten();
        let members = members(run, cluster).await;
        let joined = self.members.borrow_mut().compare(&members, run.load_s());
        for event in restarted.chain(joined) {
            if is_ordered(&event, &faults.borrow(), run.load_s()) || self.seen.borrow().len() >= OBSERVED_MAX {
                continue;
            }
            say(&format!("[OBSERVED] t={:.1}s {}", event.at_s, event.words()));
            run.faults.note("observed", event.kind.clone(), &event.node);
            self.seen.borrow_mut().push(event);
        }
    }
}

/// The members in the eyes of the first target that answers.
async fn members(run: &Run, cluster: &impl Cluster) -> Vec<MemberSeen> {
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        if let Ok(view) = cluster.view(node).await {
            return view.members;
        }
    }
    Vec::new()
}

/// Whether a fault of this run explains it: a restart only if that node was to end.
fn is_ordered(event: &ObservedEvent, faults: &[FaultRecord], now_s: f64) -> bool {
    faults.iter().any(|fault| {
        let is_on = fault.begun_at_s.is_some()
            && fault.recovered_at_s.is_none_or(|recovered_s| now_s <= recovered_s + NOTICED_AFTER_S);
        let is_about_it = event.kind != "restarted" || (fault.deaths > 0 && fault.targets.contains(&event.node));
        is_on && is_about_it
    })
}

/// One target's process and address, as they were seen last.
#[derive(Debug, Default)]
struct WatchedTarget {
    /// When its process started, in seconds after the load began.
    started_s: Cell<Option<f64>>,
    addresses: RefCell<Vec<String>>,
}

impl WatchedTarget {
    /// Whether another process answers than before.
    async fn look(&self, run: &Run, cluster: &impl Cluster, node: NodeIndex) -> Option<ObservedEvent> {
        let uptime_ms = cluster.stats(node).await.ok()?.own("uptime_ms")?;
        let started_s = run.load_s() - uptime_ms as f64 / 1e3;
        let before_s = self.started_s.get();
        if before_s.is_some_and(|before_s| started_s <= before_s + ONE_START_S) {
            return None;
        }
        // Only then it may have moved; a name service is asked no more often than it must.
        let addresses = cluster.addresses(node).await;
        self.started_s.set(Some(started_s));
        let before = self.addresses.replace(addresses.clone());
        let moved = addresses.into_iter().find(|address| !before.contains(address));
        let node = run.plan.targets[node.0].clone();
        before_s.map(|_| ObservedEvent {
            at_s: started_s,
            kind: "restarted".into(),
            node,
            address: moved.filter(|_| !before.is_empty()),
        })
    }
}

/// Who belongs to the mesh, by id: the address and the last state of each.
#[derive(Debug, Default)]
struct Members {
    known: BTreeMap<String, &'static str>,
    has_looked: bool,
}

impl Members {
    /// What has changed.
    fn compare(&mut self, members: &[MemberSeen], now_s: f64) -> Vec<ObservedEvent> {
        let mut events = Vec::new();
        for member in members {
            let kind = match member.state.as_str() {
                "alive" | "suspect" => "joined",
                "dead" => "dead",
                "left" | "leaving" => "left",
                // It is not in the ring yet.
                _ => continue,
            };
            let before = self.known.insert(member.id.clone(), kind);
            // Who has long been gone when the first look is taken is no event.
            let is_news = before.map_or(kind == "joined", |before| before != kind);
            if self.has_looked && is_news {
                let node = if member.addr.is_empty() { &member.id } else { &member.addr };
                events.push(ObservedEvent { at_s: now_s, kind: kind.into(), node: node.clone(), address: None });
            }
        }
        self.has_looked |= !members.is_empty();
        events
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::{NodeStats, NodeView, OutcomeClass, plan::settings::tests::plan_of, target::cluster::HeldVersion};

    fn event(kind: &'static str, node: &str) -> ObservedEvent {
        ObservedEvent { at_s: 2.0, kind: kind.into(), node: node.to_owned(), address: None }
    }

    #[test]
    fn members_that_come_and_go_are_events_after_the_first_look() {
        let mut members = Members::default();
        let mut look = |states: &[(&str, &str)]| {
            let seen = |(id, state): &(&str, &str)| MemberSeen {
                id: (*id).to_owned(),
                state: (*state).to_owned(),
                addr: format!("{id}:1"),
                ..MemberSeen::default()
            };
            let events = members.compare(&states.iter().map(seen).collect::<Vec<_>>(), 2.0);
            events.iter().map(ObservedEvent::words).collect::<Vec<_>>()
        };
        assert_eq!(look(&[("a", "alive"), ("b", "alive"), ("c", "dead")]), [""; 0]);
        assert_eq!(look(&[("a", "alive"), ("b", "suspect"), ("d", "joining")]), [""; 0]);
        assert_eq!(look(&[("a", "leaving"), ("b", "dead"), ("d", "alive")]), ["a:1 left", "b:1 dead", "d:1 joined"]);
        assert_eq!(look(&[("a", "left"), ("b", "alive"), ("d", "alive")]), ["b:1 joined"]);
        assert_eq!(look(&[]), [""; 0], "a node that knows nobody yet");
    }

    /// One node, whose process has been up for so long.
    struct Restarting(Cell<u64>);

    impl Cluster for Restarting {
        async fn stats(&self, _: NodeIndex) -> Result<NodeStats, String> {
            let mut stats = NodeStats::default();
            stats.mesh.insert("uptime_ms".to_owned(), self.0.get().into());
            Ok(stats)
        }

        async fn view(&self, _: NodeIndex) -> Result<NodeView, String> {
            Err("it tells nothing of its mesh".to_owned())
        }

        async fn ready(&self, _: NodeIndex) -> Result<bool, String> {
            Ok(true)
        }

        async fn kill(&self, _: NodeIndex) -> Result<(), String> {
            Err("nobody kills it".to_owned())
        }

        async fn read(&self, _: NodeIndex, _: &[u8]) -> Result<(OutcomeClass, HeldVersion), String> {
            Err("nobody reads it".to_owned())
        }
    }

    #[tokio::test]
    async fn a_restart_after_the_last_look_of_a_run_is_seen() {
        let plan = plan_of(&["--keys=10"]);
        let (run, node, faults) = (Run::new(plan), Restarting(Cell::new(60_000)), RefCell::default());
        let observer = ClusterObserver::new(1);
        let watched = tokio::time::timeout(LOOK_EVERY / 10, observer.watch(&run, &node, &faults)).await;
        assert!(watched.is_err(), "it ends with the load");
        node.0.set(5);
        let seen = observer.finish(&run, &node, &faults).await;
        assert_eq!(seen.iter().map(ObservedEvent::words).collect::<Vec<_>>(), ["a restarted"]);
    }

    #[test]
    fn what_the_run_ordered_is_no_event() {
        let crash = FaultRecord::example(1, 1.0);
        let partition = FaultRecord::example(0, 1.0);
        assert!(is_ordered(&event("restarted", "a"), from_ref(&crash), 9.0));
        assert!(!is_ordered(&event("restarted", "b"), from_ref(&crash), 9.0), "another node");
        assert!(!is_ordered(&event("restarted", "a"), from_ref(&partition), 9.0), "a partition ends no process");
        assert!(is_ordered(&event("dead", "x:1"), &[partition], 9.0));
        assert!(!is_ordered(&event("restarted", "a"), &[crash], 11.0), "long after it");
        assert!(!is_ordered(&event("dead", "x:1"), &[], 9.0));
    }
}
