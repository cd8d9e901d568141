//! `events.ndjson`: what happened in a run, one JSON object a line, in the order of time. Each has a `kind` and an `action`, and its time
//! as seconds after the load began (`at_s`, below zero before it) and as milliseconds of the Unix clock (`unix_ms`).

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    Moment,
    exec::{Milestones, Standstill},
    faults::FaultRecord,
    report::Verdict,
};

/// One thing that happened.
#[derive(Debug, Serialize)]
struct RunEvent<'a> {
    at_s: f64,
    unix_ms: u64,
    kind: &'a str,
    action: &'a str,
    /// The fault's word in FAULTS.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    /// The place of the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    /// The node that saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a Verdict>,
}

/// What events are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened<'a> {
    pub(crate) times: &'a Milestones,
    pub(crate) moments: &'a [Moment],
    pub(crate) faults: &'a [FaultRecord],
    pub(crate) standstills: &'a [Standstill],
    pub(crate) verdict: &'a Verdict,
}

impl Happened<'_> {
    /// Writes them all.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut events = self.events();
        events.sort_by_key(|event| event.unix_ms);
        for event in events {
            serde_json::to_writer(&mut *to, &event)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }

    /// When the load began, in milliseconds of the Unix clock; the end of a run that had none.
    pub(crate) const fn load_began_ms(&self) -> u64 {
        if self.times.load_began > 0 { self.times.load_began } else { self.times.ended }
    }

    const fn stages(&self) -> [(&'static str, u64, u64); 3] {
        let times = self.times;
        [
            ("prefill", times.prefill_began, times.prefill_ended),
            ("load", times.load_began, times.load_ended),
            ("sweep", times.sweep_began, times.sweep_ended),
        ]
    }

    fn events(&self) -> Vec<RunEvent<'_>> {
        let mut events = Vec::new();
        let Milestones { ended: ended_ms, .. } = *self.times;
        for (stage, began_ms, stage_ended_ms) in self.stages().into_iter().filter(|(_, began_ms, _)| *began_ms > 0) {
            events.push(self.at(began_ms, stage, "begun"));
            // One that is given up ends with the run.
            events.push(self.at(if stage_ended_ms > 0 { stage_ended_ms } else { ended_ms }, stage, "ended"));
        }
        for Moment { action, kind, target, unix_ms } in self.moments {
            events.push(RunEvent { fault: Some(kind), target: Some(target), ..self.at(*unix_ms, "fault", action) });
        }
        for fault in self.faults {
            for survivor in &fault.survivors {
                for (at_s, action) in [(survivor.dead_at_s, "seen_dead"), (survivor.alive_at_s, "seen_alive")] {
                    let Some(at_s) = at_s else { continue };
                    let (target, seen_by) = (fault.targets.first().map(String::as_str), Some(survivor.node.as_str()));
                    events.push(RunEvent {
                        fault: Some(&fault.kind),
                        target,
                        seen_by,
                        ..self.after(at_s, "fault", action)
                    });
                }
            }
        }
        for Standstill { from_s, to_s } in self.standstills {
            events.push(self.after(*from_s, "standstill", "begun"));
            events.push(self.after(*to_s, "standstill", "ended"));
        }
        events.push(RunEvent { verdict: Some(self.verdict), ..self.at(ended_ms, "verdict", "given") });
        events
    }

    fn at<'a>(&self, unix_ms: u64, kind: &'a str, action: &'a str) -> RunEvent<'a> {
        let at_s = (unix_ms as f64 - self.load_began_ms() as f64) / 1e3;
        RunEvent { at_s, unix_ms, kind, action, fault: None, target: None, seen_by: None, verdict: None }
    }

    fn after<'a>(&self, at_s: f64, kind: &'a str, action: &'a str) -> RunEvent<'a> {
        RunEvent { at_s, ..self.at(self.load_began_ms() + (at_s * 1e3) as u64, kind, action) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::faults::Survivor;

    #[test]
    fn events_stand_in_the_order_of_time() {
        let (began_ms, load_began_ms) = (1_000_000, 1_005_000);
        let times = Milestones {
            prefill_began: began_ms,
            prefill_ended: began_ms,
            load_began: load_began_ms,
            load_ended: load_began_ms + 9000,
            ended: load_began_ms + 10_000,
            ..Milestones::default()
        };
        let survivor = Survivor { node: "b".to_owned(), dead_at_s: Some(2.5), alive_at_s: None };
        let crash = FaultRecord { survivors: vec![survivor], ..FaultRecord::example(1, 1.0) };
        let begun = Moment {
            action: "begun".into(),
            kind: "crash".into(),
            target: "a".to_owned(),
            unix_ms: load_began_ms + 1000,
        };
        let happened = Happened {
            times: &times,
            moments: &[begun],
            faults: &[crash],
            standstills: &[Standstill { from_s: 3.0, to_s: 3.5 }],
            verdict: &Verdict::default(),
        };
        let mut text = Vec::new();
        happened.write(&mut text).unwrap();
        let events: Vec<Value> =
            String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let words: Vec<_> = events.iter().map(|event| format!("{} {}", event["kind"], event["action"])).collect();
        let expected = [
            "prefill begun",
            "prefill ended",
            "load begun",
            "fault begun",
            "fault seen_dead",
            "standstill begun",
            "standstill ended",
            "load ended",
            "verdict given",
        ];
        assert_eq!(words, expected.map(|words| format!("\"{}\"", words.replace(' ', "\" \""))));
        assert_eq!((&events[0]["at_s"], &events[3]["at_s"]), (&(-5.0).into(), &1.0.into()));
        assert_eq!(events[4]["unix_ms"], load_began_ms + 2500);
        assert_eq!((&events[4]["seen_by"], &events[8]["verdict"]["exit_code"]), (&"b".into(), &0.into()));
    }
}
