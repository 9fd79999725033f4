"""Keys of a file follow the file."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from noti.authorization.grant import Action
from noti.authorization.key_files import key_file
from noti.authorization.keys import TrustedKeys
from noti.errors import ConfigInvalid
from tests.authorization.tokens import SECRET, private_key, private_pem


def secrets(keys: TrustedKeys) -> list[bytes]:
    return [key.key for key in keys.of(Action.PUBLISH)]


def test_keys_of_a_changed_file_are_used_at_the_second_look(tmp_path: Path) -> None:
    file, keys = tmp_path / "key", TrustedKeys()
    file.write_text(SECRET)
    renewed = key_file(file, "HS256", Action, keys)
    assert secrets(keys) == [SECRET.encode()]
    file.write_text("n" * 40)
    with capture_logs() as logs:
        renewed.look()
        assert secrets(keys) == [SECRET.encode()]
        renewed.look()
    assert secrets(keys) == [b"n" * 40]
    assert "new keys for tokens in use" in [line["event"] for line in logs]
    assert "nnnn" not in str(logs)


def test_an_unusable_file_replaces_nothing(tmp_path: Path) -> None:
    file, keys = tmp_path / "key", TrustedKeys()
    file.write_text(SECRET)
    renewed = key_file(file, "HS256", Action, keys)
    file.write_text("\n")
    with capture_logs() as logs:
        renewed.look()
        renewed.look()
    assert secrets(keys) == [SECRET.encode()]
    assert "is empty; put a key file there" in logs[0]["reason"]


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read: No such file"):
        key_file(tmp_path / "none", None, Action, TrustedKeys())
    with pytest.raises(ConfigInvalid, match="is a directory; name the key file in it"):
        key_file(tmp_path, None, Action, TrustedKeys())


def test_what_is_odd_about_a_key_is_logged(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(private_pem(private_key("ES256")))
    with capture_logs() as logs:
        key_file(file, "ES256", [Action.PUBLISH], TrustedKeys())
    assert "holds a private key" in logs[0]["event"]
