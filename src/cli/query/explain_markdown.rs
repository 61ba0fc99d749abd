//! The explanation of a story in Markdown, for a ticket or a chat.

use super::annotated::Annotated;
use super::terms::terms_by_weight;
use super::view::{head_in_markdown, members};
use crate::cli::output::{Column, Printer, Table};
use tapio_core::event::{Candidate, Link, StoryPart};

const NODES: &[Column] = &[
    Column { title: "NODE", width: 0, rank: 0 },
    Column { title: "SEVERITY", width: 0, rank: 0 },
    Column { title: "STATE", width: 0, rank: 0 },
    Column { title: "EVENTS", width: 0, rank: 0 },
    Column { title: "SINCE", width: 0, rank: 0 },
    Column { title: "STORY", width: 0, rank: 0 },
];
const LINKED: &[Column] = &[
    Column { title: "NAME", width: 0, rank: 0 },
    Column { title: "SHARED EVENTS", width: 0, rank: 0 },
    Column { title: "STORY", width: 0, rank: 0 },
];
const CANDIDATES: &[Column] = &[
    Column { title: "RANK", width: 0, rank: 0 },
    Column { title: "CANDIDATE", width: 0, rank: 0 },
    Column { title: "SCORE", width: 0, rank: 0 },
    Column { title: "WEIGHT", width: 0, rank: 0 },
    Column { title: "TERM", width: 0, rank: 0 },
    Column { title: "BECAUSE", width: 0, rank: 0 },
];

/// Prints the story, its parts, its linked stories, and all candidates with every term.
///
/// # Errors
/// When standard output is closed.
pub(super) fn print_explanation(printer: &mut Printer, found: &Annotated) -> anyhow::Result<()> {
    let linked = &found.linked;
    let head = head_in_markdown(found, &printer.style);
    printer.line(&head)?;
    printer.line("### Events\n")?;
    members(printer, &linked.story)?;
    if linked.parts.len() > 1 {
        section(printer, "Nodes", nodes(&linked.parts, printer))?;
    }
    if !linked.links.is_empty() {
        section(printer, "Linked stories", links(&linked.links))?;
    }
    match &*linked.story.root_cause {
        [] => printer.line("\n### Candidates\n\nNone: no member reports a fault.")?,
        causes => section(printer, "Candidates", candidates(causes))?,
    }
    Ok(())
}

fn section(printer: &mut Printer, title: &str, mut table: Table) -> anyhow::Result<()> {
    printer.line(&format!("\n### {title}\n"))?;
    Ok(printer.table(&mut table)?)
}

fn nodes(parts: &[StoryPart], printer: &Printer) -> Table {
    let mut table = Table::new(NODES);
    for part in parts {
        table.row(vec![
            (&part.node).into(),
            part.severity.as_str().into(),
            part.state.as_str().into(),
            part.members_total.to_string().into(),
            printer.style.time(part.first_ns).into(),
            part.id.to_string().into(),
        ]);
    }
    table
}

fn links(links: &[Link]) -> Table {
    let mut table = Table::new(LINKED);
    for link in links {
        let shared = link.shared.to_string();
        table.row(vec![(&link.name).into(), shared.into(), link.id.to_string().into()]);
    }
    table
}

/// A row for each term, those of a candidate by weight; the first one has the candidate.
fn candidates(candidates: &[Candidate]) -> Table {
    let mut table = Table::new(CANDIDATES);
    for (rank, candidate) in (1..).zip(candidates) {
        let mut of_candidate =
            [format!("{rank}"), candidate.cause.clone(), format!("{:+.2}", candidate.score)];
        let terms = terms_by_weight(candidate);
        if terms.is_empty() {
            let cells = of_candidate.iter().map(Into::into);
            table.row(cells.chain(["", "", ""].map(Into::into)).collect());
        }
        for term in terms {
            let [rank, cause, score] = std::mem::take(&mut of_candidate);
            table.row(vec![
                rank.into(),
                cause.into(),
                score.into(),
                format!("{:+.2}", term.weight).into(),
                (&term.name).into(),
                (&term.because).into(),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, Style};
    use tapio_core::event::Term;

    #[test]
    fn candidates_have_a_row_for_each_term() {
        let term = |name: &str, weight| Term {
            name: name.into(),
            weight,
            value: 0.0,
            because: "a|b\n*c*".into(),
        };
        let candidate = |cause: &str, terms| Candidate {
            cause: cause.into(),
            entity: None,
            evidence: Vec::new(),
            labels: Vec::new(),
            score: 2.0,
            terms,
        };
        let terms = vec![term("onset", -0.25), term("severity", 2.25)];
        let all = [candidate("x`y", terms), candidate("z", Vec::new())];
        let text = candidates(&all).render(Format::Markdown, &Style::bare());
        let expected = "| rank | candidate | score | weight | term | because |\n\
            | --- | --- | --- | --- | --- | --- |\n\
            | 1 | x\\`y | +2.00 | +2.25 | severity | a\\|b·\\*c\\* |\n\
            |  |  |  | -0.25 | onset | a\\|b·\\*c\\* |\n\
            | 2 | z | +2.00 |  |  |  |\n";
        assert_eq!(text, expected);
    }
}
