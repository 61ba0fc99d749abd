//! `tapio annotations`

use std::process::ExitCode;

use clap::ValueEnum;

use super::explain::{story_id, story_of_server};
use super::time;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{Cell, Column, Outcome, OutputArgs, Printer, Style, Table, Usage};
use tapio_core::event::TraceId;
use tapio_wire::proto::annotation_entry::Action;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, annotation_entry_json, proto};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio annotations --since 7d\n  tapio annotations 1b4f6f2a\n  tapio annotations --action wrong_cause,right_cause -o jsonl > causes.jsonl"
)]
pub(crate) struct Args {
    /// Only of this story: its id, or the first digits
    #[arg(value_name = "STORY")]
    story: Option<String>,
    /// Only these
    #[arg(long, value_name = "ACTION", value_enum, value_delimiter = ',')]
    action: Vec<ActionName>,
    #[command(flatten)]
    when: WhenArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

/// When something was noted.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct WhenArgs {
    /// Noted from this time on: a duration before now (`7d`), RFC 3339, `2026-11-30`, `today`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Noted before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

impl WhenArgs {
    /// The times, nanoseconds since the Unix epoch; 0: any.
    ///
    /// # Errors
    /// When a time is invalid, or no time is in the range.
    pub(crate) fn range(&self, now: &jiff::Zoned) -> Result<(u64, u64), Usage> {
        let time = |name: &str, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => time::parse(text, now).map_err(|e| Usage(format!("{name}: {e}"))),
        };
        let (since_ns, until_ns) = (time("--since", &self.since)?, time("--until", &self.until)?);
        if until_ns != 0 && until_ns <= since_ns {
            return Err(Usage("--until is not after --since".into()));
        }
        Ok((since_ns, until_ns))
    }
}

/// An action that is in force until another one ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum ActionName {
    Acknowledge,
    Note,
    WrongCause,
    RightCause,
    Silence,
}

impl ActionName {
    /// The name in requests.
    fn text(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::Note => "note",
            Self::WrongCause => "wrong_cause",
            Self::RightCause => "right_cause",
            Self::Silence => "silence",
        }
    }
}

const COLUMNS: &[Column] = &[
    Column { title: "TIME", width: 20, rank: 0 },
    Column { title: "STORY", width: 12, rank: 1 },
    Column { title: "ACTION", width: 12, rank: 0 },
    Column { title: "BY", width: 6, rank: 2 },
    Column { title: "TEXT", width: 0, rank: 0 },
];

/// Digits of a story's id in a table.
const ID_DIGITS: usize = 12;

/// Fetches the annotations that a request selects, page by page, oldest first.
///
/// # Errors
/// Those of the server and of `each`.
pub(crate) async fn for_each_annotation(
    client: &mut QueryClient<AuthorizedChannel>,
    server: &str,
    mut request: proto::ListAnnotationsRequest,
    mut each: impl FnMut(proto::AnnotationEntry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        let response = client.list_annotations(request.clone()).await;
        let page = response.map_err(|status| live::failure(server, &status))?.into_inner();
        page.entries.into_iter().try_for_each(&mut each)?;
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

/// The id of a story. Annotations outlast it, so a whole id is taken as it is.
fn id_of(args: &Args, text: &str) -> anyhow::Result<TraceId> {
    let digits = story_id(text)?;
    match digits.parse() {
        Ok(id) if digits.len() == 32 => Ok(id),
        _ => Ok(story_of_server(&args.at, &digits)?.linked.story.id),
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let access = args.at.access()?;
    let mut printer = Printer::list(&args.output);
    let (since, until) = args.when.range(&printer.style.now())?;
    let story = args.story.as_deref().map(|text| id_of(args, text)).transpose()?;
    let request = proto::ListAnnotationsRequest {
        limit: PAGE_ENTRIES,
        page_token: String::new(),
        story_id: story.map(|id| id.0.to_vec()).unwrap_or_default(),
        actions: args.action.iter().map(|action| action.text().to_owned()).collect(),
        since,
        until,
    };
    let mut table = Table::new(COLUMNS);
    live::runtime()?.block_on(async {
        let client = live::connect(&args.at.server, &access).await;
        let mut client = client.map_err(anyhow::Error::msg)?;
        for_each_annotation(&mut client, &args.at.server, request, |entry| {
            if printer.format.is_data() {
                printer.item(&annotation_entry_json(&entry))?;
            } else {
                table.row(row(&entry, &printer.style));
            }
            Ok(())
        })
        .await
    })?;
    printer.table(&mut table)?;
    printer.finish_table(&table, "no annotations match")?;
    Ok(ExitCode::SUCCESS)
}

/// Entries of a page.
pub(crate) const PAGE_ENTRIES: u32 = 1000;

fn row(entry: &proto::AnnotationEntry, style: &Style) -> Vec<Cell> {
    let (action, text) = match &entry.action {
        Some(Action::Acknowledged(_)) => ("acknowledge", String::new()),
        Some(Action::Note(text)) => ("note", text.clone()),
        Some(Action::WrongCause(cause)) => ("wrong_cause", cause.clone()),
        Some(Action::RightCause(_)) => ("right_cause", String::new()),
        Some(Action::Silence(silence)) => {
            let until = style.time_to_second(silence.until_unix_nano);
            ("silence", format!("{} until {until} {}", silence.rule, silence.reason))
        }
        None => ("", String::new()),
    };
    let id = entry.story_id.as_slice().try_into().map(TraceId);
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    vec![
        style.time_to_second(entry.time_unix_nano).into(),
        id.get(..ID_DIGITS).unwrap_or(&id).into(),
        action.into(),
        (&entry.by).into(),
        text.trim_end().into(),
    ]
}
