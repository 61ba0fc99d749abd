//! The servers' thread.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::intake::Intake;
use super::{grpc, http};
use tapio_core::shutdown::Shutdown;
use tapio_wire::{Access, DoorListener, Listening};

/// Serves until `ended` resolves, the run is abandoned, or a listener fails.
pub(super) fn serve(
    [grpc, http]: [(Listening, Arc<Access>); 2],
    intake: Intake,
    ended: oneshot::Receiver<()>,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let open = |(listener, access): (Listening, Arc<Access>)| {
            DoorListener::new(listener, Arc::clone(&access)).map(|listener| (listener, access))
        };
        let ((grpc, grpc_access), (http, http_access)) = (open(grpc)?, open(http)?);
        let abandoned = async {
            shutdown.requested().await;
            if !shutdown.is_abandoned() {
                // In a shutdown of the agent the collector first answers the accepted requests,
                // then ends the servers through `ended`.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = grpc::serve(grpc, grpc_access, intake.clone()) => served,
            served = http::serve(http, http_access, intake) => served,
            // Resolves when the sender is dropped.
            _ = ended => Ok(()),
            () = abandoned => Ok(()),
        }
    });
    // Connections are tasks of this runtime and end with it.
    runtime.shutdown_background();
    served
}
