"""Files that are renewed while a node runs."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.certificates import uses
from noti.certificates.context import MutualContexts
from noti.certificates.renewal import LOOK_INTERVAL_S, Made, Renewed, keep_renewed
from noti.errors import ConfigInvalid
from tests import promises
from tests.certificates.authority import Issued, Wanted, authority, issue, node
from tests.certificates.handshake import shake_hands


class Files:
    """The files of node `a`, written by its operator."""

    def __init__(self, directory: Path) -> None:
        self.authority = authority()
        self.directory = directory
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self.authority.pem)
        self.certificate, self.key = self.write(node("a", self.authority))

    def write(self, issued: Issued) -> tuple[Path, Path]:
        return issued.write(self.directory, "a")

    def renewed(self) -> Renewed[MutualContexts]:
        return uses.for_nodes(self.certificate, self.key, self.ca, "a")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shown(contexts: MutualContexts) -> bytes | None:
    """Return the certificate that a node shows to its caller."""
    outcome = shake_hands(contexts.server, contexts.client)
    assert outcome.succeeded
    return outcome.client_object.getpeercert(binary_form=True)


def look_twice(renewed: Renewed[Any]) -> list[Any]:
    with capture_logs() as logs:
        renewed.look()
        renewed.look()
    return [line for line in logs if line["log_level"] != "warning"]


def test_a_new_certificate_is_used_at_the_second_look(files: Files) -> None:
    renewed = files.renewed()
    before = renewed.current
    fresh = node("a", files.authority)
    files.write(fresh)
    renewed.look()
    assert renewed.current is before, "it may be half written"
    [line] = look_twice(renewed)
    assert line["event"] == "new TLS files in use"
    assert shown(renewed.current) == fresh.der
    assert look_twice(renewed) == []


def test_files_that_change_at_every_look_are_awaited(files: Files) -> None:
    renewed = files.renewed()
    before = renewed.current
    for _ in range(3):
        files.write(node("a", files.authority))
        renewed.look()
        assert renewed.current is before


def test_files_behind_a_symlink_that_moves_are_found(tmp_path: Path) -> None:
    # As Kubernetes does it: a.pem -> ..data/a.pem, ..data -> ..2026_11_25, moved in one step.
    first, second = tmp_path / "first", tmp_path / "second"
    ca = authority()
    for directory in (first, second):
        directory.mkdir()
        node("a", ca).write(directory, "a")
        (directory / "ca.pem").write_bytes(ca.pem)
    data = tmp_path / "data"
    data.symlink_to(first)
    renewed = uses.for_nodes(data / "a.pem", data / "a.key", data / "ca.pem", "a")
    before = shown(renewed.current)
    (tmp_path / "next").symlink_to(second)
    (tmp_path / "next").replace(data)
    look_twice(renewed)
    assert shown(renewed.current) != before


@promises.CERTIFICATES_REPLACED_UNDER_LOAD
@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Wanted(dns=("b",)), "is for node b, but this node is named 'a'"),
        (Wanted(dns=("a",), ends=timedelta(hours=-1)), "expired on"),
        (Wanted(), "names no node"),
    ],
)
def test_bad_new_files_are_rejected_once_and_the_old_ones_stay(
    files: Files, wanted: Wanted, reason: str
) -> None:
    renewed = files.renewed()
    before = renewed.current
    files.write(issue(wanted, files.authority))
    [line] = look_twice(renewed)
    assert line["event"] == "new TLS files rejected, the old ones stay in use"
    assert reason in line["reason"]
    assert renewed.current is before
    assert look_twice(renewed) == []
    fresh = node("a", files.authority)
    files.write(fresh)
    look_twice(renewed)
    assert shown(renewed.current) == fresh.der


def test_a_key_without_its_certificate_and_a_missing_file_are_rejected(files: Files) -> None:
    renewed = files.renewed()
    before = renewed.current
    files.key.write_bytes(node("a", files.authority).key_pem)
    [line] = look_twice(renewed)
    assert "is not the key of the certificate" in line["reason"]
    files.certificate.unlink()
    [line] = look_twice(renewed)
    assert str(files.certificate) in line["reason"]
    assert renewed.current is before


def test_a_ca_is_rotated_through_a_bundle_of_both(files: Files) -> None:
    old, new = files.renewed(), authority("new CA")
    of_old = old.current
    files.ca.write_bytes(files.authority.pem + new.pem)
    look_twice(old)
    of_both = old.current
    files.write(node("a", new))
    look_twice(old)
    with_new = old.current
    files.ca.write_bytes(new.pem)
    look_twice(old)
    of_new = old.current
    assert shake_hands(of_old.server, of_both.client).succeeded
    assert shake_hands(of_both.server, with_new.client).succeeded
    assert shake_hands(of_new.server, with_new.client).succeeded
    assert not shake_hands(of_new.server, of_old.client).succeeded


def test_the_end_of_each_file_is_a_metric(files: Files) -> None:
    def told(file: Path) -> float | None:
        name = "noti_tls_certificate_expiry_seconds"
        return REGISTRY.get_sample_value(name, {"use": "rpc", "file": str(file)})

    files.write(issue(Wanted(dns=("a",), ends=timedelta(days=30)), files.authority))
    renewed = files.renewed()
    first = told(files.certificate)
    assert first is not None
    assert told(files.ca) is not None
    files.write(issue(Wanted(dns=("a",), ends=timedelta(days=10)), files.authority))
    look_twice(renewed)
    second = told(files.certificate)
    assert second is not None
    assert first - second == pytest.approx(20 * 86_400, abs=60)


def test_the_end_is_announced_once_a_day_for_30_days() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    file = Path("a.pem")
    end = now + timedelta(days=31)
    renewed = Renewed("rpc", (), lambda: Made(1, {file: end}), now=lambda: now)
    told = []
    for hour in range(24 * 3):
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        with capture_logs() as logs:
            renewed.look()
        told += [(hour, line["event"]) for line in logs]
    assert [hour for hour, _ in told] == [24, 48]
    assert told[0][1].startswith("certificate expires in 30 days")


def test_what_was_rejected_for_its_time_is_tried_again(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    file = tmp_path / "a.pem"
    file.write_text("1")
    valid_from = now

    def make() -> Made[str]:
        if now < valid_from:
            raise ConfigInvalid("is not valid yet")
        return Made(file.read_text(), {})

    renewed = Renewed("rpc", (file,), make, now=lambda: now)
    valid_from = now + timedelta(minutes=2)
    file.write_text("22")
    assert len(look_twice(renewed)) == 1
    for _ in range(2):
        now += timedelta(seconds=61)
        look_twice(renewed)
    assert renewed.current == "22"


def test_bad_files_at_the_start_are_one_line(files: Files) -> None:
    files.key.write_text("")
    with pytest.raises(ConfigInvalid, match=r"a\.key is empty"):
        files.renewed()


def test_browsers_and_nats_have_their_own_files(files: Files) -> None:
    browsers = uses.for_browsers(files.certificate, files.key)
    nats = uses.for_nats(files.ca, files.certificate, files.key)
    assert shake_hands(browsers.current, nats.current, "a").succeeded
    assert uses.for_nats(files.ca, None, None).current.verify_mode is ssl.CERT_REQUIRED


async def test_files_are_looked_at_within_seconds(files: Files, autojump_clock: object) -> None:
    renewed = files.renewed()
    fresh = node("a", files.authority)
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_renewed, [renewed])
        files.write(fresh)
        await trio.sleep(3 * LOOK_INTERVAL_S)
        nursery.cancel_scope.cancel()
    assert 3 * LOOK_INTERVAL_S < 10
    assert shown(renewed.current) == fresh.der


def test_files_are_read_again_at_once_when_somebody_says_so(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("1")
    renewed = Renewed("test", [file], lambda: Made(file.read_text(), {}))
    file.write_text("2")
    renewed.renew()
    assert renewed.current == "2"
    assert not look_twice(renewed)
