"""A disk in memory that can lose power.

Enters: the calls of the `Disk` port. Leaves: the content of files; after a crash, a disk that a
real crash could leave. Never: threads, clocks of its own, randomness of its own.

Operations take effect in the order in which they were asked for, as with the writer process of
`FileDisk`. One that is not acknowledged yet may, at a crash, be lost, complete, or (a write) be
torn: cut at a byte, or some sectors missing. One that is acknowledged is there, unless it was told
to stray.
"""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import trio

from noti.errors import StorageFailed
from noti.raft.storage.segments import SECTOR_BYTES
from noti.raft.storage.wal import DiskOperation

Files: TypeAlias = dict[str, bytearray]


@dataclass(frozen=True, slots=True)
class _Create:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class _Write:
    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Replace:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Publish:
    name: str


@dataclass(frozen=True, slots=True)
class _Remove:
    name: str


_Operation: TypeAlias = _Create | _Write | _Replace | _Stage | _Publish | _Remove

STAGED = "/staged"
"""Added to a name that is to be replaced by what is under the longer one; a crash clears it away,
and no file of a node has such a name."""


class MemoryDisk:
    """A `Disk` whose durable image is `files`; tests may look at it and damage it."""

    def __init__(
        self,
        *,
        files: Mapping[str, bytes | bytearray] | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        latency_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """With `sleep`, each change takes a time drawn from `latency_s` (least, most; seconds)."""
        self.files: Files = {name: bytearray(data) for name, data in (files or {}).items()}
        self.operations = 0
        """How many changes were asked for."""
        self.latency_s = latency_s
        self.watch: Callable[[int], None] | None = None
        """Called with the number of each change when it has begun and is not done."""
        self.full = False
        """Nothing can grow: no file can be made or replaced."""
        self.fail_reads = False
        """The next file that is read cannot be."""
        self.strays = False
        """The next write is reported as done, and lands elsewhere, or nowhere."""
        self.strayed = ""
        """The file to which that write belonged, once there was one."""
        self.happened: Callable[[str], None] = lambda fault: None
        """Hears of each fault when it takes effect."""
        self._rng = rng or random.Random(0)
        self._sleep = sleep
        self._hung: trio.Event | None = None
        self._in_flight: list[_Operation] = []
        self._failure: str | None = None
        self._fail_at: int | None = None

    def fail_next(self, after: int | None = 0) -> None:
        """Let the next change fail, or the one `after` so many more; it may still be found on disk
        after a crash. None: no change fails any more."""
        self._fail_at = None if after is None else self.operations + after

    def hang(self) -> None:
        """Say nothing from now on, neither that anything is done nor that it failed."""
        if self._hung is None:
            self._hung = trio.Event()

    def answer(self) -> None:
        """Do all that waits, and go on."""
        if self._hung is not None:
            self._hung.set()
            self._hung = None

    @property
    def hangs(self) -> bool:
        """Whether it says nothing."""
        return self._hung is not None

    def copy(self) -> Files:
        """Return all files as they are now."""
        return {name: bytearray(data) for name, data in self.files.items()}

    @property
    def failed(self) -> bool:
        """Whether it refuses everything by now."""
        return self._failure is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and no fault waits for the next operation."""
        waits = self._fail_at is not None and self._fail_at >= self.operations
        lies = self.strays or self.fail_reads
        return not (self._in_flight or self.hangs or self.failed or self.full or lies or waits)

    def finish(self) -> None:
        """Do all that was asked for, as a writer does that outlives an orderly stop."""
        for operation in self._in_flight:
            self._settle(operation)
        self._in_flight.clear()

    def crash(self) -> "MemoryDisk":
        """Cut the power: return what the disk holds afterwards; this object refuses everything from
        now on."""
        self._failure = "the power was cut"
        self.answer()
        files = self.copy()
        completed = self._rng.randint(0, len(self._in_flight))
        for operation in self._in_flight[:completed]:
            _apply(files, operation)
        if completed < len(self._in_flight):
            self.happened("an un-synced write was lost in a crash")
            self._tear(files, self._in_flight[completed])
        files = {name: data for name, data in files.items() if not name.endswith(STAGED)}
        survivor = MemoryDisk(
            files=files, rng=self._rng, sleep=self._sleep, latency_s=self.latency_s
        )
        survivor.full = self.full
        survivor.happened = self.happened
        return survivor

    async def names(self) -> list[str]:
        """See `Disk`."""
        self._check_usable()
        await trio.lowlevel.checkpoint()
        return sorted(name for name in self.files if not name.endswith(STAGED))

    async def read(self, name: str) -> bytes:
        """See `Disk`."""
        self._check_usable()
        await trio.lowlevel.checkpoint()
        if self.fail_reads:
            self.happened("a file could not be read")
            self._failure = f"{name}: cannot be read"
            raise StorageFailed(self._failure)
        if name not in self.files:
            raise FileNotFoundError(name)
        return bytes(self.files[name])

    async def read_part(self, name: str, offset: int, size: int) -> bytes:
        """See `Disk`."""
        self._check_usable()
        if self._sleep is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._sleep(self._rng.uniform(*self.latency_s))
        return (await self.read(name))[offset : offset + size]

    async def create(self, name: str, size: int) -> None:
        """See `Disk`."""
        await self._perform(_Create(name, size))

    def write(self, name: str, offset: int, data: bytes) -> DiskOperation:
        """See `Disk`. When cancelled, the write happens before the next change, or is undecided at
        a crash."""
        operation = _Write(name, offset, bytes(data))
        number = self._begin(operation)
        return DiskOperation(lambda: self._finish(operation, number))

    async def replace(self, name: str, data: bytes) -> None:
        """See `Disk`."""
        await self._perform(_Replace(name, bytes(data)))

    async def stage(self, name: str, offset: int, data: bytes) -> None:
        """See `Disk`."""
        await self._perform(_Stage(name, offset, bytes(data)))

    async def publish(self, name: str) -> None:
        """See `Disk`."""
        await self._perform(_Publish(name))

    async def remove(self, name: str) -> None:
        """See `Disk`."""
        await self._perform(_Remove(name))

    async def _perform(self, operation: _Operation) -> None:
        await self._finish(operation, self._begin(operation))

    def _begin(self, operation: _Operation) -> int:
        """Return the operation's number."""
        self._check_usable()
        number = self.operations
        self.operations += 1
        self._in_flight.append(operation)
        if self.watch is not None:
            self.watch(number)
        return number

    async def _finish(self, operation: _Operation, number: int) -> None:
        if self._sleep is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._sleep(self._rng.uniform(*self.latency_s))
        while self._hung is not None:
            await self._hung.wait()
        self._check_usable()
        if number == self._fail_at:
            self.happened("a change of the disk failed")
            self._failure = f"{operation.name}: told to fail"
        elif self.full and isinstance(operation, _Create | _Replace | _Stage):
            self._in_flight.remove(operation)
            self.happened("the disk was full")
            self._failure = f"{operation.name}: no space left on device"
        self._check_usable()
        # Whoever was asked before us is done before us, also when its caller no longer waits.
        while any(waiting is operation for waiting in self._in_flight):
            self._settle(self._in_flight.pop(0))

    def _settle(self, operation: _Operation) -> None:
        if self.strays and isinstance(operation, _Write | _Replace | _Stage | _Publish):
            self.strays, self.strayed = False, operation.name
            self._stray(operation)
            return
        try:
            _apply(self.files, operation)
        except (FileExistsError, FileNotFoundError) as error:
            self._failure = f"{operation.name}: {type(error).__name__}"
            raise StorageFailed(self._failure) from None

    def _stray(self, write: _Write | _Replace | _Stage | _Publish) -> None:
        """Lose a write, or put it elsewhere, as a disk does that seeks wrongly: a whole number of
        sectors away, and over whatever is there.
        """
        if isinstance(write, _Stage):
            _apply(self.files, _Stage(write.name, write.offset, bytes(len(write.data))))
        if not isinstance(write, _Write) or self._rng.random() < 0.4:
            self.happened("a write was lost though reported as done")
            return
        name = self._rng.choice([write.name, *sorted(self.files)])
        content = self.files[name]
        sectors = list(range(-(-len(content) // SECTOR_BYTES)))
        if name == write.name:
            sectors = [n for n in sectors if n != write.offset // SECTOR_BYTES]
        if sectors:
            offset = self._rng.choice(sectors) * SECTOR_BYTES + write.offset % SECTOR_BYTES
            room = max(0, len(content) - offset)
            _overwrite(content, offset, write.data[:room])
        self.happened("a write went elsewhere though reported as done")

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StorageFailed(self._failure)

    def _tear(self, files: Files, operation: _Operation) -> None:
        """Leave of an operation what a crash in its middle may leave; names change wholly or not at
        all."""
        match operation:
            case _Create(name, size):
                if name not in files and self._rng.random() < 0.5:
                    files[name] = bytearray(self._rng.randint(0, size))
            case _Write(name, offset, data) if name in files:
                content = files[name]
                self.happened("a write was torn in a crash")
                if self._rng.random() < 0.5:
                    torn = data[: self._rng.randint(0, len(data))]
                    _overwrite(content, offset, torn)
                else:
                    self._write_some_sectors(content, offset, data)
            case _:
                pass

    def _write_some_sectors(self, content: bytearray, offset: int, data: bytes) -> None:
        start = 0
        while start < len(data):
            size = SECTOR_BYTES - (offset + start) % SECTOR_BYTES
            if self._rng.random() < 0.5:
                _overwrite(content, offset + start, data[start : start + size])
            start += size


def _apply(files: Files, operation: _Operation) -> None:
    match operation:
        case _Create(name, size):
            if name in files:
                raise FileExistsError(name)
            files[name] = bytearray(size)
        case _Write(name, offset, data):
            if name not in files:
                raise FileNotFoundError(name)
            _overwrite(files[name], offset, data)
        case _Replace(name, data):
            files[name] = bytearray(data)
        case _Stage(name, offset, data):
            staged = name + STAGED
            if offset == 0:
                files[staged] = bytearray()
            elif staged not in files:
                raise FileNotFoundError(staged)
            _overwrite(files[staged], offset, data)
        case _Publish(name):
            if name + STAGED not in files:
                raise FileNotFoundError(name + STAGED)
            files[name] = files.pop(name + STAGED)
        case _Remove(name):
            files.pop(name, None)


def _overwrite(content: bytearray, offset: int, data: bytes) -> None:
    if not data:
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
