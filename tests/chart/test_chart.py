"""Tests of deploy/helm/tapio, deploy/kustomize/base and deploy/prometheus. `make test-chart` runs
them with what they need."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import chart  # noqa: E402

PRESETS = ["ebpf", "kmsg", "journal", "systemd", "container", "cni", "otlp"]
INSECURE = {
    "access": {"tlsSecretName": "", "tokensSecretName": "", "agentTokenSecretName": "", "insecure": True}
}
ADMIN_TLS = {"agent": {"admin": {"tlsSecretName": "admin-tls", "tokensSecretName": "admin-tokens"}}}
POD_NETWORK = {"agent": {"hostNetwork": False}}
MONITORING = {
    "podMonitor": {"enabled": True, "tokenSecretName": "prometheus"},
    "prometheusRule": {"enabled": True},
    "networkPolicy": {"enabled": True, "writers": [{"ipBlock": {"cidr": "10.0.0.0/16"}}],
                      "readers": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]},
}


def only(*names):
    """Values with these presets and no others."""
    return {"agent": {"presets": {name: {"enabled": name in names} for name in PRESETS}}}


def values(*parts):
    whole = {}
    for part in parts:
        whole = chart.merged(whole, part)
    return whole


# Every combination that is rendered, by name.
CASES = {
    "defaults": {},
    "no preset": only(),
    **{f"preset {name}": only(name) for name in PRESETS},
    "all presets": only(*PRESETS),
    "insecure": INSECURE,
    "insecure admin": {"agent": {"admin": {"insecure": True}}},
    "admin with TLS in the pod network": values(ADMIN_TLS, POD_NETWORK),
    "monitoring": values(ADMIN_TLS, MONITORING),
    "no cluster agent": {"clusterAgent": {"enabled": False}},
    "another server": {"server": {"enabled": False, "endpoint": "tapio.example:7600"}},
    "sections of one's own": {
        "agent": {"config": {"bridge": {"spool_bytes": 4294967296, "compression": "zstd"},
                             "collectors": {"ebpf": {"rate_per_cgroup": 50000}}}},
        "server": {"config": {"server": {"retention_age": "30d"}}},
    },
}


class Rendered:
    """The objects of one rendering."""

    texts = {}

    def __init__(self, of=None):
        key = json.dumps(of or {})
        if key not in self.texts:
            self.texts[key] = chart.render(of)
        self.objects = chart.objects(self.texts[key])

    def find(self, kind, suffix=""):
        found = [o for o in self.objects if o["kind"] == kind and o["metadata"]["name"].endswith(suffix)]
        assert len(found) == 1, f"{kind} {suffix}: {len(found)}"
        return found[0]

    def kinds(self):
        return {o["kind"] for o in self.objects}

    def pods(self):
        return [o["spec"]["template"]["spec"] for o in self.objects
                if o["kind"] in ("DaemonSet", "Deployment", "StatefulSet")]

    def agent(self):
        """The DaemonSet's pod and its container."""
        pod = self.find("DaemonSet")["spec"]["template"]["spec"]
        return pod, pod["containers"][0]

    def config(self, component):
        return yaml.safe_load(self.find("ConfigMap", f"tapio-{component}")["data"]["tapio.yaml"])


def refusal(of):
    try:
        chart.render(of)
    except chart.RenderError as error:
        return str(error)
    raise AssertionError(f"rendered with {of}")


