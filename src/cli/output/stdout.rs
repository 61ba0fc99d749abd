//! Standard output.

use std::io::{self, Write as _};

use super::progress;

/// An error of standard output, or of the pager behind it.
#[derive(Debug, thiserror::Error)]
#[error("can't write to standard output")]
pub(crate) struct OutputError(#[from] pub(super) io::Error);

/// Prints a line of data to standard output.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print(line: &str) -> Result<(), OutputError> {
    progress::clear();
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Whether the reader of standard output has left (`tapio … | head`), which isn't a failure. A
/// connection that breaks is one.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<OutputError>())
        .any(|e| e.0.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn only_a_pipe_of_the_output_may_break() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let of_output = Err::<(), _>(OutputError(broken())).context("here").unwrap_err();
        assert!(is_broken_pipe(&of_output));
        let of_socket = Err::<(), _>(broken()).context("server").unwrap_err();
        assert!(!is_broken_pipe(&of_socket));
        let full = OutputError(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_broken_pipe(&full.into()));
    }
}
