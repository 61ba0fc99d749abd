//! `tapio tail`

use prost::Message as _;
use serde_json::Value as Json;

use super::connection::ServerArgs;
use super::output::{Outcome, OutputArgs, Printer, Style, message, plain};
use super::{live, story};
use tapio_core::event::{Severity, TraceId};
use tapio_core::glob;
use tapio_wire::{batch_json, proto, story_from_proto};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio tail\n  tapio tail --kind 'kernel.tcp.*' -o json\n  tapio tail --stories\n  tapio tail --severity error --entity k8s.pod.name=web-1"
)]
pub(super) struct Args {
    #[command(flatten)]
    at: ServerArgs,
    /// Only events of these kinds; `*` matches any text, `?` one character
    #[arg(long, value_name = "GLOB")]
    kind: Option<String>,
    /// Stories only; with --kind, also the events of these kinds
    #[arg(long)]
    stories: bool,
    /// Only of this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// At least this severity: a name such as `warn`, or a number from 0 to 24
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    severity: Option<Severity>,
    /// Only stories of this pattern and their events
    #[arg(long, value_name = "NAME")]
    pattern: Option<String>,
    /// Only of this trace
    #[arg(long, value_name = "ID")]
    trace_id: Option<TraceId>,
    /// Only events with this entity, and stories with it in their key
    #[arg(long, value_name = "KEY=VALUE")]
    entity: Option<String>,
    /// Only events whose message has this part, in upper or lower case; and stories that have it
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| "not a severity".into())
}

impl Args {
    /// The request for the server's tail.
    fn request(&self) -> proto::TailRequest {
        let text = |option: &Option<String>| option.clone().unwrap_or_default();
        proto::TailRequest {
            kind: text(&self.kind),
            node: text(&self.node),
            severity: self.severity.map_or(0, |severity| u32::from(severity.0)),
            pattern: text(&self.pattern),
            trace_id: self.trace_id.map_or_else(Vec::new, |id| id.0.to_vec()),
            entities: self.entity.iter().cloned().collect(),
            text: text(&self.text),
            stories: self.stories,
            no_events: self.stories && self.kind.is_none(),
        }
    }

    fn accepts(&self, event: &Json) -> bool {
        let kind = event.get("kind").and_then(Json::as_str).unwrap_or_default();
        self.kind.as_ref().is_none_or(|pattern| glob::matches(pattern, kind))
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    let access = args.at.access()?;
    live::runtime()?.block_on(async {
        let mut client =
            live::connect(&args.at.server, &access).await.map_err(anyhow::Error::msg)?;
        let mut stream =
            live::tail(&mut client, args.request()).await.map_err(anyhow::Error::msg)?;
        let mut printer = Printer::stream(&args.output);
        loop {
            match stream.message().await {
                Ok(Some(item)) => print_batch(args, &mut printer, &item.batch.unwrap_or_default())?,
                Ok(None) => anyhow::bail!("the server at {} ended the stream", args.at.server),
                Err(e) => anyhow::bail!(
                    "lost the connection to the server at {}: {}",
                    args.at.server,
                    e.message()
                ),
            }
        }
    })
}

fn print_batch(
    args: &Args,
    printer: &mut Printer,
    batch: &proto::EventBatch,
) -> anyhow::Result<()> {
    let (items, broken) = batch_json(&batch.encode_to_vec())?;
    if broken > 0 {
        message(&format!("tapio: {broken} items can't be decoded"));
    }
    let is_data = printer.format.is_data();
    for (is_story, json) in &items {
        match (is_story, is_data) {
            (true, true) if !story::is_lifecycle(json) => printer.item(json)?,
            (false, true) if args.accepts(json) => printer.item(json)?,
            (false, false) if args.accepts(json) => {
                let text = event_line(json, &printer.style);
                printer.line(&text)?;
            }
            _ => {}
        }
    }
    let stories = batch.stories.iter().filter(|_| !is_data).cloned();
    for story in stories.filter_map(story_from_proto).filter(|story| !story.is_lifecycle()) {
        if let Some(text) = story::live_text(&story, &printer.style) {
            printer.line(&text)?;
        }
    }
    Ok(())
}

/// An event on one line: time, source, kind, severity, and its message or its entity.
pub(super) fn event_line(event: &Json, style: &Style) -> String {
    let text = |name: &str| event.get(name).and_then(Json::as_str).unwrap_or_default();
    let content = match text("message") {
        "" => event.get("entity").map_or_else(String::new, ToString::to_string),
        message => message.to_owned(),
    };
    let time = text("time").parse().map_or_else(
        |_| plain(text("time")),
        |time: jiff::Timestamp| style.time(time.as_nanosecond().try_into().unwrap_or_default()),
    );
    let severity = match text("severity") {
        "info" | "" => String::new(),
        word => match Severity::parse(word) {
            Some(severity) => format!("{} ", style.severity(severity)),
            None => String::new(),
        },
    };
    format!(
        "{time} {} {} {severity}{}",
        plain(text("source")),
        style.paint(&plain(text("kind")), "1"),
        plain(&content)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_line() {
        let event = serde_json::json!({
            "time": "2026-01-02T03:04:05.678901234Z", "kind": "kernel.tcp.refused", "source": "kernel",
            "severity": "warn", "message": "a\nb"
        });
        assert_eq!(
            event_line(&event, &Style::bare()),
            "2026-01-02 03:04:05.678Z kernel kernel.tcp.refused WARN a·b"
        );
    }
}