class Security(unittest.TestCase):
    def test_no_container_is_privileged_and_capabilities_are_those_of_presets(self):
        for name, of in CASES.items():
            rendered = Rendered(of)
            for pod in rendered.pods():
                with self.subTest(case=name):
                    self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    for container in pod["containers"]:
                        context = container["securityContext"]
                        self.assertIs(context["privileged"], False)
                        self.assertIs(context["allowPrivilegeEscalation"], False)
                        self.assertIs(context["readOnlyRootFilesystem"], True)
                        self.assertEqual(context["capabilities"]["drop"], ["ALL"])
                        added = set(context["capabilities"].get("add", []))
                        self.assertLessEqual(added, {"BPF", "PERFMON", "SYS_PTRACE", "SYSLOG"})
                        self.assertIn("memory", container["resources"]["limits"])

    def test_only_the_agent_of_a_node_is_root_and_has_the_nodes_folders(self):
        rendered = Rendered(only(*PRESETS))
        for kind in ("Deployment", "StatefulSet"):
            pod = rendered.find(kind)["spec"]["template"]["spec"]
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertFalse([v for v in pod["volumes"] if "hostPath" in v])
            self.assertNotIn("hostPID", pod)
            self.assertNotIn("hostNetwork", pod)

    def test_folders_of_the_node_are_read_only_but_for_state_and_socket(self):
        pod, container = Rendered(only(*PRESETS)).agent()
        of_node = {v["name"] for v in pod["volumes"] if "hostPath" in v}
        writable = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
        self.assertEqual(writable & of_node, {"state", "run"})

    def test_a_preset_adds_its_mount_its_rights_and_its_collector(self):
        expected = {
            "ebpf": ({"passwd"}, {"BPF", "PERFMON", "SYS_PTRACE"}),
            "kmsg": ({"kmsg"}, {"SYSLOG"}),
            "journal": ({"journal"}, set()),
            "systemd": ({"dbus"}, set()),
            "container": ({"runtime"}, set()),
            "cni": ({"cni", "run"}, set()),
            "otlp": (set(), set()),
        }
        base = {v["name"] for v in Rendered(only()).agent()[0]["volumes"]}
        for name, (mounts, capabilities) in expected.items():
            with self.subTest(preset=name):
                rendered = Rendered(only(name))
                pod, container = rendered.agent()
                volumes = {v["name"] for v in pod["volumes"]}
                self.assertEqual(volumes - base, mounts)
                self.assertEqual({m["name"] for m in container["volumeMounts"]}, volumes)
                added = container["securityContext"]["capabilities"].get("add", [])
                self.assertEqual(set(added), capabilities)
                self.assertEqual(pod.get("hostPID", False), name == "ebpf")
                collectors = rendered.config("agent")["collectors"]
                enabled = {c for c, section in collectors.items() if section.get("enabled")}
                self.assertEqual(enabled, {"k8s", name})

    def test_the_journal_has_the_kernels_log_unless_kmsg_reads_it(self):
        self.assertIs(Rendered().config("agent")["collectors"]["journal"]["kernel"], True)
        both = Rendered(only("journal", "kmsg")).config("agent")
        self.assertIs(both["collectors"]["journal"]["kernel"], False)

    def test_agents_mount_no_private_key_and_the_server_no_token_of_theirs(self):
        rendered = Rendered()
        for kind in ("DaemonSet", "Deployment"):
            volumes = rendered.find(kind)["spec"]["template"]["spec"]["volumes"]
            tls = [v["secret"] for v in volumes if v.get("secret", {}).get("secretName") == "tapio-server-tls"]
            self.assertEqual([[i["key"] for i in v["items"]] for v in tls], [["ca.crt"]])
            self.assertNotIn("tapio-tokens", str(volumes))
        volumes = rendered.find("StatefulSet")["spec"]["template"]["spec"]["volumes"]
        self.assertNotIn("tapio-agent-token", str(volumes))

    def test_permissions_are_those_that_the_collector_requests(self):
        source = ROOT / "src/collector/k8s"
        watched = (source / "collector.rs").read_text()
        watched = set(re.findall(r'"/apis?/(?:([a-z.0-9]+)/)?v1(?:beta1)?/([a-z]+)"', watched))
        watched.discard(("", "endpoints"))  # of clusters before 1.17, which the chart doesn't support
        owners = (source / "owners.rs").read_text()
        owners = set(re.findall(r'\("[A-Za-z]+", "([a-z]+)/v1", "([a-z]+)"\)', owners))
        self.assertEqual((len(watched), len(owners)), (6, 2))
        expected = {(*r, ("list", "watch")) for r in watched} | {(*r, ("get",)) for r in owners}
        rules = Rendered().find("ClusterRole")["rules"]
        granted = {(group, resource, tuple(rule["verbs"])) for rule in rules
                   for group in rule["apiGroups"] for resource in rule["resources"]}
        self.assertEqual(granted, expected)
        binding = Rendered().find("ClusterRoleBinding")
        self.assertEqual([s["name"] for s in binding["subjects"]], ["tapio-agent"])

    def test_only_agents_have_a_token_of_the_api_server(self):
        rendered = Rendered()
        pods = {kind: rendered.find(kind)["spec"]["template"]["spec"]["automountServiceAccountToken"]
                for kind in ("DaemonSet", "Deployment", "StatefulSet")}
        self.assertEqual(pods, {"DaemonSet": True, "Deployment": True, "StatefulSet": False})


