//! Values in a text that people paste into a shell. They come from events, and so from whoever can
//! name a process, a unit or a pod.

/// The text of an action while it is filled: knows whether a value comes into quotes.
#[derive(Default)]
pub(crate) struct ShellText {
    text: String,
    quote: Option<char>,
}

impl ShellText {
    /// Adds a part of the rule's own text.
    pub(crate) fn push_own(&mut self, part: &str) {
        let mut rest = part.chars().peekable();
        while let Some(c) = rest.next() {
            match self.quote {
                Some(quote) if c == quote => self.quote = None,
                // The one of "can't" is within a word.
                None if matches!(c, '\'' | '"')
                    && !self.text.ends_with(char::is_alphanumeric)
                    && rest.peek() != Some(&' ') =>
                {
                    self.quote = Some(c);
                }
                _ => {}
            }
            self.text.push(c);
        }
    }

    /// Adds a value, so that a shell takes it as a part of one word: in quotes if it has anything
    /// but letters, digits and what has no meaning for a shell. Control characters are replaced.
    pub(crate) fn push_value(&mut self, value: &str) {
        let value: String = value
            .chars()
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
        match self.quote {
            _ if value.chars().all(is_plain) => self.text.push_str(&value),
            None => {
                self.text.push('\'');
                self.text.push_str(&value.replace('\'', "'\\''"));
                self.text.push('\'');
            }
            Some('\'') => self.text.push_str(&value.replace('\'', "'\\''")),
            Some(_) => {
                for c in value.chars() {
                    if matches!(c, '"' | '$' | '`' | '\\') {
                        self.text.push('\\');
                    }
                    self.text.push(c);
                }
            }
        }
    }

    /// The whole text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// A value as one word of a shell.
pub(crate) fn word(value: &str) -> String {
    let mut text = ShellText::default();
    text.push_value(value);
    text.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn filled(before: &str, value: &str, after: &str) -> String {
        let mut text = ShellText::default();
        text.push_own(before);
        text.push_value(value);
        text.push_own(after);
        text.into_text()
    }

    #[test]
    fn usual_names_stay_as_they_are() {
        for value in ["nginx.service", "shop/web-7d9c5b-x2x7p", "10.0.0.1:443", "a@b%c", "größer"]
        {
            assert_eq!(word(value), value);
        }
    }

    #[test]
    fn what_a_shell_would_change_is_quoted() {
        for (value, quoted) in [
            (r"a\x2db.service", r"'a\x2db.service'"),
            ("x; reboot #", "'x; reboot #'"),
            ("it's", r"'it'\''s'"),
            ("a\nb\u{1b}[31m", "'a\u{fffd}b\u{fffd}[31m'"),
            ("*", "'*'"),
        ] {
            assert_eq!(word(value), quoted);
        }
        assert_eq!(
            filled("a mount that can't answer: grep -A20 'task ", "';reboot'", "'"),
            r"a mount that can't answer: grep -A20 'task '\'';reboot'\'''"
        );
        assert_eq!(filled("grep \"", "$(reboot)\"", "\" x"), "grep \"\\$(reboot)\\\"\" x");
        assert_eq!(filled("the image's name: echo ", "a b", ""), "the image's name: echo 'a b'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A real shell prints the value, whatever it is.
        #[test]
        fn shell_takes_a_value_as_one_argument(
            value in "[ -~äß€]{1,40}",
            (before, after) in prop_oneof![
                Just(("printf %s ", "")), Just(("printf %s '", "'")), Just(("printf %s \"", "\"")),
            ],
        ) {
            let out = Command::new("sh").args(["-c", &filled(before, &value, after)]).output().unwrap();
            prop_assert_eq!(String::from_utf8(out.stdout).unwrap(), value);
        }
    }
}
