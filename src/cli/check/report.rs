//! The findings of a check.

use super::super::output::{message, print};

/// The findings of a check.
#[derive(Default)]
pub(super) struct Report {
    /// Facts that are as they must be.
    pub(super) fine: Vec<String>,
    /// Facts that let tapio start, but not as expected.
    pub(super) warnings: Vec<String>,
    /// Facts that make a start fail.
    pub(super) errors: Vec<String>,
}

impl Report {
    pub(super) fn fine(&mut self, key: &str, state: String) {
        self.fine.push(format!("{key}: {state}"));
    }

    pub(super) fn warning(&mut self, key: &str, state: String) {
        self.warnings.push(format!("{key}: {state}"));
    }

    pub(super) fn error(&mut self, key: &str, state: String) {
        self.errors.push(format!("{key}: {state}"));
    }

    /// Prints the findings. `place`: a prefix for a key, the file with line and column.
    pub(super) fn print(&self, place: &impl Fn(&str) -> String) -> anyhow::Result<()> {
        for finding in &self.fine {
            print(&format!("{}{finding}", place("")))?;
        }
        let key = |finding: &str| finding.split_once(": ").map_or("", |(key, _)| key).to_owned();
        for finding in &self.warnings {
            message(&format!("{}warning: {finding}", place(&key(finding))));
        }
        for finding in &self.errors {
            message(&format!("{}{finding}", place(&key(finding))));
        }
        Ok(())
    }
}
