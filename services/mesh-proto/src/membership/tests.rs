//! One machine at a time; whole clusters are in `tests/membership_sim.rs`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use super::*;

mod properties;

const INTERVAL: Duration = Duration::from_millis(500);
const SUSPICION: Duration = Duration::from_secs(2);
const ME: u64 = 1000;

fn at(ms: u64) -> Monotonic {
    Monotonic::new(Duration::from_millis(ms))
}

fn claim(id: u64, incarnation: u64, state: MemberState) -> Member {
    Member {
        id: NodeId::new(id),
        addr: format!("node{id}:1"),
        incarnation: Incarnation::new(incarnation),
        weight: Weight::MIN,
        state,
        stage: Stage::Normal,
    }
}

fn machine(seeds: &[&str]) -> Membership {
    let config = MembershipConfig {
        interval: INTERVAL,
        suspicion: SUSPICION,
        indirect_probes: 3,
        seeds: seeds.iter().map(ToString::to_string).collect(),
        forget_after: Duration::from_secs(86_400),
    };
    Membership::new(config, claim(ME, 10, MemberState::Alive), at(0), 7)
}

fn with(members: &[Member]) -> Membership {
    let mut machine = machine(&[]);
    machine.handle_members(at(0), members);
    drain(&mut machine, 0);
    machine
}

fn drain(machine: &mut Membership, ms: u64) -> Vec<MembershipOutput> {
    std::iter::from_fn(|| machine.poll(at(ms))).collect()
}

/// Runs from one time to another, deadline by deadline, while nobody answers.
fn run(machine: &mut Membership, from_ms: u64, to_ms: u64) -> Vec<MembershipOutput> {
    let mut outputs = drain(machine, from_ms);
    while machine.next_deadline() <= at(to_ms) {
        let now = machine.next_deadline();
        outputs.extend(std::iter::from_fn(|| machine.poll(now)));
    }
    outputs
}

fn message(from: u64, body: GossipBody, updates: &[Member]) -> GossipMessage {
    GossipMessage { from: NodeId::new(from), body, updates: updates.to_vec() }
}

fn message_from(from: NodeId, body: GossipBody) -> GossipMessage {
    message(from.get(), body, &[])
}

fn sent_to(outputs: &[MembershipOutput], id: u64) -> Vec<&GossipMessage> {
    let sent = outputs.iter().filter_map(|output| match output {
        MembershipOutput::Send { to, message, .. } if *to == NodeId::new(id) => Some(message),
        _ => None,
    });
    sent.collect()
}

fn joins(outputs: &[MembershipOutput]) -> Vec<&str> {
    let joins = outputs.iter().filter_map(|output| match output {
        MembershipOutput::Join { addr } => Some(addr.as_str()),
        _ => None,
    });
    joins.collect()
}

/// All that a ring is made of.
fn rings(machine: &Membership) -> [Vec<(NodeId, Weight)>; 3] {
    [machine.ring_members(), machine.others_in(Stage::Joining), machine.others_in(Stage::Leaving)]
}

#[test]
fn a_flood_of_arrivals_is_told_by_whole_lists_until_it_is_over() {
    let arrivals = |count: u64| (1..=count).map(|id| claim(id, 1, MemberState::Alive)).collect::<Vec<_>>();
    // Before the first that does not answer is dead, and looked for.
    assert_eq!(joins(&run(&mut with(&arrivals(200)), 0, 2000)), Vec::<&str>::new(), "datagrams do");
    let mut machine = with(&arrivals(600));
    let outputs = run(&mut machine, 0, 2000);
    let begun = outputs.iter().filter_map(|output| match output {
        MembershipOutput::Event(Event::ProbeSent { began, .. }) => Some(*began),
        _ => None,
    });
    let rounds = begun.collect::<std::collections::BTreeSet<_>>().len();
    assert!(rounds > 0 && joins(&outputs).len() == rounds, "one list in each round: {rounds}");
    assert!(machine.news.is_a_flood());
    run(&mut machine, 2000, 60_000);
    assert!(!machine.news.is_a_flood(), "all has been told");
}

