//! Spans of gossip and of changes of members. The membership tells after the fact; a probe's span is open meanwhile.

use std::collections::HashMap;

use mesh_proto::{Event, MemberState, Monotonic, NodeId};
use tracing::{Span, field::Empty, info_span};

/// Those of the probes that are under way.
#[derive(Default)]
pub(crate) struct GossipSpans {
    round: Option<(Monotonic, Span)>,
    probes: HashMap<NodeId, Span>,
}

impl GossipSpans {
    /// The span that an event belongs to.
    pub(crate) fn of(&mut self, event: &Event) -> Span {
        match event {
            Event::ProbeSent { peer, began } => {
                let round = match self.round.take() {
                    Some((at, round)) if at == *began => round,
                    // The one before ends with the last of its probes.
                    _ => info_span!(parent: None, "gossip.round"),
                };
                let probe = info_span!(
                    parent: &round, "gossip.probe", otel.kind = "client", %peer, answer = Empty, otel.status_code = Empty
                );
                self.round = Some((*began, round));
                self.probes.insert(*peer, probe.clone());
                probe
            }
            Event::GossipRound { peer, rtt, indirect, .. } => {
                let Some(probe) = self.probes.remove(peer) else { return Span::none() };
                if self.probes.is_empty() {
                    // The round ends with this probe.
                    self.round = None;
                }
                match (rtt, indirect) {
                    (None, _) => probe.record("answer", "none").record("otel.status_code", "ERROR"),
                    (Some(_), true) => probe.record("answer", "indirect"),
                    (Some(_), false) => probe.record("answer", "direct"),
                };
                probe
            }
            Event::Member { peer, addr, from, to } => {
                let from = from.map_or("unknown", MemberState::name);
                match to {
                    MemberState::Alive => info_span!(parent: None, "member.alive", %peer, server.address = addr, from),
                    MemberState::Suspect => {
                        info_span!(parent: None, "member.suspect", %peer, server.address = addr, from)
                    }
                    MemberState::Dead => info_span!(parent: None, "member.dead", %peer, server.address = addr, from),
                    MemberState::Left => info_span!(parent: None, "member.left", %peer, server.address = addr, from),
                }
            }
            Event::Forgotten { peer } => {
                self.probes.remove(peer);
                Span::none()
            }
            _ => Span::none(),
        }
    }
}
