"""The load generator against a real front end: it sees what is delivered, and what is not."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from click.testing import CliRunner

from noti.certificates.context import https_context
from noti.certificates.credentials import CertificateUse, load_credentials
from noti.errors import LocalError, Unavailable
from noti.streams.hub import Hub
from tests.bench.load.command import sse
from tests.bench.load.course import Course, Stretch, new_run
from tests.bench.load.fleets import Fleets
from tests.bench.load.mark import Mark, event_text
from tests.bench.load.plan import Plan, measure, publisher_for
from tests.certificates.authority import Wanted, authority, issue
from tests.http.stage import hub, notification, serving
from tests.http.test_tls import serving as secured
from tests.http.tls_stage import Fixed, Site

pytestmark = pytest.mark.slow

T = TypeVar("T")
CLIENTS = 40


class HubPublisher:
    """Publishes straight into a hub that runs in the test's own loop."""

    def __init__(self, there: Hub, distort: Callable[[list[Mark]], list[Mark]] = list) -> None:
        self._hub = there
        self._distort = distort

    def publish(self, marks: Sequence[Mark]) -> None:
        trio.from_thread.run_sync(self._publish, self._distort(list(marks)))

    def settle(self) -> None:
        """Everything is shown at once."""

    def close(self) -> None:
        """Nothing is open."""

    def _publish(self, marks: Sequence[Mark]) -> None:
        first = self._hub.feed.newest_seq + 1
        new = [
            notification(seq, "jobs.noti.bench", event_text(mark))
            for seq, mark in enumerate(marks, first)
        ]
        self._hub.publish(new)


@asynccontextmanager
async def site(there: Hub) -> AsyncIterator[str]:
    async with serving(there) as (host, port):
        yield f"http://{host}:{port}/.well-known/mercure?topic=*"


async def in_thread(work: Callable[[Course], T], url: str) -> T:
    """Run `work` with clients that are all connected."""

    def run() -> T:
        name = new_run()
        with Fleets(url, CLIENTS, name, processes=2) as fleets:
            fleets.open()
            return work(Course(fleets, name, []))

    return await trio.to_thread.run_sync(run)


async def test_every_delivery_is_counted_at_a_rate_and_as_fast_as_possible() -> None:
    there = hub()
    async with site(there) as url:
        publisher = HubPublisher(there)
        paced = await in_thread(lambda course: course.pace(publisher, 100, 0.3), url)
        assert paced.published == 30
        assert paced.tally.events == 30 * CLIENTS
        assert paced.tally.delays.total() == paced.tally.events
        flood = await in_thread(lambda course: course.flood(publisher, 64, 8, 0.3), url)
        assert flood.tally.events == flood.published * CLIENTS
        for stretch in (paced, flood):
            assert (stretch.tally.lost, stretch.tally.repeated, stretch.tally.ended) == (0, 0, 0)


async def test_what_a_server_loses_or_repeats_is_reported() -> None:
    there = hub()

    def distort(marks: list[Mark]) -> list[Mark]:
        kept = [mark for mark in marks if mark.seq % 10 != 3]
        return [mark for mark in kept for _ in range(2 if mark.seq % 10 == 5 else 1)]

    async with site(there) as url:
        publisher = HubPublisher(there, distort)
        stretch = await in_thread(lambda course: course.pace(publisher, 200, 0.1), url)
        assert stretch.published == 20
        assert stretch.tally.lost == 2 * CLIENTS
        assert stretch.tally.repeated == 2 * CLIENTS


async def test_all_clients_come_back_from_a_storm_with_everything() -> None:
    there = hub()
    async with site(there) as url:
        publisher = HubPublisher(there)

        def storm(course: Course) -> tuple[int, int, int]:
            course.storm(publisher, 0.1)
            tally = course.storm_tally
            return tally.events, tally.lost, tally.repeated

        assert await in_thread(storm, url) == (101 * CLIENTS, 0, 0)


async def test_a_stream_that_the_server_ends_is_counted_and_resumed() -> None:
    there = hub(lifetime_s=0.2, retry_ms_min=1, retry_ms_max=5, stall_timeout_s=0.2)
    async with site(there) as url:
        publisher = HubPublisher(there)
        stretch = await in_thread(lambda course: course.pace(publisher, 100, 1.0), url)
        assert stretch.tally.ended >= CLIENTS
        assert stretch.tally.events == 100 * CLIENTS
        assert (stretch.tally.lost, stretch.tally.repeated) == (0, 0)


async def test_streams_over_tls_are_loaded_and_a_wrong_certificate_is_reported(
    tmp_path: Path,
) -> None:
    ca = authority()
    names = Wanted(dns=("localhost",), ips=("127.0.0.1",))
    paths = issue(names, ca).write(tmp_path, "site")
    tls = Fixed(https_context(load_credentials(*paths, use=CertificateUse.HTTPS)))
    trusted, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    trusted.write_bytes(ca.pem)
    other.write_bytes(authority("other").pem)
    there = hub()

    def run(url: str, tls_ca: Path) -> Stretch:
        name = new_run()
        with Fleets(url, CLIENTS, name, tls_ca=tls_ca) as fleets:
            fleets.open()
            return Course(fleets, name, []).pace(HubPublisher(there), 100, 0.2)

    async with secured(there, Site(ca, tls)) as (host, port):
        url = f"https://{host}:{port}/.well-known/mercure?topic=*"
        stretch = await trio.to_thread.run_sync(run, url, trusted)
        assert stretch.tally.events == 20 * CLIENTS
        assert (stretch.tally.lost, stretch.tally.repeated, stretch.tally.ended) == (0, 0, 0)
        with pytest.raises(Unavailable, match="certificate is refused"):
            await trio.to_thread.run_sync(run, url, other)


async def test_a_server_that_has_no_stream_there_is_reported_at_once() -> None:
    async with serving(hub()) as (host, port):
        plan = Plan(url=f"http://{host}:{port}/nothing", clients=3)
        with pytest.raises(Unavailable, match="status 404"):
            await trio.to_thread.run_sync(partial(measure, plan, print))


def test_a_server_that_is_not_there_is_reported_at_once() -> None:
    with pytest.raises(Unavailable, match="no connection to"):
        measure(Plan(url="http://127.0.0.1:1/", clients=3), print)


@pytest.mark.parametrize("where", ["nats://host:4222", "grpc://host/topic", "ftp://host/x", "x"])
def test_a_place_to_publish_that_cannot_be_is_reported(where: str) -> None:
    with pytest.raises(LocalError, match="cannot publish to"):
        publisher_for(where, 150)


async def test_the_command_watches_idle_clients_and_writes_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    async with site(hub()) as url:
        arguments = [url, "--clients=20", "--seconds=0.2", f"--json={file}"]
        invoke = partial(CliRunner().invoke, sse, arguments)
        result = await trio.to_thread.run_sync(invoke)
    assert result.exit_code == 0, result.output
    assert "streams opened" in result.output
    names = [figure["name"] for figure in json.loads(file.read_text())]
    assert names == ["streams opened", "streams ended by the server"]
