//! The level of the log: the configured one, and one that is in force for a time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use tapio_core::clock;

/// The levels of a log, `off` for none.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

/// Validates a level, or a filter: levels and `TARGET=LEVEL`, with a comma between two of them. The
/// log's own filter takes every other word for a target.
///
/// # Errors
/// The part that is neither.
pub fn check_level(text: &str) -> Result<(), String> {
    let is_target = |target: &str| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':');
        !target.is_empty() && target.chars().all(is_name)
    };
    for part in text.split(',').map(str::trim) {
        let (target, level) = part.split_once('=').map_or((None, part), |(t, l)| (Some(t), l));
        if !is_level(level) {
            let levels = LEVELS.join(", ");
            return Err(format!(
                "{level:?} isn't a level: expected one of {levels}, or TARGET=LEVEL"
            ));
        }
        if let Some(target) = target.filter(|target| !is_target(target)) {
            return Err(format!("{target:?} isn't a target: expected one such as tapio::bridge"));
        }
    }
    Ok(())
}

/// Changes the filter of the log. The error is the cause.
type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The level of the log.
pub struct LogLevel {
    set: SetFilter,
    state: Mutex<State>,
}

struct State {
    configured: String,
    temporary: Option<Temporary>,
}

struct Temporary {
    level: String,
    /// When it ends; `None`: with the process.
    until: Option<Instant>,
}

impl LogLevel {
    /// `configured` is in force; `set` replaces it.
    pub fn new(
        configured: String,
        set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let state = Mutex::new(State { configured, temporary: None });
        Self { set: Box::new(set), state }
    }

    /// Takes a new configured level. It is in force at once, unless there is a temporary one.
    ///
    /// # Errors
    /// An invalid level; nothing has changed then.
    pub fn configure(&self, level: &str) -> Result<(), String> {
        let mut state = self.lock();
        if state.temporary.is_none() {
            (self.set)(level)?;
        }
        level.clone_into(&mut state.configured);
        Ok(())
    }

    /// Puts a level in force for a time, or until the process ends.
    ///
    /// # Errors
    /// An invalid level; nothing has changed then.
    pub fn set_for(&self, level: &str, time: Option<Duration>) -> Result<(), String> {
        let mut state = self.lock();
        (self.set)(level)?;
        let until = time.and_then(|time| clock::instant().checked_add(time));
        state.temporary = Some(Temporary { level: level.to_owned(), until });
        tracing::info!(level, ?time, "log level changed at run time");
        Ok(())
    }

    /// Puts the configured level in force again.
    pub fn reset(&self) {
        self.end(|_| true);
    }

    /// Ends a temporary level whose time is over. To be called about once a second.
    pub fn poll(&self) {
        let now = clock::instant();
        self.end(|temporary| temporary.until.is_some_and(|until| until <= now));
    }

    fn end(&self, is_over: impl Fn(&Temporary) -> bool) {
        let mut state = self.lock();
        if state.temporary.take_if(|temporary| is_over(temporary)).is_none() {
            return;
        }
        let level = &state.configured;
        match (self.set)(level) {
            Ok(()) => tracing::info!(level, "configured log level is in force again"),
            Err(error) => tracing::error!(level, error, "can't restore the configured log level"),
        }
    }

    /// The level in force, the configured one, and how long the first one stays.
    #[must_use]
    pub fn json(&self) -> Json {
        let state = self.lock();
        let left = |temporary: &Temporary| {
            let left = |until: Instant| until.saturating_duration_since(clock::instant());
            temporary.until.map(|until| left(until).as_secs_f64().ceil() as u64)
        };
        json!({
            "level": state.temporary.as_ref().map_or(&state.configured, |t| &t.level),
            "configured": state.configured,
            "seconds_left": state.temporary.as_ref().and_then(left),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_part_of_a_level_is_known() {
        for level in
            ["info", "off", "INFO", "info,tapio::bridge=debug", "warn, h2=off", "a-b=trace"]
        {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
        for (level, part) in [
            ("", "\"\""),
            ("inof", "\"inof\""),
            ("foo,bar=baz", "\"foo\""),
            ("info,tapio=debgu", "\"debgu\""),
            ("info,", "\"\""),
            ("=info", "\"\" isn't a target"),
            ("tapio=", "\"\" isn't a level"),
            ("a=b=info", "\"b=info\""),
            ("[span]=info", "\"[span]\""),
            ("3", "\"3\""),
            ("info\nwarn", "\"info\\nwarn\""),
        ] {
            let error = check_level(level).unwrap_err();
            assert!(error.starts_with(part), "{level:?}: {error}");
        }
    }

    #[test]
    fn temporary_level_ends_and_the_configured_one_is_restored() {
        let in_force = Arc::new(Mutex::new(String::from("info")));
        let filter = Arc::clone(&in_force);
        let level = LogLevel::new("info".into(), move |level| match level {
            "loud" => Err("not a level".into()),
            level => {
                *filter.lock().unwrap() = level.to_owned();
                Ok(())
            }
        });
        let now = || in_force.lock().unwrap().clone();
        assert!(level.set_for("loud", None).is_err());
        assert_eq!(level.json()["level"], "info");
        level.set_for("debug", Some(Duration::ZERO)).unwrap();
        assert_eq!(now(), "debug");
        // A reload changes the level to which it returns.
        level.configure("warn").unwrap();
        assert_eq!(now(), "debug");
        level.poll();
        assert_eq!(now(), "warn");
        level.set_for("trace", Some(Duration::from_secs(3600))).unwrap();
        level.poll();
        assert_eq!(now(), "trace");
        assert_eq!(level.json()["seconds_left"], 3600, "a begun second counts");
        level.reset();
        assert_eq!((now().as_str(), level.json()["seconds_left"].is_null()), ("warn", true));
        level.set_for("error", None).unwrap();
        level.poll();
        assert_eq!(now(), "error", "without an end it stays");
    }
}
