//! What holds for any claims and any sequence of inputs.

use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = MemberState> {
    prop_oneof![Just(MemberState::Alive), Just(MemberState::Suspect), Just(MemberState::Dead), Just(MemberState::Left)]
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::Joining), Just(Stage::Normal), Just(Stage::Leaving)]
}

prop_compose! {
    fn any_claim()(id in 0u64..4, incarnation in 0u64..4, state in state(), weight in 1u8..=2, addr in 0u8..2,
        stage in stage()) -> Member {
        Member {
            addr: format!("node{id}:{addr}"),
            weight: Weight::new(weight).unwrap(),
            stage,
            ..claim(id, incarnation, state)
        }
    }
}

proptest! {
    #[test]
    fn merging_is_a_join_of_a_semilattice(
        (claims, shuffled) in prop::collection::vec(any_claim(), 0..24)
            .prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
        split in any::<prop::sample::Index>(),
    ) {
        let (head, tail) = shuffled.split_at(split.index(shuffled.len() + 1));
        let at_once = with(&claims);
        let mut in_parts = with(head);
        in_parts.handle_message(at(0), NodeId::new(77), message(77, GossipBody::Updates, tail));
        in_parts.handle_members(at(0), head);
        prop_assert_eq!(at_once.members(), in_parts.members());
        let mut again = with(&at_once.members());
        again.handle_members(at(0), &claims);
        prop_assert_eq!(at_once.members(), again.members());
    }

    #[test]
    fn no_sequence_of_inputs_breaks_it(
        inputs in prop::collection::vec((0u64..5, prop::collection::vec(any_claim(), 0..4), 0u64..4000, 0u8..6), 0..60),
    ) {
        let mut machine = machine(&["node0:0", "node1:1", "elsewhere:1"]);
        let mut ring = rings(&machine);
        let mut ms = 0;
        for (from, mut claims, pause_ms, kind) in inputs {
            ms += pause_ms;
            claims.push(claim(ME, pause_ms % 30, MemberState::Dead));
            let (seq, peer) = (pause_ms as u32, NodeId::new(from));
            let body = match kind {
                0 => GossipBody::Ping { seq },
                1 => GossipBody::Ack { seq, subject: peer },
                2 => GossipBody::PingRequest { seq, target: NodeId::new(pause_ms % 5) },
                _ => GossipBody::Updates,
            };
            machine.handle_message(at(ms), peer, message(from, body, &claims));
            let outputs = drain(&mut machine, ms);
            let announced = outputs.contains(&MembershipOutput::RingChanged);
            for output in outputs {
                if let MembershipOutput::Send { message, .. } = output {
                    prop_assert_eq!(GossipMessage::decode(&message.encode()), Some(message), "all of it fits");
                }
            }
            let before = std::mem::replace(&mut ring, rings(&machine));
            prop_assert_eq!(before != ring, announced, "the ring changes exactly when it says so");
            prop_assert!(ring[0].iter().any(|(id, _)| *id == NodeId::new(ME)), "always in its own ring");
            prop_assert!(machine.next_deadline() > at(ms));
        }
    }
}
