//! How a runner begins and ends as a program: where its work runs, what it says if it cannot run, and its exit code.

use std::process::ExitCode;

use tokio::runtime;

use crate::complain;

/// The exit code of a run that proves nothing.
pub(crate) const INVALID: u8 = 2;

/// Does the work of a runner on this thread. The nodes that it starts live as long as the thread does.
///
/// # Errors
/// The work's own, or that the system gives no runtime.
pub fn block_on(work: impl Future<Output = Result<u8, String>>) -> Result<u8, String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start a runtime: {error}"))?.block_on(work)
}

/// The exit code of what `program` came to. Why it could not run is told on standard error, and makes it invalid.
#[must_use]
pub fn exit_code(program: &str, came_to: Result<u8, String>) -> ExitCode {
    let code = came_to.unwrap_or_else(|reason| {
        complain(&format!("{program}: {reason}"));
        INVALID
    });
    ExitCode::from(code)
}
