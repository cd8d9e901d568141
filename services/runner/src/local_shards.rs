//! One load by several runners on this machine, for one with many cores: each is a process of its own and a shard, and what they
//! measured is merged at the end.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use load::{Interrupts, RunnerShard, all_of, merge, say};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{
    access::Access,
    control::HttpCluster,
    settings::{Settings, TargetUrl},
    supervisor::{Supervisor, tail},
};

/// What a runner takes to start, and how many keys a second it writes before the load at the least, where START_AT is not set.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
const PREFILLED_PER_S: u32 = 10_000;

/// Where the shards' load goes.
struct Load<'a> {
    settings: &'a Settings,
    targets: &'a [TargetUrl],
    kill_token: &'a str,
    count: u32,
}

/// Makes the load that the settings describe with `count` runners.
///
/// # Errors
/// Why there is no report.
pub(crate) async fn run(settings: &Settings, count: u32) -> Result<u8, String> {
    let results = settings.load.open_results()?;
    let mut interrupts = Interrupts::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let kill_token = &settings.kill.kill_token;
    if settings.local.local == 0 {
        let load = Load { settings, targets: &settings.http.targets, kill_token, count };
        return merge(&load.run(&mut interrupts).await?)?.publish(results);
    }
    let supervisor = Supervisor::start(settings)?;
    let cluster = HttpCluster::new(&supervisor.targets, &supervisor.kill_token, &Access::new(settings)?)?;
    let load = Load { settings, targets: &supervisor.targets, kill_token: &supervisor.kill_token, count };
    let shards = async {
        supervisor.wait_ready(&cluster, &mut interrupts).await?;
        load.run(&mut interrupts).await
    };
    let shards = shards.await;
    supervisor.stop().await;
    merge(&shards?)?.publish(results)
}

impl Load<'_> {
    /// Runs all shards, and says where their results are.
    async fn run(&self, interrupts: &mut Interrupts) -> Result<Vec<PathBuf>, String> {
        let load = &self.settings.load;
        let run_id =
            if load.run_id.is_empty() { format!("{:08x}", rand::random::<u32>()) } else { load.run_id.clone() };
        let folder = self.settings.local.log_dir.join(&run_id);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let prefill =
            if load.prefill { Duration::from_secs((load.keys / PREFILLED_PER_S).into()) } else { Duration::ZERO };
        let start = SystemTime::now() + STARTS_WITHIN + prefill;
        let start_s = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() + 1;
        say(&format!("[SHARDS] {} runners, whose output goes to {}", self.count, folder.display()));
        let mut children = Vec::new();
        for index in 0..self.count {
            children.push(self.start(index, (&run_id, start_s), &folder)?);
        }
        let pids: Vec<_> = children.iter().filter_map(|child| Pid::from_raw(child.id()?.cast_signed())).collect();
        let mut ended = pin!(all_of(children.iter_mut().map(Child::wait)));
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended,
                // One that has ended cannot be told.
                () = interrupts.next() => pids.iter().for_each(|pid| {
                    let _ = kill_process(*pid, Signal::INT);
                }),
            }
        };
        for (index, ended) in (0..).zip(ended) {
            let how = ended.map_err(|error| error.to_string())?;
            // 1 is a guarantee that is broken: the merged report says which.
            if !matches!(how.code(), Some(0 | 1)) {
                let (shard, output) = (RunnerShard::new(index, self.count), tail(&output(&folder, index)));
                return Err(format!("shard {shard} ended with {how}:\n{}", output.trim_end()));
            }
        }
        Ok((0..self.count).map(|index| folder.join(RunnerShard::new(index, self.count).run_id(&run_id))).collect())
    }

    fn start(&self, index: u32, (run_id, start_s): (&str, u64), folder: &Path) -> Result<Child, String> {
        let failed = |error| format!("cannot start a runner: {error}");
        let out = File::create(output(folder, index)).map_err(failed)?;
        let errors = out.try_clone().map_err(failed)?;
        let targets: Vec<_> = self.targets.iter().map(TargetUrl::url).collect();
        // The last flag of a name counts.
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(own_arguments(std::env::args_os()));
        command.arg(format!("--targets={}", targets.join(","))).arg("--local=0");
        command.arg(format!("--shard={}", RunnerShard::new(index, self.count))).arg(format!("--run-id={run_id}"));
        if self.settings.load.start_at.is_none() {
            command.arg(format!("--start-at={start_s}"));
        }
        command.arg("--results").arg(folder).arg("--metrics-port=0").env("KILL_TOKEN", self.kill_token);
        // Not on the command line, which others can read.
        if let Some(login) = self.targets.iter().find_map(|target| target.login.as_ref()) {
            command.env("TARGET_USER", &login.user).env("TARGET_PASSWORD", &login.password);
        }
        command.stdin(Stdio::null()).stdout(out).stderr(errors).kill_on_drop(true).spawn().map_err(failed)
    }
}

/// The flags that this process was started with, without the subcommand.
fn own_arguments(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.skip(1).take_while(|argument| argument != "local-shards")
}

fn output(folder: &Path, index: u32) -> PathBuf {
    folder.join(format!("shard-{index}.log"))
}
