//! Every order of every answer of three legs, in both rounds, against the rules read off the list of what has happened, and
//! against the proof.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::{ReplicationFactor, WriteConcern};

const NOW: Monotonic = Monotonic::new(Duration::ZERO);

#[derive(Clone, Debug)]
enum Input {
    Answer(WriteAnswer),
    Failure(LegFailure),
}

fn inputs() -> Vec<Input> {
    vec![
        Input::Answer(WriteAnswer::Applied),
        Input::Answer(WriteAnswer::AppliedUnconfirmed),
        Input::Answer(WriteAnswer::Stale { newer: Version::new(7), in_sync: true }),
        Input::Answer(WriteAnswer::Stale { newer: Version::new(8), in_sync: false }),
        Input::Answer(WriteAnswer::Collected { newer: Version::new(9) }),
        Input::Answer(WriteAnswer::Drift { ahead_ms: 900 }),
        Input::Answer(WriteAnswer::TooLarge),
        Input::Answer(WriteAnswer::WrongRing(Vec::new())),
        Input::Failure(LegFailure::NotSent),
        Input::Failure(LegFailure::Disconnected),
        Input::Failure(LegFailure::TimedOut),
    ]
}

fn write_of(round: Round, (replicas, concern): (u64, u64), owners: usize) -> Write {
    let replicas = ReplicationFactor::new(replicas).unwrap();
    let concern = WriteConcern::new(concern, replicas).unwrap();
    let config = WriteConfig { round, concern, confirmations: concern.confirmations_needed(replicas) };
    let owners: Vec<NodeId> = (0..owners as u64).map(NodeId::new).collect();
    Write::new(config, &owners, NOW, NOW)
}

fn write(concern: u64, owners: usize) -> Write {
    write_of(Round::First, (3, concern), owners)
}

fn feed(write: &mut Write, leg: usize, input: &Input) {
    match input {
        Input::Answer(answer) => write.handle_answer(NOW, leg, answer),
        Input::Failure(failure) => write.handle_failure(NOW, leg, *failure),
    }
}

/// The rules of `WriteOutcome`, read off the list of what has happened so far: the outcome, and the one if the caller is impatient.
fn oracle(round: Round, concern: usize, seen: &[(usize, Input)]) -> (WriteStep, WriteStep) {
    let is = |wanted: fn(&Input) -> bool| seen.iter().filter(|(_, input)| wanted(input)).count();
    let stale = is(|input| matches!(input, Input::Answer(WriteAnswer::Stale { in_sync: true, .. })));
    let stale_unconfirmed = is(|input| matches!(input, Input::Answer(WriteAnswer::Stale { in_sync: false, .. })));
    let collected = is(|input| matches!(input, Input::Answer(WriteAnswer::Collected { .. })));
    let applied = is(|input| matches!(input, Input::Answer(WriteAnswer::Applied)));
    let unconfirmed = is(|input| matches!(input, Input::Answer(WriteAnswer::AppliedUnconfirmed)));
    let second = round == Round::Second;
    let confirmed = if second { applied + stale } else { applied };
    let acks = confirmed + if second { unconfirmed + stale_unconfirmed } else { unconfirmed };
    let needed = [0, 2, 1][concern - 1];
    let wrong_ring = is(|input| matches!(input, Input::Answer(WriteAnswer::WrongRing(_))));
    let unknown = is(|input| matches!(input, Input::Failure(LegFailure::Disconnected | LegFailure::TimedOut)));
    let pending = 3 - seen.len();
    let next = if applied + stale >= needed { Round::Second } else { Round::First };
    let newest = [(stale, 7), (stale_unconfirmed, 8), (collected, 9)]
        .into_iter()
        .filter(|(count, version)| *count > 0 && (!second || *version == 9))
        .map(|(_, version)| Version::new(version))
        .max();
    let waits = match newest {
        Some(newest) if next == Round::Second => WriteStep::Done(WriteOutcome::Stale { newest, next }),
        _ => WriteStep::Wait,
    };
    let done = WriteStep::Done(if acks >= concern && confirmed >= needed {
        WriteOutcome::Acknowledged
    } else if acks + pending >= concern && confirmed + pending >= needed {
        return (WriteStep::Wait, waits);
    } else if newest.is_some() && next == Round::First && pending > 0 && applied + stale + pending >= needed {
        return (WriteStep::Wait, WriteStep::Wait);
    } else if let Some(newest) = newest {
        WriteOutcome::Stale { newest, next }
    } else if wrong_ring > 0 {
        WriteOutcome::WrongRing
    } else if acks >= concern {
        WriteOutcome::Unconfirmed
    } else if acks + unknown > 0 {
        WriteOutcome::Indeterminate { acks }
    } else if pending > 0 {
        return (WriteStep::Wait, waits);
    } else {
        WriteOutcome::Refused { acks: 0 }
    });
    (done, done)
}

