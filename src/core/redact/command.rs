//! Options of well-known programs whose values are secrets although their names don't show it.

use super::names::{NameClass, Normalized};
use super::value::{REDACTED, is_reference_or_mark};

/// Which part of an option's value is hidden.
#[derive(Clone, Copy)]
enum Hide {
    /// All of it.
    Word,
    /// The part behind the first colon; all of it without a colon: `user:password`.
    Password,
    /// The part behind the first percent sign: `user%password`.
    Percent,
    /// The part behind `pass:`; nothing without it.
    Pass,
}

/// Programs, their options with a secret as the next word, and what of it is hidden.
const OPTIONS: &[(&[&str], &[&str], Hide)] = &[
    (&["curl"], &["-u", "--user", "-U", "--proxy-user"], Hide::Password),
    (&["curl"], &["-b", "--cookie", "--oauth2-bearer", "--pass"], Hide::Word),
    (&["wget"], &["--http-passwd", "--proxy-passwd"], Hide::Word),
    (&["http", "https", "xh"], &["-a", "--auth"], Hide::Password),
    (&["redis-cli", "valkey-cli"], &["-a", "--pass"], Hide::Word),
    (&["sshpass"], &["-p"], Hide::Word),
    (&["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami"], &["-w"], Hide::Word),
    (&["ldappasswd"], &["-w", "-s", "-a"], Hide::Word),
    (&["smbclient", "rpcclient"], &["-U", "--user"], Hide::Percent),
    (&["openssl"], &["-pass", "-passin", "-passout", "-password"], Hide::Pass),
    (&["openssl"], &["-k", "-K"], Hide::Word),
    (&["mongo", "mongosh", "mongodump", "mongorestore", "cqlsh"], &["-p"], Hide::Word),
    (&["mosquitto_pub", "mosquitto_sub", "ipmitool", "sqlcmd", "bcp"], &["-P"], Hide::Word),
    (&["zip", "unzip"], &["-P", "--password"], Hide::Word),
    (&["snmpwalk", "snmpget", "snmpset"], &["-c", "-A", "-X"], Hide::Word),
];
/// Programs whose `-pVALUE` is a password.
const DASH_P: &[&str] = &[
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mysqlimport",
    "mysqlshow",
    "mysqlcheck",
    "mariadb",
    "mariadb-dump",
    "mariadb-admin",
    "sshpass",
    "7z",
    "7za",
    "7zr",
];
/// Programs whose subcommand `login` has `-p PASSWORD`.
const LOGINS: &[&str] =
    &["docker", "podman", "buildah", "nerdctl", "helm", "oras", "skopeo", "crane", "az", "oc"];

/// Texts that begin a command line with such options; what follows is examined word by word.
pub(super) const PROGRAM_STARTS: &[&str] = &[
    "curl",
    "wget",
    "xh ",
    "http ",
    "redis-cli",
    "valkey-cli",
    "sshpass",
    "ldap",
    "smbclient",
    "rpcclient",
    "openssl",
    "mongo",
    "cqlsh",
    "mosquitto_",
    "ipmitool",
    "sqlcmd",
    "bcp ",
    "zip ",
    "snmpwalk",
    "snmpget",
    "snmpset",
    "mysql",
    "mariadb",
    "7z ",
    "7za ",
    "7zr ",
    " login",
    "\"login",
    "'login",
    "7z\"",
    "zip\"",
];

/// Words that begin another command.
fn begins_command(word: &str) -> bool {
    matches!(
        word,
        "|" | "||"
            | "&&"
            | ";"
            | "&"
            | "sudo"
            | "exec"
            | "env"
            | "time"
            | "nohup"
            | "sh"
            | "bash"
            | "-c"
            | "("
            | "{"
            | "then"
            | "do"
    )
}

/// The state of reading a command line word by word.
pub(super) struct Words<'a> {
    program: &'a str,
    is_login: bool,
    next: Option<Hide>,
    /// Whether options are classified by their names, too.
    by_name: bool,
}

impl<'a> Words<'a> {
    /// At the beginning of a command line. `by_name`: options such as `--password` are classified
    /// here and not by the caller.
    pub(super) fn new(by_name: bool) -> Self {
        Self { program: "", is_login: false, next: None, by_name }
    }

