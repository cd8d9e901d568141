//! The search through all states.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    action::Action,
    bounds::Bounds,
    state::{ALL, Broken, Claim, FIRST, Life, NODES, Node, State, Status, View, only},
    sync,
};

pub struct Mesh {
    pub bounds: Bounds,
}

impl Mesh {
    fn first(&self) -> State {
        let held = if self.bounds.first { FIRST } else { 0 };
        let claims = [Claim { status: Status::Normal, incarnation: 1 }; NODES];
        let node = |at: usize| Node {
            life: Life::Up,
            is_established: true,
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

pub fn from_environment() {
    let get = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u8>().ok()).unwrap_or(0);
    let bounds = Bounds {
        crashes: get("CRASHES"),
        leaves: get("LEAVES"),
        returns: get("RETURNS"),
        cuts: get("CUTS"),
        writes: get("WRITES"),
        attempts: get("ATTEMPTS").max(1),
        reads: get("READS"),
        first: get("FIRST") > 0,
        impatient: get("IMPATIENT") > 0,
        cut_short: get("CUT_SHORT") > 0,
        high_start: get("HIGH") > 0,
        established: get("MEND_NEW") > 0,
        late_answers: get("LATE") > 0,
        old_answers: get("OLD") > 0,
    };
    println!("{bounds:?} {}", std::mem::size_of::<State>());
    if get("DIAG") > 0 {
        return crate::diag::run(Mesh { bounds }.first(), usize::from(get("DIAG")) * 100_000);
    }
    let started = Instant::now();
    let model = Mesh { bounds };
    let builder = model
        .checker()
        .finish_when(HasDiscoveries::Any)
        .target_state_count(1_000_000 * usize::from(get("MILLIONS").max(1)))
        .threads(1.max(get("THREADS").into()))
        .timeout(std::time::Duration::from_secs(u64::from(get("MINUTES").max(1)) * 60));
    let checker = builder.spawn_bfs().join();
    println!(
        "{} states, {} generated, depth {}, done {}, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        checker.is_done(),
        started.elapsed()
    );
    if get("SHOW") > 0 {
        let mut dice = 12345_usize;
        let model = checker.model();
        let mut state = model.first();
        for _ in 0..200 {
            let mut actions = Vec::new();
            state.actions(&mut actions);
            if actions.is_empty() {
                break;
            }
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let action = actions[(dice >> 33) % actions.len()];
            let next = state.after(action);
            if next != state {
                println!("{action:?} of {}", actions.len());
            }
            state = next;
        }
        for node in &state.nodes {
            println!("{node:?}");
        }
    }
    for (name, path) in checker.discoveries() {
        println!("--- {name}");
        tell(&path.into_vec());
    }
}

/// Replays a path with nodes that keep their names.
fn tell(path: &[(State, Option<Action>)]) {
    let mut state = path[0].0;
    for step in path.windows(2) {
        let wanted = step[1].0;
        let mut actions = Vec::new();
        state.actions(&mut actions);
        let Some(action) = actions.into_iter().find(|action| state.after(*action).representative() == wanted) else {
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
