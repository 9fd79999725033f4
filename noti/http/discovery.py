"""Answers programs that look for the hub or at it: metadata (RFC 9728), `/healthz`, `/robots.txt`.

Operators have better probes (`ops.py`); charts and crawlers ask for these without being told.
"""

from typing import Final

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import NotFound

from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.claims import DETAIL_TYPE
from noti.authorization.grant import Dialect
from noti.authorization.presented import COOKIE_V1
from noti.authorization.rejection import METADATA_PREFIX
from noti.history.topics import RESERVED
from noti.http.answers import PLAIN
from noti.http.config import HttpConfig
from noti.http.ops import json_response
from noti.http.quart_glue import hub_url_in

METADATA: Final = METADATA_PREFIX + RESERVED
HEALTHZ: Final = "/healthz"
ROBOTS: Final = "/robots.txt"

LINK: Final = f'<{RESERVED}>; rel="mercure"'
"""The Link header of the page: where its hub is."""


def add_routes(
    app: QuartTrio, config: HttpConfig, authorizer: Authorizer, *, subscriptions: bool
) -> None:
    """Add all of them; the metadata only where Mercure 1.0 is spoken, as its absence says so."""

    @app.get(HEALTHZ)
    async def healthz() -> Response:
        return Response("ok\n", content_type=PLAIN)

    @app.get(ROBOTS)
    async def robots() -> Response:
        return Response("User-agent: *\nDisallow: /\n", content_type=PLAIN)

    @app.get(METADATA)
    async def metadata() -> Response:
        if Dialect.V1 not in config.dialects:
            raise NotFound
        hub_url = hub_url_in(request, config)
        return json_response(metadata_of(hub_url, authorizer.config, subscriptions=subscriptions))


def metadata_of(
    hub_url: str, authorization: AuthorizationConfig, *, subscriptions: bool = False
) -> dict[str, object]:
    """Return the hub's metadata as a resource that tokens protect (RFC 9728, 2; Mercure 1.0).

    With `subscriptions`, it tells who is subscribed.
    """
    document: dict[str, object] = {
        "resource": authorization.audience or hub_url,
        "authorization_details_types_supported": [DETAIL_TYPE],
        "bearer_methods_supported": ["header"],
        "mercure_cookie": COOKIE_V1,
        "mercure_matcher_types_supported": ["exact", "urlpattern"],
    }
    if authorization.issuer is not None:
        document["authorization_servers"] = [authorization.issuer]
    if subscriptions:
        document["mercure_subscriptions"] = True
    return document
