//! How the mesh changes without anybody failing: nodes join, leave and ask for other shares, alone or beside faults.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use mesh_proto::Weight;
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};
use tokio::time::{Instant, sleep, timeout};

use crate::{cluster::Cluster, overlap::Role, swarm::Swarm};

/// How many nodes there may be.
const NODES: RangeInclusive<usize> = 3..=7;

/// One node's change, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new node starts where there was none, or none any more.
    Join(usize),
    /// It leaves politely, for good.
    Leave(usize),
    /// It leaves politely, and comes back empty after a while.
    LeaveAndReturn(usize, Duration),
    /// It asks for this share of the ring.
    Weigh(usize, Weight),
    /// A new node starts, and is killed after a while, which is perhaps before it has entered the ring. It starts anew at once.
    JoinTwice(usize, Duration),
    /// It leaves politely, and is killed after a while, which is perhaps before all has been handed over. It starts anew at once.
    LeaveInVain(usize, Duration),
}

impl Change {
    /// What all of them are called.
    pub const KINDS: &[&str] =
        &["joins", "leaves", "leaves and returns", "changes of weight", "joiners killed", "leavers killed"];

    /// What it is called in counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Join(_) => "joins",
            Self::Leave(_) => "leaves",
            Self::LeaveAndReturn(..) => "leaves and returns",
            Self::Weigh(..) => "changes of weight",
            Self::JoinTwice(..) => "joiners killed",
            Self::LeaveInVain(..) => "leavers killed",
        }
    }

    /// Whether a process is killed that may own something.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::JoinTwice(..) | Self::LeaveInVain(..))
    }
}

/// A change and how long after the beginning of its step it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// When.
    pub after: Duration,
    /// What.
    pub change: Change,
}

impl Timed {
    /// Lets it happen at its time. False if somebody has left before the others held all that it held.
    pub async fn happen(self, cluster: Arc<Cluster>) -> bool {
        sleep(self.after).await;
        let began = Instant::now();
        let drained = self.act(&cluster).await;
        cluster.spans.end(Role::Change, self.change.name(), began);
        drained
    }

    async fn act(self, cluster: &Cluster) -> bool {
        match self.change {
            Change::Join(place) => cluster.start(place),
            Change::Leave(place) => return cluster.stop(place).await,
            Change::LeaveAndReturn(place, absent) => {
                let drained = cluster.stop(place).await;
                sleep(absent).await;
                cluster.start(place);
                return drained;
            }
            Change::Weigh(place, weight) => cluster.weigh(place, weight),
            Change::JoinTwice(place, alive) => {
                cluster.start(place);
                sleep(alive).await;
                cluster.crash(place);
                cluster.start(place);
            }
            Change::LeaveInVain(place, alive) => {
                // Whether it was through by then is all the same: it comes back empty.
                let _ = timeout(alive, cluster.stop(place)).await;
                cluster.crash(place);
                cluster.start(place);
            }
        }
        true
    }
}

/// What a step may do beside its changes.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// Those that have failed meanwhile.
    pub failed: &'a [usize],
    /// Whether those can leave nevertheless, because they are merely cut off.
    pub failed_may_leave: bool,
    /// Whether one more may fail.
    pub may_fail: bool,
    /// How long it takes.
    pub lasts: Duration,
}

/// Who is there and who is not as the schedule goes on.
#[derive(Clone, Debug)]
pub struct Roll {
    /// Places with a node, in rising order.
    pub present: Vec<usize>,
    absent: Vec<usize>,
}

impl Roll {
    /// The first so many places have nodes.
    pub fn new(present: usize, places: usize) -> Self {
        Self { present: (0..present).collect(), absent: (present..places).collect() }
    }

