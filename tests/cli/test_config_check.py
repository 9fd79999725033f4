"""`noti config check` tells all that a node would refuse, and starts and writes nothing."""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from noti.cli import exit_status
from noti.cli.config_check import exposures_of, findings_of, is_in_use
from noti.cli.loading import checked, given_settings, load
from noti.raft.storage.disk import LOCK_NAME
from noti.swim.core.keyring import format_key
from tests.authorization.tokens import private_key, public_pem
from tests.certificates.authority import authority, node
from tests.settings import clean_environment as clean_environment


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Flags of a node with addresses that nobody has."""
    addresses = ("http_addr", "gossip_addr", "rpc_addr", "ops_addr")
    return [
        *("--name", "n", "--data-dir", str(tmp_path / "data")),
        *(f"--{name.replace('_', '-')}=127.0.0.1:0" for name in addresses),
    ]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def check(
    flags: Sequence[str], capsys: pytest.CaptureFixture[str], *, status: int = 2
) -> list[str]:
    assert exit_status(["config", "check", *flags]) == status
    return capsys.readouterr().err.splitlines()


def texts(**settings: object) -> list[str]:
    return [one.text for one in findings_of(load({"name": "n", **settings}))]


def test_settings_of_a_node_that_can_run_are_right_and_nothing_is_made(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not check(flags, capsys, status=0)
    assert not list(tmp_path.iterdir())


def test_all_problems_are_told_not_only_the_first(
    flags: list[str],
    taken: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text("histori = 1\nhistory_size = 0\nsse_stall_s = 'long'\n")
    monkeypatch.setenv("NOTI_SSE", "1")
    more = ["--config", str(file), "--revoked-file", "/missing", f"--http-addr=127.0.0.1:{taken}"]
    lines = check([*flags, *more], capsys)
    for told in (
        "unknown setting 'histori' in file",
        "unknown environment variable NOTI_SSE",
        "setting history_size (from file",
        "setting sse_stall_s (from file",
        "setting revoked_file: /missing cannot be read",
        f"setting http_addr: 127.0.0.1:{taken} (TCP) cannot be used: Address already in use",
    ):
        assert [line for line in lines if line.startswith(f"noti: error: {told}")], told
    assert len(lines) == 6


def test_all_settings_that_do_not_go_together_are_told(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--tls-cert", "/c", "--nats-user", "u", "--election-timeout-ms", "100"]
    lines = check([*flags, *more], capsys)
    wrong = ("election_timeout_ms", "tls_key", "tls_ca", "nats_password_file", "nats_user")
    assert [line.split()[3] for line in lines] == list(wrong)


def test_each_wrong_element_and_table_is_told_and_what_does_not_go_together_beside_it(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text(
        'join = ["a", "b:1", "c"]\nhttp_tls_cert = 3\nhttp_tls_key = "/k"\ntls_cert = "/c"\n'
        '[[nats_streams]]\nname = "x y"\nfoo = 3\n[[nats_streams]]\nsubjects = []\n'
    )
    lines = check([*flags, "--config", str(file)], capsys)
    for told in (
        "join (from file ???): 'a' is",
        "join (from file ???): 'c' is",
        "http_tls_cert (from",
        "nats_streams 1 (x y) name",
        "nats_streams 1 (x y) subjects",
        "nats_streams 1 (x y) foo",
        "nats_streams 2 name",
        "tls_key (from default): it is not given beside tls_cert",
        "tls_ca (from default): it is not given beside tls_cert",
    ):
        begin = f"noti: error: setting {told}".replace("???", str(file))
        assert [line for line in lines if line.startswith(begin)], told
    assert len(lines) == 9


def test_each_setting_that_is_given_beside_what_it_excludes_is_told() -> None:
    flags = {
        "nats_nkey_file": "/n",
        "nats_token_file": "/t",
        "nats_creds_file": "/c",
        "nats_tls_ca": "/a",
        "nats_stream": "s",
        "nats_topic": "t",
        "nats_streams": ({"name": "s", "subjects": ({"subject": "a", "decoder": "text"},)},),
    }
    _, problems = checked(given_settings({"name": "n", **flags}, None))
    told = [(setting, text.rpartition("): ")[2].split(";")[0]) for setting, text in problems]
    assert [setting for setting, text in told if "beside nats_creds_file" in text] == [
        "nats_nkey_file",
        "nats_token_file",
    ]
    assert [setting for setting, text in told if "without nats_url" in text] == [
        "nats_creds_file",
        "nats_nkey_file",
        "nats_token_file",
        "nats_tls_ca",
        "nats_streams",
    ]
    assert [setting for setting, text in told if "beside [[nats_streams]]" in text] == [
        "nats_stream",
        "nats_topic",
    ]


def test_file_of_settings_that_cannot_be_read_is_a_problem_beside_others(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = check([*flags, "--config", "/missing.toml", "--history-size", "0"], capsys)
    assert ["/missing.toml cannot be read" in line for line in lines] == [True, False]


def test_what_is_found_is_also_told_as_json(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["config", "check", *flags, "--revoked-file", "/missing", "--json"]) == 2
    [one] = json.loads(capsys.readouterr().out)
    assert (one["setting"], one["problem"]) == ("revoked_file", True)


def test_certificates_are_checked_as_a_node_reads_them(tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    issued = node("other", ca)
    (tmp_path / "n.pem").write_bytes(issued.pem)
    (tmp_path / "n.key").write_bytes(issued.key_pem)
    (tmp_path / "n.key").chmod(0o600)
    files = {"tls_cert": "n.pem", "tls_key": "n.key", "tls_ca": "ca.pem"}
    [told] = texts(
        **{setting: str(tmp_path / name) for setting, name in files.items()},
        **dict.fromkeys(("http_addr", "gossip_addr", "rpc_addr", "ops_addr"), "127.0.0.1:0"),
        data_dir=str(tmp_path / "data"),
    )
    assert told.startswith("setting tls_cert: ")
    assert "this node is named 'n'" in told


@pytest.mark.parametrize("prefix", ["tls", "http_tls", "nats_tls"])
def test_each_file_of_tls_that_is_wrong_is_told_once(
    prefix: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"cert": "/missing", "key": str(tmp_path / "key")}
    if prefix != "http_tls":
        files["ca"] = str(tmp_path)
    (tmp_path / "key").write_text("no key")
    (tmp_path / "key").chmod(0o600)
    named = [f"--{prefix.replace('_', '-')}-{what}={file}" for what, file in sorted(files.items())]
    lines = check([*flags, *named, "--nats-url=nats://127.0.0.1"], capsys)
    assert sorted(line.split()[3] for line in lines) == sorted(f"{prefix}_{x}:" for x in files)


def test_key_of_another_certificate_is_told_beside_a_wrong_ca(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = node("n", authority()).write(tmp_path, "n")
    _, other = node("n", authority()).write(tmp_path, "other")
    named = [f"--tls-cert={certificate}", f"--tls-key={other}", f"--tls-ca={key}"]
    pair, ca = check([*flags, *named], capsys)
    assert f"setting tls_cert: {other} is not the key of the certificate {certificate}" in pair
    assert f"setting tls_ca: {key} holds no certificate" in ca


def test_secrets_that_everybody_can_read_are_warned_of_and_public_keys_are_not(
    tmp_path: Path,
) -> None:
    gossip, secret, public = tmp_path / "gossip", tmp_path / "secret", tmp_path / "public"
    gossip.write_text(format_key(b"k" * 32))
    secret.write_text("s" * 32)
    public.write_bytes(public_pem(private_key("ES256")))
    named = {
        "gossip_key_file": str(gossip),
        "publisher_jwt_key_file": str(secret),
        "subscriber_jwt_key_file": str(public),
    }
    for mode, exposed in ((0o644, ["gossip_key_file", "publisher_jwt_key_file"]), (0o640, [])):
        for path in (gossip, secret, public):
            path.chmod(mode)
        found = list(exposures_of(load({"name": "n", **named})))
        assert [one.setting for one in found] == exposed
        assert not any(one.is_problem for one in found)


def test_directory_of_another_node_or_user_or_of_none_is_told(tmp_path: Path) -> None:
    where = dict.fromkeys(("http_addr", "gossip_addr", "rpc_addr", "ops_addr"), "127.0.0.1:0")
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "identity").write_text(json.dumps({"name": "other", "node_id": "ab"}))
    [told] = texts(data_dir=str(directory), **where)
    assert "belongs to node 'other', but this node is named 'n'" in told
    (directory / "identity").write_text("{")
    [told] = texts(data_dir=str(directory), **where)
    assert str(directory / "identity") in told
    file = tmp_path / "file"
    file.write_text("")
    [told] = texts(data_dir=str(file / "data"), **where)
    assert f"{file} is no directory" in told


def test_root_is_told_to_check_as_the_user_whose_directory_it_is(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    else:
        os.chown(data, 54321, 54321)
    [line] = check(flags, capsys, status=0)
    assert line.startswith(f"noti: warning: setting data_dir: {data} belongs to user ")
    assert "check as that user" in line


def test_directory_where_nobody_may_write_is_told(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    [line] = check([*flags, "--data-dir", "/data-of-this-test"], capsys)
    assert "setting data_dir: / belongs to user root, and " in line


def test_addresses_that_the_node_itself_has_are_no_trouble(
    flags: list[str], taken: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*flags, f"--http-addr=127.0.0.1:{taken}"]
    check(more, capsys)
    data = tmp_path / "data"
    data.mkdir()
    lock = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    assert not is_in_use(data)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert is_in_use(data)
        check(more, capsys, status=0)
    finally:
        os.close(lock)


def test_address_that_is_none_of_this_machine_is_told(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    [_open, line] = check([*flags, "--ops-addr=192.0.2.1:1"], capsys)
    assert "setting ops_addr: 192.0.2.1:1 (TCP) cannot be used: " in line


def test_nats_is_asked_only_with_the_flag(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*flags, "--nats-url", "nats://127.0.0.1:1"]
    check(more, capsys, status=0)
    [line] = check([*more, "--nats"], capsys)
    assert "setting nats_url: NATS at nats://127.0.0.1:1 cannot be used" in line


@pytest.mark.parametrize("written", [":0", "0.0.0.0:0", "[::]:0", "10.0.0.1:8403"])
def test_address_of_operators_that_others_reach_is_warned_of(written: str) -> None:
    [found] = exposures_of(load({"name": "n", "ops_addr": written}))
    assert found.setting == "ops_addr"
    assert not found.is_problem
    assert f"setting ops_addr: {written} shows status" in found.text


@pytest.mark.parametrize("written", ["127.0.0.1:8403", "[::1]:8403", "localhost:8403"])
def test_address_of_operators_that_only_this_machine_reaches_is_not(written: str) -> None:
    assert not list(exposures_of(load({"name": "n", "ops_addr": written})))


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_is_no_file_is_told_to_be_none_and_not_to_be_made_private(
    path: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = check([*flags, "--gossip-key-file", path], capsys)
    assert line.startswith(f"noti: error: setting gossip_key_file: {path} is ")


def test_tracing_without_its_library_is_told_with_what_installs_it(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "noti.tracing.open_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    [line] = check([*flags, "--tracing"], capsys)
    assert line.startswith("noti: error: setting tracing: --tracing needs OpenTelemetry")
    assert line.endswith("pip install 'noti[otel]'")


@pytest.mark.parametrize("before", [["--bootstrap"], []])
def test_flags_of_bb_dist_noti_are_explained_as_at_run(
    before: list[str], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    after = [] if before else ["--bootstrap"]
    assert exit_status(["config", *before, "check", *flags, *after]) == 2
    assert (
        "--bootstrap is of bb-dist-noti; here, give --bootstrap-expect" in capsys.readouterr().err
    )


def test_flags_of_bb_dist_noti_that_mean_the_same_are_checked(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = check([*flags, "--nats-addr", "http://a"], capsys)
    assert "setting nats_url (from flag --nats-url)" in line


def test_directory_that_nobody_could_make_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in (
        ("link", "is a link to nothing"),
        ("loop", "is a link to nothing"),
        ("a" * 300, "has a name that is too long"),
    ):
        path = tmp_path / name
        assert f"setting data_dir: {path} {reason}; name another" in texts(data_dir=str(path))


def test_directory_below_one_that_is_shut_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut, real = tmp_path / "shut", os.stat
    shut.mkdir()

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{shut}/"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != shut)
    told = [text for text in texts(data_dir=str(shut / "data")) if "data_dir" in text]
    assert len(told) == 1
    assert f"setting data_dir: {shut} belongs to user" in told[0]