#[test]
fn who_joins_is_not_in_the_ring_until_it_has_caught_up() {
    let config = MembershipConfig {
        interval: INTERVAL,
        suspicion: SUSPICION,
        indirect_probes: 3,
        seeds: Vec::new(),
        forget_after: Duration::from_secs(86_400),
    };
    let me = Member { stage: Stage::Joining, ..claim(ME, 1, MemberState::Alive) };
    let mut machine = Membership::new(config, me, at(0), 1);
    assert_eq!(machine.ring_members(), [(NodeId::new(ME), Weight::MIN)], "alone in its own");
    let other = Member { stage: Stage::Joining, ..claim(2, 1, MemberState::Alive) };
    machine.handle_members(at(0), &[claim(1, 1, MemberState::Alive), other.clone()]);
    assert!(drain(&mut machine, 0).contains(&MembershipOutput::RingChanged));
    assert_eq!(machine.ring_members(), [(NodeId::new(1), Weight::MIN)]);
    assert_eq!(machine.others_in(Stage::Joining), [(NodeId::new(2), Weight::MIN)]);
    machine.handle_stage(at(0), Stage::Normal);
    assert!(drain(&mut machine, 0).contains(&MembershipOutput::RingChanged));
    assert_eq!(machine.ring_members().len(), 2);
    assert_eq!(machine.incarnation(), Incarnation::new(2), "so that everybody believes it");
    machine.handle_members(at(0), &[Member { state: MemberState::Suspect, ..other }]);
    assert_eq!(machine.ring_members().len(), 2, "a suspicion brings nobody into the ring");
    machine.handle_members(at(0), &[claim(2, 2, MemberState::Alive)]);
    assert_eq!(machine.ring_members().len(), 3);
}

#[test]
fn only_a_higher_incarnation_brings_back_the_dead_and_the_left() {
    for gone in [MemberState::Dead, MemberState::Left] {
        let mut machine = with(&[claim(1, 5, gone)]);
        machine.handle_members(at(0), &[claim(1, 5, MemberState::Alive), claim(1, 4, MemberState::Alive)]);
        assert_eq!(machine.member(NodeId::new(1)).unwrap().state, gone);
        machine.handle_members(at(0), &[claim(1, 6, MemberState::Alive)]);
        assert_eq!(machine.member(NodeId::new(1)).unwrap().state, MemberState::Alive);
        let told = drain(&mut machine, 0);
        let told = sent_to(&told, 1);
        assert!(told.iter().any(|m| m.updates.contains(&claim(1, 5, gone))), "it is told that it was gone");
    }
}

#[test]
fn a_message_under_another_name_is_ignored() {
    let mut machine = with(&[claim(1, 5, MemberState::Alive)]);
    let forged = message(2, GossipBody::Ping { seq: 1 }, &[claim(2, 1, MemberState::Alive)]);
    machine.handle_message(at(0), NodeId::new(1), forged);
    assert_eq!(machine.member(NodeId::new(2)), None);
    assert!(sent_to(&drain(&mut machine, 0), 2).is_empty());
}

#[test]
fn a_stranger_that_introduces_itself_is_answered_and_one_that_does_not_is_not() {
    let mut machine = machine(&[]);
    let ping = GossipBody::Ping { seq: 4 };
    machine.handle_message(at(0), NodeId::new(2), message(2, ping, &[]));
    assert!(sent_to(&drain(&mut machine, 0), 2).is_empty());
    machine.handle_message(at(0), NodeId::new(2), message(2, ping, &[claim(2, 1, MemberState::Alive)]));
    let outputs = drain(&mut machine, 0);
    let ack = sent_to(&outputs, 2)[0];
    assert_eq!(ack.body, GossipBody::Ack { seq: 4, subject: NodeId::new(ME) });
    assert_eq!(ack.updates[0], claim(ME, 10, MemberState::Alive), "it introduces itself too");
}

