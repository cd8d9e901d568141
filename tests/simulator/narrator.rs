//! What each node reports while one seed is replayed, with the virtual time: `VERBOSE=1 make sim SEED=n`.

use std::{env, sync::Arc};

use mesh::Observer;
use mesh_proto::{Event, OpRecord};
use tokio::time::Instant;

use crate::tally::Tally;

/// Prints the events of one process, and counts them like those of all others.
pub struct Narrator {
    at: usize,
    start: u64,
    epoch: Instant,
    tally: Arc<Tally>,
}

impl Narrator {
    /// The observer of the process that is the `start`-th in place `at`.
    pub fn observer(at: usize, start: u64, epoch: Instant, tally: &Arc<Tally>) -> Arc<dyn Observer> {
        if env::var_os("VERBOSE").is_none() {
            return Arc::clone(tally) as _;
        }
        Arc::new(Self { at, start, epoch, tally: Arc::clone(tally) })
    }
}

/// Prints a line with the virtual time.
pub fn narrate(epoch: Instant, what: impl FnOnce() -> String) {
    if env::var_os("VERBOSE").is_some() {
        println!("{:10.3} ms {}", epoch.elapsed().as_secs_f64() * 1000.0, what());
    }
}

impl Observer for Narrator {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::ProbeSent { .. } | Event::GossipRound { .. } | Event::MissedWrite { .. }) {
            narrate(self.epoch, || format!("node {} (start {}): {event:?}", self.at, self.start));
        }
        self.tally.event(event);
    }

    fn operation(&self, record: &OpRecord) {
        self.tally.operation(record);
    }
}
