//! The memory of this process, and the limit of its cgroup.

use std::fs;
use std::path::Path;

/// Where the hierarchies of cgroups are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The memory of this process that the kernel can't take back, in bytes: anonymous and shared pages
/// (`RssAnon` and `RssShmem` in proc(5)). Pages of files can be read again.
pub(crate) fn used_bytes() -> Option<u64> {
    parse_status(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_status(text: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((field("RssAnon:")? + field("RssShmem:")?) * 1024)
}

/// The smallest limit of this process's cgroup and those above it, in bytes.
pub(super) fn cgroup_limit_bytes() -> Option<u64> {
    limit_below(Path::new(CGROUP_ROOT), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The same for a file in the format of `/proc/self/cgroup`: `0::PATH` in version 2 (`memory.max`),
/// `N:memory:PATH` in version 1 (`memory.limit_in_bytes`); see cgroups(7).
fn limit_below(root: &Path, cgroups: &str) -> Option<u64> {
    let limits = cgroups.lines().filter_map(|line| {
        let (_, controllers_and_path) = line.split_once(':')?;
        match controllers_and_path.split_once(':')? {
            ("", path) => smallest(root, path, "memory.max"),
            (controllers, path) if controllers.split(',').any(|c| c == "memory") => {
                smallest(&root.join("memory"), path, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.min()
}

/// The smallest number in the file `name` of a cgroup and those above it. Where the cgroup's path
/// isn't visible, as in a container, the root is the container's own cgroup.
fn smallest(root: &Path, path: &str, name: &str) -> Option<u64> {
    let relative = Path::new(path.trim_start_matches('/'));
    let limits = relative.ancestors().filter_map(|cgroup| {
        let limit = fs::read_to_string(root.join(cgroup).join(name)).ok()?;
        limit.trim().parse::<u64>().ok()
    });
    // Version 1 has no word for "no limit", but a number beyond any memory.
    limits.min().filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read() {
        let before = used_bytes().unwrap();
        let block = vec![1u8; 64 << 20];
        let after = used_bytes().unwrap();
        assert!(after > before + (32 << 20), "{before} {after} {}", block[77]);
        assert_eq!(
            parse_status("RssAnon:\t  12 kB\nRssFile: 9 kB\nRssShmem:\t 3 kB\n"),
            Some(15 << 10)
        );
        assert_eq!(parse_status("RssAnon: 12 kB\n"), None);
    }

    #[test]
    fn smallest_limit_on_the_way_to_the_root_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("memory/pod")).unwrap();
        fs::write(root.join("a/memory.max"), "1000\n").unwrap();
        fs::write(root.join("a/b/memory.max"), "max\n").unwrap();
        fs::write(root.join("memory/pod/memory.limit_in_bytes"), "500\n").unwrap();
        fs::write(root.join("memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(limit_below(root, "0::/a/b\n"), Some(1000));
        assert_eq!(limit_below(root, "0::/\n"), None);
        assert_eq!(limit_below(root, "5:cpu,memory:/pod\n1:name=x:/\n0::/a\n"), Some(500));
        assert_eq!(limit_below(root, "5:memory:/\n"), None);
        assert_eq!(limit_below(root, "0::/not/visible\n"), None);
        fs::write(root.join("memory.max"), "300\n").unwrap();
        assert_eq!(limit_below(root, "0::/not/visible\n"), Some(300));
        assert_eq!(limit_below(root, "garbage\n"), None);
    }
}
