//! The drivers' rules, re-enacted literally on a state: each function names the one of `services/mesh/src` that it mirrors.

use mesh_proto::{Mutant, Stage};

use crate::{
    machines,
    membership::{self, Believed},
    replica,
    state::{
        Claim, Comparison, Late, Leg, Life, NODES, Node, Nodes, Progress, Reason, State, Status, View, Write, each,
        has, only,
    },
    sync,
};

impl State {
    /// `Core::with_membership`.
    fn with_membership(&mut self, me: usize, input: membership::Input) {
        let believed = membership::step(me, &self.nodes[me].view, input);
        let before = std::mem::replace(&mut self.nodes[me].view, believed.view);
        self.follow_leavers(me, &before);
        if believed.ring_changed || believed.refuted {
            self.build_ring(me, &believed, believed.refuted && !Mutant::DeathForgotten.is_planted());
        }
    }

    /// `Core::follow_leavers`.
    fn follow_leavers(&mut self, me: usize, before: &View) {
        let node = &mut self.nodes[me];
        for peer in 0..NODES {
            let (old, new) = (before.claims[peer], node.view.claims[peer]);
            let is_another = old.incarnation != new.incarnation;
            if new.status != Status::Leaving || is_another {
                node.taken[peer] = 0;
            }
        }
    }

    /// `Core::build_ring`.
    fn build_ring(&mut self, me: usize, believed: &Believed, distrust: bool) {
        let node = &mut self.nodes[me];
        let Believed { members, joining, leaving, .. } = *believed;
        let is_joining = believed.view.claims[me].status == Status::Joining;
        let asked = if Mutant::LeaversUnasked.is_planted() { 0 } else { leaving };
        let holders = (members | asked) & !only(me);
        let alone = members == only(me);
        let entered = std::mem::replace(&mut node.is_joining, is_joining) && !is_joining;
        let input = if alone {
            sync::Input::Alone
        } else if is_joining {
            sync::Input::Ring { to_be: members | only(me), ring: members, holders, distrust }
        } else {
            sync::Input::Ring {
                to_be: members,
                ring: members,
                holders,
                distrust: distrust || (entered && !Mutant::EnteredAndTrusted.is_planted()),
            }
        };
        node.sync = sync::step(me, node.sync, input);
        node.ring = members;
        node.joining = joining;
        if !self.left.old_answers {
            let is_old = |comparison: &&mut Comparison| comparison.ring != members;
            node.comparisons.iter_mut().filter(is_old).for_each(|comparison| *comparison = Comparison::default());
            node.taken.iter_mut().filter(|ring| **ring != members).for_each(|ring| *ring = 0);
        }
    }

    /// `Core::handle_gossip`.
    pub fn gossip(&mut self, me: usize, from: usize) {
        self.with_membership(me, membership::Input::Members(self.nodes[from].view.claims));
    }

    /// `Core::handle_members`.
    pub fn exchange_members(&mut self, me: usize, from: usize) {
        self.gossip(me, from);
        self.try_seed(me, from);
        self.nodes[me].has_list = self.nodes[me].is_joining;
    }

    /// What `upkeep::join` makes of an exchange of member lists, or of one that came to nothing. Of one that can catch up nobody
    /// asks whom it has tried.
    pub fn try_seed(&mut self, me: usize, seed: usize) {
        let tried = self.nodes[me].tried | only(seed);
        self.nodes[me].tried = if self.can_catch_up(me) { 0 } else { tried };
    }

    /// `Membership::can_catch_up`.
    pub fn can_catch_up(&self, me: usize) -> bool {
        membership::can_catch_up(me, &self.nodes[me].view, self.nodes[me].tried)
    }

    /// `Core::handle_in_sync`.
    pub fn handle_in_sync(&mut self, me: usize) {
        if self.nodes[me].view.claims[me].status == Status::Syncing {
            self.with_membership(me, membership::Input::InSync);
            self.nodes[me].tried = 0;
        }
    }

    /// Whether `Core::enter_small_ring` would enter the ring.
    pub fn enters_small_ring(&self, me: usize) -> bool {
        let node = &self.nodes[me];
        let is_reachable = (0..NODES).any(|peer| has(self.nodes[peer].links, me) && self.connects(peer, me));
        if !node.is_joining || !node.has_list || !is_reachable {
            return false;
        }
        let others = || (0..NODES).filter(|peer| *peer != me).map(|peer| node.view.claims[peer].status);
        let is_in_ring = |status: &Status| matches!(status, Status::Syncing | Status::Normal);
        let in_ring = others().filter(is_in_ring).count();
        others().any(Status::is_present) && in_ring < NODES
    }

