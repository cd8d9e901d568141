use crate::state::State;
use std::collections::{HashSet, VecDeque};
pub fn run(first: State, max: usize) {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([first]);
    seen.insert(first);
    while let Some(state) = queue.pop_front() {
        if seen.len() > max {
            break;
        }
        let mut actions = Vec::new();
        state.actions(&mut actions);
        for a in actions {
            let n = state.after(a).representative();
            if seen.insert(n) {
                queue.push_back(n);
            }
        }
    }
    println!("states {} left {}", seen.len(), queue.len());
    macro_rules! distinct {
        ($name:expr, $f:expr) => {
            println!("{} {}", $name, seen.iter().map($f).collect::<HashSet<_>>().len());
        };
    }
    distinct!("views", |s: &State| s.nodes.map(|n| n.view));
    distinct!("incs", |s: &State| s.nodes.map(|n| n.view.claims.map(|c| c.incarnation)));
    distinct!("ring", |s: &State| s.nodes.map(|n| (n.ring, n.joining, n.is_joining)));
    distinct!("sync", |s: &State| s.nodes.map(|n| n.sync));
    distinct!("comp", |s: &State| s.nodes.map(|n| n.comparisons));
    distinct!("farewells", |s: &State| s.nodes.map(|n| n.taken));
    distinct!("drain", |s: &State| s.nodes.map(|n| (n.drain_ring, n.drained)));
    distinct!("links", |s: &State| s.nodes.map(|n| n.links));
    distinct!("life/held", |s: &State| s.nodes.map(|n| (n.life, n.held)));
    distinct!("no views", |s: &State| {
        let mut s = *s;
        for n in &mut s.nodes {
            n.view = Default::default();
        }
        s
    });
    distinct!("no comp", |s: &State| {
        let mut s = *s;
        for n in &mut s.nodes {
            n.comparisons = Default::default();
        }
        s
    });
    distinct!("no farewells", |s: &State| {
        let mut s = *s;
        for n in &mut s.nodes {
            n.taken = Default::default();
            n.drained = 0;
            n.drain_ring = 0;
        }
        s
    });
    println!(
        "max inc {:?}",
        seen.iter().flat_map(|s| s.nodes).flat_map(|n| n.view.claims).map(|c| c.incarnation).max()
    );
}
