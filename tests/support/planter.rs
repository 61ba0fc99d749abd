//! Numbered secrets, in the forms that texts of sources have.

/// The beginning of every planted secret.
pub(crate) const MARK: &str = "S3CRETx";

/// Texts with a secret, which stands for `S`.
pub(crate) const FORMS: &[&str] = &[
    "login failed: app --password S --user joe",
    "app --password=S",
    "mysql -uroot -pS shop",
    "curl -u joe:S https://example.com",
    "PGPASSWORD=S psql -h db",
    "curl -H 'Authorization: Bearer S' https://example.com",
    "sshpass -p S ssh host",
    "redis-cli -a S ping",
    "docker login -u joe -p S registry",
    "openssl rsa -passin pass:S -in k",
    "kubeadm join 10.0.0.1:6443 --token S",
    "GET /?token=S HTTP/1.1",
    "GET https://x/y?a=b&access_token=S&c=d",
    "https://x/y?X-Amz-Signature=S",
    "refused: https://joe:S@10.0.0.1:6443",
    "postgres://joe:S@db/shop",
    "Cookie: session=S; theme=dark",
    "X-Api-Key: S",
    r#"{"user":"joe","password":"S"}"#,
    r#"{"body":"{\"api_key\":\"S\"}"}"#,
    "db:\n  password: S\n  port: 5432",
    "level=info client_secret=S port=1",
    "Server=h;Uid=u;Pwd=S;Database=d",
    "-----BEGIN PRIVATE KEY-----\nS\n-----END PRIVATE KEY-----",
    "ghp_SabcdefghijABCDEFGHIJ0123456789abcd",
];

/// So many of the forms, from the first one on, are commands of a shell.
pub(crate) const COMMANDS: usize = 11;

/// Attributes whose values are secrets by their names.
pub(crate) const NAMES: &[&str] = &[
    "password",
    "db.password",
    "secret",
    "auth.token",
    "apiKey",
    "aws.credential",
    "tls.private_key",
    "db.connection_string",
    "http.request.header.authorization",
    "http.request.header.cookie",
];

/// The surroundings in which programs write such texts; the text stands for `{}`.
const SURROUNDINGS: &[&str] = &[
    "{}",
    "2026-01-15T10:00:00.123Z ERROR app[12] worker-3: {}",
    "exec failed: {}: exit status 1",
    "E0115 10:00:00.000001   12 prober.go:107] \"Probe failed\" cmd=[{}] attempt=3",
    "Command line: BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet {}",
];

/// Plants numbered secrets.
#[derive(Default)]
pub(crate) struct Planter(usize);

impl Planter {
    /// The number of secrets so far.
    pub(crate) fn count(&self) -> usize {
        self.0
    }

    /// A secret of its own.
    pub(crate) fn secret(&mut self) -> String {
        self.0 += 1;
        // Letters and digits, so that every form keeps it whole.
        format!("{MARK}{:04}x", self.0)
    }

    pub(crate) fn text(&mut self, form: &str) -> String {
        let secret = self.secret();
        match form.split_once("ghp_S") {
            Some((_, rest)) => format!("ghp_{secret}{rest}"),
            None => match form.rfind("=S").or_else(|| form.find(":S@")) {
                Some(at) => format!("{}{secret}{}", &form[..=at], &form[at + 2..]),
                None => replace_word(form, &secret),
            },
        }
    }

    /// A text of each form.
    pub(crate) fn texts(&mut self) -> Vec<String> {
        FORMS.iter().map(|form| self.text(form)).collect()
    }

    /// A text of each form in each surrounding: at least 120.
    pub(crate) fn surrounded(&mut self) -> Vec<String> {
        let of = |around: &&str| {
            let texts = self.texts().into_iter();
            texts.map(|text| around.replace("{}", &text)).collect::<Vec<_>>()
        };
        SURROUNDINGS.iter().flat_map(of).collect()
    }

    /// Attributes with secrets by their names, and one of a URL.
    pub(crate) fn attributes(&mut self) -> Vec<(String, String)> {
        let mut all: Vec<_> = NAMES.iter().map(|name| ((*name).into(), self.secret())).collect();
        all.push(("url.full".into(), self.text("https://joe:S@host/")));
        all
    }
}

/// Replaces the last `S` that isn't a part of a longer word of letters behind it.
fn replace_word(form: &str, secret: &str) -> String {
    let is_word = |at: &usize| !form[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let at = form.match_indices('S').map(|(at, _)| at).rfind(is_word).unwrap();
    format!("{}{secret}{}", &form[..at], &form[at + 1..])
}
