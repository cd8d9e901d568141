//! What nodes say to each other about each other, small enough for one datagram. Datagrams come from the network, so
//! decoding trusts nothing: not the length, not a number's range.

use postcard::ser_flavors::Size;
use serde::{Deserialize, Serialize};

use crate::{Incarnation, MemberState, NodeId, Stage, Weight};

/// One claim about one member; the newest wins (by incarnation, then by the graver state).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberUpdate {
    /// Whom the claim is about.
    pub id: NodeId,
    /// Where it is reached, `host:port` over UDP.
    pub addr: String,
    /// Which claim this is.
    pub incarnation: Incarnation,
    /// The share of the ring it asks for.
    pub weight: Weight,
    /// What is claimed.
    pub state: MemberState,
    /// Where it stands between its start and its stop.
    pub stage: Stage,
}

impl MemberUpdate {
    /// A longer address is refused: two claims always fit a datagram.
    pub const ADDR_BYTES_MAX: usize = 255;

    /// A higher incarnation is refused, because nothing could be told to override the highest number there is.
    pub const INCARNATION_MAX: Incarnation = Incarnation::new(u64::MAX / 2);

    /// Whether the numbers are ones that an honest node may send. Serde alone does not check a [`Weight`]'s range.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.addr.len() <= Self::ADDR_BYTES_MAX
            && self.incarnation <= Self::INCARNATION_MAX
            && Weight::new(self.weight.get()).is_some()
    }

    /// Whether this claim replaces `held` (SWIM, section 4.2). The order is total: claims that differ only in weight or
    /// address, as after a restart that drew the same incarnation, are decided too, so that merging commutes.
    #[must_use]
    pub fn supersedes(&self, held: &Self) -> bool {
        let rank = |claim: &Self| (claim.incarnation, claim.state, claim.weight, claim.stage);
        (rank(self), &self.addr) > (rank(held), &held.addr)
    }

    /// An upper bound of what this claim takes in a datagram: two full varints, a length, weight, state and stage.
    #[must_use]
    pub(crate) const fn encoded_bytes_max(&self) -> usize {
        10 + 2 + self.addr.len() + 10 + 1 + 1 + 1
    }
}

/// One datagram of the SWIM protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipMessage {
    /// Who sent it.
    pub from: NodeId,
    /// What it asks or answers.
    pub body: GossipBody,
    /// Piggy-backed claims, most urgent first.
    pub updates: Vec<MemberUpdate>,
}

/// The kinds of probe messages (SWIM, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GossipBody {
    /// Are you there?
    Ping {
        /// Echoed in the answer.
        seq: u32,
    },
    /// I am, in answer to a `Ping`, or `subject` is, in answer to a `PingRequest`.
    Ack {
        /// From the `Ping` or `PingRequest`.
        seq: u32,
        /// Who was reached.
        subject: NodeId,
    },
    /// Please ping `target` for me.
    PingRequest {
        /// Echoed in the answer.
        seq: u32,
        /// Whom to ping.
        target: NodeId,
    },
    /// Nothing but the updates.
    Updates,
}

impl GossipMessage {
    /// A message never encodes to more than this many bytes, so that it fits a datagram on any path.
    pub const BYTES_MAX: usize = 1100;

    /// An upper bound of everything but the updates: the sender, the body with a number and an id, the count.
    pub(crate) const HEADER_BYTES_MAX: usize = 10 + (1 + 5 + 10) + 3;

    /// Encodes with postcard, dropping the last updates if they do not fit in [`Self::BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut room = Self::BYTES_MAX - Self::HEADER_BYTES_MAX;
        let mut count = 0;
        for update in &self.updates {
            let bytes = postcard::serialize_with_flavor(update, Size::default()).unwrap_or(usize::MAX);
            if bytes > room {
                break;
            }
            room -= bytes;
            count += 1;
        }
        let message = Borrowed { from: self.from, body: self.body, updates: &self.updates[..count] };
        // Serialising plain data into a growing buffer cannot fail; no bytes would decode to nothing.
        postcard::to_allocvec(&message).unwrap_or_default()
    }

    /// Decodes; any malformed, oversized or trailing input is nothing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Self::BYTES_MAX {
            return None;
        }
        let (message, trailing) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (trailing.is_empty() && message.updates.iter().all(MemberUpdate::is_well_formed)).then_some(message)
    }
}

