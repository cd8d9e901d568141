//! What looks like a broken guarantee and is none: evictions, expiry, other clients, and failures beyond what is promised.

use super::{Report, numbers::grouped};
use crate::{Violation, faults::dead_at_once};

impl Report {
    /// Moves what has an explanation out of the violations.
    pub(super) fn explain(&mut self) {
        let (is_explained, is_allowed) = (!self.miss_explanations().is_empty(), self.losses_allowed().is_some());
        for violation in Violation::ALL {
            let at_most = match violation {
                _ if is_allowed && violation.may_be_a_loss() => u64::MAX,
                Violation::OutOfOrder if self.order_not_promised().is_some() => u64::MAX,
                // An owner of each key that a quorum lacks must have evicted it: beyond that, keys are lost.
                Violation::Lost if self.only_evictions_explain() => self.evicted_keys_max,
                _ if is_explained && violation.may_be_an_eviction() => u64::MAX,
                _ => 0,
            };
            self.integrity.explain(violation, at_most);
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.explained = self.integrity.explained(Violation::Lost);
            sweep.lost = self.integrity.of(Violation::Lost);
        }
    }

    /// Whether nothing but evictions explains a miss.
    fn only_evictions_explain(&self) -> bool {
        self.evicted > 0 && self.integrity.overwritten == 0 && (self.expired == 0 || self.setup.ttl.is_some())
    }

    /// Comparisons that found a node behind, and nothing explains it.
    pub(crate) fn unexplained_divergences(&self) -> usize {
        self.divergences.iter().filter(|found| !(found.has_nothing && self.evicted > 0)).count()
    }

    /// What may explain a miss other than a lost write, in words; empty if nothing does.
    #[must_use]
    pub(crate) fn miss_explanations(&self) -> Vec<String> {
        let mut explanations = Vec::new();
        // Where the load itself says how long values live, the checker knows which may have expired.
        if self.evicted > 0 || (self.expired > 0 && self.setup.ttl.is_none()) {
            explanations.push(format!("{} evicted, {} expired", grouped(self.evicted), grouped(self.expired)));
        }
        if self.integrity.overwritten > 0 {
            explanations.push(format!(
                "another client wrote {} of these values meanwhile",
                grouped(self.integrity.overwritten)
            ));
        }
        explanations.extend(self.losses_allowed());
        explanations
    }

    /// What explains all that is explained, in words.
    pub(crate) fn explanations(&self) -> Vec<String> {
        let is_explained = self.integrity.explained(Violation::OutOfOrder) > 0;
        let order = self.order_not_promised().filter(|_| is_explained);
        self.miss_explanations().into_iter().chain(order.map(str::to_owned)).collect()
    }

    /// Two writes that one owner each has acknowledged need not have met, so neither knows of the other's version.
    fn order_not_promised(&self) -> Option<&'static str> {
        (self.write_concern == Some(1)).then_some("WRITE_CONCERN=1 promises no order of writes")
    }

    /// As many nodes had crashed at once as must have applied a write: nothing is promised for what they alone held. Or the targets
    /// promise nothing once one of them was restarted, or another took its place.
    pub(super) fn losses_allowed(&self) -> Option<String> {
        if let Some(why) = &self.not_kept_because {
            return Some(format!("{why}, and these targets do not promise to keep acknowledged writes then"));
        }
        let (concern, dead) = (self.write_concern?, dead_at_once(&self.faults));
        let nodes = if dead == 1 { "1 node was".to_owned() } else { format!("{dead} nodes were") };
        (dead >= concern).then(|| format!("{nodes} dead at once, and WRITE_CONCERN={concern} promises nothing then"))
    }
}
