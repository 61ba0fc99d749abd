//! Zombie processes by parent, from `/proc/PID/stat` (proc_pid_stat(5)).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::events::event_builder::Lossy;
use crate::runtime::cgroup_of_process;
use tapio_core::identity::CgroupNames;

/// A process that didn't wait for its ended children.
pub(super) struct Parent {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) cgroup: CgroupNames,
    pub(super) zombies: u64,
}

/// State, parent and number of threads of a process or thread.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: u32,
    /// Threads that aren't reaped yet, the group's leader among them.
    threads: u32,
}

impl Stat {
    /// Parses the content of a `stat`. The name may have any byte, parentheses and bytes that
    /// aren't UTF-8 among them; the last parenthesis ends it.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let mut words = rest.split_whitespace();
        let state = *words.next()?.as_bytes().first()?;
        let parent = words.next()?.parse().ok()?;
        // Field 20; the parent is field 4.
        let threads = words.nth(15).and_then(|n| n.parse().ok()).unwrap_or(1);
        Some(Self { state, parent, threads })
    }

    fn read(folder: &Path) -> Option<Self> {
        Self::parse(&fs::read(folder.join("stat")).ok()?)
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Whether a thread of this process still runs. Its leader has the state of a zombie once it has
/// ended itself, also where other threads continue: nothing can be reaped then.
fn has_living_thread(process: &Path) -> bool {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| Stat::read(&thread.path())).any(|thread| !thread.is_dead())
}

/// The processes with at least `min` zombies. `base`: the cgroup that contains the node.
pub(super) fn parents(min: u64, base: &str) -> Vec<Parent> {
    let mut zombies: HashMap<u32, u64> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let is_process =
            entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let process = entry.path();
        let Some(stat) = Stat::read(&process).filter(|stat| stat.state == b'Z') else { continue };
        if stat.threads > 1 && has_living_thread(&process) {
            continue;
        }
        *zombies.entry(stat.parent).or_default() += 1;
    }
    let mut parents: Vec<Parent> = zombies
        .into_iter()
        .filter(|(_, count)| *count >= min)
        .map(|(pid, zombies)| parent(pid, zombies, base))
        .collect();
    parents.sort_by_key(|p| p.pid);
    parents
}

fn parent(pid: u32, zombies: u64, base: &str) -> Parent {
    // A name or path that isn't UTF-8 has the same form here as in kernel events.
    let read = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        Lossy(&bytes).to_string()
    };
    let cgroup = CgroupNames::parse_below(base, cgroup_of_process(&read("cgroup")));
    let name = read("comm").trim_end_matches('\n').to_owned();
    Parent { pid, name, cgroup, zombies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_does_not_affect_parsing() {
        let tail = "42 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 5 19";
        for name in [&b"a) S"[..], b"a b", b"worker-t-\xc3\xb6\xc3", b"\n)"] {
            let line = [b"7 (", name, b") Z ", tail.as_bytes()].concat();
            assert_eq!(Stat::parse(&line), Some(Stat { state: b'Z', parent: 42, threads: 5 }));
        }
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn parent_of_zombies_is_found() {
        let mut children: Vec<_> =
            (0..3).map(|_| std::process::Command::new("/bin/true").spawn().unwrap()).collect();
        let own = std::process::id();
        let until = tapio_core::clock::instant() + std::time::Duration::from_secs(10);
        let mut found = 0;
        while found < 3 && tapio_core::clock::instant() < until {
            found = parents(1, "").iter().find(|p| p.pid == own).map_or(0, |p| p.zombies);
        }
        assert!(found >= 3, "{found}");
        children.iter_mut().for_each(|c| drop(c.wait()));
    }

    /// Starts a program whose first thread ends while another one continues.
    fn process_without_first_thread() -> Option<std::process::Child> {
        let exit = libc::SYS_exit;
        let script = format!(
            "import ctypes,threading,time\n\
             threading.Thread(target=time.sleep,args=(60,)).start()\n\
             ctypes.CDLL(None).syscall({exit},0)"
        );
        std::process::Command::new("python3").args(["-c", &script]).spawn().ok()
    }

    #[test]
    fn process_whose_other_threads_live_is_no_zombie() {
        let Some(mut child) = process_without_first_thread() else {
            return println!("skipped: no python3");
        };
        let folder = Path::new("/proc").join(child.id().to_string());
        let until = tapio_core::clock::instant() + std::time::Duration::from_secs(20);
        let leader_ended = || Stat::read(&folder).is_some_and(|stat| stat.state == b'Z');
        while !leader_ended() && tapio_core::clock::instant() < until {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let stat = Stat::read(&folder);
        let is_alive = has_living_thread(&folder);
        child.kill().unwrap();
        child.wait().unwrap();
        let stat = stat.unwrap();
        assert_eq!((stat.state, stat.threads), (b'Z', 2));
        assert!(is_alive);
        assert!(!has_living_thread(&folder));
    }
}
