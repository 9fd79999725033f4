"""Numbered events at full speed, while leaders of noti and of NATS die.

`just interop-nats minutes=2` runs the same for longer.
"""

from pathlib import Path

import pytest

from tests import promises
from tests.interop.nats.trouble import Plan, Retention, run

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SECONDS = 10.0


@promises.NATS_TROUBLE_COSTS_NO_EVENT
@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
async def test_every_number_is_shown_once_and_in_order_whatever_is_killed(
    tmp_path: Path, retention: Retention
) -> None:
    done = await run(tmp_path, Plan(retention, servers=1, seconds=SECONDS, nats_restarts=5))
    print(done)
    assert done.leaders_killed >= 2
    assert done.nats_restarted == 5


@promises.NATS_TROUBLE_COSTS_NO_EVENT
async def test_every_number_is_shown_once_while_a_cluster_of_nats_changes_its_leaders(
    tmp_path: Path,
) -> None:
    done = await run(tmp_path, Plan("workqueue", servers=3, seconds=SECONDS, nats_restarts=3))
    print(done)
    assert done.leaders_killed >= 2
    assert done.steps_down > 0
