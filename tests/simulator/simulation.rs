//! One seed from its plan to its verdict.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    check::{self, Clocks},
    cluster::Cluster,
    history::{Action, Fate, Key, Level, Operation, Seen},
    links::Links,
    narrator::narrate,
    overlap::{Pairs, Role},
    plan::{Cut, Fault, Plan, Promise, Step},
    sessions::{Clients, Session},
    tally::Counts,
};

/// How long nodes may take to be ready after they were started or the network healed.
const READY_MAX: Duration = Duration::from_secs(20);

/// How long owners may differ once all is healed (G6).
const CONVERGED_MAX: Duration = Duration::from_secs(10);

/// An hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

thread_local! {
    /// Panics on this thread: a task that panics would otherwise only be missed.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Counts panics per thread, as well as printing them.
pub fn watch_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.set(PANICS.get() + 1);
        print(panic);
    }));
}

/// How many there were on this thread since the last seed began.
pub fn panics() -> u64 {
    PANICS.get()
}

/// What came of a seed.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must not be.
    pub findings: Vec<String>,
    /// What happened.
    pub counts: Counts,
    /// What happened at the same time.
    pub pairs: Pairs,
    /// Of the history.
    pub hash: u64,
    /// Simulated time.
    pub took: Duration,
}

/// Simulates a plan.
pub fn simulate(plan: &Plan) -> Verdict {
    PANICS.set(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime starts");
    let mut verdict = runtime.block_on(async { Simulation::new(plan).run().await });
    drop(runtime);
    if PANICS.get() > 0 {
        verdict.findings.push(format!("{} panics", PANICS.get()));
    }
    verdict
}

struct Simulation<'a> {
    plan: &'a Plan,
    cluster: Arc<Cluster>,
    clients: Arc<Clients>,
    links: Links,
    clock_jumped: bool,
    /// More has failed than may, because somebody could not hand over in time what it held.
    lapsed: bool,
    started: Instant,
    verdict: Verdict,
}

impl<'a> Simulation<'a> {
    fn new(plan: &'a Plan) -> Self {
        let cluster = Arc::new(Cluster::new(plan));
        let clients = Clients::new(plan, &cluster);
        Self {
            plan,
            cluster,
            clients,
            links: Links::default(),
            clock_jumped: false,
            lapsed: false,
            started: Instant::now(),
            verdict: Verdict::default(),
        }
    }

    async fn run(mut self) -> Verdict {
        if self.plan.clock_offsets_ms.iter().any(|offset| *offset > 0) {
            self.verdict.counts.add("clocks 450 ms apart", 1);
        }
        if self.plan.at_once {
            self.verdict.counts.add("few keys, all clients at once", 1);
        }
        if self.plan.tombstones_kept.is_some() {
            self.verdict.counts.add("short-lived tombstones", 1);
        }
        if self.plan.hint_bytes_max.is_some() {
            self.verdict.counts.add("small hint queues", 1);
        }
        (0..self.plan.nodes).for_each(|at| self.cluster.start(at));
        self.ready("at the start").await;
        if !self.verdict.findings.is_empty() {
            return self.verdict;
        }
        // Spread over what the schedule will about take.
        let expected: Duration = self.plan.steps.iter().map(|step| step.lasts + Duration::from_millis(700)).sum();
        let pause = expected.as_micros() as u64 * u64::from(self.plan.sessions) / self.plan.operations;
        self.clients.pause_us.store(pause, Relaxed);
        let mut sessions = JoinSet::new();
        for number in 0..self.plan.sessions {
            sessions.spawn(Session::new(&self.clients, self.plan.seed, number).run());
        }
        for step in &self.plan.steps {
            if !self.verdict.findings.is_empty() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
            self.suffer(step).await;
        }
        self.clients.pause_us.store(500, Relaxed);
        while self.clients.done() < self.plan.operations {
            sleep(Duration::from_millis(5)).await;
        }
        self.clients.is_over.store(true, Relaxed);
        if timeout(Duration::from_secs(20), async { while sessions.join_next().await.is_some() {} }).await.is_err() {
            self.finding("a client waits for ever".to_owned());
        }
        self.settled("at the end").await;
        self.sweep().await;
        let cluster = Arc::clone(&self.cluster);
        let verdict = self.conclude();
        // Who is dropped with the runtime while connected keeps its memory for ever: a night's seeds would not fit.
        (0..cluster.ids().len()).for_each(|at| cluster.crash(at));
        sleep(Duration::from_millis(10)).await;
        verdict
    }

    fn finding(&mut self, what: String) {
        self.verdict.findings.push(what);
    }

