"""Members that get wrong packets and streams stay right; `just fuzz gossip` is the long run."""

import pytest

from tests import promises
from tests.fuzz.fuzz import main
from tests.fuzz.gossip_members import GossipFuzz


@promises.INVALID_BYTES_STOP_NO_NODE
def test_members_that_get_mutated_packets_and_streams_are_right_afterwards() -> None:
    fuzz = GossipFuzz(seed=1)
    fuzz.run(4000)
    assert fuzz.rejected > 400


def test_long_run_says_how_much_it_has_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gossip", "inputs=400", "seed=2"]) == 0
    assert "400 packets and streams" in capsys.readouterr().out


def test_wrong_option_of_the_long_run_is_one_clear_line() -> None:
    with pytest.raises(SystemExit, match="inputs=N nor seed=N"):
        main(["gossip", "minutes=1"])
