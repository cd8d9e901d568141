//! `report.html`: one file with all that it needs, made of a run's other files. What comes from the run stands in it as JSON in which no
//! `<` is left, and the page's script sets it as text, so that nothing in it can become markup.

use serde_json::{Map, Value, json};

use super::intervals::StoredInterval;
use crate::{Op, stats::LatencyHistogram};

const PAGE: &str = include_str!("assets/report.html");
const STYLE: &str = include_str!("assets/report.css");
const SCRIPT: &str = include_str!("assets/report.js");
/// uPlot (MIT, its licence is beside it) draws the charts.
const UPLOT: &str = include_str!("assets/uplot.js");
const UPLOT_STYLE: &str = include_str!("assets/uplot.css");
const UPLOT_LICENCE: &str = include_str!("assets/uplot-LICENSE");

/// More points than this are more than a screen shows: neighbours are merged.
const POINTS_MAX: usize = 600;

/// What of the result the page does not show.
const LEFT_OUT: [&str; 6] = ["samples", "failed", "traces", "counters", "divergences", "integrity"];

/// Points of a percentile curve for each power of ten.
const POINTS_PER_POWER: u32 = 16;

/// Rows of the heat map for each doubling of the latency.
const ROWS_PER_DOUBLING: f64 = 4.0;

/// Makes the page of a result and its intervals.
pub(crate) fn page(result: &Value, intervals: &[StoredInterval]) -> String {
    let merged = merge(intervals);
    let data = json!({
        "t": merged.iter().map(|one| rounded((one.from + one.lasted).as_secs_f64())).collect::<Vec<_>>(),
        "rate": merged.iter().map(|one| (one.count() as f64 / one.lasted.as_secs_f64().max(1e-3)).round()).collect::<Vec<_>>(),
        "errors": errors(result, &merged),
        "ops": ops(&merged),
        "curves": curves(result),
        "heat": heat(&merged),
        "seed": result["setup"]["seed"].to_string(),
        "result": pruned(result),
    });
    let data = data.to_string().replace('<', "\\u003c");
    let licence: String = UPLOT_LICENCE.lines().map(|line| format!(" * {line}\n")).collect();
    let uplot = format!("/* uPlot:\n{licence} */\n{UPLOT}");
    // The data comes last: whatever stands in it is not replaced any more.
    let parts =
        [("@@STYLE@@", &format!("{UPLOT_STYLE}\n{STYLE}")), ("@@UPLOT@@", &uplot), ("@@SCRIPT@@", &SCRIPT.to_owned())];
    let page = parts.into_iter().fold(PAGE.to_owned(), |page, (mark, text)| page.replacen(mark, text, 1));
    page.replacen("@@DATA@@", &data, 1)
}

/// Neighbours together, until there are few enough.
fn merge(intervals: &[StoredInterval]) -> Vec<StoredInterval> {
    let together = intervals.len().div_ceil(POINTS_MAX).max(1);
    let merged = intervals.chunks(together).map(|chunk| {
        let mut sum = chunk[0].clone();
        for next in &chunk[1..] {
            sum.lasted += next.lasted;
            sum.ops.iter_mut().zip(&next.ops).for_each(|(sum, next)| sum.merge(next));
        }
        sum
    });
    merged.collect()
}

/// Failed operations a second, from the result's samples; none where there is no sample.
fn errors(result: &Value, merged: &[StoredInterval]) -> Vec<Value> {
    let samples = result["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors = merged.iter().map(|interval| {
        let (from, to) = (interval.from.as_secs_f64(), (interval.from + interval.lasted).as_secs_f64());
        // Intervals are stored to the millisecond.
        let within =
            |sample: &&Value| sample["at_s"].as_f64().is_some_and(|at_s| at_s > from + 0.001 && at_s <= to + 0.001);
        let count: u64 = samples.iter().filter(within).filter_map(|sample| sample["errors"].as_u64()).sum();
        json!(rounded(count as f64 / interval.lasted.as_secs_f64().max(1e-3)))
    });
    errors.collect()
}

/// Percentiles of each operation over time; nothing where it did not end.
fn ops(merged: &[StoredInterval]) -> Value {
    let mut ops = Map::new();
    for op in Op::ALL {
        let of = |percent: f64| -> Vec<Option<f64>> {
            let responses = merged.iter().map(|interval| &interval.ops[op as usize]);
            responses.map(|response| (response.count() > 0).then(|| ms(response, percent))).collect()
        };
        let p50 = of(50.0);
        if p50.iter().any(Option::is_some) {
            ops.insert(op.name().to_owned(), json!({"p50": p50, "p99": of(99.0), "p999": of(99.9)}));
        }
    }
    ops.into()
}

/// From the buckets of the result: for one operation in so many that took longer, how long it took at least.
fn curves(result: &Value) -> Vec<Value> {
    let rows = result["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut curves = Vec::new();
    for row in rows.iter().filter(|row| matches!(row["table"].as_str(), Some("all" | "service"))) {
        let buckets: Vec<(f64, f64)> = serde_json::from_value(row["buckets"].clone()).unwrap_or_default();
        let total: f64 = buckets.iter().map(|(_, count)| count).sum();
        let (mut points, mut seen, mut buckets) = (Vec::new(), 0.0, buckets.into_iter());
        let mut bound = 0.0;
        for step in 0.. {
            let one_in = 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_POWER));
            if one_in > total {
                break;
            }
            let rank = (total * (1.0 - 1.0 / one_in)).ceil().max(1.0);
            while seen < rank {
                let Some((upper, count)) = buckets.next() else { break };
                (seen, bound) = (seen + count, upper);
            }
            points.push(json!([rounded(one_in), rounded(bound / 1e6)]));
        }
        let is_service = row["table"] == "service";
        curves.push(json!({"name": row["label"], "is_service": is_service, "points": points}));
    }
    curves
}

