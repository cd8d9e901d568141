//! The parts of a run that are measured apart, because a mean over all of them describes none.

use std::sync::atomic::{AtomicU8, Ordering};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

/// A part of a run.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Caches and connections are still cold (WARMUP).
    Warm,
    /// Nothing is broken.
    Steady,
    /// From the start of a fault until the mesh has recovered from it.
    InFault,
    /// After that.
    Recovered,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Warm, Self::Steady, Self::InFault, Self::Recovered];

    /// Its place in tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Steady => "steady",
            Self::InFault => "in fault",
            Self::Recovered => "recovered",
        }
    }
}

/// The phase now, read by every worker for every operation.
#[derive(Debug)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// Starts in `phase`.
    #[must_use]
    pub const fn new(phase: Phase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    /// The phase now.
    #[must_use]
    pub fn get(&self) -> Phase {
        // Relaxed: the phase labels measurements and publishes no other memory.
        Phase::ALL[usize::from(self.0.load(Ordering::Relaxed)) % Phase::ALL.len()]
    }

    /// Moves on.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}
