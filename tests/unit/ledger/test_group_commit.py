"""Nobody is told of a transaction before it is on disk, and many share one sync."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.cluster_store import Batch, ClusterStore
from cyxnode.ledger.group_commit import GroupCommit
from cyxnode.protocol.errors import LocalError
from ledger_world import SOL, lamports_of, make_cluster, payment, wallet

ALICE = wallet("alice").pubkey()


def on_disk(cluster: LocalCluster) -> int:
    assert cluster.store is not None
    return sum(1 for _ in cluster.store.transactions())


async def test_what_is_durable_is_on_disk_and_many_share_one_sync(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []
    plain = ClusterStore.write

    def watched(store: ClusterStore, batch: Batch) -> None:
        batches.append(batch)
        plain(store, batch)

    cluster = make_cluster(tmp_path)
    monkeypatch.setattr(ClusterStore, "write", watched)
    commit = GroupCommit(cluster.store)
    nursery.start_soon(commit.run)
    for number in range(50):
        cluster.send(payment(cluster, ALICE, SOL + number))
    assert (on_disk(cluster), len(batches)) == (0, 0)
    await commit.durable()
    assert (on_disk(cluster), len(batches)) == (50, 1)
    await commit.durable()
    assert len(batches) == 1, "nothing to write"
    nursery.cancel_scope.cancel()


async def test_a_transaction_during_a_sync_waits_for_the_next_one(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(tmp_path)
    plain, entered, may_go_on = ClusterStore.write, trio.Event(), trio.Event()

    def slow(store: ClusterStore, batch: Batch) -> None:
        trio.from_thread.run_sync(entered.set)
        trio.from_thread.run(may_go_on.wait)
        plain(store, batch)

    monkeypatch.setattr(ClusterStore, "write", slow)
    commit = GroupCommit(cluster.store)
    nursery.start_soon(commit.run)
    told: list[int] = []

    async def tell(number: int) -> None:
        cluster.send(payment(cluster, ALICE, SOL + number))
        await commit.durable()
        assert on_disk(cluster) > number
        told.append(number)

    async with trio.open_nursery() as senders:
        senders.start_soon(tell, 0)
        await entered.wait()
        senders.start_soon(tell, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        may_go_on.set()
    assert told == [0, 1]
    nursery.cancel_scope.cancel()


async def test_a_disk_that_refuses_ends_the_chain_and_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: ClusterStore, batch: Batch) -> None:
        raise LocalError("full", field="data dir")

    cluster = make_cluster(tmp_path)
    monkeypatch.setattr(ClusterStore, "write", full)
    commit = GroupCommit(cluster.store)
    cluster.send(payment(cluster, ALICE, SOL))
    told: list[bool] = []

    async def tell() -> None:
        await commit.durable()
        told.append(True)

    with pytest.RaisesGroup(LocalError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            nursery.start_soon(commit.run)
    assert told == []


async def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path)
    GroupCommit(cluster.store)
    cluster.send(payment(cluster, ALICE, SOL))
    cluster.close()
    again = make_cluster(tmp_path)
    assert lamports_of(again, ALICE) == SOL and on_disk(again) == 1
    again.close()


async def test_a_chain_without_a_disk_never_waits() -> None:
    await GroupCommit(None).durable()
    await GroupCommit(None).run()
