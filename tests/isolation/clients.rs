//! Collectors with clients, and collectors that generate or read events by themselves.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tapio::load::{LoadConfig, run};
use tapio_core::event::Reason;
use tapio_core::shutdown::Shutdown;

use crate::fault_injection::FaultTest;
use crate::support::net::free_port;

fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    path
}

/// Opens a fifo for writing, if it has a reader.
fn writer(path: &Path) -> Option<std::fs::File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .ok()
}

const LINE: &[u8] = b"{\"time\":1,\"kind\":\"test.line\"}\n";

fn line(path: &Path) {
    if let Some(mut writer) = writer(path) {
        let _ = writer.write_all(LINE);
    }
}

#[test]
fn jsonl_over_a_fifo() {
    let folder = tempfile::tempdir().unwrap();
    let path = fifo(folder.path());
    let Some(mut test) = FaultTest::begin("jsonl", &format!("paths: [{:?}]", path)) else { return };
    let trigger = &mut || line(&path);
    test.panics_and_hangs(trigger);
    // A writer that doesn't end its line, and one that floods.
    let mut endless = OpenOptions::new().write(true).open(&path).unwrap();
    for _ in 0..48 {
        endless.write_all(&[b'x'; 64 * 1024]).unwrap();
    }
    endless.write_all(b"\n").unwrap();
    let before = test.forwarded();
    endless.write_all(&LINE.repeat(20_000)).unwrap();
    endless.write_all(&LINE[..7]).unwrap();
    test.wait_until("the flood is stored", |o| o.forwarded() >= before + 20_000);
    drop(endless);
    test.emits(trigger);
    let bad = test.end().dropped;
    let bad = bad.iter().filter(|d| d.1 == Reason::BadInput).map(|d| d.2).sum::<u64>();
    assert_eq!(bad, 2, "the line that was too long, and the one without an end");
}

#[test]
fn hung_run_does_not_delay_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let path = fifo(folder.path());
    let Some(mut test) = FaultTest::begin("jsonl", &format!("paths: [{:?}]", path)) else { return };
    let trigger = &mut || line(&path);
    test.emits(trigger);
    test.hangs(trigger);
    // The agent drains although one of its threads hangs.
    test.end();
}

#[test]
fn synthetic() {
    let Some(mut test) = FaultTest::begin("synthetic", "enabled: true, rate: 2000") else { return };
    test.panics_and_hangs(&mut || {});
    // The thread that hung has left its rings to its successor, which hangs too.
    test.hangs(&mut || {});
    test.successor_hangs();
    test.resumes(&mut || {});
    test.end();
}

/// An export request with one log record.
fn request() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let record = field(5, &field(1, b"something happened"));
    field(1, &field(2, &field(2, &record)))
}

/// Sends a request over OTLP/HTTP. Returns the connection.
fn post(port: u16, body: &[u8], length: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    Some(stream)
}

/// Reads the start of the status line; empty if there is no response.
fn response(stream: Option<TcpStream>) -> String {
    let mut text = [0; 15];
    let read = stream.and_then(|mut stream| stream.read_exact(&mut text).ok());
    read.map_or_else(String::new, |()| String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn otlp() {
    let (grpc, http) = (free_port(), free_port());
    let config = format!(
        "enabled: true, grpc_listen: \"127.0.0.1:{grpc}\", http_listen: \"127.0.0.1:{http}\""
    );
    let Some(mut test) = FaultTest::begin("otlp", &config) else { return };
    let trigger = &mut || drop(response(post(http, &request(), request().len())));
    test.panics_and_hangs(trigger);
    // The servers of ended runs are gone: only the one with a running collector responds.
    for _ in 0..20 {
        assert_eq!(response(post(http, &request(), request().len())), "HTTP/1.1 200 OK");
    }
    // Clients that hang in the middle of a request, or before it.
    let mut hanging: Vec<_> = (0..64).map(|_| post(http, &[10], 4_000)).collect();
    hanging.extend((0..64).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, grpc)).ok()));
    test.emits(trigger);
    // A flood: every request is accepted and all its records are stored, or it is refused with a
    // time to retry.
    let before = test.forwarded_when_idle();
    let floods: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut accepted = 0;
                for _ in 0..200 {
                    let body = request().repeat(100);
                    match response(post(http, &body, body.len())).as_str() {
                        "HTTP/1.1 200 OK" => accepted += 100,
                        status => assert_eq!(status, "HTTP/1.1 429 To"),
                    }
                }
                accepted
            })
        })
        .collect();
    let accepted: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    assert!(accepted > 0);
    test.wait_until("the flood is stored", |o| o.forwarded() >= before + accepted);
    assert_eq!(test.forwarded_when_idle(), before + accepted);
    test.emits(trigger);
    drop(hanging);
    test.end();
}

