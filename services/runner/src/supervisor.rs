//! Nodes of our own on loopback: started, watched, started again when killed, and gone when the runner is gone.
//!
//! Each node is killed when its handle is dropped, and, should the runner itself be killed, by the kernel: `setpriv
//! --pdeathsig` asks for that where it is installed. The signal follows the *thread* that started the node, which is why
//! nodes are only ever started on the main thread. A runner that was killed before the kernel was asked is no parent any
//! more: then the node does not begin.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use load::{Interrupts, say};
use rand::Rng;
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    control::HttpCluster,
    settings::{LocalSettings, Scheme, Settings, TargetSettings, TargetUrl},
};

/// Nodes must be ready this long after the start.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Lines of a log that are shown when its process fails.
const LOG_LINES: usize = 15;

/// Ports are taken from below the range that the system hands out itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Running nodes.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) targets: Vec<TargetUrl>,
    pub(crate) kill_token: String,
    specs: Vec<NodeSpec>,
    stop: watch::Sender<bool>,
    /// Whether all nodes have been ready once; before, a node that ends by itself is not worth another try.
    started: watch::Sender<bool>,
    /// The first node that ended before that, and how.
    failed: watch::Receiver<Option<Failed>>,
    watchers: Vec<JoinHandle<()>>,
    /// The folder of the logs is this run's.
    _lock: File,
}

/// A node that ended at its start.
#[derive(Clone, Debug)]
struct Failed {
    log: PathBuf,
    how: String,
}

/// What a watcher hears from the supervisor and tells it.
#[derive(Clone)]
struct Wires {
    stopped: watch::Receiver<bool>,
    started: watch::Receiver<bool>,
    failed: watch::Sender<Option<Failed>>,
}

/// How one node is started.
#[derive(Clone, Debug)]
struct NodeSpec {
    binary: PathBuf,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
}

impl Supervisor {
    /// Starts the nodes, without waiting for them.
    pub(crate) fn start(Settings { local: settings, load, kill, http, .. }: &Settings) -> Result<Self, String> {
        let (kill_token, restart_after) = (&kill.kill_token, load.restart_after);
        let binary = node_binary(settings.node_bin.clone())?;
        let (folder, lock) = log_folder(&settings.log_dir)?;
        let concern = lowered_concern(settings.local, |name| std::env::var(name).ok());
        let ports = free_ports(settings.local.into())?;
        let secret = std::env::var("CACHE_AUTH").ok().filter(|secret| !secret.is_empty()).unwrap_or_else(random_secret);
        let kill_token = if kill_token.is_empty() { random_secret() } else { kill_token.to_owned() };
        let seeds = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        let edge = edge(settings, http);
        let spec = |(number, port): (usize, &u16)| NodeSpec {
            binary: binary.clone(),
            environment: vec![
                ("PORT", port.to_string()),
                ("HTTP_BIND", Ipv4Addr::LOCALHOST.to_string()),
                ("CACHE_BIND", format!("127.0.0.1:{port}")),
                ("CACHE_PUBLIC", format!("127.0.0.1:{port}")),
                ("CACHE_SEEDS", seeds.clone()),
                ("CACHE_AUTH", secret.clone()),
                ("ALLOW_KILL", "true".to_owned()),
                ("KILL_TOKEN", kill_token.clone()),
                ("HOST_NODES", settings.local.to_string()),
            ]
            .into_iter()
            .chain(settings.node_workers.map(|workers| ("WORKERS", workers.to_string())))
            .chain(concern.clone())
            .chain(edge.clone())
            .collect(),
            log: folder.join(format!("node{}.log", number + 1)),
        };
        let specs: Vec<_> = ports.iter().enumerate().map(spec).collect();
        let (stop, stopped) = watch::channel(false);
        let (started, is_started) = watch::channel(false);
        let (failed, has_failed) = watch::channel(None);
        let wires = Wires { stopped, started: is_started, failed };
        let mut watchers = Vec::new();
        for spec in &specs {
            let _ = fs::remove_file(&spec.log);
            let child = spec.spawn()?;
            watchers.push(tokio::spawn(watch_node(spec.clone(), child, restart_after, wires.clone())));
        }
        let scheme = if settings.http_tls_cert.is_some() { Scheme::Https } else { Scheme::Http };
        let targets = ports.iter().map(|port| TargetUrl::of(scheme, &format!("127.0.0.1:{port}"))).collect();
        Ok(Self { targets, kill_token, specs, stop, started, failed: has_failed, watchers, _lock: lock })
    }

