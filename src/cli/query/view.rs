//! One story, for a person.

use super::annotated::Annotated;
use super::state::state_text;
use crate::cli::output::{
    BOLD, Cell, Column, Format, Printer, Style, Table, YELLOW, markdown, plain, severity_code,
};
use crate::cli::story::impact_text;
use tapio_core::event::{LinkedStory, Story};
use tapio_dataflow::rules::duration_text;
use tapio_wire::proto;

/// Members that are printed, but with `wide`: the first and the last ones.
const FIRST_MEMBERS: usize = 12;
const LAST_MEMBERS: usize = 4;

const MEMBERS: &[Column] = &[
    Column { title: "TIME", width: 24, rank: 0 },
    Column { title: "SOURCE", width: 8, rank: 3 },
    Column { title: "KIND", width: 20, rank: 1 },
    Column { title: "ROLE", width: 8, rank: 2 },
    Column { title: "SUMMARY", width: 0, rank: 0 },
];

/// Prints a story: its name, its cause, the actions, the impact, and its members as a table.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print_story(printer: &mut Printer, found: &Annotated) -> anyhow::Result<()> {
    let text = match printer.format {
        Format::Markdown => head_in_markdown(found, &printer.style),
        _ => head(found, &printer.style),
    };
    printer.line(&text)?;
    let story = &found.linked.story;
    members(printer, story)?;
    if printer.format != Format::Markdown {
        printer.line("")?;
        printer.line(&format!("More: tapio explain {}", story.id))?;
    }
    Ok(())
}

