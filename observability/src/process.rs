//! What the operating system knows about this process, under the names that client libraries of Prometheus give it; and how long its
//! threads waited for a core.

use std::{collections::BTreeMap, fs, time::Duration};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use crate::{catalogue as names, text::Text};

/// CPU time of all threads, user and system.
#[must_use]
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Resident memory, and how much of it are pages of files; zeros where there is no `/proc`.
#[must_use]
pub fn resident_bytes() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        Some(kibibytes * 1024)
    };
    (bytes("VmRSS:").unwrap_or(0), bytes("RssFile:").unwrap_or(0))
}

/// Writes it. What the system does not tell is not there.
pub(crate) fn write(text: &mut Text<'_>) {
    text.one(&names::PROCESS_CPU, cpu().as_secs_f64());
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is this look at them.
        text.one(&names::PROCESS_FILES, files.count().saturating_sub(1) as f64);
    }
    let files_max = getrlimit(Resource::Nofile).current;
    text.one(&names::PROCESS_FILES_MAX, files_max.map_or(f64::INFINITY, |files| files as f64));
    let threads = threads();
    text.head(&names::THREAD_CPU);
    for (name, thread) in &threads {
        text.line(names::THREAD_CPU.name, &[("thread", name)], thread.cpu.as_secs_f64());
    }
    text.head(&names::THREAD_RUN_QUEUE);
    for (name, thread) in &threads {
        text.line(names::THREAD_RUN_QUEUE.name, &[("thread", name)], thread.run_queue.as_secs_f64());
    }
}

/// What a thread has had of the cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ThreadTimes {
    cpu: Duration,
    /// It could have run, and had no core.
    run_queue: Duration,
}

/// All threads by name; those of one name added up. Nothing where the kernel keeps no schedstat.
fn threads() -> BTreeMap<String, ThreadTimes> {
    let mut threads = BTreeMap::<String, ThreadTimes>::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        // A thread may end meanwhile.
        let found = read("comm").zip(read("schedstat").and_then(|text| schedstat(&text)));
        if let Some((name, found)) = found {
            let all = threads.entry(name.trim_end().to_owned()).or_default();
            all.cpu += found.cpu;
            all.run_queue += found.run_queue;
        }
    }
    threads
}

/// Nanoseconds on a core, nanoseconds of waiting for one, and time slices (`Documentation/scheduler/sched-stats.rst` of Linux).
fn schedstat(text: &str) -> Option<ThreadTimes> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok().map(Duration::from_nanos));
    Some(ThreadTimes { cpu: numbers.next()??, run_queue: numbers.next()?? })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_busy_process_uses_cpu_and_memory() {
        let before = cpu();
        while cpu() < before + Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let (resident, code) = resident_bytes();
        assert!(resident == 0 || (resident > 100_000 && code < resident), "{resident}, {code}");
    }

    #[test]
    fn schedstat_is_cpu_and_waiting_in_nanoseconds() {
        let thread = ThreadTimes { cpu: Duration::from_nanos(2_000_000_001), run_queue: Duration::from_millis(3) };
        assert_eq!(schedstat("2000000001 3000000 17\n"), Some(thread));
        assert_eq!(schedstat("1"), None);
    }

    /// More threads than cores must wait for each other: each is ready all the time, and runs for a part of it.
    #[test]
    fn threads_that_share_cores_are_seen_to_wait() {
        let busy = thread::available_parallelism().unwrap().get() * 3;
        let (done, is_done) = mpsc::sync_channel(busy);
        let spin = |done: mpsc::SyncSender<()>| {
            let began = cpu();
            while cpu() < began + Duration::from_millis(300) {
                std::hint::spin_loop();
            }
            done.send(()).unwrap();
            // Until it has been looked at.
            thread::park_timeout(Duration::from_secs(10));
        };
        let threads_busy: Vec<_> = (0..busy)
            .map(|_| {
                let done = done.clone();
                thread::Builder::new().name("spinning".to_owned()).spawn(move || spin(done)).unwrap()
            })
            .collect();
        (0..busy).for_each(|_| is_done.recv().unwrap());
        let found = threads().get("spinning").copied();
        threads_busy.iter().for_each(|busy| busy.thread().unpark());
        // Where the kernel keeps no statistics there is nothing to see.
        if fs::exists("/proc/self/schedstat").unwrap() {
            let found = found.unwrap();
            assert!(found.cpu > Duration::from_millis(100) && found.run_queue > Duration::from_millis(50), "{found:?}");
        }
    }
}
