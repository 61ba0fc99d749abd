//! The query string of a list: filters, the size of a page and its token. Each name at most once;
//! an unknown one is refused.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::super::query::{MAX_LIMIT, PageRequest};
use super::super::storage::{InvalidParameter, StateFilter};
use super::problem::Problem;
use tapio_core::clock;
use tapio_core::event::{Severity, TraceId};

/// The parameters, in the order in which an error lists them.
pub(super) const PARAMETERS: &[&str] = &[
    "limit",
    "page_token",
    "since",
    "until",
    "severity",
    "state",
    "pattern",
    "trace_id",
    "node",
    "kind",
    "entity",
    "text",
    "id_prefix",
    "lifecycles",
];

/// The page that a request asks for.
pub(super) struct ListQuery(pub(super) PageRequest);

impl<S: Sync> FromRequestParts<S> for ListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(page_request(&pairs(parts)?, clock::wall_ns())?))
    }
}

/// The names and values of a query string.
pub(super) fn pairs(parts: &Parts) -> Result<Vec<(String, String)>, Problem> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    pairs.map(|Query(pairs)| pairs).map_err(|e| Problem::parameter("query", e.body_text()))
}

/// Parses the parameters of a list. `now_ns` is the wall clock, for durations.
pub(crate) fn page_request(
    pairs: &[(String, String)],
    now_ns: u64,
) -> Result<PageRequest, InvalidParameter> {
    let mut request = PageRequest::default();
    for (at, (name, value)) in pairs.iter().enumerate() {
        let Some(name) = PARAMETERS.iter().find(|known| *known == name) else {
            let cause = format!("unknown parameter {name:?}; known: {}", PARAMETERS.join(", "));
            return Err(InvalidParameter { name: "query", cause });
        };
        let invalid = |cause: String| InvalidParameter { name, cause };
        let is_repeated = *name != "entity" && pairs[..at].iter().any(|(other, _)| other == name);
        if is_repeated {
            return Err(invalid("given twice".into()));
        }
        if value.is_empty() {
            return Err(invalid("is empty".into()));
        }
        set(&mut request, name, value, now_ns).map_err(invalid)?;
    }
    Ok(request)
}

fn set(request: &mut PageRequest, name: &str, value: &str, now_ns: u64) -> Result<(), String> {
    let PageRequest { filter, limit, page_token } = request;
    match name {
        "limit" => *limit = parse_limit(value)?,
        "page_token" => value.clone_into(page_token),
        "since" => filter.since_ns = parse_time(value, now_ns)?,
        // 0 is no limit.
        "until" => filter.until_ns = parse_time(value, now_ns)?.max(1),
        "severity" => filter.severity = parse_severity(value)?,
        "state" => filter.state = Some(parse_state(value)?),
        "pattern" => value.clone_into(&mut filter.pattern),
        "trace_id" => filter.trace_id = parse_id(value)?.0.to_vec(),
        "node" => value.clone_into(&mut filter.node),
        "kind" => value.clone_into(&mut filter.kind),
        "entity" => filter.entities.push(value.to_owned()),
        "text" => value.clone_into(&mut filter.text),
        "lifecycles" => filter.no_lifecycles = !parse_flag(value)?,
        _ => value.clone_into(&mut filter.id_prefix),
    }
    Ok(())
}

pub(super) fn parse_limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|n| (1..=MAX_LIMIT as u32).contains(n));
    limit.ok_or_else(|| format!("{text:?} isn't a number from 1 to {MAX_LIMIT}"))
}

/// Parses a time: RFC 3339, nanoseconds since the Unix epoch, or a duration before now.
pub(super) fn parse_time(text: &str, now_ns: u64) -> Result<u64, String> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    let parsed = match time {
        // Nothing is from before 1970, or from after 2554.
        Some(time) => Some(time.as_nanosecond().clamp(0, i128::from(u64::MAX)) as u64),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        None => tapio_core::durations::parse(text)
            .ok()
            .map(|ago: Duration| now_ns.saturating_sub(ago.as_nanos() as u64)),
    };
    parsed.ok_or_else(|| {
        format!(
            "{text:?} isn't an RFC 3339 time, nanoseconds since the Unix epoch, or a duration \
             before now, such as 15m"
        )
    })
}

fn parse_severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| {
        format!("{text:?} isn't a severity, such as \"warn\", or a number from 0 to 24")
    })
}

fn parse_flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

fn parse_state(text: &str) -> Result<StateFilter, String> {
    StateFilter::parse(text).ok_or_else(|| {
        let known = StateFilter::ALL.map(StateFilter::as_str).join(", ");
        format!("{text:?} isn't a state of a story: {known}")
    })
}

/// Parses the id of a trace or a story: 32 hexadecimal digits.
pub(super) fn parse_id(text: &str) -> Result<TraceId, String> {
    let id = text.parse().ok().filter(|_| text.len() == 32);
    id.ok_or_else(|| format!("{text:?} isn't an id of 32 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<PageRequest, String> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        page_request(&pairs, 100_000_000_000).map_err(|e| e.to_string())
    }

    #[test]
    fn parameters_become_a_page_request() {
        let request = parsed(&[
            ("limit", "7"),
            ("since", "1970-01-01T00:00:30Z"),
            ("until", "10s"),
            ("severity", "warn"),
            ("state", "open"),
            ("entity", "host.name=a"),
            ("entity", "k8s.pod.name=b"),
        ]);
        let PageRequest { filter, limit, .. } = request.unwrap();
        assert_eq!((limit, filter.severity), (7, Severity::WARN));
        assert_eq!((filter.since_ns, filter.until_ns), (30_000_000_000, 90_000_000_000));
        assert_eq!(filter.entities, ["host.name=a", "k8s.pod.name=b"]);
        assert_eq!(filter.state, Some(StateFilter::Open));
        let ns = parsed(&[("since", "1700000000000000000")]).unwrap();
        assert_eq!(ns.filter.since_ns, 1_700_000_000_000_000_000);
    }

    #[test]
    fn errors_name_the_parameter() {
        for (pairs, expected) in [
            (&[("limit", "0")][..], "limit: \"0\" isn't a number from 1 to 10000"),
            (&[("limit", "10001")], "limit: \"10001\" isn't a number from 1 to 10000"),
            (&[("since", "soon")], "since: \"soon\" isn't an RFC 3339 time"),
            (&[("node", "a"), ("node", "b")], "node: given twice"),
            (&[("node", "")], "node: is empty"),
            (&[("nodes", "a")], "query: unknown parameter \"nodes\"; known: limit, "),
            (&[("state", "ajar")], "state: \"ajar\" isn't a state of a story: open, "),
            (&[("trace_id", "12")], "trace_id: \"12\" isn't an id of 32 hexadecimal digits"),
        ] {
            let error = parsed(pairs).err().unwrap();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
