//! SWIM membership (Das, Gupta, Motivala 2002) with suspicion, refutation by incarnation, and probing of the dead.
//!
//! The parts: `roster` is what is believed, `news` what is being spread, `prober` who is being probed, `rejoin` who is
//! looked for, `outbox` what the driver has yet to do. This file is what connects them.

mod news;
mod outbox;
mod prober;
mod rejoin;
mod roster;
mod state;
mod telling;

use std::time::Duration;

use rand::{SeedableRng, rngs::SmallRng, seq::IteratorRandom};

pub use self::state::{MemberState, Stage};
use self::{
    news::News,
    outbox::Outbox,
    prober::{Probe, ProbePhase, Prober},
    rejoin::Rejoin,
    roster::{Merged, Roster},
};
use crate::{Event, GossipBody, GossipMessage, Incarnation, MemberUpdate, Monotonic, Mutant, NodeId, Weight};

/// Answers within this part of an interval are nothing unusual. Beyond it, suspicion lasts so many times longer than they take.
const PATIENCE_USUAL: u32 = 5;
const LATE_TIMES: u32 = 4;

/// A member as this node sees it.
pub type Member = MemberUpdate;

/// The protocol's constants.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// One probe round per this time (GOSSIP_INTERVAL_MS).
    pub interval: Duration,
    /// From suspect to dead (SUSPICION_AFTER_MS).
    pub suspicion: Duration,
    /// How many members are asked for an indirect probe.
    pub indirect_probes: usize,
    /// Where to look for a mesh while none is known, and for ever after.
    pub seeds: Vec<String>,
    /// How long a member is gone before it is forgotten (FORGET_AFTER).
    pub forget_after: Duration,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum MembershipOutput {
    /// Send a datagram; if there is no connection, try to make one and drop the message.
    Send {
        /// To whom.
        to: NodeId,
        /// Where it is.
        addr: String,
        /// What.
        message: GossipMessage,
    },
    /// Connect to this address and exchange member lists: a seed, a member believed dead, or one of many where there is much news.
    Join {
        /// `host:port`.
        addr: String,
    },
    /// The members of the ring, those about to enter it or those that have left it, or a weight, have changed: build a new ring.
    RingChanged,
    /// Somebody believed this node dead, so it may have missed writes; a higher incarnation is already on its way.
    Refuted,
    /// Tell the observer.
    Event(Event),
}

/// The membership state machine. Feed it with `handle_*`, then call [`Membership::poll`] until it returns nothing, and
/// again at [`Membership::next_deadline`].
#[derive(Debug)]
pub struct Membership {
    config: MembershipConfig,
    me: Member,
    roster: Roster,
    news: News,
    prober: Prober,
    rejoin: Rejoin,
    outbox: Outbox,
    rng: SmallRng,
    /// A claim that this node was gone is news from this incarnation on.
    gone_after: Incarnation,
    /// What the driver knows of: the ring, those that are about to enter it, and those that have left it.
    ring: [Vec<(NodeId, Weight)>; 3],
    /// Whether something may have changed since.
    ring_stale: bool,
    /// When to push news, if there is any.
    push_at: Option<Monotonic>,
    /// Not before this.
    push_after: Monotonic,
}

impl Membership {
    /// Members known at most, this node, the dead and the left included. Beyond, the one that has been gone for the longest
    /// is forgotten; if nobody is gone, newcomers are not admitted.
    pub const MEMBERS_MAX: usize = roster::MEMBERS_MAX;

