//! All processes that come from one we started, however they were started, found by a mark in their environment.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A mark to put into a process's environment, inherited by whatever it starts.
#[derive(Debug)]
pub struct Descendants(String);

impl Descendants {
    /// The variable that carries the mark.
    pub const VARIABLE: &'static str = "MESH_BENCH_TEST_RUN";

    /// A mark that no other test uses.
    pub fn new(test: &str) -> Self {
        Self(format!("{test}-{}", std::process::id()))
    }

    /// What the variable must be set to.
    pub fn mark(&self) -> &str {
        &self.0
    }

    /// The ids of the processes alive now that carry it.
    pub fn alive(&self) -> Vec<u32> {
        let wanted = format!("{}={}", Self::VARIABLE, self.0);
        let carries = |pid: &u32| {
            // Gone in the meantime, a zombie, or somebody else's: not ours either way.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes())
        };
        let entries = fs::read_dir("/proc").expect("Linux");
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(carries).collect()
    }

    /// Kills those that are alive now.
    pub fn kill(&self) {
        for pid in self.alive() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Waits until none is alive.
    pub async fn ended(&self, within: Duration) {
        let nobody = async || self.alive().is_empty().then_some(());
        eventually("every process that it started to be gone", within, nobody).await;
    }
}

#[test]
fn a_grandchild_is_found() {
    let descendants = Descendants::new("a_grandchild_is_found");
    assert!(descendants.alive().is_empty());
    let mut shell = std::process::Command::new("sh")
        .args(["-c", "sleep 60 & wait"])
        .env(Descendants::VARIABLE, descendants.mark())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while descendants.alive().len() < 2 {
        assert!(std::time::Instant::now() < deadline, "the sleeping grandchild was not found");
        std::thread::yield_now();
    }
    descendants.kill();
    shell.wait().unwrap();
}
