//! A plan that fails, made as small as can be: what is left out again and again, as long as it still fails in the same way, is what
//! the failure does not need (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).

use std::time::{Duration, Instant};

use crate::{
    changes::{Change, Timed},
    plan::{Cut, Fault, Plan, Step},
};

/// A smaller plan is tried with so many dice of clients and network: what fails by chance need not fail with the first.
const DICE: u64 = 4;

/// Clients do no less than this.
const OPERATIONS_MIN: u64 = 20;

/// What kind of finding it is: its words up to the first figure.
pub fn kind(finding: &str) -> &str {
    finding.split([':', ',', '(']).next().unwrap_or_default().trim_end_matches(|c: char| !c.is_alphabetic())
}

/// The smallest plan that was found by then, and its finding. `fails` simulates a plan, and gives its first finding of the kind.
pub fn shrink(plan: &Plan, until: Instant, fails: impl Fn(&Plan) -> Option<String>) -> Option<(Plan, String)> {
    let mut smallest = plan.clone();
    let mut finding = fails(plan)?;
    loop {
        let before = smallest.clone();
        let mut at = 0;
        // What comes after a success goes on where that was, so that each is tried once a round.
        while let Some(smaller) = smaller(&smallest).into_iter().nth(at) {
            let dice = (0..DICE).map(|dice| Plan { seed: smaller.seed + dice * 1_000, ..smaller.clone() });
            let mut dice = dice.take_while(|_| Instant::now() < until);
            match dice.find_map(|plan| Some((fails(&plan)?, plan))) {
                Some((found, plan)) => (smallest, finding) = (plan, found),
                None => at += 1,
            }
        }
        if smallest == before || Instant::now() >= until {
            return Some((smallest, finding));
        }
    }
}

/// Plans that are a little smaller, those with most left out first.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        smaller.remain = remaining(&smaller).unwrap_or_default();
        if smaller != *plan && !smaller.remain.is_empty() {
            plans.push(smaller);
        }
    };
    for at in 0..plan.steps.len() {
        add(&|plan| _ = plan.steps.remove(at));
    }
    for place in 0..plan.places {
        add(&|plan| remove_place(plan, place));
    }
    for (at, step) in plan.steps.iter().enumerate() {
        for change in 0..step.changes.len() {
            add(&|plan| _ = plan.steps[at].changes.remove(change));
        }
        add(&|plan| plan.steps[at].fault = Fault::Nothing);
        add(&|plan| plan.steps[at].weather = None);
        for victim in step.fault.victims() {
            add(&|plan| spare(&mut plan.steps[at].fault, victim));
        }
    }
    add(&|plan| plan.at_once = false);
    add(&|plan| plan.hint_bytes_max = None);
    add(&|plan| plan.tombstones_kept = None);
    add(&|plan| plan.clock_offsets_ms.fill(0));
    add(&|plan| plan.operations = (plan.operations / 2).max(OPERATIONS_MIN).min(plan.operations));
    add(&|plan| plan.keys = plan.keys.div_ceil(2).max(3));
    add(&|plan| plan.sessions = plan.sessions.div_ceil(2));
    add(&|plan| plan.sessions -= u8::from(plan.sessions > 1));
    for (at, step) in plan.steps.iter().enumerate() {
        add(&|plan| rename(&mut plan.steps[at].fault, lower));
        add(&|plan| plan.steps[at].lasts = shorter(step.lasts));
        for (change, timed) in step.changes.iter().enumerate() {
            add(&|plan| lower(place_in(&mut plan.steps[at].changes[change].change)));
            add(&|plan| plan.steps[at].changes[change].after = Duration::ZERO);
            add(&|plan| plan.steps[at].changes[change].after = shorter(timed.after));
        }
    }
    plans
}

/// Half as long, in whole milliseconds.
fn shorter(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64 / 2)
}

/// Lets one of several victims be.
fn spare(fault: &mut Fault, victim: usize) {
    if let Fault::Crash(victims) | Fault::Partition(victims, _) = fault
        && victims.len() > 1
    {
        victims.retain(|other| *other != victim);
    }
}

/// Takes away a place that nothing happens in, if as many nodes remain as there are replicas.
fn remove_place(plan: &mut Plan, place: usize) {
    let names = |step: &Step| {
        let by_change = step.changes.iter().any(|timed| place_of(timed.change) == place);
        by_change
            || places_of(&step.fault).contains(&place)
            || step.weather.iter().any(|weather| places_of(weather).contains(&place))
    };
    let is_node = place < plan.nodes;
    if plan.steps.iter().any(names) || (is_node && plan.nodes as u64 <= plan.replicas) {
        return;
    }
    plan.nodes -= usize::from(is_node);
    plan.places -= 1;
    plan.clock_offsets_ms.remove(place);
    let next = |other: &mut usize| *other -= usize::from(*other > place);
    for step in &mut plan.steps {
        step.weather.iter_mut().chain([&mut step.fault]).for_each(|fault| rename(fault, next));
        step.changes.iter_mut().for_each(|timed| next(place_in(&mut timed.change)));
    }
}

