//! Defects to be planted on purpose, one at a time, so that the tests can prove that they would notice. They exist only with
//! the feature `mutants`, which no binary has; without it every question is answered "no" at compile time. What each is,
//! and what kills it, stands in `docs/MUTANTS.md`.

/// One defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// A read asks the next owner only after the one before has failed.
    SerialHedge = 1,
    /// A write counts its own node as an owner that has applied it, without applying it there.
    WriteSkipsSelf,
    /// An owner that holds a newer version says "applied".
    StaleWriteAcked,
    /// A repaired record replaces whatever is there.
    RepairUnchecked,
    /// A record that moves gets a new version.
    VersionChangedByMove,
    /// Digests and lists of versions leave tombstones out.
    DigestsWithoutTombstones,
    /// A node leaves itself out of its ring.
    SelfMissing,
    /// Repair takes records for which there is no room.
    ImportPastCapacity,
    /// The ring multiplies hash and weight.
    HashTimesWeight,
    /// A node that is not in sync says "absent".
    MissWhenEmpty,
    /// A leg that fails, and leaves a hint, counts as an acknowledgement.
    HintIsAck,
    /// Versions from the far future are taken.
    DriftAccepted,
    /// A write is acknowledged by one owner less than WRITE_CONCERN.
    AckTooEarly,
    /// One owner's answer makes a quorum.
    QuorumOfOne,
    /// A session's read takes whatever comes first.
    SessionForgets,
    /// A deletion removes and leaves no tombstone.
    NoTombstone,
    /// A write forgets that its value is to expire.
    ExpiryForgotten,
    /// Replicas are never compared in the background.
    NeverCompared,
    /// A node that was thought dead does not compare what it holds.
    DeathForgotten,
    /// An owner that is not in sync confirms the order of writes.
    UnconfirmedCounts,
    /// A node enters the ring before it has caught up.
    EntersEmpty,
    /// A node that has entered the ring believes what it compared before.
    EnteredAndTrusted,
    /// A node that leaves goes at once.
    LeavesAtOnce,
    /// The last member of the ring leaves although nobody is there to hand over to.
    LastLeaves,
    /// A member that is alone in the ring takes over nothing from those that leave.
    AloneTakesNothing,
    /// Who is to be in sync does not ask those that are leaving.
    LeaversUnasked,
    /// Newcomers that know only each other take each other's word for what the mesh holds.
    NewcomersSuffice,
    /// A node that starts enters the ring although writes may be under way that a process before it has answered.
    ReturnsInHaste,
    /// Of the addresses that a seed's name stands for only the first is asked.
    FirstAddressOnly,
    /// A node that nobody can reach enters the ring.
    UnreachableCounts,
    /// Nodes of another mesh are let in.
    MeshesMerge,
    /// The dead are not looked for if a seed never came.
    DeadUnsought,
    /// A member that is being connected to for the first time is suspected for its silence.
    DialledAreAccused,
    /// Those that are about to own a slot get a write before its owners have acknowledged it.
    JoinersFirst,
    /// Nodes that connect for the first time do not tell each other whom they know.
    FirstContactIsSilent,
    /// A worker keeps its connection to a peer that upkeep has found to be silent.
    SilenceUnnoticed,
    /// A node dials all its peers at the same time, however many they are.
    DialsUnrationed,
    /// Members that are gone are forgotten at once.
    ForgottenTooEarly,
    /// Rounds of gossip are no longer while many members come at once.
    ArrivalsCostNothing,
    /// Who answers later than a round takes is suspected for ever.
    RoundsNeverStretch,
    /// A node forgets the slots that it no longer owns before their owners have them.
    ForgetsTooEarly,
    /// A new owner asks only the slot's other owners for what it lacks.
    AsksOwnersOnly,
    /// An owner serves callers that see another ring.
    RingUnchecked,
    /// Tombstones are collected by age alone.
    CollectsUnconfirmed,
    /// An owner that holds something newer counts as an acknowledgement in round 1 of a write, too.
    StaleCountsInRoundOne,
    /// Round 2 of a write begins after one answer less than it takes.
    FewerAnswersThanNeeded,
    /// An owner that is not in sync counts as one that knows what was acknowledged before.
    StaleOutOfSyncCounts,
    /// A write that another one carries is acknowledged, though that one was not.
    CarriedRegardless,
    /// An owner takes back from the others what it has evicted.
    EvictedComesBack,
    /// Slots that differ by what was evicted are compared for ever.
    ComparesForEver,
    /// An owner that has evicted a key speaks for those that have not.
    EvictorsSuffice,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 51] = [
        Self::SerialHedge,
        Self::WriteSkipsSelf,
        Self::StaleWriteAcked,
        Self::RepairUnchecked,
        Self::VersionChangedByMove,
        Self::DigestsWithoutTombstones,
        Self::SelfMissing,
        Self::ImportPastCapacity,
        Self::HashTimesWeight,
        Self::MissWhenEmpty,
        Self::HintIsAck,
        Self::DriftAccepted,
        Self::AckTooEarly,
        Self::QuorumOfOne,
        Self::SessionForgets,
        Self::NoTombstone,
        Self::ExpiryForgotten,
        Self::NeverCompared,
        Self::DeathForgotten,
        Self::UnconfirmedCounts,
        Self::EntersEmpty,
        Self::EnteredAndTrusted,
        Self::LeavesAtOnce,
        Self::LastLeaves,
        Self::AloneTakesNothing,
        Self::LeaversUnasked,
        Self::NewcomersSuffice,
        Self::ReturnsInHaste,
        Self::FirstAddressOnly,
        Self::UnreachableCounts,
        Self::MeshesMerge,
        Self::DeadUnsought,
        Self::DialledAreAccused,
        Self::JoinersFirst,
        Self::FirstContactIsSilent,
        Self::SilenceUnnoticed,
        Self::DialsUnrationed,
        Self::ForgottenTooEarly,
        Self::RoundsNeverStretch,
        Self::ArrivalsCostNothing,
        Self::ForgetsTooEarly,
        Self::AsksOwnersOnly,
        Self::RingUnchecked,
        Self::CollectsUnconfirmed,
        Self::StaleCountsInRoundOne,
        Self::FewerAnswersThanNeeded,
        Self::StaleOutOfSyncCounts,
        Self::CarriedRegardless,
        Self::EvictedComesBack,
        Self::ComparesForEver,
        Self::EvictorsSuffice,
    ];

    /// Whether this defect is planted in this process.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Whether this defect is planted in this process.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn is_planted(self) -> bool {
        // Relaxed: it is set once, before anything starts.
        PLANTED.load(std::sync::atomic::Ordering::Relaxed) == self as u8
    }

    /// The one of this name.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }

    /// Plants it, and no other, in this process.
    #[cfg(feature = "mutants")]
    pub fn plant(self) {
        PLANTED.store(self as u8, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Zero for none.
#[cfg(feature = "mutants")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
