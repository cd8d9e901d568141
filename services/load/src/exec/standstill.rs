//! Whether this process itself stood still: stopped by a signal, suspended with its machine, or starved of CPU. What fails or is
//! slow meanwhile is not the mesh's failure.

use std::{
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

/// How often a thread of its own looks at the clock, and how late it has to be.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(250);

/// A time in which this process did nothing, in seconds after the load began.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Standstill {
    /// Its start.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
}

impl Standstill {
    /// How long it lasted, in seconds.
    #[must_use]
    pub(crate) fn lasted_s(&self) -> f64 {
        self.to_s - self.from_s
    }
}

/// Looks out for standstills until it is finished.
pub(crate) struct Watch {
    end: SyncSender<()>,
    thread: Option<JoinHandle<Vec<Standstill>>>,
}

impl Watch {
    /// The load begins.
    pub(crate) fn start() -> Self {
        let (end, ended) = mpsc::sync_channel(0);
        let began = Instant::now();
        let look = move || {
            let (mut found, mut last) = (Vec::new(), began);
            loop {
                let is_over = !matches!(ended.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout));
                let now = Instant::now();
                if now - last >= LATE {
                    found.push(Standstill { from_s: (last - began).as_secs_f64(), to_s: (now - began).as_secs_f64() });
                }
                if is_over {
                    return found;
                }
                last = now;
            }
        };
        // Without the thread, no standstill is found.
        Self { end, thread: thread::Builder::new().name("standstill".to_owned()).spawn(look).ok() }
    }

    /// The load has ended.
    pub(crate) fn finish(self) -> Vec<Standstill> {
        drop(self.end);
        self.thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}
