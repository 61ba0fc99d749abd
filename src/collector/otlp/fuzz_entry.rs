//! Processes requests without servers.

use bytes::Bytes;

use crate::events::otlp::{Answer, EventWriter};
use crate::runtime::Context;
use tapio_wire::OtlpSignal;

/// Processes a request as the servers pass it. Returns how many records were dropped; `None` where
/// the bytes aren't a request.
pub fn process_request(signal: OtlpSignal, bytes: &[u8], context: &mut Context) -> Option<u64> {
    let request = Bytes::copy_from_slice(bytes);
    match EventWriter::default().request(signal, &request, None, &context.site, &mut context.sink) {
        Answer::Accepted(rejected) => Some(rejected.total()),
        Answer::Malformed(_) | Answer::ShuttingDown => None,
    }
}
