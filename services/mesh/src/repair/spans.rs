//! Spans of repair: each is a trace of its own.

use mesh_proto::{Event, NodeId};
use tracing::{Span, field::Empty, info_span};

use crate::core::Core;

/// A comparison with a peer.
pub(crate) fn repair(peer: NodeId) -> Span {
    info_span!(parent: None, "repair.round", %peer, slots = Empty, keys = Empty)
}

/// The comparison whose span this is in has ended with this event.
pub(crate) fn repaired(core: &Core, event: &Event) {
    if let Event::Repair { slots, keys, .. } = event {
        Span::current().record("slots", slots).record("keys", keys);
    }
    core.observer.event(event);
}

/// What a peer has missed is sent to it.
pub(crate) fn replay(peer: NodeId) -> Span {
    info_span!(parent: None, "hints.replay", %peer, hints = Empty)
}

/// This node leaves.
pub(crate) fn handover() -> Span {
    info_span!("handover")
}
