//! An export request, encoded.

use bytes::Bytes;

use crate::otlp::OtlpSignal;

/// An export request.
#[derive(Clone, Debug)]
pub struct OtlpRequest {
    /// Its signal.
    pub signal: OtlpSignal,
    /// The encoded `Export…ServiceRequest`.
    pub bytes: Bytes,
    /// Log records, spans or data points in it.
    pub records: u32,
}
