//! The terms of a candidate's score.

use tapio_core::event::{Candidate, Term};

/// The terms of a candidate, those that count most first.
pub(super) fn terms_by_weight(candidate: &Candidate) -> Vec<&Term> {
    let mut terms: Vec<&Term> = candidate.terms.iter().collect();
    terms.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    terms
}
