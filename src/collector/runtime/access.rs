//! Refusals of a collector's listeners, for `/status` and metrics.

use super::status::StatusReport;
use tapio_wire::Access;

/// Reports the sums of a collector's listeners.
pub(crate) fn report_access<const N: usize>(report: &StatusReport, listeners: [&Access; N]) {
    let sum = |of: fn(&Access) -> u64| listeners.iter().map(|access| of(access)).sum();
    report.count("handshakes_failed", sum(|access| access.counts().all_handshakes()));
    report.count("requests_denied", sum(|access| access.counts().all_requests()));
    report.count("access_reload_failures", sum(Access::reload_failures));
}
