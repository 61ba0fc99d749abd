//! Levels that loggers write into their lines. A service's standard output has one priority in the
//! journal, so only its text distinguishes a complaint from a report.

use crate::event::Severity;
use crate::text_prefix::text_prefix;

/// Bytes and words of a line in which a level is searched.
const HEAD_BYTES: usize = 160;
const HEAD_WORDS: usize = 7;

/// The severity that a line states: klog and glog (`E0118 17:33:58.888700 …`), `level=error`
/// (logrus, logfmt), JSON (`"level":"error"`, pino's numbers), `[error]` (nginx, Apache), and a
/// word in capitals behind a time or in front of the text (Python, log4j, zap, tracing,
/// PostgreSQL). `None` where it states none.
#[must_use]
pub fn logged_severity(line: &str) -> Option<Severity> {
    let line = line.trim_start();
    if line.starts_with('{') {
        return json(line);
    }
    klog(line).or_else(|| key_value(line)).or_else(|| words(line))
}

/// `Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg`.
fn klog(line: &str) -> Option<Severity> {
    let bytes = line.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|b| b.iter().all(u8::is_ascii_digit))
    };
    // glog has the year since 0.6: `I20240118 17:33:58.1`.
    let blank = if digits(1..9) { 9 } else { 5 };
    if !digits(1..5) || bytes.get(blank) != Some(&b' ') || !digits(blank + 1..blank + 3) {
        return None;
    }
    match bytes[0] {
        b'I' => Some(Severity::INFO),
        b'W' => Some(Severity::WARN),
        b'E' => Some(Severity::ERROR),
        b'F' => Some(Severity::FATAL),
        b'D' => Some(Severity::DEBUG),
        _ => None,
    }
}

/// A level's name in any case, as loggers abbreviate it.
fn level(word: &str) -> Option<Severity> {
    const NAMES: [(&str, Severity); 23] = [
        ("trace", Severity::TRACE),
        ("debug", Severity::DEBUG),
        ("dbug", Severity::DEBUG),
        ("fine", Severity::DEBUG),
        ("info", Severity::INFO),
        ("information", Severity::INFO),
        ("notice", Severity(10)),
        ("note", Severity(10)),
        ("log", Severity::INFO),
        ("warn", Severity::WARN),
        ("warning", Severity::WARN),
        ("error", Severity::ERROR),
        ("err", Severity::ERROR),
        ("eror", Severity::ERROR),
        ("severe", Severity::ERROR),
        ("critical", Severity::CRITICAL),
        ("crit", Severity::CRITICAL),
        ("dpanic", Severity::CRITICAL),
        ("panic", Severity::FATAL),
        ("fatal", Severity::FATAL),
        // Servers write these about themselves, not about the node.
        ("alert", Severity::CRITICAL),
        ("emerg", Severity::CRITICAL),
        ("emergency", Severity::CRITICAL),
    ];
    NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, severity)| *severity)
}

fn head(line: &str) -> &str {
    text_prefix(line, HEAD_BYTES)
}

/// `level=error`, `lvl=eror`, `severity="ERROR"`.
fn key_value(line: &str) -> Option<Severity> {
    let line = head(line);
    ["level=", "lvl=", "severity="].into_iter().find_map(|key| {
        let (before, value) = line.split_once(key)?;
        let is_key = before.is_empty() || before.ends_with([' ', '\t', ',']);
        let value = value.trim_start_matches('"');
        let end = value.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(value.len());
        is_key.then(|| level(&value[..end]))?
    })
}

/// The first `"level"`, `"severity"`, `"lvl"` or `"levelname"` of a JSON object; MongoDB's `"s"`.
fn json(line: &str) -> Option<Severity> {
    if line.starts_with("{\"t\":{\"$date\":")
        && let Some((_, rest)) = line.split_once("\"s\":\"")
    {
        return match rest.bytes().next()? {
            b'F' => Some(Severity::FATAL),
            b'E' => Some(Severity::ERROR),
            b'W' => Some(Severity::WARN),
            b'I' => Some(Severity::INFO),
            b'D' => Some(Severity::DEBUG),
            _ => None,
        };
    }
    let keys = ["\"level\"", "\"severity\"", "\"lvl\"", "\"levelname\"", "\"log.level\""];
    keys.into_iter().find_map(|key| {
        let (_, rest) = line.split_once(key)?;
        let value = rest.trim_start().strip_prefix(':')?.trim_start();
        if let Some(text) = value.strip_prefix('"') {
            return level(text.split('"').next()?);
        }
        // pino and bunyan: 10 trace, 20 debug, 30 info, 40 warn, 50 error, 60 fatal.
        let digits = value.bytes().take_while(u8::is_ascii_digit).count();
        match value[..digits].parse::<u32>().ok()? {
            10 => Some(Severity::TRACE),
            20 => Some(Severity::DEBUG),
            30 => Some(Severity::INFO),
            40 => Some(Severity::WARN),
            50 => Some(Severity::ERROR),
            60 => Some(Severity::FATAL),
            _ => None,
        }
    })
}

