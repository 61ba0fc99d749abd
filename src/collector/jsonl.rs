//! Events as JSON lines: files read to their end or followed as they grow, fifos, standard input.
//!
//! A line that isn't an event is refused, counted and logged with its place and cause; the rest goes
//! on. The collector waits when a ring is full, so nothing of a file is lost.

mod lines;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use crate::runtime::alarm::Alarm;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use lines::{Cut, Lines};
use source::{Read, Source};
use tapio_core::clock;
use tapio_core::event::{JsonEvent, Reason};

/// How often a followed file is looked at: its delay. A fifo or standard input says by itself that
/// it has something.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bad lines of a source that are logged one by one.
const LOGGED: u64 = 10;

/// The section `collectors.jsonl`. It runs when it has paths.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Files and fifos; `-` is standard input. Files are read in this order.
    pub paths: Vec<PathBuf>,
    /// Whether to go on at a file's end, as it grows, is truncated or is replaced.
    pub follow: bool,
}

impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        !self.paths.is_empty()
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Jsonl)
    }
}

struct Jsonl(Config);

impl Collector for Jsonl {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        // All of them before the first line: a wrong path shows before anything was read.
        let mut streams = Vec::new();
        for path in &self.0.paths {
            let source = Source::open(path, self.0.follow)
                .map_err(|e| CollectorError::new(&path.display().to_string(), e))?;
            streams.push(Stream::new(source));
        }
        let alarm = Alarm::new(&context.shutdown)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        while !context.shutdown.is_requested() {
            let mut progress = false;
            for stream in &mut streams {
                match stream.pump(&mut chunk, context) {
                    Ok(some) => progress |= some,
                    Err(e) => stream.fail(&e, context),
                }
                if context.shutdown.is_requested() {
                    break;
                }
            }
            streams.retain(|s| !s.ended);
            if streams.is_empty() {
                return Ok(Ended::Finished);
            }
            if !progress {
                context.sink.flush();
                let is_followed = streams.iter().any(|s| s.source.fd().is_none());
                let nap =
                    if is_followed { LOOK_EVERY } else { context.shutdown.heartbeat_interval() };
                alarm.wait(streams.iter().filter_map(|s| s.source.fd()), nap);
            }
        }
        streams.iter().for_each(|s| s.tell(context));
        Ok(Ended::Stopped)
    }
}

/// A source, its lines, and what was wrong with them.
struct Stream {
    source: Source,
    lines: Lines,
    /// The line's name where it has no id: path and number, in a buffer that is used again.
    natural: String,
    bad: u64,
    ended: bool,
}

impl Stream {
    fn new(source: Source) -> Self {
        Self { source, lines: Lines::default(), natural: String::new(), bad: 0, ended: false }
    }

    /// Reads once, or a file that isn't followed to its end. Returns whether anything was there.
    fn pump(&mut self, chunk: &mut [u8], context: &mut Context) -> std::io::Result<bool> {
        let mut progress = false;
        while !self.ended {
            let read = self.source.read(chunk)?;
            match read {
                Read::Bytes(n) => {
                    progress = true;
                    self.take(&chunk[..n], context);
                    if context.shutdown.is_requested() || !self.source.is_read_at_once() {
                        return Ok(true);
                    }
                }
                Read::Nothing => return Ok(progress),
                Read::Again => {
                    // What follows is another text: what is left of this one is its last line.
                    self.finish(context);
                    self.lines = Lines::default();
                    return Ok(true);
                }
                Read::Fifo => {
                    self.finish(context);
                    return Ok(progress);
                }
                Read::End => {
                    self.finish(context);
                    self.tell(context);
                    self.ended = true;
                    progress = true;
                }
            }
        }
        Ok(progress)
    }

    fn take(&mut self, bytes: &[u8], context: &mut Context) {
        let Self { source, lines, natural, bad, .. } = self;
        let observed_ns = clock::wall_ns();
        lines.cut(bytes, |number, cut| {
            line(source, number, cut, observed_ns, natural, bad, context);
            !context.sink.stopped()
        });
    }

    fn finish(&mut self, context: &mut Context) {
        let Self { source, lines, natural, bad, .. } = self;
        let observed_ns = clock::wall_ns();
        lines.finish(|number, cut| {
            line(source, number, cut, observed_ns, natural, bad, context);
        });
    }

    /// Ends a source that can't be read any more. The others go on: failing as a whole would start
    /// the collector again, and every event of theirs would come a second time.
    fn fail(&mut self, cause: &std::io::Error, context: &mut Context) {
        self.finish(context);
        self.tell(context);
        self.ended = true;
        let error = CollectorError::new(&self.source.name, cause);
        tracing::error!("{error}: reading it ends here");
        context.report.note(&self.source.name, error.to_string());
    }

    /// Says how many lines were bad, once the first ones were logged one by one.
    fn tell(&self, context: &Context) {
        if self.bad > LOGGED {
            let more = self.bad - LOGGED;
            tracing::warn!(file = self.source.name, "{more} more lines are no events");
        }
        if self.bad > 0 {
            let state = format!("{} lines were no events and are refused", self.bad);
            context.report.note(&self.source.name, state);
        }
    }
}

/// Takes one line in, or refuses it.
fn line(
    source: &Source,
    number: u64,
    cut: Cut<'_>,
    observed_ns: u64,
    natural: &mut String,
    bad: &mut u64,
    context: &mut Context,
) {
    use std::fmt::Write as _;
    let outcome = match cut {
        Cut::Blank => return,
        Cut::TooLong => Err((0, format!("longer than {} KiB", lines::MAX_LINE_BYTES / 1024))),
        Cut::Line(bytes) => match std::str::from_utf8(bytes) {
            Err(e) => Err((e.valid_up_to() + 1, "not UTF-8".to_owned())),
            Ok(text) => {
                natural.clear();
                // Writing to a String can't fail.
                let _ = write!(natural, "{}{}:{number}", source.name, source.generation());
                JsonEvent::parse(text, natural).map_err(|e| (e.column, e.cause))
            }
        },
    };
    match outcome {
        Ok(event) => {
            // A refusal is counted where it happens.
            let _ = context.sink.offer(&event.event(observed_ns, &mut Vec::new()));
        }
        Err((column, cause)) => {
            context.sink.refuse(Reason::BadInput, 1);
            *bad += 1;
            if *bad <= LOGGED {
                let place = format!("{}:{number}:{column}", source.name);
                tracing::warn!("{place}: {cause}: the line is refused");
            }
        }
    }
}
