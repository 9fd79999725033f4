"""The Kubernetes API over HTTP: lightkube finds the way to it, `noti.client.http` asks.

It retries nothing, raises our errors only, and shows no token in a message. lightkube's own client
is not used: it asks for no bookmarks, and hides the end of a watch behind an immediate new one.
"""

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import trio
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError
from yaml import YAMLError

from noti.client.http import HttpResponse, open_response
from noti.errors import (
    ConfigInvalid,
    KubernetesFailed,
    KubernetesForbidden,
    LocalError,
    MessageInvalid,
    PeerUnavailable,
)
from noti.kubernetes.api import Listing, Resource, Selection, WatchEvent
from noti.kubernetes.decoding import (
    decode_change,
    decode_listing,
    decode_object,
    explanation,
    failure,
)
from noti.kubernetes.objects import Object

REQUEST_S_MAX: Final = 5.0
"""For each of connecting, the head of the answer, and more of its body; less than the time in which
the holder of a lease must renew it."""

WATCH_S: Final = 290
"""After this the server ends a watch, so that none is dead for long unnoticed."""

WATCH_SILENCE_S_MAX: Final = WATCH_S + 10.0
"""A connection that is silent for longer is dead: the server would have ended the watch."""

LINE_BYTES_MAX: Final = 4 << 20
"""Of one change; etcd takes objects of 1.5 MiB."""

ANSWER_BYTES_MAX: Final = 64 << 20
"""Of a list: ten thousand pods of 6 KiB."""


@dataclass(frozen=True, slots=True)
class _Access:
    server: str
    """Its URL, which may have a path."""
    tls: ssl.SSLContext
    user: User

    def headers(self) -> list[tuple[str, str]]:
        """Say who we are; raises `KubernetesForbidden` when the token's file cannot be read."""
        user, proof = self.user, ""
        if user.token_file is not None:
            try:
                # For each request: the kubelet puts a new one there before the old one expires.
                proof = f"Bearer {Path(user.token_file).read_text().strip()}"
            except (OSError, ValueError) as error:
                raise KubernetesForbidden(f"no token ({error})") from error
        elif user.token is not None:
            proof = f"Bearer {user.token}"
        elif user.username and user.password:
            proof = f"Basic {b64encode(f'{user.username}:{user.password}'.encode()).decode()}"
        return [("Authorization", proof)] if proof else []


class KubernetesClient:
    """`noti.kubernetes.api.KubernetesApi` of a real cluster."""

    def __init__(self, access: _Access) -> None:
        """Made by `open_client`."""
        self._access = access

    async def list(self, selection: Selection) -> Listing:
        """Return all objects that are selected."""
        path = selection.resource.path(selection.namespace)
        content = await self._ask("GET", path, parameters=_parameters(selection))
        return decode_listing(content, f"GET {path}")

    @asynccontextmanager
    async def watch(
        self, selection: Selection, version: str
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Watch all changes after `version`."""
        path = selection.resource.path(selection.namespace)
        parameters = {
            **_parameters(selection),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        opened = self._opened("GET", path, parameters, silence_s=WATCH_SILENCE_S_MAX)
        async with opened as response, aclosing(_changes(response, f"GET {path}")) as changes:
            yield changes

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return one object."""
        return await self._object("GET", resource.path(namespace, name))

    async def create(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        """Make an object."""
        return await self._object("POST", resource.path(namespace), wanted)

    async def replace(
        self, resource: Resource, namespace: str, name: str, wanted: Object
    ) -> Object:
        """Put an object in the place of the version that it was made from."""
        return await self._object("PUT", resource.path(namespace, name), wanted)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Object, *, subresource: str = ""
    ) -> Object:
        """Change what `patch` has."""
        path = resource.path(namespace, name, subresource)
        return await self._object("PATCH", path, patch, media="application/merge-patch+json")

    async def _object(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        media: str = "application/json",
    ) -> Object:
        return decode_object(await self._ask(method, path, body, media=media), f"{method} {path}")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        parameters: dict[str, str] | None = None,
        media: str = "application/json",
    ) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        async with self._opened(method, path, parameters, content, media) as response:
            with _our_errors(f"{method} {path}"):
                return await response.read(ANSWER_BYTES_MAX)

    @asynccontextmanager
    async def _opened(
        self,
        method: str,
        path: str,
        parameters: dict[str, str] | None,
        content: bytes = b"",
        media: str = "application/json",
        *,
        silence_s: float = REQUEST_S_MAX,
    ) -> AsyncIterator[HttpResponse]:
        what = f"{method} {path}"
        query = f"?{urlencode(parameters)}" if parameters else ""
        # The body of a `with` of ours has errors of its own: only the beginning is translated.
        async with AsyncExitStack() as stack:
            with _our_errors(what):
                headers = self._access.headers()
                if content:
                    headers.append(("Content-Type", media))
                opening = open_response(
                    f"{self._access.server.rstrip('/')}{path}{query}",
                    self._access.tls,
                    method=method,
                    headers=headers,
                    content=content,
                    head_s=REQUEST_S_MAX,
                    silence_s=silence_s,
                )
                response = await stack.enter_async_context(opening)
                if response.status >= 400:
                    body = await response.read(ANSWER_BYTES_MAX)
                    problem = f"{what}: {response.status} {explanation(body, response.reason)}"
                    retry_after = response.headers.get("retry-after", "")
                    raise failure(response.status, problem, retry_after)
            yield response


def open_client(service_account: Path = Path(SERVICE_ACCOUNT)) -> KubernetesClient:
    """Return a client as the service account of this pod, or as `KUBECONFIG` or ~/.kube/config say.

    Raises `ConfigInvalid` when there is neither, or it cannot be used.
    """
    try:
        config = KubeConfig.from_env(str(service_account)).get()
        if config is None or config.user is None:
            raise ConfigInvalid("the kubeconfig's context names no user: add one with a token")
        user = config.user
        if user.exec is not None or user.auth_provider:
            origin = "an auth-provider" if user.exec is None else "a command"
            raise ConfigInvalid(
                f"the kubeconfig's user gets its token from {origin}, which is not supported:"
                " make one with a token, for example by kubectl create token"
            )
        tls = verify_cluster(config.cluster, user, config.abs_file, trust_env=False)
        return KubernetesClient(_Access(config.cluster.server, tls, user))
    except (
        ConfigError,
        YAMLError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise ConfigInvalid(
            f"no way to the Kubernetes API ({type(error).__name__}: {error}): run in a pod with a"
            " service account, or set KUBECONFIG"
        ) from None


def _parameters(selection: Selection) -> dict[str, str]:
    parameters = {"labelSelector": selection.labels, "fieldSelector": selection.fields}
    return {key: value for key, value in parameters.items() if value}


@contextmanager
def _our_errors(what: str) -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError:
        raise KubernetesFailed(f"{what}: no answer in time") from None
    except (PeerUnavailable, MessageInvalid, LocalError) as error:
        raise KubernetesFailed(f"{what}: {error}") from error


async def _changes(response: HttpResponse, what: str) -> AsyncGenerator[WatchEvent, None]:
    """Yield the changes of a watch: JSON, one a line."""
    waiting = bytearray()
    while True:
        with _our_errors(what):
            chunk = await response.read_some()
        if not chunk:
            return
        waiting += chunk
        *lines, waiting = waiting.split(b"\n")
        if len(waiting) > LINE_BYTES_MAX:
            raise KubernetesFailed(f"{what}: a change of more than {LINE_BYTES_MAX} bytes")
        for line in filter(None, lines):
            yield decode_change(line, what)
