"""Which tokens are revoked, the same on every node."""

from collections.abc import Sequence

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.history.commands import decode, encode
from noti.history.notification import Notification
from noti.history.revocations import RevocationTable, Revoke
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from tests import promises


class Audience:
    def __init__(self) -> None:
        self.disconnected: list[tuple[str | None, str | None]] = []

    def publish(self, notifications: Sequence[Notification]) -> None:
        pass

    def trim(self, oldest_seq: int, gone: Sequence[int]) -> None:
        pass

    def reset(self, notifications: Sequence[Notification], oldest_seq: int) -> None:
        pass

    def disconnect(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        subscriber: str | None = None,
    ) -> int:
        self.disconnected.append((subject, token_id))
        return 0


@promises.REVOKED_EVERYWHERE
def test_a_subject_or_a_token_is_refused_until_its_time() -> None:
    table = RevocationTable()
    assert not table.is_revoked("7", "j", 0.0)
    table.apply(Revoke("7", "", 2000, 1000))
    table.apply(Revoke("", "j", 3000, 1000))
    assert table.is_revoked("7", None, 1.999)
    assert not table.is_revoked("7", None, 2.0)
    assert table.is_revoked("8", "j", 2.0)
    assert not table.is_revoked("j", "7", 1.0)
    assert not table.is_revoked(None, None, 1.0)


def test_the_later_end_of_two_counts() -> None:
    table = RevocationTable()
    for until_ms in (2000, 3000, 1500):
        table.apply(Revoke("7", "", until_ms, 1000))
    assert table.is_revoked("7", None, 2.5)
    assert len(table) == 1


def test_without_a_time_streams_end_and_nothing_is_refused() -> None:
    table = RevocationTable()
    table.apply(Revoke("7", "", 1000, 1000))
    assert len(table) == 0
    assert [one.subject for one in table.take_news()] == ["7"]
    assert table.take_news() == []


def test_a_full_table_forgets_what_has_ended_and_then_what_ends_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noti.history.revocations.REVOCATIONS_MAX", 2)
    table = RevocationTable()
    table.apply(Revoke("over", "", 1500, 1000))
    table.apply(Revoke("last", "", 9000, 1000))
    table.apply(Revoke("first", "", 5000, 2000))
    assert [fields[0] for fields in table.fields()] == ["last", "first"]
    table.apply(Revoke("next", "", 7000, 2000))
    assert [fields[0] for fields in table.fields()] == ["last", "next"]


@pytest.mark.parametrize(
    "fields",
    [
        ["", "", 1, 1],
        ["a", "b", 1, 1],
        ["a" * 513, "", 1, 1],
        ["a", "", -1, 1],
        ["a", "", True, 1],
        ["a", "", 1],
        [7, "", 1, 1],
    ],
)
def test_commands_are_checked(fields: list[object]) -> None:
    with pytest.raises(MessageInvalid):
        decode(msgpack.packb([30, *fields]))


@pytest.mark.parametrize(
    "fields", [["", "", 1], ["a", "b", 1], ["a", "", -1], ["a", "", "1"], ["a"], [7, "", 1], 7]
)
def test_entries_of_snapshots_are_checked(fields: object) -> None:
    with pytest.raises(MessageInvalid):
        RevocationTable().add_fields(fields)


def test_a_command_is_what_it_was() -> None:
    command = Revoke("", "j", 2000, 1000)
    assert decode(encode(command)) == command


@promises.REVOKED_EVERYWHERE
def test_streams_end_when_the_command_is_applied_and_when_a_snapshot_is_restored() -> None:
    store, audience = Store(), Audience()
    machine = HistoryStateMachine(store, audience)
    machine.apply(encode(Revoke("7", "", 5000, 1000)))
    machine.apply(encode(Revoke("", "j", 1000, 1000)))
    assert audience.disconnected == [("7", None), (None, "j")]
    other, late = Store(), Audience()
    behind = HistoryStateMachine(other, late)
    behind.restore(Store.decode(store.snapshot()))
    assert late.disconnected == [("7", None)]
    assert other.revocations.is_revoked("7", None, 4.0)
    assert other.digest() == store.digest()
