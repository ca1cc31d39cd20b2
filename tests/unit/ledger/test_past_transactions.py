"""Past transactions: lists joined without contradiction, and answers of a lying server that end as a RemoteError."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from cyxnode.ledger.escrow_instructions import settle_instruction
from cyxnode.ledger.escrow_layout import job_address, node_address
from cyxnode.ledger.node_instructions import slash_equivocation
from cyxnode.ledger.past_transaction import PastInstruction, PastTransaction, decode_transaction
from cyxnode.ledger.rpc_methods import RpcMethods
from cyxnode.ledger.transaction_words import View, failure, words
from cyxnode.ledger.wallet_history import merged
from cyxnode.protocol.chain import ChainConfig, Settle, SlashEquivocation, Verdict
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.units import JobId, MicroCyx, NodeId, base58
from ledger_world import SOL, make_cluster, payment, wallet

ALICE = wallet("alice").pubkey()
PROGRAM, MINT, NODE = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
JOB = JobId(bytes([4] * 32))
CONFIG = ChainConfig(
    admin=bytes(32), genesis=bytes([5] * 32), mint=MINT, treasury=bytes(32), fee_bps=1_000, verifier_share_bps=2_000,
    minimum_stake=MicroCyx(1), unbonding_s=86_400, grace_s=60,
)  # fmt: skip
VIEW = View(bytes(ALICE), MINT, PROGRAM, NODE)


@given(st.lists(st.integers(0, 3), max_size=12), st.data())
def test_joined_lists_contradict_none_of_them(steps: list[int], data: st.DataObject) -> None:
    """Whatever true order stands behind three partial lists, each is kept, and slots never rise."""
    slots = [100 - sum(steps[: number + 1]) for number in range(len(steps))]
    truth = [(str(number), slot) for number, slot in enumerate(slots)]
    kept = data.draw(st.lists(st.sets(st.sampled_from(truth)) if truth else st.just(set()), min_size=3, max_size=3))
    lists = [[entry for entry in truth if entry in chosen] for chosen in kept]
    joined = merged(lists)
    assert sorted(joined) == sorted({name for one in lists for name, _ in one})
    slot_of = dict(truth)
    assert [slot_of[name] for name in joined] == sorted((slot_of[name] for name in joined), reverse=True)
    for one in lists:
        assert [name for name in joined if name in dict(one)] == [name for name, _ in one]


def test_lists_that_contradict_each_other_still_end() -> None:
    assert sorted(merged([[("a", 1), ("b", 1)], [("b", 1), ("a", 1)]])) == ["a", "b"]
    assert merged([[("a", 1), ("b", 9)]]) == ["a", "b"], "a server that lists against the slots"


def landed() -> tuple[str, dict[str, Any]]:
    """A payment to Alice, and what an RPC server says of it."""
    cluster = make_cluster()
    signature = cluster.send(payment(cluster, ALICE, SOL))
    options = {"encoding": "base64", "maxSupportedTransactionVersion": 0}
    return signature, RpcMethods(cluster).call("getTransaction", [signature, options])


def test_an_honest_answer_is_read() -> None:
    past = decode_transaction(*landed())
    assert past.error is None and past.fee == 5_000 and past.tokens == {}
    assert past.lamports[bytes(ALICE)] == (0, SOL)
    assert words(VIEW, past) == [f"received 1.000000000 SOL from {base58(past.payer)}"] and failure(VIEW, past) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.update(meta=None),
        lambda answer: answer.update(transaction=["", "base64"]),
        lambda answer: answer.update(transaction=["!", "base64"]),
        lambda answer: answer.update(transaction=[answer["transaction"][0], "base58"]),
        lambda answer: answer.update(transaction={"signatures": []}),
        lambda answer: answer["meta"].update(preBalances=[1]),
        lambda answer: answer["meta"].update(fee="much"),
        lambda answer: answer["meta"].update(loadedAddresses={"writable": ["x"], "readonly": []}),
        lambda answer: answer["meta"].update(
            postTokenBalances=[{"accountIndex": 99, "mint": "1" * 32, "uiTokenAmount": {"amount": "1"}}]
        ),
        lambda answer: answer["meta"].update(
            postTokenBalances=[{"accountIndex": 0, "mint": "1" * 32, "uiTokenAmount": {"amount": "one"}}]
        ),
    ],
)
def test_a_wrong_answer_is_the_servers_fault(change: Any) -> None:
    signature, answer = landed()
    wrong = copy.deepcopy(answer)
    change(wrong)
    with pytest.raises(RemoteError, match=signature):
        decode_transaction(signature, wrong)


def test_another_transaction_is_not_taken_for_the_one_asked_for() -> None:
    _, answer = landed()
    with pytest.raises(RemoteError, match="another signature"):
        decode_transaction("5" * 88, answer)


@given(st.binary(max_size=200), st.integers(0, 8), st.sampled_from([PROGRAM, bytes(32), MINT]), st.booleans())
def test_words_are_found_for_whatever_instruction(data: bytes, accounts: int, program: bytes, fails: bool) -> None:
    """A failed transaction may carry any bytes at all."""
    if data:
        data = bytes([data[0] % 12]) + data[1:]
    one = PastInstruction(program, tuple(random.Random(accounts).randbytes(32) for _ in range(accounts)), data)
    error = {"InstructionError": [0, {"Custom": 169}]} if fails else None
    past = PastTransaction("s", 1, None, error, 0, NODE, (one,), {}, {})
    assert all(isinstance(line, str) and line for line in words(VIEW, past))
    assert failure(VIEW, past).startswith("the node is unbonding already") is (fails and program == PROGRAM)


def told(view: View, instructions: list[Instruction]) -> str:
    """The words for the last of some instructions."""
    past = [
        PastInstruction(bytes(i.program_id), tuple(bytes(a.pubkey) for a in i.accounts), i.data) for i in instructions
    ]
    return words(view, PastTransaction("s", 1, None, None, 0, NODE, tuple(past), {}, {}))[-1]


def test_verdicts_and_convictions_are_told_to_whom_they_hit() -> None:
    """Encoded by the same functions that send them."""
    program, me, other = Pubkey.from_bytes(PROGRAM), NodeId(bytes(ALICE)), NodeId(bytes([8] * 32))
    view = View(me, MINT, PROGRAM, bytes(node_address(program, me)), {bytes(job_address(program, JOB)): JOB})
    wish = Settle(
        job=JOB, verdict=Verdict.FRAUD, worker=me, price=MicroCyx(5), units=0, result_hash=bytes(32), fee_mask=7,
        sequence=0, round=0, signatures=(),
    )  # fmt: skip

    def settled(**changes: Any) -> str:
        made = replace(wish, **changes)
        return told(view, [settle_instruction(made, signer=ALICE, program=program, config=CONFIG, payout=ALICE)])

    name = f"job {base58(JOB)}"
    assert settled() == f"settled {name}: FRAUD of this node, and its stake slashed"
    assert settled(verdict=Verdict.FAILED) == f"settled {name}: FAILED of this node"
    assert settled(worker=other) == f"settled {name}: FRAUD"
    paid = settled(verdict=Verdict.PARTIAL, units=3, price=MicroCyx(2_500_000))
    assert paid == f"was paid for 3 units of {name} at 2.500000 CYX for all: PARTIAL"
    conviction = SlashEquivocation(me, JOB, 1, 1, 0, 0, (bytes(32), bytes([1] * 32)), (bytes(64), bytes(64)))
    for node, text in ((me, "this node was slashed and retired for equivocation"), (other, "convicted a node of")):
        assert told(view, slash_equivocation(replace(conviction, node=node), ALICE, program, CONFIG)).startswith(text)
