"""Admits requests that concern all of a hub, by what their token allows."""

from collections.abc import Callable

from quart import Response, request

from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Action, Dialect, Grant
from noti.authorization.presented import Presented
from noti.authorization.rejection import Reason, TokenRejected
from noti.http.answers import rejected
from noti.http.config import HttpConfig
from noti.http.quart_glue import header_of, hub_url_in, response_of


def rejection_of(
    authorizer: Authorizer,
    config: HttpConfig,
    now: float,
    *,
    method: str,
    allows: Callable[[Grant], bool],
    need: str,
) -> Response | None:
    """Return how the request is rejected that Quart handles; None when `allows` its token.

    `now` is Unix time in seconds, `method` the one that tokens in cookies are judged by, and `need`
    says which token it takes.
    """
    hub_url = hub_url_in(request, config)
    presented = Presented.by(header_of(request), method=method, hub_url=hub_url)
    try:
        grant = authorizer.grant(presented, Action.PUBLISH, now=now)
        if not allows(grant):
            raise TokenRejected(Reason.INSUFFICIENT, need, grant.dialect or Dialect.V0)
    except TokenRejected as rejection:
        return response_of(rejected(rejection, hub_url))
    return None
