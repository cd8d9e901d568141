//! What one node is told to do to itself, in the form of `POST /fault`, and how the faults of FAULTS come to that.

use serde::Serialize;

use super::plan::{FaultKind, Place, PlannedFault};
use crate::NodeIndex;

/// An order for one node: all of it begins at once and ends after `for_ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FaultRequest {
    /// How long it lasts, in milliseconds.
    pub for_ms: u64,
    /// What happens to its links.
    pub links: Vec<LinkFaultRequest>,
    /// How much later everything leaves it, in milliseconds.
    pub slow_ms: u64,
    /// How far off its wall clock is, in milliseconds.
    pub clock_offset_ms: i64,
}

/// What happens between the node and a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkFaultRequest {
    /// The peer's id; `*` is everybody.
    pub peer: String,
    /// `in`, `out` or `both`, seen from the node.
    pub direction: &'static str,
    /// Nothing gets through.
    pub cut: bool,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// The share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Added to every packet's way, in milliseconds.
    pub delay_ms: u64,
    /// Up to this much more, at random, in milliseconds.
    pub jitter_ms: u64,
    /// The period of a fault that comes and goes, in milliseconds; 0 stays.
    pub flap_ms: u64,
}

/// Who is in the mesh.
pub(crate) struct Ids<'a> {
    /// The ids of the targets.
    pub(crate) targets: &'a [Option<String>],
    /// All members' that any target knows.
    pub(crate) members: &'a [String],
}

impl PlannedFault {
    /// Which nodes are told what, to bring this fault about. Each link is broken at one of its ends: at both, what happens by
    /// chance would happen twice.
    pub(crate) fn orders(&self, ids: &Ids<'_>) -> Result<Vec<(NodeIndex, FaultRequest)>, String> {
        let whole = FaultRequest {
            for_ms: u64::try_from(self.entry.lasts.as_millis()).unwrap_or(u64::MAX),
            ..FaultRequest::default()
        };
        let first = self.nodes[0];
        match self.entry.kind {
            FaultKind::Slow { by } => {
                let slow_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
                return Ok(vec![(first, FaultRequest { slow_ms, ..whole })]);
            }
            FaultKind::Clock { offset_ms } => {
                return Ok(vec![(first, FaultRequest { clock_offset_ms: offset_ms, ..whole })]);
            }
            _ => {}
        }
        let link = self.link();
        let to = |peer: String, direction| LinkFaultRequest { peer, direction, ..link.clone() };
        let id = |node: &NodeIndex| {
            ids.targets[node.0].clone().ok_or_else(|| "a node did not say its id at the start of the load".to_owned())
        };
        match self.entry.place {
            Place::Node(_) => Ok(vec![(first, FaultRequest { links: vec![to("*".to_owned(), "both")], ..whole })]),
            Place::Link { one_way, .. } => {
                let direction = if one_way { "out" } else { "both" };
                Ok(vec![(first, FaultRequest { links: vec![to(id(&self.nodes[1])?, direction)], ..whole })])
            }
            Place::Group(_) => {
                let group = self.nodes.iter().map(id).collect::<Result<Vec<_>, _>>()?;
                let others = ids.members.iter().filter(|id| !group.contains(id));
                let links: Vec<_> = others.map(|id| to(id.clone(), "both")).collect();
                let order = FaultRequest { links, ..whole };
                Ok(self.nodes.iter().map(|node| (*node, order.clone())).collect())
            }
        }
    }

    /// What happens to each link.
    fn link(&self) -> LinkFaultRequest {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let none = LinkFaultRequest::default();
        match self.entry.kind {
            FaultKind::Flap { every } => LinkFaultRequest { cut: true, flap_ms: ms(every), ..none },
            FaultKind::Loss { percent } => LinkFaultRequest { loss: percent / 100.0, ..none },
            FaultKind::Delay { by } => LinkFaultRequest { delay_ms: ms(by), ..none },
            FaultKind::Reorder { by } => LinkFaultRequest { jitter_ms: ms(by), ..none },
            FaultKind::Duplicate { percent } => LinkFaultRequest { duplicate: percent / 100.0, ..none },
            _ => LinkFaultRequest { cut: true, ..none },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::faults::plan::FaultPlan;

    /// Of four members three are targets.
    fn orders(text: &str) -> Vec<(usize, FaultRequest)> {
        let targets = ["a", "b", "c"].map(str::to_owned);
        let find = |name: &str| targets.iter().position(|target| target == name);
        let plan: FaultPlan = format!("at=1s {text}").parse().unwrap();
        let faults = plan.resolve(&targets, Duration::from_secs(60), find).unwrap();
        let ids = targets.clone().map(|target| Some(format!("id-{target}")));
        let members = ["id-a", "id-b", "id-c", "id-d"].map(str::to_owned);
        let orders = faults[0].orders(&Ids { targets: &ids, members: &members }).unwrap();
        orders.into_iter().map(|(node, order)| (node.0, order)).collect()
    }

    fn told(links: &[LinkFaultRequest]) -> FaultRequest {
        FaultRequest { for_ms: 5000, links: links.to_vec(), ..FaultRequest::default() }
    }

    fn link(peer: &str, direction: &'static str) -> LinkFaultRequest {
        LinkFaultRequest { peer: peer.to_owned(), direction, ..LinkFaultRequest::default() }
    }

    #[test]
    fn each_place_breaks_its_links_at_one_end() {
        let cut = |peer, direction| LinkFaultRequest { cut: true, ..link(peer, direction) };
        assert_eq!(orders("partition b for=5s"), [(1, told(&[cut("*", "both")]))]);
        assert_eq!(orders("one_way c->a for=5s"), [(2, told(&[cut("id-a", "out")]))]);
        assert_eq!(orders("bridge b<->c for=5s"), [(1, told(&[cut("id-c", "both")]))]);
        let away = told(&[cut("id-c", "both"), cut("id-d", "both")]);
        assert_eq!(orders("partition a+b for=5s"), [(0, away.clone()), (1, away)]);
    }

    #[test]
    fn each_kind_has_its_number() {
        let a = |change: fn(&mut LinkFaultRequest)| {
            let mut link = link("*", "both");
            change(&mut link);
            vec![(0, told(&[link]))]
        };
        assert_eq!(orders("loss a 20% for=5s"), a(|link| link.loss = 0.2));
        assert_eq!(orders("duplicate a 5% for=5s"), a(|link| link.duplicate = 0.05));
        assert_eq!(orders("delay a 50ms for=5s"), a(|link| link.delay_ms = 50));
        assert_eq!(orders("reorder a 50ms for=5s"), a(|link| link.jitter_ms = 50));
        assert_eq!(orders("flap a every=1s for=5s"), a(|link| (link.cut, link.flap_ms) = (true, 1000)));
        assert_eq!(orders("slow b 50ms for=5s"), [(1, FaultRequest { slow_ms: 50, ..told(&[]) })]);
        assert_eq!(orders("clock c -1s for=5s"), [(2, FaultRequest { clock_offset_ms: -1000, ..told(&[]) })]);
    }
}
