//! What a seed decides before anything runs: the cluster, the load and the schedule of faults.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    changes::{Beside, Roll, Timed},
    seeds::Seed,
    swarm::Swarm,
};

/// In how many per cent of the seeds nodes join and leave and get other shares.
const CHANGES_PERCENT: u32 = 50;

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
    /// Nothing goes wrong.
    Nothing,
}

impl Fault {
    /// What all but nothing are called.
    pub const KINDS: &[&str] = &[
        "crash",
        "graceful stop",
        "restart storm",
        "pause",
        "partition, symmetric",
        "partition, one-way",
        "partition, bridge",
        "partition, flapping",
        "clock +1 h",
        "slow node",
        "loss",
        "delay",
        "reorder",
        "duplicate",
    ];

    /// Those that the network may be like beside others.
    pub const WEATHERS: &[&str] = &["slow node", "loss", "delay", "reorder", "duplicate"];

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
            Self::Nothing => "no fault",
        }
    }

    /// The nodes that fail by it at the same time.
    pub fn victims(&self) -> Vec<usize> {
        match self {
            Self::Crash(victims) | Self::Partition(victims, _) => victims.clone(),
            Self::Stop(victim) | Self::Pause(victim) | Self::ClockJump(victim) => vec![*victim],
            _ => Vec::new(),
        }
    }

    /// How many these are.
    pub fn failures(&self) -> usize {
        if *self == Self::RestartStorm { 1 } else { self.victims().len() }
    }

    /// Whether it costs a start of a node its content.
    pub const fn restarts(&self) -> bool {
        matches!(self, Self::Crash(_) | Self::Stop(_) | Self::RestartStorm)
    }
}

/// One fault of the schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What goes wrong.
    pub fault: Fault,
    /// For how long.
    pub lasts: Duration,
    /// What the network is like meanwhile, if it is not as it should be. A slow node has not failed.
    pub weather: Option<Fault>,
    /// Whether all replicas must agree again before the next fault, rather than only all nodes be ready.
    pub settle: bool,
    /// Who joins, leaves or gets another share meanwhile.
    pub changes: Vec<Timed>,
}

