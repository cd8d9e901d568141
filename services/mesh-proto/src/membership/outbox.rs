//! What the driver has yet to be told. Bounded: what gossip loses it repeats, but a changed ring or a refutation is
//! never dropped.

use std::collections::VecDeque;

use super::MembershipOutput;

/// Enough for a message and an event about each of the most members there can be.
const QUEUED_MAX: usize = 4096;

/// Outputs in the order they are to be acted on.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<MembershipOutput>,
    ring_changed: bool,
    refuted: bool,
}

impl Outbox {
    pub(super) fn push(&mut self, output: MembershipOutput) {
        match output {
            MembershipOutput::RingChanged => self.ring_changed = true,
            MembershipOutput::Refuted => self.refuted = true,
            other if self.queue.len() < QUEUED_MAX => self.queue.push_back(other),
            _ => {}
        }
    }

    /// The ring comes first: whatever else is done is better done with the new one.
    pub(super) fn pop(&mut self) -> Option<MembershipOutput> {
        if std::mem::take(&mut self.ring_changed) {
            return Some(MembershipOutput::RingChanged);
        }
        if std::mem::take(&mut self.refuted) {
            return Some(MembershipOutput::Refuted);
        }
        self.queue.pop_front()
    }
}
