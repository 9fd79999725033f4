"""Load for any server of event streams, with options written `name=value` as for every benchmark.

`just bench sse url=http://127.0.0.1:8402/category clients=5000 publish=nats://…`
"""

import sys

from noti.cli import exit_status
from tests.bench.load.command import sse


def main() -> None:
    arguments: list[str] = []
    for given in sys.argv[1:]:
        name, equals, value = given.partition("=")
        if name == "url":
            arguments.append(value)
        elif equals and not given.startswith("-"):
            arguments.append(f"--{given}")
        else:
            arguments.append(given if given.startswith("-") else f"--{given}")
    sys.exit(exit_status(arguments, sse, "just bench sse"))


if __name__ == "__main__":
    main()