#[test]
fn the_wronged_hear_of_it_with_the_first_answer() {
    for held in [claim(1, 5, MemberState::Suspect), claim(1, 5, MemberState::Dead), claim(1, 9, MemberState::Alive)] {
        let news: Vec<_> = (2..60).map(|id| claim(id, 1, MemberState::Alive)).collect();
        for body in
            [GossipBody::Ping { seq: 1 }, GossipBody::Ack { seq: 1, subject: NodeId::new(1) }, GossipBody::Updates]
        {
            let mut machine = machine(&[]);
            machine.handle_members(at(0), &news);
            machine.handle_members(at(0), std::slice::from_ref(&held));
            drain(&mut machine, 0);
            machine.handle_message(at(1), NodeId::new(1), message(1, body, &[claim(1, 5, MemberState::Alive)]));
            let outputs = drain(&mut machine, 1);
            assert_eq!(sent_to(&outputs, 1)[0].updates[1], held, "{body:?}");
            assert_eq!(machine.member(NodeId::new(1)), Some(&held), "an answer alone changes nothing");
        }
    }
}

#[test]
fn claims_about_self_are_refuted_and_reported() {
    let refuted = |claimed| MembershipOutput::Event(Event::Refuted { claimed });
    for (claimed, incarnation, event, missed_writes) in [
        (MemberState::Suspect, 10, true, false),
        (MemberState::Dead, 10, true, true),
        (MemberState::Dead, 99, true, true),
        (MemberState::Left, 10, false, true),
        (MemberState::Alive, 99, false, false),
    ] {
        let mut machine = machine(&[]);
        machine.handle_members(at(0), &[claim(ME, incarnation, claimed)]);
        assert_eq!(machine.incarnation(), Incarnation::new(incarnation + 1), "{claimed:?}");
        let outputs = drain(&mut machine, 0);
        assert_eq!(outputs.contains(&refuted(claimed)), event, "{claimed:?}");
        assert_eq!(outputs.contains(&MembershipOutput::Refuted), missed_writes, "{claimed:?}");
        machine.handle_members(at(0), &[claim(ME, incarnation, claimed)]);
        assert_eq!(machine.incarnation(), Incarnation::new(incarnation + 1), "once is enough");
        assert_eq!(drain(&mut machine, 0), []);
    }
}

#[test]
fn old_claims_about_self_and_its_own_claim_are_let_be() {
    let mut machine = machine(&[]);
    machine.handle_members(at(0), &[claim(ME, 9, MemberState::Dead), claim(ME, 10, MemberState::Alive)]);
    assert_eq!(machine.incarnation(), Incarnation::new(10));
    assert!(!drain(&mut machine, 0).contains(&MembershipOutput::Refuted));
}

#[test]
fn a_death_heard_of_after_the_suspicion_was_refuted_is_reported_once() {
    let mut machine = machine(&[]);
    machine.handle_members(at(0), &[claim(ME, 10, MemberState::Suspect)]);
    assert!(!drain(&mut machine, 0).contains(&MembershipOutput::Refuted));
    for expected in [true, false] {
        machine.handle_members(at(0), &[claim(ME, 10, MemberState::Dead)]);
        assert_eq!(drain(&mut machine, 0).contains(&MembershipOutput::Refuted), expected);
    }
    assert_eq!(machine.incarnation(), Incarnation::new(11));
}

#[test]
fn a_node_that_has_left_tells_everyone_and_refutes_nothing() {
    let others: Vec<_> = (0..40).map(|id| claim(id, 1, MemberState::Alive)).collect();
    let mut machine = with(&others);
    machine.handle_left(at(1));
    let outputs = drain(&mut machine, 1);
    for id in 0..40 {
        assert_eq!(sent_to(&outputs, id)[0].updates[0].state, MemberState::Left, "{id}");
    }
    machine.handle_members(at(2), &[claim(ME, 50, MemberState::Dead)]);
    machine.handle_weight(at(2), Weight::MAX);
    assert_eq!(machine.incarnation(), Incarnation::new(10));
    let later = run(&mut machine, 2, 5000);
    assert!(joins(&later).is_empty());
    assert!(later.iter().all(|output| !matches!(output, MembershipOutput::Event(_))), "it accuses nobody");
}

#[test]
fn the_last_node_keeps_its_ring_when_it_leaves() {
    let mut machine = machine(&[]);
    machine.handle_stage(at(0), Stage::Leaving);
    assert_eq!(machine.ring_members(), [(NodeId::new(ME), Weight::MIN)]);
}

