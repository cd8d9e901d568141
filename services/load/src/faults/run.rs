//! Injects the planned faults, each at its time or in its turn: orders it, collects the evidence of its effect, and waits until
//! the mesh has recovered. The evidence is what nodes report: packets dropped, their clock, their silence, the age of their process.

use std::{cell::RefCell, time::Duration};

use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::{
    log::unix_ms,
    order::Ids,
    plan::{FaultKind, PlannedFault},
    record::{Evidence, FaultRecord},
};
use crate::{Cluster, Counter, NodeIndex, NodeStats, Run, Snapshot, all_of, say};

/// How often nodes are asked.
const POLL: Duration = Duration::from_millis(25);
const RECOVERY_POLL: Duration = Duration::from_millis(100);

/// The load around a fault counts from this long before it.
const LOAD_BEFORE: Duration = Duration::from_secs(2);

/// A node that still answers this long after it was told to end has not ended. One that stops hands over first.
const CRASHES_WITHIN: Duration = Duration::from_secs(3);
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// How long the load goes on after the last of several crashes, so that the time after it is measured too.
const RECOVERED_FOR: Duration = Duration::from_secs(2);

/// Before and after a fault a node has to report its counters within this time.
const REPORTS_WITHIN: Duration = Duration::from_secs(10);

/// After the load, faults have to be healed and the mesh recovered within this time; the wait for a node that nothing may
/// restart is shorter.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// The faults of a run that are being injected.
struct Injector<'a, C> {
    run: &'a Run,
    cluster: &'a C,
    records: &'a RefCell<Vec<FaultRecord>>,
    ids: Vec<Option<String>>,
    members: Vec<String>,
}

/// Injects all planned faults, and writes what happens into `records`, which has one for each fault, as it happens.
pub(crate) async fn inject(run: &Run, cluster: &impl Cluster, records: &RefCell<Vec<FaultRecord>>) {
    let views = all_of((0..run.plan.targets.len()).map(|node| cluster.view(NodeIndex(node)))).await;
    let mut members: Vec<_> =
        views.iter().flatten().flat_map(|view| &view.members).map(|seen| seen.id.clone()).collect();
    members.sort();
    members.dedup();
    let ids = views.into_iter().map(|view| view.ok().map(|view| view.id)).collect();
    let injector = Injector { run, cluster, records, ids, members };
    all_of(run.plan.faults.iter().enumerate().map(|(index, fault)| injector.inject(index, fault))).await;
}

