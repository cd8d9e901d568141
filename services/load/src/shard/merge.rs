//! Several shards' measurements as those of one run. Histograms and counts are added; nothing is averaged.

use std::path::PathBuf;

use super::{RunnerShard, ShardFile};
use crate::{
    exec::{Milestones, Observed},
    plan::Plan,
    report::Report,
    stats::Recorder,
};

/// Shards whose loads began further apart, in milliseconds, did not make one load.
const APART_MAX_MS: f64 = 250.0;

/// Reads the shards of one run from their folders or files, and makes one report of them. Shards that are missing make the measurement
/// invalid.
///
/// # Errors
/// Why these are not the shards of one run.
pub fn merge(places: &[PathBuf]) -> Result<Report, String> {
    let mut shards = places.iter().map(|place| ShardFile::read(place)).collect::<Result<Vec<_>, _>>()?;
    shards.sort_by_key(|shard| shard.plan.shard.index);
    let Some(first) = shards.first() else { return Err("expected the folders of shards' results".to_owned()) };
    let (run_id, count) = (first.plan.run_id.clone(), first.plan.shard.count);
    for shard in &shards {
        let Plan { run_id: id, shard: RunnerShard { index, count: of }, targets, .. } = &shard.plan;
        if (id, *of) != (&run_id, count) {
            return Err(format!(
                "shard {index}/{of} is of run {id}, and others are of run {run_id} with {count} shards"
            ));
        }
        if *targets != first.plan.targets {
            return Err(format!("shard {index}/{of} had other TARGETS: {}", targets.join(",")));
        }
    }
    if let Some(twice) = shards.windows(2).find(|two| two[0].plan.shard == two[1].plan.shard) {
        return Err(format!("shard {} is given twice", twice[0].plan.shard));
    }
    let missing: Vec<_> =
        (0..count).filter(|index| !shards.iter().any(|shard| shard.plan.shard.index == *index)).collect();
    let first_ahead_ms = first.observed.clock.map_or(0.0, |(ahead_ms, _)| ahead_ms);
    for Observed { clock, times, .. } in shards.iter_mut().map(|shard| &mut shard.observed) {
        times.shift(clock.map_or(0.0, |(ahead_ms, _)| ahead_ms - first_ahead_ms));
    }
    let mut doubts = Doubts::default();
    if !missing.is_empty() {
        let missing: Vec<_> = missing.into_iter().map(|index| RunnerShard { index, count }.to_string()).collect();
        doubts.invalid.push(format!("these shards are missing: {}", missing.join(", ")));
    }
    doubts.compare_starts(&shards);
    let mut plan = whole_plan(&shards);
    let mut recorder = Recorder::new(plan.targets.len());
    shards.iter().for_each(|shard| recorder.merge(&shard.recorder));
    let is_one_time = order_of_counts(&shards);
    plan.reconcile &= is_one_time && doubts.invalid.is_empty();
    Ok(Report::new(&plan, &recorder, Observed { doubts, ..whole_observed(shards, run_id)? }))
}

/// Why what was measured is to be doubted, before anybody has looked at it.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    pub(crate) invalid: Vec<String>,
    pub(crate) suspect: Vec<String>,
}

impl Doubts {
    /// Whether all loads began at one time.
    fn compare_starts(&mut self, shards: &[ShardFile]) {
        let began = |ShardFile { plan, observed, .. }: &ShardFile| {
            let off_ms = observed.clock.map_or(0.0, |(_, off_ms)| off_ms);
            (observed.times.load_began as f64, off_ms, plan.shard)
        };
        let mut began: Vec<_> = shards.iter().map(began).collect();
        began.sort_by(|one, other| one.0.total_cmp(&other.0));
        if let [(first_ms, first_off, first), .., (last_ms, last_off, last)] = &began[..] {
            let apart_ms = last_ms - first_ms - first_off - last_off;
            if apart_ms > APART_MAX_MS {
                self.suspect.push(format!("shard {last} began its load {apart_ms:.0} ms after shard {first}: give all of them the same START_AT, after their prefill"));
            }
        }
    }
}

impl Milestones {
    /// Tells them by a clock that is so far behind the one that they were told by.
    fn shift(&mut self, ms: f64) {
        let Self { began, prefill_began, prefill_ended, counted_before, load_began, load_ended, .. } = self;
        let before = [began, prefill_began, prefill_ended, counted_before, load_began, load_ended];
        let Self { counted_after, sweep_began, sweep_ended, ended, .. } = self;
        let all = before.into_iter().chain([counted_after, sweep_began, sweep_ended, ended]);
        all.filter(|at| **at > 0).for_each(|at| *at = (*at as f64 + ms) as u64);
    }
}

