//! Numbers as a person reads them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes: `15.9 MiB`.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", units[unit])
    }
}

/// Nanoseconds: `3.4 ms`.
pub(super) struct Span(pub(super) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 1_000_000 => write!(f, "{} µs", n / 1_000),
            n if n < 1_000_000_000 => write!(f, "{:.1} ms", n as f64 / 1e6),
            n if n < 120_000_000_000 => write!(f, "{:.1} s", n as f64 / 1e9),
            n => write!(f, "{} min", n / 60_000_000_000),
        }
    }
}

/// An address of a record: 16 bytes in network order, IPv4 in the first four. An IPv4 address that
/// an IPv6 socket carries is an IPv4 address.
pub(super) fn address(bytes: [u8; 16], v6: bool) -> IpAddr {
    if v6 {
        return Ipv6Addr::from(bytes).to_canonical();
    }
    let [a, b, c, d, ..] = bytes;
    Ipv4Addr::new(a, b, c, d).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_person_reads_it() {
        assert_eq!(Size(16 << 20).to_string(), "16.0 MiB");
        assert_eq!(Size(0).to_string(), "0.0 KiB");
        assert_eq!(Span(3_420_000).to_string(), "3.4 ms");
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
        assert_eq!(address(mapped, true).to_string(), "127.0.0.1");
    }
}