impl<C: Cluster> Injector<'_, C> {
    async fn inject(&self, index: usize, fault: &PlannedFault) {
        let load = self.due(index, fault).await;
        let span = info_span!("fault", fault = %fault.entry);
        self.strike(index, fault, load).instrument(span).await;
        if fault.turn.is_some_and(|turn| turn.is_last) {
            tokio::time::sleep(RECOVERED_FOR).await;
            self.run.end_load();
        }
    }

    /// From the order until the mesh has recovered.
    async fn strike(&self, index: usize, fault: &PlannedFault, load: (u64, Duration)) {
        let (run, entry) = (self.run, &fault.entry);
        let result = match entry.kind {
            FaultKind::Pause => self.pause(index, fault).await,
            FaultKind::Clock { offset_ms } => self.clock(index, fault, offset_ms).await,
            kind if kind.ends_by_itself() => self.lay(index, fault).await,
            kind => self.end_processes(index, fault, kind, load).await,
        };
        let rate = rate_since(run, load);
        self.update(index, |record| {
            record.ended_at_s.get_or_insert_with(|| run.load_s());
            record.ops_per_s_around.get_or_insert(rate);
            match result {
                Ok(evidence) => record.effect = Some(evidence),
                Err(reason) => {
                    say(&format!("[FAULT] {entry} had no effect: {reason}"));
                    record.failure = Some(reason);
                }
            }
        });
        self.note("healed", fault);
        say(&format!("[HEALED] t={:.1}s {entry}", run.load_s()));
        loop {
            let looked_s = run.load_s();
            if recovered(run, self.cluster, &self.ids).await.is_ok() {
                break;
            }
            self.update(index, |record| record.unrecovered_at_s = Some(looked_s));
            self.watch_return(index, fault).await;
            tokio::time::sleep(RECOVERY_POLL).await;
        }
        self.watch_return(index, fault).await;
        self.update(index, |record| record.recovered_at_s = Some(run.load_s()));
        run.fault_ended();
        self.note("recovered", fault);
        say(&format!("[RECOVERED] t={:.1}s from {entry}", run.load_s()));
    }

    /// Waits until the fault is due. Gives the operations and the time from which the load around it counts.
    async fn due(&self, index: usize, fault: &PlannedFault) -> (u64, Duration) {
        let now = || (operations(self.run), self.run.load_elapsed());
        let Some(turn) = fault.turn.filter(|turn| !turn.is_first) else {
            self.until(fault.entry.at.saturating_sub(LOAD_BEFORE)).await;
            let load = now();
            self.until(fault.entry.at).await;
            return load;
        };
        let before = |field: fn(&FaultRecord) -> Option<f64>| {
            self.records.borrow().get(index - 1).filter(|record| record.failure.is_none()).and_then(field)
        };
        while before(|record| record.begun_at_s).is_none() {
            tokio::time::sleep(POLL).await;
        }
        let load = now();
        // If the one before had no effect, this never ends: the run is invalid.
        let recovered_s = loop {
            match before(|record| record.recovered_at_s) {
                Some(recovered_s) => break recovered_s,
                None => tokio::time::sleep(POLL).await,
            }
        };
        let begun_s = before(|record| record.begun_at_s).unwrap_or_default();
        let (due, steady) = (Duration::from_secs_f64(begun_s), Duration::from_secs_f64(recovered_s));
        self.until((due + turn.every).max(steady + turn.steady)).await;
        load
    }

    /// It starts now.
    fn begin(&self, index: usize, fault: &PlannedFault) {
        let (run, entry) = (self.run, &fault.entry);
        self.update(index, |record| {
            record.begun_at_s = Some(run.load_s());
            record.begun_at_unix_ms = Some(unix_ms());
        });
        run.fault_started();
        self.note("begun", fault);
        say(&format!("[FAULT] t={:.1}s {entry}", run.load_s()));
    }

    /// Tells the nodes, and waits until it is over.
    async fn order(&self, index: usize, fault: &PlannedFault) -> Result<(), String> {
        for (node, order) in fault.orders(&Ids { targets: &self.ids, members: &self.members })? {
            self.cluster.lay(node, &order).await?;
        }
        let lasts = fault.entry.lasts;
        tokio::time::sleep(lasts).await;
        self.update(index, |record| record.ended_at_s = Some(self.run.load_s()));
        Ok(())
    }

    /// Faults of links and of speed: the nodes count what they do to packets.
    async fn lay(&self, index: usize, fault: &PlannedFault) -> Result<Evidence, String> {
        let (counter, effect): (_, fn(u64) -> Evidence) = match fault.entry.kind {
            FaultKind::Delay { .. } | FaultKind::Reorder { .. } | FaultKind::Slow { .. } => {
                ("fault_packets_delayed", Evidence::PacketsDelayed)
            }
            FaultKind::Duplicate { .. } => ("fault_packets_duplicated", Evidence::PacketsDuplicated),
            _ => ("fault_packets_dropped", Evidence::PacketsDropped),
        };
        let before = all_of(fault.nodes.iter().map(|node| self.stats_of(*node))).await;
        self.begin(index, fault);
        self.order(index, fault).await?;
        let mut packets = 0;
        for (node, before) in fault.nodes.iter().zip(before) {
            let before = before?.own(counter).ok_or_else(|| format!("{} does not count them", self.name(*node)))?;
            let after = self.stats_of(*node).await?.own(counter).unwrap_or_default();
            // A node that was restarted meanwhile has begun to count anew.
            packets += if after >= before { after - before } else { after };
        }
        let name = counter.replace("fault_", "").replace('_', " ");
        if packets > 0 { Ok(effect(packets)) } else { Err(format!("the nodes count no {name}")) }
    }

    /// A clock must be seen to have moved, at least half as far as it should.
    async fn clock(&self, index: usize, fault: &PlannedFault, offset_ms: i64) -> Result<Evidence, String> {
        let (node, asked) = (fault.nodes[0], offset_ms as f64);
        let before = self.clock_of(node, asked.abs() / 2.0).await;
        self.begin(index, fault);
        let seen = RefCell::new(None);
        let watch = async {
            let Some(before) = before else { return };
            while seen.borrow().is_none() {
                let now = self.clock_of(node, asked.abs() / 2.0).await;
                let moved = now.map(|now| now - before);
                *seen.borrow_mut() = moved.filter(|moved| moved * asked.signum() >= asked.abs() / 2.0);
                tokio::time::sleep(POLL).await;
            }
        };
        let (ordered, ()) = tokio::join!(self.order(index, fault), async {
            let _ = tokio::time::timeout(fault.entry.lasts, watch).await;
        });
        ordered?;
        let moved = seen.into_inner().map(Evidence::ClockOffMs);
        moved.ok_or_else(|| "its clock was not seen to move".to_owned())
    }

    /// How far a node's clock is ahead of ours, in milliseconds; nothing if it takes longer to find out than `within_ms`.
    async fn clock_of(&self, node: NodeIndex, within_ms: f64) -> Option<f64> {
        let asked = unix_ms();
        let theirs = self.cluster.view(node).await.ok()?.unix_ms?;
        let (asked, answered) = (asked as f64, unix_ms() as f64);
        (answered - asked <= within_ms).then(|| theirs as f64 - f64::midpoint(asked, answered))
    }

    /// A node that is paused must be silent for at least half of the time.
    async fn pause(&self, index: usize, fault: &PlannedFault) -> Result<Evidence, String> {
        let (node, lasts) = (fault.nodes[0], fault.entry.lasts);
        self.begin(index, fault);
        self.cluster.pause(node, lasts).await?;
        let (told, mut answered) = (Instant::now(), Instant::now());
        let mut silence = Duration::ZERO;
        loop {
            let is_over = told.elapsed() >= lasts;
            if is_over {
                self.update(index, |record| {
                    record.ended_at_s.get_or_insert_with(|| self.run.load_s());
                });
            }
            if self.cluster.ready(node).await.is_ok() {
                silence = silence.max(answered.elapsed());
                answered = Instant::now();
                if is_over {
                    break;
                }
            } else if told.elapsed() >= lasts + REPORTS_WITHIN {
                silence = silence.max(answered.elapsed());
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        let seconds = silence.as_secs_f64();
        if silence * 2 >= lasts {
            Ok(Evidence::SilentS(seconds))
        } else {
            Err(format!("it went on answering, and was never silent for longer than {seconds:.2} s"))
        }
    }

    /// Kills a node, or stops it, as often as planned. Each time it must fall silent, and a younger process must answer.
    async fn end_processes(
        &self,
        index: usize,
        fault: &PlannedFault,
        kind: FaultKind,
        load: (u64, Duration),
    ) -> Result<Evidence, String> {
        let (run, node) = (self.run, fault.nodes[0]);
        self.begin(index, fault);
        for restarts in 0..kind.deaths() {
            let told = Instant::now();
            let within = match kind {
                FaultKind::Stop => self.cluster.stop(node).await.map(|()| STOPS_WITHIN)?,
                _ => self.cluster.kill(node).await.map(|()| CRASHES_WITHIN)?,
            };
            let mut is_silent = false;
            while !self.is_renewed(node, told, within, &mut is_silent).await? {
                if is_silent {
                    self.update(index, |record| {
                        record.effect = Some(Evidence::Restarts(restarts));
                        if record.silent_at_s.is_none() {
                            record.silent_at_s = Some(run.load_s());
                            self.note("silent", fault);
                        }
                        // The load may end before the node is back.
                        record.ops_per_s_around.get_or_insert_with(|| rate_since(run, load));
                    });
                }
                self.watch_return(index, fault).await;
                tokio::time::sleep(POLL).await;
            }
        }
        self.update(index, |record| record.ended_at_s = Some(run.load_s()));
        self.note("back", fault);
        Ok(Evidence::Restarts(kind.deaths()))
    }

    /// Whether a new process answers in place of the one that was told to end. Sets `is_silent` once none answers.
    async fn is_renewed(
        &self,
        node: NodeIndex,
        told: Instant,
        within: Duration,
        is_silent: &mut bool,
    ) -> Result<bool, String> {
        let Ok(stats) = self.cluster.stats(node).await else {
            *is_silent = true;
            return Ok(false);
        };
        let age = stats.own("uptime_ms").map(Duration::from_millis);
        if age.map_or(*is_silent, |age| age < told.elapsed()) {
            return Ok(true);
        }
        if told.elapsed() < within {
            return Ok(false);
        }
        Err(format!("it still answers {} s after it was told to end", within.as_secs()))
    }

    /// Notes what survivors see of a crash or a stop, and when the node's new process is ready.
    async fn watch_return(&self, index: usize, fault: &PlannedFault) {
        if fault.entry.kind.deaths() != 1 {
            return;
        }
        let (run, node) = (self.run, fault.nodes[0]);
        let survivors = (0..run.plan.targets.len()).filter(|other| *other != node.0).map(NodeIndex);
        for (at, survivor) in survivors.enumerate() {
            let view = self.cluster.view(survivor).await.unwrap_or_default();
            let id = self.ids[node.0].as_ref();
            let Some(seen) = view.members.iter().find(|member| Some(&member.id) == id) else { continue };
            self.update(index, |record| {
                if record.seen(at, &seen.state, run.load_s()) {
                    self.note("dead", fault);
                }
            });
        }
        let is_back = self.records.borrow()[index].ended_at_s.is_some();
        if is_back && self.cluster.ready(node).await == Ok(true) {
            self.update(index, |record| {
                if record.ready_at_s.is_none() {
                    record.ready_at_s = Some(run.load_s());
                    self.note("ready", fault);
                }
            });
        }
    }

    /// A node's counters, as soon as it reports them.
    async fn stats_of(&self, node: NodeIndex) -> Result<NodeStats, String> {
        let deadline = Instant::now() + REPORTS_WITHIN;
        loop {
            match self.cluster.stats(node).await {
                Ok(stats) => return Ok(stats),
                Err(reason) if Instant::now() >= deadline => {
                    return Err(format!("{} did not report its counters: {reason}", self.name(node)));
                }
                Err(_) => tokio::time::sleep(RECOVERY_POLL).await,
            }
        }
    }

    /// Waits until so long after the load began.
    async fn until(&self, at: Duration) {
        tokio::time::sleep(at.saturating_sub(self.run.load_elapsed())).await;
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut FaultRecord)) {
        if let Some(record) = self.records.borrow_mut().get_mut(index) {
            change(record);
        }
    }

    fn note(&self, action: &'static str, fault: &PlannedFault) {
        info!(action, "fault");
        self.run.faults.note(action, fault.entry.kind.name(), &fault.entry.place.to_string());
    }

    fn name(&self, node: NodeIndex) -> &str {
        &self.run.plan.targets[node.0]
    }
}

