//! Stories of one cause are one incident in the server's API.

use serde_json::{Value as Json, json};

use super::support::agent::{TestAgent, start, story, terminate, utf8};
use super::support::net::{get, get_json, items};

fn incidents(fixture: &TestAgent) -> Vec<Json> {
    items(fixture.http, "/api/v1/incidents").unwrap_or_default()
}

/// The unit that failed has a story of its own, and the cascade has one: people are notified once.
#[test]
fn failed_unit_and_its_cascade_are_one_incident() {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture
        .wait(|_| incidents(&fixture).iter().any(|i| i["stories"].as_array().unwrap().len() > 1));
    let [incident] = &incidents(&fixture)[..] else { panic!("several incidents") };
    let cause = incident["root_causes"][0]["cause"].as_str().unwrap();
    assert!(cause.contains("nginx"), "{cause}");
    let entity = &incident["root_causes"][0]["entity"];
    assert_eq!((&entity["kind"], &entity["name"]), (&json!("unit"), &json!("nginx.service")));
    assert!(!incident["impact"]["affected"].as_array().unwrap().is_empty(), "{incident}");
    assert!(!incident["actions"].as_array().unwrap().is_empty(), "{incident}");
    for story in incident["stories"].as_array().unwrap() {
        let id = story["id"].as_str().unwrap();
        let one = get_json(fixture.http, &format!("/api/v1/incidents/{id}")).unwrap();
        assert_eq!(one["id"], incident["id"]);
        let full = get_json(fixture.http, &format!("/api/v1/stories/{id}")).unwrap();
        let is_parent = story["role"] == "parent";
        assert_eq!(full["incident"]["id"] == incident["id"], !is_parent, "{full}");
        assert_eq!(full["incident"].is_null(), is_parent, "{full}");
    }
    let unknown = "0123456789abcdef0123456789abcdef";
    let (head, _) = get(fixture.http, &format!("/api/v1/incidents/{unknown}")).unwrap();
    assert!(head.contains("404"), "{head}");
    let (head, _) = get(fixture.http, "/api/v1/incidents/x").unwrap();
    assert!(head.contains("400"), "{head}");
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}
