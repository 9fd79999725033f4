"""Which nodes found a new cluster."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.membership.bootstrap import SETTLE_S, Advice, Bootstrap, cluster_of
from noti.membership.tags import (
    TAG_CLUSTER,
    TAG_EXPECT,
    TAG_NODE_ID,
    TAG_PROMISE,
    TAG_PROPOSAL,
)
from noti.raft.core.membership import Configuration
from noti.swim.core.messages import Member, MemberState
from tests import promises


def member(
    name: str, tags: dict[str, str] | None = None, state: MemberState = MemberState.ALIVE
) -> Member:
    return Member(name, ("10.0.0.1", 8401), tags or {}, state, 1)


class Founder:
    """A node before it has a cluster: what it shows, and what it has written."""

    def __init__(self, name: str, expect: int) -> None:
        self.name = name
        self.node_id = f"id-{name}"
        self.bootstrap = Bootstrap(name, self.node_id, expect)
        self.base = {TAG_NODE_ID: self.node_id, TAG_EXPECT: str(expect)}
        self.shown: list[dict[str, str]] = [self.base]
        """All that it ever showed: others may see something older."""
        self.promised: tuple[str, ...] = ()
        self.now = 0.0
        self.written: Configuration | None = None

    def look(self, others: Iterable[Member]) -> Advice:
        """See these others and itself; do what `Bootstrap` says."""
        if self.written is not None:
            return Advice("", None)
        self.now += 1.0
        advice = self.bootstrap.consider([member(self.name, self.shown[-1]), *others], self.now)
        shown = {TAG_PROPOSAL: advice.proposal, TAG_PROMISE: advice.promise}
        tags = {**self.base, **{tag: value for tag, value in shown.items() if value}}
        if advice.configuration is not None:
            self.written = advice.configuration
            tags = {**self.base, TAG_CLUSTER: advice.configuration.cluster_id}
        if tags != self.shown[-1]:
            self.shown.append(tags)
        return advice

    def seen(self, state: MemberState = MemberState.ALIVE) -> Member:
        return member(self.name, self.shown[-1], state)


def founders(count: int, expect: int) -> list[Founder]:
    return [Founder(f"n{number}", expect) for number in range(1, count + 1)]


def all_look(nodes: list[Founder]) -> None:
    for node in nodes:
        node.look([other.seen() for other in nodes if other is not node])


def all_propose(nodes: list[Founder]) -> None:
    """Each sees the others, and not yet what they propose."""
    for node in nodes:
        node.look([member(other.name, other.base) for other in nodes if other is not node])


def test_exactly_so_many_as_expected_found_one_cluster_together() -> None:
    nodes = founders(3, expect=3)
    for _ in range(3):
        all_look(nodes)
    expected = Configuration(cluster_of(n.node_id for n in nodes), ("id-n1", "id-n2", "id-n3"))
    assert [node.written for node in nodes] == [expected] * 3


def test_nobody_promises_before_all_propose_the_same() -> None:
    one, two, three = founders(3, expect=3)
    assert one.look([two.seen(), three.seen()]).promise == ""
    two.look([one.seen(), three.seen()])
    assert one.look([two.seen(), three.seen()]).promise == ""
    three.look([one.seen(), two.seen()])
    assert one.look([two.seen(), three.seen()]).promise


def test_nobody_founds_before_all_have_promised() -> None:
    one, two, three = founders(3, expect=3)
    all_propose([one, two, three])
    others = [two.seen(), three.seen()]
    assert one.look(others).promise
    assert one.look(others).configuration is None
    two.look([one.seen(), three.seen()])
    assert one.look([two.seen(), three.seen()]).configuration is None
    three.look([one.seen(), two.seen()])
    assert one.look([two.seen(), three.seen()]).configuration is not None


def test_too_few_wait() -> None:
    nodes = founders(2, expect=3)
    for _ in range(5):
        all_look(nodes)
    assert all(node.written is None and node.shown == [node.base] for node in nodes)


def test_of_too_many_the_first_by_name_found_and_the_rest_wait() -> None:
    nodes = founders(5, expect=3)
    for _ in range(5):
        all_look(nodes)
    assert [node.written is not None for node in nodes] == [True] * 3 + [False] * 2


def test_single_node_founds_at_once() -> None:
    (alone,) = founders(1, expect=1)
    advice = alone.look([])
    assert advice.configuration == Configuration(cluster_of(["id-n1"]), ("id-n1",))


def test_founder_that_dies_before_the_founding_is_replaced() -> None:
    one, two, three, four = founders(4, expect=3)
    all_propose([one, two, three])
    all_look([one, two, three])
    assert one.look([two.seen(), three.seen(MemberState.DEAD)]).configuration is None
    assert TAG_PROMISE not in one.shown[-1]
    for _ in range(3):
        all_look([one, two, four])
    assert one.written is not None
    assert one.written.voters == ("id-n1", "id-n2", "id-n4")


def test_founder_that_is_only_suspected_is_still_counted_on() -> None:
    one, two, three = founders(3, expect=3)
    all_propose([one, two, three])
    all_look([one, two, three])
    suspected = three.seen(MemberState.SUSPECT)
    assert one.look([two.seen(), suspected]).configuration is not None


def test_founder_that_has_founded_already_has_kept_its_promise() -> None:
    one, two, three = founders(3, expect=3)
    all_propose([one, two, three])
    all_look([one, two, three])
    one.look([two.seen(), three.seen()])
    assert TAG_CLUSTER in one.shown[-1]
    assert two.look([one.seen(), three.seen()]).configuration == one.written


@promises.FOUNDER_KEEPS_PROMISE
def test_founder_that_was_restarted_meanwhile_keeps_its_promise() -> None:
    """The one that had founded could never lead. Found by: just sim seed=1039 layer=nodes"""
    one, two, three = founders(3, expect=3)
    all_propose([one, two, three])
    all_look([one, two, three])
    one.look([two.seen(), three.seen()])
    assert one.written is not None
    again = Founder("n2", expect=3)
    again.bootstrap = Bootstrap("n2", "id-n2", 3, two.bootstrap.promised)
    assert again.look([one.seen(), three.seen(MemberState.LEFT)]).configuration == one.written


def test_founder_that_misses_another_founds_with_those_it_had_promised() -> None:
    one, two, three = founders(3, expect=3)
    all_propose([one, two, three])
    all_look([one, two, three])
    assert three.written is not None
    assert two.look([three.seen(), one.seen(MemberState.DEAD)]).configuration == three.written


@promises.FOUNDER_KEEPS_PROMISE
def test_node_that_promised_itself_to_others_since_does_not_found() -> None:
    one, two, three = founders(3, expect=3)
    all_propose([one, two, three])
    all_look([one, two, three])
    assert three.written is not None
    four = Founder("n4", expect=3)
    gone = three.seen(MemberState.DEAD)
    four.look([one.seen(), two.seen(), gone])
    one.look([two.seen(), four.seen(), gone])
    two.look([one.seen(), four.seen(), gone])
    promised = two.shown[-1][TAG_PROMISE]
    assert promised == cluster_of(n.node_id for n in (one, two, four))
    assert two.look([one.seen(MemberState.DEAD), three.seen()]) == Advice("", None)


def test_node_that_comes_to_a_cluster_waits_to_be_added() -> None:
    nodes = founders(3, expect=3)
    for _ in range(3):
        all_look(nodes)
    late = Founder("n0", expect=3)
    blank = Founder("n9", expect=3)
    advice = late.look([blank.seen(), *(node.seen() for node in nodes)])
    assert advice == Advice("", None)


def test_node_that_expects_another_number_is_not_counted_on() -> None:
    one, two, three = founders(3, expect=3)
    three.base[TAG_EXPECT] = "5"
    assert one.look([two.seen(), three.seen()]) == Advice("", None)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {TAG_NODE_ID: "", TAG_EXPECT: "3"},
        {TAG_NODE_ID: "x"},
        {TAG_NODE_ID: "x", TAG_EXPECT: ""},
        {TAG_NODE_ID: "x", TAG_EXPECT: "three"},
        {TAG_NODE_ID: "x", TAG_EXPECT: "03"},
        {TAG_NODE_ID: "id-n2", TAG_EXPECT: "3"},
        {TAG_EXPECT: "3"},
    ],
)
def test_senseless_tags_make_nobody_a_founder(tags: dict[str, str]) -> None:
    one, two = founders(2, expect=3)
    assert one.look([two.seen(), member("m", tags)]) == Advice("", None)


def test_id_of_a_cluster_does_not_depend_on_the_order_of_its_founders() -> None:
    assert cluster_of(["a", "b"]) == cluster_of(["b", "a"])
    assert cluster_of(["a", "b"]) != cluster_of(["a", "c"])


looks = st.lists(
    st.tuples(
        st.integers(0, 4),  # who looks
        st.sets(st.integers(0, 4)),  # whom it sees
        st.integers(0, 3),  # how much of what was shown it has not seen yet
    ),
    max_size=60,
)


def play(nodes: list[Founder], steps: list[tuple[int, set[int], int]], *, keep: bool) -> None:
    """Let nodes look; with `keep`, nobody loses sight of those whom it gave a promise."""
    versions: dict[tuple[str, str], int] = {}
    for who, seen, lag in steps:
        node = nodes[who % len(nodes)]
        visible = []
        for number, other in enumerate(nodes):
            if other is node or not (number in seen or (keep and other.node_id in node.promised)):
                continue
            key = (node.name, other.name)
            # Gossip may be late, but never goes back.
            version = max(versions.get(key, 0), len(other.shown) - 1 - lag)
            versions[key] = version
            visible.append(member(other.name, other.shown[version]))
        node.look(visible)
        node.promised = node.bootstrap._founders


@given(st.integers(3, 5), looks)
def test_nodes_that_keep_their_promises_never_found_two_clusters(
    count: int, steps: list[tuple[int, set[int], int]]
) -> None:
    """Fewer than twice as many as expected: any two sets of founders share a node."""
    nodes = founders(count, expect=3)
    play(nodes, steps, keep=True)
    assert len({node.written for node in nodes if node.written is not None}) <= 1


@given(looks)
def test_exactly_so_many_as_expected_never_found_two_clusters_whatever_they_see(
    steps: list[tuple[int, set[int], int]],
) -> None:
    nodes = founders(3, expect=3)
    play(nodes, steps, keep=False)
    assert len({node.written for node in nodes if node.written is not None}) <= 1


@given(looks)
def test_founding_succeeds_in_the_end_whatever_happened_before(
    steps: list[tuple[int, set[int], int]],
) -> None:
    """Who lost its promise meanwhile waits for the others' leader, as a voter with an empty log."""
    nodes = founders(3, expect=3)
    play(nodes, steps, keep=False)
    for _ in range(4):
        all_look(nodes)
    (cluster,) = {node.written for node in nodes if node.written is not None}
    assert cluster.voters == tuple(node.node_id for node in nodes)
    for node in nodes:
        assert node.shown[-1].get(TAG_PROMISE, cluster.cluster_id) == cluster.cluster_id


