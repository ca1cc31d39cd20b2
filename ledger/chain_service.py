"""What `cyxnode chain run` runs: the cluster, its genesis, a ticker of 400 ms slots, RPC and pub/sub servers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import SLOT_MS
from ..protocol.units import base58
from .addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from .cluster import LocalCluster
from .genesis import ensure_genesis
from .group_commit import GroupCommit
from .pubsub_server import serve_pubsub
from .rpc_methods import RpcMethods
from .rpc_server import open_port_pair, serve_rpc
from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from trio_typing import TaskStatus

_log = structlog.get_logger()


async def serve_chain(
    host: str,
    port: int,
    data_dir: Path | None,
    *,
    unbonding_s: int | None = None,
    bare: bool = False,
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a local chain until cancelled; starts with the URL once nodes can register.

    `data_dir` None forgets everything at the end; port 0 picks a free one, and the next one serves websockets; a `bare`
    chain has the mint but no escrow program; `unbonding_s` as in `ensure_genesis`. LocalError names
    `port`, `host` or `data dir` when it cannot be had.
    """
    began = time.monotonic()
    path = data_dir / "chain" if data_dir is not None else None
    cluster = LocalCluster(os.urandom, now_unix_s=_wall_unix_s(), path=path)
    try:
        await ensure_genesis(cluster, unbonding_s=unbonding_s, bare=bare)
        (listeners, bound), (socket_listeners, _) = await open_port_pair(host, port)
        commit = GroupCommit(cluster.store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit.run)
            pubsub = await nursery.start(serve_pubsub, Subscriptions(cluster), socket_listeners, commit.durable)
            nursery.start_soon(serve_rpc, RpcMethods(cluster).call, listeners, pubsub.handler, commit.durable)
            nursery.start_soon(tick, cluster, _wall_unix_s)
            url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
            _log.info(
                "chain.ready",
                url=url,
                program=base58(LOCAL_PROGRAM_ID),
                mint=base58(LOCAL_MINT),
                genesis=base58(cluster.genesis_hash),
                slot=cluster.slot,
                data_dir=str(data_dir) if data_dir else None,
                started_in_ms=int(1000 * (time.monotonic() - began)),
            )
            task_status.started(url)
    except BaseExceptionGroup as group:
        _, rest = group.split(LocalError)
        if rest is None:
            raise _first(group) from None
        raise
    finally:
        cluster.close()


async def tick(cluster: LocalCluster, unix_s: Callable[[], int]) -> None:
    """Advance one slot every SLOT_MS of trio's clock. Time lost in a pause is not caught up: slots are not owed."""
    due = trio.current_time()
    while True:
        due = max(due + SLOT_MS / 1000, trio.current_time())
        await trio.sleep_until(due)
        cluster.advance(unix_s())


def _wall_unix_s() -> int:
    return int(time.time())


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error of a group whose members are all of one kind."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
