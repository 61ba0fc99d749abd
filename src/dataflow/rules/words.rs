//! A rule in words (`tapio rules explain`): what it looks for, what it remembers, what it tells.

use std::fmt::Write as _;

use super::FieldRef;
use super::rule::{Aggregate, Comparison, Condition, Measure, Rule, Select, Sequence, Shape, Step};
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

fn condition(condition: &Condition) -> String {
    let each = condition.0.iter().map(|(c, bound)| format!("{} {bound}", comparison(*c)));
    each.collect::<Vec<_>>().join(" and ")
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

fn aggregate(out: &mut String, rule: &Rule, a: &Aggregate) {
    let names: Vec<&str> = a.events.iter().map(|e| rule.events[e.event].name.as_str()).collect();
    let what = match a.measure {
        Measure::Count => "events".to_owned(),
        Measure::Distinct(f) => format!("different {}", f.text()),
        Measure::Sum(f) => format!("in sum of {}", f.text()),
        Measure::Avg(f) => format!("as the mean of {}", f.text()),
        Measure::Percentile(f, p) => format!("as the {p}th percentile of {}", f.text()),
        Measure::AnyOrder => "of the events, in any order".to_owned(),
        Measure::InOrder => "of the events, one after the other".to_owned(),
    };
    let by = rule.join_fields();
    let joined = if by.is_empty() { String::new() } else { format!(", for each {}", fields(by)) };
    let _ = writeln!(
        out,
        "looks for {} {what} within {}{joined}: {}",
        condition(&a.condition),
        duration_text(a.within_ns),
        names.join(", ")
    );
}

/// The rule in words.
#[must_use]
pub fn explain(rule: &Rule) -> String {
    let mut out = format!("{} ({}, {})\n", rule.name, rule.severity.word(), rule.origin);
    if !rule.description.is_empty() {
        let _ = writeln!(out, "{}", rule.description);
    }
    out.push('\n');
    match &rule.shape {
        Shape::Sequence(s) => sequence(&mut out, rule, s),
        Shape::Aggregate(a) => aggregate(&mut out, rule, a),
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
