//! Ports and pages of this host.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// The address at which the system selects the port.
pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// An address whose port is currently free.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind(any_port()).unwrap().local_addr().unwrap()
}

/// A port that is currently free.
pub(crate) fn free_port() -> u16 {
    free_address().port()
}

/// Status line and body of a page.
pub(crate) fn get(port: u16, path: &str) -> Option<(String, String)> {
    let (head, body) = response(port, path)?;
    Some((head.lines().next()?.to_owned(), body))
}

/// Head and body of a page. `None` if there is no complete response, or none within 10 s.
pub(crate) fn response(port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// A page's JSON.
pub(crate) fn get_json(port: u16, path: &str) -> Option<Json> {
    serde_json::from_str(&get(port, path)?.1).ok()
}