@given(st.integers(4, 7), st.data())
def test_more_than_expected_found_in_the_end_in_whatever_order_they_saw_each_other(
    count: int, data: st.DataObject
) -> None:
    """Found by hand: of five nodes with three expected, three in four never had a cluster."""
    nodes = founders(count, expect=3)
    seen: dict[str, set[str]] = {node.name: {node.name} for node in nodes}
    for _ in range(data.draw(st.integers(0, 40))):
        node, other = data.draw(st.sampled_from(nodes)), data.draw(st.sampled_from(nodes))
        seen[node.name].add(other.name)
        node.look([o.seen() for o in nodes if o is not node and o.name in seen[node.name]])
    for _ in range(8):
        all_look(nodes)
    (cluster,) = {node.written for node in nodes if node.written is not None}
    assert len(cluster.voters) == 3
    assert {n.node_id for n in nodes if n.written is not None} == set(cluster.voters)


def test_promise_of_another_is_taken_for_ones_own_when_one_proposed_it_before() -> None:
    one, two, three, late = [Founder(name, 3) for name in ("n1", "n3", "n4", "n2")]
    all_propose([one, two, three])
    assert one.look([two.seen(), three.seen()]).promise, "it sees three, and has no choice"
    for _ in range(4):  # the others see the late one first, and prefer to found with that
        for node in (two, three, late):
            node.look([o.seen() for o in (one, two, three, late) if o is not node])
    one.look([two.seen(), three.seen(), late.seen()])
    assert one.written is not None
    assert one.written == two.written == three.written
    assert late.written is None


def test_who_sees_more_than_expected_promises_what_has_been_right_for_a_while() -> None:
    nodes = founders(4, expect=3)
    all_propose(nodes)
    one = nodes[0]
    others = [node.seen() for node in nodes[1:]]
    assert one.look(others).promise == ""
    one.now += SETTLE_S - 1.5
    assert one.look(others).promise == ""
    one.now += 0.5
    assert one.look(others).promise
