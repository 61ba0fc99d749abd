//! A sender of batches.

use std::net::SocketAddr;

use tapio_wire::{IngestClient, IngestClientConfig, grpc_framed, proto};

/// Sends messages on one stream, one by one. Returns the ack of each.
pub(crate) fn deliver(to: SocketAddr, messages: &[Vec<u8>]) -> Vec<proto::Ack> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client =
            IngestClient::connect(&IngestClientConfig::to(&to.to_string())).await.unwrap();
        let mut acks = Vec::new();
        for message in messages {
            client.send_framed(grpc_framed(message)).unwrap();
            acks.push(client.ack().await.unwrap());
        }
        acks
    })
}
