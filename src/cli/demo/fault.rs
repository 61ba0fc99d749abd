//! The faults themselves: each is a process of its own, this program with a hidden verb, and does
//! nothing but fail.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cli::Outcome;

/// What a process takes before it gives up being killed.
const HOG_BYTES: usize = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// Time between two attempts to connect.
const ATTEMPTS_APART: Duration = Duration::from_millis(10);

#[derive(clap::Args)]
pub(in crate::cli) struct FaultArgs {
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Subcommand)]
enum Fault {
    /// Takes memory until the limit of a cgroup ends it
    Hog {
        /// The cgroup's `cgroup.procs`
        cgroup: PathBuf,
    },
    /// Reads through a null pointer
    Segfault,
    /// Connects to a port of this machine nobody listens on
    Refused {
        /// The port
        port: u16,
        /// How often
        times: u32,
    },
}

/// Commits the fault.
pub(in crate::cli) fn fault(args: &FaultArgs) -> Outcome {
    match &args.fault {
        Fault::Hog { cgroup } => hog(cgroup),
        Fault::Segfault => segfault(),
        Fault::Refused { port, times } => refused(*port, *times),
    }
}

/// Goes into the cgroup first: where it can't, it takes no memory. Should the whole node be short
/// of memory meanwhile, this process goes before any other.
fn hog(cgroup: &std::path::Path) -> Outcome {
    std::fs::write(cgroup, std::process::id().to_string())?;
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() * CHUNK_BYTES < HOG_BYTES {
        // Not zeros: pages that are only read as zeros aren't taken.
        held.push(vec![1; CHUNK_BYTES]);
    }
    anyhow::bail!("{} bytes and still there", held.len() * CHUNK_BYTES)
}

/// What a program with a null pointer to a structure does when it reads the second field.
fn segfault() -> Outcome {
    // The fault is wanted, the core dump isn't.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    let address = std::hint::black_box(8_usize);
    // SAFETY: there is no valid memory at the address, and that is the point: nothing can be
    // mapped on the first page, so the processor faults at this volatile read, the kernel ends this
    // process, and no Rust code sees a value. The process was made for nothing else.
    let value = unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
    anyhow::bail!("read {value} through a null pointer")
}

fn refused(port: u16, times: u32) -> Outcome {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..times {
        if TcpStream::connect(address).is_ok() {
            anyhow::bail!("somebody listens on {address}");
        }
        std::thread::sleep(ATTEMPTS_APART);
    }
    Ok(ExitCode::SUCCESS)
}
