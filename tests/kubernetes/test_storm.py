"""Everything that can go wrong, at random; then it must all be right within a minute."""

import random
from collections.abc import Callable

import pytest
import trio

from noti.kubernetes.api import PODS
from noti.kubernetes.labels import ROLE_LABELS, TERM_ANNOTATION
from tests.kubernetes.stage import NS, Stage, stage, until

STEPS = 40
PODS_MAX = 4


class Storm:
    """Random faults of one seed, and what has to hold all the time."""

    def __init__(self, at: Stage, seed: int) -> None:
        self.at = at
        self.rng = random.Random(seed)
        self.term = 1
        self.leader = 0
        self.terms: dict[str, int] = {}
        self.leaders: dict[int, str] = {}
        self.wrong: list[str] = []
        at.server.on_write = self.check_write

    def check_write(self, resource: str, name: str) -> None:
        """No lower term is ever written over a higher one, and no two leaders of one term."""
        if resource != "pods":
            return
        metadata = self.at.server.read(PODS, NS, name)["metadata"]
        term = int(metadata.get("annotations", {}).get(TERM_ANNOTATION, "0"))
        if term < self.terms.get(metadata["uid"], 0):
            self.wrong.append(f"{name}: term {self.terms[metadata['uid']]} is followed by {term}")
        self.terms[metadata["uid"]] = term
        leads = metadata.get("labels", {}).get(ROLE_LABELS[0]) == "leader"
        if leads and self.leaders.setdefault(term, name) != name:
            self.wrong.append(f"{name} and {self.leaders[term]} lead in term {term}")

    @property
    def numbers(self) -> list[int]:
        return [int(pod["metadata"]["name"][-1]) for pod in self.at.cluster.pods]

    def elect(self) -> None:
        self.term += 1
        self.leader = self.rng.choice(self.numbers)
        for number in self.numbers:
            if number == self.leader:
                self.at.nodes.say(f"noti-{number}", "leader", self.term)
            elif self.rng.random() < 0.7:  # The others have not heard of it yet.
                self.at.nodes.say(f"noti-{number}", "follower", self.term, f"noti-{self.leader}")

    def campaign(self) -> None:
        self.term += 1
        self.at.nodes.say(f"noti-{self.rng.choice(self.numbers)}", "candidate", self.term)

    def silence(self) -> None:
        kind = self.rng.choice([self.at.nodes.dead, self.at.nodes.hanging])
        kind ^= {f"noti-{self.rng.choice(self.numbers)}"}

    def flap(self) -> None:
        self.at.cluster.set_ready(self.rng.choice(self.numbers), self.rng.random() < 0.5)

    def replace_pod(self) -> None:
        number = self.rng.choice(self.numbers)
        self.at.cluster.delete_pod(number)
        self.at.cluster.add_pod(number, ready=self.rng.random() < 0.7)

    def add_pod(self) -> None:
        if len(self.numbers) < PODS_MAX:
            self.at.cluster.scale(len(self.numbers) + 1)
            self.at.cluster.add_pod(len(self.numbers))

    def outage(self) -> None:
        if self.at.server.down:
            self.at.server.start()
        else:
            self.at.server.stop()

    def throttle(self) -> None:
        self.at.server.throttled = self.rng.randrange(4)

    def forbid(self) -> None:
        rights = [("pods", "patch"), ("pods", "watch"), ("events", "create"), ("leases", "update")]
        self.at.server.forbidden ^= {self.rng.choice(rights)}

    def end_watches(self) -> None:
        if self.rng.random() < 0.3:
            self.at.server.forget_past()
        self.at.server.end_watches()

    async def rage(self) -> None:
        at = self.at
        deeds: list[Callable[[], None]] = [
            *(self.elect, self.campaign, self.silence, self.flap, self.replace_pod),
            *(self.add_pod, self.outage, self.throttle, self.forbid, self.end_watches),
        ]
        for _ in range(STEPS):
            self.rng.choice(deeds)()
            await trio.sleep(self.rng.uniform(0, 2))
            assert len(at.working()) <= 1

    def calm(self) -> None:
        at = self.at
        at.server.start()
        at.server.forbidden.clear()
        at.nodes.dead.clear()
        at.nodes.hanging.clear()
        self.term += 1
        ready = [number for number in self.numbers if self.is_ready(number)]
        self.leader = self.rng.choice(ready or self.numbers)
        others = [f"noti-{number}" for number in self.numbers if number != self.leader]
        at.nodes.elect(f"noti-{self.leader}", self.term, *others)

    def is_ready(self, number: int) -> bool:
        conditions = self.at.server.read(PODS, NS, f"noti-{number}")["status"]["conditions"]
        return bool(conditions[0]["status"] == "True")

    @property
    def roles(self) -> str:
        """What the labels should be."""
        return "".join(
            "-" if not self.is_ready(number) else "L" if number == self.leader else "f"
            for number in self.numbers
        )

    @property
    def serving(self) -> set[str]:
        """Who should get browsers."""
        ready = {f"noti-{number}" for number in self.numbers if self.is_ready(number)}
        return ready - {f"noti-{self.leader}"} or ready


@pytest.mark.parametrize("seed", range(20))
async def test_after_any_storm_labels_are_right_within_a_minute(
    autojump_clock: object, seed: int
) -> None:
    async with stage() as at:
        at.operate("operator-a")
        at.operate("operator-b")
        storm = Storm(at, seed)
        await storm.rage()
        storm.calm()
        ended = trio.current_time()
        await until(
            lambda: at.cluster.roles == storm.roles and at.cluster.serving == storm.serving,
            f"{at.cluster.roles} is {storm.roles}",
        )
        assert trio.current_time() - ended < 60
        assert not storm.wrong
        told = f"noti-{storm.leader}" if "L" in storm.roles else ""
        await until(lambda: at.cluster.status.get("leaderNode") == told)
