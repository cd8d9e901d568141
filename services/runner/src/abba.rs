//! `runner compare --abba N -- A B`: runs two run files in turn, A B B A, so that what changes slowly on the machine meets both alike,
//! and compares them by pairs of neighbours.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use load::{Interrupts, PairedRuns, say};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::{settings::Settings, supervisor::tail};

/// The two files, and how often both are run.
pub(crate) struct Abba<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) files: [&'a str; 2],
    /// Of A B B A.
    pub(crate) rounds: u32,
}

impl Abba<'_> {
    /// Runs them all, one after the other; a signal ends the run that goes on, and what is compared are the pairs before it.
    ///
    /// # Errors
    /// Why a run could not be made.
    pub(crate) async fn run(&self) -> Result<PairedRuns, String> {
        let results = self.settings.load.results.as_deref().ok_or("RESULTS=off: expected a folder for the runs")?;
        for file in self.files {
            // Before the first of many runs, and not in the middle.
            fs::metadata(file).map_err(|error| format!("{file}: cannot read it: {error}"))?;
        }
        let mut interrupts = Interrupts::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
        let name = format!("abba-{:08x}", rand::random::<u32>());
        let logs = self.settings.local.log_dir.join(&name);
        fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        let mut runs = PairedRuns::default();
        let pairs = 2 * self.rounds;
        for pair in 0..pairs {
            let mut folders = [PathBuf::new(), PathBuf::new()];
            // A B, then B A.
            for (place, side) in if pair % 2 == 0 { [(0, 0), (1, 1)] } else { [(0, 1), (1, 0)] } {
                let letter = ["a", "b"][side];
                let run_id = format!("{name}-{:02}{letter}", pair + 1);
                let ended = self.one(side, &run_id, &logs, &mut interrupts).await?;
                let (run, all) = (2 * pair + place + 1, 2 * pairs);
                let Some(exit_code) = ended else {
                    say(&format!("[ABBA] ended by a signal in run {run} of {all}"));
                    return Ok(runs);
                };
                let (letter, file) = (letter.to_uppercase(), self.files[side]);
                say(&format!("[ABBA] run {run} of {all}: {letter}, {file}; exit code {exit_code}"));
                folders[side] = results.join(&run_id);
            }
            let [a, b] = folders;
            runs.add(a, b);
        }
        Ok(runs)
    }

    /// Runs one; gives its exit code, or nothing if a signal has ended it.
    async fn one(
        &self,
        side: usize,
        run_id: &str,
        logs: &Path,
        interrupts: &mut Interrupts,
    ) -> Result<Option<i32>, String> {
        let failed = |error| format!("cannot start a runner: {error}");
        let log = logs.join(format!("{run_id}.log"));
        let out = File::create(&log).map_err(failed)?;
        let errors = out.try_clone().map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(own_arguments(std::env::args_os())).arg(format!("--run-id={run_id}")).arg("--progress=off");
        command.arg("run").arg(self.files[side]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let mut is_interrupted = false;
        let ended = loop {
            tokio::select! {
                ended = child.wait() => break ended.map_err(|error| error.to_string())?,
                () = interrupts.next() => {
                    is_interrupted = true;
                    // One that has ended cannot be told.
                    let _ = pid.map(|pid| kill_process(pid, Signal::INT));
                }
            }
        };
        if is_interrupted {
            return Ok(None);
        }
        let results = self.settings.load.results.as_deref().unwrap_or_else(|| Path::new(""));
        match ended.code() {
            Some(code) if results.join(run_id).is_dir() => Ok(Some(code)),
            _ => Err(format!("{} ended with {ended}:\n{}", self.files[side], tail(&log).trim_end())),
        }
    }
}

/// The flags that this process was started with, without the subcommand.
fn own_arguments(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.skip(1).take_while(|argument| argument != "compare")
}
