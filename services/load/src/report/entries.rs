//! How many operations went in through each node, and what came of them.

use serde::Serialize;

use crate::{NodeIndex, Op, OutcomeClass, plan::Plan, stats::Recorder};

/// Those of one kind and outcome at one node; none are left out.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EntryOutcome {
    /// The entry node's place among the targets.
    pub node: usize,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

impl EntryOutcome {
    pub(super) fn all(plan: &Plan, recorder: &Recorder) -> Vec<Self> {
        let mut all = Vec::new();
        for op in Op::ALL {
            for outcome in OutcomeClass::ALL {
                for node in 0..plan.targets.len() {
                    let is_one = |series: crate::stats::Series| {
                        series.op == op && series.outcome == outcome && series.node == NodeIndex(node)
                    };
                    let count = recorder.response.select(is_one).count();
                    if count > 0 {
                        all.push(Self { node, op, outcome: outcome.name(), count });
                    }
                }
            }
        }
        all
    }
}
