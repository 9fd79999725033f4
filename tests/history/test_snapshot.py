"""The bytes of the whole state: in pieces, checked, and those of version 1."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import LevelUnsupported, MessageInvalid
from noti.history.commands import Publish, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event, Notification
from noti.history.snapshot import PIECE_BYTES, STREAMS_MAX, VERSION
from noti.history.store import Store, StoreDecoder
from tests.history.test_store import commands, published, replay


@given(commands, st.data())
def test_snapshot_is_read_however_it_is_cut(sequence: list[bytes], data: st.DataObject) -> None:
    store = replay(sequence)
    whole = store.snapshot()
    decoder = StoreDecoder()
    while whole:
        size = data.draw(st.integers(1, 200))
        decoder.feed(whole[:size])
        whole = whole[size:]
    restored = decoder.finish()
    assert restored.digest() == store.digest()
    assert restored.history() == store.history()


@given(commands, st.data())
def test_cut_snapshot_is_invalid(sequence: list[bytes], data: st.DataObject) -> None:
    whole = replay(sequence).snapshot()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for wrong in (cut, whole + b"\xc0", whole + b"\x91"):
        with pytest.raises(MessageInvalid):
            Store.decode(wrong)


def test_snapshot_comes_in_pieces_and_is_that_of_the_moment_when_it_was_asked_for() -> None:
    store = replay([encode(SetLimits(HistoryLimits(5000, per_topic=1)))])
    for number in range(2000):
        keyed = Event(0, f"{number}", (f"t{number}",), "x" * 1000, 1, idempotency_key=f"{number}")
        store.apply(encode(Publish((keyed,))))
    whole, pieces = store.snapshot(), store.snapshot_pieces()
    store.apply(published("more"))
    decoder, sizes = StoreDecoder(), []
    for piece in pieces:
        decoder.feed(piece)
        sizes.append(len(piece))
    assert decoder.finish().snapshot() == whole
    assert 9 <= len(sizes) <= 13
    assert max(sizes) <= PIECE_BYTES + 1200


def test_snapshot_of_version_1_is_read() -> None:
    history = [["a", ["t"], "data of a", 5], ["b", ["t", "u"], "", 6]]
    old = msgpack.packb([1, 10, 7, [["s", 4]], history])
    for cut in (1, 2, 9):
        decoder = StoreDecoder()
        decoder.feed(old[:cut])
        decoder.feed(old[cut:])
        store = decoder.finish()
        assert store.history() == (
            Notification(6, "a", ("t",), "data of a", 5),
            Notification(7, "b", ("t", "u"), "", 6),
        )
        assert store.limits == HistoryLimits(10)
        assert store.floor("s") == 4
        assert store.lost_through(["t"]) == store.lost_through(None) == 5
        assert store.apply(published("a")) == []
        assert Store.decode(store.snapshot()).snapshot() == store.snapshot()


@given(st.binary(max_size=60))
def test_garbage_is_no_snapshot(garbage: bytes) -> None:
    with pytest.raises(MessageInvalid):
        Store.decode(garbage)


@pytest.mark.parametrize(
    "fields",
    [
        [1, 0, 0, [], []],
        [1, 10, 0, [], [["id", ["t"], "d", 1]]],
        [1, 10, 1, [["s", 0]], []],
        [1, 10, 1, [["s", 1], "x"], []],
        [1, 10, 1, [], [["id", [], "d", 1]]],
        [1, 10, 1, [], [["id", ["t"], "d", "late"]]],
        [1, 10, 1, []],
        [1, 10, 100, [[f"s{i}", 1] for i in range(STREAMS_MAX + 1)], []],
        [0, [10, 10, 0, 0, 10], 0, 0, 0, 0, 0, []],
        [3],
        [3, 0, [10, 10, 0, 0, 10], 0, 0, 0, 0, 0, []],
        [3, [10, 10, 0, 0, 10], 0, 0, 0, 0, 0, []],
        [0],
        [2, [10, 10, 0, 0, 10], 0, 0, 0, 0, 0],
        [2, [0, 10, 0, 0, 10], 0, 0, 0, 0, 0, []],
        [2, [10, 10, 0, 0, 10], 1, 0, 1, 0, 0, []],
        [2, [10, 10, 0, 0, 10], 1, 1, 0, 0, 1, []],
        [2, [10, 10, 0, 0, 10], 0, 0, 0, 0, 0, [["s", 0]]],
        [2, [10, 10, 0, 0, 10], 0, 0, 0, 0, 0, [[f"s{i}", 1] for i in range(STREAMS_MAX + 1)]],
    ],
)
def test_head_with_wrong_fields_is_invalid(fields: object) -> None:
    with pytest.raises(MessageInvalid):
        Store.decode(msgpack.packb(fields) + msgpack.packb([0]))


def test_snapshot_of_a_newer_version_says_what_to_do() -> None:
    with pytest.raises(MessageInvalid, match="this node is older: upgrade it"):
        Store.decode(msgpack.packb([VERSION + 1, "from", "the future"]))


def test_state_beyond_what_is_supported_says_what_to_install_before_it_is_read() -> None:
    with pytest.raises(LevelUnsupported, match=r"install 0\.7\.0 or newer"):
        StoreDecoder(supports=0).feed(msgpack.packb([3, 1, "unreadable"]))


HEAD = [2, [3, 100, 0, 2, 2], 5, 2, 2, 1, 2, []]
KEPT = [[0, seq, f"id{seq}", ["t"], "", 0, "", 0, False] for seq in (3, 4, 5)]
TOPIC = ["t", 2, [3, 5]]


def joined(*pieces: object) -> bytes:
    return b"".join(map(msgpack.packb, pieces))


def test_pieces_that_were_made_by_hand_are_a_snapshot() -> None:
    key = ["key", "id", b"digest"]
    store = Store.decode(joined(HEAD, [1, KEPT], [2, [TOPIC]], [3, [key]], [0]))
    assert [n.seq for n in store.history()] == [3, 4, 5]
    assert store.first_seq == 4


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD],
        [[0]],
        [HEAD, [0]],
        [HEAD, HEAD],
        [HEAD, [1, KEPT], [0]],
        [HEAD, [1, KEPT[:2]], [2, [TOPIC]], [0]],
        [HEAD, [1, [KEPT[0], KEPT[2], KEPT[1]]], [2, [TOPIC]], [0]],
        [HEAD, [1, [*KEPT, KEPT[2]]], [2, [TOPIC]], [0]],
        [HEAD, [1, [[0, 4, *KEPT[0][2:]], *KEPT[1:]]], [2, [TOPIC]], [0]],
        [HEAD, [2, [TOPIC]], [1, KEPT], [0]],
        [HEAD, [1, KEPT], [2, [TOPIC, TOPIC]], [0]],
        [HEAD, [1, KEPT], [2, [["t", 2, [3, 4, 5]]]], [0]],
        [HEAD, [1, KEPT], [2, [["t", 2, [5, 3]]]], [0]],
        [HEAD, [1, KEPT], [2, [["t", 9, [3, 5]]]], [0]],
        [HEAD, [1, KEPT], [2, [["u", 2, [3, 5]]]], [0]],
        [HEAD, [1, KEPT], [2, [["t", 2, [1, 3]]]], [0]],
        [HEAD, [1, KEPT], [2, [["t", 2, [3, True]]]], [0]],
        [HEAD, [1, KEPT], [2, [TOPIC, ["u", 0, []], ["v", 0, []]]], [0]],
        [HEAD, [1, KEPT], [2, [TOPIC]], [3, [["", "id", b""]]], [0]],
        [HEAD, [1, KEPT], [2, [TOPIC]], [3, [["k", "id", b""]] * 2], [0]],
        [HEAD, [1, KEPT], [2, [TOPIC]], [9, []], [0]],
        [HEAD, [1, KEPT], [2, [TOPIC]], [0], [0]],
    ],
)
def test_pieces_that_do_not_fit_together_are_no_snapshot(pieces: list[object]) -> None:
    with pytest.raises(MessageInvalid):
        Store.decode(joined(*pieces))


def test_list_that_claims_to_be_long_is_refused_before_memory_is_taken_for_it() -> None:
    with pytest.raises(MessageInvalid):
        Store.decode(b"\xdd\xff\xff\xff\xff" * 100)