    async fn ready(&mut self, when: &str) {
        if self.cluster.wait(READY_MAX, Cluster::is_ready).await.is_err() {
            let why = self.cluster.unsettled();
            self.finding(format!("not ready within {READY_MAX:?} {when}: {why:?}"));
        }
    }

    /// G6: all owners agree within 10 s after a fault has healed.
    async fn settled(&mut self, when: &str) {
        if self.plan.promise == Promise::Evicting {
            return self.ready(when).await;
        }
        if self.cluster.wait(CONVERGED_MAX, Cluster::is_settled).await.is_err() {
            let why = self.cluster.unsettled();
            self.finding(format!("owners differ {CONVERGED_MAX:?} after the heal, {when}: {why:?}"));
        }
    }

    async fn suffer(&mut self, step: &Step) {
        narrate(self.cluster.epoch, || format!("{step:?}"));
        self.verdict.counts.add(step.fault.name(), 1);
        if let Some(weather) = &step.weather {
            self.verdict.counts.add(weather.name(), 1);
            self.lay(weather);
        }
        let changes = self.change(step);
        let began = Instant::now();
        self.begin(step).await;
        self.end(&step.fault).await;
        if step.fault != Fault::Nothing {
            self.cluster.spans.end(Role::Fault, step.fault.name(), began);
        }
        if let Some(weather) = &step.weather {
            self.cluster.spans.end(Role::Weather, weather.name(), began);
        }
        self.changed(step, changes).await;
        let when = format!("after {:?} and {:?}", step.fault, step.changes);
        if step.settle {
            self.clients.hold().await;
            self.settled(&when).await;
            self.clients.release();
        } else {
            self.ready(&when).await;
        }
    }

    /// Lets the changes of a step take their course.
    fn change(&mut self, step: &Step) -> JoinSet<bool> {
        let mut changes = JoinSet::new();
        for timed in &step.changes {
            self.verdict.counts.add(timed.change.name(), 1);
            self.verdict.counts.add("changes beside a fault", u64::from(step.fault != Fault::Nothing));
            changes.spawn(timed.happen(Arc::clone(&self.cluster)));
        }
        changes
    }

    /// Waits for their ends, and notes if more has failed than may: who leaves has failed if it could not hand over in time what
    /// it held.
    async fn changed(&mut self, step: &Step, mut changes: JoinSet<bool>) {
        let killed = step.changes.iter().filter(|timed| timed.change.is_failure()).count();
        let mut failed = step.fault.failures() + killed;
        while let Some(changed) = changes.join_next().await {
            if !changed.expect("a change does not panic") {
                self.verdict.counts.add("leaves cut short", 1);
                if failed == 0 && step.weather.is_none() {
                    self.finding(format!("somebody left in vain, though nothing was wrong: {:?}", step.changes));
                }
                failed += 1;
            }
        }
        self.lapsed |= failed > self.plan.failures_max();
    }

    /// Lets a fault act for its time.
    async fn begin(&mut self, step: &Step) {
        match &step.fault {
            Fault::Crash(victims) => victims.iter().for_each(|victim| self.cluster.crash(*victim)),
            Fault::Stop(victim) => {
                self.cluster.stop(*victim).await;
            }
            Fault::RestartStorm => return self.restart_storm().await,
            Fault::Pause(victim) => {
                if let Some(node) = self.cluster.node(*victim) {
                    node.pause(step.lasts);
                }
            }
            Fault::Partition(victims, Cut::Flapping { period }) => {
                return self.flap(victims, *period, step.lasts).await;
            }
            Fault::Partition(victims, cut) => self.partition(victims, *cut),
            Fault::ClockJump(victim) => {
                self.clock_jumped = true;
                self.cluster.move_clock(*victim, HOUR_MS);
            }
            weather => self.lay(weather),
        }
        sleep(step.lasts).await;
    }

    /// Makes the network slower or less reliable.
    fn lay(&mut self, weather: &Fault) {
        match weather {
            Fault::SlowNode(victim, delay) => self.links.slow = Some((*victim, *delay)),
            Fault::Loss(share) => self.links.loss = *share,
            Fault::Delay(delay) => self.links.delay = *delay,
            Fault::Reorder(jitter) => self.links.jitter = *jitter,
            Fault::Duplicate(share) => self.links.duplicate = *share,
            _ => return,
        }
        self.apply_links();
    }

    fn apply_links(&self) {
        self.links.apply(&self.cluster.network, &self.cluster.ids());
    }