#[test]
fn a_leaving_member_is_present_and_not_in_the_ring_and_may_come_back_to_it() {
    let mut machine = with(&[claim(1, 1, MemberState::Alive)]);
    machine.handle_stage(at(0), Stage::Leaving);
    assert!(drain(&mut machine, 0).contains(&MembershipOutput::RingChanged));
    assert_eq!(machine.ring_members(), [(NodeId::new(1), Weight::MIN)]);
    machine.handle_members(at(0), &[claim(ME, 11, MemberState::Suspect)]);
    assert_eq!(machine.incarnation(), Incarnation::new(12), "it refutes what is not so");
    machine.handle_stage(at(0), Stage::Normal);
    assert_eq!(machine.ring_members().len(), 2);
    let other = Member { stage: Stage::Leaving, ..claim(1, 2, MemberState::Alive) };
    machine.handle_members(at(0), &[other]);
    assert!(drain(&mut machine, 0).contains(&MembershipOutput::RingChanged));
    assert_eq!(machine.ring_members(), [(NodeId::new(ME), Weight::MIN)]);
    assert_eq!(machine.others_in(Stage::Leaving), [(NodeId::new(1), Weight::MIN)]);
}

#[test]
fn a_silent_member_is_asked_after_then_suspected_then_dead() {
    let mut machine = with(&(1..=5).map(|id| claim(id, 1, MemberState::Alive)).collect::<Vec<_>>());
    let mut asked = Vec::new();
    let mut states = Vec::new();
    for output in run(&mut machine, 0, 4000) {
        match output {
            MembershipOutput::Send {
                message: GossipMessage { body: GossipBody::PingRequest { target, .. }, .. },
                to,
                ..
            } => {
                assert_ne!(to, target);
                asked.push((to, target));
            }
            MembershipOutput::Event(Event::Member { peer, to, .. }) if peer == NodeId::new(1) => states.push(to),
            _ => {}
        }
    }
    let first = asked[0].1;
    assert_eq!(asked.iter().take_while(|(_, target)| *target == first).count(), 3, "{asked:?}");
    assert_eq!(states, [MemberState::Suspect, MemberState::Dead]);
    assert_eq!(machine.ring_members().len(), 1);
}

#[test]
fn every_round_probes_the_next_member_and_over_time_all_of_them() {
    let mut machine = with(&(1..=40).map(|id| claim(id, 1, MemberState::Alive)).collect::<Vec<_>>());
    let mut probed = std::collections::BTreeSet::new();
    // Those that have come at once make the first rounds longer.
    for round in 0..90 {
        let mut targets = Vec::new();
        for ms in (round * 500..(round + 1) * 500).step_by(5) {
            for output in drain(&mut machine, ms) {
                if let MembershipOutput::Send { to, message, .. } = output
                    && let GossipBody::Ping { seq } = message.body
                {
                    targets.push(to.get());
                    let ack = GossipBody::Ack { seq, subject: to };
                    machine.handle_message(at(ms), to, message_from(to, ack));
                }
            }
        }
        if round < 45 {
            continue;
        }
        assert!(targets.contains(&1), "1 comes after 1000 when ids wrap around: {targets:?}");
        assert_eq!(targets.len(), 3, "constant work");
        probed.extend(targets);
    }
    assert_eq!(probed.len(), 40, "a shuffled round-robin leaves nobody out");
}

#[test]
fn an_indirect_answer_saves_a_member_and_ends_its_round() {
    let mut machine = with(&[claim(1, 1, MemberState::Alive), claim(2, 1, MemberState::Alive)]);
    let mut ms = 0;
    let (seq, target, helper) = loop {
        ms += 1;
        let request = drain(&mut machine, ms).into_iter().find_map(|output| match output {
            MembershipOutput::Send {
                to,
                message: GossipMessage { body: GossipBody::PingRequest { seq, target }, .. },
                ..
            } => Some((seq, target, to)),
            _ => None,
        });
        if let Some(request) = request {
            break request;
        }
        assert!(ms < 2000, "no indirect probe");
    };
    let ack = GossipBody::Ack { seq, subject: target };
    machine.handle_message(at(ms + 5), helper, message(helper.get(), ack, &[]));
    let outputs = run(&mut machine, ms + 5, ms + 200);
    let round = outputs.iter().find_map(|output| match output {
        MembershipOutput::Event(Event::GossipRound { peer, rtt, indirect, .. }) if *peer == target => {
            Some((*rtt, *indirect))
        }
        _ => None,
    });
    assert_eq!(round, Some((Some(Duration::from_millis(205)), true)));
    assert_eq!(machine.member(target).unwrap().state, MemberState::Alive);
    assert_eq!(machine.member(helper).unwrap().state, MemberState::Suspect, "it never answered its own ping");
}

