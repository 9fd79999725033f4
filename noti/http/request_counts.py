"""Counts answered requests by method, path and status, whichever way they were answered.

No path or other word that a client made up gets into a label: they would be without number.
"""

from functools import lru_cache
from typing import Final

from prometheus_client import Counter

from noti.address import HUB_PATH

REQUESTS: Final = Counter(
    "noti_http_requests_total",
    "Requests answered, by method, path and status; others than known ones are `other`.",
    ["method", "path", "code"],
)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "QUERY", "OPTIONS"})
STREAMS: Final = ("/category", HUB_PATH)
PROBES: Final = ("/liveness", "/readiness", "/metrics", "/healthz")
ALWAYS: Final = frozenset({*PROBES, *STREAMS})
"""Answered also when all connections are busy: a node that is used to the full must not look dead
to whatever would restart it, and a stream is counted with the streams as soon as it begins; any
status but 200 would end an `EventSource` permanently."""
PUBLISH: Final = ("POST", HUB_PATH)
"""Not so: who publishes comes back when there is room."""
PAGE: Final = (
    "/",
    "/cluster.js",
    "/dom.js",
    "/events.js",
    "/noti.js",
    "/page.css",
    "/page.js",
    "/subscribers.js",
)
OTHER: Final = "other"
PATHS: Final = {
    **{path: path for path in (*STREAMS, *PROBES, "/status")},
    **dict.fromkeys(PAGE, "page"),
}
"""What the label is for each path that is served."""


def answers_always(method: str, path: str) -> bool:
    """Return whether a request is answered also when all connections are busy."""
    return path in ALWAYS and (method, path) != PUBLISH


@lru_cache(maxsize=1024)
def _of(method: str, path: str, code: int) -> Counter:
    """Return the counter; only known values come here, so that few of them are kept."""
    return REQUESTS.labels(method, path, str(code))


def count(method: str, path: str, status: int) -> None:
    """Count an answer."""
    _of(method if method in METHODS else OTHER, PATHS.get(path, OTHER), status).inc()


def count_unread(status: int) -> None:
    """Count the answer to what was no whole request."""
    _of(OTHER, OTHER, status).inc()


def _begin_at_zero() -> None:
    for path in sorted(set(PATHS.values())):
        _of("GET", path, 200)
    for path in STREAMS:
        _of("GET", path, 400)
        _of("GET", path, 429)
    _of("GET", "/readiness", 503)
    for code in (200, 400, 401, 403, 413, 422, 503, 504):
        _of(*PUBLISH, code)
    for code in (400, 408, 431, 503):
        _of(OTHER, OTHER, code)


_begin_at_zero()
