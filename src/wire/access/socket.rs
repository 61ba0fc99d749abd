//! Binding of a listener's socket.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::listen::ListenAddress;

/// The mode of a unix socket: its owner and group may connect (unix(7)); who does is checked.
const SOCKET_MODE: u32 = 0o660;
/// The right of others to write into a folder, and the sticky bit, with which they can't replace
/// files of others.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// A bound socket, non-blocking for tokio.
#[derive(Debug)]
pub enum Listening {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener, ListenAddress),
}

impl Listening {
    /// The address, with the port that the system has chosen.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_, address) => Ok(address.clone()),
        }
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener, address) => {
                listener.try_clone().map(|listener| Self::Unix(listener, address.clone()))
            }
        }
    }
}

/// Binds a listener, non-blocking for tokio.
///
/// # Errors
/// With the setting and the address, for example when another process listens there.
pub fn bind(setting: &str, address: &ListenAddress) -> io::Result<Listening> {
    let bound = match address {
        ListenAddress::Tcp(address) => bind_tcp(*address),
        ListenAddress::Unix(path) => {
            bind_unix(path).map(|listener| Listening::Unix(listener, address.clone()))
        }
    };
    bound.map_err(|e| io::Error::new(e.kind(), format!("{setting}: {address}: {e}")))
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listening> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Listening::Tcp(listener))
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    check_folder(path)?;
    let denied = |cause: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, cause));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return denied("exists and is no socket"),
        // Nobody listens: a process that was killed has left it.
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return denied("another process listens there"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        },
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Checks that no other user can replace the socket.
fn check_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let found = fs::metadata(folder)
        .map_err(|e| io::Error::new(e.kind(), format!("folder {}: {e}", folder.display())))?;
    let own = rustix::process::geteuid().as_raw();
    let is_others = found.uid() != 0 && found.uid() != own;
    let is_open = found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0;
    if is_others || is_open {
        let cause = format!(
            "folder {}: belongs to another user or is writable by everybody (owner {}, mode {:04o})",
            folder.display(),
            found.uid(),
            found.mode() & 0o7777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, cause));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_sockets_are_replaced_and_others_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let address = ListenAddress::Unix(path.clone());
        let first = bind("listen", &address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = bind("listen", &address).unwrap_err().to_string();
        assert!(error.starts_with("listen: unix:") && error.ends_with("listens there"), "{error}");
        drop(first);
        bind("listen", &address).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        assert!(bind("listen", &address).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let error = bind("listen", &ListenAddress::Unix(open.join("s"))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
