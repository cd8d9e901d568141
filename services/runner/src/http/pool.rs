//! One thread's idle connections, last in first out, so that few stay warm and the rest grow old together.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use load::{ErrorKind, NodeIndex};
use rand::{Rng, rngs::SmallRng};

use super::{Health, connection::Connection, deadlines::Deadlines};

/// A thread's connections to all targets.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) targets: Arc<[Health]>,
    pub(crate) deadlines: Rc<Deadlines>,
    idle: Box<[RefCell<Vec<Connection>>]>,
    /// Responses from each target, to tell one that is silent from one that is slow with a single request.
    answered: Box<[Cell<u64>]>,
    /// A clock that is read once per returned connection, not once per use.
    now: Cell<Instant>,
}

impl Pool {
    pub(crate) fn new(targets: Arc<[Health]>) -> Self {
        let idle = targets.iter().map(|_| RefCell::default()).collect();
        let answered = targets.iter().map(|_| Cell::new(0)).collect();
        Self { targets, deadlines: Rc::default(), idle, answered, now: Cell::new(Instant::now()) }
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
    pub(crate) async fn take(&self, node: NodeIndex) -> Result<Connection, (u32, ErrorKind)> {
        let health = &self.targets[node.0];
        let epoch = health.epoch();
        loop {
            let Some(connection) = self.idle[node.0].borrow_mut().pop() else { break };
            if connection.epoch == epoch && connection.is_usable(self.now.get()) {
                return Ok(connection);
            }
        }
        Connection::dial(health.addr(), epoch).await.map_err(|kind| (epoch, kind))
    }

    /// How many responses this thread has had from a target.
    pub(crate) fn answered(&self, node: NodeIndex) -> u64 {
        self.answered[node.0].get()
    }

    /// Takes a connection back whose response was read to its end.
    pub(crate) fn give(&self, node: NodeIndex, mut connection: Connection) {
        let now = Instant::now();
        self.now.set(now);
        self.answered[node.0].set(self.answered(node) + 1);
        connection.rest(now);
        self.idle[node.0].borrow_mut().push(connection);
    }
}
