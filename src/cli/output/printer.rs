//! Prints the items of an answer in the format that was asked for.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::Child;
use std::rc::Rc;

use serde_json::Value as Json;

use super::args::{Format, OutputArgs};
use super::outcome::message;
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
    sink: Sink,
}

/// A destination in memory.
#[derive(Clone, Default)]
struct Captured(Rc<RefCell<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The destination of the output. It is opened with the first output, so that an error before that
/// isn't printed on the screen of a pager.
struct Sink {
    args: OutputArgs,
    has_pager: bool,
    writer: Option<BufWriter<Box<dyn Write>>>,
    pager: Option<Child>,
}

impl Sink {
    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.writer.is_none() && self.has_pager {
            self.pager = pager::start(&self.args);
        }
        let writer = self.writer.get_or_insert_with(|| {
            let pipe = self.pager.as_mut().and_then(|pager| pager.stdin.take());
            BufWriter::new(match pipe {
                Some(pipe) => Box::new(pipe) as Box<dyn Write>,
                None => Box::new(io::stdout()),
            })
        });
        writer.write_all(text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.flush())
    }

    /// Closes the output and waits for the pager.
    fn close(&mut self) -> io::Result<()> {
        let flushed = self.flush();
        if let Some(writer) = self.writer.take() {
            // The pager's end of file. What it hasn't taken is in the error already.
            drop(writer.into_parts());
        }
        if let Some(mut pager) = self.pager.take() {
            let _ = pager.wait();
        }
        flushed
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // After an error, which is reported.
        let _ = self.close();
    }
}

impl Printer {
    /// A printer of a list.
    pub(crate) fn list(args: &OutputArgs) -> Self {
        Self::new(args, false, None)
    }

    /// A printer of items as they arrive: without a pager, and JSON has an item a line.
    pub(crate) fn stream(args: &OutputArgs) -> Self {
        Self::new(args, true, None)
    }

    fn new(args: &OutputArgs, is_stream: bool, writer: Option<Box<dyn Write>>) -> Self {
        let mut style = Style::new(args);
        if args.output != Format::Text {
            style.width = None;
        }
        if args.output == Format::Markdown {
            style.colour = false;
        }
        let writer = writer.map(BufWriter::new);
        let sink = Sink { args: *args, has_pager: !is_stream, writer, pager: None };
        Self { format: args.output, style, is_stream, count: 0, sink }
    }

    /// The text that a function prints, for a terminal of the width in `style`.
    ///
    /// # Errors
    /// Those of the function.
    pub(crate) fn capture(
        style: Style,
        print: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let captured = Captured::default();
        let writer = Box::new(captured.clone());
        let mut printer = Self::new(&OutputArgs::default(), false, Some(writer));
        printer.style = style;
        print(&mut printer)?;
        printer.finish()?;
        Ok(String::from_utf8_lossy(&captured.0.borrow()).into_owned())
    }

    /// Prints a line of text.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), OutputError> {
        self.sink.write(&self.style.encode(line))?;
        self.sink.write("\n")?;
        self.flush_stream()
    }

    /// Prints the rows that a table has collected, and forgets them.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn table(&mut self, table: &mut Table) -> Result<(), OutputError> {
        let text = table.render(self.format, &self.style);
        if !text.is_empty() {
            self.sink.write(&self.style.encode(&text))?;
        }
        self.flush_stream()
    }

    /// Prints an item of a list in a format for programs.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn item(&mut self, item: &Json) -> Result<(), OutputError> {
        let text = match (self.format, self.is_stream) {
            (Format::Yaml, true) => format!("---\n{}", yaml(item)),
            (Format::Yaml, false) => yaml_in_list(item),
            (Format::Json, false) if self.count == 0 => format!("[\n{}", json(item)),
            (Format::Json, false) => format!(",\n{}", json(item)),
            _ => json(item) + "\n",
        };
        self.count += 1;
        self.sink.write(&text)?;
        self.flush_stream()
    }

    /// Prints the only item of an answer in a format for programs, and ends.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn single(mut self, item: &Json) -> Result<(), OutputError> {
        let text = if self.format == Format::Yaml { yaml(item) } else { json(item) + "\n" };
        self.sink.write(&text)?;
        Ok(self.sink.close()?)
    }

    /// Ends a list.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn finish(mut self) -> Result<(), OutputError> {
        match (self.format, self.is_stream, self.count) {
            (Format::Json | Format::Yaml, false, 0) => self.sink.write("[]\n")?,
            (Format::Json, false, _) => self.sink.write("\n]\n")?,
            _ => {}
        }
        Ok(self.sink.close()?)
    }

    /// Ends a list of text. On a terminal, a list without rows is reported on standard error:
    /// `empty` is what to say.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn finish_table(self, table: &Table, empty: &str) -> Result<(), OutputError> {
        let is_reported = !self.format.is_data() && table.is_empty() && io::stdout().is_terminal();
        self.finish()?;
        if is_reported {
            message(&format!("tapio: {empty}"));
        }
        Ok(())
    }

    fn flush_stream(&mut self) -> Result<(), OutputError> {
        if self.is_stream {
            self.sink.flush()?;
        }
        Ok(())
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

/// An item of a list in YAML.
fn yaml_in_list(item: &Json) -> String {
    let text = yaml(&Json::Array(vec![item.clone()]));
    // JSON of a list is one item in brackets.
    if text.starts_with('[') { format!("- {}\n", json(item)) } else { text }
}

/// YAML with a line feed at its end. Where it would have characters that reorder text on a
/// terminal, which the serializer doesn't escape, it is JSON, which is YAML, too.
fn yaml(item: &Json) -> String {
    let is_plain = |text: &String| !text.chars().any(|c| c != '\n' && is_control(c));
    let text = serde_saphyr::to_string(item).ok().filter(is_plain);
    let mut text = text.unwrap_or_else(|| json(item));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(output: Format, is_stream: bool, items: &[Json]) -> String {
        let written = Captured::default();
        let args = OutputArgs { output, ..OutputArgs::default() };
        let mut printer = Printer::new(&args, is_stream, Some(Box::new(written.clone())));
        items.iter().for_each(|item| printer.item(item).unwrap());
        printer.finish().unwrap();
        String::from_utf8(written.0.borrow().clone()).unwrap()
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
            assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{text:?}");
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