class Probes(unittest.TestCase):
    def targets(self, container):
        found = [container[p]["httpGet"] for p in ("startupProbe", "livenessProbe", "readinessProbe")]
        self.assertEqual([t["path"] for t in found], ["/healthz", "/healthz", "/readyz"])
        return [{k: v for k, v in t.items() if k != "path"} for t in found]

    def test_probes_reach_the_address_that_the_configuration_listens_on(self):
        for name, of in CASES.items():
            with self.subTest(case=name):
                rendered = Rendered(of)
                pod, container = rendered.agent()
                admin = rendered.config("agent")["admin"]
                host, port = admin["listen"].rsplit(":", 1)
                expected = {"port": int(port)}
                if host == "127.0.0.1":
                    # Of the kubelet's node: the same network only with hostNetwork.
                    self.assertIs(pod["hostNetwork"], True)
                    expected["host"] = host
                else:
                    self.assertEqual(host, "0.0.0.0")
                    self.assertTrue("tls" in admin and "token_file" in admin or admin["insecure"] is True)
                if "tls" in admin:
                    expected["scheme"] = "HTTPS"
                self.assertEqual(self.targets(container), [expected] * 3)

    def test_the_servers_probes_use_its_scheme(self):
        for of, scheme in (({}, "HTTPS"), (INSECURE, "HTTP")):
            rendered = Rendered(of)
            container = rendered.find("StatefulSet")["spec"]["template"]["spec"]["containers"][0]
            self.assertEqual(self.targets(container), [{"port": "http", "scheme": scheme}] * 3)
            self.assertEqual("tls" in rendered.config("server")["server"], scheme == "HTTPS")


class Values(unittest.TestCase):
    def test_access_without_tls_has_to_be_asked_for(self):
        none = values(INSECURE, {"access": {"insecure": False}})
        self.assertIn("access.insecure: true", refusal(none))
        self.assertIn("name all three", refusal({"access": {"tokensSecretName": ""}}))
        self.assertIn("needs access.tlsSecretName", refusal({"access": {"insecure": True}}))
        self.assertIn("probes don't reach", refusal(POD_NETWORK))
        self.assertIn("tokensSecretName", refusal({"agent": {"admin": {"tlsSecretName": "a"}}}))
        self.assertIn("tokenSecretName", refusal({"podMonitor": {"enabled": True}}))
        self.assertIn("writers", refusal({"networkPolicy": {"enabled": True}}))
        self.assertIn("server.endpoint", refusal({"server": {"enabled": False}}))

    def test_unknown_and_wrong_values_are_refused(self):
        for wrong in ({"agnet": {}}, {"agent": {"presets": {"ebpf": {"enabeld": True}}}},
                      {"agent": {"presets": {"ebpf": {"enabled": "yes"}}}},
                      {"agent": {"memoryLimit": "400M"}}, {"access": {"tlsSecretName": "A_B"}},
                      {"server": {"endpoint": "https://a:1"}}, {"server": {"retentionBytes": "8Gi"}}):
            with self.subTest(values=wrong):
                refusal(wrong)

    def test_every_value_has_a_comment(self):
        lines = (chart.CHART / "values.yaml").read_text().splitlines()
        evident = r" *(enabled|config|resources|requests|limits|tolerations|nodeSelector|affinity|labels" \
            r"|interval|podAnnotations|podLabels|priorityClassName|pullPolicy|tokenSecretKey|image|rbac):"
        for before, line in zip([""] + lines, lines):
            if line.strip() and not line.strip().startswith("#") and not re.match(evident, line):
                self.assertTrue(before.strip().startswith("#"), line)

    def test_optional_objects_are_off_by_default(self):
        optional = {"PodMonitor", "PrometheusRule", "NetworkPolicy"}
        self.assertEqual(Rendered().kinds() & optional, set())
        self.assertEqual(Rendered(CASES["monitoring"]).kinds() & optional, optional)

    def test_one_agent_emits_what_belongs_to_no_node(self):
        with_cluster_agent = Rendered()
        daemonset = with_cluster_agent.find("ConfigMap", "tapio-agent")["data"]["tapio.yaml"]
        self.assertIs(yaml.safe_load(daemonset)["collectors"]["k8s"]["objects_without_node"], False)
        k8s = with_cluster_agent.config("cluster-agent")["collectors"]["k8s"]
        self.assertEqual(k8s, {"node": "-", "objects_without_node": True})
        without = Rendered(CASES["no cluster agent"])
        self.assertIs(without.config("agent")["collectors"]["k8s"]["objects_without_node"], True)
        self.assertNotIn("Deployment", without.kinds())

    def test_policy_selects_the_server_and_lets_agents_write(self):
        rendered = Rendered(CASES["monitoring"])
        policy = rendered.find("NetworkPolicy")["spec"]
        labels = rendered.find("StatefulSet")["spec"]["template"]["metadata"]["labels"]
        self.assertLessEqual(policy["podSelector"]["matchLabels"].items(), labels.items())
        writing = policy["ingress"][0]
        agent = writing["from"][0]["podSelector"]
        labels = rendered.find("Deployment")["spec"]["template"]["metadata"]["labels"]
        self.assertLessEqual(agent["matchLabels"].items(), labels.items())
        self.assertIn(labels["app.kubernetes.io/component"], agent["matchExpressions"][0]["values"])
        self.assertEqual([i["ports"][0]["port"] for i in policy["ingress"]], ["grpc", "http"])

    def test_policy_lets_the_server_reach_receivers_of_notifications_only(self):
        egress = lambda of: Rendered(of).find("NetworkPolicy")["spec"]["egress"]
        self.assertEqual(egress(CASES["monitoring"]), [])
        receivers = [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"port": 9093}]}]
        with_receivers = values(CASES["monitoring"], {"networkPolicy": {"receivers": receivers}})
        self.assertEqual(egress(with_receivers), receivers)

    def test_kustomize_base_is_rendered_from_the_chart(self):
        base = ROOT / "deploy/kustomize/base"
        found = {file.name: file.read_text() for file in base.glob("*.yaml")}
        self.assertEqual(found, chart.kustomize_files(), "run scripts/render-chart.sh --kustomize")


