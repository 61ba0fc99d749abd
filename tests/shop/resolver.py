"""A resolver of names for one namespace: NAME.shop has an address, nothing else does.

python3 resolver.py PREFIX (such as 10.70.0)
"""

import socket
import struct
import sys

from layout import SERVICES

ADDRESS, TTL = 1, 1


def question(packet):
    """The name that is asked for, the type of record, and where the question ends."""
    labels, at = [], 12
    while packet[at]:
        size = packet[at]
        labels.append(packet[at + 1 : at + 1 + size].decode("ascii", "replace"))
        at += 1 + size
    return ".".join(labels).lower(), struct.unpack("!H", packet[at + 1 : at + 3])[0], at + 5


def answer(packet, prefix):
    name, kind, end = question(packet)
    service = SERVICES.get(name.removesuffix(".shop")) if name.endswith(".shop") else None
    found = service is not None and kind == ADDRESS
    flags = 0x8580 if service else 0x8583
    header = packet[:2] + struct.pack("!HHHHH", flags, 1, int(found), 0, 0)
    reply = header + packet[12:end]
    if found:
        reply += struct.pack("!HHHIH", 0xC00C, ADDRESS, 1, TTL, 4)
        reply += socket.inet_aton(f"{prefix}.{service.number}")
    return reply


def main(prefix):
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind(("127.0.0.1", 53))
    while True:
        packet, sender = door.recvfrom(512)
        try:
            door.sendto(answer(packet, prefix), sender)
        except (IndexError, struct.error):
            continue


if __name__ == "__main__":
    main(sys.argv[1])
