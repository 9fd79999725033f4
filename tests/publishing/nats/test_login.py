"""TLS and logins, against a real nats-server."""

import base64
import json
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trio

from noti.certificates import uses
from noti.certificates.renewal import Current
from noti.errors import ConfigInvalid, SourceUnavailable
from noti.publishing.nats.login import NatsLogin
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource
from tests import promises
from tests.certificates.authority import CLIENT, Issued, Wanted, authority, issue
from tests.publishing.nats.nats_server import nats_server
from tests.publishing.nats.test_source import running_asyncio_loop


def pair(prefix: int) -> tuple[str, str]:
    """Return seed and public key."""
    seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
    public: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return seed, public.decode()


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(issuer_seed: str, issuer: str, subject: str, name: str, claims: dict[str, Any]) -> str:
    """Return a JWT as NATS has them."""
    body = {
        "jti": name,
        "iat": int(time.time()),
        "iss": issuer,
        "name": name,
        "sub": subject,
        "nats": claims,
    }
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = ".".join(unpadded(json.dumps(part).encode()) for part in (header, body))
    signature = nkeys.from_seed(bytearray(issuer_seed.encode())).sign(text.encode())
    return f"{text}.{unpadded(signature)}"


@dataclass
class Scene:
    """A server's configuration, and files that fit it."""

    directory: Path
    login: NatsLogin
    configuration: str


def file(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def with_token(directory: Path) -> Scene:
    login = NatsLogin(token_file=file(directory, "token", "hush-token\n"))
    return Scene(directory, login, 'authorization { token: "hush-token" }')


def with_password(directory: Path) -> Scene:
    login = NatsLogin(user="u", password_file=file(directory, "password", "hush-password\n"))
    return Scene(directory, login, 'authorization { user: u, password: "hush-password" }')


def with_nkey(directory: Path) -> Scene:
    seed, public = pair(nkeys.PREFIX_BYTE_USER)
    login = NatsLogin(nkey_file=file(directory, "nkey", f"{seed}\n"))
    return Scene(directory, login, f"authorization {{ users: [ {{ nkey: {public} }} ] }}")


def with_creds(directory: Path) -> Scene:
    operator_seed, operator = pair(nkeys.PREFIX_BYTE_OPERATOR)
    account_seed, account = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user_seed, user = pair(nkeys.PREFIX_BYTE_USER)
    by_operator = (operator_seed, operator)
    operator_jwt = token(*by_operator, operator, "O", {"type": "operator", "version": 2})
    traffic = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    storage = ("mem_storage", "disk_storage", "streams", "consumer")
    every = {**dict.fromkeys(traffic + storage, -1), "wildcards": True}
    limits = {"limits": every, "type": "account", "version": 2}
    account_jwt = token(*by_operator, account, "A", limits)
    _, system = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    system_jwt = token(*by_operator, system, "SYS", {"type": "account", "version": 2})
    allowed = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    user_jwt = token(account_seed, account, user, "U", {**allowed, "type": "user", "version": 2})
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user_seed}\n------END USER NKEY SEED------\n"
    )
    login = NatsLogin(creds_file=file(directory, "user.creds", creds))
    return Scene(
        directory,
        login,
        f"operator: {operator_jwt}\nresolver: MEMORY\nsystem_account: {system}\n"
        f"resolver_preload: {{ {account}: {account_jwt}, {system}: {system_jwt} }}",
    )


async def error_of(
    scene: Scene, tls: Current[ssl.SSLContext] | None = None, login: NatsLogin | None = None
) -> str:
    """Open a session and use it; return the error of the source, or nothing."""
    configuration = file(scene.directory, "nats.conf", scene.configuration)
    async with (
        running_asyncio_loop() as asyncio_loop,
        nats_server(scene.directory / "store", "--config", str(configuration)) as server,
    ):
        settings = NatsSettings(
            (server.url,), login=scene.login if login is None else login, tls=tls
        )
        try:
            async with NatsSource(asyncio_loop, settings).open() as session:
                await session.begin(0)
                assert await session.fetch(1, 0.01) == []
        except SourceUnavailable as error:
            return str(error)
    return ""


@pytest.mark.interop
@pytest.mark.parametrize("make", [with_token, with_password, with_nkey, with_creds])
async def test_a_login_from_a_file_is_accepted_and_nobody_comes_in_without(
    tmp_path: Path, make: Callable[[Path], Scene], capfd: pytest.CaptureFixture[str]
) -> None:
    scene = make(tmp_path)
    assert await error_of(scene) == ""
    assert "Authorization" in await error_of(scene, login=NatsLogin())
    assert "hush" not in "".join(capfd.readouterr())


