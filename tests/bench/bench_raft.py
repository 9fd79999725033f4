"""Committed 200-byte events a second, and how long one takes: three nodes, and three etcd.

Real processes on loopback, all with their data on the same disk, one cluster after the other and
then again, because whatever else the machine does counts too; a figure is the median. A publisher
sends its next event when the last one is committed, so 64 publishers have 64 events on their way.
Four paths:

- noti over gRPC, stream: `noti.v1.Publisher/PublishStream` of the leader. 64 publishers share a
  stream for good, as those of one process do; who sends in the same turn of the loop shares a
  request;
- noti over gRPC, unary: `noti.v1.Publisher/Publish` of the leader, one call an event;
- noti through the bridge: published to JetStream, committed when the leader shows it to a browser;
- etcd over gRPC: `etcdserverpb.KV/Put` to the leader, the baseline; one call an event, as etcd has
  no stream for it. Same client as for noti.

`backlog` is what the bridge takes in when it never lacks work: the events lie in JetStream before
the nodes start. Everything shares the machine's cores, clients included.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import nats
from nats.js import JetStreamContext

from noti.rpc.generated.category.v1 import CategoryMessage
from tests.bench.clusters import (
    ETCD_INSTALL,
    HOST,
    EtcdCluster,
    NotiCluster,
    NotiNode,
    Processes,
    etcd_binary,
    start_nats,
)
from tests.bench.grpc_client import CallFailed, GrpcClient
from tests.bench.report import Arguments, Report, quantile, tell

EVENT_BYTES = 200
WARM_UP_S = 1.0
ON_A_CONNECTION_MAX = 64
"""Publishers; grpclib's servers take 100 calls at once on one connection."""

BACKLOG_IN_FLIGHT = 512
"""Publishes to JetStream that wait for its answer at once."""

PUBLISHED = 0x0A
"""The first byte of an answer in the stream, when its events are committed."""

BACKLOG = "bridge, backlog"
"""The figure that has a rate only."""

ProposeOne: TypeAlias = Callable[[int, bytes], Awaitable[object]]
"""Has one event of a publisher (by number) committed: returns when it is."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a number of publishers saw."""

    rate: float
    p50_ms: float
    p99_ms: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--publishers", default="1,64,256", help="numbers of publishers")
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each number")
    arguments.add_argument("--rounds", type=int, default=3, help="clusters of each kind, in turns")
    arguments.add_argument("--events", type=int, default=20_000, help="in the backlog; 0: none")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report("committed events of 200 bytes, three processes, one machine", options.json)
    # Named, because trio-asyncio, once it is imported, makes loops of its own, which are slower.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(_run(options, report))
    report.finish()


async def _run(options: argparse.Namespace, report: Report) -> None:
    publishers = [int(number) for number in options.publishers.split(",")]
    noti: list[dict[str, Measured]] = []
    etcd: list[dict[str, Measured]] = []
    for round_ in range(1, options.rounds + 1):
        tell(f"round {round_} of {options.rounds}")
        noti.append(await _measure_noti(publishers, options))
        etcd.append(await measure_etcd(publishers, options))
    most = f"{publishers[-1]} publishers"
    theirs = medians(etcd)
    for name, one in medians(noti).items():
        counterpart = most if name == BACKLOG else name.partition(", ")[2]
        baseline = f"etcd, {counterpart}"
        if counterpart not in theirs:
            baseline = f"etcd (not installed: {ETCD_INSTALL})"
        _add_figures(report, name, one, baseline, theirs.get(counterpart))


def _add_figures(
    report: Report, name: str, ours: Measured, baseline: str, theirs: Measured | None
) -> None:
    report.add(name, ours.rate, "events/s", baseline, theirs.rate if theirs else None)
    if name != BACKLOG:
        report.add(f"{name}, p50", ours.p50_ms, "ms", baseline, theirs.p50_ms if theirs else None)
        report.add(f"{name}, p99", ours.p99_ms, "ms", baseline, theirs.p99_ms if theirs else None)


def medians(rounds: Sequence[dict[str, Measured]]) -> dict[str, Measured]:
    """Return the median of the rounds, figure by figure."""
    return {
        name: Measured(
            median(one[name].rate for one in rounds),
            median(one[name].p50_ms for one in rounds),
            median(one[name].p99_ms for one in rounds),
        )
        for name in rounds[0]
    }


# --- noti -----------------------------------------------------------------------------------------


