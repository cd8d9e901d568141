//! What can be believed about a member. The order of the variants decides between two claims of one incarnation, so it stands
//! for itself.

use serde::{Deserialize, Serialize};

/// What is believed about a member. Within one incarnation a later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It has not answered lately; still in the ring.
    Suspect,
    /// It has not refuted the suspicion in time; not in the ring, but probed for ever.
    Dead,
    /// It said good-bye; not in the ring.
    Left,
}

impl MemberState {
    /// Whether a member in this state is in the ring.
    #[must_use]
    pub const fn in_ring(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}
