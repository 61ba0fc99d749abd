//! Events of CNI plugins from their exec and exit, with Debian's host-local.

use super::support::skip::skipped;
use super::*;

/// The plugin, as unpacked by `scripts/test-deps.sh` or installed on the host.
fn host_local() -> Option<std::path::PathBuf> {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/target/testbed/opt/cni/usr/lib/cni");
    let folders = [unpacked, "/usr/lib/cni", "/opt/cni/bin"];
    folders.iter().map(|f| std::path::Path::new(f).join("host-local")).find(|p| p.is_file())
}

#[test]
fn plugin_runs_emit_their_call_and_result() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let Some(plugin) = host_local() else {
        return skipped("no CNI plugins; scripts/test-deps.sh gets them");
    };
    let folder = plugin.parent().unwrap().to_str().unwrap().to_owned();
    let config =
        Config { cni_bin_dirs: vec![folder], ..only(&[Kind::Exec, Kind::Fork, Kind::Exit]) };
    let running = start(&config, |e| e.kind.starts_with("cni."));
    let data = tempfile::tempdir().unwrap();
    let call = |command: &str, pod: &str| {
        // A /30 has one address besides the gateway.
        let config = format!(
            r#"{{"cniVersion":"1.0.0","name":"tiny","type":"host-local","ipam":{{"type":"host-local",
                "subnet":"10.99.0.0/30","dataDir":{:?}}}}}"#,
            data.path()
        );
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_UID=uid-{pod};SECRET=opensesame;K8S_POD_NAME={pod};\
             K8S_POD_NAMESPACE=shop"
        );
        let mut child = Command::new(&plugin)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("sandbox-{pod}"))
            .env("CNI_NETNS", "/proc/self/ns/net")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .env("CNI_PATH", "/nowhere")
            .env("TOKEN", "opensesame")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.as_bytes()).unwrap();
        child.wait().unwrap().success()
    };
    assert!(call("ADD", "web-0"));
    assert!(!call("ADD", "web-1"), "no address is left");
    assert!(call("DEL", "web-0"));
    assert!(call("VERSION", "web-0"), "without a pod");
    let outcome = running.finish();
    outcome.assert_accounted();
    let emitted: Vec<_> = outcome.events.iter().map(|e| (e.kind, e.get("k8s.pod.name"))).collect();
    assert_eq!(emitted, [("cni.add", "web-0"), ("cni.failed", "web-1"), ("cni.del", "web-0")]);
    for event in &outcome.events {
        assert_eq!(event.get("tapio.cni.plugin"), "host-local");
        assert_eq!(event.get("network.interface.name"), "eth0");
        assert_eq!(event.get("k8s.namespace.name"), "shop");
        assert!(event.get("container.id").starts_with("sandbox-web-"));
        assert!(event.number("tapio.cni.duration_ns") > 0);
        assert!(!format!("{event:?}").contains("opensesame"));
    }
    let failed = &outcome.events[1];
    assert_eq!((failed.get("error.type"), failed.get("process.exit.code")), ("exit_code", "1"));
    assert_eq!((failed.get("tapio.cni.command"), failed.severity), ("ADD", 17));
    assert!(failed.message.starts_with("CNI plugin host-local: ADD of shop/web-1 failed"));
    assert_eq!(outcome.counters["cni_calls_unread"], 0);
}
