//! `tapio events`

use std::process::ExitCode;

use jiff::Timestamp;
use prost::Message as _;
use serde_json::Value as Json;
use tonic::Status;

use super::filter::{FilterArgs, Filters, OPTIONS, Range, RangeArgs};
use super::growing_table::GrowingTable;
use super::pages::{Listing, Page, for_each};
use super::stream;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{
    Cell, Column, Format, Outcome, OutputArgs, Usage, message, severity_code,
};
use tapio_core::event::Severity;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, batch_json, proto};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio events --since 15m -p warn\n  tapio events --unit nginx --since 10:00 --until 10:30\n  tapio events -f --pod shop/cart-1\n  tapio events --kind 'kernel.*' -n 1000 -o jsonl"
)]
pub(crate) struct Args {
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
    Column { title: "TIME", width: 24, rank: 0 },
    Column { title: "SEVERITY", width: 8, rank: 2 },
    Column { title: "KIND", width: 20, rank: 1 },
    Column { title: "MESSAGE", width: 0, rank: 0 },
];

const WIDE_COLUMNS: &[Column] = &[
    Column { title: "TIME", width: 24, rank: 0 },
    Column { title: "SEVERITY", width: 8, rank: 0 },
    Column { title: "NODE", width: 12, rank: 0 },
    Column { title: "SOURCE", width: 8, rank: 0 },
    Column { title: "KIND", width: 20, rank: 0 },
    Column { title: "ENTITY", width: 24, rank: 0 },
    Column { title: "TRACE", width: 32, rank: 0 },
    Column { title: "MESSAGE", width: 0, rank: 0 },
];

/// The events of a server.
struct Events {
    server: String,
    client: QueryClient<AuthorizedChannel>,
    request: proto::ListEventsRequest,
}

fn request(filters: Filters, range: &Range) -> proto::ListEventsRequest {
    proto::ListEventsRequest {
        limit: 0,
        kind: filters.kind,
        trace_id: filters.trace_id,
        node: filters.node,
        entities: filters.entities,
        since: range.since_ns,
        until: range.until_ns,
        severity: filters.severity,
        pattern: filters.pattern,
        text: filters.text,
        page_token: String::new(),
    }
}

impl Listing for Events {
    type Item = proto::EventBatch;

    async fn page(
        &mut self,
        limit: usize,
        page_token: String,
    ) -> Result<Page<proto::EventBatch>, Status> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let request = proto::ListEventsRequest { limit, page_token, ..self.request.clone() };
        let mut response = self.client.list_events(request).await?.into_inner();
        response.batches.reverse();
        Ok(Page {
            count: response.batches.iter().map(|batch| batch.events.len()).sum(),
            items: response.batches,
            is_cut: false,
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
    if args.filter.state.is_some() {
        return Err(Usage("--state is a filter of stories: events have no state".into()).into());
    }
    let access = args.at.access()?;
    let filters = args.filter.filters()?;
    let mut view = View::new(&args.output, args.range.follow);
    let range = args.range.range(&view.list.printer.style.now())?;
    live::runtime()?.block_on(async {
        let client = live::connect(&args.at.server, &access).await.map_err(anyhow::Error::msg)?;
        let (server, request) = (args.at.server.clone(), request(filters.clone(), &range));
        let mut events = Events { server, client, request };
        let is_reverse = args.range.reverse;
        let fetched =
            for_each(&mut events, &range, is_reverse, |batch| view.print(&batch, is_reverse))
                .await?;
        view.list.flush()?;
        let style = view.list.printer.style.clone();
        if args.range.follow {
            fetched.report("events", &range, &style);
            let request =
                proto::TailRequest { after: fetched.position.clone(), ..filters.tail(true, false) };
            stream::follow(&args.at, request, |batch| {
                view.print(&batch, false)?;
                view.list.flush()
            })
            .await?;
        }
        // A pager has the screen until it ends.
        view.list.finish("no events match")?;
        fetched.report("events", &range, &style);
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints events.
struct View {
    list: GrowingTable,
}

impl View {
    fn new(args: &OutputArgs, is_stream: bool) -> Self {
        Self { list: GrowingTable::new(args, is_stream, [COLUMNS, WIDE_COLUMNS]) }
    }

    fn print(&mut self, batch: &proto::EventBatch, is_reverse: bool) -> anyhow::Result<()> {
        let (mut items, broken) = batch_json(&batch.encode_to_vec())?;
        if broken > 0 {
            message(&format!("tapio: {broken} items can't be decoded"));
        }
        if is_reverse {
            items.reverse();
        }
        for (is_story, event) in &items {
            if *is_story {
                continue;
            }
            if self.list.printer.format.is_data() {
                self.list.printer.item(event)?;
                continue;
            }
            let row = self.row(event, &batch.node);
            self.list.row(row)?;
        }
        Ok(())
    }

    fn row(&self, event: &Json, node: &str) -> Vec<Cell> {
        let text = |name: &str| event.get(name).and_then(Json::as_str).unwrap_or_default();
        let severity = Severity::parse(text("severity")).unwrap_or_default();
        let severity = match text("severity") {
            "" | "unspecified" => Cell::from(""),
            word => Cell::painted(word, severity_code(severity)),
        };
        let entity = entity_text(event);
        let content = if text("message").is_empty() { &entity } else { text("message") };
        let time: Result<Timestamp, _> = text("time").parse();
        let time = time.map_or_else(
            |_| text("time").to_owned(),
            |time| {
                self.list.printer.style.time(time.as_nanosecond().try_into().unwrap_or_default())
            },
        );
        if self.list.printer.format == Format::Text {
            return vec![time.into(), severity, text("kind").into(), content.into()];
        }
        vec![
            time.into(),
            severity,
            node.into(),
            text("source").into(),
            text("kind").into(),
            (&entity).into(),
            text("trace_id").into(),
            text("message").into(),
        ]
    }
}

/// The entity of an event: `key=value`, without the node.
fn entity_text(event: &Json) -> String {
    let entity = event.get("entity").and_then(Json::as_object).into_iter().flatten();
    let is_node = |key: &str| key == "node" || key == "host.name";
    let parts = entity.filter(|(key, _)| !is_node(key)).map(|(key, value)| match value {
        Json::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    parts.collect::<Vec<_>>().join(" ")
}
