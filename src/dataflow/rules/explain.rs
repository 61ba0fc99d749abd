//! A rule as text (`tapio rules explain`): its shape, its state, its story.

use std::fmt::Write as _;

use super::field::FieldRef;
use super::rule::Rule;
use super::shape::{
    Aggregate, Comparison, Condition, DeviationCondition, Measure, PartCondition, Select, Sequence,
    Shape, Step,
};
use super::template::duration_text;

fn fields(by: &[FieldRef]) -> String {
    by.iter().map(|f| f.text()).collect::<Vec<_>>().join(", ")
}

/// "1 test", "2 tests".
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn comparison(of: Comparison) -> &'static str {
    match of {
        Comparison::Eq => "exactly",
        Comparison::Ne => "other than",
        Comparison::Gt => "more than",
        Comparison::Gte => "at least",
        Comparison::Lt => "less than",
        Comparison::Lte => "at most",
    }
}

fn bounds(bounds: &[(Comparison, f64)]) -> String {
    let each = bounds.iter().map(|(c, bound)| format!("{} {bound}", comparison(*c)));
    each.collect::<Vec<_>>().join(" and ")
}

/// A deviation of at least 0 is above the usual value, one of at most 0 below it.
fn deviation(of: &DeviationCondition) -> String {
    let each = of.bounds.iter().map(|(c, bound)| match c {
        Comparison::Gt | Comparison::Gte if *bound >= 0.0 => {
            format!("{} {bound} standard deviations above usual", comparison(*c))
        }
        Comparison::Lt if *bound <= 0.0 => {
            format!("more than {} standard deviations below usual", -bound)
        }
        Comparison::Lte if *bound <= 0.0 => {
            format!("at least {} standard deviations below usual", -bound)
        }
        _ => format!("{} {bound} standard deviations from usual", comparison(*c)),
    });
    format!(", {}", each.collect::<Vec<_>>().join(" and "))
}

fn part_condition(of: &PartCondition, parts: &[String]) -> String {
    let list = |of: &[PartCondition], word| {
        of.iter().map(|c| part_condition(c, parts)).collect::<Vec<_>>().join(word)
    };
    match of {
        PartCondition::Part(part) => parts.get(usize::from(*part)).cloned().unwrap_or_default(),
        PartCondition::Not(of) => format!("not {}", part_condition(of, parts)),
        PartCondition::All(of) => format!("({})", list(of, " and ")),
        PartCondition::Any(of) => format!("({})", list(of, " or ")),
    }
}

fn step_details(step: &Step, key_fields: usize) -> String {
    let mut text = String::new();
    if let Some(repeat) = step.repeat {
        let _ = write!(text, ", at least {} events", repeat.at_least);
        if let Some(within_ns) = repeat.within_ns {
            let _ = write!(text, " within {}", duration_text(within_ns));
        }
    }
    if step.by.len() > key_fields {
        let _ = write!(text, ", for each {}", fields(&step.by[key_fields..]));
    }
    if step.optional {
        text += ", optional";
    }
    if step.keep_first_ns > 0 {
        let _ = write!(text, ", the first one within {}", duration_text(step.keep_first_ns));
    }
    if step.keep {
        text += ", kept for further matches";
    }
    text
}

fn sequence(out: &mut String, rule: &Rule, s: &Sequence) {
    let name = |event: usize| rule.events[event].name.as_str();
    let joined = match &s.until_by[..] {
        [] => String::new(),
        by => format!(" with the same {}", fields(by)),
    };
    let _ = writeln!(out, "matches events{joined} within {}:", duration_text(s.within_ns));
    let mut number = 0;
    for gap in 0..=s.steps.len() {
        for not in s.nots.iter().filter(|n| n.gap == gap) {
            let _ = writeln!(out, "     no {}", name(not.event));
        }
        if let Some(step) = s.steps.get(gap) {
            number += 1;
            let details = step_details(step, s.key_fields);
            let _ = writeln!(out, "  {number}. {} [{}]{details}", name(step.event), step.role);
        }
    }
    if let Some(until) = s.until {
        let _ = writeln!(out, "  {} drops the partial matches of its key", name(until));
    }
    let _ = match s.select {
        Select::Latest => {
            writeln!(out, "  state: for each key the latest partial match at each step")
        }
        Select::First => writeln!(
            out,
            "  the first complete match consumes its events; state: at most {} partial matches \
             for each key",
            s.max_runs
        ),
        Select::Every => writeln!(
            out,
            "  every combination is a match; state: at most {} partial matches for each key",
            s.max_runs
        ),
    };
}

