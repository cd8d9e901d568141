//! The read machine against random meshes: owners that hold what an acknowledged write left them with, and that answer
//! late, fail, stay silent, are out of sync, or see another ring.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use mesh_proto::{
    Consistency, Expiry, HedgeBudget, LegFailure, LegOutcome, Monotonic, NodeId, Read, ReadAnswer, ReadConfig,
    ReadOutcome, ReadStep, Version,
};
use proptest::{collection::vec, prelude::*};

const PER_TRY_MS: u64 = 50;
const TIMEOUT_MS: u64 = 400;
/// The acknowledged write. Owners may also hold an older state, or the newer one of a write that never finished.
const ACKNOWLEDGED: u128 = 10;

#[derive(Clone, Copy, Debug)]
enum State {
    Nothing,
    Value(u128),
    Gone(u128),
}

#[derive(Clone, Copy, Debug)]
enum Conduct {
    Answers { after_ms: u64 },
    Fails { after_ms: u64 },
    IsSilent,
    SeesAnotherRing { after_ms: u64 },
}

#[derive(Clone, Debug)]
struct Mesh {
    concern: usize,
    fanout_max: usize,
    consistency: Consistency,
    hedge_ms: (u64, u64),
    has_tokens: bool,
    /// Whether the first owner is the node that reads.
    has_local: bool,
    owners: Vec<(State, Conduct)>,
    /// How many of the owners with the acknowledged write have lost it in a restart, and say "unknown" until resynced.
    restarted: usize,
    is_deletion: bool,
    may_be_evicted: bool,
}

impl Mesh {
    const fn config(&self) -> ReadConfig {
        ReadConfig {
            consistency: self.consistency,
            answers_needed: self.answers_needed(),
            fanout_max: self.fanout_max,
            hedge_delay: Duration::from_millis(self.hedge_ms.0),
            hedge_interval: Duration::from_millis(self.hedge_ms.1),
            per_try: Duration::from_millis(PER_TRY_MS),
            timeout: Duration::from_millis(TIMEOUT_MS),
            may_be_evicted: self.may_be_evicted,
        }
    }

    const fn answers_needed(&self) -> usize {
        self.owners.len() - self.concern + 1
    }

    /// The first `concern` of the owners, in the order of `rank`, hold the acknowledged write at least.
    fn settle(mut self, rank: &[u8]) -> Self {
        let mut order: Vec<usize> = (0..self.owners.len()).collect();
        order.sort_by_key(|&index| rank[index]);
        self.restarted %= self.concern;
        for &index in &order[..self.concern] {
            let state = &mut self.owners[index].0;
            if !matches!(state, State::Value(version) | State::Gone(version) if *version > ACKNOWLEDGED) {
                *state = if self.is_deletion { State::Gone(ACKNOWLEDGED) } else { State::Value(ACKNOWLEDGED) };
            }
        }
        self.owners.swap(0, order[0]);
        self
    }

    fn answer(&self, owner: usize) -> ReadAnswer {
        // Any will do, since owners come in random order; the last ones leave the local replica alone at first.
        if owner + self.restarted >= self.owners.len() {
            return ReadAnswer::Unknown;
        }
        match self.owners[owner].0 {
            State::Nothing => ReadAnswer::Absent,
            State::Value(version) => ReadAnswer::Value {
                version: Version::new(version),
                expiry: Expiry::new(u64::try_from(version).unwrap()),
                value: Bytes::from(version.to_string()),
                in_sync: true,
            },
            State::Gone(version) => ReadAnswer::Gone { version: Version::new(version) },
        }
    }

    fn is_healthy(&self) -> bool {
        let others = &self.owners[usize::from(self.has_local)..];
        let in_time = |conduct| matches!(conduct, Conduct::Answers { after_ms } if after_ms < PER_TRY_MS);
        others.iter().all(|(_, conduct)| in_time(*conduct)) && self.restarted == 0
    }
}

fn state() -> impl Strategy<Value = State> {
    let version = || prop_oneof![1..ACKNOWLEDGED, Just(ACKNOWLEDGED + 5)];
    prop_oneof![Just(State::Nothing), version().prop_map(State::Value), version().prop_map(State::Gone)]
}

fn conduct() -> impl Strategy<Value = Conduct> {
    prop_oneof![
        6 => (0..PER_TRY_MS).prop_map(|after_ms| Conduct::Answers { after_ms }),
        1 => (0..TIMEOUT_MS * 2).prop_map(|after_ms| Conduct::Answers { after_ms }),
        1 => (0..PER_TRY_MS * 2).prop_map(|after_ms| Conduct::Fails { after_ms }),
        1 => Just(Conduct::IsSilent),
        1 => (0..PER_TRY_MS).prop_map(|after_ms| Conduct::SeesAnotherRing { after_ms }),
    ]
}

fn mesh() -> impl Strategy<Value = Mesh> {
    let consistency = prop_oneof![
        Just(Consistency::One),
        (1..=ACKNOWLEDGED).prop_map(|floor| Consistency::Session(Version::new(floor))),
        Just(Consistency::Quorum),
    ];
    let owners = vec((state(), conduct()), 1..=6);
    let numbers = (1..=6_usize, 1..=4_usize, 0..6_usize);
    let flags = any::<(bool, bool, bool, bool)>();
    (owners, numbers, consistency, (0..20_u64, 0..20_u64), flags, vec(any::<u8>(), 6)).prop_map(
        |(owners, (concern, fanout_max, restarted), consistency, hedge_ms, flags, rank)| {
            let concern = concern.min(owners.len());
            let (has_tokens, has_local, is_deletion, may_be_evicted) = flags;
            Mesh {
                concern,
                fanout_max,
                consistency,
                hedge_ms,
                has_tokens,
                has_local,
                owners,
                restarted,
                is_deletion,
                may_be_evicted,
            }
            .settle(&rank)
        },
    )
}

