"""The Kubernetes API over HTTPS: lightkube's configuration, TLS and tokens, on Trio.

Enters: requests of the port. Leaves: objects as JSON, and our errors. Never: a retry; an exception
of httpx2 or lightkube; a token in a message.

lightkube finds the service account or the kubeconfig, verifies the server, and reads a rotated
token again. Its own client is not used for requests: it asks for no bookmarks, and hides the end of
a watch behind an immediate new one.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final

import httpx2
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

from noti.errors import (
    ConfigInvalid,
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
    VersionGone,
)
from noti.kubernetes.api import Change, Kind, Listing, Selection
from noti.kubernetes.objects import Object

REQUEST_S_MAX: Final = 5.0
"""For each of connecting, sending, and waiting for bytes; less than the time in which the holder of
a lease must renew it."""

WATCH_S: Final = 290
"""After this the server ends a watch, so that none is dead for long without anybody's notice."""

WATCH_SILENCE_S_MAX: Final = WATCH_S + 10.0
"""A connection that is silent for longer is dead: the server would have ended the watch."""

LINE_BYTES_MAX: Final = 4 << 20
"""Of one change; etcd takes objects of 1.5 MiB."""

_KINDS: Final[dict[int, type[KubernetesFailed]]] = {
    401: KubernetesForbidden,
    403: KubernetesForbidden,
    404: ObjectAbsent,
    409: ObjectConflict,
    410: VersionGone,
}


class KubernetesClient:
    """`noti.kubernetes.api.KubernetesApi` of a real cluster."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        """Speak through `http`, which knows server and credentials."""
        self._http = http

    async def list(self, selection: Selection) -> Listing:
        """Return all objects that are selected."""
        path = selection.kind.path(selection.namespace)
        listing = await self._ask("GET", path, params=_parameters(selection))
        return Listing(tuple(listing.get("items") or ()), listing["metadata"]["resourceVersion"])

    @asynccontextmanager
    async def watch(
        self, selection: Selection, version: str
    ) -> AsyncIterator[AsyncIterator[Change]]:
        """Follow all changes after `version`."""
        path = selection.kind.path(selection.namespace)
        parameters = {
            **_parameters(selection),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = httpx2.Timeout(REQUEST_S_MAX, read=WATCH_SILENCE_S_MAX)
        request = self._http.build_request("GET", path, params=parameters, timeout=timeout)
        with _our_errors(f"watch {path}"):
            response = await self._http.send(request, stream=True)
            if response.is_error:
                await response.aread()
        _check(response, f"watch {path}")
        chunks = response.aiter_bytes()
        try:
            async with aclosing(_changes(chunks, f"watch {path}")) as changes:
                yield changes
        finally:
            try:
                await response.aclose()
            finally:
                # Generators within httpx2 end by an error now; otherwise they would be left to the
                # garbage collector, and to a task outside of our tree.
                with suppress(httpx2.HTTPError, httpx2.StreamError):
                    await anext(chunks, None)

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return one object."""
        return await self._ask("GET", kind.path(namespace, name))

    async def create(self, kind: Kind, namespace: str, wanted: Object) -> Object:
        """Make an object."""
        return await self._ask("POST", kind.path(namespace), body=wanted)

    async def replace(self, kind: Kind, namespace: str, name: str, wanted: Object) -> Object:
        """Put an object in the place of the version that it was made from."""
        return await self._ask("PUT", kind.path(namespace, name), body=wanted)

    async def merge_patch(
        self, kind: Kind, namespace: str, name: str, patch: Object, *, subresource: str = ""
    ) -> Object:
        """Change what `patch` has."""
        path = kind.path(namespace, name, subresource)
        return await self._ask("PATCH", path, body=patch, media="application/merge-patch+json")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
    ) -> Object:
        what = f"{method} {path}"
        headers = {} if body is None else {"Content-Type": media}
        content = None if body is None else json.dumps(body).encode()
        with _our_errors(what):
            response = await self._http.request(
                method, path, params=params, content=content, headers=headers
            )
        _check(response, what)
        return _object(response.content, what)


@asynccontextmanager
async def open_client() -> AsyncIterator[KubernetesClient]:
    """Connect as the service account of this pod, or as `KUBECONFIG` or ~/.kube/config say.

    Raises `ConfigInvalid` when there is neither, or it cannot be used.
    """
    try:
        config = KubeConfig.from_env().get()
        if config is None or config.user is None:
            raise ConfigInvalid("the kubeconfig's context names no user: add one with a token")
        if config.user.exec is not None:
            raise ConfigInvalid(
                "the kubeconfig's user gets its token from a command, which is not supported:"
                " make one with a token, for example by kubectl create token"
            )
        # The proxy of the environment is for the internet, and not for the cluster's own API.
        parameters = ConnectionParams(httpx2.Timeout(REQUEST_S_MAX), trust_env=False)
        http = AsyncClient(config, parameters)
    except (ConfigError, OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigInvalid(
            f"no way to the Kubernetes API ({type(error).__name__}: {error}): run in a pod with a"
            " service account, or set KUBECONFIG"
        ) from None
    async with http:
        yield KubernetesClient(http)


def _parameters(selection: Selection) -> dict[str, str]:
    parameters = {"labelSelector": selection.labels, "fieldSelector": selection.fields}
    return {key: value for key, value in parameters.items() if value}


@contextmanager
def _our_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
        raise KubernetesFailed(f"{what}: {type(error).__name__}: {error}") from error
    except ConfigError as error:  # The token's file is gone.
        raise KubernetesForbidden(f"{what}: {error}") from error


def _check(response: httpx2.Response, what: str) -> None:
    if not response.is_error:
        return
    try:
        told = json.loads(response.content)
        message = str(told["message"])
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    retry_after = response.headers.get("Retry-After", "")
    raise _failure(
        response.status_code, f"{what}: {response.status_code} {message[:500]}", retry_after
    )


def _failure(code: int, problem: str, retry_after: str = "") -> KubernetesFailed:
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    return _KINDS.get(code, KubernetesFailed)(problem, seconds)


def _object(content: bytes, what: str) -> Object:
    try:
        decoded: Object = json.loads(content)
        decoded["metadata"]
    except (ValueError, KeyError, TypeError):
        raise KubernetesFailed(f"{what}: the answer is no Kubernetes object") from None
    return decoded


async def _changes(chunks: AsyncIterator[bytes], what: str) -> AsyncGenerator[Change, None]:
    """Yield the changes of a watch: JSON, one a line."""
    waiting = bytearray()
    while True:
        with _our_errors(what):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        waiting += chunk
        *lines, waiting = waiting.split(b"\n")
        if len(waiting) > LINE_BYTES_MAX:
            raise KubernetesFailed(f"{what}: a change of more than {LINE_BYTES_MAX} bytes")
        for line in filter(None, lines):
            yield _change(line, what)


def _change(line: bytes | bytearray, what: str) -> Change:
    try:
        decoded = json.loads(line)
        kind, changed = decoded["type"], decoded["object"]
        if kind == "ERROR":
            problem = f"{what}: {changed.get('code')} {changed.get('message')}"
            raise _failure(changed.get("code", 0), problem)
        change = Change(kind, changed)
        change.version  # noqa: B018 - the check that it has one
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KubernetesFailed(f"{what}: a line that is no change") from None
    return change
