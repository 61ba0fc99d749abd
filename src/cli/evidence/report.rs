//! The report of a calibration.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::label::{Knowledge, Unusable};
use crate::cli::output::{Cell, Column, Printer, Table};
use tapio_dataflow::evidence::{Calibration, Ranked, TERMS, Weights};

/// Stories of a known cause below which the fitted weights aren't recommended: there are eight
/// weights.
const MIN_STORIES: usize = 20;
/// The least part of these whose first cause is right. Weights that are fitted to mistakes alone
/// avoid these and make others.
const MIN_RIGHT_PERCENT: usize = 25;

const COLUMNS: &[Column] = &[
    Column { title: "TERM", width: 9, rank: 0 },
    Column { title: "IN USE", width: 6, rank: 0 },
    Column { title: "FITTED", width: 6, rank: 0 },
    Column { title: "STORIES", width: 0, rank: 0 },
];

/// Marked stories, and the weights that were fitted to them.
pub(super) struct Report {
    in_use: Weights,
    right: usize,
    named: usize,
    unnamed: usize,
    left_out: BTreeMap<Unusable, usize>,
    result: Option<Calibration>,
}

/// Weights as a configuration has them: two decimals are more than the fit knows.
fn rounded(weight: f64) -> f64 {
    (weight * 100.0).round() / 100.0
}

fn key(term: &str) -> String {
    term.replace(' ', "_")
}

fn number(count: usize, noun: &str) -> String {
    format!("{count} {noun}")
}

impl Report {
    pub(super) fn new(in_use: Weights) -> Self {
        let left_out = BTreeMap::new();
        Self { in_use, right: 0, named: 0, unnamed: 0, left_out, result: None }
    }

    /// Counts a labelled story.
    pub(super) fn count(&mut self, knowledge: Knowledge) {
        match knowledge {
            Knowledge::Right => self.right += 1,
            Knowledge::Named => self.named += 1,
            Knowledge::Unnamed => self.unnamed += 1,
        }
    }

    /// Counts a marked story that has no label.
    pub(super) fn leave_out(&mut self, cause: Unusable) {
        *self.left_out.entry(cause).or_default() += 1;
    }

    pub(super) fn set(&mut self, result: Calibration) {
        self.result = Some(result);
    }

    fn labelled(&self) -> usize {
        self.right + self.named + self.unnamed
    }

    /// Stories whose cause is known.
    fn known(&self) -> usize {
        self.right + self.named
    }

    /// Why there are too few labels; `None` if there are enough.
    fn lack(&self) -> Option<String> {
        if self.known() < MIN_STORIES {
            return Some(format!(
                "too few: with less than {MIN_STORIES} stories of a known cause the difference may \
                 be chance; keep the weights in use"
            ));
        }
        (100 * self.right < MIN_RIGHT_PERCENT * self.known()).then(|| {
            format!(
                "too few right causes: with less than {MIN_RIGHT_PERCENT} % of them the weights are \
                 fitted to mistakes alone; mark right causes as well, and keep the weights in use"
            )
        })
    }

    /// Whether the fitted weights rank stories better that they weren't fitted to.
    fn is_better(&self) -> bool {
        let total = |ranked: &Ranked| ranked.causes_first + ranked.wrong_not_first;
        self.result.as_ref().is_some_and(|result| total(&result.validated) > total(&result.before))
    }

    pub(super) fn print(&self, mut printer: Printer) -> anyhow::Result<()> {
        if printer.format.is_data() {
            return Ok(printer.single(&self.json())?);
        }
        for line in self.counts() {
            printer.line(&line)?;
        }
        if let Some(result) = self.result.as_ref().filter(|_| self.labelled() > 0) {
            self.print_result(result, &mut printer)?;
        }
        Ok(printer.finish()?)
    }