    /// Some changes of any kind within a step.
    pub fn some(&mut self, swarm: &Swarm, dice: &mut SmallRng, beside: Beside<'_>) -> Vec<Timed> {
        let mut changes = Vec::new();
        let mut touched = beside.failed.to_vec();
        let count = dice.random_range(1..=3);
        for _ in 0..count * swarm.tries {
            if changes.len() == count {
                break;
            }
            let before = self.clone();
            let may_fail = beside.may_fail && !changes.iter().any(|timed: &Timed| timed.change.is_failure());
            let is_killed = dice.random_bool(0.25) && may_fail;
            let change = match dice.random_range(0..10) {
                0..4 => self.join(dice, &touched, is_killed),
                4..8 if beside.failed_may_leave && dice.random_bool(0.1) => {
                    self.leave_of(beside.failed.first().copied())
                }
                4..8 => self.leave(dice, &touched, is_killed),
                _ => self.weigh(dice, &touched),
            };
            let Some((place, change)) = change.filter(|(_, change)| swarm.allows(change.name())) else {
                *self = before;
                continue;
            };
            touched.push(place);
            changes.push(Timed { after: beside.lasts.mul_f64(dice.random_range(0.0..0.8)), change });
        }
        changes
    }

    /// Two nodes more, at nearly the same time.
    pub fn two_join(&mut self, dice: &mut SmallRng, lasts: Duration) -> Vec<Timed> {
        self.two(dice, lasts, |roll, dice| roll.join(dice, &[], false))
    }

    /// Two nodes less, at nearly the same time.
    pub fn two_leave(&mut self, dice: &mut SmallRng, lasts: Duration) -> Vec<Timed> {
        self.two(dice, lasts, |roll, dice| {
            let place = *roll.present.choose(dice)?;
            roll.leave_of(Some(place))
        })
    }

    fn two(
        &mut self,
        dice: &mut SmallRng,
        lasts: Duration,
        mut change: impl FnMut(&mut Self, &mut SmallRng) -> Option<(usize, Change)>,
    ) -> Vec<Timed> {
        let first = lasts.mul_f64(dice.random_range(0.0..0.3));
        let second = first + lasts.mul_f64(*[0.0, 0.05, 0.3].choose(dice).unwrap_or(&0.0));
        let times = [first, second];
        times.into_iter().filter_map(|after| Some(Timed { after, change: change(self, dice)?.1 })).collect()
    }

    fn join(&mut self, dice: &mut SmallRng, touched: &[usize], twice: bool) -> Option<(usize, Change)> {
        let free: Vec<usize> = self.absent.iter().copied().filter(|place| !touched.contains(place)).collect();
        let place = *free.choose(dice).filter(|_| self.present.len() < *NODES.end())?;
        self.absent.retain(|absent| *absent != place);
        self.present.push(place);
        self.present.sort_unstable();
        let change = if twice { Change::JoinTwice(place, soon(dice)) } else { Change::Join(place) };
        Some((place, change))
    }

    fn leave(&mut self, dice: &mut SmallRng, touched: &[usize], in_vain: bool) -> Option<(usize, Change)> {
        let free: Vec<usize> = self.present.iter().copied().filter(|place| !touched.contains(place)).collect();
        let place = *free.choose(dice)?;
        if in_vain {
            return Some((place, Change::LeaveInVain(place, soon(dice))));
        }
        if dice.random_bool(0.4) {
            return Some((place, Change::LeaveAndReturn(place, soon(dice) * 3)));
        }
        self.leave_of(Some(place))
    }

    fn leave_of(&mut self, place: Option<usize>) -> Option<(usize, Change)> {
        let place = place.filter(|place| self.present.len() > *NODES.start() && self.present.contains(place))?;
        self.present.retain(|present| *present != place);
        self.absent.push(place);
        Some((place, Change::Leave(place)))
    }

    fn weigh(&self, dice: &mut SmallRng, touched: &[usize]) -> Option<(usize, Change)> {
        let free: Vec<usize> = self.present.iter().copied().filter(|place| !touched.contains(place)).collect();
        let (place, weight) = (*free.choose(dice)?, Weight::new(dice.random_range(1..=16))?);
        Some((place, Change::Weigh(place, weight)))
    }
}

/// Within the time that joining and leaving take.
fn soon(dice: &mut SmallRng) -> Duration {
    Duration::from_millis(*[5, 20, 60, 150, 400].choose(dice).unwrap_or(&5))
}
