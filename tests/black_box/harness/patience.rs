//! Waiting for something to become true, never longer than a deadline.

use std::{
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Asks again and again until there is an answer, and says how long that took. Panics after `within`.
pub async fn eventually<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return (answer, start.elapsed());
        }
        assert!(start.elapsed() < within, "after {within:?} still waiting: {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// How a process ended. Panics after `within`.
pub async fn exit_within(child: &mut Child, within: Duration, what: &str) -> ExitStatus {
    let mut ended = async || child.try_wait().expect("a child can be waited for");
    eventually(what, within, &mut ended).await.0
}

#[tokio::test]
async fn patience_ends() {
    let task = tokio::spawn(async { eventually("never", Duration::from_millis(50), async || None::<()>).await });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(eventually("at once", Duration::ZERO, async || Some(7)).await.0, 7);
}
