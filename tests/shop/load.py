"""An open-loop load: arrivals don't wait for answers. Each request is a line of JSON.

python3 load.py ADDRESS RATE SEED OUTPUT
"""

import asyncio
import json
import math
import random
import sys
import time

from layout import PORT

JOURNEYS = {"home": 25, "product": 30, "add": 17, "cart": 13, "checkout": 15}
PATIENCE = 8.0
# The rate rises and falls by this part within a period of so many seconds.
SWELL, PERIOD = 0.25, 420


def request(journey):
    user = random.randrange(1000)
    product = min(59, int(random.expovariate(1 / 12)))
    if journey == "product" and random.random() < 0.01:
        product = 999
    return {
        "home": ("GET", "/", None),
        "product": ("GET", f"/product/{product}", None),
        "add": ("POST", f"/cart/{user}", {"product": product}),
        "cart": ("GET", f"/cart/{user}", None),
        "checkout": ("POST", f"/checkout/{user}", {}),
    }[journey]


async def exchange(address, method, path, body):
    """The status of the answer; 0 where there is none."""
    reader, writer = await asyncio.open_connection(address, PORT)
    try:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: frontend.shop\r\nconnection: close\r\n"
        head += f"content-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        line = await reader.readline()
        await reader.read()
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


async def visit(address, output):
    journey = random.choices(list(JOURNEYS), JOURNEYS.values())[0]
    began, clock = time.monotonic(), time.time()
    try:
        status = await asyncio.wait_for(exchange(address, *request(journey)), PATIENCE)
    except (OSError, asyncio.TimeoutError):
        status = 0
    milliseconds = round((time.monotonic() - began) * 1000, 1)
    line = {"time": round(clock, 3), "journey": journey, "status": status, "ms": milliseconds}
    output.write(json.dumps(line) + "\n")


async def main(address, rate, output):
    began = time.monotonic()
    due = began
    running = set()
    while True:
        swell = 1 + SWELL * math.sin(2 * math.pi * (due - began) / PERIOD)
        due += random.expovariate(rate * swell)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(visit(address, output))
        running.add(task)
        task.add_done_callback(running.discard)


if __name__ == "__main__":
    random.seed(int(sys.argv[3]))
    with open(sys.argv[4], "a", buffering=1) as lines:
        asyncio.run(main(sys.argv[1], float(sys.argv[2]), lines))
