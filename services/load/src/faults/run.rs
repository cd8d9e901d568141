//! The faults of FAULTS, each at its time: laid on the nodes, seen to have an effect, and over. What the nodes themselves say
//! is the evidence: packets that they dropped, what their clock shows, how long they were silent, how old their process is.

use std::{cell::RefCell, time::Duration};

use tokio::time::Instant;

use super::{
    log::unix_ms,
    order::Ids,
    plan::{FaultKind, PlannedFault},
    record::{Effect, FaultRecord},
};
use crate::{Cluster, Counter, NodeIndex, NodeStats, Run, Snapshot, all_of, say};

/// How often nodes are asked.
const POLL: Duration = Duration::from_millis(25);
const WHOLE_POLL: Duration = Duration::from_millis(100);

/// How long before a fault the load is looked at.
const LOAD_BEFORE: Duration = Duration::from_secs(2);

/// A node that was told to die and still answers after this was not killed; one that drains takes its time.
const DIES_WITHIN: Duration = Duration::from_secs(15);

/// Before and after a fault a node has to tell its counters within this time.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// After the load, faults have to be healed and the mesh whole within this time; a node that nobody may start again is waited
/// for less long.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// A schedule that is being kept.
struct Keeper<'a, C> {
    run: &'a Run,
    cluster: &'a C,
    records: &'a RefCell<Vec<FaultRecord>>,
    ids: Vec<Option<String>>,
    members: Vec<String>,
}

/// Keeps the schedule, and writes what happens into `records`, which has one for each fault, as it happens.
pub(crate) async fn keep_faults(run: &Run, cluster: &impl Cluster, records: &RefCell<Vec<FaultRecord>>) {
    let views = all_of((0..run.plan.targets.len()).map(|node| cluster.view(NodeIndex(node)))).await;
    let mut members: Vec<_> =
        views.iter().flatten().flat_map(|view| &view.members).map(|seen| seen.id.clone()).collect();
    members.sort();
    members.dedup();
    let ids = views.into_iter().map(|view| view.ok().map(|view| view.id)).collect();
    let keeper = Keeper { run, cluster, records, ids, members };
    all_of(run.plan.faults.iter().enumerate().map(|(index, fault)| keeper.keep(index, fault))).await;
}

