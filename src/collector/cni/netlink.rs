//! The kernel's route netlink: sockets for notifications and dumps, and decoding (rtnetlink(7),
//! `linux/rtnetlink.h`, `linux/if_link.h`, `linux/neighbour.h`). Only the required fields are read,
//! with bounds checks: no message causes a panic, and one that is too short is skipped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
    sockopt,
};

/// RTMGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;
/// Above the kernel's limit for one packet.
const BUFFER_BYTES: usize = 64 * 1024;
const QUEUE_BYTES: usize = 1 << 20;
/// Time limit of a dump; the kernel responds at once.
const DUMP_TIMEOUT: Duration = Duration::from_secs(1);

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
/// RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE.
const DUMPS: [u16; 3] = [18, 22, 26];

const IFF_UP_RUNNING: u32 = 0x1 | 0x40;
const IFF_LOOPBACK: u32 = 0x8;
const NUD_FAILED: u16 = 0x20;
/// NUD_REACHABLE, _STALE, _DELAY, _PROBE, _NOARP, _PERMANENT: the neighbour has answered, or
/// needn't. Between two failures it is NUD_INCOMPLETE or removed; both are skipped.
const NUD_VALID: u16 = 0x2 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80;
const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;

/// A decoded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A link; `gone`: it was removed.
    Link { index: u32, name: &'a str, kind: &'a str, up: bool, gone: bool },
    /// An address of an interface.
    Address { index: u32, address: IpAddr, prefix: u8, gone: bool },
    /// A default route of the main table.
    DefaultRoute { index: u32, gateway: Option<IpAddr>, v6: bool, gone: bool },
    /// A neighbour that doesn't answer.
    NeighborFailed { index: u32, address: IpAddr },
    /// A neighbour that answers.
    NeighborValid { index: u32, address: IpAddr },
}

/// The socket that receives the kernel's notifications.
pub(super) struct Notifications {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Notifications {
    /// Subscribes, in the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let socket = open(GROUPS, SocketFlags::NONBLOCK)?;
        // The system's limit may be lower; the socket then has that size.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, QUEUE_BYTES);
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Passes the received messages to `process`. Returns whether the kernel dropped messages: the
    /// state must then be read by a dump.
    pub(super) fn read(&mut self, mut process: impl FnMut(Message<'_>)) -> io::Result<bool> {
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    parse(self.buffer.get(..len).unwrap_or_default(), &mut process);
                }
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::NOBUFS) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(groups: u32, flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Passes every existing link, address and default route to `process`.
pub(super) fn dump(mut process: impl FnMut(Message<'_>)) -> io::Result<()> {
    let socket = open(0, SocketFlags::empty())?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DUMP_TIMEOUT))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for kind in DUMPS {
        // A header, and the family (AF_UNSPEC) in a body that fits each of the three.
        let mut request = [0; HEADER_BYTES + 16];
        request[..4].copy_from_slice(&(HEADER_BYTES as u32 + 16).to_ne_bytes());
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
        sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            if parse(buffer.get(..len).unwrap_or_default(), &mut process) {
                break;
            }
        }
    }
    Ok(())
}

/// Bytes in native byte order; a read past the end returns `None`.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    /// The attribute with this number among those that start at `at`.
    fn attribute(self, at: usize, wanted: u16) -> Option<Bytes<'a>> {
        // The two highest bits are flags.
        self.attributes(at).find(|(kind, _)| kind & 0x3fff == wanted).map(|(_, body)| body)
    }

    /// Attributes: length, number, body, padded to four bytes.
    fn attributes(self, mut at: usize) -> impl Iterator<Item = (u16, Bytes<'a>)> {
        std::iter::from_fn(move || {
            let len = usize::from(self.u16(at)?);
            let kind = self.u16(at + 2)?;
            let body = self.0.get(at + 4..at + len.max(4))?;
            at += len.max(4).next_multiple_of(4);
            Some((kind, Bytes(body)))
        })
    }

    /// Text up to the first zero byte.
    fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.0.split(|b| *b == 0).next()?).ok()
    }

    fn address(self) -> Option<IpAddr> {
        if let Ok(v4) = <[u8; 4]>::try_from(self.0) {
            return Some(Ipv4Addr::from(v4).into());
        }
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.0).ok()?).into())
    }
}

