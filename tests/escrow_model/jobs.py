"""The instructions of a job's life: every check in its order, then what changes."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256

from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol.chain import ChainConfig, JobAccount, JobState, NodeAccount, Verdict
from cyxnode.protocol.hashing import QuorumKind, claim_message, job_id, quorum_context, quorum_message, seat_ticket
from cyxnode.protocol.limits import AMOUNT_MAX, FRAUD_QUORUMS, QUORUMS, SEAT_DEADLINE_SLOTS, SETTLEMENTS_MAX
from cyxnode.protocol.units import MicroCyx, NodeId

from .checks import (
    check_funding,
    check_payer,
    check_programs,
    create_account,
    load_any_node,
    load_config,
    load_job,
    load_node,
    load_stake_vault,
    load_token,
    load_vault,
    read_statement,
    read_statements,
)
from .ledger import (
    TOKEN,
    TOKEN_BYTES,
    Signed,
    Token,
    Work,
    associated,
    derived,
    require,
)

SIGNATURE_LAMPORTS, BPS, TIME_MAX = 5_000, 10_000, 1 << 40
ZERO = bytes(32)
PAYING = (Verdict.OK, Verdict.PARTIAL)


def deposit(k: int) -> int:
    """Lamports beside a job's rent: one signature and a tip for `seat`, and for eight settlements of all members."""
    return (2 + SETTLEMENTS_MAX * (k + 3)) * SIGNATURE_LAMPORTS


def open_job(work: Work) -> None:
    require(len(work.data) == 128, 101)
    require(len(work.metas) == 8, 103)
    k, units, budget, deadline, refund_at, nonce, spec, class_ = struct.unpack("<xB2xIQQQ32s32s32s", work.data)
    check_payer(work, 0)
    check_programs(work, 6, 7)
    config = load_config(work, 1)
    require(work.metas[5].address == config.mint, 123)
    now = work.ledger.unix_s
    require(0 < budget <= AMOUNT_MAX, 183)
    require(k in QUORUMS, 184)
    require(units, 185)
    require(class_ != ZERO, 163)
    require(now < deadline <= TIME_MAX, 186)
    require(deadline + config.grace_s <= refund_at <= now + config.unbonding_s, 187)
    requester = work.metas[0].address
    check_funding(work, 4, requester, config.mint, budget)
    job = job_id(NodeId(requester), nonce, spec)
    require(work.metas[3].address == derived("vault", work.program, job), 148)
    create_account(work, 0, 3, TOKEN_BYTES, TOKEN, Token(config.mint, work.metas[2].address, 0))
    require(work.metas[2].address == derived("job", work.program, job), 180)
    create_account(work, 0, 2, layout.JOB_BYTES, work.program, None, deposit(k))
    work.write(2, JobAccount(
        job=job, requester=NodeId(requester), budget=MicroCyx(budget), spec_hash=spec, execution_class=class_,
        fee_bps=config.fee_bps, verifier_share_bps=config.verifier_share_bps, k=k, m=QUORUMS[k],
        open_slot=work.ledger.slot, committee=(), work_deadline_s=deadline, refund_at_s=refund_at, units_total=units,
        units_paid=0, settlements=0, state=JobState.OPEN, verdict=None, worker=None, paid=MicroCyx(0),
        result_hash=ZERO, fee_mask=0, shares=(MicroCyx(0),) * k, slashed=MicroCyx(0),
    ))  # fmt: skip
    work.move_tokens(work.metas[4].address, work.metas[3].address, budget)


