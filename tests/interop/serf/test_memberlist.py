"""A member made of memberlist alone: what Serf's agents build on, but have no flags for."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from noti.address import format_address
from noti.die_with_parent import dying_with_us
from noti.swim.core.keyring import KeyRing, format_key
from tests.interop.nats.go_programs import built
from tests.ports import free_port
from tests.swim.test_gossip import make, running

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.go,
    pytest.mark.timeout(240),
]

SOURCE = Path(__file__).parent / "memberlist_go"
KEY = bytes(range(32))
JOIN_S = 30.0
IPV4, IPV6 = "127.0.0.1", "::1"


@pytest.fixture(scope="module")
def binary() -> Path:
    """The member, built before anybody waits for it."""
    return built(SOURCE)


@contextmanager
def memberlist(binary: Path, *flags: str) -> Iterator[Callable[[], str]]:
    """Run a member for the time of the context, which is given all that it prints."""
    command = dying_with_us(str(binary), "-name=theirs", f"-port={free_port()}", *flags)
    with tempfile.NamedTemporaryFile() as log:
        # Not by Trio, which forks in a thread: the child would die with that.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        said = Path(log.name).read_text
        try:
            yield said
        except BaseException:
            print(said()[-2000:])
            raise
        finally:
            process.kill()
            process.wait()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(JOIN_S):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.05)


@pytest.mark.parametrize("host", [IPV4, IPV6])
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("label", ["", "blue"])
async def test_member_of_the_newest_memberlist_joins_under_key_and_label(
    binary: Path, host: str, key: bytes | None, label: str
) -> None:
    ring = KeyRing([key]) if key else None
    ours = make("ours", bind=(host, 0), keys=ring, label=label)
    async with running(ours) as address:
        flags = [f"-host={host}", f"-label={label}", f"-join={format_address(address)}"]
        flags.append(f"-key={format_key(key) if key else ''}")
        with memberlist(binary, *flags) as said:
            await until(lambda: "members: ours theirs" in said())
            await until(lambda: [each.name for each in ours.members()] == ["ours", "theirs"])


async def test_padded_encryption_of_an_old_protocol_is_read(binary: Path) -> None:
    ours = make("ours", keys=KeyRing([KEY]))
    async with running(ours) as address:
        flags = [f"-host={IPV4}", f"-join={format_address(address)}", f"-key={format_key(KEY)}"]
        with memberlist(binary, *flags, "-old") as said:
            await until(lambda: "members: ours theirs" in said())
            await until(lambda: [each.name for each in ours.members()] == ["ours", "theirs"])


async def test_member_with_another_label_is_told_so(binary: Path) -> None:
    ours = make("ours", label="blue")
    async with running(ours) as address:
        flags = [f"-host={IPV4}", f"-join={format_address(address)}", "-label=red"]
        with memberlist(binary, *flags) as said:
            await until(lambda: "another gossip label than ours" in said())
            assert [each.name for each in ours.members()] == ["ours"]
