"""Runs the shop beside tapio, injects labelled faults and scores the stories.

python3 run.py --tapio target/release/tapio --runs 60 --quiet-minutes 60
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import report
import score
from agent import Agent
from certificates import Authority
from faults import KINDS, Faults
from layout import HERE, ROOT, SERVICES, Instance
from network import Network
from processes import Process, Processes

# The smoke run is shorter than tapio learns: these two the kernel reports.
SMOKE = [("crash", "catalog"), ("refused", "currency")]


class Shop:
    """An instance with everything that belongs to it; `stop` leaves nothing behind."""

    def __init__(self, options):
        self.options = options
        self.instance = Instance(options.instance, options.folder.resolve())
        self.network = Network(self.instance)
        self.authority = Authority(self.instance.folder / "tls")
        self.processes = Processes(self.instance)
        self.agent = Agent(self.instance, options.tapio.resolve(), self.processes)
        self.faults = Faults(self.instance, self.network, self.processes, self.authority)

    def start(self):
        self.instance.folder.mkdir(parents=True)
        options = {**vars(self.options), "folder": None, "tapio": None, "score": None}
        (self.instance.folder / "run.json").write_text(json.dumps(options))
        self.network.start()
        self.authority.start()
        self.processes.prepare()
        self.agent.start()
        for service in SERVICES.values():
            self.processes.start_service(service)
        time.sleep(5)
        address = self.instance.address(SERVICES["frontend"].number)
        output = str(self.instance.folder / "load.jsonl")
        settings = (address, str(self.options.rate), str(self.options.seed), output)
        script = (sys.executable, str(HERE / "load.py"), *settings)
        command = self.processes.in_namespace("load", *script)
        log = self.instance.folder / "load.log"
        self.processes.add(Process("load", command, log))

    def stop(self):
        self.agent.stop()
        self.faults.stop()
        self.processes.stop()
        self.network.stop()

    def record(self, name, line):
        with open(self.instance.folder / name, "a") as file:
            file.write(json.dumps(line) + "\n")

    def wait(self, phase, seconds):
        if seconds > 0:
            self.record("phases.jsonl", {"phase": phase, "start": time.time(), "seconds": seconds})
            time.sleep(seconds)

    def fault(self, number, kind, service):
        say(f"{number + 1}: {kind} at {service}")
        began = time.time()
        self.faults.inject(kind, service)
        # Limits and certificates need some seconds of preparation, in which nothing is wrong.
        start = time.time() if kind in ("cpu", "certificate") else began
        time.sleep(self.options.hold)
        self.faults.repair(kind, service)
        line = {"kind": kind, "service": service, "start": start, "end": time.time()}
        time.sleep(self.options.rest)
        self.settle()
        self.record("faults.jsonl", {**line, "until": time.time()})

    def settle(self):
        """Waits until the fault's stories are closed: the next fault is an incident of its own."""
        names = score.names_of(self.instance.folder, self.instance.number)
        last = time.time() + self.options.settle
        while time.time() < last and self.agent.open_stories(names):
            time.sleep(1)


def say(text):
    print(time.strftime("%H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)


def plan(options):
    """Kinds in turn, each time with a service that the kind hasn't befallen as often as others."""
    if options.smoke:
        return SMOKE
    generator = random.Random(options.seed)
    queues = {kind: [] for kind in options.kinds}
    faults = []
    while len(faults) < options.runs:
        kinds = list(options.kinds)
        if faults:
            generator.shuffle(kinds)
        for kind in kinds:
            if not queues[kind]:
                queues[kind] = list(KINDS[kind])
                generator.shuffle(queues[kind])
            faults.append((kind, queues[kind].pop()))
    return faults[: options.runs]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tapio", type=Path, default=ROOT / "target/release/tapio")
    parser.add_argument("--folder", type=Path, help="for results; must not exist")
    parser.add_argument("--instance", type=int, default=0, help="0 to 9, for several at a time")
    parser.add_argument("--runs", type=int, default=60, help="faults")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--warm-minutes", type=float, default=6.0, help="of learning, not scored")
    parser.add_argument("--quiet-minutes", type=float, default=60.0, help="of load without faults")
    parser.add_argument("--hold", type=float, default=40.0, help="seconds of a fault")
    parser.add_argument("--rest", type=float, default=40.0, help="seconds after a fault")
    parser.add_argument("--settle", type=float, default=80.0, help="more, while stories are open")
    parser.add_argument("--smoke", action="store_true", help="two faults within three minutes")
    parser.add_argument("--check", action="store_true", help="fail below the thresholds")
    parser.add_argument("--score", type=Path, help="score a run's folder again, and run nothing")
    options = parser.parse_args()
    unknown = set(options.kinds) - set(KINDS)
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; kinds: {', '.join(KINDS)}")
    if options.smoke:
        options.warm_minutes, options.quiet_minutes, options.hold, options.rest = 0.7, 0, 35, 10
        options.settle = 0
    if options.folder is None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        options.folder = ROOT / f"target/shop/{stamp}-{options.instance}"
    return options


def execute(options):
    # A run that is asked to end stops and removes all that it has made. A shell lets what it runs
    # in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shop = Shop(options)
    try:
        shop.start()
        say(f"results in {shop.instance.folder}")
        shop.wait("warm", options.warm_minutes * 60)
        shop.wait("quiet", options.quiet_minutes * 60)
        for number, (kind, service) in enumerate(plan(options)):
            shop.fault(number, kind, service)
    except KeyboardInterrupt:
        say("interrupted: what has run is scored")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        shop.stop()
    return shop.instance.folder


def main():
    options = arguments()
    if options.score is None and os.geteuid() != 0:
        sys.exit("namespaces and cgroups need root: scripts/as-root.sh python3 tests/shop/run.py")
    folder = options.score or execute(options)
    result = score.score(folder)
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    table = report.table(result)
    (folder / "result.md").write_text(table + "\n")
    print(table)
    if options.check:
        failures = report.failures(result)
        for failure in failures:
            say(failure)
        sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
