//! A model of its own: writes of one key by two coordinators to three owners, of which one crashes and comes back empty. It is smaller than the
//! other, so that everything may be under way for any time: what is sent, what an owner answers, and legs of rounds that have ended.
//!
//! `Write` and the store are the real ones. Clocks are logical: a version is just above what its coordinator has met. The ring stays, so a
//! round that follows a refusal is the one that `Write` says. At first owners hold anything that earlier writes may have left, by (1) of the
//! proof at the head of `mesh_proto::Write`, and what two of them hold was acknowledged.

use std::{collections::BTreeSet, sync::Arc};

use mesh_proto::{Mutant, Round, WriteOutcome, WriteStep};
use stateright::{Model, Property};

use crate::{
    machines,
    memo::Memo,
    replica,
    search::Printed,
    state::{ALL, Answer, Leg, NODES, Nodes, Stamp, each, has, only},
    symmetry::{ORDERS, moved, set_of},
};

/// How many writes can be under way at a time.
const AT_ONCE: usize = 3;

/// Writers in the lowest part of a version: two coordinators, one that was restarted, and those of earlier writes.
const WRITERS: u8 = 4;

/// Who was there before.
const BEFORE: u8 = 3;

/// What may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Whether the coordinators are two of the owners.
    pub own: bool,
    /// Whether a write whose coordinator is no owner may outlast the return of an owner that crashed after it had answered. Nodes that
    /// start wait until none does.
    pub outlast: bool,
    /// How many writes begin, at most [`AT_ONCE`].
    pub writes: u8,
    /// How many owners crash.
    pub crashes: u8,
    /// The highest time of a version that owners hold at first.
    pub held_max: u8,
    /// The highest time that a coordinator has met at first.
    pub clock_max: u8,
}

/// One owner of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    is_down: bool,
    held: Stamp,
    /// Whom it has yet to be compared with, before it is in sync.
    awaited: Nodes,
    /// Legs that are still on their way to it and that nobody waits for, one bit for each version.
    late: u64,
}

/// One write under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    coordinator: u8,
    is_second: bool,
    stamp: Stamp,
    /// The newest version that had been acknowledged when it began.
    floor: Stamp,
    /// What owners have done so far, which the coordinator need not know yet.
    legs: [Leg; NODES],
    /// Owners that have crashed since, or had before.
    lost: Nodes,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    owners: [Owner; NODES],
    /// The highest time that each coordinator has given or met, and as whom it stamps.
    clocks: [(u8, u8); 2],
    writes: [Option<Write>; AT_ONCE],
    acknowledged: Stamp,
    is_superseded: bool,
    takes_a_third_round: bool,
    /// What may still happen.
    writes_left: u8,
    crashes_left: u8,
}

/// One step of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A write begins.
    Begin(usize),
    /// An owner takes its leg and answers.
    Deliver { write: usize, owner: usize },
    /// A coordinator has heard enough, or waits no longer.
    Conclude { write: usize, outcome: WriteOutcome },
    /// A leg that nobody waits for arrives.
    DeliverLate { owner: usize, stamp: Stamp },
    /// An owner ends.
    Crash(usize),
    /// It comes back, empty.
    Return(usize),
    /// It takes what another owner holds.
    Compare { owner: usize, with: usize },
}

impl Bounds {
    /// Every state in which owners can be after earlier writes.
    fn first(self) -> Vec<State> {
        let times = || 0..=self.held_max;
        let helds = times().flat_map(|one| times().flat_map(move |two| times().map(move |three| [one, two, three])));
        let clocks: Vec<_> =
            (0..=self.clock_max).flat_map(|one| (0..=self.clock_max).map(move |two| [one, two])).collect();
        let state = |held: [u8; NODES], clocks: [u8; 2]| {
            let held = held.map(|time| if time == 0 { 0 } else { time * WRITERS + BEFORE });
            let mut ranked = held;
            ranked.sort_unstable();
            // An owner that coordinates has met what it holds.
            let met = |at: usize| if self.own { clocks[at].max(held[at] / WRITERS) } else { clocks[at] };
            State {
                owners: held.map(|held| Owner { held, ..Owner::default() }),
                clocks: [(met(0), 0), (met(1), 1)],
                acknowledged: ranked[1],
                writes_left: self.writes,
                crashes_left: self.crashes,
                ..State::default()
            }
        };
        let states = helds.flat_map(|held| clocks.iter().map(move |clocks| (held, *clocks)));
        let states: BTreeSet<_> = states.map(|(held, clocks)| self.representative(state(held, clocks))).collect();
        states.into_iter().collect()
    }

    /// The one that stands for all that are the same but for names.
    fn representative(self, mut state: State) -> State {
        for owner in &mut state.owners {
            // What an owner holds, or holds something newer than, makes no difference any more.
            owner.late &= u64::MAX << owner.held;
        }
        if self.own {
            return state.sorted();
        }
        ORDERS.iter().map(|order| state.renamed(order).sorted()).min().unwrap_or(state)
    }