/// After the load, however it ended: ends what is still in force, and waits until the mesh has recovered.
///
/// # Errors
/// Why it has not.
pub(crate) async fn heal_all(run: &Run, cluster: &impl Cluster, records: &mut [FaultRecord]) -> Result<(), String> {
    let begun = |record: &FaultRecord| record.begun_at_s.is_some() && record.recovered_at_s.is_none();
    if !records.iter().any(begun) {
        return Ok(());
    }
    say("[HEAL] ending the faults that are left, and waiting until the mesh has recovered");
    let left = run.plan.faults.iter().zip(records.iter()).filter(|(_, record)| record.may_be_on());
    let mut unhealed: Vec<_> = left.flat_map(|(fault, _)| fault.nodes.clone()).collect();
    unhealed.sort_by_key(|node| node.0);
    unhealed.dedup();
    let within = match records.iter().any(FaultRecord::is_away) {
        true if run.plan.sweeps() => BACK_WITHIN,
        // Only the sweep would have asked it.
        true => Duration::ZERO,
        false => RECOVERED_WITHIN,
    };
    let (deadline, mut ids) = (Instant::now() + within, vec![None; run.plan.targets.len()]);
    loop {
        let looked_s = run.load_s();
        let healed = all_of(unhealed.iter().map(|node| cluster.heal(*node))).await;
        unhealed =
            unhealed.into_iter().zip(&healed).filter(|(_, healed)| healed.is_err()).map(|(node, _)| node).collect();
        for (node, id) in ids.iter_mut().enumerate().filter(|(_, id)| id.is_none()) {
            *id = cluster.view(NodeIndex(node)).await.ok().map(|view| view.id);
        }
        let state = match healed.into_iter().find_map(Result::err) {
            Some(reason) => Err(reason),
            None => recovered(run, cluster, &ids).await,
        };
        match state {
            Ok(()) => break,
            Err(reason) if Instant::now() >= deadline => {
                return Err(format!(
                    "the mesh had not recovered {} s after the last fault: {reason}",
                    within.as_secs()
                ));
            }
            Err(_) => {
                records.iter_mut().filter(|record| begun(record)).for_each(|record| {
                    record.unrecovered_at_s = Some(looked_s);
                });
                tokio::time::sleep(RECOVERY_POLL).await;
            }
        }
    }
    let now_s = run.load_s();
    for (fault, record) in run.plan.faults.iter().zip(records).filter(|(_, record)| begun(record)) {
        let (kind, place) = (fault.entry.kind.name(), fault.entry.place.to_string());
        if record.ended_at_s.is_none() {
            run.faults.note("healed", kind, &place);
        }
        run.faults.note("recovered", kind, &place);
        record.recovered_at_s = Some(now_s);
    }
    Ok(())
}

