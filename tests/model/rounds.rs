//! A second, smaller model: the two rounds of a write (`mesh_proto::Write`). Two coordinators that are no owners, three owners in
//! one ring, three writes of one key, one owner that crashes and comes back empty.
//!
//! Real are the machine and the store. A coordinator's clock is a logical one, which learns of nothing but refusals: no wall
//! clock helps to order writes. Owners answer in any order; what is sent arrives at any time while its owner runs.

use mesh_proto::{WriteOutcome, WriteStep};
use stateright::{Model, Property};

use crate::{
    machines, replica,
    state::{ALL, Answer, Leg, NODES, Nodes, Progress, Stamp, each, has, only},
};

/// How many writes there are.
const WRITES: usize = 3;

/// How often one is sent at most: once more than it takes.
const ATTEMPTS_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    is_down: bool,
    held: Stamp,
    /// Whom it has yet to be compared with.
    awaited: Nodes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Write {
    progress: Progress,
    coordinator: u8,
    attempt: u8,
    is_second: bool,
    stamp: Stamp,
    /// The newest version that had been acknowledged when it began.
    floor: Stamp,
    legs: [Leg; NODES],
    /// Legs of earlier rounds that are still under way.
    late: [Stamp; NODES],
    /// Whether a round met an owner that failed or was not in sync: then there may be more rounds than two.
    is_disturbed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    owners: [Owner; NODES],
    clocks: [u8; 2],
    writes: [Write; WRITES],
    acknowledged: Stamp,
    has_crashed: bool,
    breaks_order: bool,
    takes_a_third_round: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Begin { write: usize, coordinator: u8 },
    Repeat(usize),
    /// The coordinator does not wait for silent owners any longer.
    Impatience(usize),
    Deliver { write: usize, owner: usize },
    DeliverLate { write: usize, owner: usize },
    Crash(usize),
    Return(usize),
    Compare { owner: usize, with: usize },
}

/// The model.
pub struct Rounds;

impl State {
    fn send(&mut self, at: usize) {
        let write = &mut self.writes[at];
        write.progress = Progress::Running;
        write.attempt += 1;
        self.takes_a_third_round |= write.attempt > 2 && !write.is_disturbed;
        write.legs = std::array::from_fn(|owner| if self.owners[owner].is_down { Leg::NotSent } else { Leg::Sent });
        self.conclude(at);
    }

    /// `Core::write_replica`.
    fn answer(&mut self, owner: usize, stamp: Stamp) -> Answer {
        let owner = &mut self.owners[owner];
        owner.held = replica::written(owner.held, stamp);
        let in_sync = owner.awaited == 0;
        match owner.held == stamp {
            true if in_sync => Answer::Applied,
            true => Answer::Unconfirmed,
            false => Answer::Stale { newer: owner.held, in_sync },
        }
    }

    fn conclude(&mut self, at: usize) {
        let write = self.writes[at];
        if let (Progress::Running, WriteStep::Done(outcome)) =
            (write.progress, machines::write(write.is_second, ALL, &write.legs).0)
        {
            self.settle(at, outcome);
        }
    }

    /// `Worker::replicate`.
    fn settle(&mut self, at: usize, outcome: WriteOutcome) {
        let write = &mut self.writes[at];
        let is_orderly = |leg: &Leg| {
            matches!(leg, Leg::Sent | Leg::Answered(Answer::Applied | Answer::Stale { in_sync: true, .. }))
        };
        write.is_disturbed |= !write.legs.iter().all(is_orderly);
        for owner in (0..NODES).filter(|owner| write.legs[*owner] == Leg::Sent) {
            write.late[owner] = write.stamp;
        }
        write.legs = [Leg::None; NODES];
        match outcome {
            WriteOutcome::Acknowledged => {
                self.breaks_order |= write.stamp < write.floor;
                self.acknowledged = self.acknowledged.max(write.stamp);
                write.progress = Progress::Acknowledged;
            }
            WriteOutcome::Stale { newest, next } => {
                let clock = &mut self.clocks[usize::from(write.coordinator)];
                *clock = (*clock).max(machines::stamp(newest) / WRITES as u8) + 1;
                write.stamp = *clock * WRITES as u8 + at as u8;
                write.is_second = next == mesh_proto::Round::Second;
                write.progress = Progress::Again;
            }
            WriteOutcome::Unconfirmed => write.progress = Progress::Again,
            _ => write.progress = Progress::Ended,
        }
        if write.progress == Progress::Again && write.attempt == ATTEMPTS_MAX {
            write.progress = Progress::Ended;
        }
        if matches!(write.progress, Progress::Acknowledged | Progress::Ended) {
            *write = Write { progress: write.progress, late: write.late, ..Write::default() };
        }
    }

