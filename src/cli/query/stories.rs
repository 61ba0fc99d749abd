//! `tapio stories`

use std::process::ExitCode;

use tonic::Status;

use super::annotated::Annotated;
use super::explain::{story_id, story_of_server};
use super::filter::{FilterArgs, Filters, OPTIONS, Range, RangeArgs};
use super::growing_table::GrowingTable;
use super::pages::{Listing, Page, for_each};
use super::state::state_text;
use super::{stream, view};
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{
    Cell, Column, Format, Outcome, OutputArgs, Printer, Style, Usage, severity_code,
};
use crate::server::LIFECYCLE;
use tapio_core::event::{LinkedStory, Story, StoryState};
use tapio_dataflow::rules::duration_text;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, linked_from_proto, proto};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio stories --since 1h\n  tapio stories --state open -p error -o wide\n  tapio stories 1b4f6f2a\n  tapio stories -f --pod shop/cart-1\n  tapio stories 1b4f6f2a -o markdown"
)]
pub(crate) struct Args {
    /// Print this story: its id, or the first digits
    #[arg(value_name = "STORY")]
    story: Option<String>,
    #[command(flatten, next_help_heading = "Range")]
    range: RangeArgs,
    #[command(flatten, next_help_heading = "Filters")]
    filter: FilterArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

const COLUMNS: &[Column] = &[
    Column { title: "ID", width: ID_DIGITS, rank: 0 },
    Column { title: "SINCE", width: 20, rank: 0 },
    Column { title: "STATE", width: 6, rank: 2 },
    Column { title: "SEVERITY", width: 8, rank: 1 },
    Column { title: "NAME", width: 0, rank: 0 },
];

const WIDE_COLUMNS: &[Column] = &[
    Column { title: "ID", width: 32, rank: 0 },
    Column { title: "SINCE", width: 24, rank: 0 },
    Column { title: "DURATION", width: 8, rank: 0 },
    Column { title: "STATE", width: 6, rank: 0 },
    Column { title: "SEVERITY", width: 8, rank: 0 },
    Column { title: "PATTERN", width: 20, rank: 0 },
    Column { title: "NODE", width: 12, rank: 0 },
    Column { title: "EVENTS", width: 6, rank: 0 },
    Column { title: "NAME", width: 24, rank: 0 },
    Column { title: "ROOT CAUSE", width: 0, rank: 0 },
];

/// Digits of an id in a table that fits the terminal: enough to be unique among all stories.
const ID_DIGITS: usize = 12;

/// The stories of a server.
struct Stories {
    server: String,
    client: QueryClient<AuthorizedChannel>,
    request: proto::ListStoriesRequest,
    has_lifecycles: bool,
}

fn request(filters: Filters, range: &Range) -> proto::ListStoriesRequest {
    proto::ListStoriesRequest {
        limit: 0,
        pattern: filters.pattern,
        node: filters.node,
        id_prefix: String::new(),
        since: range.since_ns,
        until: range.until_ns,
        severity: filters.severity,
        trace_id: filters.trace_id,
        kind: filters.kind,
        entities: filters.entities,
        text: filters.text,
        page_token: String::new(),
        state: filters.state,
        no_lifecycles: false,
    }
}

fn selects_lifecycles(filters: &Filters) -> bool {
    !filters.pattern.is_empty() || !filters.trace_id.is_empty()
}

impl Listing for Stories {
    type Item = proto::Story;

    async fn page(
        &mut self,
        limit: usize,
        page_token: String,
    ) -> Result<Page<proto::Story>, Status> {
        let has_lifecycles = self.has_lifecycles;
        let request = proto::ListStoriesRequest {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            page_token,
            // There are as many lifecycles as units and pods.
            no_lifecycles: !has_lifecycles,
            ..self.request.clone()
        };
        let response = self.client.list_stories(request).await?.into_inner();
        let mut items = response.stories;
        // An older server doesn't leave them out.
        items.retain(|story| has_lifecycles || !story.rule.ends_with(LIFECYCLE));
        let is_cut = items.len() > limit;
        items.truncate(limit);
        Ok(Page {
            count: items.len(),
            items,
            is_cut,
            next_page_token: response.next_page_token,
            complete_since_ns: response.complete_since,
            position: response.position,
        })
    }

