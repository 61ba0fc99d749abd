//! Names that requests over HTTP are for.

use tapio::runtime::Agent;

use super::sender::{assert_problem, config, http, server};

#[test]
fn pages_of_other_sites_reach_no_listener() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), ", hosts: [tapio.internal]");
    let text = format!(
        "state_dir: {}\ncollectors: {{ only: [] }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
         bridge: {{ endpoint: \"{}\" }}\n",
        folder.path().join("state").display(),
        server.grpc_endpoint()
    );
    let agent = Agent::start(config(&text), false).unwrap();
    for address in [server.http_addr, agent.admin_addr()] {
        for (headers, expected) in [
            (format!("Host: {address}\r\n"), "200"),
            (format!("Host: localhost:{}\r\n", address.port()), "200"),
            ("Host: attacker.example\r\n".into(), "403"),
            (format!("Host: 127.0.0.1.nip.io:{}\r\n", address.port()), "403"),
            ("Host: localhost\r\nOrigin: https://attacker.example\r\n".into(), "403"),
            ("Host: localhost\r\nOrigin: http://localhost\r\n".into(), "200"),
        ] {
            for path in ["/status", "/metrics", "/healthz"] {
                let response = http(address, path, &headers);
                let is_expected = response.starts_with(&format!("HTTP/1.1 {expected} "));
                assert!(is_expected, "{path} {headers}{response}");
            }
        }
    }
    let response = http(server.http_addr, "/status", "Host: tapio.internal\r\n");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let response = http(server.http_addr, "/status", "Host: attacker.example\r\n");
    assert_problem(&response, 403, "isn't a name of this listener");
    assert_eq!(server.status().access.requests_refused["host"], 10);
    let page = http(agent.admin_addr(), "/metrics", "Host: localhost\r\n");
    assert!(page.contains("tapio_admin_requests_refused_total{reason=\"host\"} 9\n"), "{page}");
    assert!(agent.finish().account.holds());
}
