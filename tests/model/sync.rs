//! Steps of the real [`RepairPlan`] and [`SlotSync`], projected on one slot, under the real rings of three members.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use mesh_proto::{NodeId, RepairPlan, ReplicationFactor, Ring, RingHash, Slot, SlotSync, Sources, Weight};

use crate::{
    membership::{id, turn_set},
    memo::Memo,
    state::{ALL, NODES, Nodes, Sync, each, only},
};

/// What a plan is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A new ring; `to_be` is the one that says what is owned.
    Ring {
        to_be: Nodes,
        ring: Nodes,
        holders: Nodes,
        distrust: bool,
    },
    Alone,
    Confirmed {
        ring: Nodes,
        peer: Nodes,
    },
}

/// A state of the plan, and by which inputs it is reached.
type Ways = HashMap<Sync, Vec<Input>>;

/// Shared by all threads, as each goes on from states that others have reached.
static WAYS: LazyLock<Mutex<Ways>> = LazyLock::new(|| Mutex::new(Ways::from([(Sync::default(), Vec::new())])));

thread_local! {
    static STEPS: Memo<(Sync, Input), Sync> = Memo::new();
    static RINGS: [Ring; ALL as usize + 1] = std::array::from_fn(|members| ring(members as Nodes));
}

fn ring(members: Nodes) -> Ring {
    let members: Vec<_> = each(members).map(|place| (id(place), Weight::MAX)).collect();
    Ring::new(&members, ReplicationFactor::new(NODES as u64).expect("as many as there are nodes"))
}

/// The one slot.
pub fn slot() -> Slot {
    Slot::new(7).expect("there are more")
}

/// One step of the plan of the process in place `me`.
pub fn step(me: usize, sync: Sync, input: Input) -> Sync {
    let back = (NODES - me) % NODES;
    let input = input.with(|nodes| turn_set(nodes, back));
    let next = STEPS.with(|steps| {
        let sync = with(sync, |nodes| turn_set(nodes, back));
        steps.answer((sync, input), || work_out(sync, input))
    });
    with(next, |nodes| turn_set(nodes, me))
}

/// A process that has owned the slot in a ring of all for long.
pub fn at_first(me: usize) -> Sync {
    let others = ALL & !only(me);
    let ring = Input::Ring { to_be: ALL, ring: ALL, holders: others, distrust: false };
    let compared = each(others).map(|peer| Input::Confirmed { ring: ALL, peer: only(peer) });
    std::iter::once(ring).chain(compared).fold(Sync::default(), |sync, input| step(me, sync, input))
}

fn work_out(sync: Sync, input: Input) -> Sync {
    let known = WAYS.lock().expect("nobody panics under this lock").get(&sync).cloned();
    let mut way = known.expect("each state was reached in some way");
    let (mut plan, bits) = (RepairPlan::default(), SlotSync::default());
    way.iter().for_each(|before| tell(&mut plan, &bits, *before));
    assert_eq!(projected(&plan, &bits), sync, "the same inputs lead to the same state");
    tell(&mut plan, &bits, input);
    let next = projected(&plan, &bits);
    way.push(input);
    let mut ways = WAYS.lock().expect("nobody panics under this lock");
    ways.entry(mirrored(next)).or_insert_with(|| way.iter().map(|input| input.with(mirror)).collect());
    ways.entry(next).or_insert(way);
    next
}

/// Both others are alike: what can be reached can be with one in place of the other.
fn mirror(nodes: Nodes) -> Nodes {
    nodes & 1 | nodes << 1 & 4 | nodes >> 1 & 2
}

fn mirrored(sync: Sync) -> Sync {
    with(sync, mirror)
}

fn with(sync: Sync, map: impl Fn(Nodes) -> Nodes) -> Sync {
    Sync { ring: map(sync.ring), awaited: map(sync.awaited), confirmed: map(sync.confirmed), ..sync }
}

impl Input {
    fn with(self, map: impl Fn(Nodes) -> Nodes) -> Self {
        match self {
            Self::Ring { to_be, ring, holders, distrust } => {
                Self::Ring { to_be: map(to_be), ring: map(ring), holders: map(holders), distrust }
            }
            Self::Alone => self,
            Self::Confirmed { ring, peer } => Self::Confirmed { ring: map(ring), peer: map(peer) },
        }
    }
}

fn hash(ring: Nodes) -> RingHash {
    RINGS.with(|rings| rings[usize::from(ring)].hash())
}

fn tell(plan: &mut RepairPlan, bits: &SlotSync, input: Input) {
    match input {
        Input::Ring { to_be, ring, holders, distrust } => {
            let holders: Vec<NodeId> = each(holders).map(id).collect();
            let sources = Sources { ring: hash(ring), holders: &holders };
            RINGS.with(|rings| plan.handle_ring(id(0), &rings[usize::from(to_be)], sources, distrust, bits));
        }
        Input::Alone => plan.handle_alone(bits),
        Input::Confirmed { ring, peer } => {
            each(peer).for_each(|peer| plan.handle_confirmed(hash(ring), id(peer), &slot().into(), bits));
        }
    }
}

fn projected(plan: &RepairPlan, bits: &SlotSync) -> Sync {
    let others = || 1..NODES;
    let awaited = others().filter(|peer| plan.awaited_from(id(*peer)).contains(slot())).map(only).sum();
    let confirmed = others().filter(|peer| plan.confirmed_by(id(*peer)).contains(slot())).map(only).sum();
    let ring = (1..=ALL).find(|ring| hash(*ring) == plan.ring()).unwrap_or(0);
    let in_sync = bits.is_in_sync(slot());
    Sync { ring, awaited, confirmed, owned: plan.owns(slot()), was_alone: plan.was_alone(), in_sync }
}
