"""The operator in its real world: the cluster's API, gRPC to nodes, certificate files, probes.

asyncio loop, certificates     for gRPC
  API client, roles            connections
    probes
      operator                 stops first, and gives the Lease back
"""

import random
from functools import partial
from pathlib import Path

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates import uses
from noti.certificates.renewal import keep_renewed
from noti.kubernetes.client import open_client
from noti.kubernetes.operator import Operator, OperatorConfig
from noti.kubernetes.ops import serve_ops
from noti.kubernetes.reconciling import Surroundings
from noti.optional import keep_going
from noti.rpc.roles import Roles
from noti.service import running
from noti.trio_clock import TrioClock


async def run(
    config: OperatorConfig,
    ops_addr: Address,
    tls: tuple[Path, Path, Path] | None,
    *,
    plain_too: bool = False,
) -> None:
    """Operate until cancelled; `tls` is certificate, key and CAs, or None for plain text.

    With `plain_too`, plain text is spoken also to nodes that have no TLS.
    Raises `ConfigInvalid`, `AddressInUse`. *Cancellation*: gives the Lease back, bounded in time.
    """
    asyncio_loop, rng = AsyncioLoop(), random.Random()
    files = None if tls is None else uses.for_client(*tls)
    renewed = [] if files is None else [files]
    async with (
        running("asyncio loop", asyncio_loop.run),
        running("certificates", partial(keep_renewed, renewed)),
    ):
        api = open_client()
        roles = Roles(
            asyncio_loop, lambda: None if files is None else files.current, plain_too=plain_too
        )
        operator = Operator(config, Surroundings(api, roles, rng, config.identity))
        serve = partial(serve_ops, ops_addr, lambda: operator.works, operator.in_touch)
        try:
            async with running("probes", serve):
                await keep_going("operator", operator.run, TrioClock(), rng)
        finally:
            roles.close()
