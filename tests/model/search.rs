//! The search through all states.

use std::{fmt::Debug, hash::Hash, time::Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    action::Action,
    bounds::Bounds,
    state::{ALL, Broken, Claim, FIRST, Life, NODES, Node, State, Status, View, only},
    sync,
};

#[derive(Debug)]
pub struct Mesh {
    pub bounds: Bounds,
}

impl Mesh {
    fn first(&self) -> State {
        let held = if self.bounds.first { FIRST } else { 0 };
        let claims = [Claim { status: Status::Normal, incarnation: 1 }; NODES];
        let node = |at: usize| Node {
            life: Life::Up,
            view: View { claims, gone_after: 1 },
            ring: ALL,
            sync: sync::at_first(at),
            held,
            links: ALL & !only(at),
            ..Node::default()
        };
        State { nodes: std::array::from_fn(node), acknowledged: held, left: self.bounds, ..State::default() }
    }
}

impl Model for Mesh {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = state.after(action).representative();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a quorum read sees what was acknowledged before", |_, state: &State| {
                state.broken != Broken::Read && (state.lapsed || !state.misses_now())
            }),
            Property::always("versions rise", |_, state: &State| state.broken != Broken::Order),
        ]
    }
}

/// What a search has found.
pub struct Searched {
    /// Whether all states within the bounds were visited.
    pub is_exhausted: bool,
    /// The promises that some history breaks.
    pub broken: Vec<&'static str>,
}

impl Searched {
    /// All states were visited, and no promise is broken in any of them.
    pub fn assert_holds(&self) {
        assert!(self.is_exhausted && self.broken.is_empty(), "{:?}", self.broken);
    }
}

/// A model whose histories can be printed.
pub trait Printed: Model {
    fn print(path: &[(Self::State, Option<Self::Action>)]);
}

/// Visits every state, breadth first, until a promise is broken; prints how many there were, and the shortest history that
/// breaks it.
pub fn search<M>(model: M) -> Searched
where
    M: Printed + Debug + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let (name, started) = (format!("{model:?}"), Instant::now());
    let checker = model.checker().finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), started.elapsed());
    println!("{name}: {states} states, {depth} steps, {:.1} s", took.as_secs_f64());
    let discoveries = checker.discoveries();
    let broken = discoveries.keys().copied().collect();
    for (name, path) in discoveries {
        println!("broken: {name}");
        M::print(&path.into_vec());
    }
    Searched { is_exhausted: checker.is_done(), broken }
}

impl Printed for Mesh {
    /// Replays a path with nodes that keep their names.
    fn print(path: &[(State, Option<Action>)]) {
        let mut state = path[0].0;
        for step in path.windows(2) {
            let wanted = step[1].0;
            let mut actions = Vec::new();
            state.actions(&mut actions);
            let Some(action) = actions.into_iter().find(|action| state.after(*action).representative() == wanted)
            else {
                println!("??? {:?}", step[0].1);
                return;
            };
            state = state.after(action);
            let seen = state.nodes.map(|node| (node.life, node.ring, node.sync.in_sync, node.held, node.links));
            println!("{action:?}    {} {seen:?}", state.misses_now());
        }
        for (at, node) in state.nodes.iter().enumerate() {
            println!("  {at}: {node:?}");
        }
        println!(
            "  writes {:?} acknowledged {} cut {} failed {}",
            state.writes, state.acknowledged, state.cut, state.failed
        );
    }
}