    /// Whether acknowledged writes are where they have to be: with as many owners as the write concern says, but for one that has
    /// failed and is not in sync again.
    fn is_durable(&self) -> bool {
        let in_sync = |owner: &&Owner| !owner.is_down && owner.awaited == 0;
        let failed = NODES - self.owners.iter().filter(in_sync).count();
        let holders = self.owners.iter().filter(in_sync).filter(|owner| owner.held >= self.acknowledged).count();
        holders + failed >= machines::concern_size() && holders > 0
    }
}

impl Model for Rounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let next = state.writes.iter().position(|write| write.progress == Progress::Idle);
        for (at, write) in state.writes.iter().enumerate() {
            match write.progress {
                Progress::Idle if next == Some(at) => {
                    actions.extend([0, 1].map(|coordinator| Action::Begin { write: at, coordinator }));
                }
                Progress::Again => actions.push(Action::Repeat(at)),
                Progress::Running => {
                    let sent = (0..NODES).filter(|owner| write.legs[*owner] == Leg::Sent);
                    actions.extend(sent.map(|owner| Action::Deliver { write: at, owner }));
                    if machines::write(write.is_second, ALL, &write.legs).1.is_some() {
                        actions.push(Action::Impatience(at));
                    }
                }
                _ => {}
            }
            let late = (0..NODES).filter(|owner| write.late[*owner] > 0);
            actions.extend(late.map(|owner| Action::DeliverLate { write: at, owner }));
        }
        for (at, owner) in state.owners.iter().enumerate() {
            if owner.is_down {
                actions.push(Action::Return(at));
            } else if !state.has_crashed {
                actions.push(Action::Crash(at));
            }
            let awaited = each(owner.awaited).filter(|with| !owner.is_down && !state.owners[*with].is_down);
            actions.extend(awaited.map(|with| Action::Compare { owner: at, with }));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Begin { write, coordinator } => {
                let clock = &mut next.clocks[usize::from(coordinator)];
                *clock += 1;
                let stamp = *clock * WRITES as u8 + write as u8;
                let floor = next.acknowledged;
                next.writes[write] = Write { coordinator, stamp, floor, ..Write::default() };
                next.send(write);
            }
            Action::Repeat(write) => next.send(write),
            Action::Impatience(at) => {
                let write = &state.writes[at];
                next.settle(at, machines::write(write.is_second, ALL, &write.legs).1?);
            }
            Action::Deliver { write, owner } => {
                let answer = next.answer(owner, state.writes[write].stamp);
                next.writes[write].legs[owner] = Leg::Answered(answer);
                next.conclude(write);
            }
            Action::DeliverLate { write, owner } => {
                let stamp = std::mem::take(&mut next.writes[write].late[owner]);
                next.answer(owner, stamp);
            }
            Action::Crash(owner) => {
                next.has_crashed = true;
                next.owners[owner] = Owner { is_down: true, ..Owner::default() };
                for at in 0..WRITES {
                    next.writes[at].late[owner] = 0;
                    if next.writes[at].legs[owner] == Leg::Sent {
                        next.writes[at].legs[owner] = Leg::Lost;
                    }
                    next.conclude(at);
                }
            }
            Action::Return(owner) => {
                next.owners[owner] = Owner { awaited: ALL & !only(owner), ..Owner::default() };
            }
            Action::Compare { owner, with } => {
                let shown = state.owners[with].held;
                let Owner { held, awaited, .. } = &mut next.owners[owner];
                *held = replica::repaired(*held, shown);
                *awaited &= !only(with);
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("versions rise", |_, state: &State| !state.breaks_order),
            Property::always("as many owners as were asked for hold what is acknowledged", |_, state: &State| {
                state.acknowledged == 0 || state.is_durable()
            }),
            Property::always("a write takes two rounds at most", |_, state: &State| !state.takes_a_third_round),
        ]
    }
}