#[test]
fn a_ping_for_another_is_answered_under_the_other_s_number() {
    let mut machine = with(&[claim(1, 1, MemberState::Alive), claim(2, 1, MemberState::Alive)]);
    let request = GossipBody::PingRequest { seq: 4711, target: NodeId::new(2) };
    machine.handle_message(at(0), NodeId::new(1), message(1, request, &[]));
    let outputs = drain(&mut machine, 0);
    let pings = sent_to(&outputs, 2);
    let Some(GossipBody::Ping { seq }) = pings.iter().map(|m| m.body).find(|b| matches!(b, GossipBody::Ping { .. }))
    else {
        panic!("no ping in {pings:?}");
    };
    let ack = GossipBody::Ack { seq, subject: NodeId::new(2) };
    machine.handle_message(at(3), NodeId::new(2), message(2, ack, &[]));
    let outputs = drain(&mut machine, 3);
    let relayed = GossipBody::Ack { seq: 4711, subject: NodeId::new(2) };
    assert!(sent_to(&outputs, 1).iter().any(|message| message.body == relayed));
}

#[test]
fn a_node_that_was_stopped_gives_the_suspects_their_time_back() {
    let mut machine = with(&[claim(1, 1, MemberState::Suspect), claim(2, 1, MemberState::Alive)]);
    run(&mut machine, 0, 600);
    let stopped_at = machine.next_deadline();
    let woken = stopped_at + Duration::from_secs(20);
    let outputs: Vec<_> = std::iter::from_fn(|| machine.poll(woken)).collect();
    let event = |output: &MembershipOutput| matches!(output, MembershipOutput::Event(_));
    let probe = |output: &MembershipOutput| matches!(output, MembershipOutput::Event(Event::ProbeSent { .. }));
    assert!(outputs.iter().filter(|output| event(output)).all(probe), "nobody is accused: {outputs:?}");
    assert!(sent_to(&outputs, 2).iter().any(|m| matches!(m.body, GossipBody::Ping { .. })), "a new round begins");
    let woken_ms = woken.since_start().as_millis() as u64;
    run(&mut machine, woken_ms, woken_ms + 1000);
    assert_eq!(machine.member(NodeId::new(1)).unwrap().state, MemberState::Suspect);
    run(&mut machine, woken_ms + 1000, woken_ms + 2100);
    assert_eq!(machine.member(NodeId::new(1)).unwrap().state, MemberState::Dead, "but not for ever");
}

#[test]
fn a_lonely_node_tries_its_seeds_every_interval_but_never_itself() {
    let mut machine = machine(&["a:1", "b:1", "node1000:1", "a:1"]);
    let outputs = run(&mut machine, 0, 2400);
    let joins = joins(&outputs);
    assert_eq!(joins.iter().filter(|addr| **addr == "a:1").count(), 5, "{joins:?}");
    assert_eq!(joins.iter().filter(|addr| **addr == "b:1").count(), 5, "{joins:?}");
    assert_eq!(joins.len(), 10, "{joins:?}");
}

#[test]
fn absent_seeds_and_the_dead_are_looked_for_in_turn_but_not_the_left_nor_the_living() {
    let mut machine = machine(&["node1:1", "lost:1"]);
    let mut gone: Vec<_> = (2..=4).map(|id| claim(id, 1, MemberState::Dead)).collect();
    gone.push(claim(5, 1, MemberState::Left));
    machine.handle_members(at(0), &gone);
    // Repeated refutation keeps the one living member alive.
    let mut outputs = Vec::new();
    for (incarnation, ms) in (0..12_000).step_by(100).enumerate() {
        machine.handle_members(at(ms), &[claim(1, incarnation as u64, MemberState::Alive)]);
        outputs.extend(run(&mut machine, ms, ms + 99));
    }
    let joins = joins(&outputs);
    let expected = ["lost:1", "node2:1", "lost:1", "node3:1", "lost:1", "node4:1", "lost:1", "node2:1"];
    assert_eq!(joins[..8], expected, "one of each kind per two intervals");
    assert_eq!(joins.len(), 24, "{joins:?}");
}

