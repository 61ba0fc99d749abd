"""The shop's processes: each in its namespace and its cgroup, restarted where one ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

from cgroups import Cgroup
from disks import Disks
from layout import HERE, SERVICES

# Seconds after which a process that has ended is started again.
RESTART = 2.0
# Open descriptors that a service may have.
DESCRIPTORS = 256
# More than other processes of the machine: compilers beside the test are no fault of the shop.
SHARES = 20480


class Process:
    """A process that is started again whenever it ends, until it isn't wanted any more."""

    def __init__(self, name, command, log, cgroup=None, environment=None, limits=None):
        self.name, self.command, self.log, self.cgroup = name, command, log, cgroup
        self.environment = environment
        self.limits = limits
        self.wanted = False
        self.child = None
        self.ended = 0.0
        self.on_start = None

    def prepare(self):
        """In the child, before exec."""
        os.setpgid(0, 0)
        if self.cgroup:
            self.cgroup.join()
        if self.limits:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, (self.limits, self.limits))

    def start(self):
        self.spawn()
        self.wanted = True

    def spawn(self):
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=self.prepare,
                env={**os.environ, **(self.environment or {})},
            )
        self.ended = 0.0
        if self.on_start:
            self.on_start(self.name, self.child.pid)

    def watch(self, now):
        if not self.wanted or self.child.poll() is None:
            return
        if not self.ended:
            self.ended = now
        elif now - self.ended >= RESTART:
            self.spawn()

    def signal(self, number):
        if self.child.poll() is None:
            self.child.send_signal(number)

    def stop(self, patience=5.0):
        self.wanted = False
        if self.child is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Processes:
    """All processes of an instance."""

    def __init__(self, instance):
        self.instance = instance
        self.cgroups = {name: Cgroup(f"{instance.prefix}/{name}") for name in [*SERVICES, "tapio"]}
        self.disks = Disks(instance)
        self.services, self.resolvers, self.others = {}, {}, []
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def prepare(self):
        for cgroup in self.cgroups.values():
            cgroup.create()
        self.disks.start()
        (self.instance.folder / "faults").mkdir(exist_ok=True)
        Cgroup(self.instance.prefix).weigh(SHARES)
        self.thread.start()

    def in_namespace(self, name, *command):
        return ("ip", "netns", "exec", self.instance.namespace(name), *command)

    def program(self, name):
        """An interpreter with the service's name, as the kernel and its tools show it."""
        link = self.instance.folder / "bin" / self.instance.namespace(name)
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.symlink_to(sys.executable)
        return str(link)

    def start_service(self, service):
        name, folder = service.name, self.instance.folder
        if service.calls:
            prefix = self.instance.address(0).removesuffix(".0")
            command = self.in_namespace(name, sys.executable, str(HERE / "resolver.py"), prefix)
            resolver = Process(f"{name}-dns", command, folder / f"{name}-dns.log")
            self.resolvers[name] = resolver
            resolver.start()
        port = 4317 if service.protocol == "grpc" else 4318
        environment = {
            "OTEL_SERVICE_NAME": name,
            "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=shop,service.version=1.4.0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.instance.address(1)}:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": service.protocol,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        script = (str(HERE / "service.py"), name, str(folder))
        command = self.in_namespace(name, self.program(name), *script)
        cgroup = self.cgroups[name]
        log = folder / f"{name}.log"
        process = Process(name, command, log, cgroup, environment, DESCRIPTORS)
        process.on_start = self.note_pid
        self.services[name] = process
        process.start()

    def note_pid(self, service, pid):
        with open(self.instance.folder / "pids.jsonl", "a") as file:
            file.write(json.dumps({"service": service, "pid": pid}) + "\n")

    def add(self, process):
        self.others.append(process)
        process.start()
        return process

    def watch(self):
        while not self.end.wait(0.5):
            now = time.monotonic()
            for process in [*self.services.values(), *self.resolvers.values()]:
                process.watch(now)

    def stop(self):
        self.end.set()
        if self.thread.is_alive():
            self.thread.join()
        # The load first and tapio last: nothing that ends here is a fault.
        order = [*self.others[1:], *self.services.values(), *self.resolvers.values()]
        for process in [*order, *self.others[:1]]:
            process.stop()
        self.disks.stop()
        for cgroup in [*self.cgroups.values(), Cgroup(self.instance.prefix)]:
            self.empty(cgroup)
            cgroup.remove()

    @staticmethod
    def empty(cgroup):
        """A service's threads may still be ending: a cgroup is removed when nothing is in it."""
        for _ in range(50):
            if not cgroup.pids():
                break
            time.sleep(0.1)
