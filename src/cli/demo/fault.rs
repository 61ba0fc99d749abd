//! The faults: each is a process of its own, this program with a hidden verb, that does nothing but
//! fail.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cli::output::Outcome;

/// Memory after which the process gives up waiting for the OOM kill.
const HOG_BYTES: usize = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// Time between two attempts to connect.
const ATTEMPTS_APART: Duration = Duration::from_millis(10);

#[derive(clap::Args)]
pub(crate) struct FaultArgs {
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Subcommand)]
enum Fault {
    /// Allocate memory until the limit of a cgroup ends the process
    Hog {
        /// The cgroup's `cgroup.procs`
        cgroup: PathBuf,
    },
    /// Read through a null pointer
    Segfault,
    /// Connect to a port of this machine on which no process listens
    Refused {
        /// The port
        port: u16,
        /// Number of attempts
        times: u32,
    },
}

/// Causes the fault.
pub(crate) fn fault(args: &FaultArgs) -> Outcome {
    match &args.fault {
        Fault::Hog { cgroup } => hog(cgroup),
        Fault::Segfault => segfault(),
        Fault::Refused { port, times } => refused(*port, *times),
    }
}

/// Enters the cgroup first, and allocates nothing if that fails. Should the whole node run short of
/// memory meanwhile, the kernel kills this process before any other.
fn hog(cgroup: &std::path::Path) -> Outcome {
    std::fs::write(cgroup, std::process::id().to_string())?;
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() * CHUNK_BYTES < HOG_BYTES {
        // Not zeros: a page that is never written isn't allocated.
        held.push(vec![1; CHUNK_BYTES]);
    }
    anyhow::bail!("not killed after allocating {} bytes", held.len() * CHUNK_BYTES)
}

/// Reads the second field of a structure through a null pointer.
fn segfault() -> Outcome {
    // Only the fault is intended, not a core dump.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    let address = std::hint::black_box(8_usize);
    // SAFETY: there is no valid memory at the address, and that is the point: nothing can be
    // mapped on the first page, so the processor faults at this volatile read, the kernel ends this
    // process, and no Rust code sees a value. The process exists for this purpose only.
    let value = unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
    anyhow::bail!("read {value} through a null pointer")
}

fn refused(port: u16, times: u32) -> Outcome {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..times {
        if TcpStream::connect(address).is_ok() {
            anyhow::bail!("a process listens on {address}");
        }
        std::thread::sleep(ATTEMPTS_APART);
    }
    Ok(ExitCode::SUCCESS)
}
