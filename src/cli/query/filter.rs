//! The filters of stories and events, which all commands that list or follow them have in common.

use jiff::Zoned;

use super::time;
use crate::cli::output::Usage;
use tapio_core::event::{Severity, TraceId};
use tapio_wire::proto;

/// Endings of unit names.
const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];
/// Items that are listed where no number is given.
const DEFAULT_LAST: usize = 100;

/// Parameters of the API, and the options that set them.
pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("node", "--node"),
    ("pattern", "--pattern"),
    ("severity", "--severity"),
    ("state", "--state"),
    ("trace_id", "--trace-id"),
    ("kind", "--kind"),
    ("entity", "--entity"),
    ("entities", "--entity"),
    ("text", "--grep"),
    ("since", "--since"),
    ("until", "--until"),
];

/// Selects stories and events; an item must match all of them.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Only of this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only about this systemd unit; without a type, .service
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Only about this pod
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pod: Option<String>,
    /// Only about this container
    #[arg(long, value_name = "NAME|ID")]
    container: Option<String>,
    /// Only stories of this pattern, and their events
    #[arg(long, value_name = "NAME")]
    pattern: Option<String>,
    /// At least this severity: a name such as `warn`, or a number from 0 to 24
    #[arg(
        short = 'p',
        long,
        value_name = "SEVERITY",
        value_parser = severity,
        allow_negative_numbers = true
    )]
    severity: Option<Severity>,
    /// Only stories in this state
    #[arg(long, value_name = "STATE", value_parser = ["open", "closed", "retracted"])]
    pub(crate) state: Option<String>,
    /// Only of this trace
    #[arg(long, value_name = "ID")]
    trace_id: Option<TraceId>,
    /// Only events of these kinds, and stories that have one; `*` matches any text, `?` one
    /// character
    #[arg(long, value_name = "GLOB")]
    pub(crate) kind: Option<String>,
    /// Only about this entity; repeated: about all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = entity)]
    entity: Vec<String>,
    /// Only with this text in the message, or in the story's name or members; in upper or lower
    /// case
    #[arg(long, value_name = "TEXT", alias = "text")]
    grep: Option<String>,
}

/// Selects a part of a list.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct RangeArgs {
    /// From this time on: a duration before now (`15m`), RFC 3339, `2026-11-30 10:00`, `10:00`,
    /// `today`, `yesterday`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "follow")]
    until: Option<String>,
    /// The last N, or `all`; by default 100
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_parser = last,
        allow_negative_numbers = true
    )]
    last: Option<Last>,
    /// Go on with what is stored from then on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Newest first
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) reverse: bool,
}

/// How many items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last(pub(super) Option<usize>);

fn last(text: &str) -> Result<Last, String> {
    match text {
        "all" => Ok(Last(None)),
        number => match number.parse() {
            Ok(number) => Ok(Last(Some(number))),
            Err(_) => Err("expected a number, or all".into()),
        },
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| {
        "expected trace, debug, info, warn, error, critical, fatal, or a number from 0 to 24".into()
    })
}

fn entity(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE, neither of them empty, such as k8s.pod.name=web-1".into()),
    }
}

/// The full name of a unit.
fn unit_name(unit: &str) -> String {
    let is_full = unit.rsplit_once('.').is_some_and(|(_, kind)| UNIT_TYPES.contains(&kind));
    if is_full { unit.to_owned() } else { format!("{unit}.service") }
}

/// Filters as requests have them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filters {
    pub(super) node: String,
    pub(super) pattern: String,
    pub(super) severity: u32,
    pub(super) state: String,
    pub(super) trace_id: Vec<u8>,
    pub(super) kind: String,
    pub(super) entities: Vec<String>,
    pub(super) text: String,
}

impl FilterArgs {
    /// Whether no filter is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.filters().is_ok_and(|filters| filters == Filters::default())
    }

    /// The filters as requests have them.
    ///
    /// # Errors
    /// When a filter is set without a value: a server takes that for any.
    pub(super) fn filters(&self) -> Result<Filters, Usage> {
        let text = |name: &str, option: &Option<String>| match option.as_deref().map(str::trim) {
            Some("") => Err(Usage(format!("{name} is empty"))),
            _ => Ok(option.clone().unwrap_or_default()),
        };
        let mut entities = self.entity.clone();
        if !text("--unit", &self.unit)?.is_empty() {
            entities
                .extend(self.unit.iter().map(|unit| format!("systemd.unit={}", unit_name(unit))));
        }
        let pod = text("--pod", &self.pod)?;
        let (namespace, name) =
            pod.split_once('/').map_or(("", &*pod), |(space, name)| (space, name));
        if pod.contains('/') && (namespace.is_empty() || name.is_empty() || name.contains('/')) {
            return Err(Usage(format!("--pod: {pod:?} isn't NAMESPACE/NAME")));
        }
        let container = text("--container", &self.container)?;
        for (key, value) in
            [("k8s.namespace.name", namespace), ("k8s.pod.name", name), ("container", &container)]
        {
            if !value.is_empty() {
                entities.push(format!("{key}={value}"));
            }
        }
        Ok(Filters {
            node: text("--node", &self.node)?,
            pattern: text("--pattern", &self.pattern)?,
            severity: self.severity.map_or(0, |severity| u32::from(severity.0)),
            state: self.state.clone().unwrap_or_default(),
            trace_id: self.trace_id.map_or_else(Vec::new, |id| id.0.to_vec()),
            kind: text("--kind", &self.kind)?,
            entities,
            text: text("--grep", &self.grep)?,
        })
    }
}

