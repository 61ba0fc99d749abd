//! The label that an operator's mark gives a story.

use tapio_core::event::{Candidate, Story};
use tapio_dataflow::evidence::{Evidence, Label, LabelledStory, TERMS, Weights};

/// An operator's mark of a story's first cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Whether the first cause is the real one.
    pub(super) is_right: bool,
    /// The real cause of one that is wrong; empty if it isn't known.
    pub(super) real_cause: String,
    /// The first cause when it was marked; empty where that isn't recorded.
    pub(super) first_cause: String,
}

/// The part of a mark that is known of the story's candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// The first cause is right.
    Right,
    /// The first cause is wrong, and another candidate is the real one.
    Named,
    /// The first cause is wrong, and the real one isn't a candidate, or isn't known.
    Unnamed,
}

/// Why a mark gives no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unusable {
    /// The story isn't stored any more.
    NotStored,
    /// There is no other candidate to compare with.
    OneCandidate,
    /// The cause that was marked isn't a candidate any more.
    CauseGone,
    /// Other terms than those with a weight: a story of services.
    OtherTerms,
}

impl Unusable {
    pub(super) const ALL: [Self; 4] =
        [Self::NotStored, Self::OneCandidate, Self::CauseGone, Self::OtherTerms];

    /// The name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotStored => "not_stored",
            Self::OneCandidate => "one_candidate",
            Self::CauseGone => "cause_gone",
            Self::OtherTerms => "other_terms",
        }
    }

    /// The reason in a sentence about stories.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NotStored => "not stored any more",
            Self::OneCandidate => "without a second candidate",
            Self::CauseGone => "whose marked cause isn't a candidate any more",
            Self::OtherTerms => "of services, whose causes have other terms",
        }
    }
}

/// Reads the label of a story.
///
/// # Errors
/// Why it has none.
pub(super) fn label(story: &Story, mark: &Mark) -> Result<(LabelledStory, Knowledge), Unusable> {
    let causes = &story.root_cause;
    let is_known = |name: &str| TERMS.contains(&name);
    if causes.iter().flat_map(|cause| &cause.terms).any(|term| !is_known(&term.name)) {
        return Err(Unusable::OtherTerms);
    }
    if causes.len() < 2 {
        return Err(Unusable::OneCandidate);
    }
    let is_marked = |cause: &Candidate| cause.cause == mark.first_cause;
    let first = match mark.first_cause.is_empty() {
        true => 0,
        false => causes.iter().position(is_marked).ok_or(Unusable::CauseGone)?,
    };
    let (label, knowledge) = match real_cause(causes, first, &mark.real_cause) {
        _ if mark.is_right => (Label::Cause(first), Knowledge::Right),
        Some(real) => (Label::Cause(real), Knowledge::Named),
        None => (Label::NotCause(first), Knowledge::Unnamed),
    };
    let candidates = causes.iter().map(evidence).collect();
    Ok((LabelledStory { candidates, label }, knowledge))
}

/// The only candidate but the first that a text names: by its cause, by its entity, or by a part of
/// its cause.
fn real_cause(causes: &[Candidate], first: usize, text: &str) -> Option<usize> {
    let text = text.trim().to_lowercase();
    if text.is_empty() {
        return None;
    }
    let only = |is_it: &dyn Fn(&Candidate) -> bool| {
        let mut found = causes.iter().enumerate().filter(|(at, one)| *at != first && is_it(one));
        let (at, _) = found.next()?;
        found.next().is_none().then_some(at)
    };
    let of_entity = |one: &Candidate| {
        one.entity.as_ref().is_some_and(|entity| {
            let name = entity.name.to_lowercase();
            name == text || format!("{} {name}", entity.kind) == text
        })
    };
    only(&|one| one.cause.to_lowercase() == text)
        .or_else(|| only(&of_entity))
        .or_else(|| only(&|one| one.cause.to_lowercase().contains(&text)))
}

/// The evidence of a candidate in the units of the terms. Stories that were ranked before it was
/// recorded were ranked by the default weights.
fn evidence(candidate: &Candidate) -> Evidence {
    let default = Weights::DEFAULT.values();
    std::array::from_fn(|at| {
        let term = candidate.terms.iter().find(|term| term.name == TERMS[at]);
        let value = term.map_or(0.0, |term| match term.value {
            0.0 => term.weight / default[at],
            value => value,
        });
        // A file may have any number.
        if value.is_finite() { value.clamp(-1e3, 1e3) } else { 0.0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{CauseEntity, Term};

    fn candidate(cause: &str, unit: &str, terms: &[(&str, f64, f64)]) -> Candidate {
        let terms = terms.iter().map(|(name, weight, value)| Term {
            name: (*name).into(),
            weight: *weight,
            value: *value,
            because: String::new(),
        });
        Candidate {
            cause: cause.into(),
            entity: Some(CauseEntity {
                kind: "unit".into(),
                name: unit.into(),
                ..CauseEntity::default()
            }),
            evidence: Vec::new(),
            labels: Vec::new(),
            score: 0.0,
            terms: terms.collect(),
        }
    }

    fn story() -> Story {
        let root_cause = vec![
            candidate("unit a.service failed", "a.service", &[("severity", 0.4, 2.0)]),
            candidate("unit b.service: the disk is full", "b.service", &[("lift", 1.5, 0.0)]),
            candidate("unit c.service is slow", "c.service", &[]),
        ];
        Story { root_cause, ..Story::default() }
    }

    fn wrong(real_cause: &str) -> Mark {
        Mark { real_cause: real_cause.into(), ..Mark::default() }
    }

    #[test]
    fn real_cause_is_found_by_what_people_write() {
        for (text, expected) in [
            ("unit b.service: the disk is full", Some(1)),
            ("THE DISK IS FULL", Some(1)),
            ("c.service", Some(2)),
            ("unit c.service", Some(2)),
            // Two candidates have it; the first one is wrong.
            ("service", None),
            ("a.service", None),
            ("somebody pulled the plug", None),
            (" ", None),
        ] {
            let (labelled, knowledge) = label(&story(), &wrong(text)).unwrap();
            let (label, known) = match expected {
                Some(at) => (Label::Cause(at), Knowledge::Named),
                None => (Label::NotCause(0), Knowledge::Unnamed),
            };
            assert_eq!((labelled.label, knowledge), (label, known), "{text:?}");
        }
    }

    #[test]
    fn evidence_is_the_contribution_without_the_weight() {
        let right = Mark { is_right: true, ..Mark::default() };
        let (labelled, knowledge) = label(&story(), &right).unwrap();
        assert_eq!((labelled.label, knowledge), (Label::Cause(0), Knowledge::Right));
        // Recorded, and of a story from before: by the default weight.
        assert_eq!((labelled.candidates[0][3], labelled.candidates[1][1]), (2.0, 3.0));
    }

    #[test]
    fn marked_cause_is_the_one_that_was_first_then() {
        let mark = Mark { first_cause: "unit c.service is slow".into(), ..wrong("a.service") };
        assert_eq!(label(&story(), &mark).unwrap().0.label, Label::Cause(0));
        let gone = Mark { first_cause: "something else".into(), ..Mark::default() };
        assert_eq!(label(&story(), &gone), Err(Unusable::CauseGone));
        let one = Story { root_cause: story().root_cause[..1].to_vec(), ..Story::default() };
        assert_eq!(label(&one, &wrong("")), Err(Unusable::OneCandidate));
        let mut services = story();
        services.root_cause[2] = candidate("cart", "cart", &[("own_time", 1.0, 1.0)]);
        assert_eq!(label(&services, &wrong("")), Err(Unusable::OtherTerms));
    }
}
