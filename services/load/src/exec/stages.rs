//! The threads that make load, and the stages they go through together: prefill, load, sweep. The main thread says when
//! each begins and hears when each thread has ended it.

use std::{cell::Cell, future::Future, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::{
    progress::complain,
    run::Run,
    schedule::ThreadSchedule,
    sweep::{leave_out, sweep_key},
    worker::{LoadWorker, Thread},
};
use crate::{Client, Counter, Outcome, Target, stats::Recorder};

/// How often a key's prefill is tried, and the pause between tries.
const PREFILL_TRIES: usize = 20;
const PREFILL_PAUSE: Duration = Duration::from_millis(100);

/// Keys that one thread sweeps at a time.
const SWEEP_CONCURRENCY: usize = 32;

/// What all threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ThreadStage {
    Connect,
    Prefill,
    /// A search makes several loads, one after the other.
    Load(u32),
    Sweep,
    End,
}

/// A thread has ended a stage, and this is what it measured in it.
struct Done {
    stage: ThreadStage,
    /// Nothing if what it measures goes on.
    recorder: Option<Box<Recorder>>,
}

/// The load threads.
pub(crate) struct Stages {
    stage: watch::Sender<ThreadStage>,
    done: mpsc::UnboundedReceiver<Result<Done, String>>,
    threads: Vec<JoinHandle<Recorder>>,
    nodes: usize,
    loads: u32,
    /// What all threads measured in the load, or a step of it, so far.
    load: Recorder,
    /// What they measured in the steps before it.
    before: Recorder,
}

impl Stages {
    /// Starts one thread per client and waits until all are connected.
    ///
    /// # Errors
    /// The first thread's reason why it could not connect.
    #[expect(
        clippy::disallowed_methods,
        reason = "each thread sends one message per stage, and there are a few dozen at most"
    )]
    pub(crate) async fn start<C: Client>(run: &Arc<Run>, clients: Vec<C>) -> Result<Self, String> {
        let (stage, stages) = watch::channel(ThreadStage::Connect);
        let (report, done) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for (index, client) in clients.into_iter().enumerate() {
            let (run, stages, report) = (Arc::clone(run), stages.clone(), report.clone());
            let body = move || run_thread(run, index, client, stages, report);
            let thread = std::thread::Builder::new().name(format!("load-{index}")).spawn(body);
            threads.push(thread.map_err(|error| format!("cannot start a thread: {error}"))?);
        }
        let nodes = run.plan.targets.len();
        let (load, before) = (Recorder::new(nodes), Recorder::new(nodes));
        let mut started = Self { stage, done, threads, nodes, loads: 0, load, before };
        started.wait(ThreadStage::Connect).await?;
        Ok(started)
    }

    /// Writes every key once.
    pub(crate) async fn prefill(&mut self) -> Result<(), String> {
        self.go(ThreadStage::Prefill).await
    }

    /// Makes load until it, or a step of it, ends.
    pub(crate) async fn load(&mut self) -> Result<(), String> {
        self.loads += 1;
        self.go(ThreadStage::Load(self.loads)).await
    }

    /// What the step that has ended measured; another one may begin.
    pub(crate) const fn step(&self) -> &Recorder {
        &self.load
    }

    /// Adds what the step measured to those before it.
    pub(crate) fn end_step(&mut self) {
        let step = std::mem::replace(&mut self.load, Recorder::new(self.nodes));
        self.before.merge(&step);
    }

    /// Reads every key from every node.
    pub(crate) async fn sweep(&mut self) -> Result<(), String> {
        self.go(ThreadStage::Sweep).await
    }

    /// Ends all threads and merges what they measured.
    pub(crate) fn finish(mut self) -> Recorder {
        self.stage.send_replace(ThreadStage::End);
        self.end_step();
        let mut all = self.before;
        for thread in self.threads {
            match thread.join() {
                Ok(recorder) => all.merge(&recorder),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        // Where nobody waited for the end of a load any more, some threads may have told of theirs.
        while let Ok(done) = self.done.try_recv() {
            done.ok().and_then(|done| done.recorder).iter().for_each(|recorder| all.merge(recorder));
        }
        all
    }

    async fn go(&mut self, stage: ThreadStage) -> Result<(), String> {
        self.stage.send_replace(stage);
        self.wait(stage).await
    }

    async fn wait(&mut self, stage: ThreadStage) -> Result<(), String> {
        for _ in 0..self.threads.len() {
            match self.done.recv().await {
                Some(Ok(done)) => {
                    debug_assert_eq!(done.stage, stage);
                    done.recorder.iter().for_each(|recorder| self.load.merge(recorder));
                }
                Some(Err(reason)) => return Err(reason),
                None => return Err("a load thread has ended too early".to_owned()),
            }
        }
        Ok(())
    }
}

fn run_thread<C: Client>(
    run: Arc<Run>,
    index: usize,
    client: C,
    stages: watch::Receiver<ThreadStage>,
    report: mpsc::UnboundedSender<Result<Done, String>>,
) -> Recorder {
    let nodes = run.plan.targets.len();
    let thread = Rc::new(Thread::new(run, index));
    let mut builder = runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = report.send(Err(format!("cannot start a runtime: {error}")));
            return Recorder::new(nodes);
        }
    };
    let local = LocalSet::new();
    local.block_on(&runtime, follow(Rc::clone(&thread), client, stages, report));
    thread.recorder.replace(Recorder::new(nodes))
}

