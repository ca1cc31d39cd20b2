"""How a wallet looks: its balance, its node, its history; as text for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocol.chain import Balance, ChainConfig, NodeAccount
from ..protocol.scoring import reputation_ppm
from ..protocol.standing import Standing, standing, until_text, utc_text
from ..protocol.units import base58, format_cyx, format_sol
from .text import plain

if TYPE_CHECKING:
    from ..ledger.wallet_history import Entry


def standing_text(account: NodeAccount, config: ChainConfig, unix_s: int) -> str:
    """How a node stands, and what its owner can do about it."""
    match standing(account, config, unix_s):
        case Standing.ACTIVE:
            return "active"
        case Standing.BELOW_MINIMUM:
            return f"below the minimum stake of {format_cyx(config.minimum_stake)} CYX: not drawn for committees"
        case Standing.UNBONDING:
            return f"unbonding until {until_text(account.unbonding_at_s, unix_s)}"
        case Standing.WITHDRAWABLE:
            return "withdrawable: the unbonding time is over (cyxnode wallet withdraw)"
        case Standing.WITHDRAWN:
            return "without stake: it does not serve"
        case Standing.RETIRED:
            return "retired: convicted of equivocation, this key is never a node again"


def node_json(account: NodeAccount, config: ChainConfig, unix_s: int) -> dict[str, Any]:
    """A node's record."""
    return {
        "standing": standing(account, config, unix_s).name.lower(),
        "stake_micro_cyx": account.stake,
        "unbonding_at_s": account.unbonding_at_s or None,
        "earned_micro_cyx": account.earned,
        "payout": base58(account.payout),
        "execution_class": account.execution_class.hex(),
        "active_since_slot": account.active_since_slot,
        "jobs_ok": account.jobs_ok,
        "failures": account.failures,
        "fees_generated_micro_cyx": account.fees_generated,
        "slashed_micro_cyx": account.slashed,
        "reputation_ppm": reputation_ppm(account),
    }


def balance_json(
    address: bytes, balance: Balance, account: NodeAccount | None, config: ChainConfig, unix_s: int
) -> dict[str, Any]:
    """What an address owns, and its node if it is one."""
    return {
        "address": base58(address),
        "micro_cyx": balance.micro_cyx,
        "lamports": balance.lamports,
        "node": node_json(account, config, unix_s) if account is not None else None,
    }


def balance_lines(
    address: bytes, balance: Balance, account: NodeAccount | None, config: ChainConfig, unix_s: int
) -> list[str]:
    """The same for people."""
    rows = [
        ("address", base58(address)),
        ("CYX", format_cyx(balance.micro_cyx)),
        ("SOL", format_sol(balance.lamports)),
    ]
    if account is None:
        rows.append(("node", "not registered"))
    else:
        ppm = reputation_ppm(account)
        rows += [
            ("node", standing_text(account, config, unix_s)),
            ("stake", f"{format_cyx(account.stake)} CYX"),
            ("earned", f"{format_cyx(account.earned)} CYX, not withdrawn yet"),
            ("payout", "this wallet" if account.payout == address else base58(account.payout)),
            ("record", f"{account.jobs_ok} jobs OK, {account.failures} failures"),
            ("fees", f"{format_cyx(account.fees_generated)} CYX brought to the treasury"),
            ("slashed", f"{format_cyx(account.slashed)} CYX"),
            ("reputation", f"{ppm // 10_000}.{ppm % 10_000:04d} %"),
        ]
    return [f"{name:12} {value}" for name, value in rows]


def entry_json(entry: Entry) -> dict[str, Any]:
    """One transaction."""
    return {
        "signature": entry.signature,
        "slot": entry.slot,
        "unix_s": entry.unix_s,
        "what": list(entry.what),
        "micro_cyx": entry.micro_cyx,
        "lamports": entry.lamports,
        "fee_lamports": entry.fee,
        "error": entry.error,
    }


def entry_lines(entry: Entry) -> list[str]:
    """The same for people: when and how much, what, and the name of the transaction."""
    when = utc_text(entry.unix_s) if entry.unix_s is not None else f"slot {entry.slot}"
    amounts = [f"{'+' if amount > 0 else ''}{text} {unit}" for amount, text, unit in _amounts(entry) if amount]
    fee = [f"(fee {format_sol(entry.fee)})"] if entry.fee else []
    what = [f"  {'tried: ' if entry.error else ''}{plain(line)}" for line in entry.what]
    failed = [f"  failed: {plain(entry.error)}"] if entry.error else []
    return ["  ".join([when, *amounts, *fee]), *what, *failed, f"  {entry.signature}"]


def _amounts(entry: Entry) -> list[tuple[int, str, str]]:
    return [
        (entry.micro_cyx, format_cyx(entry.micro_cyx), "CYX"),
        (entry.lamports, format_sol(entry.lamports), "SOL"),
    ]