const fn at(ms: u64) -> Monotonic {
    Monotonic::new(Duration::from_millis(ms))
}

fn millis(moment: Monotonic) -> u64 {
    u64::try_from(moment.since_start().as_millis()).unwrap()
}

/// Runs one read to its end in virtual time, checking every step on the way.
fn run(mesh: &Mesh) -> ReadOutcome {
    let offset = usize::from(mesh.has_local);
    let peers: Vec<NodeId> = (offset..mesh.owners.len()).map(|index| NodeId::new(index as u64)).collect();
    let mut read = Read::new(mesh.config(), &peers, mesh.has_local.then(|| mesh.answer(0)), at(0));
    let mut budget = HedgeBudget::default();
    while budget.withdraw() {}

    let mut now_ms = 0;
    let mut sent_at = vec![None; peers.len()];
    let mut arrivals: BTreeMap<(u64, usize), ()> = BTreeMap::new();
    for _ in 0..10_000 {
        if mesh.has_tokens {
            (0..40).for_each(|_| budget.deposit());
        }
        match read.poll(at(now_ms), &mut budget) {
            ReadStep::Send { leg, peer, hedged } => {
                assert_eq!(peer, peers[leg]);
                assert_eq!(sent_at[leg], None, "an owner was asked twice");
                assert!(!hedged || mesh.has_tokens, "a hedge without a token");
                sent_at[leg] = Some(now_ms);
                let in_time = |leg: usize| now_ms < sent_at[leg].unwrap() + PER_TRY_MS;
                let sent = read.legs(at(now_ms)).into_iter().enumerate();
                let in_flight = sent.filter(|(n, leg)| leg.outcome == LegOutcome::Cancelled && in_time(*n)).count();
                let fanout = match hedged {
                    true => mesh.fanout_max,
                    // All are asked at once for what some of them may have evicted.
                    false if mesh.may_be_evicted => peers.len(),
                    false => mesh.fanout_max.max(mesh.answers_needed()),
                };
                assert!(in_flight <= fanout, "{in_flight} legs in flight, {fanout} allowed");
                match mesh.owners[leg + offset].1 {
                    Conduct::Answers { after_ms }
                    | Conduct::Fails { after_ms }
                    | Conduct::SeesAnotherRing { after_ms } => {
                        arrivals.insert((now_ms + after_ms, leg), ());
                    }
                    Conduct::IsSilent => {}
                }
            }
            ReadStep::Wait(until) => {
                assert!(until > at(now_ms), "a wait for what has passed");
                assert!(until <= at(TIMEOUT_MS));
                let Some((&(arrives_ms, leg), ())) = arrivals.first_key_value() else {
                    now_ms = millis(until);
                    continue;
                };
                if arrives_ms > millis(until) {
                    now_ms = millis(until);
                    continue;
                }
                now_ms = arrives_ms;
                arrivals.pop_first();
                match mesh.owners[leg + offset].1 {
                    Conduct::Answers { .. } => read.handle_answer(at(now_ms), leg, mesh.answer(leg + offset)),
                    Conduct::Fails { .. } => read.handle_failure(at(now_ms), leg, LegFailure::Disconnected),
                    _ => read.handle_answer(at(now_ms), leg, ReadAnswer::WrongRing(Vec::new())),
                }
            }
            ReadStep::Done(outcome) => {
                assert_eq!(read.poll(at(now_ms + 1), &mut budget), ReadStep::Done(outcome.clone()));
                return outcome;
            }
        }
    }
    panic!("the read never ended");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn reads_end_and_keep_their_promises(mesh in mesh()) {
        let outcome = run(&mesh);
        match &outcome {
            ReadOutcome::Value { version, value, expiry, leg } => {
                let owner = leg.map_or(0, |leg| leg + usize::from(mesh.has_local));
                let held = ReadAnswer::Value { version: *version, expiry: *expiry, value: value.clone(), in_sync: true };
                prop_assert_eq!(held, mesh.answer(owner), "not what that owner holds");
                match mesh.consistency {
                    Consistency::One => {}
                    Consistency::Session(floor) => prop_assert!(*version >= floor),
                    Consistency::Quorum => prop_assert!(*version >= Version::new(ACKNOWLEDGED)),
                }
                prop_assert!(
                    !(mesh.is_deletion && *version == Version::new(ACKNOWLEDGED)),
                    "the deletion's version has no value"
                );
            }
            ReadOutcome::Miss { version } => {
                let is_known_gone = version.is_some_and(|version| version >= Version::new(ACKNOWLEDGED));
                prop_assert!(is_known_gone, "the acknowledged write was denied");
            }
            ReadOutcome::Unavailable { needed, .. } => {
                prop_assert_eq!(*needed, mesh.answers_needed());
                prop_assert!(!mesh.is_healthy(), "all owners answered, and that was not enough");
            }
            ReadOutcome::WrongRing => {
                let sees_another = |conduct| matches!(conduct, Conduct::SeesAnotherRing { .. });
                prop_assert!(mesh.owners.iter().any(|(_, conduct)| sees_another(*conduct)));
            }
            ReadOutcome::TimedOut => prop_assert!(!mesh.is_healthy()),
        }
    }
}
