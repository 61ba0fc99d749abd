//! Whether the server takes batches and answers queries, for `/readyz` and `grpc.health.v1`.

use std::time::Duration;

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The services besides the server as a whole, which has the empty name.
const INGEST: &str = "tapio.v1.Ingest";
const QUERY: &str = "tapio.v1.Query";
const OPERATE: &str = "tapio.v1.Operate";
/// Time for the clients that watch to learn of a stop before their connections end.
const STOP_NOTICE: Duration = Duration::from_millis(20);

/// The state of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Batches are stored, queries are answered.
    Serving,
    /// Batches aren't stored: the disk refuses them.
    DiskFailing,
    /// Neither, soon.
    Stopping,
}

impl Health {
    /// Why the server isn't ready; `None` if it is.
    pub(super) fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Serving => None,
            Self::DiskFailing => Some("storage: the disk refuses writes"),
            Self::Stopping => Some("the server stops"),
        }
    }

    /// The status of each service.
    fn services(self) -> [(&'static str, ServingStatus); 4] {
        let status = |is_serving| {
            if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
        };
        let takes_batches = status(self == Self::Serving);
        // An annotation is on the disk when it is answered.
        [
            ("", takes_batches),
            (INGEST, takes_batches),
            (OPERATE, takes_batches),
            (QUERY, status(self != Self::Stopping)),
        ]
    }
}

/// The state of a server that runs in this process, for its owner.
#[derive(Clone, Debug)]
pub struct ServerHealth(pub(super) watch::Receiver<Health>);

impl ServerHealth {
    /// Why batches aren't stored or queries aren't answered; `None` if they are.
    #[must_use]
    pub fn obstacle(&self) -> Option<&'static str> {
        self.0.borrow().obstacle()
    }
}

/// Reports the state to `grpc.health.v1`, until the server stops.
pub(super) async fn report(mut health: watch::Receiver<Health>, reporter: HealthReporter) {
    loop {
        let now = *health.borrow_and_update();
        for (service, status) in now.services() {
            reporter.set_service_status(service, status).await;
        }
        if now == Health::Stopping || health.changed().await.is_err() {
            break;
        }
    }
    tokio::time::sleep(STOP_NOTICE).await;
}
