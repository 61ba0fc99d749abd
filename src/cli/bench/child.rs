//! The processes of a benchmark: start, resource usage, end by process id.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use tapio_core::clock;

/// A tapio process.
pub(super) struct Child {
    process: Process,
    verb: String,
}

/// The result of a process that ended.
pub(super) struct Finished {
    pub(super) stdout: Vec<u8>,
    pub(super) peak_rss_bytes: u64,
}

impl Child {
    pub(super) fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::spawn(arguments.iter().map(|a| (*a).to_owned()).collect(), Stdio::null())
    }

    pub(super) fn start_with_output(arguments: &[String]) -> anyhow::Result<Self> {
        Self::spawn(arguments.to_vec(), Stdio::piped())
    }

    fn spawn(arguments: Vec<String>, stdout: Stdio) -> anyhow::Result<Self> {
        let verb = arguments.first().cloned().unwrap_or_default();
        let program = std::env::current_exe()?;
        let process =
            Command::new(program).args(arguments).stdin(Stdio::null()).stdout(stdout).spawn();
        Ok(Self { process: process.with_context(|| format!("start `tapio {verb}`"))?, verb })
    }

    /// Waits until `ready` returns true.
    pub(super) fn wait_for(
        &mut self,
        longest: Duration,
        ready: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let until = clock::instant() + longest;
        while !ready() {
            if let Some(status) = self.process.try_wait()? {
                bail!("`tapio {}` ended: {status}", self.verb);
            }
            if clock::instant() > until {
                bail!("`tapio {}` isn't ready after {longest:?}", self.verb);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn proc_file(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{name}", self.process.id());
        std::fs::read_to_string(&path).with_context(|| path)
    }

    /// CPU time used so far by all threads (`utime` and `stime` of `/proc/PID/stat`, proc(5)).
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.proc_file("stat")?;
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = behind_name.split_whitespace().skip(11);
        let mut ticks =
            || fields.next().and_then(|f| f.parse::<u64>().ok()).context("/proc/PID/stat");
        let sum = ticks()? + ticks()?;
        Ok(sum as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Peak resident memory (`VmHWM`).
    pub(super) fn peak_rss_bytes(&self) -> anyhow::Result<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Waits for the end of the process and returns its output.
    pub(super) fn finish(mut self) -> anyhow::Result<Finished> {
        let mut stdout = Vec::new();
        let mut peak_rss_bytes = 0;
        let mut pipe = self.process.stdout.take().context("output isn't piped")?;
        let reader = std::thread::spawn(move || pipe.read_to_end(&mut stdout).map(|_| stdout));
        let status = loop {
            peak_rss_bytes = self.peak_rss_bytes().unwrap_or(0).max(peak_rss_bytes);
            if let Some(status) = self.process.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if !status.success() {
            bail!("`tapio {}` ended: {status}", self.verb);
        }
        let stdout = reader.join().map_err(|_| anyhow::anyhow!("reading the output"))??;
        Ok(Finished { stdout, peak_rss_bytes })
    }

    /// Ends the process with SIGTERM and waits for it.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let status = self.process.wait()?;
        if !status.success() {
            bail!("`tapio {}` ended: {status}", self.verb);
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After an error: no process may outlive the benchmark.
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// A free port.
pub(super) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Fetches a JSON page over HTTP/1.0, so that the response ends with the connection.
pub(super) fn http_json(port: u16, path: &str) -> anyhow::Result<serde_json::Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let body = response.split_once("\r\n\r\n").context("no body")?.1;
    Ok(serde_json::from_str(body)?)
}
