"""The `noti` command: which commands there are, and how every one of them ends.

Enters: the command line. Leaves: an exit status and, when something is wrong, exactly one line on
stderr. Never: a traceback for the user, work of its own; each command has a module here.

Exit status: 0 done, 1 failed, 2 wrong flag or setting, 130 interrupted.
"""

import sys
from collections.abc import Iterator, Sequence

import click
import structlog

from noti import __version__, telemetry
from noti.cli.bench import bench
from noti.cli.certs import certs
from noti.cli.demo import demo
from noti.cli.leave import leave
from noti.cli.mock_publisher import mock_publisher
from noti.cli.operator import operator
from noti.cli.publish import publish
from noti.cli.run import run
from noti.cli.status import members, status
from noti.cli.tail import tail
from noti.cli.wal import wal
from noti.errors import ConfigInvalid, NotiError

log = structlog.get_logger("noti.cli")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="noti")
def commands() -> None:
    """Highly available notification server: JetStream in, Raft in the middle, SSE out."""


for _command in (
    run,
    leave,
    demo,
    publish,
    mock_publisher,
    status,
    members,
    tail,
    certs,
    bench,
    wal,
    operator,
):
    commands.add_command(_command)


def main() -> None:
    """Run the command line of this process and exit."""
    telemetry.set_up(level="warning", form="human")  # `run` sets it up again as it is told to
    sys.exit(exit_status(sys.argv[1:]))


def exit_status(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; whatever went wrong is told in one line."""
    if sys.flags.optimize:
        return _fail("assertions guard the data and must stay on; run without -O", 2)
    try:
        returned = commands.main(list(arguments), prog_name="noti", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "noti"
        return _fail(f"{error.format_message()} (see {path} --help)", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost boundary: a person gets one line
        return _explain(error)
    return returned if isinstance(returned, int) else 0


def _explain(error: Exception) -> int:
    leaves = list(_leaves(error))
    ours = [leaf for leaf in leaves if isinstance(leaf, NotiError)]
    if len(ours) == len(leaves):
        return _fail(str(ours[0]), 2 if isinstance(ours[0], ConfigInvalid) else 1)
    foreign = next(leaf for leaf in leaves if not isinstance(leaf, NotiError))
    log.error("internal error", exc_info=error)
    return _fail(f"internal error, please report it: {type(foreign).__name__}: {foreign}", 1)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _fail(problem: str, exit_status: int) -> int:
    click.echo("noti: error: " + " ".join(problem.split()), err=True)
    return exit_status
