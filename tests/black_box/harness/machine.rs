//! One test at a time, across threads and across processes: these tests measure time and would disturb each other.

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// The machine, for as long as this value lives.
#[derive(Debug)]
pub struct Machine {
    _lock: File,
}

impl Machine {
    /// Waits until nobody else has it. The system gives it back even if the test is killed.
    pub async fn alone() -> Self {
        let wait = || {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("black-box.lock");
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a lock file");
            flock(&lock, FlockOperation::LockExclusive).expect("the lock");
            Self { _lock: lock }
        };
        tokio::task::spawn_blocking(wait).await.expect("waiting does not panic")
    }
}

#[tokio::test]
async fn two_do_not_have_it_at_once() {
    let first = Machine::alone().await;
    let second = tokio::spawn(Machine::alone());
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!second.is_finished());
    drop(first);
    drop(second.await.unwrap());
}