fn measure(of: Measure) -> String {
    match of {
        Measure::Count => "events".to_owned(),
        Measure::Distinct(f) => format!("different values of {}", f.text()),
        Measure::Sum(f) => format!("as the sum of {}", f.text()),
        Measure::Avg(f) => format!("as the mean of {}", f.text()),
        Measure::Percentile(f, p) => format!("as the {p}th percentile of {}", f.text()),
        Measure::AnyOrder => "of the events, in any order".to_owned(),
        Measure::InOrder => "of the events, in this order".to_owned(),
    }
}

/// An aggregate as text: its condition and its events.
fn aggregate(rule: &Rule, a: &Aggregate) -> String {
    let mut parts = vec![String::new(); usize::from(a.parts)];
    for counted in &a.events {
        let Some(part) = parts.get_mut(usize::from(counted.part)) else { continue };
        let inner = counted.through.and_then(|(inner, _)| a.inner.get(usize::from(inner)));
        *part = inner.map_or_else(
            || rule.events[counted.event].name.clone(),
            |inner| format!("[{}]", aggregate(rule, inner)),
        );
    }
    let by = a.events.first().map_or(&[][..], |e| &e.by);
    let joined = if by.is_empty() { String::new() } else { format!(", for each {}", fields(by)) };
    let within = duration_text(a.within_ns);
    let names = parts.join(", ");
    match &a.condition {
        Condition::Bounds(of) => {
            let amount = match (of.is_empty(), a.measure) {
                (false, _) => bounds(of),
                (true, Measure::Count | Measure::Distinct(_)) => "any number of".to_owned(),
                (true, _) => "any value".to_owned(),
            };
            let usual = a.deviation.as_ref().map(deviation).unwrap_or_default();
            format!("{amount} {} within {within}{joined}{usual}: {names}", measure(a.measure))
        }
        Condition::Parts(of) => format!("{} within {within}{joined}", part_condition(of, &parts)),
    }
}

/// Describes a rule in text.
#[must_use]
pub fn explain(rule: &Rule) -> String {
    let mut out = format!("{} ({}, {})\n", rule.name, rule.severity.as_str(), rule.origin);
    if !rule.description.is_empty() {
        let _ = writeln!(out, "{}", rule.description);
    }
    out.push('\n');
    match &rule.shape {
        Shape::Sequence(s) => sequence(&mut out, rule, s),
        Shape::Aggregate(a) => {
            let _ = writeln!(out, "matches: {}", aggregate(rule, a));
            if let Some(deviation) = &a.deviation {
                let _ = writeln!(
                    out,
                    "  usual is learned from {} windows of {} on, of the latest {}; for each key",
                    deviation.learn,
                    duration_text(a.within_ns),
                    DeviationCondition::WINDOWS
                );
            }
        }
    }
    out += "\nevents:\n";
    for event in &rule.events {
        let _ = writeln!(out, "  {}: {}", event.name, event.text);
    }
    let story = &rule.story;
    let _ = writeln!(out, "\nstory: pattern {}", story.pattern);
    if !story.intent.is_empty() {
        let _ = writeln!(out, "  intent: {}", story.intent);
    }
    let (idle, age) = (duration_text(story.idle_ns), duration_text(story.max_age_ns));
    let _ = writeln!(out, "  closes after {idle} without a new member, or {age} after it opened");
    let _ = writeln!(
        out,
        "  {}, {}",
        count(story.root_cause.len(), "root cause template"),
        count(story.actions.len(), "action")
    );
    let _ = writeln!(out, "  {}", count(rule.tests.len(), "test"));
    out
}
