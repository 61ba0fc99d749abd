//! Addresses that other machines can reach.

use super::pki::{Authority, secret};
use super::support::agent::{TestAgent, run, utf8};

#[test]
fn addresses_beyond_loopback_are_refused_without_tls_and_authentication() {
    let fixture = TestAgent::new();
    let sections = [
        ("server.grpc_listen", "server: { grpc_listen: \"ADDRESS:7600\"MORE }"),
        ("server.http_listen", "server: { http_listen: \"ADDRESS:7601\"MORE }"),
        ("admin.listen", "admin: { listen: \"ADDRESS:7603\"MORE }"),
        (
            "collectors.receiver.listen",
            "collectors: { receiver: { enabled: true, listen: \"ADDRESS:7602\"MORE } }",
        ),
        (
            "collectors.otlp.http_listen",
            "collectors: { otlp: { enabled: true, http_listen: \"ADDRESS:4318\"MORE } }",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let tls = Authority::new(folder.path(), "authority").mutual();
    let check = |verb: &str, section: &str, address: &str, more: &str| {
        let text = section.replace("ADDRESS", address).replace("MORE", more);
        let output = run(&[verb, "--config", &fixture.file("tapio.yaml", &text)]);
        (output.status.success(), utf8(&output.stderr))
    };
    for (key, section) in sections {
        for address in ["0.0.0.0", "[::]", "192.0.2.1"] {
            let (is_fine, error) = check("check", section, address, "");
            assert!(!is_fine, "{section} {address}");
            let expected = format!("{key}: {address}:");
            assert!(error.contains(&expected) && error.contains("insecure: true"), "{error}");
        }
        for more in [", insecure: true", &format!(", tls: {{ {tls} }}")] {
            let (is_fine, error) = check("check", section, "0.0.0.0", more);
            assert!(is_fine, "{section} {more}: {error}");
        }
        let (is_fine, error) = check("run", section, "0.0.0.0", "");
        assert!(!is_fine && error.contains("is reachable from other machines"), "{error}");
    }
}

#[test]
fn endpoints_whose_tls_is_impossible_are_refused() {
    let fixture = TestAgent::new();
    let check = |bridge: &str| {
        let file = fixture.file("tapio.yaml", &format!("bridge: {{ {bridge} }}"));
        let output = run(&["check", "--no-environment", "--config", &file]);
        (output.status.success(), utf8(&output.stderr))
    };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    secret(&token, "t");
    for (bridge, expected) in [
        ("endpoint: \"ftp://h:1\"", "bridge.endpoint: "),
        ("endpoint: \"http://h:1\", tls: { ca: /ca.pem }", "has no TLS, but tls is set"),
        ("endpoint: \"https://h:1\", tls: { cert: /c.pem }", "bridge.tls.key: missing, with cert"),
        ("failover: [\"unix:relative\"]", "must be absolute"),
    ] {
        let (is_fine, error) = check(bridge);
        assert!(!is_fine && error.contains(expected), "{bridge}: {error}");
    }
    let authority = Authority::new(folder.path(), "authority");
    let fine = format!(
        "endpoint: \"https://h:1\", tls: {{ ca: {} }}, token_file: {}",
        authority.ca.display(),
        token.display()
    );
    let (is_fine, error) = check(&fine);
    assert!(is_fine, "{error}");
}

#[test]
fn files_that_cannot_be_used_are_refused_by_check() {
    let fixture = TestAgent::new();
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let output = run(&["check", "--config", &fixture.file("tapio.yaml", text)]);
        (output.status.success(), utf8(&output.stderr))
    };
    let authority = Authority::new(folder.path(), "ours");
    let other = Authority::new(folder.path(), "theirs");
    let path = |name: &str| folder.path().join(name).display().to_string();
    other.server();
    let tls = authority.server();
    let mismatched = tls.replace("ours-server.key.pem", "theirs-server.key.pem");
    secret(&folder.path().join("tokens"), "write n1 hidden more\n");
    let tokens = path("tokens");
    let expired = authority.expired("n1").tls.unwrap();
    let expired_server = format!(
        "cert: {}, key: {}",
        expired.cert.as_ref().unwrap().display(),
        expired.key.as_ref().unwrap().display()
    );
    let sections = [
        ("server", "server: { MORE }"),
        ("admin", "admin: { MORE }"),
        ("collectors.otlp", "collectors: { otlp: { enabled: true, MORE } }"),
        ("collectors.receiver", "collectors: { receiver: { enabled: true, MORE } }"),
    ];
    for (key, section) in sections {
        let with = |more: &str| check(&section.replace("MORE", more));
        for (more, expected) in [
            ("tls: { cert: /nowhere/c.pem, key: /nowhere/k.pem }".to_owned(), "No such file"),
            (format!("tls: {{ {mismatched} }}"), "theirs-server.key.pem"),
            ("token_file: /nowhere/tokens".to_owned(), "/nowhere/tokens: No such file"),
            (format!("token_file: {tokens}"), "line 1: isn't `write NODE TOKEN`"),
        ] {
            let (is_fine, error) = with(&more);
            assert!(!is_fine && error.contains(expected), "{section} {more}: {error}");
            let of_key = more.split_once(':').unwrap().0;
            assert!(error.contains(&format!("{key}.{of_key}: ")), "{more}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
        let (is_fine, warning) = with(&format!("tls: {{ {expired_server} }}"));
        assert!(is_fine && warning.contains(&format!("warning: {key}.tls.cert: ")), "{warning}");
        assert!(warning.contains("the certificate has expired"), "{warning}");
        assert_eq!(with(&format!("tls: {{ {tls} }}")), (true, String::new()));
    }
    let (is_fine, error) = check("bridge: { endpoint: \"https://h:1\", tls: { ca: /nowhere/ca } }");
    assert!(!is_fine && error.contains("bridge.tls: /nowhere/ca: No such file"), "{error}");
    let (is_fine, error) = check("bridge: { token_file: /nowhere/token }");
    assert!(!is_fine && error.contains("bridge.token_file: /nowhere/token: "), "{error}");
    let sink = "endpoint: \"https://h:1\", tls: { ca: /nowhere/ca }";
    let (is_fine, error) = check(&format!("export: {{ otlp: [{{ {sink} }}] }}"));
    assert!(!is_fine && error.contains("export.otlp[0].tls: /nowhere/ca: "), "{error}");
}
