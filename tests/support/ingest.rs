//! A sender of batches.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use tapio_wire::{IngestClient, IngestClientConfig, proto};

/// Sends messages on one stream, one by one. Returns the ack of each.
pub(crate) fn deliver(to: SocketAddr, messages: &[Vec<u8>]) -> Vec<proto::Ack> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client =
            IngestClient::connect(&IngestClientConfig::to(&to.to_string())).await.unwrap();
        let mut acks = Vec::new();
        for message in messages {
            client.send_framed(framed(message)).unwrap();
            acks.push(client.ack().await.unwrap());
        }
        acks
    })
}

/// A message with its gRPC frame: not compressed, and its length.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}
