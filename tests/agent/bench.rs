//! `tapio bench`: load, agent, server and sink as processes, with and without rules of their own.

use serde_json::Value as Json;

use crate::support::agent::{TAPIO, TestAgent, run, start, terminate, utf8};
use crate::support::eventually::eventually_ok;

#[test]
fn every_event_of_the_bench_is_stored() {
    for rules in ["0", "100"] {
        let of_bench =
            ["bench", "pipeline", "--rate", "2000", "--duration", "1s", "--output", "json"];
        let output = run(&[of_bench.as_slice(), &["--rules", rules]].concat());
        assert!(output.status.success(), "{}", utf8(&output.stderr));
        let report: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["offered"], report["stored"], "{report:#}");
        assert_eq!(report["cons1_holds"], true, "{report:#}");
        assert!(report["offered"].as_u64().unwrap() >= 1_000, "{report:#}");
        assert!(report["rules"].as_u64().unwrap() > rules.parse().unwrap(), "{report:#}");
    }
}

/// An agent without rules as a peer: it receives and sends where the benchmark asks it to.
const PEER: &str = r#"
cat >"$BENCH_DIR/peer.yaml" <<YAML
state_dir: $BENCH_DIR/state
node: peer
dataflow: { builtin_rules: false }
collectors:
  only: [otlp]
  otlp: { enabled: true, grpc_listen: "$OTLP_IN", http_listen: "127.0.0.1:$HTTP" }
export: { otlp: [{ endpoint: "http://$OTLP_OUT", compression: none, forward: all }] }
admin: { listen: "127.0.0.1:$ADMIN" }
YAML
exec "$TAPIO" run --config "$BENCH_DIR/peer.yaml"
"#;

#[test]
fn every_record_of_the_otlp_bench_leaves_once() {
    let fixture = TestAgent::new();
    let script = PEER
        .replace("$TAPIO", TAPIO)
        .replace("$HTTP", &fixture.http.to_string())
        .replace("$ADMIN", &fixture.admin.to_string());
    let script = fixture.file("peer.sh", &script);
    let peer = format!("exec sh {script}");
    let of_bench = ["bench", "otlp", "--rate", "2000", "--duration", "2s", "--warm-up", "500ms"];
    let sizes = ["--runs", "1", "--rules", "20", "--batch-records", "100", "--output", "json"];
    let output = run(&[of_bench.as_slice(), &sizes, &["--peer", &peer]].concat());
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    let pipelines = report["pipelines"].as_array().unwrap();
    let names: Vec<_> = pipelines.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["direct", "tapio", "sh"]);
    for pipeline in pipelines {
        let run = &pipeline["runs"][0];
        assert_eq!(run["offered"], 5_000, "{report:#}");
        assert_eq!(run["accepted"], 5_000, "{report:#}");
        for count in ["lost", "duplicates", "refused", "late"] {
            assert_eq!(pipeline[count], 0, "{count}: {report:#}");
        }
        assert!(pipeline["records_per_second"].as_f64().unwrap() > 0.0, "{report:#}");
        assert!(pipeline["r"].as_f64().unwrap() > 0.0, "{report:#}");
        for end in ["generator", "sink"] {
            assert!(pipeline["cpu_seconds_per_million"][end].as_f64().unwrap() > 0.0, "{report:#}");
        }
        let latency = |name: &str| pipeline["latency_ns"][name].as_u64().unwrap();
        assert!(latency("p50") > 0 && latency("p50") <= latency("max"), "{report:#}");
    }
    let [_, tapio, peer] = &pipelines[..] else { panic!("{report:#}") };
    for pipeline in [tapio, peer] {
        assert!(pipeline["c"].as_f64().unwrap() > 0.0, "{report:#}");
        assert!(pipeline["peak_rss_bytes"].as_u64().unwrap() > 1 << 20, "{report:#}");
        let cpu = &pipeline["cpu_seconds_per_million"];
        let threads = cpu["threads"].as_object().unwrap();
        assert!(threads.contains_key("c:otlp") && threads.contains_key("export"), "{report:#}");
    }
    assert_eq!(peer["cons1_holds"], Json::Null, "{report:#}");
    assert_eq!(tapio["cons1_holds"], true, "{report:#}");
    // The records, and those of the stories that the generated rules make of a hundredth of them.
    let received = tapio["runs"][0]["account"]["received"].as_u64().unwrap();
    assert!(received >= 5_000, "{report:#}");
}

#[test]
fn no_record_of_an_outage_is_lost() {
    let of_bench = ["bench", "outage", "--rate", "2000", "--outage", "1s", "--after", "1s"];
    let sizes = ["--warm-up", "500ms", "--rules", "0", "--output", "json"];
    let output = run(&[of_bench.as_slice(), &sizes].concat());
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    let outage = &report["outage"];
    assert_eq!(outage["offered"], outage["accepted"], "{report:#}");
    assert!(outage["offered"].as_u64().unwrap() >= 9_000, "{report:#}");
    assert_eq!((&outage["lost"], &outage["refused"]), (&0.into(), &0.into()), "{report:#}");
    assert_eq!(outage["cons1_holds"], true, "{report:#}");
    for number in ["held_at_return", "peak_spool_bytes"] {
        assert!(outage[number].as_u64().unwrap() > 1_000, "{number}: {report:#}");
    }
    // A record of the outage's beginning has waited for its end. Requests are 250 ms apart.
    assert!(outage["latency_ns"]["max"].as_u64().unwrap() > 700_000_000, "{report:#}");
}

#[test]
fn interrupted_bench_fails_and_leaves_no_process() {
    let bench = start(&["bench", "otlp", "--rate", "1000", "--duration", "10m", "--runs", "1"]);
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", bench.id());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let started = eventually_ok("the load generator", || match children() {
        none if none.is_empty() => Err("the benchmark has no child"),
        children => Ok(children),
    });
    let output = terminate(bench);
    assert_eq!(output.status.code(), Some(1), "{}", utf8(&output.stderr));
    assert!(utf8(&output.stderr).contains("interrupted"), "{}", utf8(&output.stderr));
    for child in started {
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "{child}");
    }
}
