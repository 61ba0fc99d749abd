//! Arguments of the output, which several commands take.

use clap::ValueEnum;

/// How a command with two formats prints its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for a person
    Text,
    /// JSON for a program
    Json,
}

/// How a command prints its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text that fits the terminal
    #[default]
    Text,
    /// Text with all columns, never truncated
    Wide,
    /// One JSON array, or one object for one item; with --follow as jsonl
    Json,
    /// JSON, one item a line
    Jsonl,
    /// YAML
    Yaml,
    /// Markdown, for a ticket or a chat
    Markdown,
}

impl Format {
    /// Whether items are printed as the API has them, for a program.
    pub(crate) fn is_data(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl | Self::Yaml)
    }
}

/// When text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set; with CLICOLOR_FORCE also elsewhere
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The arguments of the output.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,
    /// Print times in UTC instead of the local time zone
    #[arg(long)]
    pub(crate) utc: bool,
    /// When to colour text
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// Don't start a pager ($TAPIO_PAGER, $PAGER, or less) on a terminal
    #[arg(long)]
    pub(crate) no_pager: bool,
}
