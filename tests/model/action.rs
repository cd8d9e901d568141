//! What can happen next, and what each of it does.

use crate::{
    machines,
    state::{Comparison, Late, Leg, Life, NODES, Progress, Reason, Seen, State, Status, each, has, only},
};

/// One step of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node hears from another, as gossip has it.
    Gossip {
        to: usize,
        from: usize,
    },
    /// A node gets another's whole member list.
    Members {
        to: usize,
        from: usize,
    },
    /// A node finds nobody where a seed should be.
    TryInVain {
        by: usize,
        seed: usize,
    },
    /// A node gives up another that does not answer.
    DeclareDead {
        by: usize,
        peer: usize,
    },
    /// A node that joins has caught up.
    Enter(usize),
    /// A node that has entered the ring is in sync.
    SayInSync(usize),
    /// A node asks another what it holds, and is answered.
    Compare {
        by: usize,
        peer: usize,
        reason: Reason,
    },
    /// The answer arrives, and so does what it lacks.
    Take {
        by: usize,
        peer: usize,
    },
    BeginWrite {
        write: usize,
        coordinator: usize,
    },
    RepeatWrite(usize),
    /// The coordinator does not wait for silent owners any longer.
    StampAgain(usize),
    DeliverLeg {
        write: usize,
        owner: usize,
    },
    DeliverLate {
        write: usize,
        owner: usize,
    },
    BeginRead(usize),
    AnswerRead(usize),
    Crash(usize),
    /// A node that was told to stop begins to leave.
    Leave(usize),
    /// It enters the ring again, because it would leave too few behind.
    ComeBack(usize),
    /// It asks another whether it has taken over.
    Ask {
        by: usize,
        peer: usize,
    },
    /// All is handed over.
    HandOver(usize),
    /// The time is up.
    CutShort(usize),
    /// It tells that it has left.
    SayLeft(usize),
    /// Its process ends.
    Exit(usize),
    Return {
        node: usize,
        high: bool,
    },
    Cut(usize),
    /// Connections to a node that is cut off break.
    Disconnect(usize),
    Heal(usize),
}