/// What all of them were to do.
fn whole_plan(shards: &[ShardFile]) -> Plan {
    let mut plan = shards[0].plan.clone();
    let sum = |field: fn(&Plan) -> usize| shards.iter().map(|shard| field(&shard.plan)).sum();
    (plan.concurrency, plan.threads) = (sum(|plan| plan.concurrency), sum(|plan| plan.threads));
    plan.rate = plan.rate.map(|_| shards.iter().filter_map(|shard| shard.plan.rate).sum());
    let keys = shards.iter().map(|shard| shard.plan.keys.count()).sum();
    plan.keys = crate::exec::KeySpace::new(keys, plan.keys.distribution());
    plan.shard = RunnerShard::ALL;
    // Each shard alone counts less than the nodes; all of them count as much.
    plan.reconcile = true;
    plan
}

/// Whether the earliest reading of the nodes' counters came before all loads, and the latest after all of them and before all sweeps.
fn order_of_counts(shards: &[ShardFile]) -> bool {
    let each = |field: fn(&Milestones) -> u64| shards.iter().map(move |shard| field(&shard.observed.times));
    let (prefilled, began) = (each(|times| times.prefill_ended).max(), each(|times| times.load_began).min());
    let (before, after) = (each(|times| times.counted_before).min(), each(|times| times.counted_after).max());
    let ended = each(|times| times.load_ended).max();
    let swept = each(|times| times.sweep_began).filter(|at| *at > 0).min();
    prefilled <= before && before <= began && ended <= after && swept.is_none_or(|swept| after <= Some(swept))
}

/// What all of them saw.
fn whole_observed(shards: Vec<ShardFile>, run_id: String) -> Result<Observed, String> {
    let mut all = shards.into_iter().map(|shard| shard.observed);
    let mut whole = all.next().unwrap_or_default();
    all.try_for_each(|other| whole.merge(other))?;
    (whole.samples, whole.run_id) = (whole.recorded.intervals.samples()?, run_id);
    Ok(whole)
}

