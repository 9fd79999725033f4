"""The processes beside `bench_latency`: who publishes, who reads as a plain program, who is busy.

`python -m tests.bench.latency_processes publish PORT SUBJECT RATE SECONDS` publishes events that
hold the moment of their publication, nanoseconds of the machine's monotonic clock.
`… consume URL STREAM SUBJECT SECONDS` fetches and acknowledges such events, one after the other,
and prints their ages as a JSON list of milliseconds. `… burn` keeps a core busy until it is killed.
"""

import asyncio
import json
import random
import socket
import sys
import time
from typing import Final

HOST: Final = "127.0.0.1"
CONNECT: Final = b'CONNECT {"verbose":false,"pedantic":false,"headers":false}\r\n'
PAYLOAD_BYTES: Final = 200


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "publish":
        port, subject, rate, seconds = arguments
        publish(int(port), subject, float(rate), float(seconds))
    elif role == "consume":
        url, stream, subject, seconds = arguments
        ages_ms = asyncio.run(consume(url, stream, subject, float(seconds)))
        print(json.dumps(ages_ms), flush=True)
    else:
        while True:
            pass


def publish(port: int, subject: str, rate: float, seconds: float) -> None:
    """Publish without a library: what it costs here is taken from the servers on a small machine.

    Gaps vary by half, so that no event follows the beat of what else goes on.
    """
    with socket.create_connection((HOST, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.recv(65536)
        sock.sendall(CONNECT)
        ends = time.monotonic() + seconds
        due = time.monotonic()
        while due < ends:
            time.sleep(max(0.0, due - time.monotonic()))
            payload = f"{time.monotonic_ns()} ".encode().ljust(PAYLOAD_BYTES, b"x")
            sock.sendall(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
            due = max(due + random.uniform(0.5, 1.5) / rate, time.monotonic())


async def consume(url: str, stream: str, subject: str, seconds: float) -> list[float]:
    """Read as nats-py's documentation does: a durable consumer, fetch, ack."""
    import nats  # here, so that publishers and busy loops start at once
    from nats.errors import TimeoutError as NoneInTime
    from nats.js import api

    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(
        name=stream, subjects=[subject], retention=api.RetentionPolicy.WORK_QUEUE
    )
    pull = await jetstream.pull_subscribe(subject, "baseline", stream=stream)
    print("ready", flush=True)
    ages_ms: list[float] = []
    ends = time.monotonic() + seconds
    while (left_s := ends - time.monotonic()) > 0:
        try:
            messages = await pull.fetch(1, timeout=left_s)
        except NoneInTime:
            break
        now = time.monotonic_ns()
        for message in messages:
            ages_ms.append((now - int(message.data.split()[0])) / 1e6)
            await message.ack()
    await jetstream.delete_stream(stream)
    await client.close()
    return ages_ms


if __name__ == "__main__":
    main()