fn rename(fault: &mut Fault, next: impl Fn(&mut usize)) {
    match fault {
        Fault::Crash(victims) => victims.iter_mut().for_each(next),
        Fault::Partition(victims, cut) => {
            if let Cut::Bridge { via } = cut {
                next(via);
            }
            victims.iter_mut().for_each(next);
        }
        Fault::Stop(at) | Fault::Pause(at) | Fault::ClockJump(at) | Fault::SlowNode(at, _) => next(at),
        Fault::RestartStorm
        | Fault::Loss(_)
        | Fault::Delay(_)
        | Fault::Reorder(_)
        | Fault::Duplicate(_)
        | Fault::Nothing => {}
    }
}

/// All places that a fault names.
fn places_of(fault: &Fault) -> Vec<usize> {
    let mut places = fault.victims();
    match fault {
        Fault::SlowNode(at, _) | Fault::Partition(_, Cut::Bridge { via: at }) => places.push(*at),
        _ => {}
    }
    places
}

const fn place_of(mut change: Change) -> usize {
    *place_in(&mut change)
}

const fn place_in(change: &mut Change) -> &mut usize {
    match change {
        Change::Join(at) | Change::Leave(at) | Change::LeaveAndReturn(at, _) => at,
        Change::Weigh(at, _) | Change::JoinTwice(at, _) | Change::LeaveInVain(at, _) => at,
    }
}

/// The place before.
const fn lower(place: &mut usize) {
    *place = place.saturating_sub(1);
}

/// The places that have nodes in the end, unless something happens to a node that is not there, or too few would remain.
fn remaining(plan: &Plan) -> Option<Vec<usize>> {
    let mut present: Vec<usize> = (0..plan.nodes).collect();
    for step in &plan.steps {
        let weather = step.weather.iter().flat_map(places_of);
        let mut named = places_of(&step.fault);
        named.dedup();
        if named != places_of(&step.fault) || named.len() > present.len() {
            return None;
        }
        if !places_of(&step.fault).into_iter().chain(weather).all(|place| present.contains(&place)) {
            return None;
        }
        let mut changes = step.changes.clone();
        changes.sort_by_key(|timed| timed.after);
        for Timed { change, .. } in changes {
            let place = place_of(change);
            let joins = matches!(change, Change::Join(_) | Change::JoinTwice(..));
            if present.contains(&place) == joins {
                return None;
            }
            match change {
                Change::Leave(_) => present.retain(|other| *other != place),
                _ if joins => present.push(place),
                _ => {}
            }
        }
        if (present.len() as u64) < plan.replicas.min(3) {
            return None;
        }
    }
    present.sort_unstable();
    Some(present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::Seed;

    fn returns(timed: &Timed) -> bool {
        matches!(timed.change, Change::LeaveAndReturn(..))
    }

    /// The failure needs a loss, and later a member that leaves and returns.
    fn fails(plan: &Plan) -> Option<String> {
        let is_lossy =
            |step: &Step| matches!(step.fault, Fault::Loss(_)) || matches!(step.weather, Some(Fault::Loss(_)));
        let loss = plan.steps.iter().position(is_lossy)?;
        let is_it = plan.steps[loss..].iter().any(|step| step.changes.iter().any(returns));
        is_it.then(|| "it fails".to_owned())
    }

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let plans = (0..400).map(|seed| Plan::of(Seed::new(seed))).filter(|plan| fails(plan).is_some());
        let plans: Vec<Plan> = plans.collect();
        assert!(plans.len() > 5, "{} seeds are no proof", plans.len());
        for plan in plans {
            let (smallest, _) = shrink(&plan, Instant::now() + Duration::from_secs(60), fails).unwrap();
            assert!(fails(&smallest).is_some());
            assert!(smallest.steps.len() <= 2, "{smallest:?}");
            assert_eq!(smallest.steps.iter().map(|step| step.changes.len()).sum::<usize>(), 1);
            assert_eq!((smallest.nodes as u64, smallest.sessions), (smallest.replicas, 1));
            assert_eq!((smallest.operations, smallest.hint_bytes_max, smallest.at_once), (OPERATIONS_MIN, None, false));
            assert!(
                smaller(&smallest).iter().all(|smaller| fails(smaller).is_none() || smaller == &smallest),
                "{smallest:?}"
            );
        }
    }
}