#[test]
fn beyond_the_most_members_the_longest_gone_is_forgotten() {
    let most = Membership::MEMBERS_MAX as u64;
    let mut machine = machine(&[]);
    machine.handle_members(at(0), &[claim(1, 1, MemberState::Alive), claim(2, 1, MemberState::Dead)]);
    machine.handle_members(at(1), &[claim(1, 1, MemberState::Dead)]);
    let rest: Vec<_> = (2003..2000 + most).map(|id| claim(id, 1, MemberState::Alive)).collect();
    machine.handle_members(at(2), &rest);
    assert_eq!(machine.members().len(), Membership::MEMBERS_MAX, "full");
    machine.handle_members(at(3), &[claim(5001, 1, MemberState::Dead)]);
    assert_eq!(machine.member(NodeId::new(5001)), None, "the dead displace nobody");
    machine.handle_members(at(3), &[claim(5002, 1, MemberState::Alive)]);
    assert_eq!(machine.member(NodeId::new(2)), None, "dead for longer than 1");
    assert!(machine.member(NodeId::new(1)).is_some());
    machine.handle_members(at(3), &[claim(5003, 1, MemberState::Alive), claim(5004, 1, MemberState::Alive)]);
    assert_eq!(machine.member(NodeId::new(1)), None);
    assert!(machine.member(NodeId::new(5003)).is_some());
    assert_eq!(machine.member(NodeId::new(5004)), None, "nobody is gone, so nobody is admitted");
    assert_eq!(machine.members().len(), Membership::MEMBERS_MAX);
}

#[test]
fn the_outbox_is_bounded_but_never_forgets_the_ring_or_a_refutation() {
    let mut machine = with(&[claim(1, 1, MemberState::Alive)]);
    let ping = message(1, GossipBody::Ping { seq: 1 }, &[claim(1, 1, MemberState::Alive)]);
    for _ in 0..10_000 {
        machine.handle_message(at(1), NodeId::new(1), ping.clone());
    }
    machine.handle_members(at(1), &[claim(2, 1, MemberState::Alive), claim(ME, 10, MemberState::Dead)]);
    let outputs: Vec<_> = std::iter::from_fn(|| machine.outbox.pop()).collect();
    assert!(outputs.len() <= 4098, "{}", outputs.len());
    assert_eq!(outputs[..2], [MembershipOutput::RingChanged, MembershipOutput::Refuted]);
}

#[test]
fn ill_formed_claims_are_not_believed() {
    let machine = with(&[
        Member { addr: "x".repeat(256), ..claim(1, 1, MemberState::Alive) },
        claim(2, u64::MAX, MemberState::Alive),
        claim(ME, u64::MAX, MemberState::Dead),
    ]);
    assert_eq!(machine.members().len(), 1);
    assert_eq!(machine.incarnation(), Incarnation::new(10));
}

#[test]
fn news_dies_after_enough_tellings() {
    let mut machine = with(&(1..=8).map(|id| claim(id, 1, MemberState::Alive)).collect::<Vec<_>>());
    machine.handle_members(at(1), &[claim(9, 3, MemberState::Left)]);
    let mut outputs = Vec::new();
    let ping = message(1, GossipBody::Ping { seq: 1 }, &[claim(1, 1, MemberState::Alive)]);
    for _ in 0..200 {
        machine.handle_message(at(1), NodeId::new(1), ping.clone());
        outputs.extend(drain(&mut machine, 1));
    }
    let told = outputs.iter().filter(|output| {
        matches!(output, MembershipOutput::Send { message, .. } if message.updates.contains(&claim(9, 3, MemberState::Left)))
    });
    assert_eq!(told.count(), 12, "3 ⌈log₂ (9 + 1)⌉");
}
