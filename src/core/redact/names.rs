//! Names whose values are secrets: of attributes, options, variables, headers and keys.

/// Longest name that is classified, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 128;

/// A name's implication for its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NameClass {
    /// Nothing.
    Ordinary,
    /// Usually a word of prose: a secret only where the value has the shape of one.
    Doubtful,
    /// A secret, unless the value is a count or a flag.
    Weak,
    /// A header: its value is the rest of the line.
    Header,
    /// A secret, whatever its shape.
    Strong,
}

const STRONG_ENDS: &[&str] = &["password", "passwd", "passphrase", "passcode", "pwd", "secret"];
/// Ends of the whole name, without separators.
const WEAK_ENDS: &[&str] = &[
    "token",
    "jwt",
    "bearer",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "signature",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "accountkey",
    "sharedkey",
    "masterkey",
    "signingkey",
    "encryptionkey",
    "licensekey",
    "subscriptionkey",
    "sharedaccesskey",
    "connectionstring",
    "connstring",
    "connstr",
];
const HEADERS: &[&str] = &["authorization", "proxyauthorization", "cookie", "setcookie"];
/// Words that end like a secret's name and aren't one.
const NOT_PASS: &[&str] = &["bypass", "compass", "encompass", "surpass", "trespass"];
/// Last parts that say in which form the value is; the part before them decides.
const FORMS: &[&str] =
    &["value", "text", "string", "hash", "b64", "base64", "plain", "plaintext", "raw", "enc"];
/// Parameters of a URL's query that carry secrets.
const QUERY_NAMES: &[&str] =
    &["key", "sig", "code", "sas", "auth", "pass", "pw", "hmac", "ticket", "nonce", "otp"];

/// A name in lower case without separators, and where its last part begins.
pub(super) struct Normalized {
    bytes: [u8; MAX_NAME_BYTES],
    len: usize,
    last: usize,
    parts: usize,
}

impl Normalized {
    /// `None` for an empty name, one that is too long, and one that isn't ASCII.
    pub(super) fn new(name: &str) -> Option<Self> {
        let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.is_ascii() {
            return None;
        }
        let mut this = Self { bytes: [0; MAX_NAME_BYTES], len: 0, last: 0, parts: 1 };
        // The part before the last one, where the last one only has the value's form.
        let mut before = 0;
        let mut previous = b'_';
        for byte in name.bytes() {
            let is_start = byte.is_ascii_alphanumeric()
                && (!previous.is_ascii_alphanumeric()
                    || (byte.is_ascii_uppercase() && previous.is_ascii_lowercase()));
            if is_start && this.len > 0 {
                before = this.last;
                this.last = this.len;
                this.parts += 1;
            }
            if byte.is_ascii_alphanumeric() {
                this.bytes[this.len] = byte.to_ascii_lowercase();
                this.len += 1;
            }
            previous = byte;
        }
        while this.len > this.last + 1 && this.bytes[this.len - 1].is_ascii_digit() {
            this.len -= 1;
        }
        let has_form =
            this.parts > 1 && FORMS.contains(&this.last()) && !WEAK_ENDS.contains(&this.joined());
        if has_form && !this.joined().ends_with("connectionstring") {
            this.len = this.last;
            this.last = before;
        }
        Some(this)
    }

    /// The whole name.
    pub(super) fn joined(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    fn last(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.last..self.len]).unwrap_or_default()
    }

    /// Whether the name has several parts, as words of prose don't.
    pub(super) fn is_compound(&self) -> bool {
        self.parts > 1
    }

    /// The class of the name.
    pub(super) fn class(&self) -> NameClass {
        let (joined, last) = (self.joined(), self.last());
        if HEADERS.iter().any(|header| joined.ends_with(header)) {
            return NameClass::Header;
        }
        if STRONG_ENDS.iter().any(|end| last.ends_with(end)) {
            return NameClass::Strong;
        }
        if last.ends_with("pass") && !NOT_PASS.iter().any(|end| last.ends_with(end)) {
            let is_word = last == "pass" && !self.is_compound();
            return if is_word { NameClass::Weak } else { NameClass::Strong };
        }
        if WEAK_ENDS.iter().any(|end| joined.ends_with(end)) {
            return NameClass::Weak;
        }
        if matches!(last, "auth" | "dsn") { NameClass::Doubtful } else { NameClass::Ordinary }
    }

    /// Whether a parameter of a URL's query with this name carries a secret.
    pub(super) fn is_query_secret(&self) -> bool {
        self.class() > NameClass::Ordinary || QUERY_NAMES.contains(&self.joined())
    }
}

/// Classifies names, with those of the configuration.
pub(super) struct NameTest<'a> {
    pub(super) names: &'a [String],
    pub(super) allow: &'a [String],
}

impl NameTest<'_> {
    /// The class of a name, and whether it has several parts.
    pub(super) fn class(&self, name: &str, is_query: bool) -> (NameClass, bool) {
        let Some(normalized) = Normalized::new(name) else { return (NameClass::Ordinary, false) };
        let is_compound = normalized.is_compound();
        let joined = normalized.joined();
        if self.allow.iter().any(|allowed| allowed == joined) {
            return (NameClass::Ordinary, is_compound);
        }
        if self.names.iter().any(|extra| joined.ends_with(extra.as_str())) {
            return (NameClass::Strong, is_compound);
        }
        match normalized.class() {
            NameClass::Ordinary if is_query && normalized.is_query_secret() => {
                (NameClass::Weak, is_compound)
            }
            class => (class, is_compound),
        }
    }
}

/// Whether a value is a list of command line words by its name.
pub(super) fn is_command(name: &str) -> bool {
    Normalized::new(name).is_some_and(|name| {
        matches!(name.last(), "args" | "argv" | "cmd" | "cmdline" | "command" | "entrypoint")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> NameClass {
        Normalized::new(name).map_or(NameClass::Ordinary, |name| name.class())
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "password",
            "db.password",
            "dbPassword",
            "PGPASSWORD",
            "MYSQL_PWD",
            "client_secret",
            "clientSecret",
            "app.secret",
            "user_passwd",
            "ssh-passphrase",
            "db_pass",
            "-storepass",
            "password1",
            "password_hash",
            "secret_value",
            "--password",
        ] {
            assert_eq!(class(name), NameClass::Strong, "{name}");
        }
        for name in [
            "token",
            "access_token",
            "accessToken",
            "refresh-token",
            "api_key",
            "apikey",
            "APIKey",
            "X-Api-Key",
            "X-Auth-Token",
            "aws_secret_access_key",
            "private_key",
            "credential",
            "db.connection_string",
            "ConnectionString",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "session_cookies",
            "jwt",
        ] {
            assert_eq!(class(name), NameClass::Weak, "{name}");
        }
        for name in ["Authorization", "http.request.header.authorization", "Set-Cookie", "cookie"] {
            assert_eq!(class(name), NameClass::Header, "{name}");
        }
    }

    #[test]
    fn names_of_other_values() {
        for name in [
            "monkey",
            "key",
            "public_key",
            "tokens",
            "max_tokens",
            "token-file",
            "token_path",
            "passwordless",
            "password_policy",
            "secret_name",
            "secretName",
            "primary_key",
            "bypass",
            "compass",
            "passed",
            "author",
            "authority",
            "keyboard",
            "secretary",
            "",
            "--",
            "ä",
            "tokenizer",
            "token_count",
            "password_file",
            "cookie_count",
        ] {
            assert_eq!(class(name), NameClass::Ordinary, "{name}");
        }
    }
}
