//! Requests as lines of JSON: the format of the Collector's file exporter, each line a request of
//! logs, spans or metrics (opentelemetry.io, "OpenTelemetry Protocol File Exporter").

use super::answer::Answer;
use super::writer::EventWriter;
use crate::events::event_builder::EventOutput;
use crate::runtime::Site;
use bytes::Bytes;
use tapio_core::event::{Event, JsonEvent, ParsedLine, Reason, event_json};
use tapio_wire::{OtlpSignal, otlp_from_json};

/// The signal of a line, by the first key of its object; `None`: it is no request.
pub(crate) fn signal_of(line: &str) -> Option<OtlpSignal> {
    let object = line.trim_start().strip_prefix('{')?.trim_start();
    let signals = [
        ("\"resourceLogs\"", OtlpSignal::Logs),
        ("\"resourceSpans\"", OtlpSignal::Traces),
        ("\"resourceMetrics\"", OtlpSignal::Metrics),
    ];
    signals.into_iter().find(|(key, _)| object.starts_with(key)).map(|(_, signal)| signal)
}

/// The request of a line.
///
/// # Errors
/// Why it is none.
pub(crate) fn request_of(signal: OtlpSignal, line: &str) -> Result<Bytes, String> {
    otlp_from_json(signal, line.as_bytes()).map(Into::into)
}

/// Events of lines in this format, for a replay.
pub struct OtlpLines {
    writer: EventWriter,
    site: Site,
}

impl OtlpLines {
    /// For lines of a node.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self { writer: EventWriter::default(), site: Site::new(node, 0) }
    }

    /// The events of a line, and what is wrong with it, column and cause; `None` if it isn't in
    /// this format. `key` identifies the line.
    pub fn events(&mut self, line: &str, key: &str) -> Option<ParsedLine> {
        let signal = signal_of(line)?;
        let mut events = JsonEvents::default();
        let answer = request_of(signal, line).map(|request| {
            self.writer.request(signal, &request, Some(key), &self.site, &mut events)
        });
        let cause = match answer {
            Ok(Answer::Malformed(cause)) | Err(cause) => Some(cause),
            Ok(_) if events.invalid > 0 => {
                Some(format!("{} of its records can't be decoded", events.invalid))
            }
            Ok(_) => None,
        };
        Some((events.events, cause.map(|cause| (1, cause))))
    }
}

#[derive(Default)]
struct JsonEvents {
    events: Vec<JsonEvent>,
    invalid: u64,
}

impl EventOutput for JsonEvents {
    fn offer(&mut self, event: &Event<'_>) -> Result<(), Reason> {
        let json = event_json(event).to_string();
        let parsed = JsonEvent::parse(&json, "").map_err(|_| Reason::BadInput);
        self.invalid += u64::from(parsed.is_err());
        self.events.push(parsed?);
        Ok(())
    }

    fn refuse(&mut self, _: Reason, events: u64) {
        self.invalid += events;
    }
}
