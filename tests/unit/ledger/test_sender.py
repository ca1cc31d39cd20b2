"""At most one transaction lands, whatever the network loses: a chain client on a bad line, in virtual time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import trio
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from trio.testing import MockClock

from cyxnode.ledger.addresses import MEMO_PROGRAM
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.compute_budget import BUDGET_UNITS, COMPUTE_BUDGET_PROGRAM, without_budget
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.rpc import TransactionFault, TransactionStatus
from cyxnode.ledger.send_policy import SendPolicy
from cyxnode.ledger.sender import send_and_confirm, sign, signature_of
from cyxnode.protocol.errors import ChainUnreachable, LocalError
from cyxnode.protocol.limits import (
    BLOCKHASHES_MAX,
    CHAIN_RETRY_MAX_S,
    CONFIRM_POLL_S,
    CONFIRM_TIMEOUT_S,
    RESEND_POLLS,
    SUBMIT_ATTEMPTS_MAX,
)
from ledger_world import SOL, START_S, lamports_of, make_cluster, wallet

ALICE = wallet("alice").pubkey()
Fault = Callable[[], None]


class BadLine(DirectRpc):
    """A cluster behind a line that loses requests (`before`) and answers (`after`), as scripted.

    It hides the first statuses, and says of the next `soft` ones that they are only processed.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self.cluster = cluster
        self.before: list[Fault] = []
        self.after: list[Fault] = []
        self.hidden = 0
        self.soft = 0
        self.sent: list[bytes] = []

    async def send(self, transaction: bytes, *, since_slot: int = 0) -> str:
        if self.before:
            self.before.pop(0)()
        self.sent.append(transaction)
        signature = await super().send(transaction, since_slot=since_slot)
        if self.after:
            self.after.pop(0)()
        return signature

    async def status(self, signature: str, *, since_slot: int = 0) -> TransactionStatus | None:
        if self.hidden:
            self.hidden -= 1
            return None
        found = await super().status(signature, since_slot=since_slot)
        if found is None or not self.soft:
            return found
        self.soft -= 1
        return replace(found, level="processed")


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


async def test_a_transaction_that_is_only_processed_is_waited_for(line: BadLine, autojump_clock: MockClock) -> None:
    line.soft = 3
    await pay(line)
    assert trio.current_time() > 2 * CONFIRM_POLL_S


async def test_landed_but_not_firm_when_the_blockhash_expires_is_not_paid_again(
    line: BadLine, autojump_clock: MockClock
) -> None:
    line.after, line.soft = [expire(line.cluster)], 2 * RESEND_POLLS
    await pay(line)
    assert len(set(line.sent)) == 1
    assert lamports_of(line.cluster, ALICE) == SOL


class Lagging(BadLine):
    """Two servers behind one URL: the one that answers statuses is behind until it has been asked `behind` times."""

    behind = 3

    async def status(self, signature: str, *, since_slot: int = 0) -> TransactionStatus | None:
        if self.behind:
            if since_slot:
                self.behind -= 1
                raise ChainUnreachable("behind")
            return None
        return await super().status(signature, since_slot=since_slot)


async def test_a_server_that_is_behind_is_not_believed_that_nothing_landed(autojump_clock: MockClock) -> None:
    line = Lagging(make_cluster())
    line.after = [expire(line.cluster)]
    await pay(line)
    assert len(set(line.sent)) == 1
    assert lamports_of(line.cluster, ALICE) == SOL


async def test_a_fault_of_a_later_offer_is_no_proof_that_the_first_did_not_land(
    line: BadLine, autojump_clock: MockClock
) -> None:
    def refused() -> None:
        raise TransactionFault({"InstructionError": [0, {"Custom": 1}]})

    line.after, line.before = [lost], [lambda: None, refused]
    line.hidden = 1
    await pay(line)
    assert lamports_of(line.cluster, ALICE) == SOL


async def test_a_fault_of_a_later_offer_is_raised_once_nothing_can_land(
    line: BadLine, autojump_clock: MockClock
) -> None:
    def refused() -> None:
        expire(line.cluster)()
        raise TransactionFault({"InstructionError": [0, {"Custom": 1}]})

    line.before = [lost, refused]
    with pytest.raises(TransactionFault):
        await pay(line)
    assert line.sent == []


class Market(BadLine):
    """A cluster on which others pay for haste."""

    policy = SendPolicy(priority_fee_max_lamports=1_000)
    fees: tuple[int, ...] = (0, 10, 20, 1_000)

    async def prioritization_fees(self, addresses: Sequence[bytes]) -> list[int]:
        return list(self.fees)


def budget_of(raw: bytes) -> list[bytes]:
    message = VersionedTransaction.from_bytes(raw).message
    return [
        bytes(one.data)
        for one in message.instructions
        if message.account_keys[one.program_id_index] == COMPUTE_BUDGET_PROGRAM
    ]


@pytest.mark.parametrize(
    ("fees", "price"), [((0, 10, 20, 1_000), 1_000), ((5, 5, 7, 7, 9, 10_000_000), 9), ((10**9,) * 4, 10**9 // 480)]
)
async def test_haste_is_paid_for_at_the_going_price_and_within_the_cap(
    fees: tuple[int, ...], price: int, autojump_clock: MockClock
) -> None:
    line = Market(make_cluster())
    line.fees = fees
    await pay(line)
    units = 150 * 120 // 100 + BUDGET_UNITS
    assert budget_of(line.sent[0]) == [struct.pack("<BI", 2, units), struct.pack("<BQ", 3, min(price, 10**9 // units))]
    paid = line.cluster.transaction(signature_of(line.sent[0]))
    assert paid is not None and 5_000 <= paid.fee <= 6_000
    assert paid.units <= units


async def test_nothing_is_added_where_nobody_pays_or_the_policy_forbids_it(autojump_clock: MockClock) -> None:
    line = Market(make_cluster())
    line.fees = (0, 0, 0)
    await pay(line)
    line.fees, line.policy = (1_000,), SendPolicy(priority_fee_max_lamports=0)
    line.cluster.advance(START_S)
    await pay(line)
    assert [budget_of(raw) for raw in line.sent] == [[], []]


async def test_errors_name_the_instructions_that_were_wished(autojump_clock: MockClock) -> None:
    line = Market(make_cluster())
    with pytest.raises(TransactionFault) as caught:
        await send_and_confirm(line, gift(line.cluster, 10**18), [line.cluster.faucet])
    assert caught.value.error == {"InstructionError": [0, {"Custom": 1}]}
    assert without_budget({"InstructionError": [3, "X"]}, 2) == {"InstructionError": [1, "X"]}
    assert without_budget("AccountNotFound", 2) == "AccountNotFound"


async def test_a_transaction_without_room_goes_without_haste(autojump_clock: MockClock) -> None:
    line = Market(make_cluster())
    memo = Instruction(MEMO_PROGRAM, b"x" * 960, [])
    await send_and_confirm(line, [*gift(line.cluster), memo], [line.cluster.faucet])
    assert budget_of(line.sent[0]) == []


async def test_a_dead_line_gives_up_in_bounded_time(line: BadLine, autojump_clock: MockClock) -> None:
    line.before = [lost] * 10_000
    with pytest.raises(ChainUnreachable, match="not confirmed within"):
        await pay(line)
    assert trio.current_time() == pytest.approx(CONFIRM_TIMEOUT_S, abs=0.2)
    assert len(line.before) > 10_000 - 2 * CONFIRM_TIMEOUT_S / CHAIN_RETRY_MAX_S, "asked more and more seldom"


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
