"""What the tests of notifications have in common: an agent with a server, receivers, Alertmanager."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TAPIO = os.environ.get("TAPIO", str(ROOT / "target/debug/tapio"))
SECRET = b"the key of the tests, 32 bytes!!"

RULES = """\
rule: test-fault
description: A unit of the test failed.
severity: error
events:
  fault: { kind: test.fault }
count: { event: fault, by: [host.name, systemd.unit], within: 60s, at_least: 1 }
story:
  pattern: test-pattern
  name: "{fault.systemd.unit} failed"
  intent: a test
  root_cause: "{fault.message}"
  actions: ["systemctl status {fault.systemd.unit}"]
  impact: { business: 0.5, customer_facing: true }
  close: { idle: 4s, max_age: 10m }
---
rule: test-long
description: A unit of the test fails for long.
severity: warn
events:
  slow: { kind: test.slow }
  worse: { kind: test.worse }
any_order: { events: [slow, worse], by: [host.name, systemd.unit], within: 60s, at_least: 1 }
story:
  pattern: test-long
  name: "{slow.systemd.unit} is slow"
  root_cause: ["{worse.message}", "{slow.message}"]
  close: { idle: 60s, max_age: 10m }
---
rule: test-order
description: Event time decides whether the second came after the first.
severity: warn
events:
  first: { kind: test.first }
  second: { kind: test.second }
sequence:
  by: [host.name, systemd.unit]
  within: 3s
  slack: 1s
  steps: [{ event: first }, { event: second }]
story:
  pattern: test-order
  name: "{first.systemd.unit}: first, then second"
  root_cause: "{first.message}"
  close: { idle: 2s, max_age: 1m }
"""


def program(name, folder):
    """A program of Debian's packages, installed or unpacked by scripts/test-notify.sh."""
    unpacked = ROOT / "target/testbed/opt" / folder / "usr/bin" / name
    return shutil.which(name) or (str(unpacked) if unpacked.exists() else None)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def eventually(what, condition, seconds=60):
    """Waits until a condition holds, and returns its value."""
    last = None
    for _ in range(int(seconds / 0.05)):
        try:
            last = condition()
        except OSError as error:
            last = error
        if last and not isinstance(last, OSError):
            return last
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}; last: {last!r}")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def request(method, url, body):
    data = json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


