"""Nodes of ours and Serf agents agree who leaves, who fails, and who only seemed to."""

import pytest
import trio

from tests import promises
from tests.interop.serf.agents import SerfAgent
from tests.interop.serf.fleets import DETECT_S, FAILED_S, Fleet, fleet, until
from tests.interop.serf.nodes import OurNode

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

PAUSE_S = 8.0
"""Longer than a probe and the shortest suspicion."""


@promises.SERF_AGENTS_ARE_PEERS
async def test_all_show_who_leaves_as_left() -> None:
    async with fleet(agents=2, nodes=2) as four:
        await four.nodes[1].leave()
        await four.until_all_see({"node2": "left"}, without=["node2"])
        await four.agents[1].call("leave")
        left = {"node2": "left", "agent2": "left"}
        await four.until_all_see(left, without=left)


@promises.SERF_AGENTS_ARE_PEERS
async def test_all_show_a_killed_node_of_ours_as_failed_within_six_seconds() -> None:
    async with fleet(agents=3, nodes=3) as six:
        await _see_one_fail_in_time(six, six.nodes[1:])


@promises.SERF_AGENTS_ARE_PEERS
async def test_all_show_a_killed_agent_as_failed_within_six_seconds() -> None:
    async with fleet(agents=3, nodes=3) as six:
        await _see_one_fail_in_time(six, six.agents[1:])


async def _see_one_fail_in_time(six: Fleet, victims: list[SerfAgent] | list[OurNode]) -> None:
    """Kill the first, and the second only if by bad luck nobody probed the first one for 2 s."""
    failed: dict[str, str] = {}
    for victim in victims:
        victim.kill()
        failed[victim.name] = "failed"
        try:
            await six.until_all_see(failed, without=failed, within_s=FAILED_S)
        except AssertionError:
            assert victim is not victims[-1]
            await six.until_all_see(failed, without=failed, within_s=DETECT_S)
        else:
            return


@promises.SERF_AGENTS_ARE_PEERS
async def test_nobody_else_dies_while_an_agent_is_paused_and_it_comes_back() -> None:
    async with fleet(agents=3, nodes=3) as six:
        paused = six.agents[2]
        paused.pause()
        views = {}
        with trio.move_on_after(PAUSE_S):
            while True:
                for name, view in (await six.views(without=[paused.name])).items():
                    others = {one: state for one, state in view.items() if one != paused.name}
                    # On a busy machine somebody may be late, and object.
                    assert set(others.values()) <= {"alive", "suspect"}, (name, others)
                    views[name] = view[paused.name]
                await trio.sleep(0.2)
        assert set(views.values()) & {"suspect", "failed"}, views
        paused.resume()
        await six.until_all_see()


@promises.SERF_AGENTS_ARE_PEERS
async def test_nobody_who_lives_is_forced_out_and_its_crash_is_shown_as_one() -> None:
    async with fleet(agents=2, nodes=2) as four:
        for attempt in range(3):
            await four.agents[0].call("force-leave", "node2")
            four.nodes[0].gossip.force_leave("agent2")
            try:
                await four.until_all_see()
                break
            except AssertionError:
                # Where nobody heard it, as packets get lost, nobody refutes it; nor does Serf
                # look at that again.
                if attempt == 2:
                    raise
        four.nodes[1].kill()
        four.agents[1].kill()
        failed = {"node2": "failed", "agent2": "failed"}
        await four.until_all_see(failed, without=failed, within_s=DETECT_S)


async def test_failed_members_are_forced_out_and_pruned_by_agents_and_by_nodes() -> None:
    async with fleet(agents=2, nodes=2) as four:
        four.nodes[1].kill()
        four.agents[1].kill()
        absent = ("node2", "agent2")
        failed, left = (dict.fromkeys(absent, word) for word in ("failed", "left"))
        await four.until_all_see(failed, without=absent, within_s=DETECT_S)
        await four.agents[0].call("force-leave", "node2")
        four.nodes[0].gossip.force_leave("agent2")
        await four.until_all_see(left, without=absent)
        four.nodes[0].gossip.force_leave("agent2", prune=True)

        async def all_forgot() -> bool:
            # An agent says it twice, and both times perhaps to the dead: so once more, if need be.
            await four.agents[0].call("force-leave", "-prune", "node2")
            views = await four.views(without=absent)
            return all(view.keys() == {"agent1", "node1"} for view in views.values())

        await until(all_forgot, four.views)
