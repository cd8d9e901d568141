//! One thread's idle connections, last in first out, so that few stay warm and the rest grow old together.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use load::{ErrorKind, NodeIndex};
use rand::{Rng, rngs::SmallRng};

use super::{TargetHealth, patience::Patience};
use crate::wire::{ClientConnection, Deadlines, not_dialled, ticks};

/// A thread's connections to all targets.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) targets: Arc<[TargetHealth]>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) patience: Patience,
    /// Whether the kernel is asked when it received the answers.
    kernel_timestamps: bool,
    idle: Box<[RefCell<Vec<ClientConnection>>]>,
    /// Tries at each target, to tell one that is silent from one that is slow.
    tries: Box<[TryCounts]>,
    /// A clock that is read once per returned connection, not once per use.
    now: Cell<Instant>,
}

/// One thread's tries at one target.
#[derive(Debug, Default)]
struct TryCounts {
    /// The tick of the last answer.
    answered_at: Cell<u64>,
    /// Tries that have not ended.
    open: Cell<u32>,
}

/// A try that has not ended.
#[derive(Debug)]
pub(crate) struct OpenTry {
    pool: Rc<Pool>,
    node: NodeIndex,
    began_at: u64,
}

impl OpenTry {
    /// For how many ticks it lasts already.
    pub(crate) fn age(&self) -> u64 {
        self.pool.deadlines.now() - self.began_at
    }

    /// Whether its target has answered nobody for nearly `patience`, though others answer. Where the others owe answers as well
    /// and give none, everything is slow.
    pub(crate) fn meets_silence(&self, patience: Duration) -> bool {
        let silence = ticks(patience * 3 / 4);
        let is_silent =
            |tries: &TryCounts| self.pool.deadlines.now() - tries.answered_at.get().max(self.began_at) >= silence;
        let mut others =
            self.pool.tries.iter().enumerate().filter(|(node, _)| *node != self.node.0).map(|(_, tries)| tries);
        let owing = others.clone().any(|tries| tries.open.get() > 0);
        is_silent(&self.pool.tries[self.node.0]) && (!owing || others.any(|tries| !is_silent(tries)))
    }
}

impl Drop for OpenTry {
    fn drop(&mut self) {
        let open = &self.pool.tries[self.node.0].open;
        open.set(open.get() - 1);
    }
}

impl Pool {
    pub(crate) fn new(targets: Arc<[TargetHealth]>, patience: Patience, kernel_timestamps: bool) -> Self {
        let idle = targets.iter().map(|_| RefCell::default()).collect();
        let tries = targets.iter().map(|_| TryCounts::default()).collect();
        let now = Cell::new(Instant::now());
        Self { targets, deadlines: Rc::default(), patience, kernel_timestamps, idle, tries, now }
    }

    /// A target that is up, other than `except`; nothing if there is none.
    pub(crate) fn pick(&self, dice: &mut SmallRng, except: Option<NodeIndex>) -> Option<NodeIndex> {
        let usable = |node: &NodeIndex| self.targets[node.0].is_up() && Some(*node) != except;
        let count = self.targets.len();
        // Nearly always all are up, and the first throw fits.
        let thrown = NodeIndex(dice.random_range(0..count));
        if usable(&thrown) {
            return Some(thrown);
        }
        let fitting = (0..count).map(NodeIndex).filter(usable).count();
        (fitting > 0)
            .then(|| dice.random_range(0..fitting))
            .and_then(|at| (0..count).map(NodeIndex).filter(usable).nth(at))
    }

    /// Any other target, though none seems to be up: one may be back and not have been asked yet.
    pub(crate) fn pick_blindly(&self, dice: &mut SmallRng, except: NodeIndex) -> Option<NodeIndex> {
        let others = self.targets.len() - 1;
        let thrown = (others > 0).then(|| dice.random_range(0..others))?;
        Some(NodeIndex(if thrown < except.0 { thrown } else { thrown + 1 }))
    }

    /// Whether a target other than `node` is up.
    pub(crate) fn has_other(&self, node: NodeIndex) -> bool {
        self.targets.iter().enumerate().any(|(other, health)| other != node.0 && health.is_up())
    }

    /// An idle connection, or a new one.
    pub(crate) async fn take(&self, node: NodeIndex) -> Result<ClientConnection, (u32, ErrorKind)> {
        let health = &self.targets[node.0];
        let epoch = health.epoch();
        loop {
            let Some(connection) = self.idle[node.0].borrow_mut().pop() else { break };
            if connection.epoch == epoch && connection.is_usable(self.now.get()) {
                return Ok(connection);
            }
        }
        let stream = health.connect().await.map_err(|error| (epoch, not_dialled(&error)))?;
        let dialled = ClientConnection::secured(stream, epoch, self.kernel_timestamps, health.secured.as_ref());
        dialled.await.map_err(|kind| (epoch, kind))
    }

    /// A target has answered.
    pub(crate) fn note_answer(&self, node: NodeIndex) {
        self.tries[node.0].answered_at.set(self.deadlines.now());
    }

    /// A try at a target begins.
    pub(crate) fn begin_try(self: &Rc<Self>, node: NodeIndex) -> OpenTry {
        let open = &self.tries[node.0].open;
        open.set(open.get() + 1);
        OpenTry { pool: Rc::clone(self), node, began_at: self.deadlines.now() }
    }

    /// Takes a connection back whose response was read to its end.
    pub(crate) fn give(&self, node: NodeIndex, mut connection: ClientConnection) {
        let now = Instant::now();
        self.now.set(now);
        connection.rest(now);
        self.idle[node.0].borrow_mut().push(connection);
    }
}
