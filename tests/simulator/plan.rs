//! What a seed decides before anything runs: the cluster, the load and the schedule of faults.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

/// Whether the guarantee is kept while a link comes and goes in a mesh of more nodes than replicas. It is not yet: who was cut
/// off brings back news of deaths that never were, rings collapse for a moment, and a write that is acknowledged in such a
/// ring stays with nodes that are no owners afterwards. About one seed in a thousand shows it.
const FLAPPING_IS_HARMLESS: bool = false;

/// How much of the guarantee a seed puts to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Fewer than WRITE_CONCERN owners of any key are failed and not yet resynced: all of it must hold.
    Whole,
    /// As many nodes fail at a time as there are: what was acknowledged may be lost, but nothing wrong may ever be
    /// read, and in the end all owners agree.
    ValuesOnly,
    /// As `Whole`, in stores that are too small for the keys: an evicted key is a miss, or an older value.
    Evicting,
}

/// How a partition cuts the victims off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing gets through, either way.
    Symmetric,
    /// The victims hear nobody.
    Deaf,
    /// Nobody hears the victims.
    Mute,
    /// One node still reaches both sides.
    Bridge {
        /// Which.
        via: usize,
    },
    /// The cut comes and goes.
    Flapping {
        /// How long each.
        period: Duration,
    },
}

/// What goes wrong. Nodes are named by their places.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Processes are killed, and start again empty after the fault's time.
    Crash(Vec<usize>),
    /// A process stops politely, and starts again empty.
    Stop(usize),
    /// All processes are killed and started again, one after the other, each once the one before is ready.
    RestartStorm,
    /// A process answers nobody.
    Pause(usize),
    /// Every message to and from a node takes this much longer.
    SlowNode(usize, Duration),
    /// Victims are cut off from the others.
    Partition(Vec<usize>, Cut),
    /// This share of datagrams is lost on all links; streams are held up.
    Loss(f64),
    /// Every message takes this much longer.
    Delay(Duration),
    /// Every message takes up to this much longer: datagrams overtake each other.
    Reorder(Duration),
    /// This share of datagrams arrives twice.
    Duplicate(f64),
    /// A node's wall clock jumps an hour ahead; in the end it is set right.
    ClockJump(usize),
}

impl Fault {
    /// What it is called in counts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Crash(_) => "crash",
            Self::Stop(_) => "graceful stop",
            Self::RestartStorm => "restart storm",
            Self::Pause(_) => "pause",
            Self::SlowNode(..) => "slow node",
            Self::Partition(_, Cut::Symmetric) => "partition, symmetric",
            Self::Partition(_, Cut::Deaf | Cut::Mute) => "partition, one-way",
            Self::Partition(_, Cut::Bridge { .. }) => "partition, bridge",
            Self::Partition(_, Cut::Flapping { .. }) => "partition, flapping",
            Self::Loss(_) => "loss",
            Self::Delay(_) => "delay",
            Self::Reorder(_) => "reorder",
            Self::Duplicate(_) => "duplicate",
            Self::ClockJump(_) => "clock +1 h",
        }
    }

    /// Whether it costs a start of a node its content.
    pub const fn restarts(&self) -> bool {
        matches!(self, Self::Crash(_) | Self::Stop(_) | Self::RestartStorm)
    }
}

