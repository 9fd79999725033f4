"""`just fuzz gossip`: millions of wrong packets and streams for members that must stay right.

Enters: `inputs=10000000`, `seed=N`. Leaves: how many were read and how fast, what memory it took;
at the first thing that is wrong the command that shows it again, and exit status 1.
Never: Trio, sockets; real time, but for the speed.

Beside the decoders, whose wrong bytes `just fuzz` shrinks, this is about those behind them: four
members in virtual time get what was mutated from real packets and from forged ones about
themselves, plain and sealed, a thousand and more a second. After each part there is peace, and they
must see each other as they are.
"""

import os
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from noti.errors import MessageInvalid
from noti.swim.core.events import PacketReceived, StateReceived
from noti.swim.core.messages import Address, Member, PushPull, User
from noti.swim.core.packets import decode_packet, encode, encode_packet
from noti.swim.core.sealing import Encryption
from noti.swim.core.stream_layers import StreamReader
from noti.swim.core.streams import encode_stream
from noti.swim.core.timing import SwimConfig
from tests.fuzz.gossip_inputs import PLAIN_PACKETS, SEALED_PACKETS, STREAMS, compressed, sealing
from tests.fuzz.mutations import INTERESTING
from tests.simulation.forgeries import STRANGER, Forgeries, real_ones
from tests.simulation.gossip_checks import GossipChecks, recovery_s
from tests.simulation.gossip_world import PORT, GossipMachine, GossipWorld
from tests.swim.core import agent_bytes

INPUTS = 10_000_000
PART = 100_000
"""Inputs between two times of peace."""

ROUND = 200
"""Inputs for one member from one set of examples …"""

ROUND_S = 0.1
"""… and the time that passes in it."""

STREAM_SHARE, SEALED_SHARE = 0.02, 0.1
"""Streams are long, and a member gets few."""

MEMORY_GROWTH_MAX_BYTES = 64 * 1024 * 1024
"""Of the whole process after its first part; all that four members may hold is less."""

CAPTURED = [
    getattr(agent_bytes, name)
    for name in sorted(vars(agent_bytes))
    if name.isupper() and name.endswith("PACKET")
]
"""What real agents sent, compressed and sealed."""


