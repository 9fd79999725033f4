"""`just sim`: many seeds, or one that is told as a story.

Enters: `seeds=1000`, `first=0`, `seed=42`, `layer=core|nodes|gossip`. Leaves: a progress bar and
figures; at the first failure the command that replays it, and exit status 1.
Never: real time inside a run; the same seed gives the same trace, in any process.

Each seed draws a storm of faults: in the core layer for the Raft core alone, in the nodes layer for
the real node tree with everything outside it in memory, in the gossip layer for members that only
gossip, up to a hundred of them.
"""

import gc
import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import Progress

from tests.simulation.core_layer import idle_core, run_core
from tests.simulation.gossip_layer import idle_gossip, run_gossip
from tests.simulation.node_layer import idle_nodes, run_nodes

IDLE_S = 300.0
"""Virtual seconds of an idle cluster, to tell the speed."""


LAYERS = {"core": run_core, "nodes": run_nodes, "gossip": run_gossip}
IDLE = {"core": idle_core, "nodes": idle_nodes, "gossip": idle_gossip}


def options_of(arguments: list[str]) -> dict[str, str]:
    """Return the `name=value` arguments; exits with one line when something is wrong."""
    options = {"layer": "core", "first": "0"}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        number = name in ("seed", "seeds", "first") and value.isdigit()
        if not equals or not (number or (name == "layer" and value in LAYERS)):
            sys.exit(
                f"just sim: {argument!r} is none of seeds=N, seed=N, first=N, "
                "layer=core|nodes|gossip"
            )
        options[name] = value
    return options


def replay(layer: str, seed: int, console: Console) -> int:
    """Tell one seed's story; return the exit status."""
    outcome = LAYERS[layer](seed, print)
    console.print(f"trace {outcome.trace_hash}", highlight=False)
    if outcome.failure is not None:
        console.print(outcome.failure, style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


def run_many(layer: str, seeds: range, console: Console) -> int:
    """Run seeds until one fails; return the exit status."""
    started, processor_started = time.perf_counter(), time.process_time()
    virtual_s = 0.0
    reached: Counter[str] = Counter()
    with Progress(console=console) as progress:
        task = progress.add_task(f"{layer} layer", total=len(seeds))
        for seed in seeds:
            outcome = LAYERS[layer](seed)
            if outcome.failure is not None:
                console.print(outcome.report(), highlight=False, markup=False, soft_wrap=True)
                return 1
            virtual_s += outcome.virtual_s
            reached.update(outcome.reached.keys())
            progress.advance(task)
    wall_s = time.perf_counter() - started
    processor_s = time.process_time() - processor_started
    console.print(f"{len(seeds)} seeds, no failure, {len(seeds) / wall_s:.1f} seeds/s")
    console.print(f"{virtual_s / processor_s:.0f} simulated hours per processor hour under faults")
    processor_started = time.process_time()
    IDLE[layer](IDLE_S)
    idle = IDLE_S / (time.process_time() - processor_started)
    console.print(f"{idle:.0f} simulated hours per processor hour for an idle cluster of three")
    for state, count in sorted(reached.items()):
        console.print(f"  {count:6} seeds reached: {state}", highlight=False)
    return 0


def main(arguments: list[str]) -> int:
    """Run what the arguments say; return the exit status."""
    options = options_of(arguments)
    console = Console()
    if "seed" in options:
        return replay(options["layer"], int(options["seed"]), console)
    first = int(options["first"])
    return run_many(
        options["layer"], range(first, first + int(options.get("seeds", "200"))), console
    )


if __name__ == "__main__":
    # A run makes millions of values and hardly a cycle of them: to look for one after every 700 new
    # ones takes a tenth of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.exit(main(sys.argv[1:]))