    /// `Core::enter_ring`.
    pub fn enter_ring(&mut self, me: usize) {
        self.enter_stage(me, Stage::Syncing);
        self.nodes[me].has_list = false;
    }

    /// `handover::enter_stage`.
    fn enter_stage(&mut self, me: usize, stage: Stage) {
        self.with_membership(me, membership::Input::Stage(stage));
    }

    /// `Membership` declares a suspect dead.
    pub fn declare_dead(&mut self, me: usize, peer: usize) {
        let mut claims = [Claim::default(); NODES];
        claims[peer] = Claim { status: Status::Dead, ..self.nodes[me].view.claims[peer] };
        self.with_membership(me, membership::Input::Members(claims));
    }

    /// A new process in a place: `Core::new`, `Node::start_upkeep`.
    pub fn start(&mut self, me: usize, incarnation: u8) {
        let mut claims = [Claim::default(); NODES];
        claims[me] = Claim { status: Status::Joining, incarnation };
        let view = View { claims, gone_after: incarnation };
        self.nodes[me] = Node { life: Life::Up, view, ring: only(me), is_joining: true, ..Node::default() };
        self.nodes[me].sync = sync::step(me, self.nodes[me].sync, sync::Input::Alone);
    }

    /// The process in a place is gone, and with it what was on its way to it.
    pub fn end(&mut self, me: usize) {
        self.nodes[me] = Node::default();
        for peer in self.nodes.iter_mut() {
            peer.links &= !only(me);
        }
        for at in 0..self.writes.len() {
            self.writes[at].late[me] = Late::default();
            if self.writes[at].legs[me] == Leg::Sent {
                self.writes[at].legs[me] = Leg::Lost;
                self.conclude_write(at);
            }
            let write = &mut self.writes[at];
            if usize::from(write.coordinator) == me && matches!(write.progress, Progress::Running | Progress::Again) {
                self.end_write(at, Progress::Ended);
            }
        }
        if self.read.progress == Progress::Running && usize::from(self.read.coordinator) == me {
            self.end_read();
        }
    }

    /// All connections of a node that is cut off are given up.
    pub fn disconnect(&mut self, me: usize) {
        for peer in (0..NODES).filter(|peer| *peer != me) {
            self.nodes[peer].links &= !only(me);
            self.nodes[peer].comparisons[me] = Comparison::default();
            self.nodes[me].comparisons[peer] = Comparison::default();
        }
        self.nodes[me].links = 0;
        for at in 0..self.writes.len() {
            let coordinator = usize::from(self.writes[at].coordinator);
            for owner in (0..NODES).filter(|owner| *owner != coordinator && (*owner == me || coordinator == me)) {
                self.writes[at].late[owner] = Late::default();
                if self.writes[at].legs[owner] == Leg::Sent {
                    self.writes[at].legs[owner] = Leg::Lost;
                }
            }
            self.conclude_write(at);
        }
    }

    /// `Peers::keep_connected`: a peer that is wanted and can be reached is connected to.
    pub fn connect(&mut self) {
        for me in 0..NODES {
            for peer in 0..NODES {
                let node = &self.nodes[me];
                if node.view.claims[peer].status.is_present() && !has(node.links, peer) && self.connects(me, peer) {
                    self.nodes[me].links |= only(peer);
                    // What an earlier process has answered and has not come yet is not waited for.
                    self.nodes[me].comparisons[peer] = Comparison::default();
                }
            }
        }
    }

    // Anti-entropy.

    /// `resync::fetch_digests`: a peer with the same ring shows what it holds. To be pulled it is looked at later, with the
    /// ring compared again; that is a comparison which began later.
    pub fn compare(&mut self, me: usize, peer: usize, reason: Reason) {
        let shown = self.nodes[peer].held;
        self.nodes[me].comparisons[peer] = Comparison { reason, ring: self.nodes[me].ring, shown };
        if !self.left.late_answers {
            self.take(me, peer);
        }
    }

    /// What `resync::resync_from` and `handover::take_over` make of the answer.
    pub fn take(&mut self, me: usize, peer: usize) {
        let Comparison { reason, ring, shown } = std::mem::take(&mut self.nodes[me].comparisons[peer]);
        let node = &mut self.nodes[me];
        let owns = if Mutant::AloneTakesNothing.is_planted() { node.sync.owned } else { has(node.ring, me) };
        let is_whole = replica::is_settled(node.held, shown) || (reason == Reason::TakeOver && !owns);
        if !is_whole {
            node.clock = node.clock.max(shown >> 1);
            node.held = replica::repaired(node.held, shown);
        }
        if !is_whole || reason == Reason::Resync {
            node.sync = sync::step(me, node.sync, sync::Input::Confirmed { ring, peer: only(peer) });
        }
        // `Core::handle_taken_over`.
        if reason == Reason::TakeOver && node.ring == ring {
            node.taken[peer] = ring;
            self.handle_in_sync(me);
            if self.asks(peer, me) {
                self.ask(peer, me);
            }
        }
    }

