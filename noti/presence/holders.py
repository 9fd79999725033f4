"""Under which names the processes of a node announce their streams.

A node that serves browsers itself is a holder by its id; each of its web workers is one, too.
"""


def holder_of(node_id: str, worker: int) -> str:
    """Return the name of a web worker; they have the numbers 1, 2, 3 and so on."""
    return f"{node_id}/{worker}"


def node_of(holder: str) -> str:
    """Return the id of the node of which a holder is a part."""
    return holder.partition("/")[0]


def is_left_over(holder: str, node_id: str, workers: int) -> bool:
    """Whether a holder is a part of a node that it has no more, now that it has so many workers.

    The node itself is one: what it announced under its id, it has announced in an earlier life.
    """
    name, _, number = holder.partition("/")
    return name == node_id and (not number.isdecimal() or int(number) > workers)
