//! A little load: many requests in parallel, and what their latencies came to. The real load generator is itself a subject
//! of these tests, so it cannot be their tool.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

/// Runs `job` once for each of `0..count`, `width` at a time, and returns the results in order.
pub async fn in_parallel<T, F>(width: usize, count: usize, job: impl Fn(usize) -> F + Send + Sync + 'static) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let job = Arc::new(job);
    let mut lanes = JoinSet::new();
    for lane in 0..width {
        let job = Arc::clone(&job);
        lanes.spawn(async move {
            let mut results = Vec::new();
            for index in (lane..count).step_by(width) {
                results.push((index, job(index).await));
            }
            results
        });
    }
    let mut results: Vec<(usize, T)> = lanes.join_all().await.into_iter().flatten().collect();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Latencies, sorted.
#[derive(Clone, Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Of at least one request.
    pub fn new(latencies: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = latencies.into_iter().collect();
        assert!(!sorted.is_empty(), "no requests, no latencies");
        sorted.sort_unstable();
        Self(sorted)
    }

    /// The latency that this share of the requests, in percent, did not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}

#[tokio::test]
async fn every_job_runs_once_and_in_its_place() {
    let results = in_parallel(7, 100, async |index| index * 2).await;
    assert_eq!(results, (0..100).map(|index| index * 2).collect::<Vec<_>>());
}

#[test]
fn percentiles_are_ranks() {
    let latencies = Latencies::new((1..=200).rev().map(Duration::from_millis));
    assert_eq!(latencies.percentile(50), Duration::from_millis(100));
    assert_eq!(latencies.percentile(99), Duration::from_millis(198));
    assert_eq!(latencies.percentile(100), Duration::from_millis(200));
}
