//! Which traces the client's side has kept, and why: what a run says it has seen must be there when somebody looks.

use std::{collections::BTreeMap, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::flight::Kept;
use crate::NodeIndex;

/// Traces that one thread lists for each reason; further ones are kept but only counted.
const LISTED_MAX: usize = 4096;

/// A trace that was kept.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeptTrace {
    /// Its id.
    pub trace: String,
    /// When its operation ended, in seconds after the load began.
    pub at_s: f64,
    /// The node that answered, or was tried last.
    pub node: usize,
}

/// What became of the spans that the client's side has kept, and of the traces that nodes were asked to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SpanFates {
    /// Spans handed to the exporter.
    pub kept: u64,
    /// Taken by the collector.
    pub exported: u64,
    /// Not taken in time.
    pub failed: u64,
    /// Never sent, because too many were under way.
    pub dropped: u64,
    /// Traces that nodes were asked to keep.
    pub asked: u64,
    /// Of these, those that could not be asked for.
    pub not_asked: u64,
}

/// Traces of a run.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TraceReport {
    /// Where a browser finds them.
    pub url: String,
    /// What became of the client's spans.
    pub spans: SpanFates,
    /// What was kept, by reason.
    pub kept: BTreeMap<&'static str, KeptFor>,
}

/// Those that were kept for one reason.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeptFor {
    /// How many.
    pub count: u64,
    /// The first of them. None of those that were drawn at their start: nobody looks for them.
    pub traces: Vec<KeptTrace>,
}

/// All that were kept, by reason.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
pub(crate) struct KeptTraces([KeptFor; Kept::ALL.len()]);

impl KeptTraces {
    pub(crate) fn add(&mut self, kept: Kept, trace: u128, at: Duration, node: NodeIndex) {
        let list = &mut self.0[kept as usize];
        list.count += 1;
        if kept != Kept::Sampled && list.traces.len() < LISTED_MAX {
            list.traces.push(KeptTrace { trace: format!("{trace:032x}"), at_s: at.as_secs_f64(), node: node.0 });
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.count += theirs.count;
            mine.traces.extend_from_slice(&theirs.traces);
        }
    }

    pub(crate) fn by_reason(&self) -> BTreeMap<&'static str, KeptFor> {
        Kept::ALL.into_iter().map(|kept| (kept.name(), self.0[kept as usize].clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_counts_are_not() {
        let (mut one, mut two) = (KeptTraces::default(), KeptTraces::default());
        for trace in 0..LISTED_MAX as u128 + 5 {
            one.add(Kept::Slow, trace, Duration::from_secs(1), NodeIndex(2));
        }
        two.add(Kept::Slow, 7, Duration::ZERO, NodeIndex(0));
        two.add(Kept::Sampled, 8, Duration::ZERO, NodeIndex(0));
        one.merge(&two);
        let all = one.by_reason();
        let slow = &all["slow"];
        assert_eq!((slow.count, slow.traces.len()), (LISTED_MAX as u64 + 6, LISTED_MAX + 1));
        assert_eq!(slow.traces[1].trace, format!("{:032x}", 1));
        assert_eq!((all["sampled"].count, all["sampled"].traces.len()), (1, 0));
        assert!(Kept::ALL.iter().enumerate().all(|(index, kept)| *kept as usize == index));
    }
}
