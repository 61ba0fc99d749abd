"""Network namespaces, the bridge between them, and the faults of a link."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path

from layout import LOAD, PORT, SERVICES

CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
# Set commands of ethtool: receive and transmit checksums, scatter-gather, TSO, GSO, GRO.
OFFLOADS = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)


def run(*command, check=True, stdin=None):
    """Runs a command; its error output is part of the exception."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def enter(namespace):
    """Moves this thread, and the processes that it starts, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def disable_offloads(link):
    """Frames then have the sizes and checksums that they have on a wire: relay.py copies them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        for command in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", link.encode(), ctypes.addressof(value))
            fcntl.ioctl(door, SIOCETHTOOL, request.ljust(40, b"\0"))


class Network:
    """The namespaces of an instance. After `start` this process is in that of the node."""

    def __init__(self, instance):
        self.instance = instance
        self.hosts = {service.name: service.number for service in SERVICES.values()}
        self.hosts["load"] = LOAD

    def start(self):
        self.stop()
        run("ip", "netns", "add", self.instance.node)
        enter(self.instance.node)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", self.instance.bridge, "type", "bridge")
        address = f"{self.instance.address(1)}/24"
        run("ip", "addr", "add", address, "dev", self.instance.bridge)
        run("ip", "link", "set", self.instance.bridge, "up")
        self.forward_telemetry()
        for name, number in self.hosts.items():
            self.add_host(name, number)

    def forward_telemetry(self):
        """tapio takes OTLP without TLS on loopback only, so the node forwards it there."""
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        rules = "add table ip shop\n"
        rules += "add chain ip shop pre { type nat hook prerouting priority -100; }\n"
        rules += "add rule ip shop pre tcp dport { 4317, 4318 } dnat to 127.0.0.1\n"
        run("nft", "-f", "-", stdin=rules)

    def add_host(self, name, number):
        namespace, outer = self.instance.namespace(name), self.instance.link("h", number)
        inner = self.instance.link("n", number)
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        disable_offloads(outer)
        disable_offloads(inner)
        run("ip", "link", "set", inner, "netns", namespace)
        run("ip", "link", "set", outer, "master", self.instance.bridge, "up")
        inside = ("ip", "-n", namespace)
        run(*inside, "link", "set", inner, "name", "eth0")
        run(*inside, "addr", "add", f"{self.instance.address(number)}/24", "dev", "eth0")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "set", "eth0", "up")
        folder = Path("/etc/netns") / namespace
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")

    def stop(self):
        existing = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
        for name in [*self.hosts, "node"]:
            namespace = self.instance.namespace(name)
            if namespace in existing:
                run("ip", "netns", "del", namespace)
            folder = Path("/etc/netns") / namespace
            if folder.exists():
                (folder / "resolv.conf").unlink(missing_ok=True)
                folder.rmdir()

    def filter(self, service, rule):
        """Adds a rule for the packets that arrive at a service; `clear` removes it."""
        rules = "add table ip fault\n"
        rules += "add chain ip fault in { type filter hook input priority 0; }\n"
        rules += f"add rule ip fault in {rule}\n"
        namespace = self.instance.namespace(service)
        run("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=rules)

    def clear(self, service):
        namespace = self.instance.namespace(service)
        run("ip", "netns", "exec", namespace, "nft", "delete", "table", "ip", "fault")

    def lose(self, service, percent):
        self.filter(service, f"iifname eth0 numgen random mod 100 < {percent} drop")

    def reset(self, service, percent):
        refuse = f"numgen random mod 100 < {percent} reject with tcp reset"
        self.filter(service, f"tcp dport {PORT} {refuse}")

    def narrow(self, service, rate):
        namespace = self.instance.namespace(service)
        shape = ("tbf", "rate", rate, "burst", "3000", "latency", "2s")
        run("tc", "-n", namespace, "qdisc", "add", "dev", "eth0", "root", *shape)

    def widen(self, service):
        run("tc", "-n", self.instance.namespace(service), "qdisc", "del", "dev", "eth0", "root")

    def detour(self, service):
        """Takes a service's link off the bridge; returns the links that relay.py connects."""
        number = self.hosts[service]
        outer = self.instance.link("h", number)
        near, far = self.instance.link("d", number), self.instance.link("e", number)
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        disable_offloads(near)
        disable_offloads(far)
        run("ip", "link", "set", near, "up")
        run("ip", "link", "set", far, "master", self.instance.bridge, "up")
        run("ip", "link", "set", outer, "nomaster")
        return outer, near

    def straighten(self, service):
        number = self.hosts[service]
        run("ip", "link", "del", self.instance.link("d", number), check=False)
        outer = self.instance.link("h", number)
        run("ip", "link", "set", outer, "master", self.instance.bridge)
