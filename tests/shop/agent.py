"""tapio beside the shop: its configuration, and the stories that it emits."""

import json
import threading
import time
import urllib.error
import urllib.request

from processes import Process
from score import seconds

API, ADMIN = "http://127.0.0.1:7601", "http://127.0.0.1:7603"
# Seconds without an event after which nobody waits for a story to be closed.
STALE = 75.0
CONFIGURATION = """
node: {node}
state_dir: {state}
collectors:
  only: [ebpf, kmsg, node, otlp]
  otlp: {{ enabled: true, hosts: ["{address}"] }}
log: {{ level: info }}
"""


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.loads(answer.read())


class Agent:
    """A standalone tapio in the node's namespace; a thread reads its stories every second."""

    def __init__(self, instance, binary, processes):
        self.instance, self.binary, self.processes = instance, binary, processes
        self.seen = {}
        self.latest = {}
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)

    def start(self):
        folder = self.instance.folder
        path = folder / "tapio.yaml"
        path.write_text(
            CONFIGURATION.format(
                node=self.instance.prefix,
                state=folder / "state",
                address=self.instance.address(1),
            )
        )
        command = (str(self.binary), "run", "--standalone", "--config", str(path))
        cgroup = self.processes.cgroups["tapio"]
        self.processes.add(Process("tapio", command, folder / "tapio.log", cgroup))
        self.await_ready()
        self.thread.start()

    def await_ready(self):
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"{ADMIN}/readyz", timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.5)
        raise RuntimeError(f"tapio isn't ready; see {self.instance.folder / 'tapio.log'}")

    def read(self):
        """Appends each revision of each story, with the time when it was first read."""
        with open(self.instance.folder / "stories.jsonl", "a") as file:
            while not self.end.wait(1.0):
                try:
                    stories = get(f"{API}/api/v1/stories?limit=100")["items"]
                except (OSError, ValueError):
                    continue
                self.latest.update((story["id"], story) for story in stories)
                for story in stories:
                    revision = json.dumps(story, sort_keys=True)
                    if self.seen.get(story["id"]) != revision:
                        self.seen[story["id"]] = revision
                        file.write(json.dumps({"read": time.time(), "story": story}) + "\n")
                file.flush()

    def open_stories(self, names):
        """Those about the shop that aren't closed, and have had an event lately. A disturbance is
        emitted again only when its ranking changes: it is open until it is closed."""
        since = time.time() - STALE
        return [
            story
            for story in list(self.latest.values())
            if story["state"] in ("opened", "updated")
            and (story["rule"] == "service-disturbance" or seconds(story["last"]) > since)
            and names.concerns(story)
        ]

    def stop(self):
        self.end.set()
        if self.thread.is_alive():
            self.thread.join()
