//! Follows what a server stores, over lost connections.

use std::time::Duration;

use tonic::{Code, Status, Streaming};

use super::filter::OPTIONS;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::message;
use tapio_core::backoff::Backoff;
use tapio_wire::proto;

/// Pauses before the next attempt to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Whether another attempt has the same result.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// Passes on the batches that a server stores after the position of the request, each once, and
/// goes on from the last one when the connection is lost. Ends with an error only.
///
/// # Errors
/// Those of `each`; when the first connection fails, or the server refuses the request.
pub(super) async fn follow(
    at: &ServerArgs,
    mut request: proto::TailRequest,
    mut each: impl FnMut(proto::EventBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let server = &at.server;
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    let mut stream =
        open(at, &request).await.map_err(|status| live::refusal(server, &status, OPTIONS))?;
    loop {
        let lost = loop {
            match stream.message().await {
                Ok(Some(item)) => {
                    backoff.reset();
                    if item.gap {
                        message(
                            "tapio: items are missing here: the server doesn't keep them any more",
                        );
                    }
                    if let Some(batch) = item.batch {
                        each(batch)?;
                    }
                    if !item.position.is_empty() {
                        request.after = item.position;
                    }
                }
                Ok(None) => break "it ended the stream".to_owned(),
                Err(status) if is_final(&status) => {
                    return Err(live::refusal(server, &status, OPTIONS));
                }
                Err(status) => break live::status_text(&status),
            }
        };
        message(&format!("tapio: lost the connection to the server at {server}: {lost}; retrying"));
        stream = loop {
            tokio::time::sleep(backoff.next_pause()).await;
            match open(at, &request).await {
                Ok(stream) => break stream,
                Err(status) if is_final(&status) => {
                    return Err(live::refusal(server, &status, OPTIONS));
                }
                Err(_) => {}
            }
        };
        message(&format!("tapio: connected to the server at {server} again"));
    }
}

async fn open(
    at: &ServerArgs,
    request: &proto::TailRequest,
) -> Result<Streaming<proto::TailItem>, Status> {
    let access = at.access().map_err(|e| Status::invalid_argument(e.to_string()))?;
    let mut client = live::connect(&at.server, &access).await.map_err(Status::unavailable)?;
    Ok(client.tail(request.clone()).await?.into_inner())
}