/// Facts about a story, each with its name.
fn facts(linked: &LinkedStory, style: &Style) -> Vec<(&'static str, String)> {
    let story = &linked.story;
    let nodes: Vec<&str> = linked.parts.iter().map(|part| &*part.node).collect();
    let key: Vec<String> =
        story.key.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let lasted = duration_text(story.duration_ns());
    let mut facts = vec![
        ("state", state_text(story.state).to_owned()),
        ("pattern", story.pattern.clone()),
        ("rule", story.rule.clone()),
        ("since", format!("{}, for {lasted}", style.time(story.first_ns))),
        ("events", story.members_total.to_string()),
        ("node", nodes.join(", ")),
        ("key", key.join(", ")),
        ("story", story.id.to_string()),
        ("trace", story.trace_id.to_string()),
    ];
    if let Some(incident) = &story.incident {
        let role = incident.role.as_str();
        facts.push(("incident", format!("{} ({role}): {}", incident.id, incident.because)));
    }
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// The first root cause and the confidence in it.
fn cause(story: &Story) -> Option<String> {
    let first = story.root_cause.first()?;
    Some(format!("{} (confidence {:.0} %)", first.cause, story.confidence * 100.0))
}

fn head(found: &Annotated, style: &Style) -> String {
    let (linked, story) = (&found.linked, &found.linked.story);
    let severity =
        style.paint(&story.severity.as_str().to_uppercase(), severity_code(story.severity));
    let mut lines = vec![format!("■ {severity}  {}", style.paint(&plain(&story.name), BOLD))];
    if !story.intent.is_empty() {
        lines.push(format!("  {}", plain(&story.intent)));
    }
    let mut section = |title: &str, content: &mut dyn Iterator<Item = String>| {
        let mut content = content.peekable();
        if content.peek().is_some() {
            lines.push(format!("\n{}", style.paint(title, BOLD)));
            lines.extend(content.map(|line| format!("  {line}")));
        }
    };
    section(
        "Root cause",
        &mut cause(story).map(|cause| style.paint(&plain(&cause), YELLOW)).into_iter(),
    );
    let actions = (1..).zip(&story.actions);
    section("Actions", &mut actions.map(|(n, action)| format!("{n}. {}", plain(action))));
    section("Impact", &mut impact_text(&story.impact).lines().map(|line| line.trim().to_owned()));
    let facts = facts(linked, style).into_iter();
    section("Story", &mut facts.map(|(name, value)| format!("{name:8}  {}", plain(&value))));
    section("Annotations", &mut notes(found, style).into_iter());
    lines.push(format!("\n{}", style.paint("Events", BOLD)));
    lines.join("\n")
}

/// The head of a story in Markdown, with an empty line at its end.
pub(super) fn head_in_markdown(found: &Annotated, style: &Style) -> String {
    let (linked, story) = (&found.linked, &found.linked.story);
    let text = |text: &str| markdown(&plain(text));
    let mut lines =
        vec![format!("## {}: {}", story.severity.as_str(), text(&story.name)), String::new()];
    if let Some(cause) = cause(story) {
        lines.extend([format!("**Root cause:** {}", text(&cause)), String::new()]);
    }
    lines.extend((1..).zip(&story.actions).map(|(n, action)| format!("{n}. {}", text(action))));
    if !story.actions.is_empty() {
        lines.push(String::new());
    }
    let impact = impact_text(&story.impact);
    lines.extend(impact.lines().map(|line| format!("- {}", text(line.trim()))));
    let facts = facts(linked, style).into_iter();
    lines.extend(facts.map(|(name, value)| format!("- {name}: {}", text(&value))));
    lines.extend(notes(found, style).into_iter().map(|note| format!("- {}", markdown(&note))));
    lines.push(String::new());
    lines.join("\n")
}

/// The annotations of a story and the silence that it falls under.
fn notes(found: &Annotated, style: &Style) -> Vec<String> {
    let mut lines =
        found.annotations.as_ref().map_or_else(Vec::new, |of| annotation_lines(of, style));
    if let Some(silence) = &found.silence {
        let until = style.time_to_second(silence.until_unix_nano);
        let (by, reason) = (plain(&silence.by), plain(&silence.reason));
        lines.push(format!("silenced until {until}{}: {reason}", by_text(&by)));
    }
    lines
}

fn by_text(by: &str) -> String {
    if by.is_empty() { String::new() } else { format!(" by {by}") }
}

/// Annotations, one a line.
pub(crate) fn annotation_lines(annotations: &proto::Annotations, style: &Style) -> Vec<String> {
    let line = |label: &str, annotation: &proto::Annotation| {
        let time = style.time_to_second(annotation.time_unix_nano);
        let text = match &*plain(&annotation.text) {
            "" => String::new(),
            text => format!(": {text}"),
        };
        format!("{time}  {label}{}{text}", by_text(&plain(&annotation.by)))
    };
    let acknowledged = annotations.acknowledged.iter().map(|one| line("acknowledged", one));
    let wrong_cause = annotations.wrong_cause.iter().map(|one| line("wrong cause", one));
    let right_cause = annotations.right_cause.iter().map(|one| line("right cause", one));
    let notes = annotations.notes.iter().map(|one| line("note", one));
    acknowledged.chain(wrong_cause).chain(right_cause).chain(notes).collect()
}

/// The members as a table: all of them with `wide`, else the first and the last ones.
///
/// # Errors
/// When standard output is closed.
pub(super) fn members(printer: &mut Printer, story: &Story) -> anyhow::Result<()> {
    let mut table = Table::new(MEMBERS);
    let total = usize::try_from(story.members_total).unwrap_or(usize::MAX);
    let kept = story.members.len();
    let is_whole = printer.format == Format::Wide || kept <= FIRST_MEMBERS + LAST_MEMBERS;
    let (first, last) = if is_whole { (kept, 0) } else { (FIRST_MEMBERS, LAST_MEMBERS) };
    let omitted = total.saturating_sub(first + last);
    for (place, member) in story.members.iter().enumerate() {
        if place >= first && place < kept - last {
            continue;
        }
        if place == kept - last && omitted > 0 {
            table.row(omission(omitted));
        }
        let role = if member.pattern.is_empty() {
            member.role.clone()
        } else {
            format!("{}: {}", member.role, member.pattern)
        };
        table.row(vec![
            printer.style.time(member.time_ns).into(),
            (&member.source).into(),
            Cell::painted(&member.kind, severity_code(member.severity)),
            role.into(),
            (&member.summary).into(),
        ]);
    }
    if last == 0 && omitted > 0 {
        table.row(omission(omitted));
    }
    printer.table(&mut table)?;
    Ok(())
}

fn omission(omitted: usize) -> Vec<Cell> {
    let cell = Cell::from;
    vec![
        cell(format!("… {omitted} more …")),
        cell(String::new()),
        cell(String::new()),
        cell(String::new()),
        cell(String::new()),
    ]
}
