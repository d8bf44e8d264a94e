//! Control groups: what bounds a container's cpu, memory and processes, on cgroup v1 and v2.
//!
//! One group per container, `/kapstan/<pod uid>/<container id>` in every hierarchy used. Values as the kubelet computes
//! them (`pkg/kubelet/cm/helpers_linux.go`). Where the groups cannot be written (an ordinary user) a container without
//! bounds runs without a group, and one with bounds is refused: a bound is never silently dropped.

use super::{kill_process, wire::Failure};
use crate::runtime::Limits;
use nix::unistd::Pid;
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Length of the period that a cpu bound is measured in, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// Smallest share of a period the kernel takes, in microseconds.
const CPU_QUOTA_MIN: u64 = 1_000;
/// The kernel lets go of a group a moment after its last process was reaped.
const REMOVE_TRIES: usize = 50;
/// Killed processes are gone at once, unless they start others faster than they can be listed.
const KILL_TRIES: usize = 500;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// Hierarchies used on v1: controllers, and the one in which systemd keeps its units.
const V1_HIERARCHIES: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", UNITS];
const UNITS: &str = "name=systemd";

/// The hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchies {
    /// One per controller: its name and where it is mounted.
    V1(Vec<(&'static str, PathBuf)>),
    /// One for all.
    V2(PathBuf),
}

impl Hierarchies {
    /// Those of this process's mount namespace.
    pub fn discover() -> Hierarchies {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mountinfo: &str) -> Hierarchies {
        let mut v1: Vec<(&'static str, PathBuf)> = Vec::new();
        let mut v2 = PathBuf::from("/sys/fs/cgroup");
        for line in mountinfo.lines() {
            let Some((head, tail)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = head.split(' ').nth(4) else { continue };
            let mut tail = tail.split(' ');
            match (tail.next(), tail.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    let of = |controller: &&&str| options.split(',').any(|option| option == **controller);
                    v1.extend(V1_HIERARCHIES.iter().filter(of).map(|c| (*c, PathBuf::from(mount_point))));
                }
                (Some("cgroup2"), _) => v2 = mount_point.into(),
                _ => {}
            }
        }
        if v1.iter().any(|(controller, _)| *controller == "memory") { Hierarchies::V1(v1) } else { Hierarchies::V2(v2) }
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Hierarchies::V1(all) => all.iter().map(|(_, path)| path.as_path()).collect(),
            Hierarchies::V2(path) => vec![path],
        }
    }

    /// Where bounds are set.
    fn controllers(&self) -> Vec<&Path> {
        match self {
            Hierarchies::V1(all) => {
                all.iter().filter(|(name, _)| *name != UNITS).map(|(_, path)| path.as_path()).collect()
            }
            Hierarchies::V2(path) => vec![path],
        }
    }

    /// Moves the calling process out of the unit it was started in, into `group`: systemd kills a unit as a whole when it
    /// stops it, and a shim outlives its agent. Does nothing when it is in no unit.
    pub fn leave_unit(&self, group: &Path) -> io::Result<()> {
        let (mark, root) = match self {
            Hierarchies::V1(all) => {
                (":name=systemd:", all.iter().find(|(name, _)| *name == UNITS).map(|(_, path)| path))
            }
            Hierarchies::V2(path) => ("0::", Some(path)),
        };
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let unit = groups.lines().find_map(|line| line.split_once(mark)).map(|(_, unit)| unit);
        let (Some(root), Some(unit)) = (root, unit) else { return Ok(()) };
        if unit == "/" {
            return Ok(());
        }
        fs::create_dir_all(below(root, group))?;
        write(&below(root, group).join("cgroup.procs"), "0")
    }

    /// What the processes of `group` have spent and hold; `None` where it is not counted.
    pub fn spent(&self, group: &Path) -> Option<Spent> {
        let read = |controller: &str, file: &str| {
            let root = match self {
                Hierarchies::V1(all) => &all.iter().find(|(name, _)| *name == controller)?.1,
                Hierarchies::V2(root) => root,
            };
            fs::read_to_string(below(root, group).join(file)).ok()
        };
        let number = |controller: &str, file: &str| read(controller, file)?.trim().parse::<u64>().ok();
        let field = |controller: &str, file: &str, name: &str| {
            let text = read(controller, file)?;
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
        };
        let (cpu_nanos, memory, inactive) = match self {
            Hierarchies::V1(_) => (
                number("cpuacct", "cpuacct.usage")?,
                number("memory", "memory.usage_in_bytes")?,
                field("memory", "memory.stat", "total_inactive_file"),
            ),
            Hierarchies::V2(_) => (
                field("cpu", "cpu.stat", "usage_usec")?.saturating_mul(1000),
                number("memory", "memory.current")?,
                field("memory", "memory.stat", "inactive_file"),
            ),
        };
        // As the kubelet counts the working set: the file cache that nobody has touched lately can be given back.
        Some(Spent { cpu_nanos, memory_bytes: memory.saturating_sub(inactive.unwrap_or(0)) })
    }

    /// Kills every process of `group` and below it, and those that they start meanwhile; missing is fine.
    pub fn kill(&self, group: &Path) -> io::Result<()> {
        let root = match self {
            Hierarchies::V1(all) => all.iter().find(|(name, _)| *name == "memory").map(|(_, root)| root),
            Hierarchies::V2(root) => Some(root),
        };
        let Some(group) = root.map(|root| below(root, group)) else { return Ok(()) };
        for _ in 0..KILL_TRIES {
            let found = processes(&group);
            if found.is_empty() {
                return Ok(());
            }
            for pid in found {
                // It may just have gone by itself.
                let _ = kill_process(Pid::from_raw(pid), libc::SIGKILL);
            }
            thread::sleep(REMOVE_PAUSE);
        }
        Err(io::Error::other(format!("{} still has processes", group.display())))
    }

    /// Removes `group` and what is below it everywhere; missing is fine.
    pub fn remove(&self, group: &Path) -> io::Result<()> {
        self.roots().iter().try_for_each(|root| remove_tree(&below(root, group)))
    }
}

/// What a group has spent so far, and holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Billionths of a second of cpu time since the group was made.
    pub cpu_nanos: u64,
    /// Bytes of memory that cannot be given back at once.
    pub memory_bytes: u64,
}

