//! A process of a benchmark with everything that it starts: a process group, whose CPU time is
//! known by thread, and which is ended as a whole.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Child as Process, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::super::output::{Progress, interrupts_are_handled};
use super::super::signals::Signals;
use tapio_core::clock;

/// Time limit for the end of a group; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval at which a pause looks for an interruption.
const PAUSE_INTERVAL: Duration = Duration::from_millis(100);
/// A pause whose progress is shown.
const SHOWN_PAUSE: Duration = Duration::from_secs(1);
/// Interval at which a process is asked whether it is ready or has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A wait that only a signal should end; when it ends by itself, it begins again.
const SIGNAL_WAIT: Duration = Duration::from_secs(3600);

/// The groups that run. A signal that ends the benchmark doesn't reach them by itself.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Whether a signal has ended the groups.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A process group.
pub(super) struct Group {
    process: Process,
    id: Pid,
    label: String,
}

/// CPU time that a group has used, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CpuTime {
    /// All threads, also those that have ended in living processes.
    pub(super) total: f64,
    /// Living threads by name, those of one name together.
    pub(super) threads: BTreeMap<String, f64>,
}

impl CpuTime {
    /// The time used since an earlier reading.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let of_thread = |(name, seconds): (&String, &f64)| {
            let before = earlier.threads.get(name).copied().unwrap_or(0.0);
            (name.clone(), (seconds - before).max(0.0))
        };
        Self {
            total: (self.total - earlier.total).max(0.0),
            threads: self.threads.iter().map(of_thread).collect(),
        }
    }

    /// The time of the threads of this name.
    pub(super) fn thread(&self, name: &str) -> f64 {
        self.threads.get(name).copied().unwrap_or(0.0)
    }
}

impl Group {
    /// Starts a command in a group of its own.
    pub(super) fn start(mut command: Command, label: impl Into<String>) -> anyhow::Result<Self> {
        end_groups_at_signals();
        let label = label.into();
        let process = command.process_group(0).spawn().with_context(|| format!("start {label}"))?;
        let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("process id")?;
        running(|ids| ids.push(id));
        Ok(Self { process, id, label })
    }

    /// Its standard streams.
    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until `ready` returns true.
    pub(super) fn wait_for(
        &mut self,
        longest: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let until = clock::instant() + longest;
        while !ready() {
            self.check()?;
            if clock::instant() > until {
                bail!("{} isn't ready after {longest:?}", self.label);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Returns an error if its first process has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.label),
            None => Ok(()),
        }
    }

