//! How much memory this process may take: what its control groups allow, of both versions and with all that they are within, and
//! what the machine has. The kernel kills a process that takes more, so a default that ignores it does not live long.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

/// A limit of version 1 above this stands for none: the kernel says so with the highest number of pages.
const UNLIMITED: u64 = 1 << 60;

/// A bound on a process's memory, and what sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// How much, in bytes.
    pub bytes: u64,
    /// The file or the resource limit that says so.
    pub set_by: String,
}

/// What is known of the memory that this process may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The least of all limits that hold for this process, if there is one.
    pub limit: Option<MemoryLimit>,
    /// What the machine has, in bytes, if the system says so.
    pub machine_bytes: Option<u64>,
}

impl Memory {
    /// Of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let mut memory = Self::below(Path::new("/"));
        let address_space = getrlimit(Resource::As).current;
        memory.take(address_space.map(|bytes| MemoryLimit { bytes, set_by: "ulimit -v".to_owned() }));
        memory
    }

    /// As the files in `proc` and `sys` below `root` say.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let mut memory = Self { limit: None, machine_bytes: machine_bytes(&read("proc/meminfo")) };
        let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
        for hierarchy in mounts.lines().filter_map(Hierarchy::parse) {
            for group in hierarchy.groups(&groups) {
                let limit = hierarchy.limit(root, &group);
                memory.take(limit);
            }
        }
        // What this limit does not allow, it does not matter whether the machine has it.
        memory.limit = memory.limit.filter(|limit| memory.machine_bytes.is_none_or(|bytes| limit.bytes < bytes));
        memory
    }

    fn take(&mut self, limit: Option<MemoryLimit>) {
        let known = self.limit.as_ref().map_or(u64::MAX, |known| known.bytes);
        if let Some(limit) = limit.filter(|limit| limit.bytes < known) {
            self.limit = Some(limit);
        }
    }
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// A mounted hierarchy of control groups that limits memory.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    is_v2: bool,
    /// Which of its groups is mounted: a container often sees its own in place of the root.
    root: PathBuf,
    /// Where.
    mount_point: PathBuf,
}