async fn follow<C: Client>(
    thread: Rc<Thread>,
    client: C,
    mut stages: watch::Receiver<ThreadStage>,
    report: mpsc::UnboundedSender<Result<Done, String>>,
) {
    let target = match client.connect().await {
        Ok(target) => target,
        Err(reason) => {
            let _ = report.send(Err(reason));
            return;
        }
    };
    let (mut stage, mut end) = (ThreadStage::Connect, stages.clone());
    loop {
        let nodes = thread.run.plan.targets.len();
        let is_load = matches!(stage, ThreadStage::Load(_));
        let recorder = is_load.then(|| Box::new(thread.recorder.replace(Recorder::new(nodes))));
        let _ = report.send(Ok(Done { stage, recorder }));
        if stages.wait_for(|next| *next > stage).await.is_err() {
            return;
        }
        stage = *stages.borrow();
        if stage == ThreadStage::End {
            return;
        }
        let work = async {
            match stage {
                // The first stage is behind, the last was just looked for.
                ThreadStage::Connect | ThreadStage::End => {}
                ThreadStage::Prefill => prefill(&thread, &target).await,
                ThreadStage::Load(_) => load(&thread, &target).await,
                ThreadStage::Sweep => sweep(&thread, &target).await,
            }
        };
        tokio::select! {
            () = work => {}
            // Nothing is waited for any more. An error says the same.
            _ = end.wait_for(|stage| *stage == ThreadStage::End) => return,
        }
    }
}

async fn load<T: Target>(thread: &Rc<Thread>, target: &T) {
    let run = &thread.run;
    let tasks = run.plan.concurrency_of(thread.index);
    let schedule = Rc::new(ThreadSchedule::new(run.rate(), run.plan.threads));
    let driver = async {
        if let ThreadSchedule::Open(pacer) = &*schedule {
            if let Err(error) = pacer.drive(run).await {
                complain(&format!("[SCHEDULE] no timer: {error}"));
                run.stop();
            }
            let mut recorder = thread.recorder.borrow_mut();
            recorder.offered = pacer.offered();
            recorder.late_max = pacer.late_max();
            recorder.dropped = pacer.dropped();
            recorder.backlog_high = pacer.backlog_high();
        }
    };
    let worker = |task| LoadWorker::new(Rc::clone(thread), target.clone(), task).run(Rc::clone(&schedule));
    let workers = all((0..tasks).map(worker));
    tokio::join!(driver, workers);
}

async fn prefill<T: Target>(thread: &Rc<Thread>, target: &T) {
    let run = &thread.run;
    let next = Rc::new(Cell::new(thread.index));
    let task = |task: usize| {
        let mut worker = LoadWorker::new(Rc::clone(thread), target.clone(), task);
        let (run, thread, next) = (Arc::clone(run), Rc::clone(thread), Rc::clone(&next));
        async move {
            while let Some(key) = take(&next, &run, run.plan.threads).filter(|_| !run.stopping()) {
                let key = run.plan.keys.at(key);
                for _ in 0..PREFILL_TRIES {
                    if worker.prefill(key).await == Outcome::Acknowledged {
                        thread.live().add(Counter::Prefilled);
                        break;
                    }
                    if run.stopping() {
                        break;
                    }
                    tokio::time::sleep(PREFILL_PAUSE).await;
                }
                tokio::task::consume_budget().await;
            }
        }
    };
    all((0..run.plan.concurrency_of(thread.index)).map(task)).await;
}

async fn sweep<T: Target>(thread: &Rc<Thread>, target: &T) {
    let next = Rc::new(Cell::new(thread.index));
    let task = |_| {
        let (thread, next, mut target) = (Rc::clone(thread), Rc::clone(&next), target.clone());
        async move {
            let run = &thread.run;
            while let Some(rank) = take(&next, run, run.plan.threads) {
                // Where there is no time for all keys, those that are read are to be any.
                let key = run.plan.keys.at_rank(rank.into());
                if run.sweep_ended() {
                    leave_out(&thread, key);
                } else {
                    sweep_key(&thread, &mut target, key).await;
                    thread.live().add(Counter::Swept);
                }
                tokio::task::consume_budget().await;
            }
        }
    };
    all((0..SWEEP_CONCURRENCY).map(task)).await;
}

/// The thread's next key or rank: every `threads`-th is its own.
fn take(next: &Cell<usize>, run: &Run, threads: usize) -> Option<u32> {
    let key = next.get();
    next.set(key + threads);
    u32::try_from(key).ok().filter(|key| *key < run.plan.keys.count())
}

/// Runs all tasks on this thread until each has ended.
async fn all<F: Future<Output = ()> + 'static>(tasks: impl Iterator<Item = F>) {
    let handles: Vec<_> = tasks.map(tokio::task::spawn_local).collect();
    for handle in handles {
        if let Err(failed) = handle.await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}
