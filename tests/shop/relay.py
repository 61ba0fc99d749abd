"""Delays the frames of a link as tc netem does, for kernels without it.

python3 relay.py OUTER NEAR MILLISECONDS JITTER

Frames from OUTER (the service's end) to NEAR wait; those in the other direction don't.
"""

import heapq
import random
import select
import socket
import sys
import time

ALL_PROTOCOLS = 3
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_IGNORE_OUTGOING = 263, 1, 23
PROMISCUOUS = 1


def packets(link):
    door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    door.bind((link, 0))
    index = socket.if_nametoindex(link)
    request = index.to_bytes(4, sys.byteorder) + PROMISCUOUS.to_bytes(2, sys.byteorder) + bytes(10)
    door.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
    door.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    return door


def main(outer, near, delay, jitter):
    service, others = packets(outer), packets(near)
    waiting, number, last = [], 0, 0.0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([service, others], [], [], timeout)
        if others in ready:
            send(service, others.recv(65536))
        now = time.monotonic()
        if service in ready:
            # A link doesn't reorder: a frame leaves after those before it.
            last = max(last, now + max(0.0, random.gauss(delay, jitter)))
            number += 1
            heapq.heappush(waiting, (last, number, service.recv(65536)))
        while waiting and waiting[0][0] <= now:
            send(others, heapq.heappop(waiting)[2])


def send(door, frame):
    try:
        door.send(frame)
    except OSError as error:
        print(f"{len(frame)} bytes: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000, float(sys.argv[4]) / 1000)
