//! TCP: connections that are refused, accepted, reset or not answered.

use super::*;

#[test]
fn thousand_refused_connections_are_counted_exactly() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let running = start(&only(&[Kind::Refused, Kind::Connect, Kind::Close]), move |e| {
        e.number("network.peer.port") == u64::from(port)
    });
    for _ in 0..1_000 {
        let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    assert_eq!(outcome.of_kind("kernel.tcp.refused").count(), 1_000);
    assert_eq!(outcome.events.len(), 1_000, "no other event is emitted");
    for event in &outcome.events {
        assert_eq!(event.get("network.peer.address"), "127.0.0.1");
        assert_eq!(event.get("network.local.address"), "127.0.0.1");
        assert_ne!(event.number("network.local.port"), 0);
        assert_eq!(event.get("error.type"), "ECONNREFUSED");
        assert_eq!(event.pid(), std::process::id());
        assert!(event.number("tapio.tcp.duration_ns") > 0);
    }
}

#[test]
fn both_ends_of_a_connection_emit_events() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Connect, Kind::Accept, Kind::Close, Kind::Reset]), |e| {
        e.pid() == std::process::id()
    });
    let listener =
        TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..100 {
        let near = TcpStream::connect(address).unwrap();
        drop((listener.accept().unwrap(), near));
    }
    // Both ends reach their last state within a few milliseconds on loopback.
    std::thread::sleep(Duration::from_millis(300));
    let outcome = running.finish();
    outcome.assert_accounted();
    let of_port = |kind, field: &'static str| {
        let port = u64::from(address.port());
        outcome.of_kind(kind).filter(move |e| e.number(field) == port)
    };
    assert_eq!(of_port("kernel.tcp.connect", "network.peer.port").count(), 100);
    assert_eq!(of_port("kernel.tcp.accept", "network.local.port").count(), 100);
    assert_eq!(of_port("kernel.tcp.close", "network.peer.port").count(), 100);
    assert_eq!(of_port("kernel.tcp.close", "network.local.port").count(), 100);
    let accept = of_port("kernel.tcp.accept", "network.local.port").next().unwrap();
    assert_eq!(accept.get("network.local.address"), address.ip().to_string());
}

#[test]
fn both_ends_of_a_reset_emit_events() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Reset]), |e| e.pid() == std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = u64::from(listener.local_addr().unwrap().port());
    for _ in 0..50 {
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.write_all(b"unread").unwrap();
        // Waits until the bytes arrive: a close with unread bytes causes a reset.
        std::thread::sleep(Duration::from_millis(2));
        drop(far);
        assert!(near.read(&mut [0; 8]).is_err());
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    let of = |direction: &'static str, field: &'static str| {
        outcome
            .of_kind("kernel.tcp.reset")
            .filter(move |e| e.get("network.io.direction") == direction && e.number(field) == port)
            .count()
    };
    assert_eq!(of("transmit", "network.local.port"), 50);
    assert_eq!(of("receive", "network.peer.port"), 50);
}

#[test]
fn unresponsive_peer_emits_retransmit_and_timeout() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    // Nothing accepts, so the kernel drops connections once the queue is full.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let second = Duration::from_millis(1_200);
    let mut queue = Vec::new();
    let kinds = [Kind::Retransmit, Kind::Timeout, Kind::Close, Kind::Connect];
    let running =
        start(&only(&kinds), move |e| e.number("network.peer.port") == u64::from(address.port()));
    while let Ok(stream) = TcpStream::connect_timeout(&address, second) {
        queue.push(stream);
        assert!(queue.len() < 100, "the queue never fills");
    }
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::sockopt::set_tcp_user_timeout(&socket, 500).unwrap();
    let error = rustix::net::connect(&socket, &address).unwrap_err();
    assert_eq!(error, rustix::io::Errno::TIMEDOUT);
    let outcome = running.finish();
    outcome.assert_accounted();
    let timeouts: Vec<&SeenEvent> = outcome.of_kind("kernel.tcp.timeout").collect();
    assert_eq!(timeouts.len(), 1, "{:?}", outcome.events);
    assert_eq!(timeouts[0].get("error.type"), "ETIMEDOUT");
    assert_eq!(timeouts[0].pid(), std::process::id());
    let abandoned =
        outcome.of_kind("kernel.tcp.close").filter(|e| e.get("error.type") == "connect_abandoned");
    assert_eq!(abandoned.count(), 1);
    let retransmit = outcome.of_kind("kernel.tcp.retransmit").next().unwrap();
    assert_eq!(retransmit.get("tapio.tcp.state"), "SYN_SENT");
    assert_eq!(retransmit.pid(), std::process::id());
}
