//! What may happen, and how often.

/// The bounds of one run of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bounds {
    /// Processes that are killed.
    pub crashes: u8,
    /// Processes that are told to stop.
    pub leaves: u8,
    /// Empty processes that are started where there was one.
    pub returns: u8,
    /// Nodes that are cut off from the others; each cut heals at any time.
    pub cuts: u8,
    /// Writes, at most two.
    pub writes: u8,
    /// How often one write is sent at most.
    pub attempts: u8,
    /// Quorum reads whose answers are given one after the other.
    pub reads: u8,
    /// Whether everybody holds an acknowledged write at first.
    pub first: bool,
    /// Whether half of DRAIN_TIMEOUT_MS may pass before a node that was told to stop has had its turn: one other is then enough.
    pub impatient: bool,
    /// Whether all of it may pass before all is handed over. A node that leaves then has failed.
    pub cut_short: bool,
    /// Whether newcomers alone are never in sync.
    pub established: bool,
    /// Whether something may happen between a peer's answer to a comparison and what is made of it.
    pub late_answers: bool,
    /// Whether what was answered and taken over under one ring is remembered while there is another, until there is that one again.
    pub old_answers: bool,
    /// Whether a new process may have a higher incarnation than the one before, and not only the lowest.
    pub high_start: bool,
}

impl Bounds {
    /// Nothing happens.
    pub const NONE: Self = Self {
        crashes: 0,
        leaves: 0,
        returns: 0,
        cuts: 0,
        writes: 0,
        attempts: 0,
        reads: 0,
        first: false,
        impatient: false,
        cut_short: false,
        established: false,
        late_answers: false,
        old_answers: false,
        high_start: false,
    };
}
