use proptest::prelude::*;

use super::*;
use crate::event::{Event, EventId, Field, Name, Value};
use std::borrow::Cow;

fn redact(text: &str) -> String {
    Redactor::builtin().text(text).into_owned()
}

/// Texts with a secret between `«` and `»`.
const SECRETS: &[&str] = &[
    // Command lines.
    "app --password=«hunter2»",
    "app --password «hunter2» --verbose",
    "app --db-pass «hunter2»",
    "app --dbPassword=«hunter2»",
    "app --token «abcdef» run",
    "/usr/bin/mysql -u root -p«hunter2» shop",
    "mysqldump -uroot -p«hunter2» shop > x",
    "curl -u joe:«hunter2» http://x",
    "curl --user joe:«hunter2» http://x",
    "curl -ujoe:«hunter2» http://x",
    "PGPASSWORD=«hunter2» psql -h db",
    "env MYSQL_PWD=«hunter2» mysql",
    "curl -H 'Authorization: Bearer «hunter2»' http://x",
    "curl -H \"X-Api-Key: «hunter2»\" http://x",
    "sshpass -p «hunter2» ssh host",
    "sudo sshpass -p«hunter2» ssh host",
    "redis-cli -h db -a «hunter2» ping",
    "docker login -u joe -p «hunter2» registry.io",
    "podman login -p «hunter2»",
    "probe failed cmd=[sshpass -p «hunter2» ssh host]",
    "exec [curl -u joe:«hunter2» http://x] failed",
    r#"exec ["mysql","-uroot","-p«hunter2»","shop"]"#,
    r#"exec ["docker", "login", "-p", "«hunter2»"]"#,
    "Popen(['docker', 'login', '-p', '«hunter2»'])",
    "run {redis-cli -a «hunter2» ping}",
    "Started clone-«ghp_s3cr3ts3cr3ts3cr3t».service",
    r#"{"msg":"args [\"curl\",\"-u\",\"joe:«hunter2»\"]"}"#,
    "openssl rsa -in k -passin pass:«hunter2»",
    "openssl enc -aes-256-cbc -k «hunter2» -in f",
    "ldapsearch -D cn=admin -w «hunter2» -b dc=x",
    "smbclient //host/share -U joe%«hunter2»",
    "mongosh -u joe -p «hunter2»",
    "kubeadm join 10.0.0.1:6443 --token «abcdef.0123456789abcdef»",
    "keytool -storepass «hunter2» -list",
    "sh -c 'export API_KEY=«hunter2»; run'",
    "CRON[12]: (root) CMD (curl -u joe:«hunter2» https://x/y)",
    "sudo: joe : PWD=/root ; USER=root ; COMMAND=/usr/bin/mysql -p«hunter2» db",
    "AWS_SECRET_ACCESS_KEY=«wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY» aws s3 ls",
    "CREATE USER x IDENTIFIED BY '«hunter2»'",
    "ALTER ROLE x WITH PASSWORD '«hunter2»'",
    // URLs.
    "https://joe:«hunter2»@host/path?q=1",
    "can't reach https://joe:«hunter2»@10.0.0.1:6443: refused",
    "postgres://u:«p@ss»@h/db",
    "postgres://u:«p/ss»@h/db",
    "redis://:«hunter2»@h:6379/0",
    "git clone https://«ghp_s3cr3ts3cr3ts3cr3t»@github.com/a/b",
    "GET /?token=«hunter2» HTTP/1.1",
    "GET /x?a=1&access_token=«hunter2»&b=2",
    "https://x/y?sig=«a1b2c3»&se=2026",
    "https://s3/x?X-Amz-Credential=«AKIA/2026»&X-Amz-Signature=«0123abcd»",
    "https://maps/api?key=«abcdef0»",
    "https://app/callback?code=«4/0AX4XfWh»&state=x",
    "root:«hunter2»@tcp(db:3306)/shop",
    // Headers.
    "Authorization: Bearer «hunter2»",
    "authorization: Basic «am9lOmh1bnRlcjI=»",
    "Proxy-Authorization: Basic «am9lOmh1bnRlcjI=»",
    "Authorization: «hunter2»",
    "Authorization: token «hunter2»",
    "Cookie: «sid=hunter2; theme=dark»",
    "Set-Cookie: «sid=hunter2; Path=/»",
    "X-Api-Key: «hunter2»",
    "x-auth-token: «hunter2»",
    "got header Authorization: Bearer «hunter2» from 10.0.0.1",
    "{\"headers\":{\"Authorization\":\"Bearer «hunter2»\",\"Accept\":\"*/*\"}}",
    // JSON, YAML, logfmt.
    "{\"user\":\"u\",\"password\":\"«hunter2»\"}",
    "{\"password\": \"«hunter2 with \\\" spaces»\", \"x\": 1}",
    "{\"body\":\"{\\\"password\\\":\\\"«hunter2»\\\",\\\"a\\\":1}\"}",
    "{\"accessToken\": \"«hunter2»\"}",
    "{\"cookies\": [\"«a=b»\", \"«c=d»\"]}",
    "{'password': '«hunter2»', 'user': 'u'}",
    "password: «hunter2»",
    "db:\n  user: u\n  password: «hunter2»\n  port: 5432",
    "stringData:\n  private_key: |\n    «line1\n    line2»\nkind: Secret",
    "level=info user=u password=«hunter2» port=1",
    "level=info api_key=«hunter2»",
    "msg=x client_secret=\"«hunter2»\" a=b",
    "host=h password=«hunter2» user=u",
    "Server=h;Uid=u;Pwd=«hunter2»;Database=d",
    "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=«abc0=»",
    "AccountName=n;AccountKey=«abc0==»;EndpointSuffix=x",
    "username=root, password=«hunter2», tries=3",
    "login(user=root, password=«hunter2»)",
    "Config{user:root password:«hunter2» port:1}",
    "connecting with password: «hunter2»",
    "the password is «hunter2!»",
    "password => «hunter2»",
    "os.environ['DB_PASSWORD'] = '«hunter2»'",
    // Shapes.
    "key AKIAIOSFODNN7EXAMPLE.",
    "ASIAIOSFODNN7EXAMPLE",
    "pushed with ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghij_klmnopqrstuvwxyz",
    "xoxb-123456789012-abcdefghijkl",
    "key=AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "OpenAI sk-proj-abcdefghij0123456789",
    "sk-ant-api03-abcdefghij0123456789",
    "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "glpat-abcdefghij0123456789",
    "hvs.CAESIJabcdefghij0123456789",
    "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def_123, expired",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    // A line of a key that the source reads line by line.
    "«MIIEpAIBAAKCAQEA7bq2Vx0mT3yPq9c1Zk5uR8sWnE4tYhJdLfGvBxN6aMoQeKpI»",
    "«b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW»",
    "sent Bearer «abc123def456» to x",
    "sent Basic «am9lOmh1bnRlcjI=» to x",
];