async def _measure_noti(
    publishers: Sequence[int], options: argparse.Namespace
) -> dict[str, Measured]:
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        nats_url = start_nats(them, Path(name))
        if options.events:
            await _fill_stream(nats_url, options.events)
        cluster = NotiCluster(them, Path(name), nats_url)
        if options.events:
            measured[BACKLOG] = await _time_backlog(cluster, options.events)
        leader = cluster.wait_until_whole()
        async with AsyncExitStack() as resources:
            for way, open_ in (("stream", _publish_streams), ("unary", _publish_calls)):
                publish = await open_(leader, max(publishers), resources)
                measured |= await _measure_all(
                    f"gRPC {way}, ", publish, publishers, options.seconds
                )
            bridge = await resources.enter_async_context(_bridge(nats_url, leader))
            measured |= await _measure_all(
                "bridge, ", bridge.propose_one, publishers, options.seconds
            )
    return measured


async def _publish_calls(
    leader: NotiNode, publishers_max: int, resources: AsyncExitStack
) -> ProposeOne:
    """Return the way in with a call for each event."""
    path = "/noti.v1.Publisher/Publish"
    publish = await _grpc_pool(leader.rpc, path, publishers_max, resources)

    async def publish_one(publisher: int, payload: bytes) -> None:
        await publish(publisher, _field(1, _event(payload)))

    return publish_one


