//! A TCP proxy in front of the API server that can lose its connections: they stay open, but no
//! bytes pass any more.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// Number of cuts; only connections opened since the last one pass bytes.
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy to a local port. Its threads end with their connections.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), cuts: Arc::default() };
        let cuts = Arc::clone(&proxy.cuts);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let to_client = client.try_clone().unwrap();
                let to_server = server.try_clone().unwrap();
                for (from, to) in [(client, to_server), (server, to_client)] {
                    let cuts = Arc::clone(&cuts);
                    std::thread::spawn(move || pass(from, to, &cuts));
                }
            }
        });
        proxy
    }

    /// Cuts the existing connections.
    pub(crate) fn cut(&self) {
        // Relaxed, paired with the loads in `pass`: a byte that still passes is harmless.
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cuts: &AtomicU64) {
    let opened_at = cuts.load(Ordering::Relaxed);
    let mut bytes = [0; 16 << 10];
    while let Ok(n) = from.read(&mut bytes) {
        // Bytes sent into a cut connection are lost without an error.
        let is_cut = cuts.load(Ordering::Relaxed) != opened_at;
        if n == 0 || !is_cut && to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