    /// Whether this coordinator is this owner.
    const fn is_same(self, coordinator: u8, owner: usize) -> bool {
        self.own && coordinator as usize == owner
    }
}

impl State {
    fn sorted(mut self) -> Self {
        self.writes.sort_unstable();
        self
    }

    fn renamed(mut self, order: &[usize; NODES]) -> Self {
        for owner in &mut self.owners {
            owner.awaited = set_of(owner.awaited, order);
        }
        self.owners = moved(self.owners, order);
        for write in self.writes.iter_mut().flatten() {
            write.legs = moved(write.legs, order);
            write.lost = set_of(write.lost, order);
        }
        self
    }

    fn tick(&mut self, coordinator: u8) -> Stamp {
        let (time, writer) = &mut self.clocks[usize::from(coordinator)];
        *time += 1;
        *time * WRITERS + *writer
    }

    fn observe(&mut self, coordinator: usize, stamp: Stamp) {
        if let Some((time, _)) = self.clocks.get_mut(coordinator) {
            *time = (*time).max(stamp / WRITERS);
        }
    }

    /// `Worker::send_round`.
    fn send(&mut self, write: Write, bounds: Bounds) {
        let lost = (0..NODES).filter(|owner| self.owners[*owner].is_down).map(only).sum();
        let own = (0..NODES).find(|owner| bounds.is_same(write.coordinator, *owner));
        let mut write = Write { legs: [Leg::Sent; NODES], lost, ..write };
        if let Some(own) = own {
            write.legs[own] = Leg::Answered(self.answer(own, write.stamp, bounds));
        }
        let free = self.writes.iter_mut().find(|other| other.is_none());
        *free.expect("no more begin than there is room for") = Some(write);
    }

    /// `Replica::write`.
    fn answer(&mut self, owner: usize, stamp: Stamp, bounds: Bounds) -> Answer {
        if bounds.own {
            self.observe(owner, stamp);
        }
        let Owner { held, awaited, .. } = &mut self.owners[owner];
        *held = replica::written(*held, stamp);
        let in_sync = *awaited == 0;
        match *held == stamp {
            true if in_sync => Answer::Applied,
            true => Answer::Unconfirmed,
            false if Mutant::StaleWriteAcked.is_planted() => Answer::Applied,
            false => Answer::Stale { newer: *held, in_sync },
        }
    }

    /// Nobody waits for this round any more; legs that are on their way arrive nevertheless.
    fn end_round(&mut self, at: usize) -> Write {
        let write = self.writes[at].take().expect("it is under way");
        for owner in (0..NODES).filter(|owner| write.legs[*owner] == Leg::Sent && !has(write.lost, *owner)) {
            self.owners[owner].late |= 1 << write.stamp;
        }
        write
    }

    /// What `Worker::replicate` makes of an outcome.
    fn conclude(&mut self, at: usize, outcome: WriteOutcome, bounds: Bounds) {
        let write = self.end_round(at);
        match outcome {
            WriteOutcome::Acknowledged => {
                self.is_superseded |= write.stamp < write.floor;
                self.acknowledged = self.acknowledged.max(write.stamp);
            }
            WriteOutcome::Stale { newest, next } => {
                self.takes_a_third_round |= write.is_second;
                self.observe(usize::from(write.coordinator), machines::stamp(newest));
                let stamp = self.tick(write.coordinator);
                self.send(Write { stamp, is_second: next == Round::Second, ..write }, bounds);
            }
            WriteOutcome::WrongRing | WriteOutcome::Unconfirmed => self.takes_a_third_round |= write.is_second,
            WriteOutcome::Refused { .. } | WriteOutcome::Indeterminate { .. } => {}
        }
    }

    fn crash(&mut self, owner: usize, bounds: Bounds) {
        self.crashes_left -= 1;
        self.owners[owner] = Owner { is_down: true, ..Owner::default() };
        for at in 0..AT_ONCE {
            if self.writes[at].is_some_and(|write| bounds.is_same(write.coordinator, owner)) {
                self.end_round(at);
            } else if let Some(write) = &mut self.writes[at] {
                write.lost |= only(owner);
            }
        }
        if let Some(clock) = self.clocks.get_mut(owner).filter(|_| bounds.own) {
            // A new process stamps as somebody else.
            *clock = (0, 2);
        }
        self.owners[owner].late = 0;
    }

    /// Whether the owner that was in this place has answered a write that is still under way.
    fn has_answered_before(&self, owner: usize) -> bool {
        self.writes.iter().flatten().any(|write| has(write.lost, owner) && write.legs[owner] != Leg::Sent)
    }

