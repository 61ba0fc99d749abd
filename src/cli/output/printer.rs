//! Prints the items of an answer in the format that was asked for.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::process::Child;

use serde_json::Value as Json;

use super::args::{Format, OutputArgs};
use super::pager;
use super::stdout::OutputError;
use super::style::{Style, is_control};
use super::table::Table;

/// Prints items to standard output, or to a pager.
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) style: Style,
    /// Whether items have no end: each is complete on its own, and is printed at once.
    is_stream: bool,
    /// Items printed so far.
    count: usize,
    sink: BufWriter<Box<dyn Write>>,
    pager: Option<Child>,
}

impl Printer {
    /// A printer of a list.
    pub(crate) fn list(args: &OutputArgs) -> Self {
        let mut pager = pager::start(args);
        let sink: Box<dyn Write> = match pager.as_mut().and_then(|pager| pager.stdin.take()) {
            Some(pipe) => Box::new(pipe),
            None => Box::new(io::stdout()),
        };
        Self::new(args, false, sink, pager)
    }

    /// A printer of items as they arrive: without a pager, and JSON has an item a line.
    pub(crate) fn stream(args: &OutputArgs) -> Self {
        Self::new(args, true, Box::new(io::stdout()), None)
    }

    fn new(args: &OutputArgs, is_stream: bool, sink: Box<dyn Write>, pager: Option<Child>) -> Self {
        let mut style = Style::new(args);
        if args.output != Format::Text {
            style.width = None;
        }
        if args.output == Format::Markdown {
            style.colour = false;
        }
        Self { format: args.output, style, is_stream, count: 0, sink: BufWriter::new(sink), pager }
    }

    /// Prints a line of text.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), OutputError> {
        self.sink.write_all(self.style.encode(line).as_bytes())?;
        self.sink.write_all(b"\n")?;
        self.flush_stream()
    }

    /// Prints the rows that a table has collected, and forgets them.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn table(&mut self, table: &mut Table) -> Result<(), OutputError> {
        let text = table.render(self.format, &self.style);
        self.sink.write_all(self.style.encode(&text).as_bytes())?;
        self.flush_stream()
    }

    /// Prints an item of a list in a format for programs.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn item(&mut self, item: &Json) -> Result<(), OutputError> {
        let text = match (self.format, self.is_stream) {
            (Format::Yaml, true) => format!("---\n{}", yaml(item)),
            (Format::Yaml, false) => yaml(&Json::Array(vec![item.clone()])),
            (Format::Json, false) if self.count == 0 => format!("[\n{}", json(item)),
            (Format::Json, false) => format!(",\n{}", json(item)),
            _ => json(item) + "\n",
        };
        self.count += 1;
        self.sink.write_all(text.as_bytes())?;
        self.flush_stream()
    }

    /// Prints the only item of an answer in a format for programs, and ends.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn single(mut self, item: &Json) -> Result<(), OutputError> {
        let text = if self.format == Format::Yaml { yaml(item) } else { json(item) + "\n" };
        self.sink.write_all(text.as_bytes())?;
        self.close()
    }

    /// Ends a list.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn finish(mut self) -> Result<(), OutputError> {
        match (self.format, self.is_stream, self.count) {
            (Format::Json | Format::Yaml, false, 0) => self.sink.write_all(b"[]\n")?,
            (Format::Json, false, _) => self.sink.write_all(b"\n]\n")?,
            _ => {}
        }
        self.close()
    }

    fn flush_stream(&mut self) -> Result<(), OutputError> {
        if self.is_stream {
            self.sink.flush()?;
        }
        Ok(())
    }

    /// Closes the output and waits for the pager.
    fn close(self) -> Result<(), OutputError> {
        let Self { mut sink, pager, .. } = self;
        let flushed = sink.flush();
        // The pager's end of file. What it hasn't taken is in the error already.
        drop(sink.into_parts());
        if let Some(mut pager) = pager {
            let _ = pager.wait();
        }
        Ok(flushed?)
    }
}

/// JSON on one line. Characters that control a terminal are escaped beyond what JSON demands.
fn json(item: &Json) -> String {
    let text = item.to_string();
    if !text.chars().any(is_control) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) {
            // Outside strings, JSON has none.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// YAML with a line feed at its end.
fn yaml(item: &Json) -> String {
    let mut text = serde_saphyr::to_string(item).unwrap_or_else(|_| json(item));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(output: Format, is_stream: bool, items: &[Json]) -> String {
        let written = Written::default();
        let args = OutputArgs { output, ..OutputArgs::default() };
        let mut printer = Printer::new(&args, is_stream, Box::new(written.clone()), None);
        items.iter().for_each(|item| printer.item(item).unwrap());
        printer.finish().unwrap();
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_format_of_data_can_be_read_back() {
        let hostile = "\u{1b}[2J\u{9b}1m\u{202e}: - # 'x' \"y\" \n no";
        let items = [
            json!({"id": "0e1", "text": hostile, "list": [], "empty": {}, "null": null}),
            json!({"n": 1.5, "yes": true, "word": "no", "nested": {"a": [{"b": "2026-01-01"}]}}),
        ];
        let all = Json::Array(items.to_vec());
        let array = printed(Format::Json, false, &items);
        assert_eq!(serde_json::from_str::<Json>(&array).unwrap(), all);
        for (format, is_stream) in [(Format::Jsonl, false), (Format::Json, true)] {
            let lines = printed(format, is_stream, &items);
            let read = lines.lines().map(|line| serde_json::from_str(line).unwrap());
            assert_eq!(read.collect::<Vec<Json>>(), items);
        }
        let yaml = printed(Format::Yaml, false, &items);
        assert_eq!(serde_saphyr::from_str::<Json>(&yaml).unwrap(), all, "{yaml}");
        let documents = printed(Format::Yaml, true, &items);
        let read = serde_saphyr::from_multiple::<Json>(&documents).unwrap();
        assert_eq!(read, items, "{documents}");
        for text in [array, yaml, documents] {
            assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
        }
    }

    #[test]
    fn empty_list_is_an_empty_array() {
        assert_eq!(printed(Format::Json, false, &[]), "[]\n");
        assert_eq!(printed(Format::Yaml, false, &[]), "[]\n");
        for (format, is_stream) in [(Format::Jsonl, false), (Format::Json, true)] {
            assert_eq!(printed(format, is_stream, &[]), "");
        }
    }
}
