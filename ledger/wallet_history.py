"""The last transactions of a wallet, on any cluster: those that name it, its token account, or its Node account.

A server lists each of the three by itself; here they become one story, newest first. Within one slot the server's
order is kept as far as it says one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from solders.pubkey import Pubkey

from ..protocol.errors import RemoteError
from ..protocol.limits import JOB_TRANSACTIONS_MAX
from ..protocol.units import JobId
from .escrow_layout import associated_token_address, node_address
from .past_transaction import PastTransaction, decode_transaction
from .rpc import HistoryRpc
from .transaction_words import View, failure, job_account, opened_job, words


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction as the wallet's owner sees it.

    `micro_cyx` and `lamports` are what the wallet has more afterwards, fee included; `fee` is 0 where another paid it;
    `error` says why it failed, empty when it succeeded.
    """

    signature: str
    slot: int
    unix_s: int | None
    what: tuple[str, ...]
    micro_cyx: int
    lamports: int
    fee: int
    error: str


async def read_history(
    rpc: HistoryRpc, wallet: bytes, mint: bytes, program: bytes, *, limit: int, before: str | None = None
) -> list[Entry]:
    """At most `limit` entries, newest first, older than the transaction `before`.

    Costs three requests, one for each entry, and two for each job whose id no entry says. Raises RemoteError when the
    server answers nonsense.
    """
    owner, key = Pubkey.from_bytes(wallet), Pubkey.from_bytes(program)
    tokens, node = associated_token_address(owner, Pubkey.from_bytes(mint)), node_address(key, wallet)
    lists = [
        _listed(await rpc.signatures(address, limit=limit, before=before))
        for address in (wallet, bytes(tokens), bytes(node))
    ]
    found = [await read_transaction(rpc, signature) for signature in merged(lists)[:limit]]
    past = [one for one in found if one is not None]
    view = View(wallet, mint, program, bytes(node))
    view = replace(view, job_ids=await _job_ids(rpc, view, past))
    return [_entry(view, one) for one in past]


async def read_transaction(rpc: HistoryRpc, signature: str) -> PastTransaction | None:
    """One transaction; None when the server has forgotten it."""
    answer = await rpc.transaction(signature)
    return decode_transaction(signature, answer) if answer is not None else None


def merged(lists: Sequence[Sequence[tuple[str, int]]]) -> list[str]:
    """Lists of (signature, slot), each newest first, as one without repetitions that contradicts none of them."""
    rest = [list(reversed(one)) for one in lists]
    order: dict[str, None] = {}
    while heads := [one[-1] for one in rest if one]:
        newest = max(slot for _, slot in heads)
        first = [name for name, slot in heads if slot == newest]
        later = {name for one in rest for name, _ in one[:-1]}
        chosen = next((name for name in first if name not in later), first[0])
        order[chosen] = None
        for one in rest:
            if one and one[-1][0] == chosen:
                one.pop()
    return list(order)


def _listed(answers: list[dict[str, object]]) -> list[tuple[str, int]]:
    listed = []
    for answer in answers:
        signature, slot = answer.get("signature"), answer.get("slot")
        if not isinstance(signature, str) or not isinstance(slot, int):
            raise RemoteError("the RPC server lists a transaction without signature or slot")
        listed.append((signature, slot))
    return listed


async def _job_ids(rpc: HistoryRpc, view: View, past: list[PastTransaction]) -> dict[bytes, JobId]:
    """Ids of the jobs that the transactions are about, by Job account. A job's first transaction says its id."""
    instructions = [one for transaction in past for one in transaction.instructions]
    ids = dict(opened for one in instructions if (opened := opened_job(view, one)))
    for account in {job_account(view, one) for one in instructions} - ids.keys():
        if account:
            listed = _listed(await rpc.signatures(account, limit=JOB_TRANSACTIONS_MAX))
            first = await read_transaction(rpc, listed[-1][0]) if listed else None
            found = (opened_job(view, one) for one in first.instructions) if first else ()
            ids |= dict(opened for opened in found if opened and opened[0] == account)
    return ids


def _entry(view: View, past: PastTransaction) -> Entry:
    before, after = past.lamports.get(view.wallet, (0, 0))
    mine = [one for one in past.tokens.values() if one.owner == view.wallet and one.mint == view.mint]
    return Entry(
        signature=past.signature,
        slot=past.slot,
        unix_s=past.unix_s,
        what=tuple(words(view, past)),
        micro_cyx=sum(one.after - one.before for one in mine),
        lamports=after - before,
        fee=past.fee if past.payer == view.wallet else 0,
        error=failure(view, past),
    )
