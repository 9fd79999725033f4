"""Revocations go through the log."""

from noti.authorization.revoking import Revoking
from noti.history.commands import decode
from noti.history.revocations import Revoke
from noti.trio_clock import TrioClock


class FixedClock(TrioClock):
    def wall_ms(self) -> int:
        return 1000


async def test_a_revocation_is_a_command_with_its_time() -> None:
    proposed: list[bytes] = []

    async def propose(command: bytes) -> None:
        proposed.append(command)

    revoking = Revoking(propose, FixedClock())
    await revoking.revoke(subject="7", for_s=2.5)
    await revoking.revoke(token_id="j", for_s=0)
    assert [decode(one) for one in proposed] == [
        Revoke("7", "", 3500, 1000),
        Revoke("", "j", 1000, 1000),
    ]