/// Whether every target is ready, and none sees another one that is not alive.
async fn recovered(run: &Run, cluster: &impl Cluster, ids: &[Option<String>]) -> Result<(), String> {
    for (node, name) in run.plan.targets.iter().enumerate() {
        match cluster.ready(NodeIndex(node)).await {
            Ok(true) => {}
            Ok(false) => return Err(format!("{name} is not ready")),
            Err(reason) => return Err(format!("{name}: {reason}")),
        }
        let view = cluster.view(NodeIndex(node)).await?;
        let known = |id: &String| ids.iter().position(|known| known.as_ref() == Some(id));
        let absent = view.members.iter().find(|member| member.state != "alive" && known(&member.id).is_some());
        if let Some(member) = absent {
            let whom = known(&member.id).map_or(member.id.as_str(), |node| &run.plan.targets[node]);
            return Err(format!("{name} sees {whom} {}", member.state));
        }
    }
    Ok(())
}

fn operations(run: &Run) -> u64 {
    Snapshot::of(&run.live).get(Counter::Ops)
}

fn rate_since(run: &Run, (ops, since): (u64, Duration)) -> f64 {
    let seconds = run.load_elapsed().saturating_sub(since).as_secs_f64();
    if seconds > 0.0 { operations(run).saturating_sub(ops) as f64 / seconds } else { 0.0 }
}
