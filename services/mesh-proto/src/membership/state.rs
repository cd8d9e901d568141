//! What can be believed about a member, and where it stands between its start and its stop. The order of the variants decides
//! between two claims of one incarnation.

use serde::{Deserialize, Serialize};

/// What is believed about a member. Within one incarnation a later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It has not answered lately; it still counts as present.
    Suspect,
    /// It has not refuted the suspicion in time; probed for ever.
    Dead,
    /// It has stopped gracefully, after it handed over what it held.
    Left,
}

impl MemberState {
    /// Whether a process in this state is believed to be there.
    #[must_use]
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// As metrics, logs and traces call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

/// Where a member that is present stands. It alone says so, each time with a higher incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// It catches up before it enters the ring: nobody has to do without an owner that knows all.
    Joining,
    /// It is in the ring, and has not been in sync yet: what it has shows nobody what the mesh holds.
    Syncing,
    /// It is in the ring, and has been in sync.
    Normal,
    /// It has left the ring, and stays until others hold all that it holds.
    Leaving,
}

impl Stage {
    /// Whether a member in this stage is in the ring.
    #[must_use]
    pub const fn is_in_ring(self) -> bool {
        matches!(self, Self::Syncing | Self::Normal)
    }
}
