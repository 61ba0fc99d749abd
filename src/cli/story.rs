//! Renders stories for a terminal.

use std::fmt::Write as _;

use super::output::{BOLD, DIM, Style, YELLOW, plain};
use tapio_core::event::{Candidate, Impact, Story, StoryState};
use tapio_dataflow::rules::duration_text;

/// Members of a longer story that are printed: the first and the last ones.
const FIRST_MEMBERS: usize = 8;
const LAST_MEMBERS: usize = 2;
/// Candidates after the first one that are named.
const RUNNERS_UP: usize = 3;

/// The text for a live view: a line when the story opens, the whole story when it ends.
pub(crate) fn live_text(story: &Story, style: &Style) -> Option<String> {
    match story.state {
        StoryState::Opened => Some(opening_line(story, style)),
        StoryState::Updated => None,
        StoryState::Closed | StoryState::Expired => Some(story_text(story, style)),
        StoryState::Retracted => Some(retraction_line(story, style)),
    }
}

fn retraction_line(story: &Story, style: &Style) -> String {
    let name = style.paint(&plain(&story.name), BOLD);
    format!("□ retracted: {name}: not confirmed in event-time order  {}", story.trace_id)
}

/// Whether a line of JSON is a lifecycle, which is tracked without a rule.
pub(super) fn is_lifecycle(story: &serde_json::Value) -> bool {
    story.get("rule").and_then(|r| r.as_str()).is_some_and(|r| r.ends_with("-lifecycle"))
}

