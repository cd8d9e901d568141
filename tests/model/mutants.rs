//! The rules of a write, left out one at a time by the defect of that name in `docs/MUTANTS.md`: without any of them the model finds a history
//! that breaks a promise. Each is planted in a process of its own.

use std::{
    env,
    process::{Command, Stdio},
};

use mesh_proto::Mutant;

/// Names the defect to plant.
const VARIABLE: &str = "MESH_MUTANT";

const KILLER: &str = "no_acknowledged_write_is_superseded_by_one_that_was_before_it";

/// What the killer finds.
const FOUND: [Mutant; 7] = [
    Mutant::StaleCountsInRoundOne,
    Mutant::FewerAnswersThanNeeded,
    Mutant::StaleOutOfSyncCounts,
    Mutant::UnconfirmedCounts,
    Mutant::StaleWriteAcked,
    Mutant::AckTooEarly,
    Mutant::RepairUnchecked,
];

/// Plants the defect that this process is to have, if any.
pub fn plant() {
    let Ok(name) = env::var(VARIABLE) else { return };
    Mutant::named(&name).unwrap_or_else(|| panic!("{VARIABLE}={name}: there is no such defect")).plant();
}

#[test]
fn without_any_of_its_rules_a_write_breaks_a_promise() {
    for mutant in FOUND {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", KILLER, "--nocapture"]).env(VARIABLE, format!("{mutant:?}")).env_remove("MODEL");
        let output = command.stderr(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let broken = text.lines().find(|line| line.starts_with("broken: "));
        println!("{mutant:?} {}", broken.unwrap_or("SURVIVES"));
        assert!(broken.is_some() && text.contains("test result: FAILED"), "{mutant:?} survives: {text}");
    }
}
