//! How a plan is printed: in one line for a table, and as Rust that can be pasted into these tests.

use std::{fmt::Write as _, time::Duration};

use crate::{
    changes::{Change, Timed},
    plan::{Cut, Fault, Plan, Step},
    promises::scene,
};

/// What matters of a plan, in one line.
pub fn line(plan: &Plan) -> String {
    let mut line = format!("{} nodes, {} replicas, concern {}", plan.nodes, plan.replicas, plan.concern);
    for step in &plan.steps {
        let _ = write!(line, "; {:?} for {:?}", step.fault, step.lasts);
        if let Some(weather) = &step.weather {
            let _ = write!(line, " in {weather:?}");
        }
        for Timed { after, change } in &step.changes {
            let _ = write!(line, ", {change:?} after {after:?}");
        }
    }
    line
}

/// A test that simulates the plan: what differs from a [`scene`].
pub fn source(plan: &Plan) -> String {
    let base = scene(plan.nodes, plan.replicas, plan.concern);
    let mut fields = Vec::new();
    let mut field = |name: &str, differs: bool, value: String| {
        if differs {
            fields.push(format!("        {name}: {value},\n"));
        }
    };
    field("seed", plan.seed != base.seed, plan.seed.to_string());
    field("promise", plan.promise != base.promise, format!("crate::plan::Promise::{:?}", plan.promise));
    field("places", plan.places != base.places, plan.places.to_string());
    field("remain", plan.remain != base.remain, list(&plan.remain));
    field("gossip_interval", plan.gossip_interval != base.gossip_interval, time(plan.gossip_interval));
    field("suspicion", plan.suspicion != base.suspicion, time(plan.suspicion));
    let clocks = plan.clock_offsets_ms.iter().any(|offset| *offset != 0) || plan.places != base.places;
    field("clock_offsets_ms", clocks, list(&plan.clock_offsets_ms));
    let bytes_max = plan.hint_bytes_max.map_or_else(String::new, |bytes| format!("Some({bytes})"));
    field("hint_bytes_max", plan.hint_bytes_max.is_some(), bytes_max);
    let kept = plan.tombstones_kept.map_or_else(String::new, |kept| format!("Some({})", time(kept)));
    field("tombstones_kept", plan.tombstones_kept.is_some(), kept);
    field("keys", true, plan.keys.to_string());
    field("at_once", plan.at_once, plan.at_once.to_string());
    field("sessions", true, plan.sessions.to_string());
    field("operations", true, plan.operations.to_string());
    let steps: Vec<String> = plan.steps.iter().map(step).collect();
    field("steps", !steps.is_empty(), format!("vec![{}]", steps.join(", ")));
    let (nodes, replicas, concern) = (plan.nodes, plan.replicas, plan.concern);
    format!(
        "#[test]\nfn seed_{}() {{\n    let plan = Plan {{\n{}        ..scene({nodes}, {replicas}, {concern})\n    }};\n    \
         let findings = simulate(&plan).findings;\n    assert!(findings.is_empty(), \"{{findings:?}}\");\n}}\n",
        plan.seed,
        fields.concat(),
    )
}

fn step(step: &Step) -> String {
    let Step { fault, lasts, weather, settle, changes } = step;
    let weather =
        weather.as_ref().map_or_else(|| "None".to_owned(), |weather| format!("Some({})", self::fault(weather)));
    let changes: Vec<String> = changes.iter().map(timed).collect();
    let (fault, lasts, changes) = (self::fault(fault), time(*lasts), changes.join(", "));
    format!("Step {{ fault: {fault}, lasts: {lasts}, weather: {weather}, settle: {settle}, changes: vec![{changes}] }}")
}

fn timed(Timed { after, change }: &Timed) -> String {
    let change = match change {
        Change::Join(place) => format!("Join({place})"),
        Change::Leave(place) => format!("Leave({place})"),
        Change::LeaveAndReturn(place, absent) => format!("LeaveAndReturn({place}, {})", time(*absent)),
        Change::Weigh(place, weight) => format!("Weigh({place}, mesh_proto::Weight::new({}).unwrap())", weight.get()),
        Change::JoinTwice(place, alive) => format!("JoinTwice({place}, {})", time(*alive)),
        Change::LeaveInVain(place, alive) => format!("LeaveInVain({place}, {})", time(*alive)),
    };
    format!("Timed {{ after: {}, change: Change::{change} }}", time(*after))
}

