"""How long stakes are liable on a local chain: chosen once, at its genesis."""

from __future__ import annotations

import pytest
from solders.pubkey import Pubkey

from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.escrow_layout import config_address, decode_config
from cyxnode.ledger.genesis import GRACE_S, UNBONDING_MAX_S, UNBONDING_S, ensure_genesis
from cyxnode.protocol.errors import LocalError
from ledger_world import make_cluster


@pytest.mark.parametrize(("asked", "found"), [(None, UNBONDING_S), (GRACE_S + 1, GRACE_S + 1)])
async def test_a_new_chain_has_the_unbonding_time_that_was_asked_for(asked: int | None, found: int) -> None:
    cluster = make_cluster()
    await ensure_genesis(cluster, unbonding_s=asked)
    account = cluster.account(bytes(config_address(Pubkey.from_bytes(LOCAL_PROGRAM_ID))))
    assert account is not None and decode_config(account.data).unbonding_s == found
    await ensure_genesis(cluster)
    await ensure_genesis(cluster, unbonding_s=found)
    with pytest.raises(LocalError, match="cannot be changed") as caught:
        await ensure_genesis(cluster, unbonding_s=found + 1)
    assert caught.value.field == "unbonding"


@pytest.mark.parametrize("asked", [GRACE_S, 0, -1, UNBONDING_MAX_S + 1])
async def test_an_unbonding_time_that_the_program_refuses_is_named(asked: int) -> None:
    with pytest.raises(LocalError, match="from 61") as caught:
        await ensure_genesis(make_cluster(), unbonding_s=asked)
    assert caught.value.field == "unbonding"
