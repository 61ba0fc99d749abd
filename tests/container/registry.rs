//! A registry with one image on a local port, so that a runtime can pull without a network: the
//! four requests of the distribution specification that a pull makes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct Blob {
    digest: String,
    kind: &'static str,
    bytes: Vec<u8>,
}

/// An image: its manifest, then the blobs that it refers to.
pub(crate) struct Image(Vec<Blob>);

impl Blob {
    fn new(kind: &'static str, bytes: Vec<u8>, folder: &Path) -> Self {
        let file = folder.join("blob");
        fs::write(&file, &bytes).unwrap();
        let sum = Command::new("sha256sum").arg(&file).output().unwrap();
        let hex = String::from_utf8(sum.stdout).unwrap().chars().take(64).collect::<String>();
        Self { digest: format!("sha256:{hex}"), kind, bytes }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest, "size": self.bytes.len()})
    }
}

impl Image {
    /// An image whose only layer is the folder `root`.
    pub(crate) fn of(root: &Path, folder: &Path) -> Self {
        let tar = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).output().unwrap();
        assert!(tar.status.success());
        let layer = Blob::new(LAYER, tar.stdout, folder);
        let config = json!({"architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "3600"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]}});
        let config = Blob::new(CONFIG, config.to_string().into_bytes(), folder);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": config.descriptor(), "layers": [layer.descriptor()]});
        let manifest = Blob::new(MANIFEST, manifest.to_string().into_bytes(), folder);
        Self(vec![manifest, config, layer])
    }
}

/// Serves the image; its layer after a delay. The threads end with the test process.
pub(crate) fn serve(image: Image, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let image = Arc::new(image);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let image = Arc::clone(&image);
            std::thread::spawn(move || respond(stream, &image, delay));
        }
    });
    address
}

/// Responds to one request and closes the connection.
fn respond(mut stream: TcpStream, image: &Image, delay: Duration) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().and_then(Result::ok).unwrap_or_default();
    for line in lines {
        if line.is_ok_and(|l| l.is_empty()) {
            break;
        }
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.split('?').next().unwrap_or_default();
    let blob = match path.contains("/manifests/") && !name.starts_with("sha256:") {
        true => image.0.first(),
        false => image.0.iter().find(|b| b.digest == name),
    };
    let Some(blob) = blob else {
        let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
        let _ =
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    if blob.kind == LAYER {
        std::thread::sleep(delay);
    }
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nDocker-Content-Digest: {}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        blob.kind,
        blob.digest,
        blob.bytes.len()
    );
    if method != "HEAD" {
        let _ = stream.write_all(&blob.bytes);
    }
}
