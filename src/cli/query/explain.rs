//! `tapio explain`

use std::fmt::Write as _;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::annotated::Annotated;
use super::explain_markdown::print_explanation;
use super::terms::terms_by_weight;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{Format, Outcome, OutputArgs, Printer, Style, Usage, message, plain};
use crate::cli::story;
use tapio_core::event::{Candidate, Link, LinkedStory, Story, StoryPart, linked_among};
use tapio_wire::proto;

/// Longest line of a file of stories.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// Fewest digits of a story's id that are accepted as its prefix.
const MIN_DIGITS: usize = 4;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio explain 1b4f…\n  tapio replay events.jsonl > stories.jsonl; tapio explain 1b4f --from stories.jsonl"
)]
pub(crate) struct Args {
    /// The story's id, or its first digits
    #[arg(value_name = "STORY")]
    story: String,
    #[command(flatten)]
    at: ServerArgs,
    /// A file of stories as `tapio replay` prints them, instead of a server; `-` for standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let id = story_id(&args.story)?;
    let found = match &args.from {
        Some(file) => {
            let found = from_file(file, &id)?;
            let linked = latest_revision(found, &id, &file.display().to_string())?;
            Annotated { linked, annotations: None, silence: None }
        }
        None => story_of_server(&args.at, &id)?,
    };
    let mut printer = Printer::list(&args.output);
    match printer.format {
        format if format.is_data() => printer.single(&found.json())?,
        Format::Markdown => {
            print_explanation(&mut printer, &found)?;
            printer.finish()?;
        }
        _ => {
            let text = explanation(&found.linked, &printer.style);
            printer.line(&text)?;
            printer.finish()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The digits of a story's id, or of its beginning.
///
/// # Errors
/// When the text has too few of them, or others.
pub(super) fn story_id(text: &str) -> Result<String, Usage> {
    let id: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    let is_id = (MIN_DIGITS..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return Err(Usage(format!(
            "{text:?} isn't a story id: expected {MIN_DIGITS} to 32 hexadecimal digits"
        )));
    }
    Ok(id)
}

/// The only story of a server whose id begins with these digits.
///
/// # Errors
/// When there is none, or there are several, or the server doesn't answer.
pub(super) fn story_of_server(server: &ServerArgs, id: &str) -> anyhow::Result<Annotated> {
    let found = from_server(server, id)?;
    let all = found.iter().map(|one| one.linked.clone()).collect();
    let latest = latest_revision(all, id, &server.server)?.story;
    let is_it = |one: &Annotated| {
        one.linked.story.id == latest.id && one.linked.story.revision == latest.revision
    };
    found.into_iter().find(is_it).with_context(|| format!("no story {id}…"))
}

/// The latest revision of the story, which must be the only one with this prefix.
fn latest_revision(
    mut found: Vec<LinkedStory>,
    id: &str,
    source: &str,
) -> anyhow::Result<LinkedStory> {
    found.sort_by_key(|one| std::cmp::Reverse(one.story.revision));
    let Some(linked) = found.first().cloned() else {
        anyhow::bail!("no story {id}… in {source}");
    };
    let first = linked.story.id;
    if let Some(other) = found.iter().map(|one| one.story.id).find(|other| *other != first) {
        let both = format!("{id} is an ambiguous prefix: {first}, {other} …");
        return Err(Usage(both).into());
    }
    Ok(linked)
}

fn from_file(file: &Path, id: &str) -> anyhow::Result<Vec<LinkedStory>> {
    let name = || file.display().to_string();
    let source: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(name)?)
    };
    let mut reader = std::io::BufReader::new(source);
    let (mut all, mut line, mut number) = (Vec::new(), Vec::new(), 0u64);
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.with_context(name)? == 0 {
            break;
        }
        number += 1;
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        match Story::from_json(text.trim()) {
            Ok(story) => all.push(story),
            Err(e) => message(&format!("tapio: {}:{number}:{}: {}", name(), e.column, e.cause)),
        }
    }
    let selected = all.iter().filter(|story| story.id.to_string().starts_with(id));
    Ok(selected.map(|story| linked_among(story, &all)).collect())
}

fn from_server(server: &ServerArgs, id: &str) -> anyhow::Result<Vec<Annotated>> {
    let access = server.access()?;
    live::runtime()?.block_on(async {
        let connected = live::connect(&server.server, &access).await;
        let mut client = connected.map_err(anyhow::Error::msg)?;
        let request = proto::ListStoriesRequest { id_prefix: id.into(), ..Default::default() };
        let response = client.list_stories(request).await;
        let response = response.map_err(|status| live::failure(&server.server, &status))?;
        Ok(response.into_inner().stories.into_iter().filter_map(Annotated::from_proto).collect())
    })
}

