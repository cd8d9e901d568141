//! A runner as a program: the runtime of its main thread, its error message and its exit code.

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

/// The exit code of `program`. An error is printed on standard error and gives 2, as an invalid run does.
#[must_use]
pub fn exit_code(program: &str, came_to: Result<u8, String>) -> ExitCode {
    let code = came_to.unwrap_or_else(|reason| {
        complain(&format!("{program}: {reason}"));
        INVALID
    });
    ExitCode::from(code)
}
