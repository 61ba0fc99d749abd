//! The addresses that a configuration listens on: binds each for a moment.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use super::report::Report;
use crate::cli::listeners::{Holder, holder};
use crate::runtime::Config;
use tapio_wire::ListenAddress;

/// An address, its key, and the process that is expected to have it.
struct Address<'a> {
    key: &'static str,
    address: &'a ListenAddress,
    is_default: bool,
}

/// Checks all addresses. `running`: the processes that have the folders of this configuration open.
pub(super) fn check(config: &Config, running: &[u32], report: &mut Report) {
    let default = Config::default();
    let server = (&config.server, &default.server);
    let mut addresses = vec![
        ("admin.listen", &config.admin.listen, &default.admin.listen),
        ("server.grpc_listen", &server.0.grpc_listen, &server.1.grpc_listen),
        ("server.http_listen", &server.0.http_listen, &server.1.http_listen),
    ];
    let (own, default) = (&config.collectors, &default.collectors);
    let rows = own.rows();
    let runs = |name: &str| rows.iter().any(|row| row.name == name && row.enabled);
    if runs("otlp") {
        let (own, default) = (&own.otlp, &default.otlp);
        addresses.push(("collectors.otlp.grpc_listen", &own.grpc_listen, &default.grpc_listen));
        addresses.push(("collectors.otlp.http_listen", &own.http_listen, &default.http_listen));
    }
    if runs("receiver") {
        let listen = (&own.receiver.listen, &default.receiver.listen);
        addresses.push(("collectors.receiver.listen", listen.0, listen.1));
    }
    for (at, (key, address, default)) in addresses.iter().enumerate() {
        if let Some((other, ..)) = addresses[..at].iter().find(|(_, of, _)| of == address)
            && address.tcp().is_none_or(|tcp| tcp.port() != 0)
        {
            report.error(key, format!("{address} is the address of {other}, too"));
        } else {
            check_address(
                &Address { key, address, is_default: address == default },
                running,
                report,
            );
        }
    }
}

fn check_address(of: &Address<'_>, running: &[u32], report: &mut Report) {
    let Address { key, address, is_default } = of;
    let error = match address {
        ListenAddress::Tcp(tcp) => match TcpListener::bind(tcp) {
            Ok(_) => return report.fine(key, format!("{address} is free")),
            Err(error) => error,
        },
        ListenAddress::Unix(path) => match UnixStream::connect(path) {
            Ok(_) => std::io::ErrorKind::AddrInUse.into(),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => error,
            // A socket that nobody listens on is replaced.
            Err(_) => return report.fine(key, format!("{address} is free")),
        },
    };
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return report.error(key, format!("{address}: {error}"));
    }
    let holder = holder(address);
    let is_own = holder.as_ref().is_some_and(|holder| running.contains(&holder.pid));
    let is_tapio = holder.as_ref().is_some_and(Holder::is_tapio);
    let by = holder.map_or_else(
        || "another process, which this user can't identify".to_owned(),
        |holder| holder.to_string(),
    );
    let state = format!("{address} is in use by {by}");
    match (is_own, is_tapio && *is_default) {
        (true, _) => {
            report.fine(key, format!("{state}, which runs with this configuration's folders"))
        }
        // An agent and a server on one node, each with its file.
        (_, true) => report.warning(key, format!("{state}; a second tapio needs another address")),
        _ => report.error(key, state),
    }
}
