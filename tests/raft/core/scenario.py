"""Plays text scenarios against Raft cores: nothing happens unless a line of the text says so.

Enters: blocks of commands. Leaves: the same blocks with what every core did, under `----`.
Never: a clock, chance, a message that moves or a disk that writes by itself.

`python -m tests.raft.core.scenario` writes all scenarios anew; the difference is what to review.
The commands and the words of the output are explained in `scenarios/README.md`.
"""

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from noti.raft.core.config import LOG_MEMORY_BYTES, RaftConfig
from noti.raft.core.events import (
    Bootstrapped,
    ChangeRequested,
    DeadlineReached,
    EntriesRead,
    Event,
    MessageReceived,
    PeerConnected,
    PeerLost,
    Persist,
    Persisted,
    PersistSnapshot,
    Proposed,
    ReadEntries,
    ReadRequested,
    RestoreSnapshot,
    SaveSnapshot,
    SendMessage,
    SnapshotTaken,
    TransferRequested,
)
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Change, Configuration, encode_configuration
from noti.raft.core.messages import EntryKind, HardState, Message
from noti.raft.core.records import new_entry
from noti.raft.core.snapshot import PIECE_BYTES, split
from tests.raft.core.scenario_words import (
    describe_effect,
    describe_entries,
    describe_entry,
    describe_message,
    members,
)
from tests.raft.storage.disk_image import DiskImage
from tests.raft.storage.log_checks import entry_at

DIRECTORY = Path(__file__).parent / "scenarios"
SEPARATOR = "----"
ROUNDS_MAX = 50
"""`stabilize` ends far earlier, unless the cores talk without end."""


class NoChance:
    """The generator of all cores: the lowest number, so that every timeout is its shortest."""

    def uniform(self, a: float, b: float) -> float:
        """Return the lower bound."""
        return min(a, b)


class Machine:
    """One core with its disk, its clock, and the disk orders that were not carried out yet."""

    def __init__(self, name: str, config: RaftConfig) -> None:
        self.name = name
        self.config = config
        self.disk = DiskImage()
        self.orders: deque[Persist | PersistSnapshot] = deque()
        self.reads: deque[EntriesRead] = deque()
        """What was found on disk, and is not told yet."""
        self.now = 0.0
        self.core: Raft | None = None

    def start(self) -> None:
        self.orders.clear()
        self.reads.clear()
        self.core = Raft(
            self.config,
            self.disk.hard_state,
            snapshot=self.disk.snapshot,
            entries=tuple(self.disk.entries),
            rng=NoChance(),
            now=self.now,
        )

    @property
    def running(self) -> Raft:
        assert self.core is not None, f"node {self.name} is down"
        return self.core


