//! One `node` process: started, stopped in every way a process can be, and never left behind.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Loopback, NodeClient, binary, exit_within};

/// What one node is told.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// NODE_ID.
    pub name: String,
    /// PORT and HTTP_BIND.
    pub http: SocketAddr,
    /// CACHE_BIND. Its address is this node's alone.
    pub bind: SocketAddr,
    /// CACHE_PUBLIC.
    pub public: SocketAddr,
    /// Everything else.
    pub settings: Vec<(String, String)>,
}

impl NodeSpec {
    /// A node that is reached where it listens and knows nobody.
    pub fn new(name: &str) -> Self {
        let ip = Loopback::fresh();
        let bind = ip.free_port();
        Self { name: name.to_owned(), http: ip.free_port(), bind, public: bind, settings: Vec::new() }
            .with("CACHE_AUTH", "black-box")
            .with("CAPACITY_BYTES", "64MiB")
            .with("WORKERS", "1")
    }

    /// Adds a setting, or replaces it.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.settings.retain(|(name, _)| name != variable);
        self.settings.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a setting at its default.
    #[must_use]
    pub fn without(mut self, variable: &str) -> Self {
        self.settings.retain(|(name, _)| name != variable);
        self
    }

    /// The address that its own connections come from.
    pub fn ip(&self) -> IpAddr {
        self.bind.ip()
    }

    /// The command line, with no setting taken from this test's own environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("node"));
        command.env_clear();
        command.env("NODE_ID", &self.name);
        command.env("HTTP_BIND", self.http.ip().to_string()).env("PORT", self.http.port().to_string());
        command.env("CACHE_BIND", self.bind.to_string()).env("CACHE_PUBLIC", self.public.to_string());
        command.env("RUST_BACKTRACE", "1");
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }
}

/// A node's process. Killed when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    spec: NodeSpec,
    child: Option<Child>,
    log: PathBuf,
    client: NodeClient,
}

impl NodeProcess {
    /// Starts it; what it writes goes into `folder`.
    pub fn start(spec: NodeSpec, folder: &Path) -> Self {
        let log = folder.join(format!("{}-{}.log", spec.name, spec.http.port()));
        let client = NodeClient::new(spec.http);
        let mut node = Self { spec, child: None, log, client };
        node.start_again();
        node
    }

    /// Starts it once more on the same ports. It must not be running.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} is still running", self.spec.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let errors = log.try_clone().expect("a second handle");
        self.child = Some(self.spec.command().stdout(log).stderr(errors).spawn().expect("node starts"));
        // Connections to the process before are of no use to this one.
        self.client = NodeClient::new(self.spec.http);
    }

    /// What it was told.
    pub const fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its HTTP API.
    pub fn client(&self) -> NodeClient {
        self.client.clone()
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("the node is running")
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log file")
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node is running");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// `kill -TERM`: it leaves the mesh and ends by itself.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end that it makes by itself.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let status = exit_within(self.child(), within, "the node to end").await;
        self.child = None;
        status
    }

    /// How it ended, if it has by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child().try_wait().expect("a child can be waited for");
        if status.is_some() {
            self.child = None;
        }
        status
    }

    /// Whether it was started and neither killed nor stopped since.
    pub const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// `kill -STOP`: it keeps its sockets and answers nobody.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// `kill -CONT`.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node is running");
        kill_process(Pid::from_child(child), signal).expect("a child takes signals");
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            // The last words are what explains a failed test.
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(25)..];
            eprintln!("--- {} ---\n{}", self.spec.name, tail.join("\n"));
        }
    }
}
