"""What comes again is recognised, by content and by key."""

from noti.history.duplicates import KEYS_MAX, Contents, IdempotencyKeys
from noti.history.notification import Event, Notification
from tests import promises


def event(event_id: str, data: str = "", key: str = "") -> Event:
    return Event(0, event_id, ("t",), data, 0, idempotency_key=key)


def shown(seq: int, event_id: str, data: str = "") -> Notification:
    return Notification(seq, event_id, ("t",), data, 0)


@promises.RETRY_SHOWN_ONCE
def test_same_id_is_the_same_event_only_with_the_same_topics_and_data() -> None:
    contents = Contents()
    assert not contents.holds(event("a"))
    contents.add(shown(1, "a", "one"))
    assert contents.holds(event("a", "one"))
    assert contents.holds(event("a", "one")._replace(created_ms=9, type="x", retry_ms=1))
    assert not contents.holds(event("a", "two"))
    assert not contents.holds(event("a", "one")._replace(topics=("t", "u")))
    assert not contents.holds(event("b", "one"))
    assert contents.holds_id("a")


def test_each_version_is_known_until_history_has_lost_it() -> None:
    contents = Contents()
    versions = [shown(seq, "a", f"version {seq}") for seq in range(1, 4)]
    for one in versions:
        contents.add(one)
    assert all(contents.holds(event("a", f"version {seq}")) for seq in range(1, 4))
    contents.remove(versions[0])
    assert not contents.holds(event("a", "version 1"))
    assert contents.holds(event("a", "version 3"))
    contents.add(shown(4, "a", "version 1"))
    assert contents.holds(event("a", "version 1"))
    for one in (*versions[1:], shown(4, "a", "version 1")):
        contents.remove(one)
    assert not contents.holds_id("a")


def test_content_that_history_holds_twice_is_known_until_both_are_gone() -> None:
    for others in ([], [shown(9, "a", "other")]):
        contents = Contents()
        for one in (*others, shown(1, "a", "x"), shown(2, "a", "x")):
            contents.add(one)
        contents.remove(shown(1, "a", "x"))
        assert contents.holds(event("a", "x"))
        contents.remove(shown(2, "a", "x"))
        assert not contents.holds(event("a", "x"))


@promises.RETRY_SHOWN_ONCE
def test_key_stands_for_the_first_event_that_came_with_it() -> None:
    keys = IdempotencyKeys()
    assert keys.add(event("a", "one", "key"))
    assert not keys.add(event("b", "one", "key"))
    assert not keys.add(event("c", "two", "key"))
    assert keys.id_of(event("a", "one", "key")) == "a"
    assert keys.id_of(event("b", "one", "key")) == "a"
    assert keys.id_of(event("c", "two", "key")) is None
    assert keys.id_of(event("d", "one", "key")._replace(private=True)) is None


def test_events_without_a_key_are_left_alone() -> None:
    keys = IdempotencyKeys()
    assert keys.add(event("a", "one"))
    assert keys.add(event("a", "one"))
    assert keys.id_of(event("b", "one")) == "b"
    assert not keys.known


def test_oldest_key_is_forgotten_first() -> None:
    keys = IdempotencyKeys()
    for number in range(KEYS_MAX + 1):
        keys.add(event("a", "", f"key {number}"))
    assert len(keys.known) == KEYS_MAX
    assert keys.add(event("b", "", "key 0"))
    assert not keys.add(event("b", "", "key 2"))


def test_many_versions_under_one_id_are_told_apart_as_quickly_as_few() -> None:
    """Counted in comparisons: one by one, 5,000 versions would take 25 million."""
    compared = 0

    class Data(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    contents = Contents()
    for seq in range(1, 5001):
        contents.add(shown(seq, "a", Data(f"version {seq}")))
    for seq in range(1, 5001):
        assert contents.holds(event("a", Data(f"version {seq}")))
        assert not contents.holds(event("a", Data(f"other {seq}")))
    assert compared < 20_000