fn fault(fault: &Fault) -> String {
    let fault = match fault {
        Fault::Crash(victims) => format!("Crash({})", list(victims)),
        Fault::Stop(victim) => format!("Stop({victim})"),
        Fault::RestartStorm => "RestartStorm".to_owned(),
        Fault::Pause(victim) => format!("Pause({victim})"),
        Fault::SlowNode(victim, delay) => format!("SlowNode({victim}, {})", time(*delay)),
        Fault::Partition(victims, cut) => format!("Partition({}, {})", list(victims), self::cut(*cut)),
        Fault::Loss(share) => format!("Loss({share:?})"),
        Fault::Delay(delay) => format!("Delay({})", time(*delay)),
        Fault::Reorder(jitter) => format!("Reorder({})", time(*jitter)),
        Fault::Duplicate(share) => format!("Duplicate({share:?})"),
        Fault::ClockJump(victim) => format!("ClockJump({victim})"),
        Fault::Nothing => "Nothing".to_owned(),
    };
    format!("Fault::{fault}")
}

fn cut(cut: Cut) -> String {
    match cut {
        Cut::Flapping { period } => format!("Cut::Flapping {{ period: {} }}", time(period)),
        Cut::Symmetric | Cut::Deaf | Cut::Mute | Cut::Bridge { .. } => format!("Cut::{cut:?}"),
    }
}

fn list<T: ToString>(of: &[T]) -> String {
    let of: Vec<String> = of.iter().map(T::to_string).collect();
    format!("vec![{}]", of.join(", "))
}

fn time(time: Duration) -> String {
    match time.subsec_nanos() % 1_000_000 {
        0 => format!("Duration::from_millis({})", time.as_millis()),
        _ => format!("Duration::from_micros({})", time.as_micros()),
    }
}

/// The value of Rust code, and the code.
#[cfg(test)]
macro_rules! with_code {
    ($($code:tt)*) => {
        ($($code)*, stringify!($($code)*))
    };
}

#[test]
fn a_printed_plan_is_that_plan() {
    let (plan, code) = with_code!(Plan {
        seed: 7,
        promise: crate::plan::Promise::ValuesOnly,
        places: 5,
        remain: vec![0, 1, 2, 4],
        gossip_interval: Duration::from_millis(100),
        suspicion: Duration::from_millis(400),
        clock_offsets_ms: vec![450, 0, 0, 0, 0],
        hint_bytes_max: Some(700),
        tombstones_kept: Some(Duration::from_millis(1000)),
        keys: 9,
        sessions: 2,
        operations: 100,
        steps: vec![
            Step {
                fault: Fault::Partition(vec![0, 2], Cut::Flapping { period: Duration::from_millis(70) }),
                lasts: Duration::from_millis(700),
                weather: Some(Fault::SlowNode(1, Duration::from_micros(1500))),
                settle: true,
                changes: vec![
                    Timed { after: Duration::from_millis(1), change: Change::Join(4) },
                    Timed {
                        after: Duration::from_millis(0),
                        change: Change::LeaveAndReturn(1, Duration::from_millis(60))
                    },
                    Timed {
                        after: Duration::from_millis(2),
                        change: Change::Weigh(0, mesh_proto::Weight::new(3).unwrap())
                    }
                ]
            },
            Step {
                fault: Fault::Partition(vec![0], Cut::Bridge { via: 2 }),
                lasts: Duration::from_millis(7),
                weather: Some(Fault::Loss(0.25)),
                settle: false,
                changes: vec![Timed { after: Duration::from_millis(3), change: Change::Leave(3) }]
            }
        ],
        ..scene(4, 3, 2)
    });
    // Layout is rustfmt's business.
    let bare = |text: &str| text.split_whitespace().collect::<String>().replace(",]", "]").replace(",}", "}");
    let printed = bare(&source(&plan));
    assert!(printed.contains(&bare(code)), "{printed} instead of {}", bare(code));
}
