"""Keeps the keys that an issuer publishes at an address: a JWK set, fetched again and again.

A failure keeps the last keys. A token that names an unknown key asks for the set anew, but however
many do, it is fetched only every few seconds.
"""

import re
import time
from typing import Final, NoReturn

import httpx
import structlog
import trio
from prometheus_client import Counter

from noti.authorization.grant import Action
from noti.authorization.key_files import give_notice
from noti.authorization.keys import TrustedKeys, read_jwks
from noti.errors import ConfigInvalid
from noti.ports import Clock
from noti.redaction import redacted_url
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.authorization")

ANSWER_BYTES_MAX: Final = 256 * 1024
"""64 RSA keys with their certificates."""
FETCH_TIMEOUT_S: Final = 5.0
"""For the whole exchange; an issuer is asked beside requests, not by them."""
REFRESH_DEFAULT_S: Final = 300.0
REFRESH_MIN_S: Final = 60.0
"""Issuers say `max-age=0` who do not mean to be asked all the time."""
REFRESH_MAX_S: Final = 3600.0
"""How long a key that the issuer has withdrawn is trusted at most."""
REFETCH_EVERY_S: Final = 5.0
"""Least time between two fetches, whoever asks for them."""
RETRY_MAX_S: Final = 60.0
"""After failures, pauses double up to this."""

_FETCHES: Final = Counter(
    "noti_jwks_fetches_total",
    "Fetches of the issuer's keys, by outcome: ok or failed.",
    ["outcome"],
)
_FETCHED, _FAILED = _FETCHES.labels("ok"), _FETCHES.labels("failed")
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class JwksFeed:
    """The keys at one address."""

    def __init__(self, url: str, keys: TrustedKeys, clock: Clock) -> None:
        """Prepare; nothing is fetched before `run`."""
        self._url = url
        self._keys = keys
        self._clock = clock
        self._wanted = trio.Event()
        self._fetched = trio.Event()
        self.tried = trio.Event()
        """Set when the first fetch has ended, well or not."""
        self._failures = 0
        self._throttled = ThrottledLog(time.monotonic)

    def bring_to(self, keys: TrustedKeys) -> None:
        """Put the keys there from now on, as those that were fetched already."""
        keys.follow(self._keys, self._url)
        self._keys = keys

    def want(self) -> None:
        """Ask for the keys anew, as soon as that may be; never waits."""
        self._wanted.set()

    async def refreshed(self) -> None:
        """Ask for the keys anew, and return when they were fetched, or that failed.

        The caller sets the deadline.
        """
        self.want()
        await self._fetched.wait()

    async def tried_once(self) -> None:
        """Wait until keys were fetched, or that failed; no longer than a fetch may take."""
        with self._clock.scope_until(self._clock.now() + FETCH_TIMEOUT_S):
            await self.tried.wait()

    async def run(self) -> NoReturn:
        """Fetch the keys, and again, until cancelled."""
        name = redacted_url(self._url)
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client:
            while True:
                # Who asks from now on may mean keys that this fetch will not bring.
                self._wanted, fetched, self._fetched = trio.Event(), self._fetched, trio.Event()
                began = self._clock.now()
                pause_s = await self._fetch(client, name)
                fetched.set()
                self.tried.set()
                with self._clock.scope_until(self._clock.now() + pause_s):
                    await self._wanted.wait()
                await self._clock.sleep_until(began + REFETCH_EVERY_S)

    async def _fetch(self, client: httpx.AsyncClient, name: str) -> float:
        """Fetch the keys once; return after how many seconds to do it again."""
        try:
            with trio.fail_after(FETCH_TIMEOUT_S):
                content, cache_control = await _read(client, self._url)
            found = read_jwks(content, name, secrets=False)
        except (httpx.HTTPError, httpx.InvalidURL, ConfigInvalid, trio.TooSlowError) as error:
            _FAILED.inc()
            self._failures += 1
            problem = str(error) or type(error).__name__
            self._throttled.log(
                log.warning, "keys of the issuer cannot be fetched, the last ones stay in use",
                problem, url=name, problem=problem,
            )  # fmt: skip
            return float(min(RETRY_MAX_S, REFETCH_EVERY_S * 2 ** min(self._failures - 1, 10)))
        _FETCHED.inc()
        self._failures = 0
        if self._keys.put_if_changed(self._url, Action, found.keys, content):
            log.info("keys of the issuer are in use", url=name, keys=len(found.keys))
            give_notice(found)
        return refresh_after_s(cache_control)


def refresh_after_s(cache_control: str) -> float:
    """Return how long keys are good for, by their Cache-Control, within our bounds."""
    found = _MAX_AGE.search(cache_control)
    asked_s = REFRESH_DEFAULT_S if found is None else float(found[1])
    return min(max(asked_s, REFRESH_MIN_S), REFRESH_MAX_S)


async def _read(client: httpx.AsyncClient, url: str) -> tuple[bytes, str]:
    """Return body and Cache-Control of a successful answer within bounds."""
    # A compressed answer could be of any size once it is unpacked.
    headers = {
        "Accept": "application/jwk-set+json, application/json",
        "Accept-Encoding": "identity",
    }
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise ConfigInvalid(f"it answers with status {response.status_code}, not 200")
        content = bytearray()
        try:
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > ANSWER_BYTES_MAX:
                    await response.aclose()  # which ends the iteration, and its generators in order
        except httpx.HTTPError:
            if len(content) <= ANSWER_BYTES_MAX:
                raise
        if len(content) > ANSWER_BYTES_MAX:
            raise ConfigInvalid(f"its answer is longer than {ANSWER_BYTES_MAX} bytes")
        return bytes(content), response.headers.get("Cache-Control", "")