    /// Waits until all nodes are ready.
    ///
    /// # Errors
    /// The log of a node that ended by itself, or what each node that is not ready says and the end of its log; or that a signal came.
    pub(crate) async fn wait_ready(&self, cluster: &HttpCluster, interrupts: &mut Interrupts) -> Result<(), String> {
        let mut failed = self.failed.clone();
        tokio::select! {
            Ok(failed) = failed.wait_for(Option::is_some) => match &*failed {
                Some(Failed { log, how }) => {
                    Err(format!("a node has ended at its start ({how}). {}:\n{}", log.display(), tail(log).trim_end()))
                }
                None => Err("a node has ended at its start".to_owned()),
            },
            ready = self.poll_ready(cluster) => {
                self.started.send_replace(true);
                ready
            }
            () = interrupts.next() => Err("interrupted before the nodes were ready".to_owned()),
        }
    }

    async fn poll_ready(&self, cluster: &HttpCluster) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        loop {
            let mut waiting = Vec::new();
            for node in 0..self.targets.len() {
                if cluster.is_ready(node).await != Ok(true) {
                    waiting.push(node);
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let mut message = format!("not all nodes were ready within {} s", READY_WITHIN.as_secs());
                for node in waiting {
                    let log = &self.specs[node].log;
                    let why = cluster.why_not_ready(node).await;
                    message.push_str(&format!(
                        "\n{}: {why}\n{}:\n{}",
                        self.targets[node].url(),
                        log.display(),
                        tail(log)
                    ));
                }
                return Err(message);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills all nodes and waits until they are gone.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for watcher in self.watchers {
            let _ = watcher.await;
        }
    }
}

impl NodeSpec {
    fn spawn(&self) -> Result<Child, String> {
        let log = || -> io::Result<File> { OpenOptions::new().create(true).append(true).open(&self.log) };
        let (out, err) = (log(), log());
        let (Ok(out), Ok(err)) = (out, err) else {
            return Err(format!("LOG_DIR: cannot write {}", self.log.display()));
        };
        let mut command = find_in_path("setpriv").map_or_else(
            || Command::new(&self.binary),
            |setpriv| dying_with(std::process::id(), &setpriv, &self.binary),
        );
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null()).stdout(out).stderr(err);
        // A group of its own: Ctrl-C on the terminal is for the runner, which still needs the nodes for its last checks.
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(|error| format!("cannot start {}: {error}", self.binary.display()))
    }
}

/// A command for a node that the kernel kills when the runner dies, and that does not begin unless it is the runner's child.
fn dying_with(runner: u32, setpriv: &Path, node: &Path) -> Command {
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", r#"test "$PPID" = "$0" && exec "$@""#]);
    command.arg(runner.to_string()).arg(node);
    command
}

/// Waits for one node to end and starts it again, until told to stop.
async fn watch_node(spec: NodeSpec, mut child: Child, restart_after: Duration, wires: Wires) {
    let Wires { mut stopped, started, failed } = wires;
    loop {
        tokio::select! {
            () = told(&mut stopped) => {
                let _ = child.kill().await;
                return;
            }
            status = child.wait() => {
                let by_itself = status.as_ref().is_ok_and(|status| status.code().is_some());
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                if by_itself && !*started.borrow() {
                    failed.send_replace(Some(Failed { log: spec.log, how }));
                    return;
                }
                say(&format!("[NODE] {} has ended: {how}", spec.environment[3].1));
            }
        }
        tokio::select! {
            () = told(&mut stopped) => return,
            () = tokio::time::sleep(restart_after) => {}
        }
        match spec.spawn() {
            Ok(started) => child = started,
            Err(reason) => {
                say(&format!("[NODE] {reason}"));
                return;
            }
        }
        say(&format!("[NODE] {} was started again", spec.environment[3].1));
    }
}

/// Waits until told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error means that the supervisor is gone, which says the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The folder for logs, which is locked for this run: a second one at the same time has a folder of its own below it.
fn log_folder(folder: &Path) -> Result<(PathBuf, File), String> {
    let open = |folder: &Path| -> io::Result<Option<File>> {
        fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).append(true).open(folder.join(".lock"))?;
        Ok(if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) { None } else { Some(lock) })
    };
    let failed = |error| format!("LOG_DIR={}: expected a folder that can be written: {error}", folder.display());
    if let Some(lock) = open(folder).map_err(failed)? {
        return Ok((folder.to_owned(), lock));
    }
    let own = folder.join(format!("run-{}", std::process::id()));
    let lock = open(&own).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::ResourceBusy.into()))?;
    say(&format!("[LOCAL] another run logs to {}: the nodes of this one log to {}", folder.display(), own.display()));
    Ok((own, lock))
}

