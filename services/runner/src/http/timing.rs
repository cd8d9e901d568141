//! `Server-Timing`, as a node tells where a request's time went on its side. Read only of the requests that somebody wants to
//! know more about.

use std::time::Duration;

use load::{LegPart, Parts};

/// Its parts; nothing for those that it does not tell. The header is the node's word: it is not trusted to make sense.
pub(super) fn parts(header: &[u8]) -> Parts {
    let mut parts = Parts::default();
    for metric in metrics(header) {
        match metric.name {
            "handler" => parts.handler = metric.took,
            "mesh" => parts.mesh = metric.took,
            "queue" => parts.server_queue = metric.took,
            "leg" if metric.took > parts.leg && metric.description.is_some_and(|leg| leg.ends_with("won")) => {
                parts.leg = metric.took;
                parts.leg_queued = Some(metric.peer_queue + metric.queue);
            }
            _ => {}
        }
    }
    parts
}

/// Its legs.
pub(super) fn legs(header: &[u8]) -> Vec<LegPart> {
    let legs = metrics(header).filter(|metric| metric.name == "leg");
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let leg = |leg: Metric<'_>| {
        let (peer, outcome) = leg.description?.split_once(' ')?;
        Some(LegPart {
            peer: peer.to_owned(),
            outcome: outcome.to_owned(),
            ms: ms(leg.took?),
            peer_queue_ms: ms(leg.peer_queue),
            own_queue_ms: ms(leg.queue),
        })
    };
    legs.filter_map(leg).collect()
}

#[derive(Default)]
struct Metric<'a> {
    name: &'a str,
    took: Option<Duration>,
    description: Option<&'a str>,
    queue: Duration,
    peer_queue: Duration,
}

/// All metrics. No description of a node holds a comma or a semicolon.
fn metrics(header: &[u8]) -> impl Iterator<Item = Metric<'_>> {
    let text = std::str::from_utf8(header).unwrap_or_default();
    text.split(',').map(|metric| {
        let mut parameters = metric.split(';').map(str::trim);
        let mut read = Metric { name: parameters.next().unwrap_or_default(), ..Metric::default() };
        let millis = |value: &str| value.parse().ok().and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok());
        for (key, value) in parameters.filter_map(|parameter| parameter.split_once('=')) {
            match key {
                "dur" => read.took = millis(value),
                "desc" => read.description = Some(value.trim_matches('"')),
                "queue" => read.queue = millis(value).unwrap_or_default(),
                "peer-queue" => read.peer_queue = millis(value).unwrap_or_default(),
                _ => {}
            }
        }
        read
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_is_understood() {
        let header =
            b"queue;dur=0.300, mesh;dur=2.000, handler;dur=2.500, leg;dur=1.250;desc=\"00ab hedge won\";queue=0.050;peer-queue=1.000, leg;dur=0.1;desc=\"00cd lost\"";
        let ms = |ms: f64| Some(Duration::from_secs_f64(ms / 1e3));
        let (handler, mesh, leg, leg_queued, server_queue) = (ms(2.5), ms(2.0), ms(1.25), ms(1.05), ms(0.3));
        assert_eq!(parts(header), Parts { handler, mesh, leg, leg_queued, server_queue, ..Parts::default() });
        let legs = legs(header);
        let (peer, outcome) = ("00ab".to_owned(), "hedge won".to_owned());
        assert_eq!(legs[0], LegPart { peer, outcome, ms: 1.25, peer_queue_ms: 1.0, own_queue_ms: 0.05 });
        assert_eq!((legs.len(), legs[1].outcome.as_str()), (2, "lost"));
    }

    #[test]
    fn nonsense_is_nothing() {
        for header in [
            &b""[..],
            b"\xff",
            b"mesh",
            b"mesh;dur=x, handler;dur=-1",
            b"handler;dur=1e999;dur",
            b",,;=;",
            b"leg;queue=-1",
        ] {
            assert_eq!(parts(header), Parts::default());
            assert!(legs(header).is_empty());
        }
    }
}
