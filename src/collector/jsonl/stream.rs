//! Decodes one source's lines into events.

use std::fmt::Write as _;

use super::followed::{FollowedFile, Read};
use super::lines::{Line, LineSplitter, MAX_LINE_BYTES};
use super::position::FilePosition;
use super::source::Source;
use crate::events::otlp::{Answer, EventWriter, request_of, signal_of};
use crate::runtime::{CollectorError, Context};
use tapio_core::clock;
use tapio_core::event::{JsonEvent, Reason, stable_hash};
use tapio_wire::OtlpSignal;

/// Refused lines of a source that are logged one by one.
const MAX_LOGGED: u64 = 10;

/// A source and the state of its decoding.
pub(super) struct Stream {
    pub(super) source: Source,
    pub(super) ended: bool,
    /// A line wasn't accepted because of the shutdown: it is the first one of the next start.
    stopped: bool,
    lines: LineSplitter,
    decoder: Decoder,
}

impl Stream {
    pub(super) fn new(source: Source) -> Self {
        let (lines, decoder) = (LineSplitter::after(source.start()), Decoder::default());
        Self { source, ended: false, stopped: false, lines, decoder }
    }

    /// The position of a followed file after the lines taken so far.
    pub(super) fn position(&self) -> Option<FilePosition> {
        self.source.position(self.lines.position())
    }

    /// Reads once, or a file that isn't followed to its end. Returns whether it read anything.
    pub(super) fn pump(
        &mut self,
        chunk: &mut [u8],
        context: &mut Context,
    ) -> std::io::Result<bool> {
        let mut progress = false;
        while !self.ended && !self.stopped {
            match self.source.read(chunk, self.lines.position())? {
                Read::Bytes(n) => {
                    progress = true;
                    self.process(&chunk[..n], context);
                    if context.shutdown.is_requested() || !self.source.is_read_to_end() {
                        return Ok(true);
                    }
                }
                Read::Nothing => return Ok(progress),
                Read::Replaced(next) => {
                    self.replace(next, context);
                    return Ok(true);
                }
                Read::NoWriter => {
                    self.finish(context);
                    return Ok(progress);
                }
                Read::End => {
                    self.finish(context);
                    self.report_refused(context);
                    self.ended = true;
                    progress = true;
                }
            }
        }
        Ok(progress)
    }

    fn process(&mut self, bytes: &[u8], context: &mut Context) {
        let Self { source, lines, decoder, .. } = self;
        let observed_ns = clock::wall_ns();
        let take =
            |number, line: Line<'_>| decoder.line(source, number, line, observed_ns, context);
        self.stopped |= !lines.split(bytes, take);
    }

    fn finish(&mut self, context: &mut Context) {
        let Self { source, lines, decoder, .. } = self;
        let observed_ns = clock::wall_ns();
        let take =
            |number, line: Line<'_>| decoder.line(source, number, line, observed_ns, context);
        self.stopped |= !lines.finish(take);
    }

    /// Continues with another content of a followed file.
    fn replace(&mut self, next: Box<FollowedFile>, context: &mut Context) {
        if next.generation() != self.source.generation() {
            // The remainder of the old content is its last line. A copy has it again.
            self.finish(context);
        }
        if !self.stopped {
            self.lines = LineSplitter::after(next.start());
            self.source.replace(next);
        }
    }

    /// Ends a source that can't be read any more. The others continue: if the collector failed as a
    /// whole, it would be restarted and emit all their events again.
    pub(super) fn fail(&mut self, cause: &std::io::Error, context: &mut Context) {
        // The next start continues a followed file at the start of its last line.
        if self.position().is_none() {
            self.finish(context);
        }
        self.report_refused(context);
        self.ended = true;
        let error = CollectorError::new(&self.source.name, cause);
        tracing::error!(collector = "jsonl", "{error}; stopped reading this source");
        context.report.note(&self.source.name, error.to_string());
    }

