"""How long commands wait: what is no time is refused."""

import pytest

from noti.cli import exit_status


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "soon"])
def test_what_is_no_time_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["status", f"--timeout={seconds}"]) == 2
    assert capsys.readouterr().err.startswith("noti: error: Invalid value for '--timeout'")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tail", "http://[::1"],
        ["status", "--url=http://[::1"],
        ["publish", "--url=http://127.0.0.1:99999", "--topic=a", "--data=b"],
    ],
)
def test_what_is_no_url_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "write http://HOST:PORT" in line
    assert "internal error" not in line
