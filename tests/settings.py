"""What tests of settings stand on."""

import os
from pathlib import Path

import pytest

from noti.cli.loading import load
from noti.errors import ConfigInvalid


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("NOTI_", "MERCURE_"))]:
        monkeypatch.delenv(name)


def problem(flags: dict[str, object], file: Path | None = None) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load(flags, file)
    text = str(caught.value)
    assert "\n" not in text
    return text
