"""Authorization at one node: made from its settings, kept fresh while it runs."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
import trio

from noti.authorization.authorizer import AuthorizationConfig, Authorizer, Revoked
from noti.authorization.grant import Action
from noti.authorization.key_files import give_notice, key_file
from noti.authorization.keys import TrustedKeys, read_keys
from noti.authorization.revoked_file import RevokedNames, revoked_file
from noti.certificates.renewal import Renewed, keep_renewed
from noti.config import Config, aliases_of
from noti.optional import keep_going
from noti.ports import Clock

if TYPE_CHECKING:
    from noti.authorization.jwks import JwksFeed

log = structlog.get_logger("noti.authorization")

REFRESH_WITHIN_S = 2.0
"""How long a request waits for a key that its token names and that is not known yet."""


class Authorization:
    """The authorizer of a node, and what keeps its keys fresh."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        rng: Random,
        revoked: Revoked,
        disconnect: Callable[[RevokedNames], object] = lambda _names: None,
    ) -> None:
        """Read the keys; raises `ConfigInvalid` for one that cannot be used.

        `revoked` tells what the cluster has revoked; `disconnect` is to end the streams of those
        whom the file of this node revokes, whenever it is read.
        """
        self._config = config
        self._clock = clock
        self._revoked = revoked
        self._disconnect = disconnect
        self._revoked_here = RevokedNames()
        self._rng = rng
        self._keys = TrustedKeys()
        self._jwks = _feed(config, self._keys, clock)
        self._renewed = self._files(config, self._keys)
        newer_keys = None if self._jwks is None else self.refresh
        self.authorizer = Authorizer(
            _settings(config), self._keys, self._is_revoked, self._want_keys, newer_keys
        )
        self._say_who_may(config)

    def change(self, config: Config) -> None:
        """Go by other settings from now on, but for `jwks_url`.

        Open streams go on. Raises `ConfigInvalid` for a file that cannot be used, and changes
        nothing then.
        """
        if _relevant(config) == _relevant(self._config):
            return
        keys = TrustedKeys()
        self._renewed[:] = self._files(config, keys)
        if config.revoked_file is None:
            self._revoked_here = RevokedNames()
        if self._jwks is not None:
            self._jwks.bring_to(keys)
        else:
            keys.follow(self._keys)
        self._config, self._keys = config, keys
        self.authorizer.change(_settings(config), keys)
        self._say_who_may(config)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep keys fresh until cancelled. Nothing that fails here ends a node.

        Started when the issuer's keys were fetched, or that failed: browsers that came before would
        be rejected, and an `EventSource` gives up then.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_renewed, self._renewed)
            if self._jwks is not None:
                await nursery.start(keep_going, "jwks", self._jwks.run, self._clock, self._rng)
                await self._jwks.tried_once()
            task_status.started()

    async def refresh(self) -> None:
        """Wait a moment for newer keys of the issuer; returns at once if there is no such source.

        For a request whose rejection says `unknown_key`; then ask the authorizer again.
        """
        if self._jwks is not None:
            deadline = self._clock.now() + REFRESH_WITHIN_S
            with self._clock.scope_until(deadline):
                await self._jwks.refreshed()

    def _is_revoked(self, subject: str | None, token_id: str | None, now: float) -> bool:
        return self._revoked_here.covers(subject, token_id) or self._revoked(subject, token_id, now)

    def _revoke_here(self, names: RevokedNames) -> None:
        self._revoked_here = names
        self._disconnect(names)

    def _want_keys(self) -> None:
        if self._jwks is not None:
            self._jwks.want()

    def _files(self, config: Config, keys: TrustedKeys) -> list[Renewed[Any]]:
        """Read all keys, and what is revoked; return what keeps them in step with their files."""
        renewed: list[Renewed[Any]] = []
        has_own = bool(config.subscriber_jwt_key_file or config.subscriber_jwt_key)
        publishers = [Action.PUBLISH] if has_own else list(Action)
        subscriber_alg = config.subscriber_jwt_alg
        if not has_own and subscriber_alg not in (None, config.publisher_jwt_alg):
            # The publishers' key, with another algorithm: a key of its own.
            publishers, has_own = [Action.PUBLISH], True
        sources = [
            ("publisher", config.publisher_jwt_alg, publishers),
            ("subscriber", subscriber_alg, [Action.SUBSCRIBE] if has_own else []),
        ]
        for name, algorithm, actions in sources:
            secret, file = (
                getattr(config, f"{name}_jwt_key"),
                getattr(config, f"{name}_jwt_key_file"),
            )
            if name == "subscriber" and secret is None and file is None:
                secret, file = config.publisher_jwt_key, config.publisher_jwt_key_file
            if file is not None and actions:
                renewed.append(key_file(file, algorithm, actions, keys))
            elif secret is not None and actions:
                variable = aliases_of(f"{name}_jwt_key")[0]
                found = read_keys(secret.get_secret_value().encode(), variable, algorithm)
                give_notice(found)
                keys.put(variable, actions, found.keys)
        if config.jwks_url is not None and not urlsplit(config.jwks_url).scheme:
            renewed.append(key_file(Path(config.jwks_url), None, Action, keys))
        if config.revoked_file is not None:
            # The last one, as it ends streams: nothing can be wrong any more.
            renewed.append(revoked_file(config.revoked_file, self._revoke_here))
        return renewed

    def _say_who_may(self, config: Config) -> None:
        """Log in one line each what an operator may not expect."""
        waiting = self._jwks is not None
        can_read = self._keys.of(Action.SUBSCRIBE) or waiting
        if not config.allows_anonymous:
            remedy = "give --anonymous to let everybody read public events"
            if not can_read:
                log.warning(f"nobody can read: there is no key for tokens, and {remedy}")
            elif config.anonymous is None:
                log.info(f"readers need a token, as http_addr is not loopback; {remedy}")
        elif config.anonymous is None:
            log.info("everybody on this machine can read public events without a token")
        if not (self._keys.of(Action.PUBLISH) or waiting):
            log.info("nobody can publish over HTTP: give --publisher-jwt-key-file")


def _feed(config: Config, keys: TrustedKeys, clock: Clock) -> "JwksFeed | None":
    """Return what fetches an issuer's keys; None where they are in a file, or nowhere."""
    if config.jwks_url is None or not urlsplit(config.jwks_url).scheme:
        return None
    # Here, so that nodes that ask no issuer start without an HTTP client.
    from noti.authorization.jwks import JwksFeed

    return JwksFeed(config.jwks_url, keys, clock)


def _settings(config: Config) -> AuthorizationConfig:
    return AuthorizationConfig(
        anonymous=config.allows_anonymous,
        protocol=config.mercure_protocol,
        issuer=config.jwt_issuer,
        audience=config.jwt_audience,
        cookie_name=config.cookie_name,
        publish_origins=frozenset(config.publish_origins),
    )


def _relevant(config: Config) -> tuple[object, ...]:
    """Return all that authorization is made of, and that may change."""
    return (
        _settings(config),
        config.publisher_jwt_key_file,
        config.publisher_jwt_alg,
        config.subscriber_jwt_key_file,
        config.subscriber_jwt_alg,
        config.revoked_file,
    )