/// The story, its parts, its linked stories, and all candidates with every term.
pub(crate) fn explanation(linked: &LinkedStory, style: &Style) -> String {
    let story = &linked.story;
    let mut out = story::story_text(story, style);
    if linked.parts.len() > 1 {
        let _ = write!(out, "\n  {}", style.paint("nodes", "1"));
        linked.parts.iter().for_each(|part| append_part(&mut out, part, style));
    }
    if !linked.links.is_empty() {
        let _ = write!(out, "\n  {}", style.paint("linked stories", "1"));
        linked.links.iter().for_each(|link| append_link(&mut out, link, style));
    }
    let heading = style.paint("candidates", "1");
    // Writing to a string can't fail.
    let _ = write!(out, "\n  {heading}");
    if story.root_cause.is_empty() {
        out.push_str("\n    none: no member reports a fault");
    }
    for (index, candidate) in story.root_cause.iter().enumerate() {
        let next = story.root_cause.get(index + 1);
        append_candidate(&mut out, candidate, index + 1, next, style);
    }
    out
}

fn append_part(out: &mut String, part: &StoryPart, style: &Style) {
    let events = match part.members_total {
        1 => "1 event".to_owned(),
        n => format!("{n} events"),
    };
    let _ = write!(
        out,
        "\n    {}: {} {}, {events} since {}  {}",
        plain(&part.node),
        style.severity(part.severity),
        part.state.as_str(),
        style.time(part.first_ns),
        style.paint(&part.id.to_string(), "2")
    );
}

fn append_link(out: &mut String, link: &Link, style: &Style) {
    let events = if link.shared == 1 {
        "1 shared event".into()
    } else {
        format!("{} shared events", link.shared)
    };
    let (name, id) = (plain(&link.name), style.paint(&link.id.to_string(), "2"));
    let _ = write!(out, "\n    {name}: {events}  {id}");
}

fn append_candidate(
    out: &mut String,
    candidate: &Candidate,
    rank: usize,
    next: Option<&Candidate>,
    style: &Style,
) {
    let cause = style.paint(&plain(&candidate.cause), "1;33");
    let odds = next.map_or_else(String::new, |n| {
        format!(", {} times as likely as the next", times((candidate.score - n.score).exp()))
    });
    let _ = write!(out, "\n    {rank}. {cause}  {:+.2}{odds}", candidate.score);
    let terms = terms_by_weight(candidate);
    let width = terms.iter().map(|t| t.name.chars().count()).max().unwrap_or(0);
    for term in terms {
        let _ = write!(
            out,
            "\n       {:+6.2}  {:width$}  {}",
            term.weight,
            plain(&term.name),
            style.paint(&plain(&term.because), "2")
        );
    }
}

fn times(odds: f64) -> String {
    if odds >= 1000.0 { "over 1000".into() } else { format!("{odds:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Severity, StoryState, Term, TraceId};

    fn candidate(cause: &str, score: f64) -> Candidate {
        let terms = vec![
            Term {
                name: "onset".into(),
                weight: -0.25,
                value: 0.0,
                because: "0.300 s after".into(),
            },
            Term {
                name: "severity".into(),
                weight: score + 0.25,
                value: 0.0,
                because: "error".into(),
            },
        ];
        let (evidence, labels) = (Vec::new(), Vec::new());
        Candidate { cause: cause.into(), entity: None, evidence, labels, score, terms }
    }

    #[test]
    fn parts_are_printed_with_their_nodes() {
        let part = StoryPart {
            node: "b\u{1b}".into(),
            id: TraceId([7; 16]),
            state: StoryState::Closed,
            members_total: 3,
            first_ns: 1_700_000_000_000_000_000,
            last_ns: 1_700_000_001_000_000_000,
            severity: Severity::ERROR,
        };
        let mut out = String::new();
        append_part(&mut out, &part, &Style::bare());
        let id = TraceId([7; 16]);
        assert_eq!(
            out,
            format!("\n    b·: ERROR closed, 3 events since 2023-11-14 22:13:20.000Z  {id}")
        );
    }

    #[test]
    fn terms_are_printed_with_their_reasons_by_weight() {
        let (first, second) = (candidate("a\u{1b}", 2.0), candidate("b", 1.0));
        let mut out = String::new();
        append_candidate(&mut out, &first, 1, Some(&second), &Style::bare());
        assert_eq!(
            out,
            "\n    1. a·  +2.00, 2.7 times as likely as the next\
             \n        +2.25  severity  error\n        -0.25  onset     0.300 s after"
        );
    }
}