class GossipFuzz:
    """Four members, and what is thrown at them."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"fuzz gossip {seed}")
        self._sealing = sealing(Encryption.SENT)
        config = replace(SwimConfig.local(), members_max=64)
        self._world = GossipWorld(seed, 4, config)
        self._checks = GossipChecks(self._world)
        self._forgeries = Forgeries(self._rng, list(self._world.machines))
        self._world.start()
        self._make_peace()
        self.rejected = 0

    def run(self, inputs: int) -> None:
        """Throw so many, then let there be peace; raises `AssertionError` for what is wrong."""
        for _ in range(0, inputs, ROUND):
            machine = self._rng.choice(list(self._world.machines.values()))
            examples = self._examples(machine)
            states = [encode_stream(self._forgeries.state(self._known(machine))), *STREAMS]
            for _ in range(ROUND):
                if self._rng.random() < STREAM_SHARE:
                    self._throw_stream(machine, self._mutated(states))
                else:
                    self._throw_packet(machine, self._mutated(examples))
            self._checks.forged_at = self._world.now
            self._world.run(ROUND_S)
            self._world.timeline.lines.clear()
        self._make_peace()

    def _make_peace(self) -> None:
        within_s = recovery_s(self._world.config, 4)
        done = self._world.run_until(lambda: self._checks.why_not_settled() is None, within_s)
        assert done, f"not right after {within_s:.0f} s of peace: {self._checks.why_not_settled()}"
        self._checks.check_members()
        for machine in self._world.machines.values():
            self._checks.check_memory(machine)
            machine.sent.clear()
            machine.received.clear()

    def _known(self, machine: GossipMachine) -> list[Member]:
        return real_ones(list(machine.members().values()))

    def _examples(self, machine: GossipMachine) -> list[bytes]:
        """Return packets that are right, or forged by somebody who knows what is right."""
        forged = [
            encode_packet([encode(each) for each in self._forgeries.messages(victim, count)])
            for victim in self._known(machine)
            for count in (1, 1, 1, 3)
        ]
        recorded = [payload for payload, _ in self._world.recorded]
        some = self._rng.choices(recorded, k=20) if recorded else []
        layers = [compressed(self._rng.choice(forged)), *SEALED_PACKETS, *PLAIN_PACKETS, *CAPTURED]
        return [*forged, *some, *layers]

    def _mutated(self, examples: Sequence[bytes]) -> bytes:
        """Return an example after some changes, which may also be none."""
        rng = self._rng
        data = rng.choice(examples)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            at = int(rng.random() * (len(data) + 1))
            to = min(len(data), at + int(rng.random() * 16))
            kind = int(rng.random() * 7)
            if kind == 0 and at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << int(rng.random() * 8))]) + data[at + 1 :]
            elif kind == 1:
                data = data[:at]
            elif kind == 2:
                data = data[:at] + data[to:]
            elif kind == 3:
                data = data[:at] + data[at:to] * int(2 + rng.random() * 4) + data[to:]
            elif kind == 4:
                data = data[:at] + rng.choice(INTERESTING) + data[to:]
            elif kind == 5:
                other = rng.choice(examples)
                data = data[:at] + other[int(rng.random() * (len(other) + 1)) :]
            else:
                data = data[:at] + rng.randbytes(int(rng.random() * 8)) + data[to:]
        return data

    def _throw_packet(self, machine: GossipMachine, data: bytes) -> None:
        try:
            if self._rng.random() < SEALED_SHARE:
                data = self._sealing.open_packet(self._sealing.seal_packet(data))
            elif data[:1] in (b"\xf4", b"\x01"):
                data = self._sealing.open_packet(data)
            packet = decode_packet(data)
        except MessageInvalid:
            self.rejected += 1
            return
        machine.received[int(self._world.now)] += 1
        machine.step(PacketReceived(packet.messages, self._source()))

    def _throw_stream(self, machine: GossipMachine, data: bytes) -> None:
        if self._rng.random() < SEALED_SHARE:
            data = self._sealing.seal_stream(data)
        reader = StreamReader(sealing(Encryption.SENT), answer=True)
        try:
            message = next((each for each in reader.feed(data) if each is not None), None)
        except MessageInvalid:
            self.rejected += 1
            return
        match message:
            case PushPull() as state if machine.running.why_refused(state) is None:
                machine.step(StateReceived(state, (STRANGER, PORT)))
            case User() as user:
                machine.step(PacketReceived((user,), machine.address))
            case _:
                pass

    def _source(self) -> Address:
        """Return whom a packet claims to come from."""
        if self._rng.random() < 0.5:
            return STRANGER, PORT
        return self._rng.choice(list(self._world.machines.values())).address


def options_of(arguments: Sequence[str]) -> tuple[int, int]:
    """Return how many inputs, and the seed; exits with one line when something is wrong."""
    options = {"inputs": INPUTS, "seed": int.from_bytes(os.urandom(4))}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in options or not value.isdigit():
            sys.exit(f"just fuzz gossip: {argument!r} is neither inputs=N nor seed=N")
        options[name] = int(value)
    return options["inputs"], options["seed"]


def memory_bytes() -> int:
    """Return how much the process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say; return the exit status."""
    inputs, seed = options_of(arguments)
    console = Console()
    done, growth, began_at = 0, 0, time.monotonic()
    memory_before: int | None = None
    with Progress(console=console) as progress:
        task = progress.add_task("wrong packets and streams", total=inputs)
        fuzz = GossipFuzz(seed)
        while done < inputs:
            part = min(PART, inputs - done)
            try:
                fuzz.run(part)
                memory_before = memory_before or memory_bytes()
                growth = memory_bytes() - memory_before
                assert growth <= MEMORY_GROWTH_MAX_BYTES, f"memory grew by {growth} bytes"
            except Exception as error:  # noqa: BLE001 - whatever comes out is the result
                console.print(f"{type(error).__name__}: {error}", markup=False, highlight=False)
                console.print(f"replay: just fuzz gossip seed={seed} inputs={done + part}")
                return 1
            done += part
            progress.advance(task, part)
    each_s = (time.monotonic() - began_at) / max(1, done)
    console.print(
        f"{done} packets and streams, {fuzz.rejected} rejected as undecodable, "
        f"{1 / each_s:.0f} a second; the members are right"
    )
    console.print(
        f"memory {memory_bytes() >> 20} MiB, since the first part {growth >> 10} KiB more"
    )
    return 0
