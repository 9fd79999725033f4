"""`noti force-leave` has the node spread that another one left, and prints nothing, as Serf."""

from pathlib import Path

import pytest

from tests.cli.local_nodes import Shell, scripted_node


def test_order_is_passed_on_with_its_wish_to_prune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_node(tmp_path) as node:
        node.answers["force-leave"] = []
        shell = Shell(tmp_path, capsys)
        assert shell.run("force-leave", "beta") == (0, [])
        assert shell.run("force-leave", "--prune", "beta") == (0, [])
        del node.answers["force-leave"]
        assert shell.run("force-leave", "beta") == (1, ["noti: error: no force-leave here"])
    assert [request["prune"] for request in node.asked] == [False, True, False]