class Scenario:
    """One text's cluster."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.wires: dict[tuple[str, str], deque[Message]] = {}
        """Messages in flight, oldest first, by (sender, receiver)."""
        self.cut: set[tuple[str, str]] = set()
        self.options: dict[str, int] = {}
        self.lines: list[str] = []
        self.brief = False
        """While true, messages are told when they arrive, not also when they leave."""
        self.requests = 0

    # --- playing ----------------------------------------------------------------------------------

    def play(self, command: str) -> list[str]:
        """Carry out one line; return what happened."""
        self.lines = []
        words = command.split()
        quiet = words[0] == "quietly"
        name, *arguments = words[quiet:]
        action: Callable[..., None] | None = getattr(self, f"do_{name}", None)
        assert action is not None, f"no such command: {command}"
        action(*arguments)
        return [] if quiet else self.lines

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, name: str, event: Event, title: str) -> None:
        """Give a core an event, and tell what it wants done."""
        machine = self.machines[name]
        before = len(self.lines)
        self.say(f"{name}: {title}")
        for effect in machine.running.handle(event, machine.now):
            match effect:
                case SendMessage(to, message):
                    lost = (name, to) in self.cut or to not in self.machines
                    if not lost:
                        self.wires.setdefault((name, to), deque()).append(message)
                    if lost or not self.brief:
                        end = " (lost)" if lost else ""
                        self.say(f"  to {to}: {describe_message(message)}{end}")
                    continue
                case Persist() | PersistSnapshot():
                    machine.orders.append(effect)
                case ReadEntries():
                    machine.reads.append(machine.disk.read(effect))
                case SaveSnapshot(snapshot, drop_through):
                    image = machine.disk
                    image.snapshot = snapshot
                    image.entries = [e for e in image.entries if e.index > drop_through]
                case RestoreSnapshot(snapshot):
                    assert snapshot.index <= machine.running.status().commit_index
                case _:
                    pass
            self.say(f"  {describe_effect(effect)}")
        status = machine.running.status()
        assert status.applied_index <= status.commit_index <= status.last_index
        if isinstance(event, Persisted) and len(self.lines) == before + 1:
            self.lines[-1] += ", nothing follows"

    def names(self, chosen: Iterable[str]) -> list[str]:
        running = [name for name, machine in self.machines.items() if machine.core is not None]
        return list(chosen) or running

    # --- commands: the cluster --------------------------------------------------------------------

    def do_cluster(self, size: str, *options: str) -> None:
        """`cluster 3 [learners=4,5] [window=2] [keep=0] [piece=4] [room=8] [memory=0]`"""
        given = dict(option.split("=") for option in options)
        learners = given.pop("learners", "")
        self.options = {option: int(value) for option, value in given.items()}
        voters = tuple(str(number) for number in range(1, int(size) + 1))
        configuration = Configuration(
            "c", voters, learners=tuple(filter(None, learners.split(",")))
        )
        for name in configuration.members:
            self.do_machine(name)
            machine = self.machines[name]
            founded = machine.running.handle(Bootstrapped(configuration), machine.now)
            machine.orders.extend(effect for effect in founded if isinstance(effect, Persist))
            self.do_persist(name)
        self.lines = [members(configuration)]

    def do_machine(self, name: str) -> None:
        """`machine 4`: a node that belongs to no cluster yet"""
        config = RaftConfig(
            name,
            in_flight_messages_max=self.options.get("window", 64),
            keep_entries=self.options.get("keep", 10_000),
            snapshot_window_bytes=self.options.get("room", 1024 * 1024),
            log_memory_bytes=self.options.get("memory", LOG_MEMORY_BYTES),
        )
        self.machines[name] = Machine(name, config)
        self.machines[name].start()
        self.say(f"{name}: starts empty")

    def do_disk(self, name: str, *options: str) -> None:
        """`disk 2 term=4 terms=1,1,3,4`: restart with a log whose entries have these terms"""
        given = dict(option.split("=") for option in options)
        machine = self.machines[name]
        machine.disk.hard_state = HardState(int(given["term"]), given.get("vote"))
        configuration = encode_configuration(machine.running.status().configuration)
        machine.disk.entries = [
            new_entry(1, 1, EntryKind.CONFIGURATION, configuration),
            *(
                new_entry(index, int(term), EntryKind.COMMAND, f"{index}.{term}".encode())
                for index, term in enumerate(given["terms"].split(",")[1:], 2)
            ),
        ]
        machine.start()
        self.do_log(name)

    def do_crash(self, *names: str) -> None:
        """`crash 2`: what was not written, and what was on its way to it, is gone"""
        for name in names:
            self.machines[name].core = None
            self.machines[name].orders.clear()
            for (_, to), wire in self.wires.items():
                if to == name:
                    wire.clear()
            self.say(f"{name}: is down")

    def do_restart(self, *names: str) -> None:
        """`restart 2`"""
        for name in names:
            self.machines[name].start()
            self.do_status(name)

    # --- commands: time ---------------------------------------------------------------------------

    def do_wait(self, *arguments: str) -> None:
        """`wait [1 2] 600ms`: clocks go on, and nobody looks at them"""
        for name in self.names(arguments[:-1]):
            self.machines[name].now += milliseconds(arguments[-1])

    def do_tick(self, *arguments: str) -> None:
        """`tick [1 2] 600ms`: clocks go on, and deadlines that passed are told"""
        for name in self.names(arguments[:-1]):
            self.do_wait(name, arguments[-1])
            self.fire(name)

    def fire(self, name: str) -> None:
        machine = self.machines[name]
        deadline = machine.running.deadline()
        if deadline is not None and machine.now >= deadline:
            self.step(name, DeadlineReached(), "deadline")
        else:
            self.say(f"{name}: no deadline yet")

    def do_campaign(self, name: str) -> None:
        """`campaign 1`: its clock goes on to its deadline"""
        machine = self.machines[name]
        deadline = machine.running.deadline()
        if deadline is not None:
            machine.now = max(machine.now, deadline)
        self.fire(name)

    def do_elect(self, name: str) -> None:
        """`elect 1`: all wait an election timeout, 1 campaigns, everything settles"""
        self.do_wait("500ms")
        self.do_campaign(name)
        self.do_stabilize()
        assert self.machines[name].running.status().leads_ready, f"{name} does not lead"

    # --- commands: requests -----------------------------------------------------------------------

    def numbers(self, count: int) -> list[int]:
        self.requests += count
        return list(range(self.requests - count + 1, self.requests + 1))

    def do_propose(self, name: str, *commands: str) -> None:
        """`propose 1 hello world`: two commands at once"""
        numbers = self.numbers(len(commands))
        data = [command.encode() for command in commands]
        self.step(name, Proposed(tuple(zip(numbers, data, strict=True))), "proposes")

    def do_change(self, name: str, *options: str) -> None:
        """`change 1 add=4 promote=4,5 remove=2`"""
        given = {kind: frozenset(ids.split(",")) for kind, ids in (o.split("=") for o in options)}
        [number] = self.numbers(1)
        self.step(name, ChangeRequested(number, Change(**given)), f"change {' '.join(options)}")

    def do_read(self, name: str) -> None:
        """`read 1`"""
        self.step(name, ReadRequested(tuple(self.numbers(1))), "reads")

    def do_transfer(self, name: str) -> None:
        """`transfer 1`"""
        self.step(name, TransferRequested(), "would hand over")

    def do_snapshot(self, name: str, index: str = "") -> None:
        """`snapshot 1 [5]`: save the state machine at the applied, or an older, index"""
        at = int(index or self.machines[name].running.status().applied_index)
        pieces = split(f"state@{at}".encode(), self.options.get("piece", PIECE_BYTES))
        self.step(name, SnapshotTaken(at, pieces), f"saves its state at {at}")

    # --- commands: disks and network --------------------------------------------------------------

    def do_persist(self, *arguments: str) -> None:
        """`persist [1 2] [one]`: all disk orders, or the oldest of each node, are carried out"""
        chosen, count = oldest_only(arguments)
        for name in self.names(chosen):
            machine = self.machines[name]
            orders = [machine.orders.popleft() for _ in range(min(count, len(machine.orders)))]
            for order in orders:
                if isinstance(order, Persist):
                    machine.disk.write(order)
                else:
                    machine.disk.install(order.snapshot)
            if orders:
                batch = orders[-1].batch
                self.step(name, Persisted(batch), f"written #{batch}")

    def do_fetch(self, *names: str) -> None:
        """`fetch [1 2]`: what was read back from disk arrives"""
        for name in self.names(names):
            reads = self.machines[name].reads
            for read in [reads.popleft() for _ in range(len(reads))]:
                self.step(name, read, f"was read: {describe_entries(read.entries) or 'nothing'}")

    def chosen_wires(self, links: tuple[str, ...]) -> list[tuple[str, str]]:
        """`1>2`, `1>` (from 1), `>2` (to 2); none means all."""
        patterns = [link.split(">") for link in links] or [["", ""]]
        return [
            (sender, to)
            for sender, to in sorted(self.wires)
            if any(a in ("", sender) and b in ("", to) for a, b in patterns)
        ]

    def take(self, arguments: tuple[str, ...]) -> list[tuple[str, str, Message]]:
        links, count = oldest_only(arguments)
        return [
            (sender, to, self.wires[sender, to].popleft())
            for sender, to in self.chosen_wires(links)
            for _ in range(min(count, len(self.wires[sender, to])))
        ]

    def do_deliver(self, *links: str) -> None:
        """`deliver [1>2 …] [one]`: what is in flight, or the oldest of each link, arrives"""
        for sender, to, message in self.take(links):
            if self.machines[to].core is not None:
                text = describe_message(message)
                self.step(to, MessageReceived(message), f"hears {sender}: {text}")

    def do_drop(self, *links: str) -> None:
        """`drop [1>2 …] [one]`: as deliver, but it is lost"""
        for sender, to, message in self.take(links):
            self.say(f"lost {sender}>{to}: {describe_message(message)}")

    def do_repeat(self, link: str) -> None:
        """`repeat 1>2`: what is in flight there is on its way once more, behind itself"""
        for key in self.chosen_wires((link,)):
            self.wires[key].extend(list(self.wires[key]))

    def do_cut(self, *links: str) -> None:
        """`cut 1>2`: what is sent from now on is lost"""
        self.cut |= {(sender, to) for sender, to in (link.split(">") for link in links)}

    def do_isolate(self, name: str) -> None:
        """`isolate 3`: cut both ways from all; what is in flight is lost too"""
        for other in self.machines:
            for link in ((name, other), (other, name)):
                self.cut.add(link)
                self.wires.pop(link, None)

    def do_heal(self) -> None:
        """`heal`: nothing is cut any more"""
        self.cut.clear()

    def do_lose(self, name: str, peer: str) -> None:
        """`lose 2 1`: 2 is told that its stream to 1 broke"""
        self.step(name, PeerLost(peer), f"loses the stream to {peer}")

    def do_connect(self, name: str, peer: str) -> None:
        """`connect 2 1`: 2 is told that there is a new stream to 1"""
        self.step(name, PeerConnected(peer), f"has a new stream to {peer}")

    def do_stabilize(self, *names: str) -> None:
        """`stabilize [1 2]`: disks write and messages arrive, until nothing is left to do"""
        chosen = set(names) or set(self.machines)
        self.brief = True
        for _ in range(ROUNDS_MAX):
            before = len(self.lines)
            for name in sorted(chosen & set(self.names(()))):
                self.do_persist(name)
                self.do_fetch(name)
            links = tuple(f"{a}>{b}" for a, b in sorted(self.wires) if {a, b} <= chosen)
            if links:
                self.do_deliver(*links)
            if len(self.lines) == before:
                break
        else:
            raise AssertionError("the cores talk without end")
        self.brief = False

    # --- commands: looking ------------------------------------------------------------------------

    def do_status(self, *names: str) -> None:
        """`status [1 2]`"""
        for name in self.names(names):
            status = self.machines[name].running.status()
            led = f" under {status.leader}" if status.leader not in (None, name) else ""
            self.say(
                f"{name}: {status.role.value} in term {status.term}{led}, "
                f"log {status.first_index}..{status.last_index}, commit {status.commit_index}, "
                f"applied {status.applied_index}, {members(status.configuration)}"
            )

    def do_log(self, *names: str) -> None:
        """`log [1 2]`"""
        for name in self.names(names):
            log = self.machines[name].running._log
            parts = [f"snapshot {log.snapshot.index}/{log.snapshot.term}"] if log.snapshot else []
            held = (log, self.machines[name].disk)
            indexes = range(log.first_index, log.last_index + 1)
            entries = [entry_at(held, index) for index in indexes]
            self.say(f"{name}: {', '.join([*parts, *map(describe_entry, entries)]) or 'empty'}")

    def do_followers(self, name: str) -> None:
        """`followers 1`: what a leader knows about each"""
        leading = self.machines[name].running._leadership
        assert leading is not None, f"{name} does not lead"
        for follower, progress in leading.replication._progress.items():
            flying = f", {len(progress.in_flight)} in flight" if progress.in_flight else ""
            self.say(
                f"{follower}: {progress.state.value}, match {progress.match_index}, "
                f"next {progress.next_index}{flying}"
            )

    def do_wires(self) -> None:
        """`wires`: what is in flight"""
        for (sender, to), wire in sorted(self.wires.items()):
            for message in wire:
                self.say(f"{sender}>{to}: {describe_message(message)}")
        if not any(self.wires.values()):
            self.say("nothing in flight")


def oldest_only(arguments: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Return the arguments without a final `one`, and how many things it asks for."""
    return (arguments[:-1], 1) if arguments[-1:] == ("one",) else (arguments, sys.maxsize)


def milliseconds(text: str) -> float:
    """Return `600ms` in seconds."""
    found = re.fullmatch(r"(\d+)ms", text)
    assert found, f"not a time: {text}"
    return int(found[1]) / 1000


def play(text: str) -> str:
    """Return the scenario with its output as it is now."""
    scenario = Scenario()
    blocks = []
    for block in re.split(r"\n{2,}", text.strip()):
        head = block.split(f"\n{SEPARATOR}")[0].splitlines()
        output: list[str] = []
        commands = [line for line in head if not line.startswith("#")]
        for command in commands:
            output += scenario.play(command)
        body = [SEPARATOR, *(output or ["ok"])] if commands else []
        blocks.append("\n".join([*head, *body]))
    return "\n\n".join(blocks) + "\n"


def rewrite(paths: Iterable[Path]) -> None:
    """Write scenarios anew, and name those that changed."""
    for path in paths:
        before = path.read_text()
        after = play(before)
        if after != before:
            path.write_text(after)
            print(f"rewritten: {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    chosen = [DIRECTORY / f"{name.removesuffix('.txt')}.txt" for name in sys.argv[1:]]
    rewrite(chosen or sorted(DIRECTORY.glob("*.txt")))