async def _publish_streams(
    leader: NotiNode, publishers_max: int, resources: AsyncExitStack
) -> ProposeOne:
    """Return the way in through streams, each on a connection of its own."""
    streams = []
    for _ in range(-(-publishers_max // ON_A_CONNECTION_MAX)):
        path = "/noti.v1.Publisher/PublishStream"
        client = await GrpcClient.connect(HOST, leader.rpc, path)
        resources.callback(client.close)
        streams.append(_PublishStream(client))

    async def publish_one(publisher: int, payload: bytes) -> None:
        await streams[publisher // ON_A_CONNECTION_MAX].publish(payload)

    return publish_one


class _PublishStream:
    """A stream that publishers of one process share, as a client library would do it."""

    def __init__(self, client: GrpcClient) -> None:
        self._send = client.stream(self._take_answer)
        self._loop = asyncio.get_running_loop()
        self._next: list[tuple[bytes, asyncio.Future[None]]] = []
        self._unanswered: deque[list[asyncio.Future[None]]] = deque()

    def publish(self, payload: bytes) -> "asyncio.Future[None]":
        if not self._next:
            self._loop.call_soon(self._flush)
        committed = self._loop.create_future()
        self._next.append((_field(1, _event(payload)), committed))
        return committed

    def _flush(self) -> None:
        self._unanswered.append([committed for _, committed in self._next])
        self._send(b"".join(event for event, _ in self._next))
        self._next.clear()

    def _take_answer(self, message: bytes) -> None:
        for committed in self._unanswered.popleft():
            if committed.done():
                continue
            if message[0] == PUBLISHED:
                committed.set_result(None)
            else:
                committed.set_exception(CallFailed(message[3], message[4:].decode()))


def _event(payload: bytes) -> bytes:
    """Return a `noti.v1.Event`."""
    return _field(1, b"bench") + _field(2, payload)


async def _fill_stream(nats_url: str, events: int) -> None:
    """Publish events that nobody reads yet."""
    client = await nats.connect(nats_url)
    jetstream = client.jetstream(timeout=10)
    await jetstream.add_stream(name="jobs", subjects=["jobs.noti.>"])
    numbers = iter(range(events))

    async def publish_next() -> None:
        for _ in numbers:
            # User 0 is no publisher below, so these are not mistaken for later events.
            await jetstream.publish("jobs.noti.bench", _category(0, EVENT_BYTES), stream="jobs")

    async with asyncio.TaskGroup() as group:
        for _ in range(BACKLOG_IN_FLIGHT):
            group.create_task(publish_next())
    await client.close()


async def _time_backlog(cluster: NotiCluster, events: int) -> Measured:
    """Measure the rate only, from the last look at which none was committed until all are."""
    empty_at = time.perf_counter()
    last_seq = 0
    while last_seq < events:
        statuses = [await asyncio.to_thread(node.status) for node in cluster.nodes]
        last_seq = max((s["store"]["last_seq"] for s in statuses if s is not None), default=0)
        if last_seq == 0:
            empty_at = time.perf_counter()
        await asyncio.sleep(0.01)
    took_s = time.perf_counter() - empty_at
    tell(f"noti, bridge, a backlog of {events} events: {events / took_s:,.0f} events/s")
    return Measured(events / took_s, 0, 0)


class _Bridge:
    """Events through JetStream, seen as a browser at the leader sees them."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream
        self._numbers = itertools.count(1)
        self._seen: dict[int, asyncio.Future[None]] = {}

    async def propose_one(self, _publisher: int, payload: bytes) -> None:
        number = next(self._numbers)
        seen = self._seen[number] = asyncio.get_running_loop().create_future()
        event = _category(number, len(payload))
        await self._jetstream.publish("jobs.noti.bench", event, stream="jobs")
        await seen

    async def watch(self, reader: asyncio.StreamReader) -> None:
        """Note every event in an event stream. Its frames are never split, and neither are its
        lines, so the chunks' own lines can be passed over."""
        while line := await reader.readline():
            if line.startswith(b"data:") and (start := line.find(b'"user_id":')) >= 0:
                start += len(b'"user_id":')
                seen = self._seen.pop(int(line[start : line.index(b",", start)]), None)
                if seen is not None and not seen.done():
                    seen.set_result(None)


def _category(number: int, size: int) -> bytes:
    """Return an event of `size` bytes as JetStream carries it."""
    framing = (
        len(bytes(CategoryMessage(user_id=number, category_from="bench", category_to="x"))) - 1
    )
    text = "x" * (size - framing - 1)  # one more byte of length
    return bytes(CategoryMessage(user_id=number, category_from="bench", category_to=text))


@asynccontextmanager
async def _bridge(nats_url: str, leader: NotiNode) -> AsyncIterator[_Bridge]:
    client = await nats.connect(nats_url)
    reader, writer = await asyncio.open_connection(HOST, leader.http)
    writer.write(b"GET /.well-known/mercure?topic=* HTTP/1.1\r\nHost: bench\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], head
    bridge = _Bridge(client.jetstream(timeout=10))
    watching = asyncio.create_task(bridge.watch(reader))
    try:
        yield bridge
    finally:
        watching.cancel()
        writer.close()
        await client.close()


# --- etcd -----------------------------------------------------------------------------------------


async def measure_etcd(
    publishers: Sequence[int], options: argparse.Namespace
) -> dict[str, Measured]:
    """Return what publishers of etcd saw; nothing where it is not installed."""
    binary = etcd_binary()
    if binary is None:
        return {}
    keys = itertools.count()
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        port = EtcdCluster(them, Path(name), binary).wait_for_leader()
        async with AsyncExitStack() as resources:
            put = await _grpc_pool(port, "/etcdserverpb.KV/Put", max(publishers), resources)

            async def propose_one(publisher: int, payload: bytes) -> None:
                await put(publisher, _field(1, b"event-%010d" % next(keys)) + _field(2, payload))

            return await _measure_all("", propose_one, publishers, options.seconds)


# --- both -----------------------------------------------------------------------------------------


async def _measure_all(
    prefix: str, propose_one: ProposeOne, publishers: Sequence[int], seconds: float
) -> dict[str, Measured]:
    measured = {}
    for number in publishers:
        name = f"{prefix}{number} publishers"
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        measured[name] = one = await _measure(propose_one, number, seconds)
        load = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
        tell(
            f"{'noti' if prefix else 'etcd'}, {name}: {one.rate:,.0f} events/s, "
            f"p50 {one.p50_ms:.2f} ms, p99 {one.p99_ms:.2f} ms "
            f"(the client took {load:.0%} of a core)"
        )
    return measured


async def _measure(propose_one: ProposeOne, publishers: int, seconds: float) -> Measured:
    """Let publishers send one event after the other; the first second does not count."""
    payload = bytes(ord("a") + number % 26 for number in range(EVENT_BYTES))
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    latencies_s: list[float] = []

    async def publish(publisher: int) -> None:
        while (started := time.perf_counter()) < end:
            await propose_one(publisher, payload)
            finished = time.perf_counter()
            if begin <= finished < end:
                latencies_s.append(finished - started)

    async with asyncio.TaskGroup() as group:
        for publisher in range(publishers):
            group.create_task(publish(publisher))
    return Measured(
        len(latencies_s) / seconds,
        quantile(latencies_s, 0.5) * 1000,
        quantile(latencies_s, 0.99) * 1000,
    )


async def _grpc_pool(
    port: int, path: str, calls_max: int, resources: AsyncExitStack
) -> Callable[[int, bytes], Awaitable[bytes]]:
    """Return a function that calls a method for a publisher, over as many connections as
    `calls_max` need."""
    clients = []
    for _ in range(-(-calls_max // ON_A_CONNECTION_MAX)):
        clients.append(await GrpcClient.connect(HOST, port, path))
        resources.callback(clients[-1].close)
    return lambda publisher, message: clients[publisher // ON_A_CONNECTION_MAX].call(message)


def _field(number: int, value: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    size = len(value)
    assert size < 2**14
    length = bytes([size]) if size < 2**7 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + value


if __name__ == "__main__":
    main()
