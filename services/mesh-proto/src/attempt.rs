//! What the attempts of reads and of writes have in common: why a leg fails, and the pause between attempts.

use std::time::Duration;

use crate::LegOutcome;

/// The pause before a third attempt, and each one after it, at a read or a write.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Why a leg brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegFailure {
    /// There was no connection, or the peer's queue was full: the request was certainly not sent.
    NotSent,
    /// The connection broke after the request was sent: whether it was applied is unknown.
    Disconnected,
    /// No answer in time: whether it was applied is unknown.
    TimedOut,
}

impl LegFailure {
    /// As the flight record shows it.
    pub(crate) const fn outcome(self) -> LegOutcome {
        match self {
            Self::TimedOut => LegOutcome::TimedOut,
            Self::NotSent | Self::Disconnected => LegOutcome::Failed,
        }
    }
}
