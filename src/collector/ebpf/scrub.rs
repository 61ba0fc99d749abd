//! Removes secrets from command lines before any other component processes them. In doubt a value
//! is removed: a command line without a password is still useful, one with a password is a leak.

const HIDDEN: &str = "***";

/// Suffixes of words that name a secret.
const SECRET_ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "credential",
    "credentials",
    "pwd",
    "authkey",
    "signature",
];
/// Whole words that name a secret.
const SECRET_WORDS: &[&str] = &["pass", "auth", "authorization", "bearer", "cookie", "sig"];
/// Last words of names that refer to a secret but whose value isn't one.
const ABOUT_SECRETS: &[&str] = &[
    "file", "path", "dir", "name", "type", "length", "ttl", "url", "uri", "endpoint", "expiry",
    "stdin", "helper", "policy",
];
/// Prefixes of values that are secrets in any position.
const TOKEN_STARTS: &[&str] = &[
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "hvs.",
    "hvb.",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "sk-",
    "sk_live_",
    "rk_live_",
    "npm_",
    "dop_v1_",
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
];

/// Whether the word after this flag is or contains a secret, by program.
fn hides_next(program: &str, flag: &str) -> bool {
    match program {
        "sshpass" => flag == "-p",
        "redis-cli" => flag == "-a",
        "ldapsearch" | "ldapadd" | "ldapmodify" => flag == "-w",
        "curl" | "wget" => matches!(flag, "-u" | "--user" | "--proxy-user" | "-b" | "-U"),
        "smbclient" => flag == "-U",
        "openssl" => matches!(flag, "-passin" | "-passout" | "-pass" | "-k" | "-K"),
        _ => false,
    }
}

/// Whether a name implies that its value is a secret.
fn names_secret(name: &str) -> bool {
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() || name.len() > 128 {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    let words = || lower.split(|c: char| !c.is_ascii_alphanumeric());
    let last = words().next_back().unwrap_or("");
    if ABOUT_SECRETS.contains(&last) {
        return false;
    }
    let joined: String = words().collect();
    words().any(|w| SECRET_WORDS.contains(&w) || SECRET_ENDS.iter().any(|e| w.ends_with(e)))
        || SECRET_ENDS.iter().any(|e| joined.ends_with(e))
}

/// Whether a value looks like an issued token.
fn is_token(value: &str) -> bool {
    value.len() >= 16 && TOKEN_STARTS.iter().any(|start| value.starts_with(start))
}

/// The length of a value at the start of a text.
fn value_len(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    match quote {
        Some(q) => text[1..].find(q).map_or(text.len(), |end| end + 2),
        None => text
            .find(|c: char| c.is_whitespace() || matches!(c, '&' | ';' | ',' | '"' | '\'' | '}'))
            .unwrap_or(text.len()),
    }
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

/// Hides `name=value` and `name: value` inside a word, and tokens and credentials in URLs.
fn scrub_word(word: &str, out: &mut String) {
    let mut rest = word;
    while !rest.is_empty() {
        let bytes = rest.as_bytes();
        let name_len = bytes.iter().take_while(|b| is_name_byte(**b)).count();
        if name_len == 0 {
            let skip = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..skip]);
            rest = &rest[skip..];
            continue;
        }
        let (name, after) = rest.split_at(name_len);
        if is_token(name) {
            out.push_str(HIDDEN);
            rest = after;
            continue;
        }
        if let Some(tail) = after.strip_prefix("://") {
            rest = scrub_url(name, tail, out);
            continue;
        }
        out.push_str(name);
        rest = scrub_value(name, after, out);
    }
}

