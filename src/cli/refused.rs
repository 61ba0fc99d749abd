//! Messages about input lines that replay refused.

use super::output::message;
use tapio_dataflow::replay::BadLine;

/// Refused lines that are printed; the rest is counted.
const PRINTED: usize = 20;

/// Prints which lines were refused, with line, column and cause.
pub(super) fn print_refused(refused: &[BadLine]) {
    for line in refused.iter().take(PRINTED) {
        message(&format!("tapio: {line}"));
    }
    if !refused.is_empty() {
        message(&format!("tapio: lines refused: {}", refused.len()));
    }
}
