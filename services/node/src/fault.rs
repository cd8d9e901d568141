//! Faults on request: how a node dies or falls silent.

use std::{sync::Arc, time::Duration};

use tracing::{info_span, warn};

use crate::app::App;

/// The answer to the request is on its way before the fault, whatever was asked for.
const ANSWER_FIRST: Duration = Duration::from_millis(20);

/// As a shell reports a process that was killed by SIGKILL.
const CRASH_EXIT_CODE: i32 = 137;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends at once, without a word to anyone.
    Crash,
    /// The process ends as on SIGTERM.
    Graceful,
    /// The node answers no peer and no client for so long.
    Pause(Duration),
}

impl Fault {
    /// As `mode` says it.
    const fn mode(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Graceful => "graceful",
            Self::Pause(_) => "pause",
        }
    }

    /// Lets it happen after a while.
    #[expect(clippy::disallowed_methods, reason = "a crash runs no destructors: that is the point of it")]
    pub(crate) fn schedule(self, app: Arc<App>, after: Duration) {
        let after = after.max(ANSWER_FIRST);
        // Ended before the fault strikes, so that it can be sent.
        info_span!("fault.kill", mode = self.mode(), after_ms = after.as_millis() as u64)
            .in_scope(|| warn!(fault = ?self, ?after, "a fault was ordered"));
        app.telemetry.flush();
        // It outlives the request that asked for it.
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            match self {
                Self::Crash => {
                    app.node.crash();
                    std::process::exit(CRASH_EXIT_CODE);
                }
                Self::Graceful => app.shutdown.start(),
                Self::Pause(time) => {
                    app.node.pause(time);
                    app.pause.start(time);
                }
            }
        });
    }
}
