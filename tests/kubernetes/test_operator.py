"""The operator against an API server in memory, in virtual time."""

from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs

from noti.kubernetes.api import CHECKERS, LEASES, PODS, STATEFUL_SETS
from noti.kubernetes.labels import SERVE_LABEL, TERM_ANNOTATION
from tests import promises
from tests.kubernetes.memory_api import RIGHTS
from tests.kubernetes.stage import NS, Cluster, Stage, stage, until

LABELLED_WITHIN_S = 2.0
"""From a change of leader to changed labels."""
TAKEN_OVER_WITHIN_S = 20.0
"""From the death of an operator to the work of another."""


async def settled(at: Stage, roles: str = "Lff") -> None:
    await until(lambda: at.cluster.roles == roles, f"{roles}: {at.cluster.roles}")
    await until(lambda: at.cluster.reason == "LeaderKnown")


async def takes(condition: Callable[[], bool]) -> float:
    """Return how long it takes in virtual seconds until a condition holds."""
    began = trio.current_time()
    await until(condition)
    return trio.current_time() - began


async def test_pods_are_labelled_and_the_checker_reports_who_leads(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        assert at.cluster.serving == {"noti-1", "noti-2"}
        assert at.cluster.status["leaderNode"] == "noti-0"
        assert at.cluster.status["term"] == 1
        assert at.cluster.status["observedGeneration"] == 1
        assert at.cluster.events == ["LeaderKnown"]
        for pod in at.cluster.pods:
            assert pod["metadata"]["labels"]["app"] == "noti"
            assert pod["metadata"]["annotations"] == {TERM_ANNOTATION: "1"}
        assert at.nodes.addresses["noti-1"] == ("10.0.0.2", 8400)


async def test_nothing_is_written_while_nothing_changes(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        await trio.sleep(5)
        before = len(at.server.patches)
        await trio.sleep(600)
        assert len(at.server.patches) == before
        assert at.cluster.events == ["LeaderKnown"]


@promises.LABELS_FOLLOW_LEADER
@pytest.mark.parametrize("old", ["dead", "hanging", "deposed"])
async def test_a_change_of_leader_changes_labels_within_two_seconds(
    autojump_clock: object, old: str
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        if old == "deposed":
            at.nodes.elect("noti-2", 2, "noti-0", "noti-1")
        else:
            (at.nodes.dead if old == "dead" else at.nodes.hanging).add("noti-0")
            at.nodes.elect("noti-2", 2, "noti-1")
        assert await takes(lambda: at.cluster.roles[1:] == "fL") <= LABELLED_WITHIN_S
        await until(lambda: at.cluster.roles == ("ffL" if old == "deposed" else "-fL"))
        await until(lambda: at.cluster.status["leaderNode"] == "noti-2")
        assert "noti-2" not in at.cluster.serving


async def test_a_single_failure_takes_nothing_away(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        before = len(at.server.patches)
        for _ in range(20):
            at.nodes.failures = {"noti-0": 1, "noti-1": 1}
            await trio.sleep(1)
        assert len(at.server.patches) == before


async def test_each_pod_is_patched_once_though_the_watch_lags(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.apis["operator-a"].lag_s = 0.3
        at.server.asked.clear()
        for term in range(2, 6):
            leader = f"noti-{term % 3}"
            at.nodes.elect(leader, term, *({"noti-0", "noti-1", "noti-2"} - {leader}))
            await until(lambda leader=leader: at.cluster.status["leaderNode"] == leader)  # type: ignore[misc]
            await trio.sleep(1)
        assert at.server.asked.count(("pods", "patch")) <= 4 * 3 + 4, "few are done in two steps"


async def test_of_two_claims_the_higher_term_wins_whoever_was_labelled_before(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.nodes.say("noti-1", "leader", 2, "noti-1")
        await until(lambda: at.cluster.roles == "fLf")
        await trio.sleep(30)
        assert at.cluster.roles == "fLf"
        at.nodes.say("noti-0", "leader", 3, "noti-0")
        await until(lambda: at.cluster.roles == "Lff")


@promises.LABELS_FOLLOW_LEADER
async def test_an_election_leaves_the_follower_service_full(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        empty = []

        def look(_resource: str, _name: str) -> None:
            if not at.cluster.serving:
                empty.append(trio.current_time())

        at.server.on_write = look
        for number in range(3):
            at.nodes.say(f"noti-{number}", "candidate", 2)
        await until(lambda: at.cluster.roles == "fff")
        await until(lambda: at.cluster.reason == "NoLeader")
        assert len(at.cluster.serving) == 3
        at.nodes.elect("noti-1", 2, "noti-0", "noti-2")
        await until(lambda: at.cluster.roles == "fLf")
        assert at.cluster.serving == {"noti-0", "noti-2"}
        assert not empty


async def test_a_single_node_is_leader_and_serves(autojump_clock: object) -> None:
    async with stage(replicas=1) as at:
        at.operate()
        await settled(at, "L")
        assert at.cluster.serving == {"noti-0"}


async def test_zero_pods_are_reported_and_harm_nobody(autojump_clock: object) -> None:
    async with stage(replicas=0) as at:
        at.operate()
        await until(lambda: at.cluster.reason == "NoPods")
        at.nodes.elect("noti-0", 1)
        at.cluster.add_pod(0)
        await settled(at, "L")


async def test_a_pod_that_becomes_unready_loses_its_labels_and_gets_them_back(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.cluster.set_ready(1, ready=False)
        assert await takes(lambda: at.cluster.roles == "L-f") <= LABELLED_WITHIN_S
        assert at.cluster.serving == {"noti-2"}
        at.cluster.set_ready(1, ready=True)
        assert await takes(lambda: at.cluster.roles == "Lff") <= LABELLED_WITHIN_S


async def test_a_deleted_pod_comes_back_with_another_address_and_is_labelled(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.cluster.delete_pod(0)
        at.nodes.elect("noti-1", 2, "noti-2")
        await until(lambda: at.cluster.roles == "Lf")
        at.cluster.add_pod(0, ready=False)
        await trio.sleep(2)
        assert at.cluster.roles == "-Lf"
        at.nodes.say("noti-0", "follower", 2, "noti-1")
        at.cluster.set_ready(0, ready=True)
        await until(lambda: at.cluster.roles == "fLf")
        assert at.nodes.addresses["noti-0"] == ("10.0.0.4", 8400)


async def test_pods_of_somebody_else_are_not_touched_though_they_match(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.cluster.add_pod(7, owned=False)
        at.operate()
        await settled(at, "Lff-")
        assert at.cluster.labels(7) == {"app": "noti"}
        assert "noti-7" not in at.nodes.addresses


async def test_an_operator_that_reaches_no_pod_takes_no_browsers_away(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.nodes.dead |= {"noti-0", "noti-1", "noti-2"}
        await until(lambda: at.cluster.reason == "NoAnswer")
        assert at.cluster.roles == "---"
        assert len(at.cluster.serving) == 3
        at.nodes.dead.clear()
        await settled(at)


async def test_labels_that_another_writer_changed_are_mended(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.server.put(PODS, NS, "noti-1", metadata={"labels": {"app": "noti", "mine": "1"}})
        await until(lambda: at.cluster.roles == "Lff")
        assert at.cluster.labels(1)["mine"] == "1"


async def test_a_status_that_another_writer_changed_is_mended(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        right = at.cluster.status
        at.server.put(CHECKERS, NS, "noti", status={"leaderNode": "noti-9"})
        await until(lambda: at.cluster.status.get("leaderNode") == "noti-0")
        assert at.cluster.status["conditions"][0]["type"] == right["conditions"][0]["type"]
        assert at.cluster.events == ["LeaderKnown"]


async def test_the_crd_of_the_predecessor_is_enough(autojump_clock: object) -> None:
    async with stage() as at:
        at.server.status_fields = frozenset({"leaderNode", "lastUpdated"})
        at.operate()
        at.apis["operator-a"].lag_s = 1.5  # Each look is in another second than the one before.
        await until(lambda: at.cluster.status.get("leaderNode") == "noti-0")
        await trio.sleep(60)
        statuses = [one for one in at.server.patches if one[0] == "leaderstatuscheckers/status"]
        assert len(statuses) <= 2, "what the API drops is not written again and again"
        at.nodes.elect("noti-1", 2, "noti-0", "noti-2")
        await until(lambda: at.cluster.status["leaderNode"] == "noti-1")


# --- the API -------------------------------------------------------------------------------------


async def test_an_outage_of_the_api_is_survived_and_what_happened_meanwhile_is_seen(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        operator = at.operate()
        await settled(at)
        at.server.stop()
        await trio.sleep(60)
        assert not operator.works
        assert not operator.in_touch()
        at.nodes.elect("noti-2", 2, "noti-0", "noti-1")
        at.server.start()
        await settled(at, "ffL")
        assert operator.in_touch()
        assert len(at.server.asked) < 400, "retries are spread out"


async def test_a_short_outage_does_not_cost_the_lease(autojump_clock: object) -> None:
    async with stage() as at:
        operator = at.operate()
        await settled(at)
        at.server.stop()
        await trio.sleep(5)
        at.nodes.elect("noti-2", 2, "noti-0", "noti-1")
        at.server.start()
        await settled(at, "ffL")
        assert operator.works
        assert at.server.read(LEASES, NS, "noti-operator")["spec"]["leaseTransitions"] == 1


async def test_watches_that_end_are_resumed_from_where_they_were(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.server.asked.clear()
        for number in range(5):
            await trio.sleep(10)
            at.server.end_watches()
            at.cluster.set_ready(1, ready=number % 2 == 1)
            roles = "Lff" if number % 2 else "L-f"
            await until(lambda roles=roles: at.cluster.roles == roles)  # type: ignore[misc]
        assert ("pods", "list") not in at.server.asked


async def test_forgotten_changes_are_listed_anew_and_bookmarks_spare_it(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        for _ in range(3):  # Versions move on, by things that no watch tells.
            at.server.put(LEASES, NS, "other", spec={"moment": trio.current_time()})
        at.server.send_bookmarks()
        await trio.sleep(1)
        at.server.forget_past()
        at.server.asked.clear()
        at.server.end_watches()
        await trio.sleep(10)
        lists = [asked for asked in at.server.asked if asked[1] == "list"]
        assert len(lists) <= 3, "one for each watch at most"
        at.server.put(LEASES, NS, "other", spec={"moment": trio.current_time()})
        at.cluster.set_ready(1, ready=False)
        at.server.forget_past()
        at.server.end_watches()
        await until(lambda: at.cluster.roles == "L-f")


async def test_a_watch_that_ends_at_once_again_and_again_is_not_hammered(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.server.asked.clear()
        for _ in range(600):
            await trio.sleep(0.1)
            at.server.end_watches()
        assert at.server.asked.count(("pods", "watch")) < 120


async def test_throttling_is_obeyed_and_labels_come_in_the_end(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.server.throttled, at.server.retry_after_s = 6, 3.0
        began, asked = trio.current_time(), len(at.server.asked)
        at.nodes.elect("noti-2", 2, "noti-0", "noti-1")
        await settled(at, "ffL")
        soon = [moment for moment in at.server.moments[asked:] if moment < began + 2.5]
        assert len(soon) <= 8, "three patches, the lease, and no retry before its time"


async def test_watches_obey_throttling_too(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        await trio.sleep(20)
        at.server.throttled, at.server.retry_after_s = 3, 5.0
        began, asked = trio.current_time(), len(at.server.asked)
        at.server.end_watches()
        await trio.sleep(4.9)
        watches = [one for one in at.server.asked[asked:] if one[1] in ("watch", "list")]
        assert len(watches) == 3
        at.cluster.set_ready(1, ready=False)
        await until(lambda: at.cluster.roles == "L-f")
        assert trio.current_time() - began < 10


async def test_a_conflict_is_looked_at_again(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        touched: list[str] = []

        def meddle(resource: str, name: str) -> None:
            # Somebody changes the other pods between our decision and our patch of them.
            if resource == "pods" and len(touched) < 4:
                others = [one for one in ("noti-0", "noti-1", "noti-2") if one != name]
                touched.append(name)
                for other in others:
                    at.server.put(PODS, NS, other, note=len(touched))

        at.server.on_write = meddle
        at.nodes.elect("noti-2", 2, "noti-0", "noti-1")
        assert await takes(lambda: at.cluster.roles == "ffL") <= LABELLED_WITHIN_S
        assert touched


async def test_what_is_forbidden_is_reported_retried_seldom_and_done_when_allowed(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.server.forbidden = {("pods", "patch")}
        at.operate()
        await until(lambda: at.cluster.reason == "Forbidden")
        message = at.cluster.status["conditions"][0]["message"]
        assert "cannot patch" in message
        at.server.asked.clear()
        await trio.sleep(120)
        assert at.server.asked.count(("pods", "patch")) < 150
        assert at.cluster.events == ["Forbidden"]
        at.server.forbidden = set()
        await settled(at)


@pytest.mark.parametrize(
    "lacking",
    [("leaderstatuscheckers/status", "patch"), ("events", "create")],
)
async def test_a_status_or_event_that_may_not_be_written_delays_no_label(
    autojump_clock: object,
    lacking: tuple[str, str],
) -> None:
    async with stage() as at:
        at.server.forbidden = {lacking}
        at.operate()
        await until(lambda: at.cluster.roles == "Lff")
        for term, roles in enumerate(("fLf", "Lff", "ffL"), 2):
            leader = f"noti-{roles.index('L')}"
            at.nodes.elect(leader, term, *({"noti-0", "noti-1", "noti-2"} - {leader}))
            assert await takes(lambda roles=roles: at.cluster.roles == roles) <= LABELLED_WITHIN_S  # type: ignore[misc]
            await trio.sleep(20)


async def test_without_a_right_to_the_lease_nothing_is_done_until_it_is_there(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.server.forbidden = {("leases", "create")}
        with capture_logs() as logs:
            operator = at.operate()
            await trio.sleep(60)
        assert not operator.works
        assert at.cluster.roles == "---"
        told = [line for line in logs if "lease" in line["event"]]
        assert len(told) == 1, "told once"
        at.server.forbidden = set()
        await settled(at)


async def test_rights_that_go_with_the_release_are_no_error(autojump_clock: object) -> None:
    """A deleted release loses its Role a second or two before its pods are told to stop."""
    async with stage() as at:
        at.operate()
        await settled(at)
        with capture_logs() as logs:
            at.server.forbidden = set(RIGHTS)
            at.server.end_watches()
            at.cluster.set_ready(1, ready=False)
            await trio.sleep(2.5)
            at.scopes["operator-a"].cancel()
            await trio.sleep(1)
        assert [line for line in logs if line["log_level"] not in ("info", "debug")] == []


async def test_rights_that_stay_away_are_told(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        with capture_logs() as logs:
            at.server.forbidden = {("pods", "patch")}
            at.cluster.set_ready(1, ready=False)
            await trio.sleep(60)
        told = [line["event"] for line in logs if line["log_level"] == "warning"]
        assert told == ["cannot label pods, trying again"], "once"


# --- checkers ------------------------------------------------------------------------------------


async def test_a_checker_that_cannot_work_is_reported_and_stops_no_other(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        other = Cluster(at.server, at.nodes, "other")
        other.check()
        bad = Cluster(at.server, at.nodes, "bad")
        bad.check(rpcPort=0)
        at.operate()
        await settled(at)
        await until(lambda: bad.reason == "SpecInvalid")
        await until(lambda: other.reason == "StatefulSetMissing")
        await trio.sleep(120)
        assert bad.events == ["SpecInvalid"]
        assert other.events == ["StatefulSetMissing"]
        other.found(1)
        await until(lambda: other.roles == "L")
        bad.check(statefulSetName="noti")
        await until(lambda: bad.reason == "LeaderKnown")
        assert bad.status["observedGeneration"] == 2


async def test_a_namespace_where_nothing_is_allowed_is_reported(autojump_clock: object) -> None:
    async with stage() as at:
        at.server.forbidden = {("statefulsets", "list")}
        at.operate()
        await until(lambda: at.cluster.reason == "Forbidden")
        await trio.sleep(60)
        assert at.cluster.events == ["Forbidden"]
        at.server.forbidden = set()
        await settled(at)


async def test_a_defect_in_one_checker_is_logged_and_the_others_go_on(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        other = Cluster(at.server, at.nodes, "other")
        other.found(1)
        # An object that no API server would let in.
        at.server.put(STATEFUL_SETS, NS, "other", spec={"selector": {"matchLabels": 7}})
        with capture_logs() as logs:
            at.operate()
            await settled(at)
            await until(lambda: any(line["event"] == "checker failed" for line in logs))
        at.nodes.elect("noti-1", 2, "noti-0", "noti-2")
        await until(lambda: at.cluster.roles == "fLf")


async def test_a_stateful_set_may_come_and_go(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.server.delete(STATEFUL_SETS, NS, "noti")
        await until(lambda: at.cluster.reason == "StatefulSetMissing")
        for number in range(3):
            at.cluster.delete_pod(number)
        at.cluster.found(3)
        await settled(at)


async def test_a_checker_that_is_deleted_is_done_with(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.server.delete(CHECKERS, NS, "noti")
        await trio.sleep(1)
        at.nodes.addresses.clear()
        await trio.sleep(10)
        assert not at.nodes.addresses
        assert at.cluster.roles == "Lff"
        at.cluster.check()
        await settled(at)
        assert at.nodes.addresses


async def test_an_operator_of_named_checkers_leaves_the_others_to_another(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        other = Cluster(at.server, at.nodes, "other")
        other.found(1)
        at.operate("operator-a", "noti")
        await settled(at)
        await trio.sleep(10)
        assert other.roles == "-"
        assert other.reason == ""


async def test_a_local_developer_reaches_pods_through_forwarded_ports(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.cluster.check(localDev=True)
        at.operate()
        await settled(at)
        assert at.nodes.addresses["noti-2"] == ("127.0.0.1", 8600)


# --- two operators -------------------------------------------------------------------------------


async def test_of_two_operators_one_works_and_the_other_takes_over_when_it_dies(
    autojump_clock: object,
) -> None:
    async with stage() as at:
        at.operate("operator-a")
        await settled(at)
        at.operate("operator-b")
        await trio.sleep(60)
        assert at.working() == ["operator-a"]
        at.apis["operator-a"].server = dead = type(at.server)()  # Cut off: it can close nothing.
        dead.stop()
        at.nodes.elect("noti-1", 2, "noti-0", "noti-2")
        died_at = trio.current_time()
        while "operator-b" not in at.working():
            assert len(at.working()) <= 1
            await trio.sleep(0.05)
        assert trio.current_time() - died_at <= TAKEN_OVER_WITHIN_S
        assert at.working() == ["operator-b"]
        await settled(at, "fLf")
        await trio.sleep(30)
        assert at.working() == ["operator-b"]


async def test_a_lease_that_is_given_back_is_taken_within_seconds(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate("operator-a")
        await settled(at)
        at.operate("operator-b")
        await trio.sleep(30)
        at.scopes["operator-a"].cancel()
        await until(lambda: at.holder == "")
        assert await takes(lambda: at.holder == "operator-b") <= 3.0
        at.nodes.elect("noti-1", 2, "noti-0", "noti-2")
        await settled(at, "fLf")


async def test_a_new_operator_repeats_no_event_of_the_old_one(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate("operator-a")
        await settled(at)
        at.scopes["operator-a"].cancel()
        before = len(at.server.patches)
        at.operate("operator-b")
        await until(lambda: at.working() == ["operator-b"])
        await trio.sleep(10)
        assert at.cluster.events == ["LeaderKnown"]
        assert len(at.server.patches) == before


async def test_the_lease_is_given_back_after_the_work_has_stopped(autojump_clock: object) -> None:
    async with stage() as at:
        at.operate()
        await settled(at)
        at.scopes["operator-a"].cancel()
        await until(lambda: at.holder == "")
        at.server.put(PODS, NS, "noti-0", metadata={"labels": {"app": "noti"}})
        await trio.sleep(30)
        assert SERVE_LABEL not in at.cluster.labels(0)
        assert at.cluster.roles == "-ff"
