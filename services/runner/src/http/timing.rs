//! `Server-Timing`, as a node tells where a request's time went on its side. Read only of the requests that somebody wants to
//! know more about.

use std::time::Duration;

use load::{LegPart, Parts};

/// Its parts; nothing for those that it does not tell. The header is the node's word: it is not trusted to make sense.
pub(super) fn parts(header: &[u8]) -> Parts {
    let mut parts = Parts::default();
    for (name, took, description) in metrics(header) {
        match name {
            "handler" => parts.handler = took,
            "mesh" => parts.mesh = took,
            "queue" => parts.server_queue = took,
            "leg" if description.is_some_and(|leg| leg.ends_with("won")) => parts.leg = parts.leg.max(took),
            _ => {}
        }
    }
    parts
}

/// Its legs.
pub(super) fn legs(header: &[u8]) -> Vec<LegPart> {
    let legs = metrics(header).filter(|(name, ..)| *name == "leg");
    let leg = |(_, took, leg): (&str, Option<Duration>, Option<&str>)| {
        let (peer, outcome) = leg?.split_once(' ')?;
        Some(LegPart { peer: peer.to_owned(), outcome: outcome.to_owned(), ms: took?.as_secs_f64() * 1e3 })
    };
    legs.filter_map(leg).collect()
}

/// Name, `dur` and `desc` of each metric. No description of a node holds a comma or a semicolon.
fn metrics(header: &[u8]) -> impl Iterator<Item = (&str, Option<Duration>, Option<&str>)> {
    let text = std::str::from_utf8(header).unwrap_or_default();
    text.split(',').map(|metric| {
        let mut parameters = metric.split(';').map(str::trim);
        let name = parameters.next().unwrap_or_default();
        let (mut took, mut description) = (None, None);
        for (key, value) in parameters.filter_map(|parameter| parameter.split_once('=')) {
            match key {
                "dur" => took = value.parse().ok().and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok()),
                "desc" => description = Some(value.trim_matches('"')),
                _ => {}
            }
        }
        (name, took, description)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_is_understood() {
        let header =
            b"queue;dur=0.300, mesh;dur=2.000, handler;dur=2.500, leg;dur=1.250;desc=\"00ab hedge won\", leg;dur=0.1;desc=\"00cd lost\"";
        let ms = |ms: f64| Some(Duration::from_secs_f64(ms / 1e3));
        let (handler, mesh, leg, server_queue) = (ms(2.5), ms(2.0), ms(1.25), ms(0.3));
        assert_eq!(parts(header), Parts { handler, mesh, leg, server_queue, ..Parts::default() });
        let legs = legs(header);
        assert_eq!(legs[0], LegPart { peer: "00ab".to_owned(), outcome: "hedge won".to_owned(), ms: 1.25 });
        assert_eq!((legs.len(), legs[1].outcome.as_str()), (2, "lost"));
    }

    #[test]
    fn nonsense_is_nothing() {
        for header in [&b""[..], b"\xff", b"mesh", b"mesh;dur=x, handler;dur=-1", b"handler;dur=1e999;dur", b",,;=;"] {
            assert_eq!(parts(header), Parts::default());
            assert!(legs(header).is_empty());
        }
    }
}
