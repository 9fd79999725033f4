"""Promises about what clients have at all processes of a node."""

from noti.client_counts import ClientCounts


def test_what_a_client_has_elsewhere_counts_and_is_forgotten_when_it_ends() -> None:
    counts = ClientCounts()
    counts.add("a")
    counts.set_elsewhere({"a": 2, "b": 1})
    assert [counts.of(one) for one in "abc"] == [3, 1, 0]
    counts.set_elsewhere({"a": 0})
    counts.remove("a")
    assert [counts.of(one) for one in "abc"] == [0, 1, 0]
    assert len(counts) == 0
    counts.set_elsewhere({"b": 0})
    assert not counts._elsewhere


def test_changes_are_told_once_and_only_where_somebody_listens() -> None:
    counts, calls = ClientCounts(), list[None]()
    counts.add("a")
    assert counts.take_changes() == {}
    counts.tell(lambda: calls.append(None))
    for client_key in ("a", "b", "b"):
        counts.add(client_key)
    counts.add("c")
    counts.remove("c")
    assert calls
    assert counts.take_changes() == {"a": 2, "b": 2, "c": 0}
    assert counts.take_changes() == {}
