//! The keys of which a reload (SIGHUP) takes new values. The log of a reload, `tapio config`,
//! `tapio check`, the schema and docs/configuration.md derive from this list; nothing else names
//! them.

use super::super::config::Config;

macro_rules! reloaded {
    ($($first:ident $(. $rest:ident)*;)*) => {
        /// The keys, except that of a list element.
        const KEYS: &[&str] = &[$(concat!(stringify!($first) $(, ".", stringify!($rest))*)),*];

        impl Config {
            /// Takes over the values that a reload takes; the others stay.
            pub fn take_reloaded(&mut self, new: &Self) {
                $(self.$first $(. $rest)* = new.$first $(. $rest)*.clone();)*
                self.server.notify.clone_from(&new.server.notify);
                for sink in &mut self.export.otlp {
                    let name = sink.name();
                    if let Some(new) = new.export.otlp.iter().find(|new| new.name() == name) {
                        sink.min_severity = new.min_severity;
                    }
                }
            }
        }
    };
}

reloaded! {
    memory_limit;
    dataflow.group_retention_period;
    dataflow.rules;
    dataflow.builtin_rules;
    evidence.weights.deviation;
    evidence.weights.lift;
    evidence.weights.edge_gap;
    evidence.weights.severity;
    evidence.weights.onset;
    evidence.weights.pairs;
    evidence.weights.rule;
    evidence.weights.upstream;
    collectors.journal.rate_per_unit;
    collectors.journal.burst_per_unit;
    server.retention_bytes;
    server.retention_age;
    server.sync_interval;
    server.stories_kept;
    log.format;
    log.level;
    debug.recorder.enabled;
    debug.recorder.keep;
    debug.recorder.bytes;
}

/// The key of a list element: a reload takes it from the sink of the same name.
const SINK_SEVERITY: &str = "export.otlp[].min_severity";
/// The list that a reload takes as a whole.
const RECEIVERS: &str = "server.notify";

/// Whether a reload takes this key, with `[]` or `[n]` after the name of a list.
pub(super) fn is_reloaded(key: &str) -> bool {
    let key = without_numbers(key);
    let is_receivers =
        key.strip_prefix(RECEIVERS).is_some_and(|rest| rest.is_empty() || rest.starts_with('['));
    is_receivers || all().any(|reloaded| reloaded == key)
}

/// A key with `[]` for any element of a list.
fn without_numbers(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for part in key.split_inclusive('[') {
        out.push_str(match out.ends_with('[') {
            true => part.trim_start_matches(|c: char| c.is_ascii_digit()),
            false => part,
        });
    }
    out
}

/// The keys that a reload takes.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    KEYS.iter().copied().chain([SINK_SEVERITY, RECEIVERS])
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    /// Another value of the same form; `None` where there is none to be made up.
    fn other(value: &Json) -> Option<Json> {
        Some(match value {
            Json::Bool(flag) => (!flag).into(),
            Json::Number(number) if number.is_f64() => (number.as_f64()? + 0.5).into(),
            Json::Number(number) => (number.as_u64()? + 1).into(),
            Json::String(text) if text.ends_with("iB") => "96MiB".into(),
            Json::String(text) => match text.as_str() {
                "text" => "json".into(),
                "info" => "warn".into(),
                "unspecified" => "error".into(),
                "auto" => "96MiB".into(),
                duration if tapio_core::durations::parse(duration).is_ok() => "999ms".into(),
                _ => return None,
            },
            Json::Array(list) if list.is_empty() => vec![Json::from("/a/rule")].into(),
            _ => return None,
        })
    }

    #[test]
    fn exactly_the_listed_keys_are_taken() {
        let sink = "export: { otlp: [{ endpoint: 'http://h:4317' }] }\n";
        let old = Config::parse("a.yaml", sink, |_| None).unwrap();
        let mut taken = Vec::new();
        for key in Config::keys() {
            let path = key.path.replace("[]", "[0]");
            let pointer = format!("/{}", path.replace("[0]", "/0").replace('.', "/"));
            let mut values = serde_json::to_value(&old).unwrap();
            let Some(value) = values.pointer_mut(&pointer) else { continue };
            let Some(changed) = other(value) else { continue };
            *value = changed;
            let Ok(new) = serde_json::from_value::<Config>(values) else { continue };
            let mut in_force = old.clone();
            in_force.take_reloaded(&new);
            let is_taken = in_force.changes(&new).is_empty();
            let changes = old.changes(&new);
            assert_eq!(changes.len(), 1, "{path}: {changes:?}");
            assert_eq!((changes[0].path.as_str(), changes[0].is_reloaded), (&*path, is_taken));
            assert_eq!(key.is_reloaded, is_taken, "{path}");
            taken.extend(is_taken.then_some(key.path));
        }
        // Without receivers in the configuration there is no key of one.
        let all: Vec<&str> = all().filter(|key| *key != RECEIVERS).collect();
        assert_eq!(taken.len(), all.len(), "{taken:?} of {all:?}");
    }

    #[test]
    fn elements_of_lists_have_no_number() {
        assert_eq!(without_numbers("a[12].b[3].c4"), "a[].b[].c4");
        assert!(is_reloaded("export.otlp[7].min_severity") && !is_reloaded("export.otlp"));
        assert!(is_reloaded("server.notify[0].slack.url") && !is_reloaded("server.notifying"));
    }
}