/// Hides the value that follows a name, if the name implies a secret. Returns the rest.
fn scrub_value<'a>(name: &str, after: &'a str, out: &mut String) -> &'a str {
    // {"password": "x"}: a quote may come between the name and its colon.
    let quoted = after.strip_prefix(['"', '\'']).unwrap_or(after);
    let Some(value) = quoted.strip_prefix(['=', ':']) else {
        return after;
    };
    if !names_secret(name) {
        return after;
    }
    let value = value.trim_start_matches(' ');
    out.push_str(&after[..after.len() - value.len()]);
    let mut len = value_len(value);
    // "Authorization: Bearer x": the scheme is no secret, what follows it is.
    if ["Bearer", "Basic", "Token"].iter().any(|s| value[..len].eq_ignore_ascii_case(s)) {
        out.push_str(&value[..len]);
        out.push(' ');
        len = value.len() - value[len..].trim_start().len();
        len += value_len(&value[len..]);
    }
    if len > 0 {
        out.push_str(HIDDEN);
    }
    &value[len..]
}

/// Hides the password in `scheme://user:password@host…`. Returns the rest after the credentials.
fn scrub_url<'a>(scheme: &str, tail: &'a str, out: &mut String) -> &'a str {
    out.push_str(scheme);
    out.push_str("://");
    let authority = tail
        .find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace())
        .unwrap_or(tail.len());
    let Some(at) = tail[..authority].rfind('@') else {
        return tail;
    };
    let user_info = &tail[..at];
    match user_info.split_once(':') {
        Some((user, _)) if !is_token(user) => {
            out.push_str(user);
            out.push(':');
            out.push_str(HIDDEN);
        }
        None if user_info.len() < 20 => out.push_str(user_info),
        _ => out.push_str(HIDDEN),
    }
    &tail[at..]
}

/// Scrubs a command line word by word.
struct Scrubber<'a> {
    program: &'a str,
    hide_next: bool,
}

impl<'a> Scrubber<'a> {
    fn new() -> Self {
        Self { program: "", hide_next: false }
    }

    fn word(&mut self, word: &'a str, out: &mut String) {
        if std::mem::take(&mut self.hide_next) {
            out.push_str(HIDDEN);
            return;
        }
        if self.program.is_empty() && !word.contains('=') {
            self.program = word.rsplit('/').next().unwrap_or(word);
            return scrub_word(word, out);
        }
        if hides_next(self.program, word) {
            self.hide_next = true;
            return out.push_str(word);
        }
        if DASH_P.contains(&self.program) && word.len() > 2 && word.starts_with("-p") {
            out.push_str("-p");
            return out.push_str(HIDDEN);
        }
        if word.starts_with('-') && !word.contains(['=', ':', ' ']) && names_secret(word) {
            self.hide_next = true;
            return out.push_str(word);
        }
        if word.contains(char::is_whitespace) {
            return script(word, out);
        }
        scrub_word(word, out);
    }
}

/// Scrubs a word that consists of words: a shell script, a header, a connection string.
fn script(text: &str, out: &mut String) {
    // "Authorization: Bearer x" and "password = x" span spaces: names first, then flags.
    let mut named = String::with_capacity(text.len());
    scrub_word(text, &mut named);
    let mut inner = Scrubber::new();
    let mut rest = named.as_str();
    while !rest.is_empty() {
        let gap = rest.len() - rest.trim_start().len();
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = &rest[..end];
        if matches!(word, "|" | "||" | "&&" | ";" | "sudo" | "exec" | "env") {
            inner = Scrubber::new();
            out.push_str(word);
        } else if !word.is_empty() {
            inner.word(word, out);
        }
        rest = &rest[end..];
    }
}

