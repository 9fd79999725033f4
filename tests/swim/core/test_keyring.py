"""The key ring: the first key encrypts, all decrypt, and there is always one."""

import pytest

from noti.errors import ConfigInvalid, KeyRejected
from noti.swim.core.keyring import KEYS_MAX, KeyRing, format_key, parse_key

OLD, NEW = b"o" * 16, b"n" * 32


def test_first_key_encrypts_and_all_are_tried_in_order() -> None:
    ring = KeyRing([OLD, NEW])
    assert (ring.primary, ring.keys) == (OLD, (OLD, NEW))


def test_installed_key_is_last_and_installing_it_again_changes_nothing() -> None:
    ring = KeyRing([OLD])
    ring.add(NEW)
    ring.add(OLD)
    assert ring.keys == (OLD, NEW)


def test_used_key_comes_first_and_the_others_stay() -> None:
    ring = KeyRing([OLD, NEW])
    ring.use(NEW)
    assert ring.keys == (NEW, OLD)


def test_key_that_is_not_installed_cannot_be_used() -> None:
    ring = KeyRing([OLD])
    with pytest.raises(KeyRejected, match="install it first"):
        ring.use(NEW)
    assert ring.keys == (OLD,)


def test_primary_key_cannot_be_removed() -> None:
    ring = KeyRing([OLD, NEW])
    with pytest.raises(KeyRejected, match="use another one first"):
        ring.remove(OLD)
    ring.remove(NEW)
    ring.remove(NEW)
    assert ring.keys == (OLD,)


@pytest.mark.parametrize("length", [0, 15, 17, 31, 33, 64])
def test_key_of_another_length_is_rejected_and_changes_nothing(length: int) -> None:
    with pytest.raises(ConfigInvalid, match=f"has {length} bytes"):
        KeyRing([b"x" * length])
    ring = KeyRing([OLD])
    with pytest.raises(KeyRejected, match="must have 16, 24 or 32"):
        ring.add(b"x" * length)
    assert ring.keys == (OLD,)


def test_ring_is_never_empty_and_never_without_bound() -> None:
    with pytest.raises(ConfigInvalid, match="0 gossip keys"):
        KeyRing([])
    ring = KeyRing([bytes([number]) * 16 for number in range(KEYS_MAX)])
    with pytest.raises(KeyRejected, match=f"from 1 to {KEYS_MAX}"):
        ring.add(NEW)


def test_key_is_read_from_base64_and_written_as_it_was() -> None:
    text = "HvY8ubRZMgafUOWvrOadwOckVa1wN3QWAo46FVKbVN8="
    assert format_key(parse_key(f" {text}\n")) == text


@pytest.mark.parametrize("text", ["", "geheim", "HvY8ubRZMgafUOWvrOadwA=", "ä" * 22])
def test_text_that_is_no_key_is_rejected_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="noti keys new") as caught:
        parse_key(text)
    assert not text or text not in str(caught.value)


def test_each_change_is_told_and_nothing_else() -> None:
    told: list[tuple[bytes, ...]] = []
    ring = KeyRing([OLD], lambda: told.append(ring.keys))
    ring.add(OLD)
    ring.use(OLD)
    ring.remove(NEW)
    assert not told
    ring.add(NEW)
    ring.use(NEW)
    ring.remove(OLD)
    ring.replace([OLD])
    assert told == [(OLD, NEW), (NEW, OLD), (NEW,), (OLD,)]
