//! Steps of the real [`Membership`]: what a process believes once it has heard something, and what it tells its driver.
//!
//! Built anew for each step from what it believed. What it takes from time (probes, suspicion) and from dice (whom it tells)
//! is left to the model: any member may be told at any time, and one that does not answer may be declared dead.

use std::time::Duration;

use mesh_proto::{
    Incarnation, Member, MemberState, Membership, MembershipConfig, MembershipOutput, Monotonic, NodeId, Stage, Weight,
};

use crate::{
    memo::Memo,
    state::{Claim, NODES, Nodes, Status, View, each, only},
};

/// What a process hears or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A member list.
    Members([Claim; NODES]),
    Stage(Stage),
    InSync,
    Left,
}

/// What it then believes, and what follows from that.
#[derive(Clone, Copy, Debug)]
pub struct Believed {
    pub view: View,
    pub members: Nodes,
    pub joining: Nodes,
    pub leaving: Nodes,
    pub ring_changed: bool,
    pub refuted: bool,
}

thread_local! {
    static STEPS: Memo<(View, Input), Believed> = Memo::new();
    static CAN_CATCH_UP: Memo<(View, Nodes), bool> = Memo::new();
}

/// One step of the process in place `me`.
pub fn step(me: usize, view: &View, input: Input) -> Believed {
    // All processes are alike: each is looked at as if it were in the first place.
    let view = View { claims: turn(view.claims, me), ..*view };
    let input = if let Input::Members(claims) = input { Input::Members(turn(claims, me)) } else { input };
    let believed = STEPS.with(|steps| steps.answer((view, input), || work_out(&view, input)));
    let back = (NODES - me) % NODES;
    let turned = |nodes: Nodes| turn_set(nodes, me);
    Believed {
        view: View { claims: turn(believed.view.claims, back), ..believed.view },
        members: turned(believed.members),
        joining: turned(believed.joining),
        leaving: turned(believed.leaving),
        ..believed
    }
}

/// [`Membership::can_catch_up`] of the process in place `me` that has tried these seeds.
pub fn can_catch_up(me: usize, view: &View, tried: Nodes) -> bool {
    let view = View { claims: turn(view.claims, me), ..*view };
    let tried = turn_set(tried, (NODES - me) % NODES);
    CAN_CATCH_UP.with(|answers| {
        answers.answer((view, tried), || {
            let mut membership = rebuilt(&view);
            each(tried).for_each(|place| membership.handle_tried(&addr(place)));
            membership.can_catch_up()
        })
    })
}

fn turn<T: Copy>(of_all: [T; NODES], by: usize) -> [T; NODES] {
    std::array::from_fn(|at| of_all[(at + by) % NODES])
}

/// Back from the first place to `me`.
pub fn turn_set(nodes: Nodes, by: usize) -> Nodes {
    (0..NODES).filter(|at| nodes >> at & 1 == 1).map(|at| only((at + by) % NODES)).sum()
}

pub fn id(place: usize) -> NodeId {
    NodeId::new(place as u64 + 1)
}

fn place(id: NodeId) -> usize {
    id.get() as usize - 1
}

fn set(ids: impl Iterator<Item = NodeId>) -> Nodes {
    ids.map(|id| only(place(id))).sum()
}

fn addr(place: usize) -> String {
    format!("node{place}:1")
}

fn member(place: usize, claim: Claim) -> Option<Member> {
    let (state, stage) = match claim.status {
        Status::Unknown => return None,
        Status::Joining => (MemberState::Alive, Stage::Joining),
        Status::Syncing => (MemberState::Alive, Stage::Syncing),
        Status::Normal => (MemberState::Alive, Stage::Normal),
        Status::Leaving => (MemberState::Alive, Stage::Leaving),
        Status::Dead => (MemberState::Dead, Stage::Normal),
        Status::Left => (MemberState::Left, Stage::Leaving),
    };
    Some(Member {
        id: id(place),
        addr: addr(place),
        incarnation: Incarnation::new(u64::from(claim.incarnation)),
        weight: Weight::MAX,
        state,
        stage,
    })
}

fn claim(member: &Member) -> Claim {
    let status = match (member.state, member.stage) {
        (MemberState::Dead, _) => Status::Dead,
        (MemberState::Left, _) => Status::Left,
        (_, Stage::Joining) => Status::Joining,
        (_, Stage::Syncing) => Status::Syncing,
        (_, Stage::Normal) => Status::Normal,
        (_, Stage::Leaving) => Status::Leaving,
    };
    Claim { status, incarnation: u8::try_from(member.incarnation.get()).expect("incarnations are bounded") }
}

fn members(claims: &[Claim]) -> Vec<Member> {
    claims.iter().enumerate().filter_map(|(place, claim)| member(place, *claim)).collect()
}

const NOW: Monotonic = Monotonic::new(Duration::ZERO);

fn work_out(view: &View, input: Input) -> Believed {
    let mut membership = rebuilt(view);
    drain(&mut membership);
    match input {
        Input::Members(claims) => membership.handle_members(NOW, &members(&claims)),
        Input::Stage(stage) => membership.handle_stage(NOW, stage),
        Input::InSync => membership.handle_in_sync(NOW),
        Input::Left => membership.handle_left(NOW),
    }
    let outputs = drain(&mut membership);
    let refuted = outputs.contains(&MembershipOutput::Refuted);
    let mut claims = [Claim::default(); NODES];
    for member in membership.members() {
        claims[place(member.id)] = claim(&member);
    }
    // As `Membership::hear_about_self` has it, which shows it to nobody.
    let gone_after = match input {
        Input::Members(heard) if refuted => heard[0].incarnation + 1,
        _ => view.gone_after,
    };
    Believed {
        view: View { claims, gone_after },
        members: set(membership.ring_members().into_iter().map(|(id, _)| id)),
        joining: set(membership.others_in(Stage::Joining).into_iter().map(|(id, _)| id)),
        leaving: set(membership.others_in(Stage::Leaving).into_iter().map(|(id, _)| id)),
        ring_changed: outputs.contains(&MembershipOutput::RingChanged),
        refuted,
    }
}

/// The membership of a process that believes this.
fn rebuilt(view: &View) -> Membership {
    let config = MembershipConfig {
        interval: Duration::from_secs(1),
        suspicion: Duration::from_secs(1),
        indirect_probes: 1,
        // All others, so that it looks for them.
        seeds: (1..NODES).map(addr).collect(),
        forget_after: Duration::from_secs(86_400),
    };
    let own = view.claims[0];
    let status = if own.status == Status::Left { Status::Leaving } else { own.status };
    let at_first = Claim { status, incarnation: view.gone_after };
    let mut membership = Membership::new(config, member(0, at_first).expect("it knows itself"), NOW, 1);
    if own.incarnation > view.gone_after {
        let suspected = Claim { status, incarnation: own.incarnation - 1 };
        let suspected = member(0, suspected).map(|member| Member { state: MemberState::Suspect, ..member });
        membership.handle_members(NOW, &Vec::from_iter(suspected));
    }
    membership.handle_members(NOW, &members(&view.claims)[1..]);
    if own.status == Status::Left {
        membership.handle_left(NOW);
    }
    assert_eq!(claim(membership.me()), own, "it is rebuilt as it was");
    membership
}

fn drain(membership: &mut Membership) -> Vec<MembershipOutput> {
    std::iter::from_fn(|| membership.poll(NOW)).collect()
}
