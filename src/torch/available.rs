//! Memory that can still be had: what the system has left, within the limits of the control groups that this process is
//! in, as containers and job schedulers set them.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Bytes that this process may still use before the system or a control group runs out of memory; none where neither
/// says so. What the system could take back at once, such as files that it keeps in memory, counts as left.
pub fn available_bytes() -> Option<u64> {
    let system = left(&read_to_string("/proc/meminfo").ok()?)?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(folders(&groups).filter_map(|folder| within(&folder)).fold(system, u64::min))
}

/// What `/proc/meminfo` says is left, in bytes.
fn left(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// The folders of the groups that `/proc/self/cgroup` names and that may limit memory, each with those that it is in;
/// of the first version and of the second.
fn folders(groups: &str) -> impl Iterator<Item = PathBuf> {
    let folders = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            of if of.split(',').any(|name| name == "memory") => Path::new("/sys/fs/cgroup/memory"),
            _ => return None,
        };
        let own = root.join(path.trim_start_matches('/'));
        Some(own.ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_path_buf).collect::<Vec<_>>())
    });
    folders.collect::<Vec<_>>().into_iter().flatten()
}

/// Bytes that a group has left; none if it has no limit.
fn within(folder: &Path) -> Option<u64> {
    let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let kept = read_to_string(folder.join("memory.stat")).ok().and_then(|stat| files(&stat)).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(kept)))
}

/// Bytes of files in a group's memory that are not in use, of `memory.stat`.
fn files(stat: &str) -> Option<u64> {
    let value = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value("total_inactive_file").or_else(|| value("inactive_file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read() {
        let info = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000 kB\n";
        assert_eq!(left(info), Some(2000 << 10));
        assert_eq!(left("MemTotal:       16000000 kB\n"), None);
        if cfg!(target_os = "linux") {
            assert!(available_bytes().unwrap() > 0);
        }
    }

    #[test]
    fn groups_are_looked_for_with_those_that_they_are_in() {
        let all = |groups: &str| folders(groups).map(|folder| folder.display().to_string()).collect::<Vec<_>>();
        assert_eq!(all("0::/job/step\n"), ["/sys/fs/cgroup/job/step", "/sys/fs/cgroup/job", "/sys/fs/cgroup"]);
        let first = "5:cpu,cpuacct:/a\n4:memory:/a\n";
        assert_eq!(all(first), ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]);
        assert!(all("no group\n").is_empty());
    }

    #[test]
    fn a_group_s_limit_counts_without_files_that_can_go() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(within(dir.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(within(dir.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(within(dir.path()), Some(300));
        write("memory.stat", "anon 600\ninactive_file 100\n");
        assert_eq!(within(dir.path()), Some(400));
        write("memory.current", "2000\n");
        assert_eq!(within(dir.path()), Some(0));
    }
}