def seat(work: Work) -> None:
    require(len(work.data) == 1, 101)
    require(len(work.metas) >= 4, 103)
    job, config, slot = load_job(work, 0), load_config(work, 1), work.ledger.slot
    require(len(work.metas) == 4 + job.k, 103)
    require(job.state is JobState.OPEN, 200)
    require(slot > job.open_slot, 201)
    require(slot <= job.open_slot + SEAT_DEADLINE_SLOTS, 202)
    require(work.metas[2].address == bytes(layout.SLOT_HASHES_SYSVAR), 203)
    require(job.open_slot in work.ledger.hashes, 204)
    check_payer(work, 3)
    seats: list[NodeId] = []
    last = -1
    for i in range(job.k):
        node = load_any_node(work, 4 + i)
        require(node.execution_class == job.execution_class, 205)
        require(node.active_since_slot < job.open_slot, 206)
        require(not node.unbonding_at_s, 207)
        require(node.stake >= config.minimum_stake, 208)
        require(node.node != job.requester, 209)
        ticket = seat_ticket(work.ledger.hashes[job.open_slot], job.job, node.node)
        require(ticket > last, 210)
        last = ticket
        seats.append(node.node)
    work.write(0, replace(job, state=JobState.SEATED, committee=tuple(seats)))
    work.move_lamports(work.metas[0].address, work.metas[3].address, 2 * SIGNATURE_LAMPORTS)


def _members(job: JobAccount, entries: tuple[Signed, ...], message: bytes, quorum: int) -> None:
    seen: set[bytes] = set()
    for entry in entries:
        require(read_statement(entry).message == message, 225)
        require(entry.signer in job.committee, 226)
        require(entry.signer not in seen, 227)
        seen.add(entry.signer)
    require(len(entries) >= quorum, 228)


def _verdict(job: JobAccount, verdict: int, mask: int, sequence: int, units: int, price: int, worker: bytes) -> None:
    left, named = job.units_total - job.units_paid, worker != ZERO
    require(verdict in list(Verdict), 243)
    require(price <= job.budget, 246)
    require(units <= left, 247)
    require(mask < 1 << job.k, 249)
    if verdict == Verdict.PARTIAL:
        require(units < left, 247)
        require(sequence + 1 < SETTLEMENTS_MAX, 244)
    if verdict in PAYING:
        require(named, 251)
        require(units, 248)
    elif verdict in (Verdict.FRAUD, Verdict.FAILED):
        require(named or verdict == Verdict.FAILED, 251)
        require(not units, 255)
    else:
        require(not named, 250)
        require(not units and not price, 255)
    require(worker not in job.committee, 252)
    require(worker != job.requester, 253)


def settle(work: Work) -> None:
    require(len(work.data) == 88, 101)
    verdict, mask, sequence, units, price, worker, result, round_ = struct.unpack("<xBBBIQ32s32sH6x", work.data)
    named, pays = worker != ZERO, verdict in PAYING
    require(len(work.metas) == 4 + named + 4 * pays, 103)
    job, config = load_job(work, 0), load_config(work, 1)
    require(job.state is JobState.SEATED, 240)
    require(work.ledger.unix_s < job.refund_at_s, 241)
    require(sequence == job.settlements, 242)
    _verdict(job, verdict, mask, sequence, units, price, worker)
    entries = read_statements(work, 2)
    context = quorum_context(config.genesis, work.program, job.job, job.open_slot)
    digest = sha256(b"cyx/settle" + struct.pack("<B32sQI32sB", verdict, worker, price, units, result, mask)).digest()
    message = quorum_message(QuorumKind.SETTLE, sequence, round_, context, digest)
    if verdict == Verdict.FRAUD:
        require(entries, 228)
        _members(job, entries[:-1], message, FRAUD_QUORUMS[job.k])
        require(read_statement(entries[-1]).signer == worker, 245)
        require(entries[-1].message == claim_message(sequence, context, result), 245)
    else:
        _members(job, entries, message, job.m)
    check_payer(work, 3)
    ended = replace(
        job, verdict=Verdict(verdict), fee_mask=job.fee_mask | mask, settlements=job.settlements + 1,
        worker=NodeId(worker) if named else None, result_hash=result,
        state=JobState.SEATED if verdict == Verdict.PARTIAL else JobState.SETTLED,
    )  # fmt: skip
    node = load_node(work, 4, worker) if named else None
    if pays and node:
        ended = _pay(work, config, ended, node, price, units, mask)
    elif node:
        taken = min(node.stake, 2 * price) if verdict == Verdict.FRAUD else 0
        work.write(4, replace(
            node, failures=node.failures + 1, stake=MicroCyx(node.stake - taken),
            slashed=MicroCyx(node.slashed + taken),
        ))  # fmt: skip
        ended = replace(ended, slashed=MicroCyx(taken))
    work.write(0, ended)
    work.move_lamports(work.metas[0].address, work.metas[3].address, (len(entries) + 2) * SIGNATURE_LAMPORTS)


