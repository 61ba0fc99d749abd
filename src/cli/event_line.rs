//! An event on one line.

use jiff::Timestamp;
use serde_json::Value as Json;

use super::output::{BOLD, Style, plain};
use tapio_core::event::Severity;

/// An event on one line: time, source, kind, severity, and its message or its entity.
pub(super) fn event_line(event: &Json, style: &Style) -> String {
    let text = |name: &str| event.get(name).and_then(Json::as_str).unwrap_or_default();
    let content = match text("message") {
        "" => event.get("entity").map_or_else(String::new, ToString::to_string),
        message => message.to_owned(),
    };
    let time = text("time").parse().map_or_else(
        |_| plain(text("time")),
        |time: Timestamp| style.time(time.as_nanosecond().try_into().unwrap_or_default()),
    );
    let severity = match text("severity") {
        "info" | "" => String::new(),
        word => match Severity::parse(word) {
            Some(severity) => format!("{} ", style.severity(severity)),
            None => String::new(),
        },
    };
    format!(
        "{time} {} {} {severity}{}",
        plain(text("source")),
        style.paint(&plain(text("kind")), BOLD),
        plain(&content)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_line() {
        let event = serde_json::json!({
            "time": "2026-01-02T03:04:05.678901234Z", "kind": "kernel.tcp.refused", "source": "kernel",
            "severity": "warn", "message": "a\nb"
        });
        assert_eq!(
            event_line(&event, &Style::bare()),
            "2026-01-02 03:04:05.678Z kernel kernel.tcp.refused WARN a·b"
        );
    }
}
