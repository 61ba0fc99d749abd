//! Zombie processes by parent, from `/proc/PID/stat` (proc_pid_stat(5)).

use std::collections::HashMap;
use std::fs;

use tapio_core::identity::CgroupNames;

/// A process that didn't wait for its ended children.
pub(super) struct Parent {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) cgroup: CgroupNames,
    pub(super) zombies: u64,
}

/// State and parent of a process from its `stat`. The name may have blanks and parentheses; the
/// last parenthesis ends it.
fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((state, words.next()?.parse().ok()?))
}

/// The processes with at least `min` zombies.
pub(super) fn parents(min: u64) -> Vec<Parent> {
    let mut zombies: HashMap<u32, u64> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let is_process =
            entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(('Z', parent)) = state_and_parent(&stat) {
            *zombies.entry(parent).or_default() += 1;
        }
    }
    let mut parents: Vec<Parent> = zombies
        .into_iter()
        .filter(|(_, count)| *count >= min)
        .map(|(pid, zombies)| parent(pid, zombies))
        .collect();
    parents.sort_by_key(|p| p.pid);
    parents
}

fn parent(pid: u32, zombies: u64) -> Parent {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let cgroups = read("cgroup");
    // `0::/path` is the unified hierarchy's line; without it systemd's own hierarchy has the unit.
    let of = |prefix: &str| {
        cgroups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix))
    };
    let path = of(":").filter(|path| *path != "/").or_else(|| of("name=systemd:")).unwrap_or("/");
    let name = read("comm").trim_end().to_owned();
    Parent { pid, name, cgroup: CgroupNames::parse(path), zombies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_does_not_affect_parsing() {
        assert_eq!(state_and_parent("7 (a) S) Z 42 7 7"), Some(('Z', 42)));
        assert_eq!(state_and_parent("7 (a b) S 1 7"), Some(('S', 1)));
        assert_eq!(state_and_parent(""), None);
    }

    #[test]
    fn parent_of_zombies_is_found() {
        let mut children: Vec<_> =
            (0..3).map(|_| std::process::Command::new("/bin/true").spawn().unwrap()).collect();
        let own = std::process::id();
        let until = tapio_core::clock::instant() + std::time::Duration::from_secs(10);
        let mut found = 0;
        while found < 3 && tapio_core::clock::instant() < until {
            found = parents(1).iter().find(|p| p.pid == own).map_or(0, |p| p.zombies);
        }
        assert!(found >= 3, "{found}");
        children.iter_mut().for_each(|c| drop(c.wait()));
    }
}
