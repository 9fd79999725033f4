"""Keeps a cache of selected objects: lists them once, and watches from there on.

A watch that ends or breaks is resumed from the last version that it reported, of a change or of a
bookmark. Only when the server does not remember so far (410) everything is listed anew.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Final, NoReturn

import structlog
import trio

from noti.backoff import Backoff
from noti.errors import KubernetesFailed, VersionGone
from noti.kubernetes import metrics
from noti.kubernetes.api import KubernetesApi, Listing, Selection, WatchEvent, is_news
from noti.kubernetes.objects import Object

log = structlog.get_logger("noti.kubernetes")

ENDED_EARLY_S: Final = 1.0
"""A watch that ends sooner, without a change, counts as a failure: something ends all of them."""


class ObjectCache:
    """Objects of one selection, as the API last reported them."""

    def __init__(self, selection: Selection) -> None:
        """Begin with nothing."""
        self.selection = selection
        self._objects: dict[str, Object] | None = None
        self.failure: KubernetesFailed | None = None
        """Why the API cannot be asked now, if so."""

    @property
    def listed(self) -> bool:
        """Whether the objects are known at all."""
        return self._objects is not None

    @property
    def objects(self) -> Iterable[Object]:
        """All objects, in the order of their names."""
        known = self._objects or {}
        return [known[name] for name in sorted(known)]

    def reset(self, listing: Listing) -> None:
        """Replace all objects by those of a list."""
        self._objects = {one["metadata"]["name"]: one for one in listing.objects}

    def apply(self, change: WatchEvent) -> None:
        """Take in one change."""
        assert self._objects is not None, "changes come after a list"
        if change.type == "BOOKMARK":
            return
        name = change.object["metadata"]["name"]
        if change.type == "DELETED":
            self._objects.pop(name, None)
        else:
            self._objects[name] = change.object


async def list_and_watch(
    api: KubernetesApi, cache: ObjectCache, rng: Random, changed: Callable[[], None]
) -> NoReturn:
    """Keep `cache` up to date until cancelled; call `changed` whenever something is different."""
    backoff = Backoff(rng)
    version: str | None = None
    while True:
        began = trio.current_time()
        try:
            if version is None:
                listing = await api.list(cache.selection)
                version = listing.version
                cache.reset(listing)
                _recovered(cache, changed)
            async with api.watch(cache.selection, version) as changes:
                if cache.failure is not None:
                    _recovered(cache, changed)
                async for change in changes:
                    version = change.version
                    backoff.succeeded()
                    cache.apply(change)
                    if change.type != "BOOKMARK":
                        _recovered(cache, changed)
            if trio.current_time() - began < ENDED_EARLY_S:
                await trio.sleep(backoff.failed())
            else:
                backoff.succeeded()
        except VersionGone:
            metrics.RELISTS.inc()
            version = None
            await trio.sleep(backoff.failed())
        except KubernetesFailed as failure:
            if is_news(failure, backoff.failures):
                plural = cache.selection.resource.plural
                log.warning(
                    "cannot watch objects, trying again", resource=plural, reason=str(failure)
                )
            _failed(cache, failure, changed)
            await trio.sleep(backoff.failed(failure.retry_after_s))


def _failed(cache: ObjectCache, failure: KubernetesFailed, changed: Callable[[], None]) -> None:
    before, cache.failure = cache.failure, failure
    if type(before) is not type(failure):
        changed()


def _recovered(cache: ObjectCache, changed: Callable[[], None]) -> None:
    cache.failure = None
    changed()