impl Observed {
    /// Adds another shard's. Faults, and how they went, are those of the first shard, which has ordered them.
    fn merge(&mut self, other: Self) -> Result<(), String> {
        self.prefilled += other.prefilled;
        self.prefill_time = self.prefill_time.max(other.prefill_time);
        self.load_time = self.load_time.max(other.load_time);
        self.client_cpu += other.client_cpu;
        if other.times.began < self.times.began {
            (self.times.began, self.stats_at_start) = (other.times.began, other.stats_at_start);
        }
        if other.times.counted_before < self.times.counted_before {
            self.times.counted_before = other.times.counted_before;
            (self.stats_before_load, self.served_before_load) = (other.stats_before_load, other.served_before_load);
        }
        if other.times.counted_after > self.times.counted_after {
            self.times.counted_after = other.times.counted_after;
            (self.stats_after_load, self.served_after_load) = (other.stats_after_load, other.served_after_load);
        }
        if other.times.ended > self.times.ended {
            (self.times.ended, self.stats_at_end) = (other.times.ended, other.stats_at_end);
        }
        self.times.load_began = self.times.load_began.min(other.times.load_began);
        self.times.prefill_ended = self.times.prefill_ended.max(other.times.prefill_ended);
        self.times.load_ended = self.times.load_ended.max(other.times.load_ended);
        self.times.sweep_ended = self.times.sweep_ended.max(other.times.sweep_ended);
        match (&mut self.comparisons, other.comparisons) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine, theirs) => *mine = mine.take().or(theirs),
        }
        self.recorded.intervals.merge(other.recorded.intervals)?;
        self.interrupted |= other.interrupted;
        self.swept &= other.swept;
        self.standstills.extend(other.standstills);
        self.write_concern = [self.write_concern, other.write_concern].into_iter().flatten().min();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;
    use crate::{
        NodeIndex, NodeStats, Op, OutcomeClass, Phase,
        exec::{Distribution, KeySpace},
        plan::settings::tests::plan_of,
        stats::{LatencyHistogram, Series},
    };

    const SERIES: Series =
        Series { phase: Phase::Steady, op: Op::Get, outcome: OutcomeClass::Local, node: NodeIndex(0) };

    /// What one of `count` shards measures that begins its load `late_ms` after the others: its index decides how slow it was.
    fn shard(index: u32, count: u32, late_ms: u64) -> ShardFile {
        let plan = plan_of(&[&format!("--shard={index}/{count}"), "--run-id=r", "--keys=100", "--rate=3000"]);
        let mut recorder = Recorder::new(plan.targets.len());
        for step in 1..=100 {
            recorder.response.record(SERIES, latency(index, step));
        }
        (recorder.offered, recorder.extra_tries) = (100, u64::from(index));
        let at = 1_000_000 + late_ms;
        let times = Milestones {
            began: at,
            prefill_began: at,
            prefill_ended: at + 10,
            counted_before: at + 20 + u64::from(index),
            load_began: at + 30,
            load_ended: at + 1030,
            counted_after: at + 1040 + u64::from(index),
            sweep_began: at + 3000,
            sweep_ended: at + 3900,
            ended: at + 4000,
        };
        let stats = |hits| vec![Some(NodeStats { hits, ..NodeStats::default() })];
        let observed = Observed {
            prefilled: plan.keys.count().into(),
            stats_at_start: stats(10),
            stats_after_load: stats(20 + u64::from(index)),
            times,
            clock: Some((0.0, 1.0)),
            ..Observed::default()
        };
        ShardFile::new(plan, recorder, observed)
    }

    fn latency(index: u32, step: u32) -> Duration {
        Duration::from_micros(u64::from(step * (index * 7 + 1) * 13))
    }

    fn merged(shards: &[ShardFile]) -> Result<Report, String> {
        let folder = tempfile::tempdir().unwrap();
        let places = shards.iter().enumerate().map(|(place, shard)| {
            let path = folder.path().join(place.to_string());
            fs::write(&path, shard.to_bytes().unwrap()).unwrap();
            path
        });
        merge(&places.collect::<Vec<_>>())
    }

    #[test]
    fn merged_percentiles_are_those_of_all_samples_together() {
        let report = merged(&[shard(2, 3, 0), shard(0, 3, 0), shard(1, 3, 0)]).unwrap();
        let mut all = LatencyHistogram::default();
        (0..3).for_each(|index| (1..=100).for_each(|step| all.record(latency(index, step))));
        let row = report.rows.iter().find(|row| row.table == "all").unwrap();
        let ms = |percent| all.percentile(percent).as_secs_f64() * 1e3;
        assert_eq!((row.count, row.p50_ms, row.p99_ms, row.p999_ms), (300, ms(50.0), ms(99.0), ms(99.9)));
        assert_eq!((report.totals.total, report.totals.extra_tries, report.prefilled), (300, 3, 100));
        assert_eq!((report.setup.keys.count(), report.setup.rate), (100, Some(3000.0)));
        assert_eq!(report.lag.unwrap().offered, 300);
        // The nodes count what all shards do: the last reading is that of all.
        assert_eq!(report.counters.hits, 22);
        assert!(report.verdict.invalid.is_empty() && report.verdict.suspect.is_empty(), "{:?}", report.verdict);
    }

    #[test]
    fn the_books_of_all_shards_are_compared_only_if_they_were_read_around_all_loads() {
        let times = |late_ms| [shard(0, 2, 0), shard(1, 2, late_ms)];
        assert!(order_of_counts(&times(0)) && order_of_counts(&times(5)));
        assert!(!order_of_counts(&times(15)), "the second was still prefilling");
        assert!(!order_of_counts(&times(2500)), "the first was sweeping");
    }

    #[test]
    fn a_shard_that_is_missing_makes_the_measurement_invalid() {
        let verdict = merged(&[shard(0, 3, 0), shard(2, 3, 0)]).unwrap().verdict;
        assert_eq!(verdict.invalid, ["these shards are missing: 1/3"]);
        assert_eq!(verdict.exit_code, 2);
    }

    #[test]
    fn a_shard_that_began_late_makes_it_suspect() {
        let suspect = |late_ms| merged(&[shard(0, 2, 0), shard(1, 2, late_ms)]).unwrap().verdict.suspect;
        assert_eq!(suspect(250), [""; 0]);
        assert!(suspect(400)[0].starts_with("shard 1/2 began its load 398 ms after shard 0/2"), "{:?}", suspect(400));
        let mut ahead = shard(1, 2, 400);
        ahead.observed.clock = Some((-400.0, 1.0));
        assert_eq!(merged(&[shard(0, 2, 0), ahead]).unwrap().verdict.suspect, [""; 0], "its clock is ahead");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let mut other = shard(1, 2, 0);
        other.plan.run_id = "s".to_owned();
        assert_eq!(
            merged(&[shard(0, 2, 0), other]).unwrap_err(),
            "shard 1/2 is of run s, and others are of run r with 2 shards"
        );
        assert!(merged(&[shard(0, 2, 0), shard(1, 3, 0)]).unwrap_err().starts_with("shard 1/3 is of run r"));
        assert_eq!(merged(&[shard(1, 2, 0), shard(1, 2, 0)]).unwrap_err(), "shard 1/2 is given twice");
        assert!(merge(&[Path::new("/no/such").to_owned()]).unwrap_err().starts_with("/no/such: "));
        assert!(merge(&[]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let bytes = shard(0, 2, 0).to_bytes().unwrap();
        for (name, bytes, expected) in [
            ("text", &b"{}"[..], "expected a shard's results"),
            ("short", &bytes[..bytes.len() / 2], "damaged"),
            ("long", &[&bytes[..], b"x"].concat(), "damaged"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let reason = merge(&[path]).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn shards_share_keys_so_that_each_has_its_own() {
        for distribution in ["uniform", "zipf:0.99", "sequential", "latest", "hotspot:90/10"] {
            let distribution: Distribution = distribution.parse().unwrap();
            let mut dice = rand::rng();
            for index in 0..3 {
                let keys = KeySpace::of_shard(100, distribution, RunnerShard { index, count: 3 });
                assert_eq!(keys.count(), 33 + u32::from(index == 0));
                for op in Op::ALL.into_iter().cycle().take(300) {
                    let key = keys.choose(op, Duration::ZERO, &mut dice).get();
                    assert!(key % 3 == index as usize && key < 100, "{distribution} {index}: {key}");
                }
            }
        }
    }
}