/// Everything that a seed decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What is checked.
    pub promise: Promise,
    /// How many nodes at the start, 3 to 7.
    pub nodes: usize,
    /// How many places for nodes there are.
    pub places: usize,
    /// The places that have nodes at the end.
    pub remain: Vec<usize>,
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
    /// Whether all clients act at the same moments, so that they compete for the keys.
    pub at_once: bool,
    /// How many clients, each doing one thing after the other.
    pub sessions: u8,
    /// The least number of operations, all clients together.
    pub operations: u64,
    /// The schedule.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: Seed) -> Self {
        let (swarm, generation, seed) = (Swarm::of(seed), seed.generation, seed.number);
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
        let changes = dice.random_ratio(CHANGES_PERCENT, 100);
        let places = if changes { (nodes + 2).min(7) } else { nodes };
        let mut clock_offsets_ms = vec![0; places];
        if dice.random_bool(0.3) {
            clock_offsets_ms = (0..places).map(|_| dice.random_range(0..=450)).collect();
            let ahead = dice.random_range(0..places);
            clock_offsets_ms[ahead] = 450;
            clock_offsets_ms[(ahead + 1) % places] = 0;
        }
        let mut plan = Self {
            seed,
            promise,
            nodes,
            places,
            remain: Vec::new(),
            replicas,
            concern,
            gossip_interval: Duration::from_millis(gossip),
            suspicion: Duration::from_millis(suspicion),
            clock_offsets_ms,
            hedge_delay: None,
            hint_bytes_max: dice.random_bool(0.2).then(|| dice.random_range(300..4000)),
            tombstones_kept: SmallRng::seed_from_u64(seed ^ 0x70b5).random_bool(0.4).then_some(Duration::from_secs(1)),
            keys: if promise == Promise::Evicting { 600 } else { dice.random_range(20..80) },
            at_once: false,
            sessions: dice.random_range(3..=8),
            operations: dice.random_range(1000..1200),
            steps: Vec::new(),
        };
        plan.schedule(changes, &swarm, &mut dice);
        if generation > 1 {
            plan.heat();
        }
        plan
    }

    /// In a share of all seeds there are few keys, and writers at all nodes compete for them. By dice of its own.
    fn heat(&mut self) {
        let mut dice = SmallRng::seed_from_u64(self.seed ^ 0x407);
        if self.promise != Promise::Evicting && dice.random_bool(0.2) {
            self.at_once = true;
            self.keys = dice.random_range(1..=10);
            self.sessions = dice.random_range(8..=16);
        }
    }

    /// Whether nodes join or leave or get other shares.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|step| !step.changes.is_empty())
    }

    fn victims(&self, present: &[usize], dice: &mut SmallRng) -> Vec<usize> {
        let most = if self.promise == Promise::ValuesOnly { present.len() } else { self.failures_max() };
        let count = dice.random_range(1..=most);
        let mut places = present.to_vec();
        places.shuffle(dice);
        places.truncate(count);
        places.sort_unstable();
        places
    }

    /// How many nodes may be failed at a time if the whole guarantee is to hold.
    pub const fn failures_max(&self) -> usize {
        (self.concern - 1) as usize
    }

    fn schedule(&mut self, changes: bool, swarm: &Swarm, dice: &mut SmallRng) {
        let settles = dice.random_bool(0.7);
        let (count, swings) = (dice.random_range(3..=5), changes && dice.random_bool(0.3));
        let mut roll = Roll::new(self.nodes, self.places);
        for number in 0..count {
            let is_swing = swings && (number == 0 || number + 1 == count);
            let changes = changes && (is_swing || dice.random_bool(0.6));
            let is_quiet = changes && dice.random_bool(swarm.quiet_share);
            let fault = if is_quiet { Fault::Nothing } else { self.fault(&roll.present, swarm, dice) };
            // Longer than it takes to be declared dead, or shorter.
            let detected = self.gossip_interval * 3 + self.suspicion;
            let lasts = detected.mul_f64(*[0.2, 0.6, 1.5, 2.5].get(dice.random_range(0..4)).unwrap_or(&1.0));
            let changes = match changes {
                true if is_swing && number == 0 && swarm.allows("joins") => roll.two_join(dice, lasts),
                true if is_swing && number > 0 && fault.victims().is_empty() && swarm.allows("leaves") => {
                    roll.two_leave(dice, lasts)
                }
                true => self.changes_of(&mut roll, &fault, lasts, swarm, dice),
                false => Vec::new(),
            };
            // Only who starts anew tells by being ready that it has what it missed.
            let settle = settles || !(fault.restarts() || fault == Fault::Nothing);
            let weather =
                dice.random_bool(0.3).then(|| swarm.draw(Fault::name, || Self::weather(&roll.present, dice))).flatten();
            let settle = settle || (fault == Fault::Nothing && weather.is_some());
            self.steps.push(Step { settle, fault, lasts, weather, changes });
        }
        self.remain = roll.present;
    }

    fn changes_of(
        &self,
        roll: &mut Roll,
        fault: &Fault,
        lasts: Duration,
        swarm: &Swarm,
        dice: &mut SmallRng,
    ) -> Vec<Timed> {
        let failed = fault.victims();
        let failed_may_leave = matches!(fault, Fault::Partition(..));
        let may_fail = self.promise == Promise::ValuesOnly || *fault == Fault::Nothing;
        roll.some(swarm, dice, Beside { failed: &failed, failed_may_leave, may_fail, lasts })
    }

    fn fault(&self, present: &[usize], swarm: &Swarm, dice: &mut SmallRng) -> Fault {
        swarm.draw(Fault::name, || self.any_fault(present, dice)).unwrap_or(Fault::Nothing)
    }

    fn any_fault(&self, present: &[usize], dice: &mut SmallRng) -> Fault {
        let one = present[dice.random_range(0..present.len())];
        match dice.random_range(0..20) {
            0..5 => Fault::Crash(self.victims(present, dice)),
            5 => Fault::Stop(one),
            6 => Fault::RestartStorm,
            7 | 8 => Fault::Pause(one),
            9..14 => {
                let victims = self.victims(present, dice);
                let cut = cut(present, &victims, dice);
                Fault::Partition(victims, cut)
            }
            14 => Fault::ClockJump(one),
            _ => Self::weather(present, dice),
        }
    }

    fn weather(present: &[usize], dice: &mut SmallRng) -> Fault {
        match dice.random_range(0..5) {
            0 => Fault::SlowNode(
                present[dice.random_range(0..present.len())],
                Duration::from_millis(dice.random_range(5..60)),
            ),
            1 => Fault::Loss(dice.random_range(0.01..0.2)),
            2 => Fault::Delay(Duration::from_millis(dice.random_range(1..40))),
            3 => Fault::Reorder(Duration::from_millis(dice.random_range(5..40))),
            _ => Fault::Duplicate(dice.random_range(0.05..0.5)),
        }
    }
}

fn cut(present: &[usize], victims: &[usize], dice: &mut SmallRng) -> Cut {
    let others: Vec<usize> = present.iter().copied().filter(|place| !victims.contains(place)).collect();
    match dice.random_range(0..6) {
        0 => Cut::Deaf,
        1 => Cut::Mute,
        2 if !others.is_empty() => Cut::Bridge { via: others[dice.random_range(0..others.len())] },
        3 | 4 => Cut::Flapping { period: Duration::from_millis(dice.random_range(50..700)) },
        _ => Cut::Symmetric,
    }
}