#[test]
fn receiver() {
    let port = free_port();
    let config = format!("enabled: true, listen: \"127.0.0.1:{port}\"");
    let Some(mut test) = FaultTest::begin("receiver", &config) else { return };
    let load = LoadConfig {
        target: format!("127.0.0.1:{port}"),
        rate: Some(1_000),
        duration: Duration::from_millis(20),
        ack_timeout: Duration::from_secs(1),
        ..LoadConfig::default()
    };
    // `tapio load` doesn't keep unacknowledged items, unlike an agent that sends to a killed or
    // hung collector.
    let trigger = &mut || drop(run(&load, &Shutdown::default()));
    test.panics_and_hangs(trigger);
    let hanging: Vec<_> =
        (0..64).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    let before = test.forwarded();
    let flood = LoadConfig {
        rate: None,
        duration: Duration::from_secs(1),
        ack_timeout: Duration::from_secs(60),
        ..load.clone()
    };
    let report = run(&flood, &Shutdown::default()).unwrap();
    assert_eq!((report.offered, report.refused), (report.acked, 0));
    test.wait_until("the flood is stored", |o| o.forwarded() >= before + report.acked);
    test.emits(trigger);
    drop(hanging);
    test.end();
}

/// A client of the CNI socket.
fn connect(path: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(socket)
}

/// Sends a report as `tapio-cni` does. Returns whether the socket has a listener.
fn report(path: &Path, n: u64) -> bool {
    let packet = format!(
        "{{\"command\":\"ADD\",\"network\":\"podnet\",\"container_id\":\"c{n}\",\"ifname\":\"eth0\",\
         \"time_ns\":{},\"pod\":{{\"uid\":\"u{n}\",\"name\":\"p\",\"namespace\":\"s\"}}}}",
        tapio_core::clock::wall_ns()
    );
    connect(path).is_some_and(|peer| {
        rustix::net::send(&peer, packet.as_bytes(), SendFlags::NOSIGNAL).is_ok()
    })
}

#[test]
fn cni() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, networks) = (folder.path().join("cni.sock"), folder.path().join("networks"));
    let config = format!("socket: {socket:?}, networks: {networks:?}, links: true");
    let Some(mut test) = FaultTest::begin("cni", &config) else { return };
    let mut n = 0;
    let trigger = &mut || {
        n += 1;
        report(&socket, n);
    };
    test.panics_and_hangs(trigger);
    // While no run is active, reports wait.
    test.panics(trigger);
    // Silent peers, more than are accepted at a time; behind them a flood of reports and of
    // addresses.
    let silent: Vec<_> = (0..300).filter_map(|_| connect(&socket)).collect();
    assert_eq!(silent.len(), 300);
    let before = test.forwarded();
    let accepted = (0..2_000).filter(|n| report(&socket, 1_000 + n)).count() as u64;
    assert_eq!(accepted, 2_000, "reports wait in the socket's queue");
    let network = networks.join("podnet");
    std::fs::create_dir_all(&network).unwrap();
    for n in 0..1_000 {
        let address = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        std::fs::write(network.join(address), format!("c{}\r\neth0", 1_000 + n)).unwrap();
    }
    test.wait_until("reports and addresses are stored", |o| o.forwarded() >= before + 3_000);
    drop(silent);
    test.emits(trigger);
    assert_eq!(test.end().dropped.iter().filter(|d| d.1 == Reason::BadInput).count(), 0);
}
