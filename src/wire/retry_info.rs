//! `google.rpc.Status` with `google.rpc.RetryInfo` in its details (google/rpc/status.proto,
//! google/rpc/error_details.proto): the time that a server wants a client to wait.

use std::time::Duration;

use prost::Message;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message for a developer.
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

impl RpcStatus {
    /// A status without details.
    #[must_use]
    pub fn new(code: tonic::Code, message: impl Into<String>) -> Self {
        Self { code: code as i32, message: message.into(), details: Vec::new() }
    }

    /// Adds the time after which to retry.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        let delay = ProtoDuration {
            seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
            nanos: delay.subsec_nanos().cast_signed(),
        };
        let info = RetryInfo { retry_delay: Some(delay) };
        self.details.push(Any { type_url: RETRY_INFO.into(), value: info.encode_to_vec() });
        self
    }
}

impl From<RpcStatus> for tonic::Status {
    fn from(status: RpcStatus) -> Self {
        let details = status.encode_to_vec().into();
        Self::with_details(tonic::Code::from_i32(status.code), status.message, details)
    }
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The delay in the bytes of `grpc-status-details-bin`; `None` if they have none.
pub(super) fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay?;
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(type_url: &str, seconds: i64, nanos: i32) -> Vec<u8> {
        let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) };
        let any = Any { type_url: type_url.into(), value: info.encode_to_vec() };
        RpcStatus { details: vec![any], ..RpcStatus::default() }.encode_to_vec()
    }

    #[test]
    fn delay_is_read_and_garbage_has_none() {
        let delay = retry_delay(&details(RETRY_INFO, 3, 500_000_000));
        assert_eq!(delay, Some(Duration::from_millis(3_500)));
        assert_eq!(retry_delay(&details(RETRY_INFO, -3, -5)), Some(Duration::ZERO));
        assert_eq!(retry_delay(&details("type.googleapis.com/google.rpc.Help", 3, 0)), None);
        let status = RpcStatus::new(tonic::Code::ResourceExhausted, "later");
        let status = tonic::Status::from(status.retry_after(Duration::from_millis(1_500)));
        assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, "later"));
        assert_eq!(retry_delay(status.details()), Some(Duration::from_millis(1_500)));
        assert_eq!(retry_delay(&[]), None);
        assert_eq!(retry_delay(b"no status"), None);
    }
}
