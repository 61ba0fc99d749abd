//! The arguments of `tapio demo`.

use crate::cli::output::{Output, message, print};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  sudo tapio demo\n  tapio demo --output json\n\nThe faults happen to child processes of the demo only: one takes more memory than the limit\nof its own cgroup, four read through a null pointer, one connects to a closed port."
)]
pub(crate) struct Args {
    /// Keep the folder with the stored events and stories
    #[arg(long)]
    pub(super) keep_data: bool,
    /// Output format: text, or JSON lines (each fault with its stories and events, then a summary)
    #[arg(long, value_enum, default_value = "text")]
    pub(super) output: Output,
}

impl Args {
    /// Prints progress: to standard output with text, to standard error with JSON.
    pub(super) fn progress(&self, text: &str) -> anyhow::Result<()> {
        match self.output {
            Output::Text => Ok(print(text)?),
            Output::Json => {
                message(text);
                Ok(())
            }
        }
    }
}