/// Appends a JSON string.
fn push_json(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends the words of a command line to `out` as a JSON list without secrets. `args`: the words
/// as the kernel keeps them, separated by zero bytes. `lossy` and `clean`: buffers for reuse.
pub(super) fn command_line(args: &[u8], lossy: &mut String, clean: &mut String, out: &mut String) {
    lossy.clear();
    for chunk in args.utf8_chunks() {
        lossy.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            lossy.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let mut scrubber = Scrubber::new();
    out.push('[');
    for (i, word) in lossy.trim_end_matches('\0').split('\0').enumerate() {
        if i > 0 {
            out.push(',');
        }
        clean.clear();
        scrubber.word(word, clean);
        push_json(clean, out);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(words: &[&str]) -> String {
        let (mut lossy, mut clean, mut out) = Default::default();
        command_line(words.join("\0").as_bytes(), &mut lossy, &mut clean, &mut out);
        let list: Vec<String> = serde_json::from_str(&out).unwrap();
        list.join(" ")
    }

    #[test]
    fn secrets_are_hidden() {
        for words in [
            &["app", "--password=s3cr3t"][..],
            &["app", "--password", "s3cr3t"],
            &["app", "--db-pass", "s3cr3t", "--verbose"],
            &["app", "--dbPassword=s3cr3t"],
            &["/usr/bin/mysql", "-uroot", "-ps3cr3t", "db"],
            &["env", "TOKEN=s3cr3t", "AWS_SECRET_ACCESS_KEY=s3cr3t", "app"],
            &["curl", "-H", "Authorization: Bearer s3cr3t", "http://x"],
            &["curl", "-H", "authorization: s3cr3t"],
            &["curl", "-HX-Api-Key: s3cr3t"],
            &["curl", "-u", "joe:s3cr3t", "http://x"],
            &["curl", "http://joe:s3cr3t@host/path?q=1"],
            &["curl", "https://x/y?access_token=s3cr3t&z=1"],
            &["psql", "host=h password=s3cr3t user=u"],
            &["psql", "postgres://u:s3cr3t@h/db"],
            &["curl", "-d", r#"{"user":"u","password":"s3cr3t"}"#],
            &["curl", "-d", r#"{"password": "s3cr3t with spaces"}"#],
            &["sh", "-c", "mysql -u root -ps3cr3t < x"],
            &["sh", "-c", "export API_KEY=s3cr3t; app --token s3cr3t"],
            &["bash", "-c", "cd / && sshpass -p s3cr3t ssh h"],
            &["sshpass", "-p", "s3cr3t", "ssh", "h"],
            &["redis-cli", "-a", "s3cr3t", "ping"],
            &["openssl", "enc", "-pass", "pass:s3cr3t"],
            &["git", "clone", "https://ghp_s3cr3ts3cr3ts3cr3t@github.com/a/b"],
            &["app", "ghp_s3cr3ts3cr3ts3cr3t"],
            &["app", "--jwt", "eyJhbGciOiJIUzI1NiJ9.s3cr3t"],
        ] {
            let out = scrubbed(words);
            assert!(!out.contains("s3cr3t"), "{words:?} became {out}");
            assert!(out.contains(HIDDEN), "{words:?} became {out}");
        }
    }

    #[test]
    fn command_line_without_secret_is_unchanged() {
        for line in [
            "/usr/sbin/sshd -D -p 22",
            "python3 -m http.server 8080",
            "app --token-file=/run/secret --password-file /x",
            "git clone https://git@github.com/a/b",
            "nginx -g daemon off;",
            "tar -xzf a.tgz key=value x:y",
            "kubectl get secret my-secret -o yaml",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(scrubbed(&words), line);
        }
        assert_eq!(
            scrubbed(&["sh", "-c", "echo  'a b' && ls -l | wc"]),
            "sh -c echo  'a b' && ls -l | wc"
        );
    }

    #[test]
    fn text_around_a_secret_is_unchanged() {
        assert_eq!(
            scrubbed(&["psql", "host=h password=x user=u"]),
            "psql host=h password=*** user=u"
        );
        assert_eq!(
            scrubbed(&["curl", "-H", "Authorization: Bearer abc"]),
            "curl -H Authorization: Bearer ***"
        );
    }

    #[test]
    fn any_bytes_produce_valid_json() {
        let (mut lossy, mut clean, mut out) = Default::default();
        for bytes in [&b""[..], b"\xff\xfe\0a\"\\\n\x01", b"\0\0", "ä=ö\0://@:".as_bytes()] {
            out = String::new();
            command_line(bytes, &mut lossy, &mut clean, &mut out);
            serde_json::from_str::<Vec<String>>(&out).unwrap();
        }
        let _ = &out;
    }
}
