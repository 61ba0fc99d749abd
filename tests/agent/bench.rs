//! `tapio bench pipeline`: load, agent and server as processes, with and without rules of its own.

use serde_json::Value as Json;

use crate::support::agent::{run, utf8};

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
