//! Severity of log records, status and kind of spans.

use crate::proto_vec::ProtoVec;
use tapio_core::event::Severity;

/// `SPAN_KIND_INTERNAL`
pub(super) const INTERNAL: u64 = 1;
/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;

/// `severity_text` of each severity number.
const SEVERITY_TEXTS: [&str; 24] = [
    "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO", "INFO2",
    "INFO3", "INFO4", "WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3", "ERROR4",
    "FATAL", "FATAL2", "FATAL3", "FATAL4",
];

/// Writes severity number and text.
pub(super) fn severity(out: &mut ProtoVec, severity: u8) {
    out.number(2, u64::from(severity));
    if let Some(text) = usize::from(severity).checked_sub(1).and_then(|n| SEVERITY_TEXTS.get(n)) {
        out.delimited(3, text.as_bytes());
    }
}

/// Writes a status.
pub(super) fn status(out: &mut ProtoVec, severity: u8, message: &str) {
    if severity >= Severity::ERROR.0 {
        out.message(15, |out| {
            out.bytes(2, message.as_bytes());
            out.number(3, ERROR);
        });
    }
}
