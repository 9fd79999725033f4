"""Keys of gossip: from a file that is followed, or the environment, and as commands left them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from pydantic import SecretStr
from structlog.testing import capture_logs
from trio.testing import MockClock

from noti.config import Config
from noti.errors import ConfigInvalid, KeyRejected, StorageCorrupt
from noti.swim.core.keyring import KEYS_MAX, format_key
from noti.swim.key_file import SAVED_NAME, GossipKeys, keys_of, load_gossip_keys
from tests.simulation.memory_disk import MemoryDisk

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))
SOME_TIME_S = 10.0
"""More than two looks at the file."""


def lines_of(*keys: bytes) -> str:
    return "".join(f"{format_key(key)}\n" for key in keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "gossip.keys"
    file.write_text(lines_of(ONE))
    return file


@asynccontextmanager
async def kept(file: Path, disk: MemoryDisk) -> AsyncIterator[GossipKeys]:
    """Run what keeps the keys of a node with this file and this data directory."""
    keys = await load_gossip_keys(Config(name="n", gossip_key_file=file), disk)
    assert keys is not None
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.run)
        yield keys
        nursery.cancel_scope.cancel()


def rewrite(file: Path, content: str) -> None:
    file.write_text(content)


async def some_time() -> None:
    await trio.sleep(SOME_TIME_S)


def test_lines_are_keys_of_which_the_first_encrypts() -> None:
    content = f"# of the blue cluster\n\n {format_key(TWO)}\n{format_key(ONE)}\r\n".encode()
    assert keys_of(content, "f") == (TWO, ONE)


def test_byte_order_mark_before_the_first_key_means_nothing() -> None:
    assert keys_of(b"\xef\xbb\xbf" + lines_of(ONE).encode(), "f") == (ONE,)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lines_of(ONE) + "hush!", "f: line 2: a gossip key is not base64"),
        ("\n" + lines_of(b"hush"), "f: line 2: a gossip key has 4 bytes"),
        ("# only a comment", "f: 0 gossip keys; give from 1 to 16"),
        (lines_of(*(bytes([n]) * 16 for n in range(KEYS_MAX + 1))), "f: 17 gossip keys"),
    ],
)
def test_wrong_keys_are_told_with_their_line_and_are_not_shown(content: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        keys_of(content.encode(), "f")
    assert str(caught.value).startswith(told)
    assert "hush" not in str(caught.value)
    assert format_key(b"hush") not in str(caught.value)


async def test_environment_gives_keys_with_commas() -> None:
    text = f"{format_key(TWO)},{format_key(ONE)}"
    keys = await load_gossip_keys(Config(name="n", gossip_key=SecretStr(text)), MemoryDisk())
    assert keys is not None
    assert keys.ring.keys == (TWO, ONE)
    with pytest.raises(ConfigInvalid, match="NOTI_GOSSIP_KEY: line 1: a gossip key is not"):
        await load_gossip_keys(Config(name="n", gossip_key=SecretStr("hush!")), MemoryDisk())


async def test_without_key_a_node_says_what_it_risks_where_others_reach_it() -> None:
    def config(host: str) -> Config:
        return Config(name="n", gossip_addr=(host, 8401), gossip_insecure=True)

    with capture_logs() as lines:
        assert await load_gossip_keys(config("127.0.0.1"), MemoryDisk()) is None
    assert not lines
    with capture_logs() as lines:
        assert await load_gossip_keys(config("10.0.0.1"), MemoryDisk()) is None
    assert "whoever reaches it can join" in lines[0]["event"]


async def test_node_says_that_it_still_takes_what_is_not_encrypted(file: Path) -> None:
    config = Config(name="n", gossip_key_file=file, gossip_encryption="sent")
    with capture_logs() as lines:
        await load_gossip_keys(config, MemoryDisk())
    assert [line["gossip_encryption"] for line in lines] == ["sent"]


async def test_changed_file_changes_the_ring_and_a_wrong_one_does_not(
    file: Path, autojump_clock: MockClock
) -> None:
    async with kept(file, MemoryDisk()) as keys:
        rewrite(file, lines_of(TWO, ONE))
        await some_time()
        assert keys.ring.keys == (TWO, ONE)
        with capture_logs() as lines:
            rewrite(file, "nonsense\n")
            await some_time()
        assert keys.ring.keys == (TWO, ONE)
    assert "rejected" in lines[0]["event"]


async def test_what_commands_changed_counts_at_the_next_start(
    file: Path, autojump_clock: MockClock
) -> None:
    disk = MemoryDisk()
    async with kept(file, disk) as keys:
        keys.ring.add(TWO)
        keys.ring.use(TWO)
        await some_time()
        keys.ring.remove(ONE)
        await some_time()
    async with kept(file, disk) as keys:
        assert keys.ring.keys == (TWO,)
        await some_time()
        assert keys.ring.keys == (TWO,)


@pytest.mark.parametrize("while_it_runs", [True, False])
async def test_keys_that_are_given_anew_count_more_than_what_commands_changed(
    file: Path, autojump_clock: MockClock, *, while_it_runs: bool
) -> None:
    disk = MemoryDisk()
    async with kept(file, disk) as keys:
        keys.ring.add(TWO)
        await some_time()
        if while_it_runs:
            rewrite(file, lines_of(THREE, ONE))
            await some_time()
            assert keys.ring.keys == (THREE, ONE)
    rewrite(file, lines_of(THREE, ONE))
    async with kept(file, disk) as keys:
        assert keys.ring.keys == (THREE, ONE)
        assert SAVED_NAME not in disk.files


async def test_nothing_is_saved_of_keys_as_they_were_given(
    file: Path, autojump_clock: MockClock
) -> None:
    disk = MemoryDisk()
    async with kept(file, disk) as keys:
        keys.ring.add(TWO)
        await some_time()
        assert SAVED_NAME in disk.files
        keys.ring.remove(TWO)
        with pytest.raises(KeyRejected):
            keys.ring.remove(ONE)
        await some_time()
    assert SAVED_NAME not in disk.files


async def test_keys_never_reach_the_log(file: Path, autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    with capture_logs() as lines:
        async with kept(file, disk) as keys:
            keys.ring.add(TWO)
            rewrite(file, lines_of(THREE, ONE))
            await some_time()
            keys.ring.use(ONE)
            await some_time()
        async with kept(file, disk):
            await some_time()
    assert lines
    assert not any(format_key(key) in str(lines) for key in (ONE, TWO, THREE))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"given": [], "keys": ["hush"]}', b'{"keys":1}'])
async def test_saved_keys_that_do_not_decode_are_told_with_a_remedy(
    file: Path, content: bytes
) -> None:
    disk = MemoryDisk(files={SAVED_NAME: content})
    with pytest.raises(StorageCorrupt, match=r"'gossip-keys'.*delete it") as caught:
        await load_gossip_keys(Config(name="n", gossip_key_file=file), disk)
    assert "hush" not in str(caught.value)