impl Filters {
    /// The request for a tail of events, stories, or both.
    pub(super) fn tail(&self, events: bool, stories: bool) -> proto::TailRequest {
        let filters = self.clone();
        proto::TailRequest {
            kind: filters.kind,
            stories,
            no_events: !events,
            node: filters.node,
            severity: filters.severity,
            pattern: filters.pattern,
            trace_id: filters.trace_id,
            entities: filters.entities,
            text: filters.text,
            state: filters.state,
            after: String::new(),
        }
    }
}

/// The times and the size of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Nanoseconds since the Unix epoch; 0: any.
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
    /// `None`: all.
    pub(super) last: Option<usize>,
    /// Whether nobody chose `last`.
    pub(super) is_default_last: bool,
}

impl RangeArgs {
    /// Whether no range is set.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { since, until, last, follow, reverse } = self;
        since.is_none() && until.is_none() && last.is_none() && !follow && !reverse
    }

    /// The times and the size. `now`: the time, in the zone of times without one.
    ///
    /// # Errors
    /// When a time is invalid, or no time is in the range.
    pub(super) fn range(&self, now: &Zoned) -> Result<Range, Usage> {
        let time = |name: &str, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => time::parse(text, now).map_err(|e| Usage(format!("{name}: {e}"))),
        };
        let (since_ns, until_ns) = (time("--since", &self.since)?, time("--until", &self.until)?);
        if until_ns != 0 && until_ns <= since_ns {
            return Err(Usage("--until is not after --since".into()));
        }
        let last = self.last.map_or(Some(DEFAULT_LAST), |last| last.0);
        Ok(Range { since_ns, until_ns, last, is_default_last: self.last.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_pod_and_container_are_entities() {
        let args = FilterArgs {
            unit: Some("nginx".into()),
            pod: Some("shop/cart-1".into()),
            container: Some("app".into()),
            ..FilterArgs::default()
        };
        let entities = args.filters().unwrap().entities;
        let expected = [
            "systemd.unit=nginx.service",
            "k8s.namespace.name=shop",
            "k8s.pod.name=cart-1",
            "container=app",
        ];
        assert_eq!(entities, expected);
        assert_eq!(unit_name("a.timer"), "a.timer");
        assert_eq!(unit_name("a.b"), "a.b.service");
    }

    #[test]
    fn values_that_would_select_everything_are_refused() {
        for pod in ["/a", "a/", "a/b/c", "", " "] {
            let args = FilterArgs { pod: Some(pod.into()), ..FilterArgs::default() };
            assert!(args.filters().is_err(), "{pod:?}");
            assert!(!args.is_empty());
        }
        let args = FilterArgs { node: Some(String::new()), ..FilterArgs::default() };
        assert_eq!(args.filters().unwrap_err().0, "--node is empty");
        assert!(FilterArgs::default().is_empty());
    }

    #[test]
    fn range_ends_after_it_begins() {
        let now: Zoned = "2026-11-30T12:00:00[UTC]".parse().unwrap();
        let args = |since: &str, until: &str| RangeArgs {
            since: Some(since.into()),
            until: Some(until.into()),
            ..RangeArgs::default()
        };
        let range = args("2h", "1h").range(&now).unwrap();
        assert_eq!(range.until_ns - range.since_ns, 3_600_000_000_000);
        assert_eq!((range.last, range.is_default_last), (Some(100), true));
        assert_eq!(args("1h", "2h").range(&now).unwrap_err().0, "--until is not after --since");
        let error = args("soon", "1h").range(&now).unwrap_err().0;
        assert!(error.starts_with("--since: \"soon\" isn't a time"), "{error}");
        assert_eq!(last("all"), Ok(Last(None)));
        assert!(last("-1").is_err() && last("many").is_err());
    }
}