/// One fault of the schedule.
#[derive(Clone, Debug)]
pub struct Step {
    /// What goes wrong.
    pub fault: Fault,
    /// For how long.
    pub lasts: Duration,
    /// What the network is like meanwhile, if it is not as it should be. A slow node has not failed.
    pub weather: Option<Fault>,
    /// Whether all replicas must agree again before the next fault, rather than only all nodes be ready.
    pub settle: bool,
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What is checked.
    pub promise: Promise,
    /// How many nodes, 3 to 7.
    pub nodes: usize,
    /// REPLICATION_FACTOR. Quorums of reads are REPLICATION_FACTOR − WRITE_CONCERN + 1 owners: only if WRITE_CONCERN − 1
    /// nodes, who may be cut off, cannot make one, do they see all that the others have acknowledged. That is so for 3 and
    /// 2 and for 5 and 3.
    pub replicas: u64,
    /// WRITE_CONCERN.
    pub concern: u64,
    /// GOSSIP_INTERVAL_MS.
    pub gossip_interval: Duration,
    /// SUSPICION_AFTER_MS.
    pub suspicion: Duration,
    /// Each node's wall clock is ahead by this, in milliseconds; the furthest apart are 450 ms apart.
    pub clock_offsets_ms: Vec<i64>,
    /// READ_HEDGE_DELAY_MS, if it is not to be found by itself.
    pub hedge_delay: Option<Duration>,
    /// The bound of each queue of hints, if it is not the default.
    pub hint_bytes_max: Option<u64>,
    /// How long tombstones and hints are kept, if it is not for longer than a simulation takes: then what waits for them to
    /// be collected is three seconds more than a write may take.
    pub tombstones_kept: Option<Duration>,
    /// How many keys, of which the first few are hot.
    pub keys: u32,
    /// How many clients, each doing one thing after the other.
    pub sessions: u8,
    /// The least number of operations, all clients together.
    pub operations: u64,
    /// The schedule.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let promise = match seed % 10 {
            7 | 8 => Promise::ValuesOnly,
            9 => Promise::Evicting,
            _ => Promise::Whole,
        };
        let nodes = *[3, 3, 3, 4, 4, 5, 5, 6, 7].get(dice.random_range(0..9)).unwrap_or(&3);
        let (replicas, concern) = if nodes >= 5 && dice.random_bool(0.4) { (5, 3) } else { (3, 2) };
        // The defaults take seconds to find out that somebody is dead, and most seeds have better things to do.
        let (gossip, suspicion) = if dice.random_bool(0.15) { (500, 2000) } else { (100, 400) };
        let mut clock_offsets_ms = vec![0; nodes];
        if dice.random_bool(0.3) {
            clock_offsets_ms = (0..nodes).map(|_| dice.random_range(0..=450)).collect();
            let ahead = dice.random_range(0..nodes);
            clock_offsets_ms[ahead] = 450;
            clock_offsets_ms[(ahead + 1) % nodes] = 0;
        }
        let mut plan = Self {
            seed,
            promise,
            nodes,
            replicas,
            concern,
            gossip_interval: Duration::from_millis(gossip),
            suspicion: Duration::from_millis(suspicion),
            clock_offsets_ms,
            hedge_delay: None,
            hint_bytes_max: dice.random_bool(0.2).then(|| dice.random_range(300..4000)),
            tombstones_kept: SmallRng::seed_from_u64(seed ^ 0x70b5).random_bool(0.4).then_some(Duration::from_secs(1)),
            keys: if promise == Promise::Evicting { 600 } else { dice.random_range(20..80) },
            sessions: dice.random_range(3..=8),
            operations: dice.random_range(1000..1200),
            steps: Vec::new(),
        };
        plan.steps = plan.schedule(&mut dice);
        if promise == Promise::Whole && !FLAPPING_IS_HARMLESS && plan.flaps() && plan.nodes as u64 > plan.replicas {
            plan.promise = Promise::ValuesOnly;
        }
        plan
    }

    fn flaps(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.fault, Fault::Partition(_, Cut::Flapping { .. })))
    }

    /// How many nodes may be failed at a time.
    fn failures_max(&self, dice: &mut SmallRng) -> usize {
        let most = if self.promise == Promise::ValuesOnly { self.nodes } else { (self.concern - 1) as usize };
        dice.random_range(1..=most)
    }

    fn victims(&self, dice: &mut SmallRng) -> Vec<usize> {
        let count = self.failures_max(dice);
        let mut places: Vec<usize> = (0..self.nodes).collect();
        places.shuffle(dice);
        places.truncate(count);
        places.sort_unstable();
        places
    }

    fn schedule(&self, dice: &mut SmallRng) -> Vec<Step> {
        let settles = dice.random_bool(0.7);
        (0..dice.random_range(3..=5))
            .map(|_| {
                let fault = self.fault(dice);
                // Longer than it takes to be declared dead, or shorter.
                let detected = self.gossip_interval * 3 + self.suspicion;
                let lasts = detected.mul_f64(*[0.2, 0.6, 1.5, 2.5].get(dice.random_range(0..4)).unwrap_or(&1.0));
                // Only who starts anew tells by being ready that it has what it missed.
                let settle = settles || !fault.restarts();
                let weather = dice.random_bool(0.3).then(|| self.weather(dice));
                Step { settle, fault, lasts, weather }
            })
            .collect()
    }

    fn fault(&self, dice: &mut SmallRng) -> Fault {
        let one = dice.random_range(0..self.nodes);
        match dice.random_range(0..20) {
            0..5 => Fault::Crash(self.victims(dice)),
            5 => Fault::Stop(one),
            6 => Fault::RestartStorm,
            7 | 8 => Fault::Pause(one),
            9..14 => {
                let victims = self.victims(dice);
                let cut = self.cut(&victims, dice);
                Fault::Partition(victims, cut)
            }
            14 => Fault::ClockJump(one),
            _ => self.weather(dice),
        }
    }

    fn weather(&self, dice: &mut SmallRng) -> Fault {
        match dice.random_range(0..5) {
            0 => Fault::SlowNode(dice.random_range(0..self.nodes), Duration::from_millis(dice.random_range(5..60))),
            1 => Fault::Loss(dice.random_range(0.01..0.2)),
            2 => Fault::Delay(Duration::from_millis(dice.random_range(1..40))),
            3 => Fault::Reorder(Duration::from_millis(dice.random_range(5..40))),
            _ => Fault::Duplicate(dice.random_range(0.05..0.5)),
        }
    }

    fn cut(&self, victims: &[usize], dice: &mut SmallRng) -> Cut {
        let others: Vec<usize> = (0..self.nodes).filter(|place| !victims.contains(place)).collect();
        match dice.random_range(0..6) {
            0 => Cut::Deaf,
            1 => Cut::Mute,
            2 if !others.is_empty() => Cut::Bridge { via: others[dice.random_range(0..others.len())] },
            3 | 4 => Cut::Flapping { period: Duration::from_millis(dice.random_range(50..700)) },
            _ => Cut::Symmetric,
        }
    }
}
