"""The Kubernetes API over HTTPS: lightkube's configuration, TLS and tokens, on Trio.

It retries nothing, raises our errors only, and shows no token in a message.

lightkube finds the service account or the kubeconfig, verifies the server, and reads a rotated
token again. Its own client is not used for requests: it asks for no bookmarks, and hides the end of
a watch behind an immediate new one. httpx2 opens 100 connections at most, and each checker has two
watches: more than 45 checkers need several operators.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx2
import structlog
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig
from lightkube.core.exceptions import ConfigError
from yaml import YAMLError

from noti.errors import ConfigInvalid, KubernetesFailed, KubernetesForbidden
from noti.kubernetes.api import Listing, Resource, Selection, WatchEvent
from noti.kubernetes.decoding import (
    decode_change,
    decode_listing,
    decode_object,
    explanation,
    failure,
)
from noti.kubernetes.objects import Object

log = structlog.get_logger("noti.kubernetes")

REQUEST_S_MAX: Final = 5.0
"""For each of connecting, sending, and waiting for bytes; less than the time in which the holder of
a lease must renew it."""

WATCH_S: Final = 290
"""After this the server ends a watch, so that none is dead for long unnoticed."""

WATCH_SILENCE_S_MAX: Final = WATCH_S + 10.0
"""A connection that is silent for longer is dead: the server would have ended the watch."""

LINE_BYTES_MAX: Final = 4 << 20
"""Of one change; etcd takes objects of 1.5 MiB."""


class KubernetesClient:
    """`noti.kubernetes.api.KubernetesApi` of a real cluster."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        """Speak through `http`, which knows server and credentials."""
        self._http = http

    async def list(self, selection: Selection) -> Listing:
        """Return all objects that are selected."""
        path = selection.resource.path(selection.namespace)
        content = await self._ask("GET", path, params=_parameters(selection))
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
                with _our_errors(f"watch {path}"):
                    await response.aclose()
            finally:
                # Generators within httpx2 end by an error now; otherwise they would be left to the
                # garbage collector, and to a task outside of our tree.
                with suppress(httpx2.HTTPError, httpx2.StreamError):
                    await anext(chunks, None)

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
        params: dict[str, str] | None = None,
        media: str = "application/json",
    ) -> bytes:
        what = f"{method} {path}"
        headers = {} if body is None else {"Content-Type": media}
        content = None if body is None else json.dumps(body).encode()
        with _our_errors(what):
            response = await self._http.request(
                method, path, params=params, content=content, headers=headers
            )
        _check(response, what)
        return response.content


@asynccontextmanager
async def open_client(
    service_account: Path = Path(SERVICE_ACCOUNT),
) -> AsyncIterator[KubernetesClient]:
    """Connect as the service account of this pod, or as `KUBECONFIG` or ~/.kube/config say.

    Raises `ConfigInvalid` when there is neither, or it cannot be used.
    """
    try:
        config = KubeConfig.from_env(str(service_account)).get()
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
    async with http:
        yield KubernetesClient(http)


def _parameters(selection: Selection) -> dict[str, str]:
    parameters = {"labelSelector": selection.labels, "fieldSelector": selection.fields}
    return {key: value for key, value in parameters.items() if value}


@contextmanager
def _our_errors(what: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:  # The token's file is gone.
        raise KubernetesForbidden(f"{what}: {error}") from error
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
        raise KubernetesFailed(f"{what}: {_why(error)}") from error
    except Exception as error:
        log.exception("the Kubernetes client failed", request=what)
        raise KubernetesFailed(f"{what}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """Return the outermost words of an error: httpx2 wraps some in one that has none."""
    inner: BaseException | None = error
    while inner is not None and not str(inner):
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__ if inner is None else f"{type(inner).__name__}: {inner}"


def _check(response: httpx2.Response, what: str) -> None:
    if response.is_error:
        message = explanation(response.content, response.reason_phrase)
        problem = f"{what}: {response.status_code} {message}"
        raise failure(response.status_code, problem, response.headers.get("Retry-After", ""))


async def _changes(chunks: AsyncIterator[bytes], what: str) -> AsyncGenerator[WatchEvent, None]:
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
            yield decode_change(line, what)
