"""Clusters of members that only gossip: of ours, and of Serf agents, side by side."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen
from sys import executable
from typing import Protocol

from tests.bench.clusters import HOST, Processes, listens, until
from tests.interop.serf.agents import serf_binary
from tests.ports import free_port

POLL_S = 0.01
SEEN_WITHIN_S = 60.0
"""The longest suspicion is 18 s; a state that gossip lost is exchanged every 15 s."""


class Program(Protocol):
    """What runs a member, and the lines that it logs about others."""

    @property
    def name(self) -> str:
        """What its members are called."""

    def command(self, name: str, port: int, seeds: Sequence[int]) -> list[str]:
        """Return the command of a member that joins these ports."""

    def alive(self, name: str) -> str:
        """What a member logs, among other things, when it sees one come."""

    def failed(self, name: str) -> str:
        """What a member logs, among other things, when it sees one fail."""


@dataclass(frozen=True, slots=True)
class Noti:
    """Our gossip, without the rest of a node."""

    profile: str
    name: str = "noti"

    def command(self, name: str, port: int, seeds: Sequence[int]) -> list[str]:
        program = [executable, "-m", "tests.bench.gossip_member"]
        return [*program, name, str(port), self.profile, *map(str, seeds)]

    def alive(self, name: str) -> str:
        return f"alive {name}\n"

    def failed(self, name: str) -> str:
        return f"dead {name}\n"


@dataclass(frozen=True, slots=True)
class Serf:
    """Debian's agent."""

    profile: str
    name: str = "serf"

    def command(self, name: str, port: int, seeds: Sequence[int]) -> list[str]:
        command = [str(serf_binary()), "agent", f"-node={name}", f"-bind={HOST}:{port}"]
        command += [f"-rpc-addr={HOST}:{free_port()}", f"-profile={self.profile}"]
        return [*command, *(f"-join={HOST}:{seed}" for seed in seeds)]

    def alive(self, name: str) -> str:
        return f"EventMemberJoin: {name} "

    def failed(self, name: str) -> str:
        return f"EventMemberFailed: {name} "


@dataclass
class Member:
    """One member, and how far its log was read."""

    name: str
    port: int
    log: Path
    process: Popen[bytes]
    read_to: int = 0

    def news(self) -> str:
        """Return what it has logged since the last call."""
        with self.log.open() as log:
            log.seek(self.read_to)
            text = log.read()
        whole = text[: text.rfind("\n") + 1]
        self.read_to += len(whole.encode())
        return whole


class Watch:
    """Whether all members but one have logged something, and when."""

    def __init__(self, members: Sequence[Member], marker: str) -> None:
        """Look at what these members log from now on."""
        self._marker = marker
        self._members = members
        self._begun_at = time.monotonic()
        self.seen_after_s: dict[str, float] = {}
        """By member."""
        for member in members:
            member.news()

    def look(self) -> bool:
        """Return whether all have logged it."""
        for member in self._members:
            if member.name not in self.seen_after_s and self._marker in member.news():
                self.seen_after_s[member.name] = time.monotonic() - self._begun_at
        return len(self.seen_after_s) == len(self._members)


class GossipCluster:
    """Some members of one program, which may be killed and started again."""

    def __init__(self, program: Program, members: int, processes: Processes, logs: Path) -> None:
        """Start them; each joins all before it, and all see all when it returns."""
        self.program = program
        self._processes = processes
        self._logs = logs
        self.members: list[Member] = []
        for number in range(1, members + 1):
            name, port = f"{program.name}{number}", free_port()
            process = self._start(name, port)
            self.members.append(Member(name, port, logs / f"{name}.log", process))
            until(f"{name} listens", partial(listens, port))
        for member in self.members:
            marker = program.alive(member.name)
            for other in self._without(member):
                until(f"{other.name} sees {member.name}", partial(_has, other.log, marker))

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [member.process.pid for member in self.members]

    def kill(self, number: int) -> Watch:
        """Kill a member; return the watch for the others' notice."""
        victim = self.members[number]
        watch = Watch(self._without(victim), self.program.failed(victim.name))
        victim.process.kill()
        victim.process.wait()
        return watch

    def restart(self, number: int) -> Watch:
        """Start a member again; return the watch for its return."""
        victim = self.members[number]
        watch = Watch(self._without(victim), self.program.alive(victim.name))
        victim.process = self._start(victim.name, victim.port)
        return watch

    def _without(self, victim: Member) -> list[Member]:
        return [member for member in self.members if member is not victim]

    def _start(self, name: str, port: int) -> Popen[bytes]:
        seeds = [member.port for member in self.members if member.name != name]
        return self._processes.start(name, self.program.command(name, port, seeds))


def wait_for(*watches: Watch) -> bool:
    """Wait until all have seen what they watch for; False when it takes too long."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while time.monotonic() < deadline:
        done = [watch.look() for watch in watches]
        if all(done):
            return True
        time.sleep(POLL_S)
    return False


def _has(log: Path, marker: str) -> bool:
    return marker in log.read_text()