    fn failure(&self, status: &Status) -> anyhow::Error {
        live::refusal(&self.server, status, OPTIONS)
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.story {
        None => list(args),
        Some(_) if !args.range.is_empty() || !args.filter.is_empty() => {
            Err(Usage("filters are for the list of stories, not for one story".into()).into())
        }
        Some(story) => one(args, story),
    }
}

fn list(args: &Args) -> Outcome {
    let access = args.at.access()?;
    let filters = args.filter.filters()?;
    let mut printed = Rows::new(&args.output, args.range.follow);
    let range = args.range.range(&printed.list.printer.style.now())?;
    live::runtime()?.block_on(async {
        let client = live::connect(&args.at.server, &access).await.map_err(anyhow::Error::msg)?;
        let has_lifecycles = selects_lifecycles(&filters);
        let request = request(filters.clone(), &range);
        let server = args.at.server.clone();
        let mut stories = Stories { server, client, request, has_lifecycles };
        let each =
            |story| Annotated::from_proto(story).map_or(Ok(()), |story| printed.print(&story));
        let fetched = for_each(&mut stories, &range, args.range.reverse, each).await?;
        printed.list.flush()?;
        let style = printed.list.printer.style.clone();
        if args.range.follow {
            fetched.report("stories", &range, &style);
            let request =
                proto::TailRequest { after: fetched.position.clone(), ..filters.tail(false, true) };
            stream::follow(&args.at, request, |batch| {
                let node = batch.node;
                let stories = batch.stories.into_iter().filter_map(linked_from_proto);
                for story in stories.filter(|one| has_lifecycles || !one.story.is_lifecycle()) {
                    printed.print_revision(story, &node)?;
                }
                printed.list.flush()
            })
            .await?;
        }
        // A pager has the screen until it ends.
        printed.list.finish("no stories match")?;
        fetched.report("stories", &range, &style);
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints one story.
fn one(args: &Args, story: &str) -> Outcome {
    let id = story_id(story)?;
    let found = story_of_server(&args.at, &id)?;
    let mut printer = Printer::list(&args.output);
    if printer.format.is_data() {
        printer.single(&found.json())?;
    } else {
        view::print_story(&mut printer, &found)?;
        printer.finish()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints stories as the rows of a table.
struct Rows {
    list: GrowingTable,
}

impl Rows {
    fn new(args: &OutputArgs, is_stream: bool) -> Self {
        Self { list: GrowingTable::new(args, is_stream, [COLUMNS, WIDE_COLUMNS]) }
    }

    fn print(&mut self, story: &Annotated) -> anyhow::Result<()> {
        if self.list.printer.format.is_data() {
            return Ok(self.list.printer.item(&story.json())?);
        }
        let linked = &story.linked;
        let nodes: Vec<&str> = linked.parts.iter().map(|part| &*part.node).collect();
        self.row(&linked.story, &nodes.join(","))
    }

    /// Prints a revision of a story as it was stored. As text, updates between opening and end are
    /// left out.
    fn print_revision(&mut self, linked: LinkedStory, node: &str) -> anyhow::Result<()> {
        let story = linked.story;
        match (self.list.printer.format, story.state) {
            (format, _) if format.is_data() => Ok(self.list.printer.item(&story.json())?),
            (Format::Text, StoryState::Updated) => Ok(()),
            _ => self.row(&story, node),
        }
    }

    fn row(&mut self, story: &Story, node: &str) -> anyhow::Result<()> {
        let cells = match self.list.printer.format {
            Format::Text => row(story, &self.list.printer.style),
            _ => wide_row(story, node, &self.list.printer.style),
        };
        self.list.row(cells)
    }
}

fn severity(story: &Story) -> Cell {
    Cell::painted(story.severity.as_str(), severity_code(story.severity))
}

fn row(story: &Story, style: &Style) -> Vec<Cell> {
    let id = story.id.to_string();
    vec![
        id.get(..ID_DIGITS).unwrap_or(&id).into(),
        style.time_to_second(story.first_ns).into(),
        state_text(story.state).into(),
        severity(story),
        (&story.name).into(),
    ]
}

fn wide_row(story: &Story, node: &str, style: &Style) -> Vec<Cell> {
    let cause = story.root_cause.first().map(|first| &*first.cause).unwrap_or_default();
    vec![
        story.id.to_string().into(),
        style.time(story.first_ns).into(),
        duration_text(story.duration_ns()).into(),
        state_text(story.state).into(),
        severity(story),
        (&story.pattern).into(),
        node.into(),
        story.members_total.to_string().into(),
        (&story.name).into(),
        cause.into(),
    ]
}