/// A [`GossipMessage`] with fewer updates; field for field the same encoding.
#[derive(Serialize)]
struct Borrowed<'a> {
    from: NodeId,
    body: GossipBody,
    updates: &'a [MemberUpdate],
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    fn update() -> impl Strategy<Value = MemberUpdate> {
        let state = prop_oneof![
            Just(MemberState::Alive),
            Just(MemberState::Suspect),
            Just(MemberState::Dead),
            Just(MemberState::Left)
        ];
        (any::<u64>(), "[a-z0-9.:]{0,255}", 0..=u64::MAX / 2, 1u8..=16, state, stage()).prop_map(
            |(id, addr, incarnation, weight, state, stage)| MemberUpdate {
                id: NodeId::new(id),
                addr,
                incarnation: Incarnation::new(incarnation),
                weight: Weight::new(weight).unwrap(),
                state,
                stage,
            },
        )
    }

    fn stage() -> impl Strategy<Value = Stage> {
        prop_oneof![Just(Stage::Joining), Just(Stage::Normal), Just(Stage::Leaving)]
    }

    fn body() -> impl Strategy<Value = GossipBody> {
        prop_oneof![
            any::<u32>().prop_map(|seq| GossipBody::Ping { seq }),
            (any::<u32>(), any::<u64>()).prop_map(|(seq, id)| GossipBody::Ack { seq, subject: NodeId::new(id) }),
            (any::<u32>(), any::<u64>()).prop_map(|(seq, id)| GossipBody::PingRequest { seq, target: NodeId::new(id) }),
            Just(GossipBody::Updates),
        ]
    }

    fn message(updates: usize) -> impl Strategy<Value = GossipMessage> {
        (any::<u64>(), body(), prop::collection::vec(update(), 0..=updates))
            .prop_map(|(from, body, updates)| GossipMessage { from: NodeId::new(from), body, updates })
    }

    fn small() -> MemberUpdate {
        MemberUpdate {
            id: NodeId::new(7),
            addr: "a:1".to_owned(),
            incarnation: Incarnation::new(3),
            weight: Weight::MIN,
            state: MemberState::Alive,
            stage: Stage::Normal,
        }
    }

    fn with(update: MemberUpdate) -> GossipMessage {
        GossipMessage { from: NodeId::new(1), body: GossipBody::Updates, updates: vec![update] }
    }

    proptest! {
        #[test]
        fn what_fits_comes_back_whole(sent in message(3)) {
            let bytes = sent.encode();
            prop_assert!(bytes.len() <= GossipMessage::BYTES_MAX);
            prop_assert_eq!(GossipMessage::decode(&bytes), Some(sent));
        }

        #[test]
        fn what_does_not_fit_loses_its_tail_only(sent in message(40)) {
            let bytes = sent.encode();
            prop_assert!(bytes.len() <= GossipMessage::BYTES_MAX);
            let got = GossipMessage::decode(&bytes).unwrap();
            prop_assert_eq!(&got.updates[..], &sent.updates[..got.updates.len()]);
            prop_assert!(got.updates.len() >= sent.updates.len().min(2), "two claims always fit");
        }

        #[test]
        fn random_bytes_never_panic_and_are_never_ill_formed(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
            if let Some(message) = GossipMessage::decode(&bytes) {
                prop_assert!(message.updates.iter().all(MemberUpdate::is_well_formed));
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(sent in message(3), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = sent.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Some(message) = GossipMessage::decode(&bytes) {
                prop_assert!(message.updates.iter().all(MemberUpdate::is_well_formed));
            }
        }

        #[test]
        fn the_bounds_on_sizes_hold(update in update()) {
            let bytes = postcard::to_allocvec(&update).unwrap().len();
            prop_assert!(bytes <= update.encoded_bytes_max());
        }

        #[test]
        fn every_truncation_and_every_trailing_byte_is_refused(sent in message(3)) {
            let mut bytes = sent.encode();
            for end in 0..bytes.len() {
                prop_assert_eq!(GossipMessage::decode(&bytes[..end]), None);
            }
            bytes.push(0);
            prop_assert_eq!(GossipMessage::decode(&bytes), None);
        }
    }

    #[test]
    fn an_oversized_datagram_is_refused_even_if_it_would_parse() {
        let long = GossipMessage { updates: vec![small(); 200], ..with(small()) };
        let bytes = postcard::to_allocvec(&long).unwrap();
        assert!(bytes.len() > GossipMessage::BYTES_MAX);
        assert_eq!(GossipMessage::decode(&bytes), None);
    }

    #[test]
    fn an_address_of_256_bytes_is_refused_and_one_of_255_is_not() {
        for (length, decodes) in [(255, true), (256, false)] {
            let sent = with(MemberUpdate { addr: "x".repeat(length), ..small() });
            let bytes = postcard::to_allocvec(&sent).unwrap();
            assert_eq!(GossipMessage::decode(&bytes).is_some(), decodes, "{length}");
        }
    }

    #[test]
    fn a_weight_outside_1_to_16_is_refused() {
        let bytes = with(small()).encode();
        let at = bytes.len() - 3; // weight, state and whether it is joining are the last three bytes
        for raw in 0..=255 {
            let mut bytes = bytes.clone();
            bytes[at] = raw;
            assert_eq!(GossipMessage::decode(&bytes).is_some(), (1..=16).contains(&raw), "{raw}");
        }
    }

    #[test]
    fn an_incarnation_that_cannot_be_overridden_is_refused() {
        let sent = with(MemberUpdate { incarnation: Incarnation::new(u64::MAX), ..small() });
        assert_eq!(GossipMessage::decode(&sent.encode()), None);
    }

    #[test]
    fn the_higher_incarnation_then_the_graver_state_supersedes() {
        let claim = |incarnation, state| MemberUpdate { incarnation: Incarnation::new(incarnation), state, ..small() };
        let ascending = [
            claim(1, MemberState::Alive),
            claim(1, MemberState::Suspect),
            claim(1, MemberState::Dead),
            claim(1, MemberState::Left),
            claim(2, MemberState::Alive),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(a.supersedes(b), i > j, "{a:?} over {b:?}");
            }
        }
    }
}