/// REPLICATION_FACTOR and WRITE_CONCERN for `nodes` nodes, if they are fewer than must apply a write.
fn lowered_concern(nodes: u8, setting: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    // What is no number is refused by the nodes themselves.
    let asked = setting("WRITE_CONCERN").filter(|concern| !concern.is_empty()).unwrap_or_else(|| "2".to_owned());
    if asked.trim().parse().is_ok_and(|concern: u32| concern > nodes.into()) {
        say(&format!(
            "[LOCAL] WRITE_CONCERN={asked} needs more nodes: it and REPLICATION_FACTOR are {nodes} in this run"
        ));
        ["REPLICATION_FACTOR", "WRITE_CONCERN"].map(|name| (name, nodes.to_string())).to_vec()
    } else {
        Vec::new()
    }
}

/// What nodes are told of HTTPS and tokens, which may have come by flags.
fn edge(local: &LocalSettings, http: &TargetSettings) -> Vec<(&'static str, String)> {
    let file = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
    let told = [
        ("HTTP_TLS_CERT", file(&local.http_tls_cert)),
        ("HTTP_TLS_KEY", file(&local.http_tls_key)),
        ("HTTP_TOKEN", http.http_token.clone()),
        ("HTTP_ADMIN_TOKEN", http.http_admin_token.clone()),
    ];
    told.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn node_binary(setting: Option<PathBuf>) -> Result<PathBuf, String> {
    let beside = || std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("node")));
    let path = setting.or_else(beside).unwrap_or_default();
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("NODE_BIN={}: expected the node binary, but there is none; build it or set NODE_BIN", path.display()))
}

/// Ports that are free for TCP and UDP right now.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let free = |port: &u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    let start = rand::rng().random_range(PORTS);
    let ports: Vec<_> = (start..PORTS.end).chain(PORTS.start..start).filter(free).take(count).collect();
    if ports.len() == count { Ok(ports) } else { Err(format!("no {count} ports between {PORTS:?} are free")) }
}

fn random_secret() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

fn find_in_path(program: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn fewer_nodes_than_must_apply_a_write_lower_both() {
        let lowered = |nodes, concern: Option<&str>| {
            let lowered = lowered_concern(nodes, |name| concern.filter(|_| name == "WRITE_CONCERN").map(str::to_owned));
            lowered.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(lowered(1, None), ["1", "1"]);
        assert_eq!(lowered(2, Some("3")), ["2", "2"]);
        for (nodes, concern) in [(2, None), (3, None), (1, Some("1")), (5, Some("3")), (1, Some("many"))] {
            assert!(lowered(nodes, concern).is_empty(), "{nodes} nodes, {concern:?}");
        }
    }

    #[tokio::test]
    async fn a_node_whose_runner_has_died_already_does_not_begin() {
        let setpriv = find_in_path("setpriv").unwrap();
        for (runner, begins) in [(std::process::id(), true), (std::process::id() + 1, false)] {
            let output = dying_with(runner, &setpriv, Path::new("echo")).arg("begun").output().await.unwrap();
            assert_eq!((output.status.success(), output.stdout == b"begun\n"), (begins, begins), "{output:?}");
        }
    }

    #[test]
    fn two_runs_at_once_do_not_share_a_folder() {
        let folder = std::env::temp_dir().join(format!("logs-{}", std::process::id()));
        let (first, lock) = log_folder(&folder).unwrap();
        let (second, _second_lock) = log_folder(&folder).unwrap();
        assert_eq!(first, folder);
        assert!(second.starts_with(&folder) && second != folder, "{second:?}");
        drop(lock);
        assert_eq!(log_folder(&folder).unwrap().0, folder, "the first has ended");
        fs::remove_dir_all(&folder).unwrap();
        assert!(log_folder(Path::new("/proc/no/such")).unwrap_err().starts_with("LOG_DIR=/proc/no/such: expected"));
    }
}
