//! The texts of which one is in every text with a secret. A text without any of them passes after
//! a first look, or one search.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError};

use super::command::PROGRAM_STARTS;
use super::shapes::SHAPES;
use crate::grams::Grams;

/// The form that a trigger may be a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// A name.
    Name,
    /// The name of a URL's parameter.
    Query,
    /// A value of `SHAPES`, by index.
    Shape(u16),
    /// A JSON web token.
    Jwt,
    /// A private key in PEM.
    Pem,
    /// `Bearer `, `Basic `, `Token `.
    Scheme,
    /// `://`.
    Url,
    /// `@tcp(`.
    Dsn,
    /// A program with options for secrets.
    Program,
    /// `IDENTIFIED BY `.
    Sql,
}

const NAME_PARTS: &[&str] = &[
    "pass",
    "pwd",
    "secret",
    "token",
    "jwt",
    "bearer",
    "credential",
    "cookie",
    "signature",
    "auth",
    "apikey",
    "api_key",
    "api-key",
    "api.key",
    "accesskey",
    "access_key",
    "access-key",
    "secretkey",
    "privatekey",
    "private_key",
    "private-key",
    "private.key",
    "accountkey",
    "account_key",
    "account-key",
    "sharedkey",
    "shared_key",
    "shared-key",
    "masterkey",
    "master_key",
    "master-key",
    "signingkey",
    "signing_key",
    "signing-key",
    "encryptionkey",
    "encryption_key",
    "encryption-key",
    "licensekey",
    "license_key",
    "license-key",
    "subscription-key",
    "subscriptionkey",
    "subscription_key",
    "connectionstring",
    "connection_string",
    "connection-string",
    "connection.string",
    "connstr",
    "conn_str",
    "dsn",
    "connstring",
    "conn_string",
];
const QUERY_PARTS: &[&str] = &[
    "?key=", "&key=", "?sig=", "&sig=", "?code=", "&code=", "?sas=", "&sas=", "?pw=", "&pw=",
    "?hmac=", "&hmac=", "?ticket=", "&ticket=", "?nonce=", "&nonce=", "?otp=", "&otp=",
];

/// The search for all triggers at once, in any case.
pub(super) struct Triggers {
    grams: Grams,
    search: AhoCorasick,
    kinds: Vec<Trigger>,
}

impl Triggers {
    /// The built-in triggers and those of further names.
    pub(super) fn new(names: &[String]) -> Result<Self, BuildError> {
        let mut texts: Vec<String> = Vec::new();
        let mut kinds = Vec::new();
        let mut add = |text: &str, kind| {
            texts.push(text.to_ascii_lowercase());
            kinds.push(kind);
        };
        NAME_PARTS.iter().for_each(|part| add(part, Trigger::Name));
        QUERY_PARTS.iter().for_each(|part| add(part, Trigger::Query));
        PROGRAM_STARTS.iter().for_each(|part| add(part, Trigger::Program));
        for (number, shape) in SHAPES.iter().enumerate() {
            add(shape.start, Trigger::Shape(number as u16));
        }
        add("eyj", Trigger::Jwt);
        add("-----begin ", Trigger::Pem);
        ["bearer ", "basic ", "token "].iter().for_each(|scheme| add(scheme, Trigger::Scheme));
        add("://", Trigger::Url);
        ["@tcp(", "@unix("].iter().for_each(|part| add(part, Trigger::Dsn));
        add("identified by ", Trigger::Sql);
        for name in names {
            let parts = name.split(|c: char| !c.is_ascii_alphanumeric());
            if let Some(longest) = parts.max_by_key(|part| part.len()) {
                add(longest, Trigger::Name);
            }
        }
        let search = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // A trigger's first byte is in every text.
            .prefilter(false)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&texts)?;
        Ok(Self { grams: Grams::new(&texts), search, kinds })
    }

    /// Each trigger in a text, with its range, in the order of their ends.
    pub(super) fn find<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (Trigger, usize, usize)> + 'a {
        let found = self.search.find_overlapping_iter(text);
        found.map(|m| (self.kinds[m.pattern().as_usize()], m.start(), m.end()))
    }

    /// Whether a text has a trigger.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.grams.may_be_in(text) && self.search.is_match(text)
    }
}