fn check_sequence(round: Round, concern: u64, sequence: &[(usize, Input)]) {
    let mut write = write_of(round, (3, concern), 3);
    let mut expected = WriteStep::Wait;
    assert_eq!(write.poll(), expected);
    let mut missed = Vec::new();
    for seen in 1..=sequence.len() {
        let (leg, input) = &sequence[seen - 1];
        feed(&mut write, *leg, input);
        if expected == WriteStep::Wait {
            let impatient;
            (expected, impatient) = oracle(round, usize::try_from(concern).unwrap(), &sequence[..seen]);
            let mut other = write_of(round, (3, concern), 3);
            sequence[..seen].iter().for_each(|(leg, input)| feed(&mut other, *leg, input));
            other.poll();
            assert_eq!(other.is_contested(), impatient != expected, "after {:?}", &sequence[..seen]);
            other.handle_impatience();
            assert_eq!(other.poll(), impatient, "impatient after {:?}", &sequence[..seen]);
        }
        assert_eq!(write.poll(), expected, "{round:?}, concern {concern}, after {:?}", &sequence[..seen]);
        missed.extend(write.take_missed());
    }
    assert_ne!(write.poll(), WriteStep::Wait, "settled without an outcome: {sequence:?}");
    // Owners that may lack it are reported once, and only if it may have been written and is not tried again.
    let lacks = |input: &Input| matches!(input, Input::Failure(_) | Input::Answer(WriteAnswer::WrongRing(_)));
    let is_final = |outcome| matches!(outcome, WriteOutcome::Acknowledged | WriteOutcome::Indeterminate { .. });
    let is_reported = matches!(write.poll(), WriteStep::Done(outcome) if is_final(outcome));
    let lacking = sequence.iter().filter(|(_, input)| is_reported && lacks(input));
    let mut lacking: Vec<NodeId> = lacking.map(|(leg, _)| NodeId::new(*leg as u64)).collect();
    lacking.sort_unstable();
    missed.sort_unstable();
    assert_eq!(missed, lacking, "{sequence:?}");
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn every_order_of_every_outcome_of_three_legs_is_as_the_rules_say() {
    for (round, concern) in [Round::First, Round::Second].into_iter().flat_map(|r| [(r, 1), (r, 2), (r, 3)]) {
        for order in ORDERS {
            for a in inputs() {
                for b in inputs() {
                    for c in inputs() {
                        let sequence = [(order[0], a.clone()), (order[1], b.clone()), (order[2], c.clone())];
                        check_sequence(round, concern, &sequence);
                    }
                }
            }
        }
    }
}

/// What three owners hold, and which of them are in sync.
type Owners = [(u64, bool); 3];

/// The newest version that may have been acknowledged, by part (1) of the proof: two owners in sync never both lack it.
fn acknowledged(owners: Owners) -> Option<u64> {
    let in_sync = owners.iter().filter(|(_, in_sync)| *in_sync).map(|(held, _)| *held);
    let mut held: Vec<u64> = in_sync.collect();
    held.sort_unstable();
    // Of the two that hold the least, the newer.
    held.get(1).copied()
}

/// The proof, tried out: whatever three owners hold, whichever are in sync, whichever answers come first, and wherever the write's own
/// version lies among theirs.
#[test]
fn neither_an_acknowledged_version_nor_that_of_round_two_is_below_what_was_acknowledged_before() {
    let versions = [0_u64, 2, 4, 6];
    let states = versions.into_iter().flat_map(|held| [(held, true), (held, false)]);
    let all = states.clone().flat_map(|a| states.clone().map(move |b| (a, b)));
    let all = all.flat_map(|(a, b)| states.clone().map(move |c| [a, b, c]));
    let (mut acknowledged_writes, mut second_rounds) = (0, 0);
    for owners in all {
        for (own, order) in [1, 3, 5, 7].into_iter().flat_map(|own| ORDERS.map(|order| (own, order))) {
            for impatient in [false, true] {
                let mut write = write(2, 3);
                let (mut newest, mut outcome) = (own, WriteStep::Wait);
                for leg in order {
                    let (held, in_sync) = owners[leg];
                    let newer = Version::new(held.into());
                    write.handle_answer(
                        NOW,
                        leg,
                        &match (held > own, in_sync) {
                            (true, _) => WriteAnswer::Stale { newer, in_sync },
                            (false, true) => WriteAnswer::Applied,
                            (false, false) => WriteAnswer::AppliedUnconfirmed,
                        },
                    );
                    if impatient {
                        write.handle_impatience();
                    }
                    newest = newest.max(held);
                    outcome = write.poll();
                    if outcome != WriteStep::Wait {
                        break;
                    }
                }
                let before = acknowledged(owners);
                match outcome {
                    WriteStep::Done(WriteOutcome::Acknowledged) => {
                        assert!(before.is_some_and(|before| before < own), "{owners:?}, {own}, {order:?}");
                        acknowledged_writes += 1;
                    }
                    WriteStep::Done(WriteOutcome::Stale { newest: reported, next: Round::Second }) => {
                        assert_eq!(reported, Version::new(newest.into()), "{owners:?}, {own}, {order:?}");
                        assert!(before.is_some_and(|before| before <= newest), "{owners:?}, {own}, {order:?}");
                        second_rounds += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(acknowledged_writes > 1000 && second_rounds > 1000, "{acknowledged_writes}, {second_rounds}");
}

#[test]
fn too_few_owners_are_refused_before_anything_is_sent() {
    assert_eq!(write(2, 1).poll(), WriteStep::Done(WriteOutcome::Refused { acks: 0 }));
    assert_eq!(write(2, 2).poll(), WriteStep::Wait);
    let mut of_two = write(2, 2);
    of_two.handle_answer(NOW, 0, &WriteAnswer::Stale { newer: Version::new(5), in_sync: true });
    assert_eq!(of_two.poll(), WriteStep::Wait, "the other one's answer is what round 2 needs");
}

#[test]
fn a_timeout_makes_a_leg_unknown_and_a_late_answer_settles_it() {
    let mut write = write(2, 3);
    write.handle_answer(NOW, 0, &WriteAnswer::Applied);
    write.handle_failure(NOW, 1, LegFailure::TimedOut);
    assert!(write.take_missed().is_empty(), "the third owner decides");
    write.handle_failure(NOW, 2, LegFailure::TimedOut);
    assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Indeterminate { acks: 1 }));
    write.handle_answer(NOW, 2, &WriteAnswer::Applied);
    assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Indeterminate { acks: 1 }), "once done, always the same");
    assert_eq!((write.acks(), write.take_missed().as_slice()), (2, &[NodeId::new(1)][..]));
    assert!(write.take_missed().is_empty(), "each is reported once");
}

#[test]
fn the_own_leg_waits_for_an_owner_that_compares_the_write() {
    let refusals = [WriteAnswer::Drift { ahead_ms: 900 }, WriteAnswer::TooLarge, WriteAnswer::WrongRing(Vec::new())];
    for refusal in refusals {
        let mut write = write(2, 3);
        write.hold_back(0);
        write.handle_answer(NOW, 1, &refusal);
        assert_eq!(write.take_own_leg(), None, "{refusal:?}");
        write.handle_answer(NOW, 2, &WriteAnswer::Stale { newer: Version::new(5), in_sync: true });
        assert_eq!((write.take_own_leg(), write.take_own_leg()), (Some(0), None), "once, after {refusal:?}");
        assert_eq!(write.legs(NOW)[0].outcome, LegOutcome::Pending);
    }
}

#[test]
fn the_own_leg_is_given_up_once_no_other_owner_is_to_be_heard_from() {
    let mut write = write(2, 3);
    write.hold_back(1);
    write.handle_failure(NOW, 0, LegFailure::NotSent);
    write.handle_answer(NOW, 2, &WriteAnswer::Drift { ahead_ms: 900 });
    assert_eq!(write.take_own_leg(), None);
    assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Refused { acks: 0 }));
    let outcomes: Vec<_> = write.legs(NOW).iter().map(|leg| leg.outcome).collect();
    assert_eq!(outcomes, [LegOutcome::Failed; 3]);
    assert!(write.take_missed().is_empty(), "nothing was written");
}