/// Passes the messages in a packet to `process`. Returns whether they were the last of a dump.
pub(super) fn parse(packet: &[u8], mut process: impl FnMut(Message<'_>)) -> bool {
    let mut rest = packet;
    while let (Some(len), Some(kind)) = (Bytes(rest).u32(0), Bytes(rest).u16(4)) {
        let len = len as usize;
        let Some(body) = rest.get(HEADER_BYTES..len.max(HEADER_BYTES)) else {
            return false;
        };
        if matches!(kind, NLMSG_DONE | NLMSG_ERROR) {
            return true;
        }
        if let Some(message) = decode(kind, Bytes(body)) {
            process(message);
        }
        rest = rest.get(len.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn decode(kind: u16, body: Bytes<'_>) -> Option<Message<'_>> {
    match kind {
        RTM_NEWLINK | RTM_DELLINK => link(body, kind == RTM_DELLINK),
        RTM_NEWADDR | RTM_DELADDR => {
            // `ifaddrmsg`. On a point-to-point link IFA_ADDRESS is the remote end, IFA_LOCAL this
            // one.
            let own = body.attribute(8, 2).or_else(|| body.attribute(8, 1))?;
            Some(Message::Address {
                index: body.u32(4)?,
                address: own.address()?,
                prefix: body.u8(1)?,
                gone: kind == RTM_DELADDR,
            })
        }
        RTM_NEWROUTE | RTM_DELROUTE => route(body, kind == RTM_DELROUTE),
        RTM_NEWNEIGH => {
            // `ndmsg`
            let index = body.u32(4)?;
            let address = body.attribute(12, 1)?.address()?;
            match body.u16(8)? {
                state if state & NUD_FAILED != 0 => {
                    Some(Message::NeighborFailed { index, address })
                }
                state if state & NUD_VALID != 0 => Some(Message::NeighborValid { index, address }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `ifinfomsg`, then attributes: IFLA_IFNAME is 3, IFLA_LINKINFO 18 and in it IFLA_INFO_KIND 1.
fn link(body: Bytes<'_>, gone: bool) -> Option<Message<'_>> {
    // Bridges send the state of their ports under the family AF_BRIDGE. Loopbacks are skipped.
    let flags = body.u32(8)?;
    if body.u8(0)? != 0 || flags & IFF_LOOPBACK != 0 {
        return None;
    }
    let kind = body.attribute(16, 18).and_then(|info| info.attribute(0, 1)?.text());
    Some(Message::Link {
        index: body.u32(4)?,
        name: body.attribute(16, 3)?.text()?,
        kind: kind.unwrap_or("device"),
        up: !gone && flags & IFF_UP_RUNNING == IFF_UP_RUNNING,
        gone,
    })
}

/// `rtmsg`, then attributes: RTA_OIF is 4, RTA_GATEWAY 5, RTA_TABLE 15. Only default routes: they
/// are few, and their loss disconnects the node.
fn route(body: Bytes<'_>, gone: bool) -> Option<Message<'_>> {
    let table = body.attribute(12, 15).and_then(|t| t.u32(0));
    let main = table.unwrap_or(u32::from(body.u8(4)?)) == RT_TABLE_MAIN;
    // A destination prefix of length 0, and not a blackhole or similar type.
    if !main || body.u8(1)? != 0 || body.u8(7)? != RTN_UNICAST {
        return None;
    }
    Some(Message::DefaultRoute {
        index: body.attribute(12, 4).and_then(|i| i.u32(0)).unwrap_or_default(),
        gateway: body.attribute(12, 5).and_then(Bytes::address),
        v6: i32::from(body.u8(0)?) == i32::from(AddressFamily::INET6.as_raw()),
        gone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = (4 + body.len() as u16).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn packet(kind: u16, fixed: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = [fixed, &attributes.concat()].concat();
        let mut out = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.resize(HEADER_BYTES, 0);
        out.extend(body);
        out
    }

    #[test]
    fn veth_and_default_route_are_decoded() {
        let mut ifinfo = [0; 16];
        ifinfo[4..8].copy_from_slice(&7u32.to_ne_bytes());
        ifinfo[8..12].copy_from_slice(&0x1043u32.to_ne_bytes());
        let kind = attribute(18, &attribute(1, b"veth\0"));
        let mut all = packet(RTM_NEWLINK, &ifinfo, &[attribute(3, b"vethab\0"), kind]);
        let rtmsg = [2, 0, 0, 0, 254, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        let oif = attribute(4, &3u32.to_ne_bytes());
        all.extend(packet(RTM_DELROUTE, &rtmsg, &[attribute(5, &[10, 0, 0, 1]), oif]));
        let (mut links, mut routes) = (0, 0);
        let last = parse(&all, |message| match message {
            Message::Link { index: 7, name: "vethab", kind: "veth", up: true, gone: false } => {
                links += 1;
            }
            Message::DefaultRoute { index: 3, gateway: Some(g), v6: false, gone: true } => {
                assert_eq!(g, IpAddr::from([10, 0, 0, 1]));
                routes += 1;
            }
            other => panic!("{other:?}"),
        });
        assert!(!last);
        assert_eq!((links, routes), (1, 1));
        assert!(parse(&packet(NLMSG_DONE, &[0; 4], &[]), |_| ()));
    }

    proptest! {
        #[test]
        fn any_packet_is_parsed_without_panic_and_terminates(
            bytes in proptest::collection::vec(any::<u8>(), 0..512),
            kind in 16u16..30,
            len in 0u32..600,
        ) {
            parse(&bytes, |_| ());
            let mut shaped = len.to_ne_bytes().to_vec();
            shaped.extend(kind.to_ne_bytes());
            shaped.resize(HEADER_BYTES, 0);
            shaped.extend(&bytes);
            let mut messages = 0;
            parse(&shaped, |_| messages += 1);
            prop_assert!(messages <= shaped.len() / HEADER_BYTES);
        }
    }
}