    /// Reports the number of refused lines, of which only the first ones were logged one by one.
    pub(super) fn report_refused(&self, context: &Context) {
        let (name, refused) = (&self.source.name, self.decoder.refused);
        if refused > MAX_LOGGED {
            let more = refused - MAX_LOGGED;
            tracing::warn!(collector = "jsonl", file = name, "further refused lines: {more}");
        }
        if refused > 0 {
            context
                .report
                .note(name, format!("lines refused because they aren't events: {refused}"));
        }
    }
}

#[derive(Default)]
struct Decoder {
    /// The key of a line without an id: path and number, of a followed file the text as well; in a
    /// reused buffer.
    natural_key: String,
    otlp: EventWriter,
    refused: u64,
}

impl Decoder {
    /// Decodes one line, and emits or refuses it. Returns false if it wasn't taken because of the
    /// shutdown.
    fn line(
        &mut self,
        source: &Source,
        number: u64,
        line: Line<'_>,
        observed_ns: u64,
        context: &mut Context,
    ) -> bool {
        let text = match line {
            Line::Blank => return true,
            Line::TooLong => Err((0, format!("longer than {} KiB", MAX_LINE_BYTES / 1024))),
            Line::Complete(bytes) => std::str::from_utf8(bytes)
                // Some editors begin a file with a byte order mark.
                .map(|text| text.trim_start_matches('\u{feff}'))
                .map_err(|e| (e.valid_up_to() + 1, "not UTF-8".to_owned())),
        };
        if let Ok(text) = text
            && let Some(signal) = signal_of(text)
        {
            return self.request(source, number, (signal, text), context);
        }
        match text.and_then(|text| self.decode(source, number, text)) {
            Ok(event) => {
                // The sink counts an event that it can't accept.
                let offered = context.sink.offer(&event.event(observed_ns, &mut Vec::new()));
                offered != Err(Reason::Shutdown)
            }
            Err((column, cause)) => {
                context.sink.refuse(Reason::BadInput, 1);
                self.refuse(source, number, column, &cause);
                true
            }
        }
    }

    /// Emits the events of a request of OTLP. Returns false if one wasn't taken because of the
    /// shutdown.
    fn request(
        &mut self,
        source: &Source,
        number: u64,
        (signal, text): (OtlpSignal, &str),
        context: &mut Context,
    ) -> bool {
        self.set_natural_key(source, number, text);
        let answer = request_of(signal, text).map(|request| {
            let (key, site) = (Some(&self.natural_key[..]), &context.site);
            self.otlp.request(signal, &request, key, site, &mut context.sink)
        });
        match answer {
            Ok(Answer::ShuttingDown) => return false,
            Ok(Answer::Accepted(rejected)) if rejected.total() == 0 => {}
            Ok(Answer::Accepted(rejected)) => self.refuse(source, number, 1, &rejected.to_string()),
            Ok(Answer::Malformed(cause)) => self.refuse(source, number, 1, &cause),
            Err(cause) => {
                context.sink.refuse(Reason::BadInput, 1);
                self.refuse(source, number, 1, &cause);
            }
        }
        true
    }

    fn refuse(&mut self, source: &Source, number: u64, column: usize, cause: &str) {
        self.refused += 1;
        if self.refused <= MAX_LOGGED {
            let position = format!("{}:{number}:{column}", source.name);
            tracing::warn!(collector = "jsonl", "refused line {position}: {cause}");
        }
    }

    /// # Errors
    /// When the line isn't an event: the column, from 1, and the cause.
    fn decode(
        &mut self,
        source: &Source,
        number: u64,
        text: &str,
    ) -> Result<JsonEvent, (usize, String)> {
        self.set_natural_key(source, number, text);
        JsonEvent::parse_observed(text, &self.natural_key).map_err(|e| (e.column, e.cause))
    }

    fn set_natural_key(&mut self, source: &Source, number: u64, text: &str) {
        self.natural_key.clear();
        // Writing to a String can't fail.
        let _ = write!(self.natural_key, "{}{}:{number}", source.name, source.generation_suffix());
        if source.is_followed() {
            // A content that was rotated before its position was saved has the numbers of the one
            // before: the text distinguishes their lines.
            let hash = u128::from_be_bytes(stable_hash(&[text.as_bytes()]));
            let _ = write!(self.natural_key, ":{hash:032x}");
        }
    }
}
