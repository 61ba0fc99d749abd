//! A cable between the agent and the API server that can be cut: connections stay open, and nothing passes any more.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Cable {
    pub(crate) port: u16,
    /// Which connections pass: those made since the last cut.
    cuts: Arc<AtomicU64>,
}

impl Cable {
    /// One to a port of this machine. Its threads end with their connections.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let cable = Self { port: listener.local_addr().unwrap().port(), cuts: Arc::default() };
        let cuts = Arc::clone(&cable.cuts);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let ends = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                let [back, there] = ends;
                for (from, to) in [(near, there), (far, back)] {
                    let cuts = Arc::clone(&cuts);
                    std::thread::spawn(move || pass(from, to, &cuts));
                }
            }
        });
        cable
    }

    /// Cuts it, for the connections there are.
    pub(crate) fn cut(&self) {
        // Relaxed, paired with the loads in `pass`: a byte that still passes does no harm.
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cuts: &AtomicU64) {
    let made = cuts.load(Ordering::Relaxed);
    let mut bytes = [0; 16 << 10];
    while let Ok(n) = from.read(&mut bytes) {
        // What is sent into a cut cable is gone, and nobody says so.
        let is_cut = cuts.load(Ordering::Relaxed) != made;
        if n == 0 || !is_cut && to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
