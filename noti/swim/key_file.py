"""Keeps the keys of gossip: in step with their file, and over restarts as commands changed them.

What `noti keys` or `serf keys` changed is saved in the data directory, and counts at the next start
unless a person gives other keys: those count then, and what was saved is forgotten.
"""

import json
from pathlib import Path
from typing import Final, Protocol

import structlog
import trio

from noti.certificates.files import read_file
from noti.certificates.renewal import Made, Renewed, keep_renewed
from noti.config import Config, variable_of
from noti.errors import ConfigInvalid, StorageCorrupt
from noti.setting_values import is_loopback
from noti.swim.core.keyring import KeyRing, format_key, parse_key

log = structlog.get_logger("noti.swim")

SAVED_NAME: Final = "gossip-keys"
"""In the data directory, whose files have mode 0600."""


class KeyStore(Protocol):
    """The data directory, as keys need it; its methods raise `StorageFailed`."""

    async def names(self) -> list[str]:
        """Return the names of all files."""

    async def read(self, name: str) -> bytes:
        """Return the whole file."""

    async def replace(self, name: str, data: bytes) -> None:
        """Make the file's content `data`, durably, all or nothing of it."""

    async def remove(self, name: str) -> None:
        """Delete the file; no error when it is not there."""


class GossipKeys:
    """The key ring of one node, and what keeps it."""

    def __init__(
        self,
        given: tuple[bytes, ...],
        file: Path | None,
        store: KeyStore,
        keys: tuple[bytes, ...],
    ) -> None:
        """Begin with `keys`; `given` are those that a person gave, in `file` if there is one."""
        self.ring = KeyRing(keys, self._wake)
        self._given = given
        self._store = store
        self._changed = trio.Event()
        self._renewed = [] if file is None else [self._watched(file)]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the file, and save what commands change, until cancelled.

        Raises `StorageFailed`. *Cancellation*: a change of that very moment may not be saved.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_renewed, self._renewed)
            task_status.started()
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                await self._save()

    def _wake(self) -> None:
        self._changed.set()

    async def _save(self) -> None:
        keys = self.ring.keys
        log.info("keys of gossip changed", keys=len(keys))
        if keys == self._given:
            await self._store.remove(SAVED_NAME)
        else:
            await self._store.replace(SAVED_NAME, _encode(self._given, keys))

    def _watched(self, file: Path) -> Renewed[tuple[bytes, ...]]:
        def make() -> Made[tuple[bytes, ...]]:
            found = keys_of(read_file(file, "file of keys"), str(file))
            if found != self._given:
                self._given = found
                self.ring.replace(found)
                self._wake()
            return Made(found, {})

        return Renewed("gossip", [file], make, kind="keys of gossip", log=log)


async def load_gossip_keys(config: Config, store: KeyStore) -> GossipKeys | None:
    """Return the keys that the settings name, or None; says in the log what is open to others.

    Raises `ConfigInvalid` when they cannot be used, `StorageCorrupt` when those that were saved do
    not decode.
    """
    if config.gossip_key_file is not None:
        content = read_file(config.gossip_key_file, "file of keys")
        given = keys_of(content, str(config.gossip_key_file))
    elif config.gossip_key is not None:
        content = config.gossip_key.get_secret_value().replace(",", "\n").encode()
        given = keys_of(content, variable_of("gossip_key"))
    else:
        if not is_loopback(config.gossip_addr[0]):
            log.warning("gossip has no key: whoever reaches it can join, and say what he likes")
        return None
    if config.gossip_encryption != "required":
        log.warning(
            "gossip is also taken without encryption, for nodes that have no key yet",
            gossip_encryption=config.gossip_encryption,
        )
    return GossipKeys(given, config.gossip_key_file, store, await _kept(given, store))


async def _kept(given: tuple[bytes, ...], store: KeyStore) -> tuple[bytes, ...]:
    """Return the keys that commands made of those given, or these."""
    if SAVED_NAME not in await store.names():
        return given
    given_then, keys = saved_keys_of(await store.read(SAVED_NAME))
    if given_then == given:
        log.info("keys of gossip are as commands left them", keys=len(keys))
        return keys
    log.info("other keys of gossip were given than before: they count, without later changes")
    await store.remove(SAVED_NAME)
    return given


def keys_of(content: bytes, name: str) -> tuple[bytes, ...]:
    """Return the keys in lines of base64; those that are empty or begin with # mean nothing.

    Raises `ConfigInvalid`, with `name` and the number of the line, and nothing of it.
    """
    found: list[bytes] = []
    for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            found.append(parse_key(text))
        except ConfigInvalid as error:
            raise ConfigInvalid(f"{name}: line {number}: {error}") from None
    try:
        return KeyRing(found).keys
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{name}: {error}") from None


def _encode(given: tuple[bytes, ...], keys: tuple[bytes, ...]) -> bytes:
    texts = {"given": [*map(format_key, given)], "keys": [*map(format_key, keys)]}
    return (json.dumps(texts) + "\n").encode()


def saved_keys_of(content: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the keys that were given, and those that commands made of them.

    Raises `StorageCorrupt`, with nothing of them.
    """
    try:
        match json.loads(content):
            case {"given": [*given], "keys": [*keys]}:
                return tuple(map(_key, given)), KeyRing([*map(_key, keys)]).keys
            case _:
                raise ValueError("no lists of keys")
    except (ValueError, ConfigInvalid):
        raise StorageCorrupt(
            f"the file {SAVED_NAME!r} in the data directory does not decode; delete it, and the "
            "keys that settings give count again"
        ) from None


def _key(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("no key")
    return parse_key(text)
