//! Facts of many entities with different home shards: the stories are the same to the byte, from
//! whichever shards the facts arrive, and in whichever order.

use serde_json::{Value as Json, json};

use crate::causes::{at, depends, event, rules, run, with};

const RULE: &str = "rule: unit-faults
events: { warned: { kind: t.warned }, failed: { kind: t.failed } }
sequence:
  by: [systemd.unit]
  within: 10m
  steps: [{ event: warned }, { event: warned }, { event: failed }]
story: { pattern: unit-faults, root_cause: \"{warned.message}\", close: { idle: 3h, max_age: 3h } }
";

/// SplitMix64: the same events each time.
fn random(seed: &mut u64, bound: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *seed;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % bound
}

/// An hour of thirty units that warn, fail, log and depend on each other, each in a pod.
fn hour(mut seed: u64) -> Vec<Json> {
    let mut roll = |bound| random(&mut seed, bound);
    let mut out = Vec::new();
    for n in 0..1_500u32 {
        let time = at(f64::from(n) * 2_400.0 + roll(2_000) as f64);
        let unit = |n: u64| format!("{n}.service");
        let (one, other) = (roll(30), roll(30));
        let kind = ["t.warned", "t.warned", "t.failed", "t.other"][roll(4) as usize];
        let severity = ["info", "warn", "error"][roll(3) as usize];
        let mut event = event(time, kind, &unit(one), severity);
        event["id"] = n.into();
        event["message"] =
            format!("job {} of {}", roll(99), ["a", "b c", "d"][roll(3) as usize]).into();
        if roll(3) == 0 {
            event = with(
                event,
                &json!({"entity": {"k8s.pod.uid": format!("pod-{one}"), "k8s.namespace.name": "ns"},
                        "attributes": {"k8s.service.name": format!("s{}", one % 5)}}),
            );
        }
        out.push(event);
        if roll(5) == 0 {
            out.push(depends(time + 7, &unit(one), &unit(other)));
        }
    }
    out
}

#[test]
fn stories_are_equal_for_any_number_of_shards() {
    let events = hour(42);
    let lines = |shards| {
        let lines = run(&events, rules(RULE), shards).lines;
        lines.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let one = lines(1);
    let all = one.join("\n");
    for term in ["deviation", "lift", "edge gap", "pairs", "upstream"] {
        assert!(all.contains(&format!("\"name\":\"{term}\"")), "no story has {term}");
    }
    assert!(one.len() > 30, "{}", one.len());
    for shards in [2, 3, 8, 8] {
        let other = lines(shards);
        let different = one.iter().zip(&other).find(|(a, b)| a != b);
        assert_eq!(different, None, "{shards} shards");
        assert_eq!(other.len(), one.len());
    }
    let suggested = |shards| format!("{:?}", run(&events, rules(RULE), shards).suggestions);
    assert_eq!(suggested(8), suggested(1));
}
