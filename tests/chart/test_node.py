"""Runs the chart's pods on the test bed's node: a real API server, kubelet and containerd, as root.

The cluster has no controllers and no DNS: the pods are made of the templates, with the address of
the server among their hosts and the service account's token mounted by hand.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import yaml
from test_chart import ROOT, TESTBED, chart, tapio

SCRIPTS = ROOT / "tests/testbed/k8s"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
NODE_ADDRESS, KUBELET_PORT = "10.200.0.2", 10250
CAPABILITIES = {"SYS_PTRACE": 19, "SYSLOG": 34, "PERFMON": 38, "BPF": 39}


def missing():
    if os.geteuid() != 0:
        return "not root"
    if not tapio():
        return "no tapio in target/: run `make build`, or set TAPIO"
    if not (TESTBED / "bin/kubelet").is_file():
        return "no kubelet: `make test-e2e` builds it"
    return None


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@unittest.skipIf(missing(), missing())
class Node(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.state = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.state, ignore_errors=True)
        cls.port = 20000 + os.getpid() % 10000 * 3
        environment = {**os.environ, "TAPIO_TESTBED_STATE": str(cls.state),
                       "APISERVER_EXTRA": "--kubelet-preferred-address-types=InternalIP"}
        quiet = {"env": environment, "check": True, "stdout": subprocess.DEVNULL}
        cls.addClassCleanup(subprocess.run, [SCRIPTS / "down.sh"], env=environment)
        subprocess.run([SCRIPTS / "up.sh", str(cls.port)], **quiet)
        cls.addClassCleanup(subprocess.run, [SCRIPTS / "node-down.sh"], env=environment)
        subprocess.run([SCRIPTS / "node-up.sh", str(cls.port)], **quiet)
        cls.socket = cls.state / "node/containerd.sock"
        containerd = (cls.state / "node/containerd.pid").read_text().strip()
        cls.inside = ["nsenter", "-t", containerd, "-m", "-n"]
        # As systemd does on a node; the test bed's is private.
        run(*cls.inside, "mount", "--make-rshared", "/")
        cls.forward_kubelet()
        cls.import_image()
        cls.create_secrets()
        cls.start()

    @classmethod
    def forward_kubelet(cls):
        """The API server, for `kubectl port-forward`, reaches the kubelet at the node's address. The node's
        network is its own: a socket in the file system leads into it."""
        run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
        cls.addClassCleanup(run, "ip", "address", "del", f"{NODE_ADDRESS}/32", "dev", "lo")
        socat, socket = TESTBED / "opt/socat/usr/bin/socat", cls.state / "kubelet.sock"
        environment = {**os.environ, "LD_LIBRARY_PATH": str(TESTBED / "opt/socat/usr/lib/x86_64-linux-gnu")}
        for inside, ends in (
                (cls.inside, (f"UNIX-LISTEN:{socket},fork", f"TCP:127.0.0.1:{KUBELET_PORT}")),
                ([], (f"TCP-LISTEN:{KUBELET_PORT},bind={NODE_ADDRESS},fork,reuseaddr", f"UNIX-CONNECT:{socket}"))):
            forward = subprocess.Popen([*inside, socat, *ends], env=environment)
            cls.addClassCleanup(lambda process: (process.kill(), process.wait()), forward)

    @classmethod
    def import_image(cls):
        root, program = cls.state / "image", tapio()
        (root / "usr/bin").mkdir(parents=True)
        (root / "tmp").mkdir()
        run("strip", "-o", root / "usr/bin/tapio", program)
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for library in re.findall(r"(/lib\S*)", libraries):
            target = root / library[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
        archive = cls.state / "tapio.tar"
        run(sys.executable, SCRIPTS / "mkimage.py", archive, "docker.io/lab/tapio:1", root, "/usr/bin/tapio")
        run(*cls.inside, TESTBED / "opt/containerd/usr/bin/ctr", "-a", cls.socket, "-n", "k8s.io", "images",
            "import", "--snapshotter", "native", archive)

    @classmethod
    def kubectl(cls, *arguments, given=""):
        program = TESTBED / "opt/kubectl/usr/bin/kubectl"
        return run(program, "--kubeconfig", cls.state / "kubeconfig", "-n", "tapio", *arguments, input=given)

    @classmethod
    def create_secrets(cls):
        script = """
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=authority" \
          -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout tls.key -out csr
        printf 'subjectAltName=DNS:tapio-server.tapio.svc\\n' > ext
        openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out tls.crt
        openssl rand -hex 32 > token; openssl rand -hex 32 > reader
        printf 'write * %s\\nread me %s\\n' "$(cat token)" "$(cat reader)" > tokens
        """
        run("sh", "-ec", script, cwd=cls.state)
        cls.kubectl("create", "namespace", "tapio")
        for name, files in {"tapio-server-tls": ["tls.crt", "tls.key", "ca.crt"], "tapio-tokens": ["tokens"],
                            "tapio-agent-token": ["token"]}.items():
            cls.kubectl("create", "secret", "generic", name, *[f"--from-file={cls.state}/{f}" for f in files])
        cls.kubectl("create", "configmap", "root-ca", f"--from-file=ca.crt={cls.state}/pki/ca.crt")

    @classmethod
    def start(cls):
        presets = {"journal": {"enabled": False}, "systemd": {"enabled": False},
                   "kmsg": {"enabled": True}, "container": {"socket": str(cls.socket)}}
        values = {"image": {"repository": "docker.io/lab/tapio", "tag": "1", "pullPolicy": "Never"},
                  "agent": {"presets": presets, "stateDir": "/run/tapio-state"},
                  # Below, it shares the node's network with the agent.
                  "clusterAgent": {"config": {"admin": {"listen": "127.0.0.1:7613"}}}}
        cls.objects = chart.objects(chart.render(values))
        cls.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(cls.objects))
        store = {"name": "store", "emptyDir": {}}
        cls.pod("StatefulSet", "server", lambda spec: spec["volumes"].append(store))
        cls.server = cls.ready("server")["podIP"]
        cls.pod("DaemonSet", "agent", cls.with_cluster)
        # The API server is on the node's loopback address.
        cls.pod("Deployment", "cluster-agent",
                lambda spec: (cls.with_cluster(spec), spec.update(hostNetwork=True),
                              spec["containers"][0].update(env=cls.api_server())))

    @classmethod
    def api_server(cls):
        return [{"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"},
                {"name": "KUBERNETES_SERVICE_PORT", "value": str(cls.port)}]

    @classmethod
    def with_cluster(cls, spec):
        spec["hostAliases"] = [{"ip": cls.server, "hostnames": ["tapio-server.tapio.svc"]}]
        spec["volumes"].append({"name": "account", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "root-ca"}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}})
        container = spec["containers"][0]
        container["volumeMounts"].append({"name": "account", "mountPath": ACCOUNT, "readOnly": True})
        container["env"] = container.get("env", []) + cls.api_server()

    @classmethod
    def pod(cls, kind, name, edit):
        template = next(o for o in cls.objects if o["kind"] == kind)["spec"]["template"]
        spec = json.loads(json.dumps(template["spec"]))
        spec.update(nodeName="lab-node", dnsPolicy="Default")
        spec.pop("priorityClassName", None)
        edit(spec)
        cls.kubectl("apply", "-f", "-", given=yaml.safe_dump(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": template["metadata"]["labels"]},
             "spec": spec}))

    @classmethod
    def wait(cls, what, get, seconds=90):
        end = time.monotonic() + seconds
        while True:
            found = get()
            if found:
                return found
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n{cls.kubectl('get', 'pods,events')}"
            time.sleep(0.5)

    @classmethod
    def ready(cls, pod):
        def get():
            status = json.loads(cls.kubectl("get", "pod", pod, "-o", "json"))["status"]
            conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
            return status if conditions.get("Ready") == "True" else None
        return cls.wait(f"{pod} is ready", get)

    def status(self):
        return json.loads(run(*self.inside, "curl", "-sf", "http://127.0.0.1:7603/status"))

    def process(self, *arguments):
        """/proc/PID/status of the process of a pod with these arguments."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
                if command[0] == b"/usr/bin/tapio" and [a.decode() for a in command[1:]] == list(arguments) \
                        and "tapio-testbed" in (folder / "cgroup").read_text():
                    yield dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
            except (OSError, IndexError):
                continue

    def test_agent_is_ready_and_has_the_rights_of_its_presets_only(self):
        self.ready("agent")
        status = self.status()
        self.assertIs(status["sandbox"]["seccomp"], True)
        programs = status["collectors"]["ebpf"]["notes"]
        for program in ("process_exec", "process_signal", "tcp_state", "block_complete", "syscall_exit"):
            self.assertEqual(programs[program], "ok")
        for name in ("ebpf", "node", "cni", "container", "k8s"):
            self.assertEqual(status["collectors"][name]["health"], "running", name)
        for resource in ("pods", "nodes", "events", "services", "deployments.apps"):
            self.assertEqual(status["collectors"]["k8s"]["notes"][resource], "ok")
        # Refused by the device rules of the container, whatever its capabilities are.
        self.assertIn("Operation not permitted", status["collectors"]["kmsg"]["last_error"])
        bounds = {int(p["CapBnd"], 16) for p in self.process("run", "--config", "/etc/tapio/tapio.yaml")}
        expected = sum(1 << bit for bit in CAPABILITIES.values())
        self.assertEqual(bounds - {0}, {expected})  # the cluster agent has none

    def test_server_and_cluster_agent_are_users_without_rights(self):
        self.ready("cluster-agent")
        server = list(self.process("server", "--config", "/etc/tapio/tapio.yaml"))
        agents = self.wait("the process of the cluster agent", lambda: [
            p for p in self.process("run", "--config", "/etc/tapio/tapio.yaml") if int(p["CapBnd"], 16) == 0])
        self.assertEqual((len(server), len(agents)), (1, 1))
        for process in server + agents:
            self.assertEqual(process["Uid"].split()[1], "65532")
            self.assertEqual((int(process["CapBnd"], 16), process["Seccomp"], process["NoNewPrivs"]), (0, "2", "1"))

    def kubectl_tapio(self, *arguments):
        """What `kubectl tapio` prints, over a port that kubectl forwards to the server's pod."""
        plugins = self.state / "plugins"
        plugins.mkdir(exist_ok=True)
        links = {"kubectl-tapio": Path(tapio()).resolve(), "kubectl": TESTBED / "opt/kubectl/usr/bin/kubectl"}
        for name, target in links.items():
            if not (plugins / name).is_symlink():
                (plugins / name).symlink_to(target)
        environment = {**os.environ, "PATH": f"{plugins}:{os.environ['PATH']}", "KUBECONFIG": str(self.state / "kubeconfig")}
        token = self.state / "reader.token"
        token.write_text((self.state / "reader").read_text())
        token.chmod(0o600)
        return run(plugins / "kubectl", "tapio", *arguments, "--tls-ca", self.state / "ca.crt",
                   "--tls-server-name", "tapio-server.tapio.svc", "--token-file", token, env=environment)

    def test_crash_loop_is_a_story_that_kubectl_tapio_shows(self):
        self.ready("agent")
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "checkout"}, "spec": {
                "nodeName": "lab-node", "terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "app", "image": "docker.io/lab/app:1", "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", "echo dying >&2; sleep 1; exit 3"]}]}}))
        listed = ("stories", "--since", "10m", "--pod", "tapio/checkout", "-n", "all")
        # The pod's own lifecycle is listed as well.
        stories = lambda: [s for s in json.loads(self.kubectl_tapio(*listed, "-o", "json"))
                           if s["state"] != "retracted" and not s["rule"].endswith("-lifecycle")]
        self.wait("a story of the crash loop", stories, seconds=180)
        # Other rules would have their stories by now, for example of the Events.
        time.sleep(20)
        story, *others = stories()
        self.assertEqual(others, [], "one story")
        self.assertEqual(story["pattern"], "pod-crash-loop")
        self.assertIn("pod tapio/checkout", story["impact"]["affected"])
        self.assertIn("container app ends with exit code 3", story["root_causes"][0]["cause"])
        self.assertTrue(any("kubectl -n tapio logs checkout -c app --previous" in a for a in story["actions"]), story)
        self.assertIn("k8s.pod.crash_loop", {member["kind"] for member in story["members"]})
        self.assertIn("is in a crash loop", self.kubectl_tapio(*listed, "-o", "wide"))
        self.assertIn("ends with exit code 3", self.kubectl_tapio("stories", story["id"]))
        agents = json.loads(self.kubectl_tapio("agents", "-o", "json"))
        self.assertIn("lab-node", {agent["node"] for agent in agents})


if __name__ == "__main__":
    unittest.main(verbosity=2)
