//! `events.ndjson`: what happened in a run, one JSON object a line, in the order of time. Each has a `kind` and an `action`, and its time
//! as seconds after the load began (`at_s`, below zero before it) and as milliseconds of the Unix clock (`unix_ms`).

use std::{
    borrow::Cow,
    io::{self, Write},
};

use borsh::{BorshDeserialize, BorshSerialize};
use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    Moment,
    exec::Standstill,
    faults::{FaultRecord, unix_ms},
    report::Verdict,
};

/// One thing that happened.
#[derive(Debug, Serialize)]
struct Event<'a> {
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

/// When the stages of a run began and ended. A stage that is given up ends then, too.
#[derive(Debug, Default)]
pub(crate) struct StageLog(Mutex<Vec<StageTimes>>);

/// Times of one stage, in milliseconds of the Unix clock.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug)]
pub(crate) struct StageTimes {
    pub(crate) stage: Cow<'static, str>,
    pub(crate) began_ms: u64,
    pub(crate) ended_ms: u64,
}

/// A stage that goes on until this is dropped.
pub(crate) struct Staged<'a> {
    log: &'a StageLog,
    stage: &'static str,
    began_ms: u64,
}

impl StageLog {
    /// A stage begins.
    pub(crate) fn begin(&self, stage: &'static str) -> Staged<'_> {
        Staged { log: self, stage, began_ms: unix_ms() }
    }

    /// Those that have ended, in that order.
    pub(crate) fn all(&self) -> Vec<StageTimes> {
        self.0.lock().clone()
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        let Self { stage, began_ms, .. } = *self;
        self.log.0.lock().push(StageTimes { stage: stage.into(), began_ms, ended_ms: unix_ms() });
    }
}

/// What events are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened<'a> {
    pub(crate) stages: &'a [StageTimes],
    pub(crate) moments: &'a [Moment],
    pub(crate) faults: &'a [FaultRecord],
    pub(crate) standstills: &'a [Standstill],
    pub(crate) verdict: &'a Verdict,
    pub(crate) ended_ms: u64,
    /// When the load began; the end of a run that had none.
    pub(crate) load_began_ms: u64,
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

    fn events(&self) -> Vec<Event<'_>> {
        let mut events = Vec::new();
        for stage in self.stages {
            events.push(self.at(stage.began_ms, &stage.stage, "begun"));
            events.push(self.at(stage.ended_ms, &stage.stage, "ended"));
        }
        for Moment { action, kind, target, unix_ms } in self.moments {
            events.push(Event { fault: Some(kind), target: Some(target), ..self.at(*unix_ms, "fault", action) });
        }
        for fault in self.faults {
            for survivor in &fault.survivors {
                for (at_s, action) in [(survivor.dead_at_s, "seen_dead"), (survivor.alive_at_s, "seen_alive")] {
                    let Some(at_s) = at_s else { continue };
                    let (target, seen_by) = (fault.targets.first().map(String::as_str), Some(survivor.node.as_str()));
                    events.push(Event {
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
        events.push(Event { verdict: Some(self.verdict), ..self.at(self.ended_ms, "verdict", "given") });
        events
    }

    fn at<'a>(&self, unix_ms: u64, kind: &'a str, action: &'a str) -> Event<'a> {
        let at_s = (unix_ms as f64 - self.load_began_ms as f64) / 1e3;
        Event { at_s, unix_ms, kind, action, fault: None, target: None, seen_by: None, verdict: None }
    }

    fn after<'a>(&self, at_s: f64, kind: &'a str, action: &'a str) -> Event<'a> {
        Event { at_s, ..self.at(self.load_began_ms + (at_s * 1e3) as u64, kind, action) }
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
        let log = StageLog::default();
        drop(log.begin("prefill"));
        let [StageTimes { began_ms, .. }] = *log.all() else { panic!("one stage") };
        let load_began_ms = began_ms + 5000;
        let stages = [
            log.all()[0].clone(),
            StageTimes { stage: "load".into(), began_ms: load_began_ms, ended_ms: load_began_ms + 9000 },
        ];
        let survivor = Survivor { node: "b".to_owned(), dead_at_s: Some(2.5), alive_at_s: None };
        let crash = FaultRecord { survivors: vec![survivor], ..FaultRecord::example(1, 1.0) };
        let begun = Moment {
            action: "begun".into(),
            kind: "crash".into(),
            target: "a".to_owned(),
            unix_ms: load_began_ms + 1000,
        };
        let happened = Happened {
            stages: &stages,
            moments: &[begun],
            faults: &[crash],
            standstills: &[Standstill { from_s: 3.0, to_s: 3.5 }],
            verdict: &Verdict::default(),
            ended_ms: load_began_ms + 10_000,
            load_began_ms,
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