/// A container's group.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    group: PathBuf,
}

impl Cgroup {
    /// Makes the group and sets its bounds. `None`: this process may not make groups, and none is needed.
    pub fn create(hierarchies: &Hierarchies, group: &Path, limits: &Limits) -> Result<Option<Cgroup>, Failure> {
        let cgroup = Cgroup { hierarchies: hierarchies.clone(), group: group.to_owned() };
        let bounded = limits.cpu_milli.is_some() || limits.memory_bytes.is_some() || limits.pids.is_some();
        match cgroup.make() {
            Ok(()) => {}
            Err(_) if !bounded => return Ok(None),
            Err(error) => {
                return Err(Failure::Config(format!(
                    "the container has resource limits, but control groups cannot be written here ({error}): run the node as root, or remove the limits"
                )));
            }
        }
        cgroup.limit(limits).map_err(|error| {
            Failure::Config(format!("cannot set resource limits of group {}: {error}", group.display()))
        })?;
        Ok(Some(cgroup))
    }

    /// Moves the calling process, which has one thread, in.
    pub fn join(&self) -> io::Result<()> {
        // On v1 a thread that moves itself needs no lock of the whole machine: a millisecond instead of ten.
        let file = if matches!(self.hierarchies, Hierarchies::V1(_)) { "tasks" } else { "cgroup.procs" };
        self.hierarchies.controllers().iter().try_for_each(|root| write(&below(root, &self.group).join(file), "0"))
    }

    /// What a container may see of its groups: places below `/sys/fs/cgroup`, empty for the whole, and what is there.
    pub fn views(&self) -> Vec<(&str, PathBuf)> {
        match &self.hierarchies {
            Hierarchies::V1(all) => all
                .iter()
                .filter(|(name, _)| *name != UNITS)
                .map(|(name, root)| (*name, below(root, &self.group)))
                .collect(),
            Hierarchies::V2(root) => vec![("", below(root, &self.group))],
        }
    }

