//! The process that listens on an address, from `/proc/net` and the open files of processes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tapio_wire::ListenAddress;

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its process id.
    pub(super) pid: u32,
    /// Its name.
    pub(super) name: String,
}

impl Holder {
    /// Whether it is a tapio.
    pub(super) fn is_tapio(&self) -> bool {
        self.name == "tapio"
    }

    fn of(pid: u32) -> Option<Self> {
        // Threads have names of their own; the executable's is that of the program.
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let name = exe.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
        let name = name.map(|name| name.trim_end_matches(" (deleted)").to_owned());
        let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        let name = name.or_else(|| comm().map(|comm| comm.trim().to_owned()))?;
        Some(Self { pid, name })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: String = self.name.chars().filter(|c| !c.is_control()).take(64).collect();
        write!(f, "`{name}` (pid {})", self.pid)
    }
}

/// The process that listens on an address; `None` where it can't be found, such as one of another
/// user.
pub(super) fn holder(address: &ListenAddress) -> Option<Holder> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let inodes = match address {
        ListenAddress::Tcp(address) => {
            let mut inodes = tcp_inodes(&read("/proc/net/tcp"), *address);
            inodes.extend(tcp_inodes(&read("/proc/net/tcp6"), *address));
            inodes
        }
        ListenAddress::Unix(path) => unix_inodes(&read("/proc/net/unix"), path),
    };
    if inodes.is_empty() {
        return None;
    }
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_socket = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    Holder::of(pids.into_iter().find(has_socket)?)
}

/// The inodes of the sockets that listen where binding `address` would fail, in the format of
/// `/proc/net/tcp`: `0: 0100007F:1DB0 00000000:0000 0A … uid timeout inode`.
fn tcp_inodes(table: &str, address: SocketAddr) -> Vec<u64> {
    let mut inodes = Vec::new();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A"), Some(inode)) = (words.get(1), words.get(3), words.get(9))
        else {
            continue;
        };
        let Some((ip, port)) = local.split_once(':') else { continue };
        if u16::from_str_radix(port, 16) != Ok(address.port()) {
            continue;
        }
        let is_same = parse_ip(ip).is_some_and(|ip| {
            let (ip, own) = (ip.to_canonical(), address.ip().to_canonical());
            ip == own || ip.is_unspecified() || own.is_unspecified()
        });
        if is_same {
            inodes.extend(inode.parse::<u64>());
        }
    }
    inodes
}

/// An address as the kernel prints it: words of 32 bits in the byte order of this machine.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The inodes of the sockets bound to a path, in the format of `/proc/net/unix`.
fn unix_inodes(table: &str, path: &Path) -> Vec<u64> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let inode = words.nth(6)?.parse().ok()?;
        (Path::new(words.next()?) == path).then_some(inode)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_of_an_address_is_found() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let found = holder(&address.into()).unwrap();
        assert_eq!(found.pid, std::process::id());
        let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!(holder(&any.into()), Some(found.clone()), "any address includes this one");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(holder(&ListenAddress::Unix(path.clone())), Some(found));
        drop((listener, socket));
        assert_eq!(holder(&address.into()), None);
    }

    #[test]
    fn tables_with_other_lines_are_read() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1DB0 00000000:0000 0A \
            00000000:00000000 00:00000000 00000000     0        0 77 1\n   1: 0100007F:1DB0 \
            0100007F:9999 01 0:0 0:0 0 0 0 78 1\n 2: x\n 3: 0100:1DB0 0 0A 0 0 0 0 0 79\n";
        let of = |text: &str| tcp_inodes(table, text.parse().unwrap());
        assert_eq!(
            of("127.0.0.1:7600"),
            if cfg!(target_endian = "little") { vec![77] } else { vec![] }
        );
        assert!(of("127.0.0.1:7601").is_empty() && of("[::1]:7600").is_empty());
    }
}
