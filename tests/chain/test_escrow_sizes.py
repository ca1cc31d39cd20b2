"""Every transaction fits in 1,232 bytes (LiteSVM does not check that), and compute units stay within what docs say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.keypair import Keypair

from chain_world import CLASS, MINIMUM_STAKE, UNBONDING_S, World, key, node_id
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.protocol import chain
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import COMMITTEE_MAX, NONCES_DRAWN, QUORUMS, TRANSACTION_MAX_BYTES
from cyxnode.protocol.units import MicroCyx

DOCS = Path(__file__).parents[2] / "docs" / "escrow.md"
BUDGET = [set_compute_unit_limit(200_000), set_compute_unit_price(1_000)]


class Meter:
    """Sends with both compute-budget instructions and keeps bytes and compute units of each step."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.measured: dict[str, tuple[int, int]] = {}

    def send(self, name: str, wish: chain.Instruction, signer: Keypair | None = None) -> None:
        world = self.world
        signer = signer or world.admin
        world.largest = 0
        result = world.send([*BUDGET, *world.encode(wish, signer)], [signer])
        line = next(log for log in result.logs() if log.startswith(f"Program {world.program} consumed"))
        self.measured[name] = (world.largest, int(line.split()[3]))


def _measure(k: int) -> dict[str, tuple[int, int]]:
    world = World(k + 1)
    meter = Meter(world)
    newcomer = world.wallet("newcomer")
    world.pay(newcomer.pubkey(), MINIMUM_STAKE)
    meter.send("register", chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(key("payout").pubkey())), newcomer)
    wish = world.open_job_wish(k=k)
    world.pay(world.requester.pubkey(), wish.budget)
    meter.send("open_job", wish, world.requester)
    opened = world.job_of(wish)
    world.advance()
    meter.send("seat", chain.Seat(opened.job, world.draw(opened)))
    job = world.job_of(wish)
    settlement = replace(world.settlement(job), fee_mask=(1 << k) - 1)
    meter.send("settle", world.signed(job, settlement, world.members(job)))
    meter.send("close_job", chain.CloseJob(job.job))
    unsold = world.seated_job(replace(wish, nonce=b"\x03" * 32))
    meter.send("settle UNSOLD", world.signed(unsold, world.settlement(unsold, chain.Verdict.UNSOLD)))
    expired = world.open_job(replace(wish, nonce=b"\x04" * 32))
    world.advance(seconds=expired.refund_at_s - world.unix_s)
    meter.send("refund_expired", chain.RefundExpired(expired.job))
    _measure_stakes(world, meter, k)
    return meter.measured


def _measure_stakes(world: World, meter: Meter, k: int) -> None:
    wish = world.open_job_wish(k=k)
    partial = world.seated_job(replace(wish, nonce=b"\x05" * 32))
    half = replace(world.settlement(partial, chain.Verdict.PARTIAL), units=5, fee_mask=(1 << k) - 1)
    meter.send("settle PARTIAL", world.signed(partial, half))
    fraud = world.seated_job(replace(wish, nonce=b"\x06" * 32))
    meter.send("settle FRAUD", world.signed(fraud, world.settlement(fraud, chain.Verdict.FRAUD)))
    meter.send("close_job FRAUD", chain.CloseJob(fraud.job))
    member = next(node for node in world.nodes if world.node(node).earned)
    meter.send("withdraw_earned", chain.WithdrawEarned(node_id(member)))
    meter.send("request_unstake", chain.RequestUnstake(), member)
    world.advance(seconds=UNBONDING_S)
    meter.send("withdraw_stake", chain.WithdrawStake(node_id(member)))
    meter.send("slash_equivocation", world.contradiction(partial, next(n for n in world.nodes if n != member)))


@pytest.mark.parametrize("k", sorted(QUORUMS))
def test_every_transaction_fits(k: int) -> None:
    for name, (size, _) in _measure(k).items():
        assert size <= TRANSACTION_MAX_BYTES, f"{name} with {k} seats takes {size} bytes"


def test_docs_state_the_measured_compute_units() -> None:
    """The table of docs/escrow.md, within a tenth: bumps of addresses differ from job to job."""
    for k in sorted(QUORUMS):
        measured = _measure(k)
        for name, (size, units) in measured.items():
            row = re.search(rf"^\| {name} \| {k} \| ([\d,]+) \| ([\d,]+) \|$", DOCS.read_text(), re.M)
            assert row, f"add to docs/escrow.md: | {name} | {k} | {size:,} | {units:,} |"
            said_size, said_units = (int(cell.replace(",", "")) for cell in row.groups())
            assert said_size == size, f"docs/escrow.md: {name} with {k} seats takes {size} bytes"
            assert abs(said_units - units) <= units * 0.1, f"docs/escrow.md: {name}, {k} seats: {units:,} units"


def test_a_well_chosen_nonce_keeps_opening_cheap() -> None:
    """As the requester chooses it: the compute units of the program beside those of the token program."""
    world, rng = World(), Random(1)
    client = ChainClient(None, KeyPair(bytes(32)), bytes(world.program))  # type: ignore[arg-type]
    for number in range(20):
        world.requester = world.wallet(f"requester{number}")
        wish = world.open_job_wish()
        me, nonces = node_id(world.requester), [rng.randbytes(32) for _ in range(NONCES_DRAWN)]
        nonce = min(nonces, key=lambda one: client.derivations(job_id(me, one, wish.spec_hash)))
        world.pay(world.requester.pubkey(), wish.budget)
        logs = world.submit(replace(wish, nonce=nonce), world.requester).logs()
        used = [line.split() for line in logs if " consumed " in line]
        tokens = sum(int(words[3]) for words in used if words[1].startswith("Token"))
        (total,) = (int(words[3]) for words in used if words[1] == str(world.program))
        assert total - tokens <= 15_000


def test_the_largest_committee_is_seven() -> None:
    assert max(QUORUMS) == COMMITTEE_MAX
