"""Nodes of ours and Serf agents agree who leaves, who fails, and who only seemed to."""

import pytest
import trio

from tests.interop.serf.agents import SerfAgent
from tests.interop.serf.fleets import DETECT_S, FAILED_S, Fleet, fleet
from tests.interop.serf.nodes import OurNode

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

PAUSE_S = 8.0
"""Longer than a probe and the shortest suspicion."""


async def test_all_show_who_leaves_as_left() -> None:
    async with fleet(agents=2, nodes=2) as four:
        await four.nodes[1].leave()
        await four.until_all_see(node2="left", without=["node2"])
        await four.agents[1].call("leave")
        await four.until_all_see(node2="left", agent2="left", without=["node2", "agent2"])


async def test_all_show_a_killed_node_of_ours_as_failed_within_six_seconds() -> None:
    async with fleet(agents=3, nodes=3) as six:
        await _see_one_fail_in_time(six, six.nodes[1:])


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
            await six.until_all_see(without=list(failed), within_s=FAILED_S, **failed)
        except AssertionError:
            assert victim is not victims[-1]
            await six.until_all_see(without=list(failed), within_s=DETECT_S, **failed)
        else:
            return


async def test_only_a_paused_agent_is_doubted_and_it_comes_back() -> None:
    async with fleet(agents=3, nodes=3) as six:
        paused = six.agents[2]
        paused.pause()
        views = {}
        with trio.move_on_after(PAUSE_S):
            while True:
                for name, view in (await six.views(without=[paused.name])).items():
                    others = {one: state for one, state in view.items() if one != paused.name}
                    assert set(others.values()) == {"alive"}, (name, others)
                    views[name] = view[paused.name]
                await trio.sleep(0.2)
        assert set(views.values()) & {"suspect", "failed"}, views
        paused.resume()
        await six.until_all_see()


async def test_all_show_a_failed_member_as_left_when_it_is_forced_out() -> None:
    async with fleet(agents=2, nodes=2) as four:
        four.nodes[1].kill()
        await four.until_all_see(node2="failed", without=["node2"], within_s=DETECT_S)
        await four.agents[0].call("force-leave", "node2")
        await four.until_all_see(node2="left", without=["node2"])
