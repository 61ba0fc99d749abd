//! Delivers the requests of a chunk. Each is sent until the receiver has taken or refused it; one
//! that is too large is halved. "OTLP Specification", section "Throttling": the receiver says how
//! long to wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::stats::SinkStats;
use tapio_core::backoff::Backoff;
use tapio_wire::{OtlpClient, OtlpExported, OtlpFailure, OtlpRequest, OtlpSignal};

/// Upper bound of the pause before the first retry, and of any.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Delivers requests, in their order.
pub(super) struct Delivery {
    client: OtlpClient,
    stats: Arc<SinkStats>,
    backoff: Backoff,
    /// Notified when the receiver takes requests again.
    is_back: Arc<Notify>,
}

impl Delivery {
    /// `seed`: any number that differs between deliveries. `is_back`: that of all deliveries of a
    /// sink; where one of them finds that the receiver takes requests again, the others don't wait
    /// any longer.
    pub(super) fn new(
        client: OtlpClient,
        stats: Arc<SinkStats>,
        seed: u64,
        is_back: Arc<Notify>,
    ) -> Self {
        let backoff = Backoff::new(FIRST_RETRY, MAX_RETRY).with_jitter(seed);
        Self { client, stats, backoff, is_back }
    }

    /// Delivers all requests. Returns when the receiver has taken or refused each.
    pub(super) async fn run(mut self, mut requests: Vec<OtlpRequest>) {
        requests.reverse();
        while let Some(request) = requests.pop() {
            match self.client.export(&request).await {
                Ok(exported) => self.succeeded(&request, &exported),
                Err(OtlpFailure::Retry { cause, after }) => {
                    self.failed(&cause);
                    self.pause(after).await;
                    requests.push(request);
                }
                Err(OtlpFailure::TooLarge(cause)) => match request.halves() {
                    Some([first, second]) => requests.extend([second, first]),
                    None => self.refused(&request, &cause),
                },
                Err(OtlpFailure::Refused(cause)) => self.refused(&request, &cause),
            }
        }
    }

    /// Waits before the next attempt, at least for as long as the receiver asks for.
    async fn pause(&mut self, after: Option<Duration>) {
        let pause = self.backoff.next_pause();
        match after {
            Some(after) => tokio::time::sleep(after.max(pause)).await,
            None => {
                let _ = tokio::time::timeout(pause, self.is_back.notified()).await;
            }
        }
    }

    fn succeeded(&mut self, request: &OtlpRequest, exported: &OtlpExported) {
        let counters = &self.stats.counters;
        let rejected = exported.rejected.min(u64::from(request.records));
        let taken = u64::from(request.records) - rejected;
        match request.signal {
            OtlpSignal::Logs => counters.log_records.add(taken),
            OtlpSignal::Traces => counters.spans.add(taken),
            OtlpSignal::Metrics => counters.data_points.add(taken),
        }
        counters.requests.add(1);
        counters.request_bytes.add(request.bytes.len() as u64);
        if rejected > 0 {
            self.reject(rejected, &exported.message);
        }
        if !self.backoff.is_reset() {
            self.backoff.reset();
            self.is_back.notify_waiters();
            tracing::info!(sink = self.stats.name, "export: the receiver takes requests again");
        }
        self.stats.set_last_error("");
    }

    fn failed(&self, cause: &str) {
        self.stats.counters.requests_failed.add(1);
        self.stats.set_last_error(cause);
        if self.backoff.is_reset() {
            tracing::warn!(
                sink = self.stats.name,
                error = cause,
                "export: the receiver can't be reached or takes nothing; events wait in the spool"
            );
        }
    }

    fn refused(&self, request: &OtlpRequest, cause: &str) {
        self.stats.counters.requests_failed.add(1);
        self.stats.set_last_error(cause);
        self.reject(u64::from(request.records), cause);
    }

    fn reject(&self, records: u64, cause: &str) {
        let counter = &self.stats.counters.records_rejected;
        if counter.get() == 0 {
            tracing::warn!(
                sink = self.stats.name,
                records,
                error = cause,
                "export: the receiver refused records; further ones are only counted"
            );
        }
        counter.add(records);
    }
}