    /// True when the kernel killed a process of the group because its memory bound was hit.
    pub fn oom_killed(&self) -> bool {
        let file = match &self.hierarchies {
            Hierarchies::V1(_) => "memory.oom_control",
            Hierarchies::V2(_) => "memory.events",
        };
        self.directory("memory")
            .and_then(|directory| fs::read_to_string(directory.join(file)).ok())
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok()))
            .is_some_and(|kills| kills > 0)
    }

    /// Kills every process of the group.
    pub fn kill(&self) -> io::Result<()> {
        self.hierarchies.kill(&self.group)
    }

    /// Removes the group.
    pub fn remove(&self) -> io::Result<()> {
        self.hierarchies.remove(&self.group)
    }

    fn directory(&self, controller: &str) -> Option<PathBuf> {
        match &self.hierarchies {
            Hierarchies::V1(all) => {
                all.iter().find(|(name, _)| *name == controller).map(|(_, root)| below(root, &self.group))
            }
            Hierarchies::V2(root) => Some(below(root, &self.group)),
        }
    }

    fn make(&self) -> io::Result<()> {
        for root in self.hierarchies.controllers() {
            fs::create_dir_all(below(root, &self.group))?;
        }
        if let Hierarchies::V2(root) = &self.hierarchies {
            let between: Vec<&Path> = self.group.ancestors().skip(1).collect();
            for group in between.into_iter().rev() {
                let control = below(root, group).join("cgroup.subtree_control");
                // A controller that the kernel lacks is noticed when a bound that needs it is set.
                ["+cpu", "+memory", "+pids"].iter().for_each(|controller| drop(write(&control, controller)));
            }
        }
        Ok(())
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let v2 = matches!(self.hierarchies, Hierarchies::V2(_));
        let set = |controller: &str, file: &str, value: String| {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no {controller} controller"));
            write(&self.directory(controller).ok_or_else(missing)?.join(file), &value)
        };
        if let Some(shares) = limits.cpu_shares {
            // A weight is a hint: a kernel without the controller schedules fairly.
            let _ = if v2 {
                set("cpu", "cpu.weight", weight(shares).to_string())
            } else {
                set("cpu", "cpu.shares", shares.max(2).to_string())
            };
        }
        if let Some(milli) = limits.cpu_milli {
            let quota = (milli * CPU_PERIOD / 1000).max(CPU_QUOTA_MIN);
            if v2 {
                set("cpu", "cpu.max", format!("{quota} {CPU_PERIOD}"))?;
            } else {
                set("cpu", "cpu.cfs_period_us", CPU_PERIOD.to_string())?;
                set("cpu", "cpu.cfs_quota_us", quota.to_string())?;
            }
        }
        if let Some(bytes) = limits.memory_bytes {
            if v2 {
                set("memory", "memory.max", bytes.to_string())?;
                let _ = set("memory", "memory.swap.max", "0".into()); // absent without swap
                let _ = set("memory", "memory.oom.group", "1".into()); // since Linux 4.19
            } else {
                set("memory", "memory.limit_in_bytes", bytes.to_string())?;
                let _ = set("memory", "memory.memsw.limit_in_bytes", bytes.to_string()); // absent without swap accounting
            }
        }
        if let Some(pids) = limits.pids {
            set("pids", "pids.max", pids.to_string())?;
        }
        Ok(())
    }
}

