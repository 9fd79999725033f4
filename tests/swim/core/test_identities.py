"""An identity belongs to one member: the one the cluster knows, or who proved it first."""

import random

from noti.swim.core.identities import Identities
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import VERSIONS, Alive, MemberState


def record(name: str, identity: str = "", now: float = 0.0) -> Record:
    tags = {"id": identity} if identity else {}
    return Record.of(Alive(1, name, (name, 1), b"", VERSIONS), tags, now)


class Scene:
    """Some members, noted in order."""

    def __init__(self, *others: Record) -> None:
        self.members = Members(random.Random(1), 30.0)
        self.me = record("me", "mine")
        self.members.add(self.me)
        self.identities = Identities(self.me, self.members)
        for each in others:
            self.members.add(each)
            self.identities.note(each)


def test_identity_belongs_to_whom_the_cluster_knows_or_who_proved_it_first() -> None:
    scene = Scene(record("n2", "two"), record("n3"))
    assert scene.identities.owner_of("two") == "n2"
    assert scene.identities.owner_of("other") is None
    assert scene.identities.owner_of("mine") == "me"
    scene.identities.protect({"two": "known", "four": "n4", "five": ""})
    assert scene.identities.owner_of("two") == "known"
    assert scene.identities.owner_of("four") == "n4"
    assert scene.identities.owner_of("five") is None


def test_identity_is_free_again_when_its_member_is_forgotten_or_has_another() -> None:
    scene = Scene(record("n2", "two"), record("n3", "three"))
    scene.members.forget("n2")
    scene.members["n3"].tags = {"id": "new"}
    assert scene.identities.owner_of("two") is None
    assert scene.identities.owner_of("three") is None


def test_what_is_remembered_of_identities_is_bounded() -> None:
    scene = Scene(record("n2", "0"))
    for number in range(1, 1000):
        scene.members["n2"].tags = {"id": str(number)}
        scene.identities.note(scene.members["n2"])
    assert scene.identities.owner_of("999") == "n2"
    assert len(scene.identities._shown_by) <= 4


def test_nodes_of_the_cluster_and_this_one_are_never_the_ones_to_go() -> None:
    scene = Scene(record("n2", "two", 1), record("n3", "three", 2), record("n4", "", 3))
    scene.identities.protect({"three": ""})
    assert scene.identities.latest_foreigner() is scene.members["n4"]
    assert scene.identities.longest_absent() is None
    for name, at in (("n3", 4.0), ("n4", 6.0), ("n2", 5.0)):
        scene.members.set_state(scene.members[name], MemberState.DEAD, at)
    assert scene.identities.longest_absent() is scene.members["n2"]
    assert scene.identities.is_protected(scene.me)
