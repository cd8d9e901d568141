//! The real [`Write`] and [`Read`] machines, fed anew with what has come in so far: they have no memory beside that.

use std::time::Duration;

use bytes::Bytes;
use mesh_proto::{
    Consistency, Expiry, HedgeBudget, LegFailure, Monotonic, ReadAnswer, ReadConfig, ReadOutcome, ReadStep,
    ReplicationFactor, Round, Version, WriteAnswer, WriteConcern, WriteConfig, WriteOutcome, WriteStep,
};

use crate::{
    membership::id,
    state::{Answer, Leg, NODES, Nodes, Seen, Stamp, each, has},
};

fn replicas() -> ReplicationFactor {
    ReplicationFactor::new(NODES as u64).expect("three")
}

fn concern() -> WriteConcern {
    WriteConcern::new(2, replicas()).expect("two of three")
}

/// How many owners have to take a write.
pub fn concern_size() -> usize {
    concern().get()
}

/// How many owners that are in sync make a quorum.
pub fn answers_needed() -> usize {
    concern().answers_needed(replicas())
}

/// What has become of a write, and what would if its coordinator lost its patience now: `Write::handle_impatience`.
pub fn write(is_second: bool, owners: Nodes, legs: &[Leg; NODES]) -> (WriteStep, Option<WriteOutcome>) {
    let round = if is_second { Round::Second } else { Round::First };
    let confirmations = concern().confirmations_needed(replicas());
    let now = Monotonic::new(Duration::ZERO);
    let config = WriteConfig { round, concern: concern(), confirmations };
    let ids: Vec<_> = each(owners).map(id).collect();
    let mut machine = mesh_proto::Write::new(config, &ids, now, now);
    for (leg, owner) in each(owners).enumerate() {
        match legs[owner] {
            Leg::None => unreachable!("each owner has a leg"),
            Leg::Sent => {}
            Leg::Answered(answer) => machine.handle_answer(now, leg, &said(answer)),
            Leg::NotSent => machine.handle_failure(now, leg, LegFailure::NotSent),
            Leg::Lost => machine.handle_failure(now, leg, LegFailure::Disconnected),
        }
    }
    let step = machine.poll();
    machine.handle_impatience();
    match (step, machine.poll()) {
        (WriteStep::Wait, WriteStep::Done(outcome)) => (step, Some(outcome)),
        _ => (step, None),
    }
}

fn said(answer: Answer) -> WriteAnswer {
    match answer {
        Answer::Applied => WriteAnswer::Applied,
        Answer::Unconfirmed => WriteAnswer::AppliedUnconfirmed,
        Answer::Stale { newer, in_sync } => WriteAnswer::Stale { newer: version(newer), in_sync },
        Answer::WrongRing => WriteAnswer::WrongRing(Vec::new()),
    }
}

fn version(stamp: Stamp) -> Version {
    Version::new(u128::from(stamp))
}

/// The version that a real one stands for.
pub fn stamp(version: Version) -> Stamp {
    Stamp::try_from(version.get()).expect("one of the model's")
}

/// What a quorum read has found, once it has; zero for a miss.
pub fn read(owners: Nodes, coordinator: usize, seen: &[Seen; NODES]) -> Option<Stamp> {
    let now = Monotonic::new(Duration::ZERO);
    let config = ReadConfig {
        consistency: Consistency::Quorum,
        answers_needed: answers_needed(),
        fanout_max: NODES,
        hedge_delay: Duration::ZERO,
        hedge_interval: Duration::ZERO,
        per_try: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        may_be_evicted: false,
    };
    let others: Vec<usize> = each(owners).filter(|owner| *owner != coordinator).collect();
    let ids: Vec<_> = others.iter().map(|owner| id(*owner)).collect();
    let local = if has(owners, coordinator) { heard(seen[coordinator]) } else { None };
    let local = local.filter(|answer| !matches!(answer, ReadAnswer::WrongRing(_)));
    let mut machine = mesh_proto::Read::new(config, &ids, local, now);
    let mut budget = HedgeBudget::default();
    loop {
        match machine.poll(now, &mut budget) {
            ReadStep::Send { leg, .. } => {
                if let Some(answer) = heard(seen[others[leg]]) {
                    machine.handle_answer(now, leg, answer);
                }
            }
            ReadStep::Wait(_) => return None,
            ReadStep::Done(ReadOutcome::Value { version, .. }) => {
                return Some(stamp(version));
            }
            ReadStep::Done(ReadOutcome::Miss { .. }) => return Some(0),
            ReadStep::Done(_) => return None,
        }
    }
}

fn heard(seen: Seen) -> Option<ReadAnswer> {
    Some(match seen {
        Seen::None => return None,
        Seen::Unknown => ReadAnswer::Unknown,
        Seen::Absent => ReadAnswer::Absent,
        Seen::WrongRing => ReadAnswer::WrongRing(Vec::new()),
        Seen::Value { stamp, in_sync } => ReadAnswer::Value {
            version: version(stamp),
            expiry: Expiry::NEVER,
            value: Bytes::from_static(b"value"),
            in_sync,
        },
    })
}
