"""What programs find that look for a hub."""

import json

from noti.authorization.authorizer import AuthorizationConfig
from noti.authorization.grant import Dialect
from noti.http.config import HttpConfig
from noti.http.discovery import HEALTHZ, METADATA, ROBOTS, metadata_of
from tests.http.stage import client, hub, serving


async def test_charts_and_crawlers_find_what_they_ask_for() -> None:
    async with serving(hub()) as address, client(address) as one:
        for target, text in [(HEALTHZ, "ok"), (ROBOTS, "Disallow: /")]:
            response = await one.request(target)
            assert response.status_code == 200
            assert text in await one.read_all()


async def test_the_page_names_its_hub() -> None:
    async with serving(hub()) as address, client(address) as one:
        response = await one.request("/")
        assert dict(response.headers)[b"link"] == b'</.well-known/mercure>; rel="mercure"'


def test_the_metadata_name_the_issuer_and_the_audience_of_tokens() -> None:
    bare = metadata_of("https://h/hub", AuthorizationConfig())
    assert bare["resource"] == "https://h/hub"
    assert "authorization_servers" not in bare
    authorization = AuthorizationConfig(issuer="https://issuer", audience="https://other")
    full = metadata_of("https://h/hub", authorization)
    assert full["resource"] == "https://other"
    assert full["authorization_servers"] == ["https://issuer"]


async def test_there_are_metadata_only_where_1_0_is_spoken() -> None:
    async with serving(hub()) as address, client(address) as one:
        response = await one.request(METADATA)
        assert dict(response.headers)[b"content-type"] == b"application/json"
        document = json.loads(await one.read_all())
    assert document["resource"] == "http://localhost/.well-known/mercure"
    assert document["mercure_matcher_types_supported"] == ["exact", "urlpattern"]
    only_v0 = HttpConfig(dialects=frozenset({Dialect.V0}))
    async with serving(hub(), config=only_v0) as address, client(address) as one:
        assert (await one.request(METADATA)).status_code == 404
