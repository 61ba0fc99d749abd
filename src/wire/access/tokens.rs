//! The file of tokens: a line for each, `write NODE TOKEN`, `read NAME TOKEN` or
//! `operate NAME TOKEN`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::identity::Identity;
use super::right::Right;
use crate::tls::{Reloaded, TlsError, is_due, resolve, secret_text};

/// Stands for every node.
const ANY_NODE: &str = "*";

/// The tokens of a file.
#[derive(Default)]
struct Tokens(Vec<(Box<[u8]>, Arc<Identity>)>);

impl Tokens {
    /// Parses the lines of a file. The error never has a token.
    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parts: Vec<&str> = line.split_whitespace().collect();
            let [right, name, token] = parts[..] else {
                return Err(format!(
                    "line {number}: isn't `write NODE TOKEN`, `read NAME TOKEN` or \
                     `operate NAME TOKEN`"
                ));
            };
            let (right, names) = match (right, name) {
                ("write", ANY_NODE) => (Right::Write, None),
                ("write", _) => (Right::Write, Some(vec![name.to_owned()])),
                ("read", _) => (Right::Read, Some(vec![name.to_owned()])),
                ("operate", _) => (Right::Operate, Some(vec![name.to_owned()])),
                _ => {
                    let cause = "the right is neither write nor read nor operate";
                    return Err(format!("line {number}: {cause}"));
                }
            };
            let identity = Identity::of_token(names, right);
            tokens.push((token.as_bytes().into(), Arc::new(identity)));
        }
        Ok(Self(tokens))
    }

    /// The identity of a token. Takes the same time whichever of them it is, or none.
    fn find(&self, token: &[u8]) -> Option<Arc<Identity>> {
        let mut found = u64::MAX;
        for (index, (known, _)) in (0u64..).zip(&self.0) {
            let is_same: Choice = known.ct_eq(token);
            found.conditional_assign(&index, is_same);
        }
        self.0.get(usize::try_from(found).ok()?).map(|(_, identity)| Arc::clone(identity))
    }
}

/// The file of tokens, read again when it changes.
pub(super) struct TokenFile {
    tokens: Reloaded<Tokens>,
    looked_ns: AtomicU64,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be used.
    pub(super) fn new(path: &Path) -> Result<Self, TlsError> {
        let path = resolve(path);
        let read_from = path.clone();
        let read = move || {
            Tokens::parse(&secret_text(&read_from)?)
                .map_err(|cause| TlsError { file: read_from.display().to_string(), cause })
        };
        let tokens = Reloaded::new(vec![path], read)?;
        Ok(Self { tokens, looked_ns: AtomicU64::new(0) })
    }

    /// The identity of a token.
    pub(super) fn find(&self, token: &[u8]) -> Option<Arc<Identity>> {
        let tokens = match is_due(&self.looked_ns) {
            true => self.tokens.look(),
            false => self.tokens.current(),
        };
        tokens.find(token)
    }

    /// How often a changed file couldn't be used.
    pub(super) fn failures(&self) -> u64 {
        self.tokens.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_has_the_right_and_the_node_of_its_line() {
        let text =
            "# nodes\nwrite n1 aaaa\n\n  write * bbbb\nread grafana cccc\noperate ann dddd\n";
        let tokens = Tokens::parse(text).unwrap();
        let find = |token: &str| tokens.find(token.as_bytes());
        let n1 = find("aaaa").unwrap();
        assert!(n1.may(Right::Write) && !n1.may(Right::Read));
        assert!(n1.is_node("n1") && !n1.is_node("n2"));
        assert!(find("bbbb").unwrap().is_node("n2"));
        let grafana = find("cccc").unwrap();
        assert!(grafana.may(Right::Read) && !grafana.may(Right::Write));
        assert!(!grafana.may(Right::Operate));
        let ann = find("dddd").unwrap();
        assert!(ann.may(Right::Read) && ann.may(Right::Operate) && !ann.may(Right::Write));
        for wrong in ["", "aaa", "aaaaa", "AAAA", "n1"] {
            assert!(find(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn error_has_the_line_and_no_token() {
        for (text, line) in
            [("write n1\n", 1), ("# c\nexecute n1 hidden\n", 2), ("read a hidden more\n", 1)]
        {
            let error = Tokens::parse(text).err().unwrap();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
