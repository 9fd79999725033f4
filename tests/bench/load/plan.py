"""One run of `just bench sse`: what is asked for, in which order it is measured, and its figures.

Enters: a plan. Leaves: figures with names and units.
Never: a figure that was not measured; what nobody publishes has no delay.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from noti.errors import LocalError
from tests.bench.load.course import Course, Stretch, new_run
from tests.bench.load.fleets import Fleets
from tests.bench.load.mark import EVENT_BYTES
from tests.bench.load.publishers import GrpcPublisher, HttpPublisher, JetStreamPublisher, Publisher

SHARES: Final = (0.5, 0.99, 0.999)
AWAY_S: Final = 1.0
"""How long clients stay away in a storm: until the server has noticed that they are gone."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do to which server."""

    url: str
    """The stream."""
    clients: int
    publish: str | None = None
    """Where to publish; None to listen only."""
    rate: float | None = None
    """Events a second; None for as fast as they are delivered."""
    seconds: float = 10.0
    window: int = 256
    """Events under way at most, when published as fast as possible."""
    batch: int = 1
    event_bytes: int = EVENT_BYTES
    storm: bool = False
    """Let all clients drop and come back at the end."""
    pids: tuple[int, ...] = ()
    """The server's processes, when they run on this machine."""
    processes: int | None = None
    headers: tuple[str, ...] = ()
    tls_ca: Path | None = None
    """CAs to trust for an https URL; None for those of this machine."""


def publisher_for(where: str, event_bytes: int) -> Publisher:
    """Connect to where events are published.

    `nats://HOST:PORT/SUBJECT`, `grpc://HOST:PORT/TOPIC`, or an http URL to post to.
    Raises `LocalError` for anything else, `Unavailable` when nobody is there.
    """
    parts = urlsplit(where)
    name = parts.path.removeprefix("/")
    try:
        port = parts.port
    except ValueError:
        port = None
    match parts.scheme:
        case "nats" if name:
            return JetStreamPublisher(f"nats://{parts.netloc}", name, event_bytes)
        case "grpc" if name and parts.hostname and port:
            return GrpcPublisher(parts.hostname, port, name, event_bytes)
        case "http" if parts.hostname:
            return HttpPublisher(where, event_bytes)
    raise LocalError(
        f"cannot publish to {where!r}: write nats://HOST:PORT/SUBJECT, grpc://HOST:PORT/TOPIC or"
        " http://HOST:PORT/PATH"
    )


def measure(plan: Plan, tell: Report) -> list[Figure]:
    """Carry out the plan; blocks. `tell` is given a line about each step.

    Raises `LocalError` for a plan that cannot work, `Unavailable` when the server gives up.
    """
    run = new_run()
    figures: list[Figure] = []
    with (
        _publisher(plan) as publisher,
        Fleets(
            plan.url,
            plan.clients,
            run,
            processes=plan.processes,
            headers=plan.headers,
            tls_ca=plan.tls_ca,
        ) as fleets,
    ):
        course = Course(fleets, run, plan.pids)
        before = course.resident_bytes()
        open_s = fleets.open().open_s
        tell(f"{plan.clients} streams open after {open_s:.2f} s")
        figures.append(Figure("streams opened", plan.clients / open_s, "clients/s"))
        if plan.pids:
            each = (course.resident_bytes() - before) / plan.clients
            figures.append(Figure("server memory of an idle client", each, "bytes"))
        if publisher is not None:
            figures += _stretch_figures(_stretch(course, publisher, plan))
            if plan.storm:
                figures += _storm(course, publisher, plan)
        else:
            cpu = course.idle_cpu(plan.seconds)
            tell(f"nothing is published; watched for {plan.seconds:g} s")
            if plan.pids:
                figures.append(Figure("server CPU, idle", 100 * cpu, "%"))
            ended, _ = fleets.report(0)
            figures.append(Figure("streams ended by the server", ended.ended, ""))
    return figures


@contextmanager
def _publisher(plan: Plan) -> Iterator[Publisher | None]:
    if plan.publish is None:
        if plan.storm:
            raise LocalError("a storm needs --publish: clients must have missed something")
        yield None
    else:
        with closing(publisher_for(plan.publish, plan.event_bytes)) as publisher:
            yield publisher


def _stretch(course: Course, publisher: Publisher, plan: Plan) -> Stretch:
    if plan.rate is None:
        return course.flood(publisher, max(plan.window, plan.batch), plan.batch, plan.seconds)
    return course.pace(publisher, plan.rate, plan.seconds)


def _stretch_figures(stretch: Stretch) -> list[Figure]:
    tally = stretch.tally
    figures = [
        Figure("published", stretch.published / stretch.seconds, "events/s"),
        Figure("delivered", stretch.deliveries_per_s, "events/s"),
        *(Figure(f"delay, p{share * 100:g}", tally.delay_ms(share), "ms") for share in SHARES),
        Figure("lost", tally.lost, "events"),
        Figure("repeated or out of order", tally.repeated, "events"),
        Figure("streams ended by the server", tally.ended, ""),
        Figure("load generator's CPU", 100 * stretch.clients_cpu, "%"),
    ]
    if stretch.server_cpu is not None:
        figures.append(Figure("server CPU", 100 * stretch.server_cpu, "%"))
    return figures


def _storm(course: Course, publisher: Publisher, plan: Plan) -> list[Figure]:
    reached = course.storm(publisher, AWAY_S)
    tally = course.storm_tally
    return [
        Figure("storm, all streams open again", reached.open_s, "s"),
        Figure("storm, all caught up", reached.reached_s, "s"),
        Figure("storm, caught up", plan.clients / reached.reached_s, "clients/s"),
        Figure("storm, lost", tally.lost, "events"),
        Figure("storm, repeated or out of order", tally.repeated, "events"),
    ]