    /// Of any owners in sync that are as many as make a quorum, one holds what was acknowledged: (1) of the proof.
    fn quorums_know(&self) -> bool {
        let lacks = |owner: &&Owner| !owner.is_down && owner.awaited == 0 && owner.held < self.acknowledged;
        self.owners.iter().filter(lacks).count() < machines::answers_needed()
    }
}

thread_local! {
    static OUTCOMES: Memo<(bool, [Leg; NODES], Nodes), Arc<[WriteOutcome]>> = Memo::new();
}

/// How a round may end whose owners have done this so far: its coordinator has heard any of it, in any order.
fn outcomes(write: &Write) -> Arc<[WriteOutcome]> {
    let question = (write.is_second, write.legs, write.lost);
    OUTCOMES.with(|known| known.answer(question, || work_out([Leg::Sent; NODES], write).into()))
}

/// The same once it has heard this much.
fn work_out(heard: [Leg; NODES], write: &Write) -> Vec<WriteOutcome> {
    let (step, if_impatient) = machines::write(write.is_second, ALL, &heard);
    if let WriteStep::Done(outcome) = step {
        return vec![outcome];
    }
    let mut all = Vec::from_iter(if_impatient);
    for owner in (0..NODES).filter(|owner| heard[*owner] == Leg::Sent) {
        let answer = Some(write.legs[owner]).filter(|leg| *leg != Leg::Sent);
        let failure = has(write.lost, owner).then_some(Leg::Lost);
        for leg in answer.into_iter().chain(failure) {
            let mut heard = heard;
            heard[owner] = leg;
            all.extend(work_out(heard, write));
        }
    }
    let mut different = Vec::new();
    for outcome in all {
        if !different.contains(&outcome) {
            different.push(outcome);
        }
    }
    different
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.first()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.writes_left > 0 {
            let runs = |coordinator: &usize| !self.own || !state.owners[*coordinator].is_down;
            actions.extend((0..2).filter(runs).map(Action::Begin));
        }
        for (at, write) in state.writes.iter().enumerate().filter_map(|(at, write)| Some((at, write.as_ref()?))) {
            let waiting = (0..NODES).filter(|owner| write.legs[*owner] == Leg::Sent && !has(write.lost, *owner));
            actions.extend(waiting.map(|owner| Action::Deliver { write: at, owner }));
            actions.extend(outcomes(write).iter().map(|outcome| Action::Conclude { write: at, outcome: *outcome }));
        }
        for (at, owner) in state.owners.iter().enumerate() {
            let late = (0..u64::BITS).filter(|stamp| owner.late >> stamp & 1 == 1);
            actions.extend(late.map(|stamp| Action::DeliverLate { owner: at, stamp: stamp as Stamp }));
            if !owner.is_down {
                actions.extend((state.crashes_left > 0).then_some(Action::Crash(at)));
                let awaited = each(owner.awaited).filter(|with| !state.owners[*with].is_down);
                actions.extend(awaited.map(|with| Action::Compare { owner: at, with }));
            } else if self.own || self.outlast || !state.has_answered_before(at) {
                actions.push(Action::Return(at));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Begin(coordinator) => {
                next.writes_left -= 1;
                let (coordinator, floor) = (coordinator as u8, state.acknowledged);
                let stamp = next.tick(coordinator);
                let write = Write { coordinator, is_second: false, stamp, floor, legs: [Leg::None; NODES], lost: 0 };
                next.send(write, *self);
            }
            Action::Deliver { write, owner } => {
                let stamp = state.writes[write]?.stamp;
                let answer = next.answer(owner, stamp, *self);
                next.writes[write].as_mut()?.legs[owner] = Leg::Answered(answer);
            }
            Action::Conclude { write, outcome } => next.conclude(write, outcome, *self),
            Action::DeliverLate { owner, stamp } => {
                next.owners[owner].late &= !(1 << stamp);
                next.answer(owner, stamp, *self);
            }
            Action::Crash(owner) => next.crash(owner, *self),
            Action::Return(owner) => next.owners[owner] = Owner { awaited: ALL & !only(owner), ..Owner::default() },
            Action::Compare { owner, with } => {
                let shown = state.owners[with].held;
                let Owner { held, awaited, .. } = &mut next.owners[owner];
                *held = replica::repaired(*held, shown);
                *awaited &= !only(with);
            }
        }
        let next = self.representative(next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no acknowledged write is superseded by one that was before it", |_, state: &State| {
                !state.is_superseded
            }),
            Property::always("a quorum of owners in sync knows what was acknowledged", |_, state: &State| {
                state.quorums_know()
            }),
            Property::always("a write takes two rounds at most", |_, state: &State| !state.takes_a_third_round),
        ]
    }
}

impl Printed for Bounds {
    /// Owners are named anew in each state.
    fn print(path: &[(State, Option<Action>)]) {
        for (state, action) in path {
            println!("{state:?}");
            action.iter().for_each(|action| println!("  {action:?}"));
        }
    }
}