/// How many operations took how long in each interval: the first row that is not empty, and the counts from there on.
fn heat(merged: &[StoredInterval]) -> Value {
    let row = |nanos: u64| ((nanos.max(1) as f64).log2() * ROWS_PER_DOUBLING) as usize;
    let mut columns: Vec<Vec<(usize, u64)>> = Vec::new();
    for interval in merged {
        let buckets = interval.ops.iter().flat_map(LatencyHistogram::buckets);
        columns.push(buckets.map(|(bound, count)| (row(bound), count)).collect());
    }
    let rows = || columns.iter().flatten().map(|(row, _)| *row);
    let (first, last) = (rows().min().unwrap_or(80), rows().max().unwrap_or(81));
    let column = |column: &Vec<(usize, u64)>| {
        let (low, high) = (column.iter().map(|(row, _)| *row).min(), column.iter().map(|(row, _)| *row).max());
        let (low, high) = (low.unwrap_or(first), high.unwrap_or(first));
        let mut counts = vec![0; high - low + 1];
        column.iter().for_each(|(row, count)| counts[row - low] += count);
        [vec![(low - first) as u64], counts].concat()
    };
    let edge = |row: usize| rounded((row as f64 / ROWS_PER_DOUBLING).exp2() / 1e6);
    let edges: Vec<f64> = (first..=last + 1).map(edge).collect();
    json!({"edges_ms": edges, "cells": columns.iter().map(column).collect::<Vec<_>>()})
}

fn pruned(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(fields) = result.as_object_mut() {
        LEFT_OUT.iter().for_each(|field| {
            fields.remove(*field);
        });
    }
    let rows = result["rows"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
    rows.for_each(|row| {
        row.remove("buckets");
    });
    result
}

fn ms(response: &LatencyHistogram, percent: f64) -> f64 {
    rounded(response.percentile(percent).as_secs_f64() * 1e3)
}

/// Four digits are more than a chart shows.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    if scale.is_finite() && scale > 0.0 { (value * scale).round() / scale } else { value }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::full_report;

    fn intervals(count: u32) -> Vec<StoredInterval> {
        let interval = |at: u32| {
            let mut one = StoredInterval {
                from: Duration::from_millis(500) * at,
                lasted: Duration::from_millis(500),
                ..StoredInterval::default()
            };
            for op in Op::ALL {
                (0..300).for_each(|nanos| one.ops[op as usize].record_many(100_000 + nanos * nanos * 10_000, 17));
            }
            one
        };
        (0..count).map(interval).collect()
    }

    #[test]
    fn what_comes_from_outside_is_never_markup() {
        let evil = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>";
        let mut report = full_report();
        report.setup.targets[0] = evil.to_owned();
        report.errors[0].first = evil.to_owned();
        report.settings.insert("TARGETS".to_owned(), format!("{evil}@@DATA@@@@SCRIPT@@"));
        let clean = page(&serde_json::to_value(full_report()).unwrap(), &intervals(4));
        let page = page(&serde_json::to_value(report).unwrap(), &intervals(4));
        assert_eq!(page.matches('<').count(), clean.matches('<').count(), "no tag has come in");
        assert!(!page.contains("alert(1)</script>") && page.contains("alert(1)\\u003c/script>"));
        let data = page.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).unwrap().0;
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["result"]["setup"]["targets"][0], evil);
        for from_network in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!page.contains(from_network), "{from_network}");
        }
        assert!(page.contains("Permission is hereby granted"), "uPlot's licence goes with it");
    }

    #[test]
    fn a_report_of_two_minutes_is_small_and_one_of_a_day_hardly_larger() {
        let result = serde_json::to_value(full_report()).unwrap();
        let (minutes, day) = (page(&result, &intervals(240)), page(&result, &intervals(6000)));
        assert!(minutes.len() < 400_000 && day.len() < 800_000, "{} and {} bytes", minutes.len(), day.len());
    }

    #[test]
    fn figures_are_those_of_the_run() {
        let merged = merge(&intervals(1201));
        assert_eq!((merged.len(), merged[0].count(), merged[400].count()), (401, 3 * 3 * 5100, 3 * 5100));
        assert_eq!(merged[400].lasted, Duration::from_millis(500));
        let heat = heat(&merged);
        let cells: u64 = heat["cells"][400].as_array().unwrap()[1..].iter().filter_map(Value::as_u64).sum();
        assert_eq!(cells, 3 * 5100);
        let result = json!({"rows": [{"table": "all", "label": "GET", "buckets": [[1_000_000, 900], [5_000_000, 99], [9_000_000, 1]]}]});
        let points = &curves(&result)[0]["points"];
        let at = |one_in: f64| points.as_array().unwrap().iter().find(|point| point[0] == one_in).unwrap()[1].as_f64();
        assert_eq!((at(1.0), at(10.0), at(100.0), at(1000.0)), (Some(1.0), Some(1.0), Some(5.0), Some(5.0)));
        assert_eq!((rounded(1234.56), rounded(0.001_234_56), rounded(0.0)), (1235.0, 0.001_235, 0.0));
    }
}