@pytest.mark.interop
async def test_a_login_is_read_for_each_connection(tmp_path: Path) -> None:
    scene = with_token(tmp_path)
    assert scene.login.token_file is not None
    scene.login.token_file.write_text("old")
    assert "Authorization" in await error_of(scene)
    scene.login.token_file.write_text("hush-token")
    assert await error_of(scene) == ""
    scene.login.token_file.unlink()
    assert "token cannot be read" in await error_of(scene)


class Site:
    """A NATS server with TLS, which wants a certificate of its clients."""

    def __init__(self, directory: Path, *, host: str = "127.0.0.1") -> None:
        self.directory = directory
        self.ca = authority()
        self.ca_file = file(directory, "ca.pem", self.ca.pem.decode())
        certificate, key = issue(Wanted(ips=(host,)), self.ca).write(directory, "server")
        self.scene = Scene(
            directory,
            NatsLogin(),
            f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{self.ca_file}",'
            " verify: true }",
        )

    def client(self, by: Issued | None = None) -> tuple[Path, Path]:
        return issue(Wanted(usages=(CLIENT,)), by or self.ca).write(self.directory, "client")


@pytest.mark.interop
async def test_tls_with_a_client_certificate_is_accepted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert await error_of(site.scene, uses.for_nats(site.ca_file, *site.client())) == ""


@pytest.mark.interop
async def test_tls_without_a_client_certificate_is_refused_by_the_server(tmp_path: Path) -> None:
    site = Site(tmp_path)
    reason = await error_of(site.scene, uses.for_nats(site.ca_file, None, None))
    # Whether its reason is read before our next write fails is a race that TLS 1.3 leaves open.
    assert reason.startswith("cannot connect to NATS at nats://127.0.0.1:")
    assert (
        "wants a certificate and got none" in reason or "Broken pipe" in reason or "reset" in reason
    )


@pytest.mark.interop
async def test_a_server_of_another_ca_or_name_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path)
    other = file(tmp_path, "other.pem", authority("other").pem.decode())
    assert "CA that is not in our CA file" in await error_of(
        site.scene, uses.for_nats(other, *site.client())
    )
    elsewhere = Site(tmp_path, host="127.0.0.2")
    assert "IP address mismatch" in await error_of(
        elsewhere.scene, uses.for_nats(elsewhere.ca_file, *elsewhere.client())
    )


@promises.ONLY_CERTIFIED_PEERS
async def test_nothing_is_sent_to_a_server_that_offers_no_tls(tmp_path: Path) -> None:
    received = b""

    async def without_tls(stream: trio.SocketStream) -> None:
        nonlocal received
        info = {"server_id": "x", "version": "2.10.0", "max_payload": 1, "auth_required": True}
        async with stream:
            await stream.send_all(b"INFO " + json.dumps(info).encode() + b"\r\n")
            async for part in stream:
                received += part

    errors: list[str] = []
    site, scene = Site(tmp_path), with_token(tmp_path)
    async with running_asyncio_loop() as asyncio_loop, trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, without_tls, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        for scheme, tls in (("nats", uses.for_nats(site.ca_file, None, None)), ("tls", None)):
            urls = (f"{scheme}://127.0.0.1:{port}",)
            source = NatsSource(asyncio_loop, NatsSettings(urls, login=scene.login, tls=tls))
            try:
                async with source.open():
                    pass
            except SourceUnavailable as error:
                errors.append(str(error))
        nursery.cancel_scope.cancel()
    assert len(errors) == 2
    assert all("offers no TLS" in text for text in errors)
    assert received == b""


@pytest.mark.parametrize(
    ("setting", "content", "problem"),
    [
        ("token_file", "", "is empty"),
        ("token_file", "a\nb", "has several lines"),
        ("nkey_file", "not-a-seed", "holds no seed of a user's nkey"),
        ("nkey_file", pair(nkeys.PREFIX_BYTE_ACCOUNT)[0], "holds no seed of a user's nkey"),
        ("creds_file", "hush", "holds no user's JWT"),
        ("creds_file", "-----BEGIN NATS USER JWT-----\nx\n", "holds no user's seed"),
    ],
)
def test_a_file_that_is_no_login_is_refused_with_its_name(
    tmp_path: Path, setting: str, content: str, problem: str
) -> None:
    path = file(tmp_path, "login", content)
    with pytest.raises(ConfigInvalid) as caught:
        NatsLogin(**{setting: path}).options()  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{path} {problem}")
    assert "hush" not in str(caught.value)
