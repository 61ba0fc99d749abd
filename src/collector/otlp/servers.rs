//! The servers' thread.

use std::net::TcpListener;

use tokio::sync::oneshot;

use super::intake::Intake;
use super::{grpc, http};
use tapio_core::shutdown::Shutdown;
use tapio_wire::DoorListener;

/// Serves until `ended` resolves, the run is abandoned, or a listener fails.
pub(super) fn serve(
    grpc: TcpListener,
    http: TcpListener,
    intake: Intake,
    ended: oneshot::Receiver<()>,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let (grpc, http) = (DoorListener::new(grpc)?, DoorListener::new(http)?);
        let abandoned = async {
            shutdown.requested().await;
            if !shutdown.is_abandoned() {
                // In a shutdown of the agent the collector first answers the accepted requests,
                // then ends the servers through `ended`.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = grpc::serve(grpc, intake.clone()) => served,
            served = http::serve(http, intake) => served,
            // Resolves when the sender is dropped.
            _ = ended => Ok(()),
            () = abandoned => Ok(()),
        }
    });
    // Connections are tasks of this runtime and end with it.
    runtime.shutdown_background();
    served
}
