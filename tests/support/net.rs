//! Ports and pages of this host.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value as Json;

/// The address at which the system selects the port.
pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// The ports for servers that are started later: below those that the kernel gives to port 0 and to
/// clients (`net.ipv4.ip_local_port_range`), so that none of these takes one meanwhile.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 12_000;

/// An address whose port is free. Each call in this process returns another one.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin at different ports.
    let start = std::process::id().wrapping_mul(101);
    let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    let candidates = std::iter::repeat_with(|| {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from((Ipv4Addr::LOCALHOST, (FIRST_PORT + n % PORTS) as u16))
    });
    candidates.take(PORTS as usize).find(is_free).unwrap()
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

/// The items of the first page of a list.
pub(crate) fn items(port: u16, path: &str) -> Option<Vec<Json>> {
    match get_json(port, path)?["items"].take() {
        Json::Array(items) => Some(items),
        _ => None,
    }
}

/// A page's JSON.
pub(crate) fn get_json(port: u16, path: &str) -> Option<Json> {
    serde_json::from_str(&get(port, path)?.1).ok()
}