    async fn end(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash(victims) => victims.iter().for_each(|victim| self.cluster.start(*victim)),
            Fault::Stop(victim) => self.cluster.start(*victim),
            Fault::ClockJump(victim) => self.cluster.move_clock(*victim, -HOUR_MS),
            _ => {}
        }
        self.links = Links::default();
        self.apply_links();
        narrate(self.cluster.epoch, || format!("{} is over", fault.name()));
    }

    fn partition(&mut self, victims: &[usize], cut: Cut) {
        let others: Vec<usize> = (0..self.plan.places).filter(|place| !victims.contains(place)).collect();
        let beyond: Vec<usize> = match cut {
            Cut::Bridge { via } => others.into_iter().filter(|place| *place != via).collect(),
            _ => others,
        };
        if cut != Cut::Mute {
            self.links.cut(&beyond, victims);
        }
        if cut != Cut::Deaf {
            self.links.cut(victims, &beyond);
        }
        self.apply_links();
    }

    async fn flap(&mut self, victims: &[usize], period: Duration, lasts: Duration) {
        let until = Instant::now() + lasts.max(period * 3);
        while Instant::now() < until {
            self.partition(victims, Cut::Symmetric);
            sleep(period).await;
            self.links.cuts.clear();
            self.apply_links();
            sleep(period).await;
        }
    }

    async fn restart_storm(&mut self) {
        for (victim, ..) in self.cluster.running() {
            if !self.cluster.running().iter().any(|(at, ..)| *at == victim) {
                continue;
            }
            self.cluster.crash(victim);
            sleep(Duration::from_millis(20)).await;
            self.cluster.start(victim);
            self.ready("in a restart storm").await;
        }
    }

    /// Reads every key through every node, both ways.
    async fn sweep(&mut self) {
        let running = self.cluster.running();
        for key in (0..self.plan.keys).map(Key) {
            for (via, node, life) in &running {
                self.clients.sweep(*via, node, life, key, Level::Quorum).await;
                self.clients.sweep(*via, node, life, key, Level::Settled).await;
            }
        }
    }

    fn conclude(mut self) -> Verdict {
        let history = self.clients.history.lock().expect("nobody panics under this lock");
        let apart_ms = self.plan.clock_offsets_ms.iter().max().copied().unwrap_or(0).unsigned_abs();
        // A millisecond for rounding.
        let clocks = Clocks { apart: Duration::from_millis(apart_ms + 1), jumped: self.clock_jumped };
        let promise = match self.plan.promise {
            Promise::Whole if self.lapsed => Promise::ValuesOnly,
            promise => promise,
        };
        self.verdict.counts.add("lapses", u64::from(promise != self.plan.promise));
        check::check(&history.operations, promise, clocks, &mut self.verdict.findings);
        for operation in &history.operations {
            self.verdict.counts.add(name_of(operation), 1);
        }
        self.verdict.hash = history.hash();
        drop(history);
        let remain: Vec<usize> = self.cluster.running().into_iter().map(|(at, ..)| at).collect();
        if remain != self.plan.remain {
            self.finding(format!("nodes {remain:?} are running at the end"));
        }
        let given_up = self.cluster.running().iter().map(|(_, node, _)| node.stats().given_up).sum();
        self.verdict.counts.add("records given up", given_up);
        self.cluster.running().iter().for_each(|(_, node, _)| self.cluster.tally.add_rounds(&node.stats()));
        let tally = self.cluster.tally.counts();
        self.verdict.counts.merge(&tally);
        if tally.get("writes in more than two rounds") > 0 {
            self.finding("a write took more than two rounds, though nothing was wrong with its owners".to_owned());
        }
        let collected = self.cluster.running().iter().map(|(_, node, _)| node.stats().store.tombstones_collected).sum();
        self.verdict.counts.add("tombstones collected", collected);
        let traces = self.cluster.network.traces();
        self.verdict.counts.add("datagrams cut", traces.cut);
        self.verdict.counts.add("datagrams lost", traces.lost);
        self.verdict.counts.add("datagrams doubled", traces.duplicated);
        self.verdict.counts.add("datagrams overtaken", traces.overtaken);
        self.verdict.pairs = self.cluster.spans.pairs();
        self.verdict.took = self.started.elapsed();
        self.verdict
    }
}

/// What an operation counts as.
const fn name_of(operation: &Operation) -> &'static str {
    match &operation.action {
        Action::Set { fate, .. } | Action::Delete { fate } => match fate {
            Fate::Acknowledged(_) => "acknowledged writes",
            Fate::Unknown(_) => "indeterminate writes",
            Fate::Refused => "refused writes",
        },
        Action::Get { seen, .. } => match seen {
            Seen::Value { .. } | Seen::Wrong(_) => "hits",
            Seen::Miss => "misses",
            Seen::Failed => "failed reads",
        },
    }
}
