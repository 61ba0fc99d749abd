//! Delivery of the SDK's batches.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::metrics::telemetry;
use tapio_core::backoff::Backoff;
use tapio_core::clock;
use tapio_wire::{OtlpClient, OtlpExported, OtlpFailure, OtlpRequest, OtlpSignal};

/// Time for which a batch is sent again.
const RETRY: Duration = Duration::from_secs(30);
/// Pauses between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// The connection to the receiver. The SDK exports a batch of each signal at a time, on threads
/// without a reactor; the requests run on the thread `telemetry`.
pub(super) struct Uplink {
    client: OtlpClient,
    reactor: Handle,
    /// Whether tapio ends: each batch has one attempt more.
    ends: watch::Receiver<bool>,
    /// Whether the last attempt has failed, so that an outage is logged once. Guards nothing:
    /// Relaxed.
    is_failing: AtomicBool,
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink").finish_non_exhaustive()
    }
}

impl Uplink {
    pub(super) fn new(client: OtlpClient, reactor: Handle, ends: watch::Receiver<bool>) -> Self {
        Self { client, reactor, ends, is_failing: AtomicBool::new(false) }
    }

    /// The reactor that delivers.
    pub(super) fn reactor(&self) -> &Handle {
        &self.reactor
    }

    /// Delivers a request with this number of records; what is not taken is counted.
    pub(super) async fn deliver(
        self: std::sync::Arc<Self>,
        signal: OtlpSignal,
        message: impl Message,
        records: usize,
    ) -> OTelSdkResult {
        let bytes = Bytes::from(message.encode_to_vec());
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        let mut waiting = vec![OtlpRequest { signal, bytes, records }];
        let mut failed = None;
        while let Some(request) = waiting.pop() {
            match self.send(&request).await {
                Ok(exported) => {
                    let rejected = exported.rejected.min(request.records.into());
                    telemetry().taken(signal, u64::from(request.records) - rejected);
                    telemetry().rejected(signal, rejected);
                }
                Err(OtlpFailure::TooLarge(cause)) => match request.halves() {
                    Some(halves) => waiting.extend(halves),
                    None => failed = Some(self.lost(signal, &request, cause)),
                },
                Err(failure) => failed = Some(self.lost(signal, &request, failure.to_string())),
            }
        }
        failed.map_or(Ok(()), |cause| Err(OTelSdkError::InternalFailure(cause)))
    }

    /// Sends a request until it is taken, refused, or too old.
    async fn send(&self, request: &OtlpRequest) -> Result<OtlpExported, OtlpFailure> {
        let started = clock::instant();
        let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
        let mut ends = self.ends.clone();
        loop {
            let was_ending = *ends.borrow();
            let failure = match self.client.export(request).await {
                Ok(exported) => {
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("telemetry: the receiver takes requests again");
                    }
                    return Ok(exported);
                }
                Err(failure) => failure,
            };
            telemetry().failed();
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                tracing::warn!(%failure, "telemetry: the receiver doesn't take a request");
            }
            let OtlpFailure::Retry { after, .. } = &failure else { return Err(failure) };
            if was_ending || started.elapsed() >= RETRY {
                return Err(failure);
            }
            let pause = after.map_or_else(|| backoff.next_pause(), |after| after.min(RETRY));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // An error: the sender is gone, as at the end.
                _ = ends.wait_for(|ends| *ends) => {}
            }
        }
    }

    fn lost(&self, signal: OtlpSignal, request: &OtlpRequest, cause: String) -> String {
        telemetry().lost(signal, request.records.into());
        cause
    }
}
