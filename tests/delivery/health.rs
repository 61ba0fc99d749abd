//! `grpc.health.v1` and `/readyz` report whether batches are stored.

use tonic::transport::Channel;
use tonic_health::ServingStatus::{NotServing, Serving};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::support::sim_disk::SimDisk;
use super::*;

const SERVICES: [&str; 4] = ["", "tapio.v1.Ingest", "tapio.v1.Query", "tapio.v1.Operate"];

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

/// A client for each status of each service.
struct Client(tokio::runtime::Runtime, HealthClient<Channel>);

impl Client {
    fn connect(server: &ServerHandle) -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let channel = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
        let channel = runtime.block_on(channel.connect()).unwrap();
        Self(runtime, HealthClient::new(channel))
    }

    fn statuses(&mut self) -> [i32; 4] {
        SERVICES.map(|service| {
            let checked = self.0.block_on(self.1.check(request(service))).unwrap();
            checked.into_inner().status
        })
    }
}

#[test]
fn health_follows_the_disk_and_the_stop() {
    let (disk, dir) = (SimDisk::default(), std::path::PathBuf::from("/store"));
    let config_of_server = server_config(&dir, any_port());
    let mut server = Server::start_on(config_of_server, Arc::new(disk.clone())).unwrap();
    let mut client = Client::connect(&server);
    let serving = Serving as i32;
    let failing = [NotServing as i32, NotServing as i32, serving, NotServing as i32];
    assert_eq!(client.statuses(), [serving; 4]);
    let watched = client.0.block_on(client.1.watch(request("tapio.v1.Ingest"))).unwrap();
    let mut watched = watched.into_inner();
    let mut next = |client: &Client| {
        let message = client.0.block_on(watched.message());
        message.unwrap().map(|health| health.status)
    };
    assert_eq!(next(&client), Some(serving));

    disk.set_read_only(true);
    let mut node = node(config(server.grpc_addr));
    node.writers = node.feed(0..1_000).join().unwrap();
    assert_eq!(next(&client), Some(NotServing as i32));
    assert_eq!(client.statuses(), failing);
    let (code, cause) = http(server.http_addr, "/readyz");
    assert!(code == 503 && cause.contains("the disk refuses writes"), "{code} {cause}");

    disk.set_read_only(false);
    node.wait_for_acks(1_000);
    assert_eq!(next(&client), Some(serving));
    assert_eq!((client.statuses(), http(server.http_addr, "/readyz").0), ([serving; 4], 200));
    node.end();

    let stops = std::thread::spawn(move || server.stop());
    assert_eq!(next(&client), Some(NotServing as i32), "the stop is reported before it");
    stops.join().unwrap();
}

#[test]
fn unknown_service_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut client = Client::connect(&server);
    let checked = client.0.block_on(client.1.check(request("tapio.v1.Absent")));
    assert_eq!(checked.unwrap_err().code(), tonic::Code::NotFound);
}
