//! A rule in words (`tapio rules explain`): what it looks for, what it remembers, what it tells.

use std::fmt::Write as _;

use super::FieldRef;
use super::rule::{
    Aggregate, Comparison, Condition, Measure, Rule, Seen, Select, Sequence, Shape, Step,
};
use super::template::duration_text;

fn fields(by: &[FieldRef]) -> String {
    by.iter().map(|f| f.text()).collect::<Vec<_>>().join(", ")
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

fn seen(of: &Seen, parts: &[String]) -> String {
    let list = |of: &[Seen], word| of.iter().map(|s| seen(s, parts)).collect::<Vec<_>>().join(word);
    match of {
        Seen::Part(part) => parts.get(usize::from(*part)).cloned().unwrap_or_default(),
        Seen::Not(of) => format!("no {}", seen(of, parts)),
        Seen::All(of) => format!("({})", list(of, " and ")),
        Seen::Any(of) => format!("({})", list(of, " or ")),
    }
}

fn step_words(step: &Step, key_fields: usize) -> String {
    let mut words = String::new();
    if let Some(repeat) = step.repeat {
        let _ = write!(words, ", {} times", repeat.at_least);
        if let Some(within_ns) = repeat.within_ns {
            let _ = write!(words, " within {}", duration_text(within_ns));
        }
    }
    if step.by.len() > key_fields {
        let _ = write!(words, ", for each {}", fields(&step.by[key_fields..]));
    }
    if step.optional {
        words += ", where there is one";
    }
    if step.keep {
        words += "; stays for further matches";
    }
    words
}

fn sequence(out: &mut String, rule: &Rule, s: &Sequence) {
    let name = |event: usize| rule.events[event].name.as_str();
    let joined = match &s.until_by[..] {
        [] => "anywhere".to_owned(),
        by => format!("with the same {}", fields(by)),
    };
    let _ = writeln!(out, "looks for, {joined}, within {}:", duration_text(s.within_ns));
    let mut number = 0;
    for gap in 0..=s.steps.len() {
        for not in s.nots.iter().filter(|n| n.gap == gap) {
            let _ = writeln!(out, "     no {}", name(not.event));
        }
        if let Some(step) = s.steps.get(gap) {
            number += 1;
            let how = step_words(step, s.key_fields);
            let _ = writeln!(out, "  {number}. {} [{}]{how}", name(step.event), step.role);
        }
    }
    if let Some(until) = s.until {
        let _ = writeln!(out, "  begins anew after {}", name(until));
    }
    let _ = match s.select {
        Select::Latest => writeln!(out, "  remembers, for each key, the latest run at each step"),
        Select::First => writeln!(
            out,
            "  the first match wins and uses its events up; remembers up to {} runs for each key",
            s.max_runs
        ),
        Select::Every => writeln!(
            out,
            "  every combination is a match; remembers up to {} runs for each key",
            s.max_runs
        ),
    };
}

fn measured(measure: Measure) -> String {
    match measure {
        Measure::Count => "events".to_owned(),
        Measure::Distinct(f) => format!("different {}", f.text()),
        Measure::Sum(f) => format!("in sum of {}", f.text()),
        Measure::Avg(f) => format!("as the mean of {}", f.text()),
        Measure::Percentile(f, p) => format!("as the {p}th percentile of {}", f.text()),
        Measure::AnyOrder => "of the events, in any order".to_owned(),
        Measure::InOrder => "of the events, one after the other".to_owned(),
    }
}

/// A measure in words: what it takes in, and when it fires.
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
            format!("{} {} within {within}{joined}: {names}", bounds(of), measured(a.measure))
        }
        Condition::Seen(of) => format!("{} within {within}{joined}", seen(of, &parts)),
    }
}

/// The rule in words.
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
            let _ = writeln!(out, "looks for {}", aggregate(rule, a));
        }
    }
    out += "\nits events:\n";
    for event in &rule.events {
        let _ = writeln!(out, "  {}: {}", event.name, event.text);
    }
    let telling = &rule.telling;
    let _ = writeln!(out, "\ntells a story of the pattern {}", telling.pattern);
    if !telling.intent.is_empty() {
        let _ = writeln!(out, "  about: {}", telling.intent);
    }
    let (idle, age) = (duration_text(telling.idle_ns), duration_text(telling.max_age_ns));
    let _ = writeln!(out, "  closes when nothing came for {idle}, or after {age}");
    let _ = writeln!(
        out,
        "  {} causes it can name, {} actions",
        telling.root_cause.len(),
        telling.actions.len()
    );
    let _ = writeln!(out, "  {} tests of its own", rule.tests.len());
    out
}
