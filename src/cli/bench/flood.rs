//! Floods of real kernel events: processes that are executed, TCP connections on loopback, system
//! calls of a cgroup.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};

use super::flood_cgroup::FloodCgroup;
use tapio_core::clock;

/// Listeners of the flood of connections: the kernel keeps closed connections for a minute, and
/// there are only so many to one address.
const LISTENERS: u64 = 32;
/// Threads that cause a flood.
const THREADS: u64 = 2;

/// The cause of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    Execs,
    Connections,
    /// `dd` reads and writes single bytes, in a cgroup of its own.
    Syscalls,
}

impl Flood {
    pub(super) const ALL: [Self; 3] = [Self::Execs, Self::Connections, Self::Syscalls];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Execs => "execs",
            Self::Connections => "connections",
            Self::Syscalls => "syscalls",
        }
    }

    /// The kinds of which each operation is at least one event.
    pub(super) fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Execs => &["kernel.process.exec", "kernel.process.exit"],
            Self::Connections => &["kernel.tcp.connect", "kernel.tcp.accept"],
            Self::Syscalls => &["kernel.syscall.enter"],
        }
    }

    /// Floods until `end`; system calls come from a process in `cgroup`. Returns the number of
    /// operations.
    ///
    /// # Errors
    /// When a process or a connection fails.
    pub(super) fn cause(self, end: Instant, cgroup: &FloodCgroup) -> anyhow::Result<u64> {
        match self {
            Self::Execs => repeat(end, |_| execute()),
            Self::Connections => connect(end),
            Self::Syscalls => copy_bytes(end, cgroup),
        }
    }
}

/// Repeats an operation on each thread until `end`. It gets a number that no other one has.
fn repeat(
    end: Instant,
    operation: impl Fn(u64) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<u64> {
    let on_thread = |thread: u64| {
        let mut done = 0;
        while clock::instant() < end {
            operation(done * THREADS + thread)?;
            done += 1;
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || on_thread(thread))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<u64>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the flood panicked"))?
        };
        threads.into_iter().map(join).sum()
    })
}

fn execute() -> anyhow::Result<()> {
    let mut command = Command::new("/bin/true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_clear();
    let status = command.status().context("/bin/true")?;
    if !status.success() {
        bail!("/bin/true: {status}");
    }
    Ok(())
}

/// Connects to listeners of its own in turn, and closes each connection.
fn connect(end: Instant) -> anyhow::Result<u64> {
    let listeners = (0..LISTENERS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners: Vec<TcpListener> = listeners.collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for listener in &listeners {
            let is_over = &is_over;
            scope.spawn(move || {
                // Relaxed, paired with the store below: the connection after it wakes the thread.
                while listener.accept().is_ok() && !is_over.load(Ordering::Relaxed) {}
            });
        }
        let done = repeat(end, |n| {
            let address = addresses[(n % LISTENERS) as usize];
            TcpStream::connect(address).map(drop).with_context(|| format!("connect to {address}"))
        });
        // Relaxed, paired with the load above.
        is_over.store(true, Ordering::Relaxed);
        for address in &addresses {
            // A listener that can't be reached any more doesn't wait either.
            let _ = TcpStream::connect(address);
        }
        done
    })
}

/// Copies bytes one by one, by a process in the cgroup. Returns the reads and writes: it makes some
/// more system calls at its start.
fn copy_bytes(end: Instant, cgroup: &FloodCgroup) -> anyhow::Result<u64> {
    // The shell enters the cgroup before it becomes dd.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo $$ >\"$0\" && exec dd if=/dev/zero of=/dev/null bs=1"]);
    command.arg(cgroup.procs_file()).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let dd = command.spawn().context("dd")?;
    std::thread::sleep(end.saturating_duration_since(clock::instant()));
    interrupted_count(dd)
}

/// Ends `dd` by SIGINT, at which it prints its counts: `12+0 records in`, the same with `out`.
fn interrupted_count(dd: Child) -> anyhow::Result<u64> {
    let pid = i32::try_from(dd.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.context("dd has no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).context("dd")?;
    let report = String::from_utf8(dd.wait_with_output()?.stderr)?;
    let counts = report.lines().filter_map(|line| {
        let (count, _) = line.split_once("+0 records ")?;
        count.parse::<u64>().ok()
    });
    match counts.sum() {
        0 => bail!("dd: no counts in {report:?}"),
        calls => Ok(calls),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn floods_count_what_they_did() {
        let Ok(cgroup) = FloodCgroup::create() else {
            println!("skipped: can't create a cgroup; needs root");
            return;
        };
        for flood in Flood::ALL {
            let end = clock::instant() + Duration::from_millis(300);
            let done = flood.cause(end, &cgroup).unwrap();
            assert!(done > 0, "{flood:?}");
        }
        let end = clock::instant() + Duration::from_millis(100);
        let failed = repeat(end, |n| if n == 2 { bail!("the third") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "the third");
    }
}