def tapio():
    candidates = [os.environ.get("TAPIO"), *(ROOT / f"target/{p}/tapio" for p in ("release", "debug"))]
    return next((str(c) for c in candidates if c and Path(c).is_file()), None)


@unittest.skipUnless(tapio(), "no tapio in target/: run `make build`, or set TAPIO")
class Configurations(unittest.TestCase):
    """`tapio check` opens the files that a configuration names: they are made below a folder."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        key, pem = cls.folder / "key", cls.folder / "pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", "/CN=tapio", "-addext", "subjectAltName=DNS:tapio-server.tapio.svc",
             "-keyout", key, "-out", pem], check=True, capture_output=True)
        for name, content in {
            "server-ca/ca.crt": pem.read_text(), "tls/tls.crt": pem.read_text(),
            "tls/tls.key": key.read_text(), "admin-tls/tls.crt": pem.read_text(),
            "admin-tls/tls.key": key.read_text(), "token/token": "0123456789abcdef0123456789abcdef\n",
            "tokens/tokens": "write * 0123456789abcdef0123456789abcdef\n",
            "admin-tokens/tokens": "read p 0123456789abcdef0123456789abcdef\n",
        }.items():
            file = cls.folder / "etc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o440)

    def check(self, text):
        text = text.replace("/etc/tapio/", f"{self.folder}/etc/")
        text = text.replace("/var/lib/tapio", f"{self.folder}/state")
        # Ports of this machine may be taken.
        for port in set(re.findall(r":(760[0-9])\b", text)):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                text = text.replace(f":{port}", f":{free.getsockname()[1]}")
        file = self.folder / "tapio.yaml"
        file.write_text(text)
        environment = {"NODE_NAME": "worker-1", "PATH": os.environ["PATH"]}
        return subprocess.run([tapio(), "check", "--config", str(file)], capture_output=True, text=True,
                              env=environment)

    def test_every_rendered_configuration_is_valid(self):
        checked = set()
        for name, of in CASES.items():
            for found in Rendered(of).objects:
                if found["kind"] != "ConfigMap":
                    continue
                text = found["data"]["tapio.yaml"]
                if text not in checked:
                    checked.add(text)
                    with self.subTest(case=name, config=found["metadata"]["name"]):
                        run = self.check(text)
                        self.assertEqual(run.returncode, 0, run.stderr + text)
        self.assertGreater(len(checked), 12)

    def test_a_wrong_section_is_refused(self):
        of = {"agent": {"config": {"bridge": {"spol_bytes": 1}}}}
        run = self.check(Rendered(of).find("ConfigMap", "tapio-agent")["data"]["tapio.yaml"])
        self.assertEqual(run.returncode, 2)
        self.assertIn("spol_bytes", run.stderr)


class Alerts(unittest.TestCase):
    alerts = ROOT / "deploy/prometheus/alerts.yaml"

    def test_chart_has_the_same_alerts(self):
        self.assertEqual((chart.CHART / "files/alerts.yaml").read_text(), self.alerts.read_text(),
                         "cp deploy/prometheus/alerts.yaml deploy/helm/tapio/files/")
        rule = Rendered(CASES["monitoring"]).find("PrometheusRule")
        self.assertEqual(rule["spec"], yaml.safe_load(self.alerts.read_text()))

    def test_alerts_use_exported_metrics_and_labels_only(self):
        page = (ROOT / "docs/metrics.md").read_text()
        exported = set(re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.M))
        for rule in yaml.safe_load(self.alerts.read_text())["groups"][0]["rules"]:
            used = set(re.findall(r"\btapio_[a-z0-9_]+", rule["expr"]))
            self.assertTrue(used and used <= exported, f"{rule['alert']}: {used - exported}")

    def test_promtool(self):
        unpacked = ROOT / "target/testbed/opt/prometheus/usr/bin/promtool"
        promtool = shutil.which("promtool") or (str(unpacked) if unpacked.is_file() else None)
        if not promtool:
            self.skipTest("no promtool (Debian's package prometheus)")
        tests = ROOT / "tests/chart/alerts_test.yaml"
        for command in (["check", "rules", self.alerts], ["test", "rules", tests]):
            run = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        tested = {t["alertname"] for case in yaml.safe_load(tests.read_text())["tests"]
                  for t in case["alert_rule_test"]}
        rules = yaml.safe_load(self.alerts.read_text())["groups"][0]["rules"]
        self.assertEqual(tested, {rule["alert"] for rule in rules})


TESTBED = Path(os.environ.get("TAPIO_TESTBED") or
               Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapio-testbed")


@unittest.skipUnless((TESTBED / "bin/kube-apiserver").is_file(), "no API server: `make test-e2e` builds it")
class ApiServer(unittest.TestCase):
    """A real API server accepts every rendering, and the permissions are what the collector needs."""

    @classmethod
    def setUpClass(cls):
        cls.state = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.state)
        cls.environment = {**os.environ, "TAPIO_TESTBED_STATE": cls.state}
        cls.scripts = ROOT / "tests/testbed/k8s"
        port = 20000 + os.getpid() % 10000 * 3
        cls.addClassCleanup(subprocess.run, [cls.scripts / "down.sh"], env=cls.environment)
        subprocess.run([cls.scripts / "up.sh", str(port)], env=cls.environment, check=True,
                       stdout=subprocess.DEVNULL)
        cls.kubectl("create", "namespace", "tapio")

    @classmethod
    def kubectl(cls, *arguments, given="", expected=0):
        program = [TESTBED / "opt/kubectl/usr/bin/kubectl", "--kubeconfig", f"{cls.state}/kubeconfig"]
        run = subprocess.run([*program, *arguments], input=given, capture_output=True, text=True)
        assert expected is None or run.returncode == expected, run.stdout + run.stderr
        return run.stdout

    def test_every_rendering_is_accepted(self):
        # Its operator defines these two.
        unknown = ("PodMonitor", "PrometheusRule")
        for name, of in CASES.items():
            with self.subTest(case=name):
                objects = [o for o in Rendered(of).objects if o["kind"] not in unknown]
                output = self.kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(objects))
                self.assertEqual(output.count("(server dry run)"), len(objects))

    def test_base_is_created_and_permissions_suffice(self):
        self.kubectl("apply", "-k", str(ROOT / "deploy/kustomize/base"))
        stored = yaml.safe_load(self.kubectl("-n", "tapio", "get", "daemonset", "tapio-agent", "-o", "yaml"))
        pod = stored["spec"]["template"]["spec"]
        modes = {v["name"]: v["secret"]["defaultMode"] for v in pod["volumes"] if "secret" in v}
        self.assertEqual(modes["token"], 0o440)
        account = "system:serviceaccount:tapio:tapio-agent"
        allowed = {(verb, resource): self.kubectl("auth", "can-i", verb, resource, "--as", account, "-A",
                                                  expected=None).strip()
                   for resource in ("pods", "nodes", "events", "services", "endpointslices.discovery.k8s.io",
                                    "deployments.apps", "replicasets.apps", "jobs.batch", "secrets")
                   for verb in ("get", "list", "watch", "create", "delete")}
        granted = {key for key, answer in allowed.items() if answer == "yes"}
        watched = ("pods", "nodes", "events", "services", "endpointslices.discovery.k8s.io", "deployments.apps")
        expected = {(verb, resource) for resource in watched for verb in ("list", "watch")}
        self.assertEqual(granted, expected | {("get", "replicasets.apps"), ("get", "jobs.batch")})


if __name__ == "__main__":
    unittest.main(verbosity=2)