impl Hierarchy {
    /// From a line of `/proc/self/mountinfo` (proc(5)), if it is one.
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mount_point) = (place.next()?.into(), place.next()?.into());
        let mut kind = kind.split(' ');
        let (kind, _, options) = (kind.next()?, kind.next()?, kind.next()?);
        let is_v2 = kind == "cgroup2";
        let limits_memory = is_v2 || (kind == "cgroup" && options.split(',').any(|option| option == "memory"));
        limits_memory.then_some(Self { is_v2, root, mount_point })
    }

    /// The directories of the group that this process is in and of all groups around it, the inmost first, as far as they can be
    /// seen here. `groups` is `/proc/self/cgroup`.
    fn groups(&self, groups: &str) -> Vec<PathBuf> {
        let own = groups.lines().find_map(|line| {
            let (number, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            let is_ours = match self.is_v2 {
                true => number == "0" && controllers.is_empty(),
                false => controllers.split(',').any(|controller| controller == "memory"),
            };
            is_ours.then_some(Path::new(path))
        });
        // A path that is not below what is mounted, or is told from a namespace below, is where the mount is.
        let is_plain = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let below =
            own.and_then(|own| own.strip_prefix(&self.root).ok()).filter(is_plain).unwrap_or_else(|| Path::new(""));
        below.ancestors().map(|group| self.mount_point.join(group)).collect()
    }

    fn limit(&self, root: &Path, group: &Path) -> Option<MemoryLimit> {
        let read = |name: &str| {
            let file = group.join(name);
            let text = fs::read_to_string(root.join(file.strip_prefix("/").unwrap_or(&file))).ok()?;
            Some((text, file.display().to_string()))
        };
        let limit = |(text, set_by): (String, String)| {
            let bytes = text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)?;
            Some(MemoryLimit { bytes, set_by })
        };
        if self.is_v2 {
            return read("memory.max").and_then(limit);
        }
        // Describes groups around it that cannot be seen from within a container, too.
        let of_all = read("memory.stat").and_then(|(text, set_by)| {
            let bytes = text.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "))?;
            limit((bytes.to_owned(), set_by))
        });
        let own = read("memory.limit_in_bytes").and_then(limit);
        own.into_iter().chain(of_all).min_by_key(|limit| limit.bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const MIB: u64 = 1 << 20;

    /// What is found where these files are.
    fn memory(files: &[(&str, &str)]) -> Memory {
        let root = tempfile::tempdir().unwrap();
        let machine = [("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:         1 kB\n")];
        for (path, text) in machine.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Memory::below(root.path())
    }

    /// The limit that is found, in MiB, and what sets it.
    fn limit(files: &[(&str, &str)]) -> Option<(u64, String)> {
        let memory = memory(files);
        assert_eq!(memory.machine_bytes, Some(8192 * MIB));
        memory.limit.map(|limit| (limit.bytes / MIB, limit.set_by))
    }

    fn found(mib: u64, set_by: &str) -> Option<(u64, String)> {
        Some((mib, set_by.to_owned()))
    }

    #[test]
    fn a_container_of_version_2_sees_its_own_group_as_the_root() {
        let files =
            [("proc/self/mountinfo", V2), ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "201326592\n")];
        assert_eq!(limit(&files), found(192, "/sys/fs/cgroup/memory.max"));
    }

    #[test]
    fn the_least_of_all_groups_around_a_process_holds() {
        let at = |group: &'static str, pod: &'static str| {
            [
                ("proc/self/mountinfo", V2),
                ("proc/self/cgroup", "0::/kubepods/pod1/c1\n"),
                ("sys/fs/cgroup/kubepods/pod1/c1/memory.max", group),
                ("sys/fs/cgroup/kubepods/pod1/memory.max", pod),
                ("sys/fs/cgroup/kubepods/memory.max", "max\n"),
                // Of somebody else.
                ("sys/fs/cgroup/kubepods/pod2/memory.max", "1048576\n"),
            ]
        };
        assert_eq!(limit(&at("max\n", "134217728\n")), found(128, "/sys/fs/cgroup/kubepods/pod1/memory.max"));
        assert_eq!(limit(&at("67108864\n", "134217728\n")), found(64, "/sys/fs/cgroup/kubepods/pod1/c1/memory.max"));
        assert_eq!(limit(&at("max\n", "max\n")), None);
    }

    #[test]
    fn version_1_has_a_hierarchy_of_its_own_for_memory() {
        let groups = "9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/\n";
        let at = |own: &'static str, around: &'static str| {
            [
                ("proc/self/mountinfo", V1),
                ("proc/self/cgroup", groups),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", own),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", around),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ]
        };
        let none = "9223372036854771712\n";
        assert_eq!(limit(&at(none, none)), None);
        assert_eq!(limit(&at("134217728\n", none)), found(128, "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes"));
        assert_eq!(limit(&at("134217728\n", "67108864\n")), found(64, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes"));
    }

    #[test]
    fn a_container_of_version_1_may_see_the_path_outside_and_its_own_group_mounted() {
        let files = [
            ("proc/self/mountinfo", "35 31 0:32 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
            ("proc/self/cgroup", "4:memory:/docker/c1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.stat", "cache 0\nhierarchical_memory_limit 268435456\ntotal_rss 1\n"),
        ];
        assert_eq!(limit(&files[..3]), found(512, "/sys/fs/cgroup/memory/memory.limit_in_bytes"));
        assert_eq!(limit(&files), found(256, "/sys/fs/cgroup/memory/memory.stat"), "of a group that cannot be seen");
        // The path is of a namespace above the mount.
        let files = [files[0], ("proc/self/cgroup", "4:memory:/../..\n"), files[2]];
        assert_eq!(limit(&files), found(512, "/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    }

    #[test]
    fn where_both_versions_are_mounted_both_count() {
        let mounts = [V1, "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"].concat();
        let files = [
            ("proc/self/mountinfo", mounts.as_str()),
            ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/unified/b/memory.max", "134217728\n"),
        ];
        assert_eq!(limit(&files), found(128, "/sys/fs/cgroup/unified/b/memory.max"));
        assert_eq!(limit(&files[..3]), found(512, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes"));
    }

    #[test]
    fn what_the_machine_does_not_have_is_no_limit_and_nonsense_is_none() {
        let v2 = |max: &'static str| {
            [("proc/self/mountinfo", V2), ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", max)]
        };
        assert_eq!(limit(&v2("17179869184\n")), None);
        assert_eq!(limit(&v2("lots\n")), None);
        assert_eq!(limit(&[("proc/self/mountinfo", "what\n- - -\n\n"), ("proc/self/cgroup", "::\n")]), None);
        assert_eq!(Memory::below(Path::new("/proc/no/such")), Memory::default());
    }

    #[test]
    fn this_process_has_some_memory() {
        let memory = Memory::of_this_process();
        assert!(memory.machine_bytes.is_none_or(|bytes| bytes > 64 * MIB), "{memory:?}");
        assert!(memory.limit.as_ref().is_none_or(|limit| limit.bytes > MIB), "{memory:?}");
    }
}