#[test]
fn a_leg_counts_once() {
    let mut write = write(2, 3);
    write.handle_answer(NOW, 0, &WriteAnswer::Applied);
    write.handle_answer(NOW, 0, &WriteAnswer::Applied);
    write.handle_failure(NOW, 0, LegFailure::Disconnected);
    write.handle_answer(NOW, 9, &WriteAnswer::Applied);
    assert_eq!((write.poll(), write.acks()), (WriteStep::Wait, 1));
}

#[test]
fn the_newest_version_and_the_reasons_of_refusals_are_kept() {
    let mut write = write(2, 3);
    write.handle_answer(NOW, 0, &WriteAnswer::Stale { newer: Version::new(5), in_sync: true });
    write.handle_answer(NOW, 1, &WriteAnswer::Stale { newer: Version::new(3), in_sync: true });
    let stale = WriteOutcome::Stale { newest: Version::new(5), next: Round::Second };
    assert_eq!(write.poll(), WriteStep::Done(stale));

    let mut write = self::write(2, 3);
    write.handle_answer(NOW, 0, &WriteAnswer::TooLarge);
    write.handle_answer(NOW, 1, &WriteAnswer::Drift { ahead_ms: 900 });
    assert_eq!(write.poll(), WriteStep::Wait, "the third owner may apply it");
    write.handle_answer(NOW, 2, &WriteAnswer::Drift { ahead_ms: 700 });
    assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Refused { acks: 0 }));
    assert_eq!(write.refusals(), Refusals { too_large: 1, drift: 2 });
}
