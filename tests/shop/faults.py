"""The faults: a kind, the services that it can befall, its injection and its repair."""

import json
import os
import signal
import sys
import time

from certificates import YEAR
from disks import disk_of
from layout import HERE, SERVICES
from processes import Process

WITH_CALLEES = [service.name for service in SERVICES.values() if service.calls]
WITH_TLS = [service.name for service in SERVICES.values() if service.tls]
ON_DISK = [service.name for service in SERVICES.values() if service.disk == "block"]
ON_SMALL_DISK = [service.name for service in SERVICES.values() if service.disk == "small"]
ALL = list(SERVICES)
# Wrong answers of callees, with status 200 and in the right form.
WRONG = {
    "catalog": {"id": 0, "text": "", "price": 0, "currency": "EUR"},
    "database": {},
    "inventory": {"reserved": False, "left": [0]},
    "payment": {"charge": "", "amount": -1},
    "quote": {"cost": 0, "table": ""},
    "cart": {"items": []},
}


class Faults:
    """Injects and repairs. Each pair of methods is named after its kind."""

    def __init__(self, instance, network, processes, authority):
        self.instance, self.network = instance, network
        self.processes, self.authority = processes, authority
        self.relay = None
        self.filler = None

    def inject(self, kind, service):
        getattr(self, f"start_{kind}")(service)

    def repair(self, kind, service):
        getattr(self, f"end_{kind}")(service)

    def stop(self):
        if self.relay:
            self.relay.stop()

    def cgroup(self, service):
        return self.processes.cgroups[service]

    def disk(self, service):
        return disk_of(self.processes.disks.folder(service))

    # Processors, memory, disks, descriptors.

    def start_cpu(self, service):
        """A limit of less than the service has used lately, so that its requests queue."""
        cgroup = self.cgroup(service)
        before = cgroup.used_cpu()
        time.sleep(4)
        cgroup.limit_cpu(0.7 * (cgroup.used_cpu() - before) / 4)

    def end_cpu(self, service):
        self.cgroup(service).limit_cpu(None)

    def start_oom(self, service):
        self.cgroup(service).limit_memory(192 << 20)
        self.defect(service, kind="leak_memory", share=1.0)

    def end_oom(self, service):
        self.mend(service)
        self.cgroup(service).limit_memory(None)

    def start_slow_disk(self, service):
        """Writes wait for their turn, as on a disk that others use up."""
        self.cgroup(service).limit_writes(self.disk(service), 6)

    def end_slow_disk(self, service):
        self.cgroup(service).limit_writes(self.disk(service), None)

    def start_full_disk(self, service):
        self.filler = self.instance.folder / "data" / service / "core.4711"
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def end_full_disk(self, _):
        self.filler.unlink()

    def start_descriptors(self, service):
        self.defect(service, kind="leak_descriptor", share=1.0, each=8)

    def end_descriptors(self, service):
        """A service without descriptors can't read that the fault is over: it is restarted."""
        self.mend(service)
        self.processes.services[service].signal(signal.SIGKILL)

    # The service's own code.

    def defect(self, service, **fault):
        path = self.instance.faults(service)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(fault))
        os.replace(draft, path)

    def mend(self, service):
        self.instance.faults(service).unlink(missing_ok=True)

    def start_exception(self, service):
        self.defect(service, kind="exception", share=0.6)

    def start_wrong_return(self, service):
        self.defect(service, kind="wrong_return", share=0.9, answer=WRONG[service])

    def start_crash(self, service):
        self.defect(service, kind="crash", share=0.2)

    def start_lock(self, service):
        self.defect(service, kind="lock_up", share=0.5, seconds=1.5)

    end_exception = end_wrong_return = end_crash = end_lock = mend

    # The process as a whole.

    def start_hang(self, service):
        self.processes.services[service].signal(signal.SIGSTOP)

    def end_hang(self, service):
        self.processes.services[service].signal(signal.SIGCONT)

    def start_refused(self, service):
        self.processes.services[service].stop()

    def end_refused(self, service):
        self.processes.services[service].start()

    # Its link, its names, its certificate.

    def start_delay(self, service):
        outer, near = self.network.detour(service)
        script = (sys.executable, str(HERE / "relay.py"), outer, near, "200", "30")
        self.relay = Process("relay", script, self.instance.folder / "relay.log")
        self.relay.start()

    def end_delay(self, service):
        self.network.straighten(service)
        self.relay.stop()

    def start_loss(self, service):
        self.network.lose(service, 30)

    def start_reset(self, service):
        self.network.reset(service, 20)

    def end_loss(self, service):
        self.network.clear(service)

    end_reset = end_loss

    def start_bandwidth(self, service):
        self.network.narrow(service, "48kbit")

    def end_bandwidth(self, service):
        self.network.widen(service)

    def start_dns(self, service):
        self.processes.resolvers[service].stop()

    def end_dns(self, service):
        self.processes.resolvers[service].start()

    def start_certificate(self, service):
        """The new certificate expires within seconds: the fault begins when it does."""
        expires = int(time.time()) + 3
        self.authority.issue(service, expires)
        self.processes.services[service].signal(signal.SIGHUP)
        time.sleep(max(0.0, expires - time.time()))

    def end_certificate(self, service):
        self.authority.issue(service, time.time() + YEAR)
        self.processes.services[service].signal(signal.SIGHUP)


# Kind: services that it can befall. The load generator has no telemetry, so nobody observes the
# frontend's link and process from outside but the kernel.
KINDS = {
    "exception": [name for name in ALL if name != "frontend"],
    "delay": ALL[1:],
    "cpu": ["catalog", "currency", "checkout", "cart", "quote", "recommendation", "database"],
    "refused": ALL[1:],
    "wrong_return": list(WRONG),
    "hang": ALL[1:],
    "loss": ALL[1:],
    "slow_disk": ON_DISK,
    "oom": ["catalog", "recommendation", "currency", "cart", "checkout", "database"],
    "dns": WITH_CALLEES,
    "crash": ALL[1:],
    "reset": ALL[1:],
    "certificate": WITH_TLS,
    "full_disk": ON_SMALL_DISK,
    "descriptors": ["catalog", "cart", "currency", "checkout", "database", "recommendation"],
    "lock": ALL[1:],
    "bandwidth": ["catalog", "recommendation", "database"],
}