/// Weight of v2 (1..10000) for shares of v1 (2..262144).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn below(root: &Path, group: &Path) -> PathBuf {
    root.join(group.strip_prefix("/").unwrap_or(group))
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn processes(directory: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    // What cannot be named from here is listed as 0, which would mean this process's own group.
    let mut found: Vec<i32> = listed.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0).collect();
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for inner in entries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        found.extend(processes(&inner));
    }
    found
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    let mut result = Ok(());
    for _ in 0..REMOVE_TRIES {
        result = fs::remove_dir(directory);
        match &result {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => thread::sleep(REMOVE_PAUSE),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_listed_with_those_of_inner_groups() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("cgroup.procs"), "0\n7\n").unwrap();
        fs::write(folder.path().join("inner/cgroup.procs"), "9\n").unwrap();
        assert_eq!(processes(folder.path()), [7, 9]);
        assert!(processes(&folder.path().join("missing")).is_empty());
    }

    #[test]
    fn hybrid_machines_count_as_v1() {
        let text = "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    2 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    3 1 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    4 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let both = "/sys/fs/cgroup/cpu,cpuacct";
        let expected = vec![("cpu", both.into()), ("cpuacct", both.into()), ("memory", "/sys/fs/cgroup/memory".into())];
        assert_eq!(Hierarchies::parse(text), Hierarchies::V1(expected));
        assert_eq!(Hierarchies::parse("4 1 0:4 / /cg rw - cgroup2 cgroup2 rw\n"), Hierarchies::V2("/cg".into()));
    }

    #[test]
    fn what_a_group_has_spent() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("cpuacct/k/c/cpuacct.usage", "1500\n");
        file("memory/k/c/memory.usage_in_bytes", "5000\n");
        file("memory/k/c/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n");
        file("k/c/cpu.stat", "usage_usec 3\nuser_usec 1\n");
        file("k/c/memory.current", "700\n");
        file("k/c/memory.stat", "anon 1\ninactive_file 200\n");
        let group = Path::new("/k/c");
        let v1 = Hierarchies::V1(["cpuacct", "memory"].map(|name| (name, folder.path().join(name))).to_vec());
        assert_eq!(v1.spent(group), Some(Spent { cpu_nanos: 1500, memory_bytes: 3000 }));
        let v2 = Hierarchies::V2(folder.path().to_owned());
        assert_eq!(v2.spent(group), Some(Spent { cpu_nanos: 3000, memory_bytes: 500 }));
        assert_eq!(v2.spent(Path::new("/none")), None);
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }

    /// Every file below `folder` with what was written to it.
    fn written(folder: &Path) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    let name = entry.strip_prefix(folder).unwrap().display().to_string();
                    lines.push(format!("{name} = {}\n", fs::read_to_string(entry).unwrap()));
                }
            }
        }
        lines.sort();
        lines.concat()
    }

    #[test]
    fn what_is_written_to_which_file() {
        let limits = Limits { cpu_shares: Some(512), cpu_milli: Some(250), memory_bytes: Some(1 << 26), pids: Some(9) };
        let (v1, v2) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let controllers = ["cpu", "memory", "pids"].map(|name| (name, v1.path().join(name))).to_vec();
        let machines = [(v1.path(), Hierarchies::V1(controllers)), (v2.path(), Hierarchies::V2(v2.path().to_owned()))];
        let texts = machines.map(|(folder, hierarchies)| {
            Cgroup::create(&hierarchies, Path::new("/k/p/c"), &limits).unwrap().unwrap();
            written(folder)
        });
        expect_test::expect![[r#"
            cpu/k/p/c/cpu.cfs_period_us = 100000
            cpu/k/p/c/cpu.cfs_quota_us = 25000
            cpu/k/p/c/cpu.shares = 512
            memory/k/p/c/memory.limit_in_bytes = 67108864
            memory/k/p/c/memory.memsw.limit_in_bytes = 67108864
            pids/k/p/c/pids.max = 9
        "#]]
        .assert_eq(&texts[0]);
        expect_test::expect![[r#"
            cgroup.subtree_control = +pids
            k/cgroup.subtree_control = +pids
            k/p/c/cpu.max = 25000 100000
            k/p/c/cpu.weight = 20
            k/p/c/memory.max = 67108864
            k/p/c/memory.oom.group = 1
            k/p/c/memory.swap.max = 0
            k/p/c/pids.max = 9
            k/p/cgroup.subtree_control = +pids
        "#]]
        .assert_eq(&texts[1]);
    }

    #[test]
    fn limits_need_groups_that_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let nowhere = Hierarchies::V2(file);
        assert!(Cgroup::create(&nowhere, Path::new("/kapstan/p/c"), &Limits::default()).unwrap().is_none());
        let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
        assert!(matches!(Cgroup::create(&nowhere, Path::new("/kapstan/p/c"), &limits), Err(Failure::Config(_))));
    }
}