impl State {
    /// All that can happen in this state.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        if self.lapsed {
            return;
        }
        self.faults(actions);
        self.requests(actions);
        for by in (0..NODES).filter(|by| self.nodes[*by].life != Life::Down) {
            for peer in (0..NODES).filter(|peer| *peer != by) {
                self.beliefs(by, peer, actions);
                self.repairs(by, peer, actions);
            }
            if (self.nodes[by].is_joining && self.nodes[by].sync.in_sync) || self.enters_small_ring(by) {
                actions.push(Action::Enter(by));
            }
            if self.nodes[by].sync.in_sync && self.nodes[by].view.claims[by].status == Status::Syncing {
                actions.push(Action::SayInSync(by));
            }
        }
    }

    fn beliefs(&self, by: usize, peer: usize, actions: &mut Vec<Action>) {
        let node = &self.nodes[by];
        if self.connects(by, peer) {
            let (ours, theirs) = (&node.view.claims, &self.nodes[peer].view.claims);
            if ours != theirs {
                actions.push(Action::Members { to: by, from: peer });
                if node.is_joining {
                    actions.push(Action::Gossip { to: by, from: peer });
                }
            } else if node.is_joining {
                actions.push(Action::Members { to: by, from: peer });
            }
            return;
        }
        if !node.view.claims[peer].status.is_present() && !has(node.tried, peer) && !self.can_catch_up(by) {
            actions.push(Action::TryInVain { by, seed: peer });
        }
        if node.life != Life::Left && node.view.claims[peer].status.is_present() {
            actions.push(Action::DeclareDead { by, peer });
        }
    }

    fn repairs(&self, by: usize, peer: usize, actions: &mut Vec<Action>) {
        let node = &self.nodes[by];
        let under_way = node.comparisons[peer] != Comparison::default();
        if under_way {
            if !has(self.cut, by) && !has(self.cut, peer) {
                actions.push(Action::Take { by, peer });
            }
            return;
        }
        let is_doing = |reason| node.comparisons.iter().any(|comparison| comparison.reason == reason);
        let is_awaited = has(node.sync.awaited, peer);
        if has(node.links, peer) && self.connects(by, peer) && node.ring == self.nodes[peer].ring {
            if is_awaited && !is_doing(Reason::TakeOver) && self.can_catch_up(by) {
                actions.push(Action::Compare { by, peer, reason: Reason::Resync });
            }
            let is_idle = !is_doing(Reason::Resync) && !is_doing(Reason::TakeOver);
            let is_leaver = node.view.claims[peer].status == Status::Leaving;
            if is_leaver && node.taken[peer] != node.ring && is_idle {
                actions.push(Action::Compare { by, peer, reason: Reason::TakeOver });
            }
        }
    }

    fn requests(&self, actions: &mut Vec<Action>) {
        let next = (0..self.writes.len()).find(|at| self.writes[*at].progress == Progress::Idle);
        for (at, write) in self.writes.iter().enumerate() {
            let coordinator = usize::from(write.coordinator);
            match write.progress {
                Progress::Idle if self.left.writes > 0 && next == Some(at) => {
                    let nodes = (0..NODES).filter(|node| self.nodes[*node].life != Life::Down);
                    let able = nodes.filter(|node| self.is_reachable(*node));
                    actions.extend(able.map(|coordinator| Action::BeginWrite { write: at, coordinator }));
                }
                Progress::Again if self.is_reachable(coordinator) => actions.push(Action::RepeatWrite(at)),
                Progress::Running => {
                    let sent = (0..NODES).filter(|owner| write.legs[*owner] == Leg::Sent);
                    let sent = sent.filter(|owner| self.connects(coordinator, *owner));
                    actions.extend(sent.map(|owner| Action::DeliverLeg { write: at, owner }));
                    if machines::write(write.is_second, write.ring, &write.legs).1.is_some() {
                        actions.push(Action::StampAgain(at));
                    }
                }
                _ => {}
            }
            let late = (0..NODES).filter(|owner| write.late[*owner] != Late::default() && !has(self.cut, *owner));
            actions.extend(late.map(|owner| Action::DeliverLate { write: at, owner }));
        }
        if self.left.reads > 0 && self.acknowledged > 0 {
            let nodes = (0..NODES).filter(|node| self.nodes[*node].life != Life::Down);
            actions.extend(nodes.map(Action::BeginRead));
        }
        if self.read.progress == Progress::Running {
            let coordinator = usize::from(self.read.coordinator);
            let asked = each(self.read.ring).filter(|owner| self.read.seen[*owner] == Seen::None);
            let asked =
                asked.filter(|owner| has(self.nodes[coordinator].links, *owner) && self.connects(coordinator, *owner));
            actions.extend(asked.map(Action::AnswerRead));
        }
    }

    fn faults(&self, actions: &mut Vec<Action>) {
        for (at, node) in self.nodes.iter().enumerate() {
            if has(self.cut, at) {
                actions.push(Action::Heal(at));
                let is_linked = node.links != 0 || self.nodes.iter().any(|peer| has(peer.links, at));
                if is_linked {
                    actions.push(Action::Disconnect(at));
                }
            } else if self.left.cuts > 0 && self.cut == 0 && node.life != Life::Down {
                actions.push(Action::Cut(at));
            }
            match node.life {
                Life::Down if self.left.returns > 0 => {
                    actions.push(Action::Return { node: at, high: self.left.high_start });
                }
                Life::Down => {}
                Life::Up if self.left.leaves > 0 && !node.is_joining => {
                    if self.has_turn(at) {
                        actions.push(Action::Leave(at));
                    }
                    if self.left.cut_short {
                        actions.push(Action::CutShort(at));
                    }
                }
                Life::Leaving => self.handing_over(at, actions),
                Life::HandedOver if !self.is_busy(at) => actions.push(Action::SayLeft(at)),
                Life::Left => actions.push(Action::Exit(at)),
                _ => {}
            }
            if node.life != Life::Down && self.left.crashes > 0 {
                actions.push(Action::Crash(at));
            }
        }
    }

    fn handing_over(&self, at: usize, actions: &mut Vec<Action>) {
        let node = &self.nodes[at];
        for peer in each(node.ring & !only(at)) {
            let has_said = node.drain_ring == node.ring && has(node.drained, peer);
            if !has_said && self.nodes[peer].taken[at] == node.ring && self.asks(at, peer) {
                actions.push(Action::Ask { by: at, peer });
            }
        }
        let (comes_back, stays_out) = self.is_too_few(at);
        if comes_back {
            actions.push(Action::ComeBack(at));
        }
        if stays_out && self.is_handed_over(at) {
            actions.push(Action::HandOver(at));
        } else if self.left.cut_short {
            actions.push(Action::CutShort(at));
        }
    }

    /// What then is.
    #[must_use]
    pub fn after(mut self, action: Action) -> Self {
        match action {
            Action::Gossip { to, from } => self.gossip(to, from),
            Action::Members { to, from } => self.exchange_members(to, from),
            Action::TryInVain { by, seed } => self.try_seed(by, seed),
            Action::DeclareDead { by, peer } => self.declare_dead(by, peer),
            Action::Enter(node) => self.enter_ring(node),
            Action::SayInSync(node) => self.handle_in_sync(node),
            Action::Compare { by, peer, reason } => self.compare(by, peer, reason),
            Action::Take { by, peer } => self.take(by, peer),
            Action::BeginWrite { write, coordinator } => self.begin_write(write, coordinator),
            Action::RepeatWrite(write) => self.send_write(write),
            Action::StampAgain(at) => {
                let write = self.writes[at];
                let outcome = machines::write(write.is_second, write.ring, &write.legs).1;
                self.settle_write(at, outcome.expect("it is contested"));
            }
            Action::DeliverLeg { write, owner } => self.deliver_leg(write, owner),
            Action::DeliverLate { write, owner } => self.deliver_late(write, owner),
            Action::BeginRead(node) => self.begin_read(node),
            Action::AnswerRead(owner) => self.answer_read(owner),
            Action::Crash(node) => {
                self.left.crashes -= 1;
                self.fail(node);
                self.end(node);
            }
            Action::Leave(node) => {
                self.left.leaves -= 1;
                self.leave(node);
            }
            Action::ComeBack(node) => self.come_back(node),
            Action::Ask { by, peer } => self.ask(by, peer),
            Action::HandOver(node) => self.nodes[node].life = Life::HandedOver,
            Action::CutShort(node) => {
                self.fail(node);
                if self.nodes[node].life == Life::Up {
                    self.left.leaves -= 1;
                    self.leave(node);
                }
                self.nodes[node].life = Life::HandedOver;
            }
            Action::SayLeft(node) => self.say_that_it_has_left(node),
            Action::Exit(node) => self.end(node),
            Action::Return { node, high } => {
                self.left.returns -= 1;
                let highest = self.nodes.iter().map(|peer| peer.view.claims[node].incarnation).max();
                self.start(node, if high { highest.unwrap_or_default() + 1 } else { 0 });
            }
            Action::Cut(node) => {
                self.left.cuts -= 1;
                self.cut |= only(node);
                self.fail(node);
            }
            Action::Disconnect(node) => self.disconnect(node),
            Action::Heal(node) => self.cut &= !only(node),
        }
        self.connect();
        self.forgive();
        self
    }

    /// One failure at a time: as the simulator waits until all are ready, the next may come when the one before is over.
    fn fail(&mut self, node: usize) {
        self.lapsed |= self.failed != 0;
        self.failed |= only(node);
    }

    /// A node that runs, and is in sync in a ring that all others see as well, has not failed any more.
    fn forgive(&mut self) {
        for at in each(self.failed & !self.cut) {
            let node = &self.nodes[at];
            let mut running = self.nodes.iter().filter(|node| node.life != Life::Down);
            if has(node.ring, at) && node.sync.in_sync && running.all(|other| other.ring == node.ring) {
                self.failed &= !only(at);
            }
        }
    }
}