impl<C: Cluster> Keeper<'_, C> {
    async fn keep(&self, index: usize, fault: &PlannedFault) {
        let (run, entry) = (self.run, &fault.entry);
        self.until(entry.at.saturating_sub(LOAD_BEFORE)).await;
        let (ops, since) = (operations(run), run.load_elapsed());
        self.until(entry.at).await;
        let place = entry.place.to_string();
        let result = match entry.kind {
            FaultKind::Pause => self.pause(index, fault).await,
            FaultKind::Clock { offset_ms } => self.clock(index, fault, offset_ms).await,
            kind if kind.ends_by_itself() => self.lay(index, fault).await,
            kind => self.deaths(index, fault, kind, (ops, since)).await,
        };
        let rate = rate_since(run, ops, since);
        self.update(index, |record| {
            record.ended_at_s.get_or_insert_with(|| run.load_elapsed().as_secs_f64());
            record.ops_per_s_around.get_or_insert(rate);
            match result {
                Ok(effect) => record.effect = Some(effect),
                Err(reason) => {
                    say(&format!("[FAULT] {entry} had no effect: {reason}"));
                    record.failure = Some(reason);
                }
            }
        });
        run.faults.note_fault("healed", entry.kind.name(), &place);
        say(&format!("[HEALED] t={:.1}s {entry}", run.load_elapsed().as_secs_f64()));
        while whole(run, self.cluster, &self.ids).await.is_err() {
            tokio::time::sleep(WHOLE_POLL).await;
        }
        self.update(index, |record| record.recovered_at_s = Some(run.load_elapsed().as_secs_f64()));
        run.trouble_ends();
        run.faults.note_fault("recovered", entry.kind.name(), &place);
        say(&format!("[RECOVERED] t={:.1}s from {entry}", run.load_elapsed().as_secs_f64()));
    }

    /// It begins now.
    fn begin(&self, index: usize, fault: &PlannedFault) {
        let (run, entry) = (self.run, &fault.entry);
        self.update(index, |record| {
            record.begun_at_s = Some(run.load_elapsed().as_secs_f64());
            record.begun_at_unix_ms = Some(unix_ms());
        });
        run.trouble_begins();
        run.faults.note_fault("begun", entry.kind.name(), &entry.place.to_string());
        say(&format!("[FAULT] t={:.1}s {entry}", run.load_elapsed().as_secs_f64()));
    }

    /// Tells the nodes, and waits until it is over.
    async fn order(&self, index: usize, fault: &PlannedFault) -> Result<(), String> {
        for (node, order) in fault.orders(&Ids { targets: &self.ids, members: &self.members })? {
            self.cluster.lay(node, &order).await?;
        }
        let lasts = fault.entry.lasts;
        tokio::time::sleep(lasts).await;
        self.update(index, |record| record.ended_at_s = Some(self.run.load_elapsed().as_secs_f64()));
        Ok(())
    }

    /// Faults of links and of speed: the nodes count what they do to packets.
    async fn lay(&self, index: usize, fault: &PlannedFault) -> Result<Effect, String> {
        let (counter, effect): (_, fn(u64) -> Effect) = match fault.entry.kind {
            FaultKind::Delay { .. } | FaultKind::Reorder { .. } | FaultKind::Slow { .. } => {
                ("fault_packets_delayed", Effect::PacketsDelayed)
            }
            FaultKind::Duplicate { .. } => ("fault_packets_duplicated", Effect::PacketsDuplicated),
            _ => ("fault_packets_dropped", Effect::PacketsDropped),
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
    async fn clock(&self, index: usize, fault: &PlannedFault, offset_ms: i64) -> Result<Effect, String> {
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
        let moved = seen.into_inner().map(Effect::ClockOffMs);
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
    async fn pause(&self, index: usize, fault: &PlannedFault) -> Result<Effect, String> {
        let (node, lasts) = (fault.nodes[0], fault.entry.lasts);
        self.begin(index, fault);
        self.cluster.pause(node, lasts).await?;
        let (told, mut answered) = (Instant::now(), Instant::now());
        let mut silence = Duration::ZERO;
        loop {
            let is_over = told.elapsed() >= lasts;
            if is_over {
                self.update(index, |record| {
                    record.ended_at_s.get_or_insert_with(|| self.run.load_elapsed().as_secs_f64());
                });
            }
            if self.cluster.ready(node).await.is_ok() {
                silence = silence.max(answered.elapsed());
                answered = Instant::now();
                if is_over {
                    break;
                }
            } else if told.elapsed() >= lasts + TOLD_WITHIN {
                silence = silence.max(answered.elapsed());
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        let seconds = silence.as_secs_f64();
        if silence * 2 >= lasts {
            Ok(Effect::SilentS(seconds))
        } else {
            Err(format!("it went on answering, and was never silent for longer than {seconds:.2} s"))
        }
    }

    /// Kills a node, or stops it, as often as asked; each time it must fall silent, and who answers then must be younger.
    async fn deaths(
        &self,
        index: usize,
        fault: &PlannedFault,
        kind: FaultKind,
        (ops, since): (u64, Duration),
    ) -> Result<Effect, String> {
        let node = fault.nodes[0];
        self.begin(index, fault);
        for restarts in 0..kind.deaths() {
            let told = Instant::now();
            match kind {
                FaultKind::Stop => self.cluster.stop(node).await?,
                _ => self.cluster.kill(node).await?,
            }
            self.renewed(node, told, || {
                self.update(index, |record| {
                    record.effect = Some(Effect::Restarts(restarts));
                    // Nobody knows whether it will be back before the load ends.
                    record.ops_per_s_around.get_or_insert_with(|| rate_since(self.run, ops, since));
                });
            })
            .await?;
        }
        self.update(index, |record| record.ended_at_s = Some(self.run.load_elapsed().as_secs_f64()));
        Ok(Effect::Restarts(kind.deaths()))
    }

    /// Waits until a new process answers in place of the one that was told to die; tells when there is none.
    async fn renewed(&self, node: NodeIndex, told: Instant, gone: impl Fn()) -> Result<(), String> {
        let mut is_gone = false;
        loop {
            match self.cluster.stats(node).await {
                Ok(stats) => {
                    let age = stats.own("uptime_ms").map(Duration::from_millis);
                    if age.map_or(is_gone, |age| age < told.elapsed()) {
                        return Ok(());
                    }
                    if told.elapsed() >= DIES_WITHIN {
                        return Err(format!("it still answers {} s after it was told to die", DIES_WITHIN.as_secs()));
                    }
                }
                Err(_) if is_gone => {}
                Err(_) => {
                    is_gone = true;
                    gone();
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A node's counters, as soon as it tells them.
    async fn stats_of(&self, node: NodeIndex) -> Result<NodeStats, String> {
        let deadline = Instant::now() + TOLD_WITHIN;
        loop {
            match self.cluster.stats(node).await {
                Ok(stats) => return Ok(stats),
                Err(reason) if Instant::now() >= deadline => {
                    return Err(format!("{} did not tell its counters: {reason}", self.name(node)));
                }
                Err(_) => tokio::time::sleep(WHOLE_POLL).await,
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

    fn name(&self, node: NodeIndex) -> &str {
        &self.run.plan.targets[node.0]
    }
}

/// After the load, however it ended: ends what is still in force, and waits until the mesh is whole again.
///
/// # Errors
/// Why it is not.
pub(crate) async fn mend(run: &Run, cluster: &impl Cluster, records: &mut [FaultRecord]) -> Result<(), String> {
    let begun = |record: &FaultRecord| record.begun_at_s.is_some() && record.recovered_at_s.is_none();
    if !records.iter().any(begun) {
        return Ok(());
    }
    say("[HEAL] ending the faults that are left, and waiting until the mesh is whole");
    let left = run.plan.faults.iter().zip(records.iter()).filter(|(_, record)| record.may_be_on());
    let mut unhealed: Vec<_> = left.flat_map(|(fault, _)| fault.nodes.clone()).collect();
    unhealed.sort_by_key(|node| node.0);
    unhealed.dedup();
    let within = match records.iter().any(FaultRecord::is_away) {
        true if run.plan.sweeps() => BACK_WITHIN,
        // Only the sweep would have asked it.
        true => Duration::ZERO,
        false => WHOLE_WITHIN,
    };
    let (deadline, mut ids) = (Instant::now() + within, vec![None; run.plan.targets.len()]);
    loop {
        let healed = all_of(unhealed.iter().map(|node| cluster.heal(*node))).await;
        unhealed =
            unhealed.into_iter().zip(&healed).filter(|(_, healed)| healed.is_err()).map(|(node, _)| node).collect();
        for (node, id) in ids.iter_mut().enumerate().filter(|(_, id)| id.is_none()) {
            *id = cluster.view(NodeIndex(node)).await.ok().map(|view| view.id);
        }
        let state = match healed.into_iter().find_map(Result::err) {
            Some(reason) => Err(reason),
            None => whole(run, cluster, &ids).await,
        };
        match state {
            Ok(()) => break,
            Err(reason) if Instant::now() >= deadline => {
                return Err(format!("the mesh was not whole {} s after the last fault: {reason}", within.as_secs()));
            }
            Err(_) => tokio::time::sleep(WHOLE_POLL).await,
        }
    }
    let now_s = run.load_elapsed().as_secs_f64();
    for (fault, record) in run.plan.faults.iter().zip(records).filter(|(_, record)| begun(record)) {
        let (kind, place) = (record.kind, fault.entry.place.to_string());
        if record.ended_at_s.is_none() {
            run.faults.note_fault("healed", kind, &place);
        }
        run.faults.note_fault("recovered", kind, &place);
        record.recovered_at_s = Some(now_s);
    }
    Ok(())
}

/// Whether every target is ready, and none sees another one that is not alive.
async fn whole(run: &Run, cluster: &impl Cluster, ids: &[Option<String>]) -> Result<(), String> {
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

fn rate_since(run: &Run, ops: u64, since: Duration) -> f64 {
    let seconds = run.load_elapsed().saturating_sub(since).as_secs_f64();
    if seconds > 0.0 { operations(run).saturating_sub(ops) as f64 / seconds } else { 0.0 }
}