    // Leaving.

    /// The others that a node knows to be leaving: `handover::leavers`.
    fn leavers(&self, me: usize) -> Nodes {
        let is_leaving = |peer: &usize| *peer != me && self.nodes[me].view.claims[*peer].status == Status::Leaving;
        (0..NODES).filter(is_leaving).map(only).sum()
    }

    /// How many other members the ring has.
    pub fn others(&self, me: usize) -> usize {
        (self.nodes[me].ring & !only(me)).count_ones() as usize
    }

    /// `handover::wait_for_turn`, with all answers given in this moment.
    pub fn has_turn(&self, me: usize) -> bool {
        if Mutant::LastLeaves.is_planted() {
            return true;
        }
        let is_free = self.leavers(me) == 0 && self.nodes[me].view.claims[me].status == Status::Normal;
        let is_enough = self.others(me) >= machines::concern_size() && self.are_in_sync(me);
        is_free && (is_enough || (self.left.impatient && self.others(me) >= 1))
    }

    /// `handover::is_in_sync`.
    fn are_in_sync(&self, me: usize) -> bool {
        let node = &self.nodes[me];
        each(node.ring).all(|owner| {
            let peer = &self.nodes[owner];
            let answers = has(node.links, owner) && self.connects(me, owner) && peer.ring == node.ring;
            if owner == me { node.sync.in_sync } else { answers && peer.sync.in_sync }
        })
    }

    /// `handover::leave`, when its turn has come.
    pub fn leave(&mut self, me: usize) {
        self.nodes[me].life = Life::Leaving;
        self.enter_stage(me, Stage::Leaving);
    }

    /// `handover::hand_over`: whether it has to come back, and whether it may stay out. Of several leavers the first by name stays
    /// out; in the model any may.
    pub fn is_too_few(&self, me: usize) -> (bool, bool) {
        let others = self.others(me);
        let is_few = others < machines::concern_size() && !Mutant::LastLeaves.is_planted();
        let is_first = self.leavers(me) == 0;
        let comes_back = is_few && (others == 0 || !is_first);
        (comes_back, !is_few || others > 0)
    }

    /// It enters the ring again.
    pub fn come_back(&mut self, me: usize) {
        let node = &mut self.nodes[me];
        (node.life, node.drain_ring, node.drained) = (Life::Up, 0, 0);
        self.enter_stage(me, Stage::Normal);
    }

    /// `handover::is_taken_over`: whether a leaving node asks that member, and it understands.
    pub fn asks(&self, me: usize, peer: usize) -> bool {
        let Node { life, ring, links, view, .. } = self.nodes[me];
        let asks = life == Life::Leaving && has(ring & links, peer) && self.connects(me, peer);
        let known = self.nodes[peer].view.claims[me];
        asks && self.nodes[peer].ring == ring && known == view.claims[me]
    }

    /// The member answers, by `Core::has_taken_over`.
    pub fn ask(&mut self, me: usize, peer: usize) {
        let ring = self.nodes[me].ring;
        if self.nodes[peer].taken[me] == ring {
            let node = &mut self.nodes[me];
            let drained = if node.drain_ring == ring { node.drained } else { 0 };
            (node.drain_ring, node.drained) = (ring, drained | only(peer));
        }
    }

    /// Whether a leaving node has handed over.
    pub fn is_handed_over(&self, me: usize) -> bool {
        let node = &self.nodes[me];
        let others = node.ring & !only(me);
        others == 0 || (node.drain_ring == node.ring && others & !node.drained == 0)
    }

    /// Whether it waits for legs of its own: `handover::say_that_it_has_left`, which waits for a second at most.
    pub fn is_busy(&self, me: usize) -> bool {
        let is_sent = |write: &Write| write.progress == Progress::Running && write.legs.contains(&Leg::Sent);
        self.writes.iter().any(|write| usize::from(write.coordinator) == me && is_sent(write))
    }

    /// `Membership::handle_left`.
    pub fn say_that_it_has_left(&mut self, me: usize) {
        self.nodes[me].life = Life::Left;
        self.with_membership(me, membership::Input::Left);
    }
}
