"""Labels of gossip: in front of everything, or nothing counts."""

import pytest

from noti.errors import ConfigInvalid, LabelForeign
from noti.swim.core.labels import (
    LABEL_BYTES_MAX,
    label_header,
    label_header_length,
    label_of,
    without_label,
)


@pytest.mark.parametrize("label", [b"", b"a", b"blue", b"x" * LABEL_BYTES_MAX])
def test_own_label_is_taken_off(label: bytes) -> None:
    assert without_label(label_header(label) + b"message", label) == b"message"


def test_header_is_type_length_and_label() -> None:
    assert label_header(b"blue") == b"\xf4\x04blue"
    assert label_header(b"") == b""


@pytest.mark.parametrize("label", [b"", b"blue"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xf4\x03redmessage", id="another"),
        pytest.param(b"\xf4\x05bluesmessage", id="longer"),
        pytest.param(b"\xf4\x03blumessage", id="shorter"),
        pytest.param(b"\xf4\x00message", id="empty"),
        pytest.param(b"\xf4\x04blu", id="cut off"),
        pytest.param(b"\xf4", id="type only"),
    ],
)
def test_another_label_is_rejected(label: bytes, data: bytes) -> None:
    with pytest.raises(LabelForeign):
        without_label(data, label)


def test_missing_label_is_rejected_where_there_is_one() -> None:
    for data in (b"message", b""):
        with pytest.raises(LabelForeign, match="no gossip label"):
            without_label(data, b"blue")


def test_length_of_a_header_is_known_as_soon_as_it_can_be() -> None:
    assert label_header_length(b"") is None
    assert label_header_length(b"\xf4") is None
    assert label_header_length(b"\xf4\x04") == 6
    assert label_header_length(b"\x06") == 0
    with pytest.raises(LabelForeign, match="empty"):
        label_header_length(b"\xf4\x00")


def test_label_too_long_for_its_length_byte_is_rejected() -> None:
    assert len(label_of("é" * 127)) == 254
    with pytest.raises(ConfigInvalid, match="256 bytes"):
        label_of("é" * 128)