    /// The ids of its processes.
    fn processes(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| self.has(*id)).collect()
    }

    fn has(&self, id: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Behind the name: state, parent, group (proc(5)).
        let group = behind_name(&stat).nth(2).and_then(|field| field.parse::<i32>().ok());
        group == Some(self.id.as_raw_nonzero().get())
    }

    /// The CPU time used so far.
    pub(super) fn cpu_time(&self) -> CpuTime {
        let mut time = CpuTime::default();
        for process in self.processes() {
            let of_process = threads_of(process);
            let living: f64 = of_process.iter().map(|(_, seconds)| seconds).sum();
            // The process's own counter has the threads that ended, in whole ticks.
            time.total += stat_seconds(&format!("/proc/{process}/stat")).max(living);
            for (name, seconds) in of_process {
                *time.threads.entry(name).or_default() += seconds;
            }
        }
        time
    }

    /// Peak resident memory of its processes (`VmHWM`), in bytes.
    pub(super) fn peak_rss_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Resident memory of its processes (`VmRSS`), in bytes.
    pub(super) fn rss_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> u64 {
        let of_process = |id: u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(of_process).sum::<u64>() * 1024
    }

    /// Ends the group with SIGTERM and waits for its first process. Returns its exit status.
    ///
    /// # Errors
    /// When the process doesn't end in time.
    pub(super) fn end(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM);
        let until = clock::instant() + END_TIMEOUT;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if clock::instant() > until {
                bail!("{} doesn't end within {END_TIMEOUT:?} after SIGTERM", self.label);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn signal(&self, signal: Signal) {
        // The group may have ended by itself.
        let _ = kill_process_group(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No process may outlive the benchmark, not even one whose parent has ended.
        self.signal(Signal::KILL);
        let _ = self.process.wait();
        running(|ids| ids.retain(|id| *id != self.id));
    }
}

fn running<T>(change: impl FnOnce(&mut Vec<Pid>) -> T) -> T {
    change(&mut RUNNING.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a signal has ended the groups.
pub(super) fn is_interrupted() -> bool {
    // Relaxed, paired with the store after a signal: no other data depends on the flag.
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Pauses the benchmark.
///
/// # Errors
/// When it is interrupted meanwhile.
pub(super) fn pause(duration: Duration) -> anyhow::Result<()> {
    let _progress = (duration >= SHOWN_PAUSE).then(|| Progress::of_time("bench", duration));
    let end = clock::instant() + duration;
    loop {
        if is_interrupted() {
            bail!("a signal was received");
        }
        let left = end.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(PAUSE_INTERVAL));
    }
}

/// Ends the groups when the benchmark is interrupted. It then fails, because its processes ended.
fn end_groups_at_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the handlers a signal ends the benchmark alone.
        let Ok(signals) = Signals::of_shutdown() else { return };
        interrupts_are_handled();
        std::thread::spawn(move || {
            while !signals.is_shutdown() {
                signals.wait(SIGNAL_WAIT);
            }
            // Relaxed, paired with the load in `is_interrupted`.
            INTERRUPTED.store(true, Ordering::Relaxed);
            running(|ids| {
                for id in ids.iter() {
                    let _ = kill_process_group(*id, Signal::TERM);
                }
            });
        });
    });
}

/// The fields of a `stat` file behind the process's name, which may have spaces.
fn behind_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// `utime` and `stime` of a `stat` file (proc(5)), in seconds.
fn stat_seconds(path: &str) -> f64 {
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let ticks: u64 =
        behind_name(&stat).skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Names and CPU times of a process's threads.
fn threads_of(process: u32) -> Vec<(String, f64)> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let of_thread = |path: std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        // In nanoseconds where the kernel has it, else in ticks.
        let exact = std::fs::read_to_string(path.join("schedstat")).ok();
        let exact = exact.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let seconds = match exact {
            Some(ns) => ns as f64 / 1e9,
            None => stat_seconds(path.join("stat").to_str()?),
        };
        Some((name.trim_end().to_owned(), seconds))
    };
    tasks.flatten().filter_map(|task| of_thread(task.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_measured_and_ended_as_a_whole() {
        let mut command = Command::new("sh");
        command.args(["-c", "(while :; do :; done) & wait"]);
        let mut group = Group::start(command, "a shell").unwrap();
        let patience = Duration::from_secs(60);
        group.wait_for(patience, || true).unwrap();
        let before = group.cpu_time();
        let until = clock::instant() + patience;
        while group.cpu_time().since(&before).total < 0.05 && clock::instant() < until {
            std::thread::sleep(POLL_INTERVAL);
        }
        let used = group.cpu_time().since(&before);
        assert!(used.total >= 0.05 && used.thread("sh") > 0.0, "{used:?}");
        let processes = group.processes();
        assert_eq!(processes.len(), 2, "the shell and its child");
        assert!(group.peak_rss_bytes() >= group.rss_bytes() && group.rss_bytes() > 0);
        let id = group.id;
        group.end().unwrap();
        for process in processes {
            while std::fs::read_to_string(format!("/proc/{process}/stat"))
                .is_ok_and(|stat| behind_name(&stat).next() != Some("Z"))
            {
                assert!(clock::instant() < until, "{process} has outlived its group");
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        assert!(running(|ids| !ids.contains(&id)));
    }

    #[test]
    fn process_that_ended_is_never_ready() {
        let mut group = Group::start(Command::new("false"), "a failure").unwrap();
        let error = group.wait_for(Duration::from_secs(60), || false).unwrap_err().to_string();
        assert!(error.starts_with("a failure ended: exit status: 1"), "{error}");
    }
}
