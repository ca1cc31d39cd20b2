"""A receipt beside the chain that it speaks of: what no signature in it proves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cyxnode.ledger import receipt_chain
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.receipt_chain import confirm_receipt
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.receipt import open_receipt
from inference_world import question, serving
from market_world import open_world, simple_order


@asynccontextmanager
async def settled(kind: str) -> AsyncIterator[tuple[Any, dict[str, Any], ChainClient]]:
    """A server, the receipt of a job that was paid, and a reader of the chain."""
    async with open_world() as world:
        for number in range(5):
            await world.add_node(f"node{number}", models=serving())
        requester = await world.add_requester()
        order = simple_order(requester) if kind == "train" else question()
        receipt = (await requester.submit(order)).receipt
        assert receipt is not None
        rpc = DirectRpc(world.cluster)
        yield rpc, receipt, ChainClient(rpc, KeyPair.generate(), LOCAL_PROGRAM_ID)


@pytest.mark.parametrize("kind", ["train", "infer"])
async def test_the_chain_says_the_same(autojump_clock: object, kind: str) -> None:
    async with settled(kind) as (rpc, receipt, reader):
        lines = await confirm_receipt(rpc, receipt, reader)
        assert len(lines) == 3
        assert "settle OK" in lines[-1]


@pytest.mark.parametrize(
    ("terms", "outcome", "field"),
    [
        ({"open_slot": 1}, {}, "receipt.open_slot"),
        ({"budget": 1}, {}, "receipt.evidence.announce"),
        ({"spec_hash": bytes(32)}, {}, "receipt.evidence.announce"),
        ({"committee": 0}, {}, "receipt.committee"),
        ({}, {"price": 1}, "receipt.price_micro_cyx"),
        ({}, {"units": 1}, "receipt.paid"),
        ({}, {"verdict": 2}, "receipt.status"),
        ({}, {"result_hash": bytes(32)}, "receipt.result"),
        ({}, {"fee_mask": 0}, "receipt.verified_by"),
        ({"genesis": bytes(32)}, {}, "receipt.network.genesis"),
        ({"program": bytes(32)}, {}, "receipt.network.program"),
    ],
)
async def test_what_the_chain_contradicts_is_named(
    autojump_clock: object, monkeypatch: Any, terms: dict[str, Any], outcome: dict[str, Any], field: str
) -> None:
    async with settled("train") as (rpc, receipt, reader):
        honest, settlement = open_receipt(receipt)
        announced = {name: value for name, value in terms.items() if name in honest.announce.__struct_fields__}
        forged = replace(honest, announce=msgspec.structs.replace(honest.announce, **announced))
        for name in terms.keys() & {"open_slot", "genesis"}:
            forged = replace(forged, **{name: terms[name]})
        if "committee" in terms:
            forged = replace(forged, committee=honest.committee[::-1])
        told = (forged, msgspec.structs.replace(settlement, **outcome))
        monkeypatch.setattr(receipt_chain, "open_receipt", lambda _: told)
        with pytest.raises(LocalError) as caught:
            await confirm_receipt(rpc, receipt, reader)
        assert caught.value.field == field


async def test_a_server_that_has_forgotten_says_so(autojump_clock: object) -> None:
    async with settled("train") as (_, receipt, reader):

        class Forgetful:
            async def signatures(self, address: bytes, *, limit: int, before: str | None = None) -> list[Any]:
                return []

            async def transaction(self, signature: str) -> None:
                return None

        with pytest.raises(LocalError, match="ask a server that keeps older transactions"):
            await confirm_receipt(Forgetful(), receipt, reader)  # type: ignore[arg-type]
