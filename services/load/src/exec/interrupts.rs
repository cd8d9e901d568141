//! Signals that end a run early: SIGINT (Ctrl-C), SIGTERM, and SIGHUP (the terminal was closed).

use std::{fs, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

/// SIGTERM comes from a supervisor that kills what has not ended in time: Kubernetes and `docker compose` here after 30 s. So long
/// after the first one all waiting ends, as if a second one had come; what is left is for the report.
const TERMINATED_WITHIN: Duration = Duration::from_secs(20);

/// The signals, from now on.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
    /// When a run that was told to end by SIGTERM ends all waiting.
    give_up_at: Option<Instant>,
}

impl Interrupts {
    /// Handles the signals from now on; SIGHUP only if it is not ignored, as it is under `nohup`.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn new() -> io::Result<Self> {
        let hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hang_up, give_up_at: None })
    }

    /// Waits for the next one, or until the time is up that SIGTERM leaves.
    pub async fn next(&mut self) {
        let give_up_at = self.give_up_at;
        let give_up = async {
            match give_up_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => self.give_up_at = give_up_at.or_else(|| Some(Instant::now() + TERMINATED_WITHIN)),
            _ = hang_up => {}
            () = give_up => self.give_up_at = None,
        }
    }
}

/// The kernel lists ignored signals as a bit mask; SIGHUP is the lowest bit.
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
