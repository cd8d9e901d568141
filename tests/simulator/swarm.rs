//! Swarm testing (Groce et al., "Swarm Testing", 2012): each seed leaves out a random part of what may happen, so that what is left
//! happens often, and rare pairs meet.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::{changes::Change, plan::Fault, seeds::Seed};

/// In how many seeds something is left out.
const SHARE: f64 = 0.8;

/// What a seed leaves out.
#[derive(Clone, Debug)]
pub struct Swarm {
    left_out: Vec<&'static str>,
    /// How many times as many changes are drawn, since some will not do.
    pub tries: usize,
    /// How often nothing fails beside changes.
    pub quiet_share: f64,
}

impl Swarm {
    /// That of a seed. The first version of the generator left out nothing.
    pub fn of(seed: Seed) -> Self {
        let mut swarm = Self { left_out: Vec::new(), tries: 1, quiet_share: 0.5 };
        if seed.generation > 1 {
            let mut dice = SmallRng::seed_from_u64(seed.number ^ 0x5a43);
            let kinds = Fault::KINDS.iter().chain(Change::KINDS).copied();
            let share = if dice.random_bool(SHARE) { *[0.3, 0.5, 0.7].choose(&mut dice).unwrap_or(&0.5) } else { 0.0 };
            swarm.left_out = kinds.filter(|_| dice.random_bool(share)).collect();
            (swarm.tries, swarm.quiet_share) = (4, 0.25);
        }
        swarm
    }

    /// Whether something of this name may happen.
    pub fn allows(&self, name: &str) -> bool {
        !self.left_out.contains(&name)
    }

    /// What was drawn, or was drawn again until it may happen.
    pub fn draw<T>(&self, name: impl Fn(&T) -> &'static str, mut draw: impl FnMut() -> T) -> Option<T> {
        (0..4 * self.tries).map(|_| draw()).find(|drawn| self.allows(name(drawn)))
    }
}