/// A duration to the millisecond: `0.012 s`.
fn seconds(ns: u64) -> String {
    format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

/// One line for a story that opens.
pub(crate) fn opening_line(story: &Story, style: &Style) -> String {
    format!(
        "▶ {} {} {} {}",
        style.time(story.first_ns),
        style.severity(story.severity),
        style.paint(&plain(&story.name), BOLD),
        style.paint(&format!("trace {}", story.trace_id), DIM)
    )
}

/// The whole story in several lines, the last one without a line feed.
pub(crate) fn story_text(story: &Story, style: &Style) -> String {
    let mut out = String::new();
    let events = match story.members_total {
        1 => "1 event".to_owned(),
        n => format!("{n} events"),
    };
    let title = format!(
        "■ {}  {}\n  {} · {events} in {} · since {} · confidence {:.0} %",
        style.severity(story.severity),
        style.paint(&plain(&story.name), BOLD),
        plain(&story.pattern),
        duration_text(story.duration_ns()),
        style.time(story.first_ns),
        story.confidence * 100.0
    );
    line(&mut out, &title);
    if !story.intent.is_empty() {
        line(&mut out, &format!("  {}", plain(&story.intent)));
    }
    heading(&mut out, "timeline", style);
    members(&mut out, story, style);
    if let Some((first, others)) = story.root_cause.split_first() {
        heading(&mut out, "root cause", style);
        root_cause(&mut out, story, first, others, style);
    }
    heading(&mut out, "impact", style);
    out.push_str(&impact_text(&story.impact));
    if !story.actions.is_empty() {
        heading(&mut out, "recommended actions", style);
        for (number, action) in (1..).zip(&story.actions) {
            line(&mut out, &format!("    {number}. {}", plain(action)));
        }
    }
    if !story.rule.is_empty() {
        line(&mut out, &format!("  {}   {}", style.paint("rule", BOLD), plain(&story.rule)));
    }
    let _ = write!(out, "  {}  {}", style.paint("trace", BOLD), story.trace_id);
    if let Some(before) = story.continues {
        let _ = write!(out, ", continues {before}");
    }
    if let Some(incident) = &story.incident {
        let role = incident.role.as_str();
        let because = plain(&incident.because);
        let _ = write!(out, ", {role} in the incident of {}: {because}", incident.id);
    }
    if let Some(first) = story.provisional {
        let _ = write!(out, ", first emitted as {first}");
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn heading(out: &mut String, text: &str, style: &Style) {
    line(out, &format!("  {}", style.paint(text, BOLD)));
}

/// The timeline: all members of a short story, the first and the last ones of a long one.
fn members(out: &mut String, story: &Story, style: &Style) {
    let all = &story.members;
    let total = usize::try_from(story.members_total).unwrap_or(usize::MAX);
    let is_short = total <= FIRST_MEMBERS + LAST_MEMBERS + 1 && all.len() == total;
    let (first, last) = if is_short {
        (&all[..], &all[..0])
    } else {
        let first = all.len().min(FIRST_MEMBERS);
        let last = (all.len() - first).min(LAST_MEMBERS);
        (&all[..first], &all[all.len() - last..])
    };
    let printed = || first.iter().chain(last);
    let source_width = widest(printed().map(|m| m.source.as_str()));
    let kind_width = widest(printed().map(|m| m.kind.as_str()));
    let mut lines: Vec<String> = printed()
        .map(|m| {
            let after = seconds(m.time_ns.saturating_sub(story.first_ns));
            let role = match (m.role.as_str(), m.pattern.as_str()) {
                ("", _) => String::new(),
                (role, "") => format!("  [{role}]"),
                (role, pattern) => format!("  [{role}: {pattern}]"),
            };
            format!(
                "    {:>11}  {:source_width$}  {:kind_width$}  {}{}",
                format!("+{after}"),
                plain(&m.source),
                plain(&m.kind),
                plain(&m.summary),
                style.paint(&plain(&role), DIM)
            )
        })
        .collect();
    let omitted = total.saturating_sub(lines.len());
    if omitted > 0 {
        lines.insert(first.len(), format!("    {:>11}  … {omitted} more …", ""));
    }
    lines.iter().for_each(|l| line(out, l));
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|t| t.chars().count()).max().unwrap_or(0)
}

fn root_cause(
    out: &mut String,
    story: &Story,
    first: &Candidate,
    others: &[Candidate],
    style: &Style,
) {
    let cause = plain(&first.cause);
    line(out, &format!("    {}", style.paint(&cause, YELLOW)));
    for (place, id) in first.evidence.iter().enumerate() {
        let label = first.labels.get(place).filter(|l| !l.is_empty());
        let id_text = label.map_or_else(|| id.to_string(), |l| plain(l));
        let member = story.members.iter().find(|m| m.id == *id);
        let summary = member.map_or_else(String::new, |m| format!(": {}", plain(&m.summary)));
        let text = format!("    evidence {id_text}{summary}");
        line(out, &style.paint(&text, DIM));
    }
    if !others.is_empty() {
        let named: Vec<String> = others.iter().take(RUNNERS_UP).map(|c| plain(&c.cause)).collect();
        line(out, &format!("    other candidates: {}", named.join("; ")));
    }
}

/// The impact, in lines with an indent.
pub(super) fn impact_text(impact: &Impact) -> String {
    let mut out = String::new();
    let customers = if impact.customer_facing { "customer-facing" } else { "not customer-facing" };
    let slo = if impact.slo_impact {
        "service level objectives at risk"
    } else {
        "no service level objective at risk"
    };
    line(&mut out, &format!("    business {:.0} %, {customers}, {slo}", impact.business * 100.0));
    for (label, list) in [("affected", &impact.affected), ("evidence", &impact.evidence)] {
        if !list.is_empty() {
            line(&mut out, &format!("    {label}: {}", plain(&list.join(", "))));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{EventId, Member, Severity, TraceId};

    fn story(n: u64) -> Story {
        let members = (0..n).map(|i| Member {
            id: EventId([i as u8; 16]),
            label: String::new(),
            time_ns: 1_700_000_000_000_000_000 + i * 12_000_000,
            kind: "kernel.process.exit".into(),
            source: "ebpf".into(),
            severity: Severity::ERROR,
            role: "cause".into(),
            pattern: String::new(),
            summary: format!("app{i} ended"),
        });
        let members: Vec<Member> = members.collect();
        Story {
            id: TraceId([7; 16]),
            trace_id: TraceId([7; 16]),
            rule: "crash".into(),
            pattern: "crash-loop".into(),
            name: "app \u{1b}[2J crashes".into(),
            intent: "something".into(),
            state: StoryState::Closed,
            revision: 1,
            key: Vec::new(),
            members_total: n,
            first_ns: members[0].time_ns,
            last_ns: members[members.len() - 1].time_ns,
            members,
            severity: Severity::ERROR,
            root_cause: vec![Candidate {
                entity: None,
                cause: "a bug".into(),
                evidence: vec![EventId([0; 16])],
                labels: vec![String::new()],
                score: 1.0,
                terms: Vec::new(),
            }],
            impact: Impact::default(),
            actions: vec!["fix it".into(), "test it".into()],
            confidence: 0.9,
            continues: None,
            provisional: None,
            incident: None,
        }
    }

    #[test]
    fn short_story_is_printed_whole() {
        let text = story_text(&story(3), &Style::bare());
        for expected in [
            "■ ERROR  app ·[2J crashes\n",
            "crash-loop · 3 events in 24 ms · since 2023-11-14 22:13:20.000Z · confidence 90 %",
            "+0.012 s  ebpf  kernel.process.exit  app1 ended  [cause]",
            "    a bug\n",
            "evidence 00000000000000000000000000000000: app0 ended",
            "    1. fix it\n    2. test it\n",
            "  trace  07070707070707070707070707070707",
        ] {
            assert!(text.contains(expected), "{expected:?} isn't in\n{text}");
        }
        assert!(!text.contains("more …"), "{text}");
        assert!(!text.contains('\u{1b}'), "no escape reaches a terminal");
    }

    #[test]
    fn middle_of_a_long_story_is_counted() {
        let mut long = story(40);
        long.members_total = 47;
        let text = story_text(&long, &Style::bare());
        assert!(text.contains("… 37 more …"), "{text}");
        assert!(text.contains("app7 ended") && !text.contains("app8 ended"));
        assert!(text.contains("app39 ended"));
    }

    #[test]
    fn colours_are_used_only_on_request() {
        let mut colours = Style::bare();
        colours.colour = true;
        assert!(story_text(&story(1), &colours).contains("\u{1b}[1;31mERROR\u{1b}[0m"));
        let line = opening_line(&story(1), &Style::bare());
        assert!(line.starts_with("▶ 2023-11-14 22:13:20.000Z ERROR app"), "{line}");
    }
}
