"""At most one transaction lands, whatever the network loses: a chain client on a bad line, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from trio.testing import MockClock

from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.rpc import TransactionFault, TransactionStatus
from cyxnode.ledger.sender import send_and_confirm, sign
from cyxnode.protocol.errors import ChainUnreachable, LocalError
from cyxnode.protocol.limits import BLOCKHASHES_MAX, CONFIRM_TIMEOUT_S, RESEND_POLLS, SUBMIT_ATTEMPTS_MAX
from ledger_world import SOL, START_S, lamports_of, make_cluster, wallet

ALICE = wallet("alice").pubkey()
Fault = Callable[[], None]


class BadLine(DirectRpc):
    """A cluster behind a line that loses requests (`before`) and answers (`after`) and hides statuses, as scripted."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self.cluster = cluster
        self.before: list[Fault] = []
        self.after: list[Fault] = []
        self.hidden = 0
        self.sent: list[bytes] = []

    async def send(self, transaction: bytes) -> str:
        if self.before:
            self.before.pop(0)()
        self.sent.append(transaction)
        signature = await super().send(transaction)
        if self.after:
            self.after.pop(0)()
        return signature

    async def status(self, signature: str) -> TransactionStatus | None:
        if self.hidden:
            self.hidden -= 1
            return None
        return await super().status(signature)


def lost() -> None:
    raise ChainUnreachable("lost")


def gift(cluster: LocalCluster, lamports: int = SOL) -> list[Instruction]:
    params = TransferParams(from_pubkey=cluster.faucet.pubkey(), to_pubkey=ALICE, lamports=lamports)
    return [transfer(params)]


def expire(cluster: LocalCluster) -> Fault:
    def run() -> None:
        for _ in range(BLOCKHASHES_MAX):
            cluster.advance(START_S)

    return run


@pytest.fixture
def line() -> BadLine:
    return BadLine(make_cluster())


async def pay(line: BadLine) -> str:
    return await send_and_confirm(line, gift(line.cluster), [line.cluster.faucet])


async def test_a_quiet_line_sends_once(line: BadLine, autojump_clock: MockClock) -> None:
    await pay(line)
    assert (len(line.sent), lamports_of(line.cluster, ALICE)) == (1, SOL)
    assert trio.current_time() < 0.01, "confirmed at the first poll"


async def test_a_lost_answer_does_not_pay_twice(line: BadLine, autojump_clock: MockClock) -> None:
    line.after = [lost, lost]
    await pay(line)
    assert len(set(line.sent)) == 1
    assert lamports_of(line.cluster, ALICE) == SOL


async def test_a_lost_request_is_sent_again(line: BadLine, autojump_clock: MockClock) -> None:
    line.before = [lost, lost, lost]
    await pay(line)
    assert (len(line.sent), lamports_of(line.cluster, ALICE)) == (1, SOL)


async def test_an_expired_blockhash_is_signed_anew(line: BadLine, autojump_clock: MockClock) -> None:
    line.before = [expire(line.cluster)]
    await pay(line)
    assert len(set(line.sent)) == 2
    assert lamports_of(line.cluster, ALICE) == SOL


async def test_landed_with_the_answer_lost_and_the_blockhash_gone_pays_once(
    line: BadLine, autojump_clock: MockClock
) -> None:
    def both() -> None:
        expire(line.cluster)()
        lost()

    line.after = [both]
    await pay(line)
    assert lamports_of(line.cluster, ALICE) == SOL
    assert len(set(line.sent)) == 1, "the landed transaction is found by its signature before signing anew"


async def test_a_status_that_shows_only_after_the_blockhash_expired_is_not_missed(
    line: BadLine, autojump_clock: MockClock
) -> None:
    line.after, line.hidden = [expire(line.cluster)], RESEND_POLLS
    await pay(line)
    assert len(set(line.sent)) == 1
    assert lamports_of(line.cluster, ALICE) == SOL


async def test_a_preflight_failure_is_a_fault_and_sends_nothing_more(line: BadLine, autojump_clock: MockClock) -> None:
    with pytest.raises(TransactionFault) as caught:
        await send_and_confirm(line, gift(line.cluster, 10**18), [line.cluster.faucet])
    assert caught.value.error == {"InstructionError": [0, {"Custom": 1}]}
    assert len(line.sent) == 1


async def test_a_dead_line_gives_up_in_bounded_time(line: BadLine, autojump_clock: MockClock) -> None:
    line.before = [lost] * 10_000
    with pytest.raises(ChainUnreachable, match="not confirmed within"):
        await pay(line)
    assert trio.current_time() == pytest.approx(CONFIRM_TIMEOUT_S, abs=0.2)


async def test_a_cluster_that_never_takes_it_is_left_after_some_blockhashes(
    line: BadLine, autojump_clock: MockClock
) -> None:
    line.before = [expire(line.cluster)] * 100
    with pytest.raises(ChainUnreachable, match="blockhashes expired"):
        await pay(line)
    assert len(set(line.sent)) == SUBMIT_ATTEMPTS_MAX
    assert lamports_of(line.cluster, ALICE) == 0


def test_a_transaction_of_1233_bytes_is_refused_before_it_is_sent() -> None:
    cluster = make_cluster()
    instruction = Instruction(Pubkey.from_bytes(bytes([9] * 32)), bytes(1100), [])
    with pytest.raises(LocalError, match=r"transaction: needs 12[0-9]{2} bytes of 1232"):
        sign([instruction], [cluster.faucet], cluster.latest_blockhash()[0])
