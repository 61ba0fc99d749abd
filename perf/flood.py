#!/usr/bin/env python3
"""Measures whether a flood of one source delays or loses what others tell.

usage: perf/flood.py [--tapio PATH] [--seconds N] [--rate KEYS_PER_SECOND]

A standalone agent runs with the collectors ebpf and otlp. A program crashes once a second; the time
from the crash to the story on tapio's standard output is measured in four phases: quiet; a flood of
records by OTLP, each matching a rule with a key of its own; the same flood with times an hour ahead,
an hour back, a year ahead and a year back; quiet again. Needs root, for eBPF. Prints JSON.
"""
import argparse
import ctypes
import http.client
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

RULE = """\
rule: flood
events: { e: { kind: otlp.log, message: { prefix: "flood " } } }
count: { event: e, by: [service.name], within: 1s, at_least: 1 }
story: { pattern: flood }
"""
HOUR, YEAR = 3_600, 365 * 86_400


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def page(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().read()


class Output(threading.Thread):
    """Notes when each victim's story is printed first."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.seen, self.stories = stream, {}, 0

    def run(self):
        for line in self.stream:
            now = time.time()
            for name in re.findall(r"victim\d{5}", line):
                self.seen.setdefault(name, now)


class Flood:
    """Sends records, each with a key of its own, at a rate. In a process of its own: it would keep
    the interpreter from the thread that notes when stories are printed."""

    def __init__(self, port, rate, offsets):
        self.port, self.rate, self.offsets = port, rate, offsets
        self.sent, self.refused = 0, 0
        self.stopped = multiprocessing.Event()
        self.counts, counts = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=self.run, args=(counts,), daemon=True)

    def start(self):
        self.process.start()

    def stop(self):
        self.stopped.set()
        self.sent, self.refused = self.counts.recv()
        self.process.join()

    def run(self, counts):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        began, number = time.time(), int(time.time() * 1000) * 1000
        while not self.stopped.is_set():
            due = int((time.time() - began) * self.rate) - self.sent
            if due < self.rate // 20:
                time.sleep(0.01)
                continue
            resources = []
            for _ in range(due):
                number += 1
                at = time.time() + self.offsets[number % len(self.offsets)]
                key = {"key": "service.name", "value": {"stringValue": f"s{number}"}}
                record = {
                    "timeUnixNano": str(int(at * 1e9)),
                    "severityNumber": 17,
                    "body": {"stringValue": f"flood {number}"},
                }
                resources.append({
                    "resource": {"attributes": [key]},
                    "scopeLogs": [{"logRecords": [record]}],
                })
            body = json.dumps({"resourceLogs": resources})
            connection.request("POST", "/v1/logs", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            self.sent += due
            self.refused += due if answer.status != 200 else 0
        counts.send((self.sent, self.refused))


def crash(number):
    """Starts a process with a name of its own that dies by SIGSEGV. Returns the name and when."""
    name = f"victim{number:05}"
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGSEGV)
        os._exit(1)
    os.waitpid(pid, 0)
    return name, time.time()


def percentile(sorted_values, share):
    if not sorted_values:
        return None
    return round(sorted_values[min(int(share * len(sorted_values)), len(sorted_values) - 1)], 1)


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) // 1024


def phase(name, seconds, output, first, flood=None):
    if flood:
        flood.start()
        time.sleep(2)
    victims, end = {}, time.time() + seconds
    while time.time() < end:
        started = time.time()
        victim, at = crash(first + len(victims))
        victims[victim] = at
        time.sleep(max(0.0, 1 - (time.time() - started)))
    if flood:
        flood.stop()
    time.sleep(2)
    delays = sorted((output.seen[v] - at) * 1e3 for v, at in victims.items() if v in output.seen)
    return {
        "phase": name,
        "crashes": len(victims),
        "stories": len(delays),
        "delay_ms": {f"p{p}": percentile(delays, p / 100) for p in (50, 90, 99)},
        "delay_max_ms": round(delays[-1], 1) if delays else None,
        "flood_records": flood.sent if flood else 0,
        "flood_refused": flood.refused if flood else 0,
    }


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--tapio", default="target/release/tapio")
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--rate", type=int, default=1000)
    options = options.parse_args()
    folder = tempfile.mkdtemp(prefix="tapio-flood-")
    admin, grpc, web, otlp, otlp_grpc = (free_port() for _ in range(5))
    with open(f"{folder}/flood.yaml", "w") as file:
        file.write(RULE)
    with open(f"{folder}/tapio.yaml", "w") as file:
        file.write(f"""\
node: flood
state_dir: {folder}/state
memory_limit: 512MiB
dataflow: {{ rules: ["{folder}/flood.yaml"] }}
collectors:
  only: [ebpf, otlp]
  otlp: {{ enabled: true, grpc_listen: "127.0.0.1:{otlp_grpc}", http_listen: "127.0.0.1:{otlp}" }}
admin: {{ listen: "127.0.0.1:{admin}" }}
server: {{ grpc_listen: "127.0.0.1:{grpc}", http_listen: "127.0.0.1:{web}" }}
""")
    log = open(f"{folder}/log", "w")
    agent = subprocess.Popen(
        [options.tapio, "run", "--standalone", "--config", f"{folder}/tapio.yaml"],
        stdout=subprocess.PIPE, stderr=log, text=True,
    )
    try:
        output = Output(agent.stdout)
        output.start()
        # Attaching the programs takes a while after the page is up.
        time.sleep(8)
        seconds, rate = options.seconds, options.rate
        results = [
            phase("quiet", seconds, output, 0),
            phase("flood", seconds, output, 10_000, Flood(otlp, rate, [0])),
            phase("flood with wrong clocks", seconds, output, 20_000,
                  Flood(otlp, rate, [0, HOUR, -HOUR, YEAR, -YEAR])),
            phase("quiet again", seconds, output, 30_000),
        ]
        status = json.loads(page(admin, "/status"))
        cons1 = status["cons1"]
        print(json.dumps({
            "phases": results,
            "kernel": cons1["collectors"]["ebpf"],
            "otlp": cons1["collectors"]["otlp"],
            "cons1_holds": cons1["holds"],
            "rss_mib": rss_mib(agent.pid),
            "cores": os.cpu_count(),
        }, indent=1))
    finally:
        agent.terminate()
        agent.wait(timeout=60)
        log.close()
        if agent.returncode == 0:
            shutil.rmtree(folder)
        else:
            print(f"agent exited with {agent.returncode}: {folder}/log")


main()