def _pay(
    work: Work, config: ChainConfig, job: JobAccount, node: NodeAccount, price: int, units: int, mask: int
) -> JobAccount:
    require(node.execution_class == job.execution_class, 254)
    load_vault(work, 5, job.job, config)
    load_token(work, 6, associated(node.payout, config.mint), config.mint, 145)
    load_token(work, 7, associated(config.treasury, config.mint), config.mint, 146)
    check_programs(work, 8)
    amount = price * units // job.units_total
    fee = amount * job.fee_bps // BPS
    share = fee * job.verifier_share_bps // BPS
    each = share // mask.bit_count() if mask else 0
    ok = job.verdict is Verdict.OK
    work.write(4, replace(
        node, jobs_ok=node.jobs_ok + ok, fees_generated=MicroCyx(node.fees_generated + fee - share)
    ))  # fmt: skip
    vault = work.metas[5].address
    work.move_tokens(vault, work.metas[6].address, amount - fee)
    work.move_tokens(vault, work.metas[7].address, fee - share)
    shares = tuple(MicroCyx(s + (each if mask >> i & 1 else 0)) for i, s in enumerate(job.shares))
    return replace(job, paid=MicroCyx(job.paid + amount), units_paid=job.units_paid + units, shares=shares)


def _ending(work: Work) -> tuple[JobAccount, ChainConfig]:
    require(len(work.data) == 1, 101)
    require(len(work.metas) >= 7, 103)
    return load_job(work, 0), load_config(work, 1)


def close_job(work: Work) -> None:
    job, config = _ending(work)
    require(job.state is JobState.SETTLED, 260)
    _end(work, job, config)


def refund_expired(work: Work) -> None:
    job, config = _ending(work)
    require(job.state is not JobState.SETTLED, 261)
    require(work.ledger.unix_s >= job.refund_at_s, 262)
    _end(work, job, config)


def _end(work: Work, job: JobAccount, config: ChainConfig) -> None:
    owed = [(member, share) for member, share in zip(job.committee, job.shares, strict=False) if share]
    first = 7 + bool(job.slashed)
    require(len(work.metas) == first + len(owed), 103)
    load_vault(work, 2, job.job, config)
    require(work.metas[3].address == job.requester, 188)
    require(work.metas[3].writable, 105)
    load_token(work, 4, associated(job.requester, config.mint), config.mint, 147)
    load_stake_vault(work, 5, config)
    check_programs(work, 6)
    for i, (member, share) in enumerate(owed):
        node = load_node(work, first + i, member)
        work.write(first + i, replace(node, earned=MicroCyx(node.earned + share)))
    vault, stakes = work.metas[2].address, work.metas[5].address
    total = sum(share for _, share in owed)
    require(work.accounts[vault].body.amount >= total, 263)  # type: ignore[union-attr]
    work.move_tokens(vault, stakes, total)
    if job.slashed:
        load_token(work, 7, associated(config.treasury, config.mint), config.mint, 146)
        work.move_tokens(stakes, work.metas[7].address, job.slashed)
    rest = work.accounts[vault].body
    assert isinstance(rest, Token)
    work.move_tokens(vault, work.metas[4].address, rest.amount)
    for address in (vault, work.metas[0].address):
        work.move_lamports(address, job.requester, work.accounts[address].lamports)
