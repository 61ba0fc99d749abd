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
        let output = run(&["check", "--config", &file]);
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
    let fine = format!(
        "endpoint: \"https://h:1\", tls: {{ ca: /ca.pem }}, token_file: {}",
        token.display()
    );
    let (is_fine, error) = check(&fine);
    assert!(is_fine, "{error}");
}