    /// Reads a word; returns the range of it that is a secret.
    pub(super) fn word(&mut self, word: &'a str) -> Option<(usize, usize)> {
        if let Some(hide) = self.next.take() {
            return self.value(hide, word);
        }
        if begins_command(word) {
            let by_name = self.by_name;
            *self = Self::new(by_name);
            return None;
        }
        // The program, or one that it runs: `timeout 5 mysql …`, `kubectl exec web -- mysql …`.
        if self.program.is_empty() || !word.starts_with('-') {
            let name = word.rsplit('/').next().unwrap_or(word);
            if !word.contains('=') && !word.starts_with('-') && self.is_program(name) {
                self.program = name;
                self.is_login = false;
                return None;
            }
        }
        if self.program.is_empty() {
            return None;
        }
        if LOGINS.contains(&self.program) && word == "login" {
            self.is_login = true;
            return None;
        }
        if !word.starts_with('-') {
            return None;
        }
        if self.is_login && word == "-p" {
            self.next = Some(Hide::Word);
            return None;
        }
        if DASH_P.contains(&self.program) && word.len() > 2 && word.starts_with("-p") {
            return self.value(Hide::Word, word).map(|(_, end)| (2, end));
        }
        if self.program == "curl" && word.len() > 2 && word.starts_with("-u") {
            return self.value(Hide::Password, &word[2..]).map(|(start, end)| (start + 2, end + 2));
        }
        let matches = |(programs, options, _): &&(&[&str], &[&str], Hide)| {
            programs.contains(&self.program) && options.contains(&word)
        };
        self.next = OPTIONS.iter().find(matches).map(|(_, _, hide)| *hide);
        if self.next.is_none() && self.by_name && !word.contains(['=', ':', ' ']) {
            let class = Normalized::new(word).map(|name| name.class());
            let is_secret = class.is_some_and(|class| class > NameClass::Ordinary);
            self.next = is_secret.then_some(Hide::Word);
        }
        None
    }

    /// Whether a word begins a command: any word where none has begun, and one with options for
    /// secrets wherever it stands.
    fn is_program(&self, name: &str) -> bool {
        self.program.is_empty()
            || OPTIONS.iter().any(|(programs, ..)| programs.contains(&name))
            || DASH_P.contains(&name)
            || LOGINS.contains(&name)
    }

    fn value(&self, hide: Hide, word: &str) -> Option<(usize, usize)> {
        let start = match hide {
            Hide::Word => 0,
            Hide::Password => word.find(':').map_or(0, |colon| colon + 1),
            Hide::Percent => word.find('%')? + 1,
            Hide::Pass => word.starts_with("pass:").then_some(5)?,
        };
        let secret = &word[start..];
        let is_option = matches!(hide, Hide::Word) && start == 0 && word.starts_with("--");
        let is_none = secret.is_empty() || is_reference_or_mark(secret) || is_option;
        (!is_none && !secret.ends_with(REDACTED)).then_some((start, word.len()))
    }
}

/// Whether a character stands before a word without being a part of it: the words may be those of
/// a list, such as `[curl -u joe:x]` and `["curl","-u","joe:x"]`, also within a quoted text.
pub(super) fn opens(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '(' | '[' | '{' | '<' | ',' | '\\')
}

/// Calls `found` with the ranges of secrets in the command line that begins at `start` and ends
/// with the line.
pub(super) fn in_text(text: &str, start: usize, mut found: impl FnMut((usize, usize))) {
    let end = text[start..].find(['\n', '\r']).map_or(text.len(), |end| start + end);
    let mut words = Words::new(false);
    let mut at = start;
    while at < end {
        let c = text[at..].chars().next().unwrap_or(' ');
        let is_quote = matches!(c, '"' | '\'');
        let opens_words = opens(c) && !is_quote && !text[at..].starts_with(REDACTED);
        if c.is_whitespace() || matches!(c, ')' | ';' | '\0') || opens_words {
            if c == ';' {
                words = Words::new(false);
            }
            at += c.len_utf8();
            continue;
        }
        let (from, to) = if is_quote {
            let close = text[at + 1..end].find(c).map_or(end, |close| at + 1 + close);
            (at + 1, close)
        } else {
            // The first word may be the first one of a list, behind its quote.
            let is_first = at == start;
            let stops = |c: char| {
                c.is_whitespace()
                    || matches!(c, '\0' | ';' | ')')
                    || (is_first && matches!(c, '"' | '\''))
            };
            (at, text[at..end].find(stops).map_or(end, |stop| at + stop))
        };
        let word = text[from..to].trim_end_matches(['"', '\'', '`', '\\']);
        if let Some((start, end)) = words.word(word) {
            found((from + start, from + end));
        }
        let is_in_list = at == start && text[to..end].starts_with(['"', '\'']);
        at = (to + usize::from(to < end && (is_quote || is_in_list))).max(at + 1);
    }
}
