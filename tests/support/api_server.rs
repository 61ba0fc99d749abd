//! The requests of an API server that the collector `k8s` needs: empty lists, and watches that send
//! prepared objects once and stay open.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value as Json, json};

/// Objects by the resource's name in the path: `pods`, `events`, `nodes`.
type Objects = HashMap<&'static str, Vec<Json>>;

/// Starts a server in threads that end with the process. Returns its port.
pub(crate) fn serve_objects(objects: Objects) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let objects = Arc::new(objects);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let objects = Arc::clone(&objects);
            std::thread::spawn(move || serve(&stream, &objects));
        }
    });
    port
}

/// Answers the requests of a connection.
fn serve(mut stream: &TcpStream, objects: &Objects) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if reader.read_line(&mut request).ok()? == 0 {
                return None;
            }
        }
        let target = request.split(' ').nth(1)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !query.contains("watch=1") {
            let body = json!({"metadata": {"resourceVersion": "1"}, "items": []}).to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
            write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        write!(stream, "{head}\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
        let resource = path.rsplit('/').next()?;
        for object in objects.get(resource).into_iter().flatten() {
            let line = format!("{}\n", json!({"type": "ADDED", "object": object}));
            write!(stream, "{:x}\r\n{line}\r\n", line.len()).ok()?;
        }
    }
}
