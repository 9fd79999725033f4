"""The `noti` command: which commands there are, and how every one of them ends.

Each command has a module here.

Enters: the command line.
Leaves: an exit status and, when something is wrong, exactly one line on stderr.
Never: shows a traceback to the user.

Exit status: 0 done, 1 failed, 2 wrong flag or setting, 130 interrupted.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let the body find no module of this name that is not loaded already."""
    modules: dict[str, Any] = sys.modules
    hides = name not in modules
    if hides:
        modules[name] = None
    try:
        yield
    finally:
        if hides:
            del modules[name]


# structlog loads rich if it is there, for tracebacks that are shown another way here: 40 ms and
# 3 MB of every node.
with _hidden("rich"):
    import structlog

from noti import __version__, telemetry  # noqa: E402
from noti.errors import ConfigInvalid, LocalError, NotiError, leaves_of  # noqa: E402
from noti.importing import importing  # noqa: E402
from noti.redaction import redacted  # noqa: E402

log = structlog.get_logger("noti.cli")

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

_COMMANDS = {
    "run": ("run", "Run one node until SIGTERM or Ctrl-C."),
    "config": ("config", "Show the settings that a node would run with, as a file has them."),
    "leave": ("leave", "Decommission the node that runs with --data-dir, permanently."),
    "demo": ("demo", "Run NATS, three nodes and a publisher until Ctrl-C."),
    "publish": ("publish", "Publish events, and wait until they are taken."),
    "mock-publisher": ("mock_publisher", "Publish numbered events to NATS until Ctrl-C."),
    "status": ("status", "Show what a node knows: its role, log, source and clients."),
    "members": ("members", "Show the members of the cluster as a node sees them."),
    "event": ("event", "Send a user event to all members, as serf event does."),
    "query": ("query", "Ask all members something, as serf query does."),
    "keys": ("keys", "Show and change the keys of gossip on all members."),
    "reachability": ("reachability", "Test whether gossip reaches all live members."),
    "rtt": ("rtt", "Estimate the round trip between two members."),
    "force-leave": ("force_leave", "Have all members take a failed one for one that left."),
    "trace": ("trace", "Show what each node knows of the event ID."),
    "tail": ("tail", "Follow the event stream at URL, and resume it when it breaks."),
    "token": ("token", "Print a token that a node accepts."),
    "disconnect": ("disconnect", "End streams on all nodes, by whose they are."),
    "dead-letter": ("dead_letter", "Look at, and publish again, what could not become events."),
    "certs": ("certs", "Make and read the certificates that nodes use for TLS."),
    "backup": ("backup", "Write all that the cluster keeps into a file."),
    "restore": ("backup", "Make a new cluster of one node out of a backup."),
    "recover": ("backup", "Make a new cluster of a node whose majority is gone for ever."),
    "wal": ("wal", "Look into the data directory of a stopped node."),
    "operator": ("operator", "Label pods in Kubernetes by their role."),
}
"""Where each command is, and what it does. It is imported when it is used: all of them together
take longer to load than a node, also for the list that --help shows."""


_TAKES_BYTES = frozenset({"event", "query"})
"""Commands with a payload that may be any bytes; they look at their other arguments themselves."""


class _Commands(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (_, does) in _COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        with importing():
            module = import_module(f"noti.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="noti")
def commands() -> None:
    """Highly available notification server: JetStream in, Raft in the middle, SSE out."""


def main() -> None:
    """Run the command line of this process and exit."""
    _fill_standard_descriptors()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        telemetry.set_up(level="warning", form="human")  # `run` sets it up again, by its settings
        status = exit_status(sys.argv[1:])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = INTERRUPTED
    sys.exit(status)


class _ClosedOutput(io.RawIOBase):
    """What is written to fails, where Python would let it vanish."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise LocalError("cannot write: standard output is closed")


def _fill_standard_descriptors() -> None:
    """Let no file that is opened later take the place of a closed standard input or output.

    Who closes standard error wants to read nothing; a closed output is told when it is needed.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest number that is free. Only errors can be used as what they are.
            os.open(os.devnull, os.O_RDONLY if descriptor == 1 else os.O_WRONLY)
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(_ClosedOutput(), write_through=True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - as long as the process


def exit_status(
    arguments: Sequence[str], command: click.Command = commands, name: str = "noti"
) -> int:
    """Run one command and return its exit status; whatever went wrong is one line on stderr."""
    if sys.flags.optimize:
        return _fail("assertions guard the data and must stay on; run without -O", 2)
    if not _TAKES_BYTES.intersection(arguments[:1]) and (broken := _not_text(arguments)):
        return _fail(f"{broken} is not UTF-8; write it as text (see {name} --help)", 2)
    try:
        returned = command.main(list(arguments), prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name
        return _fail(f"{error.format_message()} (see {path} --help)", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost boundary: a person gets one line
        return _explain(error)
    return returned if isinstance(returned, int) else 0


def _not_text(arguments: Sequence[str]) -> str:
    """Return which argument is no text, without its value, which may be a secret; "" if none is."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            flag, equals, _ = argument.partition("=")
            named = equals and flag.startswith("--") and flag.isascii() and flag.isprintable()
            return f"the value of {flag}" if named else f"argument {number}"
    return ""


def _explain(error: Exception) -> int:
    leaves = leaves_of(error)
    ours = [leaf for leaf in leaves if isinstance(leaf, NotiError)]
    if len(ours) == len(leaves):
        return _fail(str(ours[0]), 2 if isinstance(ours[0], ConfigInvalid) else 1)
    foreign = next(leaf for leaf in leaves if not isinstance(leaf, NotiError))
    if isinstance(foreign, OSError) and foreign.errno in (errno.ENOSPC, errno.EDQUOT):
        return _fail(f"cannot write: {foreign.strerror}; make room", 1)
    log.error("internal error", exc_info=error)
    return _fail(f"internal error, please report it: {type(foreign).__name__}: {foreign}", 1)


def _fail(problem: str, exit_status: int) -> int:
    line = redacted(" ".join(problem.split()))
    if telemetry.logs_json():
        log.critical(line, exit_status=exit_status)
    else:
        click.echo(f"noti: error: {line}", err=True)
    return exit_status
