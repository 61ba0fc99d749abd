//! Lines in which a program complains: by its own level, by words that begin a complaint, by
//! exceptions and messages of libc, shells and configuration parsers; and systemd's, before it runs
//! the program.

use std::sync::LazyLock;

use regex::Regex;

use crate::event::Severity;
use crate::text_prefix::text_prefix;

/// The longest text of a complaint.
const MAX_BYTES: usize = 1024;

/// A complaint, as parts of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Complaint<'l> {
    /// The message, without what the logger writes around it.
    pub(super) text: &'l str,
    /// The value of the error, where the logger has it beside the message.
    pub(super) error: Option<&'l str>,
}

/// The writer of a line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writer<'l> {
    /// `SYSLOG_IDENTIFIER`.
    pub(super) identifier: &'l str,
    pub(super) unit: &'l str,
}

struct Patterns {
    systemd: Regex,
    /// Of lines with a level; text, and error where there is one.
    leveled: Vec<Regex>,
    states_level: Regex,
    begins: Regex,
    exception: Regex,
    libc: Regex,
    configuration: Regex,
    mount: Regex,
}

/// Patterns, compiled at the first line; there always are some, which a test shows.
static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| Patterns::new().ok());

impl Patterns {
    fn new() -> Result<Self, regex::Error> {
        let regex = Regex::new;
        Ok(Self {
        systemd: regex(
            r"^(?:[^ ]+\.[a-z]+: )?(?<text>(?:Failed (?:at step [A-Z_]+ |to (?:locate|execute|determine|set up|load environment|prepare|attach|create|fork|spawn|run|parse)\b)|Unable to locate executable|Changing to the requested working directory failed).+)$",
        )?,
        leveled: [
            // klog.
            r#"^[EF]\d{4,8} [^\]]{1,80}\] "(?<text>(?:[^"\\]|\\.)+)".*? err(?:or)?="(?<error>(?:[^"\\]|\\.)+)""#,
            r"^[EF]\d{4,8} [^\]]{1,80}\] (?<text>(?s).+)$",
            // logfmt.
            r#"\bmsg="(?<text>(?:[^"\\]|\\.)+)" (?:.*? )?err(?:or)?="(?<error>(?:[^"\\]|\\.)+)""#,
            r#"\bmsg=(?<text>[^ "]+) (?:.*? )?err(?:or)?="(?<error>(?:[^"\\]|\\.)+)""#,
            r#"\berr(?:or)?="(?<error>(?:[^"\\]|\\.)+)" (?:.*? )?msg="(?<text>(?:[^"\\]|\\.)+)""#,
            r#"\b(?:msg|err(?:or)?)="(?<text>(?:[^"\\]|\\.)+)""#,
            // JSON.
            r#""(?:msg|message)": ?"(?<text>(?:[^"\\]|\\.)+)".*?"err(?:or)?": ?"(?<error>(?:[^"\\]|\\.)+)""#,
            r#""(?:msg|message)": ?"(?<text>(?:[^"\\]|\\.)+)""#,
        ]
        .into_iter()
        .map(regex)
        .collect::<Result<_, _>>()?,
        states_level: regex(
            r"^[IWD]\d{4}|\b(?:level|lvl|severity)=|^\{|\b(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING)\b|\[(?:trace|debug|info|notice|warn|warning)\]",
        )?,
        begins: regex(
            r"^(?:[A-Za-z0-9_./-]+: )?(?i:fatal|panic|error|failed to|unable to|cannot|can't|could not)\b|\[(?:emerg|alert|crit)\]|\b(?:FATAL|PANIC)\b",
        )?,
        // Of Java, Rust, C++, Python, Node.
        exception: regex(
            r"^(?:(?:Exception in thread |Caused by: |thread '.* panicked at |terminate called |[A-Za-z0-9_.]*(?:Error|Exception)(?:: |$)).*|.*\([A-Za-z0-9_.:]*(?:Error|Exception)\))$",
        )?,
        libc: regex(
            r"[Nn]o such file or directory|[Pp]ermission denied|[Aa]ddress already in use|command not found|error while loading shared libraries|stack smashing detected|double free or corruption|[Aa]ssertion .* failed|[Ss]yntax error",
        )?,
        configuration: regex(
            r"[Uu]n(?:known|recognized) (?:directive|option|flag|parameter|argument)|(?:[Ii]nvalid|[Bb]ad|[Ii]llegal) (?:option|argument|value|config|directive|character)|is not allowed |\.(?:conf|cfg|ini|ya?ml|toml|json|cnf)[a-z.]*:[0-9]+:|/etc/\S+:? line [0-9]+",
        )?,
        mount: regex(r"^mount(?:\.\w+)?: .+$")?,
    })
    }
}