/// A level among the first words. In running text ("an ERROR occurred") the word is no level: it
/// must stand in brackets, begin the line, or follow a line's beginning with a time.
fn words(line: &str) -> Option<Severity> {
    let line = head(line);
    let has_time =
        line.trim_start_matches(['[', '(', '<']).starts_with(|c: char| c.is_ascii_digit());
    for (at, word) in line.split_ascii_whitespace().take(HEAD_WORDS).enumerate() {
        let bare = word.trim_matches(['[', ']', '(', ')', '<', '>', ':', '|', ',']);
        // Python's `ERROR:root:text`, nginx's and Apache's `[error]`, `[core:error]`.
        let is_bracketed = word.starts_with(['[', '<']) && word.contains([']', '>']);
        if is_bracketed && let Some(found) = bare.rsplit([':', '[', ']']).find_map(level) {
            return Some(found);
        }
        let name = bare.split(':').next().unwrap_or(bare);
        let is_upper = name.len() > 2 && name.bytes().all(|b| b.is_ascii_uppercase());
        let is_first = at == 0 && (word.len() > name.len() || line.len() > word.len());
        if is_upper
            && (has_time || is_first)
            && let Some(found) = level(name)
        {
            return Some(found);
        }
        // zap's console: time, tab, level in lower case, tab.
        if has_time
            && at < 3
            && line.contains('\t')
            && let Some(found) = level(bare)
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_of_loggers() {
        for (line, severity) in [
            ("I0118 17:33:58.888700 1457370 a.go:1] x", Severity::INFO),
            ("W0118 17:33:58.888700       1 a.go:1] error: x", Severity::WARN),
            ("E0118 17:33:58.888700 1457370 a.go:1] x", Severity::ERROR),
            ("F20240118 17:33:58.888700 12 a.cc:1] x", Severity::FATAL),
            ("time=\"2024-01-18T17:33:58Z\" level=error msg=\"x\"", Severity::ERROR),
            ("t=2024-01-18T17:33:58 lvl=eror msg=x", Severity::ERROR),
            ("level=warn ts=2024-01-18 caller=a.go:1 err=x", Severity::WARN),
            (r#"{"level":"fatal","ts":1,"msg":"x"}"#, Severity::FATAL),
            (r#"{"ts":1,"severity": "WARNING","message":"x"}"#, Severity::WARN),
            (r#"{"level":50,"time":1,"msg":"x"}"#, Severity::ERROR),
            (r#"{"t":{"$date":"2024-06-11"},"s":"E",  "c":"CONTROL","msg":"x"}"#, Severity::ERROR),
            ("ERROR:root:x", Severity::ERROR),
            ("2024-01-18 17:33:58,888 - app.db - CRITICAL - x", Severity::CRITICAL),
            ("2024-01-18 17:33:58,888 ERROR [main] c.x.Y: x", Severity::ERROR),
            ("[2024-01-18 17:33:58] WARN x", Severity::WARN),
            ("2024-01-18T17:33:58.888Z ERROR app::db: x", Severity::ERROR),
            ("2024-01-18T17:33:58.888Z\terror\tapp/db.go:12\tx", Severity::ERROR),
            ("2024-01-18 17:33:58.888 UTC [123] FATAL:  x", Severity::FATAL),
            ("2024/01/18 17:33:58 [emerg] 12#12: x", Severity::CRITICAL),
            ("[Thu Jan 18 17:33:58 2024] [core:error] [pid 1] x", Severity::ERROR),
            ("[2024-01-18T17:33:58,888][ERROR][o.e.b.Bootstrap] [n1] x", Severity::ERROR),
            ("FATAL: x", Severity::FATAL),
            ("INFO: ready", Severity::INFO),
        ] {
            assert_eq!(logged_severity(line), Some(severity), "{line}");
        }
    }

    #[test]
    fn running_text_states_no_level() {
        for line in [
            "",
            "listening on 0.0.0.0:80",
            "an ERROR occurred",
            "10.0.0.7 - - GET /healthz 200 2ms",
            "E0118",
            "Error: no such file",
            "loglevel=3",
            "set log level=high",
            "ERROR",
            "{\"a\":1}",
            "docker.service: Failed with result 'exit-code'.",
        ] {
            assert_eq!(logged_severity(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(line in "[ -~äß\\t]{0,220}") {
            let _ = logged_severity(&line);
        }
    }
}
