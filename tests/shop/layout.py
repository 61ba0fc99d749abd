"""The shop's services, their addresses, and who calls whom."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PORT = 8080


@dataclass(frozen=True)
class Service:
    """A service: its host number on the bridge, its callees, and the facilities that it has."""

    name: str
    number: int
    calls: tuple = ()
    tls: bool = False
    protocol: str = "http/protobuf"
    disk: str = ""  # "block": a device with a file system, "small": a tmpfs that fills soon


SERVICES = {
    service.name: service
    for service in (
        Service("frontend", 10, ("catalog", "recommendation", "cart", "currency", "checkout")),
        Service("catalog", 11, ("database",)),
        Service("recommendation", 12, ("catalog",)),
        Service("cart", 13, ("catalog",), disk="small"),
        Service("currency", 14),
        Service(
            "checkout",
            15,
            ("cart", "inventory", "currency", "payment", "shipping", "mail", "database"),
            protocol="grpc",
        ),
        Service("payment", 16, tls=True),
        Service("inventory", 17, ("database",), disk="block"),
        Service("shipping", 18, ("quote",), protocol="grpc"),
        Service("quote", 19, tls=True),
        Service("mail", 20, disk="small"),
        Service("database", 21, disk="block"),
    )
}
LOAD = 30


@dataclass(frozen=True)
class Instance:
    """One running shop. Several of them may run on a machine, each with a number of its own."""

    number: int
    folder: Path

    @property
    def prefix(self):
        return f"shop{self.number}"

    @property
    def node(self):
        """The namespace of the bridge and of tapio: the node that the services run on."""
        return self.namespace("node")

    def namespace(self, name):
        return f"{self.prefix}-{name}"

    def address(self, host):
        return f"10.{70 + self.number}.0.{host}"

    def link(self, letter, host):
        return f"{letter}{self.number}-{host}"

    @property
    def bridge(self):
        return f"br-{self.prefix}"

    def faults(self, service):
        """The file with the faults that a service injects into itself."""
        return self.folder / "faults" / f"{service}.json"