class Agent:
    """`tapio run --standalone` in a folder of its own, with events from a file; `is_apart`: with
    `tapio server` in a process of its own."""

    def __init__(self, notify, collectors="jsonl", is_apart=False):
        self.dir = Path(tempfile.mkdtemp(prefix="tapio-notify-"))
        self.admin, self.grpc, self.http = free_port(), free_port(), free_port()
        (self.dir / "rules.yaml").write_text(RULES)
        self.events = self.dir / "events.jsonl"
        self.events.write_text("")
        (self.dir / "secret").write_bytes(SECRET)
        (self.dir / "token").write_text("xoxb-the-token-of-the-tests")
        for name in ("secret", "token"):
            (self.dir / name).chmod(0o600)
        self.collectors = collectors
        self.notify = notify
        # Further sections of the configuration.
        self.extra = ""
        self.is_apart = is_apart
        self.process = self.server = None
        self.sequence = 0

    @property
    def config(self):
        path = self.dir / "tapio.yaml"
        path.write_text(
            f"{self.extra}state_dir: {self.dir}/state\nnode: n1\ncluster: test\n"
            f'admin: {{ listen: "127.0.0.1:{self.admin}" }}\n'
            f"dataflow: {{ rules: [{self.dir}/rules.yaml], builtin_rules: false }}\n"
            f"collectors:\n  only: [{self.collectors}]\n"
            f'  jsonl: {{ paths: ["{self.events}"], follow: true }}\n'
            f'bridge: {{ endpoint: "127.0.0.1:{self.grpc}", drain_timeout: 2s }}\n'
            f'server:\n  grpc_listen: "127.0.0.1:{self.grpc}"\n  http_listen: "127.0.0.1:{self.http}"\n'
            + ("  notify:\n" if self.notify else "")
            + "".join(f"    - {json.dumps(one)}\n" for one in self.notify)
        )
        return path

    def run(self, *arguments):
        with open(self.dir / "log", "ab") as log:
            return subprocess.Popen([TAPIO, *arguments, "--config", str(self.config)],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def start(self):
        if self.is_apart:
            self.start_server()
        self.process = self.run("run") if self.is_apart else self.run("run", "--standalone")
        eventually("the agent is ready", lambda: get(f"http://127.0.0.1:{self.admin}/readyz"))
        return self

    def start_server(self):
        self.server = self.run("server")
        eventually("the server is ready", lambda: get(f"http://127.0.0.1:{self.http}/readyz"))

    def stop_server(self, how=signal.SIGTERM):
        if self.server:
            self.server.send_signal(how)
            self.server.wait(60)
            self.server = None

    def stop(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def remove(self):
        self.stop()
        self.stop_server()
        shutil.rmtree(self.dir, ignore_errors=True)

    def event(self, kind, unit, message="broken", **more):
        self.sequence += 1
        now = datetime.now(timezone.utc) - timedelta(seconds=more.pop("age_s", 0))
        now = now.isoformat().replace("+00:00", "Z")
        event = {"id": f"e{os.getpid()}-{self.sequence}-{time.time_ns()}", "time": now, "kind": kind,
                 "source": "test", "severity": "warn" if kind == "test.slow" else "error",
                 "entity": {"node": "n1", "systemd.unit": unit}, "message": message, **more}
        with open(self.events, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def retracted_story(self, unit):
        """Causes a story in the order of arrival that event time doesn't confirm."""
        self.event("test.first", unit)
        self.event("test.second", unit, age_s=0.3)

    def api(self, path):
        return json.loads(get(f"http://127.0.0.1:{self.http}{path}"))

    def stories(self, unit):
        items = self.api("/api/v1/stories?limit=10000")["items"]
        return [one for one in items if one["key"].get("systemd.unit") == unit]

    def metric(self, name, receiver):
        for line in get(f"http://127.0.0.1:{self.http}/metrics").splitlines():
            if line.startswith(f'{name}{{receiver="{receiver}"}} '):
                return float(line.split()[-1])
        return None

    def text(self):
        return (self.dir / "log").read_text(errors="replace")


class Sink:
    """A receiver. `answer(path, headers, body)` returns a status, headers and a body; `None` closes
    the connection, and a number waits for so many seconds first."""

    def __init__(self, answer=None):
        self.requests = []
        self.answer = answer or (lambda path, headers, body: (200, {}, b"ok"))
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = sink.answer(self.path, headers, body)
                if isinstance(answer, (int, float)):
                    time.sleep(answer)
                    answer = None
                status = answer[0] if answer else 0
                sink.requests.append((self.path, headers, body, status))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in answer[1].items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer[2])))
                self.end_headers()
                self.wfile.write(answer[2])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Clients that a test kills.
        self.server.handle_error = lambda *_: None
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def use_tls(self, cert, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def taken(self):
        """The notifications that were answered with success."""
        return [json.loads(body) for _, _, body, status in list(self.requests) if status == 200]

    def events(self, unit=None):
        """Event and unit of each notification taken."""
        key = lambda one: one.get("story", {}).get("key", {}).get("systemd.unit", "-")
        found = [(one["event"], key(one)) for one in self.taken()]
        return [event for event, of in found if of == unit] if unit else found

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def is_signed(headers, body):
    """Verifies a signature as the specification says, with Python's own HMAC."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    is_recent = abs(time.time() - int(headers["webhook-timestamp"])) < 30
    return is_recent and headers["webhook-signature"] == f"v1,{expected}"


def with_templates(command):
    """Debian's Alertmanager opens its template by its installed path. Where the package is unpacked
    only, it runs in a mount namespace that has the package's files there."""
    share = ROOT / "target/testbed/opt/alertmanager/usr/share"
    if Path("/usr/share/prometheus/alertmanager/default.tmpl").exists() or not share.exists():
        return command
    mount = f'mount -t overlay overlay -o "lowerdir={share}:/usr/share" /usr/share && exec "$@"'
    as_root = [] if os.geteuid() == 0 else ["-r"]
    return ["unshare", *as_root, "-m", "sh", "-c", mount, "sh", *command]


def has_alertmanager():
    """Whether Alertmanager and amtool can be run."""
    binary = program("prometheus-alertmanager", "alertmanager")
    if not binary or not program("amtool", "alertmanager"):
        return False
    template = "test -f /usr/share/prometheus/alertmanager/default.tmpl"
    return subprocess.run(with_templates(["sh", "-c", template]), capture_output=True).returncode == 0


class Alertmanager:
    """Debian's Alertmanager, with a receiver of the test behind it."""

    def __init__(self):
        self.binary = program("prometheus-alertmanager", "alertmanager")
        self.amtool = program("amtool", "alertmanager")
        self.dir = Path(tempfile.mkdtemp(prefix="tapio-alertmanager-"))
        self.port = free_port()
        self.sink = Sink()
        (self.dir / "config.yaml").write_text(
            "route: { receiver: test, group_by: ['...'], group_wait: 1s, group_interval: 1s, repeat_interval: 1h }\n"
            f"receivers: [{{ name: test, webhook_configs: [{{ url: '{self.sink.url}', send_resolved: true }}] }}]\n")
        self.process = None

    def start(self):
        self.log = open(self.dir / "log", "ab")
        command = [self.binary, f"--config.file={self.dir}/config.yaml", f"--storage.path={self.dir}/data",
                   f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]
        self.process = subprocess.Popen(with_templates(command), stdout=self.log, stderr=self.log)
        eventually("Alertmanager is ready", lambda: get(f"{self.url}/-/ready"))
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def alerts(self, **labels):
        found = json.loads(get(f"{self.url}/api/v2/alerts"))
        return [a for a in found if all(a["labels"].get(k) == v for k, v in labels.items())]

    def tool(self, *arguments):
        command = [self.amtool, *arguments, f"--alertmanager.url={self.url}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def notified(self, unit):
        """The states of which Alertmanager has notified its own receiver."""
        alerts = [a for body in self.sink.taken() for a in body["alerts"]]
        return [a["status"] for a in alerts if a["labels"].get("systemd_unit") == unit]

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.log.close()
            self.process = None

    def remove(self):
        self.stop()
        self.sink.close()
        shutil.rmtree(self.dir, ignore_errors=True)
