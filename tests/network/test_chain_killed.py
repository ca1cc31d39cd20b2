"""`cyxnode chain run` under load, killed in the middle: nothing acknowledged is lost, nothing old lands."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from commands import ready_line, started
from cyxnode.ledger.faucet import request_airdrop
from cyxnode.ledger.http_rpc import HttpRpc, open_http_rpc
from cyxnode.ledger.rpc import TransactionFault
from cyxnode.ledger.sender import sign, signature_of
from cyxnode.protocol.errors import ChainUnreachable

pytestmark = pytest.mark.slow
SENDERS = 8
ACKNOWLEDGED_BEFORE_KILL = 200
SOL = 10**9
PAYER, RECEIVER = (Keypair.from_seed(sha256(name).digest()) for name in (b"payer", b"receiver"))


@dataclass
class Load:
    """Transfers that all differ in their amount; what was sent and what was acknowledged, by signature."""

    sent: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    enough: trio.Event = field(default_factory=trio.Event)

    async def send(self, url: str) -> None:
        """Until the chain is gone."""
        async with open_http_rpc(url) as rpc:
            try:
                while True:
                    blockhash = await rpc.latest_blockhash()
                    amount = SOL + len(self.sent)
                    gift = TransferParams(from_pubkey=PAYER.pubkey(), to_pubkey=RECEIVER.pubkey(), lamports=amount)
                    raw = sign([transfer(gift)], [PAYER], blockhash.value)
                    self.sent[signature_of(raw)] = (raw, amount)
                    self.acknowledged.add(await rpc.send(raw))
                    if len(self.acknowledged) >= ACKNOWLEDGED_BEFORE_KILL:
                        self.enough.set()
            except ChainUnreachable:
                return


async def under_load(url: str, kill: int) -> Load:
    """Fund the payer, send from SENDERS connections, and kill the chain in the middle."""
    load = Load()
    async with open_http_rpc(url) as rpc:
        await request_airdrop(rpc, bytes(PAYER.pubkey()), 1_000 * SOL)
    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(load.send, url)
        await load.enough.wait()
        os.kill(kill, signal.SIGKILL)
    return load


async def balance(rpc: HttpRpc) -> int:
    account = await rpc.get_account(bytes(RECEIVER.pubkey()))
    return account.lamports if account else 0


async def audit(url: str, load: Load) -> None:
    """After the restart: acknowledged transfers are there, each once, and old bytes are refused."""
    async with open_http_rpc(url) as rpc:
        landed = set()
        for signature in load.sent:
            status = await rpc.status(signature)
            if status is not None:
                assert status.error is None
                landed.add(signature)
        assert load.acknowledged <= landed
        paid = sum(load.sent[signature][1] for signature in landed)
        assert await balance(rpc) == paid, "each landed transfer once, and nothing else"
        for raw, _ in load.sent.values():
            with pytest.raises(TransactionFault) as refused:
                await rpc.send(raw)
            assert refused.value.error == "BlockhashNotFound"
        assert await balance(rpc) == paid


def test_no_acknowledged_transfer_is_lost_and_no_old_one_lands(tmp_path: Path) -> None:
    with started(tmp_path, "chain", "run", "--port", "0", "--json", log=tmp_path / "first.log") as process:
        load = trio.run(under_load, ready_line(process)["url"], process.pid)
    assert ACKNOWLEDGED_BEFORE_KILL <= len(load.acknowledged) <= len(load.sent)
    with started(tmp_path, "chain", "run", "--port", "0", "--json", log=tmp_path / "second.log") as process:
        trio.run(audit, ready_line(process)["url"], load)