/// The complaint in a line, if it is one.
pub(super) fn complaint<'l>(
    line: &'l str,
    severity: Severity,
    writer: Writer<'_>,
) -> Option<Complaint<'l>> {
    if line.is_empty() || is_container(writer.identifier) {
        return None;
    }
    let patterns = PATTERNS.as_ref()?;
    if let Some(found) = patterns.systemd.captures(line)
        && !line.contains("ignoring")
    {
        return complaint_of(&found);
    }
    if writer.identifier == "systemd" {
        return None;
    }
    let whole = Complaint { text: text_prefix(line, MAX_BYTES), error: None };
    if severity >= Severity::ERROR {
        let leveled = patterns.leveled.iter().find_map(|pattern| pattern.captures(line));
        return leveled.as_ref().and_then(complaint_of).or(Some(whole));
    }
    let is_line = !line.contains('\n');
    let complains = (patterns.begins.is_match(line)
        || is_line && patterns.exception.is_match(line)
        || is_line && patterns.libc.is_match(line)
        || is_line && patterns.configuration.is_match(line))
        && !patterns.states_level.is_match(line);
    let is_mount = writer.unit.ends_with(".mount") && patterns.mount.is_match(line);
    (complains || is_mount).then_some(whole)
}

/// Docker's driver for the journal identifies a container's lines by its id: they aren't the
/// daemon's.
fn is_container(identifier: &str) -> bool {
    identifier.len() == 12
        && identifier.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn complaint_of<'l>(found: &regex::Captures<'l>) -> Option<Complaint<'l>> {
    let text = |name| found.name(name).map(|found| text_prefix(found.as_str(), MAX_BYTES));
    Some(Complaint { text: text("text")?, error: text("error") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NGINX: Writer<'_> = Writer { identifier: "nginx", unit: "nginx.service" };
    const SYSTEMD: Writer<'_> = Writer { identifier: "systemd", unit: "nginx.service" };

    /// Text and error of a line.
    fn of<'l>(line: &'l str, severity: Severity, writer: Writer<'_>) -> Option<(&'l str, &'l str)> {
        complaint(line, severity, writer).map(|found| (found.text, found.error.unwrap_or("")))
    }

    #[test]
    fn patterns_are_valid() {
        assert!(PATTERNS.is_some());
    }

    #[test]
    fn lines_with_a_level_have_message_and_error() {
        for (line, expected) in [
            (
                r#"E0118 17:33:58.888700 1 a.go:265] "Failed to run kubelet" err="no certificate""#,
                ("Failed to run kubelet", "no certificate"),
            ),
            ("F0118 17:33:58.888700 1 a.go:1] no such option", ("no such option", "")),
            (r#"level=error msg="can't start" err="in use""#, ("can't start", "in use")),
            (r#"level=error msg=stopped err="in use""#, ("stopped", "in use")),
            (r#"level=fatal error="in use" msg="can't start""#, ("can't start", "in use")),
            (r#"level=error caller=a.go err="in \"use\"""#, (r#"in \"use\""#, "")),
            (r#"{"level":"error","msg":"x","error":"y"}"#, ("x", "y")),
            (r#"{"level":"error","message": "x"}"#, ("x", "")),
            ("it is broken\nfor good", ("it is broken\nfor good", "")),
        ] {
            assert_eq!(of(line, Severity::ERROR, NGINX), Some(expected), "{line}");
        }
    }

    #[test]
    fn lines_without_a_level_complain_by_their_words() {
        for line in [
            "nginx: [emerg] unknown directive \"srever\" in /etc/nginx/conf.d/a.conf:3",
            "Error: Cannot find module 'express'",
            "/srv/app: cannot open shared object file",
            "2024-01-18 17:33:58 UTC [1] FATAL:  the database is full\nHINT: none",
            "Exception in thread \"main\" java.lang.IllegalStateException: x",
            "thread 'main' (12) panicked at src/main.rs:2:5:",
            "ValueError: invalid literal",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "Database unavailable (redis.exceptions:ConnectionError)",
            "sh: 1: foo: not found: No such file or directory",
            "*** stack smashing detected ***: terminated",
            "haproxy.cfg:12: unexpected word",
        ] {
            assert_eq!(of(line, Severity::INFO, NGINX), Some((line, "")), "{line}");
        }
        for line in [
            "",
            "listening on 0.0.0.0:80",
            "2024-01-18 INFO cannot complain",
            "level=info msg=\"permission denied\"",
            "{\"level\":\"info\",\"msg\":\"Permission denied\"}",
            "no error",
        ] {
            assert_eq!(of(line, Severity::INFO, NGINX), None, "{line}");
        }
    }

    #[test]
    fn writer_decides() {
        let step = "nginx.service: Failed at step EXEC spawning /x: No such file or directory";
        let text = "Failed at step EXEC spawning /x: No such file or directory";
        assert_eq!(of(step, Severity::ERROR, SYSTEMD), Some((text, "")));
        let ignored = "Failed to parse /etc/a, ignoring: Invalid argument";
        assert_eq!(of(ignored, Severity::WARN, SYSTEMD), None);
        let failed = "nginx.service: Failed with result 'exit-code'.";
        assert_eq!(of(failed, Severity::ERROR, SYSTEMD), None);
        let container = Writer { identifier: "3a3216a58c60", unit: "docker.service" };
        assert_eq!(of("Error: x", Severity::ERROR, container), None);
        let mount = Writer { identifier: "mount", unit: "srv.mount" };
        let line = "mount.nfs: Connection refused";
        assert_eq!(of(line, Severity::INFO, mount), Some((line, "")));
        assert_eq!(of(line, Severity::INFO, NGINX), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(line in "(?s).{0,200}", level in 0u8..25) {
            if let Some(found) = complaint(&line, Severity(level), NGINX) {
                prop_assert!(!found.text.is_empty() && line.contains(found.text));
            }
        }
    }
}
