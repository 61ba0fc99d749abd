//! The answer of a receiver to a request ("OTLP Specification", sections "Full Success", "Partial
//! Success", "Failures", "Failures for HTTP").

use std::time::Duration;

use tonic::{Code, Status};

use crate::dialer::root_cause;
use crate::otlp_response::OtlpResponse;
use crate::retry_info::retry_delay;

/// A request that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpExported {
    /// Records of it that the receiver has refused.
    pub rejected: u64,
    /// Why, or a warning; empty for none.
    pub message: String,
}

/// Why a request wasn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpFailure {
    /// The same request may succeed later.
    #[error("{cause}")]
    Retry {
        /// The cause.
        cause: String,
        /// The least time to wait, if the receiver said one.
        after: Option<Duration>,
    },
    /// The request is too large; its parts may be taken.
    #[error("{0}")]
    TooLarge(String),
    /// The same request will fail again.
    #[error("{0}")]
    Refused(String),
}

impl From<OtlpResponse> for OtlpExported {
    fn from(response: OtlpResponse) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        Self { rejected: partial.rejected.try_into().unwrap_or(0), message: partial.error_message }
    }
}

impl OtlpFailure {
    /// A lost connection, or none.
    pub(super) fn connection(cause: impl Into<String>) -> Self {
        Self::Retry { cause: cause.into(), after: None }
    }

    /// The failure of a gRPC call. Credentials that aren't accepted are retried although the
    /// specification counts them as final: the records wait in the spool until they are mended.
    pub(super) fn of_status(status: &Status) -> Self {
        let after = retry_delay(status.details());
        let cause = match (status.message(), std::error::Error::source(status)) {
            // "Connection refused" rather than "tcp connect error".
            (_, Some(source)) => root_cause(source),
            ("", None) => status.code().to_string(),
            (message, None) => format!("{}: {message}", status.code()),
        };
        match status.code() {
            Code::ResourceExhausted if after.is_none() => Self::TooLarge(cause),
            Code::OutOfRange if cause.contains("too large") => Self::TooLarge(cause),
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated
            | Code::PermissionDenied => Self::Retry { cause, after },
            // A connection that broke shows as an error of the transport below.
            Code::Unknown | Code::Internal if std::error::Error::source(status).is_some() => {
                Self::Retry { cause, after }
            }
            _ => Self::Refused(cause),
        }
    }

    /// The failure of an HTTP request with this status. `after`: of the header `Retry-After`.
    pub(super) fn of_http(status: http::StatusCode, text: &str, after: Option<Duration>) -> Self {
        let text: String = text.trim().chars().filter(|c| !c.is_control()).take(300).collect();
        let cause = if text.is_empty() {
            format!("HTTP {status}")
        } else {
            format!("HTTP {status}: {text}")
        };
        match status.as_u16() {
            413 => Self::TooLarge(cause),
            401 | 403 | 407 | 408 | 429 | 502..=504 => Self::Retry { cause, after },
            _ => Self::Refused(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry_info::RpcStatus;

    #[test]
    fn codes_say_whether_to_retry() {
        let of = |code, message: &str| OtlpFailure::of_status(&Status::new(code, message));
        let is_retried = |failure| matches!(failure, OtlpFailure::Retry { .. });
        for code in
            [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted, Code::Unauthenticated]
        {
            assert!(is_retried(of(code, "x")), "{code}");
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::Internal, Code::NotFound] {
            assert_eq!(of(code, "x"), OtlpFailure::Refused(format!("{code}: x")));
        }
        let too_large = of(Code::ResourceExhausted, "4 MiB at most");
        assert!(matches!(too_large, OtlpFailure::TooLarge(_)));
        let wait = Duration::from_millis(1_500);
        let busy = RpcStatus::new(Code::ResourceExhausted, "busy").retry_after(wait);
        let busy = OtlpFailure::of_status(&busy.into());
        assert!(matches!(busy, OtlpFailure::Retry { after: Some(after), .. } if after == wait));
    }

    #[test]
    fn http_statuses_say_whether_to_retry() {
        let of =
            |code| OtlpFailure::of_http(http::StatusCode::from_u16(code).unwrap(), "why", None);
        for code in [401, 403, 429, 502, 503, 504] {
            assert!(matches!(of(code), OtlpFailure::Retry { .. }), "{code}");
        }
        assert!(matches!(of(413), OtlpFailure::TooLarge(_)));
        for code in [400, 404, 405, 415, 500] {
            assert!(matches!(of(code), OtlpFailure::Refused(_)), "{code}");
        }
    }
}
