//! Processes requests without servers, for benchmarks and the fuzz targets.

use crate::events::otlp::{Answer, EventWriter};
use crate::runtime::Context;
use tapio_wire::OtlpSignal;

/// Processes requests as the servers pass them.
#[derive(Default)]
pub struct Requests(EventWriter);

impl Requests {
    /// Processes a request. Returns how many records were dropped; `None` where the bytes aren't a
    /// request.
    pub fn process(
        &mut self,
        signal: OtlpSignal,
        request: &[u8],
        context: &mut Context,
    ) -> Option<u64> {
        match self.0.request(signal, request, None, &context.site, &mut context.sink) {
            Answer::Accepted(rejected) => Some(rejected.total()),
            Answer::Malformed(_) | Answer::ShuttingDown => None,
        }
    }
}