#[test]
fn secrets_are_replaced_and_the_rest_stays() {
    let mut wrong = Vec::new();
    for case in SECRETS {
        let text = case.replace(['«', '»'], "");
        let redacted = redact(&text);
        if case.contains('«') {
            let mut expected = String::new();
            let mut rest = *case;
            while let Some((before, after)) = rest.split_once('«') {
                expected.push_str(before);
                expected.push_str(REDACTED);
                rest = after.split_once('»').unwrap().1;
            }
            expected.push_str(rest);
            if redacted != expected {
                wrong.push(format!("{text}\n  → {redacted}"));
            }
        } else {
            assert!(redacted.contains(REDACTED), "{text}");
            let words: Vec<&str> =
                text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.len() > 12).collect();
            assert!(words.iter().all(|word| !redacted.contains(word)), "{text} → {redacted}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ordinary_text_is_unchanged() {
    let texts = [
        "token bucket is empty",
        "password changed for user x",
        "secret rotation completed",
        "key=value monkey=1",
        "Basic auth failed",
        "Bearer token missing in request",
        "commit 3fcc0e9b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f",
        "pod 550e8400-e29b-41d4-a716-446655440000 started",
        "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7",
        "app --token-file /run/token --password-file=/x",
        "tokens=12 max_tokens: 4096 passwordless login",
        "/usr/sbin/sshd -D -p 22",
        "docker run -p 80:80 nginx",
        "kubectl get secret my-secret -o yaml",
        "secret \"db-creds\" not found",
        "MountVolume.SetUp failed for volume \"x\" : secret \"db\" not registered",
        "invalid token: unexpected end of input",
        "Failed password for root from 10.0.0.1 port 22 ssh2",
        "Failed password for invalid user token from 10.0.0.1 port 22 ssh2",
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh",
        "sudo: joe : TTY=pts/0 ; PWD=/home/joe ; USER=root ; COMMAND=/bin/ls",
        "wrong password: please try again",
        "use the --password flag",
        "http://10.0.0.1:8080/healthz",
        "http://[::1]:8080/a@b",
        "git clone https://git@github.com/a/b",
        "mail from joe@example.com via https://example.com/x",
        "PASSWORD=$DB_PASSWORD TOKEN=${TOKEN} SECRET={{ .secret }}",
        "password=*** token=",
        "Type=method_call cookie=12 reply_cookie=0",
        "fido2 token: not found",
        "author: joe, authority: x, keyboard: us",
        "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----",
        "curl: (6) Could not resolve host: example.com",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "/usr/lib/modules/build/Include/Generated/Uapi/Linux/Version4/a/B",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "systemd-ask-password-console.path: Deactivated successfully",
        "Started systemd-creds.socket - Credential Encryption/Decryption.",
        "sk-learn npm_config hf_hub",
    ];
    let changed: Vec<_> = texts.into_iter().filter(|t| redact(t) != *t).map(redact).collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
    assert!(texts.iter().all(|t| matches!(Redactor::builtin().text(t), Cow::Borrowed(_))));
}

/// A sample of lines of kernel, package manager, kubelet, container runtime and applications, a
/// third of which have a trigger.
#[test]
fn ordinary_lines_of_real_machines_are_unchanged() {
    let sample = include_str!("samples/ordinary.txt");
    assert!(sample.lines().count() >= 300);
    let changed: Vec<_> = sample.lines().filter(|line| redact(line) != *line).collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
    let triggered = sample.lines().filter(|line| Redactor::builtin().has_trigger(line)).count();
    assert!(triggered >= 50, "{triggered}");
}

#[test]
fn configured_names_patterns_and_exceptions() {
    let config = RedactConfig {
        names: vec!["x-internal-pin".into()],
        patterns: vec!["order ([0-9]+)".into(), "ACME-[A-Z]+".into()],
        allow: vec!["page_token".into()],
        ..RedactConfig::default()
    };
    config.check().unwrap();
    let redactor = Redactor::new(&config).unwrap();
    assert_eq!(
        redactor.text("x-internal-pin: 1234 order 77 ACME-KEY page_token=abc token=abc"),
        "x-internal-pin: [redacted] order [redacted] [redacted] page_token=abc token=[redacted]"
    );
    for (names, patterns, allow, expected) in [
        (&["a b!"][..], &[][..], &[][..], ""),
        (&["ä"], &[], &[], "names: \"ä\" isn't a name"),
        (&[], &["("], &[], "patterns: \"(\": unclosed group"),
        (&[], &["x*"], &[], "patterns: \"x*\" matches the empty text"),
        (&["pin"], &[], &["pin"], "allow: \"pin\" is in redact.names, too"),
    ] {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let config = RedactConfig {
            names: list(names),
            patterns: list(patterns),
            allow: list(allow),
            enabled: true,
        };
        match config.check() {
            Ok(()) => assert_eq!(expected, ""),
            Err(error) => assert!(error.starts_with(expected) && !expected.is_empty(), "{error}"),
        }
    }
}

#[test]
fn events_lose_their_secrets_and_keep_the_rest() {
    let name = |text| Name::intern(text).unwrap();
    let field = |key, value| Field { key: name(key), value };
    let fields = [
        field("service.name", Value::Str("shop")),
        field("http.request.header.authorization", Value::Json("[\"Bearer s3cr3t\"]")),
        field("db.password", Value::Str("s3cr3t")),
        field("db.connection_string", Value::Str("postgres://u:s3cr3t@h/d")),
        field("url.full", Value::Str("https://u:s3cr3t@h/?a=1")),
        field(
            "process.command_args",
            Value::Json(r#"["mysql","-ps3cr3t","--token","s3cr3t","x"]"#),
        ),
        field(
            "env",
            Value::Json(r#"[{"name":"DB_PASS","value":"s3cr3t"},{"name":"A","value":"b"}]"#),
        ),
        field("nested", Value::Json(r#"{"a":{"api_key":"s3cr3t","n":1.5},"tokens":3}"#)),
        field("llm.token", Value::Int(4096)),
        field("token", Value::Int(7)),
    ];
    let event = Event::new(EventId([1; 16]), 1, name("t.kind"), name("t.source"));
    let event = Event { fields: &fields, message: "token=s3cr3t n=1", entities: 1, ..event };
    Redactor::builtin().event(&event, |clean, found| {
        assert!(found);
        let texts: Vec<String> = clean.fields.iter().map(|f| format!("{:?}", f.value)).collect();
        let all = texts.join("\n");
        assert!(!all.contains("s3cr3t"), "{all}");
        assert_eq!(clean.message, "token=[redacted] n=1");
        assert_eq!(clean.fields[0], fields[0]);
        assert_eq!(clean.fields[4].value, Value::Str("https://u:[redacted]@h/?a=1"));
        assert_eq!(
            clean.fields[5].value,
            Value::Json(r#"["mysql","-p[redacted]","--token","[redacted]","x"]"#)
        );
        let nested = r#"{"a":{"api_key":"[redacted]","n":1.5},"tokens":3}"#;
        assert_eq!(clean.fields[7].value, Value::Json(nested));
        assert_eq!(clean.fields[8..], fields[8..]);
        assert_eq!((clean.id, clean.entities), (event.id, 1));
        Redactor::builtin().event(clean, |twice, again| {
            assert_eq!(twice.fields, clean.fields);
            assert!(!again, "redacting twice changes nothing");
        });
    });
    let plain = Event { fields: &fields[..1], message: "order 7 shipped", ..event };
    Redactor::builtin().event(&plain, |clean, found| {
        assert_eq!(clean.fields, plain.fields);
        assert!(!found);
    });
}

#[test]
fn log_writer_redacts_lines() {
    use std::io::Write as _;
    let mut out = Vec::new();
    let mut writer = RedactingWriter::new(&mut out, Redactor::builtin());
    writer.write_all(b"WARN k8s: https://u:s3cr3t@h: refused\n").unwrap();
    assert_eq!(out, b"WARN k8s: https://u:[redacted]@h: refused\n");
}

/// Parts of secrets.
const FRAGMENTS: &[&str] = &[
    "password",
    "token",
    "secret",
    "api_key",
    "Authorization",
    "Cookie",
    "Bearer ",
    "Basic ",
    "PWD",
    "://",
    "@",
    ":",
    "=",
    " ",
    "\"",
    "'",
    "\\\"",
    "\\",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    "&",
    "?",
    "?key=",
    "-p",
    "-u",
    "--",
    "mysql",
    "curl",
    " login",
    "docker",
    "eyJ",
    ".",
    "|",
    "AKIA",
    "ghp_",
    "sk-",
    "-----BEGIN ",
    "PRIVATE KEY-----",
    "-----END ",
    "\n",
    "\n  ",
    "ä",
    "€",
    "\0",
    "[redacted]",
    "s3cr3t",
    "0123456789abcdef",
    "word",
    "@tcp(",
    "identified by ",
    " is ",
    "openssl",
    "-passin",
    "pass:",
    "$",
    "*",
    "=>",
    "#",
    "/",
    "\u{1b}[0m",
];

/// Texts that are made of parts of secrets.
fn fragments() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(FRAGMENTS).prop_map(str::to_owned),
        "[a-zA-Z0-9]{0,24}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn redacting_twice_changes_nothing(text in fragments()) {
        let once = redact(&text);
        prop_assert_eq!(redact(&once), once);
    }

    #[test]
    fn json_stays_json(keys in prop::collection::vec(fragments(), 1..4), value in fragments()) {
        let mut map = serde_json::Map::new();
        for key in keys {
            map.insert(key, serde_json::json!([value.clone(), {"password": value}, 1]));
        }
        let text = serde_json::Value::Object(map).to_string();
        if let Some(redacted) = Redactor::builtin().json(&text, json::ValueClass::Ordinary) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&redacted).is_ok());
        }
    }

    #[test]
    fn text_without_trigger_is_unchanged(text in "[0-9bfgjlmnqruvxy ,.;()\\[\\]{}<>/+*=\"'\n-]{0,200}") {
        prop_assert!(matches!(Redactor::builtin().text(&text), Cow::Borrowed(_)));
    }

    #[test]
    fn a_named_value_never_survives(
        before in "[a-z ]{0,20}", secret in "[A-Za-z0-9]{8}[0-9]{2}", form in 0usize..8,
    ) {
        let form = [
            "password=S", "password: S", "{\"password\":\"S\"}", "--password S", "token=S",
            "https://u:S@h/", "Authorization: Bearer S", "x?access_token=S&y=1",
        ][form];
        let text = format!("{before} {}", form.replace('S', &secret));
        let redacted = redact(&text);
        prop_assert!(!redacted.contains(&secret), "{text} → {redacted}");
    }
}