    /// Starts alone: `me` is this node's own claim.
    #[must_use]
    pub fn new(mut config: MembershipConfig, me: Member, now: Monotonic, seed: u64) -> Self {
        // Without an interval the next deadline would always be now.
        config.interval = config.interval.max(Duration::from_millis(1));
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            prober: Prober::new(config.interval, now, &mut rng),
            rejoin: Rejoin::new(config.interval, config.seeds.clone(), now),
            ring: [vec![(me.id, me.weight)], Vec::new(), Vec::new()],
            ring_stale: false,
            gone_after: me.incarnation,
            config,
            me,
            roster: Roster::default(),
            news: News::default(),
            outbox: Outbox::default(),
            rng,
            push_at: None,
            push_after: now,
        }
    }

    /// A datagram arrived from the authenticated peer `from`.
    pub fn handle_message(&mut self, now: Monotonic, from: NodeId, message: GossipMessage) {
        self.forgive_lost_time(now);
        if message.from != from || from == self.me.id {
            return;
        }
        for update in &message.updates {
            self.merge(now, update);
        }
        let said = message.updates.into_iter().find(|update| update.id == from && update.is_well_formed());
        let held = self.roster.get(from);
        // A member that is accused wrongly is told at once, so that it can refute.
        let wrong = held.filter(|held| said.as_ref().map_or(held.state != MemberState::Alive, |said| said != *held));
        let wrong = wrong.cloned();
        // It is answered where it says it is: what is held may be the address of a former start.
        if let Some(addr) = said.or_else(|| held.cloned()).map(|claim| claim.addr) {
            let answered = self.answer(now, from, &addr, message.body, wrong.as_ref());
            // A node that has left does not argue: it refutes nothing, so two of them would never stop.
            if wrong.is_some() && !answered && !self.has_left() {
                self.send(from, addr, GossipBody::Updates, wrong);
            }
        }
        self.publish_ring();
    }

    /// A whole member list arrived, from a join or with a reply to a request that named another ring.
    pub fn handle_members(&mut self, now: Monotonic, members: &[Member]) {
        self.forgive_lost_time(now);
        for member in members {
            self.merge(now, member);
        }
        self.publish_ring();
    }

    /// This node's weight has changed: publish it.
    pub fn handle_weight(&mut self, now: Monotonic, weight: Weight) {
        self.forgive_lost_time(now);
        self.speak_anew(now, weight, self.me.stage);
    }

    /// This node enters the ring, leaves it, or comes back to it because nobody is there to whom it could hand over.
    pub fn handle_stage(&mut self, now: Monotonic, stage: Stage) {
        self.forgive_lost_time(now);
        self.speak_anew(now, self.me.weight, stage);
    }

    /// This node holds all that the members it knows have shown it.
    pub fn handle_in_sync(&mut self, now: Monotonic) {
        if self.me.stage == Stage::Syncing {
            self.handle_stage(now, Stage::Normal);
        }
    }

    /// Nothing was sent to these, because they are being connected to for the first time: that they do not answer is no wonder.
    pub fn handle_unsent(&mut self, to: &[NodeId]) {
        self.prober.spare(to);
    }

    /// Forgets a member that is gone, as it was ordered. False if it is present or not known.
    pub fn handle_forgotten(&mut self, id: NodeId) -> bool {
        let is_forgotten = self.roster.forget(id);
        if is_forgotten {
            self.outbox.push(MembershipOutput::Event(Event::Forgotten { peer: id }));
        }
        is_forgotten
    }

    /// A seed was asked for its member list, or could not be.
    pub fn handle_tried(&mut self, addr: &str) {
        self.rejoin.handle_tried(addr);
    }

    /// Whether the members that this node knows can show it all that was acknowledged: it was in sync itself, or one of them was,
    /// or there is nobody else to be found. Newcomers alone do not know what they lack.
    #[must_use]
    pub fn can_catch_up(&self) -> bool {
        let was_in_sync = |stage| matches!(stage, Stage::Normal | Stage::Leaving);
        was_in_sync(self.me.stage)
            || self.roster.present().any(|member| was_in_sync(member.stage))
            || self.rejoin.is_everybody_found(&self.roster)
            || Mutant::NewcomersSuffice.is_planted()
    }

    /// Only this node says what it is, each time with a higher incarnation, so that everybody believes it.
    fn speak_anew(&mut self, now: Monotonic, weight: Weight, stage: Stage) {
        if self.has_left() || (weight, stage) == (self.me.weight, self.me.stage) {
            return;
        }
        (self.me.weight, self.me.stage) = (weight, stage);
        self.me.incarnation = self.me.incarnation.next();
        self.ring_stale = true;
        self.push_soon(now);
        self.publish_ring();
    }

    /// This node stops now: tell everyone. From here on it refutes nothing and accuses nobody.
    pub fn handle_left(&mut self, now: Monotonic) {
        self.forgive_lost_time(now);
        if self.has_left() {
            return;
        }
        self.me.state = MemberState::Left;
        self.ring_stale = true;
        let everyone: Vec<_> = self.roster.present().map(|member| (member.id, member.addr.clone())).collect();
        for (id, addr) in everyone {
            self.send(id, addr, GossipBody::Updates, None);
        }
        self.publish_ring();
    }

    /// The next thing to do, or nothing until [`Self::next_deadline`].
    pub fn poll(&mut self, now: Monotonic) -> Option<MembershipOutput> {
        self.forgive_lost_time(now);
        loop {
            if let Some(output) = self.outbox.pop() {
                return Some(output);
            }
            if !self.handle_timeout(now) {
                return None;
            }
            self.publish_ring();
        }
    }

    /// When to poll again if nothing arrives before.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        let always = self.prober.next_deadline().min(self.rejoin.next_deadline());
        [self.push_at, self.roster.next_deadline()].into_iter().flatten().fold(always, Ord::min)
    }

    /// All members including this node, sorted by id, the dead and the left too.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.roster.iter().cloned().collect();
        let at = members.partition_point(|member| member.id < self.me.id);
        members.insert(at, self.me.clone());
        members
    }

    /// One member.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        if id == self.me.id { Some(&self.me) } else { self.roster.get(id) }
    }

    /// Those that are in the ring, with their weights, sorted by id. Never empty: a node that is not in the ring, because it
    /// is joining or leaving, is alone in its own if there is nobody else.
    #[must_use]
    pub fn ring_members(&self) -> Vec<(NodeId, Weight)> {
        let mut ring = self.others(Stage::is_in_ring);
        let in_ring = self.me.state.is_present() && self.me.stage.is_in_ring() && !Mutant::SelfMissing.is_planted();
        if in_ring || ring.is_empty() {
            let at = ring.partition_point(|&(id, _)| id < self.me.id);
            ring.insert(at, (self.me.id, self.me.weight));
        }
        ring
    }

    /// The others that are present in this stage, with their weights, sorted by id.
    #[must_use]
    pub fn others_in(&self, stage: Stage) -> Vec<(NodeId, Weight)> {
        self.others(|other| other == stage)
    }

    fn others(&self, is_meant: impl Fn(Stage) -> bool) -> Vec<(NodeId, Weight)> {
        let others = self.roster.present().filter(|member| is_meant(member.stage));
        others.map(|member| (member.id, member.weight)).collect()
    }

    /// This node's own claim.
    #[must_use]
    pub const fn me(&self) -> &Member {
        &self.me
    }

    /// This node's current incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.me.incarnation
    }

    fn has_left(&self) -> bool {
        self.me.state == MemberState::Left
    }

    /// A deadline missed by more than an interval means that this node was stopped or starved, not that the others
    /// were silent (Lifeguard, Dadgar et al. 2017): it starts a new round and gives the suspects the time back.
    fn forgive_lost_time(&mut self, now: Monotonic) {
        let late = now.since(self.next_deadline());
        if late > self.config.interval {
            self.roster.extend_suspicions(late);
            self.prober.restart(now);
            self.rejoin.restart(now);
            self.push_at = self.push_at.map(|at| at.max(now));
        }
    }

    fn handle_timeout(&mut self, now: Monotonic) -> bool {
        if self.push_at.is_some_and(|at| at <= now) {
            self.push(now);
            return true;
        }
        let dead = self.roster.unrefuted(now);
        if !dead.is_empty() {
            dead.iter().for_each(|claim| self.merge(now, claim));
            return true;
        }
        if let Some(phase) = self.prober.handle_timeout(now) {
            self.handle_phase(now, phase);
            return true;
        }
        if let Some(addrs) = self.rejoin.handle_timeout(now, &self.me, &self.roster) {
            if !self.has_left() {
                addrs.into_iter().for_each(|addr| self.outbox.push(MembershipOutput::Join { addr }));
            }
            return true;
        }
        false
    }

    fn handle_phase(&mut self, now: Monotonic, phase: ProbePhase) {
        match phase {
            // A node that has left accuses nobody, but repeats that it has.
            ProbePhase::Begin if self.has_left() => self.push_soon(now),
            ProbePhase::Begin => {
                let after =
                    if Mutant::ForgottenTooEarly.is_planted() { Duration::ZERO } else { self.config.forget_after };
                for id in self.roster.gone_for(now, after) {
                    self.handle_forgotten(id);
                }
                self.exchange_lists();
                for probe in self.prober.begin(now, self.me.id, &self.roster, &mut self.rng) {
                    let event = Event::ProbeSent { peer: probe.target, began: probe.sent_at };
                    self.outbox.push(MembershipOutput::Event(event));
                    self.send_to_member(probe.target, GossipBody::Ping { seq: probe.seq });
                }
            }
            ProbePhase::AskOthers => {
                for Probe { seq, target, .. } in self.prober.ask_others() {
                    let others = self.roster.present();
                    let others = others.filter(|member| member.id != target && member.state == MemberState::Alive);
                    let helpers = others.map(|member| member.id);
                    for helper in helpers.choose_multiple(&mut self.rng, self.config.indirect_probes) {
                        self.send_to_member(helper, GossipBody::PingRequest { seq, target });
                    }
                }
            }
            ProbePhase::Conclude => {
                for Probe { target, indirect, sent_at, .. } in self.prober.conclude() {
                    let event = Event::GossipRound { peer: target, began: sent_at, rtt: None, indirect };
                    self.outbox.push(MembershipOutput::Event(event));
                    let suspect = self.roster.get(target).cloned();
                    if let Some(claim) = suspect.filter(|member| member.state == MemberState::Alive) {
                        self.merge(now, &Member { state: MemberState::Suspect, ..claim });
                    }
                }
            }
        }
    }

    /// Hundreds of arrivals at once are more than datagrams carry: then lists are exchanged with a random member in each round, so that twice
    /// as many know of all of them after each.
    fn exchange_lists(&mut self) {
        if !self.news.is_a_flood() {
            return;
        }
        if let Some(member) = self.roster.present().choose(&mut self.rng) {
            self.outbox.push(MembershipOutput::Join { addr: member.addr.clone() });
            self.news.told_by_list();
        }
    }

    /// Does what a message asks for; returns whether its sender has got an answer by that.
    fn answer(&mut self, now: Monotonic, from: NodeId, addr: &str, body: GossipBody, wrong: Option<&Member>) -> bool {
        let me = self.me.id;
        match body {
            GossipBody::Ping { seq } => {
                self.send(from, addr.to_owned(), GossipBody::Ack { seq, subject: me }, wrong.cloned());
                return true;
            }
            GossipBody::PingRequest { seq, target } if target == me => {
                self.send(from, addr.to_owned(), GossipBody::Ack { seq, subject: me }, wrong.cloned());
                return true;
            }
            GossipBody::PingRequest { seq, target } => {
                if self.roster.get(target).is_some() {
                    let seq = self.prober.relay(target, from, seq);
                    self.send_to_member(target, GossipBody::Ping { seq });
                }
            }
            GossipBody::Ack { seq, subject } => {
                if let Some(probe) = self.prober.handle_ack(now, from, seq, subject) {
                    let rtt = Some(now.since(probe.sent_at));
                    let Probe { sent_at: began, indirect, .. } = probe;
                    let event = Event::GossipRound { peer: subject, began, rtt, indirect };
                    self.outbox.push(MembershipOutput::Event(event));
                } else if let Some(relay) = self.prober.take_relay(seq, subject) {
                    self.send_to_member(relay.requester, GossipBody::Ack { seq: relay.requester_seq, subject });
                }
            }
            GossipBody::Updates => {}
        }
        false
    }

    fn merge(&mut self, now: Monotonic, claim: &Member) {
        if !claim.is_well_formed() {
            return;
        }
        if claim.id == self.me.id {
            self.hear_about_self(now, claim);
            return;
        }
        // Where answers take long, or this node is late itself, suspects get more time to be heard, too.
        let late = self.prober.patience().saturating_sub(self.config.interval / PATIENCE_USUAL);
        let suspicion = self.config.suspicion + late * LATE_TIMES;
        let Merged::News { before } = self.roster.merge(now, claim, suspicion) else { return };
        let from = before.as_ref().map(|before| before.state);
        self.ring_stale = true;
        self.news.announce(claim.id);
        self.push_soon(now);
        if claim.state.is_present() && !from.is_some_and(MemberState::is_present) {
            self.prober.handle_arrival(self.roster.present().count());
        }
        if from != Some(claim.state) {
            let event = Event::Member { peer: claim.id, addr: claim.addr.clone(), from, to: claim.state };
            self.outbox.push(MembershipOutput::Event(event));
        }
        // A member that comes back has to know that it was believed gone, even if it has overridden that without hearing it.
        if let Some(gone) = before.filter(|before| !before.state.is_present() && claim.state.is_present()) {
            self.send(claim.id, claim.addr.clone(), GossipBody::Updates, Some(gone));
        }
    }

    /// Only this node speaks for itself: what others say of it, or a former start of it said, is overridden.
    fn hear_about_self(&mut self, now: Monotonic, claim: &Member) {
        if self.has_left() || *claim == self.me {
            return;
        }
        // That it was believed gone counts even if it has refuted a mere suspicion of that incarnation meanwhile.
        let gone = !claim.state.is_present() && claim.incarnation >= self.gone_after;
        let refutes = claim.incarnation >= self.me.incarnation;
        if refutes {
            self.me.incarnation = claim.incarnation.next();
            self.push_soon(now);
        }
        if gone {
            self.gone_after = claim.incarnation.next();
            self.outbox.push(MembershipOutput::Refuted);
        }
        let claimed = claim.state;
        if (refutes && claimed == MemberState::Suspect) || (gone && claimed == MemberState::Dead) {
            self.outbox.push(MembershipOutput::Event(Event::Refuted { claimed }));
        }
    }

    fn publish_ring(&mut self) {
        if !std::mem::take(&mut self.ring_stale) {
            return;
        }
        let ring = [self.ring_members(), self.others_in(Stage::Joining), self.others_in(Stage::Leaving)];
        if ring != self.ring {
            self.ring = ring;
            self.outbox.push(MembershipOutput::RingChanged);
        }
    }
}

#[cfg(test)]
mod tests;
