"""The instructions about the program itself and about nodes: every check in its order, then what changes."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256

from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol.chain import ChainConfig, NodeAccount
from cyxnode.protocol.hashing import QuorumKind, quorum_context
from cyxnode.protocol.limits import AMOUNT_MAX, FEE_BPS_MAX
from cyxnode.protocol.units import JobId, MicroCyx, NodeId

from .checks import (
    check_funding,
    check_payer,
    check_programs,
    create_account,
    load_any_node,
    load_config,
    load_node,
    load_stake_vault,
    load_token,
    read_statement,
    read_statements,
)
from .ledger import (
    TOKEN,
    TOKEN_BYTES,
    Mint,
    Token,
    Work,
    associated,
    derived,
    require,
)

BPS, TIME_MAX, ZERO = 10_000, 1 << 40, bytes(32)


def initialise(work: Work) -> None:
    require(len(work.data) == 96, 101)
    require(len(work.metas) == 7, 103)
    fee, share, genesis, treasury, minimum, unbonding, grace = struct.unpack("<4xHH32s32sQQQ", work.data)
    check_payer(work, 0)
    check_programs(work, 4, 5)
    mint = work.account(3)
    require(isinstance(mint.body, Mint) and mint.body.decimals == 6, 124)
    require(fee <= FEE_BPS_MAX, 125)
    require(share <= BPS, 126)
    require(0 < minimum <= AMOUNT_MAX, 127)
    require(unbonding <= TIME_MAX and grace < unbonding, 128)
    require(treasury != ZERO, 129)
    require(genesis != ZERO, 131)
    require(work.metas[6].address == derived("program_data", work.program), 132)
    admin, mint_key = work.metas[0].address, work.metas[3].address
    require(admin == work.ledger.authority, 133)
    require(work.metas[2].address == derived("stake_vault", work.program), 130)
    create_account(work, 0, 2, TOKEN_BYTES, TOKEN, Token(mint_key, derived("config", work.program), 0))
    require(work.metas[1].address == derived("config", work.program), 120)
    create_account(work, 0, 1, layout.CONFIG_BYTES, work.program, None)
    work.write(1, ChainConfig(admin, genesis, mint_key, treasury, fee, share, MicroCyx(minimum), unbonding, grace))


def register(work: Work) -> None:
    require(len(work.data) == 80, 101)
    require(len(work.metas) == 7, 103)
    stake, execution_class, payout = struct.unpack("<8xQ32s32s", work.data)
    check_payer(work, 0)
    check_programs(work, 5, 6)
    require(execution_class != ZERO, 163)
    require(payout != ZERO, 164)
    config = load_config(work, 1)
    load_stake_vault(work, 4, config)
    signer = work.metas[0].address
    check_funding(work, 3, signer, config.mint, stake)
    if work.account(2).owner == work.program:
        node = load_node(work, 2, signer)
    else:
        require(work.metas[2].address == derived("node", work.program, signer), 160)
        create_account(work, 0, 2, layout.NODE_BYTES, work.program, None)
        none = MicroCyx(0)
        node = NodeAccount(NodeId(signer), ZERO, 0, ZERO, none, none, none, 0, 0, none, 0)
    require(not node.retired, 167)
    require(node.stake + stake <= AMOUNT_MAX, 166)
    require(node.stake + stake >= config.minimum_stake, 165)
    keeps = node.stake >= config.minimum_stake and not node.unbonding_at_s and node.execution_class == execution_class
    since = node.active_since_slot if keeps else work.ledger.slot
    work.write(2, replace(
        node, stake=MicroCyx(node.stake + stake), unbonding_at_s=0, execution_class=execution_class, payout=payout,
        active_since_slot=since,
    ))  # fmt: skip
    work.move_tokens(work.metas[3].address, work.metas[4].address, stake)


def request_unstake(work: Work) -> None:
    require(len(work.data) == 1, 101)
    require(len(work.metas) == 3, 103)
    require(work.metas[0].signer, 104)
    config = load_config(work, 1)
    node = load_node(work, 2, work.metas[0].address)
    require(node.stake, 168)
    require(not node.unbonding_at_s, 169)
    work.write(2, replace(node, unbonding_at_s=work.ledger.unix_s + config.unbonding_s))


def _withdrawal(work: Work) -> NodeAccount:
    require(len(work.data) == 1, 101)
    require(len(work.metas) == 5, 103)
    config = load_config(work, 0)
    node = load_any_node(work, 1)
    require(work.metas[1].writable, 105)
    load_stake_vault(work, 2, config)
    load_token(work, 3, associated(node.payout, config.mint), config.mint, 145)
    check_programs(work, 4)
    return node


def withdraw_stake(work: Work) -> None:
    node = _withdrawal(work)
    require(node.unbonding_at_s, 170)
    require(work.ledger.unix_s >= node.unbonding_at_s, 171)
    work.write(1, replace(node, stake=MicroCyx(0), unbonding_at_s=0))
    work.move_tokens(work.metas[2].address, work.metas[3].address, node.stake)


def withdraw_earned(work: Work) -> None:
    node = _withdrawal(work)
    require(node.earned, 172)
    work.write(1, replace(node, earned=MicroCyx(0)))
    work.move_tokens(work.metas[2].address, work.metas[3].address, node.earned)


def slash_equivocation(work: Work) -> None:
    require(len(work.data) == 112, 101)
    require(len(work.metas) == 6, 103)
    job, open_slot, first, second = struct.unpack("<8x32sQ32s32s", work.data)
    config, node = load_config(work, 0), load_any_node(work, 1)
    require(work.metas[1].writable, 105)
    require(not node.retired, 167)
    load_stake_vault(work, 2, config)
    load_token(work, 3, associated(config.treasury, config.mint), config.mint, 146)
    check_programs(work, 4)
    entries = read_statements(work, 5)
    require(len(entries) == 2, 280)
    one, other = read_statement(entries[0]), read_statement(entries[1])
    require(one.signer == node.node and other.signer == node.node, 281)
    head = one.message[:8]
    require(head == other.message[:8], 283)
    require(QuorumKind.AWARD <= head[4] <= QuorumKind.SETTLE, 282)
    context = quorum_context(config.genesis, work.program, JobId(job), open_slot)
    for message, digest in ((one.message, first), (other.message, second)):
        require(message == b"CYX1" + head[4:] + sha256(context + digest).digest(), 285)
    require(first != second, 284)
    work.write(1, replace(
        node, stake=MicroCyx(0), retired=True, unbonding_at_s=0, slashed=MicroCyx(node.slashed + node.stake)
    ))  # fmt: skip
    work.move_tokens(work.metas[2].address, work.metas[3].address, node.stake)
