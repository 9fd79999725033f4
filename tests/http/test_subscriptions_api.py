"""Active subscriptions over HTTP, rule by rule of the protocol's section on them (1.9)."""

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h11
import trio
from structlog.testing import capture_logs

from noti.address import Address
from noti.history.commands import Publish, encode
from noti.history.notification import Event
from noti.history.subscriber import SUBSCRIPTIONS
from noti.http.config import HttpConfig
from noti.http.server import Frontend
from noti.presence.announcing import Announcing
from noti.presence.commits import Commits
from noti.presence.presence import Presence
from noti.streams.hub import Hub
from noti.trio_clock import TrioClock
from tests.authorization.tokens import HUB, authorizer, detail, signed, token_v0, token_v1
from tests.http.stage import Client, Node, client, events, hub, serving, until
from tests.http.websocket_stage import web_socket
from tests.presence.memory_log import MemoryLog

BOOK = "https://example.com/books/1"
ENCODED_BOOK = "https%3A%2F%2Fexample.com%2Fbooks%2F1"
ALL_SUBSCRIPTIONS = f"{SUBSCRIPTIONS}{{/topic}}{{/subscriber}}"
SOON = 4_000_000_000.0


@dataclass
class Stage:
    address: Address
    log: MemoryLog
    hub: Hub
    node: Node

    async def get(
        self,
        path: str,
        token: str | None = None,
        method: str = "GET",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> tuple[h11.Response, str]:
        if token is not None:
            headers = (*headers, ("authorization", f"Bearer {token}"))
        async with client(self.address) as one:
            response = await one.request(path, headers, method)
            return response, await one.read_all()

    async def listed(self, token: str, path: str = SUBSCRIPTIONS) -> list[dict[str, object]]:
        response, text = await self.get(path, token)
        assert response.status_code == 200, text
        found: list[dict[str, object]] = json.loads(text)["subscriptions"]
        return found

    async def subscribers(self, count: int) -> None:
        """Wait until so many are known."""
        await until(lambda: len([*self.log.store.subscriptions.subscribers()]) == count)

    @asynccontextmanager
    async def stream(self, query: str, token: str | None = None) -> AsyncIterator[Client]:
        headers = [] if token is None else [("authorization", f"Bearer {token}")]
        before = len([*self.log.store.subscriptions.subscribers()])
        async with client(self.address) as one:
            response = await one.request(f"/.well-known/mercure?{query}", headers)
            assert response.status_code == 200
            await self.subscribers(before + 1)
            yield one


@asynccontextmanager
async def stage(
    announced_within_s: float = 0.0, asked: Callable[[], None] = lambda: None
) -> AsyncIterator[Stage]:
    """`asked` is called when a request's token is looked at."""
    there, node = hub(), Node()
    log, clock, rng = MemoryLog(there), TrioClock(), random.Random(1)
    table = log.store.subscriptions

    def make_id() -> str:
        return f"{rng.getrandbits(64):016x}"

    def revoked(_subject: str | None, _token_id: str | None, _now: float) -> bool:
        asked()
        return False

    config = HttpConfig(public_url=HUB, catch_up_wait_s=0.2, announced_within_s=announced_within_s)
    announcing = Announcing("n1", table, Commits(log, clock, rng), clock, make_id)
    there.observe(announcing)
    frontend = Frontend(
        ("127.0.0.1", 0),
        there,
        node,
        config,
        authorizer=authorizer(revoked, anonymous=True),
        presence=Presence(table, Commits(log, clock, rng), clock, make_id),
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(frontend.run)
        await nursery.start(announcing.run)
        yield Stage(address, log, there, node)
        nursery.cancel_scope.cancel()


def reader() -> str:
    return token_v0(subscribe=[ALL_SUBSCRIPTIONS])


def reader_v1(match: str = "*") -> str:
    return token_v1(detail(match), exp=SOON)


def header(response: h11.Response, name: str) -> str:
    return dict(response.headers)[name.encode()].decode()


async def test_hub_without_subscriptions_has_no_such_addresses() -> None:
    async with serving(hub()) as address:
        for path in ("", "/news", "/news/urn%3Auuid%3A7", "/exact/news/urn%3Auuid%3A7"):
            async with client(address) as one:
                assert (await one.request(SUBSCRIPTIONS + path)).status_code == 404


async def test_collection_of_0x_has_every_stream_for_as_long_as_it_is_open() -> None:
    async with stage() as there:
        assert await there.listed(reader()) == []
        async with there.stream(f"topic={ENCODED_BOOK}&topic=news"):
            books, news = await there.listed(reader())
            assert (books["topic"], news["topic"]) == (BOOK, "news")
            assert books["subscriber"] == news["subscriber"]
            assert (
                books["id"]
                == f"{SUBSCRIPTIONS}/{ENCODED_BOOK}/{str(books['subscriber']).replace(':', '%3A')}"
            )
            assert books["active"] is True
        await there.subscribers(0)
        assert await there.listed(reader()) == []


async def test_websocket_is_listed_for_as_long_as_it_is_open() -> None:
    async with stage() as there:
        async with web_socket(there.address, "/.well-known/mercure?topic=news"):
            await there.subscribers(1)
            [news] = await there.listed(reader())
            assert news["topic"] == "news"
        await there.subscribers(0)


async def test_stream_that_began_before_the_request_is_listed_although_it_is_being_told() -> None:
    asked = trio.Event()

    async def tell_when_asked() -> None:
        await asked.wait()
        there.log.holds = False
        there.log.commit_held()

    async with (
        stage(announced_within_s=0.5, asked=asked.set) as there,
        trio.open_nursery() as tasks,
    ):
        await until(lambda: len(there.log.committed) == 1)
        there.log.holds = True
        async with client(there.address) as one:
            await one.request("/.well-known/mercure?topic=news")
            await until(lambda: len(there.log.held) == 1)
            tasks.start_soon(tell_when_asked)
            [news] = await there.listed(reader())
            assert news["topic"] == "news"


async def test_root_of_0x_is_json_ld_with_the_last_event_id() -> None:
    async with stage() as there, there.stream("topic=news"):
        there.log.apply(encode(Publish((Event(0, "e-7", ("news",), "", 5),))))
        response, text = await there.get(SUBSCRIPTIONS, reader())
        document = json.loads(text)
        assert header(response, "content-type") == "application/ld+json"
        assert document["@context"] == "https://mercure.rocks/"
        assert (document["id"], document["type"]) == (SUBSCRIPTIONS, "Subscriptions")
        assert document["lastEventID"] == header(response, "etag") == "e-7"


async def test_cursor_is_earliest_when_nothing_was_ever_dispatched() -> None:
    async with stage() as there:
        _, text = await there.get(SUBSCRIPTIONS, reader())
        assert json.loads(text)["lastEventID"] == "earliest"


async def test_id_of_an_event_that_the_reader_may_not_see_is_not_told() -> None:
    async with stage() as there:
        secret = Event(0, "secret-id", ("orders/7",), "", 5, private=True)
        there.log.apply(encode(Publish((secret,))))
        _, text = await there.get(SUBSCRIPTIONS, reader())
        cursor = json.loads(text)["lastEventID"]
        assert "secret" not in cursor
        assert there.hub.feed.position_of(cursor) == 1
        _, text = await there.get(SUBSCRIPTIONS, token_v0(subscribe=["*"]))
        assert json.loads(text)["lastEventID"] == "secret-id"


async def test_id_that_stands_twice_in_history_is_no_cursor() -> None:
    """A cursor on it would mean its first place."""
    async with stage() as there:
        for data in ("one", "two"):
            there.log.apply(encode(Publish((Event(0, "same", ("news",), data, 5),))))
        _, text = await there.get(SUBSCRIPTIONS, reader())
        assert there.hub.feed.position_of(json.loads(text)["lastEventID"]) == 2


async def test_collection_of_a_topic_and_single_subscription_are_at_their_addresses() -> None:
    async with stage() as there, there.stream("topic=news"), there.stream(f"topic={ENCODED_BOOK}"):
        [book] = await there.listed(reader(), f"{SUBSCRIPTIONS}/{ENCODED_BOOK}")
        response, text = await there.get(str(book["id"]), reader())
        document = json.loads(text)
        assert header(response, "content-type") == "application/ld+json"
        assert document.pop("@context") == "https://mercure.rocks/"
        assert document.pop("lastEventID")
        assert document == book


async def test_unknown_subscription_is_404() -> None:
    async with stage() as there:
        for path in (f"/news/{'urn%3Auuid%3A7'}", "/a/b/c/d", "/%ff"):
            response, _ = await there.get(SUBSCRIPTIONS + path, token_v0(subscribe=["*"]))
            assert response.status_code == 404, path


async def test_answer_that_the_client_has_is_304() -> None:
    async with stage() as there:
        response, _ = await there.get(SUBSCRIPTIONS, reader())
        known = (("if-none-match", header(response, "etag")),)
        response, text = await there.get(SUBSCRIPTIONS, reader(), headers=known)
        assert (response.status_code, text) == (304, "")
        async with there.stream("topic=news"):
            response, _ = await there.get(SUBSCRIPTIONS, reader(), headers=known)
            assert response.status_code == 200


async def test_head_has_the_headers_and_no_body() -> None:
    async with stage() as there:
        response, text = await there.get(SUBSCRIPTIONS, reader(), "HEAD")
        assert (response.status_code, text) == (200, "")
        assert header(response, "etag") == "earliest"


async def test_collection_of_1_0_is_json_with_the_cursor_in_a_link() -> None:
    async with stage() as there, there.stream("match=news"), there.stream("topic=old"):
        response, text = await there.get(SUBSCRIPTIONS, reader_v1())
        document = json.loads(text)
        assert header(response, "content-type") == "application/json"
        assert document["type"] == "subscriptions"
        assert "lastEventID" not in document
        [news] = document["subscriptions"]
        assert (news["type"], news["match"], news["match_type"]) == (
            "subscription",
            "news",
            "exact",
        )
        assert 'rel="mercure"; last-event-id="urn:uuid:' in header(response, "link")
        assert header(response, "etag").startswith('"urn:uuid:')


async def test_matchers_of_1_0_have_collections_and_items() -> None:
    async with stage() as there, there.stream("match_urlpattern=%2Fbooks%2F%3Aid"):
        path = f"{SUBSCRIPTIONS}/urlpattern/%2Fbooks%2F%3Aid"
        [one] = await there.listed(reader_v1(), path)
        assert str(one["id"]).startswith(path + "/urn%3Auuid%3A")
        response, text = await there.get(str(one["id"]), reader_v1())
        assert json.loads(text) == one
        assert header(response, "content-type") == "application/json"


async def test_nobody_is_listed_without_a_token_that_may_subscribe_to_the_path() -> None:
    async with stage() as there, there.stream("topic=news"):
        [news] = await there.listed(reader())
        item = str(news["id"])
        response, _ = await there.get(SUBSCRIPTIONS)
        assert response.status_code == 401
        assert header(response, "www-authenticate").startswith("Bearer")
        for path, right, status in (
            (SUBSCRIPTIONS, "news", 403),
            (SUBSCRIPTIONS, SUBSCRIPTIONS, 200),
            (item, SUBSCRIPTIONS, 403),
            (item, item, 200),
            (item, f"{SUBSCRIPTIONS}/news{{/subscriber}}", 200),
            (item, f"{SUBSCRIPTIONS}/books{{/subscriber}}", 403),
            (item.replace("%3A", ":"), item, 200),
        ):
            response, text = await there.get(path, token_v0(subscribe=[right]))
            assert response.status_code == status, (path, right, text)
        response, _ = await there.get(SUBSCRIPTIONS, token_v1(detail("news"), exp=SOON))
        assert response.status_code == 403
        assert 'error="insufficient_scope"' in header(response, "www-authenticate")
        response, _ = await there.get(SUBSCRIPTIONS, "garbage")
        assert response.status_code == 401


async def test_creation_and_termination_are_told_to_those_who_may_know() -> None:
    async with stage() as there:
        follow = f"topic={SUBSCRIPTIONS}%7B/topic%7D%7B/subscriber%7D"
        async with there.stream(follow, reader()) as may, there.stream(follow) as may_not:
            async with there.stream("topic=news"):
                await may.read_until('"topic":"news"')
            await may.read_until('"active":false')
            there.log.apply(encode(Publish((Event(0, "end", (f"{SUBSCRIPTIONS}/a/b",), "", 5),))))
            await may_not.read_until("id: end")
            told = [json.loads(one["data"]) for one in events(may.text) if one["data"]]
            of_news = [(one["active"], one["id"]) for one in told if one["topic"] == "news"]
            assert [active for active, _ in of_news] == [True, False]
            assert len({id_ for _, id_ in of_news}) == 1
            assert "news" not in may_not.text


async def test_only_1_0_has_an_event_type() -> None:
    async with stage() as there:
        everything = token_v0(subscribe=["*"])
        async with there.stream("topic=*", everything) as follower:
            async with there.stream("match=new"), there.stream("topic=old"):
                await follower.read_until('"topic":"old"')
            by_data = {one["data"]: one["event"] for one in events(follower.text)}
            types = {
                json.loads(data).get("match", "0.x"): by_data[data] for data in by_data if data
            }
            assert types == {"new": "mercure", "0.x": ""}


async def test_payload_of_the_token_is_attached() -> None:
    async with stage() as there:
        claims = {"mercure": {"subscribe": ["news"], "payload": {"user": "Kévin"}}}
        async with there.stream("topic=news", signed(claims)):
            [news] = await there.listed(reader())
            assert news["payload"] == {"user": "Kévin"}


async def test_payload_of_1_0_is_that_of_the_first_detail_that_matches_the_matcher() -> None:
    async with stage() as there:
        token = token_v1(detail("news", payload={"n": 1}), detail("*", payload={"n": 2}), exp=SOON)
        async with there.stream("match=news&match=other", token):
            shown = await there.listed(reader_v1())
            assert {one["match"]: one["payload"] for one in shown} == {
                "news": {"n": 1},
                "other": {"n": 2},
            }


async def test_category_streams_are_no_subscriptions() -> None:
    async with stage() as there, client(there.address) as one:
        await one.request("/category")
        async with there.stream("topic=news"):
            assert [one["topic"] for one in await there.listed(reader())] == ["news"]


async def test_delete_ends_the_stream_and_tells_of_it() -> None:
    async with stage() as there, there.stream("topic=news") as ended, there.stream("topic=b") as b:
        news = next(one for one in await there.listed(reader()) if one["topic"] == "news")
        response, _ = await there.get(str(news["id"]), token_v0(publish=["*"]), "DELETE")
        assert response.status_code == 204
        await ended.read_all()
        assert [one["topic"] for one in await there.listed(reader())] == ["b"]
        response, _ = await there.get(str(news["id"]), token_v0(publish=["*"]), "DELETE")
        assert response.status_code == 404
        assert not b.ended


async def test_delete_is_answered_without_an_error_in_the_log() -> None:
    async with stage() as there, there.stream("topic=news"):
        (news,) = await there.listed(reader())
        with capture_logs() as logged:
            response, _ = await there.get(str(news["id"]), token_v0(publish=["*"]), "DELETE")
            assert not await there.listed(reader())
        assert response.status_code == 204
        assert not [one for one in logged if one["log_level"] == "error"]


async def test_delete_needs_a_token_that_may_publish_everything() -> None:
    async with stage() as there, there.stream("topic=news"):
        [news] = await there.listed(reader())
        for token, status in (
            (None, 401),
            (token_v0(subscribe=["*"]), 403),
            (token_v0(publish=["news"]), 403),
        ):
            response, _ = await there.get(str(news["id"]), token, "DELETE")
            assert response.status_code == status
        assert len(await there.listed(reader())) == 1


async def test_other_methods_are_405_and_collections_cannot_be_deleted() -> None:
    async with stage() as there:
        everything = token_v0(publish=["*"], subscribe=["*"])
        response, _ = await there.get(SUBSCRIPTIONS, everything, "DELETE")
        assert response.status_code == 405
        response, _ = await there.get(f"{SUBSCRIPTIONS}/a/b", everything, "PUT")
        assert response.status_code == 405
        assert {"GET", "HEAD", "DELETE"} <= {*header(response, "allow").split(", ")}
        response, _ = await there.get(f"{SUBSCRIPTIONS}/news", everything, "DELETE")
        assert response.status_code == 404


async def test_node_that_is_not_in_touch_with_the_others_says_so() -> None:
    async with stage() as there:
        there.node.is_ready = False
        response, _ = await there.get(SUBSCRIPTIONS, reader())
        assert (response.status_code, header(response, "retry-after")) == (503, "1")


async def test_metadata_says_that_there_are_subscriptions() -> None:
    async with stage() as there:
        _, text = await there.get("/.well-known/oauth-protected-resource/.well-known/mercure")
        assert json.loads(text)["mercure_subscriptions"] is True