    fn print_result(&self, result: &Calibration, printer: &mut Printer) -> anyhow::Result<()> {
        let mut table = Table::new(COLUMNS);
        let weights = self.in_use.values().into_iter().zip(result.fitted.values());
        for ((term, (in_use, fitted)), stories) in
            TERMS.iter().zip(weights).zip(result.stories_of_term)
        {
            table.row(vec![
                Cell::from(*term),
                format!("{in_use:.2}").into(),
                format!("{fitted:.2}").into(),
                stories.to_string().into(),
            ]);
        }
        printer.line("")?;
        printer.table(&mut table)?;
        printer.line("")?;
        for line in self.gains(result).into_iter().chain(self.verdict(result)) {
            printer.line(&line)?;
        }
        Ok(())
    }

    /// The numbers of labels.
    fn counts(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: {} right, {} wrong with the real cause among the candidates, {} wrong without",
            number(self.labelled(), "labelled stories"),
            self.right,
            self.named,
            self.unnamed
        )];
        let left_out = self.left_out.iter();
        lines.extend(left_out.map(|(cause, n)| format!("not used: {n} {}", cause.text())));
        if self.labelled() == 0 {
            lines.push(
                "nothing to fit: mark stories with `tapio annotate STORY --right-cause` or \
                 `--wrong-cause CAUSE`"
                    .into(),
            );
        }
        lines
    }

    /// The numbers of stories that are ranked as the labels have it.
    fn gains(&self, result: &Calibration) -> Vec<String> {
        let Calibration { before, validated, on_training, .. } = result;
        let line = |what: &str, of: usize, count: fn(&Ranked) -> usize| {
            (of > 0).then(|| {
                format!(
                    "{what}, of {of} stories: {} by the weights in use, {} by weights fitted to \
                     the other stories ({} by weights fitted to these)",
                    count(before),
                    count(validated),
                    count(on_training)
                )
            })
        };
        let lines = [
            line("real cause first", result.with_cause, |ranked| ranked.causes_first),
            line("wrong cause not first", result.with_wrong, |ranked| ranked.wrong_not_first),
        ];
        lines.into_iter().flatten().collect()
    }

    fn verdict(&self, result: &Calibration) -> Vec<String> {
        if let Some(lack) = self.lack() {
            return vec![lack];
        }
        if !self.is_better() {
            let cause = "the fitted weights don't rank other stories better; keep those in use";
            return vec![cause.into()];
        }
        let weights = TERMS.iter().zip(result.fitted.values());
        let weights =
            weights.map(|(term, weight)| format!("    {}: {}", key(term), rounded(weight)));
        let head = "the fitted weights rank other stories better; for the agents' configuration:";
        [head, "evidence:", "  weights:"].map(str::to_owned).into_iter().chain(weights).collect()
    }

    fn json(&self) -> Json {
        let left_out = Unusable::ALL.iter().map(|cause| {
            (cause.name().to_owned(), self.left_out.get(cause).copied().unwrap_or(0).into())
        });
        let mut json = json!({
            "labelled": {"right": self.right, "wrong_named": self.named, "wrong_unnamed": self.unnamed},
            "not_used": left_out.collect::<Map<String, Json>>(),
            "is_enough": self.lack().is_none(),
            "is_better": self.is_better(),
        });
        let Some(result) = &self.result else { return json };
        let weights = self.in_use.values().into_iter().zip(result.fitted.values());
        let terms = TERMS.iter().zip(weights).zip(result.stories_of_term);
        json["terms"] = terms
            .map(|((term, (in_use, fitted)), stories)| {
                json!({"term": term, "in_use": in_use, "fitted": rounded(fitted), "stories": stories})
            })
            .collect();
        let Calibration { before, validated, on_training, with_cause, with_wrong, .. } = result;
        let ranked = |of: usize, count: fn(&Ranked) -> usize| {
            json!({
                "of": of, "in_use": count(before), "validated": count(validated),
                "fitted_to_these": count(on_training),
            })
        };
        json["causes_first"] = ranked(*with_cause, |ranked| ranked.causes_first);
        json["wrong_not_first"] = ranked(*with_wrong, |ranked| ranked.wrong_not_first);
        let weights = TERMS.iter().zip(result.fitted.values());
        let weights = weights.map(|(term, weight)| (key(term), rounded(weight).into()));
        json["evidence"] = json!({"weights": weights.collect::<Map<String, Json>>()});
        json
    }
}
