//! KILL_AFTER, KILL_COUNT and KILL_EVERY in the terms of FAULTS: `crash` entries, one after the other.

use std::time::Duration;

use super::plan::{CrashTurn, FaultEntry, FaultKind, Place, PlannedFault};
use crate::{LoadSettings, NodeIndex, plan::Plan};

impl Plan {
    /// Adds the crashes that `settings` ask for before all other faults: of `victim`, or else of nodes that the seed draws.
    pub fn add_kills(&mut self, settings: &LoadSettings, victim: Option<NodeIndex>) {
        let Some(after) = settings.kill_after.0 else { return };
        let (count, every) = (settings.kill_count, settings.kill_every);
        let kill = |number: u32| {
            let node = victim.unwrap_or_else(|| self.draw_victim(number));
            let entry = FaultEntry {
                at: after + every * number,
                kind: FaultKind::Crash,
                place: Place::Node(self.targets[node.0].clone()),
                lasts: Duration::ZERO,
                repeat: None,
            };
            let (is_first, is_last) = (number == 0, number + 1 == count);
            let turn = (count > 1).then_some(CrashTurn { every, steady: Duration::ZERO, is_first, is_last });
            PlannedFault { entry, nodes: vec![node], turn }
        };
        let kills: Vec<_> = (0..count).map(kill).collect();
        self.faults.splice(0..0, kills);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        load: LoadSettings,
    }

    fn kills(settings: &[&str], victim: Option<usize>) -> Vec<PlannedFault> {
        let load = Settings::try_parse_from(["test", "--seed=7"].iter().chain(settings)).unwrap().load;
        let mut plan = load.plan(["a", "b", "c"].map(str::to_owned).to_vec(), 1, &crate::ValueTtls::Fixed(0));
        plan.add_kills(&load, victim.map(NodeIndex));
        plan.faults
    }

    #[test]
    fn one_kill_is_one_crash() {
        assert!(kills(&[], None).is_empty());
        let one = kills(&["--kill-after=2s"], Some(1));
        assert_eq!((one.len(), one[0].entry.to_string(), one[0].turn), (1, "crash b".to_owned(), None));
        assert_eq!((one[0].entry.at, &one[0].nodes[..]), (Duration::from_secs(2), &[NodeIndex(1)][..]));
    }

    #[test]
    fn several_kills_take_turns_and_only_random_victims_are_drawn() {
        let settings = ["--kill-after=2s", "--kill-count=20", "--kill-every=3s"];
        let (fixed, drawn) = (kills(&settings, Some(1)), kills(&settings, None));
        assert!(fixed.iter().all(|kill| kill.nodes == [NodeIndex(1)]));
        assert!((0..3).all(|node| drawn.iter().any(|kill| kill.nodes == [NodeIndex(node)])), "{drawn:?}");
        assert_eq!(drawn, kills(&settings, None), "the seed decides");
        assert_eq!(drawn[19].entry.at, Duration::from_secs(59));
        let turns: Vec<_> =
            drawn.iter().map(|kill| kill.turn.unwrap()).map(|turn| (turn.is_first, turn.is_last)).collect();
        assert_eq!((turns[0], turns[1], turns[19]), ((true, false), (false, false), (false, true)));
    }
}
